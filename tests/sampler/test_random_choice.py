"""Draws by key against SplitMix64 in Python's own numbers, and against the chances that they should have."""

from collections import Counter
from itertools import combinations

import pytest
import torch

from mgwa_pyg.sampler import random_choice
from mgwa_pyg.sampler.random_choice import choose_distinct, derive_key, uniform

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


@pytest.mark.parametrize("few", [0, 48])  # Both ways of finding what is taken.
@pytest.mark.parametrize("by_key", [False, True])
def test_all_distinct_sets_are_equally_likely(by_key, few, monkeypatch):
    monkeypatch.setattr(random_choice, "_FEW", few)
    num_rows = 20_000
    key = torch.arange(num_rows) if by_key else None
    drawn = choose_distinct(torch.full((num_rows,), 5), uniform(num_rows, 3, torch.device("cpu"), key=key))
    sets = Counter(map(frozenset, drawn.tolist()))
    assert set(sets) == set(map(frozenset, combinations(range(5), 3)))
    # Ten sets: the chi-square statistic of nine degrees of freedom passes 27.9 once in a thousand.
    expected = num_rows / 10
    assert sum((count - expected) ** 2 / expected for count in sets.values()) < 27.9


def floyd(stop, chance):
    """Bentley and Floyd's algorithm, as published, one draw after the other."""
    drawn = []
    for newest, part in zip(range(stop - len(chance), stop), chance, strict=True):
        number = int(part * (newest + 1))
        drawn.append(newest if number in drawn else number)
    return drawn


@pytest.mark.parametrize("count", [1, 2, 48, 49, 200])
def test_many_draws_are_those_of_one_after_the_other(count):
    generator = torch.Generator().manual_seed(count)
    # From a set that is drawn as a whole to one in which hardly any number is hit twice.
    stop = torch.tensor([count, count, count + 1, count + 5, 2 * count, 10**6 + count])
    chance = uniform(stop.numel(), count, stop.device, generator)
    chance[1] = torch.linspace(0, 0.999, count, dtype=torch.double)  # Each hits a new number of its own.
    drawn = choose_distinct(stop, chance).tolist()
    assert drawn == [floyd(*row) for row in zip(stop.tolist(), chance.tolist(), strict=True)]
    assert all(len(set(row)) == count for row in drawn)


def test_the_work_grows_with_the_draws_and_not_with_their_square(monkeypatch):
    elements = 0

    class Count(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            nonlocal elements
            out = func(*args, **(kwargs or {}))
            parts = out if isinstance(out, (tuple, list)) else [out]
            elements += sum(part.numel() for part in parts if isinstance(part, torch.Tensor))
            return out

    work = []
    for count in (1_000, 16_000):
        stop, elements = torch.full((2,), 20_000), 0
        chance = uniform(2, count, stop.device, torch.Generator().manual_seed(0))
        with Count():
            choose_distinct(stop, chance)
        work.append(elements)
    assert work[1] < 2 * 16 * work[0]


def test_the_largest_chance_stays_below_its_stop():
    stop = torch.tensor([3, 5, 2**31 - 1, 2**31 + 1, 10**12])
    chance = torch.full((5, 1), 1 - 2.0**-53, dtype=torch.double)
    assert torch.equal(choose_distinct(stop, chance).squeeze(1), stop - 1)
