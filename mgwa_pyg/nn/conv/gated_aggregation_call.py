"""A call of `GatedAggregationConv`: its arguments, in all forms that they may have, read and checked once."""

from __future__ import annotations

from numbers import Integral
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch_geometric import EdgeIndex
from torch_geometric.nn import MessagePassing
from torch_geometric.typing import Adj, OptTensor, SparseTensor
from torch_geometric.utils import degree, is_sparse, is_torch_sparse_tensor, to_edge_index
from torch_geometric.utils.sparse import set_sparse_value

from mgwa_pyg.ops import SEGMENT_OPS, RelationCSR, choose_backend
from mgwa_pyg.utils.checks import (
    check_count,
    check_no_nan,
    check_range,
    check_same_device,
    check_tensors,
    form,
    forms,
    is_float,
    is_integer,
    values_are_checked,
)

_FORMS = forms(
    x="float: sources channels",
    edge_index="int: 2 edges",
    edge_type="int: edges | None",
    edge_attr="real: edges edge_dim | None",
    query="float: query_channels | queries query_channels | None",
    query_index="int: targets | None",
    relation="float: num_relations query_channels | None",
    **{"x[1]": "float: targets target_channels | None"},
)

# What messages and attention pass through, and where hooks of it are kept.
_METHODS = ("edge_update", "message", "aggregate", "update", "message_and_aggregate")
_HOOKS = [
    f"_{method}_forward_{when}"
    for method in ("propagate", "message", "aggregate", "message_and_aggregate", "edge_update")
    for when in ("pre_hooks", "hooks")
]


class Call(NamedTuple):
    """What a call is about, whatever its arguments were like."""

    x: Tensor
    """The features of the sources."""
    x_target: OptTensor
    """The features of the targets."""
    edge_index: Any
    """The edges, as given."""
    edge_type: OptTensor
    """The relation of each edge, where messages are made."""
    edge_attr: OptTensor
    """The features of each edge."""
    query: OptTensor
    """The queries that are given, in rows."""
    query_index: OptTensor
    """The row that each target uses; :obj:`None` where there is one for all."""
    relation: OptTensor
    """The vectors of the relations."""
    size: tuple[int, int]
    """The numbers of nodes that the rows of edges refer to."""
    num_targets: int
    num_edges: int
    plan: RelationCSR | None
    """The edges in order, where no messages are made."""
    backend: str
    """What softmax and sum are computed by there."""


def read_call(
    conv: MessagePassing,
    x: Any,
    edge_index: Any,
    edge_type: OptTensor,
    edge_attr: OptTensor,
    query: Any,
    query_index: Any,
    relation: OptTensor,
    size: Any,
    by_edge: bool,
) -> Call:
    """Read the arguments of the layer's forward pass; ``by_edge`` says that somebody looks at messages."""
    (x, x_target), query, query_index = pair(x), pair(query)[1], pair(query_index)[1]
    if conv.edge_dim is None and edge_type is None and is_integer(edge_attr):
        edge_type, edge_attr = edge_attr, None
    elif conv.edge_dim is not None and isinstance(edge_attr, Tensor) and edge_attr.dim() == 1:
        edge_attr = edge_attr.unsqueeze(1)
    _check_given(conv, x, x_target, edge_attr, query, query_index)
    index, num_edges, values = _edges(edge_index)
    edge_type = _edge_type(conv, edge_index, edge_type, values)
    size = _size(conv, x, x_target, edge_index, size)
    target = _target(conv)

    check_same_device("edge_index", index, "x", x)
    tensors = {
        "x": x,
        "edge_type": edge_type,
        "edge_attr": edge_attr,
        "query": query,
        "query_index": query_index,
        "relation": relation,
    }
    sizes = {"edges": num_edges, "targets": size[target], "edge_dim": conv.edge_dim or 0}
    vectors = {"num_relations": conv.num_relations, "query_channels": conv.query_channels}
    check_tensors(_FORMS, tensors, **sizes, **vectors)
    relation = _relation(conv, relation)
    query = query.unsqueeze(0) if query is not None and query.dim() == 1 else query
    _check_query(conv, query, query_index, size[target])
    if values_are_checked(x.device):
        check_no_nan("x", x)
        if x_target is not x:
            check_no_nan("x[1]", x_target)
        check_no_nan("edge_attr", edge_attr)
        check_range("edge_type", edge_type, conv.num_relations, "num_relations")
        if query is not None:
            check_range("query_index", query_index, query.size(0), "the rows of query")
        if index is edge_index:
            for row in (0, 1):
                check_range(f"edge_index[{row}]", edge_index[row], size[row], f"size[{row}]")

    if not conv.is_scored:
        query_index = None
    elif query_index is None and (query is None or query.size(0) != 1):
        query_index = torch.arange(size[target], device=x.device)
    plan, backend = (None, "reference") if by_edge else _plan(conv, x, edge_index, edge_type, size, num_edges)
    if plan is None:
        edge_index, edge_type = _for_messages(conv, edge_index, edge_type, num_edges, x.device)
        query_index = None if query_index is None else query_index.long()
    return Call(
        x,
        x_target,
        edge_index,
        edge_type,
        edge_attr,
        query,
        query_index,
        relation,
        size,
        size[target],
        num_edges,
        plan,
        backend,
    )


