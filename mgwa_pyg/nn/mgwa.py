"""`MGWA`: the paper's recommender, N gated aggregation layers over a knowledge graph, seen by a user."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor
from torch_geometric.nn.inits import glorot

from mgwa_pyg.nn.gated_aggregation_conv import GatedAggregationConv


class MGWA(torch.nn.Module):
    r"""The multi-layer gated recommender MGWA.

    Each item is represented by its neighbourhood in the knowledge graph as one user sees it: the user's
    embedding is the query of every :class:`GatedAggregationConv`, the relations' embeddings are shared by
    the layers, and the click is predicted by the inner product (eq. 11)

    .. math::
        \hat{y}_{uv} = \sigma(\mathbf{e}_u^{\top} \mathbf{e}_v[N]).

    The users' embeddings take part in no message, so no interaction does.

    Args:
        num_users (int): Number of users.
        num_entities (int): Number of entities, the items among them.
        num_relations (int): Number of relations.
        channels (int, optional): Size of all embeddings. (default: :obj:`16`)
        num_layers (int, optional): Number of layers, each looking one hop further. (default: :obj:`1`)
        fusion (str, optional): The fusion of the layers; :obj:`"gated"` is the paper's.
            (default: :obj:`"gated"`)
        score_activation (str, optional): The activation of the attention's scores.
            (default: :obj:`"sigmoid"`)
        dropout (float, optional): Dropout probability of the attention. (default: :obj:`0`)
        backend (str, optional): The backend of the layers. (default: :obj:`"auto"`)
    """

    def __init__(
        self,
        num_users: int,
        num_entities: int,
        num_relations: int,
        channels: int = 16,
        num_layers: int = 1,
        fusion: str = "gated",
        score_activation: str | None = "sigmoid",
        dropout: float = 0.0,
        backend: str = "auto",
    ) -> None:
        super().__init__()
        if num_layers < 1:
            raise ValueError(f"num_layers={num_layers}: at least one layer is needed")
        self.channels = channels
        self.num_layers = num_layers
        self.user_emb = torch.nn.Embedding(num_users, channels)
        self.entity_emb = torch.nn.Embedding(num_entities, channels)
        self.relation_emb = torch.nn.Embedding(num_relations, channels)
        self.convs = torch.nn.ModuleList()
        for _ in range(num_layers):
            conv = GatedAggregationConv(
                channels,
                channels,
                num_relations=num_relations,
                query_channels=channels,
                score_activation=score_activation,
                fusion=fusion,
                dropout=dropout,
                backend=backend,
            )
            # Queries and relations come with every call: keep no parameter that nothing would train.
            conv.register_module("lin_query", None)
            conv.register_parameter("relation", None)
            self.convs.append(conv)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw all parameters anew, the embeddings uniformly after Glorot over their whole tables."""
        for embedding in (self.user_emb, self.entity_emb, self.relation_emb):
            glorot(embedding.weight)
        for conv in self.convs:
            cast(GatedAggregationConv, conv).reset_parameters()

    def forward(
        self,
        user: Tensor,
        node: Tensor,
        edge_index: Tensor,
        edge_type: Tensor,
        batch: Tensor,
        num_sampled_nodes: list[int],
        num_sampled_edges: list[int],
    ) -> Tensor:
        r"""Return the logit of a click for :math:`B` pairs of a user and an item, :math:`(B)`.

        All arguments but the first describe the items' neighbourhoods in the form of
        :class:`~mgwa_pyg.sampler.Neighborhood`, so that ``model(user, *sampler.sample(item, L))`` scores
        the pairs. The neighbourhoods are as deep as there are layers.

        Args:
            user (torch.Tensor): The users, :math:`(B)`.
            node (torch.Tensor): The entities, :math:`(N)`, the items first.
            edge_index (torch.Tensor): The edges, :math:`(2, E)`.
            edge_type (torch.Tensor): The edges' relations, :math:`(E)`.
            batch (torch.Tensor): The pair that each entity belongs to, :math:`(N)`.
            num_sampled_nodes (list[int]): The number of entities at each hop.
            num_sampled_edges (list[int]): The number of edges at each hop.
        """
        if len(num_sampled_edges) != self.num_layers:
            raise ValueError(
                f"the neighbourhoods are {len(num_sampled_edges)} hops deep, but num_layers="
                f"{self.num_layers} hops are needed"
            )
        query = self.user_emb(user)
        x = self.entity_emb(node)
        for layer, conv in enumerate(self.convs):
            # What lies further out than the layers to come can see is of no use any more.
            hops = self.num_layers - layer
            num_targets = sum(num_sampled_nodes[:hops])
            num_edges = sum(num_sampled_edges[:hops])
            x = conv(
                (x, x[:num_targets]),
                edge_index[:, :num_edges],
                edge_type[:num_edges],
                query=query,
                query_index=batch[:num_targets],
                relation=self.relation_emb.weight,
            )
        return (query * x).sum(dim=-1)
