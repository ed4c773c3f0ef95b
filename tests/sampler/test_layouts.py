"""However edges lie in memory, samplers draw what they draw from the same edges in PyG's layout."""

import pytest
import torch
from torch_geometric import Index
from torch_geometric.data import Data

from mgwa_pyg.sampler import KHopSampler, NegativeSampler, NeighborSampler, ripple_sets

NUM_NODES = 30


def draw(edge_index, edge_type, seed, generator):
    """What each sampler draws around the seeds."""
    sampler = NeighborSampler(edge_index, edge_type, NUM_NODES, fanout=3)
    data = Data(edge_index=edge_index, num_nodes=NUM_NODES)
    k_hop = KHopSampler(data, [3, 2], generator=generator)
    yield from sampler.sample(seed, 2, generator)[:4]
    yield k_hop._sample(seed).node
    yield ripple_sets(edge_index, edge_index, NUM_NODES, NUM_NODES, 2, 4, generator)
    yield NegativeSampler(edge_index, NUM_NODES, 2 * NUM_NODES).draw(seed, generator)


@pytest.mark.parametrize("order", [0, 2, None], ids=["by source", "by target", "unsorted"])
def test_of_edges(order):
    table = torch.stack([torch.randint(n, (200,)) for n in (NUM_NODES, 4, NUM_NODES)], dim=1)
    if order is not None:
        table = table[table[:, order].argsort(stable=True)]
    seeds = torch.stack([torch.arange(9), torch.arange(9)], dim=1)[:, 0]
    plain = torch.stack([table[:, 0], table[:, 2]]), table[:, 1].clone(), torch.arange(9)
    strided = table.t()[::2], table.t()[1], seeds
    both = [list(draw(*each, torch.Generator().manual_seed(1))) for each in (plain, strided)]
    torch.testing.assert_close(both[1], both[0], rtol=0, atol=0)


def test_relations_of_pygs_own_class():
    edge_index, edge_type = torch.tensor([[3, 1, 2], [0, 0, 1]]), torch.tensor([2, 0, 1])
    sampler = NeighborSampler(edge_index, Index(edge_type), 4)
    got = sampler.sample(torch.tensor([0, 1]), 1)
    assert type(got.edge_type) is torch.Tensor
    assert got.edge_type.tolist() == [2, 0, 1]