def looks_at_edges(conv: MessagePassing, base: type) -> bool:
    """Whether somebody wants to see or change what lies on the edges, so that it has to be made: ``base`` is
    the layer itself, whose methods a subclass may have replaced.
    """
    if conv.edge_dim is not None or conv.explain:
        return True
    if any(getattr(type(conv), name) is not getattr(base, name) for name in _METHODS):
        return True
    return any(getattr(conv, name) for name in _HOOKS)


def read_query(conv: MessagePassing, query: Any, relation: OptTensor) -> tuple[Tensor, Tensor]:
    """Read queries without targets: the queries in rows, and the vectors of the relations."""
    needed = {**_FORMS, "query": _FORMS["query"]._replace(is_optional=False)}
    tensors = {"query": query, "relation": relation}
    check_tensors(needed, tensors, num_relations=conv.num_relations, query_channels=conv.query_channels)
    return query if query.dim() == 2 else query.unsqueeze(0), _relation(conv, relation)


def count_edges(conv: MessagePassing, call: Call) -> Tensor:
    """The number of edges into each target."""
    edge_index, target = call.edge_index, _target(conv)
    if call.plan is not None:
        return call.plan.rowptr.diff()
    if is_torch_sparse_tensor(edge_index) and edge_index.layout == torch.sparse_coo:
        return degree(edge_index.indices()[0], call.num_targets, dtype=torch.long)
    if is_sparse(edge_index):
        edge_index, target = to_edge_index(edge_index)[0], 0
    return degree(edge_index[target], call.num_targets, dtype=torch.long)


def with_attention(edge_index: Adj, alpha: Tensor) -> tuple[Adj, Tensor] | SparseTensor:
    """The edges and their attention, as PyG's layers return them."""
    if isinstance(edge_index, SparseTensor):
        return edge_index.set_value(alpha, layout="coo")
    if is_torch_sparse_tensor(edge_index):
        return set_sparse_value(edge_index, alpha), alpha
    return edge_index, alpha


def pair(value: Any) -> tuple[Any, Any]:
    """What is given for sources and for targets, or once for both."""
    return (value[0], value[1]) if isinstance(value, (tuple, list)) and len(value) == 2 else (value, value)


def check_channels(name: str, value: Any) -> Any:
    """Return a size or a pair of them, -1 for one that is derived, or raise a :class:`ValueError`."""
    widths = value if isinstance(value, (tuple, list)) else (value,)
    if len(widths) not in (1, 2) or (len(widths) == 1 and widths is value):
        raise ValueError(f"{name}={value}: one size is needed, or one of sources and of targets")
    widths = tuple(check_count(name, width, -1) for width in widths)
    if 0 in widths:
        raise ValueError(f"{name}={value}: at least one channel is needed, or -1 to derive them")
    return widths if len(widths) == 2 else widths[0]


def check_query_channels(query_channels: Any, heads: int, out_channels: int) -> int:
    """Return the size of a query, which is shared out to the heads."""
    query_channels = heads * out_channels if query_channels is None else query_channels
    query_channels = check_count("query_channels", query_channels)
    if query_channels % heads != 0:
        raise ValueError(
            f"query_channels={query_channels} cannot be shared out to heads={heads}: it must be a multiple "
            f"of heads"
        )
    return query_channels


def aggregation(kwargs: dict[str, Any]) -> dict[str, Any]:
    """The arguments of :class:`MessagePassing`, of which some can have one value alone."""
    for name, only in (("aggr", ("add", "sum")), ("aggr_kwargs", (None, {})), ("node_dim", (0,))):
        if (given := kwargs.get(name, only[0])) not in only:
            raise ValueError(
                f"{name}={given!r:.60}: the layer is a sum over the first dimension, weighted by a softmax, "
                f"so it takes {name}={only[0]!r} alone"
            )
    return {**kwargs, "aggr": "add", "node_dim": 0}


