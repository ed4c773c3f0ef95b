"""CollaborativeMGWA in training: what its graph holds, what it learns, how its logits are read."""

import copy
import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from sklearn.model_selection import StratifiedKFold

from mgwa_pyg.datasets import SyntheticKG
from mgwa_pyg.evaluation import Popularity, click_metrics, full_ranking
from mgwa_pyg.recommenders import make_recommender
from mgwa_pyg.train import ClickData, ClickModule, CollaborativeConfig, fit
from tests.nn.oracle import randomize

SIZES = {"num_users": 30, "num_items": 40, "num_entities": 60, "num_relations": 4, "num_triples": 400}


@pytest.fixture(scope="module")
def dataset():
    return SyntheticKG(**SIZES, num_interactions=300)


def interactions(recommender, graph):
    """The pairs of user and item whose edges a graph holds, in both directions."""
    model = recommender.model
    (source, target), relation = graph.to_edge_index()
    there, back = relation == model.num_relations, relation == model.num_relations + 1
    pairs = set(zip((source[there] - model.num_entities).tolist(), target[there].tolist(), strict=True))
    assert pairs == set(zip((target[back] - model.num_entities).tolist(), source[back].tolist(), strict=True))
    assert len(pairs) == there.sum() == back.sum()
    return pairs


def graphs(recommender):
    """The graphs that reach the model, as they come."""
    seen = []
    encode = recommender.model.encode
    recommender.model.encode = lambda graph: (seen.append(graph), encode(graph))[1]
    return seen


@pytest.mark.parametrize("loss", ["click", "ranking"])
def test_what_is_predicted_passes_no_message(dataset, loss):
    recommender = make_recommender(dataset, CollaborativeConfig(loss=loss), seed=0)
    seen = graphs(recommender)
    train = set(map(tuple, dataset[0]["user", "listens", "entity"].edge_index.t().tolist()))
    rows = ClickData(dataset[0], CollaborativeConfig(loss=loss), seed=0)
    for user, item, label in rows.train_dataloader():
        recommender.loss(user, item, label)
        supervised = set(zip(user.tolist(), item.tolist(), strict=True))
        assert supervised <= train
        assert interactions(recommender, seen.pop()) == train - supervised

    recommender = make_recommender(dataset, CollaborativeConfig(loss=loss, hold_out=0), seed=0)
    seen = graphs(recommender)
    recommender.loss(user, item, label)
    assert interactions(recommender, seen.pop()) == train


@pytest.mark.parametrize("loss", ["click", "ranking"])
def test_labels_of_validation_and_test_rows_change_nothing_in_training(dataset, loss):
    other = copy.copy(dataset)
    other._data = copy.copy(dataset._data)
    listens = other._data["user", "listens", "entity"]
    listens.edge_label = torch.where(listens.train_mask, listens.edge_label, 1 - listens.edge_label)
    assert (
        dataset[0]["user", "listens", "entity"].edge_label != other[0]["user", "listens", "entity"].edge_label
    ).any()
    config = CollaborativeConfig(loss=loss, passes=2)
    states = []
    for data in (dataset, other):
        torch.manual_seed(3)
        module = ClickModule(make_recommender(data, config, seed=3))
        optimizer = module.configure_optimizers()
        for batch in ClickData(data[0], config, seed=3).train_dataloader():
            optimizer.zero_grad()
            module.recommender.loss(*batch)[0].backward()
            optimizer.step()
        with torch.no_grad():
            states.append(
                [*module.model.state_dict().values(), *module.model.eval().encode(module.recommender.plan)]
            )
    for one, two in zip(*states, strict=True):
        assert torch.equal(one, two)


