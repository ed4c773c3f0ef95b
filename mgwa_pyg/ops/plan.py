"""`RelationCSR`: the edges of a graph in the orders that the fused operation reads them in."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch_geometric import EdgeIndex
from torch_geometric.utils.sparse import index2ptr

from mgwa_pyg.checks import check_count, check_edges, check_range, form, has_values, is_integer

_INT32_MAX = torch.iinfo(torch.int32).max


def check_plan(name: str, value: Any) -> None:
    """Raise a :class:`TypeError` if this is no plan."""
    if not isinstance(value, RelationCSR):
        raise TypeError(
            f"{name} {form(value)}, but a plan is needed: make one by RelationCSR.from_edge_index"
        )


@dataclass(frozen=True, eq=False, repr=False)
class RelationCSR:
    r"""The typed edges of a graph, by target and by source: what :func:`relation_softmax_aggregate` needs to
    know of a graph.

    Made once per graph by :meth:`from_edge_index` and used for any number of calls. Graphs may be bipartite,
    have several edges between the same two nodes, and nodes without edges. The tensors are :obj:`int32`
    where all numbers fit, apart from :attr:`perm`.
    """

    rowptr: Tensor
    r"""Where the edges into each target begin, :math:`(N_{dst} + 1)`."""
    col: Tensor
    r"""The source of each edge, by target, :math:`(E)`."""
    dst: Tensor
    r"""The target of each edge, by target, :math:`(E)`."""
    rel: Tensor
    r"""The relation of each edge, by target, :math:`(E)`."""
    colptr: Tensor
    r"""Where the edges out of each source begin, :math:`(N_{src} + 1)`."""
    cdst: Tensor
    r"""The target of each edge, by source, :math:`(E)`."""
    csc: Tensor | None
    r"""For each edge by source its position by target, :math:`(E)`; :obj:`None` if both orders are one."""
    perm: Tensor | None
    r"""For each edge by target its position in the given edges, :math:`(E)`; :obj:`None` if both orders are
    one."""
    num_relations: int
    r"""The number of relations :math:`R`."""
    size: tuple[int, int]
    r"""The numbers of nodes :math:`(N_{src}, N_{dst})`."""

    @classmethod
    def from_edge_index(
        cls, edge_index: Tensor, edge_type: Tensor | None, num_relations: int, size: tuple[int, int]
    ) -> RelationCSR:
        r"""Order the edges by target and relation, and once more by source.

        Edges that come sorted by target keep their order, and are not sorted by relation either; sources that
        are sorted then (as in the trees of :class:`~mgwa_pyg.sampler.NeighborSampler`) need no second order.
        On an accelerator, looking for this and checking the values waits for the device. Under
        :func:`torch.compile`, edges are sorted always and values not checked.

        Args:
            edge_index (torch.Tensor): The edges from source to target, :math:`(2, E)`.
            edge_type (torch.Tensor, optional): The relation of each edge, :math:`(E)`; :obj:`None` if there
                is only one.
            num_relations (int): The number of relations :math:`R`.
            size (tuple): The numbers of nodes :math:`(N_{src}, N_{dst})`.

        Raises:
            ValueError: If shapes, types or sizes do not go together.
            IndexError: If an index or a relation is out of range.
        """
        check_edges("edge_index", edge_index)
        num_edges = edge_index.size(1)
        if not torch.compiler.is_compiling():
            num_relations = check_count("num_relations", num_relations)
            if not isinstance(size, (tuple, list)) or len(size) != 2:
                raise ValueError(
                    f"size={size}: pass the numbers of nodes (N_src, N_dst), they are not guessed"
                )
            size = check_count("size[0]", size[0], 0), check_count("size[1]", size[1], 0)
        if edge_type is None and num_relations > 1:
            raise ValueError(f"edge_type is None, but num_relations={num_relations}")
        if edge_type is not None and (not is_integer(edge_type) or edge_type.shape != (num_edges,)):
            raise ValueError(
                f"edge_type {form(edge_type)}, but one whole number for each of {num_edges} edges is needed"
            )
        if edge_type is not None and edge_type.device != edge_index.device:
            raise ValueError(f"edge_type is on {edge_type.device}, but edge_index on {edge_index.device}")
        if has_values(edge_index):
            for row in (0, 1):
                check_range(f"edge_index[{row}]", edge_index[row], size[row], f"size[{row}]")
            check_range("edge_type", edge_type, num_relations, "num_relations")

        num_src, num_dst = size
        if isinstance(edge_index, EdgeIndex):
            edge_index = edge_index.as_tensor()
        # While a program is traced, nothing may depend on sizes: it is to hold for all.
        fixed = has_values(edge_index)
        small = fixed and max(num_edges, num_src, num_dst, num_relations) < _INT32_MAX
        dtype = torch.int32 if small else torch.int64
        col, dst = edge_index.to(dtype)
        rel = torch.zeros_like(dst) if edge_type is None else edge_type.to(dtype)
        perm = csc = None
        if not _is_sorted(dst):
            # Keys of 32 bits take half the time to sort, and division is quicker than another permutation.
            small = fixed and num_dst * num_relations < _INT32_MAX
            key = dst.to(dtype if small else torch.int64) * num_relations + rel
            key, perm = _sort(key)
            dst, rel = (key // num_relations).to(dtype), (key % num_relations).to(dtype)
            col = col.index_select(0, perm)
        by_source, cdst = col, dst
        if not _is_sorted(col):
            by_source, order = _sort(col)
            csc = order.to(dtype)
            cdst = dst.index_select(0, csc)
        return cls(
            rowptr=_pointers(dst, num_dst),
            col=col,
            dst=dst,
            rel=rel,
            colptr=_pointers(by_source, num_src),
            cdst=cdst,
            csc=csc,
            perm=perm,
            num_relations=num_relations,
            size=(num_src, num_dst),
        )

    def to_edge_index(self) -> tuple[Tensor, Tensor]:
        r"""The edges :math:`(2, E)` and the relation of each :math:`(E)`, in the order they were given in."""
        edges = torch.stack([self.col, self.dst, self.rel]).long()
        if self.perm is not None:
            edges = torch.empty_like(edges).index_copy_(1, self.perm, edges)
        return edges[:2], edges[2]

    def targets(self, start: int, stop: int) -> RelationCSR:
        """The edges into the targets from ``start`` to before ``stop``, which are numbered from 0 then."""
        first, last = (int(self.rowptr[node]) for node in (start, stop))
        edge_index = torch.stack([self.col[first:last], self.dst[first:last] - start])
        return self.from_edge_index(
            edge_index, self.rel[first:last], self.num_relations, (self.size[0], stop - start)
        )

    def repeat(self, times: int) -> RelationCSR:
        """So many copies of the graph side by side, with nodes of their own each: a block-diagonal graph."""
        num_edges, (num_src, num_dst) = self.num_edges, self.size
        dtype = index_type(times * max(num_edges, num_src, num_dst), self.col)
        return RelationCSR(
            rowptr=pointer_copies(self.rowptr, times, num_edges, dtype),
            col=copies(self.col, times, num_src, dtype),
            dst=copies(self.dst, times, num_dst, dtype),
            rel=copies(self.rel, times, 0, dtype),
            colptr=pointer_copies(self.colptr, times, num_edges, dtype),
            cdst=copies(self.cdst, times, num_dst, dtype),
            csc=None if self.csc is None else copies(self.csc, times, num_edges, dtype),
            perm=None if self.perm is None else copies(self.perm, times, num_edges, dtype),
            num_relations=self.num_relations,
            size=(times * num_src, times * num_dst),
        )

    @property
    def num_edges(self) -> int:
        """The number of edges."""
        return self.col.size(0)

    def to(self, device: torch.device | str) -> RelationCSR:
        """The same on ``device``."""
        tensors: dict[str, Any] = {}
        for field in fields(self):
            if isinstance(value := getattr(self, field.name), Tensor):
                tensors[field.name] = value.to(device)
        return replace(self, **tensors)

    def __repr__(self) -> str:
        return (
            f"{self.__class__.__name__}(num_edges={self.num_edges}, num_relations={self.num_relations}, "
            f"size={self.size})"
        )


def index_type(largest: int, index: Tensor) -> torch.dtype:
    """The type of ``index``, or :obj:`torch.int64` where ``largest`` does not fit."""
    return index.dtype if largest < _INT32_MAX else torch.int64


def copies(index: Tensor, times: int, step: int, dtype: torch.dtype) -> Tensor:
    """So many copies of an index one after the other, each ``step`` above the one before."""
    shift = torch.arange(times, dtype=dtype, device=index.device) * step
    return (shift.unsqueeze(1) + index).flatten()


def pointer_copies(ptr: Tensor, times: int, num_edges: int, dtype: torch.dtype) -> Tensor:
    """The pointers to so many copies of edges."""
    end = ptr[-1:].to(dtype) + (times - 1) * num_edges
    return torch.cat([copies(ptr[:-1], times, num_edges, dtype), end])


def _sort(key: Tensor) -> tuple[Tensor, Tensor]:
    """The keys in order, and the position of each before; equal keys keep theirs."""
    size = key.numel()
    if not has_values(key) or size >= 2**15 or key.dtype != torch.int32 or key.device.type != "cpu":
        return key.sort(stable=True)
    # So few, torch sorts by comparison. Key and position as one number take numpy a fifth of the time.
    bits = size.bit_length()
    packed = (key.long() << bits) | torch.arange(size)
    packed = torch.from_numpy(np.sort(packed.numpy()))
    return (packed >> bits).int(), packed & (2**bits - 1)


def _pointers(index: Tensor, size: int) -> Tensor:
    """Where the entries of each number begin in a sorted index, in its type."""
    if has_values(index):
        return index2ptr(index, size)
    # The above takes a size for a constant.
    count = index.new_zeros(size + 1).index_add(0, index + 1, torch.ones_like(index))
    return count.cumsum(0, dtype=index.dtype)


def _is_sorted(index: Tensor) -> bool:
    # While a program is traced, nothing may depend on values.
    return has_values(index) and bool((index[1:] >= index[:-1]).all())
