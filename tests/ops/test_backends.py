"""Every backend against a loop, and their lookup by name."""

import pytest
import torch
from torch.profiler import ProfilerActivity, profile

from mgwa_pyg.ops import (
    BACKENDS,
    SEGMENT_OPS,
    RelationCSR,
    choose_backend,
    relation_softmax_aggregate,
    segment_ops,
)
from mgwa_pyg.ops.backends import fused_backend
from tests.graphs import random_edges

NAMES = [pytest.param(name, marks=pytest.mark.scatter) if name == "scatter" else name for name in SEGMENT_OPS]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("with_ptr", [False, True])
@pytest.mark.parametrize("shape", [(20,), (20, 3), (20, 2, 3)])
def test_softmax_and_sum_equal_a_loop(name, with_ptr, shape):
    ops = segment_ops(name)
    src = torch.randn(shape, dtype=torch.double, requires_grad=True)
    index = torch.randint(6, (20,)).sort().values + 1  # Targets 0 and 7 have no rows.
    ptr = None
    if with_ptr:
        ptr = torch.cat([torch.zeros(1, dtype=torch.long), torch.bincount(index, minlength=8).cumsum(0)])
    softmax, total = torch.zeros_like(src), torch.zeros(8, *shape[1:], dtype=torch.double)
    for target in range(8):
        rows = index == target
        softmax = softmax.index_put((rows,), torch.softmax(src[rows], dim=0))
        total[target] = src[rows].sum(dim=0)

    if not (with_ptr and len(shape) > 2):  # PyG's softmax over pointers is for matrices.
        got = ops.softmax(src, index, ptr, 8)
        torch.testing.assert_close(got, softmax)
        weight = torch.randn_like(got)
        torch.testing.assert_close(
            torch.autograd.grad((got * weight).sum(), src),
            torch.autograd.grad((softmax * weight).sum(), src),
        )
    torch.testing.assert_close(ops.sum(src, index, ptr, 8), total)


def test_unknown_backend():
    for function in (segment_ops, lambda name: choose_backend(name, torch.device("cpu"), 0)):
        with pytest.raises(ValueError, match="backend='cuda' is unknown: choose one of"):
            function("cuda")


def test_missing_torch_scatter_says_how_to_install_it(monkeypatch):
    monkeypatch.setattr("mgwa_pyg.ops.backends.find_spec", lambda name: None)
    with pytest.raises(ImportError, match="--no-build-isolation torch_scatter"):
        segment_ops("scatter")


def test_auto_goes_by_device_and_size(monkeypatch):
    monkeypatch.setattr("mgwa_pyg.ops.backends._HAS_TRITON", True)
    cpu, cuda = torch.device("cpu"), torch.device("cuda")
    assert choose_backend("auto", cpu, 1000) == "reference"
    assert choose_backend("auto", cpu, 20_000) == "torch"
    assert choose_backend("auto", cpu, 200_000, ordered=False) == "reference"
    assert choose_backend("auto", cpu, 300_000, ordered=False) == "torch"
    assert choose_backend("auto", cuda, 2**23 - 1) == "reference"
    assert choose_backend("auto", cuda, 2**23) == "triton"
    assert choose_backend("auto", cuda, 2**23, ordered=False) == "reference"
    assert choose_backend("auto", cuda, 2**24, ordered=False) == "triton"
    assert choose_backend("auto", torch.device("mps"), 300_000) == "reference"
    for name in BACKENDS[1:]:
        assert choose_backend(name, cuda, 0) == name
    assert fused_backend(cuda) == "triton"
    monkeypatch.setattr("mgwa_pyg.ops.backends._HAS_TRITON", False)
    assert choose_backend("auto", cuda, 2**24) == "reference"
    assert fused_backend(cuda) == fused_backend(cpu) == "torch"


def test_what_auto_stands_for_is_the_op_that_runs():
    x, table = torch.randn(50, 4), torch.randn(1, 3)
    for num_edges, expected in [(10, False), (8000, True)]:
        edge_index, edge_type = random_edges(50, num_edges, 3)
        plan = RelationCSR.from_edge_index(edge_index, edge_type, 3, (50, 50))
        with profile(activities=[ProfilerActivity.CPU]) as profiler:
            relation_softmax_aggregate(x, table, plan)
        names = {event.key for event in profiler.key_averages()}
        assert ("mgwa_pyg::relation_softmax_aggregate" in names) == expected
