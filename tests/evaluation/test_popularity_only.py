"""The heuristics on plays that are nothing but popularity: none of them may know more."""

import pytest

from mgwa_pyg.evaluation import HEURISTICS, LogisticStack
from tests.popularity import NOISE, PopularityKG, lead_over_popularity


def predictions(make):
    def predict(dataset):
        links = dataset[0]["user", "listens", "entity"]
        heuristic = make(dataset[0], dataset.num_items)
        return heuristic.predict(*links.edge_label_index[:, links.test_mask])

    return predict


def test_the_plays_have_a_long_tail():
    dataset = PopularityKG()
    count = dataset[0]["user", "listens", "entity"].edge_index[1].bincount(minlength=dataset.num_items)
    unknown, once = int((count == 0).sum()), int((count == 1).sum())
    assert unknown > 0.1 * dataset.num_items
    assert once > 0.2 * dataset.num_items
    assert count.max() > 10 * count.float().mean()


@pytest.mark.parametrize("negatives", ["items", "entities"])
@pytest.mark.parametrize("name", HEURISTICS)
def test_a_heuristic_knows_no_more_than_popularity(name, negatives):
    assert lead_over_popularity(predictions(HEURISTICS[name]), negatives) <= NOISE


@pytest.mark.parametrize("negatives", ["items", "entities"])
def test_knowledge_of_the_protocol_is_found_out(negatives):
    flagged = predictions(lambda *given: LogisticStack(*given, protocol_flags=True))
    assert lead_over_popularity(flagged, negatives) > 2 * NOISE
