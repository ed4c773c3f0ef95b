"""Fits side by side, each in a process of its own."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import resource_tracker
from pathlib import Path
from typing import Any, TextIO

import torch
from tqdm import tqdm

from mgwa_pyg.datasets import KGRecDataset
from mgwa_pyg.datasets.fixed import fixed
from mgwa_pyg.utils.checks import check_count

#: Takes a function of a data set and a job, and jobs; yields what it gives for each, in their order.
Run = Callable[[Callable[[KGRecDataset, Any], Any], Sequence[Any]], Iterator[Any]]

# The data set of a process.
_DATASET = "dataset.pickle"
_held: list[KGRecDataset] = []


def num_processes(processes: int | None, device: str) -> int:
    """Return how many fits run at once: as many as said, or one on a GPU and one a core on the CPU."""
    if processes is not None:
        return check_count("processes", processes)
    return 1 if device == "cuda" else os.cpu_count() or 1


@contextmanager
def side_by_side(dataset: KGRecDataset, processes: int) -> Iterator[Run]:
    """Yield what runs jobs on a data set, so many at once; each has one thread on the CPU.

    The steps of these models are so small that a second thread brings nothing, a second process twice the
    speed. If anything ends the block, Ctrl-C too, the processes are ended at once. A single one is the
    caller's own.

    Args:
        dataset (KGRecDataset): The data set, of which each process has a copy. Its data are read once.
        processes (int): How many jobs run at once.

    Raises:
        TypeError: If the data set cannot be sent to other processes.
        RuntimeError: If a process ends before its job is done.
    """
    dataset = fixed(dataset)
    if processes == 1:
        yield lambda function, jobs: (_alone(function, dataset, job) for job in jobs)
        return
    others = set(multiprocessing.active_children())
    with tempfile.TemporaryDirectory() as folder:  # Of the processes, which may have no time to clear up.
        try:
            Path(folder, _DATASET).write_bytes(pickle.dumps(dataset))
        except (AttributeError, TypeError, pickle.PickleError) as error:
            raise TypeError(
                f"{type(dataset).__name__} cannot be sent to other processes ({error}): pass processes=1, or "
                f"define its class and its transforms in a module"
            ) from error
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(processes, context, _start, (folder,)) as pool:

            def run(function: Callable[[KGRecDataset, Any], Any], jobs: Sequence[Any]) -> Iterator[Any]:
                with uninterrupted():
                    futures = [pool.submit(_on_held, function, job) for job in jobs]
                for future in futures:
                    file = Path(future.result())
                    result = pickle.loads(file.read_bytes())
                    file.unlink()
                    yield result

            try:
                yield run
            except BaseException as error:
                with uninterrupted():
                    for process in set(multiprocessing.active_children()) - others:
                        process.kill()
                if isinstance(error, BrokenProcessPool):
                    raise RuntimeError(
                        "a process ended before its fit was done. If memory ran out, pass fewer as "
                        "processes=; in a script, call this below `if __name__ == '__main__':`"
                    ) from error
                raise


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Let Ctrl-C and SIGTERM wait until the block ends, and keep Ctrl-C from processes that start in it.

    Who starts processes ends them. None is lost sight of that was about to start, and no signal is lost.
    """
    if threading.current_thread() is not threading.main_thread():  # Handlers are the main thread's alone.
        yield
        return
    heard: list[int] = []
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    for number in handlers:
        signal.signal(number, lambda number, _: heard.append(number))
    try:
        with _blocked_ctrl_c():
            yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        if heard:
            signal.raise_signal(heard[0])


@contextmanager
def _blocked_ctrl_c() -> Iterator[None]:
    """Block SIGINT, which processes inherit. Ignored, it would be lost here, too."""
    if sys.platform == "win32":
        yield
        return
    resource_tracker.ensure_running()  # It would unblock it as it starts.
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def _alone(function: Callable[[KGRecDataset, Any], Any], dataset: KGRecDataset, job: Any) -> Any:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return function(dataset, job)
    finally:
        torch.set_num_threads(threads)


def _start(folder: str) -> None:
    """What each process does first."""
    torch.set_num_threads(1)
    tempfile.tempdir = folder
    tqdm.set_lock(threading.RLock())  # A lock between processes would outlive one that is killed.
    sys.stderr = _NoTerminal(sys.stderr)  # Bars of several processes would overwrite each other.
    _held.append(pickle.loads(Path(folder, _DATASET).read_bytes()))


def _on_held(function: Callable[[KGRecDataset, Any], Any], job: Any) -> str:
    """Leave the result in a file: a process that is killed as it fills a pipe has the reader wait forever."""
    result = pickle.dumps(function(_held[0], job))
    with tempfile.NamedTemporaryFile(delete=False) as file:
        file.write(result)
    return file.name


class _NoTerminal:
    """A stream that is none of a terminal."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def isatty(self) -> bool:
        return False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)
