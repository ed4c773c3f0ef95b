"""`RelationCSR`: the edges of a graph in the orders that the fused operation reads them in."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch_geometric.utils.sparse import index2ptr

from mgwa_pyg.utils.checks import (
    check_count,
    check_range,
    check_tensors,
    form,
    forms,
    has_values,
    plain,
    values_are_checked,
)
from mgwa_pyg.utils.sorted_edges import SortedEdges, index_type, sort

_FORMS = forms(edge_index="int: 2 edges", edge_type="int: edges | None")


def check_plan(name: str, value: Any) -> None:
    """Raise a :class:`TypeError` if this is no plan."""
    if not isinstance(value, RelationCSR):
        raise TypeError(
            f"{name} {form(value)}, but a plan is needed: make one by RelationCSR.from_edge_index"
        )


class RelationCSR(SortedEdges):
    r"""A plan: the typed edges of a graph, by target and by source, which is what
    :func:`relation_softmax_aggregate` needs to know of it.

    Made once per graph by :meth:`from_edge_index` and used for any number of calls. Graphs may be bipartite,
    have several edges between the same two nodes, and nodes without edges. The tensors are contiguous, shared
    with no tensor that they were made of, and :obj:`int32` where all numbers fit, apart from :attr:`perm`.

    A plan moves between devices as tensors do, and along with a :class:`~torch_geometric.data.Data` object or
    a batch that holds it. :func:`torch.load` opens it with :obj:`weights_only=True`, too, wherever this
    package is imported.

    Args:
        rowptr, col, dst, rel, colptr, cdst, csc, perm, num_relations, size: The attributes of that name.
        check (bool, optional): Whether to look if they go together, as kernels read them unseen. Values are
            looked at on the CPU only. (default: :obj:`True`)

    Raises:
        ValueError: If shapes, types or devices of the tensors do not go together, or their values contradict
            each other.
        IndexError: If an index is out of range.
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

    def __init__(
        self,
        rowptr: Tensor,
        col: Tensor,
        dst: Tensor,
        rel: Tensor,
        colptr: Tensor,
        cdst: Tensor,
        csc: Tensor | None,
        perm: Tensor | None,
        num_relations: int,
        size: tuple[int, int],
        check: bool = True,
    ) -> None:
        self.rowptr, self.col, self.dst, self.rel = rowptr, col, dst, rel
        self.colptr, self.cdst, self.csc, self.perm = colptr, cdst, csc, perm
        self.num_relations, self.size = num_relations, size
        if check:
            _check(self)

    @classmethod
    def from_edge_index(
        cls,
        edge_index: Tensor,
        edge_type: Tensor | None,
        num_relations: int,
        size: tuple[int, int],
        check: bool = True,
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
            check (bool, optional): Whether to look if the values are in range. (default: :obj:`True`)

        Raises:
            ValueError: If shapes, types or sizes do not go together.
            IndexError: If an index or a relation is out of range.
        """
        check_tensors(_FORMS, {"edge_index": edge_index, "edge_type": edge_type})
        if not torch.compiler.is_compiling():
            num_relations = check_count("num_relations", num_relations)
            size = _checked_size(size)
        if edge_type is None and num_relations > 1:
            raise ValueError(f"edge_type is None, but num_relations={num_relations}")
        if check:
            for row in (0, 1):
                check_range(f"edge_index[{row}]", edge_index[row], size[row], f"size[{row}]")
            check_range("edge_type", edge_type, num_relations, "num_relations")

        num_edges = edge_index.size(1)
        num_src, num_dst = size
        # While a program is traced, nothing may depend on sizes: it is to hold for all.
        fixed = has_values(edge_index)
        dtype = index_type(num_edges, num_src, num_dst, num_relations) if fixed else torch.long
        col, dst = _own(edge_index, dtype)
        rel = torch.zeros_like(dst) if edge_type is None else _own(edge_type, dtype)
        perm = csc = None
        if not _is_sorted(dst):
            # Keys of 32 bits take half the time to sort, and division is quicker than another permutation.
            num_cells = num_dst * num_relations
            key = dst.to(index_type(num_cells) if fixed else torch.long) * num_relations + rel
            key, perm = sort(key, num_cells)
            dst, rel = (key // num_relations).to(dtype), (key % num_relations).to(dtype)
            col = col.index_select(0, perm)
        by_source, cdst = col, dst
        if not _is_sorted(col):
            by_source, order = sort(col, num_src)
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
            check=False,
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
        dtype = type_of_copies(self.col, times * max(num_edges, num_src, num_dst))
        return RelationCSR(
            rowptr=pointer_copies(self.rowptr, times, num_edges, dtype),
            col=copies(self.col, times, num_src, dtype),
            dst=copies(self.dst, times, num_dst, dtype),
            rel=copies(self.rel, times, 0, dtype),
            colptr=pointer_copies(self.colptr, times, num_edges, dtype),
            cdst=copies(self.cdst, times, num_dst, dtype),
            csc=None if self.csc is None else copies(self.csc, times, num_edges, dtype),
            perm=None if self.perm is None else copies(self.perm, times, num_edges, self.perm.dtype),
            num_relations=self.num_relations,
            size=(times * num_src, times * num_dst),
            check=False,
        )

    def with_relations(self, rel: Tensor, num_relations: int) -> RelationCSR:
        """The same edges with other relations, :math:`(E)` by target."""
        rel = rel.to(self.rel.dtype)
        return RelationCSR(**{**vars(self), "rel": rel, "num_relations": num_relations}, check=False)

    @property
    def num_edges(self) -> int:
        """The number of edges."""
        return self.col.size(0)

    def __setstate__(self, state: dict[str, Any]) -> None:
        RelationCSR.__init__(self, **state)  # Files are looked at like any arguments.

    def __repr__(self) -> str:
        return (
            f"{self.__class__.__name__}(num_edges={self.num_edges}, num_relations={self.num_relations}, "
            f"size={self.size})"
        )


# Torch opens plans with weights_only=True then: they are checked on their way in.
torch.serialization.add_safe_globals([RelationCSR])


def _check(plan: RelationCSR) -> None:
    """Check what others than this file put into a plan; strided tensors become contiguous."""
    plan.num_relations = check_count("num_relations", plan.num_relations)
    num_src, num_dst = plan.size = _checked_size(plan.size)
    if not isinstance(plan.col, Tensor) or plan.col.dtype not in (torch.int32, torch.int64):
        raise ValueError(f"col {form(plan.col)}, but torch.int32 or torch.int64 is needed")
    num_edges, device = plan.col.numel(), plan.col.device
    limits = {  # How many numbers there are, and where they stop.
        "col": (num_edges, num_src),
        "dst": (num_edges, num_dst),
        "rel": (num_edges, plan.num_relations),
        "cdst": (num_edges, num_dst),
        "csc": (num_edges, num_edges),
        "perm": (num_edges, num_edges),
        "rowptr": (num_dst + 1, num_edges + 1),
        "colptr": (num_src + 1, num_edges + 1),
    }
    for name, (length, stop) in limits.items():
        index = getattr(plan, name)
        if index is None and name in ("csc", "perm"):
            continue
        dtype = torch.int64 if name == "perm" else plan.col.dtype
        is_tensor = isinstance(index, Tensor)
        if not is_tensor or (index.shape, index.dtype, index.device) != ((length,), dtype, device):
            raise ValueError(f"{name} {form(index)}, but {length} of type {dtype} on {device} are needed")
        setattr(plan, name, index.contiguous())
        if values_are_checked(device):
            check_range(name, index, stop, f"the limit of {name}")
    if values_are_checked(device) and not _is_consistent(plan):
        raise ValueError(f"the tensors of {plan} contradict each other: use RelationCSR.from_edge_index")


def _is_consistent(plan: RelationCSR) -> bool:
    """Whether both orders hold the same edges, whose pointers these are."""
    col, dst = plan.col, plan.dst
    if plan.csc is not None:
        col, dst = col[plan.csc], dst[plan.csc]
    pointers = (plan.dst, plan.rowptr, plan.size[1]), (col, plan.colptr, plan.size[0])
    orders = [order for order in (plan.csc, plan.perm) if order is not None]
    return (
        all(_is_sorted(node) and torch.equal(ptr, index2ptr(node, num)) for node, ptr, num in pointers)
        and torch.equal(plan.cdst, dst)
        and all(bool((torch.bincount(order) == 1).all()) for order in orders)
    )


def _checked_size(size: Any) -> tuple[int, int]:
    if not isinstance(size, (tuple, list)) or len(size) != 2:
        raise ValueError(f"size={size}: pass the numbers of nodes (N_src, N_dst), they are not guessed")
    return check_count("size[0]", size[0], 0), check_count("size[1]", size[1], 0)


def type_of_copies(index: Tensor, stop: int) -> torch.dtype:
    """The type of ``index``, or :obj:`torch.long` where numbers up to ``stop`` do not fit."""
    return torch.promote_types(index.dtype, index_type(stop))


def copies(index: Tensor, times: int, step: int, dtype: torch.dtype) -> Tensor:
    """So many copies of an index one after the other, each ``step`` above the one before."""
    shift = torch.arange(times, dtype=dtype, device=index.device) * step
    return (shift.unsqueeze(1) + index).flatten()


def pointer_copies(ptr: Tensor, times: int, num_edges: int, dtype: torch.dtype) -> Tensor:
    """The pointers to so many copies of edges."""
    end = ptr[-1:].to(dtype) + (times - 1) * num_edges
    return torch.cat([copies(ptr[:-1], times, num_edges, dtype), end])


def _own(index: Tensor, dtype: torch.dtype) -> Tensor:
    """A copy, row by row however the index lies in memory: kernels read what a plan keeps by pointers."""
    return plain(index).to(dtype, copy=True, memory_format=torch.contiguous_format)


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
