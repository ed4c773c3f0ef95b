"""Wrong and odd tables, made at random: each gives an error with file and row, or the right data set.

``python -m benchmarks.wrong_tables [N]`` tries N of them. What is right is known from the rows that a table
was written from, and from the triples that were meant.
"""

import csv
import gzip
import io
import sys
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from mgwa_pyg.datasets import RawDataError, TableKG

Row = list[Any]
_HEADER = ["user", "item", "plays", "when"]
_WORDS = [
    "anna",
    "ben 2",
    "7",
    "007",
    "Björk",
    "a,b",
    'say "hi"',
    "two\nlines",
    "NA",
    "null",
    "x:y",
    "日本",
    "-3",
    "1e5",
]


class Case(NamedTuple):
    """A table, and what it must come to."""

    kind: str
    interactions: Any
    """A frame, or the content of a file with the end of its name."""
    where: str | None
    """How the error names the place, or nothing where the data set is right."""
    rows: list[Row]
    triples: tuple[str, str] | pd.DataFrame | None = None
    """The content of a file and the end of its name, or a frame."""
    facts: frozenset[tuple[str, str, str]] = frozenset()
    """The triples as they are meant."""


def make(rng: np.random.Generator) -> Case:
    """Return a case of any kind."""
    rows = _rows(rng)
    kinds = [*_CELLS, *_FILES, *_FRAMES, *_GRAPHS, *_FINE]
    kind = kinds[int(rng.integers(len(kinds)))]
    for table in (_FILES, _FRAMES, _GRAPHS, _FINE):
        if kind in table:
            return table[kind](kind, rows, rng)
    # A cell that no row may have, in a file.
    column, value = _CELLS[kind]
    row = int(rng.integers(len(rows)))
    bad = [list(cells) for cells in rows]
    bad[row][column] = value
    return Case(kind, (_csv(bad), ".csv"), f"line {_line(bad, row)}", [])


def check(case: Case, folder: Path) -> str | None:
    """Return what is wrong with how a case is read, if anything is."""
    source: Any = case.interactions
    if not isinstance(source, pd.DataFrame):
        content, suffix = source
        source = folder / f"plays{suffix}"
        source.write_bytes(content)
    triples: Any = case.triples
    if isinstance(triples, tuple):
        triples = folder / f"kg{triples[1]}"
        triples.write_bytes(case.triples[0].encode())
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            dataset = TableKG.from_tables(source, triples=triples, weight="plays", time="when", split="none")
    except RawDataError as error:
        if case.where is None:
            return f"it is refused: {error}"
        file = "interactions" if isinstance(source, pd.DataFrame) else source.name
        if case.triples is not None:
            file = "triples" if isinstance(triples, pd.DataFrame) else triples.name
        if case.where in str(error) and file in str(error):
            return None
        return f"{file} and {case.where!r} are not in: {error}"
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    if case.where is not None:
        return "it is taken"
    found, wanted = _read(dataset), Counter()
    for user, item, plays, _ in case.rows:
        wanted[str(user), str(item)] += float(plays)
    if found != dict(wanted):
        return f"{found} is not {dict(wanted)}"
    facts = _facts(dataset)
    return None if facts == case.facts else f"{facts} is not {case.facts}"


def failures(number: int, seed: int = 0) -> tuple[Counter[str], list[str]]:
    """Return how many cases of each kind there were, and what failed."""
    rng, counts, failed = np.random.default_rng(seed), Counter[str](), []
    with TemporaryDirectory() as folder:
        for at in range(number):
            case = make(rng)
            counts[case.kind] += 1
            problem = check(case, Path(folder))
            if problem is not None:
                failed.append(f"case {at}, {case.kind}: {problem}")
    return counts, failed


def _rows(rng: np.random.Generator) -> list[Row]:
    users, items = (rng.choice(_WORDS, size=int(rng.integers(1, 6))).tolist() for _ in range(2))
    number = int(rng.integers(2, 12))
    return [
        [str(rng.choice(users)), str(rng.choice(items)), int(rng.integers(1, 9)), int(rng.integers(0, 99))]
        for _ in range(number)
    ]


