"""Edges by target against loops over the given edges."""

from collections import Counter
from itertools import combinations

import pytest
import torch
from torch_geometric import EdgeIndex

from mgwa_pyg.sampler.in_edges import InEdges

SIZE = (9, 7)


def random_edges(num_edges=60):
    """Edges with parallel ones; target 6 has none."""
    return torch.stack([torch.randint(SIZE[0], (num_edges,)), torch.randint(SIZE[1] - 1, (num_edges,))])


@pytest.mark.parametrize("sort_source", [False, True])
@pytest.mark.parametrize("num_edges", [0, 1, 60])
def test_edges_by_target(num_edges, sort_source):
    edge_index = random_edges(num_edges)
    edge_type = torch.randint(4, (num_edges,))
    edges = InEdges.from_edge_index(edge_index, SIZE, edge_type, keep_edge=True, sort_source=sort_source)
    pairs = list(zip(*edge_index.tolist(), range(num_edges), strict=True))
    pairs.sort(key=lambda edge: (edge[1], edge[0], edge[2]) if sort_source else (edge[1], edge[2]))
    assert edges.source.tolist() == [source for source, _, _ in pairs]
    assert edges.edge.tolist() == [edge for _, _, edge in pairs]
    assert torch.equal(edges.edge_type, edge_type[edges.edge.long()].int())
    degree = Counter(target for _, target, _ in pairs)
    assert edges.ptr.diff().tolist() == [degree[node] for node in range(SIZE[1])]
    assert edges.ptr.dtype == torch.long
    assert edges.source.dtype == edges.edge.dtype == edges.edge_type.dtype == torch.int32


def test_numbers_beyond_int32():
    far = 2**31 + 3
    edge_index = torch.tensor([[far, 2, far - 1, far], [1, 0, 1, 1]])
    edges = InEdges.from_edge_index(edge_index, (far + 1, 2), torch.tensor([1, 2, 3, -(2**40)]), True, True)
    assert edges.source.dtype == edges.edge_type.dtype == torch.long
    assert edges.source.tolist() == [2, far - 1, far, far]
    assert edges.edge_type.tolist() == [2, 3, 1, -(2**40)]
    assert edges.find(torch.tensor([far]), torch.tensor([1])).tolist() == [2, 3]
    _, position = edges.sample(torch.tensor([1]), None)
    assert position.tolist() == [1, 2, 3]


def test_the_sort_that_cannot_pack_gives_the_same(monkeypatch):
    edge_index = random_edges()
    packed = InEdges.from_edge_index(edge_index, SIZE, keep_edge=True, sort_source=True)
    # With so many nodes, a node and a position do not fit into one number.
    apart = InEdges.from_edge_index(edge_index, (2**60, SIZE[1]), keep_edge=True, sort_source=True)
    assert torch.equal(packed.edge, apart.edge)


def test_an_edge_index_of_pyg():
    edge_index = random_edges()
    plain = InEdges.from_edge_index(edge_index, SIZE)
    wrapped = InEdges.from_edge_index(EdgeIndex(edge_index, sparse_size=SIZE), SIZE)
    assert torch.equal(plain.source, wrapped.source)
    assert type(wrapped.source) is torch.Tensor


@pytest.mark.parametrize("by_key", [False, True])
@pytest.mark.parametrize("leave_out", [False, True])
@pytest.mark.parametrize("replace", [False, True])
@pytest.mark.parametrize("fanout", [None, 0, 1, 3, 100])
def test_what_is_drawn(fanout, replace, leave_out, by_key):
    edge_index = random_edges()
    edges = InEdges.from_edge_index(edge_index, SIZE, keep_edge=True)
    node = torch.tensor([3, 6, 0, 3, 1, 2, 5, 4, 4])
    without = torch.randperm(60)[:30].sort().values if leave_out else None
    key = torch.randint(-(2**62), 2**62, node.shape) if by_key else None
    target, position = edges.sample(node, fanout, replace, key=key, without=without)
    assert target.tolist() == sorted(target.tolist())
    gone = set() if without is None else set(without.tolist())
    for i, v in enumerate(node.tolist()):
        whole = {e for e in range(60) if edge_index[1, edges.edge[e]] == v and e not in gone}
        got = position[target == i].tolist()
        assert set(got) <= whole
        if replace and fanout is not None:
            assert len(got) == (fanout if whole else 0)
        else:
            assert len(got) == len(set(got)) == (len(whole) if fanout is None else min(fanout, len(whole)))


