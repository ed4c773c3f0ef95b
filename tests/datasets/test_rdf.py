"""Triples of N-Triples and Turtle, compared with what is written in them."""

import gzip

import pytest

from mgwa_pyg.datasets import RawDataError
from mgwa_pyg.datasets.rdf import name_of, read_rdf

XSD = "http://www.w3.org/2001/XMLSchema#"
LABEL = "<http://www.w3.org/2000/01/rdf-schema#label>"
GRAPH = rf"""# A comment.
<http://x/a> <http://x/by> <http://x/b>.
  <http://x/a>	<http://x/by>	_:b1 . # Another.

_:b1 <http://x/says> "two \"words\", a \\ and a # .\n\u00e9\U0001F600" .
<http://x/caf\u00e9> <http://x/is> "Rock"@EN-gb .
<http://x/café> <http://x/is> "Rock" .
<http://x/a> <http://x/is> "Rock"^^<{XSD}string> .
<http://x/a> <http://x/born> "1985"^^<{XSD}gYear> .
<http://x/a> {LABEL} "Ah"@de .
<http://x/a> {LABEL} "A"@en .
<http://x/b> {LABEL} "B" .
"""
TRIPLES = {
    ("http://x/a", "http://x/by", "http://x/b"),
    ("http://x/a", "http://x/by", "_:b1"),
    ("_:b1", "http://x/says", '"two "words", a \\ and a # .\n\u00e9\U0001f600"'),
    ("http://x/café", "http://x/is", '"Rock"@en-gb'),
    ("http://x/café", "http://x/is", '"Rock"'),
    ("http://x/a", "http://x/is", '"Rock"'),
}


def read(path, text, suffix=".nt"):
    path.write_text(text)
    found = read_rdf(path, suffix)
    columns = zip(found.head.tolist(), found.relation.tolist(), found.tail.tolist(), strict=True)
    return found, [(found.ids[h], found.relations[r], found.ids[t]) for h, r, t in columns]


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_n_triples_are_what_is_written(tmp_path, end):
    found, triples = read(tmp_path / "kg.nt", GRAPH.replace("\n", end))
    assert set(triples) == TRIPLES
    assert len(triples) == len(TRIPLES)
    assert len(set(found.ids)) == len(found.ids)
    assert found.names == {"http://x/a": "A", "http://x/b": "B"}
    assert found.left_out == 1


def test_a_packed_file_is_the_same(tmp_path):
    found, _ = read(tmp_path / "kg.nt", GRAPH)
    (tmp_path / "kg.nt.gz").write_bytes(gzip.compress(GRAPH.encode()))
    again = read_rdf(tmp_path / "kg.nt.gz", ".nt")
    assert (again.ids, again.names) == (found.ids, found.names)
    (tmp_path / "kg.nt.gz").write_bytes(gzip.compress(GRAPH.encode())[:-20])
    with pytest.raises(RawDataError, match=r"kg.nt.gz': it is a damaged archive"):
        read_rdf(tmp_path / "kg.nt.gz", ".nt")


@pytest.mark.parametrize(
    "line",
    [
        "<http://x/a> <http://x/by> <http://x/b>",
        "<http://x/a> <http://x/by> .",
        "http://x/a http://x/by http://x/b .",
        "<http://x/a> _:by <http://x/b> .",
        '"a" <http://x/by> <http://x/b> .',
        "<http://x/a b> <http://x/by> <http://x/b> .",
        '<http://x/a> <http://x/by> "b .',
        '<http://x/a> <http://x/by> "b\\q" .',
        "<http://x/a> <http://x/by> <http://x/b> . <http://x/c>",
        "a\tby\tb",
    ],
)
def test_a_line_that_is_no_triple_is_named(tmp_path, line):
    with pytest.raises(RawDataError, match=r"kg.nt', line 14: .* is no triple of N-Triples"):
        read(tmp_path / "kg.nt", f"{GRAPH}\n{line}\n{GRAPH}")


def test_without_a_triple_there_is_no_graph(tmp_path):
    for text in ("", "# Nothing.\n\n"):
        with pytest.raises(RawDataError, match="it has no triple"):
            read(tmp_path / "kg.nt", text)


@pytest.mark.tables
def test_turtle_says_the_same(tmp_path):
    turtle = """@prefix x: <http://x/> . @prefix rdfs: <http://www.w3.org/2000/01/rdf-schema#> .
        x:a x:by x:b , [ x:says "word" ] ; rdfs:label "A"@en ; x:born 1985 .
    """
    results = [read(tmp_path / "kg.ttl", turtle, ".ttl") for _ in range(2)]
    (found, triples), (_, again) = results
    assert set(triples) == {
        ("http://x/a", "http://x/by", "http://x/b"),
        ("http://x/a", "http://x/by", "_:b0"),
        ("_:b0", "http://x/says", '"word"'),
    }
    assert triples == again
    assert (found.names, found.left_out) == ({"http://x/a": "A"}, 1)
    with pytest.raises(RawDataError, match=r"kg.ttl', line 2: it is no Turtle"):
        read(tmp_path / "kg.ttl", "<http://x/a>\n  by <http://x/b> .", ".ttl")
    with pytest.raises(RawDataError, match=r"kg.ttl': the triple '<x:c> .*' is the end of another one"):
        read(tmp_path / "kg.ttl", "<x:a> <x:b> <<( <x:c> <x:d> <x:e> )>> .", ".ttl")


def test_what_has_no_name_is_called_by_the_end_of_its_id():
    names = {
        "http://dbpedia.org/resource/Rock%20music": "Rock music",
        "http://x.org/band#it": "it",
        "urn:isbn:1": "urn:isbn:1",
        '"two words"@en': "two words",
        "m.0b1": "m.0b1",
        "_:b7": "_:b7",
        7: "7",
    }
    assert {id_: name_of(id_) for id_ in names} == names
