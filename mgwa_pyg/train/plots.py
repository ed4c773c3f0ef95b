"""The pictures of a run: learning curves and ROC curves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from sklearn.metrics import roc_auc_score, roc_curve

_PROTOCOL_TITLES = {"entities": "paper protocol", "items": "item protocol"}
_TRAIN, _VAL, _OTHER = "#8aa4c8", "#1f4e9c", "#c8682a"


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
        name = _PROTOCOL_TITLES.get(negatives, negatives)
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
    """Plot the ROC curves on the test rows, one pair of axes a protocol and one line a model and seed.

    Args:
        predictions (DataFrame): The content of ``predictions.csv``.
        title (str): What stands above the plot.
        file (path): The PNG file to write.
    """
    protocols = predictions["negatives"].unique()
    figure, axes = _figure(title, rows=1, columns=len(protocols))
    for negatives, ax in zip(protocols, axes[0], strict=True):
        rows = predictions[predictions["negatives"] == negatives]
        for (model, group), color in zip(rows.groupby("model", sort=False), (_VAL, _OTHER), strict=False):
            seeds = [(seed["label"], seed["score"]) for _, seed in group.groupby("seed")]
            mean = sum(roc_auc_score(*seed) for seed in seeds) / len(seeds)
            for number, seed in enumerate(seeds):
                false_rate, true_rate, _ = roc_curve(*seed)
                label = f"{model}, mean AUC {mean:.3f}" if number == 0 else None
                ax.plot(false_rate, true_rate, color=color, lw=0.9, alpha=0.8, label=label)
        ax.plot([0, 1], [0, 1], color="0.7", lw=0.8, ls=":")
        ax.set_title(_PROTOCOL_TITLES.get(negatives, negatives), fontsize=10)
        ax.set_xlabel("false positive rate")
        ax.set_ylabel("true positive rate")
        ax.set_aspect("equal")
        ax.legend(frameon=False, fontsize=8, loc="lower right")
    _save(figure, file)


def _figure(title: str, rows: int, columns: int) -> tuple[Figure, np.ndarray]:
    # Without pyplot nothing is shown, and no state is left behind.
    figure = Figure(figsize=(4.4 * columns, 3.4 * rows + 0.4), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(title, fontsize=12)
    return figure, figure.subplots(rows, columns, squeeze=False)


def _save(figure: Figure, file: Path) -> None:
    figure.savefig(file, dpi=130, format="png")
