"""The best of scores: what is never among them, and what comes first of equal ones."""

import torch

from mgwa_pyg.ops import top_k


def test_nan_is_never_ranked_first(monkeypatch):
    # As on an accelerator, where nobody looks at values.
    monkeypatch.setattr(top_k, "values_are_checked", lambda device: False)
    score = torch.tensor([[0.3, torch.nan, 0.5, -torch.nan], [torch.inf, torch.nan, -1.0, 2.0]])
    got = top_k.top_k(score, torch.arange(2), 3, 0, 4, None)
    assert got.item.tolist() == [[2, 0, 4], [0, 3, 2]]
    torch.testing.assert_close(got.score, torch.tensor([[0.5, 0.3, -torch.inf], [torch.inf, 2.0, -1.0]]))
    assert top_k.top_k(score[:, 1:2], torch.arange(2), 1, 1, 4, None).item.tolist() == [[4], [4]]


def test_products_rank_as_a_sort_of_each_user_s_scores():
    z_user, z_item = torch.randint(-2, 3, (5, 3)).float(), torch.randint(-2, 3, (9, 3)).float()  # With ties.
    users, exclude = torch.tensor([3, 0, 3]), torch.tensor([[3, 3, 1], [0, 7, 2]])
    got = top_k.rank_by_product(z_user, z_item, users, 9, exclude)
    for row, user in enumerate(users.tolist()):
        seen = exclude[1, exclude[0] == user].tolist()
        score = {item: float(z_user[user] @ z_item[item]) for item in range(9) if item not in seen}
        best = sorted(score, key=lambda item: (-score[item], item))
        assert got.item[row].tolist() == best + [9] * len(seen)
        assert got.score[row].tolist() == [score[item] for item in best] + [-torch.inf] * len(seen)
