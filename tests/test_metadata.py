"""The lowest versions that are tried are those that the metadata allows."""

import re
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from mgwa_pyg.version import __version__

ROOT = Path(__file__).resolve().parent.parent
# An older one cannot be had without gigabytes: constraints-lowest.txt says so.
NOT_TRIED = {"torch"}


def test_the_lowest_versions_are_those_of_the_metadata():
    tomllib = pytest.importorskip("tomllib")  # Python 3.11.
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    lines = (ROOT / "constraints-lowest.txt").read_text().splitlines()
    pinned = dict(line.split("==") for line in lines if not line.startswith("#"))
    for text in [*project["dependencies"], *extras["train"], *extras["search"], *extras["test"]]:
        wanted = Requirement(text)
        if wanted.name in {"mgwa_pyg", *NOT_TRIED}:
            continue
        (bound,) = wanted.specifier
        assert bound.operator == ">=", text
        # As 1.4.0 is for 1.4; where a release has no .0, its first.
        assert wanted.specifier.contains(pinned[wanted.name]), text
        assert pinned[wanted.name].startswith(bound.version), text


def test_the_version_has_an_entry_in_the_changelog_and_the_citation():
    headings = re.findall(r"^## \[(.+?)\]", (ROOT / "CHANGELOG.md").read_text(), flags=re.MULTILINE)
    assert headings[:2] == ["Unreleased", __version__]
    assert f"\nversion: {__version__}\n" in (ROOT / "CITATION.cff").read_text()