def test_negatives_are_spared_for_training_positives_only(dataset):
    recommender = make_recommender(dataset, CollaborativeConfig(), seed=0)
    listens = dataset[0]["user", "listens", "entity"]
    train = set(map(tuple, listens.edge_index.t().tolist()))
    held = set(map(tuple, listens.edge_label_index[:, listens.edge_label == 1].t().tolist())) - train
    user = torch.arange(30).repeat(400)
    drawn = set(zip(user.tolist(), recommender._negatives.draw(user).tolist(), strict=True))
    assert not drawn & train
    assert held <= drawn
    assert max(item for _, item in drawn) < dataset.num_items
    other = SyntheticKG(**SIZES, num_interactions=300, negatives="entities")
    assert make_recommender(other, CollaborativeConfig(), seed=0)._negatives.pool == dataset.num_entities


@pytest.mark.parametrize("loss", ["click", "ranking"])
def test_a_user_who_knows_all_items_has_no_negatives(dataset, loss):
    other = copy.copy(dataset)
    other._data = copy.copy(dataset._data)
    listens = other._data["user", "listens", "entity"]
    everything = torch.stack([torch.zeros(dataset.num_items), torch.arange(dataset.num_items)]).long()
    listens.edge_index = torch.cat([listens.edge_index, everything], dim=1).unique(dim=1)
    recommender = make_recommender(other, CollaborativeConfig(loss=loss), seed=0)
    user, item = torch.tensor([0, 3, 0, 5, 3]), torch.tensor([7, 1, 2, 9, 4])
    with pytest.warns(UserWarning, match="1 of 30, the first is user 0, by row"):  # In training alone.
        value, logit, label = recommender.loss(user, item, torch.ones(5))
    assert value.isfinite()
    assert label.tolist() == [1.0] * 5 + [0.0] * 3  # Of users 3, 5 and 3.
    assert logit.shape == label.shape


def test_an_epoch_predicts_each_positive_so_many_times(dataset):
    config = CollaborativeConfig(passes=3, hold_out=0.25)
    rows = ClickData(dataset[0], config, seed=0)
    loader = rows.train_dataloader()
    positives = dataset[0]["user", "listens", "entity"].edge_index
    epochs = []
    for epoch in range(2):
        loader.sampler.set_epoch(epoch)
        batches = list(loader)
        assert {len(label) for *_, label in batches[:-1]} == {int(np.ceil(0.25 * positives.size(1)))}
        assert all((label == 1).all() for *_, label in batches)
        epochs.append(torch.cat([torch.stack([user, item]) for user, item, _ in batches], dim=1))
        size = positives.size(1)
        for start in range(0, 3 * size, size):  # Each pass holds all of them.
            assert sorted(epochs[-1][:, start : start + size].t().tolist()) == sorted(positives.t().tolist())
    assert rows.rows_per_epoch == epochs[0].size(1) == 3 * positives.size(1)
    assert not torch.equal(*epochs)


def test_the_ranking_loss_keeps_no_table_of_users_and_items(dataset, monkeypatch):
    """Its value and gradients are those of one table."""
    user, item = dataset[0]["user", "listens", "entity"].edge_index
    losses, gradients, kept = [], [], []
    for cells in (3 * dataset.num_items, 1, 2**23):
        monkeypatch.setattr("mgwa_pyg.recommenders.softmax._CELLS", cells)
        torch.manual_seed(2)
        config = CollaborativeConfig(loss="ranking", dropout=0.0, item_item=True)
        recommender = make_recommender(dataset, config, seed=0)

        def keep(t):
            if t.layout == torch.strided:
                kept.append(t.shape)
            return t

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda t: t):
            loss, *_ = recommender.loss(user[::4], item[::4], torch.ones(len(user[::4])))
        loss.backward()
        losses.append(loss.item())
        gradients.append([parameter.grad for parameter in recommender.model.parameters()])
    assert losses[1:] == pytest.approx([losses[0]] * 2, rel=1e-5)
    for other in gradients[1:]:
        torch.testing.assert_close(other, gradients[0], rtol=1e-3, atol=1e-6)
    assert kept
    assert not [shape for shape in kept if shape[1:] == (dataset.num_items,)]


