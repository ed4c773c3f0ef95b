"""Recommendations against sorting all scores, newcomers against graphs and fits made the long way."""

import copy
import json
import subprocess
import sys
import warnings
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.optimize import minimize
from torch_geometric.explain.algorithm import GNNExplainer

from mgwa_pyg.datasets import SyntheticKG
from mgwa_pyg.ops import RelationCSR
from mgwa_pyg.recommend import Recommender
from mgwa_pyg.recommenders import CollaborativeRecommender
from mgwa_pyg.sampler import NeighborSampler
from mgwa_pyg.train import MGWAConfig, fit

HEARD = [3, 8, 21]


def ranked(score, left_out, k):
    """The best items by a plain sort: the highest score first, then the lowest number."""
    order = sorted((item for item in range(len(score)) if item not in left_out), key=lambda i: (-score[i], i))
    return order[:k]


def heard_by(data, user, parts=("train", "val", "test")):
    listens = data[0]["user", "listens", "entity"]
    heard = set()
    for part in parts:
        rows = zip(
            *listens.edge_label_index.tolist(), listens.edge_label, listens[f"{part}_mask"], strict=True
        )
        heard |= {item for u, item, label, inside in rows if u == user and label == 1 and inside}
    return heard


@pytest.mark.smoke
def test_recommends_the_best_that_the_user_has_not_heard(recommender, data, make_model_of, kind):
    # Sampled neighbourhoods of deep models are no oracle; the whole graph, in single precision, is.
    trained = make_model_of(kind)
    with torch.no_grad():
        want = trained.score_all(torch.arange(data.num_users)).double()
    for user in range(data.num_users):
        known = heard_by(data, user, ["train"])
        got = recommender.recommend(user, k=7, include_held_out=True)
        assert got["item"].tolist() == ranked(want[user].tolist(), known, 7)
        got = recommender.recommend(user, k=7)
        assert known < heard_by(data, user)
        assert list(got.columns) == ["rank", "item", "name", "score"]
        assert got["rank"].tolist() == list(range(1, 8))
        assert got["item"].tolist() == ranked(want[user].tolist(), heard_by(data, user), 7)
        assert got["name"].tolist() == [data.item_names[item] for item in got["item"]]
        np.testing.assert_allclose(got["score"], want[user, got["item"].tolist()], rtol=1e-4, atol=1e-4)


def test_a_batch_is_its_users_one_by_one(recommender, data):
    users = [4, 0, 4, 19]
    recommender._model.users_at_once = 3
    got = recommender.recommend_batch(users, k=5)
    assert got["user"].tolist() == [user for user in users for _ in range(5)]
    for number, user in enumerate(users):
        part = got.iloc[5 * number : 5 * number + 5].drop(columns="user").reset_index(drop=True)
        want = recommender.recommend(user, k=5)
        assert part["item"].tolist() == want["item"].tolist()
        np.testing.assert_allclose(part["score"], want["score"], rtol=1e-12)
    with_held_out = recommender.recommend_batch(users, k=5, include_held_out=True)
    want = [recommender.recommend(user, k=5, include_held_out=True)["item"].tolist() for user in users]
    assert with_held_out["item"].tolist() == [item for items in want for item in items]
    longer = [recommender.recommend_batch(users, k=15, include_held_out=held) for held in (False, True)]
    assert not longer[0]["item"].equals(longer[1]["item"])
    for none in (recommender.recommend_batch([], k=5), recommender.recommend_batch(torch.empty(0), k=5)):
        assert len(none) == 0
        assert none.dtypes.equals(got.dtypes)


def test_what_is_left_is_all_that_is_returned(recommender, data):
    user = max(range(data.num_users), key=lambda user: len(heard_by(data, user)))
    got = recommender.recommend(user, k=data.num_items)
    assert sorted([*got["item"], *heard_by(data, user)]) == list(range(data.num_items))
    got = recommender.recommend_for(range(1, data.num_items), k=5)
    assert got["item"].tolist() == [0]
    none = recommender.recommend_for(range(data.num_items), k=5)
    assert len(none) == 0
    assert none.dtypes.equals(got.dtypes)
    got = recommender.recommend_batch([user, user], k=data.num_items)
    assert len(got) == 2 * (data.num_items - len(heard_by(data, user)))
    for k in (31, 10**30):  # More than there are.
        assert recommender.recommend(user, k=k).equals(recommender.recommend(user, k=30))
        assert recommender.recommend_batch([user, 0], k=k).equals(
            recommender.recommend_batch([user, 0], k=30)
        )
        assert recommender.recommend_for([3], k=k).equals(recommender.recommend_for([3], k=30))
        assert len(recommender.similar_items(3, k=k)) == 29


