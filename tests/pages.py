"""The Python blocks of a page, and those of commands, and what they print."""

import contextlib
import io
import re
import shlex
from typing import NamedTuple

import pytest

from mgwa_pyg import cli

# A block, and what it prints if a block of text follows.
_BLOCK = re.compile(
    r"^```(python|bash)\n(.*?)^```(?:\n\n```text\n(.*?)^```)?", flags=re.DOTALL | re.MULTILINE
)
_FIGURE = re.compile(r"\d+\.\d+")


class Block(NamedTuple):
    """A block, what stands below it, and the line of the page above it."""

    language: str
    code: str
    shown: str | None
    line: int


def blocks_of(page, languages=("python",)):
    text = page.read_text(encoding="utf-8")
    blocks = [Block(*block.groups(), text.count("\n", 0, block.start(2))) for block in _BLOCK.finditer(text)]
    return [block for block in blocks if block.language in languages]


def printed_by(block, page, namespace):
    """Run a block; of commands those of our own."""
    with contextlib.redirect_stdout(io.StringIO()) as out:
        if block.language == "bash":
            for line in block.code.replace("\\\n", " ").splitlines():
                assert line.startswith("mgwa-pyg ")
                assert cli.main(shlex.split(line)[1:]) == 0, line
        else:
            # Empty lines before the block, so that an error names the line of the page.
            exec(compile("\n" * block.line + block.code, str(page), "exec"), namespace)
    return out.getvalue()


def assert_runs(block, page, namespace):
    """The block runs, and prints what stands below it."""
    printed, shown, where = printed_by(block, page, namespace), block.shown, f"{page}:{block.line}"
    if shown is None:
        return
    assert _FIGURE.sub("#", printed) == _FIGURE.sub("#", shown), where
    # Machines round differently, and a fit makes more of it.
    figures = [[float(figure) for figure in _FIGURE.findall(text)] for text in (printed, shown)]
    assert figures[0] == pytest.approx(figures[1], abs=0.02), where
