"""What the benchmarks share: the environment's stamp, and the form of a measured figure."""

import os
import platform
import statistics
import sys
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Any

import torch
import torch_geometric

import mgwa_pyg


def environment(device: str) -> dict[str, Any]:
    """The machine, the versions and the command that figures were measured with."""
    stamp: dict[str, Any] = {
        "command": "python -m benchmarks " + " ".join(sys.argv[1:]),
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


def _cpu() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor()


def figure(
    benchmark: str, case: str, implementation: str, metric: str, unit: str, values: Sequence[float]
) -> dict[str, Any]:
    """One row: the median of repeated measurements, and their standard deviation."""
    return {
        "benchmark": benchmark,
        "case": case,
        "implementation": implementation,
        "metric": metric,
        "value": statistics.median(values),
        "unit": unit,
        "sd": statistics.stdev(values) if len(values) > 1 else 0.0,
        "n": len(values),
    }
