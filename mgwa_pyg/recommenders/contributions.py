"""What a node, its neighbours and constants each contribute to a score that reads the node's vector."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor
from torch_geometric.utils import k_hop_subgraph

from mgwa_pyg.nn import GatedAggregationConv
from mgwa_pyg.ops import RelationCSR


class Contributions(NamedTuple):
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

    @property
    def total(self) -> Tensor:
        """The score."""
        return self.own + self.score.sum() + self.constant + self.bias


def _as_is(x: Tensor, layer: int = 0) -> Tensor:
    return x


@dataclass(frozen=True)
class Layers:
    """Layers with one head as one user sees them: what they are called with, and what stands between them."""

    convs: Sequence[GatedAggregationConv]
    plan: RelationCSR
    """The whole graph."""
    keywords: dict[str, Tensor] = field(default_factory=dict)
    """What else the layers are called with."""
    activate: Callable[[Tensor, int], Tensor] = _as_is
    """What follows each layer, given its number."""
    scale: Callable[[Tensor], Tensor] = _as_is
    """What neighbours are multiplied by."""
    typed: bool = True
    """Whether the layers know relations."""

    def states(self, x: Tensor, stop: int | None = None) -> list[Tensor]:
        r"""Return the nodes before the first layer and after each before ``stop``, :math:`(N, d)` each."""
        states = [x]
        for layer, conv in enumerate(self.convs[:stop]):
            x = conv((self.scale(states[-1]), states[-1]), self.plan, **self.keywords)
            states.append(self.activate(x, layer))
        return states

    def types(self, relation: Tensor) -> Tensor:
        """Return edges' relations as the layers know them."""
        return relation if self.typed else torch.zeros_like(relation)

    def edges_into(self, node: int) -> tuple[Tensor, Tensor]:
        """Return the sources and the relations of the edges into a node."""
        edges = slice(int(self.plan.rowptr[node]), int(self.plan.rowptr[node + 1]))
        return self.plan.col[edges].long(), self.plan.rel[edges].long()


def contributions(
    layers: Layers,
    states: Sequence[Tensor],
    own: Sequence[Tensor],
    edges: tuple[Tensor, Tensor],
    read: Sequence[Tensor],
) -> Contributions:
    r"""Split the score :math:`\sum_l \mathbf{r}_l^{\top} \mathbf{x}_v^{(l)}` of one node :math:`v`.

    Attention, gates and the slopes of activations are taken as they are at this node. Then each layer is an
    affine map of the node and its neighbours, and the score is a sum, exactly: from the last layer to the
    first, what the score reads is carried through the map, and what belongs to the neighbours and to the
    constants is put down.

    Args:
        layers (Layers): The layers.
        states (sequence of torch.Tensor): All nodes before each layer, :math:`(N, d)`; one more does no harm.
        own (sequence of torch.Tensor): The node before each layer, :math:`(1, d)`; one more does no harm.
        edges (tuple): The sources and the relations of the edges into the node, which may be one beside the
            graph.
        read (sequence of torch.Tensor): The vectors :math:`\mathbf{r}_0` to :math:`\mathbf{r}_L`, of size
            :math:`d`.
    """
    source, relation = edges
    edge_index = torch.stack([torch.arange(len(source), device=source.device), torch.zeros_like(source)])
    weight = read[-1]
    score = weight.new_zeros(len(source))
    attention, gate, constant = score, None, weight.new_zeros(())
    for layer in reversed(range(len(layers.convs))):
        conv = layers.convs[layer]
        neighbors = layers.scale(states[layer][source])
        _, (_, alpha) = conv(
            (neighbors, own[layer]),
            edge_index,
            layers.types(relation),
            **layers.keywords,
            return_attention_weights=True,
        )
        message = alpha * neighbors * max(len(source), 1) ** conv.degree_power
        x = own[layer].clone().requires_grad_()
        neighborhood = message.sum(dim=0).view(1, 1, -1).requires_grad_()
        with torch.enable_grad():
            y = conv.fusion.linearized(x, neighborhood)[:, 0]
            slope = (layers.activate(y, layer) / y).detach().masked_fill(y == 0, 0.0)
            value = (slope * y)[0] @ weight
            to_x, to_neighborhood = torch.autograd.grad(
                value, (x, neighborhood), allow_unused=True, materialize_grads=True
            )
        along = message @ to_neighborhood.flatten()
        score = score + along
        constant = constant + value.detach() - (to_x * x).sum().detach() - along.sum()
        if layer == len(layers.convs) - 1:
            attention = alpha[:, 0]
            opened = conv.fusion.gate(own[layer], neighborhood.detach())
            gate = None if opened is None else float(opened.mean())
        weight = to_x[0] + read[layer]
    return Contributions(own[0][0] @ weight, source, relation, attention, score, constant, 0.0, gate, weight)


class LogitModel(torch.nn.Module):
    r"""The layers as one model of ``(x, edge_index, edge_type)`` that gives the logit of one pair,
    :math:`(1, 1)`: what :class:`torch_geometric.explain.Explainer` explains.

    It comes with the part of the graph that the logit depends on, edges in the order of the whole graph.
    All of it is a copy: explainers leave masks and hooks behind where they are interrupted.

    Args:
        layers (Layers): The layers.
        x (torch.Tensor): What the nodes start from, :math:`(N, d)`.
        node (int): The node that the logit reads.
        read (sequence of torch.Tensor): The vectors :math:`\mathbf{r}_0` to :math:`\mathbf{r}_L`, of size
            :math:`d`.
        bias (torch.Tensor or float, optional): What is added to the logit. (default: :obj:`0.0`)
    """

    x: Tensor
    read: Tensor
    bias: Tensor

    def __init__(
        self, layers: Layers, x: Tensor, node: int, read: Sequence[Tensor], bias: Tensor | float = 0.0
    ) -> None:
        super().__init__()
        plan = layers.plan
        edge_index, relation = torch.stack([plan.col, plan.dst]).long(), plan.rel.long()
        nodes, self.edge_index, place, kept = k_hop_subgraph(
            node, len(layers.convs), edge_index, relabel_nodes=True, num_nodes=plan.size[0]
        )
        #: The number of each node in the whole graph.
        self.nodes = nodes
        #: The relation of each edge.
        self.relation = relation[kept]
        self.edge_type = layers.types(self.relation)
        self.node = int(place)
        self.convs = torch.nn.ModuleList(copy.deepcopy(conv) for conv in layers.convs)
        self._activate, self._scale = layers.activate, layers.scale
        # Buffers, so that the model can be had in single precision, too.
        self.register_buffer("x", x[nodes])
        self.register_buffer("read", torch.stack(list(read)))
        self.register_buffer("bias", torch.as_tensor(bias, dtype=x.dtype, device=x.device))
        copies = {name: value.detach().clone() for name, value in layers.keywords.items()}
        self.keywords = torch.nn.ParameterDict(copies).requires_grad_(False)

    def forward(self, x: Tensor, edge_index: Tensor, edge_type: Tensor) -> Tensor:
        logit = x[self.node] @ self.read[0] + self.bias
        for layer, conv in enumerate(self.convs):
            x = self._activate(conv((self._scale(x), x), edge_index, edge_type, **self.keywords), layer)
            logit = logit + x[self.node] @ self.read[layer + 1]
        return logit.view(1, 1)
