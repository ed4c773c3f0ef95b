"""A fit: it learns, it repeats itself, it goes on where it was interrupted."""

import logging
import math
import os
import random
import signal
import sys
import warnings
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import CSVLogger
from sklearn.metrics import roc_auc_score
from torch_geometric.transforms import ToUndirected

from mgwa_pyg.datasets import KGRecDataset, KGRecTables, SyntheticKG, TableKG
from mgwa_pyg.evaluation import Popularity, click_metrics
from mgwa_pyg.recommenders import MGWARecommender, make_recommender
from mgwa_pyg.train import (
    ClickData,
    ClickModule,
    CollaborativeConfig,
    DivergedError,
    KGCNConfig,
    LightGCNConfig,
    MGWAConfig,
    RippleNetConfig,
    fit,
    fit_transe,
    read_checkpoint,
)
from mgwa_pyg.train.transe import _TransEModule
from tests.fits import interrupted
from tests.graphs import SIZES


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
        MGWAConfig(batch_size=32),
        MGWAConfig(batch_size=32, transe=True),
        KGCNConfig(batch_size=32, fanout=4),
        RippleNetConfig(batch_size=32),
        LightGCNConfig(batch_size=32, loss="ranking"),
        MGWAConfig(batch_size=32, loss="ranking", fanout=4),
        CollaborativeConfig(passes=2, hold_out=0.2),
        CollaborativeConfig(passes=2, hold_out=0.2, loss="ranking"),
    ],
    ids=str,
)
def test_an_interrupted_fit_goes_on_to_the_same_bits(small, tmp_path, config):
    config = replace(config, epochs=4, patience=4)
    whole = fit(small, config, tmp_path / "whole", seed=1)

    with interrupted(epoch=2, batch=3):
        fit(small, config, tmp_path / "cut", seed=1)
    assert (tmp_path / "cut" / "last.ckpt").exists()

    resumed = fit(small, config, tmp_path / "cut", seed=1)
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

    clean = MGWARecommender.loss
    steps = math.ceil(int(synthetic[0]["user", "listens", "entity"].train_mask.sum()) / 512)
    config = MGWAConfig(lr=0.02, patience=3)
    two = fit(synthetic, replace(config, epochs=2), tmp_path / "two")
    assert two.best_epoch == 2
    state = read_checkpoint(two.checkpoint)["state_dict"]
    for name in ("nan", "inf", "-inf"):
        calls.clear()
        with monkeypatch.context() as patch:
            patch.setattr(MGWARecommender, "loss", poisoned)
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
        logits = [module.recommender.score(*batch, generator) for batch in pairs.split(2048, dim=1)]
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
    assert fit(synthetic, MGWAConfig(epochs=1), tmp_path / "without").transe is None


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
        (LightGCNConfig(weight_decay=0.1), lambda name, parameter: False),  # The same.
        (CollaborativeConfig(weight_decay=0.1), lambda name, parameter: True),
    ],
)
def test_what_is_regularised(synthetic, config, decayed):
    module = ClickModule(make_recommender(synthetic, config, seed=0))
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


ALL = [
    MGWAConfig(), KGCNConfig(), RippleNetConfig(memory_size=4), CollaborativeConfig(passes=2),
    LightGCNConfig(), MGWAConfig(loss="ranking"), CollaborativeConfig(passes=2, loss="ranking"),
]  # fmt: skip


def moved(**parts):
    """A data set with other rows in some of its parts: masks of the labelled rows, by the rows' labels."""

    def transform(data):
        listens = data["user", "listens", "entity"]
        for name, mask in parts.items():
            listens[f"{name}_mask"] = mask(listens[f"{name}_mask"], listens.edge_label)
        listens.edge_index = listens.edge_label_index[:, listens.train_mask & (listens.edge_label == 1)]
        return data

    return SyntheticKG(**SIZES, transform=transform)


def nothing(mask, label):
    return torch.zeros_like(mask)