def _target(conv: MessagePassing) -> int:
    """The row of edges that holds the targets."""
    return 1 if conv.flow == "source_to_target" else 0


def _check_given(
    conv: MessagePassing, x: Any, x_target: Any, edge_attr: Any, query: Any, query_index: Any
) -> None:
    """Check the features of nodes, and that what is needed is there."""
    if not is_float(x) or x.dim() != 2:
        raise ValueError(
            f"x must be a matrix of floating-point features or a pair of them, static graphs are not "
            f"supported, but the source's part {form(x)}"
        )
    check_tensors(_FORMS, {"x": x, "x[1]": x_target})
    if x_target is None and (conv.fusion.uses_self or (conv.is_scored and query is None)):
        raise ValueError(
            "x[1] is None, but the fusion or the query needs features of the target nodes: pass a pair of "
            "two tensors"
        )
    if query is None and query_index is not None:
        raise ValueError("query_index picks rows of query, but query is None")
    if (edge_attr is None) != (conv.edge_dim is None):
        raise ValueError(
            f"edge_attr {form(edge_attr)}, but the layer was made with edge_dim={conv.edge_dim}: both or "
            f"neither are needed (edge_attr can stand for edge_type, if it is a vector of whole numbers and "
            f"edge_type is None)"
        )


def _relation(conv: MessagePassing, relation: OptTensor) -> OptTensor:
    """The vectors of the relations, the layer's own where none are given."""
    relation = conv.relation if relation is None else relation
    if relation is None and conv.is_scored:
        raise ValueError("relation is None, but this layer has no vectors of its own: pass relation")
    return relation


def _check_query(conv: MessagePassing, query: OptTensor, query_index: OptTensor, num_targets: int) -> None:
    """Check that each target has a query."""
    if query is None and conv.is_scored and conv.lin_query is None:
        raise ValueError("query is None, but this layer has no projection of its own: pass query")
    if query is None or query_index is not None or not conv.is_scored:
        return
    if query.size(0) not in (1, num_targets):
        raise ValueError(
            f"query has {query.size(0)} rows, but there are {num_targets} target nodes: pass one row, one "
            f"for each target, or query_index to say which row each target uses"
        )


def _edges(edge_index: Any) -> tuple[Tensor, int, OptTensor]:
    """A tensor that is where the edges are, their number, and the values of a sparse layout."""
    if isinstance(edge_index, RelationCSR):
        return edge_index.col, edge_index.num_edges, None
    if isinstance(edge_index, SparseTensor):
        return edge_index.storage.col(), edge_index.nnz(), edge_index.storage.value()
    if isinstance(edge_index, Tensor) and is_torch_sparse_tensor(edge_index):
        if edge_index.layout not in (torch.sparse_coo, torch.sparse_csr):
            raise ValueError(
                f"edge_index is {edge_index.layout}, but targets in rows are needed: pass "
                f"edge_index.to_sparse_csr()"
            )
        if edge_index.layout == torch.sparse_coo and not edge_index.is_coalesced():
            raise ValueError(
                f"edge_index is a sparse tensor of shape {tuple(edge_index.shape)} that is not coalesced"
            )
        return edge_index.values(), edge_index.values().size(0), edge_index.values()
    check_tensors(_FORMS, {"edge_index": edge_index})
    return edge_index, edge_index.size(1), None


def _edge_type(conv: MessagePassing, edge_index: Any, edge_type: OptTensor, values: OptTensor) -> OptTensor:
    """The types of edges, wherever they are given; :obj:`None` in a plan."""
    if isinstance(edge_index, RelationCSR):
        if edge_type is not None:
            raise ValueError("edge_type is given, but edge_index is a RelationCSR, which holds the types")
        if edge_index.num_relations != conv.num_relations:
            raise ValueError(
                f"edge_index is a RelationCSR of {edge_index.num_relations} relations, but the layer was "
                f"made with num_relations={conv.num_relations}"
            )
        return None
    if edge_type is not None or conv.num_relations == 1:
        return edge_type
    if values is None:
        raise ValueError(f"edge_type is None, but the layer was made with num_relations={conv.num_relations}")
    return values


