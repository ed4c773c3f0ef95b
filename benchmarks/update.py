"""A recommender that takes in new users and new items without training, against models trained with them."""

import statistics
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from benchmarks.data import RANKED, load
from benchmarks.harness import Report, Settings, figure
from benchmarks.parts import one_of, part_of, plays_of, positives, triples_of
from mgwa_pyg.datasets import KGRecDataset
from mgwa_pyg.datasets.splits import TEST
from mgwa_pyg.recommend import Recommender
from mgwa_pyg.recommenders import KGRecommender, restore
from mgwa_pyg.train import CollaborativeConfig, fit
from mgwa_pyg.train.processes import num_processes, side_by_side

_NAME = "CollaborativeMGWA"
_PARTS = 10  # Users, and items, are divided into so many parts, of which the first ones are left out in turn.
_FOLDS = 2
_AMONG = ("all items", "new items")


class Job(NamedTuple):
    """One fit, and what is left out of it."""

    what: str
    """``"nothing"``, ``"users"``, ``"items"`` (with their triples), or ``"plays of items"``."""
    fold: int
    config: CollaborativeConfig
    folds: int
    device: str


#: Figures by what was left out, the fold and what is measured.
Figures = dict[tuple[str, int, str], float]


def run(settings: Settings) -> Report:
    """Leave users and items out of training, give them to the recommender, and look for their test rows."""
    dataset, config = load(settings, RANKED, 0), CollaborativeConfig.for_ranking()
    folds = 1 if settings.quick else _FOLDS
    if settings.quick:
        config = replace(config, epochs=2, passes=2, channels=16)
    jobs = [Job("nothing", 0, config, folds, settings.device)]
    jobs += [
        Job(what, fold, config, folds, settings.device)
        for what in ("users", "items", "plays of items")
        for fold in range(folds)
    ]
    found: Figures = {}
    with side_by_side(dataset, num_processes(None, settings.device)) as run_all:
        for part in run_all(measured, jobs):
            found |= part
    return Report([*_rows(found, folds)])


def measured(dataset: KGRecDataset, job: Job) -> Figures:
    """Fit one model, give it what was left out, and measure it."""
    users, items = (one_of(size, _PARTS, job.fold) for size in (dataset.num_users, dataset.num_items))
    if job.what == "nothing":
        recommender, figures = Recommender(_fitted(dataset, job)), Figures()
        everything = recall(recommender, dataset)
        for fold in range(job.folds):
            figures["nothing", fold, "all test rows"] = everything
            masks = (one_of(size, _PARTS, fold) for size in (dataset.num_users, dataset.num_items))
            users, items = masks
            figures["nothing", fold, "new users"] = recall(recommender, dataset, users=users)
            for among in _AMONG:
                figures["nothing", fold, f"new items among {among}"] = recall(
                    recommender, dataset, items=items, among=among
                )
        return figures
    if job.what == "users":
        recommender = Recommender(_fitted(part_of(dataset, users=users), job))
        started = time.perf_counter()
        recommender.update(plays_of(dataset, users))
        seconds = time.perf_counter() - started
        return {
            ("users", job.fold, "new users"): recall(recommender, dataset, users=users),
            ("users", job.fold, "seconds"): seconds,
        }
    if job.what == "items":
        recommender = Recommender(_fitted(part_of(dataset, items=items), job))
        before = recall(recommender, dataset, items=~items)
        ids = [dataset.item_ids[row] for row in items.nonzero().squeeze(1).tolist()]
        started = time.perf_counter()
        recommender.update(triples=triples_of(dataset, items), items=ids)
        seconds = time.perf_counter() - started
        after = recall(recommender, dataset, items=~items)
        more = {
            ("items", job.fold, "seconds"): seconds,
            ("items", job.fold, "others"): after / before,
            ("items", job.fold, "all test rows"): recall(recommender, dataset),
        }
    else:
        recommender = Recommender(_fitted(part_of(dataset, items=items, keep_triples=True), job))
        more = {}
    return more | {
        (job.what, job.fold, f"new items among {among}"): recall(
            recommender, dataset, items=items, among=among
        )
        for among in _AMONG
    }


