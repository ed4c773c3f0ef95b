"""`RelationCSR` holds the given edges, in both of its orders."""

import pytest
import torch

from mgwa_pyg.ops import RelationCSR
from mgwa_pyg.sampler import NeighborSampler
from tests.graphs import random_edges


def edges_by_target(plan):
    return list(zip(plan.col.tolist(), plan.dst.tolist(), plan.rel.tolist(), strict=True))


def check_consistent(plan, edge_index, edge_type):
    """The plan's two orders are the given edges, and its pointers delimit them."""
    num_src, num_dst = plan.size
    perm = torch.arange(edge_index.size(1)) if plan.perm is None else plan.perm
    csc = torch.arange(edge_index.size(1)) if plan.csc is None else plan.csc.long()
    assert torch.equal(plan.col.long(), edge_index[0][perm])
    assert torch.equal(plan.dst.long(), edge_index[1][perm])
    assert torch.equal(plan.rel.long(), edge_type[perm])
    assert torch.equal(perm.sort().values, torch.arange(edge_index.size(1)))
    assert torch.equal(csc.sort().values, torch.arange(edge_index.size(1)))
    assert torch.equal(plan.cdst, plan.dst[csc])
    target, source = torch.arange(num_dst), torch.arange(num_src)
    assert torch.equal(plan.dst.long(), target.repeat_interleave(plan.rowptr.diff()))
    assert torch.equal(plan.col[csc].long(), source.repeat_interleave(plan.colptr.diff()))
    back, back_type = plan.to_edge_index()
    assert torch.equal(back, edge_index.long())
    assert torch.equal(back_type, edge_type.long())


@pytest.mark.parametrize("size", [(7, 7), (5, 9), (9, 5)])
@pytest.mark.parametrize("dtype", [torch.int64, torch.int32])
def test_random_multigraphs(size, dtype):
    edge_index = torch.stack([torch.randint(n - 1, (60,)) for n in size]).to(dtype)
    edge_type = torch.randint(3, (60,)).to(dtype)
    plan = RelationCSR.from_edge_index(edge_index, edge_type, 3, size)
    check_consistent(plan, edge_index, edge_type)
    key = plan.dst * 3 + plan.rel
    assert bool((key.diff() >= 0).all())  # By target, then by relation.
    assert plan.num_edges == 60
    assert plan.num_relations == 3
    assert plan.size == size
    assert {plan.rowptr.dtype, plan.col.dtype, plan.dst.dtype, plan.rel.dtype} == {torch.int32}
    assert {plan.colptr.dtype, plan.cdst.dtype, plan.csc.dtype} == {torch.int32}


@pytest.mark.parametrize("num_edges", [0, 1, 2**15 - 1, 2**15])
def test_few_and_many_edges_are_sorted_alike(num_edges):
    edge_index, edge_type = random_edges(50, num_edges, 3)
    plan = RelationCSR.from_edge_index(edge_index, edge_type, 3, (50, 50))
    check_consistent(plan, edge_index, edge_type)
    if plan.perm is not None:
        assert torch.equal(plan.perm, (edge_index[1] * 3 + edge_type).argsort(stable=True))
        assert torch.equal(plan.csc.long(), edge_index[0][plan.perm].argsort(stable=True))


def test_edges_sorted_by_target_keep_their_order():
    edge_index = torch.tensor([[4, 0, 3, 1], [0, 0, 2, 2]])
    edge_type = torch.tensor([1, 0, 1, 0])
    plan = RelationCSR.from_edge_index(edge_index, edge_type, 2, (5, 3))
    assert plan.perm is None
    assert edges_by_target(plan) == [(4, 0, 1), (0, 0, 0), (3, 2, 1), (1, 2, 0)]
    check_consistent(plan, edge_index, edge_type)


def test_sampled_trees_need_no_sorting(synthetic):
    data = synthetic[0]
    graph = data["entity", "kg", "entity"]
    sampler = NeighborSampler(graph.edge_index, graph.rel_type, data["entity"].num_nodes, fanout=4)
    tree = sampler.sample(torch.arange(20), num_hops=2)
    size = (tree.node.numel(), tree.node.numel())
    plan = RelationCSR.from_edge_index(tree.edge_index, tree.edge_type, synthetic.num_relations * 2, size)
    assert plan.perm is None
    assert plan.csc is None
    check_consistent(plan, tree.edge_index, tree.edge_type)


def test_one_relation_needs_no_types():
    plan = RelationCSR.from_edge_index(torch.tensor([[1, 0], [1, 0]]), None, 1, (2, 2))
    assert plan.rel.tolist() == [0, 0]


@pytest.mark.parametrize("size", [(0, 0), (3, 0), (0, 3), (2, 3)])
def test_graphs_without_edges(size):
    plan = RelationCSR.from_edge_index(torch.empty(2, 0, dtype=torch.long), None, 1, size)
    assert plan.colptr.tolist() == [0] * (size[0] + 1)
    assert plan.rowptr.tolist() == [0] * (size[1] + 1)


