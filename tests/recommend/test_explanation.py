"""What an explanation says, against sums and products made by hand."""

import html
import io
import re
import warnings

import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib.figure import Figure
from torch_geometric.explain.algorithm import AttentionExplainer, DummyExplainer, GNNExplainer

from mgwa_pyg.datasets.interactions import LISTENS, READS
from mgwa_pyg.recommend import Explanation, Recommender
from mgwa_pyg.recommend.explanation import _bars

HEARD = [3, 8, 21]


@pytest.mark.smoke
@pytest.mark.parametrize("who", [0, 7, HEARD], ids=str)
def test_parts_add_up_to_the_score(recommender, data, who):
    for item in (1, 4, 29):
        got = recommender.explain(who, item)
        if who == HEARD:
            score = recommender._model.score_newcomer(torch.tensor(HEARD))[item]
        else:
            score = recommender._model.score_all(torch.tensor([who]))[0, item]
        assert got.score == pytest.approx(float(score), abs=1e-9)
        assert got.parts["score"].sum() == pytest.approx(got.score, abs=1e-9)
        if got.history is not None:
            assert got.history["score"].sum() == pytest.approx(got.score, abs=1e-9)


def edges_into(data, item):
    kg = data[0]["entity", "kg", "entity"]
    return [
        (source, relation)
        for source, target, relation in zip(*kg.edge_index.tolist(), kg.rel_type.tolist(), strict=True)
        if target == item
    ]


def test_one_gated_layer_by_hand(make_recommender, make_model_of, data):
    model = make_model_of("mgwa").model.double()
    user, item = 5, 2
    with torch.no_grad():
        u, e, r = (table.weight.numpy() for table in (model.user_emb, model.entity_emb, model.relation_emb))
        own, neighbor = (
            model.convs[0].fusion.lin_self.weight.numpy(),
            model.convs[0].fusion.lin_neighbor.weight.numpy(),
        )
        bias = model.convs[0].fusion.lin_neighbor.bias.numpy()
    edges = edges_into(data, item)
    relation = [number % data.num_relations for _, number in edges]
    weight = np.exp([1 / (1 + np.exp(-u[user] @ r[number])) for number in relation])
    attention = weight / weight.sum()
    hood = sum(a * e[source] for a, (source, _) in zip(attention, edges, strict=True))
    merged = own @ e[item] + neighbor @ hood + bias
    channels = len(u[user])
    gate = 1 / (1 + np.exp(-merged[channels:]))
    read = u[user] * gate

    got = make_recommender("mgwa").explain(user, item)
    assert got.gate == pytest.approx(gate.mean(), abs=1e-9)
    parts = got.parts.set_index("part")["score"]
    assert parts["item"] == pytest.approx(read @ (own @ e[item])[:channels], abs=1e-9)
    assert parts["constant"] == pytest.approx(read @ bias[:channels], abs=1e-9)
    want = sorted(
        (
            a * read @ (neighbor @ e[source])[:channels],
            a,
            data.item_names[source] if source < data.num_items else f"entity {source}",
            data.relation_names[number],
        )
        for a, (source, _), number in zip(attention, edges, relation, strict=True)
    )
    neighbors = got.parts[got.parts["part"] == "neighbor"]
    table = sorted(
        zip(
            neighbors["score"],
            neighbors["attention"],
            neighbors["neighbor"],
            neighbors["relation"],
            strict=True,
        )
    )
    assert [row[2:] for row in table] == [row[2:] for row in want]
    np.testing.assert_allclose([row[:2] for row in table], [row[:2] for row in want], atol=1e-9)
    assert neighbors["score"].abs().is_monotonic_decreasing
    total = abs(parts["item"]) + abs(neighbors["score"].sum())
    assert got.shares["self"] == pytest.approx(abs(parts["item"]) / total)
    assert sum(got.shares.values()) == pytest.approx(1.0)


def test_a_history_by_hand(make_recommender, make_model_of, data):
    """One layer, no triples: a user is h / sqrt(n) and the weighted mean of the items' own vectors."""
    model = make_model_of("collaborative, no triples").model.double()
    user, item = 6, 11
    listens = data[0]["user", "listens", "entity"].edge_index
    heard = listens[1][listens[0] == user].tolist()
    with torch.no_grad():
        history, entity = model.history_emb.weight.numpy(), model.entity_emb.weight.numpy()
        graph = model.graph(listens, torch.empty(2, 0).long(), torch.empty(0).long(), data.num_users)
        z_item = model.encode(graph)[1][item].numpy()
    n = len(heard)
    part = {
        data.item_names[i]: (history[i] / n**0.5 + n**0.5 * entity[i] / n) @ z_item[:-1] / 2 for i in heard
    }
    got = make_recommender("collaborative, no triples").explain(user, item).history
    rows = got[got["part"] == "seen"].set_index("neighbor")["score"]
    assert rows.to_dict() == pytest.approx(part, abs=1e-9)
    assert float(got.loc[got["part"] == "popularity", "score"].iloc[0]) == pytest.approx(z_item[-1], abs=1e-9)
    # All of a user's edges have one relation, hence the same attention.
    np.testing.assert_allclose(got.loc[got["part"] == "seen", "attention"], 1 / n)


