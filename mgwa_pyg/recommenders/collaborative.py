"""CollaborativeMGWA, our own model: users pass messages, and what is to be predicted passes none."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import cast

import torch
import torch.nn.functional as F
from sklearn.linear_model import LogisticRegression
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from mgwa_pyg.datasets import KGRecDataset
from mgwa_pyg.nn import CollaborativeMGWA, GatedAggregationConv
from mgwa_pyg.ops import RelationCSR
from mgwa_pyg.recommenders.base import FitConfig, KGRecommender, UserOrItems
from mgwa_pyg.recommenders.contributions import Contributions, Layers, LogitModel, contributions

# Scores of the ranking loss that are in memory at once; they are computed anew for the gradients.
_CELLS = 2**23


@dataclass(frozen=True)
class CollaborativeConfig(FitConfig):
    r"""The hyper-parameters of :class:`~mgwa_pyg.nn.CollaborativeMGWA`.

    A step predicts a share of the training positives that is left out of its graph, against as many fresh
    negatives. Shares follow one another until all positives were predicted, :obj:`passes` times an epoch. The
    L2 regularisation is Adam's, on all parameters.

    Args:
        hold_out (float): The share of the training positives that a step predicts and leaves out of the
            graph; :obj:`0` predicts all of them at every step, and leaves all in.
        passes (int): How often an epoch predicts each training positive.
        fusion (str): The fusion of the layers.
        attention (bool): Whether relations are told apart.
        knowledge_graph (bool): Whether the triples are in the graph, or interactions alone.
        dropout (float): Dropout probability of what nodes start from.
        degree_power (float): The power of the number of edges that neighbourhoods are multiplied by.
        loss (str): :obj:`"click"`, binary cross-entropy, judged by the AUC on the validation rows; or
            :obj:`"ranking"`, the cross-entropy of a positive among all items, judged by Recall@10 of the
            validation positives.
    """

    model = "collaborative"
    draws_negatives = True
    needs_relations = False

    num_layers: int = 2
    channels: int = 32
    lr: float = 2.6e-2
    weight_decay: float = 5.8e-5
    epochs: int = 30
    patience: int = 6
    hold_out: float = 0.28
    passes: int = 8
    fusion: str = "identity"
    attention: bool = True
    knowledge_graph: bool = True
    dropout: float = 0.18
    degree_power: float = 0.5

    @classmethod
    def for_ranking(cls) -> CollaborativeConfig:
        """Return the hyper-parameters for ranking."""
        return cls(
            loss="ranking",
            channels=64,
            lr=1e-2,
            weight_decay=2e-4,
            hold_out=0.15,
            passes=4,
            dropout=0.1,
            degree_power=0.3,
        )

    def deal(self, num_rows: int) -> tuple[int, int]:
        return math.ceil((self.hold_out or 1.0) * num_rows), self.passes

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.hold_out < 1:
            raise ValueError(f"hold_out={self.hold_out}: a share in [0, 1) is needed")


class CollaborativeRecommender(KGRecommender):
    """:class:`~mgwa_pyg.nn.CollaborativeMGWA` on the graph of all training positives, in training without
    those to be predicted. A newcomer is a node that messages reach and that sends none.
    """

    config_class = CollaborativeConfig
    model: CollaborativeMGWA
    config: CollaborativeConfig
    # Every call passes messages through the whole graph, however few its pairs are.
    eval_batch_size = 2**20

    def __init__(self, dataset: KGRecDataset, config: CollaborativeConfig, seed: int) -> None:
        super().__init__(dataset, config, seed)
        self.model = CollaborativeMGWA(
            dataset.num_items,
            dataset.num_entities,
            2 * dataset.num_relations,
            channels=config.channels,
            num_layers=config.num_layers,
            fusion=config.fusion,
            attention=config.attention,
            dropout=config.dropout,
            degree_power=config.degree_power,
        )
        kg = self.dataset[0]["entity", "kg", "entity"]
        end = kg.rel_type.numel() if config.knowledge_graph else 0
        self._kg = kg.edge_index[:, :end], kg.rel_type[:end]
        self._num_users = dataset.num_users
        self._key = self._pair_key(*self.seen)
        self._plan: RelationCSR | None = None
        self.users_at_once = max(1, 2**21 // self.num_items)

    def to(self, device: torch.device | str) -> CollaborativeRecommender:
        super().to(device)
        self._kg = self._kg[0].to(device), self._kg[1].to(device)
        self._key = self._key.to(device)
        self._plan = None
        return self

    @property
    def plan(self) -> RelationCSR:
        """The graph of all training positives."""
        if self._plan is None:
            self._plan = self.model.graph(self.seen, *self._kg, self._num_users)
        return self._plan

    # In training

    def decayed(self) -> list[Tensor]:
        return list(self.model.parameters())

    def loss(self, user: Tensor, item: Tensor, label: Tensor, *key: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        if self.config.hold_out > 0:
            visible = self.seen[:, ~torch.isin(self._key, self._pair_key(user, item))]
            z_user, z_item = self.model.encode(self.model.graph(visible, *self._kg, self._num_users))
        else:
            visible = self.seen[:, :0]  # The graph shows what is to be predicted, a candidate all the same.
            z_user, z_item = self.model.encode(self.plan)
        other = user[self._negatives.num_left[user] > 0]  # Who has seen all has positives only.
        pairs = torch.cat([user, other]), torch.cat([item, self._negatives.draw(other)])
        logit = (z_user[pairs[0]] * z_item[pairs[1]]).sum(dim=-1)
        label = torch.cat([label, label.new_zeros(other.numel())])
        if self.config.loss == "click":
            return F.binary_cross_entropy_with_logits(logit, label), logit, label
        distinct, row = user.unique(return_inverse=True)
        z_candidate = z_item[: self.num_items]
        # What the graph shows a user to have seen is no candidate, as it is none when recommending.
        parts = [
            checkpoint(
                _log_sum_of_candidates,
                z_user[part],
                z_candidate,
                _cells(part, visible),
                use_reentrant=False,
                preserve_rng_state=False,
            )
            for part in distinct.split(max(1, _CELLS // self.num_items))
        ]
        return (torch.cat(parts)[row] - logit[: user.numel()]).mean(), logit, label

    def calibrate(self, user: Tensor, item: Tensor, logit: Tensor, label: Tensor) -> Tensor:
        # A held-out graph says less of an item than the whole one: how much a count is worth there is learned
        # from rows of neither. The user's count would do the same for users, but each user has as many
        # negatives as positives in all: it would tell how many are left.
        features = torch.column_stack([logit, self.model.entity_features(self.plan)[item]]).cpu()
        if label.unique().numel() == 2:
            regression = LogisticRegression(C=100.0, max_iter=1000).fit(features.double(), label.cpu())
            weight = torch.tensor([*regression.coef_[0], *regression.intercept_])
            self.model.calibration.copy_(weight)
        return self.calibrated(item, logit)

    def _pair_key(self, user: Tensor, item: Tensor) -> Tensor:
        return user * self.num_items + item

    # Outside training

    def calibrated(self, item: Tensor, logit: Tensor) -> Tensor:
        weight = self.model.calibration
        return weight[0] * logit + self.model.entity_features(self.plan)[item] @ weight[1:-1] + weight[-1]

    def score(
        self, user: Tensor, item: Tensor, generator: torch.Generator | None = None, *key: Tensor
    ) -> Tensor:
        return self.model(user, item, self.plan)

    def score_all(self, user: Tensor, generator: torch.Generator | None = None) -> Tensor:
        z_user, z_entity = self._z if self.in_use else self.model.encode(self.plan)
        return z_user[user] @ z_entity[: self.num_items].t()

    # In use

    def prepare(self) -> None:
        super().prepare()
        self._states = self.model.states(self.plan)
        z_user, z_entity = self.model.read_out(self._states, self.plan)
        self._z = z_user, z_entity[: self.num_items]

    def score_newcomer(self, items: Tensor) -> Tensor:
        return self._z[1] @ self._vector(items)

    def item_vectors(self) -> Tensor:
        return self._z[1][:, :-1]

    def explain(self, user: UserOrItems, item: int) -> tuple[Contributions, Contributions | None]:
        layers, depth = self._layers(), len(self._states)
        vector, bias = self._z[1][item].split([self.model.channels, 1])
        read = [self._vector(user)[:-1] / depth] * depth
        own = [state[item].unsqueeze(0) for state in self._states]
        neighbors = contributions(layers, self._states, own, layers.edges_into(item), read)
        if isinstance(user, int):
            node = self.model.num_entities + user
            own = [state[node].unsqueeze(0) for state in self._states]
            edges = layers.edges_into(node)
        else:
            own = self.model.newcomer_states(user, self._states)
            edges = user, torch.full_like(user, self.model.num_relations + 1)
        seen = contributions(layers, self._states, own, edges, [vector / depth] * depth)
        # What users start from is what they have seen.
        start = self.model.history_emb(seen.source) @ seen.weight / max(len(seen.source), 1) ** 0.5
        seen = seen._replace(own=seen.own - start.sum(), score=seen.score + start)
        return neighbors._replace(bias=bias[0]), seen._replace(bias=bias[0])

    def logit_model(self, user: UserOrItems, item: int) -> LogitModel:
        depth = len(self._states)
        read = [self._vector(user)[:-1] / depth] * depth
        return LogitModel(self._layers(), self._states[0], item, read, self._z[1][item, -1])

    def _layers(self) -> Layers:
        convs = [cast(GatedAggregationConv, conv) for conv in self.model.convs]
        return Layers(convs, self.plan, typed=self.model.attention)

    def _vector(self, user: UserOrItems) -> Tensor:
        if isinstance(user, int):
            return self._z[0][user]
        states = self.model.newcomer_states(user, self._states)
        z = sum(states[1:], states[0])[0] / len(states)
        return torch.cat([z, z.new_ones(1)])


def _cells(user: Tensor, seen: Tensor) -> tuple[Tensor, Tensor]:
    """Return where what some users, ascending, have seen stands in a table of these users and all items."""
    seen = seen[:, torch.isin(seen[0], user)]
    return torch.searchsorted(user, seen[0]), seen[1]


def _log_sum_of_candidates(z_user: Tensor, z_item: Tensor, seen: tuple[Tensor, Tensor]) -> Tensor:
    r"""Return the logarithm of the sum of the exponentials of each user's scores, :math:`(n)`, without those
    of the cells that were seen.
    """
    score = z_user @ z_item.t()
    return score.index_put(seen, score.new_tensor(-torch.inf)).logsumexp(dim=1)
