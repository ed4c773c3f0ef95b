"""The command line: what it leaves, what it prints, and errors in one line."""

import json
import multiprocessing
import os
import re
import shlex
import signal
import subprocess
import sys
import time
import warnings
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
import torch

from mgwa_pyg import cli
from mgwa_pyg.datasets import RecBoleKG
from mgwa_pyg.recommend import Recommender
from mgwa_pyg.recommenders import read_checkpoint
from mgwa_pyg.recommenders.growth import Start
from mgwa_pyg.train import CollaborativeConfig, fit, kg_worth

ROOT = Path(__file__).resolve().parent.parent
COMMANDS = ["fit", "tune", "evaluate", "recommend", "similar", "explain", "export", "kg-worth"]
QUICK = ["--epochs", "1", "--processes", "1", "--device", "cpu"]


@pytest.fixture
def folder(small, tmp_path):
    """The small data set in RecBole's files, with ratings."""
    path = tmp_path / "raw" / "tiny"
    path.mkdir(parents=True)
    data = small[0]
    links, kg = data["user", "listens", "entity"], data["entity", "kg", "entity"]
    user, item = links.edge_label_index[:, links.edge_label == 1].tolist()
    (head, tail), relation = kg.edge_index[:, :400].tolist(), kg.rel_type[:400].tolist()
    tables = {
        "inter": {"user_id:token": user, "item_id:token": item, "rating:float": 4},
        "kg": {"head_id:token": head, "relation_id:token": relation, "tail_id:token": tail},
        "link": {"item_id:token": range(60), "entity_id:token": range(60)},
    }
    tables["link"] = {name: sorted({*item} & {*head, *tail}) for name in tables["link"]}
    for end, columns in tables.items():
        pd.DataFrame(columns).to_csv(path / f"tiny.{end}", sep="\t", index=False)
    with (path / "tiny.inter").open("a") as file:
        file.write("0\t1000\t1\n")  # No interaction with a rating of four.
    return path


@pytest.fixture
def _space(monkeypatch):
    def suggested(self, trial):
        return replace(self, channels=trial.suggest_categorical("channels", [4, 8]))

    monkeypatch.setattr(CollaborativeConfig, "suggested", suggested)


@pytest.mark.usefixtures("_space")
def test_tune_leaves_a_run_that_recommends(folder, tmp_path, capsys):
    out = tmp_path / "tuned"
    options = ["--data", str(folder), "--loss", "ranking", "--min-rating", "2", "--trials", "2", *QUICK]
    assert cli.main(["tune", *options, "--out", str(out)]) == 0
    kept = json.loads((out / "search.json").read_text())
    assert len(kept["trials"]) == 2
    arguments = kept["dataset"]["arguments"]
    assert (arguments["split"], arguments["min_rating"]) == ("per_user", 2.0)
    assert arguments["root"] == str(folder.parent)
    assert kept["config"] == {**CollaborativeConfig.for_ranking().to_dict(), "epochs": 1}
    checkpoint = read_checkpoint(out / "best.ckpt")
    assert checkpoint["hyper_parameters"]["config"] == kept["chosen"]["config"]
    recommender = Recommender.load(out)
    assert "1000" not in recommender.dataset.item_ids
    assert len(recommender.recommend("3", 5)) == 5
    printed = capsys.readouterr()
    channels = kept["chosen"]["config"]["channels"]
    what = "what the search began with" if channels == 64 else f"channels={channels}"
    best = f"val Recall@10 {kept['chosen']['value']:.4f} at epoch 1, the only one."
    assert printed.out == f"chosen: {what}\n{best} The fit is in {out}\n"
    assert printed.err.startswith("trial 1 of 2: val Recall@10 ")


def test_kg_worth_of_a_run_is_that_of_the_call(folder, tmp_path, capsys):
    dataset = RecBoleKG(folder.parent, "tiny", min_rating=2)
    config = CollaborativeConfig(epochs=1, channels=4, passes=1)
    run = tmp_path / "run"
    fit(dataset, config, run, device="cpu")
    assert cli.main(["kg-worth", "--run", str(run), "--seeds", "2", "--relations", "1", *QUICK]) == 0
    printed = capsys.readouterr().out
    known = kg_worth(
        dataset, config, tmp_path, seeds=2, relations=["1"], processes=1, device="cpu", progress=False
    )
    assert list(known["variant"]) == ["with it", "without", "tails shuffled", "without 1"]
    pd.testing.assert_frame_equal(pd.read_csv(run / "kg_worth.csv"), known)
    assert (run / "kg_worth.png").exists()
    lines = printed.splitlines()
    assert len(lines) == 6
    assert f"{known['auc_user'][0]:.4f}" in lines[1]
    assert lines[-1] == (
        "On validation rows. Below zero a change does harm; p is over users, adjusted for 3 tests. "
        f"Also in {run}"
    )


