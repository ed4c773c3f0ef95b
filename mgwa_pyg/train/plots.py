"""The pictures of runs: learning curves, ROC curves, metrics with their spread."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from sklearn.metrics import roc_auc_score, roc_curve

PROTOCOL_TITLES = {"entities": "paper protocol", "items": "item protocol"}
_TRAIN, _VAL, _OTHER = "#8aa4c8", "#1f4e9c", "#c8682a"
# The palette of Okabe and Ito, which colour-blind readers can tell apart, after the blue of the rest.
_COLORS = (_VAL, "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#000000", "#999999")


def plain(text: str) -> str:
    """Text that matplotlib draws as it is: a dollar sign would begin a formula."""
    return text.replace("$", r"\$")


def _title(negatives: str) -> str:
    return plain(PROTOCOL_TITLES.get(negatives, negatives))


def _line(number: int) -> dict[str, Any]:
    """A look that no other of the first sixteen lines has."""
    style = "-" if number < len(_COLORS) else "--"
    return {"color": _COLORS[number % len(_COLORS)], "ls": style, "lw": 1.2}


def plot_curves(
    histories: Mapping[str, Sequence[Sequence[Mapping[str, float]]]], title: str, file: Path
) -> None:
    """Plot loss and AUC against epochs, one row of axes a protocol and one line a seed.

    Args:
        histories (mapping): For each protocol, the histories of its fits.
        title (str): What stands above the plot.
        file (path): The PNG file to write.
    """
    figure, axes = _figure(title, rows=len(histories), columns=2)
    for (negatives, fits), (loss_axes, auc_axes) in zip(histories.items(), axes, strict=True):
        name = _title(negatives)
        for ax, metric in ((loss_axes, "loss"), (auc_axes, "auc")):
            for number, history in enumerate(fits):
                table = pd.DataFrame(list(history))
                epochs = table["epoch"] + 1
                val = table[f"val_{metric}"]
                mark = table["val_auc"].idxmax()
                labels = ("training", "validation", "checkpoint") if number == 0 else (None,) * 3
                ax.plot(epochs, table[f"train_{metric}"], color=_TRAIN, lw=1.2, label=labels[0])
                ax.plot(epochs, val, color=_VAL, lw=1.2, label=labels[1])
                ax.plot(epochs[mark], val[mark], "o", ms=4, color=_OTHER, label=labels[2])
            ax.set_title(name, fontsize=10)
            ax.set_xlabel("epoch")
            ax.set_ylabel({"loss": "binary cross-entropy", "auc": "AUC"}[metric])
            ax.xaxis.get_major_locator().set_params(integer=True)
            ax.legend(frameon=False, fontsize=8)
    _save(figure, file)


def plot_roc(predictions: pd.DataFrame, title: str, file: Path) -> None:
    """Plot the ROC curves on the test rows, one pair of axes a protocol and one line a model.

    A line is the mean over the seeds at every false positive rate, its band one standard deviation.

    Args:
        predictions (DataFrame): The content of ``predictions.csv``.
        title (str): What stands above the plot.
        file (path): The PNG file to write.
    """
    protocols = predictions["negatives"].unique()
    figure, axes = _figure(title, rows=1, columns=len(protocols))
    grid = np.linspace(0, 1, 201)
    for negatives, ax in zip(protocols, axes[0], strict=True):
        rows = predictions[predictions["negatives"] == negatives]
        for number, (model, group) in enumerate(rows.groupby("model", sort=False)):
            seeds = [(seed["label"], seed["score"]) for _, seed in group.groupby("seed")]
            auc = np.mean([roc_auc_score(*seed) for seed in seeds])
            rates = np.stack([np.interp(grid, *roc_curve(*seed)[:2]) for seed in seeds])
            mean, sd = rates.mean(axis=0), rates.std(axis=0)
            line = _line(number)
            ax.plot(grid, mean, **line, label=f"{plain(model)}, mean AUC {auc:.3f}")
            ax.fill_between(grid, mean - sd, mean + sd, color=line["color"], alpha=0.15, lw=0)
        ax.plot([0, 1], [0, 1], color="0.7", lw=0.8, ls=":")
        ax.set_title(_title(negatives), fontsize=10)
        ax.set_xlabel("false positive rate")
        ax.set_ylabel("true positive rate")
        ax.set_aspect("equal")
        ax.legend(frameon=False, fontsize=7, loc="lower right")
    _save(figure, file)


def plot_validation(
    histories: Mapping[str, Mapping[str, Sequence[Sequence[Mapping[str, float]]]]], title: str, file: Path
) -> None:
    """Plot the validation AUC against epochs, one pair of axes a protocol and one line a model.

    A line is the mean over the fits that are still going on; it ends where fewer than half of them are.

    Args:
        histories (mapping): For each protocol and model, the histories of its fits.
        title (str): What stands above the plot.
        file (path): The PNG file to write.
    """
    figure, axes = _figure(title, rows=1, columns=len(histories))
    for (negatives, models), ax in zip(histories.items(), axes[0], strict=True):
        for number, (model, fits) in enumerate(models.items()):
            table = pd.concat([pd.DataFrame(list(history)) for history in fits]).groupby("epoch")["val_auc"]
            mean = table.mean()[table.count() >= len(fits) / 2]
            ax.plot(mean.index + 1, mean, **_line(number), label=plain(model))
        ax.set_title(_title(negatives), fontsize=10)
        ax.set_xlabel("epoch")
        ax.set_ylabel("validation AUC")
        ax.xaxis.get_major_locator().set_params(integer=True)
        ax.legend(frameon=False, fontsize=7)
    _save(figure, file)


def plot_metrics(rows: pd.DataFrame, metrics: Mapping[str, str], title: str, file: Path) -> None:
    """Plot metrics as points with error bars, one row of axes a protocol and one column a metric.

    Args:
        rows (DataFrame): One row a model, protocol and seed, with the columns ``model``, ``negatives`` and
            those of the metrics.
        metrics (mapping): The metrics' columns, and what the axes call them.
        title (str): What stands above the plot.
        file (path): The PNG file to write.
    """
    protocols = rows["negatives"].unique()
    figure, axes = _figure(title, rows=len(protocols), columns=len(metrics))
    for negatives, row in zip(protocols, axes, strict=True):
        groups = rows[rows["negatives"] == negatives].groupby("model", sort=False)
        models = list(groups.groups)[::-1]
        for (metric, name), ax in zip(metrics.items(), row, strict=True):
            mean, sd = groups[metric].mean()[models], groups[metric].std()[models]
            ax.errorbar(
                mean, range(len(models)), xerr=sd, fmt="o", ms=4, color=_VAL, ecolor=_TRAIN, capsize=3
            )
            labels = [plain(model) if ax is row[0] else "" for model in models]
            ax.set_yticks(range(len(models)), labels, fontsize=8)
            ax.set_title(f"{_title(negatives)}: {plain(name)}", fontsize=10)
            ax.grid(axis="x", color="0.9")
    _save(figure, file)


def _figure(title: str, rows: int, columns: int) -> tuple[Figure, np.ndarray]:
    # Without pyplot nothing is shown, and no state is left behind.
    figure = Figure(figsize=(4.4 * columns, 3.4 * rows + 0.4), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(plain(title), fontsize=12)
    return figure, figure.subplots(rows, columns, squeeze=False)


def _save(figure: Figure, file: Path) -> None:
    figure.savefig(file, dpi=130, format="png")
