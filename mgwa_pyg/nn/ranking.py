"""All items for many users at once: the whole graph as each user sees it, in place of a subgraph per pair."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, cast

import torch
from torch import Tensor
from torch_geometric.utils import index_sort
from torch_geometric.utils.sparse import index2ptr

from mgwa_pyg.checks import (
    check_count,
    check_edges,
    check_indices,
    check_no_nan,
    check_range,
    values_are_checked,
)
from mgwa_pyg.nn.fusion import whole_table
from mgwa_pyg.ops import RelationCSR, relation_softmax_aggregate
from mgwa_pyg.ops.backends import fused_backend
from mgwa_pyg.ops.plan import check_plan
from mgwa_pyg.ops.relation_sums import RelationSums
from mgwa_pyg.ranges import ranges

if TYPE_CHECKING:
    from mgwa_pyg.nn.gated_aggregation_conv import GatedAggregationConv
    from mgwa_pyg.nn.neighborhood_recommender import NeighborhoodRecommender

# How large an intermediate result may become, in bytes: on the CPU it is to stay in the caches.
_MAX_BYTES = {"cpu": 2**23}
_MAX_BYTES_ELSEWHERE = 2**28
# Rather than fewer users at once than this, items are scored in several parts.
_MIN_USERS = 8
# Sums over edges are kept relation by relation where that takes no more than this, in bytes, and no more than
# so many relations stand against each edge of an average target.
_MAX_SUMS = 2**28
_MAX_RELATIONS_PER_EDGE = 32


class Ranking(NamedTuple):
    r"""The best items of :math:`n` users, best first."""

    item: Tensor
    r"""The items, :math:`(n, k)`; where they run out the number of items, which is none of them."""
    score: Tensor
    r"""Their logits, :math:`(n, k)`; where they run out :math:`-\infty`."""


def score_items(
    model: NeighborhoodRecommender, users: Tensor, graph: RelationCSR, num_items: int, max_bytes: int | None
) -> Tensor:
    """See :meth:`NeighborhoodRecommender.score_items`."""
    users = _checked(model, users, graph, num_items)
    num_users, block = block_sizes(model, graph, num_items, max_bytes, users.device)
    profile = model.user_emb(users)
    score = profile.new_empty(users.numel(), num_items)
    for items in _parts(num_items, block):
        scorer = ItemScorer(model, graph, items.start, items.stop)
        for rows in _parts(users.numel(), num_users):
            score[rows, items] = scorer.score(profile[rows])
    if values_are_checked(score.device):
        check_no_nan("the matrix of scores", score)
    return score


def rank(
    model: NeighborhoodRecommender,
    users: Tensor,
    k: int,
    graph: RelationCSR,
    num_items: int,
    exclude: Tensor | None,
    max_bytes: int | None,
) -> Ranking:
    """See :meth:`NeighborhoodRecommender.rank`."""
    users = _checked(model, users, graph, num_items)
    _check_k(k, num_items)
    seen = None if exclude is None else Pairs(exclude, model.user_emb.num_embeddings, num_items)
    num_users, block = block_sizes(model, graph, num_items, max_bytes, users.device)
    profile = model.user_emb(users)
    best = Ranking(
        users.new_full((users.numel(), k), num_items, dtype=torch.long),
        profile.new_full((users.numel(), k), -torch.inf),
    )
    for items in _parts(num_items, block):
        scorer = ItemScorer(model, graph, items.start, items.stop)
        for rows in _parts(users.numel(), num_users):
            score = scorer.score(profile[rows])
            top = best_of(score, users[rows], k, items.start, num_items, seen)
            # The best of this part and of those before it, whose items have lower numbers.
            order = _in_order(torch.cat([best.score[rows], top.score], dim=1))[:, :k]
            best.item[rows] = torch.cat([best.item[rows], top.item], dim=1).gather(1, order)
            best.score[rows] = torch.cat([best.score[rows], top.score], dim=1).gather(1, order)
    return best


def rank_by_product(z_user: Tensor, z_item: Tensor, users: Tensor, k: int, exclude: Tensor | None) -> Ranking:
    r"""Return the best items where the scores are inner products of users :math:`(U, d)` and items
    :math:`(M, d)`; the other arguments and the errors are those of :meth:`NeighborhoodRecommender.rank`.
    """
    num_users, num_items = z_user.size(0), z_item.size(0)
    users = _checked_users(users, num_users)
    _check_k(k, num_items)
    seen = None if exclude is None else Pairs(exclude, num_users, num_items)
    max_bytes = _MAX_BYTES.get(z_item.device.type, _MAX_BYTES_ELSEWHERE)
    block = max(1, max_bytes // (num_items * z_item.element_size()))
    parts = [
        best_of(z_user[users[rows]] @ z_item.t(), users[rows], k, 0, num_items, seen)
        for rows in _parts(users.numel(), block)
    ]
    return Ranking(torch.cat([part.item for part in parts]), torch.cat([part.score for part in parts]))


def best_of(score: Tensor, users: Tensor, k: int, start: int, num_items: int, seen: Pairs | None) -> Ranking:
    """The best of the items from ``start`` on, whose scores these are; pairs that were seen are left out, and
    scores that are NaN where they are not checked.

    Of items with equal scores the one with the lower number comes first.
    """
    stop = start + score.size(1)
    if values_are_checked(score.device):
        check_no_nan(f"the matrix of scores of the items from {start} to {stop - 1}", score)
    else:
        score = score.masked_fill(score.isnan(), -torch.inf)  # Else they would come first.
    if seen is not None:
        score[seen.cells(users, start, stop)] = -torch.inf
    k = min(k, stop - start)
    if torch.compiler.is_compiling():  # Nothing may depend on values: all are sorted.
        index = _in_order(score)[:, :k]
        values = score.gather(1, index)
        return Ranking((index + start).masked_fill(values == -torch.inf, num_items), values)
    top = score.topk(k)
    # Which of the items that share the last score are taken is up to topk: such rows are sorted.
    shared = ((score >= top.values[:, -1:]).sum(dim=1) > k).nonzero().squeeze(1)
    index = top.indices
    index[shared] = _in_order(score[shared])[:, :k]
    index = index.sort(dim=1).values
    values = score.gather(1, index)
    order = _in_order(values)
    index, values = index.gather(1, order), values.gather(1, order)
    return Ranking((index + start).masked_fill(values == -torch.inf, num_items), values)


def _parts(total: int, size: int) -> list[slice]:
    """Parts of that size; while compiling a single one, as the number of parts would be burnt in."""
    if torch.compiler.is_compiling():
        return [slice(0, total)]
    return [slice(start, min(start + size, total)) for start in range(0, total, size)]


def _in_order(score: Tensor) -> Tensor:
    """The places of each row's scores, the highest first, equal ones as they stand."""
    return score.argsort(dim=1, descending=True, stable=True)


