"""A neighbourhood of its own for every seed, hop by hop, without a compiled extension."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch_geometric.utils import index_sort
from torch_geometric.utils.sparse import index2ptr


class Neighborhood(NamedTuple):
    r"""The disjoint subgraphs of :math:`B` seeds, ordered by hop.

    Each node is a copy made for one seed and one path to it, so that a seed's subgraph is a tree. With the
    nodes and edges in the order of their hops, layer :math:`\ell` of :math:`L` needs a prefix of them
    alone.
    """

    node: Tensor
    r"""The original ids, :math:`(N)`; the first :math:`B` are the seeds."""
    edge_index: Tensor
    r"""The edges, :math:`(2, E)`, from a node to the one it is a neighbour of, as positions in `node`."""
    edge_type: Tensor
    r"""The relation of each edge, :math:`(E)`."""
    batch: Tensor
    r"""The seed that each node belongs to, as a position in the seeds, :math:`(N)`."""
    num_sampled_nodes: list[int]
    r"""How many nodes each hop added, the seeds first."""
    num_sampled_edges: list[int]
    r"""How many edges each hop added."""


class NeighborSampler:
    r"""Samples the neighbourhoods of nodes in a graph with typed edges.

    Where a node has at most ``fanout`` incoming edges all of them are taken, each once; of more, ``fanout``
    are drawn at random without replacement.

    Args:
        edge_index (torch.Tensor): The edges of the graph, :math:`(2, |\mathcal{E}|)`; the neighbours of
            :math:`v` are the sources of the edges into :math:`v`.
        edge_type (torch.Tensor): The relation of each edge, :math:`(|\mathcal{E}|)`.
        num_nodes (int): The number of nodes.
        fanout (int, optional): Neighbours kept per hop; :obj:`None` keeps all. (default: :obj:`None`)

    Raises:
        ValueError: If ``fanout`` is not positive, or the edges and types do not go together.
    """

    def __init__(
        self, edge_index: Tensor, edge_type: Tensor, num_nodes: int, fanout: int | None = None
    ) -> None:
        if fanout is not None and fanout < 1:
            raise ValueError(f"fanout={fanout}: keep at least one neighbour, or None for all")
        if edge_type.shape != edge_index.shape[1:]:
            raise ValueError(
                f"edge_type has shape {tuple(edge_type.shape)}, but edge_index "
                f"{tuple(edge_index.shape)}: one type for each edge is needed"
            )
        self.fanout = fanout
        target, order = index_sort(edge_index[1], max_value=num_nodes, stable=True)
        self._ptr = index2ptr(target, num_nodes)
        self._source = edge_index[0][order]
        self._type = edge_type[order]

    def to(self, device: torch.device | str) -> NeighborSampler:
        """Move the graph to ``device``, where it is then sampled."""
        self._ptr = self._ptr.to(device)
        self._source = self._source.to(device)
        self._type = self._type.to(device)
        return self

    def sample(self, seed: Tensor, num_hops: int, generator: torch.Generator | None = None) -> Neighborhood:
        r"""Return the neighbourhoods of the nodes ``seed``, :math:`(B)`, ``num_hops`` deep.

        Args:
            seed (torch.Tensor): The nodes, on the device of the graph; a node may stand there twice.
            num_hops (int): The number of hops.
            generator (torch.Generator, optional): The source of randomness, on the same device.
                (default: :obj:`None`, torch's own)
        """
        node, batch = [seed], [torch.arange(seed.numel(), device=seed.device)]
        edge_index, edge_type = [], []
        start = 0  # Where the nodes of the last hop begin.
        for _ in range(num_hops):
            target, edge = self._sample_edges(node[-1], generator)
            end = start + node[-1].numel()
            source = torch.arange(end, end + edge.numel(), device=seed.device)
            edge_index.append(torch.stack([source, target + start]))
            edge_type.append(self._type[edge])
            node.append(self._source[edge])
            batch.append(batch[-1][target])
            start = end
        return Neighborhood(
            node=torch.cat(node),
            edge_index=torch.cat(edge_index, dim=1) if edge_index else seed.new_empty(2, 0),
            edge_type=torch.cat(edge_type) if edge_type else self._type[:0],
            batch=torch.cat(batch),
            num_sampled_nodes=[hop.numel() for hop in node],
            num_sampled_edges=[hop.numel() for hop in edge_type],
        )

    def _sample_edges(self, node: Tensor, generator: torch.Generator | None) -> tuple[Tensor, Tensor]:
        """For each sampled edge, the position in ``node`` of its target, and its own position."""
        begin, end = self._ptr[node], self._ptr[node + 1]
        degree = end - begin
        count = degree if self.fanout is None else degree.clamp(max=self.fanout)
        last = count.cumsum(0)
        target = torch.repeat_interleave(count)
        # Position e is the (e - first)-th of its target, whose edges begin at `begin`.
        edge = torch.arange(target.numel(), device=node.device) + (begin - last + count)[target]
        if self.fanout is not None:
            crowded = (degree > self.fanout).nonzero().squeeze(1)
            if crowded.numel() > 0:
                drawn = _draw_distinct(degree[crowded], self.fanout, generator)
                place = (last[crowded] - self.fanout).unsqueeze(1) + torch.arange(
                    self.fanout, device=node.device
                )
                edge[place] = drawn + begin[crowded].unsqueeze(1)
        return target, edge


def _draw_distinct(stop: Tensor, count: int, generator: torch.Generator | None) -> Tensor:
    """Draw ``count`` distinct whole numbers below each element of ``stop``, all sets equally likely.

    This is Floyd's algorithm: the k-th draw is from one number more than the one before, and takes that
    new number where it hits one drawn already.
    """
    newest = stop.unsqueeze(1) - torch.arange(count, 0, -1, device=stop.device)
    chance = torch.rand(newest.shape, dtype=torch.double, device=stop.device, generator=generator)
    drawn = (chance * (newest + 1)).long()
    for k in range(1, count):
        taken = (drawn[:, :k] == drawn[:, k : k + 1]).any(dim=1)
        drawn[:, k] = torch.where(taken, newest[:, k], drawn[:, k])
    return drawn
