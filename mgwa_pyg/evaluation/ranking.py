"""Full ranking: every user's held-out items among all items that the user has not seen."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor
from torch_geometric.data import HeteroData

from mgwa_pyg.datasets.interactions import interactions
from mgwa_pyg.utils.checks import check_range, check_tensors, forms
from mgwa_pyg.utils.ranges import ranges

ScoreAll = Callable[[Tensor], Tensor]

_FORMS = forms(user="index: users", item="index: users k")
# What is no longer to be found when a split is ranked.
_MASKED = {"val": ("train",), "test": ("train", "val")}


class TopItems(NamedTuple):
    r"""The best items of the users that have a positive in a split, best first."""

    user: Tensor
    r"""The users, ascending, :math:`(n)`."""
    item: Tensor
    r"""Their items, :math:`(n, k)`; -1 where no item is left."""
    score: Tensor
    r"""The items' scores, :math:`(n, k)`; :math:`-\infty` where no item is left."""


def full_ranking(
    score_all: ScoreAll,
    data: HeteroData,
    num_items: int,
    ks: Sequence[int] = (10, 20),
    split: str = "test",
    users_per_step: int = 64,
) -> dict[str, float]:
    r"""Return recall, NDCG and MRR of the first :math:`k` of all items, ranked for each user.

    These are the means of :func:`ranking_metrics` over the users that have a positive in :obj:`split`, with
    their :func:`top_items`.

    Args:
        score_all (callable): As :func:`top_items` takes it.
        data (HeteroData): A data set in the schema of :mod:`mgwa_pyg.datasets`.
        num_items (int): The number of items: the first entities.
        ks (sequence of int, optional): The lengths of the rankings. (default: :obj:`(10, 20)`)
        split (str, optional): :obj:`"val"` or :obj:`"test"`. (default: :obj:`"test"`)
        users_per_step (int, optional): Users scored at once. (default: :obj:`64`)

    Returns:
        dict[str, float]: ``recall@k``, ``ndcg@k`` and ``mrr@k`` for each of the :obj:`ks`.

    Raises:
        ValueError: If an argument is none of the allowed values, a positive is no item, the split has no
            positive, or scores have another shape or are not finite.
    """
    _check_split(split)
    if len(ks) == 0 or min(ks) < 1 or users_per_step < 1:
        raise ValueError(f"ks={tuple(ks)} and users_per_step={users_per_step}: each must be at least 1")
    top = top_items(score_all, data, num_items, max(ks), split, users_per_step)
    metrics = ranking_metrics(top, data, num_items, split, ks)
    return {name: float(value.mean()) for name, value in metrics.items()}


@torch.no_grad()
def top_items(
    score_all: ScoreAll,
    data: HeteroData,
    num_items: int,
    k: int = 10,
    split: str = "test",
    users_per_step: int = 64,
) -> TopItems:
    r"""Return the :math:`k` best of all items for each user that has a positive in a split.

    The training positives take no part in the ranking, nor do the validation positives when the test
    positives are to be found; all other items do. Items with equal scores are ranked by their index, the
    lower first.

    Args:
        score_all (callable): Takes users, :math:`(n)`, on the device of the data, and returns their scores of
            all items, the higher the better, :math:`(n, \textrm{num\_items})`, on any device. It is
            called without gradients; a model is to be in evaluation mode.
        data (HeteroData): A data set in the schema of :mod:`mgwa_pyg.datasets`.
        num_items (int): The number of items: the first entities.
        k (int, optional): The length of the rankings. (default: :obj:`10`)
        split (str, optional): :obj:`"val"` or :obj:`"test"`. (default: :obj:`"test"`)
        users_per_step (int, optional): Users scored at once. (default: :obj:`64`)

    Raises:
        ValueError: If an argument is none of the allowed values, a positive is no item, the split has no
            positive, or scores have another shape or are not finite.
    """
    _check_split(split)
    if k < 1 or users_per_step < 1:
        raise ValueError(f"k={k} and users_per_step={users_per_step}: each must be at least 1")
    truth = _positives(data, (split,), num_items)
    if truth.size(1) == 0:
        raise ValueError(f"split={split!r} has no positive: there is nothing to find")
    masked = _positives(data, _MASKED[split], num_items)
    users = truth[0].unique_consecutive()
    items, scores = [], []
    for user in users.split(users_per_step):
        score = score_all(user)
        if score.shape != (len(user), num_items):
            raise ValueError(
                f"score_all returned the shape {tuple(score.shape)}, but {(len(user), num_items)} is needed: "
                f"one row a user, one column an item"
            )
        if not score.isfinite().all():
            raise ValueError(
                f"score_all returned {int((~score.isfinite()).sum())} values that are not finite for the "
                f"users {int(user[0])} to {int(user[-1])}"
            )
        item, score = _top(score, _of_users(masked, user).to(score.device), k)
        items.append(item.to(truth.device))
        scores.append(score.to(truth.device))
    return TopItems(users, torch.cat(items), torch.cat(scores))


