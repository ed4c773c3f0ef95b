"""The blend of several scores against its definition."""

import pytest
import torch

from mgwa_pyg.evaluation import full_ranking
from mgwa_pyg.evaluation.blend import WEIGHTS, blend


def scores(dataset, seed):
    table = torch.randn(dataset.num_users, dataset.num_items, generator=torch.Generator().manual_seed(seed))
    return lambda user: table[user]


def standard(score):
    return (score - score.mean(dim=1, keepdim=True)) / score.std(dim=1, keepdim=True, correction=0)


def test_weights_are_those_of_the_best_validation_recall(synthetic):
    data, num_items = synthetic[0], synthetic.num_items
    listens = data["user", "listens", "entity"]
    held = listens.edge_label_index[:, listens.val_mask & (listens.edge_label == 1)]
    telling = torch.zeros(synthetic.num_users, num_items)
    telling[held[0, ::2], held[1, ::2]] = 1.0
    telling = telling + torch.arange(num_items) * 1e-6
    parts = {
        "noise": scores(synthetic, 0),
        "telling": lambda user: telling[user],
        "more": scores(synthetic, 1),
    }
    weights, blended = blend(parts, data, num_items)
    assert list(weights) == list(parts)
    assert weights["noise"] == 1.0
    assert weights["telling"] > 0

    def recall(*tried):
        def score_all(user):
            return sum(w * standard(part(user)) for w, part in zip(tried, parts.values(), strict=False))

        return full_ranking(score_all, data, num_items, (10,), "val")["recall@10"]

    second = max(WEIGHTS, key=lambda w: recall(1.0, w))
    third = max(WEIGHTS, key=lambda w: recall(1.0, second, w))
    assert weights == {"noise": 1.0, "telling": second, "more": third}
    user = torch.tensor([3, 5])
    want = sum(w * standard(part(user)) for w, part in zip(weights.values(), parts.values(), strict=True))
    torch.testing.assert_close(blended(user), want, atol=1e-5, rtol=1e-5)


def test_test_rows_choose_nothing(synthetic):
    data = synthetic[0]
    links = data["user", "listens", "entity"]
    parts = {name: scores(synthetic, seed) for seed, name in enumerate("abc")}
    before, _ = blend(parts, data, synthetic.num_items)
    links.edge_label = torch.where(links.test_mask, 1 - links.edge_label, links.edge_label)
    assert blend(parts, data, synthetic.num_items)[0] == before


def test_nothing_to_blend(synthetic):
    with pytest.raises(ValueError, match="parts is empty"):
        blend({}, synthetic[0], synthetic.num_items)
