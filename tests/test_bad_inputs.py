"""The tests on generated inputs take ten thousand of them together."""

import re
from pathlib import Path

from bad_inputs import EXAMPLES


def test_there_are_ten_thousand_examples():
    # Each test asserts its own number: processes share no counter.
    files = Path(__file__).parent.rglob("test_bad_*.py")
    used = [name for file in files for name in re.findall(r'@examples\(\s*"([^"]+)"', file.read_text())]
    assert sorted(used) == sorted(EXAMPLES)
    assert sum(EXAMPLES.values()) >= 10_000
