"""Tables of a user's own: any order is right, and whatever is wrong is named with its row."""

from fractions import Fraction

import numpy as np
import pandas as pd
import pytest
import torch

from mgwa_pyg.datasets import KGRecDataset, KGRecTables
from mgwa_pyg.datasets.schema import check_data

LINKS, KG = ("user", "listens", "entity"), ("entity", "kg", "entity")
USERS, ITEMS, ENTITIES, RELATIONS = 12, 20, 30, 3
GENERATOR = np.random.default_rng(0)
PAIRS = np.array(
    [(user, item) for user in range(USERS - 1) for item in sorted(GENERATOR.choice(ITEMS, 5, replace=False))]
)
TRIPLES = np.stack([GENERATOR.integers(size, size=40) for size in (ENTITIES, RELATIONS, ENTITIES)], axis=1)


class OwnKG(KGRecDataset):
    """The tables that are given, changed."""

    def __init__(self, root=None, pool="items", split="random", seed=0, **tables):
        self.tables = {
            "positives": PAIRS, "triples": TRIPLES, "num_users": USERS, "num_entities": ENTITIES,
            "item_names": [f"song {i}" for i in range(ITEMS)], "relation_names": ["a", "b", "c"], **tables,
        }  # fmt: skip
        super().__init__(root, pool, seed, split)

    def build(self):
        return KGRecTables(**self.tables)


def rows(dataset, label):
    """The pairs with this label and the part of each, in their order."""
    links = dataset[0][LINKS]
    part = links.val_mask.int() + 2 * links.test_mask
    assert (links.train_mask.int() + links.val_mask + links.test_mask == 1).all()
    is_it = links.edge_label == label
    return list(
        zip(map(tuple, links.edge_label_index[:, is_it].t().tolist()), part[is_it].tolist(), strict=True)
    )


@pytest.mark.parametrize("pool", ["items", "entities"])
def test_any_order_and_any_number_of_times(pool):
    sorted_ones = OwnKG(pool=pool)
    log = np.concatenate([PAIRS, PAIRS[::3], PAIRS[:7]])
    for seed in range(3):
        dataset = OwnKG(pool=pool, positives=np.random.default_rng(seed).permutation(log))
        check_data(dataset, dataset[0])
        assert dataset.num_interactions == len(PAIRS)
        for label in (0, 1):
            assert rows(dataset, label) == rows(sorted_ones, label)
        positives = [pair for pair, _ in rows(dataset, 1)]
        drawn = [pair for pair, _ in rows(dataset, 0)]
        assert positives == list(map(tuple, PAIRS.tolist()))
        assert not set(positives) & set(drawn)
        assert len(set(drawn)) == len(drawn) == len(PAIRS)


def test_parts_and_negatives_go_with_their_pairs():
    generator = np.random.default_rng(1)
    parts = generator.integers(3, size=len(PAIRS))
    free = [sorted(set(range(ENTITIES)) - set(PAIRS[PAIRS[:, 0] == user, 1])) for user in range(USERS)]
    negatives = np.array(
        [
            (user, entity)
            for user in range(USERS - 1)
            for entity in generator.choice(free[user], 5, replace=False)
        ]
    )
    # Some pairs come twice, and then with a negative that nobody has yet, which goes with the repetition.
    order = generator.permutation(np.r_[: len(PAIRS), : len(PAIRS) : 6])
    given = negatives[order]
    for row in np.flatnonzero(pd.Series(order).duplicated()):
        user = order[row] // 5
        taken = given[given[:, 0] == user, 1].tolist() + negatives[negatives[:, 0] == user, 1].tolist()
        given[row, 1] = next(entity for entity in free[user] if entity not in taken)
    # Users may take turns in another order in the negatives.
    by_user = given[np.argsort(-given[:, 0], kind="stable")]
    dataset = OwnKG(positives=PAIRS[order], positive_parts=parts[order], negatives=by_user)
    check_data(dataset, dataset[0])
    assert rows(dataset, 1) == [
        (tuple(pair), part) for pair, part in zip(PAIRS.tolist(), parts.tolist(), strict=True)
    ]
    assert rows(dataset, 0) == [
        (tuple(pair), part) for pair, part in zip(negatives.tolist(), parts.tolist(), strict=True)
    ]


@pytest.mark.parametrize(
    "as_given",
    [
        np.asarray, np.ndarray.tolist, torch.from_numpy, pd.DataFrame, lambda x: x.astype(np.int8),
        lambda x: x.astype(np.uint64), lambda x: x.astype(float), lambda x: x.astype(object),
        np.asfortranarray, lambda x: np.repeat(x, 2, axis=0)[::2], lambda x: list(map(tuple, x)),
        lambda x: x.astype(np.float16), lambda x: pd.DataFrame(x).astype("Int64"),
    ],
)  # fmt: skip
def test_whole_numbers_of_any_kind(as_given):
    dataset, wanted = OwnKG(positives=as_given(PAIRS), triples=as_given(TRIPLES)), OwnKG()
    assert dataset.fingerprint == wanted.fingerprint
    assert dataset[0][KG].edge_index.dtype == torch.int64