def recall(
    recommender: Recommender,
    whole: KGRecDataset,
    users: Tensor | None = None,
    items: Tensor | None = None,
    among: str = "all items",
) -> float:
    """Recall@10 of test positives: those of some users, and of some items, both masks. What is a user's
    training or validation positive in the whole data is no candidate.
    """
    (user, item), part = positives(whole)
    wanted = torch.from_numpy(part == TEST)
    wanted &= torch.ones_like(wanted) if users is None else users[user]
    wanted &= torch.ones_like(wanted) if items is None else items[item]
    key = (user * whole.num_items + item).numpy()
    known, sought = key[part != TEST], key[wanted.numpy()]
    asked, count = np.unique(user[wanted].numpy(), return_counts=True)
    most = int(np.bincount(user.numpy()).max())
    candidates = None
    if among == "new items":
        assert items is not None
        candidates = [whole.item_ids[row] for row in items.nonzero().squeeze(1).tolist()]
    user_row = {id_: row for row, id_ in enumerate(whole.user_ids)}
    item_row = {id_: row for row, id_ in enumerate(whole.item_ids)}
    ids = [whole.user_ids[row] for row in asked.tolist()]
    best = recommender.recommend_batch(ids, 10 + most, candidates=candidates, include_held_out=True)
    best["key"] = best["user"].map(user_row) * whole.num_items + best["item"].map(item_row)
    first = best[~best["key"].isin(known)].groupby("user", sort=False).head(10)
    hits = first["key"].isin(sought).groupby(first["user"]).sum()
    return float(np.mean([hits.get(id_, 0) / number for id_, number in zip(ids, count, strict=True)]))


def _fitted(dataset: KGRecDataset, job: Job) -> KGRecommender:
    with tempfile.TemporaryDirectory() as folder:
        result = fit(dataset, job.config, folder, seed=0, device=job.device, name=job.what)
        return restore(result.checkpoint, dataset)


def _rows(found: Figures, folds: int) -> Iterator[dict]:
    """One row a figure, and the shares of what models have that were trained with what is new."""

    def of(what: str, metric: str) -> list[float]:
        return [found[what, fold, metric] for fold in range(folds)]

    def row(case: str, metric: str, unit: str, values: list[float]) -> dict:
        return figure("update", case, _NAME, metric, unit, values, statistics.fmean)

    def share(what: str, other: str, metric: str) -> list[float]:
        return [100 * statistics.fmean(of(what, metric)) / statistics.fmean(of(other, metric))]

    yield row("new users", "recall@10, updated", "1", of("users", "new users"))
    yield row("new users", "recall@10, trained with them", "1", of("nothing", "new users"))
    yield row("new users", "recall@10, share", "%", share("users", "nothing", "new users"))
    yield row("new users", "update", "s", of("users", "seconds"))
    for among in _AMONG:
        case = f"new items among {among}"
        yield row(case, "recall@10, updated", "1", of("items", case))
        for other, words in (("plays of items", "their triples"), ("nothing", "their triples and plays")):
            yield row(case, f"recall@10, trained with {words}", "1", of(other, case))
            if any(of(other, case)):
                yield row(case, f"recall@10, share of trained with {words}", "%", share("items", other, case))
    case = "all test rows"
    yield row("new items", "update", "s", of("items", "seconds"))
    yield row("new items", f"recall@10 of {case}, updated", "1", of("items", case))
    yield row("new items", f"recall@10 of {case}, trained with them", "1", of("nothing", case))
    yield row("new items", f"recall@10 of {case}, share", "%", share("items", "nothing", case))
    others = [100 * value for value in of("items", "others")]
    yield row("other items", "recall@10 after an update, share of before", "%", others)
