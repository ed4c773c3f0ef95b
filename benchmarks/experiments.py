"""The skeleton of the experiments: jobs, run over seeds, tested over seeds, and shown on a page."""

import itertools
import multiprocessing
import os
import statistics
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

import pandas as pd
import torch
from tqdm import tqdm

from benchmarks.data import RANKED, load
from benchmarks.harness import (
    DATA,
    Report,
    Settings,
    environment,
    figure,
    read_results,
    table,
    write_page,
    write_results,
)
from benchmarks.rankings import (
    Ranking,
    against_others,
    differences_of_users,
    over_users,
    rank,
    recommendations_file,
)
from mgwa_pyg.datasets import KGRecDataset
from mgwa_pyg.datasets.interactions import interactions
from mgwa_pyg.evaluation import (
    EASE,
    ItemKNN,
    Popularity,
    SharedTails,
    blend,
    blend_clicks,
    click_report,
    corrected_t_test,
    fit_heuristics,
    predict_heuristics,
    user_aucs,
)
from mgwa_pyg.recommenders import restore
from mgwa_pyg.train import FitConfig, FitResult, fit
from mgwa_pyg.train.processes import uninterrupted

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

#: How many seeds a figure is the mean of.
SEEDS = 5

# What tells the rows of an experiment apart.
_KEYS = ("model", "negatives", "seed")
# Rows for testing over rows for training, in a split of 6:2:2.
_TEST_FRACTION = 1 / 3

_Result = TypeVar("_Result")


# --- Jobs ---


@dataclass(frozen=True)
class Job:
    """One fit of one model, or, without hyper-parameters, all heuristics."""

    model: str
    config: FitConfig | None
    negatives: str
    seed: int
    settings: Settings
    blended: bool = False
    """Whether there is a second row, of the model and the heuristics together."""

    def load(self) -> KGRecDataset:
        """The data set."""
        return load(self.settings, self.negatives, self.seed)

    @contextmanager
    def fitted(self) -> Iterator[tuple[KGRecDataset, FitResult]]:
        """The data set and a fit, whose checkpoint is gone when the block ends."""
        assert self.config is not None
        dataset = self.load()
        with tempfile.TemporaryDirectory() as folder:
            yield dataset, fit(dataset, self.config, folder, seed=self.seed, device=self.settings.device)


def make_jobs(
    settings: Settings,
    models: Mapping[str, FitConfig | None],
    protocols: Iterable[str],
    num_seeds: int | None = None,
) -> list[Job]:
    """A job for each protocol, model and seed."""
    return [
        Job(model, config, negatives, seed, settings)
        for negatives in protocols
        for model, config in models.items()
        for seed in range(1 if settings.quick else num_seeds or SEEDS)
    ]


@dataclass(frozen=True)
class Outcome:
    """What a job gives: a row a model, and the test rows' probabilities and a learning curve, or rankings."""

    rows: list[dict[str, Any]]
    predictions: pd.DataFrame = field(default_factory=pd.DataFrame)
    history: list[dict[str, float]] = field(default_factory=list)
    transe: Mapping[str, float | None] | None = None
    rankings: Sequence[Ranking] = ()


def run_job(job: Job) -> Outcome:
    """Fit, and evaluate the test rows, or the ranking of all items."""
    if job.negatives == RANKED:
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
            if job.blended:
                scores[_blend_of(job)] = blend_clicks(scores[job.model], dataset[0], dataset.num_items)
    data = dataset[0]
    links = interactions(data)
    rows, frames = [], []
    key = {"negatives": job.negatives, "seed": job.seed}
    label = links.edge_label[links.test_mask].long().numpy()
    user = links.edge_label_index[0, links.test_mask].numpy()
    val_auc = max((epoch["val_auc"] for epoch in history), default=None)
    cost = {"val_auc": val_auc, "epochs": len(history) or None, "fit_seconds": seconds}
    for model, (val_score, score) in scores.items():
        report = click_report(data, val_score, score)
        rows.append({"model": model, **key, **report, **(cost if model == job.model else {})})
        columns = {"user": user, "label": label, "score": score.numpy()}
        frames.append(pd.DataFrame({"model": model, **key, **columns}))
    return Outcome(rows, pd.concat(frames), history, transe)


def _rank(job: Job) -> Outcome:
    """Rank all items for every user."""
    device = job.settings.device
    if job.config is None:
        dataset = job.load()
        data, num_items = dataset[0], dataset.num_items
        scores = {name: one.score_all for name, one in fit_heuristics(data, num_items).items()}
    else:
        with job.fitted() as (dataset, result), torch.no_grad():
            score_all = restore(result.checkpoint, dataset, device).scorer()
        data, num_items = dataset[0], dataset.num_items
        scores = {job.model: lambda user: score_all(user.to(device))}
        if job.blended:
            heuristics = {
                kind.__name__: kind(data, num_items).score_all
                for kind in (EASE, ItemKNN, SharedTails, Popularity)
            }
            _, scores[_blend_of(job)] = blend({**scores, **heuristics}, data, num_items)
    rankings = [rank(name, job.seed, one, data, num_items) for name, one in scores.items()]
    key = {"negatives": job.negatives, "seed": job.seed}
    return Outcome([{"model": one.model, **key, **one.row()} for one in rankings], rankings=rankings)


