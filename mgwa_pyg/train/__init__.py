"""From a recommender and a data set to a checkpoint and a run folder, in Lightning."""

from mgwa_pyg.recommenders import (
    RECOMMENDERS,
    CheckpointError,
    CollaborativeConfig,
    FitConfig,
    KGCNConfig,
    MGWAConfig,
    RippleNetConfig,
    read_checkpoint,
)
from mgwa_pyg.train.click import ClickData, ClickModule, DivergedError
from mgwa_pyg.train.fit import FitResult, fit
from mgwa_pyg.train.run_folder import RunFolder
from mgwa_pyg.train.transe import TransEResult, fit_transe

#: The hyper-parameters' class of each recommender by its name.
CONFIGS: dict[str, type[FitConfig]] = {name: kind.config_class for name, kind in RECOMMENDERS.items()}

__all__ = [
    "CONFIGS",
    "CheckpointError",
    "ClickData",
    "ClickModule",
    "CollaborativeConfig",
    "DivergedError",
    "FitConfig",
    "FitResult",
    "KGCNConfig",
    "MGWAConfig",
    "RippleNetConfig",
    "RunFolder",
    "TransEResult",
    "fit",
    "fit_transe",
    "read_checkpoint",
]
