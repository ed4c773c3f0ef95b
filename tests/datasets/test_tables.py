"""Steps from raw tables to indices, beside dictionaries and sets."""

import numpy as np
import pytest

from mgwa_pyg.datasets.tables import distinct_pairs, index_pairs, number_triples


def test_pairs():
    generator = np.random.default_rng(0)
    user, item = generator.integers(5, size=60), generator.integers(7, size=60)
    pairs = distinct_pairs(user, item, 7)
    assert pairs.tolist() == [
        list(pair) for pair in sorted(set(zip(user.tolist(), item.tolist(), strict=True)))
    ]
    row = index_pairs(pairs, 7).get_indexer(user * 7 + item)
    assert np.array_equal(pairs[row], np.stack([user, item], axis=1))


@pytest.mark.parametrize("kind", [int, str, "mixed"])
def test_triples(kind):
    def name(number):
        return str(number) if kind is str or (kind == "mixed" and number >= 4) else int(number)

    generator = np.random.default_rng(1)
    heads, tails = generator.integers(20, size=(2, 50)).tolist()
    relations = [f"r{r}" for r in generator.integers(6, size=50)]
    dtype = np.int64 if kind is int else object
    first = np.array([name(i) for i in (3, 0, 2)], dtype=dtype)
    head, tail = (np.array([name(i) for i in ids], dtype=dtype) for ids in (heads, tails))
    tables = number_triples(head, np.array(relations, dtype=object), tail, first, ["a", "b", "c"])

    entity_of, relation_of, expected = {3: 0, 0: 1, 2: 2}, {}, []
    for h, r, t in zip(heads, relations, tails, strict=True):
        h, t = (entity_of.setdefault(i, len(entity_of)) for i in (h, t))
        expected.append([h, relation_of.setdefault(r, len(relation_of)), t])
    assert tables["triples"].tolist() == expected
    assert tables["num_entities"] == len(entity_of)
    assert tables["item_names"] == ["a", "b", "c"]
    assert tables["entity_names"] == ["a", "b", "c", *(f"entity {number}" for number in list(entity_of)[3:])]
    assert tables["relation_names"] == list(relation_of)
