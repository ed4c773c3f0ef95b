"""The ranking loss that all models share: its value, its negatives, and what a fit by it finds."""

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch

from mgwa_pyg.datasets import SyntheticKG
from mgwa_pyg.evaluation import full_ranking
from mgwa_pyg.recommenders import RECOMMENDERS, make_recommender, restore
from mgwa_pyg.train import ClickData, fit
from tests.graphs import SIZES
from tests.nn.oracle import randomize

# Their loss is the base class's; CollaborativeMGWA has one of its own.
MODELS = ["mgwa", "kgcn", "ripplenet", "lightgcn"]


def make(data, name, **options):
    made = make_recommender(data, replace(RECOMMENDERS[name].config_class.for_ranking(), **options), seed=0)
    randomize(made.model, std=0.5)
    return made


def pairs(made):
    """The users and items of each training step, as they come."""
    seen, train_step = [], made.train_step
    made.train_step = lambda user, item, *key: (seen.append((user, item)), train_step(user, item, *key))[1]
    return seen


@pytest.mark.parametrize("name", MODELS)
def test_the_loss_is_that_of_its_definition(small, name):
    made = make(small, name)
    seen = pairs(made)
    user, item = made.seen[:, :40]
    loss, logit, label = made.loss(user, item, torch.ones(40))
    [(users, items)] = seen
    assert users.tolist() == [*user.tolist(), *user.tolist()]
    assert items[:40].tolist() == item.tolist()
    assert label.tolist() == [1.0] * 40 + [0.0] * 40
    score = logit.detach().double().numpy()
    _, penalty = made.train_step(users, items)
    want = np.mean([np.log1p(np.exp(score[40 + row] - score[row])) for row in range(40)])
    assert loss.item() - float(torch.as_tensor(penalty).detach()) == pytest.approx(want, rel=1e-4, abs=1e-4)
    with torch.no_grad():
        again = made.model.eval() and made.score(users, items, torch.Generator())
    if name in ("ripplenet", "lightgcn"):  # The others draw neighbours in training.
        torch.testing.assert_close(logit.detach(), again)


def test_each_step_draws_negatives_that_no_training_positive_is(small):
    made = make(small, "mgwa")
    seen = pairs(made)
    listens = small[0]["user", "listens", "entity"]
    train = set(map(tuple, listens.edge_index.t().tolist()))
    held = set(map(tuple, listens.edge_label_index[:, listens.edge_label == 1].t().tolist())) - train
    rows = ClickData(small[0], made.config, seed=0)
    for batch in list(rows.train_dataloader()) * 40:
        assert set(zip(*(index.tolist() for index in batch[:2]), strict=True)) <= train
        made.loss(*batch)
    drawn = [list(zip(*(index[len(index) // 2 :].tolist() for index in step), strict=True)) for step in seen]
    assert drawn[0] != drawn[len(drawn) // 2]
    drawn = {pair for step in drawn for pair in step}
    assert not drawn & train
    users = {user for user, _ in train}
    assert {(user, item) for user, item in held if user in users} <= drawn
    assert max(item for _, item in drawn) < small.num_items
    other = SyntheticKG(**SIZES, negatives="entities")  # Items are ranked, whatever is clicked.
    assert make(other, "mgwa")._negatives.pool == small.num_items
    click = make_recommender(other, RECOMMENDERS["mgwa"].config_class(), 0)
    assert "_negatives" not in vars(click)


@pytest.mark.parametrize("name", MODELS)
def test_who_has_seen_all_items_is_left_out(small, name):
    other = copy.copy(small)
    other._data = copy.copy(small._data)
    listens = other._data["user", "listens", "entity"]
    everything = torch.stack([torch.zeros(small.num_items), torch.arange(small.num_items)]).long()
    listens.edge_index = torch.cat([listens.edge_index, everything], dim=1).unique(dim=1)
    made = make(other, name)
    user, item = torch.tensor([0, 3, 0, 5, 3]), torch.tensor([7, 1, 2, 9, 4])
    with pytest.warns(UserWarning, match="1 of 30, the first is user 0"):
        loss, logit, label = made.loss(user, item, torch.ones(5))
    assert loss.isfinite()
    assert label.tolist() == [1.0] * 3 + [0.0] * 3
    assert logit.shape == label.shape
    loss, logit, _ = made.loss(user[:1], item[:1], torch.ones(1))  # Nobody is left.
    loss.backward()
    assert loss.isfinite()
    assert logit.numel() == 0


@pytest.mark.parametrize("name", ["mgwa", "ripplenet"])
def test_what_is_drawn_for_a_row_follows_from_its_key(small, name):
    made = make(small, name)
    seen = pairs(made)
    user, item = made.seen[:, :40]
    label, key, order = torch.ones(40), torch.randint(2**40, (40,)), torch.randperm(40)
    _, logit, _ = made.loss(user, item, label, key)
    _, permuted, _ = made.loss(user[order], item[order], label, key[order])
    both = torch.cat([order, 40 + order])
    torch.testing.assert_close(permuted, logit[both])
    assert torch.equal(seen[1][1], seen[0][1][both])
    made.loss(user, item, label, key + 1)
    assert not torch.equal(seen[2][1], seen[0][1])


@pytest.mark.parametrize("name", MODELS)
def test_a_fit_finds_more_than_chance_and_comes_back_from_its_checkpoint(synthetic, name, tmp_path):
    options = {"memory_size": 8, "num_layers": 1, "lr": 0.02} if name == "ripplenet" else {}
    data, config = synthetic, RECOMMENDERS[name].config_class.for_ranking()
    result = fit(data, replace(config, epochs=2, passes=2, batch_size=512, **options), tmp_path)
    recall = [entry["val_recall"] for entry in result.history]
    assert result.best_epoch == 1 + int(np.argmax(recall))
    assert ((result.score > 0) & (result.score < 1)).all()

    again = restore(result.checkpoint)
    assert again.config.loss == "ranking"

    def recall_of(score_all, split):
        with torch.no_grad():
            ranked = full_ranking(score_all, data[0], data.num_items, ks=(10,), split=split)
        return ranked["recall@10"]

    assert recall_of(again.score_all, "val") == pytest.approx(max(recall))
    by_chance = torch.rand(data.num_users, data.num_items)
    assert recall_of(again.score_all, "test") > 1.5 * recall_of(lambda user: by_chance[user], "test")
