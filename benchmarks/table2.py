"""Table 2 of the paper, checked: every model and heuristic under both protocols, with tests and plots."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pandas as pd

from benchmarks.experiments import (
    METRICS,
    PROTOCOLS,
    Experiment,
    Job,
    Outcome,
    Results,
    make_jobs,
    short,
)
from benchmarks.harness import DATA, Settings, table
from mgwa_pyg.evaluation import PAPER
from mgwa_pyg.train import CollaborativeConfig, FitConfig, KGCNConfig, MGWAConfig, RippleNetConfig
from mgwa_pyg.train.plots import plot_metrics, plot_roc, plot_validation, roc_curves
from mgwa_pyg.utils.files import whole_file

MODELS: dict[str, FitConfig] = {
    "RippleNet": RippleNetConfig(),
    "RippleNet, published settings": RippleNetConfig(lr=5e-3, weight_decay=1e-5),
    "RippleNet, undirected": RippleNetConfig(directed=False),
    "KGCN, sum": KGCNConfig(fusion="sum"),
    "KGCN, concat": KGCNConfig(fusion="concat"),
    "KGCN, neighbor": KGCNConfig(fusion="neighbor"),
    "KGCN, sum, official code": KGCNConfig(fusion="sum", equations="official", resample=False),
    "MGWA": MGWAConfig(),
    "MGWA from TransE": MGWAConfig(transe=True),
    "CollaborativeMGWA": CollaborativeConfig(),
}

#: AUC, ACC and F1 that others have published, by protocol, beside the row nearest to what they ran. Those of
#: the paper protocol are Table 2 of the MGWA paper, whose protocol is inferred. Those of the item protocol
#: are the KGCN paper's as OpenHGNN's results page repeats them, and for RippleNet those of the FedRKG paper's
#: Table 2.
PUBLISHED: dict[str, dict[str, tuple[float | None, ...]]] = {
    "entities": {
        name: tuple(PAPER[model].values())
        for name, model in [
            ("RippleNet, published settings", "ripplenet"),
            ("KGCN, sum, official code", "kgcn"),
            ("MGWA", "mgwa"),
        ]
    },
    "items": {
        "RippleNet, published settings": (0.777, None, 0.699),
        "KGCN, sum, official code": (0.794, None, 0.719),
        "KGCN, concat": (0.796, None, 0.721),
        "KGCN, neighbor": (0.781, None, 0.699),
    },
}

# No plot has more than eight lines.
_ROC = ["RippleNet", "KGCN, sum", "KGCN, concat", "MGWA", "CollaborativeMGWA", "popularity", "stack"]
_CURVES = [model for model in MODELS if model not in ("RippleNet, undirected", "MGWA from TransE")]

_TRANSE = {
    "mrr": "MRR",
    "hits@10": "Hits@10",
    "mrr_without_twins": "MRR, without twins",
    "hits@10_without_twins": "Hits@10, without twins",
}


def _jobs(settings: Settings) -> list[Job]:
    jobs = make_jobs(settings, {**MODELS, "heuristics": None}, PROTOCOLS)
    return [replace(job, blended=job.model == "CollaborativeMGWA") for job in jobs]


def _keep(jobs: Sequence[Job], outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """How well TransE did, and what the plots of curves show."""
    done = list(zip(jobs, outcomes, strict=True))
    predictions = pd.concat([outcome.predictions for outcome in outcomes])
    histories = pd.DataFrame(
        {"negatives": job.negatives, "model": job.model, "seed": job.seed, **epoch}
        for job, outcome in done
        if job.model in _CURVES
        for epoch in outcome.history
    )[["negatives", "model", "seed", "epoch", "val_auc"]]
    return {
        "transe": [
            {"seed": job.seed, **outcome.transe}
            for job, outcome in done
            if outcome.transe is not None and job.negatives == "items"
        ],
        "roc": roc_curves(predictions[predictions["model"].isin(_ROC)]).round(5).to_dict("list"),
        "curves": histories.round(5).to_dict("list"),
    }


def _plot(results: Results) -> None:
    out, content, data = results.settings.out, results.content, results.settings.data
    published = [
        {"negatives": negatives, "model": model, **dict(zip(("auc", "acc"), values, strict=False))}
        for negatives, rows in PUBLISHED.items()
        for model, values in rows.items()
        if data == "lastfm"
    ]
    with whole_file(out / "table2_roc.png") as file:
        plot_roc(pd.DataFrame(content["roc"]), f"{DATA[data]}, test rows", file)
    with whole_file(out / "table2_metrics.png") as file:
        plot_metrics(
            pd.DataFrame(content["seeds"]),
            {"auc": "AUC", "acc": "ACC"},
            f"{DATA[data]}, test rows, mean ± sd",
            file,
            pd.DataFrame(published) if published else None,
        )
    with whole_file(out / "table2_curves.png") as file:
        curves = pd.DataFrame(content["curves"])
        plot_validation(curves, f"{DATA[data]}, validation rows, mean over the seeds", file)


def _blocks(results: Results) -> dict[str, str]:
    metrics, blocks = list(METRICS.items()), {}
    for negatives, protocol in PROTOCOLS.items():
        published = PUBLISHED[negatives] if results.settings.data == "lastfm" else {}
        shown = {
            model: " / ".join("–" if value is None else short(value, 3) for value in values)
            for model, values in published.items()
        }
        source = "the paper" if negatives == "entities" else "published"
        more = {f"{source}: AUC / ACC / F1": lambda model, shown=shown: shown.get(model, "")}
        models = results.models(negatives)
        blocks[protocol] = results.table(negatives, models, dict(metrics[:3]), more)
        name = f"{protocol}: users, warm and cold items, thresholds"
        blocks[name] = results.table(negatives, models, dict(metrics[3:]))
    for negatives, protocol in PROTOCOLS.items():
        blocks[f"{protocol}: differences"] = _differences(results, negatives)
    transe = pd.DataFrame(results.content["transe"])
    if len(transe):
        means = [short(transe[key].mean()) for key in _TRANSE]
        body = [[*means, f"{transe['twins'].mean():.0%}"]]
        blocks["TransE"] = table([*_TRANSE.values(), "triples with a twin in training"], body)
    return blocks


def _differences(results: Results, negatives: str) -> str:
    body = [
        [
            f"against {model}",
            *(cell for m in ("auc", "acc") for cell in results.difference(negatives, model, m)),
        ]
        for model in results.models(negatives)
        if results.test(negatives, model)
    ]
    return table(["", "AUC: difference", "p", "ACC: difference", "p"], body) if body else "One seed: no test."


EXPERIMENT = Experiment(
    name="table2",
    title="Table 2 of the paper, under both protocols",
    jobs=_jobs,
    blocks=_blocks,
    reference="MGWA",
    keep=_keep,
    plot=_plot,
)
run, redraw = EXPERIMENT.run, EXPERIMENT.redraw
