"""A fit: it learns, it repeats itself, it goes on where it was interrupted."""

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from mgwa_pyg.datasets import SyntheticKG
from mgwa_pyg.evaluation import Popularity, click_metrics
from mgwa_pyg.train import (
    ClickData,
    ClickModule,
    CollaborativeConfig,
    DivergedError,
    KGCNConfig,
    MGWAConfig,
    RippleNetConfig,
    fit,
    fit_transe,
    read_checkpoint,
)
from mgwa_pyg.train.scorer import MGWAScorer


def test_mgwa_finds_the_planted_preferences(synthetic, tmp_path):
    result = fit(synthetic, MGWAConfig(), tmp_path, seed=0)
    listens = synthetic[0]["user", "listens", "entity"]
    label = listens.edge_label[listens.test_mask]
    popularity = Popularity(synthetic[0], synthetic.num_items).predict(
        *listens.edge_label_index[:, listens.test_mask]
    )
    auc = click_metrics(label, result.score)["auc"]
    assert auc > click_metrics(label, popularity)["auc"] + 0.05

    val = [entry["val_auc"] for entry in result.history]
    assert result.best_epoch == 1 + val.index(max(val))
    assert len(val) == min(result.best_epoch + MGWAConfig().patience, MGWAConfig().epochs)
    assert result.rows_per_second > 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["best.ckpt"]


@pytest.mark.parametrize("num_layers", [1, 2])
def test_the_same_seed_gives_the_same_bits(synthetic, tmp_path, num_layers):
    config = MGWAConfig(num_layers=num_layers, fanout=4, epochs=2)
    first, second, other = (
        fit(synthetic, config, tmp_path / str(number), seed=seed) for number, seed in enumerate([3, 3, 4])
    )
    assert torch.equal(first.score, second.score)
    assert not torch.equal(first.score, other.score)


@pytest.mark.parametrize(
    "config",
    [
        MGWAConfig(),
        MGWAConfig(transe=True),
        KGCNConfig(fanout=4),
        RippleNetConfig(),
        CollaborativeConfig(passes=2, hold_out=0.2),
        CollaborativeConfig(passes=2, hold_out=0.2, loss="ranking"),
    ],
    ids=str,
)
def test_an_interrupted_fit_goes_on_to_the_same_bits(synthetic, tmp_path, monkeypatch, config):
    config = replace(config, epochs=4, patience=4)
    whole = fit(synthetic, config, tmp_path / "whole", seed=1)

    step = ClickModule.training_step

    def interrupted(self, batch, batch_idx):
        if self.current_epoch == 2 and batch_idx == 3:
            raise OSError("the power is gone")
        return step(self, batch, batch_idx)

    with monkeypatch.context() as patch:
        patch.setattr(ClickModule, "training_step", interrupted)
        with pytest.raises(OSError, match="power"):
            fit(synthetic, config, tmp_path / "cut", seed=1)
    assert (tmp_path / "cut" / "last.ckpt").exists()

    resumed = fit(synthetic, config, tmp_path / "cut", seed=1)
    assert torch.equal(resumed.score, whole.score)
    assert torch.equal(resumed.val_score, whole.val_score)
    assert resumed.transe == whole.transe
    assert resumed.best_epoch == whole.best_epoch
    for entry, want in zip(resumed.history, whole.history, strict=True):
        assert {**entry, "train_seconds": 0} == {**want, "train_seconds": 0}


def test_a_fit_interrupted_after_its_last_epoch_trains_no_further(synthetic, tmp_path, monkeypatch):
    config = MGWAConfig(lr=0.05, epochs=30, patience=1)
    whole = fit(synthetic, config, tmp_path / "whole", seed=1)
    assert len(whole.history) == whole.best_epoch + 1 < 30

    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", lambda *args, **options: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            fit(synthetic, config, tmp_path / "cut", seed=1)
    resumed = fit(synthetic, config, tmp_path / "cut", seed=1)
    assert len(resumed.history) == len(whole.history)
    assert torch.equal(resumed.score, whole.score)


def test_numbers_that_are_not_finite_end_the_fit(synthetic, tmp_path, monkeypatch):
    calls = []

    def poisoned(self, user, item, label):
        calls.append((user, item))
        loss, *others = clean(self, user, item, label)
        return (loss * float(name) if len(calls) == 2 * steps + 3 else loss), *others

    clean = MGWAScorer.loss
    steps = math.ceil(int(synthetic[0]["user", "listens", "entity"].train_mask.sum()) / 512)
    config = MGWAConfig(lr=0.02, patience=3)
    two = fit(synthetic, replace(config, epochs=2), tmp_path / "two")
    assert two.best_epoch == 2
    state = read_checkpoint(two.checkpoint)["state_dict"]
    for name in ("nan", "inf", "-inf"):
        calls.clear()
        with monkeypatch.context() as patch:
            patch.setattr(MGWAScorer, "loss", poisoned)
            with pytest.raises(DivergedError) as error:
                fit(synthetic, config, tmp_path / name)
        user, item = calls[-1]
        assert str(error.value) == (
            f"training has left the finite numbers: a loss of {name} in step {len(calls)}, batch 3, users "
            f"{min(user.tolist())} to {max(user.tolist())} and items {min(item.tolist())} to "
            f"{max(item.tolist())}, of epoch 3, with lr=0.02 and weight_decay=0.0003. Lower the learning "
            f"rate. The last good checkpoint, of epoch 2, is {tmp_path / name / 'last.ckpt'}."
        )
        kept = ClickModule.restore(tmp_path / name / "last.ckpt")
        assert all(torch.equal(kept.state_dict()[key], tensor) for key, tensor in state.items())


