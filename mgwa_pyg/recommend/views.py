"""Views: how a trained model sees users and items when it is used, a class for each kind of model."""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor
from torch_geometric.utils import scatter

from mgwa_pyg.datasets import KGRecDataset
from mgwa_pyg.datasets.interactions import interactions
from mgwa_pyg.nn import GatedAggregationConv
from mgwa_pyg.nn.models.all_items import ItemBlock, block_sizes
from mgwa_pyg.recommend.parts import Parts, Stack, split
from mgwa_pyg.train.scorer import CollaborativeScorer, NeighborhoodScorer, RippleNetScorer, Scorer

# A newcomer's vector is fitted until it stays where it is, which takes about five evaluations.
_FIT: dict[str, Any] = {
    "max_iter": 50,
    "tolerance_grad": 1e-4,
    "tolerance_change": 1e-6,
    "line_search_fn": "strong_wolfe",
}

#: Somebody whom items are recommended to: a user's number, or the items that a newcomer listened to.
Who = int | Tensor


class View(ABC):
    """Base class. The model is frozen and in double precision.

    Args:
        scorer (Scorer): The scorer of a trained model.
        dataset (KGRecDataset): The data set that it was made for.
    """

    #: How many users are scored at once.
    users_at_once: int = 64
    #: What the edges of an explanation are.
    edges: str = "neighbor"

    @abstractmethod
    def scores(self, users: Tensor) -> Tensor:
        r"""The logits of all items for :math:`n` users, :math:`(n, M)`."""

    @abstractmethod
    def newcomer_scores(self, items: Tensor) -> Tensor:
        r"""The logits of all items for somebody who listened to these, :math:`(M)`."""

    @abstractmethod
    def item_vectors(self) -> Tensor:
        r"""The items as far as no user matters, :math:`(M, d)`."""

    @abstractmethod
    def explain(self, who: Who, item: int) -> tuple[Parts, Parts | None]:
        """What the score of an item comes from: its neighbourhood, and, if the model knows users by it, what
        the user listened to. Each adds up to the score.
        """

    def stack(self, who: Who, item: int) -> Stack:
        """The model as PyG's explainers take it, for one pair.

        Raises:
            ValueError: If the model passes no messages.
        """
        raise ValueError(
            f"{type(self).__name__.removesuffix('View')} passes no messages along edges, which is what PyG's "
            f"explainers look at: leave `algorithm` out"
        )


