"""What the tests share: the markers for optional parts, and small data sets."""

import os
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

from mgwa_pyg.datasets import SyntheticKG
from tests.graphs import SIZES
from tests.machine import skip, start_browser

# What the tests compute is too small for more, and busy machines punish it; in their processes, too.
torch.set_num_threads(1)
os.environ.setdefault("OMP_NUM_THREADS", "1")

# Without the repository, where an installed package is tested, what tests the rest of it is left out.
if not (Path(__file__).resolve().parent.parent / "benchmarks").is_dir():
    collect_ignore = ["benchmarks", "examples", "test_docs.py", "test_metadata.py"]
    collect_ignore += ["test_readme.py", "test_wheel.py", "nn/test_capabilities.py"]

# What the tests with a marker need.
PACKAGES = {
    "scatter": "torch_scatter",
    "triton": "triton",
    "sphinx": "sphinx",
    "tables": "pyarrow",
    "build": "build",
    "browser": "selenium",
}


def pytest_runtest_setup(item):
    """Skip tests whose optional part is missing."""
    for marker, package in PACKAGES.items():
        if item.get_closest_marker(marker) and find_spec(package) is None:
            skip(f"{package} is not installed")
    # Those are skipped in CI, too, where it has none: nobody can install them.
    if item.get_closest_marker("real_data") and not os.environ.get("MGWA_PYG_RAW"):
        pytest.skip("MGWA_PYG_RAW does not name the folder of the raw files")


@pytest.fixture(scope="session")
def browser(tmp_path_factory):
    """A browser that selenium drives."""
    started = start_browser(tmp_path_factory.mktemp("browser"))
    yield started
    started.quit()


@pytest.fixture
def lastfm_raw():
    """The folder of the real raw files."""
    return Path(os.environ["MGWA_PYG_RAW"])


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def synthetic():
    """The default synthetic data set, shared by tests that only read it."""
    return SyntheticKG()


@pytest.fixture(scope="session")
def small():
    """A smaller one, which is quick to fit."""
    return SyntheticKG(**SIZES)
