"""The metrics against their definitions."""

from itertools import pairwise

import numpy as np
import pytest
import torch

from mgwa_pyg.datasets import SyntheticKG
from mgwa_pyg.evaluation.metrics import best_threshold, click_metrics, click_report, user_auc, user_aucs


def naive_auc(label, score):
    pairs = [
        (a > b) + 0.5 * (a == b)
        for a, la in zip(score, label, strict=True)
        if la == 1
        for b, lb in zip(score, label, strict=True)
        if lb == 0
    ]
    return sum(pairs) / len(pairs) if pairs else None


def naive_metrics(label, score, threshold):
    predicted = [s >= threshold for s in score]
    hits = sum(p and y == 1 for p, y in zip(predicted, label, strict=True))
    return {
        "auc": naive_auc(label, score),
        "acc": sum(p == (y == 1) for p, y in zip(predicted, label, strict=True)) / len(label),
        "f1": 2 * hits / (sum(predicted) + sum(label)),
    }


@pytest.mark.smoke
@pytest.mark.parametrize("threshold", [0.5, 0.3])
def test_values_equal_the_definitions(threshold):
    generator = np.random.default_rng(0)
    label = generator.integers(0, 2, 80)
    score = generator.random(80).round(1)  # Many ties, some of them at the threshold.
    got = click_metrics(label, score, threshold)
    assert got == pytest.approx(naive_metrics(label.tolist(), score.tolist(), threshold))


@pytest.mark.parametrize("dtype", [torch.half, torch.bfloat16, torch.float, torch.double])
def test_scores_as_a_model_gives_them(dtype):
    label = torch.randint(2, (80,))
    score = torch.rand(80).to(dtype).requires_grad_()
    rounded = score.detach().double()
    want = naive_metrics(label.tolist(), rounded.tolist(), 0.5)
    assert click_metrics(label.to(dtype), score) == pytest.approx(want)
    user = torch.arange(80) % 7
    assert user_auc(label, score, user) == user_auc(label.numpy(), rounded.numpy(), user.numpy())
    assert best_threshold(label, score) == best_threshold(label.numpy(), rounded.numpy())

    data = SyntheticKG(num_users=20, num_items=30, num_entities=60, num_triples=100)[0]
    links = data["user", "listens", "entity"]
    parts = [torch.rand(int(links[f"{part}_mask"].sum())).to(dtype) for part in ("val", "test")]
    want = click_report(data, *[part.double().numpy() for part in parts])
    assert click_report(data, *[part.requires_grad_() for part in parts]) == want


def test_bad_input():
    with pytest.raises(ValueError, match="1 values that are not finite"):
        click_metrics([0, 1], [0.1, float("nan")])
    with pytest.raises(ValueError, match=r"must hold both 0 and 1, but holds \[1\]"):
        click_metrics([1, 1], [0.1, 0.2])
    with pytest.raises(ValueError, match=r"label has shape \(3,\)"):
        click_metrics([0, 1, 1], [0.1, 0.2])


def naive_user_auc(label, score, user):
    aucs = []
    for one in sorted(set(user)):
        rows = [row for row, other in enumerate(user) if other == one]
        aucs.append(naive_auc([label[row] for row in rows], [score[row] for row in rows]))
    aucs = [auc for auc in aucs if auc is not None]
    return sum(aucs) / len(aucs)


@pytest.mark.parametrize("decimals", [1, 8])
def test_user_auc_equals_the_loop(decimals):
    generator = np.random.default_rng(1)
    user = generator.integers(0, 30, 150) * 7  # Some users have rows of one kind only.
    label = generator.integers(0, 2, 150)
    score = (generator.random(150) - 0.5).round(decimals)
    got = user_auc(label, score, user)
    assert got == pytest.approx(naive_user_auc(label.tolist(), score.tolist(), user.tolist()))
    assert any(len(set(label[user == one])) == 1 for one in user)
    users, aucs = user_aucs(label, score, user)
    both = [one for one in sorted(set(user.tolist())) if len(set(label[user == one])) == 2]
    assert users.tolist() == both
    assert aucs == pytest.approx([naive_auc(label[user == one], score[user == one]) for one in both])
    # What differs between users only does not count.
    assert user_auc(label, score + user, user) == pytest.approx(got)


def test_user_auc_refuses_what_has_no_answer():
    with pytest.raises(ValueError, match="none of the 2 users has rows of both labels"):
        user_auc([1, 0], [0.5, 0.5], [0, 1])
    with pytest.raises(ValueError, match=r"user has shape \(3,\), but label has shape \(2,\)"):
        user_auc([1, 0], [0.5, 0.5], [0, 1, 1])
    with pytest.raises(ValueError, match="1 values that are not finite"):
        user_auc([1, 0], [0.5, float("inf")], [0, 0])