@pytest.mark.parametrize("config", ALL, ids=lambda config: f"{config.model}, {config.monitor}")
def test_without_validation_rows_all_epochs_are_trained(small, tmp_path, config):
    config = replace(config, epochs=4, patience=1, lr=0.05)
    judged = fit(small, replace(config, patience=4), tmp_path / "judged", seed=1)
    result = fit(moved(val=nothing), config, tmp_path / "all", seed=1)
    assert [entry["train_loss"] for entry in result.history] == [e["train_loss"] for e in judged.history]
    assert {key for entry in result.history for key in entry} == {
        "epoch", "train_loss", "train_auc", "train_seconds",
    }  # fmt: skip
    assert result.best_epoch == 4
    assert result.val_score.shape == (0,)
    assert read_checkpoint(result.checkpoint)["history"] == result.history
    module = ClickModule.restore(result.checkpoint, moved(val=nothing))
    user, item = module.dataset[0]["user", "listens", "entity"].edge_label_index[:, result.data[
        "user", "listens", "entity"].test_mask]  # fmt: skip
    with torch.no_grad():
        score = module.recommender.score(user, item, torch.Generator().manual_seed(1)).sigmoid()
    torch.testing.assert_close(result.score, score)


def test_a_result_says_what_it_came_to(small, tmp_path):
    config = CollaborativeConfig(epochs=3, patience=3, channels=4, passes=1, loss="ranking")
    result = fit(small, config, tmp_path)
    recall = [entry["val_recall"] for entry in result.history]
    best = f"val Recall@10 {max(recall):.4f} at epoch {1 + recall.index(max(recall))}, the best of 3."
    assert result.sentence() == best
    assert repr(result).splitlines() == [
        f"FitResult of collaborative on {small!r}", f"  {best}", f"  checkpoint: {tmp_path / 'best.ckpt'}",
    ]  # fmt: skip
    short = replace(result, history=result.history[:1], best_epoch=1)
    assert short.sentence() == f"val Recall@10 {recall[0]:.4f} at epoch 1, the only one."
    unjudged = "trained, with no validation rows to judge by."
    assert replace(result, judged_by=None).sentence() == f"All 3 epochs were {unjudged}"
    assert replace(short, judged_by=None).sentence() == f"The only epoch was {unjudged}"