class NeighborhoodView(View):
    """MGWA and KGCN: a newcomer is a vector, fitted to what they listened to, as a user's is by training."""

    def __init__(self, scorer: NeighborhoodScorer, dataset: KGRecDataset) -> None:
        self._model = scorer.model
        self._graph = scorer.graph()
        self._num_items = dataset.num_items
        self._scorer = ItemBlock(self._model, self._graph, 0, self._num_items)
        self._scorer_of_one = ItemBlock(self._model, self._graph, 0, self._num_items, many=False)
        device = self._model.entity_emb.weight.device
        self.users_at_once = block_sizes(self._model, self._graph, self._num_items, None, device)[0]
        # Newcomers are expected to be like the users that were trained.
        trained = interactions(dataset[0]).edge_index[0].unique()
        users = self._model.user_emb.weight[trained].detach()
        self._mean, self._deviation = users.new_zeros(users.size(1)), users.new_ones(users.size(1))
        if len(users) > 0:
            self._mean, self._deviation = users.mean(dim=0), users.std(dim=0, correction=0).clamp(min=1e-4)

    def scores(self, users: Tensor) -> Tensor:
        return self._scorer.score(self._model.user_emb(users))

    def newcomer_scores(self, items: Tensor) -> Tensor:
        return self._scorer_of_one.score(self._profile(items))[0]

    def item_vectors(self) -> Tensor:
        return self._states(self._mean.view(1, -1))[-1][: self._num_items]

    def explain(self, who: Who, item: int) -> tuple[Parts, Parts | None]:
        profile = self._profile(who)
        states = self._states(profile, stop=self._model.num_layers - 1)
        read = [torch.zeros_like(profile[0])] * self._model.num_layers + [profile[0]]
        own = [state[item].unsqueeze(0) for state in states]
        return split(self._convs(), states, own, self._graph, item, read, **self._options(profile)), None

    def stack(self, who: Who, item: int) -> Stack:
        profile = self._profile(who)
        read = [torch.zeros_like(profile[0])] * self._model.num_layers + [profile[0]]
        x = self._model.entity_emb.weight
        return Stack(self._convs(), x, self._graph, item, read, 0.0, **self._options(profile))

    def _convs(self) -> list[GatedAggregationConv]:
        return [cast(GatedAggregationConv, conv) for conv in self._model.convs]

    def _options(self, profile: Tensor) -> dict[str, Any]:
        query, relation = self._model.scaled_query(profile), self._model.relation_emb.weight
        return {
            "keywords": {"query": query[0], "relation": relation},
            "activate": self._model.activate,
            "scale": self._model.scaled_neighbors,
        }

    def _states(self, profile: Tensor, stop: int | None = None) -> list[Tensor]:
        """The entities as a user sees them, before the first layer and after the others."""
        states = [self._model.entity_emb.weight]
        keywords = self._options(profile)["keywords"]
        for layer, conv in enumerate(self._convs()[:stop]):
            x = conv((self._model.scaled_neighbors(states[-1]), states[-1]), self._graph, **keywords)
            states.append(self._model.activate(x, layer))
        return states

    def _profile(self, who: Who) -> Tensor:
        """The embedding of a user, ``(1, d)``; that of a newcomer is fitted, and nothing else.

        Where training draws as many negatives as there are positives, their expectation stands here, so that
        the loss is smooth. What the L2 regularisation of the table does for users is done by their mean and
        variance.
        """
        if isinstance(who, int):
            return self._model.user_emb.weight[who].unsqueeze(0)
        weight = self._mean.new_full((self._num_items,), float(len(who)))
        weight[who] = 0.0
        weight /= max(self._num_items - len(who), 1)
        # In units of the deviation, in which the problem is round: it takes half as many evaluations.
        offset = torch.zeros_like(self._mean).requires_grad_()
        optimizer = torch.optim.LBFGS([offset], **_FIT)

        def profile() -> Tensor:
            return (self._mean + self._deviation * offset).unsqueeze(0)

        def loss() -> Tensor:
            optimizer.zero_grad()
            score = self._scorer_of_one.score(profile())[0]
            value = F.softplus(-score[who]).sum() + weight @ F.softplus(score) + offset.square().sum() / 2
            value.backward()
            return value

        with torch.enable_grad():
            optimizer.step(loss)
        return profile().detach()


