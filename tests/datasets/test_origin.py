"""What a processed file was made from is told from anything else, and is the same at every start."""

import datetime
import enum
import logging
import random
import runpy
import sys
import types
from collections import Counter, deque
from functools import partial
from operator import itemgetter
from re import compile as pattern

import numpy as np
import pandas as pd
import pytest
import scipy.sparse
import torch

from mgwa_pyg.datasets import KGRecDataset, KGRecTables
from mgwa_pyg.datasets.origin import digest_and_strangers, digest_of


class Slotted:
    __slots__ = ("value",)

    def __init__(self, value):
        self.value = value


class Moment(datetime.datetime):
    """One with a ``__dict__``, as pandas' is."""


class Size(enum.Enum):
    SMALL = 1
    LARGE = 2


def days(year, zone=None):
    return pd.Series(pd.to_datetime([f"{year}-01-01"]).tz_localize(zone))


#: Makes a value from 1 or 2.
KINDS = {
    "time stamp": lambda n: pd.Timestamp(2000 + n, 1, 1),
    "time span": pd.Timedelta,
    "period": lambda n: pd.Period(f"200{n}", "Y"),
    "interval": lambda n: pd.Interval(0, n),
    "date": lambda n: datetime.date(2000, 1, n),
    "moment": lambda n: Moment(2000, 1, n),
    "days": lambda n: days(2000 + n),
    "days of a zone": lambda n: days(2000 + n, "UTC"),
    "frame of days": lambda n: pd.DataFrame({"day": days(2000 + n, "UTC")}),
    "categories": lambda n: pd.Categorical(["a", str(n)]),
    "column of categories": lambda n: pd.Series(["a", str(n)], dtype="category"),
    "nullable": lambda n: pd.array([n, None], dtype="Int64"),
    "index of a column": lambda n: pd.Series([0], index=[n]),
    "index of pairs": lambda n: pd.MultiIndex.from_tuples([(1, n)]),
    "name of a column": lambda n: pd.DataFrame({n: [0]}),
    "masked": lambda n: np.ma.masked_equal([1, 2], n),
    "objects": lambda n: np.array([Slotted(n)], dtype=object),
    "sparse matrix": lambda n: scipy.sparse.csr_matrix([[n]]),
    "sparse tensor": lambda n: torch.eye(n).to_sparse(),
    "conjugate": lambda n: torch.tensor([n * 1j]).conj(),
    "NumPy's generator": np.random.default_rng,
    "torch's generator": lambda n: torch.Generator().manual_seed(n),
    "Python's generator": random.Random,
    "its method": lambda n: np.random.default_rng(n).integers,
    "slots": Slotted,
    "namespace": lambda n: types.SimpleNamespace(n=n),
    "queue": lambda n: deque([Slotted(n)]),
    "counter": lambda n: Counter("a" * n),
    "long pattern": lambda n: pattern("a" * 300 + str(n)),
    "enum": Size,
    "getter": itemgetter,
    "partial": lambda n: partial(max, n),
    "iterator": lambda n: iter([n]),
    "nested": lambda n: [[1, 2], [3]] if n == 1 else [[1], [2, 3]],
    "list or pair": lambda n: [1] if n == 1 else (1,),
    "ring": lambda n: _ring(n),
}


def _ring(size):
    first = last = []
    for _ in range(size):
        last.append([])
        last = last[0]
    last.append(first)
    return first


@pytest.mark.parametrize("kind", KINDS)
def test_values_are_told_apart(kind):
    make = KINDS[kind]
    first, strangers = digest_and_strangers(make(1))
    assert not strangers
    assert first == digest_of(make(1))
    assert first != digest_of(make(2))


def test_what_is_there_often_is_looked_at_once():
    shared = [1]
    for _ in range(100):  # 2 ** 100 of them, one by one.
        shared = [shared, shared]
    scope = {"__name__": "helpers"}
    for number in range(60):
        exec(f"def f{number}(): return {[f'f{i}' for i in range(number)]!r}".replace("'", ""), scope)
    assert len({digest_of(shared), digest_of(scope["f59"]), digest_of(scope["f58"])}) == 3


def test_a_logger_is_the_same_whoever_else_has_one():
    before = digest_of(logging.getLogger("mgwa_pyg.some"))
    logging.getLogger("mgwa_pyg.some.other")
    assert digest_of(logging.getLogger("mgwa_pyg.some")) == before


SCRIPT = """
import dataclasses, functools, helpers, helpers as other, types
from mgwa_pyg.datasets import KGRecDataset, KGRecTables
from helpers import word

@functools.lru_cache
def kept(): return "{kept}"

SETTINGS = types.SimpleNamespace(word="{namespace}")

@dataclasses.dataclass
class Settings:
    word: str

CONFIG = Settings("{instance}")

class Above:
    word = "{above}"
class Below(Above):
    pass

class Mixin:
    def mixed(self): return "{mixin}"

class Reader:
    def read(self): return "{argument}"

class OwnKG(KGRecDataset, Mixin):
    class Inner:
        word = "{inner}"
    def __init__(self, root):
        self.reader = Reader()
        super().__init__(root)
    def late(self):
        from late_helpers import late
        return late()
    def build(self):
        words = [kept(), SETTINGS.word, CONFIG.word, Below.word, self.mixed(), self.Inner.word, word(),
                 helpers.WORD, helpers.inner.deeper(), self.late(), self.reader.read()]
        return KGRecTables([[0, 0]], [], 1, 2, [" ".join(words), "b"], [])
"""
HELPERS = "import inner_helpers as inner\nWORD = '{constant}'\ndef word(): return '{helper}'"
FILES = {
    "own.py": SCRIPT,
    "helpers.py": HELPERS,
    "inner_helpers.py": "def deeper(): return '{deeper}'",
    "late_helpers.py": "def late(): return '{late}'",
}
WORDS = [
    *("kept", "namespace", "instance", "above", "mixin", "inner", "helper", "constant", "deeper", "late"),
    "argument",
]


def test_code_of_the_whole_program_counts(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    words = dict.fromkeys(WORDS, "a")
    last = None
    for changed in [None, *WORDS]:
        if changed is not None:
            words[changed] = "b"
        for name, text in FILES.items():
            (tmp_path / name).write_text(text.format(**words))
        seen = []
        for _ in range(2):
            for name in FILES:
                sys.modules.pop(name.removesuffix(".py"), None)
            dataset = runpy.run_path(str(tmp_path / "own.py"), run_name="own")["OwnKG"](tmp_path / "root")
            assert dataset.item_names == [" ".join(words.values()), "b"]
            (path,) = (tmp_path / "root" / "processed").glob(f"*{dataset._variant}.pt")
            seen.append((path.name, path.stat().st_ino, path.stat().st_mtime_ns))
        assert seen[0] == seen[1]  # The second time it is read.
        assert seen[0] != last
        last = seen[0]


class LinesKG(KGRecDataset):
    """A song with a name from what can be read only once."""

    def __init__(self, root, name):
        self.lines = (line for line in [name])
        super().__init__(root)

    def build(self):
        return KGRecTables([[0, 0]], [], 1, 2, [*self.lines, "other"], [])


def test_what_cannot_be_told_apart_is_built_anew(tmp_path):
    assert [LinesKG(tmp_path, name).item_names[0] for name in ("a", "b", "b")] == ["a", "b", "b"]