def _size(
    conv: MessagePassing, x: Tensor, x_target: OptTensor, edge_index: Any, size: Any
) -> tuple[int, int]:
    """The numbers of nodes that the rows of edges refer to, on which all who know one have to agree."""
    target, known = _target(conv), _known_size(conv, edge_index)
    if size is not None and (
        not isinstance(size, (tuple, list))
        or len(size) != 2
        or not all(number is None or isinstance(number, (Integral, torch.SymInt)) for number in size)
    ):
        raise ValueError(f"size={size}: two numbers of nodes are needed")
    size = known if size is None else tuple(size)
    if isinstance(edge_index, RelationCSR) and size != known:
        raise ValueError(f"size={size}, but edge_index is a RelationCSR of size {known}")
    num_targets = size[target] if x_target is None else x_target.size(0)
    if num_targets is None:
        raise ValueError("the number of target nodes is unknown: pass size=(N_src, N_dst)")
    nodes = (x.size(0), num_targets) if target == 1 else (num_targets, x.size(0))
    if _differ(known, nodes):
        raise ValueError(f"edge_index {_describe(edge_index, known)} is of {nodes} nodes")
    if _differ(size, nodes):
        raise ValueError(f"size={size}, but x is of {nodes} nodes")
    return nodes


def _known_size(conv: MessagePassing, edge_index: Any) -> tuple[int | None, int | None]:
    """The numbers of nodes that the rows of edges refer to, as far as edges know them."""
    if isinstance(edge_index, RelationCSR):
        return edge_index.size if _target(conv) == 1 else edge_index.size[::-1]
    if isinstance(edge_index, EdgeIndex):
        return edge_index.sparse_size()
    if is_sparse(edge_index) and _target(conv) == 1:
        return edge_index.size(1), edge_index.size(0)
    return None, None


def _describe(edge_index: Any, known: tuple[int | None, int | None]) -> str:
    if isinstance(edge_index, RelationCSR):
        return f"is a RelationCSR of size {known}, but x or size"
    if isinstance(edge_index, EdgeIndex):
        return f"is an EdgeIndex of sparse_size={known}, but x"
    return f"has shape {known[::-1]}, but x"


def _differ(told: tuple[int | None, int | None], nodes: tuple[int, int]) -> bool:
    return any(number is not None and number != found for number, found in zip(told, nodes, strict=True))


def _plan(
    conv: MessagePassing,
    x: Tensor,
    edge_index: Any,
    edge_type: OptTensor,
    size: tuple[int, int],
    num_edges: int,
) -> tuple[RelationCSR | None, str]:
    """The plan of the edges, and what computes on it; no plan where making one is not worth the time."""
    is_plan = isinstance(edge_index, RelationCSR)
    backend = choose_backend(conv.backend, x.device, num_edges * conv.heads * x.size(1), ordered=is_plan)
    if is_plan:
        return edge_index, backend
    if backend in SEGMENT_OPS:
        return None, backend
    if is_sparse(edge_index):
        if conv.flow == "target_to_source":
            return None, backend  # PyG says what to do instead.
        edge_index = to_edge_index(_readable(edge_index))[0].flip(0)
    elif conv.flow == "target_to_source":
        edge_index, size = edge_index.flip(0), size[::-1]
    # On an accelerator, ordering waits for the values anyway.
    check = not values_are_checked(x.device)
    return RelationCSR.from_edge_index(edge_index, edge_type, conv.num_relations, size, check), backend


def _for_messages(
    conv: MessagePassing, edge_index: Any, edge_type: OptTensor, num_edges: int, device: torch.device
) -> tuple[Adj, Tensor]:
    """The edges and the type of each, as PyG's :meth:`propagate` takes them."""
    if isinstance(edge_index, RelationCSR):
        edge_index, edge_type = edge_index.to_edge_index()
        edge_index = edge_index if _target(conv) == 1 else edge_index.flip(0)
    elif is_sparse(edge_index):
        edge_index = _readable(edge_index)
    elif edge_index.dtype != torch.long:
        edge_index = edge_index.long()
    # Where there are none, PyG would take the values of a sparse matrix, which may be anything.
    if edge_type is None or conv.num_relations == 1:
        edge_type = torch.zeros(num_edges, dtype=torch.long, device=device)
    return edge_index, edge_type.long()


def _readable(edge_index: Adj) -> Adj:
    """An adjacency that PyG may read: it marks a COO tensor as changed whenever it does, and autograd keeps
    parts of that.
    """
    if not isinstance(edge_index, Tensor) or edge_index.layout != torch.sparse_coo:
        return edge_index
    index, value = edge_index.indices(), edge_index.values()
    return torch.sparse_coo_tensor(index, value, edge_index.shape, is_coalesced=True, check_invariants=False)
