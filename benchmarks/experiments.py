"""The skeleton of the experiments: jobs, run over seeds, tested over seeds, and shown on a page."""

import multiprocessing
import os
import signal
import statistics
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import pandas as pd
import torch
from tqdm import tqdm

from benchmarks.harness import (
    NoDataError,
    Report,
    Settings,
    environment,
    figure,
    read_results,
    table,
    write_page,
    write_results,
)
from mgwa_pyg.datasets import BookCrossingKG, DownloadError, KGRecDataset, LastFMKG, SyntheticKG
from mgwa_pyg.datasets.interactions import interactions
from mgwa_pyg.evaluation import (
    click_report,
    corrected_t_test,
    fit_heuristics,
    full_ranking,
    holm,
    predict_heuristics,
)
from mgwa_pyg.recommenders import restore
from mgwa_pyg.train import FitConfig, FitResult, fit

#: The protocols by what their negatives are drawn from, and what pages call them.
PROTOCOLS = {"entities": "Paper protocol", "items": "Item protocol"}
#: What stands for the negatives of a job that ranks all items on the fixed split.
FIXED_SPLIT = "lightkg"

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

#: What pages and plots call the data.
DATA = {"lastfm": "Last.FM", "bookcrossing": "Book-Crossing", "synthetic": "SYNTHETIC data, not Last.FM"}

# What tells the rows of an experiment apart.
_KEYS = ("model", "negatives", "seed")
# Rows for testing over rows for training, in a split of 6:2:2.
_TEST_FRACTION = 1 / 3

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


# --- Jobs ---


@dataclass(frozen=True)
class Job:
    """One fit of one model, or, without hyper-parameters, all heuristics."""

    model: str
    config: FitConfig | None
    negatives: str
    seed: int
    settings: Settings

    def load(self) -> KGRecDataset:
        """The data set."""
        ranked = self.negatives == FIXED_SPLIT
        split = ("items", self.seed, "lightkg") if ranked else (self.negatives, self.seed, "random")
        return load(self.settings, *split)

    @contextmanager
    def fitted(self) -> Iterator[tuple[KGRecDataset, FitResult]]:
        """The data set and a fit, whose checkpoint is gone when the block ends."""
        assert self.config is not None
        dataset = self.load()
        with tempfile.TemporaryDirectory() as folder:
            yield dataset, fit(dataset, self.config, folder, seed=self.seed, device=self.settings.device)


def make_jobs(
    settings: Settings, models: Mapping[str, FitConfig | None], protocols: Iterable[str], num_seeds: int = 5
) -> list[Job]:
    """A job for each protocol, model and seed."""
    return [
        Job(model, config, negatives, seed, settings)
        for negatives in protocols
        for model, config in models.items()
        for seed in range(1 if settings.quick else num_seeds)
    ]


@dataclass(frozen=True)
class Outcome:
    """What a job gives: a row a model, the test rows' probabilities, and the learning curve of a fit."""

    rows: list[dict[str, Any]]
    predictions: pd.DataFrame = field(default_factory=pd.DataFrame)
    history: list[dict[str, float]] = field(default_factory=list)
    transe: Mapping[str, float | None] | None = None


def run_job(job: Job) -> Outcome:
    """Fit, and evaluate the test rows, or the ranking of all items."""
    if job.negatives == FIXED_SPLIT:
        return _rank(job)
    history: list[dict[str, float]] = []
    transe = seconds = None
    if job.config is None:
        dataset = job.load()
        scores = predict_heuristics(dataset[0], dataset.num_items)
    else:
        with job.fitted() as (dataset, result):
            scores = {job.model: (result.val_score, result.score)}
            history, transe, seconds = result.history, result.transe, result.train_seconds
    data = dataset[0]
    links = interactions(data)
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


def _rank(job: Job) -> Outcome:
    """Rank all items for every user."""
    device, key = job.settings.device, {"negatives": job.negatives, "seed": job.seed}
    if job.config is None:
        dataset = job.load()
        data, num_items = dataset[0], dataset.num_items
        scores = {name: one.score_all for name, one in fit_heuristics(data, num_items).items()}
    else:
        with job.fitted() as (dataset, result):
            recommender = restore(result.checkpoint, dataset, device)
        data, num_items = dataset[0], dataset.num_items
        scores = {job.model: lambda user: recommender.score_all(user.to(device))}
    rows = [{"model": name, **key, **full_ranking(one, data, num_items)} for name, one in scores.items()]
    return Outcome(rows)


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
    for job in {job.negatives: job for job in jobs}.values():
        job.load()  # Downloads, once, what the processes will read.
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
                rows = [row for one in results if isinstance(one, Outcome) for row in one.rows]
                if rows:
                    metrics = dict.fromkeys(key for row in rows for key in row if key not in _KEYS)
                    settings.record.keep(name, figures(name, rows, metrics))
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


def _num_processes(settings: Settings) -> int:
    return 1 if settings.device == "cuda" else os.cpu_count() or 1


# --- Figures ---


def figures(
    benchmark: str, rows: Iterable[Mapping[str, Any]], metrics: Iterable[str]
) -> list[dict[str, Any]]:
    """Means over seeds in the form of the benchmarks' rows, a case for each protocol."""
    frame = pd.DataFrame(list(rows))
    return [
        figure(benchmark, str(negatives), str(model), metric, "1", values.tolist(), statistics.mean)
        for (negatives, model), group in frame.groupby(["negatives", "model"], sort=False)
        for metric in metrics
        if metric in group and len(values := group[metric].dropna())
    ]