@pytest.mark.parametrize("kind", ["mgwa", "ripplenet", "collaborative"])
def test_only_candidates_that_are_not_excluded(recommender, data):
    def among(table, allowed, k):
        """The first rows of the whole ranking whose items are allowed."""
        kept = table[table["item"].isin(allowed)].groupby("user").head(k)
        return kept["item"].tolist(), pytest.approx(kept["score"].tolist(), rel=1e-12)

    def of(table):
        return table["item"].tolist(), table["score"].tolist()

    stock, gone = [2, 3, 5, 7, 11, 13, 17, 19, 23, 29], [5, 6, 7]
    mask = np.isin(np.arange(data.num_items), stock)
    allowed = sorted({*stock} - {*gone})
    everybody = recommender.recommend_batch(k=data.num_items)
    assert everybody["user"].unique().tolist() == list(range(data.num_users))
    series = pd.Series(mask).sort_values()  # Its index says what is meant, whatever the order.
    forms = [stock, [data.item_names[item] for item in stock], mask, torch.tensor(mask), series]
    for form in [*forms, series.astype("boolean"), series[series].rename(str)]:
        got = recommender.recommend_batch(k=4, candidates=form, exclude=gone)
        assert of(got) == among(everybody, allowed, 4)
    for user in (0, 9):
        got = recommender.recommend(user, k=20, candidates=stock, exclude=gone)
        assert of(got) == among(everybody[everybody["user"] == user], allowed, 20)
        assert len(got) <= len(allowed)  # Fewer than k, where no more are left.
    assert len(recommender.recommend(0, candidates=[])) == 0
    assert len(recommender.recommend(0, exclude=~mask, candidates=~mask)) == 0
    assert recommender.recommend(0, candidates=range(30), exclude=[]).equals(recommender.recommend(0))
    held = recommender.recommend(0, 30, include_held_out=True)
    got = recommender.recommend(0, 30, include_held_out=True, exclude=~mask)["item"].tolist()
    assert got == [item for item in held["item"] if item in stock]
    for ask in (recommender.recommend_for, recommender.similar_items):
        what = HEARD if ask == recommender.recommend_for else 3
        want = [item for item in ask(what, k=30)["item"] if item in allowed][:4]
        assert ask(what, k=4, candidates=stock, exclude=gone)["item"].tolist() == want


@pytest.mark.parametrize("kind", ["mgwa"])
def test_wrong_candidates_are_named(recommender):
    with pytest.raises(ValueError, match=r"candidates is a mask of the shape \(29,\), but \(30,\) is needed"):
        recommender.recommend(0, candidates=torch.ones(29, dtype=torch.bool))
    with pytest.raises(TypeError, match=r"exclude='item 3': pass a list"):
        recommender.recommend(0, exclude="item 3")
    with pytest.raises(IndexError, match=r"^exclude: item=30: whole numbers from 0 to 29"):
        recommender.recommend_for([1], exclude=[30])
    series = pd.Series([True, None], index=[3, 4], dtype="boolean")
    with pytest.raises(ValueError, match=r"candidates\[4\] is missing: True or False is needed"):
        recommender.recommend(0, candidates=series)
    with pytest.raises(ValueError, match=r"'nobody'.* 2 of the 3 are no items of the data: leave them out$"):
        recommender.recommend(0, candidates=[0, "nobody", "no one"])
    with pytest.raises(ValueError, match=r"^candidates\.index, by which .* goes: no item is called 'nobody'"):
        recommender.recommend(0, candidates=pd.Series([True], index=["nobody"]))
    for table in (pd.DataFrame({"item": [3]}), {3: False}):
        with pytest.raises(TypeError, match=rf"candidates is a {type(table).__name__}: pass a list"):
            recommender.recommend(0, candidates=table)
    with pytest.raises(TypeError, match="item=True: an id or a name is needed"):
        recommender.similar_items(1, candidates=[True] * 30)


