"""A fit: it learns, it repeats itself, it goes on where it was interrupted."""

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
    KGCNConfig,
    MGWAConfig,
    RippleNetConfig,
    fit,
    fit_transe,
)


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
    def poisoned(self, batch, batch_idx):
        loss = step(self, batch, batch_idx)
        return loss * float("nan") if self.current_epoch == 1 else loss

    step = ClickModule.training_step
    monkeypatch.setattr(ClickModule, "training_step", poisoned)
    with pytest.raises(RuntimeError, match=r"left the finite numbers: batch 2 of epoch 2, with lr=0.01"):
        fit(synthetic, MGWAConfig(), tmp_path)
    with pytest.raises(RuntimeError, match=r"left the finite numbers: .* of epoch 1, with lr=1e\+30"):
        fit(synthetic, MGWAConfig(lr=1e30), tmp_path / "huge")
    kept = torch.load(tmp_path / "best.ckpt", weights_only=True)
    assert all(tensor.isfinite().all() for tensor in kept["state_dict"].values())


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
