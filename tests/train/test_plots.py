"""Names in the pictures of runs are text."""

import html
import io
import re

import pandas as pd
import pytest

from mgwa_pyg.train import plots

NAME = r"A$AP & Ke$ha $\frac{$"
HISTORY = [[{"epoch": 0, "train_loss": 1.0, "val_loss": 1.0, "train_auc": 0.5, "val_auc": 0.5}]]
ROWS = {
    "negatives": NAME,
    "model": NAME,
    "seed": [0, 0, 1, 1],
    "label": [0, 1, 0, 1],
    "score": [0.1, 0.9] * 2,
}


@pytest.mark.parametrize(
    ("plot", "times"),
    [
        (lambda file: plots.plot_curves({NAME: HISTORY}, NAME, file), 3),
        (lambda file: plots.plot_roc(pd.DataFrame(ROWS), NAME, file), 3),
        (lambda file: plots.plot_validation({NAME: {NAME: HISTORY}}, NAME, file), 3),
        (lambda file: plots.plot_metrics(pd.DataFrame(ROWS), {"score": NAME}, NAME, file), 3),
    ],
    ids=["curves", "roc", "validation", "metrics"],
)
def test_names_are_drawn_as_they_are(plot, times, monkeypatch):
    out = io.BytesIO()
    monkeypatch.setattr(plots, "_save", lambda figure, file: figure.savefig(file, format="svg"))
    plot(out)
    # matplotlib writes what it draws in comments.
    lines = [html.unescape(line) for line in re.findall("<!-- (.*?) -->", out.getvalue().decode())]
    assert sum(NAME in line for line in lines) == times
