"""The tests over splits and users against integrating the t density, scipy, and worked examples."""

from itertools import product
from math import gamma, inf, pi, sqrt

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.stats import ttest_1samp

from mgwa_pyg.evaluation.significance import corrected_t_test, holm, paired_test

DIFFERENCE = [0.012, 0.004, -0.003, 0.009, 0.015]


def density(x, freedom):
    scale = gamma((freedom + 1) / 2) / (sqrt(freedom * pi) * gamma(freedom / 2))
    return scale * (1 + x * x / freedom) ** (-(freedom + 1) / 2)


@pytest.mark.parametrize("test_fraction", [0.0, 1 / 3, 0.25])
def test_the_corrected_test_equals_its_definition(test_fraction):
    k = len(DIFFERENCE)
    mean = sum(DIFFERENCE) / k
    variance = sum((d - mean) ** 2 for d in DIFFERENCE) / (k - 1)
    error = sqrt((1 / k + test_fraction) * variance)
    got = corrected_t_test(DIFFERENCE, test_fraction)
    assert got["mean"] == pytest.approx(mean)
    assert got["p"] == pytest.approx(2 * quad(density, mean / error, inf, args=(k - 1,))[0])
    assert mean - got["low"] == pytest.approx(got["high"] - mean)
    # The interval is 95 % of the t distribution around the mean.
    half = (got["high"] - mean) / error
    assert quad(density, -half, half, args=(k - 1,))[0] == pytest.approx(0.95)


def test_without_the_correction_it_is_the_plain_test():
    want = ttest_1samp(DIFFERENCE, 0)
    low, high = want.confidence_interval()
    got = corrected_t_test(DIFFERENCE, 0)
    assert got == pytest.approx({"mean": np.mean(DIFFERENCE), "low": low, "high": high, "p": want.pvalue})


def test_the_correction_claims_less():
    plain, corrected = corrected_t_test(DIFFERENCE, 0), corrected_t_test(DIFFERENCE, 1 / 3)
    assert corrected["p"] > plain["p"]
    # The factor is 1/5 + 1/3 in place of 1/5.
    widths = [(result["high"] - result["low"]) for result in (corrected, plain)]
    assert widths[0] / widths[1] == pytest.approx(sqrt((1 / 5 + 1 / 3) / (1 / 5)))
    opposite = corrected_t_test([-d for d in DIFFERENCE], 1 / 3)
    assert opposite["p"] == corrected["p"]
    assert opposite["low"] == -corrected["high"]


def test_equal_differences():
    assert corrected_t_test([0.0, 0.0, 0.0], 0.25) == {"mean": 0, "low": 0, "high": 0, "p": 1}
    got = corrected_t_test([0.1, 0.1, 0.1], 0.25)
    assert got["p"] == 0
    assert got["low"] == got["high"] == got["mean"] == pytest.approx(0.1)


@pytest.mark.parametrize("zeros", [0, 3, 40])
@pytest.mark.parametrize("seed", range(3))
def test_few_users_are_counted_out(seed, zeros):
    difference = np.random.default_rng(seed).normal(0.05, 0.1, 8).round(3)
    total = difference.sum()
    sums = [
        sum(sign * d for sign, d in zip(signs, difference, strict=True))
        for signs in product([1, -1], repeat=8)
    ]
    as_far = sum(abs(one) >= abs(total) - 1e-12 for one in sums)
    got = paired_test([*difference, *[0.0] * zeros])
    assert got["p"] == pytest.approx(as_far / 2**8)
    assert got["mean"] == pytest.approx(total / (8 + zeros))
    assert got["low"] < got["mean"] < got["high"]


def test_many_users_as_the_normal_distribution_has_it(monkeypatch):
    monkeypatch.setattr("mgwa_pyg.evaluation.significance.CELLS", 10_000)  # Many batches.
    difference = np.random.default_rng(0).exponential(size=2_000) - 0.96
    want = ttest_1samp(difference, 0)
    got = paired_test(difference, num_resamples=4_000)
    assert got["p"] == pytest.approx(want.pvalue, abs=0.02)
    assert 0.01 < got["p"] < 0.2
    assert [got["low"], got["high"]] == pytest.approx(want.confidence_interval(), abs=0.004)
    assert paired_test(difference, num_resamples=4_000) == got
    assert paired_test(difference, num_resamples=4_000, seed=1) != got
    opposite = paired_test(-difference, num_resamples=4_000)
    assert opposite["p"] == pytest.approx(got["p"], abs=0.02)


def test_users_without_a_difference():
    assert paired_test([0.0, 0.0, 0.0]) == {"mean": 0, "low": 0, "high": 0, "p": 1}
    assert paired_test([0.0, 0.5, 0.0])["p"] == 1
    assert paired_test([0.5, 0.5, 0.5])["p"] == pytest.approx(2 / 8)
    assert paired_test(np.full(200, 0.5), num_resamples=999)["p"] == pytest.approx(2 / 1000)


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.6]) == pytest.approx([1.0, 1.0])
    assert holm([0.2]) == pytest.approx([0.2])
    assert holm([]).tolist() == []


def test_holm_rejects_what_the_procedure_rejects():
    generator = np.random.default_rng(0)
    for _ in range(50):
        p = generator.choice([0.001, 0.004, 0.01, 0.02, 0.03, 0.3], size=6)  # With ties.
        rejected = set()
        for step, index in enumerate(sorted(range(6), key=lambda i: p[i])):
            if p[index] > 0.05 / (6 - step):
                break
            rejected.add(index)
        assert set(np.flatnonzero(holm(p) <= 0.05).tolist()) == rejected


def test_bad_input():
    with pytest.raises(ValueError, match=r"difference has shape \(1,\)"):
        corrected_t_test([0.1], 0.25)
    with pytest.raises(ValueError, match=r"difference has shape \(2, 2\)"):
        corrected_t_test(np.zeros((2, 2)), 0.25)
    with pytest.raises(ValueError, match="1 values that are not finite"):
        corrected_t_test([0.1, float("nan")], 0.25)
    with pytest.raises(ValueError, match=r"test_fraction=-0\.5"):
        corrected_t_test([0.1, 0.2], -0.5)
    with pytest.raises(ValueError, match=r"difference has shape \(1,\): one number a user"):
        paired_test([0.1])
    with pytest.raises(ValueError, match="1 values that are not finite"):
        paired_test([0.1, float("inf")])
    with pytest.raises(ValueError, match="num_resamples=0"):
        paired_test([0.1, 0.2], num_resamples=0)
    with pytest.raises(ValueError, match=r"p holds \[1\.5, nan\]"):
        holm([0.1, 1.5, float("nan")])
    with pytest.raises(ValueError, match=r"p has shape \(1, 1\)"):
        holm([[0.1]])