def test_attention_sums_to_one(recommender):
    for who in (2, HEARD):
        got = recommender.explain(who, 4)
        per_hop = 3 if (got.parts["part"] == "memory").any() else 1
        assert got.parts["attention"].sum() == pytest.approx(per_hop, abs=1e-6)


@pytest.mark.parametrize("who", [5, HEARD], ids=str)
def test_pygs_explainers_take_the_same_model(recommender, kind, who):
    if kind == "ripplenet":
        with pytest.raises(ValueError, match="RippleNet passes no messages along edges"):
            recommender.explain(who, 1, DummyExplainer())
        return
    plain = recommender.explain(who, 1)
    stack = recommender._model.logit_model(torch.tensor(HEARD) if who == HEARD else who, 1)
    assert stack(stack.x, stack.edge_index, stack.edge_type).item() == pytest.approx(plain.score, abs=1e-9)

    torch.manual_seed(0)
    got = recommender.explain(who, 1, GNNExplainer(epochs=3))
    assert got.pyg.edge_mask.shape == stack.edge_index.shape[1:]
    neighbors = got.parts[got.parts["part"] == "neighbor"]
    into = stack.edge_index[1] == stack.node
    names = [recommender.catalog.name(int(stack.nodes[source])) for source in stack.edge_index[0, into]]
    relations = [recommender.catalog.relation(int(number)) for number in stack.relation[into]]
    rows = list(zip(names, relations, got.pyg.edge_mask[into].tolist(), strict=True))
    assert sorted(rows) == sorted(
        zip(neighbors["neighbor"], neighbors["relation"], neighbors["mask"], strict=True)
    )
    for algorithm in (DummyExplainer(), AttentionExplainer()):
        mask = recommender.explain(who, 1, algorithm).parts["mask"]
        assert ((mask > 0) == (got.parts["part"] == "neighbor")).all()
    # The explainers leave no trace.
    assert recommender.explain(who, 1).score == plain.score


TABLE = pd.DataFrame(
    {
        "part": ["neighbor", "neighbor", "neighbor", "neighbor", "item", "constant", "popularity"],
        "relation": ["genre", "listens", "listens", "origin", None, None, None],
        "neighbor": ["pop", "user 1", "user 2", "a $mall town", None, None, None],
        "attention": [0.1, 0.4, 0.4, 0.1, None, None, None],
        "score": [0.5, 0.25, 0.25, -0.125, 1.0, 0.001, 0.375],
    }
)


def test_a_sentence_says_it_in_words():
    history = pd.DataFrame(
        {
            "part": ["seen", "seen", "popularity"],
            "relation": ["listens", "listens", None],
            "neighbor": ["Blur", "Air", None],
            "attention": [0.5, 0.5, None],
            "score": [2.0, -0.125, 0.375],
        }
    )
    explanation = Explanation("user 3", 7, "ABBA", 2.25, TABLE, history, None)
    assert str(explanation) == (
        "ABBA has the score 2.25 for user 3, most of all for Blur (+2.00); against it: Air (-0.12). The item "
        "itself adds +1.00 (53%), its neighbourhood +0.88 (47%), first of all pop through genre (+0.50) and "
        "its 2 listeners (+0.50); against it: a $mall town through origin (-0.12). Its popularity adds +0.38."
    )
    assert explanation.reason == "Blur (+2.00)"
    history["score"] = [-2.0, -0.125, 0.375]
    disliked = Explanation("user 3", 7, "ABBA", -1.75, TABLE, history, None)
    assert str(disliked).startswith(
        "ABBA has the score -1.75 for user 3; against it: Blur (-2.00) and Air (-0.12). "
    )
    assert disliked.reason == "pop through genre (+0.50) and its 2 listeners (+0.50)"


def test_a_sentence_counts_one_user_as_one():
    renamed = TABLE.drop(2).replace({"relation": {"listens": "reads"}})
    why = Explanation("user 3", 7, "Emma", 2.0, renamed, None, None, interaction=READS)
    assert "pop through genre (+0.50) and the one user who read it (+0.25)" in str(why)


