"""`KHopSampler`: subgraphs around seeds for PyG's loaders, without a compiled extension."""

from __future__ import annotations

import operator
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import torch
import torch_geometric.typing
from torch import Tensor
from torch.utils.data import get_worker_info
from torch_geometric.data import Data, HeteroData
from torch_geometric.sampler import (
    BaseSampler,
    EdgeSamplerInput,
    HeteroSamplerOutput,
    NegativeSampling,
    NodeSamplerInput,
    SamplerOutput,
)
from torch_geometric.sampler import NeighborSampler as PyGNeighborSampler
from torch_geometric.sampler import NumNeighbors as PyGNumNeighbors
from torch_geometric.sampler.neighbor_sampler import edge_sample, node_sample
from torch_geometric.typing import EdgeType, NodeType

from mgwa_pyg.sampler.in_edges import InEdges
from mgwa_pyg.sampler.reverse_types import ReverseTypes, is_edge_type
from mgwa_pyg.utils.checks import check_count, check_range, check_tensors, forms

NumNeighbors: TypeAlias = Sequence[int | None] | Mapping[EdgeType, Sequence[int | None]] | PyGNumNeighbors
ReverseEdgeTypes: TypeAlias = Mapping[EdgeType, EdgeType | Sequence[EdgeType]]

_INT64_MAX = torch.iinfo(torch.int64).max
# A graph without types is one with a single type of nodes and of edges.
_NODE: NodeType = "node"
_EDGE: EdgeType = (_NODE, "to", _NODE)

_FORMS = forms(
    **dict.fromkeys([f"{name} of the seeds" for name in ("node", "row", "col")], "index: seeds"),
    **dict.fromkeys(("src_weight", "dst_weight"), "float: nodes | None"),
)


