r"""The Triton kernels behind `relation_softmax_aggregate`, and the two functions that launch them.

Forward, one program for each target and block of tables: a softmax over the target's edges that keeps a
running maximum, total and weighted sum for each table, hence a single look at each edge's features for all
tables of the block. The attention :math:`\alpha` follows in a second pass over the edges, which reads no
features; keeping it for the backward pass takes one number for each table and edge.

Backward, one program for each source, for all tables: as scores know nothing of the source, a single look at
the targets' gradients gives all there is. With :math:`c_{h,e}` the ``scale`` of the attention,

.. math::
    \frac{\partial}{\partial \mathbf{x}_u} = \sum_h \sum_{u \to e} c_{h,e} \alpha_{h,e} \mathbf{g}_{h,v(e)},
    \qquad
    \frac{\partial}{\partial s_{h,e}} = \alpha_{h,e} \bigl( c_{h,e} \langle \mathbf{g}_{h,v(e)}, \mathbf{x}_u
    \rangle - \langle \mathbf{g}_{h,v(e)}, \mathbf{out}_{h,v(e)} \rangle \bigr),

without atomics for the first. The second is added to one of several copies of the tables by atomics, or
written down by edge and summed by cell where algorithms have to be deterministic.

A row (a target, or a source) of more than ``CHUNK`` edges, a hub, would keep one program busy long after all
others are done. Therefore the edges are cut every ``CHUNK`` edges, wherever rows begin and end. As a hub is
longer than a chunk, a chunk meets two hubs at most, at its first and at its last edge: each has a slot for
its part, and the program of the hub merges the slots instead of reading the edges. Nothing has to be known
of the graph for this, and the device is never waited for. Hence the kernels of sums are launched twice, for
the parts of hubs first.

A program's grid indices are its row or chunk, the end of the chunk, and the block of tables. Tiles have
dimensions for tables, edges and channels, in this order.

This file is imported when the kernels are first asked for, as it needs the package ``triton``.
"""
# mypy: disallow-untyped-defs=False, disallow-incomplete-defs=False

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

# Edges of a chunk; longer rows are hubs.
CHUNK = 256
# Elements of all copies of the tables' gradient together, and the most copies.
TABLE_ELEMENTS, TABLE_COPIES = 2**18, 256


@triton.jit
def _first_cell(query, row, num_relations):
    """Where the scores of the targets ``row`` begin in a table."""
    if query is None:
        return row * 0
    else:
        return tl.load(query + row).to(tl.int64) * num_relations


@triton.jit
def _span(ptr, row):
    """The first and last position of a row's edges."""
    return tl.load(ptr + row).to(tl.int64), tl.load(ptr + row + 1).to(tl.int64)


@triton.jit
def _hub_at_end(ptr, owner, order, num_edges, CHUNK: tl.constexpr):
    """The part of the program's chunk that belongs to a hub, as row, first and last position.

    ``owner`` has the row of each edge, and ``order`` the edge at each position, if that is another number.
    The program's second index chooses the row of the chunk's first or last edge. The part is empty if the row
    is no hub, or if it is the first row once more.
    """
    begin = tl.program_id(0).to(tl.int64) * CHUNK
    end = tl.minimum(begin + CHUNK, num_edges)
    first, last = begin, end - 1
    if order is not None:
        first, last = tl.load(order + first).to(tl.int64), tl.load(order + last).to(tl.int64)
    first, last = tl.load(owner + first).to(tl.int64), tl.load(owner + last).to(tl.int64)
    row = tl.where(tl.program_id(1) == 0, first, last)
    row_begin, row_end = _span(ptr, row)
    here = (row_end - row_begin > CHUNK) & ((first != last) | (tl.program_id(1) == 0))
    lo = tl.maximum(row_begin, begin)
    return row, lo, tl.where(here, tl.minimum(row_end, end), lo)