def differences(per_seed: Sequence[Mapping[str, Any]], reference: str) -> list[dict[str, Any]]:
    """Test, for each protocol and metric, ``reference`` against everything else over the same seeds.

    The p values are adjusted after Holm for all others within a protocol and a metric.
    """
    results = []
    frame = pd.DataFrame(list(per_seed))
    for negatives, metric in [(n, m) for n in frame["negatives"].unique() for m in ("auc", "acc")]:
        wide = frame[frame["negatives"] == negatives].pivot_table(
            index="seed", columns="model", values=metric, sort=False
        )
        if reference not in wide:
            continue
        others = [model for model in wide.columns if model != reference]
        tests = [corrected_t_test(wide[reference] - wide[other], _TEST_FRACTION) for other in others]
        adjusted = holm([test["p"] for test in tests])
        for other, test, p in zip(others, tests, adjusted, strict=True):
            key = {"negatives": negatives, "metric": metric, "model": reference, "other": other}
            results.append({**key, **test, "p_holm": float(p)})
    return results


def short(value: float, digits: int = 4) -> str:
    """A number without a zero before its point."""
    text = f"{value:.{digits}f}"
    return text.replace("0.", ".", 1) if text.lstrip("-").startswith("0.") else text


# --- The experiment ---


@dataclass(frozen=True)
class Results:
    """What an experiment has measured: the content of its file, and cells and tables of it."""

    content: Mapping[str, Any]
    settings: Settings

    def cell(self, case: str, model: str, metric: str) -> str:
        """Mean and standard deviation."""
        for row in self.content["rows"]:
            if (row["case"], row["implementation"], row["metric"]) == (case, model, metric):
                return short(row["value"]) + (f" ± {short(row['sd'])}" if row["n"] > 1 else "")
        return ""

    def test(self, case: str, model: str, metric: str = "auc") -> Mapping[str, Any] | None:
        """The test of the reference against a model, if there is one."""
        for test in self.content["tests"]:
            if (test["negatives"], test["other"], test["metric"]) == (case, model, metric):
                return test
        return None

    def p(self, case: str, model: str, metric: str = "auc") -> str:
        """The p value of that test, in bold if it is small."""
        test = self.test(case, model, metric)
        if test is None:
            return ""
        text = "<.001" if test["p_holm"] < 0.001 else short(test["p_holm"], 3)
        return f"**{text}**" if test["p_holm"] < 0.05 else text

    def table(
        self,
        case: str,
        models: Iterable[str],
        metrics: Mapping[str, str],
        more: Mapping[str, Callable[[str], str]] | None = None,
    ) -> str:
        """A row a model, a column a metric, and more columns of what a function says of a model."""
        more = more or {}
        body = [
            [
                model,
                *(self.cell(case, model, metric) for metric in metrics),
                *(f(model) for f in more.values()),
            ]
            for model in models
        ]
        return table(["", *metrics.values(), *more], body)


@dataclass(frozen=True)
class Experiment:
    """What one experiment has of its own; :meth:`run` and :meth:`redraw` are the same for all."""

    name: str
    """Of its file ``NAME.json.gz`` and its page ``NAME.md``."""
    title: str
    """What a page begins with that is not there yet."""
    jobs: Callable[[Settings], list[Job]]
    """What is fitted."""
    blocks: Callable[[Results], dict[str, str]]
    """The tables of the page, by name."""
    metrics: Sequence[str] = tuple(METRICS)
    """What is averaged over seeds."""
    reference: str | None = None
    """The model that all others are tested against."""
    keep: Callable[[Sequence[Job], Sequence[Outcome]], dict[str, Any]] = lambda jobs, outcomes: {}
    """What the file keeps beside rows, seeds and tests."""
    plot: Callable[[Results], None] = lambda results: None
    """Writes plots beside the page."""
    data: str = "lastfm"
    """What it runs on if not on synthetic data."""

    def run(self, settings: Settings) -> Report:
        """Fit and evaluate everything; write the file, the page and the plots."""
        settings = self._on_its_data(settings)
        jobs = self.jobs(settings)
        outcomes = parallel(run_job, jobs, self.name)
        per_seed = [row for outcome in outcomes for row in outcome.rows]
        tested = self.reference is not None and not settings.quick
        processes = {"threads": 1, "processes": _num_processes(settings)}
        content = {
            "environment": {**environment(settings.device), **processes},
            "rows": figures(self.name, per_seed, self.metrics),
            "seeds": per_seed,
            "tests": differences(per_seed, str(self.reference)) if tested else [],
            **self.keep(jobs, outcomes),
        }
        write_results(settings.out / f"{self.name}.json.gz", content)
        return self.redraw(settings)

    def redraw(self, settings: Settings) -> Report:
        """Write the page and the plots from what a run has left."""
        settings = self._on_its_data(settings)
        results = Results(read_results(settings.out / f"{self.name}.json.gz"), settings)
        made = results.content["environment"]
        how = (
            f"{DATA[settings.data]}{', one seed' if settings.quick else ''}: `{made['command']}`, "
            f"{made['date']}; {made['cpu']}, {made['processes']} processes of one thread, torch "
            f"{made['torch']}, torch_geometric {made['torch_geometric']}."
        )
        self.plot(results)
        blocks = {"How it was measured": how, **self.blocks(results)}
        text = write_page(settings.out / f"{self.name}.md", self.title, blocks)
        return Report(results.content["rows"], text)

    def _on_its_data(self, settings: Settings) -> Settings:
        return settings if settings.data == "synthetic" else replace(settings, data=self.data)