def test_kg_worth_takes_in_triples_that_a_run_left_out(folder, tmp_path, capsys):
    dataset = RecBoleKG(folder.parent, "tiny", min_rating=2)
    config = CollaborativeConfig(epochs=1, channels=4, passes=1, knowledge_graph=False)
    fit(dataset, config, tmp_path / "run", device="cpu")
    options = ["--run", str(tmp_path / "run"), "--seeds", "1", "--relations", *QUICK, "--out"]
    assert cli.main(["kg-worth", *options, str(tmp_path / "out")]) == 0
    found = capsys.readouterr()
    assert "warning: this fit left the triples out; they are taken in here\n" in found.err
    assert found.out.splitlines()[-1].startswith("One seed says nothing of what another would give")
    table = pd.read_csv(tmp_path / "out" / "kg_worth.csv")
    assert (table["difference"][1:] != 0).all()


@pytest.fixture(scope="module")
def plays(small, tmp_path_factory):
    """A run on a table, made by the command."""
    folder = tmp_path_factory.mktemp("plays")
    data = small[0]
    links, kg = data["user", "listens", "entity"], data["entity", "kg", "entity"]
    user, item = links.edge_label_index[:, links.edge_label == 1].tolist()
    (head, tail), relation = kg.edge_index[:, :400].tolist(), kg.rel_type[:400].tolist()
    names = {number: ["giulia.2", "7"][number] if number < 2 else f"user{number}" for number in {*user}}
    pd.DataFrame({"user": map(names.get, user), "artist": item}).to_csv(folder / "plays.csv", index=False)
    pd.DataFrame({"head": head, "relation": relation, "tail": tail}).to_csv(folder / "kg.csv", index=False)
    command = ["fit", str(folder / "plays.csv"), "--item", "artist", "--triples", str(folder / "kg.csv")]
    assert cli.main([*command, "--epochs", "1", "--device", "cpu", "--out", str(folder / "run")]) == 0
    for name in ("plays.csv", "kg.csv"):
        (folder / name).unlink()  # A run remembers what it is of.
    return folder / "run"


def printed(capsys, *command):
    """What a command prints, where it ends well."""
    capsys.readouterr()
    assert cli.main([*map(str, command)]) == 0
    found = capsys.readouterr()
    assert found.err == ""
    return found.out


def test_a_fit_of_a_table_learns_to_rank(plays):
    config = read_checkpoint(plays / "best.ckpt")["hyper_parameters"]["config"]
    assert config == {**CollaborativeConfig.for_ranking().to_dict(), "epochs": 1}
    assert Recommender.load(plays).dataset.split == "per_user"


def test_a_fit_starts_from_a_run(plays, tmp_path, capsys):
    grown, out = tmp_path / "grown.csv", tmp_path / "warm"
    grown.write_text("user,artist\n" + "".join(f"giulia.2,{item}\n" for item in range(9)) + "new,1\n")
    command = ["fit", str(grown), "--item", "artist", "--split", "none", "--epochs", "1", "--device", "cpu"]
    command += ["--out", str(out), "--warm-start"]
    assert cli.main([*command, str(plays)]) == 0
    what = "The only epoch was trained, with no validation rows to judge by."
    assert capsys.readouterr().out == f"{what} The fit is in {out}\n"
    start = Start.of(plays, CollaborativeConfig())
    assert read_checkpoint(out / "best.ckpt")["hyper_parameters"]["started_from"] == start.digest
    assert cli.main([*command, "nothing"]) == 1
    assert "error: nothing does not exist" in capsys.readouterr().err
    assert cli.main(["evaluate", str(out)]) == 1  # It has options of `fit` to advise.
    assert capsys.readouterr().err.endswith(", such as --split 'per_user'\n")


