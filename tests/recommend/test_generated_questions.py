"""Whatever is asked of a recommender, the answer is right or an error of ours names the argument."""

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

LIMITS = settings(
    max_examples=1000,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
NUMBERS = st.integers(-3, 40) | st.sampled_from(
    [np.int32(4), np.uint8(29), True, 2**70, -(2**63), torch.tensor(5), torch.tensor([5]), torch.tensor(True)]
)
IDS = st.integers(-3, 40).map(str)
JUNK = st.one_of(
    st.none(),
    st.floats(allow_nan=True),
    st.text(max_size=4),
    st.binary(max_size=3),
    st.just(object()),
    st.dictionaries(st.integers(0, 40), st.none(), max_size=3),
)
NAMES = st.integers(-1, 31).map("item {}".format) | st.sampled_from(["ITEM 3", " item 4 ", "item", ""])
ITEMS = NUMBERS | IDS | NAMES | JUNK
LISTS = st.lists(NUMBERS | IDS | NAMES, max_size=6) | st.lists(ITEMS, max_size=3) | ITEMS
WORDS = {"user": ("user",), "users": ("user",), "item": ("item",), "items": ("item",), "k": ("k=",)}


def ask(question, arguments):
    """The answer, or None where an error says which argument is wrong."""
    try:
        return question(**arguments)
    except (TypeError, ValueError, IndexError) as error:
        message = str(error)
    assert any(word in message for name in arguments for word in WORDS[name]), message
    return None


def item_number(item):
    """What an item stands for, if anything, by the rules of the documentation."""
    if isinstance(item, str):
        name = item.casefold().strip()
        return next((number for number in range(30) if name == f"item {number}" or item == str(number)), None)
    return int(item) if is_number(item, 0, 30) else None


def is_number(value, low, stop):
    if isinstance(value, torch.Tensor):
        return value.dim() == 0 and value.dtype == torch.long and low <= value < stop
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool) and low <= value < stop


def is_user(value):
    return is_number(value, 0, 20) or (isinstance(value, str) and value in map(str, range(20)))


def is_list(value):
    if isinstance(value, torch.Tensor):
        return value.dim() > 0
    return hasattr(value, "__iter__") and not isinstance(value, (str, bytes, dict))


def check_table(table, k, left_out):
    assert table["rank"].tolist() == list(range(1, len(table) + 1))
    assert len(table) == min(k, 30 - len(left_out))
    assert not set(table["item"]) & left_out
    assert np.isfinite(table["score"]).all()
    assert table["score"].is_monotonic_decreasing


@pytest.fixture(params=["mgwa", "collaborative"])
def asked(request, make_recommender, data):
    listens = data[0]["user", "listens", "entity"]
    heard = {user: set() for user in range(20)}
    for user, item in listens.edge_label_index[:, listens.edge_label == 1].t().tolist():
        heard[user].add(item)
    return make_recommender(request.param), heard


@LIMITS
@given(user=NUMBERS | IDS | JUNK, k=NUMBERS | JUNK)
def test_recommend(asked, user, k):
    recommender, heard = asked
    table = ask(recommender.recommend, {"user": user, "k": k})
    assert (table is None) == (not (is_user(user) and is_number(k, 1, float("inf"))))
    if table is not None:
        check_table(table, int(k), heard[int(user)])


@LIMITS
@given(
    users=st.lists(NUMBERS | IDS | JUNK, max_size=3) | st.lists(st.integers(0, 19), max_size=5) | JUNK,
    k=NUMBERS,
)
def test_recommend_batch(asked, users, k):
    recommender, heard = asked
    table = ask(recommender.recommend_batch, {"users": users, "k": k})
    users = range(20) if users is None else users  # All of them.
    good = is_list(users) and all(is_user(user) for user in users) and is_number(k, 1, float("inf"))
    assert (table is None) == (not good)
    if table is not None:
        assert len(table) == sum(min(int(k), 30 - len(heard[int(user)])) for user in users)


@LIMITS
@given(items=LISTS, k=st.integers(-1, 33))
def test_recommend_for(asked, items, k):
    recommender, _ = asked
    table = ask(recommender.recommend_for, {"items": items, "k": k})
    numbers = [item_number(item) for item in items] if is_list(items) else []
    assert (table is None) == (not numbers or None in numbers or not is_number(k, 1, float("inf")))
    if table is not None:
        check_table(table, k, set(numbers))


@LIMITS
@given(item=ITEMS, k=st.integers(-1, 33) | JUNK)
def test_similar_items(asked, item, k):
    recommender, _ = asked
    table = ask(recommender.similar_items, {"item": item, "k": k})
    assert (table is None) == (item_number(item) is None or not is_number(k, 1, float("inf")))
    if table is not None:
        check_table(table, k, {item_number(item)})


@LIMITS
@given(user=LISTS | IDS | st.integers(0, 19), item=ITEMS)
def test_explain(asked, user, item):
    recommender, _ = asked
    why = ask(recommender.explain, {"user": user, "item": item})
    numbers = [item_number(heard) for heard in user] if is_list(user) else []
    known = is_user(user) or (bool(numbers) and None not in numbers)
    assert (why is None) == (not known or item_number(item) is None)
    if why is not None:
        assert abs(why.parts["score"].sum() - why.score) < 1e-9
        assert np.isfinite(why.score)
        assert why.name in str(why)
