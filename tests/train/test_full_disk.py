"""A full disk, or a folder that cannot be written: the error names the file, and what was there stays."""

import multiprocessing
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import traceback
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from mgwa_pyg.datasets import SyntheticKG
from mgwa_pyg.sampler import NeighborSampler
from mgwa_pyg.train import ClickModule, MGWAConfig, fit, read_checkpoint

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="needs limits and users of Linux")

EXAMPLE = Path(__file__).resolve().parent.parent.parent / "examples" / "lastfm_mgwa.py"
SIZES = {"num_users": 40, "num_items": 80, "num_entities": 150, "num_triples": 500, "num_interactions": 500}
CONFIG = MGWAConfig(epochs=3, patience=3, channels=4)
NOBODY = 65534


def fit_here(folder):
    fit(SyntheticKG(**SIZES), CONFIG, folder, device="cpu")


def fit_with_less_room(folder):
    """The disk fills up after two epochs: no file may be larger than a part of a checkpoint."""
    save = ClickModule.on_train_epoch_start

    def fill(self):
        save(self)
        if self.current_epoch == 2:
            limit_files((folder / "last.ckpt").stat().st_size // 2)

    ClickModule.on_train_epoch_start = fill
    fit_here(folder)


def keep_data(folder):
    SyntheticKG(folder, **SIZES)


def keep_sampler(folder):
    kg = SyntheticKG(**SIZES)[0]["entity", "kg", "entity"]
    NeighborSampler(kg.edge_index, kg.rel_type, SIZES["num_entities"], fanout=4).save(folder / "graph.pt")


def limit_files(size):
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


def work(pipe, task, folder, limit, user):
    torch.set_num_threads(1)
    if user is not None and os.getuid() == 0:
        os.setgroups([])
        os.setgid(user)
        os.setuid(user)
    if limit is not None:
        limit_files(limit)
    try:
        task(folder)
        pipe.send(("nothing", ""))
    except Exception as error:
        pipe.send((type(error).__name__, str(error) or traceback.format_exc()))


@pytest.fixture(scope="module")
def attempt():
    """Do a task in a process of its own; gives the kind and the text of its error."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["mgwa_pyg.train", "matplotlib.pyplot", "scipy.stats"])

    def attempt(task, folder, limit=None, user=None):
        receive, send = context.Pipe(duplex=False)
        process = context.Process(target=work, args=(send, task, folder, limit, user))
        process.start()
        send.close()
        outcome = receive.recv() if receive.poll(60) else None
        process.join(60)
        return outcome

    return attempt


def content(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    ("task", "name"),
    [(fit_here, "best.ckpt"), (keep_data, "processed/v4-.*pt"), (keep_sampler, "graph.pt")],
)
def test_files_that_may_not_grow(attempt, tmp_path, task, name):
    kind, text = attempt(task, tmp_path, limit=2000)
    assert kind == "OSError"
    assert re.fullmatch(rf"\[Errno 27\] File too large: '{re.escape(str(tmp_path))}/{name}'", text)
    assert content(tmp_path) == {}


def test_checkpoints_outlive_a_disk_that_fills_up(attempt, tmp_path):
    kind, text = attempt(fit_with_less_room, tmp_path / "cut")
    assert kind == "OSError"
    assert "File too large" in text
    assert ".ckpt'" in text
    assert sorted(path.name for path in (tmp_path / "cut").iterdir()) == ["best.ckpt", "last.ckpt"]
    assert len(read_checkpoint(tmp_path / "cut" / "last.ckpt")["history"]) == 2
    ClickModule.restore(tmp_path / "cut" / "best.ckpt")

    resumed = fit(SyntheticKG(**SIZES), CONFIG, tmp_path / "cut", device="cpu")  # There is room again.
    whole = fit(SyntheticKG(**SIZES), CONFIG, tmp_path / "whole", device="cpu")
    assert torch.equal(resumed.score, whole.score)


@pytest.fixture
def small_disk(tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(disk)]
    if os.getuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        pytest.skip("a disk of a size of its own may not be mounted here")
    yield disk
    subprocess.run(["umount", "-l", str(disk)], check=True)


def test_a_full_disk(attempt, small_disk):
    assert attempt(fit_here, small_disk / "first")[0] == "nothing"
    (small_disk / "ballast").write_bytes(bytes(shutil.disk_usage(small_disk).free - 2 * 4096))
    before = content(small_disk)
    tasks = [(fit_here, "second/best.ckpt"), (fit_here, "first/best.ckpt"), (keep_data, "processed/")]
    for task, name in tasks:
        folder = small_disk / name.partition("/")[0] if task is fit_here else small_disk
        kind, text = attempt(task, folder)
        assert kind == "OSError"
        assert text.startswith(f"[Errno 28] No space left on device: '{small_disk / name}")
        assert content(small_disk) == before


def test_a_folder_that_may_not_be_written(attempt, tmp_path):
    folder = tmp_path / "fit"
    fit(SyntheticKG(**SIZES), replace(CONFIG, epochs=1), folder, device="cpu")
    for parent in folder.parents:  # The folders that pytest made are its user's alone.
        mode = parent.stat().st_mode
        if mode & 0o111 != 0o111:
            parent.chmod(mode | 0o111)
    before = content(folder)
    folder.chmod(0o555)
    try:
        for task in (fit_here, keep_data, keep_sampler):
            kind, text = attempt(task, folder, user=NOBODY)
            assert kind == "PermissionError"
            assert f"'{folder}/" in text
            assert content(folder) == before
    finally:
        folder.chmod(0o755)


def test_the_example_ends_in_one_line(tmp_path):
    options = ["--data", "synthetic", "--seeds", "1", "--epochs", "2", "--negatives", "items"]
    process = subprocess.run(
        [sys.executable, str(EXAMPLE), *options, "--out", str(tmp_path / "run")],
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=lambda: limit_files(20_000),
    )
    assert process.returncode == 1
    best = tmp_path / "run" / "fits" / "items-seed0" / "best.ckpt"
    assert process.stderr == f"error: [Errno 27] File too large: '{best}'\n"
    assert sorted(content(tmp_path)) == [tmp_path / "run" / "config.json"]