def test_answers_are_those_of_the_recommender(plays, capsys):
    recommender = Recommender.load(plays)
    table = recommender.recommend("giulia.2", 3)
    found = json.loads(printed(capsys, "recommend", plays, "--user", "giulia.2", "-k", 3, "--json"))
    assert found == table.to_dict("records")
    assert [type(row["item"]) for row in found] == [int] * 3  # As the file has them.
    lines = printed(capsys, "recommend", plays, "--user", "giulia.2", "-k", 3).splitlines()
    assert lines[0].split() == ["rank", "item", "name", "score"]
    assert len(lines) == 4
    seven = printed(capsys, "recommend", plays, "--user", 7, "--json")
    assert json.loads(seven) == recommender.recommend("7").to_dict("records")
    liked, some = [int(item) for item in recommender.dataset.item_ids[:2]], recommender.dataset.item_ids[5:9]
    options = ["--candidates", *some, "--exclude", some[0], "--json"]
    newcomer = printed(capsys, "recommend", plays, "--items", *liked, *options)
    known = recommender.recommend_for(liked, candidates=some, exclude=some[:1])
    assert json.loads(newcomer) == known.to_dict("records")
    assert {row["item"] for row in json.loads(newcomer)} == {*some[1:]}
    like = json.loads(printed(capsys, "similar", plays, "--item", some[0], "-k", 2, "--json"))
    assert like == recommender.similar_items(some[0], 2).to_dict("records")


def test_an_answer_that_is_empty_says_why(plays, capsys):
    recommender = Recommender.load(plays)
    left = set(recommender.recommend("giulia.2", 60)["item"])
    one, *_ = sorted(left)
    seen = [item for item in recommender.dataset.item_ids if item not in left]
    asked = ["recommend", plays, "--user", "giulia.2"]
    nothing = "There is nothing to recommend: all the items of"
    assert printed(capsys, *asked, "--candidates", *seen) == f"{nothing} --candidates are seen.\n"
    assert json.loads(printed(capsys, *asked, "--candidates", *seen, "--json")) == []
    found = printed(capsys, *asked, "--candidates", one, "--exclude", one)
    assert found == f"{nothing} --candidates are seen or in --exclude.\n"
    found = printed(capsys, "recommend", plays, "--items", *seen, "--exclude", *left)
    assert found == f"{nothing} the data are seen or in --exclude.\n"
    cli._show(recommender.similar_items(one, candidates=[one]), False, "nothing like it")
    assert capsys.readouterr().out == "nothing like it\n"


def test_who_stops_reading_hears_of_no_error(plays, monkeypatch, capfd):
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "w") as nobody:
        monkeypatch.setattr(sys, "stdout", nobody)
        assert cli.main(["recommend", str(plays), "--user", "giulia.2"]) == 141
        print("what is left at the end of the process", flush=True)
    assert capfd.readouterr().err == ""


def test_an_explanation_is_that_of_the_recommender(plays, tmp_path, capsys):
    recommender = Recommender.load(plays)
    for whom, user in (["--user", "giulia.2"], "giulia.2"), (["--items", 1, 2], [1, 2]):
        why = recommender.explain(user, 5)
        command = ["explain", plays, *whom, "--item", 5]
        assert printed(capsys, *command) == f"{why}\n"
        answer = json.loads(printed(capsys, *command, "--json", "--plot", tmp_path / "why.png"))
        assert answer["sentence"] == str(why)
        assert sum(part["score"] for part in answer["parts"]) == pytest.approx(answer["score"])
        assert len(answer["history"]) == len(why.history)
    assert (tmp_path / "why.png").exists()


def test_export_writes_what_the_recommender_does(plays, tmp_path, capsys):
    shown = printed(capsys, "export", plays, "--out", tmp_path / "a", "--dimensions", 4)
    known = Recommender.load(plays).export(tmp_path / "b", dimensions=4)
    assert shown.startswith(known.to_string(float_format="{:.4f}".format))
    for file in (tmp_path / "b").iterdir():
        assert file.read_bytes() == (tmp_path / "a" / file.name).read_bytes()