class Pairs:
    """Pairs of user and item, :math:`(2, P)`, to be looked up by user."""

    def __init__(self, pairs: Tensor, num_users: int, num_items: int) -> None:
        check_edges("exclude", pairs, "num_pairs")
        check_range("exclude[0]", pairs[0], num_users, "the number of users")
        check_range("exclude[1]", pairs[1], num_items, "num_items")
        pairs = pairs.long()
        user, order = index_sort(pairs[0], max_value=num_users)
        self._item = pairs[1][order]
        self._ptr = index2ptr(user, num_users)

    def cells(self, users: Tensor, start: int, stop: int) -> tuple[Tensor, Tensor]:
        """Where the pairs lie in a matrix of these users and the items from ``start`` to before ``stop``."""
        begin = self._ptr[users]
        row, place = ranges(begin, self._ptr[users + 1] - begin)
        item = self._item[place]
        inside = (item >= start) & (item < stop)
        return row[inside], item[inside] - start


def _checked(model: NeighborhoodRecommender, users: Tensor, graph: RelationCSR, num_items: int) -> Tensor:
    num_users, num_entities = model.user_emb.num_embeddings, model.entity_emb.num_embeddings
    num_relations = model.relation_emb.num_embeddings
    users = _checked_users(users, num_users)
    check_plan("graph", graph)
    if graph.size != (num_entities, num_entities) or graph.num_relations != num_relations:
        raise ValueError(
            f"graph is of size {graph.size} with {graph.num_relations} relations, but the model was made for "
            f"{num_entities} entities and {num_relations} relations"
        )
    if check_count("num_items", num_items) > num_entities:
        raise ValueError(f"num_items={num_items}: items are the first of {num_entities} entities")
    return users


def _checked_users(users: Tensor, num_users: int) -> Tensor:
    check_indices("users", users)
    check_range("users", users, num_users, "the number of users")
    return users.long()


def _check_k(k: int, num_items: int) -> None:
    if check_count("k", k) > num_items:
        raise ValueError(f"k={k}: between 1 and num_items={num_items} items can be ranked")


