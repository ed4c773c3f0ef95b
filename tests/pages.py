"""The Python blocks of a page, and what they print."""

import contextlib
import io
import re
from typing import NamedTuple

import pytest

# A block, and what it prints if a block of text follows.
_BLOCK = re.compile(r"^```python\n(.*?)^```(?:\n\n```text\n(.*?)^```)?", flags=re.DOTALL | re.MULTILINE)
_FIGURE = re.compile(r"\d+\.\d+")


class Block(NamedTuple):
    """A block, what stands below it, and the line of the page above it."""

    code: str
    shown: str | None
    line: int


def blocks_of(page):
    text = page.read_text(encoding="utf-8")
    return [Block(block[1], block[2], text.count("\n", 0, block.start(1))) for block in _BLOCK.finditer(text)]


def assert_runs(block, page, namespace):
    """The block runs, and prints what stands below it."""
    # Empty lines before the block, so that an error names the line of the page.
    code = compile("\n" * block.line + block.code, str(page), "exec")
    with contextlib.redirect_stdout(io.StringIO()) as out:
        exec(code, namespace)
    if block.shown is None:
        return
    printed, shown, where = out.getvalue(), block.shown, f"{page}:{block.line}"
    assert _FIGURE.sub("#", printed) == _FIGURE.sub("#", shown), where
    # Machines round differently, and a fit makes more of it.
    figures = [[float(figure) for figure in _FIGURE.findall(text)] for text in (printed, shown)]
    assert figures[0] == pytest.approx(figures[1], abs=0.02), where
