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
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from mgwa_pyg.checks import check_range, is_integer, values_are_checked
from mgwa_pyg.ops.backends import get_backend
from mgwa_pyg.ops.plan import RelationCSR

with warnings.catch_warnings():
    # Torch says once per process that its CSR tensors are in beta: here, where nobody needs to hear it.
    warnings.simplefilter("ignore")
    torch.eye(1).to_sparse_csr()

_HAS_TRITON = find_spec("triton") is not None


def relation_softmax_aggregate(
    x: Tensor,
    table: Tensor,
    plan: RelationCSR,
    query_index: Tensor | None = None,
    backend: str = "auto",
) -> Tensor:
    r"""Sum the sources' features over each target's edges, weighted by a softmax of the relations' scores:

    .. math::
        \mathbf{out}_v = \sum_{e \to v} \frac{\exp(\mathbf{T}_{q(v), r(e)})}
        {\sum_{e' \to v} \exp(\mathbf{T}_{q(v), r(e')})} \, \mathbf{x}_{u(e)}

    This is eqs. (3)--(5) of MGWA, a multi-layer gated recommender over knowledge graphs, after the scores.
    Exact whatever the range of the scores. Can be differentiated once, with respect to :obj:`x` and
    :obj:`table`.

    Args:
        x (torch.Tensor): The features of the sources, :math:`(N_{src}, C)`.
        table (torch.Tensor): The score of each query and relation, before the softmax, :math:`(B, R)`. The
            softmax is computed in its type, in single precision at least.
        plan (RelationCSR): The edges.
        query_index (torch.Tensor, optional): The row of :obj:`table` that each target uses,
            :math:`(N_{dst})`; :obj:`None` if there is one row, for all targets. (default: :obj:`None`)
        backend (str, optional): :obj:`"torch"` (nothing of the size of the messages is ever made),
            :obj:`"reference"` (PyG's softmax and scatter), :obj:`"scatter"` (torch_scatter),
            :obj:`"triton"` (kernels for CUDA, not yet measured on a GPU) or :obj:`"auto"`, which is
            :obj:`"torch"`. All give the same result. (default: :obj:`"auto"`)

    Returns:
        The aggregated features, :math:`(N_{dst}, C)` in the type of :obj:`x`; zero for targets without edges.

    Raises:
        ValueError: If shapes, types or devices do not go together, no backend has that name, or the
            backend is not for that device.
        IndexError: If :obj:`query_index` is out of range; on an accelerator, looked at only under
            :class:`torch_geometric.debug`.
        ImportError: If the backend's package is not installed.
    """
    if backend not in _BACKENDS:
        raise ValueError(f"backend={backend!r} is unknown: choose one of {sorted(_BACKENDS)}")
    _check(x, table, plan, query_index)
    if table.dtype in (torch.float16, torch.bfloat16):
        table = table.float()  # Softmax in half precision loses too much.
    return _BACKENDS[backend](x, table, plan, query_index)


def _check(x: Tensor, table: Tensor, plan: RelationCSR, query_index: Tensor | None) -> None:
    num_src, num_dst = plan.size
    if x.dim() != 2 or x.size(0) != num_src or not x.is_floating_point():
        raise ValueError(
            f"x has shape {tuple(x.shape)} and type {x.dtype}, but floating-point features of {num_src} "
            f"sources, the plan's size[0], are needed"
        )
    if table.dim() != 2 or table.size(1) != plan.num_relations or not table.is_floating_point():
        raise ValueError(
            f"table has shape {tuple(table.shape)} and type {table.dtype}, but a floating-point matrix with "
            f"the scores of {plan.num_relations} relations, the plan's num_relations, is needed"
        )
    if query_index is None and table.size(0) != 1:
        raise ValueError(
            f"table has {table.size(0)} rows, but query_index is None, which goes with one row: pass the row "
            f"that each of {num_dst} targets uses, torch.arange({num_dst}) for one of its own each"
        )
    if query_index is not None and (query_index.shape != (num_dst,) or not is_integer(query_index)):
        raise ValueError(
            f"query_index has shape {tuple(query_index.shape)} and type {query_index.dtype}, but one whole "
            f"number for each of {num_dst} targets, the plan's size[1], is needed"
        )
    for name, value in (("table", table), ("query_index", query_index), ("the plan", plan.col)):
        if value is not None and value.device != x.device:
            raise ValueError(f"{name} is on {value.device}, but x on {x.device}")
    if values_are_checked(x.device):
        check_range("query_index", query_index, table.size(0), "the rows of table")


