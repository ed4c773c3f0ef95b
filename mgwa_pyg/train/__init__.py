"""From a model and a data set to a checkpoint and a run folder."""

from mgwa_pyg.train.click import ClickData, ClickModule
from mgwa_pyg.train.config import FitConfig
from mgwa_pyg.train.fit import FitResult, fit
from mgwa_pyg.train.run_folder import RunFolder

__all__ = ["ClickData", "ClickModule", "FitConfig", "FitResult", "RunFolder", "fit"]