@pytest.mark.parametrize("kind", ["mgwa"])
def test_it_says_what_it_is(make_model_of, kind):
    assert repr(Recommender(make_model_of(kind))) == f"Recommender(model={kind!r}, users=20, items=30)"


@pytest.mark.parametrize("kind", ["mgwa"])
def test_data_that_a_transform_draws_at_random_are_read_once(make_model_of, data, kind):
    def shuffled(data):
        reads.append(data)
        generator = torch.Generator().manual_seed(len(reads))
        order = torch.randperm(data["user", "listens", "entity"].edge_label.numel(), generator=generator)
        for name in ("edge_label_index", "edge_label", "train_mask", "val_mask", "test_mask"):
            value = data["user", "listens", "entity"][name]
            data["user", "listens", "entity"][name] = value[..., order]
        return data

    reads = []
    moving = copy.copy(data)
    moving.transform = shuffled
    recommender = Recommender(make_model_of(kind, moving))
    assert len(reads) == 1
    assert recommender.recommend(3).equals(Recommender(make_model_of(kind)).recommend(3))
    assert len(reads) == 1


@pytest.mark.parametrize("kind", ["mgwa", "ripplenet", "collaborative"])
def test_equal_scores_rank_by_number(make_model_of, data, kind):
    trained = make_model_of(kind)
    with torch.no_grad():
        for parameter in trained.model.parameters():
            parameter.zero_()
    recommender = Recommender(trained)
    for user in range(data.num_users):
        got = recommender.recommend(user, k=10)
        assert got["item"].tolist() == ranked([0.0] * data.num_items, heard_by(data, user), 10)
    got = recommender.recommend_for(HEARD, k=10)["item"].tolist()
    assert got == ranked([0.0] * data.num_items, HEARD, 10)


def test_a_newcomer_gets_the_same_by_names_and_in_any_order(recommender, data):
    got = recommender.recommend_for(HEARD, k=6)
    assert not set(got["item"]) & set(HEARD)
    names = [data.item_names[item] for item in HEARD]
    same_items = [names[::-1], [*HEARD, 3], np.array(HEARD), torch.tensor(HEARD), (item for item in HEARD)]
    for same in [*same_items, pd.Series(HEARD), {"3", "8", "21"}, list(torch.tensor(HEARD))]:
        assert recommender.recommend_for(same, k=6).equals(got)
    assert not recommender.recommend_for([1, 2], k=6)["score"].equals(got["score"])


def test_nothing_of_the_model_changes(recommender):
    model = recommender._model.model
    before = {name: value.clone() for name, value in model.state_dict().items()}
    recommender.recommend_for(HEARD)
    recommender.recommend(0)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert not any(parameter.requires_grad for parameter in model.parameters())


@pytest.mark.parametrize("kind", ["mgwa", "mgwa, 3 layers", "mgwa, ranking", "kgcn"])
def test_a_newcomers_vector_is_the_best_there_is(make_recommender, make_model_of, data, kind):
    """The smallest value of the loss, by scipy and pairs of a subgraph each."""
    recommender, model = make_recommender(kind), make_model_of(kind).model.double()
    kg = data[0]["entity", "kg", "entity"]
    edge_type = kg.rel_type % data.num_relations
    hood = NeighborSampler(kg.edge_index, edge_type, data.num_entities).sample(
        torch.arange(data.num_items), model.num_layers
    )
    trained = sorted(set(data[0]["user", "listens", "entity"].edge_index[0].tolist()))
    users = model.user_emb.weight[trained].detach().numpy()
    mean, variance = users.mean(axis=0), users.var(axis=0)
    label = np.isin(np.arange(data.num_items), HEARD)

    def scores(vector):
        with torch.no_grad():
            model.user_emb.weight[0] = torch.from_numpy(vector)
            return model(torch.zeros(data.num_items, dtype=torch.long), *hood).numpy()

    def loss(vector):
        score = scores(vector)
        if kind == "mgwa, ranking":
            value = sum(np.log1p(np.exp(score[~label] - positive)).mean() for positive in score[label])
        else:
            value = np.log1p(np.exp(-score[label])).sum()
            value += len(HEARD) * np.log1p(np.exp(score[~label])).mean()
        return value + ((vector - mean) ** 2 / variance).sum() / 2

    best = minimize(loss, mean, method="BFGS", options={"gtol": 1e-6})
    want = scores(best.x)
    got = recommender.recommend_for(HEARD, k=data.num_items)
    np.testing.assert_allclose(got["score"], want[got["item"]], rtol=2e-3, atol=2e-3)


