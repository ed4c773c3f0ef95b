r"""The Triton kernels behind `relation_softmax_aggregate`, and the two functions that launch them.

Forward, one program for each target: a softmax over its edges that keeps a running maximum, total and
weighted sum, hence a single look at each edge's features. The attention :math:`\alpha` follows in a second
pass over the edges, which reads no features; keeping it for the backward pass takes one number an edge.

Backward, one program for each source: as scores know nothing of the source, a single look at the targets'
gradients gives all there is,

.. math::
    \frac{\partial}{\partial \mathbf{x}_u} = \sum_{u \to e} \alpha_e \mathbf{g}_{v(e)}, \qquad
    \frac{\partial}{\partial s_e} = \alpha_e \bigl( \langle \mathbf{g}_{v(e)}, \mathbf{x}_u \rangle -
    \langle \mathbf{g}_{v(e)}, \mathbf{out}_{v(e)} \rangle \bigr),

without atomics for the first. The second is added to one of several copies of the table by atomics, or
written down by edge and summed by cell where algorithms have to be deterministic.

A row (a target, or a source) of more than ``CHUNK`` edges, a hub, would keep one program busy long after all
others are done. Therefore the edges are cut every ``CHUNK`` edges, wherever rows begin and end. As a hub is
longer than a chunk, a chunk meets two hubs at most, at its first and at its last edge: each has a slot for
its part, and the program of the hub merges the slots instead of reading the edges. Nothing has to be known
of the graph for this, and the device is never waited for.

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
# Elements of all copies of the table's gradient together, and the most copies.
TABLE_ELEMENTS, TABLE_COPIES = 2**18, 256


@triton.jit
def _first_cell(query, row, num_relations):
    """Where the scores of the targets ``row`` begin in the table."""
    if query is None:
        return row * 0
    else:
        return tl.load(query + row).to(tl.int64) * num_relations


@triton.jit
def _hub_at_end(ptr, first, last, begin, end, CHUNK: tl.constexpr):
    """The part of a chunk from ``begin`` to ``end`` that belongs to a hub, as row, first and last position.

    ``first`` and ``last`` are the rows of the chunk's first and last edge; the program's second index
    chooses.
    The part is empty if the row is no hub, or if it is the first row once more.
    """
    at_last = tl.program_id(1) == 1
    row = tl.where(at_last, last, first).to(tl.int64)
    row_begin, row_end = tl.load(ptr + row).to(tl.int64), tl.load(ptr + row + 1).to(tl.int64)
    here = (row_end - row_begin > CHUNK) & ((first != last) | (tl.program_id(1) == 0))
    lo = tl.maximum(row_begin, begin)
    hi = tl.where(here, tl.minimum(row_end, end), lo)
    return row, lo, hi


@triton.jit
def _num_parts(lo, hi, CHUNK: tl.constexpr):
    """The number of slots of a row: zero if it is no hub."""
    return tl.where(hi - lo > CHUNK, (hi - 1) // CHUNK - lo // CHUNK + 1, 0)


@triton.jit
def _slot(lo, part, CHUNK: tl.constexpr):
    """The slots of a hub's parts: the first of each chunk, but the second where another row comes first."""
    return 2 * (lo // CHUNK + part) + ((part == 0) & (lo % CHUNK > 0)).to(tl.int64)


@triton.jit
def _merge(highest, total, acc, score, weight, value):
    """Take entries of score, weight and value into a running softmax."""
    new = tl.maximum(highest, tl.max(score, 0))
    base = tl.where(new == float("-inf"), 0.0, new)  # Infinity less infinity is no number.
    keep, p = tl.exp(highest - base), tl.exp(score - base)
    return new, total * keep + tl.sum(p * weight, 0), acc * keep + tl.sum(p[:, None] * value, 0)


@triton.jit
def _attend(
    x,
    table,
    query,
    col,
    rel,
    row,
    lo,
    hi,
    num_relations,
    C: tl.constexpr,
    WIDE: tl.constexpr,
    BLOCK_E: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    """The highest score of edges of a target, the total of their weights and their weighted sum."""
    channel = tl.arange(0, BLOCK_C)
    first_cell = _first_cell(query, row, num_relations)
    highest = tl.full((), float("-inf"), WIDE)
    total = tl.full((), 0.0, WIDE)
    acc = tl.zeros((BLOCK_C,), WIDE)
    for start in range(lo, hi, BLOCK_E):
        e = start + tl.arange(0, BLOCK_E)
        live = e < hi
        cell = first_cell + tl.load(rel + e, live, 0)
        score = tl.load(table + cell, live, float("-inf")).to(WIDE)
        source = tl.load(col + e, live, 0).to(tl.int64)
        mask = live[:, None] & (channel < C)[None, :]
        value = tl.load(x + source[:, None] * C + channel[None, :], mask, 0.0).to(WIDE)
        highest, total, acc = _merge(highest, total, acc, score, 1.0, value)
    return highest, total, acc


@triton.jit
def forward_hubs(
    x,
    table,
    query,
    rowptr,
    col,
    dst,
    rel,
    parts,
    num_edges,
    num_relations,
    C: tl.constexpr,
    CHUNK: tl.constexpr,
    WIDE: tl.constexpr,
    BLOCK_E: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    """The parts of targets that are hubs, one slot of sum, highest score and total each."""
    begin = tl.program_id(0).to(tl.int64) * CHUNK
    end = tl.minimum(begin + CHUNK, num_edges)
    row, lo, hi = _hub_at_end(rowptr, tl.load(dst + begin), tl.load(dst + end - 1), begin, end, CHUNK)
    if lo < hi:
        highest, total, acc = _attend(
            x, table, query, col, rel, row, lo, hi, num_relations, C, WIDE, BLOCK_E, BLOCK_C
        )
        channel = tl.arange(0, BLOCK_C)
        part = parts + (2 * tl.program_id(0).to(tl.int64) + tl.program_id(1)) * (C + 2)
        tl.store(part + channel, acc, channel < C)
        tl.store(part + C, highest)
        tl.store(part + C + 1, total)


@triton.jit
def forward_rows(
    x,
    table,
    query,
    rowptr,
    col,
    rel,
    parts,
    out,
    norm,
    num_relations,
    C: tl.constexpr,
    CHUNK: tl.constexpr,
    WIDE: tl.constexpr,
    BLOCK_E: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    """The output of each target, from its edges or its parts, and the highest score and total in ``norm``."""
    row = tl.program_id(0).to(tl.int64)
    lo, hi = tl.load(rowptr + row).to(tl.int64), tl.load(rowptr + row + 1).to(tl.int64)
    num_parts = _num_parts(lo, hi, CHUNK)
    end = tl.where(num_parts > 0, lo, hi)
    highest, total, acc = _attend(
        x, table, query, col, rel, row, lo, end, num_relations, C, WIDE, BLOCK_E, BLOCK_C
    )
    channel = tl.arange(0, BLOCK_C)
    for start in range(0, num_parts, BLOCK_E):
        index = start + tl.arange(0, BLOCK_E)
        live = index < num_parts
        part = parts + _slot(lo, index, CHUNK) * (C + 2)
        mask = live[:, None] & (channel < C)[None, :]
        value = tl.load(part[:, None] + channel[None, :], mask, 0.0)
        score, weight = tl.load(part + C, live, float("-inf")), tl.load(part + C + 1, live, 0.0)
        highest, total, acc = _merge(highest, total, acc, score, weight, value)
    tl.store(out + row * C + channel, acc / tl.where(hi > lo, total, 1.0), channel < C)
    tl.store(norm + 2 * row, highest)
    tl.store(norm + 2 * row + 1, total)


@triton.jit
def forward_alpha(
    table, query, dst, rel, norm, alpha, num_edges, num_relations, WIDE: tl.constexpr, BLOCK_E: tl.constexpr
):
    """The attention of each edge. Highest score and total are kept apart: their sum in logs is less exact."""
    e = tl.program_id(0).to(tl.int64) * BLOCK_E + tl.arange(0, BLOCK_E)
    live = e < num_edges
    row = tl.load(dst + e, live, 0).to(tl.int64)
    score = tl.load(table + _first_cell(query, row, num_relations) + tl.load(rel + e, live, 0), live, 0.0)
    highest, total = tl.load(norm + 2 * row, live, 0.0), tl.load(norm + 2 * row + 1, live, 1.0)
    tl.store(alpha + e, tl.exp(score.to(WIDE) - highest) / total, live)


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
    """The product of gradient and output of each target; in half precision as exact as the output is."""
    row = tl.program_id(0).to(tl.int64) * BLOCK_E + tl.arange(0, BLOCK_E)
    channel = tl.arange(0, BLOCK_C)
    at = row[:, None] * C + channel[None, :]
    mask = (row < num_rows)[:, None] & (channel < C)[None, :]
    product = tl.load(grad + at, mask, 0.0).to(WIDE) * tl.load(out + at, mask, 0.0).to(WIDE)
    tl.store(delta + row, tl.sum(product, 1), row < num_rows)


@triton.jit
def _attend_backward(
    grad,
    x,
    alpha,
    delta,
    query,
    rel,
    cdst,
    csc,
    tables,
    grad_score,
    row,
    lo,
    hi,
    num_relations,
    C: tl.constexpr,
    WIDE: tl.constexpr,
    BLOCK_E: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    """The gradient of a source by some of its edges, and that of their scores into a table or by edge."""
    channel = tl.arange(0, BLOCK_C)
    acc = tl.zeros((BLOCK_C,), WIDE)
    features = tl.load(x + row * C + channel, channel < C, 0.0).to(WIDE)
    for start in range(lo, hi, BLOCK_E):
        position = start + tl.arange(0, BLOCK_E)
        live = position < hi
        e = position
        if csc is not None:
            e = tl.load(csc + position, live, 0).to(tl.int64)
        target = tl.load(cdst + position, live, 0).to(tl.int64)
        weight = tl.load(alpha + e, live, 0.0).to(WIDE)
        mask = live[:, None] & (channel < C)[None, :]
        value = tl.load(grad + target[:, None] * C + channel[None, :], mask, 0.0).to(WIDE)
        acc += tl.sum(weight[:, None] * value, 0)
        if delta is not None:
            product = tl.sum(value * features[None, :], 1)
            score = weight * (product - tl.load(delta + target, live, 0.0))
            if grad_score is not None:
                tl.store(grad_score + e, score, live)
            if tables is not None:
                cell = _first_cell(query, target, num_relations) + tl.load(rel + e, live, 0)
                tl.atomic_add(tables + cell, score, live, sem="relaxed")
    return acc


@triton.jit
def backward_hubs(
    grad,
    x,
    alpha,
    delta,
    query,
    col,
    rel,
    colptr,
    cdst,
    csc,
    parts,
    tables,
    grad_score,
    num_edges,
    num_relations,
    num_cells,
    copies,
    C: tl.constexpr,
    CHUNK: tl.constexpr,
    WIDE: tl.constexpr,
    BLOCK_E: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    """The parts of sources that are hubs, one slot each."""
    chunk = tl.program_id(0).to(tl.int64)
    begin = chunk * CHUNK
    end = tl.minimum(begin + CHUNK, num_edges)
    e, f = begin, end - 1
    if csc is not None:
        e, f = tl.load(csc + begin).to(tl.int64), tl.load(csc + end - 1).to(tl.int64)
    row, lo, hi = _hub_at_end(colptr, tl.load(col + e), tl.load(col + f), begin, end, CHUNK)
    if tables is not None:
        tables += chunk % copies * num_cells
    if lo < hi:
        acc = _attend_backward(
            grad,
            x,
            alpha,
            delta,
            query,
            rel,
            cdst,
            csc,
            tables,
            grad_score,
            row,
            lo,
            hi,
            num_relations,
            C,
            WIDE,
            BLOCK_E,
            BLOCK_C,
        )
        channel = tl.arange(0, BLOCK_C)
        tl.store(parts + (2 * chunk + tl.program_id(1)) * C + channel, acc, channel < C)


@triton.jit
def backward_rows(
    grad,
    x,
    alpha,
    delta,
    query,
    rel,
    colptr,
    cdst,
    csc,
    parts,
    tables,
    grad_score,
    grad_x,
    num_relations,
    num_cells,
    copies,
    C: tl.constexpr,
    CHUNK: tl.constexpr,
    WIDE: tl.constexpr,
    BLOCK_E: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    """The gradient of each source, from its edges or its parts."""
    row = tl.program_id(0).to(tl.int64)
    lo, hi = tl.load(colptr + row).to(tl.int64), tl.load(colptr + row + 1).to(tl.int64)
    num_parts = _num_parts(lo, hi, CHUNK)
    end = tl.where(num_parts > 0, lo, hi)
    if tables is not None:
        tables += row % copies * num_cells
    acc = _attend_backward(
        grad,
        x,
        alpha,
        delta,
        query,
        rel,
        cdst,
        csc,
        tables,
        grad_score,
        row,
        lo,
        end,
        num_relations,
        C,
        WIDE,
        BLOCK_E,
        BLOCK_C,
    )
    if grad_x is not None:
        channel = tl.arange(0, BLOCK_C)
        for start in range(0, num_parts, BLOCK_E):
            index = start + tl.arange(0, BLOCK_E)
            part = parts + _slot(lo, index, CHUNK) * C
            mask = (index < num_parts)[:, None] & (channel < C)[None, :]
            acc += tl.sum(tl.load(part[:, None] + channel[None, :], mask, 0.0), 0)
        tl.store(grad_x + row * C + channel, acc, channel < C)


def _launch(kernel: Any, grid: tuple[int, ...], *args: Any, **options: Any) -> None:
    if grid[0] > 0:
        kernel[grid](*args, **options)


def _wide(*tensors: Tensor) -> tuple[torch.dtype, Any]:
    """The type to compute in, single precision at least, by its names in torch and Triton."""
    double = any(tensor.dtype == torch.double for tensor in tensors)
    return (torch.float64, tl.float64) if double else (torch.float32, tl.float32)


def _blocks(num_channels: int) -> dict[str, int]:
    """Sizes of tiles; most rows of a knowledge graph have few edges, so one warp does."""
    block_c = triton.next_power_of_2(max(num_channels, 1))
    block_e = min(16, max(2, 1024 // block_c))
    return {"BLOCK_E": block_e, "BLOCK_C": block_c, "num_warps": min(8, max(1, block_c // 512))}


def forward(
    x: Tensor,
    table: Tensor,
    query_index: Tensor | None,
    rowptr: Tensor,
    col: Tensor,
    dst: Tensor,
    rel: Tensor,
) -> tuple[Tensor, Tensor]:
    """The output :math:`(N_{dst}, C)` and the attention :math:`(E)` by target."""
    x, table = x.contiguous(), table.contiguous()
    query_index = None if query_index is None else query_index.contiguous()
    num_dst, num_edges, num_channels = rowptr.size(0) - 1, col.size(0), x.size(1)
    dtype, wide = _wide(x, table)
    chunks = triton.cdiv(num_edges, CHUNK) if num_edges > CHUNK else 0
    parts = x.new_empty(2 * chunks, num_channels + 2, dtype=dtype)
    norm = x.new_empty(num_dst, 2, dtype=dtype)
    out, alpha = x.new_empty(num_dst, num_channels), table.new_empty(num_edges)
    sizes: dict[str, Any] = {"C": num_channels, "CHUNK": CHUNK, "WIDE": wide, **_blocks(num_channels)}
    edges = query_index, rowptr, col
    relations = table.size(1)
    with torch.cuda.device_of(x):
        _launch(forward_hubs, (chunks, 2), x, table, *edges, dst, rel, parts, num_edges, relations, **sizes)
        _launch(forward_rows, (num_dst,), x, table, *edges, rel, parts, out, norm, relations, **sizes)
        _launch(
            forward_alpha,
            (triton.cdiv(num_edges, 1024),),
            table,
            query_index,
            dst,
            rel,
            norm,
            alpha,
            num_edges,
            relations,
            WIDE=wide,
            BLOCK_E=1024,
        )
    return out, alpha


def backward(
    grad: Tensor,
    x: Tensor,
    out: Tensor,
    alpha: Tensor,
    query_index: Tensor | None,
    col: Tensor,
    rel: Tensor,
    colptr: Tensor,
    cdst: Tensor,
    csc: Tensor | None,
    table_shape: list[int],
    needs_x: bool,
    needs_table: bool,
) -> tuple[Tensor, Tensor, Tensor | None]:
    """The gradients of ``x`` and ``table``; a tensor without elements in place of one that is not needed.

    Where algorithms have to be deterministic, the gradient of the score of each edge by target, :math:`(E)`,
    comes third, and is to be summed in place of the second.
    """
    grad, x, out = grad.contiguous(), x.contiguous(), out.contiguous()
    query_index = None if query_index is None else query_index.contiguous()
    (num_src, num_channels), num_dst, num_edges = x.shape, grad.size(0), col.size(0)
    dtype, wide = _wide(x, alpha)
    chunks = triton.cdiv(num_edges, CHUNK) if num_edges > CHUNK else 0
    parts = x.new_empty(2 * chunks, num_channels, dtype=dtype)
    num_queries, num_relations = table_shape
    num_cells = num_queries * num_relations
    grad_x = torch.empty_like(x) if needs_x else None
    delta = tables = grad_score = None
    copies = 1
    if needs_table:
        delta = x.new_empty(num_dst, dtype=dtype)
        if torch.are_deterministic_algorithms_enabled():
            grad_score = torch.empty_like(alpha)
        else:
            copies = min(TABLE_COPIES, max(1, TABLE_ELEMENTS // max(num_cells, 1)))
            tables = x.new_zeros(copies, num_cells, dtype=dtype)
    blocks = _blocks(num_channels)
    sizes: dict[str, Any] = {"C": num_channels, "CHUNK": CHUNK, "WIDE": wide, **blocks}
    values, order = (grad, x, alpha, delta, query_index), (colptr, cdst, csc)
    counts = num_relations, num_cells, copies
    with torch.cuda.device_of(x):
        if delta is not None:
            rows = (triton.cdiv(num_dst, blocks["BLOCK_E"]),)
            _launch(backward_delta, rows, grad, out, delta, num_dst, C=num_channels, WIDE=wide, **blocks)
        results = parts, tables, grad_score
        _launch(backward_hubs, (chunks, 2), *values, col, rel, *order, *results, num_edges, *counts, **sizes)
        _launch(backward_rows, (num_src,), *values, rel, *order, *results, grad_x, *counts, **sizes)
    grad_table = alpha.new_empty(0)
    if tables is not None:
        grad_table = tables.sum(dim=0).to(alpha.dtype).view(num_queries, num_relations)
    return x.new_empty(0) if grad_x is None else grad_x, grad_table, grad_score
