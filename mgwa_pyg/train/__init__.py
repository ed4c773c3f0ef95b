"""From a model and a data set to a checkpoint and a run folder."""

from mgwa_pyg.train.checkpoint import CheckpointError, read_checkpoint
from mgwa_pyg.train.click import ClickData, ClickModule, DivergedError
from mgwa_pyg.train.config import (
    CONFIGS,
    CollaborativeConfig,
    FitConfig,
    KGCNConfig,
    MGWAConfig,
    RippleNetConfig,
)
from mgwa_pyg.train.fit import FitResult, fit
from mgwa_pyg.train.run_folder import RunFolder
from mgwa_pyg.train.transe import TransEResult, fit_transe

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
