"""Table 2 of the paper, checked: every model and heuristic under both protocols, with tests and plots."""

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from benchmarks.experiments import (
    METRICS,
    PROTOCOLS,
    Job,
    Outcome,
    data_name,
    figures,
    heading,
    mean_sd,
    over_seeds,
    p_value,
    parallel,
    run_job,
    seeds,
    short,
    stamp,
)
from benchmarks.harness import Report, Settings, table
from mgwa_pyg.evaluation import HEURISTICS, PAPER, corrected_t_test, holm
from mgwa_pyg.train import CollaborativeConfig, FitConfig, KGCNConfig, MGWAConfig, RippleNetConfig
from mgwa_pyg.train.plots import plot_metrics, plot_roc, plot_validation, roc_curves
from mgwa_pyg.utils.files import whole_file, write_json

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

_PLOTS = """
## Plots

Each model has one colour; what is ours is bold.

![ROC curves](table2_roc.png)

Mean over the seeds, with a band of one standard deviation; the dotted line is chance.

![AUC and ACC](table2_metrics.png)

Sorted by AUC; bars are one standard deviation, white diamonds what others have published.

![Learning curves](table2_curves.png)

Mean over the seeds that are still training; a line ends where fewer than half of them are.
"""

# Rows for testing over rows for training, in a split of 6:2:2.
_TEST_FRACTION = 1 / 3
# No plot has more than eight lines.
_ROC = ["RippleNet", "KGCN, sum", "KGCN, concat", "MGWA", "CollaborativeMGWA", "popularity", "stack"]
_CURVES = [model for model in MODELS if model not in ("RippleNet, undirected", "MGWA from TransE")]
# The same rows give the same bytes.
_CSV: dict[str, Any] = {"index": False, "compression": {"method": "gzip", "mtime": 0}, "float_format": "%.5f"}


def run(settings: Settings) -> Report:
    """Fit and evaluate everything; write `table2.json`, the curves behind the plots, and what they give."""
    jobs = [
        Job(model, config, negatives, seed, settings)
        for negatives in PROTOCOLS
        for model, config in {**MODELS, "heuristics": None}.items()
        for seed in seeds(settings)
    ]
    outcomes = parallel(run_job, jobs, "table2")
    per_seed = [row for outcome in outcomes for row in outcome.rows]
    content = {
        "environment": stamp(settings),
        "rows": figures("table2", per_seed, METRICS),
        "seeds": per_seed,
        "tests": [] if settings.quick else differences(per_seed, "MGWA"),
        "transe": [
            {"seed": job.seed, **outcome.transe}
            for job, outcome in zip(jobs, outcomes, strict=True)
            if outcome.transe is not None and job.negatives == "items"
        ],
    }
    write_json(settings.out / "table2.json", content)
    for name, curves in _curves(jobs, outcomes).items():
        with whole_file(settings.out / f"table2_{name}.csv.gz") as file:
            curves.to_csv(file, **_CSV)
    return redraw(settings)


def redraw(settings: Settings) -> Report:
    """Write `table2.md` and the plots from what a run has left."""
    out, title = settings.out, data_name(settings)
    content = json.loads((out / "table2.json").read_text())
    with whole_file(out / "table2_roc.png") as file:
        plot_roc(pd.read_csv(out / "table2_roc.csv.gz"), f"{title}, test rows", file)
    with whole_file(out / "table2_metrics.png") as file:
        published = [
            {"negatives": negatives, "model": model, **dict(zip(("auc", "acc"), values, strict=False))}
            for negatives, rows in PUBLISHED.items()
            for model, values in rows.items()
            if settings.data == "lastfm"
        ]
        plot_metrics(
            pd.DataFrame(content["seeds"]),
            {"auc": "AUC", "acc": "ACC"},
            f"{title}, test rows, mean ± sd",
            file,
            pd.DataFrame(published) if published else None,
        )
    with whole_file(out / "table2_curves.png") as file:
        curves = pd.read_csv(out / "table2_curves.csv.gz")
        plot_validation(curves, f"{title}, validation rows, mean over the seeds", file)
    text = page(content["rows"], content["tests"], content["transe"], content["environment"], settings)
    with whole_file(out / "table2.md") as file:
        file.write_text(text + _PLOTS)
    return Report(content["rows"], text)


def differences(
    per_seed: Sequence[Mapping[str, Any]], reference: str, protocols: Iterable[str] = PROTOCOLS
) -> list[dict[str, Any]]:
    """Test, for each protocol and metric, ``reference`` against everything else over the same seeds.

    The p values are adjusted after Holm for all others within a protocol and a metric.
    """
    results = []
    frame = pd.DataFrame(list(per_seed))
    for negatives, metric in [(n, m) for n in protocols for m in ("auc", "acc")]:
        wide = frame[frame["negatives"] == negatives].pivot_table(
            index="seed", columns="model", values=metric, sort=False
        )
        others = [model for model in wide.columns if model != reference]
        tests = [corrected_t_test(wide[reference] - wide[other], _TEST_FRACTION) for other in others]
        adjusted = holm([test["p"] for test in tests])
        for other, test, p in zip(others, tests, adjusted, strict=True):
            key = {"negatives": negatives, "metric": metric, "model": reference, "other": other}
            results.append({**key, **test, "p_holm": float(p)})
    return results


