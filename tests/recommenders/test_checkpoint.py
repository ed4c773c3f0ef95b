"""Checkpoints say what they are of; what is damaged, foreign or of another fit is refused with the reason."""

import io
import pickle
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from mgwa_pyg.datasets import SyntheticKG
from mgwa_pyg.recommenders import restore
from mgwa_pyg.recommenders.checkpoint import FORMAT, FORMAT_KEY
from mgwa_pyg.train import (
    CheckpointError,
    ClickModule,
    CollaborativeConfig,
    MGWAConfig,
    RunFolder,
    fit,
    read_checkpoint,
)
from tests.fits import interrupted
from tests.graphs import SIZES

CONFIG = MGWAConfig(epochs=2, channels=4)


@pytest.fixture(scope="module")
def checkpoint(small, tmp_path_factory):
    return fit(small, CONFIG, tmp_path_factory.mktemp("fit"), seed=3).checkpoint


@pytest.fixture
def copy(checkpoint, tmp_path):
    return shutil.copy(checkpoint, tmp_path / "copy.ckpt")


def test_checkpoints_are_plain_data_that_say_what_they_are_of(small, checkpoint):
    content = torch.load(checkpoint, weights_only=True)
    assert content[FORMAT_KEY] == FORMAT == 1
    assert content["hyper_parameters"] == {
        "config": CONFIG.to_dict(),
        "seed": 3,
        "started_from": None,
        "recipe": {
            "class": "SyntheticKG",
            "arguments": {"root": None, **SIZES, "negatives": "items", "seed": 0, "split": "random"},
        },
        "sizes": {name: SIZES[name] for name in ("num_users", "num_items", "num_entities", "num_relations")},
        "fingerprint": small.fingerprint,
    }


@pytest.mark.smoke
def test_a_checkpoint_is_restored_without_its_data(small, checkpoint):
    again, given = ClickModule.restore(checkpoint), ClickModule.restore(checkpoint, small)
    user, item = torch.arange(30), torch.arange(30, 60)
    scores = [m.recommender.score(user, item, torch.Generator().manual_seed(0)) for m in (again, given)]
    assert torch.equal(*scores)


