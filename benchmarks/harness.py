"""What the benchmarks share: the environment's stamp, and the form of a measured figure."""

import json
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
from mgwa_pyg.files import whole_file


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


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write results, whole or not at all."""
    with whole_file(path) as file:
        file.write_text(json.dumps(content, indent=1) + "\n")


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