def test_evaluate_prints_and_writes_the_table(plays, tmp_path, capsys):
    command = ["evaluate", plays, "-k", 3, "--device", "cpu", "--json"]
    rows = json.loads(printed(capsys, *command))["rows"]
    table = pd.read_csv(plays / "evaluation.csv")
    assert [row["model"] for row in rows] == list(table["model"])
    assert [row["recall@3"] for row in rows] == pytest.approx(list(table["recall@3"]))
    assert rows[0]["p"] is None
    shown = printed(capsys, *command, tmp_path / "table.json")
    assert json.loads((tmp_path / "table.json").read_text())["rows"] == rows
    assert shown.split()[:3] == ["model", "collaborative", "popularity"]
    assert f"{rows[0]['recall@3']:.4f}" in shown


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (
            "tune --data nothing",
            "nothing is neither a table, nor lastfm, bookcrossing or synthetic, nor a folder",
        ),
        ("fit", "which data? Pass one: a table, such as plays.csv"),
        ("fit plays.csv --data plays.csv", "which data? Pass one"),
        ("fit synthetic --time when", "--time is for tables of your own: synthetic is none"),
        (
            "fit plays.csv --item artist --split last",
            "--split 'last' goes by time: name the column of the times as --time",
        ),
        ("fit plays.csv --item song", "song"),
        ("evaluate nothing", "nothing/best.ckpt"),
        ("recommend nothing --user 1", "nothing/best.ckpt is missing"),
        ("recommend nothing", "for whom? Pass either --user ID, or --items that somebody new has seen: none"),
        (
            "recommend nothing --user 1 --items 2",
            "for whom? Pass either --user ID, or --items that somebody new has seen: both are given",
        ),
        ("explain nothing --item 1 --user 1 --items 2", "for whom? Pass either --user ID, or --items"),
        ("similar nothing --item 1", "nothing/best.ckpt is missing"),
        ("tune --data synthetic --model other", "--model 'other' is unknown: choose"),
        ("tune --data synthetic --split files", "--split 'files'"),
        ("tune --data synthetic --min-rating 4", "--min-rating is for RecBole's files"),
        ("tune --data synthetic --trials 0", "--trials 0: a whole number of at least 1 is needed"),
        (
            "fit plays.csv --item artist --links l.csv",
            "--links and --entity-names are of a graph: pass it as --triples",
        ),
        (
            "fit plays.csv --item artist --attributes user user",
            "--attributes ['user', 'user']: 'user' is there twice",
        ),
        ("kg-worth", "Pass either --run RUN or DATA"),
        ("kg-worth --run here --data synthetic", "Pass either --run RUN or DATA"),
        ("kg-worth --run nothing", "nothing/best.ckpt is missing: pass the folder of a run"),
        ("fit .", " has no file test_errors_are_one_line"),
        ("kg-worth --data synthetic --relations other --processes 1", "relations has 'other'"),
    ],
)
def test_errors_are_one_line(command, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "plays.csv").write_text("user,artist\n1,2\n")
    assert cli.main(command.split()) == 1
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("error: ")
    assert message in printed.err
    assert printed.err.count("\n") == 1


@pytest.mark.parametrize(
    ("message", "shown"),
    [
        ("Pass dimensions=, such as 256", "Pass --dimensions, such as 256"),
        ("k=3: take a smaller k (k=2)", "-k 3: take a smaller k (-k 2)"),
        ("warm_start has learned from 3 rows", "--warm-start has learned from 3 rows"),
        (
            "Fit without warm_start, or\n with split='time'.",
            "Fit without --warm-start, or with --split 'time'.",
        ),
        # What is no option of the command, or of somebody's own.
        ("item_item=True with k_2=1", "item_item=True with k_2=1"),
        ("/data/k=3/warm_start.csv, line 2: 'split=3'", "/data/k=3/warm_start.csv, line 2: 'split=3'"),
        ("the column 'warm_start' and split", "the column 'warm_start' and split"),
        ("a warm_start.csv", "a warm_start.csv"),
    ],
)
def test_messages_speak_of_options(message, shown):
    options = {"dimensions": "--dimensions", "k": "-k", "split": "--split", "warm_start": "--warm-start"}
    assert cli._as_typed(message, options) == shown


def test_warnings_speak_of_options(capsys):
    with cli._short_warnings({"minutes": "--minutes"}):
        warnings.warn("minutes=1 is little", stacklevel=1)
    assert capsys.readouterr().err == "warning: --minutes 1 is little\n"


def test_a_package_that_is_missing_is_named(monkeypatch, capsys):
    for name in [name for name in sys.modules if name.startswith("mgwa_pyg.train")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "lightning", None)
    assert cli.main(["tune", "--data", "synthetic"]) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: import of lightning")
    assert error.endswith(": pip install 'mgwa_pyg[search]'\n")


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signals_end_a_command_in_one_line(number, code, monkeypatch, capsys):
    def interrupted(*args, **options):
        os.kill(os.getpid(), number)

    monkeypatch.setattr("mgwa_pyg.train.tune", interrupted)
    before = [signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM)]
    assert cli.main(["tune", "--data", "synthetic"]) == code
    assert capsys.readouterr().err == "interrupted\n"
    assert [signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM)] == before