def _csv(rows: list[Row], end: str = "\n", header: list[str] = _HEADER) -> bytes:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator=end)
    writer.writerows([header, *rows])
    return text.getvalue().encode()


def _line(rows: list[Row], row: int) -> int:
    """The line that a row begins in: cells may have several."""
    return 2 + row + sum(str(cell).count("\n") for cells in rows[:row] for cell in cells)


def _read(dataset: TableKG) -> dict[tuple[str, str], float]:
    links = dataset[0]["user", "listens", "entity"]
    edges = zip(*links.edge_index.tolist(), links.edge_weight.tolist(), strict=True)
    return {(str(dataset.user_ids[u]), str(dataset.item_ids[i])): weight for u, i, weight in edges}


def _facts(dataset: TableKG) -> frozenset[tuple[str, str, str]]:
    kg, ids = dataset[0]["entity", "kg", "entity"], dataset.entity_ids
    edges = zip(*kg.edge_index.tolist(), kg.rel_type.tolist(), strict=True)
    names, size = dataset.relation_names, dataset.num_relations
    return frozenset((str(ids[h]), names[r], str(ids[t])) for h, t, r in edges if r < size)


# What no cell may be: the column and the value.
_CELLS: dict[str, tuple[int, Any]] = {
    "empty user": (0, ""),
    "blank user": (0, "  "),
    "empty item": (1, ""),
    "blank item": (1, "\t"),
    "negative weight": (2, -2),
    "no weight": (2, ""),
    "weight nan": (2, "nan"),
    "weight inf": (2, "inf"),
    "weight zero": (2, 0),
    "weight text": (2, "many"),
    "weight true": (2, "True"),
    "weight with a comma": (2, "1,5"),
    "no time": (3, ""),
    "time nan": (3, "NaN"),
}


def _unparsable(kind: str, rows: list[Row], rng: np.random.Generator) -> Case:
    row = int(rng.integers(1, len(rows)))
    rows[row][3] = str(rng.choice(["yesterday", "2024-13-01", "17.05.2024", "2024-05-17"]))
    return Case(kind, (_csv(rows), ".csv"), f"line {_line(rows, row)}", [])


def _bad_date(kind: str, rows: list[Row], rng: np.random.Generator) -> Case:
    for row in rows:
        row[3] = f"2024-05-{1 + row[3] % 28:02d}"
    row = int(rng.integers(1, len(rows)))
    rows[row][3] = str(rng.choice(["2024-05-40", "May", "12"]))
    return Case(kind, (_csv(rows), ".csv"), f"line {_line(rows, row)}", [])


def _no_column(kind: str, rows: list[Row], rng: np.random.Generator) -> Case:
    column = int(rng.integers(4))
    header = [name if at != column else "other" for at, name in enumerate(_HEADER)]
    return Case(kind, (_csv(rows, header=header), ".csv"), f"no column '{_HEADER[column]}'", [])


def _two_columns(kind: str, rows: list[Row], rng: np.random.Generator) -> Case:
    content = _csv([[*row, row[0]] for row in rows], header=[*_HEADER, "user"])
    return Case(kind, (content, ".csv"), "2 columns 'user'", [])


def _ragged(kind: str, rows: list[Row], rng: np.random.Generator) -> Case:
    row = int(rng.integers(len(rows)))
    rows[row] = [*rows[row], "more"] if rng.random() < 0.5 else rows[row][:-1]
    return Case(kind, (_csv(rows), ".csv"), f"line {_line(rows, row)}", [])


def _nul(kind: str, rows: list[Row], rng: np.random.Generator) -> Case:
    row = int(rng.integers(len(rows)))
    rows[row][1] = "a\0b"
    line = _line(rows, row) + rows[row][0].count("\n")  # That of the byte.
    return Case(kind, (_csv(rows), ".csv"), f"line {line}", [])


def _latin(kind: str, rows: list[Row], rng: np.random.Generator) -> Case:
    rows = [[str(at), *row[1:]] for at, row in enumerate(rows)]
    row = int(rng.integers(len(rows)))
    rows[row][0] = "LATIN"
    content = _csv(rows).replace(b"LATIN", "Björk".encode("latin-1"))
    return Case(kind, (content, ".csv"), f"line {_line(rows, row)}", [])