def accuracy(label, score, threshold):
    return sum((s >= threshold) == (y == 1) for s, y in zip(score, label, strict=True)) / len(label)


@pytest.mark.parametrize("seed", range(20))
def test_best_threshold_equals_trying_all(seed):
    generator = np.random.default_rng(seed)
    score = generator.random(40).round(1 + seed % 2).tolist()
    label = [int(s + generator.normal() * 0.3 > 0.2 + seed / 40) for s in score]
    distinct = sorted(set(score))
    between = [(a + b) / 2 for a, b in pairwise(distinct)]
    candidates = [distinct[0], *between, distinct[-1] + 1e-12]
    accuracies = [accuracy(label, score, candidate) for candidate in candidates]
    lowest = candidates[accuracies.index(max(accuracies))]
    assert best_threshold(label, score) == pytest.approx(lowest)
    assert accuracy(label, score, best_threshold(label, score)) == max(accuracies)


def test_best_threshold_at_the_ends_and_between_neighbours():
    assert best_threshold([1, 1, 0], [0.2, 0.4, 0.4]) == 0.2  # All are best called a click.
    none = best_threshold([0, 0, 1], [1.0, 0.4, 0.4])
    assert none == np.nextafter(1.0, 2)
    assert best_threshold([0, 1], [0.2, 0.6]) == pytest.approx(0.4)
    upper = np.nextafter(0.3, 1)
    assert best_threshold([0, 1], [0.3, upper]) == upper
    with pytest.raises(ValueError, match="must hold both 0 and 1"):
        best_threshold([1, 1], [0.1, 0.2])


@pytest.fixture
def scored():
    """A small data set in which items are cold, and scores of its validation and test rows."""
    data = SyntheticKG(num_users=30, num_items=25, num_entities=60, num_interactions=120)[0]
    links = data["user", "listens", "entity"]
    links.edge_index = links.edge_index[:, links.edge_index[1] >= 10]
    generator = np.random.default_rng(0)
    noisy = 0.4 * links.edge_label.numpy() + 0.6 * generator.random(len(links.edge_label)).round(1)
    score = torch.from_numpy(0.5 * noisy).float()  # Badly calibrated: few reach one half.
    return data, score[links.val_mask], score[links.test_mask]


def test_report_equals_the_definitions(scored):
    data, val_score, test_score = scored
    links = data["user", "listens", "entity"]
    warm = set(links.edge_index[1].tolist())
    rows = [row for row, test in enumerate(links.test_mask.tolist()) if test]
    user, item = ([ids[row] for row in rows] for ids in links.edge_label_index.tolist())
    label = [int(links.edge_label[row]) for row in rows]
    score = test_score.tolist()
    threshold = best_threshold(links.edge_label[links.val_mask].numpy(), val_score.numpy())

    def auc_of(group):
        return naive_auc(
            [y for y, kept in zip(label, group, strict=True) if kept],
            [s for s, kept in zip(score, group, strict=True) if kept],
        )

    calibrated = naive_metrics(label, score, threshold)
    got = click_report(data, val_score, test_score)
    assert got == pytest.approx(
        {
            **naive_metrics(label, score, 0.5),
            "auc_user": naive_user_auc(label, score, user),
            "auc_warm": auc_of([one in warm for one in item]),
            "auc_cold": auc_of([one not in warm for one in item]),
            "threshold": threshold,
            "acc_calibrated": calibrated["acc"],
            "f1_calibrated": calibrated["f1"],
        }
    )
    assert len({got["auc"], got["auc_warm"], got["auc_cold"], got["auc_user"]}) == 4
    assert got["acc_calibrated"] > got["acc"]


def test_report_leaves_out_a_group_of_one_kind(scored):
    data, val_score, test_score = scored
    data["user", "listens", "entity"].edge_index = torch.empty(2, 0, dtype=torch.long)
    got = click_report(data, val_score, test_score)
    assert got["auc_warm"] is None
    assert got["auc_cold"] == pytest.approx(got["auc"])


def test_report_refuses_scores_of_other_rows(scored):
    data, val_score, test_score = scored
    with pytest.raises(ValueError, match=r"val_score has shape \(3,\), but val_mask selects 48 rows"):
        click_report(data, val_score[:3], test_score)
    with pytest.raises(ValueError, match=r"test_score has shape \(48, 1\), but test_mask selects 48 rows"):
        click_report(data, val_score, test_score[:, None])