def test_an_explanation_says_that_the_item_is_seen(make_recommender, data):
    recommender, links = make_recommender("collaborative"), data[0]["user", "listens", "entity"]
    for user in (0, 7):
        part = (links.edge_label_index[0] == user) & (links.edge_label == 1)
        held_out = part & ~links.train_mask
        left = recommender.recommend(user, 1)["item"]
        for mask, is_seen in ((part & links.train_mask, True), (held_out, True), (None, False)):
            item = int(left[0] if mask is None else links.edge_label_index[1, mask][0])
            why = recommender.explain(user, item)
            assert why.is_seen is is_seen
            assert str(why).endswith(" It was listened to already, and is not recommended.") is is_seen
    assert recommender.explain(HEARD, HEARD[1]).is_seen
    assert not recommender.explain(HEARD, HEARD[1] + 1).is_seen


class Interrupted(GNNExplainer):
    """Stops in the midst of its work."""

    error: type[BaseException] = KeyboardInterrupt

    def _loss(self, *args):
        raise self.error


class Failed(Interrupted):
    error = ZeroDivisionError


def traces(module):
    """What an explainer may leave behind."""
    hooks = [name for name, value in vars(module).items() if "_hooks" in name and value]
    flags = [getattr(module, name, None) for name in ("explain", "_explain", "_edge_mask", "_apply_sigmoid")]
    return module.training, hooks, flags, {name: p.requires_grad for name, p in module.named_parameters()}


@pytest.mark.parametrize("algorithm", ["GNNExplainer", GNNExplainer, 5])
def test_what_is_no_algorithm_is_refused(make_recommender, algorithm):
    with pytest.raises(TypeError, match=r"one of torch_geometric\.explain is needed"):
        make_recommender("collaborative").explain(0, 1, algorithm)


@pytest.mark.parametrize("kind", ["mgwa, 3 layers", "kgcn", "collaborative"])
@pytest.mark.parametrize("algorithm", [Interrupted, Failed])
def test_an_explainer_that_stops_leaves_the_recommender_as_it_was(make_recommender, kind, algorithm):
    recommender = make_recommender(kind)
    model = recommender._model.model
    before = [traces(module) for module in model.modules()]
    want = recommender.explain(0, 3), recommender.explain(HEARD, 3)
    with pytest.raises(algorithm.error):
        recommender.explain(0, 1, algorithm(epochs=5))
    assert [traces(module) for module in model.modules()] == before
    for who, plain in zip((0, HEARD), want, strict=True):
        again = recommender.explain(who, 3)
        assert again.parts.equals(plain.parts)
        assert again.score == plain.score
    assert "mask" in recommender.explain(0, 1, GNNExplainer(epochs=1)).parts


@pytest.mark.parametrize("kind", ["mgwa", "kgcn", "ripplenet", "collaborative, no triples"])
def test_table_sentence_and_picture_agree_on_what_weighs_most(make_recommender, kind):
    recommender, negative = make_recommender(kind), 0
    for user in range(20):
        why = recommender.explain(user, 1)
        table = why.parts if why.history is None else why.history
        edges = table[table["part"].isin(["neighbor", "memory", "seen"])]
        assert edges["score"].abs().is_monotonic_decreasing
        first = edges.groupby(["neighbor", "relation"])["score"].sum()
        name, relation = first.abs().idxmax()
        said = f"{name} ({first[name, relation]:+.2f})"
        if kind != "collaborative, no triples":
            said = f"{name} through {relation} ({first[name, relation]:+.2f})"
        if first[name, relation] > 0:
            assert why.reason.startswith(said)
            assert said in str(why)
        else:
            assert said not in why.reason
            assert f"against it: {said}" in str(why)
        own = ("x\nitself", "x\nits popularity", "the model's constant")
        bars = [bar for bar in _bars(table, LISTENS, "x") if bar[0] not in own]
        assert bars[0][0].startswith(name)
        assert bars[0][1] == pytest.approx(first[name, relation])
        negative += first[name, relation] < 0
    assert negative > 0


def test_an_explanation_names_the_entities_of_the_files(make_model_of, own_data):
    recommender = Recommender(make_model_of("mgwa", own_data))
    for row in range(30):
        got = recommender.explain("3", own_data.item_ids[row]).parts["neighbor"].dropna()
        assert sorted(got) == sorted(f"band {source}" for source, _ in edges_into(own_data, row))


@pytest.mark.parametrize("kind", ["mgwa", "ripplenet", "collaborative"])
def test_draws_a_picture(make_recommender, kind, tmp_path):
    explanation = make_recommender(kind).explain(4, 2)
    explanation.plot(tmp_path / "why.png")
    assert (tmp_path / "why.png").read_bytes().startswith(b"\x89PNG")
    out = io.BytesIO()
    explanation.plot(out, kind="svg")
    assert b"</svg>" in out.getvalue()


