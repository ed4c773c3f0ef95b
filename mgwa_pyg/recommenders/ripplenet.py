"""RippleNet, from "RippleNet: Propagating User Preferences on the Knowledge Graph for Recommender Systems".

H. Wang, F. Zhang, J. Wang, M. Zhao, W. Li, X. Xie, M. Guo; CIKM 2018; arXiv:1803.03467.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch_geometric.utils import scatter

from mgwa_pyg.datasets import KGRecDataset
from mgwa_pyg.nn import RippleNet
from mgwa_pyg.recommenders.base import FitConfig, KGRecommender, Trial, UserOrItems
from mgwa_pyg.recommenders.contributions import Contributions
from mgwa_pyg.sampler import ripple_sets

if TYPE_CHECKING:
    from typing_extensions import Self


@dataclass(frozen=True)
class RippleNetConfig(FitConfig):
    r"""The hyper-parameters of :class:`~mgwa_pyg.nn.RippleNet`.

    Size, hops, memory and :obj:`kge_weight` are those published for Last.FM; published with them are
    :obj:`lr=5e-3` and :obj:`weight_decay=1e-5`, which do worse on validation rows than the defaults. The L2
    regularisation is that of the official code: :math:`\lambda` times the sum of squares of all that a
    batch's ripple sets hold.

    Args:
        memory_size (int): Triples in each ripple set.
        item_update (str): How an item changes from hop to hop.
        kge_weight (float): The weight of the loss that fits the triples.
        directed (bool): Whether ripples follow triples from head to tail alone, as in the official code.
    """

    model = "ripplenet"
    weight_decays = (1e-8, 1e-5)

    num_layers: int = 3
    lr: float = 2e-3
    weight_decay: float = 1e-7
    memory_size: int = 32
    item_update: str = "plus_transform"
    kge_weight: float = 0.02
    directed: bool = True

    @classmethod
    def for_ranking(cls) -> Self:
        return cls(loss="ranking", passes=2, epochs=10, patience=3)

    def suggested(self, trial: Trial) -> Self:
        return replace(super().suggested(trial), num_layers=trial.suggest_int("num_layers", 1, 3))


class RippleNetRecommender(KGRecommender):
    """:class:`~mgwa_pyg.nn.RippleNet` on the ripple sets of users, which are drawn once. A newcomer is a
    memory of triples, as every user is.
    """

    config_class = RippleNetConfig
    edge_part = "memory"
    model: RippleNet
    config: RippleNetConfig

    def __init__(self, dataset: KGRecDataset, config: RippleNetConfig, seed: int) -> None:
        super().__init__(dataset, config, seed)
        data, num_relations = self.dataset[0], dataset.num_relations
        self.model = RippleNet(
            data["entity"].num_nodes,
            num_relations,
            channels=config.channels,
            num_hops=config.num_layers,
            item_update=config.item_update,
        )
        kg = data["entity", "kg", "entity"]
        kept = kg.rel_type < (num_relations if config.directed else 2 * num_relations)
        self.edge_index = kg.edge_index[:, kept]
        self.edge_type = kg.rel_type[kept] % num_relations
        self.memory = self._ripple_sets(self.seen, data["user"].num_nodes)
        # The items' products with the memories are the largest that is made.
        self.users_at_once = max(1, 2**22 // (self.num_items * config.num_layers * config.memory_size))

    def to(self, device: torch.device | str) -> RippleNetRecommender:
        super().to(device)
        self.edge_index, self.edge_type = self.edge_index.to(device), self.edge_type.to(device)
        self.memory = self.memory.to(device)
        return self

    # In training

    def train_step(self, user: Tensor, item: Tensor, *key: Tensor) -> tuple[Tensor, Tensor | float]:
        memory = self._with_triples(self.memory[user])
        penalty = self.config.kge_weight * self.model.kge_loss(*memory)
        penalty = penalty + self.config.weight_decay * self.model.embedding_penalty(*memory)
        return self.model(item, *memory), penalty

    # Outside training

    def score(
        self, user: Tensor, item: Tensor, generator: torch.Generator | None = None, *key: Tensor
    ) -> Tensor:
        return self.model(item, *self._with_triples(self.memory[user]))

    def score_all(self, user: Tensor, generator: torch.Generator | None = None) -> Tensor:
        return self._score_all(self.memory[user])

    # On other data

    def tables(self) -> dict[str, tuple[str, ...]]:
        return {"entity_emb.weight": ("entity",), "relation": ("relation",)}

    # In use

    def score_newcomer(self, items: Tensor) -> Tensor:
        return self._score_all(self._memory(items))[0]

    def item_vectors(self) -> Tensor:
        return self.model.entity_emb.weight[: self.num_items]

    def explain(self, user: UserOrItems, item: int) -> tuple[Contributions, Contributions | None]:
        memory = self._memory(user)
        node = torch.tensor([item], device=self.device)
        part, attention = self.model.parts(node, *self._with_triples(memory))
        found = memory.flatten() >= 0
        # A triple that was drawn several times is one part.
        triple, place = memory.flatten()[found].unique(return_inverse=True)
        return Contributions(
            own=part.new_zeros(()),
            source=self.edge_index[1, triple],
            relation=self.edge_type[triple],
            attention=scatter(attention.flatten()[found], place, dim_size=len(triple)),
            score=scatter(part.flatten()[found], place, dim_size=len(triple)),
            constant=part.new_zeros(()),
        ), None

    def _score_all(self, memory: Tensor) -> Tensor:
        if self.in_use and (memory < 0).flatten(1).all(dim=1).any():
            warnings.warn(
                "RippleNet knows nothing of a user whose items have no triple in the knowledge graph: all "
                "items have the score 0, and come in the order of the data. Recommend popular ones in their "
                "place, or ask another model.",
                stacklevel=2,
            )
        item = torch.arange(self.num_items, device=memory.device).expand(len(memory), -1)
        return self.model(item, *self._with_triples(memory))

    def _with_triples(self, memory: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return memory, self.edge_index, self.edge_type

    def _memory(self, user: UserOrItems) -> Tensor:
        if isinstance(user, int):
            return self.memory[user].unsqueeze(0)
        return self._ripple_sets(torch.stack([torch.zeros_like(user), user]), 1)

    def _ripple_sets(self, seen: Tensor, num_users: int) -> Tensor:
        r"""The ripple sets of users who have seen these items, :math:`(U, H, M)`, the same ones always and
        everywhere: they are drawn on the CPU.
        """
        memory = ripple_sets(
            seen.cpu(),
            self.edge_index.cpu(),
            num_users=num_users,
            num_nodes=self.model.entity_emb.num_embeddings,
            num_hops=self.config.num_layers,
            size=self.config.memory_size,
            generator=torch.Generator().manual_seed(self.seed),
        )
        return memory.to(seen.device)
