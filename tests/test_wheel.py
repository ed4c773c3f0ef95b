"""What is released: the wheel holds the package and nothing else, and works alone."""

import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

pytestmark = [pytest.mark.slow, pytest.mark.build]


def run(*command, cwd):
    """Run a command that knows nothing of the repository, and return its output."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    done = subprocess.run(
        list(map(str, command)), cwd=cwd, env=environment, text=True, capture_output=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def released(tmp_path_factory):
    """The source archive, and the wheel that is built from it."""
    folder = tmp_path_factory.mktemp("release")
    # In a copy, as setuptools leaves folders beside the sources, and packs what it finds in them.
    ignored = shutil.ignore_patterns(".*", "__pycache__", "build", "dist", "*.egg-info", "data", "runs")
    shutil.copytree(ROOT, folder / "copy", ignore=ignored)
    (folder / "copy" / "mgwa_pyg" / "datasets" / "ratings.dat").write_text("not to be released\n")
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", folder / "dist", "copy", cwd=folder)
    (archive,), (wheel,) = (folder / "dist").glob("*.tar.gz"), (folder / "dist").glob("*.whl")
    return archive, wheel


def sources():
    """The files of the package."""
    files = {path.relative_to(ROOT).as_posix() for path in (ROOT / "mgwa_pyg").rglob("*.py")}
    return files | {"mgwa_pyg/py.typed"}


def test_the_archive_holds_what_the_wheel_is_made_of(released):
    with tarfile.open(released[0]) as archive:
        files = [member.name.partition("/")[2] for member in archive.getmembers() if member.isfile()]
    made = {"PKG-INFO"} | {file for file in files if file.startswith("mgwa_pyg.egg-info/")}
    beside = {"LICENSE", "MANIFEST.in", "README.md", "pyproject.toml", "setup.cfg"}
    assert set(files) - made == sources() | beside


def test_the_wheel_holds_the_package_and_nothing_else(released):
    with zipfile.ZipFile(released[1]) as wheel:
        files = set(wheel.namelist())
        (metadata,) = (name for name in files if name.endswith(".dist-info/METADATA"))
        info = metadata.removesuffix("METADATA")
        named = ("METADATA", "RECORD", "WHEEL", "entry_points.txt", "licenses/LICENSE", "top_level.txt")
        assert files - sources() == {f"{info}{name}" for name in named}
        assert sources() <= files
        assert "License-Expression: MIT" in wheel.read(metadata).decode()
    assert released[1].stat().st_size < 400_000


def test_the_wheel_works_alone(released, tmp_path):
    venv = tmp_path / "venv"
    run(sys.executable, "-m", "venv", "--without-pip", venv, cwd=tmp_path)
    python = venv / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    install = ("-m", "pip", "--python", python, "install", "--no-deps", "--no-index", released[1])
    run(sys.executable, *install, cwd=tmp_path)

    # What the package needs is taken from here, but not the checkout: .pth files in that folder don't count.
    (site,) = venv.rglob("site-packages")
    (site / "here.pth").write_text(sysconfig.get_path("purelib") + "\n")
    where = run(python, "-c", "import mgwa_pyg; print(mgwa_pyg.__file__)", cwd=tmp_path)
    assert Path(where.strip()).is_relative_to(site)

    alone = tmp_path / "alone"
    shutil.copytree(ROOT / "tests", alone / "tests", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", alone)
    printed = run(python, "-m", "pytest", "-q", "-m", "smoke", "-p", "no:cacheprovider", cwd=alone)
    assert " passed" in printed
