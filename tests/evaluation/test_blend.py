"""The blend of several scores against its definition."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from mgwa_pyg.evaluation import LogisticStack, blend_clicks, full_ranking
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


def test_probabilities_are_those_of_a_regression_on_logit_and_features(synthetic):
    data, num_items = synthetic[0], synthetic.num_items
    links = data["user", "listens", "entity"]
    generator = torch.Generator().manual_seed(0)
    rows = [links.edge_label_index[:, mask] for mask in (links.val_mask, links.test_mask)]
    label = links.edge_label[links.val_mask]
    ours = [torch.rand(part.size(1), generator=generator) for part in rows]
    ours[0] = (ours[0] + label) / 2
    got = blend_clicks((ours[0], ours[1]), data, num_items)
    stack = LogisticStack(data, num_items)
    features = [
        np.column_stack([score.double().logit().numpy(), stack.features(*part)])
        for score, part in zip(ours, rows, strict=True)
    ]
    oracle = make_pipeline(StandardScaler(), LogisticRegression(C=1e3, tol=1e-8, max_iter=10_000))
    kept = np.arange(features[0].shape[1])
    while True:  # Those that would count against an item are left out.
        oracle.fit(features[0][:, kept], label)
        if (oracle[-1].coef_[0] >= 0).all():
            break
        kept = kept[oracle[-1].coef_[0] >= 0]
    for probability, part in zip(got, features, strict=True):
        want = oracle.predict_proba(part[:, kept])[:, 1]
        torch.testing.assert_close(probability, torch.from_numpy(want).float(), atol=2e-3, rtol=0)


def test_what_is_certain_stays_finite(synthetic):
    links = synthetic[0]["user", "listens", "entity"]
    certain = [links.edge_label[mask] for mask in (links.val_mask, links.test_mask)]
    for probability in blend_clicks((certain[0], certain[1]), synthetic[0], synthetic.num_items):
        assert probability.isfinite().all()
    with pytest.raises(ValueError, match=r"probability has \(1,\) for the \d+ test rows"):
        blend_clicks((certain[0], torch.ones(1)), synthetic[0], synthetic.num_items)