def test_what_is_damaged_is_refused(copy):
    whole = copy.read_bytes()
    for damaged in (b"", whole[:100], whole[: len(whole) // 2], whole[:-1], b"a text\n" * 100):
        copy.write_bytes(damaged)
        with pytest.raises(
            CheckpointError, match=r"copy\.ckpt is damaged, or no checkpoint .*: take another"
        ):
            read_checkpoint(copy)
    largest = max(torch.load(io.BytesIO(whole))["state_dict"].values(), key=torch.numel).numpy().tobytes()
    flipped = bytearray(whole)
    flipped[whole.index(largest) + 100] ^= 1
    copy.write_bytes(flipped)
    with pytest.raises(CheckpointError, match=r"copy\.ckpt is damaged, or no checkpoint .*checksum"):
        read_checkpoint(copy)


class Code:
    ran = False

    def __reduce__(self):
        return setattr, (Code, "ran", True)


def test_code_is_not_run(copy):
    torch.save({FORMAT_KEY: FORMAT, "code": Code()}, copy)
    with pytest.raises(CheckpointError, match=r"copy\.ckpt holds more than plain data"):
        ClickModule.restore(copy)
    copy.write_bytes(pickle.dumps(Code()))
    with pytest.raises(CheckpointError, match=r"copy\.ckpt is damaged, or no checkpoint"):
        ClickModule.restore(copy)
    assert not Code.ran


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (torch.zeros(2), f"was not made by mgwa_pyg, as it has no '{FORMAT_KEY}'"),
        ({"state_dict": {}}, "was not made by mgwa_pyg"),
        ({FORMAT_KEY: "1"}, "was not made by mgwa_pyg"),
        ({FORMAT_KEY: 99}, r"made by a newer mgwa_pyg \(format 99; this one reads up to 1\): upgrade"),
        ({FORMAT_KEY: 0}, "was not made by mgwa_pyg"),
        ({FORMAT_KEY: 1, "history": []}, "has no hyper_parameters, state_dict"),
        ({FORMAT_KEY: 1, "history": [], "hyper_parameters": {}, "state_dict": {}}, "has no config, finger"),
        ({FORMAT_KEY: 1, "history": {}, "hyper_parameters": 1, "state_dict": []}, "has no history, hyper"),
    ],
)
def test_what_is_not_ours_is_refused(copy, content, message):
    torch.save(content, copy)
    with pytest.raises(CheckpointError, match=message) as error:
        read_checkpoint(copy)
    assert str(copy) in str(error.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda kept, state: kept["config"].update(new=1), r"does not know \(new: unknown to model='mgwa'"),
        (lambda kept, state: kept["config"].update(model="x"), r"does not know \(model='x' is unknown"),
        (lambda kept, state: kept["config"].update(lr="x"), r"does not know \(lr='x'"),
        (lambda kept, state: kept["config"].update(fusion="x"), "is of another fit|does not hold"),
        (lambda kept, state: kept.pop("config"), "has no config, or not as"),
        (lambda kept, state: kept.pop("fingerprint"), "has no fingerprint, or not as"),
        (lambda kept, state: kept.update(seed="0"), "has no seed, or not as"),
        (lambda kept, state: kept.update(sizes=[]), "has no sizes, or not as"),
        (lambda kept, state: kept["sizes"].update(num_users=torch.zeros(2)), "has no num_users, or not as"),
        (lambda kept, state: kept["config"].update(lr=torch.zeros(2)), "has no lr, or not as"),
        (lambda kept, state: kept["recipe"].pop("arguments"), "has no arguments, or not as"),
        (lambda kept, state: state.popitem(), r"does not hold the parameters of its model \(.*Missing key"),
        (lambda kept, state: state.update(spare=torch.zeros(1)), "does not hold .*Unexpected key"),
        (lambda kept, state: state.update({next(iter(state)): torch.zeros(1)}), "does not hold .*mismatch"),
    ],
)  # fmt: skip
def test_what_a_checkpoint_lacks_is_said(small, copy, change, message):
    content = torch.load(copy, weights_only=True)
    change(content["hyper_parameters"], content["state_dict"])
    torch.save(content, copy)
    with pytest.raises(CheckpointError, match=message) as error:
        ClickModule.restore(copy, small)
    assert str(copy) in str(error.value)


def test_a_checkpoint_from_before_a_hyper_parameter_has_its_default(small, copy, cut):
    for path in (copy, cut / "last.ckpt"):
        content = torch.load(path, weights_only=True)
        for name in ("loss", "passes"):
            content["hyper_parameters"]["config"].pop(name)
        torch.save(content, path)
    assert ClickModule.restore(copy, small).config == CONFIG
    with pytest.raises(CheckpointError, match="another fit, with loss='click' instead of loss='ranking'"):
        fit(small, replace(CONFIG, loss="ranking"), cut)
    assert len(fit(small, CONFIG, cut).history) == 2


def test_a_fit_does_not_go_on_with_parameters_of_another_shape(small, cut):
    content = torch.load(cut / "last.ckpt", weights_only=True)
    content["state_dict"].popitem()
    torch.save(content, cut / "last.ckpt")
    with pytest.raises(CheckpointError, match=r"last\.ckpt does not hold the parameters of its model"):
        fit(small, CONFIG, cut)


def test_a_damaged_cache_of_the_data_is_said(tmp_path):
    data = SyntheticKG(tmp_path / "data", **SIZES)
    best = fit(data, CONFIG, tmp_path / "fit").checkpoint
    processed = Path(data.processed_paths[0])
    processed.write_bytes(processed.read_bytes()[:500])
    with pytest.raises(
        CheckpointError, match=r"best\.ckpt was made with SyntheticKG.*pass the data set as `dataset=`"
    ):
        ClickModule.restore(best)


