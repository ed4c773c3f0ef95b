"""Scorers: a model and what it looks at, so that pairs of user and item go in and logits come out."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from sklearn.linear_model import LogisticRegression
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from mgwa_pyg.datasets import KGRecDataset
from mgwa_pyg.datasets.interactions import interactions
from mgwa_pyg.nn import KGCN, MGWA, CollaborativeMGWA, RippleNet
from mgwa_pyg.ops import RelationCSR
from mgwa_pyg.sampler import NegativeSampler, NeighborSampler, ripple_sets
from mgwa_pyg.train.config import (
    CollaborativeConfig,
    FitConfig,
    KGCNConfig,
    MGWAConfig,
    NeighborhoodConfig,
    RippleNetConfig,
)

# Scores of the ranking loss that are in memory at once; they are computed anew for the gradients.
_CELLS = 2**23


class Scorer:
    """Base class: one scorer for each kind of model.

    Args:
        dataset (KGRecDataset): The data set, for its knowledge graph, training positives and sizes.
        config (FitConfig): The hyper-parameters.
        seed (int): The seed of what is drawn once for all.
    """

    model: torch.nn.Module
    #: Pairs scored at once outside training, where neighbourhoods are whole.
    eval_batch_size: ClassVar[int] = 2048

    def __init__(self, dataset: KGRecDataset, config: FitConfig, seed: int) -> None:
        raise NotImplementedError

    def to(self, device: torch.device | str) -> Scorer:
        """Move what the model looks at, but not the model, which belongs to its trainer."""
        raise NotImplementedError

    def decayed(self) -> list[Tensor]:
        """The parameters whose squares the optimizer keeps small."""
        return []

    def start_from(self, entity: Tensor, relation: Tensor) -> None:
        r"""Start from other embeddings of entities, :math:`(N, d)`, and relations, :math:`(R, d)`."""
        raise NotImplementedError(f"{type(self.model).__name__} cannot start from other embeddings")

    def train_step(self, user: Tensor, item: Tensor) -> tuple[Tensor, Tensor | float]:
        r"""Return the logits in training, :math:`(B)`, and what is added to their loss."""
        raise NotImplementedError

    def loss(self, user: Tensor, item: Tensor, label: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the loss of a batch, and logits and labels that show how it goes."""
        logit, penalty = self.train_step(user, item)
        return F.binary_cross_entropy_with_logits(logit, label) + penalty, logit, label

    def calibrate(self, user: Tensor, item: Tensor, logit: Tensor, label: Tensor) -> Tensor:
        """Learn from the validation rows, whose logits these are, what probabilities logits stand for, and
        return the calibrated logits. Most models are taken at their word.
        """
        return logit

    def calibrated(self, item: Tensor, logit: Tensor) -> Tensor:
        """Return logits as :meth:`calibrate` came to read them."""
        return logit

    def score(self, user: Tensor, item: Tensor, generator: torch.Generator) -> Tensor:
        r"""Return the logits of :math:`B` pairs outside training, :math:`(B)`."""
        raise NotImplementedError

    def score_all(self, user: Tensor, num_items: int, generator: torch.Generator) -> Tensor:
        r"""Return the logits of all items for :math:`n` users, :math:`(n, \textrm{num\_items})`."""
        item = torch.arange(num_items, device=user.device)
        logit = self.score(user.repeat_interleave(num_items), item.repeat(user.numel()), generator)
        return logit.view(user.numel(), num_items)


