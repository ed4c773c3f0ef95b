"""The best of scores: the top k items of each user, what was seen left out."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from torch_geometric.utils import index_sort
from torch_geometric.utils.sparse import index2ptr

from mgwa_pyg.utils.checks import (
    check_count,
    check_no_nan,
    check_range,
    check_tensors,
    forms,
    values_are_checked,
)
from mgwa_pyg.utils.ranges import ranges

# How large a matrix of scores may become, in bytes: on the CPU it is to stay in the caches.
_MAX_BYTES = {"cpu": 2**23}
_MAX_BYTES_ELSEWHERE = 2**28

_FORMS = forms(users="index: users", exclude="index: 2 pairs")


class Ranking(NamedTuple):
    r"""The best items of :math:`n` users, best first."""

    item: Tensor
    r"""The items, :math:`(n, k)`; where they run out the number of items, which is none of them."""
    score: Tensor
    r"""Their logits, :math:`(n, k)`; where they run out :math:`-\infty`."""


def top_k(score: Tensor, users: Tensor, k: int, start: int, num_items: int, seen: Pairs | None) -> Ranking:
    """The best of the items from ``start`` on, whose scores these are; pairs that were seen are left out, and
    scores that are NaN where they are not checked.

    Of items with equal scores the one with the lower number comes first.
    """
    stop = start + score.size(1)
    if values_are_checked(score.device):
        check_no_nan(f"the matrix of scores of the items from {start} to {stop - 1}", score)
    else:
        score = score.masked_fill(score.isnan(), -torch.inf)  # Else they would come first.
    if seen is not None:
        score[seen.cells(users, start, stop)] = -torch.inf
    k = min(k, stop - start)
    if torch.compiler.is_compiling():  # Nothing may depend on values: all are sorted.
        index = _in_order(score)[:, :k]
        values = score.gather(1, index)
        return Ranking((index + start).masked_fill(values == -torch.inf, num_items), values)
    top = score.topk(k)
    # Which of the items that share the last score are taken is up to topk: such rows are sorted.
    shared = ((score >= top.values[:, -1:]).sum(dim=1) > k).nonzero().squeeze(1)
    index = top.indices
    index[shared] = _in_order(score[shared])[:, :k]
    index = index.sort(dim=1).values
    values = score.gather(1, index)
    order = _in_order(values)
    index, values = index.gather(1, order), values.gather(1, order)
    return Ranking((index + start).masked_fill(values == -torch.inf, num_items), values)


def merged(first: Ranking, second: Ranking) -> Ranking:
    """The best of two parts of the items, as many as either holds; those of the first have lower numbers."""
    score, item = torch.cat([first.score, second.score], dim=1), torch.cat([first.item, second.item], dim=1)
    order = _in_order(score)[:, : first.score.size(1)]
    return Ranking(item.gather(1, order), score.gather(1, order))


def rank_by_product(
    z_user: Tensor,
    z_item: Tensor,
    users: Tensor,
    k: int,
    exclude: Tensor | None,
    more: Callable[[Tensor], Tensor] | None = None,
) -> Ranking:
    r"""Return the best items where the scores are inner products of users :math:`(U, d)` and items
    :math:`(M, d)`, and of what ``more`` adds to those of some users, :math:`(n, M)`; the other arguments and
    the errors are those of :meth:`NeighborhoodModel.rank`.
    """
    num_users, num_items = z_user.size(0), z_item.size(0)
    users = checked_users(users, num_users)
    check_k(k, num_items)
    seen = None if exclude is None else Pairs(exclude, num_users, num_items)
    block = max(1, max_bytes_on(z_item.device) // (num_items * z_item.element_size()))
    parts = []
    for part in (users[rows] for rows in parts_of(users.numel(), block)):
        score = z_user[part] @ z_item.t()
        score = score if more is None else score + more(part)
        parts.append(top_k(score, part, k, 0, num_items, seen))
    return Ranking(torch.cat([part.item for part in parts]), torch.cat([part.score for part in parts]))


def max_bytes_on(device: torch.device) -> int:
    """What one intermediate result may take on a device, in bytes."""
    return _MAX_BYTES.get(device.type, _MAX_BYTES_ELSEWHERE)


def parts_of(total: int, size: int) -> list[slice]:
    """Parts of that size; while compiling a single one, as the number of parts would be burnt in."""
    if torch.compiler.is_compiling():
        return [slice(0, total)]
    return [slice(start, min(start + size, total)) for start in range(0, total, size)]


def checked_users(users: Tensor, num_users: int) -> Tensor:
    """Return the users to be ranked as indices."""
    check_tensors(_FORMS, {"users": users})
    check_range("users", users, num_users, "the number of users")
    return users.long()


def check_k(k: int, num_items: int) -> None:
    """Refuse more items than there are."""
    if check_count("k", k) > num_items:
        raise ValueError(f"k={k}: between 1 and num_items={num_items} items can be ranked")


def _in_order(score: Tensor) -> Tensor:
    """The places of each row's scores, the highest first, equal ones as they stand."""
    return score.argsort(dim=1, descending=True, stable=True)


class Pairs:
    """Pairs of user and item, :math:`(2, P)`, to be looked up by user."""

    def __init__(self, pairs: Tensor, num_users: int, num_items: int) -> None:
        check_tensors(_FORMS, {"exclude": pairs})
        check_range("exclude[0]", pairs[0], num_users, "the number of users")
        check_range("exclude[1]", pairs[1], num_items, "num_items")
        pairs = pairs.long()
        user, order = index_sort(pairs[0], max_value=num_users)
        self._item = pairs[1][order]
        self._ptr = index2ptr(user, num_users)

    def has(self, user: int, item: int) -> bool:
        """Whether a pair is one of these."""
        return item in self._item[self._ptr[user] : self._ptr[user + 1]]

    def cells(self, users: Tensor, start: int, stop: int) -> tuple[Tensor, Tensor]:
        """Where the pairs lie in a matrix of these users and the items from ``start`` to before ``stop``."""
        begin = self._ptr[users]
        row, place = ranges(begin, self._ptr[users + 1] - begin)
        item = self._item[place]
        inside = (item >= start) & (item < stop)
        return row[inside], item[inside] - start