@pytest.mark.parametrize(
    "kind", ["collaborative", "collaborative, gated", "collaborative, no attention"], scope="session"
)
def test_a_newcomer_hears_and_is_not_heard(make_recommender, make_model_of, data, kind):
    """A node more in the graph, with edges into it alone."""
    recommender, model = make_recommender(kind), make_model_of(kind).model.double()
    kg, listens = data[0]["entity", "kg", "entity"], data[0]["user", "listens", "entity"].edge_index
    graph = model.graph(listens, kg.edge_index, kg.rel_type, data.num_users + 1)
    edge_index, edge_type = graph.to_edge_index()
    into = torch.tensor([HEARD, [data.num_entities + data.num_users] * len(HEARD)])
    graph = RelationCSR.from_edge_index(
        torch.cat([edge_index, into], dim=1),
        torch.cat([edge_type, torch.full((len(HEARD),), 2 * data.num_relations + 1)]),
        2 * data.num_relations + 2,
        graph.size,
    )
    with torch.no_grad():
        z_user, z_entity = model.encode(graph)
    want = z_entity[: data.num_items] @ z_user[-1]
    got = recommender.recommend_for(HEARD, k=data.num_items)
    assert got["item"].tolist() == ranked(want.tolist(), HEARD, data.num_items)
    np.testing.assert_allclose(got["score"], want[got["item"].tolist()], rtol=1e-10)


def test_similar_items_are_those_of_the_best_scores(recommender, data):
    model = recommender._model
    vectors = model.item_vectors().numpy()
    assert vectors.shape[0] == data.num_items
    got = recommender.similar_items(5, k=9)
    if isinstance(model, CollaborativeRecommender):  # What somebody is recommended who has seen nothing else.
        known = model.model.entity_features(model.plan)[: data.num_items]
        popularity = (known @ model.model.entity_bias.weight[0]).numpy()
        alone = recommender.recommend_for([5], k=data.num_items).set_index("item")["score"]
        want = np.array([alone.get(item, -np.inf) for item in range(data.num_items)]) - popularity
    else:
        norms = np.linalg.norm(vectors, axis=1)
        want = vectors @ vectors[5] / norms / norms[5]
    assert got["item"].tolist() == ranked(want.tolist(), {5}, 9)
    np.testing.assert_allclose(got["score"], want[got["item"]], rtol=1e-9)
    assert recommender.similar_items(data.item_names[5], k=9).equals(got)


@pytest.mark.parametrize("kind", ["mgwa", "ripplenet", "collaborative"])
def test_answers_are_for_whom_the_files_call_so(make_model_of, make_recommender, own_data, kind):
    rows, recommender = make_recommender(kind), Recommender(make_model_of(kind, own_data))
    item_of = dict(enumerate(own_data.item_ids))
    for row in (0, 4, 19):
        want = rows.recommend(row, k=6)
        id_ = own_data.user_ids[row]
        for user in (id_, int(id_), np.int32(id_), torch.tensor([int(id_)])[0]):
            got = recommender.recommend(user, k=6)
            assert got["item"].tolist() == [item_of[item] for item in want["item"]]
            assert got.drop(columns="item").equals(want.drop(columns="item"))
        item = want["item"][0]
        why, wanted = recommender.explain(id_, got["item"][0]), rows.explain(row, item)
        assert (why.user, why.item, why.score) == (f"user {id_}", item_of[item], wanted.score)
    heard = [item_of[item] for item in HEARD]
    want = rows.recommend_for(HEARD, k=6)
    assert recommender.recommend_for(heard, k=6)["item"].tolist() == [item_of[item] for item in want["item"]]
    want = rows.similar_items(5, k=6)
    got = recommender.similar_items(torch.tensor(item_of[5]), k=6)
    assert got["item"].tolist() == [item_of[item] for item in want["item"]]
    assert got["name"].equals(want["name"])
    got = recommender.recommend_batch(["3", 0], k=2)
    assert got["user"].tolist() == ["3", "3", "0", "0"]
    assert got["name"].tolist() == rows.recommend_batch([16, 19], k=2)["name"].tolist()
    with pytest.raises(IndexError, match="no user has the id 20"):
        recommender.recommend(20)


