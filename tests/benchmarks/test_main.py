"""The command line with the least that is installed: what can run does, what cannot says why."""

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import __main__ as command
from benchmarks.harness import NoDataError, Report, Settings, figure

ROOT = Path(__file__).resolve().parents[2]
MISSING = ["rich", "matplotlib", "pandas", "sklearn", "lightning", "scipy", "torch_scatter"]

# `all` with a single small case and a small graph, whose processes see the same packages.
SMALL_ALL = """
import mgwa_pyg.nn, mgwa_pyg.ops
from benchmarks import __main__, layer, scale
scale._SAMPLED = (1000, 10_000)
layer.SIZES["Last.FM's size"] = (300, 40)
layer.IMPLEMENTATIONS["aggregation"] = ["ours, torch", "PyG softmax + scatter", "torch_scatter"]
layer.MALLOCS = {"default": {}}
layer.cases = lambda settings: [layer.Case("aggregation", "Last.FM's size", 64)]
__main__.main()
"""


def test_all_where_only_torch_and_pyg_are_installed(tmp_path):
    (tmp_path / "sitecustomize.py").write_text(f"import sys\nsys.modules.update(dict.fromkeys({MISSING}))\n")
    file = tmp_path / "rows.json"
    result = subprocess.run(
        [sys.executable, "-c", SMALL_ALL, "all", "--quick", "--json", file, "--out", tmp_path / "out"],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    assert "\n| ours, torch | " in result.stdout  # The page, without rich.
    content = json.loads(file.read_text())
    assert set(content) == {"environment", "rows", "statuses"}
    measured = {row["implementation"] for row in content["rows"] if row["benchmark"] == "layer"}
    assert measured == {"ours, torch", "PyG softmax + scatter"}
    # Sampling needs no more either; training at scale does.
    assert {row["case"] for row in content["rows"] if row["benchmark"] == "scale"} == {
        "sampler 1M triples, 2 hops, fanout 8"
    }
    why = {(entry["case"], entry["implementation"]): entry["reason"] for entry in content["statuses"]}
    assert "lightning" in why.pop(("training", "examples/distributed.py"))
    why.pop(("sampler", "PyG's NeighborSampler"), None)
    assert "torch_scatter" in why.pop(("aggregation E=300 d=64 float32", "torch_scatter"))
    assert why == {
        (name, "all"): "it needs pandas, which is not installed"
        for name in (
            "train",
            "rank",
            "recommend",
            "update",
            "warm_start",
            "table2",
            "topk",
            "ablations",
            "collaborative",
            "clicks",
            "tables",
        )
    }
    for name, _ in why:
        assert f"\n{name} cannot run: it needs pandas, which is not installed\n" in result.stdout


@pytest.fixture
def run(monkeypatch, tmp_path):
    """`main` with given arguments and two benchmarks, of which the first has no data."""

    class Fails:
        def run(self, settings):
            raise NoDataError("No network.")

    class Works:
        def run(self, settings):
            return Report([figure("works", "a case", "ours", "time", "ms", [12345.0, 12347.0])])

    def run(*arguments):
        file = tmp_path / "rows.json"
        monkeypatch.setattr(command, "BENCHMARKS", ["fails", "works"])
        monkeypatch.setattr(command, "import_module", lambda name: Fails() if "fails" in name else Works())
        monkeypatch.setattr(sys, "argv", ["benchmarks", *arguments, "--json", str(file)])
        command.main()
        return json.loads(file.read_text())

    return run


def test_all_goes_on_without_data(run, capsys):
    content = run("all")
    assert [row["benchmark"] for row in content["rows"]] == ["works"]
    reason = "No network. For a trial without the data, add --data synthetic."
    assert content["statuses"] == [
        {"case": "fails", "implementation": "all", "status": "not run", "reason": reason}
    ]
    printed = capsys.readouterr().out
    assert f"fails cannot run: {reason}" in printed
    assert "12,346" in printed


def test_what_cannot_be_redrawn_says_so(run, tmp_path, monkeypatch):
    with pytest.raises(
        SystemExit, match="error: works cannot run: it keeps no page that could be drawn again"
    ):
        run("works", "--redraw")
    monkeypatch.undo()
    monkeypatch.setattr(sys, "argv", ["benchmarks", "layer", "--redraw", "--out", str(tmp_path)])
    with pytest.raises(SystemExit, match=r"layer_cpu\.json\.gz is not there: run it without --redraw first"):
        command.main()


def test_one_that_cannot_run_is_an_error(run):
    with pytest.raises(SystemExit, match="error: fails cannot run: No network"):
        run("fails")
    assert "statuses" not in run("works")


@pytest.mark.parametrize(
    ("name", "data", "known"),
    [
        ("table2", "ml-100k", "lastfm or synthetic"),
        ("collaborative", "bookcrossing", "lastfm or synthetic"),
        ("rank", "ml-100k", "lastfm or synthetic"),
        ("clicks", "lastfm", "bookcrossing or ml-100k or synthetic"),
    ],
)
def test_data_that_a_benchmark_does_not_run_on(name, data, known, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["benchmarks", name, "--data", data])
    reason = f"error: {name} cannot run: it does not run on --data {data}: choose {known}$"
    with pytest.raises(SystemExit, match=reason):
        command.main()


def test_each_benchmark_has_data_of_its_own(monkeypatch):
    for name, data in (("clicks", "bookcrossing"), ("topk", "lastfm"), ("rank", "lastfm")):
        module = importlib.import_module(f"benchmarks.{name}")
        monkeypatch.setattr(module, "run", lambda settings: Report([{"data": settings.data}]))
        assert command.attempt(name, Settings()).rows == [{"data": data}]
        assert command.attempt(name, Settings(), "synthetic").rows == [{"data": "synthetic"}]


@pytest.mark.parametrize("arguments", [["table2"], ["all"], ["topk", "--redraw"]])
def test_what_has_no_recommendations_says_so(arguments, monkeypatch, capsys):
    monkeypatch.setattr(command, "attempt", lambda *_: pytest.fail("something was run"))
    monkeypatch.setattr(sys, "argv", ["benchmarks", *arguments, "--recommendations", "first.csv"])
    with pytest.raises(SystemExit):
        command.main()
    assert "--recommendations goes with topk" in capsys.readouterr().err


def test_recommendations_need_a_file(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["benchmarks", "topk", "--recommendations", str(tmp_path)])
    with pytest.raises(SystemExit):
        command.main()
    assert f"--recommendations {tmp_path} is a folder: name a file" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "folder"),
    [
        (["--data", "ml-100k"], "benchmarks/results"),
        (["--data", "bookcrossing"], "benchmarks/results"),
        ([], "benchmarks/results"),
        (["--quick"], "runs/benchmarks"),
        (["--data", "synthetic"], "runs/benchmarks"),
    ],
)
def test_full_runs_on_real_data_go_to_the_results(arguments, folder, monkeypatch):
    def attempt(name, settings, *_):
        assert settings.out == Path(folder)
        return Report([])

    monkeypatch.setattr(command, "attempt", attempt)
    monkeypatch.setattr(sys, "argv", ["benchmarks", "topk", *arguments])
    command.main()
