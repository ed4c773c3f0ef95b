"""Benchmarks that somebody ends: what was measured stays, and no process is left."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from benchmarks import __main__ as command
from benchmarks import search, train
from benchmarks.experiments import Interrupted
from benchmarks.harness import Report, child_process, figure
from mgwa_pyg.datasets import SyntheticKG
from tests.graphs import SIZES

ROOT = Path(__file__).resolve().parents[2]

# Each has a first part that ends and a second that never does.
ENDLESS = {
    "table2": """
from benchmarks import experiments, table2
from mgwa_pyg.train import MGWAConfig
experiments._num_processes = lambda settings: 1
table2.MODELS = {"first": MGWAConfig(epochs=1), "endless": MGWAConfig(epochs=10**9, patience=10**9)}
""",
    "layer": """
import dataclasses
from benchmarks import layer
layer.SIZES["Last.FM's size"] = (300, 40)
layer.IMPLEMENTATIONS["aggregation"] = ["ours, torch"]
layer.MALLOCS = {"default": {}}
layer.cases = lambda settings: [layer.Case("aggregation", "Last.FM's size", channels) for channels in (8, 16)]
make_job = layer.make_job

def job_of(case, *others):
    endless = {"repeats": 10**9, "seconds": 1e6, "timeout": 1e6} if case.channels == 16 else {}
    return dataclasses.replace(make_job(case, *others), **endless)

layer.make_job = job_of
""",
}
SCRIPT = """
if __name__ == "__main__":  # Not in the processes that this one starts.
{}
    from benchmarks import __main__
    __main__.main()
"""


def marked(mark):
    """The processes that have a mark in their environment: all descendants, wherever they went."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if mark.encode() in (folder / "environ").read_bytes().split(b"\0"):
                found.append(int(folder.name))
        except OSError:  # It ended meanwhile, or is somebody else's.
            continue
    return found


def wait_for(condition, process):
    """Wait until something holds; the process must not end before."""
    while not condition():
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)


@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="the test looks for processes there")
@pytest.mark.parametrize(
    ("name", "number", "to_all"),
    [
        ("table2", signal.SIGINT, True),  # As a terminal does it.
        ("layer", signal.SIGTERM, False),
    ],
)
def test_what_is_finished_is_kept_and_no_process_is_left(name, number, to_all, tmp_path):
    lines = "".join(f"    {line}\n" for line in ENDLESS[name].splitlines())
    script, rows, out = tmp_path / "script.py", tmp_path / "rows.json", tmp_path / "out"
    script.write_text(SCRIPT.format(lines))
    mark = f"MGWA_TEST={tmp_path}"
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    process = subprocess.Popen(
        [sys.executable, script, name, "--quick", "--data", "synthetic", "--json", rows, "--out", out],
        env={**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": str(temporary), **dict([mark.split("=")])},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        wait_for(rows.exists, process)
        assert len(marked(mark)) > 1
        (os.killpg if to_all else os.kill)(process.pid, number)
        _, errors = process.communicate(timeout=300)  # Else it would hang.
        for _ in range(200):
            if not marked(mark):
                break
            time.sleep(0.05)  # What tracks the processes' resources ends after them, by itself.
        assert not marked(mark)
    finally:
        for left in marked(mark):
            os.kill(left, signal.SIGKILL)
    assert process.returncode == 128 + number
    assert "interrupted\n" in errors
    assert "Traceback" not in errors
    kept = json.loads(rows.read_text())["rows"]
    assert {row["benchmark"] for row in kept} == {name}
    assert all(row["value"] is not None for row in kept)
    if name == "table2":
        assert {row["implementation"] for row in kept} == {"first"}
        assert not list(temporary.iterdir())


@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="the test looks for processes there")
def test_a_child_process_is_gone_with_all_that_it_started(tmp_path):
    sleep = "import time; time.sleep(1e6)"
    start = (
        f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', '{sleep}'], start_new_session=True)"
    )
    mark = f"MGWA_TEST={tmp_path}"
    with child_process(
        ["-c", f"{start}; print('ready', flush=True); {sleep}"],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, **dict([mark.split("=")])},
    ) as process:
        process.stdout.readline()
        wait_for(lambda: len(marked(mark)) == 2, process)  # While it starts, its environment cannot be read.
    for _ in range(200):
        if not marked(mark):
            break
        time.sleep(0.05)  # Nobody waits for the second one.
    assert not marked(mark)


def test_training_speeds_that_are_measured_are_kept(monkeypatch, tmp_path):
    def ends(dataset, config, *others, fit=train.fit, **options):
        if config.num_layers == 2:
            os.kill(os.getpid(), signal.SIGTERM)
        return fit(dataset, config, *others, **options)

    rows = tmp_path / "rows.json"
    monkeypatch.setattr(train, "SyntheticKG", lambda **_: SyntheticKG(**SIZES))
    monkeypatch.setattr(train, "fit", ends)
    monkeypatch.setattr(sys, "argv", ["benchmarks", "train", "--quick", "--json", str(rows)])
    with pytest.raises(SystemExit) as ended:
        command.main()
    assert ended.value.code == 143
    assert [row["case"] for row in json.loads(rows.read_text())["rows"]] == ["layers=1 d=16 K=8 batch=512"]


def test_an_interrupted_search_keeps_the_settings_that_are_done(monkeypatch, tmp_path):
    def interrupted(function, jobs, name):
        # Two settings of two forms, two protocols and three seeds each are done, and a part of the third.
        results = [[{"val_auc": number / 100}] if number < 25 else None for number in range(len(jobs))]
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        raise Interrupted(results)

    monkeypatch.setattr(search, "parallel", interrupted)
    monkeypatch.setattr(sys, "argv", ["search", "mgwa", "--json", str(tmp_path / "rows.json")])
    with pytest.raises(SystemExit) as ended:
        search.main()
    assert ended.value.code == 130
    rows = json.loads((tmp_path / "rows.json").read_text())["validation AUC"]
    assert [row["mean"] for row in rows] == pytest.approx([sum(range(12, 24)) / 1200, sum(range(12)) / 1200])


def test_without_a_file_the_rows_of_an_interrupted_run_are_kept_in_its_folder(monkeypatch, tmp_path, capsys):
    row = figure("one", "a case", "ours", "time", "ms", [2.0])

    class Ends:
        def run(self, settings):
            settings.record.keep("ends", [row])
            os.kill(os.getpid(), signal.SIGINT)
            return Report([])

    class Works:
        def run(self, settings):
            settings.record.keep("works", [row])
            return Report([row])

    monkeypatch.setattr(command, "BENCHMARKS", ["works", "ends"])
    monkeypatch.setattr(command, "import_module", lambda name: Ends() if "ends" in name else Works())
    monkeypatch.setattr(sys, "argv", ["benchmarks", "all", "--out", str(tmp_path)])
    handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    with pytest.raises(SystemExit) as ended:
        command.main()
    assert ended.value.code == 130
    assert handlers == [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    assert json.loads((tmp_path / "all_interrupted.json").read_text())["rows"] == [row, row]
    assert str(tmp_path / "all_interrupted.json") in capsys.readouterr().err


@pytest.mark.parametrize("name", ["train", "all"])
def test_a_device_that_is_not_there(name, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(command, "attempt", lambda *_: pytest.fail("something was run"))
    monkeypatch.setattr(sys, "argv", ["benchmarks", name, "--device", "cuda"])
    with pytest.raises(SystemExit, match=r"^error: --device cuda, but torch \S+ finds no CUDA device here$"):
        command.main()
