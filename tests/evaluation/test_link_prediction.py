"""Filtered ranks and their metrics against loops."""

import pytest
import torch

from mgwa_pyg.evaluation.link_prediction import filtered_ranks, link_prediction_metrics


def naive_ranks(score, target, known):
    pairs = set(zip(*known, strict=True))
    ranks = []
    for row, own in enumerate(target):
        rivals = [s for i, s in enumerate(score[row]) if i != own and (row, i) not in pairs]
        better = sum(s > score[row][own] for s in rivals)
        tied = sum(s == score[row][own] for s in rivals)
        # The mean of the places that the tie takes up.
        places = range(better + 1, better + tied + 2)
        ranks.append(sum(places) / len(places))
    return ranks


@pytest.mark.parametrize("levels", [3, 1000])
def test_ranks_equal_the_loops(levels):
    generator = torch.Generator().manual_seed(levels)
    score = torch.randint(levels, (40, 25), generator=generator) / levels
    target = torch.randint(25, (40,), generator=generator)
    known = torch.stack([torch.randint(n, (200,), generator=generator) for n in (40, 25)])
    with_targets = torch.cat([known, torch.stack([torch.arange(40), target])], dim=1)
    want = naive_ranks(score.tolist(), target.tolist(), known.tolist())
    assert filtered_ranks(score, target, known).tolist() == want
    assert filtered_ranks(score, target, with_targets).tolist() == want


def test_ranks_by_hand():
    score = torch.tensor([[0.9, 0.5, 0.7, 0.5]] * 3)
    target = torch.tensor([1, 1, 0])
    known = torch.tensor([[1, 1, 1], [0, 2, 1]])
    assert filtered_ranks(score, target, known).tolist() == [3.5, 1.5, 1.0]
    nothing = torch.empty(2, 0, dtype=torch.long)
    assert filtered_ranks(torch.zeros(1, 5), torch.tensor([3]), nothing).tolist() == [3.0]


def test_metrics_by_hand():
    got = link_prediction_metrics(torch.tensor([[1.0, 10.0], [10.5, 4.0]]))
    assert got == pytest.approx({"mrr": (1 + 0.1 + 1 / 10.5 + 0.25) / 4, "hits@10": 0.75})


def test_bad_input():
    score, target = torch.zeros(2, 3), torch.tensor([0, 2])
    known = torch.tensor([[0], [1]])
    with pytest.raises(ValueError, match=r"shapes \(2, 3\), \(1,\) and \(2, 1\)"):
        filtered_ranks(score, target[:1], known)
    with pytest.raises(ValueError, match=r"shapes \(2, 3\), \(2,\) and \(1, 1\)"):
        filtered_ranks(score, target, known[:1])
    with pytest.raises(ValueError, match=r"known\[1\] spans 3 to 3, but must lie in \[0, 3\)"):
        filtered_ranks(score, target, known + torch.tensor([[0], [2]]))
    with pytest.raises(ValueError, match=r"target spans -1 to 1"):
        filtered_ranks(score, target - 1, known)
    with pytest.raises(ValueError, match="score holds 6 values that are not finite"):
        filtered_ranks(score * float("nan"), target, known)
    with pytest.raises(ValueError, match="nothing to take the mean of"):
        link_prediction_metrics(torch.empty(2, 0))
    with pytest.raises(ValueError, match=r"ranks holds 0\.0"):
        link_prediction_metrics(torch.tensor([1.0, 0.0]))
