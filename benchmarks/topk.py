"""Full ranking on a fixed split of each data set: models and heuristics beside the published rows."""

from dataclasses import replace
from typing import Any

from benchmarks.data import RANKED
from benchmarks.experiments import Experiment, Job, Results, make_jobs, short
from benchmarks.harness import Settings, table
from benchmarks.rankings import RANKING_METRICS, TESTED
from benchmarks.tuned import chosen
from mgwa_pyg.train import (
    CollaborativeConfig,
    FitConfig,
    KGCNConfig,
    LightGCNConfig,
    MGWAConfig,
    RippleNetConfig,
)

REFERENCE = "CollaborativeMGWA"
#: The models where no search has chosen anything else.
MODELS: dict[str, FitConfig] = {
    "MGWA": MGWAConfig.for_ranking(),
    "KGCN": KGCNConfig.for_ranking(),
    "RippleNet": RippleNetConfig.for_ranking(),
    "LightGCN": LightGCNConfig.for_ranking(),
    REFERENCE: CollaborativeConfig.for_ranking(),
}
#: What each control changes of the reference.
CONTROLS: dict[str, dict[str, Any]] = {
    f"{REFERENCE}, no item-item part": {"item_item": False},
    f"{REFERENCE}, no knowledge graph": {"knowledge_graph": False},
    f"{REFERENCE}, as SVD++": {"num_layers": 0, "item_item": False, "knowledge_graph": False},
}
#: The reference as it is for clicks.
CLICKS = CollaborativeConfig()

#: Recall@10 and MRR@10 on the same split, from the README of ssu-dmlab/AdaKG, means of 5 seeds.
PUBLISHED: dict[str, dict[str, tuple[float, float]]] = {
    "lastfm": {
        "RippleNet": (0.1633, 0.0656),
        "KGNN-LS": (0.2117, 0.0891),
        "MCRec": (0.2132, 0.0941),
        "KGCN": (0.2149, 0.0924),
        "CL-SDKG": (0.2409, 0.1054),
        "CFKG": (0.2444, 0.1100),
        "CKE": (0.2453, 0.1069),
        "DiffKG": (0.2520, 0.1192),
        "KGRec": (0.2560, 0.1118),
        "KGAT": (0.2583, 0.1152),
        "LightGCN": (0.2695, 0.1204),
        "MCCLK": (0.2699, 0.1228),
        "KGIN": (0.2727, 0.1242),
        "LightKG": (0.2976, 0.1351),
        "AdaKG": (0.3053, 0.1398),
    },
    "bookcrossing": {
        "LightGCN": (0.0468, 0.0198),
        "DiffKG": (0.0581, 0.0318),
        "KGIN": (0.0801, 0.0399),
        "KGRec": (0.1033, 0.0540),
        "AdaKG": (0.1112, 0.0552),
        "LightKG": (0.1144, 0.0520),
    },
}


def models(data: str) -> dict[str, FitConfig]:
    """All rows that are fitted on a data set, with what a search has chosen for it."""
    fitted = {name: chosen(data, config) for name, config in MODELS.items()}
    controls = {name: replace(fitted[REFERENCE], **change) for name, change in CONTROLS.items()}
    return {**fitted, **controls, f"{REFERENCE}, clicks": chosen(data, CLICKS)}


def _jobs(settings: Settings) -> list[Job]:
    heuristics = make_jobs(settings, {"heuristics": None}, [RANKED], num_seeds=1)  # Nothing in them is drawn.
    jobs = make_jobs(settings, models(settings.data), [RANKED])
    return [replace(job, blended=job.model == REFERENCE) for job in jobs] + heuristics


def _blocks(results: Results) -> dict[str, str]:
    names = results.models(RANKED)
    blocks = {"All items ranked": results.table(RANKED, names, RANKING_METRICS)}
    if results.content["tests"]:
        header = ["", *(cell for metric in TESTED for cell in (RANKING_METRICS[metric], "difference", "p"))]
        blocks["Differences, tested over users"] = table(header, [_tested(results, name) for name in names])
    if published := PUBLISHED.get(results.settings.data):
        ours = {(row["implementation"], row["metric"]): row["value"] for row in results.content["rows"]}
        lines = [(recall, mrr, f"{name}, published") for name, (recall, mrr) in published.items()]
        lines += [(ours[name, "recall@10"], ours[name, "mrr@10"], f"**{name}**") for name in names]
        body = [[name, short(recall), short(mrr)] for recall, mrr, name in sorted(lines, reverse=True)]
        blocks["Among the published rows"] = table(["", "Recall@10", "MRR@10"], body)
    return blocks


def _tested(results: Results, name: str) -> list[str]:
    """A model's name and, for each metric, its figure, how far the reference is above it, and p."""
    cells = [name]
    for metric in TESTED:
        cells += [results.cell(RANKED, name, metric), *results.difference(RANKED, name, metric)]
    return cells


EXPERIMENT = Experiment(
    name="topk",
    title="Full ranking on the fixed split",
    metrics=list(RANKING_METRICS),
    jobs=_jobs,
    blocks=_blocks,
    reference=REFERENCE,
    data=["lastfm", "bookcrossing", "ml-100k"],
)
run, redraw = EXPERIMENT.run, EXPERIMENT.redraw
