"""`CollaborativeMGWA`: gated aggregation over users, items and entities in one graph."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import ClassVar, cast

import torch
from torch import Tensor
from torch_geometric.nn.inits import glorot
from torch_geometric.utils import degree, scatter

from mgwa_pyg.nn.conv.gated_aggregation_conv import GatedAggregationConv
from mgwa_pyg.nn.models.item_item import ItemItem, ItemPaths
from mgwa_pyg.ops import RelationCSR
from mgwa_pyg.ops.plan import check_plan
from mgwa_pyg.ops.top_k import Ranking, rank_by_product
from mgwa_pyg.utils.checks import (
    check_count,
    check_probability,
    check_range,
    check_tensors,
    forms,
    values_are_checked,
)

# Scores of pairs that are in memory at once.
_CELLS = 2**23
_FORMS = forms(
    interactions="index: 2 interactions",
    edge_index="index: 2 edges",
    edge_type="index: edges",
    user="index: pairs",
    item="index: pairs",
)


class CollaborativeMGWA(torch.nn.Module):
    r"""A recommender whose users pass messages: MGWA's layer over the collaborative knowledge graph.

    Not the paper's model. Users, items and the other entities are the nodes of one graph; to the :math:`2R`
    relations of the knowledge graph come two of the interactions, from user to item and back. A node's
    own features are the query of its attention. Of all :math:`L` layers :class:`GatedAggregationConv` and of
    what they start from, the mean counts, and the click is predicted by an inner product

    .. math::
        \mathbf{z}_v = \frac{1}{L + 1} \sum_{l=0}^{L} \mathbf{x}_v^{(l)}, \qquad
        \hat{y}_{ui} = \sigma(\mathbf{z}_u^{\top} \mathbf{z}_i + \mathbf{w}^{\top} \mathbf{f}_i + s_{ui}),

    where the features :math:`\mathbf{f}_i` say how well an entity is known, :math:`\log(1 + n_i)` of its
    :math:`n_i` users and :math:`\log(1 + k_i)` of its :math:`k_i` triples, and :math:`s_{ui}` is what
    :class:`ItemItem` says of an item, if the model has that part, and else zero.

    **A user is what they have seen.** There are no embeddings of users. The items :math:`\mathcal{H}_u` that
    a user has interacted with each say something about their users, and a user starts from the sum,
    :math:`\mathbf{x}_u^{(0)} = |\mathcal{H}_u|^{-1/2} \sum_{i \in \mathcal{H}_u} \mathbf{h}_i`. So the model
    knows any user whose interactions the graph holds, and nothing of them but those.

    **Nothing but the graph passes messages.** :meth:`encode` sees the edges of its graph alone. While
    training, leave the interactions that are to be predicted out of it.

    Args:
        num_items (int): Number of items: the first entities.
        num_entities (int): Number of entities, the items among them.
        num_relations (int): Number of relations of the knowledge graph, inverses counted if it has them.
        channels (int, optional): Size of all embeddings. (default: :obj:`32`)
        num_layers (int, optional): Number of layers, each looking one hop further. (default: :obj:`2`)
        fusion (str, optional): The fusion of the layers: :obj:`"identity"` keeps the neighbourhood as it is,
            :obj:`"highway"` gates it against the node, :obj:`"gated"` is the paper's gate.
            (default: :obj:`"identity"`)
        attention (bool, optional): Whether relations are told apart; without, the neighbourhood is a plain
            mean. (default: :obj:`True`)
        dropout (float, optional): Dropout probability of what nodes start from. (default: :obj:`0.1`)
        degree_power (float, optional): Neighbourhoods are multiplied by the number of edges to this power, so
            that items with many users are long. (default: :obj:`0.5`)
        item_item (bool, optional): Whether scores have the part of :class:`ItemItem`, too.
            (default: :obj:`False`)
        backend (str, optional): The backend of the layers. (default: :obj:`"auto"`)

    Raises:
        ValueError: If a size is below 1, there are more items than entities, or the layer rejects an
            argument.
    """

    #: The number of features that say how well an entity is known.
    num_features: ClassVar[int] = 2
    #: A logit's factor, those of the features and a constant, which make a probability. Set by training.
    calibration: Tensor

    def __init__(
        self,
        num_items: int,
        num_entities: int,
        num_relations: int,
        channels: int = 32,
        num_layers: int = 2,
        fusion: str = "identity",
        attention: bool = True,
        dropout: float = 0.1,
        degree_power: float = 0.5,
        item_item: bool = False,
        backend: str = "auto",
    ) -> None:
        super().__init__()
        check_probability("dropout", dropout)
        num_layers = check_count("num_layers", num_layers, 0)
        self.num_items = num_items = check_count("num_items", num_items)
        self.num_entities = num_entities = check_count("num_entities", num_entities)
        self.num_relations = num_relations = check_count("num_relations", num_relations, 0)
        self.channels = channels = check_count("channels", channels)
        if num_items > num_entities:
            raise ValueError(f"num_items={num_items}: items are the first of num_entities={num_entities}")
        self.attention = attention
        self.dropout = dropout
        self.entity_emb = torch.nn.Embedding(num_entities, channels)
        #: What an item says about its users.
        self.history_emb = torch.nn.Embedding(num_items, channels)
        self.convs = torch.nn.ModuleList(
            GatedAggregationConv(
                channels,
                channels,
                num_relations=num_relations + 2 if attention else 1,
                fusion=fusion,
                backend=backend,
                degree_power=degree_power,
            )
            for _ in range(num_layers)
        )
        self.entity_bias = torch.nn.Linear(self.num_features, 1, bias=False)
        #: What items say of each other directly, if scores have that part.
        self.item_item = ItemItem(num_relations) if item_item else None
        self.register_buffer("calibration", torch.empty(self.num_features + 2))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw all parameters anew, the embeddings after Glorot over their whole tables; the probability is
        the logit's.
        """
        for embedding in (self.entity_emb, self.history_emb):
            glorot(embedding.weight)
        for conv in self.convs:
            cast(GatedAggregationConv, conv).reset_parameters()
        torch.nn.init.zeros_(self.entity_bias.weight)
        if self.item_item is not None:
            self.item_item.reset_parameters()
        self.calibration.zero_()[0] = 1.0

    def graph(
        self, interactions: Tensor, edge_index: Tensor, edge_type: Tensor, num_users: int
    ) -> RelationCSR:
        r"""Return the plan of the collaborative knowledge graph: what all messages pass along.

        Its nodes are the entities, then the users.

        Args:
            interactions (torch.Tensor): Those that pass messages, user and item, :math:`(2, P)`.
            edge_index (torch.Tensor): The edges between entities, in both directions, :math:`(2, E)`.
            edge_type (torch.Tensor): The relation of each edge, :math:`(E)`.
            num_users (int): Number of users.

        Raises:
            ValueError: If shapes or types do not go together.
            IndexError: If a user, an item, an entity or a relation is out of range.
        """
        tensors = {"interactions": interactions, "edge_index": edge_index, "edge_type": edge_type}
        check_tensors(_FORMS, tensors)
        check_range("interactions[0]", interactions[0], check_count("num_users", num_users, 0), "num_users")
        check_range("interactions[1]", interactions[1], self.num_items, "num_items")
        check_range("edge_index", edge_index, self.num_entities, "num_entities")
        check_range("edge_type", edge_type, self.num_relations, "num_relations")
        user, item = interactions[0].long() + self.num_entities, interactions[1].long()
        both = torch.cat([torch.stack([user, item]), torch.stack([item, user])], dim=1)
        relation = torch.arange(2, device=user.device).repeat_interleave(user.numel()) + self.num_relations
        num_nodes = self.num_entities + num_users
        return RelationCSR.from_edge_index(
            torch.cat([edge_index, both], dim=1),
            torch.cat([edge_type, relation]),
            self.num_relations + 2,
            (num_nodes, num_nodes),
        )

    def encode(self, graph: RelationCSR) -> tuple[Tensor, Tensor]:
        r"""Return users, :math:`(U, d + 1)`, and entities, :math:`(N, d + 1)`, whose inner products are the
        logits, but for the part of :class:`ItemItem`: the last dimension of an entity is its bias, that of a
        user 1.

        Args:
            graph (RelationCSR): The plan, as :meth:`graph` returns it.

        Raises:
            ValueError: If the plan has another number of relations, or fewer nodes than there are entities.
        """
        check_plan("graph", graph)
        num_users = graph.size[0] - self.num_entities
        if graph.num_relations != self.num_relations + 2 or num_users < 0 or graph.size[0] != graph.size[1]:
            raise ValueError(
                f"graph is of size {graph.size} with {graph.num_relations} relations, but the model was made "
                f"for {self.num_entities} entities, users beside them, and {self.num_relations} + 2 relations"
            )
        return self.read_out(self.states(graph), graph)

    def read_out(self, states: Sequence[Tensor], plan: RelationCSR) -> tuple[Tensor, Tensor]:
        """Return what :meth:`encode` does, from what :meth:`states` returned for the same plan."""
        z = sum(states[1:], states[0]) / len(states)
        z_entity, z_user = z.tensor_split([self.num_entities])
        bias = self.entity_bias(self.entity_features(plan))
        return torch.cat([z_user, torch.ones_like(z_user[:, :1])], 1), torch.cat([z_entity, bias], 1)

    def states(self, plan: RelationCSR) -> list[Tensor]:
        r"""Return what the nodes start from and become in each layer, :math:`\mathbf{x}^{(0)}` to
        :math:`\mathbf{x}^{(L)}`, :math:`(N + U, d)` each.

        Args:
            plan (RelationCSR): As :meth:`graph` returns it.

        Raises:
            IndexError: If the plan was made for other numbers of items or entities.
        """
        num_users = plan.size[0] - self.num_entities
        is_seen = plan.rel == self.num_relations + 1
        item, user = plan.col[is_seen].long(), plan.dst[is_seen].long() - self.num_entities
        if values_are_checked(item.device):  # A plan that another model made is of other nodes.
            check_range("the plan's interactions", item, self.num_items, "num_items")
            check_range("the plan's interactions", user, num_users, "the number of users")
        entities = self.entity_emb(torch.arange(self.num_entities, device=item.device))
        wide = torch.promote_types(entities.dtype, torch.float32)  # Half precision cannot count.
        seen = scatter(self.history_emb(item).to(wide), user, dim_size=num_users, reduce="sum")
        seen = seen * degree(user, num_users, dtype=wide).clamp(min=1).rsqrt().unsqueeze(1)
        x = torch.cat([entities, seen.to(entities.dtype)])
        states = [torch.nn.functional.dropout(x, self.dropout, self.training)]
        if not self.attention:
            plan = plan.with_relations(torch.zeros_like(plan.rel), 1)
        for conv in self.convs:
            states.append(conv(states[-1], plan))
        return states

    def newcomer_states(self, items: Tensor, states: Sequence[Tensor]) -> list[Tensor]:
        r"""Return what a user becomes who is not in the graph, and passes no message there,
        :math:`\mathbf{x}_u^{(0)}` to :math:`\mathbf{x}_u^{(L)}`, :math:`(1, d)` each; their mean is the user.

        Args:
            items (torch.Tensor): The items that the user has seen, :math:`(n)`, all different.
            states (sequence of torch.Tensor): As :meth:`states` returns them.
        """
        edge_index = torch.stack([torch.arange(items.numel(), device=items.device), torch.zeros_like(items)])
        edge_type = torch.full_like(items, self.num_relations + 1 if self.attention else 0)
        seen = self.history_emb(items)
        x = seen.sum(dim=0, keepdim=True, dtype=torch.promote_types(seen.dtype, torch.float32))
        own = [(x * max(items.numel(), 1) ** -0.5).to(seen.dtype)]
        for conv, state in zip(self.convs, states[:-1], strict=True):
            own.append(conv((state[items], own[-1]), edge_index, edge_type))
        return own

    def entity_features(self, plan: RelationCSR) -> Tensor:
        r"""Return how well a plan knows each entity, :math:`(N, 2)`: :math:`\log(1 + n)` of its users, and
        :math:`\log(1 + k)` of its triples.

        Both grow with what is known. Whether there are no users at all is left out, and so is what is no
        item: where all items of the data have been seen by somebody, both would tell how its rows were made.
        """
        is_entity = plan.dst < self.num_entities
        entity, from_user = plan.dst[is_entity].long(), plan.rel[is_entity] == self.num_relations
        dtype = self.entity_emb.weight.dtype
        wide = torch.promote_types(dtype, torch.float32)  # Half precision cannot count.
        count = degree(entity[from_user], self.num_entities, dtype=wide)
        triples = degree(entity[~from_user], self.num_entities, dtype=wide)
        return torch.stack([count.log1p(), triples.log1p()], dim=1).to(dtype)

    evidence = entity_features  # Its name in 0.1.0.

    def forward(self, user: Tensor, item: Tensor, graph: RelationCSR) -> Tensor:
        r"""Return the logit of a click for :math:`B` pairs of a user and an entity, :math:`(B)`.

        Args:
            user (torch.Tensor): The users, :math:`(B)`.
            item (torch.Tensor): The entities, :math:`(B)`.
            graph (RelationCSR): The plan, as :meth:`graph` returns it.

        Raises:
            ValueError: If shapes or types do not go together.
            IndexError: If a user or an entity is out of range.
        """
        check_tensors(_FORMS, {"user": user, "item": item})
        z_user, z_entity = self.encode(graph)
        if values_are_checked(user.device):
            check_range("user", user, z_user.size(0), "the number of users")
            check_range("item", item, self.num_entities, "num_entities")
        logit = (z_user[user.long()] * z_entity[item.long()]).sum(dim=-1)
        return logit if self.item_item is None else logit + self.direct_pairs(user, item, self.paths(graph))

    def paths(self, plan: RelationCSR) -> ItemPaths:
        """Return the paths between items in a plan, for :meth:`direct`."""
        return ItemPaths(plan, self.num_items, self.num_entities, self.entity_emb.weight.dtype)

    def direct(self, users: Tensor, paths: ItemPaths) -> Tensor:
        r"""Return what :class:`ItemItem` adds to the scores of all items for users, :math:`(n, M)`."""
        distinct, row = users.unique(return_inverse=True)
        score = cast(ItemItem, self.item_item)(paths, paths.history(distinct))
        return score if torch.equal(distinct, users) else score[row]

    def direct_pairs(self, user: Tensor, item: Tensor, paths: ItemPaths) -> Tensor:
        r"""Return what :class:`ItemItem` adds to the scores of :math:`B` pairs, :math:`(B)`; nothing where an
        entity is no item.
        """
        value = self.entity_emb.weight.new_zeros(user.numel())
        pair = (item < self.num_items).nonzero().squeeze(1)
        pair = pair[user[pair].argsort()]
        distinct, size = user[pair].unique_consecutive(return_counts=True)
        at_once = max(1, _CELLS // self.num_items)
        rows = [int(part.sum()) for part in size.split(at_once)]
        for users, part in zip(distinct.split(at_once), pair.split(rows), strict=True):
            row = torch.searchsorted(users, user[part])
            score = cast(ItemItem, self.item_item).pairs(paths, paths.history(users), row, item[part])
            value = value.index_put((part,), score)
        return value

    @torch.no_grad()
    def rank(self, users: Tensor, k: int, graph: RelationCSR, exclude: Tensor | None = None) -> Ranking:
        r"""Return the :math:`k` best items of :math:`n` users; nothing is dropped out. Where values are not
        checked, on an accelerator and in compiled or exported code, an item whose logit is NaN takes no part.

        Args:
            users (torch.Tensor): The users, :math:`(n)`.
            k (int): How many items.
            graph (RelationCSR): The plan, as :meth:`graph` returns it.
            exclude (torch.Tensor, optional): Pairs of user and item that are left out, :math:`(2, P)`.
                (default: :obj:`None`)

        Raises:
            ValueError: If an argument does not go with the model, or a score is NaN.
            IndexError: If a user is out of range.
        """
        was_training = self.training
        try:
            z_user, z_entity = self.eval().encode(graph)
        finally:
            self.train(was_training)
        more = None
        if self.item_item is not None:
            more = partial(self.direct, paths=self.paths(graph))
        return rank_by_product(z_user, z_entity[: self.num_items], users, k, exclude, more)
