"""Negative sampling and splits, as pure functions on arrays."""

import numpy as np
import numpy.typing as npt

from mgwa_pyg.datasets.raw import IntArray, index_type

TRAIN, VAL, TEST = 0, 1, 2


def have_negatives(user: npt.NDArray[np.integer], num_users: int, pool_size: int) -> npt.NDArray[np.bool_]:
    r"""Return which positives a negative goes with: all, or as many of each user's first ones as there are
    candidates left.

    Args:
        user (np.ndarray): The users of the positives, sorted. [num_positives]
        num_users (int): The number of users.
        pool_size (int): The number of candidates.
    """
    count = np.bincount(user, minlength=num_users)
    free = pool_size - count
    if (count <= free).all():
        return np.ones(len(user), dtype=bool)
    return np.arange(len(user)) - (count.cumsum() - count)[user] < free[user]


def sample_negatives(
    positives: IntArray, num_users: int, pool_size: int, generator: np.random.Generator
) -> IntArray:
    r"""Draw as many negatives for each user as the user has positives, or as there are: uniformly, without
    replacement, from the candidates :math:`0, \ldots, \textrm{pool\_size} - 1` that are none of the
    user's positives.

    Args:
        positives (np.ndarray): The pairs of user and item, distinct, and sorted by user and then by
            item. [num_positives, 2]
        num_users (int): The number of users.
        pool_size (int): The number of candidates.
        generator (np.random.Generator): The source of randomness.

    Returns:
        np.ndarray: The pairs of user and negative, sorted by user and in random order within a
        user; see :func:`have_negatives` for how many. [num_negatives, 2]
    """
    item = positives[:, 1]
    count = np.bincount(positives[:, 0], minlength=num_users)
    free = pool_size - count
    user = positives[have_negatives(positives[:, 0], num_users, pool_size), 0]
    wanted = np.minimum(count, free)

    # Draw distinct ranks among a user's free candidates …
    rank = np.empty(len(user), dtype=np.int64)
    crowded = 2 * wanted > free
    in_crowd = crowded[user]
    rank[in_crowd] = _ranks_by_shuffling(wanted[crowded], free[crowded], generator)
    rank[~in_crowd] = _ranks_by_rejection(user[~in_crowd], free, generator)

    # … and turn rank r into a candidate by counting the positives below it: the j-th positive p is
    # below if p - j <= r. All users are searched at once, by halves.
    start = np.cumsum(count) - count
    kind = index_type(2 * max(len(positives), pool_size))  # Half the memory where that is enough.
    start = start.astype(kind)
    below = item.astype(kind)
    below -= np.arange(len(item), dtype=kind)
    below += start[positives[:, 0]]
    start = start[user]
    most = count.astype(kind)[user]
    shift = np.zeros(len(user), dtype=kind)
    for bit in reversed(range(int(count.max()).bit_length())):
        more = np.minimum(shift + 2**bit, most)
        np.copyto(shift, more, where=below[start + more - 1] <= rank)
    return np.stack([user, rank + shift], axis=1)


def _ranks_by_shuffling(count: IntArray, free: IntArray, generator: np.random.Generator) -> IntArray:
    """Shuffle all ranks of every user and take the first ones."""
    user = np.repeat(np.arange(len(free)), free)
    start = np.cumsum(free) - free
    order = np.lexsort([generator.random(len(user)), user])
    rank = np.arange(len(user)) - start[user]
    return (order - start[user])[rank < count[user]]


def _ranks_by_rejection(user: IntArray, free: IntArray, generator: np.random.Generator) -> IntArray:
    """Draw all ranks, and draw those again that the same user has already."""
    rank = generator.integers(free[user])
    # Most users are done, and equal keys tell which are not. A product beyond 64 bits makes other
    # keys equal too; the user is then looked at in vain.
    key = user * free.max() + rank
    order = np.argsort(key)
    has_repeated = np.zeros(len(free), dtype=bool)
    has_repeated[user[order[1:][np.diff(key[order]) == 0]]] = True
    row = np.flatnonzero(has_repeated[user])

    is_open = np.ones(len(row), dtype=bool)
    while is_open.any():
        # Settled rows sort first among equals, so that a repetition is always a new draw.
        row_user, row_rank = user[row], rank[row]
        order = np.lexsort([is_open, row_rank, row_user])
        repeated = (np.diff(row_user[order]) == 0) & (np.diff(row_rank[order]) == 0)
        is_open[:] = False
        is_open[order[1:][repeated]] = True
        rank[row[is_open]] = generator.integers(free[row_user[is_open]])
    return rank


