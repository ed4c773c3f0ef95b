"""Fits that end in the middle of training."""

from contextlib import contextmanager

import pytest

from mgwa_pyg.train import ClickModule


@contextmanager
def interrupted(epoch, batch=0):
    """Fits end in an error before that batch of that epoch, both counted from zero."""
    step = ClickModule.training_step

    def training_step(self, rows, batch_idx):
        if (self.current_epoch, batch_idx) == (epoch, batch):
            raise OSError("the power is gone")
        return step(self, rows, batch_idx)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ClickModule, "training_step", training_step)
        with pytest.raises(OSError, match="power is gone"):
            yield