def test_all_rows_may_be_trained_on(tmp_path):
    everything = moved(train=lambda mask, label: torch.ones_like(mask), val=nothing, test=nothing)
    whole = fit(everything, MGWAConfig(epochs=3), tmp_path / "whole")
    assert whole.score.shape == whole.val_score.shape == (0,)
    assert len(ClickData(whole.data, MGWAConfig(), 0).rows("train")) == 2 * SIZES["num_interactions"]

    with interrupted(epoch=2):
        fit(everything, MGWAConfig(epochs=3), tmp_path / "cut")
    resumed = fit(everything, MGWAConfig(epochs=3), tmp_path / "cut")
    states = [read_checkpoint(result.checkpoint)["state_dict"] for result in (whole, resumed)]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def test_validation_rows_that_cannot_tell_are_refused(tmp_path):
    positives, negatives = (lambda mask, y: mask & (y == 1)), (lambda mask, y: mask & (y == 0))
    for part, which, config, message in [
        ("val", positives, MGWAConfig(), r"validation rows are \d+ positives and 0 negatives, but both"),
        ("val", negatives, KGCNConfig(), r"validation rows are 0 positives and \d+ negatives, but both"),
        ("val", positives, CollaborativeConfig(), "but both labels are needed for the AUC"),
        ("val", negatives, CollaborativeConfig(loss="ranking"), "but positives are needed for the recall"),
        ("val", negatives, KGCNConfig(loss="ranking"), "but positives are needed for the recall"),
        ("train", positives, MGWAConfig(), r"training rows are \d+ positives and 0 negatives: rows of both"),
        ("train", positives, KGCNConfig(), r"drawn in training, as they are with loss='ranking'"),
        ("train", negatives, RippleNetConfig(loss="ranking"), "there are no training positives"),
        ("train", nothing, RippleNetConfig(), "training rows are 0 positives and 0 negatives"),
        ("train", negatives, CollaborativeConfig(), "there are no training positives"),
    ]:
        with pytest.raises(ValueError, match=message):
            fit(moved(**{part: which}), config, tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_rankings_are_learned_from_few_rows(tmp_path):
    plays = pd.DataFrame({"user": list("aabbcd"), "item": list("xyxzyz")})
    config = CollaborativeConfig(epochs=2, passes=2, channels=2, loss="ranking", item_item=True)
    # Each step holds out one row, of "c" and "d" the only one: nobody is left whom the graph shows.
    result = fit(TableKG.from_tables(plays, split="none"), config, tmp_path / "few")
    assert all(math.isfinite(entry["train_loss"]) for entry in result.history)
    single = TableKG.from_tables(plays.drop_duplicates("user"), split="none")
    with pytest.raises(ValueError, match=r"each user has 1 training positive at most, .* take loss='click'"):
        fit(single, config, tmp_path / "single")
    assert not (tmp_path / "single").exists()
    assert fit(single, replace(config, loss="click", epochs=1), tmp_path / "clicks").best_epoch == 1


def test_a_ranking_is_judged_without_negatives(tmp_path):
    data = moved(val=lambda mask, y: mask & (y == 1))
    result = fit(data, CollaborativeConfig(passes=2, epochs=2, loss="ranking"), tmp_path)
    assert all({"val_loss", "val_recall"} < set(e) and "val_auc" not in e for e in result.history)
    assert len(result.val_score) == len(ClickData(result.data, CollaborativeConfig(), 0).rows("val"))


def test_a_transform_that_draws_at_random_is_applied_once(tmp_path):
    calls = []

    def resplit(data):
        listens = data["user", "listens", "entity"]
        part = torch.randint(5, listens.edge_label.shape)
        listens.train_mask, listens.val_mask, listens.test_mask = part < 3, part == 3, part == 4
        listens.edge_index = listens.edge_label_index[:, listens.train_mask & (listens.edge_label == 1)]
        calls.append(listens)
        return data

    data = SyntheticKG(**SIZES, transform=resplit)
    data.fingerprint  # noqa: B018  It belongs to this access, not to that of the fit.
    before = len(calls)
    result = fit(data, MGWAConfig(epochs=2), tmp_path)
    assert len(calls) == before + 1
    listens = result.data["user", "listens", "entity"]
    assert torch.equal(listens.test_mask, calls[-1].test_mask)
    assert len(result.score) == int(listens.test_mask.sum())
    val_auc = result.history[result.best_epoch - 1]["val_auc"]
    assert val_auc == pytest.approx(roc_auc_score(listens.edge_label[listens.val_mask], result.val_score))
    kept = read_checkpoint(result.checkpoint)["hyper_parameters"]
    assert kept["fingerprint"] == SyntheticKG(**SIZES, transform=lambda _: result.data).fingerprint


def test_a_fit_is_a_guest(small, tmp_path):
    log = logging.getLogger("lightning.pytorch")
    level = log.level
    log.setLevel(logging.ERROR)
    signals = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)
    try:
        filters, handlers = list(warnings.filters), [signal.getsignal(number) for number in signals]
        environment = dict(os.environ)
        draws = []
        for seed in (1, 2):
            torch.manual_seed(seed)
            random.seed(seed)
            np.random.seed(seed)
            if draws == []:
                fit(small, MGWAConfig(epochs=1, transe=True), tmp_path)
            draws.append((torch.rand(1).item(), random.random(), np.random.rand()))
        torch.manual_seed(1)
        assert draws[0] == (torch.rand(1).item(), random.Random(1).random(), np.random.RandomState(1).rand())
        assert log.level == logging.ERROR
        assert warnings.filters == filters
        assert [signal.getsignal(number) for number in signals] == handlers
        assert dict(os.environ) == environment
    finally:
        log.setLevel(level)


