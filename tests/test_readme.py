"""The README's Python blocks run as they stand, and its commands exist."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)


@pytest.mark.parametrize("number", range(len(BLOCKS)))
def test_block_runs(number):
    exec(compile(BLOCKS[number], f"README block {number}", "exec"), {})


def test_make_targets_exist():
    makefile = (ROOT / "Makefile").read_text()
    targets = set(re.findall(r"`make (\w+)|^make (\w+)", README, flags=re.MULTILINE))
    for target in {name for pair in targets for name in pair if name}:
        assert re.search(rf"^{target}:", makefile, flags=re.MULTILINE), target