class CollaborativeView(View):
    """CollaborativeMGWA: a newcomer is a node that messages reach and that sends none."""

    def __init__(self, scorer: CollaborativeScorer, dataset: KGRecDataset) -> None:
        self._model = scorer.model
        self._num_items = dataset.num_items
        self._graph = scorer.graph()
        self._states = self._model.states(self._graph)
        z_user, z_entity = self._model.encode(self._graph)
        self._z_user, self._z_item = z_user, z_entity[: self._num_items]
        self.users_at_once = max(1, 2**21 // self._num_items)

    def scores(self, users: Tensor) -> Tensor:
        return self._z_user[users] @ self._z_item.t()

    def newcomer_scores(self, items: Tensor) -> Tensor:
        return self._z_item @ self._vector(items)

    def item_vectors(self) -> Tensor:
        return self._z_item[:, :-1]

    def explain(self, who: Who, item: int) -> tuple[Parts, Parts | None]:
        user, vector = self._vector(who), self._z_item[item]
        depth = len(self._states)
        own = [state[item].unsqueeze(0) for state in self._states]
        neighbors = split(
            self._convs(),
            self._states,
            own,
            self._graph,
            item,
            [user[:-1] / depth] * depth,
            **self._options(),
        )
        read = [vector[:-1] / depth] * depth
        if isinstance(who, int):
            node = self._model.num_entities + who
            own = [state[node].unsqueeze(0) for state in self._states]
            heard = split(self._convs(), self._states, own, self._graph, node, read, **self._options())
        else:
            own = self._model.newcomer_states(who, self._states)
            edges = who, torch.full_like(who, self._model.num_relations + 1)
            heard = split(self._convs(), self._states, own, edges, None, read, **self._options())
        # What users start from is what they listened to.
        start = self._model.history_emb(heard.source) @ heard.weight / max(len(heard.source), 1) ** 0.5
        heard = heard._replace(own=heard.own - start.sum(), score=heard.score + start)
        bias = vector[-1]
        return neighbors._replace(bias=bias), heard._replace(bias=bias)

    def stack(self, who: Who, item: int) -> Stack:
        depth = len(self._states)
        read = [self._vector(who)[:-1] / depth] * depth
        bias = self._z_item[item, -1]
        return Stack(self._convs(), self._states[0], self._graph, item, read, bias, **self._options())

    def _convs(self) -> list[GatedAggregationConv]:
        return [cast(GatedAggregationConv, conv) for conv in self._model.convs]

    def _options(self) -> dict[str, Any]:
        return {"typed": self._model.attention}

    def _vector(self, who: Who) -> Tensor:
        if isinstance(who, int):
            return self._z_user[who]
        states: Sequence[Tensor] = self._model.newcomer_states(who, self._states)
        z = sum(states[1:], states[0])[0] / len(states)
        return torch.cat([z, z.new_ones(1)])


class RippleNetView(View):
    """RippleNet: a newcomer is a memory of triples, as every user is."""

    edges = "memory"

    def __init__(self, scorer: RippleNetScorer, dataset: KGRecDataset) -> None:
        self._scorer = scorer
        self._model = scorer.model
        self._all = torch.arange(dataset.num_items)
        # The items' products with the memories are the largest that is made.
        hops, size = scorer.memory.shape[1:]
        self.users_at_once = max(1, 2**22 // (dataset.num_items * hops * size))

    def scores(self, users: Tensor) -> Tensor:
        return self._scores(self._scorer.memory[users])

    def newcomer_scores(self, items: Tensor) -> Tensor:
        return self._scores(self._memory(items))[0]

    def item_vectors(self) -> Tensor:
        return self._model.entity_emb.weight[: len(self._all)]

    def explain(self, who: Who, item: int) -> tuple[Parts, Parts | None]:
        memory = self._memory(who)
        part, attention = self._model.parts(torch.tensor([item]), *self._seen(memory))
        found = memory.flatten() >= 0
        # A triple that was drawn several times is one part.
        triple, place = memory.flatten()[found].unique(return_inverse=True)
        return Parts(
            own=part.new_zeros(()),
            source=self._scorer.edge_index[1, triple],
            relation=self._scorer.edge_type[triple],
            attention=scatter(attention.flatten()[found], place, dim_size=len(triple)),
            score=scatter(part.flatten()[found], place, dim_size=len(triple)),
            constant=part.new_zeros(()),
        ), None

    def _scores(self, memory: Tensor) -> Tensor:
        if (memory < 0).flatten(1).all(dim=1).any():
            warnings.warn(
                "RippleNet knows nothing of a user whose items have no triple in the knowledge graph: all "
                "items have the score 0, and come in the order of the data. Recommend popular ones in their "
                "place, or ask another model.",
                stacklevel=2,
            )
        return self._model(self._all.expand(len(memory), -1), *self._seen(memory))

    def _seen(self, memory: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return memory, self._scorer.edge_index, self._scorer.edge_type

    def _memory(self, who: Who) -> Tensor:
        if isinstance(who, int):
            return self._scorer.memory[who].unsqueeze(0)
        return self._scorer.draw_memory(torch.stack([torch.zeros_like(who), who]), 1)


def make_view(scorer: Scorer, dataset: KGRecDataset) -> View:
    """Return the view of a scorer's model; see :class:`View` for the arguments."""
    # In double precision rounding reorders nothing, and parts add up.
    scorer.model.eval().requires_grad_(False).double()
    if isinstance(scorer, NeighborhoodScorer):
        return NeighborhoodView(scorer, dataset)
    if isinstance(scorer, CollaborativeScorer):
        return CollaborativeView(scorer, dataset)
    if isinstance(scorer, RippleNetScorer):
        return RippleNetView(scorer, dataset)
    raise TypeError(f"{type(scorer).__name__} has no view: add one to mgwa_pyg/recommend/views.py")
