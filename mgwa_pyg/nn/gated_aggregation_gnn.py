"""`GatedAggregationGNN`: layers of `GatedAggregationConv` behind the interface of PyG's basic models."""

from typing import Any, Final

from torch_geometric.nn.conv import MessagePassing
from torch_geometric.nn.models.basic_gnn import BasicGNN

from mgwa_pyg.nn.gated_aggregation_conv import GatedAggregationConv


class GatedAggregationGNN(BasicGNN):
    r"""A graph neural network of :class:`~mgwa_pyg.nn.GatedAggregationConv` layers, to be used wherever
    :class:`~torch_geometric.nn.models.GraphSAGE` or :class:`~torch_geometric.nn.models.GAT` is.

    PyG's basic models hand :obj:`edge_attr` on to their layers, but no :obj:`edge_type`. In a graph with
    several relations the relation of each edge is therefore passed as :obj:`edge_attr`, one whole number
    for each edge:

    .. code-block:: python

        model = GatedAggregationGNN(16, 32, num_layers=2, out_channels=7, num_relations=5)
        out = model(x, edge_index, edge_attr=edge_type)

    With :obj:`edge_dim`, :obj:`edge_attr` holds edge features as usual; the relations can then only be the
    values of a sparse adjacency. The same holds for ``inference``, which hands on neither types nor
    features.

    Args:
        in_channels (int or tuple): Size of each input sample, or :obj:`-1` to derive the size from the
            first input(s) to the forward method. A tuple corresponds to the sizes of source and target
            dimensionalities.
        hidden_channels (int): Size of each hidden sample; all heads together if they are concatenated.
        num_layers (int): Number of message passing layers.
        out_channels (int, optional): If set, the size of each output sample: of the last layer, whose
            heads are then averaged, or, with :obj:`jk`, of a linear map after it. If :obj:`None`, the
            output has :obj:`hidden_channels`. (default: :obj:`None`)
        dropout (float, optional): Dropout probability of the hidden features and, as in
            :class:`~torch_geometric.nn.models.GAT`, of the attention coefficients. (default: :obj:`0.`)
        act (str or Callable, optional): The non-linear activation function between layers.
            (default: :obj:`"relu"`)
        act_first (bool, optional): If set to :obj:`True`, activation is applied before normalization.
            (default: :obj:`False`)
        act_kwargs (Dict[str, Any], optional): Arguments of the activation function defined by
            :obj:`act`. (default: :obj:`None`)
        norm (str or Callable, optional): The normalization function to use. (default: :obj:`None`)
        norm_kwargs (Dict[str, Any], optional): Arguments of the normalization function defined by
            :obj:`norm`. (default: :obj:`None`)
        jk (str, optional): The Jumping Knowledge mode (:obj:`None`, :obj:`"last"`, :obj:`"cat"`,
            :obj:`"max"`, :obj:`"lstm"`). If set, a final linear map follows the layers.
            (default: :obj:`None`)
        **kwargs (optional): Additional arguments of :class:`~mgwa_pyg.nn.GatedAggregationConv`, such as
            :obj:`num_relations`, :obj:`heads` or :obj:`fusion`; they are those of every layer.

    Raises:
        ValueError: If heads are to be concatenated but do not divide a layer's output size.
    """

    supports_edge_weight: Final[bool] = False
    supports_edge_attr: Final[bool] = True

    def init_conv(
        self, in_channels: int | tuple[int, int], out_channels: int, **kwargs: Any
    ) -> MessagePassing:
        heads = kwargs.pop("heads", 1)
        concat = kwargs.pop("concat", True)
        # A last layer that gives the model's output need not have a multiple of heads as its size.
        if getattr(self, "_is_conv_to_out", False):
            concat = False
        if concat:
            if out_channels % heads != 0:
                raise ValueError(
                    f"{out_channels} channels cannot be shared out to heads={heads}: choose a multiple of "
                    f"heads, or concat=False"
                )
            out_channels //= heads
        return GatedAggregationConv(
            in_channels, out_channels, heads=heads, concat=concat, dropout=self.dropout.p, **kwargs
        )