def block_sizes(
    model: NeighborhoodRecommender,
    graph: RelationCSR,
    num_items: int,
    max_bytes: int | None,
    device: torch.device,
) -> tuple[int, int]:
    """How many users and how many items are scored at once."""
    if max_bytes is None:
        max_bytes = _MAX_BYTES.get(device.type, _MAX_BYTES_ELSEWHERE)
    max_bytes = check_count("max_bytes", max_bytes)
    per_node = 2 * model.channels * model.entity_emb.weight.element_size()  # A gate and what it gates.
    if model.num_layers == 1:
        num_pairs = max(1, max_bytes // per_node)
        if num_pairs >= _MIN_USERS * num_items:
            return num_pairs // num_items, num_items
        per_item = RelationSums.num_bytes(1, graph.num_relations, model.entity_emb.weight)
        return _MIN_USERS, max(1, min(num_pairs // _MIN_USERS, _MAX_SUMS // per_item))
    # Further layers need all entities as each user sees them, and a copy of the graph each.
    per_edge = 8 * graph.col.element_size()
    return max(1, max_bytes // (per_node * graph.size[0] + per_edge * graph.num_edges)), num_items


class ItemScorer:
    r"""Scores items for users as a model does whose neighbourhoods are whole.

    Args:
        model (NeighborhoodRecommender): The model.
        graph (RelationCSR): The knowledge graph, from all entities to all entities.
        start (int): The first item.
        stop (int): One more than the last item.
        many (bool, optional): Whether there are users enough to share sums over edges.
            (default: :obj:`True`)
    """

    def __init__(
        self,
        model: NeighborhoodRecommender,
        graph: RelationCSR,
        start: int,
        stop: int,
        many: bool = True,
    ) -> None:
        self._model = model
        self._items = slice(start, stop)
        num_layers = model.num_layers
        # While compiling, how many edges lead to the items is unknown: they are picked at the end.
        self._all_targets = (start, stop) == (0, graph.size[1]) or torch.compiler.is_compiling()
        into_items = graph if self._all_targets else graph.targets(start, stop)
        #: The edges that each layer needs: the last one's lead to items, the others' anywhere.
        self._graphs = [graph] * (num_layers - 1) + [into_items]
        first = self._graphs[0]
        #: What the layers start from.
        self._entities = whole_table(model.entity_emb, graph.col.device)
        self._relations = whole_table(model.relation_emb, graph.col.device)
        features = model.scaled_neighbors(self._entities)
        self._sums = RelationSums(features, first) if many and _sums_pay(first, features) else None

    def score(self, profile: Tensor) -> Tensor:
        r"""Return the logits of the items for users with these embeddings, :math:`(n, d)`:
        :math:`(n, \mathrm{stop} - \mathrm{start})`.
        """
        model = self._model
        x = self._entities.t()  # Entities are columns from here on, later those of each user.
        for layer, module in enumerate(model.convs):
            conv = cast("GatedAggregationConv", module)
            table = conv.relation_scores(model.scaled_query(profile), self._relations)[..., 0]
            if layer == 0:
                neighborhood = self._aggregate_shared(x.t(), table)
            else:
                neighborhood = self._aggregate(x.transpose(1, 2), table, self._graphs[layer])
            if layer == model.num_layers - 1:
                x = x[..., self._items]
                neighborhood = neighborhood[..., self._items] if self._all_targets else neighborhood
            x = model.activate(conv.fusion.columns(x, neighborhood), layer)
        return torch.bmm(profile.unsqueeze(1), x).squeeze(1)

    def _aggregate_shared(self, x: Tensor, table: Tensor) -> Tensor:
        """The neighbourhoods ``(n, d, N_dst)`` of features ``(N_src, d)`` that all users see."""
        if self._sums is not None:
            return self._sums.aggregate(table)
        x = self._model.scaled_neighbors(x)
        out = relation_softmax_aggregate(
            x, table.unsqueeze(1), self._graphs[0], backend=fused_backend(x.device)
        )
        return out.permute(1, 2, 0)

    def _aggregate(self, x: Tensor, table: Tensor, graph: RelationCSR) -> Tensor:
        """The neighbourhoods ``(n, d, N_dst)`` of each user's features ``(n, N_src, d)``."""
        num_users, num_targets = table.size(0), graph.size[1]
        query_index = torch.arange(num_users, device=x.device).repeat_interleave(num_targets)
        x = self._model.scaled_neighbors(x).flatten(0, 1)
        graphs, backend = graph.repeat(num_users), fused_backend(x.device)
        out = relation_softmax_aggregate(x, table, graphs, query_index, backend)
        return out.view(num_users, num_targets, x.size(1)).transpose(1, 2)


def _sums_pay(graph: RelationCSR, x: Tensor) -> bool:
    """Whether sums by relation are the quicker way to the neighbourhoods, and fit into memory."""
    if torch.compiler.is_compiling():
        return False  # They depend on the scores' range.
    num_targets, num_relations = graph.size[1], graph.num_relations
    is_dense = num_relations * num_targets <= _MAX_RELATIONS_PER_EDGE * graph.num_edges
    return is_dense and RelationSums.num_bytes(num_targets, num_relations, x) <= _MAX_SUMS
