"""`GatedAggregationConv`: relation-aware softmax attention, then a gate of a node and its neighbourhood."""

# PyG's code templates read the annotations, and cannot read `int | None`.
from functools import partial
from typing import Any, ClassVar, Optional

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn import Parameter
from torch_geometric.nn.conv import MessagePassing
from torch_geometric.nn.dense.linear import Linear
from torch_geometric.nn.inits import glorot, reset
from torch_geometric.typing import Adj, OptPairTensor, OptTensor, Size, SparseTensor

from mgwa_pyg.nn.conv import scores
from mgwa_pyg.nn.conv.fusion import apply_map, make_fusion
from mgwa_pyg.nn.conv.gated_aggregation_call import (
    Call,
    aggregation,
    check_channels,
    check_query_channels,
    count_edges,
    looks_at_edges,
    pair,
    read_call,
    read_query,
    with_attention,
)
from mgwa_pyg.ops import RelationCSR, segment_ops
from mgwa_pyg.ops.aggregate import aggregate_unchecked
from mgwa_pyg.utils.checks import (
    check_choice,
    check_count,
    check_number,
    check_options,
    check_probability,
    optional,
)


class GatedAggregationConv(MessagePassing):
    r"""The gated aggregation operator of MGWA, from the `"Music Recommendation Model Based on Graph Neural
    Network with Weighted Aggregation" <https://doi.org/10.12677/SEA.2024.131010>`_ paper.

    A query :math:`\mathbf{q}` (the user in MGWA, else derived from the target node) decides how much
    each relation :math:`r` counts, a softmax over the neighbourhood turns this into attention
    (eqs. 4--5), and the aggregated neighbourhood (eq. 3) is fused with the node itself by a gate
    (eqs. 8--10):

    .. math::
        s_r &= \phi(\mathbf{q}^{\top} \mathbf{r}), \qquad
        \alpha_{v,a} = \frac{\exp(s_{r(v,a)})}{\sum_{a' \in \mathcal{N}(v)} \exp(s_{r(v,a')})}

        \mathbf{e}_{\mathcal{N}(v)} &= \sum_{a \in \mathcal{N}(v)} \alpha_{v,a} \, \mathbf{e}_a,
        \qquad \mathbf{z} = [\mathbf{e}_v \, \Vert \, \mathbf{e}_{\mathcal{N}(v)}]

        \mathbf{e}_v^{\prime} &= \sigma(\mathbf{z} \mathbf{W} + \mathbf{b}) \odot
        (\mathbf{z} \mathbf{V} + \mathbf{c})

    Edges between the same two nodes, of equal or different relations, each take part in the softmax. A
    node without neighbours has :math:`\mathbf{e}_{\mathcal{N}(v)} = \mathbf{0}`.

    The scores depend on the query and the relation alone, hence they are computed once for every query and
    relation and looked up by edge. Where these are more numbers than the queries of all edges hold,
    :math:`B R H > |\mathcal{E}| D`, the pairs that occur are scored instead, but never in compiled code.

    Args:
        in_channels (int or tuple): Size of each input sample, or :obj:`-1` to derive the size from the
            first input(s) to the forward method. A tuple corresponds to the sizes of source and target
            dimensionalities; sources send messages whatever the flow.
        out_channels (int): Size of each output sample, per head.
        num_relations (int, optional): Number of relations :math:`R`. With one relation and no edge
            features all scores of a neighbourhood are equal, the attention is the mean and the layer
            has no score parameters. (default: :obj:`1`)
        query_channels (int, optional): Size :math:`D` of a query and of a relation's vector; :obj:`None`
            is :obj:`heads * out_channels`. Each head compares its own :math:`D / H` of the dimensions.
            (default: :obj:`None`)
        heads (int, optional): Number of heads :math:`H`, each with an attention and a fusion of its own.
            (default: :obj:`1`)
        concat (bool, optional): If set to :obj:`False`, the heads are averaged instead of concatenated.
            (default: :obj:`True`)
        score_activation (str, optional): The activation :math:`\phi` of the scores: :obj:`"sigmoid"`
            (the paper; the attention of two neighbours then differs by a factor of :math:`e` at most),
            :obj:`"leaky_relu"` (slope 0.2), :obj:`"tanh"` or :obj:`None`.
            (default: :obj:`"sigmoid"`)
        fusion (str, optional): How a node and its neighbourhood become one vector: :obj:`"gated"` as
            above, or :obj:`"sum"`, :obj:`"concat"` and :obj:`"neighbor"` as in the `"Knowledge Graph
            Convolutional Networks for Recommender Systems" <https://arxiv.org/abs/1904.12575>`_ paper,
            which are linear (the model around the layer applies the non-linearity). :obj:`"highway"` weighs
            the two by one number for each node, and :obj:`"identity"` returns the neighbourhood: both
            keep the width. (default: :obj:`"gated"`)
        edge_dim (int, optional): Size of edge features, which are mapped to :math:`D` dimensions and
            added to the relation's vector. (default: :obj:`None`)
        dropout (float, optional): Dropout probability of the attention coefficients.
            (default: :obj:`0`)
        bias (bool, optional): If set to :obj:`False`, the fusion will not learn an additive bias.
            (default: :obj:`True`)
        backend (str, optional): What computes softmax and sum: :obj:`"torch"`, which makes no messages
            (see :func:`~mgwa_pyg.ops.relation_softmax_aggregate`), :obj:`"triton"` (the same by kernels for
            CUDA), :obj:`"reference"` (PyG's own composition), :obj:`"scatter"` (that of torch_scatter), or
            :obj:`"auto"`, which chooses by device and size. All give the same result. Where messages are
            asked for, by edge features, returned attention weights, hooks, explanations or a subclass with
            methods of its own, the first two compose as :obj:`"reference"` does. (default: :obj:`"auto"`)
        degree_power (float, optional): The neighbourhood is multiplied by the number of its edges to this
            power before it is fused. A softmax cannot count: whatever the number of unrelated neighbours,
            :obj:`0.5` keeps the length of what they come to, while neighbours that agree count for more the
            more they are. :obj:`0` is the paper. (default: :obj:`0`)
        **kwargs (optional): Additional arguments of :class:`torch_geometric.nn.conv.MessagePassing`.

    Shapes:
        - **input:**
          node features :math:`(|\mathcal{V}|, F_{in})` or
          :math:`((|\mathcal{V_s}|, F_{s}), (|\mathcal{V_t}|, F_{t}))` if bipartite,
          edge indices :math:`(2, |\mathcal{E}|)` or a plan, :class:`~mgwa_pyg.ops.RelationCSR`,
          edge types :math:`(|\mathcal{E}|)` *(optional)*,
          edge features :math:`(|\mathcal{E}|, F_{e})` *(optional)*,
          queries :math:`(D)`, :math:`(|\mathcal{V_t}|, D)` or :math:`(B, D)` *(optional)*
        - **output:** node features :math:`(|\mathcal{V_t}|, H * F_{out})` or
          :math:`(|\mathcal{V_t}|, F_{out})` if :obj:`concat` is :obj:`False`.
          If :obj:`return_attention_weights` is :obj:`True`, then also the attention coefficients
          :math:`(|\mathcal{E}|, H)`.

    Raises:
        ValueError: If an option is unknown or sizes do not go together.
        ImportError: If the backend's package is not installed.
    """

    _constraints: ClassVar[dict[str, Any]] = {
        "in_channels": check_channels,
        "out_channels": check_count,
        "num_relations": check_count,
        "heads": check_count,
        "score_activation": partial(check_choice, allowed=scores.ACTIVATIONS),
        "edge_dim": optional(check_count),
        "dropout": check_probability,
        "degree_power": check_number,
    }
    # The arguments' types, for PyG's code templates.
    edge_updater_type: ClassVar[dict[str, Any]] = {
        **dict.fromkeys(("table", "query", "relation", "query_index", "features"), OptTensor),
        "edge_type": Tensor,
    }
    propagate_type: ClassVar[dict[str, Any]] = {"x": Tensor, "alpha": Tensor}

    def __init__(
        self,
        in_channels: int | tuple[int, int],
        out_channels: int,
        num_relations: int = 1,
        query_channels: int | None = None,
        heads: int = 1,
        concat: bool = True,
        score_activation: str | None = "sigmoid",
        fusion: str = "gated",
        edge_dim: int | None = None,
        dropout: float = 0.0,
        bias: bool = True,
        backend: str = "auto",
        degree_power: float = 0.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**aggregation(kwargs))

        self.in_channels = in_channels
        self.out_channels = out_channels
        self.num_relations = num_relations
        self.heads = heads
        self.concat = concat
        self.score_activation = score_activation
        self.edge_dim = edge_dim
        self.dropout = dropout
        self.backend = backend
        self.degree_power = degree_power
        check_options(self)
        self.query_channels = check_query_channels(query_channels, self.heads, self.out_channels)
        self._ops = segment_ops(backend)

        linear = partial(Linear, bias=False, weight_initializer="glorot")
        in_neighbor, in_self = pair(self.in_channels)
        # Without anything that tells two edges apart, all scores of a node are equal.
        self.is_scored = self.num_relations > 1 or edge_dim is not None
        if self.is_scored:
            self.lin_query = linear(in_self, self.query_channels)
            self.relation = Parameter(torch.empty(self.num_relations, self.query_channels))
        else:
            self.register_module("lin_query", None)
            self.register_parameter("relation", None)
        if self.edge_dim is not None:
            self.lin_edge = linear(self.edge_dim, self.query_channels)
        else:
            self.register_module("lin_edge", None)
        self.fusion = make_fusion(fusion, in_self, in_neighbor, self.out_channels, self.heads, bias)

        self.reset_parameters()

    def reset_parameters(self) -> None:
        r"""Resets all learnable parameters of the module."""
        super().reset_parameters()
        for module in (self.lin_query, self.lin_edge, self.fusion):
            reset(module)
        glorot(self.relation)

    def forward(
        self,
        x: Tensor | OptPairTensor,
        edge_index: Adj | RelationCSR,
        edge_type: OptTensor = None,
        edge_attr: OptTensor = None,
        query: OptTensor | tuple[OptTensor, OptTensor] = None,
        query_index: OptTensor | tuple[OptTensor, OptTensor] = None,
        relation: OptTensor = None,
        size: Size = None,
        return_attention_weights: bool | None = None,
    ) -> Tensor | tuple[Tensor, tuple[Tensor, Tensor]] | tuple[Tensor, SparseTensor]:
        r"""Runs the forward pass of the module.

        Args:
            x (torch.Tensor or (torch.Tensor, torch.Tensor)): The input node features.
            edge_index (torch.Tensor, SparseTensor or RelationCSR): The edge indices. In a sparse layout the
                values are the edge types; such a layout holds one edge per pair of nodes at most. A plan, a
                :class:`~mgwa_pyg.ops.RelationCSR`, holds edges, types and sizes, and spares every call the
                sorting; its edges lead from source to target whatever the flow.
            edge_type (torch.Tensor, optional): The relation of each edge, a whole number in
                :math:`[0, R)`. Not needed of one, or if :obj:`edge_index` has them. (default: :obj:`None`)
            edge_attr (torch.Tensor, optional): The edge features. If the layer was made without
                :obj:`edge_dim`, a vector of whole numbers counts as :obj:`edge_type`, for models that pass
                on :obj:`edge_attr` only. (default: :obj:`None`)
            query (torch.Tensor or (torch.Tensor, torch.Tensor), optional): The queries: one for all
                targets, one for each target, or :math:`B` of which :obj:`query_index` picks one for
                each target; of a pair the target's part counts. If :obj:`None`, a learned projection of
                the target's features. (default: :obj:`None`)
            query_index (torch.Tensor or (torch.Tensor, torch.Tensor), optional): The row of :obj:`query`
                that each target uses, :math:`(|\mathcal{V_t}|)`; of a pair as above. (default: :obj:`None`)
            relation (torch.Tensor, optional): The relations' vectors :math:`(R, D)`, to share them with
                other layers; if :obj:`None`, the layer's own. (default: :obj:`None`)
            size (tuple, optional): The numbers of nodes that the two rows of :obj:`edge_index` refer to;
                derived from :obj:`x` if :obj:`None`. (default: :obj:`None`)
            return_attention_weights (bool, optional): If set to :obj:`True`, will additionally return
                the tuple :obj:`(edge_index, attention_weights)`; for a :class:`SparseTensor`, an
                adjacency that holds the attention weights. (default: :obj:`None`)

        Raises:
            ValueError: If the sizes or types of the arguments do not go together, or features are NaN.
            IndexError: If an index of an edge, a relation or a query is out of range.

        .. note::
            Values (NaNs and the ranges of indices) are checked on the CPU always, and on an accelerator
            only under :class:`torch_geometric.debug`, as this waits for the device.
        """
        by_edge = return_attention_weights or looks_at_edges(self, GatedAggregationConv)
        call = read_call(
            self, x, edge_index, edge_type, edge_attr, query, query_index, relation, size, by_edge
        )

        # Scores and attention.
        query, relation, table = self._scores(call)
        alpha: OptTensor = None
        if call.plan is None:
            alpha = self.edge_updater(
                call.edge_index,
                table=table,
                query=query,
                relation=relation,
                query_index=call.query_index,
                edge_type=call.edge_type,
                features=call.edge_attr,
                size=call.size,
            ).to(call.x.dtype)

        # Sum and fusion.
        if call.plan is None:
            out = self.propagate(call.edge_index, x=call.x, alpha=alpha, size=call.size)
            out = out.view(call.num_targets, self.heads, call.x.size(1))
        else:  # And the attention: one operation, which makes no messages.
            out = self._aggregate_on(call.plan, call, query, relation, table)
        if self.degree_power != 0.0:
            # In single precision at least: half precision cannot hold large counts, nor their powers.
            count = count_edges(self, call).clamp(min=1).to(torch.promote_types(out.dtype, torch.float32))
            out = (out * count.pow(self.degree_power).view(-1, 1, 1)).to(out.dtype)
        out = self.fusion(call.x_target, out)
        out = out.flatten(1) if self.concat else out.mean(dim=1)

        return (out, with_attention(call.edge_index, alpha)) if return_attention_weights else out

    def _scores(self, call: Call) -> tuple[OptTensor, OptTensor, OptTensor]:
        """The queries, the relations and the score of every two before the activation, ``[B, R, H]``; without
        the scores where these are more than the queries of all edges hold.
        """
        query, relation = call.query, call.relation
        if not self.is_scored:  # All edges weigh the same.
            table = call.x.new_zeros(1, 1, self.heads)
            for given in (query, relation):
                if given is not None:  # Its gradient is zero, and not None: DDP waits for it.
                    table = table + given.flatten()[:0].sum()
            return None, None, table
        if call.x_target is not None and hasattr(self.lin_query, "_hook"):
            # Lazy and maybe not called this time: no parameter stays without a shape after the first call.
            self.lin_query.initialize_parameters(self.lin_query, (call.x_target,))
        if query is None and self.heads == 1 and self.lin_edge is None:
            query, relation = scores.project(self.lin_query, call.x_target, relation, self.query_channels)
        elif query is None:
            query = apply_map("x[1]", self.lin_query, call.x_target)
        num_scores = query.size(0) * self.num_relations * self.heads
        # No compiled program depends on a comparison of sizes.
        if torch.compiler.is_compiling() or num_scores <= call.num_edges * query.size(1):
            return query, relation, scores.every_product(query, relation, self.heads)
        return query, relation, None

    def _activate(self, score: Tensor) -> Tensor:
        score = scores.activate(score, self.score_activation)
        scores.check_scores(self, score)
        return score

    def _aggregate_on(
        self, plan: RelationCSR, call: Call, query: OptTensor, relation: OptTensor, table: OptTensor
    ) -> Tensor:
        """Softmax and sum without messages, ``[N_dst, H, F]``."""
        query_index = call.query_index
        if table is None:
            table, plan = scores.products_on(plan, query, query_index, relation, self.heads)
            query_index = None
        tables = self._activate(table).permute(2, 0, 1)
        dropout = self.dropout if self.training else 0.0
        return aggregate_unchecked(call.x, tables, plan, query_index, call.backend, dropout)

    def edge_update(
        self,
        table: OptTensor,
        query: OptTensor,
        relation: OptTensor,
        query_index: OptTensor,
        edge_type: Tensor,
        features: OptTensor,
        index: Tensor,
        ptr: OptTensor,
        dim_size: Optional[int],
    ) -> Tensor:
        row = None if query_index is None else query_index.index_select(0, index)
        if table is None:
            score = scores.products(scores.lift(query, row), scores.lift(relation, edge_type), self.heads)
        else:
            cell = edge_type if row is None else row * self.num_relations + edge_type
            score = scores.lift(table.flatten(0, 1), cell)
        if features is not None:
            score = score + scores.feature_products(query, row, self.lin_edge, features, self.heads)
        if self.is_scored:
            score = self._activate(score)
        alpha = self._ops.softmax(score, index, ptr, dim_size)
        return F.dropout(alpha, p=self.dropout, training=self.training)

    def _index_select(self, src: Tensor, index: Tensor) -> Tensor:
        return scores.lift(src, index)  # PyG's own, for `x_j`, loses digits of a hub's gradient.

    def message(self, x_j: Tensor, alpha: Tensor) -> Tensor:
        out = alpha.unsqueeze(-1) * x_j.unsqueeze(1)
        # PyG's tools expect two dimensions, all heads in a row, but where it cuts up the last one.
        return out.flatten(1) if self.decomposed_layers == 1 else out

    def aggregate(
        self, inputs: Tensor, index: Tensor, ptr: OptTensor = None, dim_size: Optional[int] = None
    ) -> Tensor:
        return self._ops.sum(inputs, index, ptr, dim_size)

    def relation_scores(self, query: Tensor, relation: OptTensor = None) -> Tensor:
        r"""The score of each query :math:`(B, D)` and relation, as the softmax meets it where edges have no
        features, :math:`(B, R, H)`; :obj:`relation` is that of :meth:`forward`.
        """
        query, relation = read_query(self, query, relation)
        if not self.is_scored:
            return query.new_zeros(query.size(0), self.num_relations, self.heads)
        return self._activate(scores.every_product(query, relation, self.heads))

    def __repr__(self) -> str:
        heads = f", heads={self.heads}" if self.heads > 1 else ""
        return (
            f"{self.__class__.__name__}({self.in_channels}, {self.out_channels}, "
            f"num_relations={self.num_relations}{heads})"
        )