class NeighborhoodScorer(Scorer):
    """MGWA and KGCN: items with their neighbourhoods.

    Outside training neighbourhoods are whole where there is one layer; those of pairs grow too large for that
    with more and are sampled. Rankings need no neighbourhoods of pairs and look at the whole graph always.
    """

    model_class: ClassVar[type[MGWA] | type[KGCN]]
    model: MGWA | KGCN

    def __init__(self, dataset: KGRecDataset, config: NeighborhoodConfig, seed: int) -> None:
        # The inverse of a relation is taken to be the same relation, as the paper does.
        data, num_relations = dataset[0], dataset.num_relations
        num_entities = data["entity"].num_nodes
        self.model = self.model_class(
            data["user"].num_nodes,
            num_entities,
            num_relations,
            channels=config.channels,
            num_layers=config.num_layers,
            fusion=config.fusion,
            **self._options(config),
        )
        self._depth = config.num_layers
        kg = data["entity", "kg", "entity"]
        edge_index, edge_type = kg.edge_index, kg.rel_type % num_relations
        sampler = NeighborSampler(edge_index, edge_type, num_entities, config.fanout)
        if config.resample:
            whole = config.num_layers == 1
            self._train_sampler = sampler
            self._eval_sampler = NeighborSampler(edge_index, edge_type, num_entities) if whole else sampler
        else:
            drawn = sampler.sample(torch.arange(num_entities), 1, torch.Generator().manual_seed(seed))
            edge_index, edge_type = drawn.node[drawn.edge_index], drawn.edge_type
            self._train_sampler = self._eval_sampler = NeighborSampler(edge_index, edge_type, num_entities)
        self._edges = edge_index, edge_type
        self._graph: RelationCSR | None = None

    def _options(self, config: Any) -> dict[str, Any]:
        """What only one of the models has."""
        raise NotImplementedError

    def to(self, device: torch.device | str) -> NeighborhoodScorer:
        self._train_sampler.to(device)
        self._eval_sampler.to(device)
        return self

    def start_from(self, entity: Tensor, relation: Tensor) -> None:
        with torch.no_grad():
            self.model.entity_emb.weight.copy_(entity)
            self.model.relation_emb.weight.copy_(relation)

    def train_step(self, user: Tensor, item: Tensor) -> tuple[Tensor, Tensor | float]:
        return self.model(user, *self._train_sampler.sample(item, self._depth)), 0.0

    def score(self, user: Tensor, item: Tensor, generator: torch.Generator) -> Tensor:
        return self.model(user, *self._eval_sampler.sample(item, self._depth, generator))

    def graph(self) -> RelationCSR:
        """The whole graph, on the device of the model."""
        if self._graph is None:
            size = (self.model.entity_emb.num_embeddings,) * 2
            graph = RelationCSR.from_edge_index(*self._edges, self.model.relation_emb.num_embeddings, size)
            self._graph = graph.to(self.model.entity_emb.weight.device)
        return self._graph

    def score_all(self, user: Tensor, num_items: int, generator: torch.Generator) -> Tensor:
        return self.model.score_items(user, self.graph(), num_items)


class MGWAScorer(NeighborhoodScorer):
    """MGWA."""

    model_class = MGWA

    def _options(self, config: MGWAConfig) -> dict[str, Any]:
        return {"score_activation": config.score_activation}

    def decayed(self) -> list[Tensor]:
        model = self.model
        return [model.user_emb.weight, model.entity_emb.weight, model.relation_emb.weight]


class KGCNScorer(NeighborhoodScorer):
    """KGCN."""

    model_class = KGCN

    def _options(self, config: KGCNConfig) -> dict[str, Any]:
        options: dict[str, Any] = {"equations": config.equations}
        if config.fanout is not None:
            options["num_neighbors"] = config.fanout
        return options

    def decayed(self) -> list[Tensor]:
        return [parameter for parameter in self.model.parameters() if parameter.dim() > 1]


class RippleNetScorer(Scorer):
    """RippleNet: items with the ripple sets of their user, which are drawn once."""

    model: RippleNet

    def __init__(self, dataset: KGRecDataset, config: RippleNetConfig, seed: int) -> None:
        data, num_relations = dataset[0], dataset.num_relations
        self._config = config
        self._seed = seed
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
        self.memory = self.draw_memory(interactions(data).edge_index, data["user"].num_nodes)

    def draw_memory(self, links: Tensor, num_users: int) -> Tensor:
        r"""The ripple sets of users who listened to these items, :math:`(U, H, M)`, always the same ones."""
        return ripple_sets(
            links,
            self.edge_index,
            num_users=num_users,
            num_nodes=self.model.entity_emb.num_embeddings,
            num_hops=self._config.num_layers,
            size=self._config.memory_size,
            generator=torch.Generator().manual_seed(self._seed),
        )

    def to(self, device: torch.device | str) -> RippleNetScorer:
        self.edge_index = self.edge_index.to(device)
        self.edge_type = self.edge_type.to(device)
        self.memory = self.memory.to(device)
        return self

    def train_step(self, user: Tensor, item: Tensor) -> tuple[Tensor, Tensor | float]:
        seen = (self.memory[user], self.edge_index, self.edge_type)
        penalty = self._config.kge_weight * self.model.kge_loss(*seen)
        penalty = penalty + self._config.weight_decay * self.model.embedding_penalty(*seen)
        return self.model(item, *seen), penalty

    def score(self, user: Tensor, item: Tensor, generator: torch.Generator) -> Tensor:
        return self.model(item, self.memory[user], self.edge_index, self.edge_type)

    def score_all(self, user: Tensor, num_items: int, generator: torch.Generator) -> Tensor:
        item = torch.arange(num_items, device=user.device).expand(user.numel(), -1)
        return self.score(user, item, generator)


