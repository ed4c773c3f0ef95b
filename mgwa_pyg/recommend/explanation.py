"""`Explanation`: what a score comes from, as tables, a sentence and a picture."""

from __future__ import annotations

import textwrap
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import pandas as pd
from torch import Tensor

from mgwa_pyg.datasets.interactions import LISTENS, Interaction
from mgwa_pyg.recommend.catalog import Catalog, one_line
from mgwa_pyg.recommenders.contributions import Contributions
from mgwa_pyg.utils.looks import new_figure, plain, room, shortened

if TYPE_CHECKING:
    from torch_geometric.explain import Explanation as PyGExplanation

_MOST = 3  # How many neighbours, or seen items, a sentence names.
_BARS = 10  # How many a picture shows by themselves.
_SMALL = 0.01  # What is smaller than this share of the largest is not shown by itself.
_SEEN = 0.005  # What two decimals show.
_NOTHING = 1e-9  # What is smaller is rounding.
_WIDTH = 36  # The letters of a name that fit beside the bars.
_UP, _DOWN = "#1f4e9c", "#c8682a"


@dataclass(frozen=True)
class Explanation:
    """Why an item has its score for somebody; made by :meth:`Recommender.explain`."""

    user: str
    """Whom the score is for."""
    item: int | str
    """The item's id."""
    name: str
    """The item's name."""
    score: float
    """The logit that recommendations are ranked by."""
    parts: pd.DataFrame
    """The score as a sum, in the columns ``part``, ``relation``, ``neighbor`` (a name), ``attention`` (of the
    last layer) and ``score``. A part is a ``"neighbor"`` of the item, or, for RippleNet, the tail of a triple
    in the user's ``"memory"``, the one that weighs most first, whether it adds or takes away; then come the
    ``"item"`` itself, the ``"constant"`` of the layers, and ``"popularity"``, what the
    item's adds. These have no relation and no neighbour, :obj:`None`, and the attention 0."""
    history: pd.DataFrame | None
    """The same score as a sum over the items that the user has seen (``"seen"``), in the same columns;
    :obj:`None` for models that know users otherwise."""
    gate: float | None
    """How far the gate of the last layer is open, the mean over its channels; :obj:`None` if there is
    none."""
    pyg: PyGExplanation | None = None
    """What the algorithm of :mod:`torch_geometric.explain` found, if one was asked; its edge mask is the
    column ``mask`` of :attr:`parts`, 0 for what is no edge."""
    interaction: Interaction = LISTENS
    """What users do with items, for the sentences."""
    is_seen: bool = False
    """Whether the user has seen the item, which is not recommended then."""

    @property
    def shares(self) -> dict[str, float]:
        """What the item itself and its neighbourhood weigh in the score, by size; together 1."""
        own = abs(self._sum("item"))
        neighborhood = abs(self._sum("neighbor"))
        total = own + neighborhood or 1.0
        return {"self": own / total, "neighborhood": neighborhood / total}

    @property
    def reason(self) -> str:
        """The names of what speaks most for the item, with what it adds. It is what the user has seen,
        or where that leads, if the model knows users by it, else what the item is linked to; nothing, where
        the item itself does it all.
        """
        return self._named(self._personal, 1) or self._named(self.parts, 1)

    def sentence(self) -> str:
        """Say in words what the score comes from, and of what weighs most, what speaks against the item."""
        text = f"{one_line(self.name)} has the score {self.score:.2f} for {self.user}"
        text += self._because("most of all for", self._personal)
        if self._sum("item") != 0.0:
            share = self.shares
            text += (
                f". The item itself adds {self._sum('item'):+.2f} ({share['self']:.0%}), its neighbourhood "
                f"{self._sum('neighbor'):+.2f} ({share['neighborhood']:.0%})"
            )
            text += self._because("first of all", self._rows("neighbor"))
        if abs(self._sum("constant")) >= _SEEN:
            text += f". The model's constant adds {self._sum('constant'):+.2f}"
        if self._sum("popularity") != 0.0:
            text += f". Its popularity adds {self._sum('popularity'):+.2f}"
        text += "."
        if self.is_seen:
            text += f" It was {self.interaction.done} already, and is not recommended."
        return text

    def plot(self, file: Path | str | IO[bytes], kind: str | None = None) -> None:
        """Draw the parts as bars with their values, the largest ones by themselves and the others together.

        Args:
            file (path or file): Where to write the picture.
            kind (str, optional): Such as ``"png"`` or ``"svg"``; by default what the file's name ends with.

        Raises:
            ModuleNotFoundError: If matplotlib is not installed; the extra ``train`` brings it.
        """
        name, user = shortened(one_line(self.name), 2 * _WIDTH), shortened(one_line(self.user), 4 * _WIDTH)
        linked = "by what the item is and is linked to"
        tables = [(f"The score {linked}", self.parts)]
        if self.history is not None:
            seen = f"The score by what was {self.interaction.done}"
            tables = [(seen, self.history), (f"The same score {linked}", self.parts)]
        bars = [_bars(table, self.interaction, name) for _, table in tables]
        title = f"{name} for {user}: {self.score:.2f}"
        lines = textwrap.wrap(title, room(title, 70))
        height = 0.3 + 0.2 * len(lines) + sum(0.6 + 0.3 * len(rows) for rows in bars)
        style = {"fontsize": 11, "usetex": False}
        figure, axes = new_figure(6.4, height, "\n".join(lines), len(tables), **style)
        axes[0, 0].get_gridspec().set_height_ratios([max(1, len(rows)) for rows in bars])
        for ax, (title, _), rows in zip(axes[:, 0], tables, bars, strict=True):
            labels, values = [plain(label) for label, _ in rows], [value for _, value in rows]
            colors = [_UP if value >= 0 else _DOWN for value in values]
            drawn = ax.barh(range(len(rows)), values, color=colors)
            ax.bar_label(drawn, fmt="{:+.2f}", padding=2, fontsize=8)
            ax.set_yticks(range(len(rows)), labels, fontsize=8.5, usetex=False)
            ax.invert_yaxis()
            ax.axvline(0.0, color="0.4", lw=0.8)
            ax.set_title(title, fontsize=10)
            ax.margins(x=0.15)
            if ax is not axes[0, 0]:
                ax.sharex(axes[0, 0])
        ax.set_xlabel("adds to the score", fontsize=9)
        figure.savefig(
            Path(file).expanduser() if isinstance(file, str | Path) else file, dpi=130, format=kind
        )

    def __str__(self) -> str:
        return self.sentence()

    @property
    def _personal(self) -> pd.DataFrame:
        """What belongs to the user and not to the item."""
        return self._rows("memory") if self.history is None else self.history

    def _because(self, beginning: str, table: pd.DataFrame) -> str:
        most, against = self._named(table, 1), self._named(table, -1)
        return (f", {beginning} {most}" if most else "") + (f"; against it: {against}" if against else "")

    def _named(self, table: pd.DataFrame, sign: int) -> str:
        return _named(table, self.interaction, sign)

    def _rows(self, part: str) -> pd.DataFrame:
        return self.parts[self.parts["part"] == part]

    def _sum(self, part: str) -> float:
        return float(self._rows(part)["score"].sum())


