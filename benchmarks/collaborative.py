"""CollaborativeMGWA: what each part is worth, under which protocol, for clicks and for rankings."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from benchmarks.data import RANKED
from benchmarks.experiments import METRICS, Experiment, Job, Results, make_jobs
from benchmarks.harness import Settings
from mgwa_pyg.train import CollaborativeConfig, FitConfig

CLICK, RANKING = CollaborativeConfig(), CollaborativeConfig.for_ranking()


#: One thing at a time. The names are those of the fields.
CHANGES: list[dict[str, Any]] = [
    {"fusion": "highway"},
    {"fusion": "gated"},
    {"num_layers": 0},
    {"num_layers": 1},
    {"num_layers": 2},
    {"item_item": True},
    {"degree_power": 0.0},
    {"attention": True},
    {"knowledge_graph": False},
    {"hold_out": 0.0},
    {"channels": 32},
    {"channels": 128},
    {"dropout": 0.0},
    {"loss": "ranking"},
]
#: Those that are looked at for rankings, too.
RANKING_CHANGES: list[dict[str, Any]] = [
    {"num_layers": 0},
    {"num_layers": 1},
    {"item_item": False},
    {"attention": False},
    {"knowledge_graph": False},
    {"loss": "click"},
]
_BASE, _FROZEN = "as chosen", "frozen negatives"
_COLUMNS = {name: METRICS[name] for name in ("auc", "acc", "f1", "auc_user", "auc_warm", "auc_cold")}
_RANKED = {"recall@10": "Recall@10", "mrr@10": "MRR@10", "ndcg@10": "NDCG@10", "recall@20": "Recall@20"}


def parts(base: CollaborativeConfig, changes: Iterable[Mapping[str, Any]]) -> dict[str, FitConfig]:
    """The setting as chosen, and with each of the changes, by the names that tables give them."""
    changed = {
        ", ".join(f"{key}={value}" for key, value in change.items()): replace(base, **change)
        for change in changes
    }
    return {_BASE: base, **changed}


def _jobs(settings: Settings) -> list[Job]:
    from benchmarks.variants import VARIANTS

    jobs = make_jobs(settings, {**parts(CLICK, CHANGES), **VARIANTS}, ["items"])
    jobs = [replace(job, blended=job.model == _BASE) for job in jobs]
    if settings.data == "lastfm":
        jobs += make_jobs(settings, {_FROZEN: CLICK}, ["frozen"])
        jobs += make_jobs(settings, parts(RANKING, RANKING_CHANGES), [RANKED], num_seeds=3)
    return jobs


def _blocks(results: Results) -> dict[str, str]:
    seconds = {
        row["implementation"]: f"{row['value']:.0f}"
        for row in results.content["rows"]
        if (row["case"], row["metric"]) == ("items", "fit_seconds")
    }
    more = {
        "p": lambda name: results.p("items", name),
        "p, over users": lambda name: results.p("items", name, "auc_user"),
        "seconds": lambda name: seconds.get(name, ""),
    }
    blocks = {"Clicks": results.table("items", results.models("items"), _COLUMNS, more)}
    if results.settings.data == "lastfm":
        blocks["Published negatives"] = results.table("frozen", [_FROZEN], _COLUMNS)
        blocks["Ranking"] = results.table(RANKED, results.models(RANKED), _RANKED)
    return blocks


EXPERIMENT = Experiment(
    name="collaborative",
    title="What each part of CollaborativeMGWA is worth",
    metrics=[*METRICS, "epochs", "fit_seconds", *_RANKED],
    jobs=_jobs,
    blocks=_blocks,
    reference=_BASE,
)
run, redraw = EXPERIMENT.run, EXPERIMENT.redraw
