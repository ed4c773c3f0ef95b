"""Random numbers and sets for many rows at once, from a generator or from one key for each row."""

from __future__ import annotations

import torch
from torch import Tensor

# The increment and the factors of SplitMix64, as signed numbers: torch's products wrap around.
_STEP = 0x9E3779B97F4A7C15 - 2**64
_FACTORS = (0xBF58476D1CE4E5B9 - 2**64, 0x94D049BB133111EB - 2**64)
# Up to so many numbers a row, comparing each with all before it is quicker than sorting them.
_FEW = 48


def uniform(
    num_rows: int,
    count: int,
    device: torch.device,
    generator: torch.Generator | None = None,
    key: Tensor | None = None,
) -> Tensor:
    r"""Draw numbers in :math:`[0, 1)` of double precision, :math:`(n, k)`.

    Args:
        num_rows (int): The number of rows :math:`n`.
        count (int): The numbers of each row, :math:`k`.
        device (torch.device): Where the numbers are drawn.
        generator (torch.Generator, optional): The source of randomness. (default: :obj:`None`, torch's own)
        key (torch.Tensor, optional): One :obj:`torch.long` for each row, :math:`(n)`, from which its numbers
            follow, whatever the other rows, the device or the process. (default: :obj:`None`)
    """
    if key is None:
        return torch.rand(num_rows, count, dtype=torch.double, device=device, generator=generator)
    bits = _hash(key.unsqueeze(1), torch.arange(1, count + 1, device=device))
    return _shift(bits, 11).double().mul_(2.0**-53)


def derive_key(key: Tensor, index: Tensor) -> Tensor:
    r"""Return one key for each pair of a key and a number from zero on, unlike all numbers of the key."""
    return _hash(key, -1 - index)


def choose_distinct(stop: Tensor, chance: Tensor) -> Tensor:
    r"""Choose distinct whole numbers below each ``stop``, :math:`(n)`, all sets equally likely.

    This is Floyd's algorithm: the k-th draw is from one number more than the one before, and takes that new
    number where it hits one drawn already. The time it takes is linear in :math:`k`, but for a logarithm.

    Args:
        stop (torch.Tensor): At least :math:`k` in each row, :math:`(n)`.
        chance (torch.Tensor): What :func:`uniform` drew, :math:`(n, k)`.

    Returns:
        torch.Tensor: The numbers, :math:`(n, k)`.
    """
    count = chance.size(1)
    newest = (stop - count).unsqueeze(1) + torch.arange(count, device=stop.device)
    drawn = (chance * (newest + 1)).long()
    if count > _FEW:
        return torch.where(_taken(drawn, newest), newest, drawn)
    drawn = drawn.t().contiguous()  # A row for each draw: whole rows are quick to compare.
    for k in range(1, count):
        taken = (drawn[:k] == drawn[k]).any(dim=0)
        drawn[k] = torch.where(taken, newest[:, k], drawn[k])
    return drawn.t()


def _taken(drawn: Tensor, newest: Tensor) -> Tensor:
    """Which draws hit a number that is taken by then, without looking at one after the other.

    A number is taken if it was drawn before, or if it is the new number of an earlier draw and that one hit.
    """
    values, order = drawn.sort(dim=1, stable=True)
    again = torch.zeros_like(drawn, dtype=torch.bool)
    again[:, 1:] = values[:, 1:] == values[:, :-1]
    taken = torch.empty_like(again).scatter_(1, order, again)
    # The draw whose new number each one is, or itself; then the one that this leads to, in doubling steps.
    place = torch.arange(drawn.size(1), device=drawn.device)
    decider = drawn - newest[:, :1]
    decider = torch.where((decider < 0) | taken, place, decider)
    while True:
        taken = taken | taken.gather(1, decider)
        further = decider.gather(1, decider)
        if torch.equal(further, decider):
            return taken
        decider = further


def _hash(key: Tensor, counter: Tensor) -> Tensor:
    """The element at ``counter`` of the SplitMix64 sequence that the mixed key starts."""
    # Mixed before, too: else keys one step apart would be one sequence shifted by one.
    return _mix(_mix(key) + counter * _STEP)


def _mix(bits: Tensor) -> Tensor:
    bits = (bits ^ _shift(bits, 30)).mul_(_FACTORS[0])
    bits = bits.bitwise_xor_(_shift(bits, 27)).mul_(_FACTORS[1])
    return bits.bitwise_xor_(_shift(bits, 31))


def _shift(bits: Tensor, by: int) -> Tensor:
    """Shift to the right and fill with zeros; torch's own shift repeats the sign."""
    return (bits >> by).bitwise_and_(2 ** (64 - by) - 1)
