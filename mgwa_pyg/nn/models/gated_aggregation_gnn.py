"""`GatedAggregationGNN`: layers of `GatedAggregationConv` behind the interface of PyG's basic models."""

from typing import Any, Final

import torch
from torch import Tensor
from torch_geometric.data import Data
from torch_geometric.loader import NodeLoader
from torch_geometric.nn.conv import MessagePassing
from torch_geometric.nn.models.basic_gnn import BasicGNN
from torch_geometric.typing import Adj, OptTensor
from tqdm import tqdm

from mgwa_pyg.nn.conv.gated_aggregation_conv import GatedAggregationConv
from mgwa_pyg.utils.checks import form


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
    values of a sparse adjacency.

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
        act, act_first, act_kwargs, norm, norm_kwargs, jk (optional): What comes between and after the layers,
            as in :class:`~torch_geometric.nn.models.GAT`.
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

    def forward(
        self,
        x: Tensor,
        edge_index: Adj,
        edge_weight: OptTensor = None,
        edge_attr: OptTensor = None,
        batch: OptTensor = None,
        batch_size: int | None = None,
        num_sampled_nodes_per_hop: list[int] | None = None,
        num_sampled_edges_per_hop: list[int] | None = None,
    ) -> Tensor:
        r"""Runs the layers; the arguments are those of :class:`~torch_geometric.nn.models.GAT`.

        Raises:
            ValueError: If there are edge weights, or a layer rejects an argument.
        """
        if isinstance(edge_weight, Tensor):  # Not `is not None`, which is true while a program is traced.
            raise ValueError(
                f"edge_weight {form(edge_weight)}, but the layers weigh the edges by attention: with "
                f"edge_dim=1, pass them as edge_attr"
            )
        return super().forward(
            x,
            edge_index,
            edge_attr=edge_attr,
            batch=batch,
            batch_size=batch_size,
            num_sampled_nodes_per_hop=num_sampled_nodes_per_hop,
            num_sampled_edges_per_hop=num_sampled_edges_per_hop,
        )

    @torch.no_grad()
    def inference_per_layer(
        self, layer: int, x: Tensor, edge_index: Adj, batch_size: int, edge_attr: OptTensor = None
    ) -> Tensor:
        r"""Runs one layer and what follows it, for the first :obj:`batch_size` nodes; :obj:`edge_attr` is
        that of :obj:`forward`.
        """
        x = self.convs[layer](x, edge_index, edge_attr=edge_attr)[:batch_size]
        if layer == self.num_layers - 1 and self.jk_mode is None:
            return x
        if self.act is not None and self.act_first:
            x = self.act(x)
        x = self.norms[layer](x)
        if self.act is not None and not self.act_first:
            x = self.act(x)
        return self.lin(x) if layer == self.num_layers - 1 else x

    @torch.no_grad()
    def inference(
        self,
        loader: NodeLoader,
        device: str | torch.device | None = None,
        embedding_device: str | torch.device = "cpu",
        progress_bar: bool = False,
        cache: bool = False,
    ) -> Tensor:
        r"""Computes the outputs of all nodes of a large graph, layer by layer: the embeddings of one layer
        are stored before the next one starts.

        Relations are read from the :obj:`edge_type` of the data, or from its :obj:`edge_attr`, where
        features are, too.

        Args:
            loader (torch_geometric.loader.NodeLoader): A loader that goes through all nodes, in any order,
                and samples all neighbors of one hop, such as a
                :class:`~torch_geometric.loader.NeighborLoader` with :obj:`num_neighbors=[-1]`.
            device (torch.device, optional): The device to run the layers on. (default: :obj:`None`)
            embedding_device (torch.device, optional): The device to store embeddings on.
                (default: :obj:`"cpu"`)
            progress_bar (bool, optional): If set to :obj:`True`, will print a progress bar.
                (default: :obj:`False`)
            cache (bool, optional): If set to :obj:`True`, keeps the sampled edges of the first layer for
                the others. (default: :obj:`False`)

        Raises:
            ValueError: If the model is in training mode, :obj:`jk` needs the outputs of several layers, or
                the loader does not go through all nodes of a graph with features.
        """
        data = getattr(loader, "data", None)
        if not isinstance(data, Data) or data.x is None:
            raise ValueError(f"loader is of {data!r:.60}, but a loader of nodes of a Data with x is needed")
        x, num_nodes = data.x.to(embedding_device), data.num_nodes
        if self.training or self.jk_mode not in (None, "last"):
            raise ValueError(
                f"training={self.training}, jk={self.jk_mode!r}: inference layer by layer is for models "
                f"after `model.eval()`, with jk=None or 'last'"
            )

        def read(batch: Data) -> tuple[Tensor, int, Adj, OptTensor]:
            edge_index = batch.adj_t if "adj_t" in batch else batch.edge_index
            edge_attr = self._edge_attr(batch)
            edge_attr = None if edge_attr is None else edge_attr.to(device)
            return batch.n_id.to(x.device), batch.batch_size, edge_index.to(device), edge_attr

        parts = [read(batch) for batch in loader] if cache else []
        for layer in range(self.num_layers):
            out, found = None, torch.zeros(num_nodes, dtype=torch.bool, device=x.device)
            for node, batch_size, edge_index, edge_attr in tqdm(
                parts or map(read, loader), "Inference", len(loader), disable=not progress_bar
            ):
                part = self.inference_per_layer(layer, x[node].to(device), edge_index, batch_size, edge_attr)
                out = x.new_empty(num_nodes, part.size(1), dtype=part.dtype) if out is None else out
                out[node[:batch_size]] = part.to(out.device)
                found[node[:batch_size]] = True
            if not found.all():
                raise ValueError(
                    f"loader goes through {int(found.sum())} of {num_nodes} nodes: all are needed"
                )
            x = x if out is None else out
        return x

    def _edge_attr(self, data: Data) -> OptTensor:
        """What :meth:`forward` takes as :obj:`edge_attr`, as far as the layers look at it."""
        conv = self.convs[0]
        names = [] if conv.num_relations == 1 else ["edge_type", "edge_attr"]
        if conv.edge_dim is not None:
            names = ["edge_attr"]
        return next((data[name] for name in names if name in data), None)
