"""What the experiments on Last.FM share: many fits, as many at a time as there are cores, and their rows."""

import multiprocessing
import os
import signal
import statistics
import tempfile
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, field
from typing import Any, TypeVar

import pandas as pd
import torch
from tqdm import tqdm

from benchmarks.harness import NoDataError, Settings, environment, figure
from mgwa_pyg.datasets import BookCrossingKG, DownloadError, KGRecDataset, LastFMKG, SyntheticKG
from mgwa_pyg.datasets.interactions import interactions
from mgwa_pyg.evaluation import click_report, predict_heuristics
from mgwa_pyg.train import FitConfig, fit

#: The protocols by what their negatives are drawn from, and what pages call them.
PROTOCOLS = {"entities": "Paper protocol", "items": "Item protocol"}

#: What a fit is measured by on the test rows, and what tables call it.
METRICS = {
    "auc": "AUC",
    "acc": "ACC",
    "f1": "F1",
    "auc_user": "AUC per user",
    "auc_warm": "AUC, warm items",
    "auc_cold": "AUC, cold items",
    "acc_calibrated": "ACC, calibrated",
    "f1_calibrated": "F1, calibrated",
}

_Result = TypeVar("_Result")


def load(settings: Settings, negatives: str, seed: int, split: str = "random") -> KGRecDataset:
    """The data set of an experiment."""
    if settings.data == "synthetic":
        return SyntheticKG(negatives=negatives, seed=seed)
    dataset = {"lastfm": LastFMKG, "bookcrossing": BookCrossingKG}[settings.data]
    try:
        return dataset(settings.root / dataset.__name__, negatives=negatives, seed=seed, split=split)
    except DownloadError as error:
        raise NoDataError(str(error)) from error


def seeds(settings: Settings) -> range:
    """The seeds of an experiment."""
    return range(1 if settings.quick else 5)


def over_seeds(settings: Settings) -> str:
    """What the figures of a page are."""
    return "one seed" if settings.quick else f"mean ± sd of {len(seeds(settings))} seeds"


def data_name(settings: Settings) -> str:
    """What pages and plots call the data."""
    names = {"lastfm": "Last.FM", "bookcrossing": "Book-Crossing", "synthetic": "SYNTHETIC data, not Last.FM"}
    return names[settings.data]


@dataclass(frozen=True)
class Job:
    """One fit of one model, or, without hyper-parameters, all heuristics."""

    model: str
    config: FitConfig | None
    negatives: str
    seed: int
    settings: Settings


@dataclass(frozen=True)
class Outcome:
    """What a job gives: a row a model, the test rows' probabilities, and the learning curve of a fit."""

    rows: list[dict[str, Any]]
    predictions: pd.DataFrame = field(default_factory=pd.DataFrame)
    history: list[dict[str, float]] = field(default_factory=list)
    transe: dict[str, float] | None = None


def run_job(job: Job) -> Outcome:
    """Fit and evaluate."""
    dataset = load(job.settings, job.negatives, job.seed)
    data = dataset[0]
    links = interactions(data)
    history: list[dict[str, float]] = []
    transe = seconds = None
    if job.config is None:
        scores = predict_heuristics(data, dataset.num_items)
    else:
        with tempfile.TemporaryDirectory() as folder:
            result = fit(dataset, job.config, folder, seed=job.seed, device=job.settings.device)
        scores = {job.model: (result.val_score, result.score)}
        history, transe, seconds = result.history, result.transe, result.train_seconds
    rows, frames = [], []
    key = {"negatives": job.negatives, "seed": job.seed}
    label = links.edge_label[links.test_mask].long().numpy()
    for model, (val_score, score) in scores.items():
        val_auc = max((epoch["val_auc"] for epoch in history), default=None)
        report = click_report(data, val_score, score)
        cost = {"val_auc": val_auc, "epochs": len(history) or None, "fit_seconds": seconds}
        rows.append({"model": model, **key, **report, **cost})
        frames.append(pd.DataFrame({"model": model, **key, "label": label, "score": score.numpy()}))
    return Outcome(rows, pd.concat(frames), history, transe)


class Interrupted(KeyboardInterrupt):
    """Somebody ended the jobs; ``results`` has :obj:`None` for those that were not done."""

    def __init__(self, results: list[Any]) -> None:
        super().__init__()
        self.results = results