def test_losses_equal_their_definitions(dataset):
    rows = dataset[0]["user", "listens", "entity"].edge_index[:, :50]
    label = torch.ones(50)
    for name, item_item in itertools.product(("click", "ranking"), (False, True)):
        config = CollaborativeConfig(loss=name, item_item=item_item)
        recommender = make_recommender(dataset, config, seed=0)
        model = recommender.model.eval()
        randomize(model, std=0.4)
        torch.manual_seed(5)
        loss, logit, labels = recommender.loss(*rows, label)
        torch.manual_seed(5)
        train = dataset[0]["user", "listens", "entity"].edge_index
        kg = dataset[0]["entity", "kg", "entity"]
        visible = train[:, 50:]
        # Users of whom the graph shows nothing are not ranked for.
        shown = torch.isin(rows[0], visible[0]) if name == "ranking" else torch.ones(50, dtype=torch.bool)
        user, item = rows[:, shown]
        assert 0 < len(user) < 50 or name == "click"
        negative = recommender._negatives.draw(user)
        graph = model.graph(visible, kg.edge_index, kg.rel_type, dataset.num_users)
        z_user, z_item = model.encode(graph)
        score = z_user @ z_item[: dataset.num_items].t()
        if item_item:
            score = score + model.direct(torch.arange(dataset.num_users), model.paths(graph))
        torch.testing.assert_close(logit, torch.cat([score[user, item], score[user, negative]]))
        assert labels.tolist() == [1.0] * len(user) + [0.0] * len(user)
        if name == "click":
            want = log_loss(labels, logit.detach().double().sigmoid())
        else:
            want = 0.0
            for s, u, i in zip(score[user].detach().double(), user, item, strict=True):
                candidates = torch.ones(dataset.num_items, dtype=torch.bool)
                candidates[visible[1, visible[0] == u]] = False
                want += (s[candidates].exp().sum().log() - s[i]).item() / len(user)
        assert loss.item() == pytest.approx(want, rel=1e-4)


def test_logits_are_calibrated_on_the_validation_rows(dataset):
    recommender = make_recommender(dataset, CollaborativeConfig(), seed=0)
    listens = dataset[0]["user", "listens", "entity"]
    user, item = listens.edge_label_index[:, listens.val_mask]
    label = listens.edge_label[listens.val_mask]
    logit = torch.randn(len(label)) + 2 * label + 3
    got = recommender.calibrate(user, item, logit, label)
    features = np.column_stack([logit, recommender.model.entity_features(recommender.plan)[item]])
    regression = LogisticRegression(C=100, max_iter=1000)
    kept = torch.from_numpy(regression.fit(features, label).decision_function(features)).float()
    torch.testing.assert_close(recommender.calibrated(item, logit), kept, atol=1e-3, rtol=1e-3)
    assert log_loss(label, kept.sigmoid()) < log_loss(label, logit.sigmoid())
    # Epochs are judged by rows that their weights were not learned from.
    want = torch.empty(len(label), dtype=torch.double)
    for learn, judge in StratifiedKFold(5).split(features, label):
        regression.fit(features[learn], label[learn])
        want[judge] = torch.from_numpy(regression.decision_function(features[judge])).double()
    torch.testing.assert_close(got, want.float(), atol=1e-3, rtol=1e-3)
    # One label cannot be calibrated on: what was learned stays.
    recommender.calibrate(user, item, logit, torch.ones_like(label))
    torch.testing.assert_close(recommender.calibrated(item, logit), kept, atol=1e-3, rtol=1e-3)


