"""A checkpoint in use: how long answers take, how good they are for newcomers, and what is explained."""

import dataclasses
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch_geometric.data import HeteroData

from benchmarks.data import load
from benchmarks.harness import NoDataError, Report, Settings, figure
from mgwa_pyg.datasets import DownloadError, KGRecDataset, LastFMKG, SyntheticKG
from mgwa_pyg.datasets.base import KGRecTables
from mgwa_pyg.datasets.interactions import interactions
from mgwa_pyg.datasets.splits import TEST, TRAIN, VAL
from mgwa_pyg.evaluation import ItemKNN, full_ranking
from mgwa_pyg.recommend import Recommender
from mgwa_pyg.recommenders import KGRecommender, restore
from mgwa_pyg.train import CollaborativeConfig, FitConfig, KGCNConfig, MGWAConfig, RippleNetConfig, fit

_MODELS: dict[str, FitConfig] = {
    "MGWA": MGWAConfig(),
    "KGCN": KGCNConfig(),
    "RippleNet": RippleNetConfig(),
    "CollaborativeMGWA": CollaborativeConfig(),
    "CollaborativeMGWA, ranking loss": CollaborativeConfig.for_ranking(),
}
_FOLDS = 10  # The users are divided into so many parts, and each of the first _FITTED parts is left out once.
_FITTED = 5
_CALLS = 1000
_NUM_SEEN = 10  # Interactions of a newcomer where time is measured.
_BEST_KNOWN, _NUM_SIMILAR = 300, 10  # Items whose neighbours are looked at, and how many of them.


class _Halves(KGRecDataset):
    """Half of each user's interactions for training, a tenth for validation, the rest for test."""

    @property
    def processed_file_names(self) -> str:
        return f"halves-{super().processed_file_names}"

    def build(self) -> KGRecTables:
        tables = super().build()
        user = tables.positives[:, 0]
        order = np.lexsort((np.random.default_rng([self.seed, 7]).random(len(user)), user))
        count = np.bincount(user, minlength=tables.num_users)
        place = np.empty(len(user), dtype=np.int64)
        place[order] = np.arange(len(user)) - (np.cumsum(count) - count)[user[order]]
        share = (place + 0.5) / count[user]
        parts = np.select([share < 0.5, share < 0.6], [TRAIN, VAL], TEST).astype(np.int8)
        return dataclasses.replace(tables, positive_parts=parts)


class _LastFMHalves(_Halves, LastFMKG):
    pass


class _SyntheticHalves(_Halves, SyntheticKG):
    pass


def run(settings: Settings) -> Report:
    """Measure on a model of each kind, trained here."""
    # As the examples do: the questions are too small for more.
    torch.set_num_threads(1)
    rows = _imports(3 if settings.quick else 15)
    settings.record.keep("recommend", rows)
    dataset = load(settings, "items", 0)
    knn = ItemKNN(dataset[0], dataset.num_items)
    rows.append(
        _co_plays("item-knn", lambda item: torch.from_numpy(knn.similarity[[item]].toarray()[0]), dataset)
    )
    for name, config in _MODELS.items():
        model = _fit(dataset, config, settings)
        recommender = Recommender(model)
        rows += _times(name, recommender, 50 if settings.quick else _CALLS)
        rows += _explanations(name, recommender, 10 if settings.quick else 200)
        rows.append(_co_plays(name, model.similar, dataset))
        settings.record.keep("recommend", rows)
    for name, config in _MODELS.items():
        rows += _newcomers(name, config, settings)
        settings.record.keep("recommend", rows)
    return Report(rows)


def _fit(dataset: KGRecDataset, config: FitConfig, settings: Settings) -> KGRecommender:
    if settings.quick:
        config = dataclasses.replace(config, epochs=2)
    with tempfile.TemporaryDirectory() as folder:
        result = fit(dataset, config, folder, seed=0, device=settings.device, name=config.model)
        return restore(result.checkpoint, dataset)


def _imports(times: int) -> list[dict]:
    """The time from nothing, the packages by turns."""
    names = ("torch_geometric", "mgwa_pyg", "mgwa_pyg.nn", "mgwa_pyg.recommend")
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for turn in range(times + 1):  # The first one fills the caches of the disk.
        for name in names:
            started = time.perf_counter()
            subprocess.run([sys.executable, "-c", f"import {name}"], check=True)
            if turn > 0:
                seconds[name].append(time.perf_counter() - started)
    return [figure("recommend", "import", name, "time", "s", values) for name, values in seconds.items()]


def _times(name: str, recommender: Recommender, calls: int) -> list[dict]:
    generator, dataset = np.random.default_rng(0), recommender.dataset
    users = [dataset.user_ids[row] for row in generator.integers(recommender.num_users, size=calls)]
    items = [dataset.item_ids[row] for row in generator.integers(recommender.num_items, size=calls)]
    seen = [_seen(recommender, generator) for _ in users]
    questions: dict[str, Callable[[int], Any]] = {
        "recommend": lambda call: recommender.recommend(users[call]),
        f"recommend_for, {_NUM_SEEN} items": lambda call: recommender.recommend_for(seen[call]),
        "similar_items": lambda call: recommender.similar_items(items[call]),
        "explain": lambda call: recommender.explain(users[call], items[call]),
    }
    rows = []
    for metric, ask in questions.items():
        for call in range(10):
            ask(call)
        seconds = []
        for call in range(calls):
            started = time.perf_counter()
            ask(call)
            seconds.append(1e3 * (time.perf_counter() - started))
        rows.append(figure("recommend", "times", name, f"{metric}, median", "ms", seconds))
        rows.append(figure("recommend", "times", name, f"{metric}, p95", "ms", seconds, _p95))
    return rows


