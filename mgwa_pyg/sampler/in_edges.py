"""`InEdges`: the edges into each node of a graph, kept so that those of many nodes are drawn at once."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch_geometric.utils.sparse import index2ptr

from mgwa_pyg.sampler.random_choice import choose_distinct, uniform
from mgwa_pyg.utils.checks import check_range, check_tensors, forms, plain
from mgwa_pyg.utils.ranges import ranges
from mgwa_pyg.utils.sorted_edges import SortedEdges, index_type, sort

_FORMS = forms(edge_index="index: 2 edges", edge_type="index: edges | None")


@dataclass(frozen=True, eq=False)
class InEdges(SortedEdges):
    r"""The edges of one type by target. An edge is named by its *position* in this order.

    Everything but :attr:`ptr` is :obj:`torch.int32` where all numbers fit.
    """

    ptr: Tensor
    r"""Where the edges into each target begin, :math:`(N_{dst} + 1)`, :obj:`torch.long`."""
    source: Tensor
    r"""The source of each edge, :math:`(E)`."""
    edge_type: Tensor | None = None
    r"""The relation of each edge, :math:`(E)`, if relations were given."""
    edge: Tensor | None = None
    r"""The position of each edge in the given edges, :math:`(E)`, if it was asked for."""

    @classmethod
    def from_edge_index(
        cls,
        edge_index: Tensor,
        size: tuple[int, int],
        edge_type: Tensor | None = None,
        keep_edge: bool = False,
        sort_source: bool = False,
    ) -> InEdges:
        r"""Order edges by target.

        On the CPU this takes 16 bytes for each edge on top of the result.

        Args:
            edge_index (torch.Tensor): The edges from source to target, :math:`(2, E)`.
            size (tuple): The numbers of nodes :math:`(N_{src}, N_{dst})`.
            edge_type (torch.Tensor, optional): The relation of each edge, :math:`(E)`.
                (default: :obj:`None`)
            keep_edge (bool): Whether to keep the positions in the given edges. (default: :obj:`False`)
            sort_source (bool): Whether to order the edges into one target by source, as :meth:`find` needs
                it, in place of their given order. (default: :obj:`False`)

        Raises:
            ValueError: If shapes or types do not go together.
            IndexError: If a node is out of range.
        """
        check_tensors(_FORMS, {"edge_index": edge_index, "edge_type": edge_type})
        for row, name in enumerate(("num_src_nodes", "num_dst_nodes")):
            check_range(f"edge_index[{row}]", edge_index[row], size[row], name)

        source, target = plain(edge_index)
        if sort_source:
            _, by_source = sort(source, size[0])
            target, order = sort(target[by_source], size[1])
            order = by_source[order]
        else:
            target, order = sort(target, size[1])
        return cls(
            ptr=index2ptr(target, size[1]).long(),
            source=source.to(index_type(size[0]))[order],
            edge_type=None if edge_type is None else _narrow(plain(edge_type))[order],
            edge=order.to(index_type(order.numel())) if keep_edge else None,
        )

    def sample(
        self,
        node: Tensor,
        fanout: int | None,
        replace: bool = False,
        generator: torch.Generator | None = None,
        key: Tensor | None = None,
        without: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        r"""Draw edges into the nodes ``node``, :math:`(n)`; a node may stand there twice.

        Of at most ``fanout`` edges all are taken, each once; of more, ``fanout`` are drawn, all subsets
        equally likely.

        Args:
            node (torch.Tensor): The targets, :math:`(n)`, on the device of the graph.
            fanout (int, optional): The edges kept of each; :obj:`None` keeps all.
            replace (bool): Whether to draw ``fanout`` edges one by one with replacement instead, wherever
                there is an edge. (default: :obj:`False`)
            generator (torch.Generator, optional): The source of randomness, on the same device.
                (default: :obj:`None`, torch's own)
            key (torch.Tensor, optional): In its place, a :obj:`torch.long` for each target, :math:`(n)`, from
                which its draws follow. (default: :obj:`None`)
            without (torch.Tensor, optional): The positions of edges that the graph is taken not to have,
                sorted and distinct. (default: :obj:`None`)

        Returns:
            tuple: For each drawn edge the position of its target in ``node``, in order, and its own.
        """
        begin, end = self.ptr[node], self.ptr[node + 1]
        if without is not None:  # Positions are those among the edges that stay, until the end.
            begin = begin - torch.searchsorted(without, begin)
            end = end - torch.searchsorted(without, end)
        degree = end - begin
        count, drawn_from = degree, None
        if fanout is not None:
            count = (degree > 0) * fanout if replace else degree.clamp(max=fanout)
            drawn_from = (degree > (0 if replace else fanout)).nonzero().squeeze(1)
        target, position = ranges(begin, count)
        if fanout is not None and drawn_from is not None and drawn_from.numel() > 0:
            stop = degree[drawn_from]
            chance = uniform(
                stop.numel(), fanout, node.device, generator, None if key is None else key[drawn_from]
            )
            drawn = (chance * stop.unsqueeze(1)).long() if replace else choose_distinct(stop, chance)
            drawn = drawn + begin[drawn_from].unsqueeze(1)
            if drawn.numel() == position.numel():
                position = drawn.flatten()
            else:
                last = count.cumsum(0)[drawn_from].unsqueeze(1)
                position[last - torch.arange(fanout, 0, -1, device=node.device)] = drawn
        if without is not None:
            # As many edges left out before the i-th of them as there are numbers up to it in this list.
            before = without - torch.arange(without.numel(), device=without.device)
            position = position + torch.searchsorted(before, position, right=True)
        return target, position

    def find(self, source: Tensor, target: Tensor) -> Tensor:
        r"""Return the positions of all edges between :math:`n` pairs of nodes, sorted and distinct.

        The edges must have been ordered with ``sort_source``.

        Args:
            source (torch.Tensor): The sources, :math:`(n)`.
            target (torch.Tensor): The targets, :math:`(n)`.
        """
        return ranges(*self._between(source, target))[1].unique()

    def has(self, source: Tensor, target: Tensor) -> Tensor:
        r"""Return which of :math:`n` pairs of nodes have an edge, :math:`(n)`; as for :meth:`find`."""
        return self._between(source, target)[1] > 0

    def some(self, count: int) -> tuple[Tensor, Tensor]:
        r"""Return sources and targets of at most ``count`` edges, evenly spread over all."""
        num_edges = self.source.numel()
        count = min(count, num_edges)
        position = torch.arange(count, device=self.ptr.device) * num_edges // max(count, 1)
        return self.source[position].long(), torch.searchsorted(self.ptr, position, right=True) - 1

    def _between(self, source: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """Where the edges between pairs of nodes begin, and how many there are."""
        if source.numel() == 0 or self.source.numel() == 0:
            return torch.zeros_like(source, dtype=torch.long), torch.zeros_like(source, dtype=torch.long)
        # One binary search for the first edge of each source and for that of the next.
        wanted = torch.cat([source, source + 1])
        low, high = self.ptr[target].repeat(2), self.ptr[target + 1].repeat(2)
        for _ in range(int((high - low).max()).bit_length()):
            middle = (low + high) // 2
            before = self.source[middle.clamp(max=self.source.numel() - 1)] < wanted
            before &= low < high
            low, high = torch.where(before, middle + 1, low), torch.where(before, high, middle)
        first, last = low.chunk(2)
        return first, last - first


def _narrow(value: Tensor) -> Tensor:
    """The same whole numbers as :obj:`torch.int32` if they fit, else as :obj:`torch.long`."""
    low, high = torch.aminmax(value) if value.numel() > 0 else (0, 0)
    return value.to(index_type(-int(low), int(high)))