def test_keys_beyond_32_bits():
    edge_index, edge_type = torch.tensor([[0, 0, 0], [50_000, 0, 49_999]]), torch.tensor([1, 99_999, 99_998])
    plan = RelationCSR.from_edge_index(edge_index, edge_type, 100_000, (1, 50_001))
    assert edges_by_target(plan) == [(0, 0, 99_999), (0, 49_999, 99_998), (0, 50_000, 1)]


def test_numbers_beyond_32_bits():
    plan = RelationCSR.from_edge_index(
        torch.tensor([[1, 0], [1, 0]]), torch.tensor([0, 2**40]), 2**41, (2, 2)
    )
    assert plan.col.dtype == torch.int64
    assert plan.rel.tolist() == [2**40, 0]


def test_to_moves_every_tensor():
    plan = RelationCSR.from_edge_index(torch.tensor([[1, 0], [1, 0]]), None, 1, (2, 2)).to("meta")
    assert {value.device.type for value in vars(plan).values() if isinstance(value, torch.Tensor)} == {"meta"}
    assert plan.size == (2, 2)
    assert repr(plan) == "RelationCSR(num_edges=2, num_relations=1, size=(2, 2))"


EDGES, TYPES = torch.tensor([[0, 1], [1, 2]]), torch.tensor([0, 1])


@pytest.mark.parametrize(
    ("changes", "error", "match"),
    [
        ({"edge_index": torch.zeros(2)}, ValueError, r"edge_index has shape \(2,\)"),
        ({"edge_index": torch.zeros(3, 2).long()}, ValueError, r"edge_index has shape \(3, 2\)"),
        ({"edge_index": torch.zeros(2, 2)}, ValueError, r"edge_index .* type torch.float32"),
        ({"edge_type": torch.zeros(3).long()}, ValueError, r"edge_type has shape \(3,\)"),
        ({"edge_type": torch.zeros(2)}, ValueError, r"edge_type .* type torch.float32"),
        ({"edge_type": torch.zeros(2, device="meta").long()}, ValueError, "edge_type is on meta"),
        ({"edge_type": None}, ValueError, "edge_type is None, but num_relations=2"),
        ({"num_relations": 0}, ValueError, "num_relations=0"),
        ({"edge_index": EDGES.tolist()}, ValueError, r"edge_index is \[\["),
        ({"num_relations": "2"}, ValueError, "num_relations='2'"),
        ({"size": ("3", 3)}, ValueError, r"size\[0\]='3'"),
        ({"size": None}, ValueError, "size=None: pass the numbers of nodes"),
        ({"size": (3,)}, ValueError, r"size=\(3,\)"),
        ({"size": (3, None)}, ValueError, r"size\[1\]=None"),
        ({"size": (-1, 3)}, ValueError, r"size\[0\]=-1"),
        ({"size": (1, 3)}, IndexError, r"edge_index\[0\] holds 1, .*size\[0\] is 1"),
        ({"size": (3, 2)}, IndexError, r"edge_index\[1\] holds 2"),
        ({"edge_index": EDGES - 1}, IndexError, r"edge_index\[0\] holds -1"),
        ({"edge_type": TYPES + 1}, IndexError, "edge_type holds 2"),
    ],
)
def test_errors_name_what_is_wrong(changes, error, match):
    arguments = {"edge_index": EDGES, "edge_type": TYPES, "num_relations": 2, "size": (3, 3), **changes}
    with pytest.raises(error, match=match):
        RelationCSR.from_edge_index(**arguments)


def test_part_of_the_targets_and_copies_side_by_side():
    edge_index, edge_type = random_edges(6, 30, 3)
    plan = RelationCSR.from_edge_index(edge_index, edge_type, 3, (6, 6))

    inside = (edge_index[1] >= 2) & (edge_index[1] < 5)
    part = plan.targets(2, 5)
    got_index, got_type = part.to_edge_index()
    want = torch.stack([edge_index[0], edge_index[1] - 2, edge_type])[:, inside]
    assert sorted(torch.cat([got_index, got_type[None]]).t().tolist()) == sorted(want.t().tolist())
    assert part.size == (6, 3)

    copies = plan.repeat(3)
    shifted = torch.cat([edge_index + 6 * copy for copy in range(3)], dim=1)
    again = RelationCSR.from_edge_index(shifted, edge_type.repeat(3), 3, (18, 18))
    for name in ("rowptr", "col", "dst", "rel", "colptr", "cdst", "csc", "perm", "size"):
        got, want = getattr(copies, name), getattr(again, name)
        assert (got == want).all() if isinstance(got, torch.Tensor) else got == want, name
