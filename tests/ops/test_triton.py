"""Runs the tests of Triton's kernels, each file in a process of its own, as one interprets all or none."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch


@pytest.mark.slow
@pytest.mark.triton
@pytest.mark.parametrize(
    ("file", "interpret"),
    [("triton_cases.py", not torch.cuda.is_available()), ("triton_compile.py", False)],
)
def test_cases(file, interpret):
    environment = {**os.environ, "TRITON_INTERPRET": str(int(interpret))}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", Path(__file__).with_name(file)]
    process = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert process.returncode == 0, process.stdout[-8000:] + process.stderr[-2000:]
    assert "skipped" not in process.stdout
