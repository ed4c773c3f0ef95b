"""The heuristics against counting."""

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

from mgwa_pyg.datasets import LastFMKG
from mgwa_pyg.evaluation import Popularity


def test_popularity_counts_training_positives_alone(synthetic):
    listens = synthetic[0]["user", "listens", "entity"]
    pairs = zip(*listens.edge_label_index.tolist(), strict=True)
    plays = [0] * synthetic.num_entities
    for (_, item), label, train in zip(
        pairs, listens.edge_label.tolist(), listens.train_mask.tolist(), strict=True
    ):
        plays[item] += int(label == 1 and train)
    heuristic = Popularity(synthetic[0])
    assert heuristic.count.tolist() == plays

    item = torch.arange(synthetic.num_items)
    probability = heuristic.predict(item)
    order = np.argsort(heuristic.count[item].numpy(), kind="stable")
    assert (np.diff(probability.numpy()[order]) >= 0).all()
    assert ((probability > 0) & (probability < 1)).all()


@pytest.mark.real_data
@pytest.mark.parametrize(("negatives", "auc"), [("items", 0.795), ("entities", 0.879)])
def test_popularity_on_lastfm(lastfm_raw, tmp_path, negatives, auc):
    aucs = []
    for seed in range(5):
        data = LastFMKG(str(tmp_path), negatives=negatives, seed=seed)[0]
        listens = data["user", "listens", "entity"]
        score = Popularity(data).predict(listens.edge_label_index[1, listens.test_mask])
        aucs.append(roc_auc_score(listens.edge_label[listens.test_mask], score))
    assert np.mean(aucs) == pytest.approx(auc, abs=0.005)