def _cut_gzip(kind: str, rows: list[Row], rng: np.random.Generator) -> Case:
    packed = gzip.compress(_csv(rows * 20))
    return Case(kind, (packed[: -int(rng.integers(1, 20))], ".csv.gz"), "damaged archive", [])


def _open_quote(kind: str, rows: list[Row], rng: np.random.Generator) -> Case:
    content = _csv(rows) + b'"anna,x,1,2\n'
    return Case(kind, (content, ".csv"), f"line {_line(rows, len(rows))}", [])


_FILES: dict[str, Callable[[str, list[Row], np.random.Generator], Case]] = {
    "byte 0": _nul,
    "unparsable time": _unparsable,
    "no such date": _bad_date,
    "missing column": _no_column,
    "column twice": _two_columns,
    "ragged": _ragged,
    "latin-1": _latin,
    "truncated gzip": _cut_gzip,
    "quote left open": _open_quote,
    "no rows": lambda kind, rows, rng: Case(kind, (_csv([]), ".csv"), "no row", []),
    "empty file": lambda kind, rows, rng: Case(kind, (b"", ".csv"), "is empty", []),
}


def _frame(rows: list[Row]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=_HEADER).astype({"user": object, "item": object})


def _frame_case(column: str, values: list[Any]) -> Callable[[str, list[Row], np.random.Generator], Case]:
    def case(kind: str, rows: list[Row], rng: np.random.Generator) -> Case:
        frame, row = _frame(rows), int(rng.integers(len(rows)))
        frame[column] = frame[column].astype(object)
        frame.isetitem(frame.columns.get_loc(column), frame[column].where(frame.index != row, None))
        frame.at[row, column] = values[int(rng.integers(len(values)))]
        return Case(kind, frame, f"interactions.iloc[{row}]", [])

    return case


def _floats(kind: str, rows: list[Row], rng: np.random.Generator) -> Case:
    frame = _frame(rows).assign(user=[float(at) for at in range(len(rows))])
    return Case(kind, frame, "interactions.iloc[0]: the user 0.0 is of the type float64", [])


def _booleans(kind: str, rows: list[Row], rng: np.random.Generator) -> Case:
    return Case(kind, _frame(rows).assign(item=True), "the item is of the type bool", [])


def _alike(kind: str, rows: list[Row], rng: np.random.Generator) -> Case:
    frame = _frame(rows)
    frame["user"] = [7, *["x"] * (len(rows) - 2), "7"]
    return Case(kind, frame, f"interactions.iloc[{len(rows) - 1}]: the user '7' is also written 7", [])


def _mixed(kind: str, rows: list[Row], rng: np.random.Generator) -> Case:
    rows = [[row[0] if at % 2 else 100 + at, *row[1:]] for at, row in enumerate(rows)]
    return Case(kind, _frame(rows), None, rows)


_FRAMES = {
    "frame: no id": _frame_case("user", [None, np.nan, pd.NA, ""]),
    "frame: odd id": _frame_case("item", [True, 1.5, b"x", ("a",), pd.Timestamp(0)]),
    "frame: odd weight": _frame_case("plays", [np.nan, np.inf, -1, "3", True, None]),
    "frame: odd time": _frame_case("when", [np.nan, "later", None]),
    "frame: floats": _floats,
    "frame: booleans": _booleans,
    "frame: 7 and '7'": _alike,
    "frame: numbers and words": _mixed,
}


def _fine(
    suffix: str, content: Callable[[list[Row]], bytes]
) -> Callable[[str, list[Row], np.random.Generator], Case]:
    return lambda kind, rows, rng: Case(kind, (content(rows), suffix), None, rows)


def _tabs(kind: str, rows: list[Row], rng: np.random.Generator) -> Case:
    rows = [[str(cell).replace("\n", " ") for cell in row] for row in rows]
    text = "\n".join(
        "\t".join(row) for row in [["user:token", "item:token", "plays:float", "when:float"], *rows]
    )
    return Case(kind, (text.encode(), ".inter"), None, rows)


