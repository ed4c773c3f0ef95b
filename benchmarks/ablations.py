"""What each part of MGWA is worth: one choice changed at a time, under both protocols."""

from collections.abc import Mapping

from benchmarks.experiments import METRICS, PROTOCOLS, Experiment, Job, Results, make_jobs
from benchmarks.harness import Settings, table
from mgwa_pyg.train import MGWAConfig

_BASE = MGWAConfig()

#: The choices, and what each may be.
ABLATIONS: dict[str, Mapping[str, MGWAConfig]] = {
    "Fusion": {name: MGWAConfig(fusion=name) for name in ("gated", "sum", "concat", "neighbor")},
    "Layers": {str(n): MGWAConfig(num_layers=n) for n in (1, 2, 3)},
    "Fanout": {"all" if k is None else str(k): MGWAConfig(fanout=k) for k in (4, 8, 16, None)},
    "Channels": {str(d): MGWAConfig(channels=d) for d in (8, 16, 32, 64)},
    "Start": {"Glorot": _BASE, "TransE": MGWAConfig(transe=True)},
    "Score activation": {
        str(a).lower(): MGWAConfig(score_activation=a) for a in ("sigmoid", "tanh", "leaky_relu", None)
    },
    "Neighbours": {"drawn at every step": _BASE, "drawn once": MGWAConfig(resample=False)},
}


def label(config: MGWAConfig) -> str:
    """A name for a setting: what differs from the default."""
    changed = [f"{key}={value}" for key, value in vars(config).items() if value != getattr(_BASE, key)]
    return ", ".join(changed) or "default"


def _jobs(settings: Settings) -> list[Job]:
    # A setting that stands in several tables, as the default does in all, is fitted once.
    configs = {label(config): config for variants in ABLATIONS.values() for config in variants.values()}
    return make_jobs(settings, configs, PROTOCOLS)


def _blocks(results: Results) -> dict[str, str]:
    columns = [f"{name.lower()}: {column}" for name in PROTOCOLS.values() for column in ("AUC", "ACC", "p")]
    blocks = {}
    for choice, variants in ABLATIONS.items():
        body = []
        for variant, config in variants.items():
            name = label(config)
            cells = [variant if config != _BASE else f"{variant} (default)"]
            for case in PROTOCOLS:
                cells += [*(results.cell(case, name, m) for m in ("auc", "acc")), results.p(case, name)]
            body.append(cells)
        blocks[choice] = table(["", *columns], body)
    return blocks


EXPERIMENT = Experiment(
    name="ablations",
    title="What each part of MGWA is worth",
    metrics=["val_auc", *METRICS],
    jobs=_jobs,
    blocks=_blocks,
    reference="default",
)
run, redraw = EXPERIMENT.run, EXPERIMENT.redraw
