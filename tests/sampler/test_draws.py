"""Draws by key against SplitMix64 in Python's own numbers, and against the chances that they should have."""

from collections import Counter
from itertools import combinations

import pytest
import torch

from mgwa_pyg.sampler.draws import derive_key, draw_distinct, uniform

KEYS = [0, 1, -1, 2**63 - 1, -(2**63), 123456789]


def mix(bits):
    """The output function of SplitMix64."""
    bits = ((bits ^ bits >> 30) * 0xBF58476D1CE4E5B9) % 2**64
    bits = ((bits ^ bits >> 27) * 0x94D049BB133111EB) % 2**64
    return bits ^ bits >> 31


def element(key, counter):
    return mix((mix(key % 2**64) + counter * 0x9E3779B97F4A7C15) % 2**64)


def test_keys_are_hashed_as_defined():
    drawn = uniform(len(KEYS), 4, torch.device("cpu"), key=torch.tensor(KEYS))
    wanted = [[(element(key, k) >> 11) / 2**53 for k in range(1, 5)] for key in KEYS]
    assert drawn.tolist() == wanted
    for index in (0, 1, 7):
        child = derive_key(torch.tensor(KEYS), torch.full((len(KEYS),), index))
        assert [key % 2**64 for key in child.tolist()] == [element(key, -1 - index) for key in KEYS]


def test_keys_in_a_row_draw_like_chance():
    drawn = uniform(20_000, 5, torch.device("cpu"), key=torch.arange(20_000))
    assert drawn.min() >= 0
    assert drawn.max() < 1
    # Each draw, and each two draws of one key, of neighbouring keys, of a parent and its child.
    child = uniform(20_000, 5, torch.device("cpu"), key=derive_key(torch.arange(20_000), torch.tensor(0)))
    columns = torch.cat([drawn[:-1], drawn[1:], child[:-1]], dim=1)
    cells = (columns * 4).long()
    for i, j in combinations(range(columns.size(1)), 2):
        count = torch.bincount(cells[:, i] * 4 + cells[:, j], minlength=16)
        expected = len(cells) / 16
        # Fifteen degrees of freedom: 44.3 is passed once in ten thousand; there are 105 pairs.
        assert float(((count - expected) ** 2 / expected).sum()) < 44.3, (i, j)


@pytest.mark.parametrize("by_key", [False, True])
def test_all_distinct_sets_are_equally_likely(by_key):
    draws = 20_000
    key = torch.arange(draws) if by_key else None
    drawn = draw_distinct(torch.full((draws,), 5), uniform(draws, 3, torch.device("cpu"), key=key))
    sets = Counter(map(frozenset, drawn.tolist()))
    assert set(sets) == set(map(frozenset, combinations(range(5), 3)))
    # Ten sets: the chi-square statistic of nine degrees of freedom passes 27.9 once in a thousand.
    expected = draws / 10
    assert sum((count - expected) ** 2 / expected for count in sets.values()) < 27.9


def test_the_largest_chance_stays_below_its_stop():
    stop = torch.tensor([3, 5, 2**31 - 1, 2**31 + 1, 10**12])
    chance = torch.full((5, 1), 1 - 2.0**-53, dtype=torch.double)
    assert torch.equal(draw_distinct(stop, chance).squeeze(1), stop - 1)
