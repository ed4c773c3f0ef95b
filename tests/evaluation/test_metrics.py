"""The metrics against their definitions."""

import numpy as np
import pytest

from mgwa_pyg.evaluation import click_metrics


def naive_metrics(label, score, threshold):
    pairs = [
        (a > b) + 0.5 * (a == b)
        for a, la in zip(score, label, strict=True)
        if la == 1
        for b, lb in zip(score, label, strict=True)
        if lb == 0
    ]
    predicted = [s >= threshold for s in score]
    hits = sum(p and y == 1 for p, y in zip(predicted, label, strict=True))
    return {
        "auc": sum(pairs) / len(pairs),
        "acc": sum(p == (y == 1) for p, y in zip(predicted, label, strict=True)) / len(label),
        "f1": 2 * hits / (sum(predicted) + sum(label)),
    }


@pytest.mark.parametrize("threshold", [0.5, 0.3])
def test_values_equal_the_definitions(threshold):
    generator = np.random.default_rng(0)
    label = generator.integers(0, 2, 80)
    score = generator.random(80).round(1)  # Many ties, some of them at the threshold.
    got = click_metrics(label, score, threshold)
    assert got == pytest.approx(naive_metrics(label.tolist(), score.tolist(), threshold))


def test_bad_input():
    with pytest.raises(ValueError, match="1 values that are not finite"):
        click_metrics([0, 1], [0.1, float("nan")])
    with pytest.raises(ValueError, match=r"must hold both 0 and 1, but holds \[1\]"):
        click_metrics([1, 1], [0.1, 0.2])
    with pytest.raises(ValueError, match=r"label has shape \(3,\)"):
        click_metrics([0, 1, 1], [0.1, 0.2])