def random_parts(num_rows: int, generator: np.random.Generator) -> npt.NDArray[np.int8]:
    r"""Assign rows to :obj:`TRAIN`, :obj:`VAL` and :obj:`TEST` at random as 6:2:2, the last two
    parts rounded down.

    Args:
        num_rows (int): The number of rows.
        generator (np.random.Generator): The source of randomness.

    Returns:
        np.ndarray: The part of each row. [num_rows]
    """
    size = int(0.2 * num_rows)
    parts = np.full(num_rows, TRAIN, dtype=np.int8)
    order = np.arange(num_rows, dtype=index_type(num_rows))
    generator.shuffle(order)
    parts[order[:size]] = VAL
    parts[order[size : 2 * size]] = TEST
    return parts


def parts_by_user(user: npt.NDArray[np.integer], generator: np.random.Generator) -> npt.NDArray[np.int8]:
    r"""Assign each user's rows to :obj:`TRAIN`, :obj:`VAL` and :obj:`TEST` at random as 8:1:1.

    Users follow one another in random order, each with the rows in random order. Of every ten rows, whoever
    has them, the fifth is for validation and the tenth for test. So either part has :math:`n / 10` of a
    user's :math:`n` rows, rounded up or down, and all users together are 8:1:1. No two rows in succession
    are held out: a user with several rows has one in training. The row of a user with a single one is in
    training, and is not counted among the ten.

    Args:
        user (np.ndarray): The user of each row, in any order. [num_rows]
        generator (np.random.Generator): The source of randomness.

    Returns:
        np.ndarray: The part of each row. [num_rows]
    """
    parts = np.full(len(user), TRAIN, dtype=np.int8)
    count = np.bincount(user)
    place = generator.permutation(len(count))
    order = np.lexsort([generator.random(len(user)), place[user]])
    order = order[count[user[order]] > 1]
    parts[order[4::10]] = VAL
    parts[order[9::10]] = TEST
    return parts


def parts_in_order(place: npt.NDArray[np.integer]) -> npt.NDArray[np.int8]:
    r"""Assign rows to :obj:`TRAIN`, :obj:`VAL` and :obj:`TEST` in their order, as 6:2:2, the last two parts
    rounded down.

    Args:
        place (np.ndarray): The place of each row in the order; no two have the same. [num_rows]

    Returns:
        np.ndarray: The part of each row. [num_rows]
    """
    size = int(0.2 * len(place))
    parts = np.full(len(place), TRAIN, dtype=np.int8)
    order = np.argsort(place)
    parts[order[len(order) - 2 * size :]] = VAL
    parts[order[len(order) - size :]] = TEST
    return parts


def last_parts(user: npt.NDArray[np.integer], place: npt.NDArray[np.integer]) -> npt.NDArray[np.int8]:
    r"""Assign each user's last row to :obj:`TEST` and the one before to :obj:`VAL`, as long as one is left
    for :obj:`TRAIN`.

    Args:
        user (np.ndarray): The user of each row, in any order. [num_rows]
        place (np.ndarray): The place of each row in the order; no two have the same. [num_rows]

    Returns:
        np.ndarray: The part of each row. [num_rows]
    """
    parts = np.full(len(user), TRAIN, dtype=np.int8)
    order = np.lexsort([place, user])
    count = np.bincount(user)
    last = count.cumsum() - 1
    parts[order[last[count > 2] - 1]] = VAL
    parts[order[last[count > 1]]] = TEST
    return parts
