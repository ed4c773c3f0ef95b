"""What each part of MGWA is worth: one choice changed at a time, under both protocols."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.experiments import (
    METRICS,
    PROTOCOLS,
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
    table,
)
from benchmarks.harness import Report, Settings
from benchmarks.table2 import differences
from mgwa_pyg.files import whole_file, write_json
from mgwa_pyg.train import MGWAConfig

_BASE = MGWAConfig()


@dataclass(frozen=True)
class Ablation:
    """One choice."""

    name: str
    """What is chosen."""
    variants: Mapping[str, MGWAConfig]
    """What it may be."""
    reading: str
    """What the full run of Last.FM shows, and what it does not."""


ABLATIONS = [
    Ablation(
        "Fusion",
        {name: MGWAConfig(fusion=name) for name in ("gated", "sum", "concat", "neighbor")},
        "",
    ),
    Ablation("Layers", {str(n): MGWAConfig(num_layers=n) for n in (1, 2, 3)}, ""),
    Ablation(
        "Fanout",
        {"all" if k is None else str(k): MGWAConfig(fanout=k) for k in (4, 8, 16, None)},
        "",
    ),
    Ablation("Channels", {str(d): MGWAConfig(channels=d) for d in (8, 16, 32, 64)}, ""),
    Ablation("Start", {"Glorot": _BASE, "TransE": MGWAConfig(transe=True)}, ""),
    Ablation(
        "Score activation",
        {str(a).lower(): MGWAConfig(score_activation=a) for a in ("sigmoid", "tanh", "leaky_relu", None)},
        "",
    ),
    Ablation(
        "Neighbours",
        {"drawn at every step": _BASE, "drawn once": MGWAConfig(resample=False)},
        "",
    ),
]


def label(config: MGWAConfig) -> str:
    """A name for a setting: what differs from the default."""
    changed = [f"{key}={value}" for key, value in vars(config).items() if value != getattr(_BASE, key)]
    return ", ".join(changed) or "default"


def run(settings: Settings) -> Report:
    """Fit everything; write `ablations.md` and `ablations.json`."""
    # A setting that stands in several tables, as the default does in all, is fitted once.
    configs = {label(config): config for ablation in ABLATIONS for config in ablation.variants.values()}
    jobs = [
        Job(name, config, negatives, seed, settings)
        for name, config in configs.items()
        for negatives in PROTOCOLS
        for seed in seeds(settings)
    ]
    outcomes = parallel(run_job, jobs, "ablations")
    per_seed = [row for outcome in outcomes for row in outcome.rows]
    rows = figures("ablations", per_seed, ["val_auc", *METRICS])
    made_with = stamp(settings)
    tests = [] if settings.quick else differences(per_seed, "default")
    content = {"environment": made_with, "rows": rows, "seeds": per_seed, "tests": tests}
    write_json(settings.out / "ablations.json", content)
    text = page(rows, tests, made_with, settings)
    with whole_file(settings.out / "ablations.md") as file:
        file.write_text(text)
    return Report(rows, text)


def page(
    rows: Sequence[Mapping[str, Any]],
    tests: Sequence[Mapping[str, Any]],
    made_with: Mapping[str, Any],
    settings: Settings,
) -> str:
    """The page that shows the figures."""
    p_values = {
        (test["negatives"], test["other"]): p_value(test["p_holm"])
        for test in tests
        if test["metric"] == "auc"
    }
    parts = heading(
        settings,
        "What each part of MGWA is worth",
        made_with,
        "One choice is changed at a time, the others stay at the defaults of `MGWAConfig`, for which alone "
        f"learning rate and L2 weight were searched. Test rows, {over_seeds(settings)}, the epoch chosen by "
        "validation AUC; p of the AUC's difference from the default: corrected resampled t test, after Holm "
        "for all settings on this page.",
    )
    for ablation in ABLATIONS:
        body = []
        for variant, config in ablation.variants.items():
            name = label(config)
            cells = [variant if config != _BASE else f"{variant} (default)"]
            for negatives in PROTOCOLS:
                cells += [mean_sd(rows, negatives, name, metric) for metric in ("auc", "acc")]
                cells.append(p_values.get((negatives, name), ""))
            body.append(cells)
        header = [
            f"{protocol.lower()}: {column}"
            for protocol in PROTOCOLS.values()
            for column in ("AUC", "ACC", "p")
        ]
        parts += [f"## {ablation.name}", table(["", *header], body)]
        if settings.data == "lastfm" and not settings.quick:
            parts.append(ablation.reading)
    return "\n\n".join(parts) + "\n"
