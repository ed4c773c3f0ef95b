"""Sampled neighbourhoods against the graph they were sampled from."""

from collections import Counter
from itertools import combinations

import pytest
import torch

from mgwa_pyg.sampler import NeighborSampler


def random_graph(num_nodes=12, num_edges=60, num_types=3):
    return torch.randint(num_nodes - 1, (2, num_edges)), torch.randint(num_types, (num_edges,))


def neighbors(edge_index, edge_type, node):
    """The neighbours of a node with the types of the edges, by a loop."""
    return Counter(
        (source, kind)
        for source, target, kind in zip(*edge_index.tolist(), edge_type.tolist(), strict=True)
        if target == node
    )


@pytest.mark.parametrize("fanout", [None, 3])
@pytest.mark.parametrize("num_hops", [0, 1, 2, 3])
def test_every_hop_is_the_neighborhood_of_the_one_before(fanout, num_hops):
    edge_index, edge_type = random_graph()
    sampler = NeighborSampler(edge_index, edge_type, 12, fanout)
    seed = torch.tensor([4, 0, 11, 4])  # One stands there twice, and 11 has no neighbours.
    hood = sampler.sample(seed, num_hops)

    assert hood.node[:4].tolist() == seed.tolist()
    assert sum(hood.num_sampled_nodes) == hood.node.numel()
    assert hood.num_sampled_nodes[1:] == hood.num_sampled_edges
    assert len(hood.num_sampled_edges) == num_hops
    assert hood.edge_type.shape == hood.edge_index.shape[1:]

    parent = dict(zip(*hood.edge_index.tolist(), strict=True))
    assert len(parent) == hood.edge_index.size(1)  # A tree: every node sends one message.
    for node in range(hood.node.numel()):
        assert node < 4 or hood.batch[node] == hood.batch[parent[node]]

    inner = hood.node.numel() - (hood.num_sampled_nodes[-1] if num_hops else 0)
    for node in range(inner if num_hops else 0):
        whole = neighbors(edge_index, edge_type, int(hood.node[node]))
        into = hood.edge_index[1] == node
        got = Counter(
            zip(
                hood.node[hood.edge_index[0, into]].tolist(),
                hood.edge_type[into].tolist(),
                strict=True,
            )
        )
        assert got <= whole  # No edge is taken twice …
        total = whole.total()
        assert got.total() == (total if fanout is None else min(total, fanout))  # … nor left out.


def test_all_subsets_of_a_neighborhood_are_equally_likely():
    edge_index = torch.tensor([[1, 2, 3, 4, 5], [0, 0, 0, 0, 0]])
    sampler = NeighborSampler(edge_index, torch.zeros(5, dtype=torch.long), 6, fanout=2)
    draws = 20_000
    hood = sampler.sample(torch.zeros(draws, dtype=torch.long), 1)
    pairs = Counter(map(frozenset, hood.node[draws:].view(draws, 2).tolist()))
    assert set(pairs) == set(map(frozenset, combinations(range(1, 6), 2)))
    # Ten subsets: the chi-square statistic of nine degrees of freedom passes 27.9 once in a thousand.
    expected = draws / 10
    assert sum((count - expected) ** 2 / expected for count in pairs.values()) < 27.9


def test_the_generator_decides():
    edge_index, edge_type = random_graph()
    sampler = NeighborSampler(edge_index, edge_type, 12, fanout=2)
    seed = torch.arange(12)

    def draw(state):
        return sampler.sample(seed, 2, torch.Generator().manual_seed(state)).node

    assert torch.equal(draw(1), draw(1))
    assert not torch.equal(draw(1), draw(2))


def test_bad_arguments():
    edge_index, edge_type = random_graph()
    with pytest.raises(ValueError, match="fanout=0"):
        NeighborSampler(edge_index, edge_type, 12, fanout=0)
    with pytest.raises(ValueError, match=r"edge_type has shape \(59,\)"):
        NeighborSampler(edge_index, edge_type[1:], 12)
