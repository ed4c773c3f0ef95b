"""A neighbourhood of its own for every seed, hop by hop, without a compiled extension."""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from mgwa_pyg.sampler.in_edges import InEdges
from mgwa_pyg.sampler.random_choice import derive_key
from mgwa_pyg.utils.checks import check_count, check_range, check_tensors, forms, values_are_checked
from mgwa_pyg.utils.files import DamagedFileError, load_mapped, save_tensors

_FORMAT = "mgwa_pyg.NeighborSampler 1"
_FORMS = forms(seed="index: seeds", key="long: seeds | None")


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
        IndexError: If a node is out of range.
    """

    def __init__(
        self, edge_index: Tensor, edge_type: Tensor, num_nodes: int, fanout: int | None = None
    ) -> None:
        num_nodes = check_count("num_nodes", num_nodes, 0)
        self.fanout = None if fanout is None else check_count("fanout", fanout)
        if edge_type is None:
            raise ValueError("edge_type is None, but the relation of each edge is needed")
        self._edges = InEdges.from_edge_index(edge_index, (num_nodes, num_nodes), edge_type)

    def to(self, device: torch.device | str) -> NeighborSampler:
        """Move the graph to ``device``, where it is then sampled."""
        self._edges = self._edges.to(device)
        return self

    def sample(
        self, seed: Tensor, num_hops: int, generator: torch.Generator | None = None, key: Tensor | None = None
    ) -> Neighborhood:
        r"""Return the neighbourhoods of the nodes ``seed``, :math:`(B)`, ``num_hops`` deep.

        Args:
            seed (torch.Tensor): The nodes, on the device of the graph; a node may stand there twice.
            num_hops (int): The number of hops.
            generator (torch.Generator, optional): The source of randomness, on the same device.
                (default: :obj:`None`, torch's own)
            key (torch.Tensor, optional): In its place, a :obj:`torch.long` for each seed, :math:`(B)`, that
                alone decides what is drawn for it: the same whatever the other seeds, their order, the device
                or the process. (default: :obj:`None`)

        Raises:
            ValueError: If there is a generator as well as keys, not one key for each seed, or an argument has
                another shape or type.
            IndexError: If a seed is out of range; on an accelerator, looked at only under
                :class:`torch_geometric.debug`.
        """
        check_tensors(_FORMS, {"seed": seed, "key": key})
        if key is not None and generator is not None:
            raise ValueError("pass a generator or keys, not both")
        num_hops = check_count("num_hops", num_hops, 0)
        if values_are_checked(seed.device):
            check_range("seed", seed, self._edges.ptr.numel() - 1, "num_nodes")
        seed = seed.long()  # As an index, torch.uint8 would be a mask.
        node, batch = [seed], [torch.arange(seed.numel(), device=seed.device)]
        edge_index = [seed.new_empty(2, 0, dtype=torch.long)]
        edge_type = [seed.new_empty(0, dtype=torch.long)]
        start = 0  # Where the nodes of the last hop begin.
        for _ in range(num_hops):
            target, position = self._edges.sample(node[-1], self.fanout, generator=generator, key=key)
            if key is not None:
                # A child's key follows from its parent's and its place among the children.
                count = torch.bincount(target, minlength=node[-1].numel())
                place = torch.arange(target.numel(), device=seed.device) - (count.cumsum(0) - count)[target]
                key = derive_key(key[target], place)
            end = start + node[-1].numel()
            source = torch.arange(end, end + position.numel(), device=seed.device)
            edge_index.append(torch.stack([source, target + start]))
            edge_type.append(self._type[position].long())
            node.append(self._edges.source[position].long())
            batch.append(batch[-1][target])
            start = end
        return Neighborhood(
            node=torch.cat(node),
            edge_index=torch.cat(edge_index, dim=1),
            edge_type=torch.cat(edge_type),
            batch=torch.cat(batch),
            num_sampled_nodes=[hop.numel() for hop in node],
            num_sampled_edges=[hop.numel() for hop in edge_type[1:]],
        )

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the sampler with its graph to a file for :meth:`load`, whole or not at all."""
        content = {
            "format": _FORMAT,
            "fanout": self.fanout,
            "ptr": self._edges.ptr,
            "source": self._edges.source,
            "edge_type": self._type,
        }
        save_tensors(Path(path), content)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> NeighborSampler:
        """Open a file that :meth:`save` wrote.

        Its tensors are mapped into memory, so that all processes of a machine share one copy of the graph.
        The file must stay as it is while they use it.

        Raises:
            FileNotFoundError: If there is no such file.
            ValueError: If the file is damaged or was not written by :meth:`save`.
        """
        path = Path(path)
        try:
            content = load_mapped(path)
        except (DamagedFileError, pickle.UnpicklingError) as error:
            raise ValueError(f"{path} is damaged, or not a file of a NeighborSampler: {error}") from error
        if not isinstance(content, dict) or content.get("format") != _FORMAT:
            raise ValueError(f"{path} is not a file of a NeighborSampler ({_FORMAT})")
        edges = InEdges(content["ptr"], content["source"], content["edge_type"])
        sampler = cls.__new__(cls)
        sampler.fanout, sampler._edges = content["fanout"], edges
        return sampler

    @property
    def _type(self) -> Tensor:
        edge_type = self._edges.edge_type
        assert edge_type is not None  # The constructor asks for it.
        return edge_type
