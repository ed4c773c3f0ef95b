"""What holds sorted edges: the order of a sort in Python, numbers that fit, and moves of all tensors."""

import pytest
import torch

from mgwa_pyg.sampler.in_edges import InEdges
from mgwa_pyg.utils.sorted_edges import index_type, sort


@pytest.mark.parametrize("dtype", [torch.int32, torch.long])
@pytest.mark.parametrize("stop", [9, 2**62])  # Of the second, a number and a position are more than 63 bits.
@pytest.mark.parametrize("count", [0, 1, 1000])
def test_equal_numbers_keep_their_order(count, stop, dtype):
    key = torch.randint(9, (count,), dtype=dtype)
    values, order = sort(key, stop)
    assert order.tolist() == sorted(range(count), key=key.tolist().__getitem__)
    assert torch.equal(values, key[order])
    assert (values.dtype, order.dtype) == (dtype, torch.long)


def test_numbers_beyond_int32():
    key = torch.tensor([2**40, 3, 2**40, 2**31])
    values, order = sort(key, 2**41)
    assert order.tolist() == [1, 3, 0, 2]
    assert torch.equal(values, key[order])
    assert index_type(5, 2**31 - 2) == torch.int32
    assert index_type(5, 2**31) == torch.long


def test_all_tensors_move():
    edges = InEdges.from_edge_index(torch.tensor([[0, 1, 2], [1, 1, 0]]), (3, 2), torch.tensor([4, 5, 6]))
    moved = edges.to("meta")  # Which stands for a GPU.
    tensors = moved.ptr, moved.source, moved.edge_type
    assert all(tensor.is_meta for tensor in tensors)
    assert moved.edge is None
    assert not edges.ptr.is_meta
    assert torch.equal(edges.cpu().source, edges.source)