def page(
    rows: Sequence[Mapping[str, Any]],
    tests: Sequence[Mapping[str, Any]],
    transe: Sequence[Mapping[str, Any]],
    made_with: Mapping[str, Any],
    settings: Settings,
) -> str:
    """The page that shows the figures."""
    models = [*MODELS, *HEURISTICS]
    parts = heading(
        settings,
        "Table 2 of the paper, under both protocols",
        made_with,
        f"Test rows; {over_seeds(settings)}, each another split, other negatives and another start; the "
        "epoch is chosen by validation AUC. The last four rows of each table are heuristics. What the "
        "protocols are and what is chosen how: [docs/reproduction.md](../../docs/reproduction.md).",
    )
    for negatives, protocol in PROTOCOLS.items():
        source = "the paper" if negatives == "entities" else "published"
        body = []
        for model in models:
            published = PUBLISHED[negatives].get(model, ()) if settings.data == "lastfm" else ()
            shown = " / ".join("–" if figure is None else short(figure, 3) for figure in published)
            ours = [mean_sd(rows, negatives, model, metric) for metric in ("auc", "acc", "f1")]
            body.append([model, *ours, shown])
        parts += [f"## {protocol}", table(["", "AUC", "ACC", "F1", f"{source}: AUC / ACC / F1"], body)]
        body = [
            [model, *(mean_sd(rows, negatives, model, metric) for metric in list(METRICS)[3:])]
            for model in models
        ]
        parts += [
            "Beside these: the AUC among each user's own rows, averaged over users; the AUC of the rows "
            "whose item has a training positive (warm) or has none (cold); ACC and F1 at the threshold with "
            "the highest accuracy on the validation rows instead of .5.",
            table(["", *list(METRICS.values())[3:]], body),
        ]
    if tests:
        parts += [
            "## Which differences are real",
            "MGWA minus the other over the seeds, which share split and negatives: mean, 95 % interval and "
            "p of the corrected resampled t test (Nadeau and Bengio, 2003), which allows for the overlap of "
            "the training rows; p after Holm for all rows of a protocol and a metric. It is a cautious test: "
            "with five seeds only large or very steady differences pass it.",
        ]
        for negatives, protocol in PROTOCOLS.items():
            header = ["", "AUC: difference", "p", "ACC: difference", "p"]
            parts += [f"### {protocol}", table(header, _test_rows(tests, negatives, models))]
    if transe:
        names = {
            "mrr": "MRR",
            "hits@10": "Hits@10",
            "mrr_without_twins": "MRR, without twins",
            "hits@10_without_twins": "Hits@10, without twins",
        }
        means = [short(float(np.mean([row[key] for row in transe]))) for key in names]
        twins = np.mean([row["twins"] for row in transe])
        parts += [
            "## TransE",
            f"Held-out triples (5 %), filtered, head and tail queries, mean over the seeds, "
            f"{MODELS['MGWA from TransE'].channels} channels. {twins:.0%} of these triples have a twin in "
            f"training: the same head and tail under another relation.",
            table(list(names.values()), [means]),
        ]
    return "\n\n".join(parts) + "\n"


def _test_rows(
    tests: Sequence[Mapping[str, Any]], negatives: str, models: Sequence[str]
) -> list[Sequence[str]]:
    body = []
    for model in models:
        cells = [
            cell
            for metric in ("auc", "acc")
            for test in tests
            if (test["negatives"], test["metric"], test["other"]) == (negatives, metric, model)
            for cell in (
                f"{test['mean']:+.4f} [{test['low']:+.4f}, {test['high']:+.4f}]",
                p_value(test["p_holm"]),
            )
        ]
        if cells:
            body.append([f"against {model}", *cells])
    return body


def _curves(jobs: Sequence[Job], outcomes: Sequence[Outcome]) -> dict[str, pd.DataFrame]:
    """What the plots of curves show, as tables: of ROC, and of validation AUC against epochs."""
    predictions = pd.concat([outcome.predictions for outcome in outcomes])
    histories = [
        {"negatives": job.negatives, "model": job.model, "seed": job.seed, **epoch}
        for job, outcome in zip(jobs, outcomes, strict=True)
        if job.model in _CURVES
        for epoch in outcome.history
    ]
    columns = ["negatives", "model", "seed", "epoch", "val_auc"]
    return {
        "roc": roc_curves(predictions[predictions["model"].isin(_ROC)]),
        "curves": pd.DataFrame(histories)[columns],
    }
