"""Ranges of whole numbers, many at once, against Python's own."""

import torch

from mgwa_pyg.utils.ranges import ranges


def test_ranges_are_those_of_python_one_after_the_other():
    begin, count = torch.tensor([4, 0, 4, 9]), torch.tensor([3, 2, 0, 1])
    owner, number = ranges(begin, count)
    want = [(row, n) for row, (b, c) in enumerate(zip(begin, count, strict=True)) for n in range(b, b + c)]
    assert list(zip(owner.tolist(), number.tolist(), strict=True)) == want
    assert ranges(begin[:0], count[:0])[1].shape == (0,)
