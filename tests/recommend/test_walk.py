"""The way to an answer is short: which files and functions of the package a question passes through."""

import sys
from pathlib import Path

import pytest

import mgwa_pyg

PACKAGE = Path(mgwa_pyg.__file__).parent


def walk(call):
    """The functions of the package that a call passes through, by their files."""
    passed = set()

    def note(frame, event, arg):
        file = Path(frame.f_code.co_filename)
        if event == "call" and file.is_relative_to(PACKAGE):
            passed.add((file.relative_to(PACKAGE).as_posix(), frame.f_code.co_firstlineno))

    sys.setprofile(note)
    try:
        call()
    finally:
        sys.setprofile(None)
    return passed


@pytest.mark.parametrize(
    ("kind", "files", "functions"), [("mgwa", 13, 43), ("collaborative", 8, 26), ("ripplenet", 9, 42)]
)
def test_a_recommendation_passes_through_few_files(make_recommender, kind, files, functions):
    recommender = make_recommender(kind)
    recommender.recommend(7)  # What is computed once is computed.
    passed = walk(lambda: recommender.recommend(7))
    assert len({file for file, _ in passed}) <= files
    assert len(passed) <= functions