@pytest.mark.parametrize("kind", ["mgwa", "ripplenet", "collaborative"])
def test_answers_are_json(make_recommender, kind):
    recommender = make_recommender(kind)
    why = recommender.explain(HEARD, 4)
    tables = [recommender.recommend(3), recommender.recommend_batch([3, 4]), why.parts, why.history]
    for table in tables:
        if table is not None:
            records = table.to_dict("records")
            assert json.loads(json.dumps(records, allow_nan=False)) == records
            assert json.loads(table.to_json(orient="records", double_precision=15)) == [
                pytest.approx(record, abs=1e-12) for record in records
            ]


@contextmanager
def nothing():
    yield


@pytest.mark.parametrize("kind", ["mgwa", "kgcn", "ripplenet", "collaborative"])
@pytest.mark.parametrize(
    "mode", [torch.no_grad, torch.inference_mode, nothing], ids=lambda mode: mode.__name__
)
def test_a_servers_modes_and_threads_change_nothing(make_model_of, data, make_recommender, kind, mode):
    def asked(recommender):
        answers = [recommender.recommend(3), recommender.recommend_for(HEARD), recommender.similar_items(2)]
        why = recommender.explain(HEARD, 4)
        return [*answers, why.parts, recommender.explain(3, 4).parts]

    want = asked(make_recommender(kind))
    trained = make_model_of(kind)
    with mode():
        made = Recommender(trained)
        answers = [asked(made)]
        if kind != "ripplenet":
            mask = made.explain(3, 4, GNNExplainer(epochs=1)).parts["mask"]
            assert ((mask > 0) == (want[-1]["part"] == "neighbor")).all()

    def in_a_thread(_):
        with mode():
            return asked(made)

    with ThreadPoolExecutor(4) as pool:
        answers += pool.map(in_a_thread, range(8))
    for got in answers:
        assert all(one.equals(other) for one, other in zip(got, want, strict=True))


@pytest.mark.parametrize("dtype", [torch.half, torch.bfloat16])
@pytest.mark.parametrize("kind", ["mgwa", "ripplenet", "collaborative"])
def test_a_model_in_half_precision_answers(make_model_of, data, kind, dtype):
    trained, rounded = make_model_of(kind), make_model_of(kind)
    trained.model.to(dtype)
    rounded.model.to(dtype).double()
    got, want = Recommender(trained), Recommender(rounded)
    assert got.recommend(3).equals(want.recommend(3))
    assert got.recommend_for(HEARD).equals(want.recommend_for(HEARD))
    assert got.explain(3, 4).score == want.explain(3, 4).score


def test_ripplenet_says_whom_it_knows_nothing_of(make_model_of, data):
    trained = make_model_of("ripplenet")
    lonely = 11
    trained.edge_index = torch.where(trained.edge_index == lonely, 12, trained.edge_index)
    trained.memory[5] = -1
    recommender = Recommender(trained)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        recommender.recommend(4)
        recommender.recommend_for([lonely, 3])
    for ask in (
        lambda: recommender.recommend(5),
        lambda: recommender.recommend_batch([4, 5]),
        lambda: recommender.recommend_for([lonely]),
    ):
        with pytest.warns(UserWarning, match="RippleNet knows nothing of a user"):
            assert (ask()["score"][-10:] == 0).all()


