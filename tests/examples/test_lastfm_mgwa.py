"""The example as people run it, once in a process of its own."""

import http.server
import json
import os
import signal
import subprocess
import sys
import threading
from functools import partial
from urllib.parse import urlsplit

import pytest

from mgwa_pyg.datasets import LastFMKG, download
from mgwa_pyg.evaluation import HEURISTICS
from mgwa_pyg.recommenders import RECOMMENDERS
from mgwa_pyg.train import ClickModule
from tests.examples.run import EXAMPLES, run_example

EXAMPLE = EXAMPLES / "lastfm_mgwa.py"
run_here = partial(run_example, "lastfm_mgwa")
QUICK = ["--data", "synthetic", "--seeds", "1", "--epochs", "2"]


def metrics(folder):
    """The figures of a run without the times that it took."""
    rows = json.loads((folder / "metrics.json").read_text())["rows"]
    return [{key: row[key] for key in row if key not in ("train_seconds", "rows_per_second")} for row in rows]


def test_options_reach_the_model(tmp_path):
    options = "--negatives items --fusion concat --layers 2 --dim 8 --fanout 3 --seed 7 --device cpu"
    status, _, _ = run_here(*QUICK, *options.split(), "--out", tmp_path / "run")
    assert status == 0
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert config["fit"]["fusion"] == "concat"
    assert (config["fit"]["num_layers"], config["fit"]["channels"], config["fit"]["fanout"]) == (2, 8, 3)
    assert [(row["negatives"], row["seed"]) for row in metrics(tmp_path / "run")] == [("items", 7)] * 7


@pytest.mark.parametrize("model", ["kgcn", "ripplenet", "lightgcn", "collaborative"])
def test_other_models(tmp_path, model):
    options = f"--negatives items --model {model} --epochs 1 --dim 4"
    status, out, _ = run_here(
        "--data", "synthetic", "--seeds", "1", *options.split(), "--out", tmp_path / "run"
    )
    assert status == 0
    assert model in out
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert config["fit"] == RECOMMENDERS[model].config_class(epochs=1, channels=4).to_dict()
    assert [row["model"] for row in metrics(tmp_path / "run")] == [model, *HEURISTICS]


def test_transe_says_how_well_it_knows_the_triples(tmp_path):
    status, out, _ = run_here(*QUICK, "--negatives", "items", "--transe", "--out", tmp_path / "run")
    assert status == 0
    (transe,) = json.loads((tmp_path / "run" / "metrics.json").read_text())["transe"]
    assert f"MRR {transe['mrr']:.4f}, Hits@10 {transe['hits@10']:.4f}" in out


