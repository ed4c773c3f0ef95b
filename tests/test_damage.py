"""What the tests on generated inputs take for an answer, and what for a fault of ours."""

import numpy as np
import pytest
import torch

from mgwa_pyg.nn import GatedAggregationConv
from tests.damage import TENSOR_FAULTS, answer, damage


def test_a_result_and_a_refusal_that_names_an_argument_pass():
    assert answer(["heads"], lambda: 7) == 7
    assert answer(["heads"], lambda: GatedAggregationConv(4, 4, heads=0)) is None


@pytest.mark.parametrize(
    ("names", "call", "complaint"),
    [
        (["fusion"], lambda: GatedAggregationConv(4, 4, heads=0), "names no argument"),
        (["head"], lambda: GatedAggregationConv(4, 4, heads=0), "names no argument"),
        (["x"], lambda: torch.zeros(2) + torch.zeros(3), None),  # Torch's words, and no ValueError.
        (["x"], lambda: np.zeros(2) + np.zeros(3), "raised in"),
        (["x"], lambda: {}["x"], None),
    ],
)
def test_anything_else_does_not(names, call, complaint):
    with pytest.raises(AssertionError if complaint else (RuntimeError, KeyError), match=complaint):
        answer(names, call)


@pytest.mark.parametrize("fault", TENSOR_FAULTS)
def test_every_fault_changes_a_tensor(fault):
    value = torch.arange(6.0).view(2, 3)
    damaged = damage(value, fault)
    if fault == "float":
        assert damaged is value
    elif fault == "strided":
        assert torch.equal(damaged, value)
        assert not damaged.is_contiguous()
    else:
        assert not isinstance(damaged, torch.Tensor) or not (
            damaged.shape == value.shape
            and damaged.dtype == value.dtype
            and damaged.device == value.device
            and torch.equal(damaged, value)
        )
    assert torch.equal(value, torch.arange(6.0).view(2, 3))  # In a copy.