class KHopSampler(BaseSampler):
    r"""Samples subgraphs hop by hop for :class:`~torch_geometric.loader.NodeLoader` and
    :class:`~torch_geometric.loader.LinkLoader`, in pure torch and with the results of PyG's own sampler where
    that has :obj:`pyg-lib`.

    Each hop draws edges into the nodes that the hop before found, so that every node is expanded once. A
    subgraph lists its nodes and edges by hop, seeds first, as :func:`~torch_geometric.utils.trim_to_layer`
    needs them; those of one type that a hop finds are in the order of their ids. Sampling takes place on the
    device of the graph.

    Args:
        data (Data or HeteroData): The graph, with :obj:`edge_index` for every type of edges.
        num_neighbors (list or dict): How many edges each hop keeps of each node, -1 or :obj:`None` for all;
            in a graph with types also one such list for each type of edges, in which 0 leaves the type out of
            a hop, or PyG's :class:`~torch_geometric.sampler.NumNeighbors` with a default.
        disjoint (bool): Whether each seed has a subgraph of its own, with a vector :obj:`batch` that says
            which seed a node belongs to. (default: :obj:`True`)
        replace (bool): Whether to draw with replacement. (default: :obj:`False`)
        exclude_supervision (bool): Whether the links that a batch of :class:`LinkLoader` is to predict,
            negatives included, take no part in its messages: all edges between their two nodes are left out,
            of their own type and of its reverse, whose name is the same or has :obj:`"rev_"` before it, or
            which ``reverse_edge_types`` names; between nodes of one type, in both directions. Warns once of
            each type that has another name, but whose edges are those of the predicted type reversed. Seeds
            that are nodes have no links. (default: :obj:`False`)
        generator (torch.Generator, optional): The source of randomness, on the device of the graph, for
            loaders without workers; PyG draws shuffles and negatives without it.
            (default: :obj:`None`, torch's own, which :class:`~torch.utils.data.DataLoader` seeds apart in
            its workers)
        reverse_edge_types (dict, optional): The reverse of a type of edges, or a list of them, where it has a
            name of its own: :obj:`{("user", "buys", "item"): ("item", "bought_by", "user")}`. It holds both
            ways. An empty list says that a type has none and ends the warning. (default: :obj:`None`)

    Raises:
        ValueError: If the graph lacks nodes or edges that it should have, or ``num_neighbors`` or
            ``reverse_edge_types`` does not fit it.
        IndexError: If an edge leads to a node that is not there.
    """

    def __init__(
        self,
        data: Data | HeteroData,
        num_neighbors: NumNeighbors,
        disjoint: bool = True,
        replace: bool = False,
        exclude_supervision: bool = False,
        generator: torch.Generator | None = None,
        reverse_edge_types: ReverseEdgeTypes | None = None,
    ) -> None:
        self.disjoint = disjoint
        self.replace = replace
        self.exclude_supervision = exclude_supervision
        self.generator = generator
        self._hetero = isinstance(data, HeteroData)
        edge_index = _edge_index(data)
        self._fanout = _fanouts(num_neighbors, list(edge_index), self._hetero)
        self._num_nodes = _num_nodes(data, list(edge_index))
        if reverse_edge_types is not None and not exclude_supervision:
            raise ValueError("reverse_edge_types says what exclude_supervision leaves out: set that, too")
        self._reverse_types = ReverseTypes(reverse_edge_types or {}, [*edge_index], [*self._num_nodes])
        self._looked_at: set[EdgeType] = set()  # The types of links that were warned of.
        self._edges = {
            edge_type: InEdges.from_edge_index(
                index,
                (self._num_nodes[edge_type[0]], self._num_nodes[edge_type[2]]),
                keep_edge=True,
                sort_source=exclude_supervision,
            )
            for edge_type, index in edge_index.items()
        }
        self._device = next(iter(edge_index.values())).device

    def sample_from_nodes(self, inputs: NodeSamplerInput) -> SamplerOutput | HeteroSamplerOutput:
        r"""Sample around nodes.

        Raises:
            ValueError: If the seeds have a time or a type that the graph lacks, or there is a generator in a
                worker of a loader.
            IndexError: If a seed is out of range.
        """
        self._check_input(inputs, inputs.input_type in [*self._num_nodes], "one of the types of nodes")
        self._check_seeds(node=(inputs.node, inputs.input_type or _NODE))
        return node_sample(inputs, self._sample)

    def sample_from_edges(
        self, inputs: EdgeSamplerInput, neg_sampling: NegativeSampling | None = None
    ) -> SamplerOutput | HeteroSamplerOutput:
        r"""Sample around the two nodes of links; negatives are drawn by PyG.

        Raises:
            ValueError: If the links have a time or join types of nodes that the graph lacks, if there are
                none to draw triplets for, or there is a generator in a worker of a loader.
            IndexError: If a seed is out of range.
        """
        known = is_edge_type(inputs.input_type) and {*inputs.input_type[::2]} <= {*self._num_nodes}
        self._check_input(inputs, known, "a type of edges between the types of nodes")
        link_type = inputs.input_type or _EDGE
        self._check_seeds(row=(inputs.row, link_type[0]), col=(inputs.col, link_type[2]))
        num_links = inputs.row.numel()
        negatives = None if neg_sampling is None else _KeptNegatives(NegativeSampling.cast(neg_sampling))
        if num_links == 0 and negatives is not None and negatives.is_triplet():
            raise ValueError("row of the seeds is empty: there is no link to draw triplets for")

        def sample(seed: Tensor | dict[NodeType, Tensor], time: None) -> SamplerOutput | HeteroSamplerOutput:
            without = self._supervision(inputs, negatives) if self.exclude_supervision else None
            out = self._sample(seed, time, without)
            if self.disjoint and negatives is not None and negatives.is_binary():
                # PyG tells links apart by the remainder of their number, which is right for whole amounts.
                num_pairs = num_links + negatives.src.numel()
                if isinstance(out, HeteroSamplerOutput):
                    out.batch = {node_type: batch % num_pairs for node_type, batch in out.batch.items()}
                else:
                    out.batch = out.batch % num_pairs
            return out

        num_nodes = self._num_nodes if self._hetero else self._num_nodes[_NODE]
        return edge_sample(inputs, sample, num_nodes, self.disjoint, neg_sampling=negatives)

    def _check_input(self, inputs: NodeSamplerInput | EdgeSamplerInput, known: bool, what: str) -> None:
        if not (known if self._hetero else inputs.input_type is None):
            needed = f"{what} {list(self._num_nodes)} is needed" if self._hetero else "the graph has no types"
            raise ValueError(f"input_type={inputs.input_type!r} of the seeds, but {needed}")
        if inputs.time is not None:
            raise ValueError("KHopSampler does not sample by time, but the seeds have one")
        if self.generator is not None and get_worker_info() is not None:
            raise ValueError(
                "each worker of a loader would have a copy of the generator and draw the same: pass "
                "num_workers=0, or no generator and call torch.manual_seed"
            )

    def _check_seeds(self, **seeds: tuple[Tensor, NodeType]) -> None:
        """Check the nodes of seeds, of which these are the types."""
        given = {f"{name} of the seeds": seed for name, seed in seeds.items()}
        check_tensors(_FORMS, {name: seed for name, (seed, _) in given.items()})
        for name, (seed, node_type) in given.items():
            check_range(name, seed, self._num_nodes[node_type], "num_nodes")

    def _supervision(
        self, inputs: EdgeSamplerInput, negatives: _KeptNegatives | None
    ) -> dict[EdgeType, Tensor]:
        """The positions of the edges between the nodes of each link, by type of edges."""
        source, target = inputs.row, inputs.col
        if negatives is not None:
            if negatives.is_binary():
                repeated = negatives.src
            elif self.disjoint:  # The i-th negative of a triplet belongs to the link i % num_links,
                repeated = source.repeat(int(negatives.amount))
            else:  # or, where PyG merges the seeds, to the link i // amount.
                repeated = source.repeat_interleave(int(negatives.amount))
            source, target = torch.cat([source, repeated]), torch.cat([target, negatives.dst])
        source, target = source.to(self._device, torch.long), target.to(self._device, torch.long)
        link_type = inputs.input_type or _EDGE
        if link_type not in self._looked_at:
            self._looked_at.add(link_type)
            self._reverse_types.warn_of_lookalikes(link_type, (source, target), self._edges, self._num_nodes)
        if link_type[0] == link_type[2]:
            source, target = torch.cat([source, target]), torch.cat([target, source])
        reverses = self._reverse_types.of(link_type)
        without = {reverse: self._edges[reverse].find(target, source) for reverse in reverses}
        if link_type in self._edges:
            without[link_type] = self._edges[link_type].find(source, target)
        return without

    def _sample(
        self,
        seed: Tensor | dict[NodeType, Tensor],
        time: None = None,
        without: dict[EdgeType, Tensor] | None = None,
    ) -> SamplerOutput | HeteroSamplerOutput:
        """Sample around seeds that were checked; ``time`` is there because PyG passes it."""
        if isinstance(seed, dict):
            return self._sample_by_type(seed, without or {})
        out = self._sample_by_type({_NODE: seed}, without or {})
        return SamplerOutput(
            node=out.node[_NODE],
            row=out.row[_EDGE],
            col=out.col[_EDGE],
            edge=out.edge[_EDGE],
            batch=None if out.batch is None else out.batch[_NODE],
            num_sampled_nodes=out.num_sampled_nodes[_NODE],
            num_sampled_edges=out.num_sampled_edges[_EDGE],
        )

    def _sample_by_type(
        self, seed: dict[NodeType, Tensor], without: dict[EdgeType, Tensor]
    ) -> HeteroSamplerOutput:
        found = self._start(seed)
        # For each hop the local numbers of source and target, and the id, of each edge.
        drawn: dict[EdgeType, list[Tensor]] = {edge_type: [] for edge_type in self._edges}
        for hop in range(len(next(iter(self._fanout.values())))):
            source, rest = {}, {}
            for edge_type, edges in self._edges.items():
                nodes = found[edge_type[2]]
                owner, node = nodes.split(nodes.hops[-1])
                fanout = self._fanout[edge_type][hop]
                target, position = edges.sample(
                    node, fanout, self.replace, self.generator, without=without.get(edge_type)
                )
                source[edge_type] = found[edge_type[0]].join(owner[target], edges.source[position].long())
                assert edges.edge is not None  # The constructor asks for it.
                rest[edge_type] = [target + nodes.num_expanded, edges.edge[position].long()]
            for node_type, nodes in found.items():
                edge_types = [edge_type for edge_type in self._edges if edge_type[0] == node_type]
                numbers = nodes.add([source[edge_type] for edge_type in edge_types])
                for edge_type, number in zip(edge_types, numbers, strict=True):
                    drawn[edge_type].append(torch.stack([number, *rest[edge_type]]))

        links = {edge_type: torch.cat(hops, dim=1) for edge_type, hops in drawn.items()}
        whole = {node_type: nodes.split(torch.cat(nodes.hops)) for node_type, nodes in found.items()}
        return HeteroSamplerOutput(
            node={node_type: node for node_type, (_, node) in whole.items()},
            row={edge_type: link[0] for edge_type, link in links.items()},
            col={edge_type: link[1] for edge_type, link in links.items()},
            edge={edge_type: link[2] for edge_type, link in links.items()},
            batch={node_type: owner for node_type, (owner, _) in whole.items()} if self.disjoint else None,
            num_sampled_nodes={
                node_type: [hop.numel() for hop in nodes.hops] for node_type, nodes in found.items()
            },
            num_sampled_edges={edge_type: [hop.size(1) for hop in hops] for edge_type, hops in drawn.items()},
        )

    def _start(self, seed: dict[NodeType, Tensor]) -> dict[NodeType, _Nodes]:
        """The seeds, numbered over all types where each has a subgraph of its own."""
        num_seeds = sum(node.numel() for node in seed.values()) if self.disjoint else 1
        if num_seeds * max(self._num_nodes.values()) >= _INT64_MAX:
            raise ValueError(
                f"{num_seeds} subgraphs of up to {max(self._num_nodes.values())} nodes are too many for one "
                f"batch: their nodes are numbered with 63 bits"
            )
        found, first = {}, 0
        for node_type in [*seed, *(other for other in self._num_nodes if other not in seed)]:
            node = seed.get(node_type, torch.empty(0, dtype=torch.long)).to(self._device, torch.long)
            owner = torch.arange(first, first + node.numel(), device=self._device)
            nodes = found[node_type] = _Nodes(self._num_nodes[node_type])
            nodes.hops.append(nodes.join(owner if self.disjoint else torch.zeros_like(owner), node))
            first += node.numel()
        return found


