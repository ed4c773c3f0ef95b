"""MGWA, from "Music Recommendation Model Based on Graph Neural Network with Weighted Aggregation".

H. Xiao, D. Sun, F. You; Software Engineering and Applications 13(1), 2024; DOI 10.12677/SEA.2024.131010.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from torch import Tensor

from mgwa_pyg.nn import MGWA
from mgwa_pyg.recommenders.neighborhood import NeighborhoodConfig, NeighborhoodRecommender

if TYPE_CHECKING:
    from typing_extensions import Self


@dataclass(frozen=True)
class MGWAConfig(NeighborhoodConfig):
    r"""The hyper-parameters of :class:`~mgwa_pyg.nn.MGWA`.

    Its L2 regularisation is :math:`\frac{\lambda}{2} \Vert \mathbf{E} \Vert^2` over the embeddings of all
    users, entities and relations.

    Args:
        score_activation (str, optional): The activation of the attention's scores.
    """

    model = "mgwa"

    channels: int = 8
    weight_decay: float = 3e-4
    score_activation: str | None = "sigmoid"

    @classmethod
    def for_ranking(cls) -> Self:
        return cls(loss="ranking", channels=64, lr=5e-3, weight_decay=1e-5, passes=8, epochs=10, patience=3)


class MGWARecommender(NeighborhoodRecommender):
    """:class:`~mgwa_pyg.nn.MGWA` on sampled neighbourhoods of the items."""

    config_class = MGWAConfig
    model_class = MGWA
    config: MGWAConfig

    def model_options(self) -> dict[str, Any]:
        return {"score_activation": self.config.score_activation}

    def decayed(self) -> list[Tensor]:
        model = self.model
        return [model.user_emb.weight, model.entity_emb.weight, model.relation_emb.weight]
