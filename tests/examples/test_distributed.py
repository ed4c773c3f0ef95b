"""The distributed example: any number of processes takes the same steps, and what is interrupted goes on."""

import os
import runpy
import subprocess
import sys
from types import SimpleNamespace

import pandas as pd
import pytest
import torch

from mgwa_pyg.recommend import Recommender
from mgwa_pyg.recommenders import read_checkpoint, restore
from mgwa_pyg.utils.files import save_tensors
from tests.examples.run import EXAMPLES, run_example

EXAMPLE = EXAMPLES / "distributed.py"
# More neighbors than are drawn, a last batch that is left out, and odd numbers of rows to evaluate.
OPTIONS = ["--triples", 20_010, "--layers", 2, "--fanout", 3, "--batch-size", 500, "--dim", 8, "--lr", 0.1]


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Where all runs keep their data."""
    return tmp_path_factory.mktemp("data")


def logged(run, name="step_loss", version=0):
    """What was logged by this name."""
    table = pd.read_csv(run / "logs" / f"version_{version}" / "metrics.csv")
    return torch.tensor(table[name].dropna().to_numpy())


def run_here(*args):
    """Run the example; gives what it said, errors last."""
    status, out, _ = run_example("distributed", *args)
    return out + str(status or "")


@pytest.mark.slow
def test_two_processes_take_the_steps_of_one(root, tmp_path):
    run_here(*OPTIONS, "--root", root, "--epochs", 2, "--out", tmp_path / "one")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command += [EXAMPLE, *OPTIONS, "--root", root, "--epochs", 2, "--out", tmp_path / "two"]
    result = subprocess.run([*map(str, command)], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    one, two = logged(tmp_path / "one"), logged(tmp_path / "two")
    assert len(one) == 2 * (4800 // 500)
    torch.testing.assert_close(two, one, rtol=0, atol=1e-5)
    assert one.std() > 1e-3  # There is something to agree on.
    for name in ("val_auc", "test_auc"):  # Of all rows, although their shares are not of one size.
        torch.testing.assert_close(
            logged(tmp_path / "two", name), logged(tmp_path / "one", name), rtol=0, atol=1e-4
        )
    checkpoints = [read_checkpoint(tmp_path / run / "last.ckpt") for run in ("one", "two")]
    for one, two in zip(*(checkpoint["history"] for checkpoint in checkpoints), strict=True):
        for name in ("train_loss", "train_auc", "val_loss", "val_auc"):
            assert two[name] == pytest.approx(one[name], abs=1e-4)
    assert checkpoints[0]["hyper_parameters"] == checkpoints[1]["hyper_parameters"]
    for name, value in checkpoints[0]["state_dict"].items():
        torch.testing.assert_close(checkpoints[1]["state_dict"][name], value, rtol=0, atol=1e-4)
    assert "test AUC" in result.stdout


def test_goes_on_as_if_it_had_not_been_interrupted(root, tmp_path):
    whole = run_here(*OPTIONS, "--root", root, "--epochs", 3, "--out", tmp_path / "whole")
    run_here(*OPTIONS, "--root", root, "--epochs", 1, "--out", tmp_path / "parts")
    (tmp_path / "parts").rename(tmp_path / "moved")
    rest = run_here("--resume", tmp_path / "moved", "--epochs", 3)
    parts = [logged(tmp_path / "moved", version=version) for version in (0, 1)]
    assert torch.equal(torch.cat(parts), logged(tmp_path / "whole"))
    history = [read_checkpoint(tmp_path / run / "last.ckpt")["history"] for run in ("whole", "moved")]
    assert [entry["val_auc"] for entry in history[0]] == [entry["val_auc"] for entry in history[1]]
    result = next(line for line in whole.splitlines() if "test AUC" in line)
    assert result.split(";")[0] in rest


def test_leaves_a_checkpoint_of_mgwa(root, tmp_path):
    run_here(*OPTIONS, "--root", root, "--epochs", 1, "--out", tmp_path)
    content = read_checkpoint(tmp_path / "best.ckpt")
    again = restore(tmp_path / "best.ckpt")
    for name, value in again.model.state_dict().items():
        assert torch.equal(content["state_dict"][f"model.{name}"], value)
    assert content["hyper_parameters"]["fingerprint"] == again.dataset.fingerprint
    assert len(Recommender.load(tmp_path).recommend(3, k=5)) == 5


def test_sparse_gradients_take_the_steps_of_dense_ones(root, tmp_path):
    for name, options in {"sparse": [], "dense": ["--dense"], "half": ["--precision", "bf16-mixed"]}.items():
        run_here(*OPTIONS, "--root", root, "--epochs", 1, "--out", tmp_path / name, *options)
    sparse = logged(tmp_path / "sparse")
    torch.testing.assert_close(logged(tmp_path / "dense"), sparse, rtol=0, atol=1e-5)
    half = logged(tmp_path / "half")
    assert not torch.equal(half, sparse)
    torch.testing.assert_close(half, sparse, rtol=0, atol=1e-2)


@pytest.mark.parametrize("longest", [0.5, 100.0])
def test_clips_sparse_gradients_as_torch_clips_dense_ones(longest):
    index = torch.tensor([3, 1, 3, 0])
    models = []
    for sparse in (True, False):
        torch.manual_seed(0)
        model = torch.nn.ModuleList([torch.nn.Embedding(5, 4, sparse=sparse), torch.nn.Linear(4, 2)])
        (3 * model[1](model[0](index))).square().sum().backward()
        models.append(model)
    example = runpy.run_path(str(EXAMPLE), run_name="imported")
    clip = example["SharedClicks"].configure_gradient_clipping
    clip(SimpleNamespace(model=models[0]), None, longest, None)
    torch.nn.utils.clip_grad_norm_(models[1].parameters(), longest)
    for got, want in zip(models[0].parameters(), models[1].parameters(), strict=True):
        torch.testing.assert_close(got.grad.to_dense(), want.grad)


def test_the_shares_of_the_processes_are_the_batch():
    batches = runpy.run_path(str(EXAMPLE), run_name="imported")["Batches"]

    def epoch(rank, world_size, seed, number=0):
        sampler = batches(103, 10, rank, world_size, seed)
        sampler.set_epoch(number)
        assert len(list(sampler)) == len(sampler)
        return list(sampler)

    whole = epoch(0, 1, seed=4)
    shares = [epoch(rank, 2, seed=4) for rank in (0, 1)]
    assert len(whole) == 10
    for batch, *parts in zip(whole, *shares, strict=True):
        assert [len(part) for part in parts] == [5, 5]
        assert sorted(torch.cat(parts).tolist()) == sorted(batch.tolist())
    rows = torch.cat(whole)
    assert len(rows.unique()) == 100
    assert not torch.equal(rows, torch.cat(epoch(0, 1, seed=4, number=1)))
    assert not torch.equal(rows, torch.cat(epoch(0, 1, seed=5)))
    evaluated = torch.cat([torch.cat(epoch(rank, 2, seed=None)) for rank in (0, 1)])
    assert sorted(evaluated.tolist()) == list(range(103))  # Evaluation leaves no row out.
    again = torch.cat([torch.cat(epoch(rank, 2, seed=None, number=1)) for rank in (0, 1)])
    assert torch.equal(evaluated, again)
    # Positives come first in the data, but one batch has rows of both labels.
    assert 0 < (epoch(0, 1, seed=None)[0] < 52).sum() < 10


def test_errors_say_what_to_do(root, tmp_path):
    assert "last.ckpt is missing" in run_here("--resume", tmp_path / "nothing")
    said = run_here(*OPTIONS, "--root", root, "--out", tmp_path / "large", "--batch-size", 10**6)
    assert "--batch-size 1000000 must be" in said
    (tmp_path / "last.ckpt").touch()
    assert "go on with it (--resume" in run_here(*OPTIONS, "--out", tmp_path)
    said = run_here(*OPTIONS, "--root", root, "--out", tmp_path / "diverged", "--lr", 1e38)
    assert said.startswith("error: training has left the finite numbers")


def test_ctrl_c_keeps_the_last_epoch(root, tmp_path):
    """In a process of its own: the example trains a module of its own."""
    code = f"""
