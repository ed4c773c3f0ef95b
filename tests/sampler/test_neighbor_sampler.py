"""Sampled neighbourhoods against the graph they were sampled from."""

import re
import subprocess
import sys
import zipfile
from collections import Counter
from itertools import combinations
from pathlib import Path

import pytest
import torch

from mgwa_pyg.sampler import NeighborSampler
from tests.graphs import random_edges


def random_graph(num_nodes=12, num_edges=60, num_types=3):
    return random_edges(num_nodes, num_edges, num_types, isolated=1)


def neighbors(edge_index, edge_type, node):
    """The neighbours of a node with the types of the edges, by a loop."""
    return Counter(
        (source, kind)
        for source, target, kind in zip(*edge_index.tolist(), edge_type.tolist(), strict=True)
        if target == node
    )


@pytest.mark.smoke
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
    with pytest.raises(IndexError, match=r"edge_index\[0\] holds"):
        NeighborSampler(edge_index, edge_type, 5)
    sampler, seed = NeighborSampler(edge_index, edge_type, 12), torch.arange(3)
    with pytest.raises(ValueError, match="not both"):
        sampler.sample(seed, 1, torch.Generator(), key=seed)
    with pytest.raises(ValueError, match=r"key has shape \(2,\)"):
        sampler.sample(seed, 1, key=seed[:2])
    with pytest.raises(ValueError, match=r"type torch.int32"):
        sampler.sample(seed, 1, key=seed.int())


def tree_of(hood, seed):
    """What was sampled for one seed, as it was sampled."""
    mine = hood.batch == seed
    edge = mine[hood.edge_index[1]]
    parent = mine.cumsum(0)[hood.edge_index[1, edge]]
    return hood.node[mine].tolist(), parent.tolist(), hood.edge_type[edge].tolist()


def test_a_key_decides_whatever_the_batch():
    edge_index, edge_type = random_graph(num_edges=100)
    sampler = NeighborSampler(edge_index, edge_type, 12, fanout=3)
    seed, key = torch.randint(12, (30,)), torch.randint(-(2**62), 2**62, (30,))
    hood = sampler.sample(seed, 3, key=key)
    order = torch.randperm(30)[:20]
    part = sampler.sample(seed[order], 3, key=key[order])
    torch.rand(7)  # Other draws do not matter either.
    for place, i in enumerate(order.tolist()):
        assert tree_of(part, place) == tree_of(hood, i)
        assert tree_of(sampler.sample(seed[i : i + 1], 3, key=key[i : i + 1]), 0) == tree_of(hood, i)


def test_copies_of_a_node_draw_for_themselves():
    # Node 0 has two edges from node 1, which has three: its two copies choose one each.
    edge_index = torch.tensor([[1, 1, 2, 3, 4], [0, 0, 1, 1, 1]])
    sampler = NeighborSampler(edge_index, torch.zeros(5, dtype=torch.long), 5, fanout=2)
    draws = 9_000
    hood = sampler.sample(torch.zeros(draws, dtype=torch.long), 2, key=torch.arange(draws))
    left_out = 9 - hood.node[-4 * draws :].view(draws, 2, 2).sum(dim=2)
    count = Counter(map(tuple, left_out.tolist()))
    assert set(count) == {(i, j) for i in (2, 3, 4) for j in (2, 3, 4)}
    # Eight degrees of freedom: 26.1 is passed once in a thousand.
    assert sum((n - draws / 9) ** 2 / (draws / 9) for n in count.values()) < 26.1


@pytest.fixture
def saved(tmp_path):
    edge_index, edge_type = random_graph(num_nodes=1000, num_edges=50_000)
    sampler = NeighborSampler(edge_index, edge_type, 1000, fanout=4)
    path = tmp_path / "folder" / "sampler.pt"
    sampler.save(path)
    return sampler, path


