"""What weights and times are worth: nothing where they are all the same."""

import numpy as np
import pandas as pd
import pytest

from benchmarks.weights import worth
from mgwa_pyg.datasets import TableKG
from mgwa_pyg.evaluation import full_ranking
from mgwa_pyg.evaluation.heuristics import ItemKNN


def test_histories_are_weighed():
    rng = np.random.default_rng(0)
    plays = pd.DataFrame({"user": rng.integers(0, 20, 400), "item": rng.integers(0, 40, 400)})
    plays = plays.drop_duplicates(["user", "item"]).assign(plays=3, when=1_700_000_000)
    plays.loc[::2, "when"] -= 30 * 86_400
    dataset = TableKG.from_tables(plays, weight="plays", time="when")
    found = worth(dataset)
    knn = ItemKNN(dataset[0], dataset.num_items)
    ranked = full_ranking(knn.score_all, dataset[0], dataset.num_items, ks=(10,), split="val")
    assert found["equal"] == found["by weight"] == pytest.approx(ranked["recall@10"])
    assert found["by age, halved in 1 d"] != found["equal"]
