r"""`relation_softmax_aggregate`: scores looked up, softmax and sum in one operation, without messages.

The score of an edge depends on the query of its target and on its relation alone. With :math:`\alpha_e` the
softmax of the scores within a target and :math:`\mathbf{g}_v` the gradient of its output,

.. math::
    \mathbf{out}_v = \sum_{e \to v} \alpha_e \mathbf{x}_{u(e)}, \qquad
    \frac{\partial}{\partial \mathbf{x}_u} = \sum_{u \to e} \alpha_e \mathbf{g}_{v(e)}, \qquad
    \frac{\partial}{\partial s_e} = \alpha_e \Bigl( p_e - \sum_{e' \to v(e)} \alpha_{e'} p_{e'} \Bigr), \quad
    p_e = \langle \mathbf{g}_{v(e)}, \mathbf{x}_{u(e)} \rangle.

The first two are weighted sums over rows of a matrix, by target and by source, as
:func:`torch.nn.functional.embedding_bag` computes them; the third is a product of two matrices at the edges
only. Hence one number per edge is kept for the backward pass, and none of the size of a message exists.

A gradient of the gradient, forward mode and the transforms of :mod:`torch.func` know torch's own operators
only. They meet the same composed of such, messages and all.

Several tables at once are as many copies of the edges: each copy has targets and scores of its own, and all
have the same sources.
"""

from __future__ import annotations

import warnings
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from mgwa_pyg.ops.backends import (
    SEGMENT_OPS,
    ReferenceOps,
    SegmentOps,
    choose_backend,
    segment_ops,
)
from mgwa_pyg.ops.hubs import Hubs, is_long, lift
from mgwa_pyg.ops.plan import RelationCSR, check_plan, copies, pointer_copies, type_of_copies
from mgwa_pyg.utils.checks import (
    check_finite,
    check_no_nan,
    check_probability,
    check_range,
    check_same_device,
    check_tensors,
    forms,
    has_values,
    is_transformed,
    values_are_checked,
)
from mgwa_pyg.utils.sorted_edges import index_type

# Within this range of scores, exponentials are as exact beside the highest of the table as of the row.
_NARROW = 16.0

with warnings.catch_warnings():
    # Torch says once per process that its CSR tensors are in beta: here, where nobody needs to hear it.
    warnings.simplefilter("ignore")
    torch.eye(1).to_sparse_csr()


def relation_softmax_aggregate(
    x: Tensor,
    table: Tensor,
    plan: RelationCSR,
    query_index: Tensor | None = None,
    backend: str = "auto",
    dropout: float = 0.0,
) -> Tensor:
    r"""Sum the sources' features over each target's edges, weighted by a softmax of the relations' scores:

    .. math::
        \mathbf{out}_v = \sum_{e \to v} \frac{\exp(\mathbf{T}_{q(v), r(e)})}
        {\sum_{e' \to v} \exp(\mathbf{T}_{q(v), r(e')})} \, \mathbf{x}_{u(e)}

    This is eqs. (3)--(5) of `MGWA <https://doi.org/10.12677/SEA.2024.131010>`_, after the scores.
    Exact whatever the range of the scores; on the CPU, sums over more than 8,192 edges keep five digits.
    Scores of minus infinity mask edges; a target of which all are masked is one without edges.

    Can be differentiated with respect to :obj:`x` and :obj:`table` any number of times, in reverse and
    forward mode and under the transforms of :mod:`torch.func`. Anything but a first derivative in reverse
    mode is composed as :obj:`"reference"` does, with a message for each edge.

    Several tables at once give as many results from the same features: the heads of a layer, or, with one
    row each, users who all look at the whole graph.

    Args:
        x (torch.Tensor): The features of the sources, :math:`(N_{src}, C)`.
        table (torch.Tensor): The score of each query and relation, before the softmax, :math:`(B, R)`, or
            :math:`H` such tables, :math:`(H, B, R)`. The softmax is computed in its type, in single precision
            at least.
        plan (RelationCSR): The plan of the graph, its edges in order.
        query_index (torch.Tensor, optional): The row of :obj:`table` that each target uses,
            :math:`(N_{dst})`; :obj:`None` if there is one row, for all targets. (default: :obj:`None`)
        backend (str, optional): :obj:`"torch"` (nothing of the size of the messages is ever made),
            :obj:`"triton"` (the same by kernels for CUDA), :obj:`"reference"` (composed of PyG's softmax and
            scatter), :obj:`"scatter"` (of torch_scatter's) or :obj:`"auto"`: :obj:`"torch"` on the CPU and
            :obj:`"triton"` on CUDA, but :obj:`"reference"` for few edges, where it is faster, on other
            devices, and on CUDA without triton. All give the same result. (default: :obj:`"auto"`)
        dropout (float, optional): The probability with which an edge's weight is set to zero after the
            softmax, the others growing by :math:`1 / (1 - p)`. (default: :obj:`0`)

    Returns:
        The aggregated features, :math:`(N_{dst}, C)`, or :math:`(N_{dst}, H, C)` of :math:`H` tables, in the
        type of :obj:`x`; zero for targets without edges, or whose scores are all minus infinity.

    Raises:
        ValueError: If shapes, types or devices do not go together, no backend has that name, the
            backend is not for that device, features are NaN or scores NaN or infinite.
        IndexError: If :obj:`query_index` is out of range.
        ImportError: If the backend's package is not installed.

    Values are checked on the CPU always, and on an accelerator only under :class:`torch_geometric.debug`;
    never while a program is traced or transformed.
    """
    _check(x, table, plan, query_index)
    dropout = check_probability("dropout", dropout)
    tables = table if table.dim() == 3 else table.unsqueeze(0)
    name = choose_backend(backend, x.device, tables.size(0) * plan.num_edges * x.size(1))
    out = aggregate_unchecked(x, tables, plan, query_index, name, dropout)
    return out if table.dim() == 3 else out.squeeze(1)


