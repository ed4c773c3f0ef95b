"""Tables of one's own: whether they are read right, how fast, in what memory, and what a fit is worth."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pandas as pd
from lightning.pytorch import Callback

from benchmarks.harness import NoDataError, Report, Settings, child_process, figure
from benchmarks.weights import worth
from benchmarks.wrong_tables import failures
from mgwa_pyg.datasets import RecBoleKG, TableKG
from mgwa_pyg.datasets.download import RAW_VARIABLE

_ROWS = 2_000_000
_SIZES = ("num_users", "num_items", "num_interactions", "num_entities", "num_triples")
# Reads a file in a process of its own, so that nothing before counts.
_READ = """
import gc, json, sys, time
import pandas as pd
from benchmarks.harness import proc_bytes
from mgwa_pyg.datasets import TableKG
path = sys.argv[1]
frame = pd.read_csv(path, nrows=1000)
TableKG.from_tables(frame, weight="plays", time="when", split="time")
del frame
gc.collect()
before, start = proc_bytes("self/status", "VmRSS"), time.perf_counter()
dataset = TableKG.from_tables(path, weight="plays", time="when", split="time")
seconds = time.perf_counter() - start
peak = proc_bytes("self/status", "VmHWM") - before
frame = pd.read_csv(path)
size = int(frame.memory_usage(deep=True).sum())
rows = int(dataset.summary()["rows"])
print(json.dumps({"seconds": seconds, "peak": peak / rows, "frame": size / rows}))
"""


def run(settings: Settings) -> Report:
    """Measure all of it, or with ``quick`` fewer rows, epochs and wrong tables."""
    rows = _generated(_ROWS // 10 if settings.quick else _ROWS)
    settings.record.keep("tables", rows)
    rows += _wrong(200 if settings.quick else 2_000)
    settings.record.keep("tables", rows)
    if settings.data == "synthetic":
        return Report(rows)
    raw = Path(os.environ.get(RAW_VARIABLE, settings.root)).expanduser()
    if not (raw / "recbole" / "ml-100k").is_dir() or not (raw / "lastfm" / "artists.dat").is_file():
        raise NoDataError(f"'{raw}' has no recbole/ml-100k or no lastfm/artists.dat.")
    rows += _as_recbole(raw)
    for case, make in _LOGS.items():
        start = time.perf_counter()
        dataset = make(raw)
        rows += _fitted(case, dataset, time.perf_counter() - start, settings)
        for how, recall in worth(dataset).items():
            name = f"item-knn, history weighed {how}"
            rows.append(figure("tables", case, name, "recall@10 on validation rows", "1", [recall]))
        settings.record.keep("tables", rows)
    return Report(rows)


def lastfm(raw: Path) -> TableKG:
    """Return the whole log of HetRec, 92,834 rows, with artists by their names, and Satori's triples of those
    that have them. It says how often, but not when: there is no split by time.
    """
    folder = raw / "lastfm"
    options: dict[str, Any] = {"sep": "\t", "quoting": 3, "keep_default_na": False}
    artists = pd.read_csv(folder / "artists.dat", usecols=["id", "name"], dtype={"name": str}, **options)
    plays = pd.read_csv(folder / "user_artists.dat", **options)
    links = pd.read_csv(folder / "item_index2entity_id.txt", names=["id", "entity"], **options)
    return TableKG.from_tables(
        plays.merge(artists, left_on="artistID", right_on="id"),
        user="userID",
        item="name",
        weight="weight",
        triples=pd.read_csv(folder / "kg.txt", names=["head", "relation", "tail"], **options),
        links=links.merge(artists, on="id")[["name", "entity"]],
    )


def movielens(raw: Path, split: str) -> TableKG:
    """Return MovieLens-100k from its atomic files: all ratings, with their times."""
    file = str(raw / "recbole" / "ml-100k" / "ml-100k.{}").format
    return TableKG.from_tables(
        file("inter"), user="user_id", item="item_id", weight="rating", time="timestamp", triples=file("kg"),
        links=file("link"), items=file("item"), name="movie_title", split=split, interaction="watches",
    )  # fmt: skip


_LOGS: dict[str, Callable[[Path], TableKG]] = {
    "Last.FM's raw log, split random": lastfm,
    "MovieLens-100k, split random": partial(movielens, split="random"),
    "MovieLens-100k, split time": partial(movielens, split="time"),
}


class _Ends(Callback):
    """When epochs end, their validation included."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def on_train_epoch_end(self, *arguments: Any) -> None:
        self.times.append(time.perf_counter())


