"""`GatedAggregationConv`: relation-aware softmax attention, then a gate of a node and its neighbourhood."""

import math

# PyG's code templates read the annotations, and cannot read `int | None`.
from typing import Any, ClassVar, Literal, Optional, overload

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn import Parameter
from torch_geometric import EdgeIndex
from torch_geometric.nn.conv import MessagePassing
from torch_geometric.nn.dense.linear import Linear
from torch_geometric.nn.inits import glorot, reset
from torch_geometric.typing import Adj, OptPairTensor, OptTensor, Size, SparseTensor
from torch_geometric.utils import degree, is_sparse, is_torch_sparse_tensor, to_edge_index
from torch_geometric.utils.sparse import set_sparse_value

from mgwa_pyg.checks import (
    check_choice,
    check_count,
    check_edges,
    check_finite,
    check_no_nan,
    check_probability,
    check_range,
    check_same_type,
    form,
    is_float,
    is_integer,
    values_are_checked,
)
from mgwa_pyg.nn.fusion import FUSIONS, apply_map, check_map, is_plain
from mgwa_pyg.ops import (
    SEGMENT_OPS,
    RelationCSR,
    choose_backend,
    relation_softmax_aggregate,
    segment_ops,
)

_ACTIVATIONS = {
    "sigmoid": torch.sigmoid,
    "leaky_relu": lambda score: F.leaky_relu(score, 0.2),
    "tanh": torch.tanh,
    None: lambda score: score,
}


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
          edge indices :math:`(2, |\mathcal{E}|)` or a :class:`~mgwa_pyg.ops.RelationCSR`,
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

    # The arguments' types, for PyG's code templates.
    edge_updater_type: ClassVar[dict[str, Any]] = {
        "table": OptTensor,
        "query": OptTensor,
        "relation": OptTensor,
        "query_index": OptTensor,
        "edge_type": OptTensor,
        "features": OptTensor,
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
        for name, only in (("aggr", ("add", "sum")), ("aggr_kwargs", (None, {})), ("node_dim", (0,))):
            if (given := kwargs.pop(name, only[0])) not in only:
                raise ValueError(
                    f"{name}={given!r:.60}: the layer is a sum over the first dimension, weighted by a "
                    f"softmax, so it takes {name}={only[0]!r} alone"
                )
        super().__init__("add", node_dim=0, **kwargs)

        out_channels = check_count("out_channels", out_channels)
        num_relations = check_count("num_relations", num_relations)
        heads = check_count("heads", heads)
        if query_channels is None:
            query_channels = heads * out_channels
        query_channels = check_count("query_channels", query_channels)
        if query_channels % heads != 0:
            raise ValueError(
                f"query_channels={query_channels} cannot be shared out to heads={heads}: it must be a "
                f"multiple of heads"
            )
        if edge_dim is not None:
            edge_dim = check_count("edge_dim", edge_dim)
        widths = in_channels if isinstance(in_channels, (tuple, list)) else (in_channels, in_channels)
        if len(widths) != 2:
            raise ValueError(
                f"in_channels={in_channels}: one size is needed, or one of sources and of targets"
            )
        in_neighbor, in_self = (check_count("in_channels", width, -1) for width in widths)
        if 0 in (in_neighbor, in_self):
            raise ValueError(
                f"in_channels={in_channels}: at least one channel is needed, or -1 to derive them"
            )
        check_choice("score_activation", score_activation, _ACTIVATIONS)
        check_choice("fusion", fusion, FUSIONS)
        check_probability("dropout", dropout)
        if not isinstance(degree_power, (int, float)) or not math.isfinite(degree_power):
            raise ValueError(f"degree_power={degree_power!r:.60}: a finite number is needed")

        self.in_channels = in_channels
        self.out_channels = out_channels
        self.num_relations = num_relations
        self.query_channels = query_channels
        self.heads = heads
        self.concat = concat
        self.score_activation = score_activation
        self.edge_dim = edge_dim
        self.dropout = dropout
        self.backend = backend
        self.degree_power = degree_power
        self._ops = segment_ops(backend)

        # Without anything that tells two edges apart, all scores of a node are equal.
        self._scored = num_relations > 1 or edge_dim is not None
        if self._scored:
            self.lin_query = Linear(in_self, query_channels, bias=False, weight_initializer="glorot")
            self.relation = Parameter(torch.empty(num_relations, query_channels))
        else:
            self.register_module("lin_query", None)
            self.register_parameter("relation", None)
        if edge_dim is not None:
            self.lin_edge = Linear(edge_dim, query_channels, bias=False, weight_initializer="glorot")
        else:
            self.register_module("lin_edge", None)
        self.fusion = FUSIONS[fusion](in_self, in_neighbor, out_channels, heads, bias)

        self.reset_parameters()

    def reset_parameters(self) -> None:
        r"""Resets all learnable parameters of the module."""
        super().reset_parameters()
        for module in (self.lin_query, self.lin_edge, self.fusion):
            reset(module)
        glorot(self.relation)

    @overload
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
        return_attention_weights: Literal[False] | None = None,
    ) -> Tensor: ...

    @overload
    def forward(
        self,
        x: Tensor | OptPairTensor,
        edge_index: Tensor | RelationCSR,
        edge_type: OptTensor = None,
        edge_attr: OptTensor = None,
        query: OptTensor | tuple[OptTensor, OptTensor] = None,
        query_index: OptTensor | tuple[OptTensor, OptTensor] = None,
        relation: OptTensor = None,
        size: Size = None,
        *,
        return_attention_weights: Literal[True],
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]: ...

    @overload
    def forward(
        self,
        x: Tensor | OptPairTensor,
        edge_index: SparseTensor,
        edge_type: OptTensor = None,
        edge_attr: OptTensor = None,
        query: OptTensor | tuple[OptTensor, OptTensor] = None,
        query_index: OptTensor | tuple[OptTensor, OptTensor] = None,
        relation: OptTensor = None,
        size: Size = None,
        *,
        return_attention_weights: Literal[True],
    ) -> tuple[Tensor, SparseTensor]: ...

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
                values are the edge types; such a layout holds one edge per pair of nodes at most. A
                :class:`~mgwa_pyg.ops.RelationCSR` holds edges, types and sizes, and spares every call the
                sorting; its edges lead from source to target whatever the flow.
            edge_type (torch.Tensor, optional): The relation of each edge, a whole number in
                :math:`[0, R)`. Can be left out if there is only one, or :obj:`edge_index` holds them.
                (default: :obj:`None`)
            edge_attr (torch.Tensor, optional): The edge features. If the layer was made without
                :obj:`edge_dim`, a vector of whole numbers counts as :obj:`edge_type`, for models that pass
                on :obj:`edge_attr` only. (default: :obj:`None`)
            query (torch.Tensor or (torch.Tensor, torch.Tensor), optional): The queries: one for all
                targets, one for each target, or :math:`B` of which :obj:`query_index` picks one for
                each target; of a pair the target's part counts. If :obj:`None`, a learned projection of
                the target's features. (default: :obj:`None`)
            query_index (torch.Tensor or (torch.Tensor, torch.Tensor), optional): The row of :obj:`query`
                that each target uses, :math:`(|\mathcal{V_t}|)`; of a pair the target's part counts.
                (default: :obj:`None`)
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
        if self.edge_dim is None and edge_type is None and is_integer(edge_attr):
            edge_type, edge_attr = edge_attr, None
        elif self.edge_dim is not None and isinstance(edge_attr, Tensor) and edge_attr.dim() == 1:
            edge_attr = edge_attr.unsqueeze(1)
        if (
            isinstance(edge_index, Tensor)
            and edge_index.layout == torch.sparse_coo
            and edge_index.is_coalesced()
        ):
            # PyG marks an adjacency as changed whenever it reads it, and autograd keeps parts of it.
            edge_index = torch.sparse_coo_tensor(
                edge_index.indices(),
                edge_index.values(),
                edge_index.shape,
                is_coalesced=True,
                check_invariants=False,
            )
        x_source, x_target = _pair(x)
        if not is_float(x_source) or x_source.dim() != 2:
            raise ValueError(
                f"x must be a matrix of floating-point features or a pair of them, static graphs are not "
                f"supported, but the source's part {form(x_source)}"
            )
        if x_target is not None and (not is_float(x_target) or x_target.dim() != 2):
            raise ValueError(f"x[1] {form(x_target)}, but a matrix of floating-point features is needed")
        query, query_index = _pair(query)[1], _pair(query_index)[1]
        if x_target is None and (self.fusion.uses_self or (self._scored and query is None)):
            raise ValueError(
                "x[1] is None, but the fusion or the query needs features of the target nodes: pass a pair "
                "of two tensors"
            )
        if (edge_attr is None) != (self.edge_dim is None):
            raise ValueError(
                f"edge_attr {form(edge_attr)}, but the layer was made with edge_dim={self.edge_dim}: both or "
                f"neither are needed (edge_attr can stand for edge_type, if it is a vector of whole numbers "
                f"and edge_type is None)"
            )
        by_edge = return_attention_weights or self._looks_at_edges()
        target = 1 if self.flow == "source_to_target" else 0  # The row of `edge_index`.
        plan = edge_index if isinstance(edge_index, RelationCSR) else None
        if size is not None and (not isinstance(size, (tuple, list)) or len(size) != 2):
            raise ValueError(f"size={size}: two numbers of nodes are needed")
        if plan is not None:
            size = self._check_plan(plan, edge_type, size)
            if by_edge:
                edge_index, edge_type = plan.to_edge_index()
                edge_index = edge_index if target == 1 else edge_index.flip(0)
                plan = None
        if x_target is not None:
            num_targets = x_target.size(0)
        elif (known := _size(edge_index) if size is None else size) is not None and known[target] is not None:
            size, num_targets = known, known[target]
        else:
            raise ValueError("the number of target nodes is unknown: pass size=(N_src, N_dst)")
        nodes = (x_source.size(0), num_targets) if target == 1 else (num_targets, x_source.size(0))
        if plan is not None and size != nodes:
            raise ValueError(
                f"edge_index is a RelationCSR of size {plan.size}, but x or size is of {nodes} nodes"
            )
        if size is not None and any(
            given not in (None, found) for given, found in zip(size, nodes, strict=True)
        ):
            raise ValueError(f"size={tuple(size)}, but x is of {nodes} nodes")
        size = nodes

        if plan is None:
            edge_type = self._edge_types(edge_index, edge_type, edge_attr, size)
        for name, value in (
            ("x", x_source),
            ("x[1]", x_target),
            ("edge_index", edge_index),
            ("edge_type", edge_type),
            ("edge_attr", edge_attr),
            ("query", query),
            ("query_index", query_index),
            ("relation", relation),
        ):
            if isinstance(value, Tensor) and value.device != x_source.device:
                raise ValueError(f"{name} is on {value.device}, but x on {x_source.device}")
            if isinstance(value, Tensor) and value.layout != torch.strided and value is not edge_index:
                raise ValueError(f"{name} is {value.layout}, but a dense tensor is needed: {name}.to_dense()")
        query, relation = self._vectors(x_target, query, query_index, relation, num_targets)
        if values_are_checked(x_source.device):
            check_no_nan("x", x_source)
            if x_target is not x_source:
                check_no_nan("x[1]", x_target)
            check_no_nan("edge_attr", edge_attr)
            check_range("edge_type", edge_type, self.num_relations, "num_relations")
            if query is not None:
                check_range("query_index", query_index, query.size(0), "the rows of query")
            if not isinstance(edge_index, RelationCSR) and not is_sparse(edge_index):
                for row in (0, 1):
                    check_range(f"edge_index[{row}]", edge_index[row], size[row], f"size[{row}]")

        table: OptTensor = None
        if not self._scored:  # All edges weigh the same.
            query_index = None
            table = x_source.new_zeros(1, 1, self.heads)
            for given in (query, relation):
                if given is not None:  # Its gradient is zero, and not None: DDP waits for it.
                    table = table + given.flatten()[:0].sum()
        else:
            assert query is not None
            assert relation is not None
            if self._table_is_less(query, edge_type if plan is None else plan.rel):
                table = self._score_table(query, relation)
        if plan is None and not by_edge:
            plan = self._order(edge_index, edge_type, size, x_source)
        if plan is not None:
            out = self._aggregate_relations(x_source, table, query, relation, query_index, plan)
        else:
            if (
                not is_sparse(edge_index)
                and isinstance(edge_index, Tensor)
                and edge_index.dtype != torch.long
            ):
                edge_index = edge_index.long()
            alpha = self.edge_updater(
                edge_index,
                table=table,
                query=query,
                relation=relation,
                query_index=None if query_index is None else query_index.long(),
                edge_type=None if edge_type is None else edge_type.long(),
                features=edge_attr,
                size=size,
            )
            alpha = alpha.to(x_source.dtype)
            out = self.propagate(edge_index, x=x_source, alpha=alpha, size=size)
            out = out.view(num_targets, self.heads, x_source.size(1))

        if self.degree_power != 0.0:
            count = self._count_edges(edge_index if plan is None else plan, target, num_targets)
            # In single precision at least: half precision cannot hold large counts, nor their powers.
            count = count.clamp(min=1).to(torch.promote_types(out.dtype, torch.float32))
            out = (out * count.pow(self.degree_power).view(-1, 1, 1)).to(out.dtype)
        out = self.fusion(x_target, out)
        out = out.flatten(1) if self.concat else out.mean(dim=1)

        if return_attention_weights:
            if isinstance(edge_index, SparseTensor):
                return out, edge_index.set_value(alpha, layout="coo")
            if is_torch_sparse_tensor(edge_index):
                return out, (set_sparse_value(edge_index, alpha), alpha)
            return out, (edge_index, alpha)
        return out

    @staticmethod
    def _count_edges(edge_index: Adj | RelationCSR, target: int, num_targets: int) -> Tensor:
        """The number of edges into each target."""
        if isinstance(edge_index, RelationCSR):
            return edge_index.rowptr.diff()
        if is_torch_sparse_tensor(edge_index) and edge_index.layout == torch.sparse_coo:
            return degree(edge_index.indices()[0], num_targets, dtype=torch.long)
        if is_sparse(edge_index):
            edge_index, target = to_edge_index(edge_index)[0], 0
        return degree(edge_index[target], num_targets, dtype=torch.long)

    def _looks_at_edges(self) -> bool:
        """Whether somebody wants to see or change what lies on the edges, so that it has to be made."""
        if self.edge_dim is not None or self.explain:
            return True
        if any(getattr(type(self), name) is not method for name, method in _METHODS.items()):
            return True
        return any(getattr(self, name) for name in _HOOKS)

    def _check_plan(self, plan: RelationCSR, edge_type: OptTensor, size: Size) -> tuple[int, int]:
        """Return the size that a given plan stands for, in the layer's direction."""
        own_size = plan.size if self.flow == "source_to_target" else plan.size[::-1]
        if edge_type is not None:
            raise ValueError("edge_type is given, but edge_index is a RelationCSR, which holds the types")
        if plan.num_relations != self.num_relations:
            raise ValueError(
                f"edge_index is a RelationCSR of {plan.num_relations} relations, but the layer was made with "
                f"num_relations={self.num_relations}"
            )
        if size is not None and tuple(size) != own_size:
            raise ValueError(f"size={tuple(size)}, but edge_index is a RelationCSR of size {own_size}")
        return own_size

    def _order(self, edge_index: Adj, edge_type: OptTensor, size: Size, x: Tensor) -> RelationCSR | None:
        """The plan of the edges; None where making it and using it is not worth the time."""
        if not is_sparse(edge_index):
            if self.flow == "target_to_source":
                edge_index, size = edge_index.flip(0), size[::-1]
        elif self.flow == "source_to_target":
            size = edge_index.size(1), edge_index.size(0)
            edge_index = to_edge_index(edge_index)[0].flip(0)
        else:
            return None  # PyG says what to do instead.
        num_elements = edge_index.size(1) * self.heads * x.size(1)
        if choose_backend(self.backend, x.device, num_elements, ordered=False) in SEGMENT_OPS:
            return None
        return RelationCSR.from_edge_index(edge_index, edge_type, self.num_relations, size)

    def _aggregate_relations(
        self,
        x: Tensor,
        table: OptTensor,
        query: OptTensor,
        relation: OptTensor,
        query_index: OptTensor,
        plan: RelationCSR,
    ) -> Tensor:
        """Softmax and sum without messages, ``[N_dst, H, F]``."""
        if table is None:  # One query, and a relation for each pair of the two that occurs.
            assert query is not None
            assert relation is not None
            row = query_index if query_index is not None else torch.arange(query.size(0), device=x.device)
            row = row.long().expand(plan.size[1]).index_select(0, plan.dst)
            pair, column = torch.unique_consecutive(row * self.num_relations + plan.rel, return_inverse=True)
            table = self._products(
                query.index_select(0, pair // self.num_relations),
                relation.index_select(0, pair % self.num_relations),
            ).unsqueeze(0)
            plan = plan.with_relations(column, pair.size(0))
            query_index = None
        elif query_index is None and table.size(0) != 1:
            query_index = torch.arange(plan.size[1], device=x.device)
        return relation_softmax_aggregate(
            x,
            self._activate(table).permute(2, 0, 1),
            plan,
            query_index,
            self.backend,
            self.dropout if self.training else 0.0,
        )

    def edge_update(
        self,
        table: OptTensor,
        query: OptTensor,
        relation: OptTensor,
        query_index: OptTensor,
        edge_type: OptTensor,
        features: OptTensor,
        index: Tensor,
        ptr: OptTensor,
        dim_size: Optional[int],
    ) -> Tensor:
        # With one relation, PyG puts the values of a sparse matrix here, which may be anything.
        if edge_type is None or self.num_relations == 1:
            edge_type = torch.zeros_like(index)
        row = index if query_index is None else query_index[index]

        def lift(rows: Tensor) -> Tensor:  # To edges, unless there is one row for all.
            return rows if query_index is None and rows.size(0) == 1 else rows.index_select(0, row)

        if table is not None:
            is_one = table.size(0) == 1 and query_index is None
            cell = edge_type if is_one else row * self.num_relations + edge_type
            score = table.flatten(0, 1).index_select(0, cell)
        else:
            assert query is not None
            assert relation is not None
            score = self._products(lift(query), relation.index_select(0, edge_type))
        if features is not None:
            assert query is not None
            if is_plain(self.lin_edge):  # The features as queries meet them have fewer elements.
                check_same_type("query", query, "the layer's weight", self.lin_edge.weight)
                weight = self.lin_edge.weight.unflatten(0, (self.heads, -1))
                own = torch.einsum("bhd,hdf->bhf", query.unflatten(1, (self.heads, -1)), weight)
                score = score + (lift(own) * features.unsqueeze(1)).sum(dim=-1)
            else:
                key = apply_map("edge_attr", self.lin_edge, features.to(query.dtype))
                score = score + self._products(lift(query), key)
        if query is not None:
            score = self._activate(score)
        alpha = self._ops.softmax(score, index, ptr, dim_size)
        if self.dropout > 0.0:
            alpha = F.dropout(alpha, p=self.dropout, training=self.training)
        return alpha

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
        vectors = self._vectors(None, query, None, relation, query.size(0))
        if not self._scored:
            return query.new_zeros(query.size(0), self.num_relations, self.heads)
        return self._activate(self._score_table(*vectors))

    def _vectors(
        self,
        x_target: OptTensor,
        query: OptTensor,
        query_index: OptTensor,
        relation: OptTensor,
        num_targets: int,
    ) -> tuple[OptTensor, OptTensor]:
        """The queries and the relations, whose products are the scores."""
        self._check_query(query, query_index, relation, num_targets)
        query = query.unsqueeze(0) if query is not None and query.dim() == 1 else query
        if not self._scored:
            return query, relation
        if x_target is not None and hasattr(self.lin_query, "_hook"):
            # Lazy and maybe not called this time: no parameter stays without a shape after the first call.
            self.lin_query.initialize_parameters(self.lin_query, (x_target,))
        relation = self.relation if relation is None else relation
        if relation is None:
            raise ValueError("relation is None, but this layer has no vectors of its own: pass relation")
        if query is None:
            if self.lin_query is None:
                raise ValueError("this layer has no projection of its own: pass query")
            assert x_target is not None
            F_in, D, R = x_target.size(1), self.query_channels, self.num_relations
            if (
                self.heads == 1
                and self.lin_edge is None
                and F_in * R <= (F_in + R) * D
                and is_plain(self.lin_query)
            ):
                # One product by node in place of two, unless relations are many and queries short.
                check_map("x[1]", self.lin_query, x_target)
                check_same_type("relation", relation, "the layer's weight", self.lin_query.weight)
                query, relation = x_target, relation @ self.lin_query.weight
            else:
                query = apply_map("x[1]", self.lin_query, x_target)
        if query_index is None and query.size(0) not in (1, num_targets):
            raise ValueError(
                f"query has {query.size(0)} rows, but there are {num_targets} target nodes: pass one "
                f"row, one for each target, or query_index to say which row each target uses"
            )
        check_same_type("query", query, "relation", relation)
        return query, relation

    def _table_is_less(self, query: Tensor, edge_type: OptTensor) -> bool:
        """Whether all queries and relations have no more scores than the queries of all edges elements."""
        if edge_type is None or torch.compiler.is_compiling():  # No program depends on a comparison of sizes.
            return True
        return query.size(0) * self.num_relations * self.heads <= edge_type.size(0) * query.size(1)

    def _score_table(self, query: Tensor, relation: Tensor) -> Tensor:
        """The product of every query and relation, ``[B, R, H]``."""
        if self.heads == 1:
            return (query @ relation.t()).unsqueeze(-1)
        query, relation = (vectors.unflatten(1, (self.heads, -1)) for vectors in (query, relation))
        return torch.einsum("bhd,rhd->brh", query, relation)

    def _products(self, query: Tensor, key: Tensor) -> Tensor:
        """The product of each query and what stands beside it, ``[E, H]``."""
        dtype = torch.promote_types(query.dtype, torch.float32)
        return (query * key).unflatten(1, (self.heads, -1)).sum(dim=-1, dtype=dtype)

    def _activate(self, score: Tensor) -> Tensor:
        if score.dtype in (torch.float16, torch.bfloat16):
            score = score.float()  # Softmax in half precision loses too much.
        score = _ACTIVATIONS[self.score_activation](score)
        if values_are_checked(score.device):
            others = "relation" if self.edge_dim is None else "relation or edge_attr"
            check_finite(f"the product of query and {others}", score)
        return score

    def _check_query(
        self, query: OptTensor, query_index: OptTensor, relation: OptTensor, num_targets: int
    ) -> None:
        """Check the shapes and types of what scores are made from."""
        D = self.query_channels
        if query_index is not None and query is None:
            raise ValueError("query_index picks rows of query, but query is None")
        if query is not None and (not is_float(query) or query.dim() not in (1, 2) or query.size(-1) != D):
            raise ValueError(
                f"query {form(query)}, but floating-point numbers whose last dimension is "
                f"query_channels={D} are needed"
            )
        if query_index is not None and (not is_integer(query_index) or query_index.shape != (num_targets,)):
            raise ValueError(
                f"query_index {form(query_index)}, but one row of query, a whole number, is to be picked for "
                f"each of {num_targets} target nodes"
            )
        if relation is not None and (not is_float(relation) or relation.shape != (self.num_relations, D)):
            raise ValueError(
                f"relation {form(relation)}, but floating-point numbers of shape (num_relations, "
                f"query_channels)={(self.num_relations, D)} are needed"
            )

    def _edge_types(
        self, edge_index: Adj, edge_type: OptTensor, edge_attr: OptTensor, size: tuple[int, int]
    ) -> OptTensor:
        """Return the type of each edge after checking the shapes of all that is said edge by edge."""
        if isinstance(edge_index, SparseTensor):
            num_edges, values = edge_index.nnz(), edge_index.storage.value()
        elif isinstance(edge_index, Tensor) and is_torch_sparse_tensor(edge_index):
            if edge_index.layout == torch.sparse_coo and not edge_index.is_coalesced():
                raise ValueError(
                    f"edge_index is a sparse tensor of shape {tuple(edge_index.shape)} that is not coalesced"
                )
            values = edge_index.values()
            num_edges = values.size(0)
        else:
            check_edges("edge_index", edge_index)
            num_edges, values = edge_index.size(1), None
        if is_sparse(edge_index):
            shape = edge_index.size(0), edge_index.size(1)
            if shape != (size[::-1] if self.flow == "source_to_target" else size):
                raise ValueError(f"edge_index has shape {shape}, but x is of {size} nodes")

        if edge_type is None and self.num_relations > 1:
            edge_type = values
            if edge_type is None:
                raise ValueError(
                    f"edge_type is None, but the layer was made with num_relations={self.num_relations}"
                )
        if edge_type is not None and (not is_integer(edge_type) or edge_type.shape != (num_edges,)):
            raise ValueError(
                f"edge_type {form(edge_type)}, but one whole number for each of {num_edges} edges is needed"
            )
        if edge_attr is not None and (
            not isinstance(edge_attr, Tensor)
            or edge_attr.is_complex()
            or edge_attr.shape != (num_edges, self.edge_dim)
        ):
            raise ValueError(
                f"edge_attr {form(edge_attr)}, but real numbers of shape (num_edges, edge_dim)="
                f"{(num_edges, self.edge_dim)} are needed"
            )
        return edge_type

    def __repr__(self) -> str:
        heads = f", heads={self.heads}" if self.heads > 1 else ""
        return (
            f"{self.__class__.__name__}({self.in_channels}, {self.out_channels}, "
            f"num_relations={self.num_relations}{heads})"
        )


def _pair(value: Any) -> tuple[Any, Any]:
    """What is given for sources and for targets, or once for both."""
    return (value[0], value[1]) if isinstance(value, (tuple, list)) and len(value) == 2 else (value, value)


def _size(edge_index: Adj) -> tuple[int | None, int | None] | None:
    """The numbers of nodes that the rows of edges lead from and to, as far as these know them."""
    if isinstance(edge_index, EdgeIndex):
        return edge_index.sparse_size()
    return (edge_index.size(1), edge_index.size(0)) if is_sparse(edge_index) else None


# What a subclass may have replaced, and where hooks are kept, that messages or attention pass through.
_METHODS = {
    name: getattr(GatedAggregationConv, name)
    for name in ("edge_update", "message", "aggregate", "update", "message_and_aggregate")
}
_HOOKS = [
    f"_{method}_forward_{when}"
    for method in ("propagate", "message", "aggregate", "message_and_aggregate", "edge_update")
    for when in ("pre_hooks", "hooks")
]
