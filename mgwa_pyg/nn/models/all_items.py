"""All items for many users at once: the whole graph as each user sees it, in place of a subgraph per pair."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol, cast

import torch
from torch import Tensor

from mgwa_pyg.nn.conv import scores
from mgwa_pyg.nn.conv.fusion import whole_table
from mgwa_pyg.nn.conv.gated_aggregation_conv import GatedAggregationConv
from mgwa_pyg.ops import RelationCSR, relation_softmax_aggregate
from mgwa_pyg.ops.backends import fused_backend
from mgwa_pyg.ops.relation_sums import RelationSums
from mgwa_pyg.ops.top_k import max_bytes_on, parts_of
from mgwa_pyg.utils.checks import check_count

# Rather than fewer users at once than this, items are scored in several parts.
_MIN_USERS = 8
# Sums over edges are kept relation by relation where that takes no more than this, in bytes, and no more than
# so many relations stand against each edge of an average target.
_MAX_SUMS = 2**28
_MAX_RELATIONS_PER_EDGE = 32


class UserConditioned(Protocol):
    """What is asked of a model: entities that each user sees through layers of their own query."""

    channels: int
    num_layers: int
    user_emb: torch.nn.Embedding
    entity_emb: torch.nn.Embedding
    relation_emb: torch.nn.Embedding
    convs: torch.nn.ModuleList

    def scaled_query(self, profile: Tensor) -> Tensor:
        """The queries of users with these embeddings."""

    def scaled_neighbors(self, x: Tensor) -> Tensor:
        """Entities as what their neighbours add up."""

    def activate(self, x: Tensor, layer: int) -> Tensor:
        """What follows a layer."""


def scores_by_block(
    model: UserConditioned, profile: Tensor, plan: RelationCSR, num_items: int, max_bytes: int | None
) -> Iterator[tuple[slice, slice, Tensor]]:
    """Score all items for users with these embeddings, :math:`(n, d)`: which users, which items, and their
    logits, block by block.
    """
    num_users, num_block = block_sizes(model, plan, num_items, max_bytes, profile.device)
    for items in parts_of(num_items, num_block):
        block = ItemBlock(model, plan, items.start, items.stop)
        for rows in parts_of(profile.size(0), num_users):
            yield rows, items, block.score(profile[rows])


def block_sizes(
    model: UserConditioned, plan: RelationCSR, num_items: int, max_bytes: int | None, device: torch.device
) -> tuple[int, int]:
    """How many users and how many items are scored at once."""
    max_bytes = check_count("max_bytes", max_bytes_on(device) if max_bytes is None else max_bytes)
    per_node = 2 * model.channels * model.entity_emb.weight.element_size()  # A gate and what it gates.
    if model.num_layers == 1:
        num_pairs = max(1, max_bytes // per_node)
        if num_pairs >= _MIN_USERS * num_items:
            return num_pairs // num_items, num_items
        per_item = RelationSums.num_bytes(1, plan.num_relations, model.entity_emb.weight)
        return _MIN_USERS, max(1, min(num_pairs // _MIN_USERS, _MAX_SUMS // per_item))
    # Further layers need all entities as each user sees them, and a copy of the graph each.
    per_edge = 8 * plan.col.element_size()
    return max(1, max_bytes // (per_node * plan.size[0] + per_edge * plan.num_edges)), num_items


class ItemBlock:
    r"""Scores items for users as a model does whose neighbourhoods are whole.

    Args:
        model (UserConditioned): The model.
        plan (RelationCSR): The plan of the knowledge graph, from all entities to all entities.
        start (int): The first item.
        stop (int): One more than the last item.
        many (bool, optional): Whether there are users enough to share sums over edges.
            (default: :obj:`True`)
    """

    def __init__(
        self, model: UserConditioned, plan: RelationCSR, start: int, stop: int, many: bool = True
    ) -> None:
        self._model = model
        self._items = slice(start, stop)
        num_layers = model.num_layers
        # While compiling, how many edges lead to the items is unknown: they are picked at the end.
        self._all_targets = (start, stop) == (0, plan.size[1]) or torch.compiler.is_compiling()
        into_items = plan if self._all_targets else plan.targets(start, stop)
        #: The plan of each layer: the last one's edges lead to items, the others' anywhere.
        self._plans = [plan] * (num_layers - 1) + [into_items]
        first = self._plans[0]
        #: What the layers start from.
        self._entities = whole_table(model.entity_emb, plan.col.device)
        self._relations = whole_table(model.relation_emb, plan.col.device)
        features = model.scaled_neighbors(self._entities)
        self._sums = RelationSums(features, first) if many and _sums_pay(first, features) else None

    def score(self, profile: Tensor) -> Tensor:
        r"""Return the logits of the items for users with these embeddings, :math:`(n, d)`:
        :math:`(n, \mathrm{stop} - \mathrm{start})`.
        """
        model = self._model
        x = self._entities.t()  # Entities are columns from here on, later those of each user.
        for layer, module in enumerate(model.convs):
            conv = cast(GatedAggregationConv, module)
            product = scores.every_product(model.scaled_query(profile), self._relations, heads=1)[..., 0]
            table = scores.activate(product, conv.score_activation)
            scores.check_scores(conv, table)
            if layer == 0:
                neighborhood = self._aggregate_shared(x.t(), table)
            else:
                neighborhood = self._aggregate(x.transpose(1, 2), table, self._plans[layer])
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
            x, table.unsqueeze(1), self._plans[0], backend=fused_backend(x.device)
        )
        return out.permute(1, 2, 0)

    def _aggregate(self, x: Tensor, table: Tensor, plan: RelationCSR) -> Tensor:
        """The neighbourhoods ``(n, d, N_dst)`` of each user's features ``(n, N_src, d)``."""
        num_users, num_targets = table.size(0), plan.size[1]
        query_index = torch.arange(num_users, device=x.device).repeat_interleave(num_targets)
        x = self._model.scaled_neighbors(x).flatten(0, 1)
        plan, backend = plan.repeat(num_users), fused_backend(x.device)
        out = relation_softmax_aggregate(x, table, plan, query_index, backend)
        return out.view(num_users, num_targets, x.size(1)).transpose(1, 2)


def _sums_pay(plan: RelationCSR, x: Tensor) -> bool:
    """Whether sums by relation are the quicker way to the neighbourhoods, and fit into memory."""
    if torch.compiler.is_compiling():
        return False  # They depend on the scores' range.
    num_targets, num_relations = plan.size[1], plan.num_relations
    is_dense = num_relations * num_targets <= _MAX_RELATIONS_PER_EDGE * plan.num_edges
    return is_dense and RelationSums.num_bytes(num_targets, num_relations, x) <= _MAX_SUMS
