"""From a recommender and a data set to a checkpoint and a run folder, in Lightning."""

# What a fit takes, and what it raises, can be had from here, too.
from mgwa_pyg.recommenders import CheckpointError as CheckpointError
from mgwa_pyg.recommenders import CollaborativeConfig as CollaborativeConfig
from mgwa_pyg.recommenders import FitConfig as FitConfig
from mgwa_pyg.recommenders import KGCNConfig as KGCNConfig
from mgwa_pyg.recommenders import LightGCNConfig as LightGCNConfig
from mgwa_pyg.recommenders import MGWAConfig as MGWAConfig
from mgwa_pyg.recommenders import RippleNetConfig as RippleNetConfig
from mgwa_pyg.recommenders import read_checkpoint as read_checkpoint
from mgwa_pyg.train.click import ClickData, ClickModule, DivergedError
from mgwa_pyg.train.evaluate import evaluate
from mgwa_pyg.train.fit import FitResult, fit
from mgwa_pyg.train.kg_worth import kg_worth
from mgwa_pyg.train.run_folder import RunFolder
from mgwa_pyg.train.transe import TransEResult, fit_transe
from mgwa_pyg.train.tune import tune

__all__ = [
    "ClickData",
    "ClickModule",
    "DivergedError",
    "FitResult",
    "RunFolder",
    "TransEResult",
    "evaluate",
    "fit",
    "fit_transe",
    "kg_worth",
    "tune",
]