def parallel(function: Callable[[Job], _Result], jobs: Sequence[Job], name: str) -> list[_Result]:
    """The results of all jobs, in their order; on a CPU each core works on a job of its own.

    The steps of these models are so small that a second thread brings nothing, a second process twice the
    speed. The rows of outcomes are kept as they come. If anything ends the jobs, the processes are ended at
    once; an interrupt becomes :class:`Interrupted`.
    """
    settings = jobs[0].settings
    load(settings, jobs[0].negatives, jobs[0].seed)  # Downloads, once, what the processes will read.
    context = multiprocessing.get_context("spawn")
    results: list[Any] = [None] * len(jobs)
    with (
        tempfile.TemporaryDirectory() as folder,  # Of the processes, which may have no time to clear up.
        ProcessPoolExecutor(_num_processes(settings), context, _start, (folder,)) as pool,
    ):
        try:
            # The processes inherit that they do not hear Ctrl-C: this one ends them.
            handler = signal.signal(signal.SIGINT, signal.SIG_IGN)
            try:
                futures = {pool.submit(function, job): number for number, job in enumerate(jobs)}
            finally:
                signal.signal(signal.SIGINT, handler)
            for future in tqdm(as_completed(futures), total=len(jobs), desc=name, disable=None):
                results[futures[future]] = future.result()
                outcomes = [result for result in results if isinstance(result, Outcome)]
                if outcomes:
                    settings.record.keep(name, _figures_so_far(name, outcomes))
        except BaseException as error:
            for process in multiprocessing.active_children():
                process.kill()
            if isinstance(error, KeyboardInterrupt):
                raise Interrupted(results) from None
            raise
    return results


def _start(folder: str) -> None:
    """What each process does first."""
    torch.set_num_threads(1)
    tempfile.tempdir = folder
    tqdm.set_lock(threading.RLock())  # A lock between processes would outlive one that is killed.


def _figures_so_far(name: str, outcomes: Iterable[Outcome]) -> list[dict[str, Any]]:
    """All figures of those that are done."""
    rows = [row for outcome in outcomes for row in outcome.rows]
    keys = dict.fromkeys(key for row in rows for key in row)
    return figures(name, rows, [key for key in keys if key not in ("model", "negatives", "seed")])


def _num_processes(settings: Settings) -> int:
    return 1 if settings.device == "cuda" else os.cpu_count() or 1


def stamp(settings: Settings) -> dict[str, Any]:
    """The environment's stamp of an experiment."""
    return {**environment(settings.device), "threads": 1, "processes": _num_processes(settings)}


def heading(settings: Settings, title: str, made_with: Mapping[str, Any], text: str) -> list[str]:
    """How pages begin."""
    versions = f"torch {made_with['torch']}, torch_geometric {made_with['torch_geometric']}"
    return [
        f"# {title}: {data_name(settings)}",
        f"`{made_with['command']}`, {made_with['date']}: {made_with['cpu']}, {made_with['processes']} "
        f"processes of one thread, {versions}. {text}",
    ]


def figures(
    benchmark: str, rows: Iterable[Mapping[str, Any]], metrics: Iterable[str]
) -> list[dict[str, Any]]:
    """Means over seeds in the form of the benchmarks' rows, a case for each protocol."""
    table = pd.DataFrame(list(rows))
    return [
        figure(benchmark, str(negatives), str(model), metric, "1", values.tolist(), statistics.mean)
        for (negatives, model), group in table.groupby(["negatives", "model"], sort=False)
        for metric in metrics
        if len(values := group[metric].dropna())
    ]


def mean_sd(rows: Iterable[Mapping[str, Any]], case: str, implementation: str, metric: str) -> str:
    """A figure as tables show it."""
    for row in rows:
        if (row["case"], row["implementation"], row["metric"]) == (case, implementation, metric):
            sd = f" ± {short(row['sd'])}" if row["n"] > 1 else ""
            return short(row["value"]) + sd
    return ""


def short(value: float, digits: int = 4) -> str:
    """A number without a zero before its point."""
    text = f"{value:.{digits}f}"
    return text.replace("0.", ".", 1) if text.lstrip("-").startswith("0.") else text


def p_value(p: float) -> str:
    """A p value, in bold if it is small."""
    text = "<.001" if p < 0.001 else short(p, 3)
    return f"**{text}**" if p < 0.05 else text
