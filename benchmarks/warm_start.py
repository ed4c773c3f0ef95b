"""A warm start on 5 % more data, against a fit from nothing."""

import statistics
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import torch

from benchmarks.data import RANKED, load
from benchmarks.harness import Report, Settings, figure
from benchmarks.parts import part_of, positives
from mgwa_pyg.datasets import KGRecDataset
from mgwa_pyg.datasets.splits import TRAIN
from mgwa_pyg.evaluation import full_ranking
from mgwa_pyg.recommenders import restore
from mgwa_pyg.train import CollaborativeConfig, fit

_NAME = "CollaborativeMGWA"
_NEW = 0.05  # The share of the training positives that come later.
_SEEDS = 2
# Chosen on validation rows, where lower learning rates did worse.
_WARM = {"epochs": 1}


def run(settings: Settings) -> Report:
    """Fit to most of the data, then to all of it: from there, and from nothing; one after the other."""
    dataset, config = load(settings, RANKED, 0), CollaborativeConfig.for_ranking()
    torch.set_num_threads(1)
    if settings.quick:
        config = replace(config, epochs=2, passes=2, channels=16)
    values: dict[tuple[str, str], list[float]] = {}
    for seed in range(1 if settings.quick else _SEEDS):
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            fit(most_of(dataset, seed), config, folder / "before", seed=seed, device=settings.device)
            for case, fitted, start in (
                ("from nothing", config, None),
                ("warm start", replace(config, **_WARM), folder / "before"),
            ):
                started = time.perf_counter()
                result = fit(
                    dataset, fitted, folder / case, seed=seed, device=settings.device, warm_start=start
                )
                values.setdefault((case, "s"), []).append(time.perf_counter() - started)
                recommender = restore(result.checkpoint, dataset)
                with torch.no_grad():
                    ranked = full_ranking(recommender.scorer(), dataset[0], dataset.num_items, ks=(10,))
                values.setdefault((case, "1"), []).append(ranked["recall@10"])
        settings.record.keep("warm_start", rows(values))
    return Report(rows(values))


def most_of(dataset: KGRecDataset, seed: int) -> KGRecDataset:
    """The data set without some of its training positives."""
    _, part = positives(dataset)
    drawn = torch.rand(len(part), generator=torch.Generator().manual_seed(seed)) < _NEW
    return part_of(dataset, pairs=drawn & torch.from_numpy(part == TRAIN))


def rows(values: dict[tuple[str, str], list[float]]) -> list[dict]:
    """One row a figure, and the shares of a fit from nothing."""
    metrics = {"s": "wall time", "1": "recall@10"}
    found = [
        figure("warm_start", case, _NAME, metrics[unit], unit, numbers, statistics.fmean)
        for (case, unit), numbers in values.items()
    ]
    for unit, metric in metrics.items():
        warm, cold = (statistics.fmean(values[case, unit]) for case in ("warm start", "from nothing"))
        found.append(figure("warm_start", "warm start", _NAME, f"{metric}, share", "%", [100 * warm / cold]))
    return found
