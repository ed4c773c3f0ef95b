"""Node classification on a graph without types: `GatedAggregationConv` beside PyG's layers in the same model.

The graph is a stochastic block model made here: a node's class is its block, which half of its neighbours
share and its own features tell only in part. Without relations `GatedAggregationConv` is a gated mean.
"""

import torch
import torch.nn.functional as F
from _compare import compare, parse_args
from torch_geometric import seed_everything
from torch_geometric.data import Data
from torch_geometric.nn import GATv2Conv, RGCNConv, SAGEConv
from torch_geometric.utils import stochastic_blockmodel_graph

from mgwa_pyg.nn import GatedAggregationConv

NUM_CLASSES, BLOCK_SIZE = 5, 400

LAYERS = {
    "SAGEConv": lambda i, o: SAGEConv(i, o),
    "GATv2Conv": lambda i, o: GATv2Conv(i, o, residual=True),
    "RGCNConv": lambda i, o: RGCNConv(i, o, num_relations=1),
    "GatedAggregationConv": lambda i, o: GatedAggregationConv(i, o),
}


def block_graph(seed: int) -> Data:
    seed_everything(seed)
    probability = torch.full((NUM_CLASSES, NUM_CLASSES), 0.0025).fill_diagonal_(0.01)
    edge_index = stochastic_blockmodel_graph([BLOCK_SIZE] * NUM_CLASSES, probability)
    y = torch.arange(NUM_CLASSES).repeat_interleave(BLOCK_SIZE)
    part = torch.randperm(y.numel())
    return Data(
        x=F.one_hot(y, NUM_CLASSES) + torch.randn(y.numel(), NUM_CLASSES),
        edge_index=edge_index,
        edge_type=torch.zeros(edge_index.size(1), dtype=torch.long),  # What RGCNConv reads.
        y=y,
        train_mask=part < 400,
        val_mask=(part >= 400) & (part < 800),
        test_mask=part >= 800,
    )


class Net(torch.nn.Module):
    """Two layers of the kind that ``conv(in_channels, out_channels)`` makes."""

    def __init__(self, conv, in_channels: int, hidden_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv1 = conv(in_channels, hidden_channels)
        self.conv2 = conv(hidden_channels, out_channels)

    def forward(self, data: Data) -> torch.Tensor:
        relation = [data.edge_type] if isinstance(self.conv1, RGCNConv) else []
        x = self.conv1(data.x, data.edge_index, *relation).relu()
        x = F.dropout(x, p=0.5, training=self.training)
        return self.conv2(x, data.edge_index, *relation)


def main() -> None:
    args = parse_args(__doc__)

    def make_model(name: str, data: Data) -> Net:
        return Net(LAYERS[name], data.num_features, args.hidden, NUM_CLASSES)

    compare("Node classification, no types", list(LAYERS), block_graph, make_model, args)


if __name__ == "__main__":
    main()