class _Nodes:
    """The nodes of one type that a batch has found, as one number for each node and the seed that owns it."""

    def __init__(self, num_nodes: int) -> None:
        self.num_nodes = num_nodes
        self.hops: list[Tensor] = []

    def join(self, owner: Tensor, node: Tensor) -> Tensor:
        return owner * self.num_nodes + node

    def split(self, joint: Tensor) -> tuple[Tensor, Tensor]:
        owner = joint // max(self.num_nodes, 1)
        return owner, joint - owner * self.num_nodes

    @property
    def num_expanded(self) -> int:
        """How many were found before the last hop, which is to be expanded next."""
        return sum(hop.numel() for hop in self.hops[:-1])

    def add(self, parts: list[Tensor]) -> list[Tensor]:
        """Find more, each once, for the next hop; return the local number of each."""
        joint = torch.cat([self.hops[0][:0], *parts])
        # The number at the end is above all others, so that every search ends at one.
        known, number = torch.cat([*self.hops, joint.new_tensor([_INT64_MAX])]).sort(stable=True)
        distinct, which = joint.unique(return_inverse=True)
        place = torch.searchsorted(known, distinct)
        is_new = known[place] != distinct
        self.hops.append(distinct[is_new])
        local = torch.where(is_new, is_new.cumsum(0) + (known.numel() - 2), number[place])
        return list(local[which].split([part.numel() for part in parts])) if parts else []


