"""What MGWA and KGCN share: an item is its neighbourhood in the knowledge graph as one user sees it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, cast

import torch
import torch.nn.functional as F
from torch import Tensor

from mgwa_pyg.datasets import KGRecDataset
from mgwa_pyg.datasets.ids import Rows
from mgwa_pyg.nn import KGCN, MGWA, GatedAggregationConv
from mgwa_pyg.nn.models.all_items import ItemBlock, block_sizes
from mgwa_pyg.ops import RelationCSR
from mgwa_pyg.recommenders.base import FitConfig, KGRecommender, Trial, UserOrItems
from mgwa_pyg.recommenders.contributions import Contributions, Layers, LogitModel, contributions
from mgwa_pyg.sampler import NeighborSampler

if TYPE_CHECKING:
    from typing_extensions import Self

# A newcomer's vector is fitted until it stays where it is, which takes about five evaluations.
_FIT: dict[str, Any] = {
    "max_iter": 50,
    "tolerance_grad": 1e-4,
    "tolerance_change": 1e-6,
    "line_search_fn": "strong_wolfe",
}


def typed_edges(dataset: KGRecDataset) -> tuple[Tensor, Tensor]:
    """Return the edges of the knowledge graph and the relation of each. The inverse of a relation is taken to
    be the same relation, as the paper does.
    """
    kg = dataset[0]["entity", "kg", "entity"]
    return kg.edge_index, kg.rel_type % dataset.num_relations


@dataclass(frozen=True)
class NeighborhoodConfig(FitConfig):
    r"""What the models that look at an item's neighbourhood have in common.

    Args:
        fusion (str): The fusion of the layers.
        fanout (int, optional): Neighbours kept per hop in training; :obj:`None` keeps all.
        resample (bool): Whether the neighbours are drawn anew at every step, or once for all, as in KGCN's
            official code; then they are the same in evaluation, too.
        transe (bool): Whether the embeddings of entities and relations start from TransE.
    """

    fusion: str = "gated"
    fanout: int | None = 8
    resample: bool = True
    transe: bool = False

    @property
    def from_transe(self) -> bool:
        return self.transe

    def suggested(self, trial: Trial) -> Self:
        return replace(
            super().suggested(trial),
            num_layers=trial.suggest_int("num_layers", 1, 2),
            fusion=trial.suggest_categorical("fusion", ["gated", "sum", "concat"]),
        )


class NeighborhoodRecommender(KGRecommender):
    """Base class of MGWA's and KGCN's. A newcomer is a vector, fitted to the seen items, as a user's is.

    Outside training neighbourhoods are whole where there is one layer; those of pairs grow too large for that
    with more and are sampled. Rankings need no neighbourhoods of pairs and look at the whole graph always.
    """

    model_class: ClassVar[type[MGWA] | type[KGCN]]
    model: MGWA | KGCN
    config: NeighborhoodConfig

    def __init__(self, dataset: KGRecDataset, config: NeighborhoodConfig, seed: int) -> None:
        super().__init__(dataset, config, seed)
        data = self.dataset[0]
        self.model = self.model_class(
            data["user"].num_nodes,
            data["entity"].num_nodes,
            dataset.num_relations,
            channels=config.channels,
            num_layers=config.num_layers,
            fusion=config.fusion,
            **self.model_options(),
        )
        self._train_sampler, self._eval_sampler = self.samplers()
        self._plan: RelationCSR | None = None
        # Users of whom training has learned nothing: what they have seen makes their vectors.
        self._newcomers = torch.empty(0, dtype=torch.long)

    def model_options(self) -> dict[str, Any]:
        """Return what the model's constructor takes beside what both have."""
        return {}

    def samplers(self) -> tuple[NeighborSampler, NeighborSampler]:
        """Return what draws the neighborhoods in training, and what draws them outside."""
        config, num_entities = self.config, self.model.entity_emb.num_embeddings
        edges = typed_edges(self.dataset)
        sampler = NeighborSampler(*edges, num_entities, config.fanout)
        if config.resample:
            whole = config.num_layers == 1
            self._edges = edges
            return sampler, NeighborSampler(*edges, num_entities) if whole else sampler
        generator = torch.Generator().manual_seed(self.seed)
        drawn = sampler.sample(torch.arange(num_entities), 1, generator)
        self._edges = drawn.node[drawn.edge_index], drawn.edge_type
        return (NeighborSampler(*self._edges, num_entities),) * 2

    def to(self, device: torch.device | str) -> NeighborhoodRecommender:
        super().to(device)
        self._train_sampler.to(device)
        self._eval_sampler.to(device)
        self._plan = None
        return self

    @property
    def plan(self) -> RelationCSR:
        """The whole graph, on the device of the model."""
        if self._plan is None:
            size = (self.model.entity_emb.num_embeddings,) * 2
            plan = RelationCSR.from_edge_index(*self._edges, self.model.relation_emb.num_embeddings, size)
            self._plan = plan.to(self.device)
        return self._plan

    # In training

    def start_from(self, entity: Tensor, relation: Tensor) -> None:
        with torch.no_grad():
            self.model.entity_emb.weight.copy_(entity)
            self.model.relation_emb.weight.copy_(relation)

    def train_step(self, user: Tensor, item: Tensor, *key: Tensor) -> tuple[Tensor, Tensor | float]:
        return self.model(user, *self._train_sampler.sample(item, self.config.num_layers, None, *key)), 0.0

    # Outside training

    def score(self, user: Tensor, item: Tensor, generator: torch.Generator, *key: Tensor) -> Tensor:
        drawn = self._eval_sampler.sample(item, self.config.num_layers, None if key else generator, *key)
        return self.model(user, *drawn)

    def score_all(self, user: Tensor, generator: torch.Generator | None = None) -> Tensor:
        if self.in_use:
            return self._all_items.score(self.model.user_emb(user))
        return self.model.score_items(user, self.plan, self.num_items)

    # On other data

    def tables(self) -> dict[str, tuple[str, ...]]:
        names = "user", "entity", "relation"
        return {f"{name}_emb.weight": (name,) for name in names}

    def start_rows(self, rows: Rows) -> None:
        super().start_rows(rows)
        self._newcomers = (rows.user < 0).nonzero().squeeze(1)

    # In use

    def prepare(self) -> None:
        super().prepare()
        model, plan = self.model, self.plan
        self._all_items = ItemBlock(model, plan, 0, self.num_items)
        self._all_items_once = ItemBlock(model, plan, 0, self.num_items, many=False)
        self.users_at_once = block_sizes(model, plan, self.num_items, None, self.device)[0]
        # Newcomers are expected to be like the users that were trained.
        trained = self.seen[0].unique()
        users = model.user_emb.weight[trained[~torch.isin(trained, self._newcomers.to(trained))]]
        self._mean, self._deviation = users.new_zeros(users.size(1)), users.new_ones(users.size(1))
        if len(users) > 0:
            self._mean, self._deviation = users.mean(dim=0), users.std(dim=0, correction=0).clamp(min=1e-4)
        for user in self._newcomers.tolist():
            seen = self.seen[1, self.seen[0] == user]
            model.user_emb.weight[user] = self._profile(seen)[0] if seen.numel() else self._mean

    def score_newcomer(self, items: Tensor) -> Tensor:
        return self._all_items_once.score(self._profile(items))[0]

    def item_vectors(self) -> Tensor:
        layers = self._layers(self._mean.view(1, -1))
        return layers.states(self.model.entity_emb.weight)[-1][: self.num_items]

    def explain(self, user: UserOrItems, item: int) -> tuple[Contributions, Contributions | None]:
        profile = self._profile(user)
        layers = self._layers(profile)
        states = layers.states(self.model.entity_emb.weight, stop=self.model.num_layers - 1)
        own = [state[item].unsqueeze(0) for state in states]
        return contributions(layers, states, own, layers.edges_into(item), self._read(profile)), None

    def logit_model(self, user: UserOrItems, item: int) -> LogitModel:
        profile = self._profile(user)
        return LogitModel(self._layers(profile), self.model.entity_emb.weight, item, self._read(profile))

    def _layers(self, profile: Tensor) -> Layers:
        """The layers as the user with this embedding sees them."""
        model = self.model
        return Layers(
            [cast(GatedAggregationConv, conv) for conv in model.convs],
            self.plan,
            {"query": model.scaled_query(profile)[0], "relation": model.relation_emb.weight},
            model.activate,
            model.scaled_neighbors,
        )

    def _read(self, profile: Tensor) -> list[Tensor]:
        """A score reads the last layer alone."""
        return [torch.zeros_like(profile[0])] * self.model.num_layers + [profile[0]]

    def _profile(self, user: UserOrItems) -> Tensor:
        """The embedding of a user, ``(1, d)``; that of a newcomer is fitted, and nothing else.

        Where training draws as many negatives as there are positives, their expectation stands here, so that
        the loss is smooth. What the L2 regularisation of the table does for users is done by their mean and
        variance.
        """
        if isinstance(user, int):
            return self.model.user_emb.weight[user].unsqueeze(0)
        items = user
        weight = self._mean.new_full((self.num_items,), float(len(items)))
        weight[items] = 0.0
        weight /= max(self.num_items - len(items), 1)
        # In units of the deviation, in which the problem is round: it takes half as many evaluations.
        offset = torch.zeros_like(self._mean).requires_grad_()
        optimizer = torch.optim.LBFGS([offset], **_FIT)

        def profile() -> Tensor:
            return (self._mean + self._deviation * offset).unsqueeze(0)

        def loss() -> Tensor:
            optimizer.zero_grad()
            score = self._all_items_once.score(profile())[0]
            if self.config.loss == "click":
                value = F.softplus(-score[items]).sum() + weight @ F.softplus(score)
            else:
                value = weight @ F.softplus(score.unsqueeze(1) - score[items]).mean(dim=1)
            value = value + offset.square().sum() / 2
            value.backward()
            return value

        with torch.enable_grad():
            optimizer.step(loss)
        return profile().detach()
