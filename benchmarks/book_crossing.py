"""Book-Crossing under the item protocol: our models and KGCN beside the heuristics."""

from typing import Any

from benchmarks.experiments import METRICS, Experiment, Job, Results, make_jobs
from benchmarks.harness import Settings
from mgwa_pyg.train import CollaborativeConfig, FitConfig, KGCNConfig, MGWAConfig

#: Chosen on validation rows by ``python -m benchmarks.search MODEL --data bookcrossing``.
_MGWA: dict[str, Any] = {"lr": 1e-2, "weight_decay": 1e-4, "channels": 16}
_KGCN: dict[str, Any] = {"lr": 1e-2, "weight_decay": 1e-4}
MODELS: dict[str, FitConfig] = {
    "MGWA": MGWAConfig(**_MGWA),
    "MGWA, two layers": MGWAConfig(**_MGWA, num_layers=2),
    "KGCN, sum": KGCNConfig(**_KGCN, fusion="sum"),
    "KGCN, concat": KGCNConfig(**_KGCN, fusion="concat"),
    "KGCN, neighbor": KGCNConfig(**_KGCN, fusion="neighbor"),
    # An epoch of eight passes takes long on these data.
    "CollaborativeMGWA": CollaborativeConfig(passes=2, item_item=True, batch_size=4096),
    "CollaborativeMGWA, no item-item part": CollaborativeConfig(passes=2),
}
NUM_SEEDS = 3


def _jobs(settings: Settings) -> list[Job]:
    return make_jobs(settings, {**MODELS, "heuristics": None}, ["items"], NUM_SEEDS)


def _blocks(results: Results) -> dict[str, str]:
    metrics = list(METRICS.items())
    parts = {"Clicks": metrics[:3], "Users, warm and cold items, thresholds": metrics[3:]}
    return {name: results.table("items", results.models("items"), dict(some)) for name, some in parts.items()}


EXPERIMENT = Experiment(
    name="book_crossing",
    title="Models and heuristics under the item protocol",
    jobs=_jobs,
    blocks=_blocks,
    data=["bookcrossing"],
)
run, redraw = EXPERIMENT.run, EXPERIMENT.redraw
