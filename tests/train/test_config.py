"""The hyper-parameters: plain values there and back, and nonsense refused."""

import json

import pytest

from mgwa_pyg.train import CONFIGS, FitConfig, KGCNConfig, MGWAConfig


@pytest.mark.parametrize("model", CONFIGS)
def test_there_and_back(model):
    config = CONFIGS[model](epochs=7, lr=0.5)
    values = json.loads(json.dumps(config.to_dict()))
    assert values["model"] == model
    again = FitConfig.from_dict(values)
    assert type(again) is CONFIGS[model]
    assert again == config
    assert FitConfig.from_dict({"model": model}) == CONFIGS[model]()


def test_an_unknown_model():
    with pytest.raises(ValueError, match="model='magic' is unknown"):
        FitConfig.from_dict({"model": "magic"})


@pytest.mark.parametrize(
    ("config", "options", "message"),
    [
        (MGWAConfig, {"num_layers": 0}, "num_layers=0"),
        (MGWAConfig, {"epochs": 0}, "epochs=0"),
        (MGWAConfig, {"lr": -1.0}, "lr=-1.0"),
        (KGCNConfig, {"fanout": None, "equations": "official"}, "fanout=None keeps all"),
    ],
)
def test_bad_settings(config, options, message):
    with pytest.raises(ValueError, match=message):
        config(**options)
