"""Products of queries with what they are compared to, head by head, in whichever way is the least work."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor
from torch_geometric.nn.conv import MessagePassing
from torch_geometric.nn.dense.linear import Linear

from mgwa_pyg.nn.conv.fusion import apply_map, check_map, is_plain
from mgwa_pyg.ops import RelationCSR, hubs
from mgwa_pyg.utils.checks import check_finite, check_same_type, values_are_checked

ACTIVATIONS = {
    "sigmoid": torch.sigmoid,
    "leaky_relu": lambda score: F.leaky_relu(score, 0.2),
    "tanh": torch.tanh,
    None: lambda score: score,
}


def activate(score: Tensor, activation: str | None) -> Tensor:
    """The scores after their activation."""
    if score.dtype in (torch.float16, torch.bfloat16):
        score = score.float()  # Softmax in half precision loses too much.
    return ACTIVATIONS[activation](score)


def check_scores(conv: MessagePassing, score: Tensor) -> None:
    """Raise a :class:`ValueError` if scores are NaN or infinite."""
    if values_are_checked(score.device):
        others = "relation" if conv.edge_dim is None else "relation or edge_attr"
        check_finite(f"the product of query and {others}", score)


def every_product(query: Tensor, relation: Tensor, heads: int) -> Tensor:
    """The product of every query and relation, :math:`(B, R, H)`."""
    check_same_type("query", query, "relation", relation)
    if heads == 1:
        return (query @ relation.t()).unsqueeze(-1)
    return torch.einsum("bhd,rhd->brh", _by_head(query, heads), _by_head(relation, heads))


def products(query: Tensor, relation: Tensor, heads: int) -> Tensor:
    """The product of each query and the relation beside it, :math:`(E, H)`."""
    check_same_type("query", query, "relation", relation)
    dtype = torch.promote_types(query.dtype, torch.float32)
    return _by_head(query * relation, heads).sum(dim=-1, dtype=dtype)


def feature_products(
    query: Tensor, index: Tensor | None, lin_edge: Linear, edge_attr: Tensor, heads: int
) -> Tensor:
    """The product of each edge's query, as by :func:`lift`, and mapped features, :math:`(E, H)`."""
    if not is_plain(lin_edge):
        return products(
            lift(query, index), apply_map("edge_attr", lin_edge, edge_attr.to(query.dtype)), heads
        )
    # The features as queries meet them have fewer elements.
    check_same_type("query", query, "the layer's weight", lin_edge.weight)
    query = torch.einsum("bhd,hdf->bhf", _by_head(query, heads), lin_edge.weight.unflatten(0, (heads, -1)))
    return (lift(query, index) * edge_attr.unsqueeze(1)).sum(dim=-1)


def products_on(
    plan: RelationCSR, query: Tensor, query_index: Tensor | None, relation: Tensor, heads: int
) -> tuple[Tensor, RelationCSR]:
    """The products of the :math:`P` pairs of query and relation that occur, :math:`(1, P, H)`, and a plan of
    which they are the relations.
    """
    row = 0 if query_index is None else query_index.long().index_select(0, plan.dst)
    pair, column = torch.unique_consecutive(row * plan.num_relations + plan.rel, return_inverse=True)
    query, relation = lift(query, pair // plan.num_relations), lift(relation, pair % plan.num_relations)
    return products(query, relation, heads).unsqueeze(0), plan.with_relations(column, pair.size(0))


def project(lin_query: Linear, x: Tensor, relation: Tensor, query_channels: int) -> tuple[Tensor, Tensor]:
    """The targets and the relations, one of them projected: for the products of projected targets and
    relations.

    One product by node is taken in place of two, unless relations are many and queries short.
    """
    F_in, D, R = x.size(1), query_channels, relation.size(0)
    if F_in * R > (F_in + R) * D or not is_plain(lin_query):
        return apply_map("x[1]", lin_query, x), relation
    check_map("x[1]", lin_query, x)
    check_same_type("relation", relation, "the layer's weight", lin_query.weight)
    return x, relation @ lin_query.weight


def lift(rows: Tensor, index: Tensor | None) -> Tensor:
    """The row of each edge; :obj:`None` says that all have the one there is."""
    return rows if index is None else hubs.lift(rows, index)


def _by_head(vectors: Tensor, heads: int) -> Tensor:
    return vectors.unflatten(1, (heads, -1))