def drawn(explanation):
    """The lines that a picture shows: matplotlib writes what it draws in comments."""
    out = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # Where names leave no room for the bars, matplotlib warns.
        warnings.filterwarnings("ignore", "Glyph .* missing from")
        explanation.plot(out, kind="svg")
    return [html.unescape(line) for line in re.findall("<!-- (.*?) -->", out.getvalue().decode())]


def axes_and_lines(explanation):
    """The axes of a picture, and its lines."""
    figures = []
    with pytest.MonkeyPatch.context() as patch:
        subplots = Figure.subplots
        patch.setattr(Figure, "subplots", lambda *a, **k: figures.append(a[0]) or subplots(*a, **k))
        lines = drawn(explanation)
    return figures[0].axes, lines


def test_each_bar_of_a_picture_is_named_for_what_it_is():
    history = TABLE[:2].assign(part=["seen", "popularity"], neighbor=["Blur", None], score=[-2.0, 0.375])
    why = Explanation("user 3", 7, "ABBA", 2.25, TABLE, history, None)
    axes, _ = axes_and_lines(why)
    bars = [
        {
            label.get_text(): (bar.get_width(), text.get_text())
            for label, bar, text in zip(ax.get_yticklabels(), ax.patches, ax.texts, strict=True)
        }
        for ax in axes
    ]
    assert bars == [
        {"ABBA\nits popularity": (0.375, "+0.38"), "Blur": (-2.0, "-2.00")},
        {
            "ABBA\nitself": (1.0, "+1.00"),
            "the model's constant": (0.001, "+0.00"),
            "ABBA\nits popularity": (0.375, "+0.38"),
            "pop\ngenre": (0.5, "+0.50"),
            "its 2 listeners": (0.5, "+0.50"),
            "a \\$mall town\norigin": (-0.125, "-0.12"),
        },
    ]
    assert axes[0].get_xlim() == axes[1].get_xlim()
    titles = ["The score by what was listened to", "The same score by what the item is and is linked to"]
    assert [ax.get_title() for ax in axes] == titles


@pytest.mark.parametrize(
    "name",
    ["Ca$h & Ke$ha", "100% $\\frac{$", "$_$", "$$", "A$AP_", "a\\b", r"\$x\$", "^_^", "[/b] {x}", "<b>&"],
)
def test_a_picture_shows_names_as_they_are(name):
    table = TABLE.assign(neighbor=TABLE["neighbor"].replace({"pop": name}))
    lines = drawn(Explanation(f"who heard {name}", 7, name, 2.25, table, table, None))
    assert lines.count(name) == 6  # Three bars in either panel: two of the item, one of what it is linked to.
    assert f"{name} for who heard {name}: 2.25" in lines


@pytest.mark.parametrize("name", ["x" * 5000, "long words " * 300, "日本" * 2000, "line\n" * 500, "$" * 3000])
def test_a_long_name_leaves_room_for_the_bars(name):
    rows = TABLE.assign(neighbor=name, relation=name[::-1])
    why = Explanation(name, 7, name, 2.25, rows[:1], None, None)
    (ax,), lines = axes_and_lines(why)
    assert ax.get_position().width > 0.4
    assert ax.get_position().height > 0.15
    assert max(map(len, lines)) < 100
    assert any(line.endswith("…") for line in lines)


def test_words_of_an_explanation_stand_in_one_line():
    name = "two\nlines\x1b[31m\u2028"
    table = TABLE.assign(neighbor=TABLE["neighbor"].replace({"pop": name}))
    why = Explanation("user 3", 7, name, 2.25, table, None, None)
    assert str(why).splitlines() == [str(why)]
    assert "\x1b" not in str(why)
    assert "two lines [31m" in why.reason


def test_what_adds_next_to_nothing_is_not_shown_by_itself():
    rows = [("neighbor", "by", "A", 5.0), ("neighbor", "in", "B", 0.2), ("neighbor", "in", "C", 0.04)]
    rows += [("neighbor", "by", "D", -0.02), ("item", None, None, 0.1)]
    parts = pd.DataFrame(rows, columns=["part", "relation", "neighbor", "score"])
    why = Explanation("user 1", 2, "x", 5.32, parts, None, None)
    assert why.reason == "A through by (+5.00) and B through in (+0.20)"
    assert _bars(parts, LISTENS, "x") == [
        ("x\nitself", 0.1),
        ("A\nby", 5.0),
        ("B\nin", 0.2),
        ("2 more", pytest.approx(0.02)),
    ]
