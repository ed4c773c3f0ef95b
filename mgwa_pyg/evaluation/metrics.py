"""Click-prediction metrics, computed once over all rows."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike
from sklearn.metrics import accuracy_score, f1_score, roc_auc_score


def click_metrics(label: ArrayLike, score: ArrayLike, threshold: float = 0.5) -> dict[str, float]:
    r"""Return AUC, ACC and F1 (eq. 12) of predicted click probabilities.

    Args:
        label (array): 1 for a click and 0 for none, :math:`(n)`.
        score (array): The predicted probabilities, :math:`(n)`.
        threshold (float, optional): A click is predicted from this probability on.
            (default: :obj:`0.5`)

    Raises:
        ValueError: If a score is not a finite number, or the labels are not of both kinds.
    """
    label = np.asarray(label)
    score = np.asarray(score, dtype=np.float64)
    if label.shape != score.shape:
        raise ValueError(f"label has shape {label.shape}, but score has shape {score.shape}")
    if not np.isfinite(score).all():
        raise ValueError(f"score holds {int((~np.isfinite(score)).sum())} values that are not finite")
    if not np.array_equal(np.unique(label), [0, 1]):
        raise ValueError(f"label must hold both 0 and 1, but holds {np.unique(label).tolist()}")
    predicted = score >= threshold
    return {
        "auc": float(roc_auc_score(label, score)),
        "acc": float(accuracy_score(label, predicted)),
        "f1": float(f1_score(label, predicted)),
    }
