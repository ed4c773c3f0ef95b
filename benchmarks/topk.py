"""Full ranking on the public fixed split of Last.FM: models and heuristics beside the published rows."""

from benchmarks.experiments import FIXED_SPLIT, Experiment, Job, Results, make_jobs, short
from benchmarks.harness import Settings, table
from benchmarks.table2 import MODELS as CLICK_MODELS
from mgwa_pyg.evaluation import HEURISTICS
from mgwa_pyg.train import CollaborativeConfig, FitConfig

MODELS: dict[str, FitConfig] = {
    **CLICK_MODELS,
    "CollaborativeMGWA, ranking loss": CollaborativeConfig.for_ranking(),
}

_METRICS = {f"{name}@{k}": f"{title}@{k}" for k in (10, 20) for name, title in
            (("recall", "Recall"), ("ndcg", "NDCG"), ("mrr", "MRR"))}  # fmt: skip

#: Recall@10 and MRR@10 from the README of ssu-dmlab/AdaKG, means of 5 seeds. Its data have the same numbers
#: of users, items and interactions; that its split is LightKG's, too, is likely but could not be checked.
PUBLISHED = {
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
}


def _jobs(settings: Settings) -> list[Job]:
    return make_jobs(settings, {**MODELS, "heuristics": None}, [FIXED_SPLIT])


def _blocks(results: Results) -> dict[str, str]:
    names = [*MODELS, *HEURISTICS]
    blocks = {"All items ranked": results.table(FIXED_SPLIT, names, _METRICS)}
    if results.settings.data == "lastfm":
        ours = {(row["implementation"], row["metric"]): row["value"] for row in results.content["rows"]}
        lines = [(recall, mrr, f"{name}, published") for name, (recall, mrr) in PUBLISHED.items()]
        lines += [(ours[name, "recall@10"], ours[name, "mrr@10"], f"**{name}**") for name in names]
        body = [[name, short(recall), short(mrr)] for recall, mrr, name in sorted(lines, reverse=True)]
        blocks["Among the published rows"] = table(["", "Recall@10", "MRR@10"], body)
    return blocks


EXPERIMENT = Experiment(
    name="topk",
    title="Full ranking on the fixed split",
    metrics=list(_METRICS),
    jobs=_jobs,
    blocks=_blocks,
)
run, redraw = EXPERIMENT.run, EXPERIMENT.redraw