def _blend_of(job: Job) -> str:
    return f"{job.model} + heuristics"


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
            with uninterrupted():
                futures = {pool.submit(function, job): number for number, job in enumerate(jobs)}
            for future in tqdm(as_completed(futures), total=len(jobs), desc=name, disable=None):
                results[futures[future]] = future.result()
                rows = [row for one in results if isinstance(one, Outcome) for row in one.rows]
                if rows:
                    metrics = dict.fromkeys(key for row in rows for key in row if key not in _KEYS)
                    settings.record.keep(name, figures(name, rows, metrics))
        except BaseException as error:
            with uninterrupted():
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
    metrics = [metric for metric in ("auc", "acc") if metric in frame]
    for negatives, metric in itertools.product(frame["negatives"].unique(), metrics):
        wide = frame[frame["negatives"] == negatives].pivot_table(
            index="seed", columns="model", values=metric, sort=False
        )
        values = {str(model): wide[model] for model in wide.columns}
        key = {"negatives": str(negatives), "metric": metric}
        results += against_others(reference, values, _over_seeds, **key)
    return results


def _over_seeds(difference: Any) -> dict[str, float]:
    return corrected_t_test(difference, _TEST_FRACTION)


def click_differences_of_users(predictions: pd.DataFrame, reference: str) -> list[dict[str, Any]]:
    """Test, for each protocol, the AUC of ``reference`` among a user's own rows against everything else's,
    over the users, each with the mean of the seeds in which it is defined.

    The p values are adjusted after Holm for all others within a protocol.
    """
    results = []
    for negatives, of_protocol in predictions.groupby("negatives", sort=False):
        aucs: dict[str, list[pd.Series]] = {}
        for (model, _), rows in of_protocol.groupby(["model", "seed"], sort=False):
            user, auc = user_aucs(rows["label"], rows["score"], rows["user"])
            aucs.setdefault(model, []).append(pd.Series(auc, user))
        means = {str(model): pd.concat(of_seeds).groupby(level=0).mean() for model, of_seeds in aucs.items()}
        key = {"negatives": str(negatives), "metric": "auc_user"}
        results += against_others(reference, means, over_users, **key)
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

    def models(self, case: str) -> list[str]:
        """All that has figures, in the order of the jobs."""
        rows = self.content["rows"]
        return list(dict.fromkeys(row["implementation"] for row in rows if row["case"] == case))

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

    def difference(self, case: str, model: str, metric: str) -> list[str]:
        """Two cells: how far the reference is above a model, with its interval, and the p value."""
        test = self.test(case, model, metric)
        if test is None:
            return ["", ""]
        shown = f"{test['mean']:+.4f} [{test['low']:+.4f}, {test['high']:+.4f}]"
        return [shown, self.p(case, model, metric)]

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
    data: Sequence[str] = ("lastfm",)
    """What it runs on beside synthetic data; the files of all but the first bear its name."""

    def run(self, settings: Settings) -> Report:
        """Fit and evaluate everything; write the file, the page, the plots and the recommendations."""
        jobs, name = self.jobs(settings), self._name(settings)
        with recommendations_file(settings.recommendations) as write:
            outcomes = parallel(run_job, jobs, name)
            rankings = [ranking for outcome in outcomes for ranking in outcome.rankings]
            if rankings:
                write(load(settings, RANKED, 0), rankings)
        per_seed = [row for outcome in outcomes for row in outcome.rows]
        processes = {"threads": 1, "processes": _num_processes(settings)}
        tests = []
        if self.reference is not None:
            tests = [] if settings.quick else differences(per_seed, self.reference)
            tests += differences_of_users(rankings, self.reference, negatives=RANKED)
            predictions = pd.concat([outcome.predictions for outcome in outcomes])
            if len(predictions):
                tests += click_differences_of_users(predictions, self.reference)
        content = {
            "environment": {**environment(settings.device), **processes},
            "rows": figures(name, per_seed, self.metrics),
            "seeds": per_seed,
            "tests": tests,
            **self.keep(jobs, outcomes),
        }
        write_results(settings.out / f"{name}.json.gz", content)
        return self.redraw(settings)

    def redraw(self, settings: Settings) -> Report:
        """Write the page and the plots from what a run has left."""
        name, data = self._name(settings), DATA[settings.data]
        results = Results(read_results(settings.out / f"{name}.json.gz"), settings)
        made = results.content["environment"]
        how = (
            f"{data}{', one seed' if settings.quick else ''}: `{made['command']}`, "
            f"{made['date']}; {made['cpu']}, {made['processes']} processes of one thread, torch "
            f"{made['torch']}, torch_geometric {made['torch_geometric']}."
        )
        self.plot(results)
        blocks = {"How it was measured": how, **self.blocks(results)}
        text = write_page(settings.out / f"{name}.md", f"{self.title}: {data}", blocks)
        return Report(results.content["rows"], text, tests=results.content["tests"])

    def _name(self, settings: Settings) -> str:
        """What its files on these data are called."""
        return self.name if settings.data in (self.data[0], "synthetic") else f"{self.name}_{settings.data}"
