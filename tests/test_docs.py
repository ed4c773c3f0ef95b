"""The Python blocks of the pages run and print what stands below them; the site builds, and lacks nothing."""

import importlib
import json
import os
import re
import runpy
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from importlib.util import find_spec
from itertools import chain
from pathlib import Path
from types import ModuleType
from unittest import mock
from urllib.parse import unquote, urlsplit

import pytest

from mgwa_pyg.recommenders import RECOMMENDERS
from tests.machine import skip
from tests.pages import assert_runs, blocks_of

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
PAGES = sorted(page for page in DOCS.rglob("*.md") if "_build" not in page.parts)
NAMES = [page.relative_to(DOCS).with_suffix("").as_posix() for page in PAGES]
# What users import; `utils` serves the others.
SUBPACKAGES = sorted({path.parent.name for path in (ROOT / "mgwa_pyg").glob("*/__init__.py")} - {"utils"})


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_blocks_run(page, tmp_path, monkeypatch):
    if page.stem == "serving" and find_spec("fastapi") is None:
        skip("fastapi is not installed")
    languages = ["python"]
    if page.stem in ("own_data", "serving"):  # They begin with tables, and have commands, too.
        languages.append("bash")
        for table in (ROOT / "examples" / "own_data").glob("*.?sv"):
            shutil.copy(table, tmp_path)
        monkeypatch.chdir(tmp_path)
    # PyG's Sequential imports the file that it is called from; where that fails, it silently runs the forward
    # pass of the first Sequential that the process made.
    monkeypatch.setitem(sys.modules, page.stem, ModuleType(page.stem))
    namespace = {"__name__": "docs"}
    with mock.patch.dict(RECOMMENDERS):  # A page registers one of its own.
        for block in blocks_of(page, languages):
            assert_runs(block, page, namespace)


def test_the_notebook_is_the_tour():
    """Its cells are the blocks of the page, which run above, and its outputs what they print."""
    make = runpy.run_path(str(DOCS / "make_notebook.py"))
    notebook = json.loads((DOCS / "tour.ipynb").read_text(encoding="utf-8"))
    assert (DOCS / "tour.ipynb").read_text(encoding="utf-8") == make["written"](DOCS / "tour.md")
    cells = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    shown = ["".join(chain(*(output["text"] for output in cell["outputs"]))) for cell in cells]
    blocks = blocks_of(DOCS / "tour.md")
    assert ["".join(cell["source"]) for cell in cells] == [block.code.rstrip() for block in blocks]
    assert shown == [block.shown or "" for block in blocks]


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_links_and_pictures_exist_in_the_repository(page):
    for name in re.findall(r"\]\(([^)#\s]+)", page.read_text()):
        assert urlsplit(name).scheme or (page.parent / name).is_file(), name


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_links_within_a_page_lead_somewhere(page):
    text = page.read_text()
    headings = re.findall(r"^#+ (.*)$", text, flags=re.MULTILINE)
    anchors = {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}
    for anchor in re.findall(r"\]\(#(.*?)\)", text):
        assert anchor in anchors, anchor


def test_every_picture_is_in_the_gallery():
    shown = re.findall(r"!\[.*?\]\((.*?)\)", (DOCS / "gallery.md").read_text())
    pictures = [*(DOCS / "figures").iterdir(), *(ROOT / "benchmarks" / "results").rglob("*.png")]
    assert {(DOCS / name).resolve() for name in shown} == set(pictures)


def test_every_results_page_is_in_the_site():
    included = {re.search(r"\{include\} (\S+)", page.read_text())[1] for page in DOCS.glob("results/*.md")}
    pages = (ROOT / "benchmarks" / "results").glob("*.md")
    assert {(DOCS / "results" / name).resolve() for name in included} == set(pages)


class Page(HTMLParser):
    """The anchors of a page of the site, and all that it refers to."""

    def __init__(self, file):
        super().__init__()
        self.anchors, self.references = set(), set()
        self.feed(file.read_text())

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        self.anchors.add(attributes.get("id"))
        self.references |= {attributes[name] for name in ("href", "src") if attributes.get(name)}


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The site, built without a warning: its folder, and its pages by file."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-b", "html", "-d"]
    command += [folder / "doctrees", DOCS, folder / "html"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    build = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert build.returncode == 0, build.stderr
    return folder / "html", {file: Page(file) for file in (folder / "html").rglob("*.html")}


@pytest.mark.slow
@pytest.mark.sphinx
def test_the_site_has_every_page(site):
    folder, pages = site
    for name in NAMES:
        assert folder / f"{name}.html" in pages, name
    index = pages[folder / "index.html"].references
    for subpackage in SUBPACKAGES:
        assert f"modules/{subpackage}.html" in index, subpackage


@pytest.mark.slow
@pytest.mark.sphinx
def test_the_first_page_shows_what_it_is_before_it_lists(site):
    folder, _ = site
    text = (folder / "index.html").read_text()
    body = text[text.index('itemprop="articleBody"') :]
    order = [
        "_images/layer",
        "highlight-python",
        "highlight-text",
        "GatedAggregationConv</span>",
        "<ul",
        "toctree",
    ]
    places = [body.index(part) for part in order]
    assert places == sorted(places)


@pytest.mark.slow
@pytest.mark.sphinx
def test_links_and_pictures_of_the_site_exist(site):
    _, pages = site
    for file, page in pages.items():
        for reference in page.references:
            url = urlsplit(reference)
            if url.scheme or url.netloc:
                continue
            target = (file.parent / unquote(url.path)).resolve() if url.path else file
            assert target.is_file(), f"{file.name}: {reference}"
            if url.fragment and target in pages:
                assert unquote(url.fragment) in pages[target].anchors, f"{file.name}: {reference}"


@pytest.mark.slow
@pytest.mark.sphinx
@pytest.mark.parametrize("subpackage", SUBPACKAGES)
def test_the_site_describes_all_public_names(site, subpackage):
    folder, pages = site
    names = {
        f"mgwa_pyg.{subpackage}.{name}" for name in importlib.import_module(f"mgwa_pyg.{subpackage}").__all__
    }
    assert names <= pages[folder / "modules" / f"{subpackage}.html"].anchors
    # The table of the API reference.
    assert {f"modules/{subpackage}.html#{name}" for name in names} <= pages[folder / "api.html"].references


@pytest.mark.slow
@pytest.mark.sphinx
def test_the_site_names_no_place_on_this_machine(site):
    folder, pages = site
    places = {str(ROOT), str(folder), str(Path.home()), sys.prefix}
    for file in pages:
        text = file.read_text()
        assert not [place for place in places if f"{place}/" in text], file.name