def test_a_saved_sampler_draws_the_same(saved):
    sampler, path = saved
    other = NeighborSampler.load(str(path))
    seed = torch.randint(1000, (100,))
    assert other.fanout == 4
    for mine, theirs in zip(
        sampler.sample(seed, 2, torch.Generator().manual_seed(1)),
        other.sample(seed, 2, torch.Generator().manual_seed(1)),
        strict=True,
    ):
        assert torch.equal(torch.as_tensor(mine), torch.as_tensor(theirs))
    assert [file.name for file in path.parent.iterdir()] == ["sampler.pt"]


@pytest.mark.skipif(not Path("/proc/self/smaps").exists(), reason="only Linux tells what is mapped")
def test_processes_share_the_file(saved):
    sampler, path = saved
    program = (
        "import sys, torch\n"
        "from pathlib import Path\n"
        "from mgwa_pyg.sampler import NeighborSampler\n"
        "sampler = NeighborSampler.load(sys.argv[1])\n"
        "print(sampler.sample(torch.arange(100), 2, key=torch.arange(100)).node.sum().item())\n"
        "print(Path('/proc/self/smaps').read_text())\n"
    )
    run = subprocess.run([sys.executable, "-c", program, path], capture_output=True, text=True, check=True)
    total, maps = run.stdout.split("\n", 1)
    assert int(total) == sampler.sample(torch.arange(100), 2, key=torch.arange(100)).node.sum()
    parts = re.split(r"^(?=[0-9a-f]+-[0-9a-f]+ )", maps, flags=re.MULTILINE)
    parts = [part for part in parts if str(path) in part]
    size = dict.fromkeys(("Size", "Anonymous"), 0)
    for part in parts:
        for name in size:
            size[name] += int(re.search(rf"^{name}: +(\d+) kB", part, flags=re.MULTILINE)[1])
    assert size["Size"] * 1024 >= path.stat().st_size
    assert size["Anonymous"] == 0  # All of it is the file, nothing a copy.


def test_bad_files(saved, tmp_path):
    _, path = saved
    content = path.read_bytes()
    with pytest.raises(FileNotFoundError):
        NeighborSampler.load(tmp_path / "nowhere.pt")

    bad = tmp_path / "bad.pt"
    middle = len(content) // 2
    flipped = content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]
    for damaged in (b"", b"no such thing", content[:middle], flipped):
        bad.write_bytes(damaged)
        with pytest.raises(ValueError, match=r"bad.pt is damaged, or not a file of a NeighborSampler"):
            NeighborSampler.load(bad)
    with zipfile.ZipFile(bad, "w") as archive:
        archive.writestr("a", "b")
    with pytest.raises(ValueError, match="damaged, or not"):
        NeighborSampler.load(bad)
    for other in ({"format": "something else"}, [1, 2], torch.arange(3)):
        torch.save(other, bad)
        with pytest.raises(ValueError, match=r"bad.pt is not a file of a NeighborSampler"):
            NeighborSampler.load(bad)


def test_seeds_that_do_not_fit():
    edge_index, edge_type = torch.tensor([[0, 1], [1, 2]]), torch.tensor([0, 1])
    sampler = NeighborSampler(edge_index, edge_type, 3)
    for seed in (-1, 3):  # The first was the last node.
        with pytest.raises(IndexError, match=rf"seed holds {seed}, .*num_nodes is 3"):
            sampler.sample(torch.tensor([0, seed]), 1)
    with pytest.raises(ValueError, match=r"seed has shape \(\)"):
        sampler.sample(torch.tensor(0), 1)
    with pytest.raises(ValueError, match="num_hops=-1"):
        sampler.sample(torch.tensor([0]), -1)
    with pytest.raises(ValueError, match=r"fanout=1\.5"):
        NeighborSampler(edge_index, edge_type, 3, fanout=1.5)
    short = sampler.sample(torch.tensor([0, 1, 1], dtype=torch.uint8), 1)  # No mask.
    assert short.node.tolist() == sampler.sample(torch.tensor([0, 1, 1]), 1).node.tolist()
