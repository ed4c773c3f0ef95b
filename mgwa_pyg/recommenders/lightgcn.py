"""LightGCN, from "LightGCN: Simplifying and Powering Graph Convolution Network for Recommendation".

X. He, K. Deng, X. Wang, Y. Li, Y. Zhang, M. Wang; SIGIR 2020; arXiv:2002.02126.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch_geometric.nn import LightGCN
from torch_geometric.utils import to_undirected

from mgwa_pyg.datasets import KGRecDataset
from mgwa_pyg.datasets.ids import Rows
from mgwa_pyg.recommenders.base import FitConfig, KGRecommender, Trial

if TYPE_CHECKING:
    from typing_extensions import Self


@dataclass(frozen=True)
class LightGCNConfig(FitConfig):
    r"""The hyper-parameters of PyG's :class:`~torch_geometric.nn.models.LightGCN`.

    The L2 regularisation is that of its :obj:`recommendation_loss`: :math:`\lambda` times the sum of squares
    of the embeddings of a batch's users and items, each counted once, divided by the number of pairs.
    """

    model = "lightgcn"
    needs_relations = False
    weight_decays = (1e-5, 1e-1)

    num_layers: int = 3
    channels: int = 64
    weight_decay: float = 3e-2
    batch_size: int = 2048

    @classmethod
    def for_ranking(cls) -> Self:
        return cls(loss="ranking", lr=2e-2, weight_decay=2e-4, passes=5, epochs=12, patience=4)

    def suggested(self, trial: Trial) -> Self:
        return replace(super().suggested(trial), num_layers=trial.suggest_int("num_layers", 1, 4))


class LightGCNRecommender(KGRecommender):
    """PyG's :class:`~torch_geometric.nn.models.LightGCN` on the training positives, without the knowledge
    graph. Every step passes messages along all of them. A newcomer has no embedding.
    """

    config_class = LightGCNConfig
    model: LightGCN
    config: LightGCNConfig
    # Every call passes messages through the whole graph, however few its pairs are.
    eval_batch_size = 2**20

    def __init__(self, dataset: KGRecDataset, config: LightGCNConfig, seed: int) -> None:
        super().__init__(dataset, config, seed)
        # Items come first: negatives may be any entity.
        self._first_user = dataset.num_entities if dataset.negatives == "entities" else dataset.num_items
        self.model = LightGCN(self._first_user + dataset.num_users, config.channels, config.num_layers)
        self.edge_index = to_undirected(self._nodes(*self.seen), num_nodes=self.model.num_nodes)

    def to(self, device: torch.device | str) -> LightGCNRecommender:
        super().to(device)
        self.edge_index = self.edge_index.to(device)
        return self

    # In training

    def train_step(self, user: Tensor, item: Tensor, *key: Tensor) -> tuple[Tensor, Tensor | float]:
        nodes = self._nodes(user, item)
        start = self.model.embedding(nodes.unique())
        penalty = self.config.weight_decay * start.square().sum() / max(user.numel(), 1)
        return self.model(self.edge_index, nodes), penalty

    # Outside training

    def score(
        self, user: Tensor, item: Tensor, generator: torch.Generator | None = None, *key: Tensor
    ) -> Tensor:
        return self.model(self.edge_index, self._nodes(user, item))

    def score_all(self, user: Tensor, generator: torch.Generator | None = None) -> Tensor:
        z = self._z if self.in_use else self.model.get_embedding(self.edge_index)
        return z[self._first_user + user] @ z[: self.num_items].t()

    # On other data

    def tables(self) -> dict[str, tuple[str, ...]]:
        kind = "item" if self._first_user == self.num_items else "entity"
        return {"embedding.weight": (kind, "user")}

    def start_rows(self, rows: Rows) -> None:
        # They are what messages of their neighbours make of them.
        new = torch.cat([rows.entity[: self._first_user] < 0, rows.user < 0])
        self.model.embedding.weight[new] = 0.0

    @property
    def knows_items_by(self) -> tuple[str, ...]:
        return ("interactions",)

    # In use

    def prepare(self) -> None:
        super().prepare()
        self._z = self.model.get_embedding(self.edge_index)

    def score_newcomer(self, items: Tensor) -> Tensor:
        raise NotImplementedError(
            f"model={self.config.model!r} scores no items for newcomers: it knows a user by an embedding, "
            f"which only training gives"
        )

    def item_vectors(self) -> Tensor:
        return self._z[: self.num_items]

    def vectors(self, dimensions: int | None = None) -> tuple[Tensor, Tensor]:
        return self._z[self._first_user :], self._z[: self.num_items]

    def _nodes(self, user: Tensor, item: Tensor) -> Tensor:
        r"""The nodes of :math:`n` users and items, :math:`(2, n)`."""
        return torch.stack([self._first_user + user, item])
