"""Parts: what a node, its neighbours and constants each add to a score that reads the node's vector."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch_geometric.utils import k_hop_subgraph

from mgwa_pyg.nn import GatedAggregationConv
from mgwa_pyg.ops import RelationCSR

Activation = Callable[[Tensor, int], Tensor]


class Parts(NamedTuple):
    r"""A score as a sum: ``own + score.sum() + constant + bias``."""

    own: Tensor
    """What the node itself adds."""
    source: Tensor
    r"""The node that each of the edges into it comes from, :math:`(E)`."""
    relation: Tensor
    r"""The relation of each edge, :math:`(E)`."""
    attention: Tensor
    r"""The attention of the last layer to each edge, :math:`(E)`."""
    score: Tensor
    r"""What comes along each edge, in all layers together, :math:`(E)`."""
    constant: Tensor
    """What the constants of the layers add."""
    bias: Tensor | float = 0.0
    """What depends on no message."""
    gate: float | None = None
    """How far the gate of the last layer is open, the mean over its channels; :obj:`None` without a gate."""
    weight: Tensor | None = None
    r"""What the node's first vector is multiplied by for :obj:`own`, :math:`(d)`."""


def _as_is(x: Tensor, layer: int = 0) -> Tensor:
    return x


def split(
    convs: Sequence[GatedAggregationConv],
    states: Sequence[Tensor],
    own: Sequence[Tensor],
    graph: RelationCSR | tuple[Tensor, Tensor],
    node: int | None,
    read: Sequence[Tensor],
    keywords: dict[str, Any] | None = None,
    activate: Activation = _as_is,
    scale: Callable[[Tensor], Tensor] = _as_is,
    typed: bool = True,
) -> Parts:
    r"""Split the score :math:`\sum_l \mathbf{r}_l^{\top} \mathbf{x}_v^{(l)}` of one node :math:`v`.

    Attention, gates and the slopes of activations are taken as they are at this node. Then each layer is an
    affine map of the node and its neighbours, and the score is a sum, exactly: from the last layer to the
    first, what the score reads is carried through the map, and what belongs to the neighbours and to the
    constants is put down.

    Args:
        convs (sequence of GatedAggregationConv): The layers, with one head.
        states (sequence of torch.Tensor): All nodes before each layer, :math:`(N, d)`; one more does no harm.
        own (sequence of torch.Tensor): The node before each layer, :math:`(1, d)`; one more does no harm.
        graph (RelationCSR or tuple): The graph; or, for a node beside it, the sources and the relations of
            the edges into the node.
        node (int, optional): The node; :obj:`None` for one beside the graph.
        read (sequence of torch.Tensor): The vectors :math:`\mathbf{r}_0` to :math:`\mathbf{r}_L`, of size
            :math:`d`.
        keywords (dict, optional): What else the layers are called with. (default: :obj:`None`)
        activate (callable, optional): What follows each layer, given its number. (default: nothing)
        scale (callable, optional): What neighbours are multiplied by. (default: nothing)
        typed (bool, optional): Whether the layers know relations. (default: :obj:`True`)
    """
    if isinstance(graph, RelationCSR):
        assert node is not None
        edges = slice(int(graph.rowptr[node]), int(graph.rowptr[node + 1]))
        source, relation = graph.col[edges].long(), graph.rel[edges].long()
    else:
        source, relation = graph
    edge_index = torch.stack([torch.arange(len(source)), torch.zeros_like(source)])
    edge_type = relation if typed else torch.zeros_like(relation)
    weight = read[-1]
    score = weight.new_zeros(len(source))
    attention, gate, constant = score, None, weight.new_zeros(())
    for layer in reversed(range(len(convs))):
        conv = convs[layer]
        neighbors = scale(states[layer][source])
        _, (_, alpha) = conv(
            (neighbors, own[layer]),
            edge_index,
            edge_type,
            **keywords or {},
            return_attention_weights=True,
        )
        message = alpha * neighbors * max(len(source), 1) ** conv.degree_power
        x = own[layer].clone().requires_grad_()
        neighborhood = message.sum(dim=0).view(1, 1, -1).requires_grad_()
        with torch.enable_grad():
            y = conv.fusion.linearized(x, neighborhood)[:, 0]
            slope = (activate(y, layer) / y).detach().masked_fill(y == 0, 0.0)
            value = (slope * y)[0] @ weight
            to_x, to_neighborhood = torch.autograd.grad(
                value, (x, neighborhood), allow_unused=True, materialize_grads=True
            )
        along = message @ to_neighborhood.flatten()
        score = score + along
        constant = constant + value.detach() - (to_x * x).sum().detach() - along.sum()
        if layer == len(convs) - 1:
            attention = alpha[:, 0]
            opened = conv.fusion.gate(own[layer], neighborhood.detach())
            gate = None if opened is None else float(opened.mean())
        weight = to_x[0] + read[layer]
    return Parts(own[0][0] @ weight, source, relation, attention, score, constant, 0.0, gate, weight)


class Stack(torch.nn.Module):
    r"""The layers as one model of ``(x, edge_index, edge_type)`` that gives the logit of one pair,
    :math:`(1, 1)`: what :class:`torch_geometric.explain.Explainer` explains.

    It comes with the part of the graph that the logit depends on, edges in the order of the whole graph.
    All of it is a copy: explainers leave masks and hooks behind where they are interrupted. Arguments are
    those of :func:`split`.
    """

    x: Tensor
    read: Tensor
    bias: Tensor

    def __init__(
        self,
        convs: Sequence[GatedAggregationConv],
        x: Tensor,
        graph: RelationCSR,
        node: int,
        read: Sequence[Tensor],
        bias: Tensor | float,
        keywords: dict[str, Any] | None = None,
        activate: Activation = _as_is,
        scale: Callable[[Tensor], Tensor] = _as_is,
        typed: bool = True,
    ) -> None:
        super().__init__()
        edge_index, relation = torch.stack([graph.col, graph.dst]).long(), graph.rel.long()
        nodes, self.edge_index, place, kept = k_hop_subgraph(
            node, len(convs), edge_index, relabel_nodes=True, num_nodes=graph.size[0]
        )
        #: The number of each node in the whole graph.
        self.nodes = nodes
        #: The relation of each edge.
        self.relation = relation[kept]
        self.edge_type = self.relation if typed else torch.zeros_like(self.relation)
        self.node = int(place)
        self.convs = torch.nn.ModuleList(copy.deepcopy(conv) for conv in convs)
        self._activate, self._scale = activate, scale
        # Buffers, so that the model can be had in single precision, too.
        self.register_buffer("x", x[nodes])
        self.register_buffer("read", torch.stack(list(read)))
        self.register_buffer("bias", torch.as_tensor(bias, dtype=x.dtype))
        copies = {name: value.detach().clone() for name, value in (keywords or {}).items()}
        self.keywords = torch.nn.ParameterDict(copies).requires_grad_(False)

    def forward(self, x: Tensor, edge_index: Tensor, edge_type: Tensor) -> Tensor:
        logit = x[self.node] @ self.read[0] + self.bias
        for layer, conv in enumerate(self.convs):
            x = self._activate(conv((self._scale(x), x), edge_index, edge_type, **self.keywords), layer)
            logit = logit + x[self.node] @ self.read[layer + 1]
        return logit.view(1, 1)
