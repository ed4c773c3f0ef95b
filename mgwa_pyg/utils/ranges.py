"""Ranges of whole numbers, many at once: what lies between the pointers of a compressed matrix."""

import torch
from torch import Tensor


def ranges(begin: Tensor, count: Tensor) -> tuple[Tensor, Tensor]:
    r"""Return the owner of each number and the numbers, :math:`(\sum_i c_i)` both, of the ranges that start
    at ``begin`` and have ``count`` elements, :math:`(n)` both; an owner is a position in these.
    """
    owner = torch.repeat_interleave(count)
    shift = begin - count.cumsum(0) + count
    return owner, torch.arange(owner.numel(), device=begin.device) + shift[owner]