@pytest.mark.parametrize("moment", ["training_step", "predict_step"])
def test_ctrl_c_is_a_keyboard_interrupt_and_the_fit_goes_on(small, tmp_path, monkeypatch, capfd, moment):
    config = MGWAConfig(epochs=4, patience=4)
    whole = fit(small, config, tmp_path / "whole")
    step = getattr(ClickModule, moment)

    def interrupted(self, *arguments):
        if moment == "predict_step" or len(self.history) >= 2:
            os.kill(os.getpid(), signal.SIGINT)
        return step(self, *arguments)

    before = signal.getsignal(signal.SIGINT)
    with monkeypatch.context() as patch:
        patch.setattr(ClickModule, moment, interrupted)
        with pytest.raises(KeyboardInterrupt):
            fit(small, config, tmp_path / "cut")
    assert signal.getsignal(signal.SIGINT) == before
    assert sorted(path.name for path in (tmp_path / "cut").iterdir()) == ["best.ckpt", "last.ckpt"]
    done = 2 if moment == "training_step" else 4

    capfd.readouterr()
    resumed = fit(small, config, tmp_path / "cut", name="again")
    assert capfd.readouterr().err == (
        f"again: resumed after epoch {done} of {tmp_path / 'cut' / 'last.ckpt'}\n"
    )
    assert torch.equal(resumed.score, whole.score)


@pytest.mark.parametrize("moment", ["transe", "training_step", "predict_step"])
def test_sigterm_does_what_it_does_elsewhere(small, tmp_path, monkeypatch, moment):
    def ended(number, frame):
        raise SystemExit(143)

    def told(self, *arguments):
        os.kill(os.getpid(), signal.SIGTERM)
        return step(self, *arguments)

    kind, name = (_TransEModule, "training_step") if moment == "transe" else (ClickModule, moment)
    step, before = getattr(kind, name), signal.signal(signal.SIGTERM, ended)
    monkeypatch.setattr(kind, name, told)
    try:
        with pytest.raises(SystemExit) as error:
            fit(small, MGWAConfig(epochs=1, transe=moment == "transe"), tmp_path, device="cpu")
        assert error.value.code == 143
        assert signal.getsignal(signal.SIGTERM) is ended
    finally:
        signal.signal(signal.SIGTERM, before)


def test_fits_in_threads_take_turns(small, tmp_path):
    config = MGWAConfig(epochs=2)
    alone = fit(small, config, tmp_path / "alone", device="cpu")
    filters, level = list(warnings.filters), logging.getLogger("lightning.pytorch").level
    state = torch.get_rng_state()
    with ThreadPoolExecutor(3) as pool:
        results = list(pool.map(lambda name: fit(small, config, tmp_path / name, device="cpu"), "abc"))
    for result in results:
        assert torch.equal(result.score, alone.score)
    assert warnings.filters == filters
    assert logging.getLogger("lightning.pytorch").level == level
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("config", [MGWAConfig(epochs=1, transe=True), *ALL[2:]], ids=str)
def test_a_fit_knows_none_of_torchs_modes(small, tmp_path, config):
    config = replace(config, epochs=1)
    want = fit(small, config, tmp_path / "plain", device="cpu").score
    modes = {
        "inference": torch.inference_mode(),
        "no_grad": torch.no_grad(),
        "autocast": torch.autocast("cpu", dtype=torch.bfloat16),
        "device": torch.device("meta"),
    }
    for name, mode in modes.items():
        with mode:
            score = fit(small, config, tmp_path / name, device="cpu").score
        assert torch.equal(score, want), name


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_a_fit_in_another_default_precision(small, tmp_path, monkeypatch, dtype):
    torch.set_default_dtype(dtype)
    try:
        data = SyntheticKG(**SIZES)
        result = fit(data, CollaborativeConfig(epochs=1), tmp_path, device="cpu")
    finally:
        torch.set_default_dtype(torch.float32)
    assert result.score.isfinite().all()
    assert data.fingerprint == small.fingerprint
    assert ClickModule.restore(result.checkpoint, small).config == CollaborativeConfig(epochs=1)