def test_a_fit_that_diverges_at_once_has_no_checkpoint(synthetic, tmp_path):
    with pytest.raises(DivergedError, match=r"of epoch 1, with lr=1e\+30 .* There is no checkpoint yet\."):
        fit(synthetic, MGWAConfig(lr=1e30), tmp_path)
    assert not list(tmp_path.iterdir())


def test_parameters_that_are_not_finite_are_not_kept(synthetic, tmp_path, monkeypatch):
    def spoil(self):
        start(self)
        if self.current_epoch == 1:  # Where no row of training or validation looks.
            self.spare.data.fill_(float("inf"))

    start = ClickModule.on_validation_epoch_start
    monkeypatch.setattr(ClickModule, "on_validation_epoch_start", spoil)
    monkeypatch.setattr(ClickModule, "setup", lambda self, stage: self.register_parameter("spare", spare))
    spare = torch.nn.Parameter(torch.zeros(1))
    with pytest.raises(
        RuntimeError, match=r"the parameters after the last step of epoch 2, .* of epoch 1, is"
    ):
        fit(synthetic, MGWAConfig(), tmp_path)
    assert read_checkpoint(tmp_path / "last.ckpt")["state_dict"]["spare"].isfinite()


@pytest.mark.parametrize("config", [MGWAConfig(num_layers=2, fanout=4), KGCNConfig(), RippleNetConfig()])
def test_a_checkpoint_is_restored(synthetic, tmp_path, config):
    result = fit(synthetic, replace(config, epochs=1), tmp_path, seed=5)
    module = ClickModule.restore(result.checkpoint, synthetic)
    assert not module.training
    assert module.config == replace(config, epochs=1)
    listens = synthetic[0]["user", "listens", "entity"]
    pairs = listens.edge_label_index[:, listens.test_mask]
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():  # In the batches of the fit: they share the random numbers of deeper models.
        logits = [module.scorer.score(*batch, generator) for batch in pairs.split(2048, dim=1)]
    torch.testing.assert_close(torch.cat(logits).sigmoid(), result.score)
    with pytest.raises(ValueError, match=r"num_users=400, but the data have 30"):
        ClickModule.restore(result.checkpoint, SyntheticKG(num_users=30))


def test_a_fit_starts_from_transe(synthetic, tmp_path):
    config = MGWAConfig(transe=True, epochs=1, lr=1e-9)  # Next to no training.
    result = fit(synthetic, config, tmp_path, seed=2)
    start = fit_transe(synthetic[0], synthetic.num_relations, config.channels, seed=2)
    state = torch.load(result.checkpoint, weights_only=True)["state_dict"]
    torch.testing.assert_close(state["model.entity_emb.weight"], start.entity, atol=1e-6, rtol=0)
    torch.testing.assert_close(state["model.relation_emb.weight"], start.relation, atol=1e-6, rtol=0)
    assert result.transe == start.metrics
    assert fit(synthetic, MGWAConfig(epochs=1), tmp_path).transe is None


def test_batches_hold_every_training_row_once(synthetic):
    rows = ClickData(synthetic[0], MGWAConfig(batch_size=100), seed=0)
    listens = synthetic[0]["user", "listens", "entity"]
    loader = rows.train_dataloader()
    epochs = []
    for epoch in range(2):
        loader.sampler.set_epoch(epoch)
        epochs.append(torch.cat([torch.stack([u, v, y.long()]) for u, v, y in loader], dim=1))
    want = torch.cat([listens.edge_label_index, listens.edge_label.long()[None]])
    want = want[:, listens.train_mask]
    for got in epochs:
        assert sorted(got.t().tolist()) == sorted(want.t().tolist())
    assert not torch.equal(*epochs)


@pytest.mark.parametrize(
    ("config", "decayed"),
    [
        (MGWAConfig(weight_decay=0.1), lambda name, parameter: "emb" in name),
        (KGCNConfig(weight_decay=0.1), lambda name, parameter: parameter.dim() > 1),
        (RippleNetConfig(weight_decay=0.1), lambda name, parameter: False),  # Its loss has a term for it.
        (CollaborativeConfig(weight_decay=0.1), lambda name, parameter: True),
    ],
)
def test_what_is_regularised(synthetic, config, decayed):
    module = ClickModule(synthetic, config, seed=0)
    groups = module.configure_optimizers().param_groups
    decays = {id(p): group["weight_decay"] for group in groups for p in group["params"]}
    for name, parameter in module.named_parameters():
        assert decays[id(parameter)] == (0.1 if decayed(name, parameter) else 0.0)


def test_bad_devices(synthetic, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ValueError, match="finds no CUDA device"):
        fit(synthetic, MGWAConfig(), tmp_path, device="cuda")
    with pytest.raises(ValueError, match="device='tpu' is unknown"):
        fit(synthetic, MGWAConfig(), tmp_path, device="tpu")
    assert not any(tmp_path.iterdir())