@pytest.mark.parametrize("kind", ["mgwa"])
@pytest.mark.parametrize(
    ("ask", "error", "message"),
    [
        (lambda r: r.recommend(20), IndexError, "user=20: whole numbers from 0 to 19"),
        (lambda r: r.recommend("me"), ValueError, "no user has the id 'me'"),
        (lambda r: r.recommend(torch.tensor([3])), TypeError, r"user=tensor\(\[3\]\)"),
        (lambda r: r.recommend(0, k=0), ValueError, "k=0: at least 1"),
        (lambda r: r.recommend(0, k=None), TypeError, "k=None: a whole number"),
        (lambda r: r.recommend(0, k=2.5), TypeError, r"k=2\.5: a whole number"),
        (lambda r: r.recommend_batch(3), TypeError, "users=3: pass a list"),
        (lambda r: r.recommend_batch([0, -1]), IndexError, "user=-1"),
        (lambda r: r.recommend_for("item 3"), TypeError, "items='item 3': pass a list"),
        (lambda r: r.recommend_for([]), ValueError, "items is empty"),
        (lambda r: r.recommend_for(["nobody"]), ValueError, "no item is called 'nobody'"),
        (lambda r: r.similar_items(99), IndexError, "item=99"),
        (lambda r: r.explain(0, None), TypeError, "item=None"),
        (lambda r: r.explain(99, 0), IndexError, "user=99"),
        (lambda r: r.explain([], 0), ValueError, "items is empty"),
        (lambda r: r.explain("item 3", 0), ValueError, "no user has the id 'item 3'"),
        (lambda r: r.explain(b"item 3", 0), TypeError, "items=b'item 3': pass a list"),
        (lambda r: r.explain(bytearray(b"\0"), 0), TypeError, r"items=bytearray.*: pass a list"),
    ],
)
def test_errors_name_what_is_wrong(make_recommender, kind, ask, error, message):
    with pytest.raises(error, match=message):
        ask(make_recommender(kind))


def test_loads_what_a_fit_leaves(tmp_path, data, monkeypatch):
    result = fit(data, MGWAConfig(epochs=2), tmp_path / "run")
    recommender = Recommender.load(tmp_path / "run")
    probability = result.score
    listens = data[0]["user", "listens", "entity"]
    user, item = listens.edge_label_index[:, listens.test_mask]
    got = torch.stack(
        [
            torch.as_tensor(recommender.explain(u, i).score)
            for u, i in zip(user.tolist()[:20], item.tolist()[:20], strict=True)
        ]
    )
    torch.testing.assert_close(got.sigmoid().float(), probability[:20], rtol=1e-5, atol=1e-6)
    with torch.inference_mode():
        same = Recommender.load(str(tmp_path / "run"))
        assert same.recommend_for(HEARD).equals(recommender.recommend_for(HEARD))
    monkeypatch.setenv("HOME", str(tmp_path))
    same = Recommender.load("~/run", data)
    same.explain(3, 4).plot("~/why.png")
    assert (tmp_path / "why.png").is_file()
    assert same.recommend(3).equals(recommender.recommend(3))


def test_refuses_what_it_cannot_use(tmp_path, data):
    with pytest.raises(FileNotFoundError, match=r"best\.ckpt is missing: pass the folder of a run"):
        Recommender.load(tmp_path)
    fit(data, MGWAConfig(epochs=1), tmp_path)
    with pytest.raises(ValueError, match="data"):
        Recommender.load(tmp_path, SyntheticKG(num_users=20, num_items=30))


SOAK = """
import numpy as np, os, torch
from mgwa_pyg.datasets import SyntheticKG
from mgwa_pyg.recommend import Recommender
from mgwa_pyg.recommenders import CollaborativeRecommender
from mgwa_pyg.recommenders import RECOMMENDERS
from mgwa_pyg.recommenders import make_recommender

def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

torch.set_num_threads(1)
data = SyntheticKG(num_users=50, num_items=200, num_entities=400, num_triples=1500)
for name in ("mgwa", "collaborative"):
    recommender = Recommender(make_recommender(data, RECOMMENDERS[name].config_class(), 0))
    generator = np.random.default_rng(0)
    def ask(times):
        for _ in range(times):
            heard = generator.choice(200, generator.integers(1, 30), replace=False)
            recommender.recommend_for(heard)
            recommender.recommend(int(generator.integers(50)))
            if generator.random() < 0.05:
                recommender.explain(heard, int(generator.integers(200)))
    ask(200)
    before = resident()
    ask(500)
    print(name, before, resident())
"""


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="memory is read from /proc")
def test_memory_stays_flat():
    run = subprocess.run([sys.executable, "-c", SOAK], check=True, capture_output=True, text=True)
    lines = run.stdout.splitlines()
    assert len(lines) == 2
    for line in lines:
        _, before, after = line.split()
        assert int(after) <= int(before) + 2**20, line  # Two kilobytes a question.