import os, runpy, signal, sys
import lightning as L
class Interrupt(L.Callback):
    def on_train_batch_start(self, trainer, module, batch, number):
        if trainer.current_epoch == 1:
            os.kill(os.getpid(), signal.SIGINT)
made = L.Trainer.__init__
def make(self, **options):
    made(self, **{{**options, "callbacks": [*options["callbacks"], Interrupt()]}})
L.Trainer.__init__ = make
sys.argv[0] = {str(EXAMPLE)!r}
runpy.run_path(sys.argv[0], run_name="__main__")
"""
    options = [*OPTIONS, "--root", root, "--epochs", 3, "--out", tmp_path / "run"]
    result = subprocess.run(
        [sys.executable, "-c", code, *map(str, options)], capture_output=True, text=True, check=False
    )
    assert result.returncode == 130, result.stderr
    last = f"interrupted; --resume {tmp_path / 'run'} goes on after the last whole epoch"
    assert result.stderr.splitlines()[-1] == last
    assert "Traceback" not in result.stderr
    assert (tmp_path / "run" / "last.ckpt").exists()


def test_errors_come_before_anything_is_written(root, tmp_path, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    options = [*OPTIONS, "--root", root, "--out", tmp_path / "run"]
    assert run_here(*options, "--device", "cuda") == (
        "error: device='cuda', but torch finds no CUDA device here: choose 'cpu' or 'auto'"
    )
    assert not (tmp_path / "run").exists()
    (tmp_path / "last.ckpt").write_bytes(b"no checkpoint")
    assert "last.ckpt is damaged, or no checkpoint" in run_here("--resume", tmp_path)
    run_here(*options, "--epochs", 1, "--steps", 1)
    content = read_checkpoint(tmp_path / "run" / "last.ckpt")
    del content["hyper_parameters"]["options"]  # Thus a fit leaves it.
    save_tensors(tmp_path / "last.ckpt", content)
    assert "last.ckpt is no checkpoint of this script" in run_here("--resume", tmp_path)


def test_the_graph_follows_its_data(root, tmp_path):
    options = [*OPTIONS, "--root", tmp_path / "data", "--epochs", 1, "--steps", 1]
    run_here(*options, "--out", tmp_path / "first")
    [graph] = (tmp_path / "data").rglob("*.graph.pt")
    [processed] = (path for path in graph.parent.glob("*.pt") if path.stem == graph.name.split(".")[0])
    whole = graph.read_bytes()
    graph.write_bytes(b"of other data")
    earlier = processed.stat().st_mtime - 10
    os.utime(graph, (earlier, earlier))
    run_here(*options, "--out", tmp_path / "second")
    assert len(graph.read_bytes()) == len(whole)
