"""The hyper-parameters: plain values there and back, and nonsense refused."""

import json
from dataclasses import fields, replace
from decimal import Decimal
from fractions import Fraction

import numpy as np
import pytest
import torch

from mgwa_pyg.recommenders import RECOMMENDERS
from mgwa_pyg.train import (
    CollaborativeConfig,
    FitConfig,
    KGCNConfig,
    LightGCNConfig,
    MGWAConfig,
    RippleNetConfig,
)


@pytest.mark.parametrize("model", RECOMMENDERS)
def test_there_and_back(model):
    config = RECOMMENDERS[model].config_class(epochs=7, lr=0.5)
    values = json.loads(json.dumps(config.to_dict()))
    assert values["model"] == model
    again = FitConfig.from_dict(values)
    assert type(again) is RECOMMENDERS[model].config_class
    assert again == config
    assert FitConfig.from_dict({"model": model}) == RECOMMENDERS[model].config_class()


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
        (MGWAConfig, {"lr": "0.01"}, "lr='0.01': a finite number is needed"),
        (MGWAConfig, {"lr": float("nan")}, "lr=nan: a finite number"),
        (MGWAConfig, {"lr": np.float64("inf")}, "lr=inf: a finite number"),
        (MGWAConfig, {"lr": None}, "lr=None: a finite number"),
        (MGWAConfig, {"lr": True}, "lr=True: a finite number"),
        (MGWAConfig, {"lr": torch.ones(2)}, r"lr=tensor\(\[1\., 1\.\]\): a finite number"),
        (MGWAConfig, {"weight_decay": -1e-9}, "weight_decay=-1e-09"),
        (MGWAConfig, {"channels": 8.0}, r"channels=8\.0: a whole number of at least 1"),
        (MGWAConfig, {"channels": True}, "channels=True: a whole number"),
        (MGWAConfig, {"epochs": "3"}, "epochs='3': a whole number"),
        (MGWAConfig, {"patience": None}, "patience=None: a whole number"),
        (MGWAConfig, {"fanout": 0}, "fanout=0: a whole number of at least 1"),
        (MGWAConfig, {"fanout": "all"}, "fanout='all': a whole number"),
        (MGWAConfig, {"resample": 1}, "resample=1: True or False"),
        (MGWAConfig, {"fusion": 3}, "fusion=3: a word"),
        (RippleNetConfig, {"memory_size": 0}, "memory_size=0: a whole number"),
        (RippleNetConfig, {"kge_weight": float("nan")}, "kge_weight=nan"),
        (CollaborativeConfig, {"hold_out": 1}, r"hold_out=1\.0: a share in \[0, 1\)"),
        (CollaborativeConfig, {"passes": np.int64(0)}, "passes=0: a whole number"),
        (CollaborativeConfig, {"loss": "hinge"}, "loss='hinge' is unknown"),
        (MGWAConfig, {"loss": "hinge"}, r"loss='hinge' is unknown: choose one of \['click', 'ranking'\]"),
        (LightGCNConfig, {"loss": None}, "loss=None: a word"),
        (KGCNConfig, {"passes": 0}, "passes=0: a whole number"),
    ],
)
def test_bad_settings(config, options, message):
    with pytest.raises(ValueError, match=message):
        config(**options)


NUMBERS = {
    int: [np.int64, np.uint16, torch.tensor, np.array, lambda value: np.array([[value]])],
    float: [
        np.float64, lambda value: torch.tensor([value], dtype=torch.float64), np.array,
        lambda value: Decimal(str(value)), lambda value: Fraction(*value.as_integer_ratio()),
    ],
    bool: [np.bool_, torch.tensor, np.array],
    str: [np.str_],
}  # fmt: skip


@pytest.mark.parametrize("model", RECOMMENDERS)
def test_numbers_of_other_libraries_become_plain(model):
    plain = RECOMMENDERS[model].config_class()
    for field in fields(plain):
        value = getattr(plain, field.name)
        for make in NUMBERS[type(value)]:
            got = getattr(RECOMMENDERS[model].config_class(**{field.name: make(value)}), field.name)
            assert (type(got), got) == (type(value), value), (field.name, make)
    lr = RECOMMENDERS[model].config_class(lr=1).lr
    assert (type(lr), lr) == (float, 1.0)


@pytest.mark.parametrize("model", RECOMMENDERS)
def test_the_loss_says_what_is_learned_from_and_judged_by(model):
    click = RECOMMENDERS[model].config_class()
    ranking = RECOMMENDERS[model].config_class.for_ranking()
    assert (click.loss, click.monitor) == ("click", "val_auc")
    assert (ranking.loss, ranking.monitor, ranking.draws_negatives) == ("ranking", "val_recall", True)
    assert click.draws_negatives is (model == "collaborative")
    assert ranking.deal(10**6)[1] == ranking.passes


class FirstOrLast:
    """A trial that suggests an end of each range, and notes what it was asked for."""

    def __init__(self, end):
        self.end, self.asked = end, {}

    def suggest_float(self, name, low, high, *, log=False):
        assert 0 < low < high or not log
        return self.suggest_categorical(name, [low, high])

    def suggest_int(self, name, low, high):
        return self.suggest_categorical(name, range(low, high + 1))

    def suggest_categorical(self, name, choices):
        assert name not in self.asked  # Optuna wants one distribution for each name.
        self.asked[name] = choices[self.end]
        return self.asked[name]


@pytest.mark.parametrize("model", RECOMMENDERS)
def test_what_a_search_tries(model):
    base = RECOMMENDERS[model].config_class.for_ranking()
    trials = FirstOrLast(0), FirstOrLast(-1)
    for trial in trials:
        got = base.suggested(trial)
        assert got == replace(base, **trial.asked)
        assert {"lr", "weight_decay", "channels"} <= trial.asked.keys()
    assert trials[0].asked.keys() == trials[1].asked.keys()
    assert all(trials[1].asked[name] != value for name, value in trials[0].asked.items())


def test_optuna_is_such_a_trial():
    optuna = pytest.importorskip("optuna")
    values = {"channels": 32, "lr": 2e-3, "weight_decay": 1e-5, "num_layers": 2, "fusion": "sum"}
    got = KGCNConfig.for_ranking().suggested(optuna.trial.FixedTrial(values))
    assert got == replace(KGCNConfig.for_ranking(), **values)


def test_hyper_parameters_of_a_dict():
    with pytest.raises(ValueError, match=r"new, newer: unknown to model='mgwa', whose .* are num_layers, "):
        FitConfig.from_dict({"model": "mgwa", "new": 1, "newer": 2})
    with pytest.raises(ValueError, match="model=None is unknown"):
        FitConfig.from_dict({"lr": 0.1})
    with pytest.raises(ValueError, match="is unknown"):
        FitConfig.from_dict({"model": []})
    with pytest.raises(TypeError, match="hyper-parameters by name are needed"):
        FitConfig.from_dict("mgwa")