def test_the_tables_are_left_as_they_are():
    log = PAIRS[::-1].copy()
    parts = np.zeros(len(log), dtype=np.int8)
    before = log.copy()
    dataset = OwnKG(positives=log, positive_parts=parts)
    dataset[0][LINKS].edge_label_index.zero_()
    assert np.array_equal(log, before)
    assert not parts.any()


def test_no_triples():
    for triples in ([], np.empty((0, 3)), np.empty((0, 3), dtype=int)):
        assert OwnKG(triples=triples)[0][KG].edge_index.shape == (2, 0)


def put(table, row, column, value):
    """A copy with another value, of its type where that can hold it."""
    kind = float if isinstance(value, float) else (object if not isinstance(value, int) else table.dtype)
    table = table.astype(kind)
    table[row, column] = value
    return table


NEGATIVES = np.array(
    [
        (user, entity)
        for user in range(USERS - 1)
        for entity in [e for e in range(ITEMS) if e not in PAIRS[PAIRS[:, 0] == user, 1]][:5]
    ]
)
PARTS = np.zeros(len(PAIRS), dtype=int)


@pytest.mark.parametrize(
    ("tables", "message"),
    [
        ({"positives": put(PAIRS, 5, 1, 20)}, r"positives\[5\] has the item 20, .* from 0 to 19 is"),
        ({"positives": put(PAIRS, 5, 1, -1)}, r"positives\[5\] has the item -1"),
        ({"positives": put(PAIRS, 6, 0, 12)}, r"positives\[6\] has the user 12, .* as num_users is 12"),
        ({"positives": put(PAIRS, 5, 1, np.nan)}, r"positives\[5\] has the item nan"),
        ({"positives": put(PAIRS, 5, 1, np.inf)}, r"positives\[5\] has the item inf"),
        ({"positives": put(PAIRS, 5, 1, 2.5)}, r"positives\[5\] has the item 2.5"),
        ({"positives": put(PAIRS, 5, 1, "3")}, r"positives\[5\] has '3', which is no whole number"),
        ({"positives": put(PAIRS, 5, 1, None)}, r"positives\[5\] has None"),
        ({"positives": pd.DataFrame(put(PAIRS, 5, 1, pd.NA))}, r"positives\[5\] has <NA>"),
        ({"positives": PAIRS.astype(str)}, r"positives\[0\] has '0'"),
        ({"positives": PAIRS > 3}, r"positives\[0\] has False"),
        ({"positives": PAIRS.astype(complex)}, r"positives\[0\] has 0j"),
        ({"positives": PAIRS.astype(np.uint64) + 2**63}, r"positives\[0\] has the user 9223372036854775808"),
        ({"positives": PAIRS.T}, r"positives has shape \(2, 55\), but \(num_rows, 2\) is needed: user, item"),
        ({"positives": PAIRS.ravel()}, r"positives has shape \(110,\)"),
        ({"positives": np.c_[PAIRS, PAIRS]}, r"positives has shape \(55, 4\)"),
        ({"positives": [[0, 1], [2]]}, "positives has rows of several lengths"),
        ({"positives": None}, r"positives\[0\] has None"),
        ({"positives": "pairs"}, r"positives\[0\] has 'pairs'"),
        ({"positives": []}, "positives has no row"),
        ({"positives": put(PAIRS.astype(object), 5, 1, 2**64)}, r"positives\[5\] has \d+, .* beyond 64 bits"),
        ({"positives": put(PAIRS, 5, 1, Fraction(1, 2))}, r"positives\[5\] has Fraction\(1, 2\)"),
        ({"positives": np.ma.masked_equal(PAIRS, PAIRS[5, 1])}, r"positives\[\d\] has None"),
        ({"positives": pd.DataFrame(PAIRS).to_records(index=False)}, "positives has the fields"),
        ({"positives": torch.tensor(PAIRS).bfloat16()}, r"positives .* torch.bfloat16, of which NumPy makes"),
        ({"positives": torch.tensor(PAIRS).to_sparse()}, r"positives has shape \(55, 2\) .* Sparse"),
        ({"positives": torch.tensor(PAIRS, device="meta")}, r"positives has shape \(55, 2\) .* no data"),
        ({"triples": TRIPLES.astype(np.float16), "num_entities": 2049}, "type float16, .* below 2049"),
        ({"entity_names": ["a"] * ENTITIES}, r"entity_names\[0\]='a', but .* item_names\[0\]='"),
        ({"triples": put(TRIPLES, 4, 2, 30)}, r"triples\[4\] has the tail 30, .* as num_entities is 30"),
        ({"triples": put(TRIPLES, 4, 0, -1)}, r"triples\[4\] has the head -1"),
        ({"triples": put(TRIPLES, 4, 1, 3)}, r"triples\[4\] has the relation 3, .* of relation_names is 3"),
        ({"triples": TRIPLES[:, :2]}, r"triples has shape \(40, 2\), but \(num_rows, 3\)"),
        ({"num_users": 0}, "num_users=0: a whole number"),
        ({"num_users": 12.0}, "num_users=12.0: a whole number"),
        ({"num_entities": 19}, "num_entities=19: at least the 20 items are entities"),
        ({"item_names": []}, "the number of item_names=0: a whole number of at least 1"),
        ({"item_names": ["a"] * 3}, r"positives\[\d+\] has the item \d+, but .* number of item_names is 3"),
        ({"relation_names": []}, r"triples\[0\] has the relation"),
        ({"positive_parts": ["train"] * 55}, r"positive_parts\[0\] has 'train'"),
        ({"positive_parts": [*PARTS[:-1], 3]}, r"positive_parts\[54\] has the part .* 3, .* from 0 to 2"),
        ({"positive_parts": [*PARTS[:-1], -1]}, r"positive_parts\[54\] has the part .* -1"),
        ({"positive_parts": PARTS[1:]}, "positive_parts has 54 rows, but positives 55"),
        ({"positive_parts": np.c_[PARTS, PARTS]}, r"positive_parts has shape \(55, 2\), but \(num_rows,\)"),
        (
            {"positives": np.r_[PAIRS, PAIRS[3:4]], "positive_parts": np.r_[PARTS, 2]},
            r"positives\[55\] is user 0 and item \d+, as is row 3, but positive_parts has 2 for one and 0",
        ),
        ({"negatives": put(NEGATIVES, 7, 1, 30)}, r"negatives\[7\] has the entity 30"),
        ({"negatives": NEGATIVES[1:]}, "negatives has 4 rows of user 0, but positives 5"),
        ({"negatives": put(NEGATIVES, 7, 0, 4)}, "negatives has 4 rows of user 1, but positives 5"),
        ({"negatives": put(NEGATIVES, 7, 1, int(PAIRS[5, 1]))}, r"negatives\[7\] has the entity .* a pos"),
        ({"negatives": put(NEGATIVES, 7, 1, int(NEGATIVES[5, 1]))}, r"negatives\[7\] has .* earlier row"),
        ({"negatives": np.empty((0, 2))}, "negatives has 0 rows of user 0"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named_with_its_row(tmp_path, tables, message):
    with pytest.raises(ValueError, match=message):
        OwnKG(tmp_path, **tables)
    assert not list(tmp_path.iterdir())


def test_something_else_than_tables(tmp_path):
    class Forgetful(KGRecDataset):
        def build(self):
            return {"positives": PAIRS}

    with pytest.raises(
        TypeError, match=r"build\(\) returned {'positives': [\s\S]* but KGRecTables are needed"
    ):
        Forgetful(tmp_path)


@pytest.mark.parametrize("split", ["random", "given"])
def test_users_with_more_than_half_of_the_items(split):
    count = [20, 13, 10, 3]
    pairs = [(user, item) for user, most in enumerate(count) for item in range(most)]
    ids = ["all", "many", "half", "few"]
    given = {"positive_parts": [item % 3 for _, item in pairs]} if split == "given" else {}
    message = "User 'all' has 20 of the 20 items .* the 0 that are left, .* and so do 1 other users"
    with pytest.warns(UserWarning, match=message) as caught:
        dataset = OwnKG(positives=pairs, num_users=4, user_ids=ids, **given)
    assert len(caught) == 1
    check_data(dataset, dataset[0])
    negatives = rows(dataset, 0)
    assert [sum(user == one for (user, _), _ in negatives) for one in range(4)] == [0, 7, 10, 3]
    assert not {pair for pair, _ in negatives} & set(pairs)
    if split == "given":  # The k-th negative follows the k-th positive.
        assert [part for _, part in negatives] == [k % 3 for most in (7, 10, 3) for k in range(most)]
    # The positives' parts are the same, whatever the negatives are drawn from.
    with pytest.warns(UserWarning, match="User 'all' has 20 of the 30 entities"):
        others = OwnKG(positives=pairs, num_users=4, user_ids=ids, pool="entities", **given)
    assert rows(others, 1) == rows(dataset, 1)


def test_a_split_by_user():
    counts = [1, 2, 10, 15, 40]
    pairs = [(user, item) for user, count in enumerate(counts) for item in range(count)]
    names = [f"song {i}" for i in range(100)]
    given = {"positives": pairs, "item_names": names, "num_users": 5, "num_entities": 120}
    dataset = OwnKG(split="per_user", **given)
    check_data(dataset, dataset[0])
    positives, negatives = (rows(dataset, label) for label in (1, 0))
    # The k-th negative follows the k-th positive.
    assert [(user, part) for (user, _), part in positives] == [(user, part) for (user, _), part in negatives]
    parts = [[part for (user, _), part in positives if user == one] for one in range(5)]
    assert parts[0] == [0]
    assert 0 in parts[1]
    assert [[part.count(held) for held in (1, 2)] for part in (parts[2], parts[4])] == [[1, 1], [4, 4]]
    assert all(1 <= parts[3].count(held) <= 2 for held in (1, 2))
    # The seed alone tells where positives are, not what negatives are drawn from.
    assert rows(OwnKG(split="per_user", pool="entities", **given), 1) == positives
    assert rows(OwnKG(split="per_user", seed=1, **given), 1) != positives
    assert "-per_user-" in dataset.processed_file_names