def test_no_targets_and_no_edges():
    for edges in (
        InEdges.from_edge_index(random_edges(), SIZE),
        InEdges.from_edge_index(random_edges(0), SIZE, sort_source=True),
    ):
        for node in (torch.empty(0, dtype=torch.long), torch.tensor([6, 6])):
            for without in (None, torch.empty(0, dtype=torch.long)):
                for replace in (False, True):
                    target, position = edges.sample(node, 3, replace, without=without)
                    assert target.numel() == position.numel() == 0
    assert edges.find(torch.tensor([1]), torch.tensor([2])).numel() == 0
    assert edges.find(*torch.empty(2, 0, dtype=torch.long)).numel() == 0


def test_everything_left_out():
    edges = InEdges.from_edge_index(random_edges(), SIZE)
    target, position = edges.sample(torch.arange(7), 2, without=torch.arange(60))
    assert target.numel() == position.numel() == 0


@pytest.mark.parametrize("by_key", [False, True])
@pytest.mark.parametrize("replace", [False, True])
def test_edges_that_stay_are_equally_likely(replace, by_key):
    # Eight edges into node 1, between edges into others; three are left out, and two of other nodes.
    target = torch.tensor([0, 0, 1, 1, 1, 1, 1, 1, 1, 1, 2])
    edges = InEdges.from_edge_index(torch.stack([torch.arange(11), target]), (11, 3))
    draws = 20_000
    key = torch.arange(draws) if by_key else None
    node = torch.ones(draws, dtype=torch.long)
    _, position = edges.sample(node, 2, replace, key=key, without=torch.tensor([1, 2, 5, 9, 10]))
    stay = [3, 4, 6, 7, 8]
    if replace:
        chance = {(i, j): 1 / 25 for i in stay for j in stay}
        got = Counter(map(tuple, position.view(draws, 2).tolist()))
    else:
        chance = {frozenset(pair): 1 / 10 for pair in combinations(stay, 2)}
        got = Counter(map(frozenset, position.view(draws, 2).tolist()))
    assert set(got) == set(chance)
    # The chi-square statistics of 9 and 24 degrees of freedom pass these once in a thousand.
    statistic = sum((got[e] - draws * p) ** 2 / (draws * p) for e, p in chance.items())
    assert statistic < (51.2 if replace else 27.9)


def test_keys_do_not_look_at_the_batch():
    edges = InEdges.from_edge_index(random_edges(), SIZE)
    node, key = torch.randint(7, (40,)), torch.randint(2**60, (40,))
    target, position = edges.sample(node, 3, key=key)
    alone = [edges.sample(node[i : i + 1], 3, key=key[i : i + 1])[1] for i in range(40)]
    assert torch.equal(position, torch.cat(alone))
    order = torch.randperm(40)
    shuffled_target, shuffled = edges.sample(node[order], 3, key=key[order])
    for place, i in enumerate(order.tolist()):
        assert torch.equal(shuffled[shuffled_target == place], position[target == i])


def test_all_edges_between_two_nodes_are_found():
    edge_index = random_edges()
    edges = InEdges.from_edge_index(edge_index, SIZE, keep_edge=True, sort_source=True)
    pairs = torch.cartesian_prod(torch.arange(9), torch.arange(7))
    pairs = pairs[torch.randperm(63)[:40]].repeat(2, 1)  # Each pair twice.
    found = edges.find(pairs[:, 0], pairs[:, 1])
    wanted = {tuple(pair) for pair in pairs.tolist()}
    ids = [e for e, edge in enumerate(zip(*edge_index.tolist(), strict=True)) if edge in wanted]
    assert sorted(edges.edge[found].tolist()) == ids
    assert found.tolist() == sorted(set(found.tolist()))


def test_bad_edges():
    with pytest.raises(ValueError, match=r"edge_index has shape \(60,\)"):
        InEdges.from_edge_index(random_edges()[0], SIZE)
    with pytest.raises(ValueError, match=r"type torch.float32"):
        InEdges.from_edge_index(random_edges().float(), SIZE)
    with pytest.raises(ValueError, match=r"edge_type has shape \(60,\) and type torch.float32"):
        InEdges.from_edge_index(random_edges(), SIZE, torch.rand(60))
    with pytest.raises(IndexError, match=r"edge_index\[0\] holds 9, .* \(num_src_nodes is 9\)"):
        InEdges.from_edge_index(torch.tensor([[9], [0]]), SIZE)
    with pytest.raises(IndexError, match=r"edge_index\[1\] holds -1"):
        InEdges.from_edge_index(torch.tensor([[0], [-1]]), SIZE)