def test_it_finds_the_planted_preferences(synthetic, tmp_path):
    result = fit(synthetic, CollaborativeConfig(epochs=6), tmp_path, seed=0)
    listens = synthetic[0]["user", "listens", "entity"]
    label = listens.edge_label[listens.test_mask]
    popularity = Popularity(synthetic[0], synthetic.num_items).predict(
        *listens.edge_label_index[:, listens.test_mask]
    )
    assert click_metrics(label, result.score)["auc"] > click_metrics(label, popularity)["auc"] + 0.1

    module = ClickModule.restore(result.checkpoint, synthetic)
    pairs = listens.edge_label_index[:, listens.test_mask]
    with torch.no_grad():
        logit = module.recommender.score(*pairs, torch.Generator())
    torch.testing.assert_close(module.recommender.calibrated(pairs[1], logit).sigmoid(), result.score)


def test_ranking_is_judged_by_the_recall_of_validation_positives(synthetic, tmp_path):
    config = CollaborativeConfig(loss="ranking", epochs=3)
    result = fit(synthetic, config, tmp_path, seed=0)
    recall = [entry["val_recall"] for entry in result.history]
    assert result.best_epoch == 1 + int(np.argmax(recall))
    recommender = ClickModule.restore(result.checkpoint, synthetic).recommender
    got = full_ranking(recommender.score_all, synthetic[0], synthetic.num_items, ks=(10,), split="val")
    assert got["recall@10"] == pytest.approx(max(recall))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"hold_out": 1.0}, "hold_out=1.0"),
        ({"hold_out": -0.1}, "hold_out=-0.1"),
        ({"passes": 0}, "passes=0"),
        ({"loss": "hinge"}, "loss='hinge' is unknown"),
        ({"item_item": True, "hold_out": 0.0}, "item_item=True with hold_out=0"),
    ],
)
def test_bad_hyper_parameters(options, message):
    with pytest.raises(ValueError, match=message):
        replace(CollaborativeConfig(), **options)


def test_a_step_predicts_at_most_a_batch_and_hides_all_that_it_holds_out(dataset):
    user, item = dataset[0]["user", "listens", "entity"].edge_index[:, :50]
    recommender = make_recommender(dataset, CollaborativeConfig(batch_size=7), seed=0)
    seen = graphs(recommender)
    _, _, label = recommender.loss(user, item, torch.ones(50))
    assert label.tolist() == [1.0] * 7 + [0.0] * 7
    assert not interactions(recommender, seen.pop()) & set(zip(user.tolist(), item.tolist(), strict=True))


@pytest.mark.parametrize("item_item", [False, True])
def test_all_ways_to_score_agree(dataset, item_item):
    recommender = make_recommender(dataset, CollaborativeConfig(item_item=item_item, channels=4), seed=0)
    model = randomize(recommender.model.eval(), std=0.5)
    users = torch.arange(dataset.num_users)
    user, item = torch.cartesian_prod(users, torch.arange(dataset.num_items)).t()
    with torch.no_grad():
        want = model(user, item, recommender.plan).view(dataset.num_users, -1)
        torch.testing.assert_close(recommender.score(user, item).view_as(want), want)
        torch.testing.assert_close(recommender.score_all(users), want)
        torch.testing.assert_close(recommender.scorer()(users[3:9]), want[3:9])
        recommender.prepare()
        torch.testing.assert_close(recommender.score_all(users).float(), want, atol=1e-4, rtol=1e-4)
        for item in (0, 7):
            alone = recommender.score_newcomer(torch.tensor([item]))
            torch.testing.assert_close(recommender.similar(item), alone - recommender._z[1][:, -1])
        for person in (5, torch.tensor([1, 4, 9])):
            for item in (2, 4, 30):
                score = (
                    recommender.score_all(torch.tensor([5]))[0]
                    if isinstance(person, int)
                    else recommender.score_newcomer(person)
                )[item]
                for parts in recommender.explain(person, item):
                    assert parts.total.item() == pytest.approx(score.item(), abs=1e-9)
                graph = recommender.logit_model(person, item)
                got = graph(graph.x, graph.edge_index, graph.edge_type)
                assert got.item() == pytest.approx(score.item(), abs=1e-9)
