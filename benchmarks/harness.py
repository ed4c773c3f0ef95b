"""What the benchmarks share: the environment's stamp, and the form of a measured figure."""

import os
import platform
import statistics
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch_geometric

import mgwa_pyg


@dataclass(frozen=True)
class Settings:
    """What the command line asks of a benchmark."""

    device: str = "cpu"
    """Where models run."""
    quick: bool = False
    """Whether to repeat less."""
    out: Path = Path("benchmarks/results")
    """Where pages, plots and whatever is more than rows go."""
    data: str = "lastfm"
    """What experiments run on: ``"lastfm"``, ``"bookcrossing"``, or ``"synthetic"`` without data."""
    root: Path = Path("data")
    """Where data sets are kept."""


class Report(NamedTuple):
    """What a benchmark gives."""

    rows: list[dict[str, Any]]
    """One row a figure."""
    page: str | None = None
    """The page in Markdown that shows the figures, where a table of the rows would be too long."""
    statuses: Sequence[dict[str, str]] = ()
    """What has no figures and why: ``case``, ``implementation``, ``status`` and ``reason``."""


class NoDataError(Exception):
    """The data of a benchmark cannot be had; the message says why."""


def environment(device: str) -> dict[str, Any]:
    """The machine, the versions and the command that figures were measured with."""
    stamp: dict[str, Any] = {
        "command": _command(),
        "date": date.today().isoformat(),
        "mgwa_pyg": mgwa_pyg.__version__,
        "torch": torch.__version__,
        "torch_geometric": torch_geometric.__version__,
        "python": platform.python_version(),
        "cpu": _cpu(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
    }
    if device == "cuda":
        stamp["gpu"] = torch.cuda.get_device_name()
    return stamp


def _command() -> str:
    # The module that was started, `benchmarks` or one of its scripts.
    spec = sys.modules["__main__"].__spec__
    module = "benchmarks" if spec is None else spec.name.removesuffix(".__main__")
    return " ".join(["python", "-m", module, *sys.argv[1:]])


def _cpu() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor()


def figure(
    benchmark: str,
    case: str,
    implementation: str,
    metric: str,
    unit: str,
    values: Sequence[float],
    center: Callable[[Sequence[float]], float] = statistics.median,
) -> dict[str, Any]:
    """One row: the median of repeated measurements, or another centre, and their standard deviation."""
    return {
        "benchmark": benchmark,
        "case": case,
        "implementation": implementation,
        "metric": metric,
        "value": center(values),
        "unit": unit,
        "sd": statistics.stdev(values) if len(values) > 1 else 0.0,
        "n": len(values),
    }


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table in Markdown."""
    lines = [f"| {' | '.join(row)} |" for row in [header, ["---"] * len(header), *rows]]
    return "\n".join(lines)
