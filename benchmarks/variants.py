"""Variants that nobody should use: they show what calibration and knowledge of the protocol are worth.

They are known by name once this module is imported, which their experiment and its processes do.
"""

from dataclasses import dataclass

import torch
from sklearn.linear_model import LogisticRegression
from torch import Tensor

from mgwa_pyg.nn import CollaborativeMGWA
from mgwa_pyg.ops import RelationCSR
from mgwa_pyg.recommenders import RECOMMENDERS, CollaborativeRecommender, KGRecommender, MGWARecommender
from mgwa_pyg.train import CollaborativeConfig, FitConfig, MGWAConfig


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

#: The variants by the names of their rows.
VARIANTS: dict[str, FitConfig] = {
    "calibration off": UncalibratedConfig(),
    "with knowledge of the protocol": ProtocolConfig(),
    "MGWA": MGWAConfig(),
    "MGWA with the same calibration": CalibratedMGWAConfig(),
}
