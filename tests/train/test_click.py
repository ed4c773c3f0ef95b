"""The module that learns clicks: which steps an epoch's figures are of, and rows with keys."""

import pytest
import torch

from mgwa_pyg.recommenders import RECOMMENDERS, MGWAConfig, make_recommender
from mgwa_pyg.train import ClickData, ClickModule
from mgwa_pyg.train.trainer import lightning_as_guest, make_trainer


def figures(dataset, kept_steps):
    """Those of one epoch."""
    torch.manual_seed(0)
    config = MGWAConfig(batch_size=64, fanout=2)
    module = ClickModule(make_recommender(dataset, config, 0), kept_steps)
    rows = ClickData(dataset[0], config, 0)
    with lightning_as_guest():
        make_trainer("cpu", 1, enable_checkpointing=False).fit(module, rows)
    [entry] = module.history
    return {name: value for name, value in entry.items() if name != "train_seconds"}


def test_the_last_steps_may_stand_for_the_epoch(small):
    whole = figures(small, None)
    assert figures(small, 10**6) == whole
    last = figures(small, 1)
    differing = {name for name, value in last.items() if value != whole[name]}
    assert differing == {"train_loss", "train_auc"}


@pytest.mark.parametrize("name", RECOMMENDERS)
def test_what_is_drawn_for_a_row_follows_from_its_key(synthetic, name):
    made = make_recommender(synthetic, RECOMMENDERS[name].config_class(num_layers=2), 0)
    made.model.eval()
    user, item = torch.randint(50, (2, 40))
    label, key, order = torch.ones(40), torch.randint(2**40, (40,)), torch.randperm(40)

    def score(order, key):
        return made.score(user[order], item[order], torch.Generator(), key[order])

    whole = score(torch.arange(40), key)
    torch.testing.assert_close(score(order, key), whole[order])
    loss, logit, _ = made.loss(user, item, label, key)
    assert loss.isfinite()
    if name in ("mgwa", "kgcn"):  # The others draw no neighborhoods.
        assert not torch.allclose(score(torch.arange(40), key + 1), whole)
        _, permuted, _ = made.loss(user[order], item[order], label[order], key[order])
        torch.testing.assert_close(permuted, logit[order])
