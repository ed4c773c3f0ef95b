"""Means over seeds, and the table that shows them beside the paper's figures and the heuristics."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import pandas as pd

if TYPE_CHECKING:
    from rich.table import Table

METRICS = ("auc", "acc", "f1")

#: Table 2 of the MGWA paper. Its negatives are those of the paper protocol, as far as can be told.
PAPER = {
    "mgwa": {"auc": 0.899, "acc": 0.808, "f1": 0.803},
    "kgcn": {"auc": 0.856, "acc": 0.778, "f1": 0.776},
    "ripplenet": {"auc": 0.724, "acc": 0.668, "f1": 0.677},
}

_PROTOCOLS = {
    "entities": ("Paper protocol", "negatives drawn from all entities"),
    "items": ("Item protocol", "negatives drawn from the items"),
}


def summarize(rows: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return, for each model and protocol, mean and standard deviation of the metrics over the seeds.

    Args:
        rows (iterable of mappings): One row a model, protocol and seed, with the keys ``model``,
            ``negatives``, ``seed``, ``auc``, ``acc`` and ``f1``.
    """
    table = pd.DataFrame(list(rows))
    summary = []
    for (negatives, model), group in table.groupby(["negatives", "model"], sort=False):
        entry: dict[str, Any] = {"model": model, "negatives": negatives, "seeds": len(group)}
        for metric in METRICS:
            entry[metric] = float(group[metric].mean())
            # The spread of one seed is unknown, not zero.
            entry[f"{metric}_sd"] = float(group[metric].std()) if len(group) > 1 else None
        summary.append(entry)
    return summary


def results_table(summary: Iterable[Mapping[str, Any]], title: str, paper: bool = True) -> Table:
    """Return a table of a summary for the terminal, one section a protocol.

    Args:
        summary (iterable of mappings): As :func:`summarize` returns it.
        title (str): What stands above the table.
        paper (bool, optional): Whether the paper's figures stand beside ours; they say nothing about
            other data. (default: :obj:`True`)
    """
    from rich.table import Table  # Part of the extra [train].
    from rich.text import Text  # In a string square brackets would be markup.

    table = Table(title=Text(title, "table.title"), title_justify="left", caption_justify="left")
    table.add_column("", no_wrap=True)
    for metric in METRICS:
        table.add_column(metric.upper(), justify="right", no_wrap=True)
    sections: dict[str, list[Mapping[str, Any]]] = {}
    for entry in summary:
        sections.setdefault(entry["negatives"], []).append(entry)
    captions = []
    for negatives, entries in sections.items():
        name, meaning = _PROTOCOLS.get(negatives, (negatives, "negatives as published"))
        captions.append(f"{name}: {meaning}.")
        table.add_row(Text(name), style="bold")
        for entry in entries:
            table.add_row(Text(f"  {entry['model']}"), *(_mean_sd(entry, metric) for metric in METRICS))
            if paper and negatives == "entities" and entry["model"] in PAPER:
                figures = (f"{PAPER[entry['model']][metric]:.3f}         " for metric in METRICS)
                table.add_row(f"  {entry['model']}, published", *figures, style="dim")
        table.add_section()
    if paper:
        captions.append("The paper's figures are reached only under the paper protocol.")
    table.caption = Text(" ".join(captions), "table.caption")
    return table


def _mean_sd(entry: Mapping[str, Any], metric: str) -> str:
    sd = entry[f"{metric}_sd"]
    return f"{entry[metric]:.4f}" + (f" ± {sd:.4f}" if sd is not None else "         ")
