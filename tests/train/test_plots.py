"""Names in the pictures of runs are text."""

import html
import io
import re

import pandas as pd
import pytest

from mgwa_pyg.train import plots

NAME = r"A$AP & Ke$ha $\frac{$"
HISTORY = [[{"epoch": 0, "train_loss": 1.0, "val_loss": 1.0, "train_auc": 0.5, "val_auc": 0.5}]]
VALIDATION = {"negatives": NAME, "model": NAME, "seed": [0], "epoch": [0], "val_auc": [0.5]}
ROWS = {
    "negatives": NAME,
    "model": NAME,
    "seed": [0, 0, 1, 1],
    "label": [0, 1, 0, 1],
    "score": [0.1, 0.9] * 2,
}
EVALUATION = {"metric": [NAME, "NDCG"], "model": NAME, "value": 0.5, "low": 0.4, "high": 0.6}


@pytest.mark.parametrize(
    ("plot", "times"),
    [
        (lambda file: plots.plot_curves({NAME: HISTORY}, NAME, file), 3),
        (lambda file: plots.plot_roc(plots.roc_curves(pd.DataFrame(ROWS)), NAME, file), 3),
        (lambda file: plots.plot_validation(pd.DataFrame(VALIDATION), NAME, file), 3),
        (lambda file: plots.plot_metrics(pd.DataFrame(ROWS), {"score": NAME}, NAME, file), 3),
        (lambda file: plots.plot_evaluation(pd.DataFrame(EVALUATION), NAME, "note", file), 3),
    ],
    ids=["curves", "roc", "validation", "metrics", "evaluation"],
)
def test_names_are_drawn_as_they_are(plot, times, monkeypatch):
    out = io.BytesIO()
    monkeypatch.setattr(plots, "_save", lambda figure, file: figure.savefig(file, format="svg"))
    plot(out)
    # matplotlib writes what it draws in comments.
    lines = [html.unescape(line) for line in re.findall("<!-- (.*?) -->", out.getvalue().decode())]
    assert sum(NAME in line for line in lines) == times


def drawn(monkeypatch, plot):
    """The axes of a figure, in place of its file."""
    figures = []
    monkeypatch.setattr(plots, "_save", lambda figure, file: figures.append(figure))
    plot()
    return figures[0].axes


def test_metrics_are_sorted_and_what_is_published_stands_beside_them(monkeypatch):
    auc = {"MGWA": [0.7, 0.8], "CollaborativeMGWA": [0.9, 0.92], "popularity": [0.6, 0.6]}
    rows = [
        {"negatives": "items", "model": model, "seed": seed, "auc": value, "acc": 1 - value}
        for model, values in auc.items()
        for seed, value in enumerate(values)
    ]
    published = pd.DataFrame([{"negatives": "items", "model": "MGWA", "auc": 0.77, "acc": None}])
    first, second = drawn(
        monkeypatch,
        lambda: plots.plot_metrics(
            pd.DataFrame(rows), {"auc": "AUC", "acc": "ACC"}, "title", None, published
        ),
    )
    labels = first.get_yticklabels()
    assert [label.get_text() for label in labels] == ["popularity", "MGWA", "CollaborativeMGWA"]
    assert [label.get_weight() for label in labels] == ["normal", "normal", "bold"]
    means = [container.lines[0].get_xydata()[0].tolist() for container in second.containers]
    assert means == [pytest.approx(point) for point in ([0.4, 0], [0.25, 1], [0.09, 2])]
    diamonds = [line.get_xydata().tolist() for line in first.lines if line.get_marker() == "D"]
    assert [[0.77, 1.0]] in diamonds


@pytest.mark.parametrize("value", [0.0, 0.004, 1.0])
def test_an_evaluation_of_long_names_and_any_values_is_readable(value, monkeypatch):
    rows = [
        {"metric": metric, "model": model, "value": value, "low": low, "high": low}
        for metric, low in (("Recall@20", value), ("coverage@20", float("nan")))
        for model in (NAME * 9, "ease")
    ]
    figures = []
    monkeypatch.setattr(plots, "_save", lambda figure, file: figures.append(figure))
    plots.plot_evaluation(pd.DataFrame(rows), NAME, "note", None)
    figures[0].draw_without_rendering()
    for ax in figures[0].axes:
        assert ax.get_position().width > 0.25
        assert ax.get_xlim()[0] == 0 < ax.get_xlim()[1]
        assert [text.get_text() for text in ax.texts] == [f"{value:.4f}"] * 2
    assert figures[0].axes[0].get_yticklabels()[0].get_text().endswith("…")


def test_roc_curves_are_those_of_the_seeds_and_listed_by_auc(monkeypatch):
    rows = [
        {"negatives": "items", "model": model, "seed": seed, "label": label, "score": score}
        for model, scores in {"MGWA": [[0.1, 0.9], [0.9, 0.1]], "popularity": [[0.1, 0.9]] * 2}.items()
        for seed, pair in enumerate(scores)
        for label, score in enumerate(pair)
    ]
    curves = plots.roc_curves(pd.DataFrame(rows))
    mgwa = curves[curves["model"] == "MGWA"]
    # One seed is right, one wrong: at every rate but the last a mean of one and zero.
    assert mgwa["auc"].tolist() == [0.5] * 201
    assert mgwa["mean"].tolist()[1:] == [0.5] * 199 + [1.0]
    assert mgwa["sd"].tolist()[1:] == [0.5] * 199 + [0.0]
    (ax,) = drawn(monkeypatch, lambda: plots.plot_roc(curves, "title", None))
    assert [text.get_text() for text in ax.get_legend().get_texts()] == [
        "popularity, AUC 1.000",
        "MGWA, AUC 0.500",
    ]
