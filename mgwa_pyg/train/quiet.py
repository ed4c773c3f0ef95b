"""Lightning without its remarks on things that are as they should be."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def quiet_lightning(*remarks: str) -> Iterator[None]:
    """Keep Lightning's log and warnings from the user, among them those that match one of ``remarks``."""
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    with warnings.catch_warnings():
        # The tensors are in memory already: workers would only copy them.
        warnings.filterwarnings("ignore", ".*does not have many workers.*")
        warnings.filterwarnings("ignore", ".*isinstance.treespec, LeafSpec.*")  # Lightning's own.
        for remark in remarks:
            warnings.filterwarnings("ignore", remark)
        yield