class _KeptNegatives(NegativeSampling):
    """Lets another draw negatives, and keeps them."""

    src: Tensor
    dst: Tensor

    def __init__(self, other: NegativeSampling) -> None:
        super().__init__(other.mode, other.amount, other.src_weight, other.dst_weight)
        self.other = other

    def sample(self, num_samples: int, endpoint: str, num_nodes: int | None = None) -> Tensor:
        name = f"{endpoint}_weight"
        check_tensors(_FORMS, {name: getattr(self, name)}, nodes=num_nodes or 0)
        drawn: Tensor = self.other.sample(num_samples, endpoint, num_nodes)
        setattr(self, endpoint, drawn)
        return drawn


def k_hop_sampler(
    data: Data | HeteroData,
    num_neighbors: NumNeighbors,
    disjoint: bool = True,
    replace: bool = False,
    exclude_supervision: bool = False,
    reverse_edge_types: ReverseEdgeTypes | None = None,
) -> BaseSampler:
    """Return PyG's own sampler where :obj:`pyg-lib` is installed, the graph on the CPU and no supervision to
    be excluded, else a :class:`KHopSampler`; the arguments are those of the latter.
    """
    edge_index = _edge_index(data)
    on_cpu = all(index.device.type == "cpu" for index in edge_index.values())
    excludes = exclude_supervision or reverse_edge_types is not None
    if not torch_geometric.typing.WITH_PYG_LIB or excludes or not on_cpu:
        return KHopSampler(
            data, num_neighbors, disjoint, replace, exclude_supervision, reverse_edge_types=reverse_edge_types
        )
    hetero = isinstance(data, HeteroData)
    fanouts = {
        edge_type: [-1 if fanout is None else fanout for fanout in hops]
        for edge_type, hops in _fanouts(num_neighbors, list(edge_index), hetero).items()
    }
    return PyGNeighborSampler(data, fanouts if hetero else fanouts[_EDGE], replace=replace, disjoint=disjoint)