@pytest.mark.parametrize(
    ("config", "shown"),
    [
        (MGWAConfig(), "val AUC {val_auc:.4f}"),
        (CollaborativeConfig(passes=2, loss="ranking"), "val Recall@10 {val_recall:.4f}"),
    ],
)
def test_the_bar_goes_on_where_it_was_and_shows_what_counts(small, tmp_path, monkeypatch, config, shown):
    config = replace(config, epochs=3, patience=3)

    class Bar:
        def __init__(self, total, initial, **options):
            self.total, self.n, self.begun, self.said = total, initial, initial, []
            bars.append(self)

        def update(self, number):
            self.n += number

        def set_postfix_str(self, text):
            self.said.append(text)

        def close(self):
            pass

    bars = []
    monkeypatch.setattr(sys.modules["mgwa_pyg.train.fit"], "tqdm", Bar)
    with interrupted(epoch=1):
        fit(small, config, tmp_path)
    result = fit(small, config, tmp_path)
    assert [(bar.begun, bar.total) for bar in bars] == [(0, 3), (1, 3)]
    first = result.history[0]
    want = f"loss {first['train_loss']:.4f}, {shown.format(**first)}"
    assert bars[0].said == [want]
    assert bars[1].said[0] == want
    assert [bar.n for bar in bars] == [1, 2]  # Each epoch counts when the next one begins.


