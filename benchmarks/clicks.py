"""The item protocol on the other data sets: our models and KGCN beside the heuristics."""

from dataclasses import replace

from benchmarks.experiments import METRICS, Experiment, Job, Results, make_jobs
from benchmarks.harness import Settings
from benchmarks.tuned import chosen
from mgwa_pyg.train import CollaborativeConfig, FitConfig, KGCNConfig, MGWAConfig

REFERENCE = "CollaborativeMGWA"
#: Chosen on Book-Crossing's validation rows by ``python -m benchmarks.search MODEL --data bookcrossing``.
#: There is no search for MovieLens-100k.
BASELINES: dict[str, FitConfig] = {
    "MGWA": MGWAConfig(lr=1e-2, weight_decay=1e-4, channels=16),
    "KGCN": KGCNConfig(lr=1e-2, weight_decay=1e-4, fusion="concat"),
}


def models(data: str) -> dict[str, FitConfig]:
    """All rows that are fitted on a data set, with what the search has chosen for it."""
    ours = chosen(data, CollaborativeConfig())
    assert isinstance(ours, CollaborativeConfig)
    other = "no item-item part" if ours.item_item else "with the item-item part"
    return {
        **BASELINES,
        REFERENCE: ours,
        f"{REFERENCE}, {other}": replace(ours, item_item=not ours.item_item),
        f"{REFERENCE}, no knowledge graph": replace(ours, knowledge_graph=False),
    }


def _jobs(settings: Settings) -> list[Job]:
    jobs = make_jobs(settings, {**models(settings.data), "heuristics": None}, ["items"])
    return [replace(job, blended=job.model == REFERENCE) for job in jobs]


def _blocks(results: Results) -> dict[str, str]:
    names, metrics = results.models("items"), list(METRICS.items())
    p = {"p, over users": lambda name: results.p("items", name, "auc_user")}
    return {
        "Clicks": results.table("items", names, dict(metrics[:4]), p),
        "Warm and cold items, thresholds": results.table("items", names, dict(metrics[4:])),
    }


EXPERIMENT = Experiment(
    name="clicks",
    title="Models and heuristics under the item protocol",
    jobs=_jobs,
    blocks=_blocks,
    reference=REFERENCE,
    data=["bookcrossing", "ml-100k"],
)
run, redraw = EXPERIMENT.run, EXPERIMENT.redraw