def test_a_signal_that_was_swallowed_comes_again(monkeypatch, capsys):
    class Interrupted:
        def __del__(self):
            os.kill(os.getpid(), signal.SIGINT)

    def works_on(*args, **options):
        Interrupted()
        time.sleep(60)
        pytest.fail("nothing ended the command")

    hook = sys.unraisablehook
    monkeypatch.setattr("mgwa_pyg.train.tune", works_on)
    assert cli.main(["tune", "--data", "synthetic"]) == 130
    assert capsys.readouterr().err == "interrupted\n"
    assert sys.unraisablehook is hook


def test_an_interrupt_that_ends_in_an_error_is_an_interrupt(monkeypatch, capsys):
    def fails(*args, **options):
        try:
            os.kill(os.getpid(), signal.SIGTERM)
        except KeyboardInterrupt as error:
            raise ImportError("half of a module") from error

    monkeypatch.setattr("mgwa_pyg.train.tune", fails)
    assert cli.main(["tune", "--data", "synthetic"]) == 143
    assert capsys.readouterr().err == "interrupted\n"


@pytest.mark.slow
@pytest.mark.usefixtures("_space")
def test_an_interrupted_search_leaves_its_trials_and_no_process(folder, tmp_path, monkeypatch, capsys):
    submit, count = ProcessPoolExecutor.submit, 0

    def interrupted(*args):
        nonlocal count
        count += 1
        if count == 3:  # The second round of trials begins.
            os.kill(os.getpid(), signal.SIGINT)
        return submit(*args)

    monkeypatch.setattr(ProcessPoolExecutor, "submit", interrupted)
    before = {*multiprocessing.active_children()}
    options = ["--data", str(folder), "--trials", "1000", *QUICK, "--processes", "2", "--out", str(tmp_path)]
    assert cli.main(["tune", *options]) == 130
    assert {*multiprocessing.active_children()} == before
    lines = capsys.readouterr().err.splitlines()
    assert lines[1].startswith("trial 2 of 1000: val AUC ")
    assert lines[-1] == "interrupted"
    # Each is what a fit in this process gives.
    dataset = RecBoleKG(folder.parent, "tiny")
    trials = json.loads((tmp_path / "search.json").read_text())["trials"]
    assert len(trials) == 2
    assert trials[0]["config"] != trials[1]["config"]
    for trial in trials:
        config = CollaborativeConfig.from_dict(trial["config"])
        alone = fit(dataset, config, tmp_path / f"fit {trial['trial']}", device="cpu")
        assert trial["values"] == [max(epoch["val_auc"] for epoch in alone.history)]


def test_help_lists_the_commands():
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    program = "import sys; from mgwa_pyg import cli; sys.modules['torch'] = None; cli.main(['--help'])"
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment, text=True, capture_output=True, check=True
    )
    assert done.stdout.startswith("usage: mgwa-pyg")
    assert set(re.findall(r"^    ([\w-]+)\b", done.stdout, flags=re.MULTILINE)) == {*COMMANDS}


@pytest.mark.parametrize("command", COMMANDS)
def test_help_shows_an_example_that_is_understood(command, capsys):
    with pytest.raises(SystemExit):
        cli.main([command, "--help"])
    shown = capsys.readouterr().out
    assert shown.startswith(f"usage: mgwa-pyg {command}")
    example = shown[shown.index("example:\n") : shown.index("\n\n", shown.index("example:\n"))]
    assert max(map(len, example.splitlines())) <= 120
    lines = example.replace("\\\n", " ").splitlines()[1:]
    assert lines[0].startswith(f"  mgwa-pyg {command} ")
    for line in lines:
        cli._parser().parse_args(shlex.split(line)[1:])


def test_no_more_than_help_is_imported_for_help():
    program = "import sys, mgwa_pyg.cli; print([name for name in sys.modules if name == 'lightning'])"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment, text=True, capture_output=True, check=True
    )
    assert done.stdout == "[]\n"
    assert torch.get_num_threads() == 1  # Commands in this process leave it as it was.