def test_a_finished_fit_is_kept(small, tmp_path, monkeypatch):
    first = fit(small, MGWAConfig(epochs=1, transe=True), tmp_path).checkpoint.read_bytes()
    with pytest.warns(UserWarning, match=r"fit that has finished: it is kept as best-1\.ckpt and transe-1"):
        second = fit(small, KGCNConfig(epochs=1), tmp_path)
    assert (tmp_path / "best-1.ckpt").read_bytes() == first
    assert ClickModule.restore(second.checkpoint).config == KGCNConfig(epochs=1)
    kept = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert sorted(kept) == ["best-1.ckpt", "best.ckpt", "transe-1.json"]

    with pytest.warns(UserWarning, match=r"best-2\.ckpt"), pytest.raises(DivergedError):
        fit(small, MGWAConfig(lr=1e30), tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == kept
    with pytest.warns(UserWarning, match=r"best-2\.ckpt"):
        fit(small, KGCNConfig(epochs=1), tmp_path, seed=1)
    assert (tmp_path / "best-2.ckpt").read_bytes() == kept["best.ckpt"]

    def interrupted(*arguments):
        raise KeyboardInterrupt

    kept = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with monkeypatch.context() as patch:
        patch.setattr(ClickModule, "on_train_epoch_start", interrupted)
        with pytest.warns(UserWarning, match=r"best-3\.ckpt"), pytest.raises(KeyboardInterrupt):
            fit(small, MGWAConfig(transe=True), tmp_path)
    left = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert left.pop("transe.json")
    assert left == kept

    # The same leaves the same, wherever its data are kept.
    moved = SyntheticKG(tmp_path / "data", **SIZES)
    again = fit(moved, KGCNConfig(epochs=1), tmp_path, seed=1)
    assert not (tmp_path / "best-3.ckpt").exists()
    assert torch.equal(again.score, fit(small, KGCNConfig(epochs=1), tmp_path / "new", seed=1).score)


@pytest.mark.skipif(os.name == "nt", reason="folders are not locked there")
def test_two_fits_share_no_folder(small, tmp_path, monkeypatch):
    other = []

    def another(self):
        start(self)
        with pytest.raises(BlockingIOError, match="is in use by another process or thread: wait") as error:
            fit(small, MGWAConfig(epochs=1), tmp_path, seed=1)
        other.append(error)

    start = ClickModule.on_train_epoch_start
    with monkeypatch.context() as patch:
        patch.setattr(ClickModule, "on_train_epoch_start", another)
        result = fit(small, MGWAConfig(epochs=1), tmp_path)
    assert len(other) == 1
    assert read_checkpoint(result.checkpoint)["hyper_parameters"]["seed"] == 0


def test_a_fit_that_began_with_transe_and_has_no_checkpoint_is_not_kept(small, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(ClickModule, "on_train_epoch_start", lambda self: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            fit(small, MGWAConfig(epochs=1, transe=True), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["transe.json"]
    fit(small, MGWAConfig(epochs=1, transe=True, lr=0.02), tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["best.ckpt", "transe.json"]


def test_a_folder_below_another_that_is_left(small, tmp_path, monkeypatch):
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    start = ClickModule.on_train_epoch_start

    def leave(self):
        os.chdir("elsewhere")
        start(self)

    monkeypatch.setattr(ClickModule, "on_train_epoch_start", leave)
    result = fit(small, MGWAConfig(epochs=1), "runs/small")
    assert result.checkpoint.samefile(tmp_path / "runs" / "small" / "best.ckpt")
    assert not list((tmp_path / "elsewhere").iterdir())


def test_folders_by_any_name(small, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    config = MGWAConfig(epochs=1)
    for name, want in {"~/a/b": "a/b", "c": "c", "d/": "d", "e/../f g": "f g", "g{h}": "g{h}"}.items():
        result = fit(small, config, name)
        assert result.checkpoint.samefile(tmp_path / want / "best.ckpt")
    assert ClickModule.restore("~/a/b/best.ckpt").config == config
    Path("file").touch()
    with pytest.raises(NotADirectoryError, match="file is a file"):
        fit(small, config, "file")


@pytest.mark.parametrize(
    ("changed", "error", "message"),
    [
        ({"dataset": "data"}, TypeError, r"dataset is a HeteroData, but a KGRecDataset .* not dataset\[0\]"),
        ({"dataset": None}, TypeError, "dataset is a NoneType"),
        (
            {"config": {"lr": 0.1}},
            TypeError,
            r"config=\{'lr': 0\.1\} is of no class .* one of MGWAConfig, .*from_dict makes",
        ),
        ({"config": MGWAConfig}, TypeError, "config=<class .* is of no class .* one of MGWAConfig"),
        ({"config": "mgwa"}, TypeError, "config='mgwa' is of no class"),
        ({"folder": None}, TypeError, "folder=None: a path is needed"),
        ({"folder": 3}, TypeError, "folder=3: a path is needed"),
        ({"seed": -1}, ValueError, "seed=-1: a whole number of at least 0"),
        ({"seed": 1.5}, ValueError, r"seed=1\.5: a whole number"),
        ({"seed": True}, ValueError, "seed=True"),
        ({"seed": 2**70}, ValueError, r"seed=\d+: a whole number of at most"),
        ({"device": 1}, ValueError, "device=1 is unknown"),
        ({"device": None}, ValueError, "device=None is unknown"),
    ],
)
def test_arguments_of_another_kind(small, tmp_path, changed, error, message):
    arguments = {"dataset": small, "config": MGWAConfig(), "folder": tmp_path / "new", **changed}
    if arguments["dataset"] == "data":
        arguments["dataset"] = small[0]
    with pytest.raises(error, match=message):
        fit(**arguments)
    assert not (tmp_path / "new").exists()


def test_seeds_of_other_libraries_and_large_ones(small, tmp_path):
    scores = [fit(small, MGWAConfig(epochs=1), tmp_path / str(n), seed=seed).score
              for n, seed in enumerate([3, np.int64(3), 2**43 - 1])]  # fmt: skip
    assert torch.equal(scores[0], scores[1])
    assert read_checkpoint(tmp_path / "2" / "best.ckpt")["hyper_parameters"]["seed"] == 2**43 - 1


@pytest.mark.parametrize("config", ALL[:4], ids=lambda config: config.model)
def test_data_that_a_transform_has_spoilt(tmp_path, config):
    def without_masks(data):
        del data["user", "listens", "entity"].val_mask
        return data

    for transform, error, message in [
        (ToUndirected(), IndexError, r"rel_type holds \d+, but whole numbers from 0 to 9"),
        (without_masks, ValueError, "the data have no .*val_mask"),
        (lambda data: data.to_homogeneous(), TypeError, "HeteroData are needed"),
        (lambda data: None, TypeError, "NoneType"),
    ]:
        with pytest.raises(error, match=message):
            fit(SyntheticKG(**SIZES, transform=transform), config, tmp_path / "new")
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("config", ALL[:5], ids=lambda config: config.model)
def test_data_without_any_relation(tmp_path, config):
    class Interactions(KGRecDataset):
        def build(self):
            pairs = np.stack([np.arange(60) % 12, np.arange(60) % 10], axis=1)
            return KGRecTables(pairs, [], 12, 10, [f"item {number}" for number in range(10)], [])

    fit_it = partial(fit, Interactions(None, negatives="items"), replace(config, epochs=1), tmp_path / "fit")
    if isinstance(config, CollaborativeConfig | LightGCNConfig):
        assert fit_it().score.isfinite().all()
    else:
        with pytest.raises(ValueError, match=r"no relation, which model=.* or 'collaborative', which"):
            fit_it()
        assert not (tmp_path / "fit").exists()


@pytest.mark.parametrize("held_out", [True, False])
def test_loggers_have_the_figures_of_each_epoch(small, tmp_path, held_out):
    def no_validation(data):
        data["user", "listens", "entity"].val_mask = torch.zeros_like(
            data["user", "listens", "entity"].val_mask
        )
        return data

    class Ends(Callback):
        def __init__(self):
            self.seen = []

        def on_train_epoch_end(self, trainer, pl_module):
            self.seen.append(trainer.current_epoch)

    dataset = small if held_out else SyntheticKG(**SIZES, transform=no_validation)
    config, ends = CollaborativeConfig(epochs=3, channels=4, loss="ranking"), Ends()
    logger = CSVLogger(tmp_path, name="logs")
    result = fit(dataset, config, tmp_path / "run", device="cpu", logger=logger, callbacks=[ends])
    assert ends.seen == [0, 1, 2]
    assert result.judged_by == ("val_recall" if held_out else None)
    logged = pd.read_csv(tmp_path / "logs" / "version_0" / "metrics.csv").set_index("epoch")
    for number, entry in enumerate(result.history):
        there = logged.loc[number].drop("step").to_dict()
        assert there.keys() == entry.keys() - {"epoch"}
        assert all(value == pytest.approx(entry[name], rel=1e-5) for name, value in there.items())
    # Nothing is logged by default.
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == ["best.ckpt"]


def test_other_loggers_callbacks_and_starts_are_refused_at_the_door(small, tmp_path):
    for wrong, error, message in (
        ({"callbacks": Callback()}, TypeError, r"callbacks=<.*: a list of objects of .* Callback is needed"),
        ({"callbacks": None}, TypeError, "callbacks=None: a list"),
        ({"callbacks": [print]}, TypeError, r"callbacks\[0\]=<built-in function print>"),
        ({"callbacks": [Callback]}, TypeError, r"callbacks\[0\]=<class"),
        ({"logger": "csv"}, TypeError, "logger='csv': a list of objects of .* Logger"),
        ({"logger": ["csv"]}, TypeError, r"logger\[0\]='csv'"),
        ({"warm_start": 5}, TypeError, "warm_start=5: the path of a run folder"),
        ({"warm_start": tmp_path / "no"}, FileNotFoundError, "no does not exist: pass the folder of a run"),
        ({"warm_start": tmp_path}, FileNotFoundError, "best.ckpt does not exist: pass the folder of a run"),
    ):
        with pytest.raises(error, match=message):
            fit(small, KGCNConfig(epochs=1), tmp_path / "fit", device="cpu", **wrong)
    assert not (tmp_path / "fit").exists()


@pytest.mark.parametrize("state", [object(), lambda: 0], ids=["object", "function"])
def test_a_callback_that_no_checkpoint_can_hold_is_named(small, tmp_path, state):
    class Keeps(Callback):
        def state_dict(self):
            return {"kept": state}

    with pytest.raises(TypeError, match=r"the state_dict\(\) of .*Keeps holds more than plain data"):
        fit(small, KGCNConfig(epochs=2), tmp_path, device="cpu", callbacks=[Keeps()])
    assert not [*tmp_path.glob("*.ckpt")]
