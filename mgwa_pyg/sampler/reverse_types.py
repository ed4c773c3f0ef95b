"""`ReverseTypes`: which types of edges are the reverse of which, and which only look like it."""

from __future__ import annotations

import warnings
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from torch import Tensor
from torch_geometric.typing import EdgeType, NodeType

from mgwa_pyg.sampler.in_edges import InEdges

# So many edges of a type tell whether they are those of another.
_NUM_COMPARED = 10_000


def is_edge_type(value: Any) -> bool:
    """Whether this is a type of edges: three strings."""
    return isinstance(value, tuple) and len(value) == 3 and all(isinstance(part, str) for part in value)


class ReverseTypes:
    r"""The reverses of the types of edges of a graph: by their names, and as they are given.

    Args:
        given (dict): The reverse of a type, or a list of them; see :class:`~mgwa_pyg.sampler.KHopSampler`.
        edge_types (list): The types of edges of the graph.
        node_types (list): Its types of nodes.

    Raises:
        ValueError: If a reverse is no type of the graph, or does not lead back.
    """

    def __init__(
        self,
        given: Mapping[EdgeType, EdgeType | Sequence[EdgeType]],
        edge_types: Collection[EdgeType],
        node_types: Collection[NodeType],
    ) -> None:
        self._edge_types = edge_types
        self._given: dict[EdgeType, list[EdgeType]] = {}
        if not isinstance(given, Mapping):
            raise ValueError(f"reverse_edge_types is {given!r:.60}, but a dict of types of edges is needed")
        for edge_type, value in given.items():
            name = f"reverse_edge_types[{edge_type!r}]"
            # The predicted type itself may be absent from the graph, but not its nodes.
            if not is_edge_type(edge_type) or not {*edge_type[::2]} <= {*node_types}:
                raise ValueError(f"{name}: a type of edges between nodes {[*node_types]} is needed")
            reverses = [value] if is_edge_type(value) else value
            if not isinstance(reverses, (list, tuple)) or not all(map(is_edge_type, reverses)):
                raise ValueError(f"{name} is {value!r:.60}, but a type of edges or a list of them is needed")
            self._given.setdefault(edge_type, [])
            for reverse in reverses:
                if reverse not in edge_types or reverse[::2] != edge_type[::-2]:
                    raise ValueError(
                        f"{name} has {reverse}, but a type from {edge_type[2]!r} to {edge_type[0]!r} among "
                        f"{[*edge_types]} is needed"
                    )
                self._given[edge_type].append(reverse)
                self._given.setdefault(reverse, []).append(edge_type)

    def of(self, edge_type: EdgeType) -> list[EdgeType]:
        """The reverses of a type that the graph has; a type between nodes of one type is its own."""
        head, name, tail = edge_type
        names = (name, f"rev_{name}", name.removeprefix("rev_"))
        known = [*((tail, reverse, head) for reverse in names), *self._given.get(edge_type, [])]
        return [reverse for reverse in dict.fromkeys(known) if reverse in self._edge_types]

    def warn_of_lookalikes(
        self,
        edge_type: EdgeType,
        links: tuple[Tensor, Tensor],
        edges: Mapping[EdgeType, InEdges],
        num_nodes: Mapping[NodeType, int],
    ) -> None:
        """Warn of types that are not known as anybody's reverse, but have the edges of this one reversed.

        Args:
            edge_type (tuple): The type that is to be predicted.
            links (tuple): Sources and targets of some links of it, for a graph that lacks the type.
            edges (dict): The edges of the graph, ordered for :meth:`InEdges.has`.
            num_nodes (dict): The numbers of nodes.
        """
        if self._given.get(edge_type) == []:
            return
        own = edges.get(edge_type)
        source, target = links if own is None else own.some(_NUM_COMPARED)
        num_pairs = num_nodes[edge_type[0]] * num_nodes[edge_type[2]]

        def are_among(source: Tensor, target: Tensor, others: InEdges) -> bool:
            """Whether these pairs, reversed, have edges, and more of them than by chance."""
            chance = min(others.source.numel() / num_pairs, 1.0)
            share = float(others.has(target, source).double().mean()) if source.numel() > 0 else 0.0
            return share >= (1 + chance) / 2

        for other, its_edges in edges.items():
            known = other == edge_type or other in self._given or {*self.of(other)} - {other}
            if other[::2] != edge_type[::-2] or known:
                continue
            # Either may hold only part of the other: the positives of training, say.
            back = own is not None and are_among(*its_edges.some(_NUM_COMPARED), own)
            if back or are_among(source, target, its_edges):
                warnings.warn(
                    f"edges {other} look like those of {edge_type} reversed, and pass messages although "
                    f"exclude_supervision leaves out the links of a batch. Name the reverse with "
                    f"reverse_edge_types={{{edge_type}: {other}}}; an empty list says that there is none",
                    stacklevel=2,
                )
