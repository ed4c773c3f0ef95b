"""`GatedAggregationConv`: relation-aware softmax attention, then a gate of a node and its neighbourhood."""

import math

# PyG's code templates read the annotations, and cannot read `int | None`.
from typing import Any, ClassVar, Literal, Optional, overload

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn import Parameter
from torch_geometric.nn.conv import MessagePassing
from torch_geometric.nn.dense.linear import Linear
from torch_geometric.nn.inits import glorot
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
from mgwa_pyg.nn.fusion import FUSIONS, check_map
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
    r"""The gated aggregation operator of MGWA, a multi-layer gated recommender over knowledge graphs.

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

    The scores depend on the query and the relation alone, hence they are computed once per pair of those
    and never lifted to edges as vectors.

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
        "query_index": OptTensor,
        "edge_type": OptTensor,
        "edge_query": OptTensor,
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
        kwargs.setdefault("aggr", "add")
        super().__init__(node_dim=0, **kwargs)

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
            if module is not None:
                module.reset_parameters()
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
        elif size is not None and size[target] is not None:
            num_targets = size[target]
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
        table, edge_query, query_index = self._score_table(
            x_target, query, query_index, relation, num_targets
        )
        if values_are_checked(x_source.device):
            check_no_nan("x", x_source)
            if x_target is not x_source:
                check_no_nan("x[1]", x_target)
            check_no_nan("edge_attr", edge_attr)
            check_finite("the product of query and relation", table)
            check_range("edge_type", edge_type, self.num_relations, "num_relations")
            if table is not None:
                check_range("query_index", query_index, table.size(0), "the rows of query")
            if not isinstance(edge_index, RelationCSR) and not is_sparse(edge_index):
                for row in (0, 1):
                    check_range(f"edge_index[{row}]", edge_index[row], size[row], f"size[{row}]")

        if table is None:  # All edges weigh the same.
            table = x_source.new_zeros(1, self.num_relations, self.heads)
        if plan is None and not by_edge:
            plan = self._order(edge_index, edge_type, size, x_source)
        if plan is not None:
            out = self._aggregate_relations(x_source, table, query_index, plan, num_targets)
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
                query_index=None if query_index is None else query_index.long(),
                edge_type=None if edge_type is None else edge_type.long(),
                edge_query=edge_query,
                features=edge_attr,
                size=size,
            )
            alpha = alpha.to(x_source.dtype)
            out = self.propagate(edge_index, x=x_source, alpha=alpha, size=size)

        if self.degree_power != 0.0:
            count = self._count_edges(edge_index if plan is None else plan, target, num_targets)
            # In single precision at least: half precision cannot hold large counts.
            count = count.clamp(min=1).to(torch.promote_types(out.dtype, torch.float32))
            out = out * count.pow(self.degree_power).to(out.dtype).view(-1, 1, 1)
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
        self, x: Tensor, table: Tensor, query_index: OptTensor, plan: RelationCSR, num_targets: int
    ) -> Tensor:
        """Softmax and sum without messages, ``[N_dst, H, F]``."""
        if query_index is None and table.size(0) != 1:
            query_index = torch.arange(num_targets, device=x.device)
        return relation_softmax_aggregate(
            x,
            table.permute(2, 0, 1),
            plan,
            query_index,
            self.backend,
            self.dropout if self.training else 0.0,
        )

    def edge_update(
        self,
        table: Tensor,
        query_index: OptTensor,
        edge_type: OptTensor,
        edge_query: OptTensor,
        features: OptTensor,
        index: Tensor,
        ptr: OptTensor,
        dim_size: Optional[int],
    ) -> Tensor:
        row: OptTensor = None  # The row of `table` that an edge's score lies in; None: the only one.
        if table.size(0) > 1 or query_index is not None:
            row = index if query_index is None else query_index[index]
        # With one relation, PyG puts the values of a sparse matrix here, which may be anything.
        cell = torch.zeros_like(index) if edge_type is None or self.num_relations == 1 else edge_type
        if row is not None:
            cell = row * self.num_relations + cell
        score = table.flatten(0, 1).index_select(0, cell)
        if edge_query is not None and features is not None:
            lifted = edge_query if row is None else edge_query.index_select(0, row)
            score = score + (lifted * features.unsqueeze(1)).sum(dim=-1)
            score = _ACTIVATIONS[self.score_activation](score)
            if values_are_checked(score.device):
                check_finite("the product of query and edge_attr", score)
        alpha = self._ops.softmax(score, index, ptr, dim_size)
        if self.dropout > 0.0:
            alpha = F.dropout(alpha, p=self.dropout, training=self.training)
        return alpha

    def message(self, x_j: Tensor, alpha: Tensor) -> Tensor:
        return alpha.unsqueeze(-1) * x_j.unsqueeze(1)

    def aggregate(
        self, inputs: Tensor, index: Tensor, ptr: OptTensor = None, dim_size: Optional[int] = None
    ) -> Tensor:
        return self._ops.sum(inputs, index, ptr, dim_size)

    def relation_scores(self, query: Tensor, relation: OptTensor = None) -> Tensor:
        r"""The score of each query :math:`(B, D)` and relation, as the softmax meets it where edges have no
        features, :math:`(B, R, H)`; :obj:`relation` is that of :meth:`forward`.
        """
        table, _, _ = self._score_table(None, query, None, relation, query.size(0))
        return query.new_zeros(query.size(0), self.num_relations, self.heads) if table is None else table

    def _score_table(
        self,
        x_target: OptTensor,
        query: OptTensor,
        query_index: OptTensor,
        relation: OptTensor,
        num_targets: int,
    ) -> tuple[OptTensor, OptTensor, OptTensor]:
        """Score every query against every relation.

        Returns the scores ``[B, R, H]``, activated unless edge features are still to be added to them;
        the queries as edge features meet them ``[B, H, F_e]``; and the row that each target uses, or
        None if there is one row for all or one for each.
        """
        self._check_query(query, query_index, relation, num_targets)
        if not self._scored:
            return None, None, None

        D = self.query_channels
        if x_target is not None and hasattr(self.lin_query, "_hook"):
            # Lazy and maybe not called this time: no parameter stays without a shape after the first call.
            self.lin_query.initialize_parameters(self.lin_query, (x_target,))
        project_relations = False
        if query is None:
            if self.lin_query is None:
                raise ValueError("this layer has no projection of its own: pass query")
            assert x_target is not None
            if self.heads == 1 and self.lin_edge is None:
                # One product by node in place of two, unless relations are many and queries short.
                F_in, R = x_target.size(1), self.num_relations
                project_relations = F_in * R <= (F_in + R) * D
            check_map("x[1]", self.lin_query, x_target)
            query = x_target if project_relations else self.lin_query(x_target)
        query = query.unsqueeze(0) if query.dim() == 1 else query
        if query_index is None and query.size(0) not in (1, num_targets):
            raise ValueError(
                f"query has {query.size(0)} rows, but there are {num_targets} target nodes: pass one "
                f"row, one for each target, or query_index to say which row each target uses"
            )

        relation = self.relation if relation is None else relation
        if relation is None:
            raise ValueError("relation is None, but this layer has no vectors of its own: pass relation")
        if project_relations:
            check_same_type("relation", relation, "the layer's weight", self.lin_query.weight)
            relation = relation @ self.lin_query.weight
        check_same_type("query", query, "relation", relation)
        if self.heads == 1:
            table = (query @ relation.t()).unsqueeze(-1)
        else:
            per_head = (-1, self.heads, D // self.heads)
            table = torch.einsum("bhd,rhd->brh", query.view(per_head), relation.view(per_head))
        if table.dtype in (torch.float16, torch.bfloat16):
            table = table.float()  # Softmax in half precision loses too much.
        if self.lin_edge is None:
            return _ACTIVATIONS[self.score_activation](table), None, query_index
        check_same_type("query", query, "the layer's weight", self.lin_edge.weight)
        weight = self.lin_edge.weight.view(self.heads, D // self.heads, -1)
        edge_query = torch.einsum("bhd,hdf->bhf", query.view(-1, self.heads, D // self.heads), weight)
        return table, edge_query, query_index

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
