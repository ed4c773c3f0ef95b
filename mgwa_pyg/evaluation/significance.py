"""Whether one model is better than another: tests over repeated splits of the same data."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import t as student

from mgwa_pyg.evaluation.metrics import as_array


def corrected_t_test(difference: ArrayLike, test_fraction: float) -> dict[str, float]:
    r"""Return the corrected resampled paired t test of two models over :math:`k` random splits.

    The training rows of random splits overlap, so their differences are not independent and the plain
    paired t test claims too much. `Nadeau and Bengio, "Inference for the Generalization Error" (2003)
    <https://doi.org/10.1023/A:1024068626366>`_ enlarge the variance of the mean to

    .. math::
        \left( \frac{1}{k} + \frac{n_{\textrm{test}}}{n_{\textrm{train}}} \right) s^2,

    with :math:`s^2` the sample variance of the differences and :math:`k - 1` degrees of freedom.

    Args:
        difference (array): The difference of the two models' metric on each split, :math:`(k)`.
        test_fraction (float): Test rows per training row, :math:`n_{\textrm{test}} / n_{\textrm{train}}`;
            :obj:`0` gives the plain paired t test.

    Returns:
        dict[str, float]: The ``mean``, the ends ``low`` and ``high`` of its 95 % interval, and the two-sided
        ``p`` of no difference. Where all differences are equal, ``p`` is 1 if they are zero and else 0.

    Raises:
        ValueError: If there are fewer than two differences, one is not finite, or the fraction is negative
            or not finite.
    """
    difference = as_array(difference).astype(np.float64)
    if difference.ndim != 1 or len(difference) < 2:
        raise ValueError(
            f"difference has shape {difference.shape}: one number a split, at least two, is needed"
        )
    if not np.isfinite(difference).all():
        raise ValueError(
            f"difference holds {int((~np.isfinite(difference)).sum())} values that are not finite"
        )
    if not 0 <= test_fraction < np.inf:
        raise ValueError(f"test_fraction={test_fraction}: give test rows per training row, 0 or more")
    k = len(difference)
    mean = float(difference.mean())
    if np.ptp(difference) == 0:  # The variance of equal numbers need not round to zero.
        return {"mean": mean, "low": mean, "high": mean, "p": float(mean == 0)}
    standard_error = float(np.sqrt((1 / k + test_fraction) * difference.var(ddof=1)))
    half = float(student.ppf(0.975, k - 1)) * standard_error
    p = float(2 * student.sf(abs(mean) / standard_error, k - 1))
    return {"mean": mean, "low": mean - half, "high": mean + half, "p": p}


def holm(p: ArrayLike) -> np.ndarray:
    r"""Return the p values of :math:`m` tests adjusted for being :math:`m`, :math:`(m)`.

    The step-down method of Holm, "A Simple Sequentially Rejective Multiple Test Procedure" (1979): rejecting
    where the adjusted value is at most :math:`\alpha` makes an error anywhere with probability
    :math:`\alpha` at most, however the tests depend on each other.

    Args:
        p (array): The p values, :math:`(m)`.

    Raises:
        ValueError: If :obj:`p` is no vector or holds what is no probability.
    """
    p = as_array(p).astype(np.float64)
    if p.ndim != 1:
        raise ValueError(f"p has shape {p.shape}, but one value a test is needed")
    valid = (p >= 0) & (p <= 1)
    if not valid.all():
        raise ValueError(f"p holds {p[~valid].tolist()}, but a p value lies between 0 and 1")
    order = np.argsort(p)
    steps = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1))
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(steps, 1)
    return adjusted
