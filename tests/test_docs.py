"""The Python blocks of docs/*.md run from top to bottom, and the pictures that the pages show exist."""

import re
import sys
from pathlib import Path
from types import ModuleType

import pytest

DOCS = Path(__file__).resolve().parent.parent / "docs"
PAGES = sorted(DOCS.glob("*.md"))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_blocks_run(page, monkeypatch):
    text = page.read_text()
    # PyG's Sequential imports the file that it is called from; where that fails, it silently runs the forward
    # pass of the first Sequential that the process made.
    monkeypatch.setitem(sys.modules, page.stem, ModuleType(page.stem))
    namespace = {"__name__": "docs"}
    for block in re.finditer(r"^```python\n(.*?)^```", text, flags=re.DOTALL | re.MULTILINE):
        line = text.count("\n", 0, block.start(1))
        # Empty lines before the block, so that an error names the line of the page.
        exec(compile("\n" * line + block[1], str(page), "exec"), namespace)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_pictures_exist(page):
    for name in re.findall(r"!\[.*?\]\((.*?)\)", page.read_text()):
        assert (page.parent / name).is_file(), name


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_links_within_a_page_lead_somewhere(page):
    text = page.read_text()
    headings = re.findall(r"^#+ (.*)$", text, flags=re.MULTILINE)
    anchors = {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}
    for anchor in re.findall(r"\]\(#(.*?)\)", text):
        assert anchor in anchors, anchor


def test_every_picture_is_shown():
    shown = {name for page in PAGES for name in re.findall(r"\]\(figures/(.*?)\)", page.read_text())}
    assert {path.name for path in (DOCS / "figures").iterdir()} == shown