def _p95(values: Sequence[float]) -> float:
    return float(np.quantile(values, 0.95))


def _seen(recommender: Recommender, generator: np.random.Generator) -> list[int | str]:
    rows = generator.choice(recommender.num_items, _NUM_SEEN, replace=False)
    return [recommender.dataset.item_ids[row] for row in rows]


def _explanations(name: str, recommender: Recommender, pairs: int) -> list[dict]:
    """How far the parts' sums are from the scores that items are ranked by."""
    generator = np.random.default_rng(1)
    errors = []
    for row in generator.integers(recommender.num_users, size=pairs):
        user, seen = recommender.dataset.user_ids[row], _seen(recommender, generator)
        for who, table in (
            (user, recommender.recommend(user, 20)),
            (seen, recommender.recommend_for(seen, 20)),
        ):
            place = int(generator.integers(len(table)))
            why = recommender.explain(who, table["item"][place])
            for parts in [why.parts] if why.history is None else [why.parts, why.history]:
                errors.append(abs(parts["score"].sum() - table["score"][place]))
    return [figure("recommend", "explanations", name, "largest error of the sum", "1", errors, max)]


def _co_plays(name: str, similar: Callable[[int], Tensor], dataset: KGRecDataset) -> dict:
    """How many held-out co-plays of the best-known items lie among the items most like them.

    A co-play of two items is a user who has one of them in training and the other in the test rows.
    """
    links = interactions(dataset[0])
    seen = torch.zeros(dataset.num_users, dataset.num_items)
    seen[tuple(links.edge_index)] = 1.0
    held = torch.zeros_like(seen)
    held[tuple(links.edge_label_index[:, links.test_mask & (links.edge_label == 1)])] = 1.0
    caught = []
    for item in seen.sum(dim=0).topk(min(_BEST_KNOWN, dataset.num_items)).indices.tolist():
        score = similar(item).clone()
        score[item] = -torch.inf
        neighbors = score.topk(_NUM_SIMILAR).indices
        caught.append(float(seen[:, item] @ held[:, neighbors].sum(dim=1)))
    return figure(
        "recommend", "similar_items", name, "held-out co-plays caught", "1", caught, statistics.fmean
    )


def _newcomers(name: str, config: FitConfig, settings: Settings) -> list[dict]:
    """Recall@10 of users that were left out of training, and of those that were not."""
    whole = _halves(settings)
    order = torch.randperm(whole.num_users, generator=torch.Generator().manual_seed(1))
    with_them = _fit(whole, config, settings)
    values: dict[str, list[float]] = {"new": [], "others, same model": [], "the same, trained with them": []}
    for fold in range(1 if settings.quick else _FITTED):
        new = order[fold::_FOLDS]
        others = order[~torch.isin(order, new)]
        dataset = _halves(settings, without=new)
        without_them = _fit(dataset, config, settings)
        values["others, same model"].append(_recall(without_them.scorer(), whole, others))
        values["the same, trained with them"].append(_recall(with_them.scorer(), whole, new))
        values["new"].append(_newcomer_recall(Recommender(without_them), whole, new))
    rows = [
        figure("recommend", f"Recall@10, {case}", name, "recall@10", "1", recalls, statistics.fmean)
        for case, recalls in values.items()
    ]
    for case in list(values)[1:]:
        ratios = [100 * statistics.fmean(values["new"]) / statistics.fmean(values[case])]
        rows.append(figure("recommend", f"new against {case}", name, "recall@10", "%", ratios))
    return rows


def _newcomer_recall(recommender: Recommender, whole: KGRecDataset, new: Tensor) -> float:
    user, item = interactions(whole[0]).edge_index
    catalog = recommender.catalog
    is_new = torch.zeros(whole.num_users, dtype=torch.bool)
    is_new[new] = True

    def scores(users: Tensor) -> Tensor:
        out = torch.zeros(len(users), whole.num_items, dtype=torch.double)
        for row, number in enumerate(users.tolist()):
            seen = catalog.item_ids(item[user == number])
            if is_new[number] and len(seen):
                best = recommender.recommend_for(seen, whole.num_items)
                out[row] = best["score"].min() - 1
                rows = [catalog.item(item) for item in best["item"]]
                out[row, rows] = torch.tensor(best["score"].to_list(), dtype=out.dtype)
        return out

    return _recall(scores, whole, new)


def _recall(scores: Callable[[Tensor], Tensor], whole: KGRecDataset, users: Tensor) -> float:
    """Recall@10 of some users' test positives among all items that were not in training or validation."""
    data = whole[0]
    links = interactions(data)
    links.test_mask = links.test_mask & torch.isin(links.edge_label_index[0], users)
    return full_ranking(scores, data, whole.num_items, ks=(10,))["recall@10"]


def _halves(settings: Settings, without: Tensor | None = None) -> KGRecDataset:
    """The data set, in which some users have no interaction outside the test rows."""

    def forget(data: HeteroData) -> HeteroData:
        links = interactions(data)
        links.edge_index = links.edge_index[:, ~torch.isin(links.edge_index[0], without)]
        for split in ("train", "val"):
            mask = links[f"{split}_mask"]
            links[f"{split}_mask"] = mask & ~torch.isin(links.edge_label_index[0], without)
        return data

    transform = None if without is None else forget
    if settings.data == "synthetic":
        return _SyntheticHalves(transform=transform)
    try:
        return _LastFMHalves(settings.root / "LastFMKG", transform=transform)
    except (DownloadError, FileNotFoundError) as error:
        raise NoDataError(str(error)) from error