class CollaborativeScorer(Scorer):
    """CollaborativeMGWA: the graph of all training positives, in training without those to be predicted."""

    model: CollaborativeMGWA
    # Every call passes messages through the whole graph, however few its pairs are.
    eval_batch_size = 2**20

    def __init__(self, dataset: KGRecDataset, config: CollaborativeConfig, seed: int) -> None:
        data = dataset[0]
        self._config = config
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
        kg = data["entity", "kg", "entity"]
        end = kg.rel_type.numel() if config.knowledge_graph else 0
        self._kg = kg.edge_index[:, :end], kg.rel_type[:end]
        self._links = interactions(data).edge_index
        self._num_users = dataset.num_users
        pool = dataset.num_entities if dataset.negatives == "entities" else dataset.num_items
        self._negatives = NegativeSampler(self._links, dataset.num_users, pool)
        self._key = self._pair_key(*self._links)
        self._whole: RelationCSR | None = None

    def to(self, device: torch.device | str) -> CollaborativeScorer:
        self._kg = self._kg[0].to(device), self._kg[1].to(device)
        self._links, self._key = self._links.to(device), self._key.to(device)
        self._negatives.to(device)
        self._whole = None
        return self

    def decayed(self) -> list[Tensor]:
        return list(self.model.parameters())

    def graph(self) -> RelationCSR:
        """The graph of all training positives."""
        if self._whole is None:
            self._whole = self.model.graph(self._links, *self._kg, self._num_users)
        return self._whole

    def loss(self, user: Tensor, item: Tensor, label: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        if self._config.hold_out > 0:
            visible = self._links[:, ~torch.isin(self._key, self._pair_key(user, item))]
            z_user, z_item = self.model.encode(self.model.graph(visible, *self._kg, self._num_users))
        else:
            visible = self._links[
                :, :0
            ]  # Here the graph shows what is to be predicted, a candidate all the same.
            z_user, z_item = self.model.encode(self.graph())
        other = user[self._negatives.num_left[user] > 0]  # Who knows all has positives only.
        pairs = torch.cat([user, other]), torch.cat([item, self._negatives.draw(other)])
        logit = (z_user[pairs[0]] * z_item[pairs[1]]).sum(dim=-1)
        label = torch.cat([label, label.new_zeros(other.numel())])
        if self._config.loss == "click":
            return F.binary_cross_entropy_with_logits(logit, label), logit, label
        distinct, row = user.unique(return_inverse=True)
        z_candidate = z_item[: self.model.num_items]
        # What the graph shows a user to have heard is no candidate, as it is none when recommending.
        parts = [
            checkpoint(
                _log_sum_of_candidates,
                z_user[part],
                z_candidate,
                _cells(part, visible),
                use_reentrant=False,
                preserve_rng_state=False,
            )
            for part in distinct.split(max(1, _CELLS // self.model.num_items))
        ]
        return (torch.cat(parts)[row] - logit[: user.numel()]).mean(), logit, label

    def calibrate(self, user: Tensor, item: Tensor, logit: Tensor, label: Tensor) -> Tensor:
        # A held-out graph says less of an item than the whole one: how much a count is worth there is learned
        # from rows of neither. The user's count would do the same for users, but each user has as many
        # negatives as positives in all: it would tell how many are left.
        features = torch.column_stack([logit, self.model.entity_features(self.graph())[item]]).cpu()
        if label.unique().numel() == 2:
            regression = LogisticRegression(C=100.0, max_iter=1000).fit(features.double(), label.cpu())
            weight = torch.tensor([*regression.coef_[0], *regression.intercept_])
            self.model.calibration.copy_(weight)
        return self.calibrated(item, logit)

    def calibrated(self, item: Tensor, logit: Tensor) -> Tensor:
        weight = self.model.calibration
        return weight[0] * logit + self.model.entity_features(self.graph())[item] @ weight[1:-1] + weight[-1]

    def score(self, user: Tensor, item: Tensor, generator: torch.Generator) -> Tensor:
        return self.model(user, item, self.graph())

    def score_all(self, user: Tensor, num_items: int, generator: torch.Generator) -> Tensor:
        z_user, z_item = self.model.encode(self.graph())
        return z_user[user] @ z_item[:num_items].t()

    def _pair_key(self, user: Tensor, item: Tensor) -> Tensor:
        return user * self.model.num_items + item


def _cells(user: Tensor, heard: Tensor) -> tuple[Tensor, Tensor]:
    """Return where what some users, ascending, heard stands in a table of these users and all items."""
    heard = heard[:, torch.isin(heard[0], user)]
    return torch.searchsorted(user, heard[0]), heard[1]


def _log_sum_of_candidates(z_user: Tensor, z_item: Tensor, known: tuple[Tensor, Tensor]) -> Tensor:
    r"""Return the logarithm of the sum of the exponentials of each user's scores, :math:`(n)`, without those
    of the cells that are known.
    """
    score = z_user @ z_item.t()
    return score.index_put(known, score.new_tensor(-torch.inf)).logsumexp(dim=1)


_SCORERS: dict[str, type[Scorer]] = {
    "mgwa": MGWAScorer,
    "kgcn": KGCNScorer,
    "ripplenet": RippleNetScorer,
    "collaborative": CollaborativeScorer,
}


def make_scorer(dataset: KGRecDataset, config: FitConfig, seed: int) -> Scorer:
    """Return the scorer of the model that ``config`` is for; see :class:`Scorer` for the arguments."""
    return _SCORERS[config.model](dataset, config, seed)
