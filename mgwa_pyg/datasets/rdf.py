"""Triples in N-Triples and Turtle."""

import re
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import unquote

import numpy as np
import numpy.typing as npt

from mgwa_pyg.datasets.raw import raise_at
from mgwa_pyg.datasets.table import opened
from mgwa_pyg.datasets.tables import Numbering

SUFFIXES = (".nt", ".ttl")
_REMEDY = "Correct the file, or write it anew."
_CHUNK = 2**14  # Lines that are in memory at a time.
_IRI = r'<(?:[^\x00-\x20<>"{}|^`\\]|\\u[0-9A-Fa-f]{4}|\\U[0-9A-Fa-f]{8})*>'
_BLANK = r"_:\w(?:[\w.\-·]*[\w\-·])?"
_LITERAL = (
    r'"[^"\\\n]*(?:\\(?:[tbnrf"\'\\]|u[0-9A-Fa-f]{4}|U[0-9A-Fa-f]{8})[^"\\\n]*)*"'
    rf"(?:@[a-zA-Z]+(?:-[a-zA-Z0-9]+)*|\^\^{_IRI})?"
)
_LINE = re.compile(
    rf"^[ \t]*(?:({_IRI}|{_BLANK})[ \t]*({_IRI})[ \t]*({_IRI}|{_BLANK}|{_LITERAL})[ \t]*\.[ \t]*)?(?:#.*)?$",
    re.M,
)
_ESCAPE = re.compile(r"\\(?:u([0-9A-Fa-f]{4})|U([0-9A-Fa-f]{8})|(.))")
_ESCAPED = {"t": "\t", "b": "\b", "n": "\n", "r": "\r", "f": "\f"}
_PARTS = re.compile(r'(?s)"(.*)"(?:@(.+)|\^\^<(.*)>)?')
_TEXT = (
    "http://www.w3.org/2001/XMLSchema#string",
    "http://www.w3.org/1999/02/22-rdf-syntax-ns#langString",
)
_NAMES = {
    f"<{iri}>"
    for iri in (
        "http://www.w3.org/2000/01/rdf-schema#label",
        "http://www.w3.org/2004/02/skos/core#prefLabel",
        "http://xmlns.com/foaf/0.1/name",
        "http://schema.org/name",
        "https://schema.org/name",
    )
}


class Triples(NamedTuple):
    """Triples as numbers, and what these stand for."""

    head: npt.NDArray[np.integer]
    relation: npt.NDArray[np.integer]
    tail: npt.NDArray[np.integer]
    ids: list[int | str]
    """What heads and tails are called: an IRI, ``_:label``, or ``"text"`` with its quotes."""
    relations: list[str]
    names: dict[str, str]
    """The names that the graph gives its nodes, by id."""
    left_out: int
    """How many triples have a number or a date for a tail."""


def read_rdf(path: Path, suffix: str) -> Triples:
    """Return the triples of a file in N-Triples or Turtle.

    Raises:
        RawDataError: If a line is not what it should be, or there is no triple.
        ImportError: If a file in Turtle cannot be read for want of pyoxigraph.
    """
    nodes, relations = Numbering(), Numbering()
    parts: list[tuple[npt.NDArray[np.int32], ...]] = []
    for heads, verbs, tails in _turtle(path) if suffix == ".ttl" else _n_triples(path):
        parts.append((nodes(heads), relations(verbs), nodes(tails)))
    if not parts:
        raise_at(path, None, "it has no triple", _REMEDY)
    columns = [np.concatenate(column) for column in zip(*parts, strict=True)]
    head, relation, tail = columns

    tokens, verbs = [*nodes.number], [*relations.number]
    is_name = np.array([verb in _NAMES for verb in verbs])[relation]
    is_literal = np.array([token[0] == '"' for token in tokens])
    is_other = np.array([token[0] == '"' and not _is_text(token) for token in tokens])
    names = _names(tokens, head[is_name & is_literal[tail]], tail[is_name & is_literal[tail]])
    is_left_out = is_other[tail]
    kept = ~is_left_out & ~(is_name & is_literal[tail])
    ends, end = np.unique(np.stack([head[kept], tail[kept]], axis=1).ravel(), return_inverse=True)
    used, verb = np.unique(relation[kept], return_inverse=True)
    # Several tokens may stand for one thing: a letter may be escaped, or not.
    nodes, relations = Numbering(), Numbering()
    pairs = nodes(_id(tokens[at]) for at in ends.tolist())[end].reshape(-1, 2)
    relation = relations(_id(verbs[at]) for at in used.tolist())[verb]
    left_out = int((is_left_out & ~is_name).sum())
    return Triples(pairs[:, 0], relation, pairs[:, 1], [*nodes.number], [*relations.number], names, left_out)


