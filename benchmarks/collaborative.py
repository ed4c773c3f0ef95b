"""CollaborativeMGWA: what each part is worth, under which protocol, for clicks and for rankings."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from benchmarks import topk
from benchmarks.experiments import (
    METRICS,
    Job,
    figures,
    heading,
    mean_sd,
    over_seeds,
    p_value,
    parallel,
    run_job,
    seeds,
    stamp,
)
from benchmarks.harness import Report, Settings, table
from benchmarks.table2 import differences
from mgwa_pyg.train import CollaborativeConfig
from mgwa_pyg.utils.files import whole_file, write_json

CLICK, RANKING = CollaborativeConfig(), CollaborativeConfig.for_ranking()
#: What is changed, one thing at a time. The names are those of the fields.
CHANGES: list[dict[str, Any]] = [
    *({"fusion": fusion} for fusion in ("identity", "highway", "gated") if fusion != CLICK.fusion),
    {"degree_power": 0.0},
    {"attention": False},
    {"knowledge_graph": False},
    {"hold_out": 0.0},
    {"num_layers": 1},
    {"num_layers": 3},
    {"channels": 16},
    {"channels": 64},
    {"dropout": 0.0},
    {"loss": "ranking"},
]
#: Those that are looked at for rankings, too.
RANKING_CHANGES: list[dict[str, Any]] = [
    *({"fusion": fusion} for fusion in ("identity", "highway", "gated") if fusion != RANKING.fusion),
    {"attention": False},
    {"knowledge_graph": False},
    {"hold_out": 0.0},
    {"loss": "click"},
]
_BASE, _FROZEN = "as chosen", "frozen negatives"
_RANKED = ("recall@10", "mrr@10", "ndcg@10", "recall@20")
_COLUMNS = {name: METRICS[name] for name in ("auc", "acc", "f1", "auc_user", "auc_warm", "auc_cold")}
#: Table 2 has five seeds of the setting as chosen.
NUM_SEEDS, NUM_RANKING_SEEDS = 3, 2


@dataclass(frozen=True)
class Part:
    """A setting by the name that tables give it."""

    name: str
    config: CollaborativeConfig


def parts(base: CollaborativeConfig, changes: Sequence[Mapping[str, Any]]) -> list[Part]:
    """The setting as chosen, and with each of the changes."""
    names = [", ".join(f"{key}={value}" for key, value in change.items()) for change in changes]
    changed = [Part(name, replace(base, **change)) for name, change in zip(names, changes, strict=True)]
    return [Part(_BASE, base), *changed]


def run(settings: Settings) -> Report:
    """Fit everything; write `collaborative.md` and `collaborative.json`."""
    jobs = [
        Job(part.name, part.config, "items", seed, settings)
        for part in parts(CLICK, CHANGES)
        for seed in range(1 if settings.quick else NUM_SEEDS)
    ]
    if settings.data == "lastfm":
        jobs += [Job(_FROZEN, CLICK, "frozen", seed, settings) for seed in seeds(settings)]
    per_seed = [row for outcome in parallel(run_job, jobs, "collaborative") for row in outcome.rows]
    rows = figures("collaborative", per_seed, [*METRICS, "epochs", "fit_seconds"])
    tests = [] if settings.quick else differences(per_seed, _BASE, protocols=["items"])
    ranked: list[dict[str, Any]] = []
    if settings.data == "lastfm":
        jobs = [
            Job(part.name, part.config, "items", seed, settings)
            for part in parts(RANKING, RANKING_CHANGES)
            for seed in range(1 if settings.quick else NUM_RANKING_SEEDS)
        ]
        ranked = [row for outcome in parallel(topk.run_job, jobs, "ranking") for row in outcome.rows]
        rows += figures("collaborative", ranked, _RANKED)
    made_with = stamp(settings)
    content = {"environment": made_with, "rows": rows, "seeds": [*per_seed, *ranked], "tests": tests}
    write_json(settings.out / "collaborative.json", content)
    text = page(rows, tests, made_with, settings)
    with whole_file(settings.out / "collaborative.md") as file:
        file.write_text(text)
    return Report(rows, text)


def page(
    rows: Sequence[Mapping[str, Any]],
    tests: Sequence[Mapping[str, Any]],
    made_with: Mapping[str, Any],
    settings: Settings,
) -> str:
    """The page that shows the figures."""
    p_values = {test["other"]: p_value(test["p_holm"]) for test in tests if test["metric"] == "auc"}
    text = heading(
        settings,
        "What each part of CollaborativeMGWA is worth",
        made_with,
        "One choice is changed at a time, the others stay at the defaults of `CollaborativeConfig`, which "
        f"were searched with all parts in place. Item protocol, test rows, mean ± sd of {NUM_SEEDS} seeds "
        "(five are in [Table 2](table2.md)), the epoch chosen by validation AUC; p of the AUC's difference "
        "from the setting as chosen: corrected resampled t test, after Holm. Seconds are those of a whole "
        "fit, epochs after the best one and validation included, on one core while another fit ran on the "
        "second.",
    )
    body = [
        [
            part.name,
            *(mean_sd(rows, "items", part.name, metric) for metric in _COLUMNS),
            p_values.get(part.name, ""),
            seconds(rows, "items", part.name),
        ]
        for part in parts(CLICK, CHANGES)
    ]
    text.append(table(["", *_COLUMNS.values(), "p", "seconds"], body))
    if settings.data == "lastfm":
        frozen = [_FROZEN, *(mean_sd(rows, "frozen", _FROZEN, metric) for metric in _COLUMNS)]
        text += [
            "## Published negatives",
            "The setting as chosen on the negatives that MCCLK and others published, split by the seeds of "
            f"Table 2: {over_seeds(settings)}.",
            table(["", *_COLUMNS.values()], [frozen]),
            "## Ranking",
            "The fixed split, all items ranked for every user but for training and validation positives; "
            f"{NUM_RANKING_SEEDS} seeds of start and order, whose spread is all that ± shows. As chosen is "
            "`CollaborativeConfig.for_ranking()`; its row in [topk.md](topk.md) has five seeds.",
            table(
                ["", "Recall@10", "MRR@10", "NDCG@10", "Recall@20"],
                [
                    [part.name, *(mean_sd(rows, "lightkg", part.name, metric) for metric in _RANKED)]
                    for part in parts(RANKING, RANKING_CHANGES)
                ],
            ),
        ]
    return "\n\n".join(text) + "\n"


def seconds(rows: Sequence[Mapping[str, Any]], case: str, name: str) -> str:
    """How long a fit took."""
    for row in rows:
        if (row["case"], row["implementation"], row["metric"]) == (case, name, "fit_seconds"):
            return f"{row['value']:.0f}"
    return ""