def _takes_triton(backend: str, device: torch.device) -> bool:
    """Whether the fused operation launches Triton's kernels on ``device``, the one place that decides it.

    Nobody has measured them on a GPU yet, so ``"auto"`` does not.
    """
    if backend != "triton":
        return False
    if device.type != "cuda" and os.environ.get("TRITON_INTERPRET") != "1":
        raise ValueError(
            f"backend='triton' is for CUDA, but x is on {device}: choose backend='auto', or set "
            f"TRITON_INTERPRET=1 before Python starts to interpret the kernels, slowly"
        )
    if not _HAS_TRITON:
        raise ImportError(
            "backend='triton' needs triton, which is not installed. Install it with `pip install "
            "mgwa_pyg[triton]`, or choose backend='auto'."
        )
    return True


def _fused(backend: str) -> Callable[..., Tensor]:
    """All in one operation, by the kernels that ``backend`` stands for."""

    def aggregate(x: Tensor, table: Tensor, plan: RelationCSR, query_index: Tensor | None) -> Tensor:
        out, _ = _aggregate(
            x,
            table,
            query_index,
            plan.rowptr,
            plan.col,
            plan.dst,
            plan.rel,
            plan.colptr,
            plan.cdst,
            plan.csc,
            _takes_triton(backend, x.device),
        )
        return out

    return aggregate


def _composed(name: str) -> Callable[..., Tensor]:
    """The same from the segment operations of the backend called ``name``, with a message for each edge."""

    def aggregate(x: Tensor, table: Tensor, plan: RelationCSR, query_index: Tensor | None) -> Tensor:
        ops = get_backend(name)
        dst, num_dst = plan.dst.long(), plan.size[1]
        cell = _cells(query_index, plan.dst, plan.rel, table.shape)
        alpha = ops.softmax(table.flatten().index_select(0, cell), dst, None, num_dst)
        messages = alpha.to(x.dtype).unsqueeze(1) * x.index_select(0, plan.col)
        return ops.sum(messages, dst, None, num_dst)

    return aggregate


_BACKENDS: dict[str, Callable[..., Tensor]] = {
    "auto": _fused("auto"),
    "torch": _fused("torch"),
    "reference": _composed("reference"),
    "scatter": _composed("scatter"),
    "triton": _fused("triton"),
}


def _cells(query_index: Tensor | None, dst: Tensor, rel: Tensor, shape: torch.Size) -> Tensor:
    """The position of each edge's score in the flattened table, by target."""
    if query_index is None:
        return rel
    row = query_index.long() * shape[1]
    if shape.numel() < torch.iinfo(torch.int32).max:
        row = row.int()
    return row.index_select(0, dst) + rel


def _weighted_sum(x: Tensor, index: Tensor, ptr: Tensor, weight: Tensor) -> Tensor:
    # Detached, as embedding_bag prepares for a backward pass of its own otherwise.
    return F.embedding_bag(
        index, x.detach(), ptr, mode="sum", per_sample_weights=weight.to(x.dtype), include_last_offset=True
    )


def _grad_score(grad: Tensor, x: Tensor, alpha: Tensor, rowptr: Tensor, col: Tensor, dst: Tensor) -> Tensor:
    wide = torch.promote_types(x.dtype, torch.float32)  # The product knows no half precision.
    edges = torch.sparse_csr_tensor(
        rowptr,
        col,
        torch.zeros_like(alpha, dtype=wide),
        size=(grad.size(0), x.size(0)),
        check_invariants=False,
    )
    product = torch.sparse.sampled_addmm(edges, grad.to(wide), x.detach().to(wide).t(), beta=0.0)
    grad_score = product.values().to(alpha.dtype) * alpha
    total = torch.segment_reduce(grad_score, "sum", offsets=rowptr, initial=0)
    return grad_score.addcmul_(alpha, total.index_select(0, dst), value=-1)