@triton.jit
def _num_parts(lo, hi, CHUNK: tl.constexpr):
    """The number of slots of a row: zero if it is no hub."""
    return tl.where(hi - lo > CHUNK, (hi - 1) // CHUNK - lo // CHUNK + 1, 0)


@triton.jit
def _slot(lo, part, CHUNK: tl.constexpr):
    """The slots of a hub's parts: the first of each chunk, but the second where another row comes first."""
    return 2 * (lo // CHUNK + part) + ((part == 0) & (lo % CHUNK > 0)).to(tl.int64)


@triton.jit
def _own_slot():
    return 2 * tl.program_id(0).to(tl.int64) + tl.program_id(1)


@triton.jit
def _merge(highest, total, acc, score, weight, factor, value):
    """Take entries of score, weight and value into the running softmax of each table.

    The factor changes the sums of values only.
    """
    new = tl.maximum(highest, tl.max(score, 1))
    base = tl.where(new == float("-inf"), 0.0, new)  # Infinity less infinity is no number.
    keep, p = tl.exp(highest - base), tl.exp(score - base[:, None])
    acc = acc * keep[:, None] + tl.sum((p * factor)[:, :, None] * value, 1)
    return new, total * keep + tl.sum(p * weight, 1), acc


@triton.jit
def forward_sums(
    x,
    tables,
    scale,
    query,
    rowptr,
    col,
    dst,
    rel,
    parts,
    out,
    norm,
    num_rows,
    num_edges,
    num_tables,
    num_cells,
    num_relations,
    HUBS: tl.constexpr,
    C: tl.constexpr,
    CHUNK: tl.constexpr,
    WIDE: tl.constexpr,
    BLOCK_H: tl.constexpr,
    BLOCK_E: tl.constexpr,
    BLOCK_C: tl.constexpr,
    BLOCK_P: tl.constexpr,
):
    """The output of each target, from its edges or its parts, and the highest score and total in ``norm``.

    With ``HUBS``, the parts of targets that are hubs, one slot of sum, highest score and total each.
    """
    if HUBS:
        row, lo, end = _hub_at_end(rowptr, dst, None, num_edges, CHUNK)
    else:
        row = tl.program_id(0).to(tl.int64)
        lo, hi = _span(rowptr, row)
        num_parts = _num_parts(lo, hi, CHUNK)
        end = tl.where(num_parts > 0, lo, hi)
    table = tl.program_id(2).to(tl.int64) * BLOCK_H + tl.arange(0, BLOCK_H)
    channel = tl.arange(0, BLOCK_C)
    is_table, is_channel = table < num_tables, channel < C
    first_cell = table * num_cells + _first_cell(query, row, num_relations)
    highest = tl.full((BLOCK_H,), float("-inf"), WIDE)
    total = tl.zeros((BLOCK_H,), WIDE)
    acc = tl.zeros((BLOCK_H, BLOCK_C), WIDE)
    for start in range(lo, end, BLOCK_E):
        e = start + tl.arange(0, BLOCK_E)
        live = e < end
        both = is_table[:, None] & live[None, :]
        cell = first_cell[:, None] + tl.load(rel + e, live, 0)[None, :]
        score = tl.load(tables + cell, both, float("-inf")).to(WIDE)
        factor = 1.0
        if scale is not None:
            factor = tl.load(scale + table[:, None] * num_edges + e[None, :], both, 0.0).to(WIDE)
        source = tl.load(col + e, live, 0).to(tl.int64)
        mask = live[None, :, None] & is_channel[None, None, :]
        value = tl.load(x + source[None, :, None] * C + channel[None, None, :], mask, 0.0).to(WIDE)
        highest, total, acc = _merge(highest, total, acc, score, 1.0, factor, value)
    both = is_table[:, None] & is_channel[None, :]
    if HUBS:
        if lo < end:
            part = parts + (_own_slot() * num_tables + table) * (C + 2)
            tl.store(part[:, None] + channel[None, :], acc, both)
            tl.store(part + C, highest, is_table)
            tl.store(part + C + 1, total, is_table)
    else:
        for start in range(0, num_parts, BLOCK_P):
            index = start + tl.arange(0, BLOCK_P)
            live = is_table[:, None] & (index < num_parts)[None, :]
            slot = _slot(lo, index, CHUNK) * num_tables
            part = parts + (slot[None, :] + table[:, None]) * (C + 2)
            mask = live[:, :, None] & is_channel[None, None, :]
            value = tl.load(part[:, :, None] + channel[None, None, :], mask, 0.0)
            score, weight = tl.load(part + C, live, float("-inf")), tl.load(part + C + 1, live, 0.0)
            highest, total, acc = _merge(highest, total, acc, score, weight, 1.0, value)
        # Where all scores are minus infinity, nothing may be subtracted from itself, nor be divided by zero.
        highest, total = tl.where(total > 0, highest, 0.0), tl.where(total > 0, total, 1.0)
        at = table * num_rows + row
        tl.store(out + at[:, None] * C + channel[None, :], acc / total[:, None], both)
        tl.store(norm + 2 * at, highest, is_table)
        tl.store(norm + 2 * at + 1, total, is_table)


@triton.jit
def forward_alpha(
    tables,
    query,
    dst,
    rel,
    norm,
    alpha,
    num_rows,
    num_edges,
    num_tables,
    num_cells,
    num_relations,
    WIDE: tl.constexpr,
    BLOCK_H: tl.constexpr,
    BLOCK_E: tl.constexpr,
):
    """The attention of each edge. Highest score and total are kept apart: their sum in logs is less exact."""
    e = (tl.program_id(0).to(tl.int64) * BLOCK_E + tl.arange(0, BLOCK_E))[None, :]
    table = (tl.program_id(2).to(tl.int64) * BLOCK_H + tl.arange(0, BLOCK_H))[:, None]
    live = e < num_edges
    both = (table < num_tables) & live
    row = tl.load(dst + e, live, 0).to(tl.int64)
    cell = _first_cell(query, row, num_relations) + tl.load(rel + e, live, 0)
    score = tl.load(tables + table * num_cells + cell, both, 0.0).to(WIDE)
    at = norm + 2 * (table * num_rows + row)
    highest, total = tl.load(at, both, 0.0), tl.load(at + 1, both, 1.0)
    tl.store(alpha + table * num_edges + e, tl.exp(score - highest) / total, both)


@triton.jit
def backward_delta(
    grad,
    out,
    delta,
    num_rows,
    C: tl.constexpr,
    WIDE: tl.constexpr,
    BLOCK_E: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    """The product of gradient and output of each row; in half precision as exact as the output is."""
    row = tl.program_id(0).to(tl.int64) * BLOCK_E + tl.arange(0, BLOCK_E)
    channel = tl.arange(0, BLOCK_C)
    at = row[:, None] * C + channel[None, :]
    mask = (row < num_rows)[:, None] & (channel < C)[None, :]
    product = tl.load(grad + at, mask, 0.0).to(WIDE) * tl.load(out + at, mask, 0.0).to(WIDE)
    tl.store(delta + row, tl.sum(product, 1), row < num_rows)


@triton.jit
def backward_sums(
    grad,
    x,
    alpha,
    scale,
    delta,
    query,
    col,
    rel,
    colptr,
    cdst,
    csc,
    parts,
    grad_tables,
    grad_score,
    grad_x,
    num_rows,
    num_edges,
    num_tables,
    num_cells,
    num_relations,
    copies,
    HUBS: tl.constexpr,
    C: tl.constexpr,
    CHUNK: tl.constexpr,
    WIDE: tl.constexpr,
    BLOCK_H: tl.constexpr,
    BLOCK_E: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    """The gradient of each source, from its edges or its parts, and that of scores into tables or by edge.

    With ``HUBS``, the parts of sources that are hubs, one slot each.
    """
    if HUBS:
        row, lo, end = _hub_at_end(colptr, col, csc, num_edges, CHUNK)
    else:
        row = tl.program_id(0).to(tl.int64)
        lo, hi = _span(colptr, row)
        num_parts = _num_parts(lo, hi, CHUNK)
        end = tl.where(num_parts > 0, lo, hi)
    if grad_tables is not None:
        grad_tables += tl.program_id(0).to(tl.int64) % copies * num_tables * num_cells
    channel = tl.arange(0, BLOCK_C)
    is_channel = channel < C
    features = tl.load(x + row * C + channel, is_channel, 0.0).to(WIDE)
    acc = tl.zeros((BLOCK_C,), WIDE)
    for start in range(lo, end, BLOCK_E):
        position = start + tl.arange(0, BLOCK_E)
        live = position < end
        e = position
        if csc is not None:
            e = tl.load(csc + position, live, 0).to(tl.int64)
        target = tl.load(cdst + position, live, 0).to(tl.int64)
        if grad_tables is not None:
            cell = _first_cell(query, target, num_relations) + tl.load(rel + e, live, 0)
        for first in range(0, num_tables, BLOCK_H):
            table = first + tl.arange(0, BLOCK_H).to(tl.int64)
            both = (table < num_tables)[:, None] & live[None, :]
            at_edge = table[:, None] * num_edges + e[None, :]
            at_target = table[:, None] * num_rows + target[None, :]
            attention = tl.load(alpha + at_edge, both, 0.0).to(WIDE)
            factor = 1.0
            if scale is not None:
                factor = tl.load(scale + at_edge, both, 0.0).to(WIDE)
            mask = both[:, :, None] & is_channel[None, None, :]
            value = tl.load(grad + at_target[:, :, None] * C + channel[None, None, :], mask, 0.0).to(WIDE)
            acc += tl.sum(tl.sum((attention * factor)[:, :, None] * value, 0), 0)
            if delta is not None:
                product = tl.sum(value * features[None, None, :], 2)
                score = attention * (factor * product - tl.load(delta + at_target, both, 0.0))
                if grad_score is not None:
                    tl.store(grad_score + at_edge, score, both)
                if grad_tables is not None:
                    at_cell = table[:, None] * num_cells + cell[None, :]
                    tl.atomic_add(grad_tables + at_cell, score, both, sem="relaxed")
    if HUBS:
        if lo < end:
            tl.store(parts + _own_slot() * C + channel, acc, is_channel)
    elif grad_x is not None:
        for start in range(0, num_parts, BLOCK_E):
            index = start + tl.arange(0, BLOCK_E)
            part = parts + _slot(lo, index, CHUNK) * C
            mask = (index < num_parts)[:, None] & is_channel[None, :]
            acc += tl.sum(tl.load(part[:, None] + channel[None, :], mask, 0.0), 0)
        tl.store(grad_x + row * C + channel, acc, is_channel)


def _launch(kernel: Any, grid: tuple[int, ...], *args: Any, **options: Any) -> None:
    if min(grid) > 0:
        kernel[grid](*args, **options)


def _contiguous(*tensors: Tensor | None) -> list[Any]:
    return [None if tensor is None else tensor.contiguous() for tensor in tensors]


def _wide(*tensors: Tensor) -> tuple[torch.dtype, Any]:
    """The type to compute in, single precision at least, by its names in torch and Triton."""
    double = any(tensor.dtype == torch.double for tensor in tensors)
    return (torch.float64, tl.float64) if double else (torch.float32, tl.float32)


def _num_chunks(num_edges: int) -> int:
    """The number of chunks that can have a part of a hub."""
    return triton.cdiv(num_edges, CHUNK) if num_edges > CHUNK else 0


def _blocks(num_channels: int, num_tables: int = 1, elements: int = 1024) -> tuple[int, dict[str, int]]:
    """Sizes of tiles: tables, and the rest; most rows of a knowledge graph have few edges, so one warp does.

    A tile has 512 elements for one table, as is fastest on an H100, and ``elements`` for several.
    """
    block_c = triton.next_power_of_2(max(num_channels, 1))
    block_h = min(triton.next_power_of_2(max(num_tables, 1)), 8, max(1, 1024 // block_c))
    block_e = min(16, max(2, (512 if block_h == 1 else elements) // (block_c * block_h)))
    return block_h, {"BLOCK_E": block_e, "BLOCK_C": block_c, "num_warps": min(8, max(1, block_c // 512))}


def forward(
    x: Tensor,
    tables: Tensor,
    scale: Tensor | None,
    query_index: Tensor | None,
    rowptr: Tensor,
    col: Tensor,
    dst: Tensor,
    rel: Tensor,
) -> tuple[Tensor, Tensor]:
    """The outputs :math:`(H, N_{dst}, C)` and the attention :math:`(H, E)` by target."""
    x, tables, scale, query_index = _contiguous(x, tables, scale, query_index)
    rowptr, col, dst, rel = _contiguous(rowptr, col, dst, rel)
    num_dst, num_edges, num_channels = rowptr.size(0) - 1, col.size(0), x.size(1)
    num_tables, num_queries, num_relations = tables.shape
    dtype, wide = _wide(x, tables)
    chunks = _num_chunks(num_edges)
    parts = x.new_empty(2 * chunks, num_tables, num_channels + 2, dtype=dtype)
    norm = x.new_empty(num_tables, num_dst, 2, dtype=dtype)
    out, alpha = x.new_empty(num_tables, num_dst, num_channels), tables.new_empty(num_tables, num_edges)
    # One score for each lane of a warp: of fewer, each lane would compute all. Parts stay in registers.
    block_c = triton.next_power_of_2(max(num_channels, 1))
    block_h, blocks = _blocks(num_channels, num_tables, min(4096, 32 * block_c))
    blocks["BLOCK_P"] = min(blocks["BLOCK_E"], max(1, 1024 // (block_h * block_c)))
    table_blocks = triton.cdiv(num_tables, block_h)
    sizes: dict[str, Any] = {"WIDE": wide, "BLOCK_H": block_h}
    counts = num_dst, num_edges, num_tables, num_queries * num_relations, num_relations
    args = x, tables, scale, query_index, rowptr, col, dst, rel, parts, out, norm, *counts
    with torch.cuda.device_of(x):
        for hubs, grid in ((True, (chunks, 2, table_blocks)), (False, (num_dst, 1, table_blocks))):
            _launch(forward_sums, grid, *args, HUBS=hubs, C=num_channels, CHUNK=CHUNK, **sizes, **blocks)
        block_e = 1024 // block_h
        grid = triton.cdiv(num_edges, block_e), 1, table_blocks
        edges = tables, query_index, dst, rel, norm, alpha
        _launch(forward_alpha, grid, *edges, *counts, BLOCK_E=block_e, **sizes)
    return out, alpha


def backward(
    grad: Tensor,
    x: Tensor,
    out: Tensor,
    alpha: Tensor,
    scale: Tensor | None,
    query_index: Tensor | None,
    col: Tensor,
    rel: Tensor,
    colptr: Tensor,
    cdst: Tensor,
    csc: Tensor | None,
    shape: list[int],
    needs_x: bool,
    needs_tables: bool,
) -> tuple[Tensor, Tensor, Tensor | None]:
    """The gradients of ``x`` and the tables; a tensor without elements in place of one that is not needed.

    Where algorithms have to be deterministic, the gradient of the score of each edge by target,
    :math:`(H, E)`, comes third, and is to be summed in place of the second. ``shape`` is that of the tables.
    """
    grad, x, out, alpha, scale, query_index = _contiguous(grad, x, out, alpha, scale, query_index)
    col, rel, colptr, cdst, csc = _contiguous(col, rel, colptr, cdst, csc)
    (num_src, num_channels), num_dst, num_edges = x.shape, grad.size(1), col.size(0)
    num_tables, num_queries, num_relations = shape
    num_cells = num_queries * num_relations
    dtype, wide = _wide(x, alpha)
    chunks = _num_chunks(num_edges)
    parts = x.new_empty(2 * chunks, num_channels, dtype=dtype)
    grad_x = torch.empty_like(x) if needs_x else None
    delta = grad_tables = grad_score = None
    copies = 1
    if needs_tables:
        delta = x.new_empty(num_tables, num_dst, dtype=dtype)
        if torch.are_deterministic_algorithms_enabled():
            grad_score = torch.empty_like(alpha)
        else:
            copies = min(TABLE_COPIES, max(1, TABLE_ELEMENTS // max(num_tables * num_cells, 1)))
            grad_tables = x.new_zeros(copies, *shape, dtype=dtype)
    sizes: dict[str, Any] = {"C": num_channels, "WIDE": wide}
    block_h, blocks = _blocks(num_channels, num_tables, 2048)
    edges, results = (col, rel, colptr, cdst, csc), (parts, grad_tables, grad_score, grad_x)
    counts = num_dst, num_edges, num_tables, num_cells, num_relations, copies
    args = grad, x, alpha, scale, delta, query_index, *edges, *results, *counts
    with torch.cuda.device_of(x):
        if delta is not None:
            _, rows = _blocks(num_channels)
            grid = triton.cdiv(delta.numel(), rows["BLOCK_E"]), 1, 1
            _launch(backward_delta, grid, grad, out, delta, delta.numel(), **sizes, **rows)
        for hubs, grid in ((True, (chunks, 2, 1)), (False, (num_src, 1, 1))):
            _launch(backward_sums, grid, *args, HUBS=hubs, CHUNK=CHUNK, BLOCK_H=block_h, **sizes, **blocks)
    sums = alpha.new_empty(0) if grad_tables is None else grad_tables.sum(dim=0).to(alpha.dtype)
    return x.new_empty(0) if grad_x is None else grad_x, sums, grad_score
