"""Entity classification with `GATv2Conv`, `RGCNConv` and `GatedAggregationConv` in the same two-layer model.

The graph is made here. An entity has a known kind, and a class that its own features tell only in part.
For each kind there are two relations by which its entities are mostly (90 %) linked from their own class;
all other edges come from anywhere. So which relations tell a class depends on the kind: this is learned.
"""

import torch
import torch.nn.functional as F
from _compare import compare, parse_args
from torch_geometric.data import Data
from torch_geometric.nn import GATv2Conv, RGCNConv

from mgwa_pyg.nn import GatedAggregationConv

NUM_ENTITIES, NUM_EDGES, NUM_RELATIONS, NUM_KINDS, NUM_CLASSES = 2000, 20000, 10, 4, 5

# Each layer with the options that did best on validation, for a graph of another seed. GATv2Conv gets a
# residual because both others have weights for the entity itself.
LAYERS = {
    "GATv2Conv": lambda i, o: GATv2Conv(i, o, edge_dim=NUM_RELATIONS, residual=True),
    "RGCNConv": lambda i, o: RGCNConv(i, o, NUM_RELATIONS, num_bases=2),
    "GatedAggregationConv": lambda i, o: GatedAggregationConv(i, o, NUM_RELATIONS, score_activation=None),
}


def typed_graph(seed: int) -> Data:
    generator = torch.Generator().manual_seed(seed)

    def draw(high: int, size: int) -> torch.Tensor:
        return torch.randint(high, (size,), generator=generator)

    def chance(probability: float, size: int) -> torch.Tensor:
        return torch.rand(size, generator=generator) < probability

    kind, y = draw(NUM_KINDS, NUM_ENTITIES), draw(NUM_CLASSES, NUM_ENTITIES)
    trusted = torch.rand(NUM_KINDS, NUM_RELATIONS, generator=generator).argsort(dim=1) < 2

    target, edge_type = draw(NUM_ENTITIES, NUM_EDGES), draw(NUM_RELATIONS, NUM_EDGES)
    source = draw(NUM_ENTITIES, NUM_EDGES)
    planted = trusted[kind[target], edge_type] & chance(0.9, NUM_EDGES)
    for c in range(NUM_CLASSES):
        members = (y == c).nonzero().flatten()
        edges = (planted & (y[target] == c)).nonzero().flatten()
        source[edges] = members[draw(members.numel(), edges.numel())]

    # Some pairs of entities are linked by a second, parallel edge.
    again = chance(0.1, NUM_EDGES).nonzero().flatten()
    edge_index = torch.stack([source, target])
    edge_index = torch.cat([edge_index, edge_index[:, again]], dim=1)
    edge_type = torch.cat([edge_type, draw(NUM_RELATIONS, again.numel())])

    noise = torch.randn(NUM_ENTITIES, NUM_CLASSES, generator=generator)
    x = torch.cat([F.one_hot(y, NUM_CLASSES) + noise, F.one_hot(kind, NUM_KINDS)], dim=1)
    part = torch.randperm(NUM_ENTITIES, generator=generator)
    return Data(
        x=x,
        edge_index=edge_index,
        edge_type=edge_type,
        edge_attr=F.one_hot(edge_type, NUM_RELATIONS).float(),  # What GATv2Conv reads.
        y=y,
        train_mask=part < 700,
        val_mask=(part >= 700) & (part < 1200),
        test_mask=part >= 1200,
    )


class Net(torch.nn.Module):
    """Two layers of the kind that ``conv(in_channels, out_channels)`` makes."""

    def __init__(self, conv, in_channels: int, hidden_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv1 = conv(in_channels, hidden_channels)
        self.conv2 = conv(hidden_channels, out_channels)

    def forward(self, data: Data) -> torch.Tensor:
        relation = data.edge_attr if isinstance(self.conv1, GATv2Conv) else data.edge_type
        x = self.conv1(data.x, data.edge_index, relation).relu()
        x = F.dropout(x, p=0.5, training=self.training)
        return self.conv2(x, data.edge_index, relation)


def main() -> None:
    args = parse_args(__doc__)

    def make_model(name: str, data: Data) -> Net:
        return Net(LAYERS[name], data.num_features, args.hidden, NUM_CLASSES)

    title = f"Entity classification, {NUM_RELATIONS} relations"
    compare(title, list(LAYERS), typed_graph, make_model, args)


if __name__ == "__main__":
    main()