def table_of(
    parts: Contributions, catalog: Catalog, edge_part: str, mask: Tensor | None = None
) -> pd.DataFrame:
    """The parts of a score as a table, the edges by what they weigh."""
    others = {"item": parts.own, "constant": parts.constant, "popularity": parts.bias}
    if edge_part == "seen":  # The user has no part of its own: it is the seen items.
        del others["item"]
    others = {name: value for name, value in others.items() if abs(float(value)) > _NOTHING}
    order = parts.score.abs().argsort(descending=True, stable=True)
    none = [None] * len(others)
    columns: dict[str, Any] = {
        "part": [edge_part] * len(order) + list(others),
        "relation": [catalog.relation(relation) for relation in parts.relation[order].tolist()] + none,
        "neighbor": [catalog.name(node) for node in parts.source[order].tolist()] + none,
        "attention": parts.attention[order].tolist() + [0.0] * len(others),
        "score": parts.score[order].tolist() + [float(value) for value in others.values()],
    }
    if mask is not None:
        columns["mask"] = mask[order].tolist() + [0.0] * len(others)
    # As objects None stays None, which is what JSON has.
    types = dict.fromkeys(columns, float) | dict.fromkeys(["part", "relation", "neighbor"], object)
    return pd.DataFrame({name: pd.Series(column, dtype=types[name]) for name, column in columns.items()})


def _links(
    table: pd.DataFrame, interaction: Interaction, between: str = " through "
) -> list[tuple[str, float]]:
    """What the edges of a table add, users together, what weighs most first."""
    edges = table[table["part"].isin(["neighbor", "memory", "seen"])]
    from_user = (edges["part"] == "neighbor") & (edges["relation"] == interaction.edge)
    added: dict[str, float] = {}  # The same link may be there more than once.
    for row in edges[~from_user].itertuples():
        name = one_line(row.neighbor)
        name = name if row.part == "seen" else f"{name}{between}{one_line(row.relation)}"
        added[name] = added.get(name, 0.0) + row.score
    rows = list(added.items())
    if from_user.any():
        count = int(from_user.sum())
        one = f"the one user who {interaction.done} it"
        people = f"its {count} {interaction.people}" if count > 1 else one
        rows.append((people, float(edges.loc[from_user, "score"].sum())))
    return sorted(rows, key=lambda row: -abs(row[1]))


def _named(table: pd.DataFrame, interaction: Interaction, sign: int) -> str:
    """Those of the links that weigh most which add, or take away, in words; nothing where none adds what a
    reader would see.
    """
    links = _links(table, interaction)
    least = max(_SEEN, _SMALL * abs(links[0][1])) if links else 0.0
    words = [f"{name} ({score:+.2f})" for name, score in links[:_MOST] if sign * score >= least]
    return " and ".join([", ".join(words[:-1])] * (len(words) > 1) + words[-1:])


def _bars(table: pd.DataFrame, interaction: Interaction, name: str) -> list[tuple[str, float]]:
    """What a picture shows of a table, for the item of this name."""
    name = shortened(name, _WIDTH)
    others = {"item": f"{name}\nitself", "popularity": f"{name}\nits popularity"}
    others["constant"] = "the model's constant"
    rows = [(others[row.part], row.score) for row in table.itertuples() if row.part in others]
    links = _links(table, interaction, between="\n")
    shown = sum(abs(score) >= _SMALL * abs(links[0][1]) for _, score in links[:_BARS])
    for label, score in links[:shown]:
        rows.append(("\n".join(shortened(line, _WIDTH) for line in label.split("\n")), score))
    if len(links) > shown:
        rows.append((f"{len(links) - shown} more", sum(score for _, score in links[shown:])))
    return rows
