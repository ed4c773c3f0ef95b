"""Whether one model is better than another: tests over repeated splits of the same data, and over users."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import bootstrap, monte_carlo_test, permutation_test
from scipy.stats import t as student

from mgwa_pyg.evaluation.metrics import as_array
from mgwa_pyg.utils.checks import check_count

CELLS = 2**21  # Values of resamples that are in memory at once.


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
    difference = _checked(difference, "split")
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


def paired_test(difference: ArrayLike, num_resamples: int = 10_000, seed: int = 0) -> dict[str, float]:
    r"""Return the paired permutation test of two models over the :math:`n` users of one split.

    If neither model is better, each user's difference might as well have the other sign. The test flips signs
    at random, or in all :math:`2^n` ways where these are no more than :obj:`num_resamples`, and counts how
    often the sum is as far from zero (Good, "Permutation, Parametric, and Bootstrap Tests of Hypotheses",
    2005, section 3.2). The interval is the percentile bootstrap of the mean over users. Both say how much the
    figure depends on who the users are; how much it depends on a model's seed they don't see.

    Args:
        difference (array): The difference of the two models' metric for each user, :math:`(n)`.
        num_resamples (int, optional): How many resamples the test and the interval each draw. (default:
            :obj:`10_000`)
        seed (int, optional): The seed of the resamples. (default: :obj:`0`)

    Returns:
        dict[str, float]: The ``mean``, the ends ``low`` and ``high`` of its 95 % interval, and the two-sided
        ``p`` of no difference, which is 1 where at most one user has any.

    Raises:
        ValueError: If there are fewer than two differences, one is not finite, or a count is out of range.
    """
    difference = _checked(difference, "user")
    num_resamples, seed = check_count("num_resamples", num_resamples), check_count("seed", seed, minimum=0)
    generator = np.random.default_rng(seed)
    options = {"vectorized": True, "n_resamples": num_resamples, "batch": max(1, CELLS // len(difference))}
    low, high = bootstrap(
        (difference,), np.mean, method="percentile", random_state=generator, **options
    ).confidence_interval
    moved = difference[difference != 0]  # No flip changes the others.

    def flipped(size: tuple[int, ...]) -> NDArray[np.float64]:
        return moved * generator.choice([-1.0, 1.0], size)

    if len(moved) < 2:
        p = 1.0
    elif 2 ** len(moved) <= num_resamples:
        p = permutation_test((moved,), np.sum, permutation_type="samples", **options).pvalue
    else:
        p = monte_carlo_test(moved, flipped, np.sum, **options).pvalue
    return {"mean": float(difference.mean()), "low": float(low), "high": float(high), "p": float(p)}


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


def _checked(difference: ArrayLike, what: str) -> NDArray[np.float64]:
    difference = as_array(difference).astype(np.float64)
    if difference.ndim != 1 or len(difference) < 2:
        raise ValueError(
            f"difference has shape {difference.shape}: one number a {what}, at least two, is needed"
        )
    if not np.isfinite(difference).all():
        raise ValueError(
            f"difference holds {int((~np.isfinite(difference)).sum())} values that are not finite"
        )
    return difference