def test_a_folder_is_no_checkpoint(checkpoint):
    with pytest.raises(CheckpointError, match=r"is a folder: pass a checkpoint, such as its best\.ckpt"):
        restore(Path(checkpoint).parent)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_a_device_that_is_not_there_is_said(checkpoint):
    for device in ("cuda", "cuda:1", torch.device("cuda")):
        with pytest.raises(ValueError, match="torch finds no CUDA device here"):
            restore(checkpoint, device=device)


def test_a_missing_file_is_missing(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nothing\.ckpt"):
        ClickModule.restore(tmp_path / "nothing.ckpt")
    with pytest.raises(CheckpointError, match="is a folder"):
        read_checkpoint(tmp_path)


def test_other_data_are_refused(checkpoint):
    with pytest.raises(CheckpointError, match="num_users=30, but the data have 31"):
        ClickModule.restore(checkpoint, SyntheticKG(**{**SIZES, "num_users": 31}))
    with pytest.raises(CheckpointError, match=r"other data of the same sizes: SyntheticKG.*seed=0.*seed=1"):
        ClickModule.restore(checkpoint, SyntheticKG(**SIZES, seed=1))

    def turned(data):
        data["user", "listens", "entity"].edge_index = data["user", "listens", "entity"].edge_index.flip(1)
        return data

    with pytest.raises(CheckpointError, match="with other files or transforms"):
        ClickModule.restore(checkpoint, SyntheticKG(**SIZES, transform=turned))


class OwnKG(SyntheticKG):
    """A user's own class."""


def test_data_that_cannot_be_made_again_are_asked_for(small, checkpoint, copy, tmp_path):
    content = torch.load(checkpoint, weights_only=True)
    recipe = {"name": "toy", "root": str(tmp_path / "gone")}
    content["hyper_parameters"]["recipe"] = {"class": "RecBoleKG", "arguments": recipe}
    torch.save(content, copy)
    with pytest.raises(
        CheckpointError, match=r"RecBoleKG.*gone.*pass the data set as `dataset=`.* has no file "
    ):
        ClickModule.restore(copy)
    ClickModule.restore(copy, small)

    own = fit(OwnKG(**SIZES), CONFIG, tmp_path / "own").checkpoint
    with pytest.raises(CheckpointError, match=r"pass the data set as `dataset=` .*OwnKG is none of "):
        ClickModule.restore(own)
    ClickModule.restore(own, OwnKG(**SIZES))


@pytest.fixture
def cut(small, tmp_path):
    """The folder of a fit that was interrupted in its second epoch."""
    with interrupted(epoch=1):
        fit(small, CONFIG, tmp_path / "cut")
    return tmp_path / "cut"


def test_only_the_same_fit_goes_on(small, cut):
    before = {path.name: path.read_bytes() for path in cut.iterdir()}
    for data, config, seed, message in [
        (SyntheticKG(**{**SIZES, "num_users": 31}), CONFIG, 0, "num_users=30, but the data have 31"),
        (SyntheticKG(**SIZES, seed=1), CONFIG, 0, "other data of the same sizes"),
        (small, replace(CONFIG, lr=0.5), 0, r"another fit, with lr=0\.01 instead of lr=0\.5: go on"),
        (small, CONFIG, 7, "another fit, with seed=0 instead of seed=7"),
        (
            small,
            CollaborativeConfig(),
            0,
            "another fit, with model='mgwa', .*instead of model='collaborative'",
        ),
    ]:
        with pytest.raises(CheckpointError, match=message) as error:
            fit(data, config, cut, seed=seed)
        assert str(cut / "last.ckpt") in str(error.value)
    assert {path.name: path.read_bytes() for path in cut.iterdir()} == before
    assert len(fit(small, CONFIG, cut).history) == 2


def test_a_damaged_checkpoint_is_not_gone_on_with(small, cut):
    last = cut / "last.ckpt"
    last.write_bytes(last.read_bytes()[:-100])
    with pytest.raises(CheckpointError, match=r"last\.ckpt is damaged"):
        fit(small, CONFIG, cut)


@pytest.mark.parametrize(
    "change",
    [
        lambda content: content.pop("loops"),
        lambda content: content.update(callbacks=3),
        lambda content: content["optimizer_states"].clear(),
        lambda content: content.update({"pytorch-lightning_version": torch.zeros(2)}),
        lambda content: content["history"].append({}),
        lambda content: content["history"][0].pop("val_auc"),
        lambda content: content["history"][0].update(train_loss="0.1"),
    ],
)
def test_a_damaged_state_is_not_gone_on_with(small, cut, change):
    content = torch.load(cut / "last.ckpt", weights_only=True)
    content["history"] *= 2
    content["history"] = [dict(entry) for entry in content["history"]]
    change(content)
    torch.save(content, cut / "last.ckpt")
    with pytest.raises(CheckpointError, match=r"last\.ckpt (does not hold the state of a fit|has no)"):
        fit(small, CONFIG, cut)


def test_a_fit_that_goes_on_removes_nothing_that_a_checkpoint_names(small, cut):
    other = cut / ".." / "precious"
    other.write_text("mine")
    content = torch.load(cut / "last.ckpt", weights_only=True)
    for name, state in content["callbacks"].items():
        if "val_auc" in name and "best_model_score" in state:
            state |= {"best_model_path": str(other), "kth_best_model_path": str(other)}
            least = torch.tensor(-1.0)
            state |= {"best_k_models": {str(other): least}, "best_model_score": least, "kth_value": least}
    torch.save(content, cut / "last.ckpt")
    fit(small, CONFIG, cut)
    assert other.read_text() == "mine"


def test_a_fit_goes_on_where_its_folder_was_moved_to(small, cut, tmp_path):
    whole = fit(small, CONFIG, tmp_path / "whole")
    moved = cut.rename(tmp_path / "moved")
    content = torch.load(moved / "last.ckpt", weights_only=True)
    for name, state in content["callbacks"].items():
        if "val_auc" in name and "best_model_score" in state:  # As if the first epoch could not be beaten.
            state["best_model_score"] = torch.tensor(2.0)
            state["best_k_models"] = dict.fromkeys(state["best_k_models"], torch.tensor(2.0))
    torch.save(content, moved / "last.ckpt")
    first = torch.load(moved / "best.ckpt", weights_only=True)["history"]
    resumed = fit(small, CONFIG, moved)
    assert torch.load(resumed.checkpoint, weights_only=True)["history"] == first
    assert [e["val_auc"] for e in resumed.history] == [e["val_auc"] for e in whole.history]


def test_damaged_run_folders_say_so(tmp_path):
    settings = {
        "dataset": "SyntheticKG", "synthetic": True, "model": "mgwa", "protocols": ["items"], "seeds": [0],
        "fit": CONFIG.to_dict(),
    }  # fmt: skip
    run = RunFolder(tmp_path, settings)
    result = run.fit_folder("items", 0) / "result.json"
    result.parent.mkdir(parents=True)
    for text in ("", '{"rows": [', "[]", "{}", "\0\xff"):
        result.write_text(text)
        with pytest.raises(
            ValueError, match=r"result\.json is damaged .*: delete it, and the fit is done anew"
        ):
            RunFolder.resume(tmp_path).finish()
        (tmp_path / "config.json").write_text(text)
        with pytest.raises(ValueError, match=r"config\.json is damaged .*: begin anew in another folder"):
            RunFolder.resume(tmp_path)
        (tmp_path / "config.json").unlink()
        RunFolder(tmp_path, settings)
