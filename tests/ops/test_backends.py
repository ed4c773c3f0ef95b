"""Every backend against a loop, and their lookup by name."""

import pytest
import torch

from mgwa_pyg.ops import BACKENDS, get_backend

NAMES = [pytest.param(name, marks=pytest.mark.scatter) if name == "scatter" else name for name in BACKENDS]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("with_ptr", [False, True])
@pytest.mark.parametrize("shape", [(20,), (20, 3), (20, 2, 3)])
def test_softmax_and_sum_equal_a_loop(name, with_ptr, shape):
    ops = get_backend(name)
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
    with pytest.raises(ValueError, match="backend='cuda' is unknown: choose one of"):
        get_backend("cuda")


def test_missing_torch_scatter_says_how_to_install_it(monkeypatch):
    monkeypatch.setattr("mgwa_pyg.ops.backends.find_spec", lambda name: None)
    with pytest.raises(ImportError, match="--no-build-isolation torch_scatter"):
        get_backend("scatter")