def _fitted(name: str, dataset: TableKG, read: float, settings: Settings) -> list[dict[str, Any]]:
    """Fit to the best epoch and evaluate beside item-kNN and EASE."""
    from mgwa_pyg.train import CollaborativeConfig, evaluate, fit

    seconds = {"read": read}
    config = CollaborativeConfig.for_ranking()
    if settings.quick:
        config = replace(config, epochs=2)
    with TemporaryDirectory() as folder:
        ends, start = _Ends(), time.perf_counter()
        result = fit(dataset, config, folder, device=settings.device, callbacks=[ends])
        seconds["fit"] = time.perf_counter() - start
        seconds["fit to the best epoch"] = ends.times[result.best_epoch - 1] - start
        start = time.perf_counter()
        found = evaluate(folder, beside=["item-knn", "ease"], device=settings.device)
        seconds["evaluate"] = time.perf_counter() - start
    rows = [
        figure("tables", name, "TableKG", f"seconds to {what}", "s", [value])
        for what, value in seconds.items()
    ]
    for row in found.to_dict("records"):
        rows.append(figure("tables", name, row["model"], "recall@10", "", [row["recall@10"]]))
        if not np.isnan(row["p"]):
            for key in ("difference", "low", "high", "p"):
                rows.append(figure("tables", name, row["model"], f"recall@10, {key}", "", [row[key]]))
    return rows


def _as_recbole(raw: Path) -> list[dict[str, Any]]:
    """How the sizes of MovieLens-100k differ from those that RecBole's own class reads: not at all."""
    with TemporaryDirectory() as folder:
        theirs = RecBoleKG(raw / "recbole", "ml-100k", processed=folder)
    ours = movielens(raw, "random")
    return [
        figure("tables", "MovieLens-100k", kind, name, "", [getattr(dataset, name)])
        for kind, dataset in (("TableKG", ours), ("RecBoleKG", theirs))
        for name in _SIZES
    ]


def _generated(number: int) -> list[dict[str, Any]]:
    """Seconds and memory of a large CSV file."""
    rng = np.random.default_rng(0)
    with TemporaryDirectory() as folder:
        path = Path(folder, "plays.csv")
        user, item = (
            rng.integers(0, number // 20, number),
            (rng.pareto(1.2, number) * 300).astype(int) % 50_000,
        )
        pd.DataFrame(
            {
                "user": pd.Series(user).map("user{}".format),
                "item": pd.Series(item).map("item{}".format),
                "plays": rng.integers(1, 99, number),
                "when": rng.integers(1_600_000_000, 1_700_000_000, number),
            }
        ).to_csv(path, index=False)
        with child_process(["-c", _READ, str(path)], stdout=subprocess.PIPE, text=True) as process:
            out, _ = process.communicate()
    if process.returncode:
        raise RuntimeError(f"reading {number} rows failed")
    found = json.loads(out)
    case = f"{number:,} rows of CSV"
    return [
        figure("tables", case, "TableKG", "seconds to read and index", "s", [found["seconds"]]),
        figure("tables", case, "TableKG", "peak memory over what was there", "bytes/row", [found["peak"]]),
        figure("tables", case, "pandas", "the frame itself", "bytes/row", [found["frame"]]),
    ]


def _wrong(number: int) -> list[dict[str, Any]]:
    """How many wrong and odd tables are read as they should be."""
    counts, failed = failures(number)
    for problem in failed:
        print(problem, file=sys.stderr)
    case = f"{number:,} wrong and odd tables of {len(counts)} kinds"
    return [figure("tables", case, "TableKG", "read wrongly", "tables", [len(failed)])]
