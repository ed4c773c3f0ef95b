"""The samplers on generated arguments, most of them wrong."""

import pytest
import torch
from hypothesis import strategies as st
from torch_geometric.data import Data
from torch_geometric.sampler import NodeSamplerInput

from mgwa_pyg.sampler import KHopSampler, NegativeSampler, NeighborSampler, ripple_sets
from tests.damage import answer, damaged, examples, faults_of

NODES, USERS = 6, 3
EDGES = torch.tensor([[0, 1, 2, 5, 4, 4, 3, 0], [4, 4, 5, 2, 0, 1, 3, 4]])
TYPES = torch.tensor([0, 1, 0, 1, 0, 1, 1, 0])
LISTENS = torch.tensor([[0, 0, 1, 2], [0, 5, 3, 2]])
HOPS = [[2], [2, -1], [None], [1, 1, 1], [], [0], [-2], [1.5], ["2"], None, 3, [2, None], [True]]


def check_neighbor_sampler(given):
    sampler = answer(
        ("edge_index", "edge_type", "num_nodes", "fanout", "num_src_nodes"),
        lambda: NeighborSampler(
            *(given[name] for name in ("edge_index", "edge_type", "num_nodes", "fanout"))
        ),
    )
    if sampler is None:
        return None
    out = answer(
        ("seed", "num_hops", "key", "num_nodes"),
        lambda: sampler.sample(given["seed"], given["num_hops"], key=given["key"]),
    )
    if out is None:
        return None
    edge_index, fanout, seed = given["edge_index"], given["fanout"], given["seed"].tolist()
    edges = list(zip(*edge_index.tolist(), given["edge_type"].tolist(), strict=True))
    assert out.node[: len(seed)].tolist() == seed
    assert len(out.num_sampled_edges) == given["num_hops"]
    drawn = {}
    for (source, target), kind in zip(out.edge_index.t().tolist(), out.edge_type.tolist(), strict=True):
        drawn.setdefault(target, []).append((int(out.node[source]), int(out.node[target]), kind))
        assert out.batch[source] == out.batch[target]
    inner = sum(out.num_sampled_nodes[:-1]) if given["num_hops"] > 0 else 0
    for place in range(inner):
        mine = [edge for edge in edges if edge[1] == int(out.node[place])]
        got = drawn.get(place, [])
        assert len(got) == (len(mine) if fanout is None else min(len(mine), int(fanout)))
        for edge in got:
            mine.remove(edge)  # None is taken more often than it is there.
    return out


def check_ripple_sets(given):
    names = ("interaction", "edge_index", "num_users", "num_nodes", "num_hops", "size")
    arguments = {name: given[name] for name in names}
    out = answer(names, lambda: ripple_sets(**arguments))
    if out is None:
        return None
    assert out.shape == (int(given["num_users"]), int(given["num_hops"]), int(given["size"]))
    head, tail = given["edge_index"].tolist()
    listens = list(zip(*given["interaction"].tolist(), strict=True))
    for user, hops in enumerate(out.tolist()):
        nodes = {item for who, item in listens if who == user}
        before = None
        for hop in hops:
            candidates = {t for t in range(len(head)) if head[t] in nodes}
            if not candidates:
                assert hop == ([-1] * len(hop) if before is None else before)
                continue
            assert set(hop) <= candidates
            nodes, before = {tail[t] for t in hop}, hop
    return out


def check_negatives(given):
    names = ("pairs", "num_users", "pool")
    sampler = answer((*names, "user"), lambda: NegativeSampler(*(given[name] for name in names)))
    if sampler is None:
        return None
    out = answer(("user", "num_users"), lambda: sampler.draw(given["user"]))
    if out is None:
        return None
    known = set(zip(*given["pairs"].tolist(), strict=True))
    assert out.shape == given["user"].shape
    for pair in zip(given["user"].tolist(), out.tolist(), strict=True):
        assert pair not in known
        assert 0 <= pair[1] < given["pool"]
    return out


def check_k_hop(given):
    data = Data(edge_index=given["edge_index"], num_nodes=given["num_nodes"])
    names = ("num_neighbors", "edge_index", "num_nodes", "num_src_nodes", "num_dst_nodes", "node", "edges")
    sampler = answer(names, lambda: KHopSampler(data, given["num_neighbors"]))
    if sampler is None:
        return None
    if not isinstance(given["seed"], torch.Tensor) or given["seed"].is_meta:
        return None  # PyG's own class takes the seeds to the CPU, and knows no more than these.
    out = answer(names, lambda: sampler.sample_from_nodes(NodeSamplerInput(None, given["seed"])))
    if out is None:
        return None
    edges = given["edge_index"].t().tolist()
    assert out.node[: given["seed"].numel()].tolist() == given["seed"].tolist()
    for row, col, edge in zip(out.row.tolist(), out.col.tolist(), out.edge.tolist(), strict=True):
        assert [int(out.node[row]), int(out.node[col])] == edges[edge]
        assert out.batch[row] == out.batch[col]
    return out


CHECKS = {
    "NeighborSampler": check_neighbor_sampler,
    "ripple_sets": check_ripple_sets,
    "NegativeSampler": check_negatives,
    "KHopSampler": check_k_hop,
}
TAKES = {
    "NeighborSampler": {"edge_index", "edge_type", "num_nodes", "fanout", "seed", "num_hops", "key"},
    "ripple_sets": {"interaction", "edge_index", "num_users", "num_nodes", "num_hops", "size"},
    "NegativeSampler": {"pairs", "num_users", "pool", "user"},
    "KHopSampler": {"edge_index", "num_nodes", "num_neighbors", "seed"},
}


@pytest.mark.filterwarnings("ignore:users who have seen the whole pool")
@examples(
    "samplers",
    name=st.sampled_from([*CHECKS]),
    keyed=st.booleans(),
    seed=st.lists(st.integers(0, NODES - 1), max_size=3),
    num_neighbors=st.sampled_from([[2, -1]] * 5 + HOPS),
    faults=faults_of(
        ["edge_index", "edge_type", "seed", "key", "interaction", "pairs", "user"],
        ["num_nodes", "fanout", "num_hops", "num_users", "size", "pool"],
    ),
)
def test_samplers(name, keyed, seed, num_neighbors, faults):
    torch.manual_seed(0)
    given = {
        "edge_index": EDGES,
        "edge_type": TYPES,
        "num_nodes": NODES,
        "fanout": 2,
        "seed": torch.tensor(seed, dtype=torch.long),
        "num_hops": 2,
        "key": torch.arange(len(seed)) if keyed else None,
        "interaction": LISTENS,
        "pairs": LISTENS,
        "num_users": USERS,
        "size": 2,
        "pool": NODES,
        "user": torch.tensor([0, 2, 1, 0]),
        "num_neighbors": num_neighbors,
    }
    faults = {key: fault for key, fault in faults.items() if key in TAKES[name]}
    if CHECKS[name](damaged(given, faults)) is None:
        assert faults or (name == "KHopSampler" and num_neighbors in HOPS)
