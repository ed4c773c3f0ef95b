"""Full ranking: every user's held-out items among all items that the user has not seen."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch_geometric.data import HeteroData
from torch_geometric.metrics import LinkPredMetricCollection, LinkPredMRR, LinkPredNDCG, LinkPredRecall

from mgwa_pyg.datasets.interactions import interactions

_METRICS = {"recall": LinkPredRecall, "ndcg": LinkPredNDCG, "mrr": LinkPredMRR}
# What is no longer to be found when a split is ranked.
_MASKED = {"val": ("train",), "test": ("train", "val")}


@torch.no_grad()
def full_ranking(
    score_all: Callable[[Tensor], Tensor],
    data: HeteroData,
    num_items: int,
    ks: Sequence[int] = (10, 20),
    split: str = "test",
    users_per_step: int = 64,
) -> dict[str, float]:
    r"""Return recall, NDCG and MRR of the first :math:`k` of all items, ranked for each user.

    What is to be found are the positives of :obj:`split`. The training positives take no part in the
    ranking, nor do the validation positives when the test positives are ranked; all other items do. Items
    with equal scores are ranked by their index, the lower first. The metrics are those of
    :mod:`torch_geometric.metrics`, means over the users that have a positive in :obj:`split`.

    Args:
        score_all (callable): Takes users, :math:`(n)`, on the device of the data, and returns their scores of
            all items, the higher the better, :math:`(n, \textrm{num\_items})`, on any device. It is
            called without gradients; a model is to be in evaluation mode.
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
    if split not in _MASKED:
        raise ValueError(f"split={split!r} is unknown: choose 'val' or 'test'")
    if len(ks) == 0 or min(ks) < 1 or users_per_step < 1:
        raise ValueError(f"ks={tuple(ks)} and users_per_step={users_per_step}: each must be at least 1")
    truth = _positives(data, (split,), num_items)
    if truth.size(1) == 0:
        raise ValueError(f"split={split!r} has no positive: there is nothing to find")
    masked = _positives(data, _MASKED[split], num_items)
    metrics = LinkPredMetricCollection(
        {f"{name}@{k}": metric(k) for k in ks for name, metric in _METRICS.items()}
    )
    for user in torch.arange(data["user"].num_nodes, device=truth.device).split(users_per_step):
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
        top = _top(score, _rows(masked, user).to(score.device), max(ks))
        metrics.to(score.device).update(top, _rows(truth, user).to(score.device))
    return {name: float(value) for name, value in metrics.compute().items()}


def _positives(data: HeteroData, splits: Sequence[str], num_items: int) -> Tensor:
    """Return the distinct pairs of user and item that are positives of the splits, sorted."""
    links = interactions(data)
    mask = torch.stack([links[f"{split}_mask"] for split in splits]).any(dim=0)
    pairs = links.edge_label_index[:, mask & (links.edge_label == 1)].unique(dim=1)
    if (pairs[1] >= num_items).any():
        raise ValueError(f"num_items={num_items}, but a positive is the entity {int(pairs[1].max())}")
    return pairs


def _rows(pairs: Tensor, user: Tensor) -> Tensor:
    """Return the pairs of consecutive users, with the row of the user in the user's place."""
    low, high = torch.searchsorted(pairs[0].contiguous(), torch.stack([user[0], user[-1] + 1])).tolist()
    return pairs[:, low:high] - torch.stack([user[0], user.new_zeros(())]).unsqueeze(1)


def _top(score: Tensor, masked: Tensor, k: int) -> Tensor:
    """Return the best items of each row, filled up with an index that is no item where they run out."""
    if not score.is_floating_point():
        score = score.double()
    hidden = torch.zeros_like(score, dtype=torch.bool)
    hidden[masked[0], masked[1]] = True
    order = score.masked_fill(hidden, float("-inf")).argsort(dim=1, descending=True, stable=True)[:, :k]
    # Not -1, which the metrics of PyG take for the last item of the row before.
    return order.masked_fill(hidden.gather(1, order), score.size(1))
