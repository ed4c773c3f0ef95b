"""Negatives and splits: properties on random inputs, and the uniformity of the draw."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mgwa_pyg.datasets.splits import (
    TEST,
    TRAIN,
    VAL,
    _ranks_by_rejection,
    _ranks_by_shuffling,
    have_negatives,
    parts_by_user,
    random_parts,
    sample_negatives,
)


@st.composite
def interactions(draw):
    pool = draw(st.integers(2, 30))
    most = pool // 2
    users = draw(st.lists(st.sets(st.integers(0, pool - 1), max_size=most), min_size=1, max_size=8))
    pairs = [(user, item) for user, items in enumerate(users) for item in sorted(items)]
    return np.array(pairs, dtype=np.int64).reshape(-1, 2), len(users), pool


@settings(deadline=None, max_examples=200)
@given(interactions(), st.integers(0, 5))
def test_negatives_are_distinct_and_never_positive(case, seed):
    positives, num_users, pool = case
    negatives = sample_negatives(positives, num_users, pool, np.random.default_rng(seed))
    assert np.array_equal(negatives[:, 0], positives[:, 0])
    assert ((negatives[:, 1] >= 0) & (negatives[:, 1] < pool)).all()
    drawn = set(map(tuple, negatives.tolist()))
    assert len(drawn) == len(negatives)
    assert not drawn & set(map(tuple, positives.tolist()))
    again = sample_negatives(positives, num_users, pool, np.random.default_rng(seed))
    assert np.array_equal(negatives, again)


# The first takes more than half of the free candidates, the second fewer: two ways of drawing.
@pytest.mark.parametrize(("positive", "pool"), [([0, 2, 5], 7), ([1, 4], 9)])
def test_every_free_candidate_is_equally_likely(positive, pool):
    num_users = 20_000
    positives = np.stack(
        [np.repeat(np.arange(num_users), len(positive)), np.tile(positive, num_users)], axis=1
    )
    negatives = sample_negatives(positives, num_users, pool, np.random.default_rng(0))
    free = [item for item in range(pool) if item not in positive]
    expected = len(positives) / len(free)
    first = negatives[:: len(positive), 1]
    count, first_count = (np.bincount(x, minlength=pool)[free] for x in (negatives[:, 1], first))
    assert np.abs(count / expected - 1).max() < 0.03
    assert np.abs(first_count / (num_users / len(free)) - 1).max() < 0.06


def test_a_user_may_take_every_free_candidate():
    positives = np.array([[0, 1], [0, 3], [2, 0], [2, 1]])
    negatives = sample_negatives(positives, 3, 4, np.random.default_rng(0))
    assert sorted(negatives.tolist()) == [[0, 0], [0, 2], [2, 2], [2, 3]]


# Products of users and candidates do not fit into 64 bits here.
def test_a_huge_pool():
    num_users, pool = 5000, 2**62
    item = np.random.default_rng(1).integers(pool, size=(num_users, 20))
    positives = np.stack([np.repeat(np.arange(num_users), 20), np.sort(item, axis=1).ravel()], axis=1)
    negatives = sample_negatives(positives, num_users, pool, np.random.default_rng(0))
    assert np.array_equal(negatives[:, 0], positives[:, 0])
    assert ((negatives[:, 1] >= 0) & (negatives[:, 1] < pool)).all()
    # Each user's negatives rise evenly through the pool.
    rank = np.sort(negatives[:, 1].reshape(num_users, 20), axis=1).mean(axis=0) / pool
    np.testing.assert_allclose(rank, np.arange(1, 21) / 21, atol=0.005)


# A definition: each rank is looked up in the list of the user's free candidates.
def test_ranks_become_free_candidates():
    generator = np.random.default_rng(2)
    is_positive = generator.random((50, 40)) < generator.random((50, 1)) / 2.5
    positives = np.argwhere(is_positive)
    count = is_positive.sum(axis=1)
    crowded = 2 * count > 40 - count
    negatives = sample_negatives(positives, 50, 40, np.random.default_rng(3))

    generator = np.random.default_rng(3)
    shuffled = iter(_ranks_by_shuffling(count[crowded], 40 - count[crowded], generator))
    user = positives[~crowded[positives[:, 0]], 0]
    rejected = iter(_ranks_by_rejection(user, 40 - count, generator))
    for user, negative in negatives:
        rank = next(shuffled if crowded[user] else rejected)
        assert negative == np.flatnonzero(~is_positive[user])[rank]


def test_too_few_candidates():
    positives = np.array([[0, 0], [1, 0], [1, 1], [1, 2], [2, 0], [2, 1], [2, 2], [2, 3], [2, 4]])
    assert have_negatives(positives[:, 0], 4, 5).tolist() == [True] * 3 + [False] * 6
    negatives = sample_negatives(positives, 4, 5, np.random.default_rng(0))
    assert negatives[0].tolist() in [[0, item] for item in range(1, 5)]
    assert sorted(negatives[1:].tolist()) == [[1, 3], [1, 4]]


@pytest.mark.parametrize(
    ("num_rows", "sizes"), [(42346, [25408, 8469, 8469]), (14, [10, 2, 2]), (3, [3, 0, 0])]
)
def test_random_parts(num_rows, sizes):
    parts = random_parts(num_rows, np.random.default_rng(0))
    assert [int((parts == part).sum()) for part in (TRAIN, VAL, TEST)] == sizes
    assert np.array_equal(parts, random_parts(num_rows, np.random.default_rng(0)))
    if num_rows > 3:
        assert not np.array_equal(parts, random_parts(num_rows, np.random.default_rng(1)))


@settings(deadline=None, max_examples=200)
@given(st.lists(st.integers(0, 60), max_size=30), st.integers(0, 5))
def test_each_user_is_split(counts, seed):
    user = np.random.default_rng(seed).permutation(np.repeat(np.arange(len(counts)), counts))
    parts = parts_by_user(user, np.random.default_rng(seed))
    for one, count in enumerate(counts):
        sizes = np.bincount(parts[user == one], minlength=3)
        least, most = (count // 10, -(-count // 10)) if count > 1 else (0, 0)
        assert all(least <= size <= most for size in sizes[[VAL, TEST]])
        assert count == 0 or sizes[TRAIN] >= 1
    several = sum(count for count in counts if count > 1)
    assert (parts == VAL).sum() == (several + 5) // 10
    assert (parts == TEST).sum() == several // 10
    assert np.array_equal(parts, parts_by_user(user, np.random.default_rng(seed)))


def test_each_row_of_each_user_is_as_likely_held_out():
    user = np.repeat([0, 1, 2, 3], [2, 3, 7, 12])
    draws = np.stack([parts_by_user(user, np.random.default_rng(seed)) for seed in range(20_000)])
    # Of these 24 rows, the numbers 5 and 15 are for validation, and 10 and 20 for test.
    share = np.stack([(draws == part).mean(axis=0) for part in (VAL, TEST)])
    for one in range(4):
        own = share[:, user == one]
        np.testing.assert_allclose(own, own.mean(axis=1, keepdims=True) * np.ones_like(own), atol=0.01)
    np.testing.assert_allclose(share.sum(axis=1), 2, atol=1e-9)
