"""KGCN, from "Knowledge Graph Convolutional Networks for Recommender Systems".

H. Wang, M. Zhao, X. Xie, W. Li, M. Guo; WWW 2019; arXiv:1904.12575.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from torch import Tensor

from mgwa_pyg.nn import KGCN
from mgwa_pyg.recommenders.neighborhood import NeighborhoodConfig, NeighborhoodRecommender

if TYPE_CHECKING:
    from typing_extensions import Self


@dataclass(frozen=True)
class KGCNConfig(NeighborhoodConfig):
    r"""The hyper-parameters of :class:`~mgwa_pyg.nn.KGCN`.

    Its L2 regularisation covers all embeddings, as MGWA's does, and the matrices of the layers.

    Args:
        equations (str): Whether the published equations are followed or the official code:
            :obj:`"paper"` or :obj:`"official"`.
    """

    model = "kgcn"

    fusion: str = "sum"
    equations: str = "paper"

    @classmethod
    def for_ranking(cls) -> Self:
        return cls(loss="ranking", channels=64, lr=5e-3, weight_decay=1e-5, passes=8, epochs=10, patience=3)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.equations == "official" and self.fanout is None:
            raise ValueError(
                "fanout=None keeps all neighbours, but equations='official' divides by their number: "
                "choose a fanout, or equations='paper'"
            )


class KGCNRecommender(NeighborhoodRecommender):
    """:class:`~mgwa_pyg.nn.KGCN` on sampled neighbourhoods of the items."""

    config_class = KGCNConfig
    model_class = KGCN
    config: KGCNConfig

    def model_options(self) -> dict[str, Any]:
        options: dict[str, Any] = {"equations": self.config.equations}
        if self.config.fanout is not None:
            options["num_neighbors"] = self.config.fanout
        return options

    def decayed(self) -> list[Tensor]:
        return [parameter for parameter in self.model.parameters() if parameter.dim() > 1]