def ranking_metrics(
    top: TopItems | tuple[Tensor, Tensor],
    data: HeteroData,
    num_items: int,
    split: str = "test",
    ks: Sequence[int] = (10, 20),
) -> dict[str, npt.NDArray[np.float64]]:
    r"""Return recall, NDCG and MRR of each user's first :math:`k` items.

    What is to be found are the positives of :obj:`split`. The values are those of
    :class:`~torch_geometric.metrics.LinkPredRecall`, :class:`~torch_geometric.metrics.LinkPredNDCG` and
    :class:`~torch_geometric.metrics.LinkPredMRR` for one user at a time.

    Args:
        top (tuple): Users, :math:`(n)`, and distinct items of each, best first, :math:`(n, k)`, as
            :func:`top_items` returns them; -1 stands for none.
        data (HeteroData): A data set in the schema of :mod:`mgwa_pyg.datasets`.
        num_items (int): The number of items: the first entities.
        split (str, optional): :obj:`"val"` or :obj:`"test"`. (default: :obj:`"test"`)
        ks (sequence of int, optional): The lengths of the rankings, no more than there are places.
            (default: :obj:`(10, 20)`)

    Returns:
        dict[str, np.ndarray]: ``recall@k``, ``ndcg@k`` and ``mrr@k`` for each of the :obj:`ks`, :math:`(n)`.

    Raises:
        ValueError: If an argument is none of the allowed values, a positive is no item, or a user has no
            positive in the split.
        IndexError: If a user is out of range.
    """
    _check_split(split)
    user, item = top[:2]
    num_users = int(data["user"].num_nodes)
    check_tensors(_FORMS, {"user": user, "item": item})
    check_range("user", user, num_users, "the number of users")
    user, item = user.cpu().long(), item.cpu().long()
    if len(ks) == 0 or min(ks) < 1 or max(ks) > item.size(1):
        raise ValueError(f"ks={tuple(ks)}: from 1 to {item.size(1)} is needed, as so many items are ranked")
    pairs = _positives(data, (split,), num_items).cpu()
    count = torch.bincount(pairs[0], minlength=num_users)[user].double()
    if (count == 0).any():
        raise ValueError(
            f"user {int(user[count == 0][0])} has no positive in split={split!r}: leave out such users"
        )
    key = user.unsqueeze(1) * num_items + item
    is_hit = (torch.isin(key, pairs[0] * num_items + pairs[1]) & (item >= 0)).double()
    place = torch.arange(1, item.size(1) + 1).double()
    gain = 1 / (place + 1).log2()
    best = gain.cumsum(0)
    metrics = {}
    for k in ks:
        hit = is_hit[:, :k]
        metrics[f"recall@{k}"] = hit.sum(dim=1) / count
        metrics[f"ndcg@{k}"] = hit @ gain[:k] / best[count.clamp(max=k).long() - 1]
        metrics[f"mrr@{k}"] = (hit / place[:k]).amax(dim=1)
    return {name: value.numpy() for name, value in metrics.items()}


def _check_split(split: str) -> None:
    if split not in _MASKED:
        raise ValueError(f"split={split!r} is unknown: choose 'val' or 'test'")


def _positives(data: HeteroData, splits: Sequence[str], num_items: int) -> Tensor:
    """Return the distinct pairs of user and item that are positives of the splits, sorted."""
    links = interactions(data)
    mask = torch.stack([links[f"{split}_mask"] for split in splits]).any(dim=0)
    pairs = links.edge_label_index[:, mask & (links.edge_label == 1)].unique(dim=1)
    if (pairs[1] >= num_items).any():
        raise ValueError(f"num_items={num_items}, but a positive is the entity {int(pairs[1].max())}")
    return pairs


def _of_users(pairs: Tensor, user: Tensor) -> Tensor:
    """Return the pairs of these users, with the row of the user in the user's place."""
    owner = pairs[0].contiguous()
    begin, end = (torch.searchsorted(owner, user, right=right) for right in (False, True))
    row, place = ranges(begin, end - begin)
    return torch.stack([row, pairs[1, place]])


def _top(score: Tensor, hidden: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Return the k best items of each row but the hidden cells, filled up with -1 where they run out, and
    their scores.
    """
    score = score.clone() if score.is_floating_point() else score.double()
    score[hidden[0], hidden[1]] = float("-inf")
    length = min(k, score.size(1))
    best, index = score.topk(length)
    # Which of the items that share the last score are taken is up to topk: such rows are sorted.
    shared = (score >= best[:, -1:]).sum(dim=1) > length
    index[shared] = _in_order(score[shared])[:, :length]
    index = index.sort(dim=1).values
    index = index.gather(1, _in_order(score.gather(1, index)))
    best = score.gather(1, index)
    index = index.masked_fill(best == float("-inf"), -1)
    left = (0, k - length)
    return F.pad(index, left, value=-1), F.pad(best, left, value=float("-inf"))


def _in_order(score: Tensor) -> Tensor:
    """Return the places of each row's scores, the highest first, equal ones as they stand."""
    return score.argsort(dim=1, descending=True, stable=True)