# Runs a script that is killed as soon as a file of that name is there.
KILLED = """
import os, runpy, signal, sys
from pathlib import Path

last = sys.argv.pop(1)
sys.argv.pop(0)
put = Path.replace

def deadly(self, target):
    result = put(self, target)
    if str(target).endswith(last):
        os.kill(os.getpid(), signal.SIGKILL)
    return result

Path.replace = deadly
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="needs SIGKILL")
def test_one_command_trains_both_protocols_and_a_killed_one_goes_on_to_the_same(tmp_path):
    environment = {**os.environ, "COLUMNS": "100"}
    command = [sys.executable, EXAMPLE, *QUICK, "--out", tmp_path / "whole"]
    whole = subprocess.run([*map(str, command)], capture_output=True, text=True, env=environment, check=False)
    assert whole.returncode == 0, whole.stderr
    assert whole.stderr == ""  # No warning reaches the user.
    for text in ("SYNTHETIC data, not Last.FM", "Paper protocol", "Item protocol", "mgwa", "popularity"):
        assert text in whole.stdout
    assert "published" not in whole.stdout  # The paper says nothing about made-up data.
    assert json.loads((tmp_path / "whole" / "metrics.json").read_text())["synthetic"] is True

    folder = tmp_path / "cut"
    command = [sys.executable, "-c", KILLED, "entities-seed0/result.json", EXAMPLE, *QUICK, "--out", folder]
    process = subprocess.run([*map(str, command)], capture_output=True, text=True, check=False)
    assert process.returncode == -signal.SIGKILL, process.stderr
    assert (folder / "fits" / "entities-seed0" / "result.json").exists()
    assert not (folder / "metrics.json").exists()

    status, out, _ = run_here("--resume", folder)
    assert status == 0
    assert "negatives from entities" not in out  # That fit was done already.
    assert metrics(folder) == metrics(tmp_path / "whole")


def test_without_a_network_one_address_is_tried_and_synthetic_data_take_over(tmp_path, monkeypatch):
    class Proxy(http.server.BaseHTTPRequestHandler):
        """Refuses all that it is asked for, and keeps it."""

        def do_CONNECT(self):
            asked.append(self.path)
            self.send_error(503)

        def log_message(self, *args):
            pass

    asked = []
    with http.server.HTTPServer(("127.0.0.1", 0), Proxy) as proxy:
        threading.Thread(target=proxy.serve_forever, args=(0.01,), daemon=True).start()
        for name in ("MGWA_PYG_RAW", "no_proxy", "NO_PROXY"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("https_proxy", f"http://127.0.0.1:{proxy.server_port}")
        monkeypatch.setattr(download, "ANSWER_SECONDS", 300.0)  # However busy the machine is.
        options = ["--seeds", "1", "--epochs", "1", "--negatives", "items"]
        status, out, _ = run_here(*options, "--root", tmp_path, "--out", tmp_path / "run")
        proxy.shutdown()
    assert status == 0
    first = LastFMKG.raw_files[next(iter(LastFMKG.raw_files))]
    assert asked == [f"{urlsplit(first.url).hostname}:443"]  # The others are not tried in vain.
    assert out.startswith("LAST.FM IS NOT AT HAND")  # Before anything is trained.
    assert "MGWA_PYG_RAW" in out  # What to do about it.
    assert json.loads((tmp_path / "run" / "metrics.json").read_text())["synthetic"] is True


@pytest.mark.real_data
def test_lastfm_in_one_epoch(lastfm_raw, tmp_path):
    options = ["--data", "lastfm", "--seeds", "1", "--epochs", "1"]
    status, out, _ = run_here(*options, "--root", tmp_path, "--out", tmp_path / "run")
    assert status == 0
    assert "mgwa, published" in out
    rows = metrics(tmp_path / "run")
    assert {(row["model"], row["negatives"]) for row in rows} == {
        (model, negatives) for model in ("mgwa", *HEURISTICS) for negatives in ("items", "entities")
    }


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--layers", "0"], "num_layers=0"),
        (["--seeds", "0"], "--seeds must be at least 1"),
        (["--model", "ripplenet", "--fusion", "sum"], "--fusion means nothing to --model ripplenet"),
        (["--fanout", "few"], "argument --fanout"),
        (["--resume", "nowhere"], "nowhere is not the folder of a run"),
    ],
)
def test_bad_options_end_in_one_line(args, message):
    status, _, err = run_here("--data", "synthetic", *args)
    assert message in f"{status} {err}"


def test_ctrl_c_keeps_what_is_finished(tmp_path, monkeypatch):
    def interrupted(self, batch, batch_idx):
        if self.seed == 1:
            os.kill(os.getpid(), signal.SIGINT)
        return step(self, batch, batch_idx)

    step = ClickModule.training_step
    options = ["--data", "synthetic", "--epochs", "1", "--negatives", "items", "--seeds", "2"]
    with monkeypatch.context() as patch:
        patch.setattr(ClickModule, "training_step", interrupted)
        status, _, err = run_here(*options, "--out", tmp_path / "run")
    assert status == 130
    assert err == (f"interrupted; go on with --resume {tmp_path / 'run'}, where all is that was finished\n")
    assert (tmp_path / "run" / "fits" / "items-seed0" / "result.json").exists()
    status, out, _ = run_here("--resume", tmp_path / "run")
    assert status == 0
    assert "seed 0: AUC" not in out
    assert "seed 1: AUC" in out
    assert len(metrics(tmp_path / "run")) == 14


def test_a_device_that_is_not_there(tmp_path, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    status, _, _ = run_here(*QUICK, "--device", "cuda", "--out", tmp_path / "run")
    assert status == "error: device='cuda', but torch finds no CUDA device here: choose 'cpu' or 'auto'"
    assert not (tmp_path / "run").exists()