def aggregate_unchecked(
    x: Tensor, tables: Tensor, plan: RelationCSR, query_index: Tensor | None, backend: str, dropout: float
) -> Tensor:
    """The same of several tables, for whoever has looked at all values and asked :func:`choose_backend`."""
    if tables.dtype in (torch.float16, torch.bfloat16):
        tables = tables.float()  # Softmax in half precision loses too much.
    scale = None
    if dropout > 0.0:
        scale = F.dropout(tables.new_ones(tables.size(0), plan.num_edges), dropout)
    if backend in SEGMENT_OPS:
        by_target = plan.rowptr, plan.col, plan.dst, plan.rel
        out = _composed(segment_ops(backend), x, tables, scale, query_index, *by_target)
    else:
        edges = plan.rowptr, plan.col, plan.dst, plan.rel, plan.colptr, plan.cdst, plan.csc
        out, _ = _aggregate(x, tables, scale, query_index, *edges, backend == "triton")
    return out.transpose(0, 1)


_FORMS = forms(
    x="float: sources channels",
    table="float: queries relations | tables queries relations",
    query_index="int: targets | None",
)


def _check(x: Tensor, table: Tensor, plan: RelationCSR, query_index: Tensor | None) -> None:
    check_plan("plan", plan)
    values = {"x": x, "table": table, "query_index": query_index}
    num_src, num_dst = plan.size
    check_tensors(_FORMS, values, sources=num_src, targets=num_dst, relations=plan.num_relations)
    check_same_device("the plan", plan.col, "x", x)
    if table.dim() == 3 and table.size(0) == 0:
        raise ValueError(f"table has shape {tuple(table.shape)}, but at least one table is needed")
    num_queries = table.size(-2)
    if query_index is None and num_queries != 1:
        raise ValueError(
            f"table has {num_queries} rows, but query_index is None, which goes with one row: pass the row "
            f"that each of {num_dst} targets uses, torch.arange({num_dst}) for one of its own each, or "
            f"table.unsqueeze(1) for a result for each row"
        )
    if values_are_checked(x.device):
        check_range("query_index", query_index, num_queries, "the rows of table")
        check_no_nan("x", x)
        check_finite("table", table, masks=True)


def _composed(
    ops: SegmentOps,
    x: Tensor,
    tables: Tensor,
    scale: Tensor | None,
    query_index: Tensor | None,
    rowptr: Tensor,
    col: Tensor,
    dst: Tensor,
    rel: Tensor,
) -> Tensor:
    """The outputs :math:`(H, N_{dst}, C)` of a message for each edge."""
    num_dst = rowptr.size(0) - 1
    wide = torch.promote_types(x.dtype, torch.float32)
    # The gradients of what is looked up are sums over edges, too.
    cell = _cells(query_index, dst, rel, tables.shape[1:])
    lookup = tables.double() if is_long(cell) else tables
    score = lookup.flatten(1).t().index_select(0, cell).to(tables.dtype)
    dst = dst.long()
    alpha = ops.softmax(score, dst, None, num_dst)
    if scale is not None:
        alpha = alpha * scale.t()
    messages = alpha.to(wide).unsqueeze(2) * lift(x.to(wide), col).unsqueeze(1)
    return ops.sum(messages, dst, None, num_dst).to(x.dtype).transpose(0, 1)


