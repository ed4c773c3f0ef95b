"""CollaborativeMGWA: what each part is worth, under which protocol, for clicks and for rankings."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from sklearn.linear_model import LogisticRegression
from torch import Tensor

from benchmarks.data import RANKED
from benchmarks.experiments import METRICS, Experiment, Job, Results, make_jobs
from benchmarks.harness import Settings
from mgwa_pyg.nn import CollaborativeMGWA
from mgwa_pyg.ops import RelationCSR
from mgwa_pyg.recommenders import RECOMMENDERS, CollaborativeRecommender, KGRecommender, MGWARecommender
from mgwa_pyg.train import CollaborativeConfig, FitConfig, MGWAConfig

CLICK, RANKING = CollaborativeConfig(), CollaborativeConfig.for_ranking()


# --- What nobody should use, to show what it is worth ---


class ProtocolMGWA(CollaborativeMGWA):
    """Knows which entities nobody has seen, and which are items: how the rows were made."""

    num_features = 4

    def entity_features(self, plan: RelationCSR) -> Tensor:
        known = super().entity_features(plan)
        is_item = torch.arange(self.num_entities, device=known.device) < self.num_items
        return torch.column_stack([known, known[:, 0] == 0, is_item]).to(known.dtype)


@dataclass(frozen=True)
class ProtocolConfig(CollaborativeConfig):
    """The hyper-parameters of the model that knows the protocol."""

    model = "collaborative with knowledge of the protocol"


class ProtocolRecommender(CollaborativeRecommender):
    """The model that knows the protocol."""

    config_class = ProtocolConfig
    model_class = ProtocolMGWA


@dataclass(frozen=True)
class UncalibratedConfig(CollaborativeConfig):
    """The hyper-parameters of the model that is taken at its word."""

    model = "collaborative without calibration"


class UncalibratedRecommender(CollaborativeRecommender):
    """The model taken at its word."""

    config_class = UncalibratedConfig
    calibrate = KGRecommender.calibrate


@dataclass(frozen=True)
class CalibratedMGWAConfig(MGWAConfig):
    """The hyper-parameters of MGWA with the calibration of CollaborativeMGWA."""

    model = "mgwa with calibration"


class CalibratedMGWARecommender(MGWARecommender):
    """MGWA whose logits are read, after training, as those of CollaborativeMGWA are."""

    config_class = CalibratedMGWAConfig

    def calibrate(self, user: Tensor, item: Tensor, logit: Tensor, label: Tensor) -> Tensor:
        regression = LogisticRegression(C=100.0, max_iter=1000).fit(self._known(item, logit), label.cpu())
        self._weight = torch.tensor([*regression.coef_[0], *regression.intercept_])
        return logit  # Epochs are judged as MGWA's are.

    def calibrated(self, item: Tensor, logit: Tensor) -> Tensor:
        known = self._known(item, logit)
        return (known @ self._weight[:-1].double() + self._weight[-1]).to(logit)

    def _known(self, item: Tensor, logit: Tensor) -> Tensor:
        num_entities = self.model.entity_emb.num_embeddings
        count = torch.bincount(self.seen[1], minlength=num_entities)
        triples = torch.bincount(
            self.dataset[0]["entity", "kg", "entity"].edge_index[1], minlength=num_entities
        )
        return torch.column_stack([logit, count[item].log1p(), triples[item].log1p()]).cpu().double()


for _kind in (ProtocolRecommender, UncalibratedRecommender, CalibratedMGWARecommender):
    RECOMMENDERS[_kind.config_class.model] = _kind


# --- What is changed ---

#: One thing at a time. The names are those of the fields.
CHANGES: list[dict[str, Any]] = [
    *({"fusion": fusion} for fusion in ("identity", "highway", "gated") if fusion != CLICK.fusion),
    {"num_layers": 0},
    {"num_layers": 1},
    {"num_layers": 3},
    {"item_item": True},
    {"degree_power": 0.0},
    {"attention": False},
    {"knowledge_graph": False},
    {"hold_out": 0.0},
    {"channels": 16},
    {"channels": 64},
    {"dropout": 0.0},
    {"loss": "ranking"},
]
#: Those that are looked at for rankings, too.
RANKING_CHANGES: list[dict[str, Any]] = [
    {"num_layers": 1},
    {"num_layers": 2},
    {"item_item": False},
    {"knowledge_graph": False},
    {"loss": "click"},
]
_BASE, _FROZEN = "as chosen", "frozen negatives"
#: What is no change of a field.
OTHERS: dict[str, FitConfig] = {
    "calibration off": UncalibratedConfig(),
    "with knowledge of the protocol": ProtocolConfig(),
    "MGWA": MGWAConfig(),
    "MGWA with the same calibration": CalibratedMGWAConfig(),
}
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
    jobs = make_jobs(settings, {**parts(CLICK, CHANGES), **OTHERS}, ["items"])
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
    more = {"p": lambda name: results.p("items", name), "seconds": seconds.__getitem__}
    blocks = {"Clicks": results.table("items", {**parts(CLICK, CHANGES), **OTHERS}, _COLUMNS, more)}
    if results.settings.data == "lastfm":
        blocks["Published negatives"] = results.table("frozen", [_FROZEN], _COLUMNS)
        blocks["Ranking"] = results.table(RANKED, parts(RANKING, RANKING_CHANGES), _RANKED)
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
