"""The pictures of runs: learning curves, ROC curves, metrics with their spread."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from sklearn.metrics import roc_auc_score, roc_curve

from mgwa_pyg.utils.looks import is_ours, label_lines, look, new_figure, plain, shortened

PROTOCOL_TITLES = {"entities": "paper protocol", "items": "item protocol"}
_TRAIN, _VAL, _OTHER = "#8aa4c8", "#1f4e9c", "#c8682a"


def _title(negatives: str) -> str:
    return plain(PROTOCOL_TITLES.get(negatives, negatives))


def _label(ax: Axes, negatives: str, x: str, y: str) -> None:
    ax.set_title(_title(negatives), fontsize=10)
    ax.set(xlabel=x, ylabel=y)


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
            _label(ax, negatives, "epoch", {"loss": "binary cross-entropy", "auc": "AUC"}[metric])
            ax.xaxis.get_major_locator().set_params(integer=True)
            ax.legend(frameon=False, fontsize=8)
    _save(figure, file)


def roc_curves(predictions: pd.DataFrame) -> pd.DataFrame:
    """The ROC curves on the test rows: the true positive rate at every false positive rate, as mean and
    standard deviation over the seeds.

    Args:
        predictions (DataFrame): The content of ``predictions.csv``.

    Returns:
        DataFrame: The columns ``negatives``, ``model``, ``auc`` (the mean), ``false_positive_rate``, ``mean``
        and ``sd``.
    """
    grid = np.linspace(0, 1, 201)
    curves = []
    for (negatives, model), group in predictions.groupby(["negatives", "model"], sort=False):
        seeds = [(seed["label"], seed["score"]) for _, seed in group.groupby("seed")]
        rates = np.stack([np.interp(grid, *roc_curve(*seed)[:2]) for seed in seeds])
        columns = {"false_positive_rate": grid, "mean": rates.mean(axis=0), "sd": rates.std(axis=0)}
        auc = np.mean([roc_auc_score(*seed) for seed in seeds])
        curves.append(pd.DataFrame({"negatives": negatives, "model": model, "auc": auc, **columns}))
    return pd.concat(curves, ignore_index=True)


def plot_roc(curves: pd.DataFrame, title: str, file: Path) -> None:
    """Plot ROC curves, one pair of axes a protocol and one line a model, the models by their AUC.

    A line is the mean over the seeds, its band one standard deviation.

    Args:
        curves (DataFrame): What :func:`roc_curves` returned.
        title (str): What stands above the plot.
        file (path): The PNG file to write.
    """
    protocols = curves["negatives"].unique()
    figure, axes = _figure(title, rows=1, columns=len(protocols), height=4.35)
    numbers = {model: number for number, model in enumerate(curves["model"].unique())}
    for negatives, ax in zip(protocols, axes[0], strict=True):
        rows = curves[curves["negatives"] == negatives].sort_values("auc", ascending=False, kind="stable")
        for model, curve in rows.groupby("model", sort=False):
            line = look(model, numbers[model])
            rate, mean, sd = (curve[name].to_numpy() for name in ("false_positive_rate", "mean", "sd"))
            ax.plot(rate, mean, **line, label=f"{plain(model)}, AUC {curve['auc'].iloc[0]:.3f}")
            ax.fill_between(rate, mean - sd, mean + sd, color=line["color"], alpha=0.15, lw=0)
        ax.plot([0, 1], [0, 1], color="0.7", lw=0.8, ls=":")
        _label(ax, negatives, "false positive rate", "true positive rate")
        ax.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), box_aspect=1)
        # All curves end in one point: what they are stands below them, from the best to the worst.
        legend = ax.legend(frameon=False, fontsize=7.5, loc="lower right", labelcolor="linecolor")
        for text, model in zip(legend.get_texts(), rows["model"].unique(), strict=True):
            text.set_weight("bold" if is_ours(model) else "normal")
    _save(figure, file)


def plot_validation(histories: pd.DataFrame, title: str, file: Path) -> None:
    """Plot the validation AUC against epochs, one pair of axes a protocol and one line a model.

    A line is the mean over the fits that are still going on; it ends where fewer than half of them are.

    Args:
        histories (DataFrame): A row for each epoch of each fit, with the columns ``negatives``, ``model``,
            ``seed``, ``epoch`` and ``val_auc``.
        title (str): What stands above the plot.
        file (path): The PNG file to write.
    """
    protocols = histories["negatives"].unique()
    figure, axes = _figure(title, rows=1, columns=len(protocols), width=5.6)
    for negatives, ax in zip(protocols, axes[0], strict=True):
        models = histories[histories["negatives"] == negatives].groupby("model", sort=False)
        for number, (model, fits) in enumerate(models):
            epochs = fits.groupby("epoch")["val_auc"]
            mean = epochs.mean()[epochs.count() >= fits["seed"].nunique() / 2]
            ax.plot(mean.index + 1, mean, **look(model, number), label=plain(model))
        _label(ax, negatives, "epoch", "validation AUC")
        ax.xaxis.get_major_locator().set_params(integer=True)
        label_lines(ax)
    _save(figure, file)


def plot_metrics(
    rows: pd.DataFrame,
    metrics: Mapping[str, str],
    title: str,
    file: Path,
    published: pd.DataFrame | None = None,
) -> None:
    """Plot metrics as points with error bars, one row of axes a protocol and one column a metric; the models
    are sorted by the first metric.

    Args:
        rows (DataFrame): One row a model, protocol and seed, with the columns ``model``, ``negatives`` and
            those of the metrics.
        metrics (mapping): The metrics' columns, and what the axes call them.
        title (str): What stands above the plot.
        file (path): The PNG file to write.
        published (DataFrame, optional): What others have published, in the same columns without seeds.
    """
    protocols = rows["negatives"].unique()
    count = rows["model"].nunique()
    figure, axes = _figure(title, rows=len(protocols), columns=len(metrics), height=0.8 + 0.19 * count)
    for negatives, row in zip(protocols, axes, strict=True):
        groups = rows[rows["negatives"] == negatives].groupby("model", sort=False)
        models = list(groups[next(iter(metrics))].mean().sort_values(kind="stable").index)
        known = (
            None if published is None else published[published["negatives"] == negatives].set_index("model")
        )
        for (metric, name), ax in zip(metrics.items(), row, strict=True):
            mean, sd = groups[metric].mean(), groups[metric].std()
            for place, model in enumerate(models):
                style = {"color": look(model)["color"], "ms": 6 if is_ours(model) else 4}
                ax.errorbar(mean[model], place, xerr=sd[model], fmt="o", capsize=3, **style)
                if known is not None and model in known.index:
                    style = {"mec": style["color"], "mfc": "white", "ms": 5, "ls": "none"}
                    ax.plot(known[metric].astype(float)[model], place, marker="D", zorder=3, **style)
            ax.set_yticks(range(len(models)), [plain(model) for model in models], fontsize=8)
            for label, model in zip(ax.get_yticklabels(), models, strict=True):
                label.set(color=look(model)["color"], weight="bold" if is_ours(model) else "normal")
            ax.tick_params(axis="y", labelleft=ax is row[0])
            ax.set_title(f"{_title(negatives)}: {plain(name)}", fontsize=10)
            ax.grid(axis="x", color="0.9")
    if published is not None:
        # A diamond without a place: what the others are.
        style = {"marker": "D", "mec": "0.3", "mfc": "white", "ms": 5, "ls": "none"}
        axes[0, 0].plot([], [], **style, label="published")
        axes[0, 0].legend(frameon=False, fontsize=8, loc="lower right")
    _save(figure, file)


def plot_evaluation(rows: pd.DataFrame, title: str, note: str, file: Path) -> None:
    """Plot metrics as bars from zero, one pair of axes a metric, two pairs a row; the models stay in order.

    Beside each bar stands its value; a line goes from one end of its interval to the other.

    Args:
        rows (DataFrame): One row a metric and model, with the columns ``metric``, ``model``, ``value``,
            ``low`` and ``high``; the last two are missing where there is no interval.
        title (str): What stands above the plot.
        note (str): What stands below it.
        file (path): The PNG file to write.
    """
    metrics, models = rows.groupby("metric", sort=False), list(rows["model"].unique())
    # What has no colour of its own gets one that the usual heuristics do not have.
    colors = [look(model, 3 if number else 0)["color"] for number, model in enumerate(models)]
    height = 0.55 + 0.23 * len(models)
    figure, axes = _figure(title, rows=len(metrics) // 2, columns=2, width=3.2, height=height)
    figure.supxlabel(note, fontsize=9)
    for (metric, values), ax in zip(metrics, axes.flat, strict=True):
        value, ends = values["value"].to_numpy(), values[["low", "high"]].to_numpy()
        known = None if np.isnan(ends).any() else abs(ends.T - value)
        bars = ax.barh(range(len(models)), value, xerr=known, color=colors, ecolor=colors, alpha=0.5)
        ax.bar_label(bars, fmt="{:.4f}", padding=3, fontsize=9)
        ax.set_yticks(range(len(models)), [plain(shortened(model, 24)) for model in models], fontsize=9)
        for label, color, model in zip(ax.get_yticklabels(), colors, models, strict=True):
            label.set(color=color, weight="bold" if is_ours(model) else "normal")
        ax.tick_params(axis="y", length=0, labelleft=ax in axes[:, 0])
        ax.tick_params(axis="x", labelsize=9)
        ax.locator_params(axis="x", nbins=4)
        ax.set_xlim(0, ax.get_xlim()[1] if value.any() else 1)
        ax.invert_yaxis()
        ax.set_title(plain(metric), fontsize=10)
        ax.spines[["top", "right"]].set_visible(False)
    _save(figure, file)


def plot_worth(table: pd.DataFrame, metric: str, title: str, file: Path) -> None:
    """Plot by how much a metric changes with each change of the knowledge graph, with 95 % intervals.

    Args:
        table (DataFrame): What :func:`~mgwa_pyg.train.kg_worth` returned.
        metric (str): What the axis calls the metric.
        title (str): What stands above the plot.
        file (path): The PNG file to write.
    """
    rows = table.dropna(subset="difference").iloc[::-1]
    figure, axes = _figure(title, rows=1, columns=1, width=6.4, height=0.9 + 0.28 * len(rows))
    ax, difference = axes[0, 0], rows["difference"]
    ends = [difference - rows["low"], rows["high"] - difference]
    colors = [_OTHER if p < 0.05 else _TRAIN for p in rows["p"]]
    ax.barh(range(len(rows)), difference, xerr=ends, color=colors, ecolor="0.3", capsize=3, height=0.6)
    ax.set_yticks(range(len(rows)), [plain(variant) for variant in rows["variant"]], fontsize=8)
    ax.axvline(0, color="0.3", lw=0.8)
    ax.set_xlabel(f"change of {plain(metric)} (orange: p < .05 over users)")
    ax.grid(axis="x", color="0.9")
    ax.set_axisbelow(True)
    _save(figure, file)


def _figure(
    title: str, rows: int, columns: int, width: float = 4.4, height: float = 3.4
) -> tuple[Figure, np.ndarray]:
    return new_figure(width * columns, height * rows + 0.4, title, rows, columns)


def _save(figure: Figure, file: Path) -> None:
    figure.savefig(file, dpi=130, format="png")