def _cells(query_index: Tensor | None, dst: Tensor, rel: Tensor, shape: torch.Size) -> Tensor:
    """The position of each edge's score in a flattened table of ``shape``, by target."""
    if query_index is None:
        return rel
    row = query_index.long() * shape[1]
    if has_values(dst):
        row = row.to(index_type(shape.numel()))
    return row.index_select(0, dst) + rel


def _by_table(
    num_tables: int, num_cells: int, rowptr: Tensor, col: Tensor, dst: Tensor, cell: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The same of all copies of the edges, one for each table, which has ``num_cells`` scores."""
    if num_tables == 1:
        return rowptr, col, dst, cell
    num_edges, num_dst = col.size(0), rowptr.size(0) - 1
    dtype = type_of_copies(col, num_tables * max(num_edges, num_dst, num_cells))
    return (
        pointer_copies(rowptr, num_tables, num_edges, dtype),
        copies(col, num_tables, 0, dtype),
        copies(dst, num_tables, num_dst, dtype),
        copies(cell, num_tables, num_cells, dtype),
    )


def _exp(tables: Tensor, rowptr: Tensor, dst: Tensor, cell: Tensor) -> Tensor:
    """The exponential of each edge's score, less a number that all scores of a row share."""
    scores = tables.flatten(1)
    if 0 < scores.numel() <= cell.numel() and scores.device.type == "cpu":
        highest = scores.amax(dim=1, keepdim=True)
        if (highest - scores.amin(dim=1, keepdim=True)).max() <= _NARROW:
            return (scores - highest).exp_().flatten().index_select(0, cell)
    score = scores.flatten().index_select(0, cell)
    # Where all scores are minus infinity, nothing may be subtracted from itself.
    highest = torch.segment_reduce(score, "max", offsets=rowptr, initial=torch.finfo(score.dtype).min)
    return score.sub_(highest.index_select(0, dst)).exp_()


def _sum(value: Tensor, ptr: Tensor, hubs: Hubs | None) -> Tensor:
    """The sum over each row of one number for each edge."""
    out = torch.segment_reduce(value, "sum", offsets=ptr, initial=0)
    if hubs is not None:
        hubs.join(out, value.index_select(0, hubs.edge), hubs.begin[hubs.first])
    return out


def _weighted_sum(x: Tensor, index: Tensor, ptr: Tensor, weight: Tensor, hubs: Hubs | None) -> Tensor:
    """The weighted sum over each row of the rows of ``x`` that ``index`` names."""
    # The weights in a hub are too small for half precision.
    exact = hubs is None and x.dtype != torch.float16
    wide = x.dtype if exact else torch.promote_types(x.dtype, torch.float32)
    # Detached, as embedding_bag prepares for a backward pass of its own otherwise.
    features, weight = x.detach().to(wide), weight.to(wide)

    def sums(index: Tensor, ptr: Tensor, weight: Tensor) -> Tensor:
        return F.embedding_bag(
            index, features, ptr, mode="sum", per_sample_weights=weight, include_last_offset=True
        )

    out = sums(index, ptr, weight)
    if hubs is not None:
        edge = hubs.edge
        begin, weight = hubs.begin.to(index.dtype), weight.index_select(0, edge)
        hubs.join(out, sums(index.index_select(0, edge), begin, weight), hubs.first)
    return out.to(x.dtype)


def _weighted_sum_by_source(grad: Tensor, weight: Tensor, colptr: Tensor, cdst: Tensor) -> Tensor:
    """Sum the rows of ``grad``, :math:`(H, N_{dst}, C)`, that edges out of each source lead to."""
    num_tables, num_dst, num_channels = grad.shape
    if num_tables > 1:  # All copies of an edge next to each other.
        dtype = type_of_copies(cdst, num_tables * max(cdst.size(0), num_dst))
        shift = torch.arange(num_tables, dtype=dtype, device=cdst.device) * num_dst
        cdst, colptr = (cdst.unsqueeze(1) + shift).flatten(), colptr.to(dtype) * num_tables
        weight = weight.t()
    grad, hubs = grad.view(num_tables * num_dst, num_channels), Hubs.of(colptr, cdst)
    return _weighted_sum(grad, cdst, colptr, weight.flatten(), hubs)


def _products(grad: Tensor, x: Tensor, rowptr: Tensor, col: Tensor, dst: Tensor) -> Tensor:
    """The inner product of the rows at both ends of each edge."""
    wide = torch.promote_types(x.dtype, torch.float32)  # The sparse product knows no half precision.
    grad, x_t = grad.to(wide), x.to(wide).t()
    if grad.size(0) * x.size(0) <= col.size(0):
        # Torch's sparse matrices have no more entries than cells; and so few products are soon made.
        return (grad @ x_t).flatten().index_select(0, dst * x.size(0) + col)
    edges = torch.sparse_csr_tensor(
        rowptr,
        col,
        torch.zeros_like(col, dtype=wide),
        size=(grad.size(0), x.size(0)),
        check_invariants=False,
    )
    return torch.sparse.sampled_addmm(edges, grad, x_t, beta=0.0).values()


def _grad_score(
    grad: Tensor,
    x: Tensor,
    alpha: Tensor,
    scale: Tensor | None,
    rowptr: Tensor,
    col: Tensor,
    dst: Tensor,
) -> Tensor:
    grad_score = _products(grad, x.detach(), rowptr, col, dst).to(alpha.dtype).mul_(alpha)
    if scale is not None:
        grad_score.mul_(scale)
    hubs = Hubs.of(rowptr, col)
    for _ in range(1 if hubs is None else 2):  # Rounding leaves a hub a sum that is not zero yet.
        total = _sum(grad_score, rowptr, hubs)
        grad_score.addcmul_(alpha, total.index_select(0, dst), value=-1)
    return grad_score


@torch.library.custom_op(
    "mgwa_pyg::relation_softmax_aggregate",
    mutates_args=(),
    schema=(
        "(Tensor x, Tensor tables, Tensor? scale, Tensor? query_index, Tensor rowptr, Tensor col, "
        "Tensor dst, Tensor rel, Tensor colptr, Tensor cdst, Tensor? csc, bool triton) "
        "-> (Tensor out, Tensor alpha)"
    ),
)
def _aggregate(
    x: Tensor,
    tables: Tensor,
    scale: Tensor | None,
    query_index: Tensor | None,
    rowptr: Tensor,
    col: Tensor,
    dst: Tensor,
    rel: Tensor,
    colptr: Tensor,
    cdst: Tensor,
    csc: Tensor | None,
    triton: bool,
) -> tuple[Tensor, Tensor]:
    """The outputs of tables :math:`(H, B, R)`, :math:`(H, N_{dst}, C)`, and the attention by target.

    The attention :math:`(H, E)` has no gradient; ``scale`` of the same shape multiplies it in the outputs.
    """
    if triton:
        from mgwa_pyg.ops import triton_kernels

        return triton_kernels.forward(x, tables, scale, query_index, rowptr, col, dst, rel)
    num_tables, shape, num_dst = tables.size(0), tables.shape[1:], rowptr.size(0) - 1
    cell = _cells(query_index, dst, rel, shape)
    rowptr, col, dst, cell = _by_table(num_tables, shape.numel(), rowptr, col, dst, cell)
    alpha, hubs = _exp(tables, rowptr, dst, cell), Hubs.of(rowptr, col)
    # One at least, but of scores in a narrow range and of rows without weights: nothing is divided by zero.
    total = _sum(alpha, rowptr, hubs).clamp_(min=torch.finfo(alpha.dtype).tiny)
    alpha.div_(total.index_select(0, dst))
    out = _weighted_sum(x, col, rowptr, alpha if scale is None else alpha * scale.flatten(), hubs)
    return out.view(num_tables, num_dst, x.size(1)), alpha.view(num_tables, -1)


@torch.library.custom_op(
    "mgwa_pyg::relation_softmax_aggregate_backward",
    mutates_args=(),
    schema=(
        "(Tensor grad, Tensor x, Tensor? out, Tensor alpha, Tensor? scale, Tensor? query_index, "
        "Tensor rowptr, Tensor col, Tensor dst, Tensor rel, Tensor colptr, Tensor cdst, Tensor? csc, "
        "SymInt[3] shape, bool needs_x, bool needs_tables) -> (Tensor grad_x, Tensor grad_tables)"
    ),
)
def _aggregate_backward(
    grad: Tensor,
    x: Tensor,
    out: Tensor | None,
    alpha: Tensor,
    scale: Tensor | None,
    query_index: Tensor | None,
    rowptr: Tensor,
    col: Tensor,
    dst: Tensor,
    rel: Tensor,
    colptr: Tensor,
    cdst: Tensor,
    csc: Tensor | None,
    shape: list[int],
    needs_x: bool,
    needs_tables: bool,
) -> tuple[Tensor, Tensor]:
    """The gradients of ``x`` and ``tables``; a tensor without elements in place of one that is not needed.

    The output ``out`` is what Triton's kernels need, and stands for them. ``shape`` is that of the tables.
    """
    cells = torch.Size(shape[1:])
    num_tables, num_cells = shape[0], cells.numel()
    if out is not None:
        from mgwa_pyg.ops import triton_kernels

        grad_x, grad_tables, grad_score = triton_kernels.backward(
            grad, x, out, alpha, scale, query_index, col, rel, colptr, cdst, csc, shape, needs_x, needs_tables
        )
    else:
        grad = grad.contiguous()
        grad_x, grad_tables, grad_score = x.new_empty(0), alpha.new_empty(0), None
        if needs_x:
            weight = alpha if scale is None else alpha * scale
            weight = weight if csc is None else weight.index_select(1, csc)
            grad_x = _weighted_sum_by_source(grad, weight, colptr, cdst)
    if grad_score is not None or (out is None and needs_tables):
        cell = _cells(query_index, dst, rel, cells)
        rowptr, col, dst, cell = _by_table(num_tables, num_cells, rowptr, col, dst, cell)
        if grad_score is None:
            by_row = grad.view(num_tables * grad.size(1), x.size(1))
            factor = None if scale is None else scale.flatten()
            grad_score = _grad_score(by_row, x, alpha.flatten(), factor, rowptr, col, dst)
        grad_tables = alpha.new_zeros(num_tables * num_cells, dtype=torch.double)
        grad_tables.index_add_(0, cell, grad_score.flatten().double())
        grad_tables = grad_tables.to(alpha.dtype).view(shape)
    return grad_x, grad_tables


@_aggregate.register_fake
def _(
    x: Tensor,
    tables: Tensor,
    scale: Tensor | None,
    query_index: Tensor | None,
    rowptr: Tensor,
    col: Tensor,
    *_: Tensor | None,
) -> tuple[Tensor, Tensor]:
    num_tables = tables.size(0)
    out = x.new_empty(num_tables, rowptr.size(0) - 1, x.size(1))
    return out, tables.new_empty(num_tables, col.size(0))


@_aggregate_backward.register_fake
def _(grad: Tensor, x: Tensor, out: Tensor | None, alpha: Tensor, *args: Any) -> tuple[Tensor, Tensor]:
    *_, shape, needs_x, needs_tables = args
    grad_x = x.new_empty(x.shape) if needs_x else x.new_empty(0)
    return grad_x, alpha.new_empty(shape) if needs_tables else alpha.new_empty(0)


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    x, tables, *others, triton = inputs
    out, alpha = output
    ctx.mark_non_differentiable(alpha)
    ctx.save_for_backward(x, tables, out if triton else None, alpha, *others)


def _backward(ctx: Any, grad: Tensor, _: Tensor | None) -> tuple[Tensor | None, ...]:
    needs_x, needs_tables = ctx.needs_input_grad[:2]
    x, tables, *others = ctx.saved_tensors
    if torch.is_grad_enabled() or is_transformed():
        return *_composed_backward(grad, x, tables, *others[2:8], needs_x, needs_tables), *[None] * 10
    grad_x, grad_tables = _aggregate_backward(grad, x, *others, tables.shape, needs_x, needs_tables)
    return grad_x if needs_x else None, grad_tables if needs_tables else None, *[None] * 10


def _composed_backward(
    grad: Tensor, x: Tensor, tables: Tensor, *others: Any
) -> tuple[Tensor | None, Tensor | None]:
    """The gradients of ``x`` and ``tables``, where they may be differentiated or a transform is at work."""
    *edges, needs_x, needs_tables = others
    create_graph = torch.is_grad_enabled()
    with torch.enable_grad():
        x, tables = x.view_as(x), tables.view_as(tables)  # One may have been computed from the other.
        needed = [value for value, needs in ((x, needs_x), (tables, needs_tables)) if needs]
        out = _composed(ReferenceOps(), x, tables, *edges)
        grads = list(torch.autograd.grad(out, needed, grad, create_graph=create_graph))
    grad_x = grads.pop(0) if needs_x else None
    return grad_x, grads.pop() if needs_tables else None


_aggregate.register_autograd(_backward, setup_context=_setup_context)