_FINE = {
    "plain": _fine(".csv", _csv),
    "byte order mark": _fine(".csv", lambda rows: b"\xef\xbb\xbf" + _csv(rows)),
    "CRLF": _fine(".csv", lambda rows: _csv(rows, "\r\n")),
    "packed": _fine(".csv.gz", lambda rows: gzip.compress(_csv(rows))),
    "blank lines": _fine(".csv", lambda rows: _csv(rows) + b"\n\n"),
    "duplicates": lambda kind, rows, rng: Case(kind, (_csv(rows * 3), ".csv"), None, rows * 3),
    "atomic file": _tabs,
    "one user": lambda kind, rows, rng: Case(
        kind, (_csv([["u", *row[1:]] for row in rows]), ".csv"), None, [["u", *row[1:]] for row in rows]
    ),
}


def _token(node: str) -> str:
    if node.startswith("_:"):
        return node
    if node.startswith('"'):
        text, _, language = node[1:].rpartition('"')
        for one, other in (("\\", "\\\\"), ('"', '\\"'), ("\n", "\\n")):
            text = text.replace(one, other)
        return f'"{text}"{language}'
    return f"<{node}>"


def _n_triples(kind: str, rows: list[Row], rng: np.random.Generator) -> Case:
    rows = [[row[0], f"http://x/{at % 3}", *row[2:]] for at, row in enumerate(rows)]
    tails = ["http://x/0", "_:b1", '"text"', '"mot \\ "q"\n"@fr', '"# no comment ."', "http://x/né"]
    facts = {
        (f"http://x/{rng.integers(5)}", f"http://x/r{rng.integers(2)}", str(rng.choice(tails)))
        for _ in range(int(rng.integers(1, 9)))
    }
    lines = [
        f"{' '.join(map(_token, fact))} .{' # Said.' if rng.random() < 0.3 else ''}" for fact in sorted(facts)
    ]
    lines.insert(int(rng.integers(len(lines) + 1)), "# A comment")
    lines.append('<http://x/0> <http://x/year> "1985"^^<http://www.w3.org/2001/XMLSchema#integer> .')
    lines.append('<http://x/0> <http://www.w3.org/2000/01/rdf-schema#label> "Zero"@en .')
    where = None
    if "wrong" in kind:
        at = int(rng.integers(len(lines)))
        bad = [
            "<http://x/0> <http://x/1>",
            "http://x/0 http://x/1 http://x/2 .",
            '<http://x/0> <http://x/1> "a',
            "a\tb\tc",
        ]
        lines.insert(at, str(rng.choice(bad)))
        where = f"line {at + 1}"
    return Case(kind, (_csv(rows), ".csv"), where, rows, ("\n".join(lines) + "\n", ".nt"), frozenset(facts))


def _graph_of_two_columns(kind: str, rows: list[Row], rng: np.random.Generator) -> Case:
    if rng.random() < 0.5:
        return Case(
            kind, (_csv(rows), ".csv"), "no column", [], pd.DataFrame([("a", "b")], columns=["head", "tail"])
        )
    return Case(kind, (_csv(rows), ".csv"), "no column", [], ("head\ttail\na\tb\n", ".tsv"))


def _strangers(kind: str, rows: list[Row], rng: np.random.Generator) -> Case:
    facts = {(f"m.{at}", "of", f"m.{at + 1}") for at in range(int(rng.integers(1, 5)))}
    text = "\n".join(["head_id:token\trelation_id:token\ttail_id:token", *map("\t".join, sorted(facts))])
    return Case(kind, (_csv(rows), ".csv"), None, rows, (text, ".kg"), frozenset(facts))


_GRAPHS = {
    "N-Triples": _n_triples,
    "N-Triples, wrong": _n_triples,
    "graph of two columns": _graph_of_two_columns,
    "graph that matches nothing": _strangers,
}


if __name__ == "__main__":
    counts, failed = failures(int(sys.argv[1]) if len(sys.argv) > 1 else 2_000)
    print(f"{sum(counts.values())} tables of {len(counts)} kinds, {len(failed)} read wrongly")
    print("\n".join(failed[:20]))