@torch.library.custom_op(
    "mgwa_pyg::relation_softmax_aggregate",
    mutates_args=(),
    schema=(
        "(Tensor x, Tensor table, Tensor? query_index, Tensor rowptr, Tensor col, Tensor dst, Tensor rel, "
        "Tensor colptr, Tensor cdst, Tensor? csc, bool triton) -> (Tensor out, Tensor alpha)"
    ),
)
def _aggregate(
    x: Tensor,
    table: Tensor,
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
    """The output :math:`(N_{dst}, C)` and the attention :math:`(E)` by target, which has no gradient."""
    if triton:
        from mgwa_pyg.ops import triton_kernels

        return triton_kernels.forward(x, table, query_index, rowptr, col, dst, rel)
    alpha = table.flatten().index_select(0, _cells(query_index, dst, rel, table.shape))
    highest = torch.segment_reduce(alpha, "max", offsets=rowptr, initial=-torch.inf)
    alpha.sub_(highest.index_select(0, dst)).exp_()
    total = torch.segment_reduce(alpha, "sum", offsets=rowptr, initial=0)
    alpha.div_(total.index_select(0, dst))
    return _weighted_sum(x, col, rowptr, alpha), alpha


@torch.library.custom_op(
    "mgwa_pyg::relation_softmax_aggregate_backward",
    mutates_args=(),
    schema=(
        "(Tensor grad, Tensor x, Tensor? out, Tensor alpha, Tensor? query_index, Tensor rowptr, Tensor col, "
        "Tensor dst, Tensor rel, Tensor colptr, Tensor cdst, Tensor? csc, SymInt[2] table_shape, "
        "bool needs_x, bool needs_table) -> (Tensor grad_x, Tensor grad_table)"
    ),
)
def _aggregate_backward(
    grad: Tensor,
    x: Tensor,
    out: Tensor | None,
    alpha: Tensor,
    query_index: Tensor | None,
    rowptr: Tensor,
    col: Tensor,
    dst: Tensor,
    rel: Tensor,
    colptr: Tensor,
    cdst: Tensor,
    csc: Tensor | None,
    table_shape: list[int],
    needs_x: bool,
    needs_table: bool,
) -> tuple[Tensor, Tensor]:
    """The gradients of ``x`` and ``table``; a tensor without elements in place of one that is not needed.

    The output ``out`` is what Triton's kernels need, and stands for them.
    """
    if out is not None:
        from mgwa_pyg.ops import triton_kernels

        grad_x, grad_table, grad_score = triton_kernels.backward(
            grad, x, out, alpha, query_index, col, rel, colptr, cdst, csc, table_shape, needs_x, needs_table
        )
    else:
        grad = grad.contiguous()
        grad_x, grad_table, grad_score = x.new_empty(0), alpha.new_empty(0), None
        if needs_x:
            grad_x = _weighted_sum(grad, cdst, colptr, alpha if csc is None else alpha.index_select(0, csc))
        if needs_table:
            grad_score = _grad_score(grad, x, alpha, rowptr, col, dst)
    if grad_score is not None:
        shape = torch.Size(table_shape)
        grad_table = alpha.new_zeros(shape.numel())
        grad_table.index_add_(0, _cells(query_index, dst, rel, shape), grad_score)
        grad_table = grad_table.view(shape)
    return grad_x, grad_table


@_aggregate.register_fake
def _(
    x: Tensor, table: Tensor, query_index: Tensor | None, rowptr: Tensor, col: Tensor, *_: Tensor | None
) -> tuple[Tensor, Tensor]:
    return x.new_empty(rowptr.size(0) - 1, x.size(1)), table.new_empty(col.size(0))


@_aggregate_backward.register_fake
def _(grad: Tensor, x: Tensor, out: Tensor | None, alpha: Tensor, *args: Any) -> tuple[Tensor, Tensor]:
    *_, table_shape, needs_x, needs_table = args
    grad_x = x.new_empty(x.shape) if needs_x else x.new_empty(0)
    return grad_x, alpha.new_empty(table_shape) if needs_table else alpha.new_empty(0)


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    x, table, query_index, *edges, triton = inputs
    out, alpha = output
    ctx.mark_non_differentiable(alpha)
    ctx.save_for_backward(x, out if triton else None, alpha, query_index, *edges)
    ctx.table_shape = table.shape


def _backward(ctx: Any, grad: Tensor, _: Tensor | None) -> tuple[Tensor | None, ...]:
    needs_x, needs_table = ctx.needs_input_grad[:2]
    grad_x, grad_table = _aggregate_backward(grad, *ctx.saved_tensors, ctx.table_shape, needs_x, needs_table)
    return grad_x if needs_x else None, grad_table if needs_table else None, *[None] * 9


_aggregate.register_autograd(_backward, setup_context=_setup_context)