def _edge_index(data: Data | HeteroData) -> dict[EdgeType, Tensor]:
    """The edges of each type."""
    if isinstance(data, HeteroData):
        stores = {edge_type: data[edge_type] for edge_type in data.edge_types}
    elif isinstance(data, Data):
        stores = {_EDGE: data}
    else:
        raise ValueError(f"a Data or HeteroData is needed, but this is a {type(data).__name__}")
    if not stores:
        raise ValueError("the graph has no types of edges")
    for edge_type, store in stores.items():
        if not isinstance(getattr(store, "edge_index", None), Tensor):
            raise ValueError(f"edges {edge_type} have no edge_index; other forms of a graph are not sampled")
    return {edge_type: store.edge_index for edge_type, store in stores.items()}


def _num_nodes(data: Data | HeteroData, edge_types: list[EdgeType]) -> dict[NodeType, int]:
    """The number of nodes of each type."""
    stores = data.node_items() if isinstance(data, HeteroData) else [(_NODE, data)]
    num_nodes = {node_type: store.num_nodes for node_type, store in stores}
    for node_type, number in num_nodes.items():
        if number is None:
            raise ValueError(f"the number of nodes {node_type!r} is unknown: set num_nodes")
        check_count(f"num_nodes of {node_type!r}", number, 0)
    for edge_type in edge_types:
        for node_type in edge_type[::2]:
            if node_type not in num_nodes:
                raise ValueError(
                    f"edges {edge_type} join nodes {node_type!r}, but the graph says nothing of these: set "
                    f"data[{node_type!r}].num_nodes"
                )
    return num_nodes


def _fanouts(
    num_neighbors: NumNeighbors, edge_types: list[EdgeType], hetero: bool
) -> dict[EdgeType, list[int | None]]:
    """The fanout of each hop by type of edges, with :obj:`None` for all."""
    if isinstance(num_neighbors, PyGNumNeighbors):
        num_neighbors = num_neighbors.get_values(edge_types if hetero else None)
    if isinstance(num_neighbors, Mapping):
        if not hetero or num_neighbors.keys() != set(edge_types):
            known = edge_types if hetero else "none"
            raise ValueError(
                f"num_neighbors names the types of edges {list(num_neighbors)}, but those of the graph are "
                f"{known}"
            )
        lists = {edge_type: num_neighbors[edge_type] for edge_type in edge_types}
    else:
        lists = dict.fromkeys(edge_types, num_neighbors)
    for fanouts in lists.values():
        if not isinstance(fanouts, Sequence):
            raise ValueError(f"num_neighbors={num_neighbors!r}: a list with a number for each hop is needed")
    hops = {edge_type: [_fanout(fanout) for fanout in fanouts] for edge_type, fanouts in lists.items()}
    if len({len(fanouts) for fanouts in hops.values()}) > 1 or not all(hops.values()):
        raise ValueError(f"num_neighbors={num_neighbors}: one or more hops, as many for all types of edges")
    if any(fanout is not None and fanout < 0 for fanouts in hops.values() for fanout in fanouts):
        raise ValueError(f"num_neighbors={num_neighbors}: whole numbers, or -1 or None for all")
    if any(not any(fanout != 0 for fanout in hop) for hop in zip(*hops.values(), strict=True)):
        raise ValueError(f"num_neighbors={num_neighbors}: each hop keeps at least one neighbour")
    return hops


def _fanout(value: Any) -> int | None:
    """A fanout, :obj:`None` for all, and below zero where it is none."""
    if value is None:
        return None
    try:
        number = -2 if isinstance(value, bool) else operator.index(value)
    except (TypeError, RuntimeError):
        number = -2
    return None if number == -1 else number
