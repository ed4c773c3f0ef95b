"""Lightning as a guest: without its remarks, and what it changes is given back."""

from __future__ import annotations

import logging
import signal
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def quiet_lightning(*remarks: str) -> Iterator[None]:
    """Keep Lightning's log and warnings from the user, among them those that match one of ``remarks``.

    The level of the log, the filters of warnings and what Ctrl-C does are given back, and Ctrl-C ends the
    block with :class:`KeyboardInterrupt`, of which Lightning makes an exit of the process.
    """
    log, on_ctrl_c = logging.getLogger("lightning.pytorch"), signal.getsignal(signal.SIGINT)
    level = log.level
    log.setLevel(logging.WARNING)
    try:
        with warnings.catch_warnings():
            # The tensors are in memory already: workers would only copy them.
            warnings.filterwarnings("ignore", ".*does not have many workers.*")
            warnings.filterwarnings("ignore", ".*isinstance.treespec, LeafSpec.*")  # Lightning's own.
            warnings.filterwarnings(
                "ignore", ".*Total length of `DataLoader` .* is zero.*"
            )  # No rows: so it is.
            for remark in remarks:
                warnings.filterwarnings("ignore", remark)
            yield
    except SystemExit as error:
        if isinstance(error.__context__, KeyboardInterrupt):
            raise error.__context__ from None
        raise
    finally:
        log.setLevel(level)
        # Lightning has Ctrl-C ignored from the first on. Handlers are the main thread's alone.
        if threading.current_thread() is threading.main_thread() and on_ctrl_c is not None:
            signal.signal(signal.SIGINT, on_ctrl_c)
