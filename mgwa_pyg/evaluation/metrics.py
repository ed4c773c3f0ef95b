"""Click-prediction metrics, computed once over all rows."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.metrics import accuracy_score, f1_score, roc_auc_score
from torch import Tensor
from torch_geometric.data import HeteroData

from mgwa_pyg.datasets.interactions import interactions


def as_array(value: Any) -> NDArray[Any]:
    """Return an array of the same values, of a tensor of any type and device, with a gradient or without."""
    if isinstance(value, Tensor):
        value = value.detach().cpu()
        if value.is_floating_point():
            value = value.double()  # NumPy knows no bfloat16.
    return np.asarray(value)


def click_metrics(label: ArrayLike, score: ArrayLike, threshold: float = 0.5) -> dict[str, float]:
    r"""Return AUC, ACC and F1 (equation 12) of predicted click probabilities.

    Args:
        label (array): 1 for a click and 0 for none, :math:`(n)`.
        score (array): The predicted probabilities, :math:`(n)`.
        threshold (float, optional): A click is predicted from this probability on.
            (default: :obj:`0.5`)

    Raises:
        ValueError: If a score is not a finite number, or the labels are not of both kinds.
    """
    label, score = _check(label, score)
    predicted = score >= threshold
    return {
        "auc": float(roc_auc_score(label, score)),
        "acc": float(accuracy_score(label, predicted)),
        "f1": float(f1_score(label, predicted)),
    }


def user_auc(label: ArrayLike, score: ArrayLike, user: ArrayLike) -> float:
    r"""Return the mean over users of the AUC of each user's own rows.

    A user counts whose rows are of both kinds. Rows of different users are never compared, so it does not
    help to score all rows of some users higher than those of others.

    Args:
        label (array): 1 for a click and 0 for none, :math:`(n)`.
        score (array): The scores, :math:`(n)`; a tie counts one half.
        user (array): The users, :math:`(n)`.

    Raises:
        ValueError: If no user has rows of both kinds, or as :func:`click_metrics` raises it.
    """
    return float(user_aucs(label, score, user)[1].mean())


def user_aucs(
    label: ArrayLike, score: ArrayLike, user: ArrayLike
) -> tuple[NDArray[np.generic], NDArray[np.float64]]:
    r"""Return the users with rows of both kinds, ascending, :math:`(m)`, and the AUC of each one's own rows,
    :math:`(m)`.

    Arguments and errors are those of :func:`user_auc`.
    """
    label, score = _check(label, score)
    user = as_array(user)
    if user.shape != label.shape:
        raise ValueError(f"user has shape {user.shape}, but label has shape {label.shape}")
    order = np.lexsort([score, user])
    label, score = label[order], score[order]
    users, start, user = np.unique(user[order], return_index=True, return_inverse=True)

    # Rows of one user and one score share the mean of their places.
    is_new = (np.diff(user, prepend=-1) != 0) | (np.diff(score, prepend=0) != 0)
    tie = np.cumsum(is_new) - 1
    size = np.bincount(tie)
    rank = (np.cumsum(size) - (size - 1) / 2)[tie] - start[user]

    positives = np.bincount(user, weights=label)
    negatives = np.bincount(user) - positives
    both = (positives > 0) & (negatives > 0)
    if not both.any():
        raise ValueError(f"none of the {len(both)} users has rows of both labels, so no AUC is defined")
    # The Mann-Whitney statistic: the ranks of the clicks beyond the least that they could sum up to.
    wins = np.bincount(user, weights=rank * label) - positives * (positives + 1) / 2
    return users[both], wins[both] / (positives * negatives)[both]


def best_threshold(label: ArrayLike, score: ArrayLike) -> float:
    r"""Return the threshold from which on predicting a click gives the highest accuracy.

    It lies midway between neighbouring scores, so that it carries over to other rows. Of several that are
    as good, it is the lowest. Where all rows are best called a click, it is the lowest score; where none
    is, the next number after the highest.

    Args:
        label (array): 1 for a click and 0 for none, :math:`(n)`.
        score (array): The scores, :math:`(n)`.

    Raises:
        ValueError: As :func:`click_metrics` raises it.
    """
    label, score = _check(label, score)
    distinct, position = np.unique(score, return_inverse=True)
    clicks = np.bincount(position, weights=label)
    others = np.bincount(position) - clicks
    # Threshold k lets the k lowest distinct scores be no click: their other rows become right.
    gain = np.concatenate([[0], np.cumsum(others - clicks)])
    best = int(gain.argmax())
    if best == 0:
        return float(distinct[0])
    if best == len(distinct):
        return float(np.nextafter(distinct[-1], np.inf))
    lower, upper = distinct[best - 1 : best + 1]
    middle = lower + (upper - lower) / 2
    return float(middle if middle > lower else upper)  # Neighbouring floats have nothing between them.


def click_report(data: HeteroData, val_score: ArrayLike, test_score: ArrayLike) -> dict[str, float | None]:
    r"""Return all click metrics of one model on one data set.

    The keys are :obj:`auc`, :obj:`acc` and :obj:`f1` of :func:`click_metrics`; :obj:`auc_user` of
    :func:`user_auc`; :obj:`auc_warm` and :obj:`auc_cold`, the AUC of the rows whose item has, or has not,
    a training positive, and :obj:`None` where these rows are not of both kinds; :obj:`threshold`, the
    :func:`best_threshold` of the validation rows, and :obj:`acc_calibrated` and :obj:`f1_calibrated` at
    it. All but the threshold are of the test rows.

    Args:
        data (HeteroData): A data set in the schema of :mod:`mgwa_pyg.datasets`.
        val_score (array): The probabilities of the rows that :obj:`val_mask` selects, in their order.
        test_score (array): The probabilities of the rows that :obj:`test_mask` selects, in their order.

    Raises:
        ValueError: If the scores do not fit the rows, or as the functions named above raise it.
    """
    links = interactions(data)
    val_label = as_array(links.edge_label[links.val_mask])
    label = as_array(links.edge_label[links.test_mask])
    val_score, score = as_array(val_score), as_array(test_score).astype(np.float64)
    user, item = as_array(links.edge_label_index[:, links.test_mask])
    for name, given, rows in (("val", val_score, val_label), ("test", score, label)):
        if given.shape != rows.shape:
            raise ValueError(
                f"{name}_score has shape {given.shape}, but {name}_mask selects {len(rows)} rows: pass one "
                f"probability for each of them"
            )
    warm = np.isin(item, as_array(links.edge_index[1]))
    threshold = best_threshold(val_label, val_score)
    calibrated = click_metrics(label, score, threshold)
    return {
        **click_metrics(label, score),
        "auc_user": user_auc(label, score, user),
        "auc_warm": _auc_or_none(label[warm], score[warm]),
        "auc_cold": _auc_or_none(label[~warm], score[~warm]),
        "threshold": threshold,
        "acc_calibrated": calibrated["acc"],
        "f1_calibrated": calibrated["f1"],
    }


def _auc_or_none(label: NDArray[np.floating], score: NDArray[np.float64]) -> float | None:
    return float(roc_auc_score(label, score)) if len(np.unique(label)) == 2 else None


def _check(label: ArrayLike, score: ArrayLike) -> tuple[NDArray[np.generic], NDArray[np.float64]]:
    label, score = as_array(label), as_array(score).astype(np.float64)
    if label.shape != score.shape:
        raise ValueError(f"label has shape {label.shape}, but score has shape {score.shape}")
    if not np.isfinite(score).all():
        raise ValueError(f"score holds {int((~np.isfinite(score)).sum())} values that are not finite")
    if not np.array_equal(np.unique(label), [0, 1]):
        raise ValueError(f"label must hold both 0 and 1, but holds {np.unique(label).tolist()}")
    return label, score