def name_of(id_: int | str) -> str:
    """Return what people call a node without a name: the end of an IRI, the text of a literal, or its id."""
    if not isinstance(id_, str):
        return str(id_)
    if id_.startswith('"'):
        return _text(id_)
    end = re.fullmatch(r"[a-zA-Z][\w+.-]*:.*[/#]([^/#]+)[/#]?", id_)
    return unquote(end[1]) if end else id_


def _n_triples(path: Path) -> Any:
    """Yield heads, relations and tails of some lines at a time, as they are written."""
    start = 0
    with opened(path) as file:
        while lines := [line.rstrip("\r\n") for line in islice(file, _CHUNK)]:
            found = _LINE.findall("\n".join(lines))
            if len(found) != len(lines):
                bad = next(at for at, line in enumerate(lines) if not _LINE.fullmatch(line))
                problem = f"{lines[bad]!r:.80} is no triple of N-Triples"
                raise_at(path, start + bad + 1, problem, _REMEDY)
            if found := [triple for triple in found if triple[0]]:
                yield zip(*found, strict=True)
            start += len(lines)


def _turtle(path: Path) -> Any:
    """Yield the same of a file in Turtle. Blank nodes without a label are numbered as they come."""
    try:
        import pyoxigraph as ox
    except ImportError as error:
        raise ImportError(
            f"'{path}' is in Turtle, which pyoxigraph reads: `pip install mgwa_pyg[tables]`"
        ) from error
    with opened(path) as file:
        text = "".join(file)
    number: dict[str, str] = {}
    quoted: list[str] = []

    def token(node: Any) -> str:
        if isinstance(node, ox.Triple):
            quoted.append(str(node))
        if isinstance(node, ox.BlankNode):
            return number.setdefault(node.value, f"_:b{len(number)}")
        return str(node)

    try:
        triples = [
            (token(quad.subject), str(quad.predicate), token(quad.object))
            for quad in ox.parse(text, format=ox.RdfFormat.TURTLE, base_iri=path.absolute().as_uri())
        ]
    except (SyntaxError, ValueError) as error:
        line = getattr(error, "lineno", None)
        raise_at(path, line, f"it is no Turtle ({getattr(error, 'msg', error)})", _REMEDY)
    if quoted:
        problem = f"the triple {quoted[0]!r:.200} is the end of another one (RDF-star), which is not read"
        raise_at(path, None, problem, "Leave triples about triples out.")
    if triples:
        yield zip(*triples, strict=True)


def _is_text(literal: str) -> bool:
    parts = _PARTS.fullmatch(literal)
    return parts is not None and (parts[3] is None or parts[3] in _TEXT)


def _text(literal: str) -> str:
    parts = _PARTS.fullmatch(literal)
    return _unescaped(literal if parts is None else parts[1])


def _unescaped(text: str) -> str:
    if "\\" not in text:
        return text
    return _ESCAPE.sub(
        lambda m: chr(int(m[1] or m[2], 16)) if m[3] is None else _ESCAPED.get(m[3], m[3]), text
    )


def _id(token: str) -> str:
    """Return the id of a token: an IRI without its brackets; a literal with its quotes and its language."""
    if token[0] == "<":
        return _unescaped(token[1:-1])
    if token[0] == '"':
        language = (_PARTS.fullmatch(token) or ["", "", ""])[2]
        return f'"{_text(token)}"{f"@{language.lower()}" if language else ""}'
    return token


def _names(tokens: list[str], head: npt.NDArray[np.integer], tail: npt.NDArray[np.integer]) -> dict[str, str]:
    """Return the names of nodes: of several the first without a language, or in English, or any."""
    rank: dict[int, tuple[int, str]] = {}
    for node, name in zip(head.tolist(), tail.tolist(), strict=True):
        parts = _PARTS.fullmatch(tokens[name])
        language = (parts[2] or "") if parts else ""
        order = 0 if not language else 1 if language.lower().split("-")[0] == "en" else 2
        if node not in rank or order < rank[node][0]:
            rank[node] = order, _text(tokens[name])
    return {_id(tokens[node]): name for node, (_, name) in rank.items() if name.strip()}
