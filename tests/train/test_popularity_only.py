"""Every model on plays that are nothing but popularity: none of them may know more."""

import pytest

from mgwa_pyg.recommenders import RECOMMENDERS
from mgwa_pyg.train import fit
from tests.popularity import NOISE, lead_over_popularity

# Enough to learn from, and quick.
OPTIONS = {"epochs": 8, "channels": 8}


@pytest.mark.parametrize(
    ("name", "options"), [*((name, {}) for name in RECOMMENDERS), ("collaborative", {"item_item": True})]
)
def test_a_model_knows_no_more_than_popularity(name, options, tmp_path):
    def predict(dataset):
        config = RECOMMENDERS[name].config_class(**OPTIONS, **options)
        return fit(dataset, config, tmp_path / str(dataset.seed), device="cpu").score

    assert lead_over_popularity(predict, seeds=range(3)) <= NOISE
