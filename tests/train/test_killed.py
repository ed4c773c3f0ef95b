"""Processes that are killed: the next one goes on to the same bits, and no damaged file is left."""

import json
import multiprocessing
import os
import random
import signal
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from mgwa_pyg.datasets import SyntheticKG
from mgwa_pyg.train import CollaborativeConfig, MGWAConfig, RunFolder, fit, read_checkpoint

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="needs SIGKILL")

SIZES = {
    "num_users": 40, "num_items": 80, "num_entities": 150, "num_relations": 5, "num_triples": 500,
    "num_interactions": 500,
}  # fmt: skip
CONFIGS = {
    "mgwa": MGWAConfig(epochs=3, patience=3, channels=4, num_layers=2, fanout=3, batch_size=128),
    "collaborative": CollaborativeConfig(epochs=3, patience=3, channels=4, passes=2),
}
KILLED = -9


def whole_run(folder, model):
    """A data set that is kept on disk, and a run with two fits on it: begun, or gone on with."""
    settings = {
        "dataset": "SyntheticKG", "synthetic": True, "model": model, "protocols": ["items"], "seeds": [0, 1],
        "fit": CONFIGS[model].to_dict(),
    }  # fmt: skip
    path = folder / "run"
    run = RunFolder.resume(path) if (path / "config.json").exists() else RunFolder(path, settings)
    for seed in (0, 1):
        if not run.has("items", seed):
            dataset = SyntheticKG(folder / "data", **SIZES, seed=seed)
            result = fit(dataset, CONFIGS[model], run.fit_folder("items", seed), seed=seed, device="cpu")
            run.add(dataset, "items", seed, result)
    run.finish()
    (folder / "cpu_seconds").write_text(str(time.process_time()))


def one_fit(folder, model):
    fit(SyntheticKG(**SIZES), replace(CONFIGS[model], epochs=2), folder, device="cpu")


def work(task, folder, model, number, moment, cpu_seconds):
    """Do a task, and die with the file of that number half-written, or just put into its place.

    Or die wherever it is after so many seconds of the process's own, which a busy machine makes no longer.
    """
    torch.set_num_threads(1)
    signal.setitimer(signal.ITIMER_PROF, cpu_seconds)  # Ends the process; 0 sets no timer.
    put, count = Path.replace, 0

    def deadly(self, target):
        nonlocal count
        count += 1
        if count == number and moment == "before":
            os.truncate(self, self.stat().st_size // 2)
            os.kill(os.getpid(), signal.SIGKILL)
        put(self, target)
        if count == number:
            os.kill(os.getpid(), signal.SIGKILL)

    Path.replace = deadly
    task(folder, model)


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    """Start a process that works; it comes from a server that has done the imports."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["mgwa_pyg.train", "matplotlib.pyplot", "scipy.stats"])

    def start(task, folder, model, number=0, moment="never", cpu_seconds=0.0):
        process = context.Process(target=work, args=(task, folder, model, number, moment, cpu_seconds))
        process.start()
        return process

    assert ended(start(process_data, tmp_path_factory.mktemp("first"), "")) == 0
    return start


def ended(process):
    process.join()
    return process.exitcode


@pytest.fixture(scope="module", params=list(CONFIGS))
def uninterrupted(request, start, tmp_path_factory):
    folder, model = tmp_path_factory.mktemp("uninterrupted"), request.param
    assert ended(start(whole_run, folder, model)) == 0
    assert ended(start(one_fit, folder / "fit", model)) == 0
    return folder, model


def figures(folder):
    """All that a run comes to, but the times that it took."""
    times = ("train_seconds", "rows_per_second")
    metrics = json.loads((folder / "run" / "metrics.json").read_text())
    rows = [{key: value for key, value in row.items() if key not in times} for row in metrics["rows"]]
    return rows, (folder / "run" / "predictions.csv").read_bytes()


def weights_and_history(checkpoint):
    content = read_checkpoint(checkpoint)
    weights = {name: tensor.tolist() for name, tensor in content["state_dict"].items()}
    return weights, [{**entry, "train_seconds": 0} for entry in content["history"]]


def files(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def assert_same_run(folder, whole):
    assert files(folder / "run") == files(whole / "run")  # Nothing is left over.
    assert files(folder / "data") == files(whole / "data")
    assert figures(folder) == figures(whole)
    for name in ("run/best.ckpt", "run/fits/items-seed0/best.ckpt", "run/fits/items-seed1/best.ckpt"):
        assert weights_and_history(folder / name) == weights_and_history(whole / name)


def assert_readable(folder):
    """Whatever stands under its own name is whole."""
    for path in folder.rglob("[!.]*"):
        if path.suffix == ".ckpt":
            read_checkpoint(path)
        elif path.suffix == ".json":
            json.loads(path.read_text())
        elif path.suffix == ".pt":
            torch.load(path)


def test_killed_while_files_are_written(uninterrupted, start, tmp_path):
    whole, model = uninterrupted
    draw = random.Random(model)
    deaths = 0
    while exitcode := ended(
        start(whole_run, tmp_path, model, draw.randint(1, 6), draw.choice(["before", "after"]))
    ):
        assert exitcode == KILLED
        assert_readable(tmp_path)
        deaths += 1
    assert deaths >= 4
    assert_same_run(tmp_path, whole)


def test_killed_at_any_time(uninterrupted, start, tmp_path):
    whole, model = uninterrupted
    seconds = float((whole / "cpu_seconds").read_text())
    draw = random.Random(model)
    deaths = 0
    for _ in range(6):
        process = start(whole_run, tmp_path, model, cpu_seconds=draw.uniform(0.05, 0.5) * seconds)
        exitcode = ended(process)
        assert exitcode in (0, -signal.SIGPROF)
        deaths += exitcode != 0
        assert_readable(tmp_path)
    assert deaths >= 1
    assert ended(start(whole_run, tmp_path, model)) == 0
    assert_same_run(tmp_path, whole)


def test_killed_at_each_checkpoint_of_a_fit(uninterrupted, start, tmp_path):
    whole, model = uninterrupted
    number = 0
    while True:
        number += 1
        exitcodes = []
        for moment in ("before", "after"):
            folder = tmp_path / f"{number}-{moment}"
            exitcodes.append(ended(start(one_fit, folder, model, number, moment)))
            if exitcodes[-1] == KILLED:
                assert_readable(folder)
                assert ended(start(one_fit, folder, model)) == 0
            assert files(folder) == ["best.ckpt"]
            assert weights_and_history(folder / "best.ckpt") == weights_and_history(whole / "fit/best.ckpt")
        if exitcodes == [0, 0]:
            break
        assert exitcodes == [KILLED, KILLED]
    assert number - 1 >= 3  # One `last.ckpt` an epoch, and a best one at least.


@pytest.mark.parametrize("moment", ["before", "after"])
def test_killed_while_data_are_processed(start, tmp_path, moment):
    assert ended(start(process_data, tmp_path, "", 1, moment)) == KILLED
    assert len(list(tmp_path.rglob("*.part"))) == (moment == "before")
    assert SyntheticKG(tmp_path, **SIZES).fingerprint == SyntheticKG(**SIZES).fingerprint
    again = SyntheticKG(tmp_path, **SIZES)  # From the file.
    assert again.fingerprint == SyntheticKG(**SIZES).fingerprint
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == [again.processed_file_names]


def process_data(folder, model):
    SyntheticKG(folder, **SIZES)
