"""`NeighborhoodModel`: what MGWA and KGCN share, a knowledge graph as each user sees it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor
from torch_geometric.nn.inits import glorot

from mgwa_pyg.nn.conv.gated_aggregation_conv import GatedAggregationConv
from mgwa_pyg.nn.models.all_items import scores_by_block
from mgwa_pyg.ops import RelationCSR
from mgwa_pyg.ops.plan import check_plan
from mgwa_pyg.ops.top_k import Pairs, Ranking, check_k, checked_users, merged, top_k
from mgwa_pyg.utils.checks import (
    check_count,
    check_no_nan,
    check_range,
    check_tensors,
    forms,
    values_are_checked,
)

_FORMS = forms(
    user="index: pairs",
    node="index: entities",
    edge_index="index: 2 edges",
    edge_type="index: edges",
    batch="index: entities",
)


class NeighborhoodModel(torch.nn.Module):
    r"""Base class of recommenders that represent an item by its neighbourhood as one user sees it.

    The user's embedding is the query of every :class:`~mgwa_pyg.nn.GatedAggregationConv`, the relations'
    embeddings are shared by the layers, and the click is predicted by the inner product of user and item.

    Arguments and errors are those of :class:`~mgwa_pyg.nn.MGWA`.
    """

    #: What the queries are multiplied by before they meet the relations.
    query_scale: float = 1.0
    #: What the neighbours are multiplied by before they are added up.
    neighbor_scale: float = 1.0

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
        sparse: bool = False,
    ) -> None:
        super().__init__()
        self.channels = channels = check_count("channels", channels)
        self.num_layers = num_layers = check_count("num_layers", num_layers)
        num_users = check_count("num_users", num_users)
        num_entities = check_count("num_entities", num_entities)
        num_relations = check_count("num_relations", num_relations)
        self.user_emb = torch.nn.Embedding(num_users, channels, sparse=sparse)
        self.entity_emb = torch.nn.Embedding(num_entities, channels, sparse=sparse)
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

    def activate(self, x: Tensor, layer: int) -> Tensor:
        """What follows layer number ``layer``, counted from 0: nothing, unless a model says otherwise."""
        return x

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

        Raises:
            ValueError: If shapes or types do not go together, or the neighbourhoods are not as deep as there
                are layers.
            IndexError: If a user, an entity, a pair or a relation is out of range.
        """
        given = {"user": user, "node": node, "edge_index": edge_index, "edge_type": edge_type, "batch": batch}
        check_tensors(_FORMS, given)
        if values_are_checked(node.device):
            check_range("user", user, self.user_emb.num_embeddings, "num_users")
            check_range("node", node, self.entity_emb.num_embeddings, "num_entities")
            check_range("batch", batch, user.numel(), "the number of pairs")
        hops = self.num_layers
        _check_hops("num_sampled_nodes", num_sampled_nodes, hops + 1, node.numel(), hops)
        _check_hops("num_sampled_edges", num_sampled_edges, hops, edge_index.size(1), hops)
        if num_sampled_nodes[0] != user.numel():
            raise ValueError(
                f"user has shape {tuple(user.shape)}, but num_sampled_nodes[0]={num_sampled_nodes[0]} items "
                f"need a user each"
            )
        profile = self.user_emb(user.long())
        query = self.scaled_query(profile)
        num_relations = self.relation_emb.num_embeddings
        relation = self.relation_emb(torch.arange(num_relations, device=node.device))
        x = self.entity_emb(node.long())
        for layer, conv in enumerate(self.convs):
            # What lies further out than the layers to come can see is of no use any more.
            hops = self.num_layers - layer
            num_targets = sum(num_sampled_nodes[:hops])
            num_edges = sum(num_sampled_edges[:hops])
            x = conv(
                (self.scaled_neighbors(x), x[:num_targets]),
                edge_index[:, :num_edges],
                edge_type[:num_edges],
                query=query,
                query_index=batch[:num_targets],
                relation=relation,
            )
            x = self.activate(x, layer)
        return (profile * x).sum(dim=-1)

    @torch.no_grad()
    def score_items(
        self, users: Tensor, graph: RelationCSR, num_items: int, max_bytes: int | None = None
    ) -> Tensor:
        r"""Return the logits of all items for :math:`n` users, :math:`(n, \mathrm{num\_items})`, exactly as
        :meth:`forward` gives them with whole neighbourhoods.

        No subgraph is made: the first layer adds the neighbours of each entity up relation by relation, once
        for all users, and later layers run on the whole graph as each user sees it. No gradient is recorded
        and nothing dropped out.

        Args:
            users (torch.Tensor): The users, :math:`(n)`; a user may stand there twice.
            graph (RelationCSR): The plan of the knowledge graph, from all entities to all entities.
            num_items (int): The number of items: the first entities.
            max_bytes (int, optional): What one intermediate result may take, which decides how many users
                and items are scored at once; at least one user is. The default keeps it in a CPU's caches,
                or to 256 MiB on other devices. (default: :obj:`None`)

        Raises:
            ValueError: If an argument does not go with the model, or a score is NaN.
            IndexError: If a user is out of range.
        """
        profile = self.user_emb(self._checked_users(users, graph, num_items))
        out = profile.new_empty(profile.size(0), num_items)
        for rows, items, score in scores_by_block(self, profile, graph, num_items, max_bytes):
            out[rows, items] = score
        if values_are_checked(out.device):
            check_no_nan("the matrix of scores", out)
        return out

    @torch.no_grad()
    def rank(
        self,
        users: Tensor,
        k: int,
        graph: RelationCSR,
        num_items: int,
        exclude: Tensor | None = None,
        max_bytes: int | None = None,
    ) -> Ranking:
        r"""Return the :math:`k` best of all items for each of :math:`n` users, by the scores of
        :meth:`score_items`.

        Args:
            users (torch.Tensor): The users, :math:`(n)`.
            k (int): How many items to return.
            graph (RelationCSR): The plan of the knowledge graph, from all entities to all entities.
            num_items (int): The number of items: the first entities.
            exclude (torch.Tensor, optional): Pairs of user and item, :math:`(2, P)`, that take no part, such
                as the interactions of training; users who are not ranked do no harm.
                (default: :obj:`None`)
            max_bytes (int, optional): See :meth:`score_items`. (default: :obj:`None`)

        Returns:
            Ranking: The items and their logits, both :math:`(n, k)`. Of items with equal logits the lower
            number comes first. A user with fewer than :math:`k` items left gets :obj:`num_items` and
            :math:`-\infty` in their place. Where values are not checked, on an accelerator and in compiled or
            exported code, an item whose logit is NaN takes no part.

        Raises:
            ValueError: If an argument does not go with the model, or a score is NaN.
            IndexError: If a user or an excluded item is out of range.
        """
        users = self._checked_users(users, graph, num_items)
        check_k(k, num_items)
        seen = None if exclude is None else Pairs(exclude, self.user_emb.num_embeddings, num_items)
        profile = self.user_emb(users)
        best = Ranking(
            users.new_full((users.numel(), k), num_items, dtype=torch.long),
            profile.new_full((users.numel(), k), -torch.inf),
        )
        for rows, items, score in scores_by_block(self, profile, graph, num_items, max_bytes):
            top = top_k(score, users[rows], k, items.start, num_items, seen)
            so_far = merged(Ranking(best.item[rows], best.score[rows]), top)
            best.item[rows], best.score[rows] = so_far
        return best

    def scaled_query(self, profile: Tensor) -> Tensor:
        """The queries of users with these embeddings."""
        return profile if self.query_scale == 1.0 else self.query_scale * profile

    def scaled_neighbors(self, x: Tensor) -> Tensor:
        """Entities as what their neighbours add up."""
        return x if self.neighbor_scale == 1.0 else self.neighbor_scale * x

    def _checked_users(self, users: Tensor, plan: RelationCSR, num_items: int) -> Tensor:
        """Check what all items are scored for and by; return the users as indices."""
        num_entities, num_relations = self.entity_emb.num_embeddings, self.relation_emb.num_embeddings
        users = checked_users(users, self.user_emb.num_embeddings)
        check_plan("graph", plan)
        if plan.size != (num_entities, num_entities) or plan.num_relations != num_relations:
            raise ValueError(
                f"graph is of size {plan.size} with {plan.num_relations} relations, but the model was made "
                f"for {num_entities} entities and {num_relations} relations"
            )
        if check_count("num_items", num_items) > num_entities:
            raise ValueError(f"num_items={num_items}: items are the first of {num_entities} entities")
        return users


def _check_hops(name: str, counts: Sequence[int], length: int, total: int, num_layers: int) -> None:
    if torch.compiler.is_compiling():
        return
    are_counts = isinstance(counts, Sequence) and all(
        isinstance(count, int) and count >= 0 for count in counts
    )
    if not are_counts or len(counts) != length or sum(counts) != total:
        raise ValueError(
            f"{name}={counts!r:.60}: {length} numbers that add up to {total} are needed, as neighbourhoods "
            f"are as deep as num_layers={num_layers}"
        )
