"""How pictures look: one colour for each model wherever it is drawn, names as they are, labels beside lines.

Nothing here needs more than matplotlib, and that only where something is drawn.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any
from unicodedata import east_asian_width

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# The palette of Okabe and Ito, which colour-blind readers can tell apart.
_RED, _BLUE, _GREEN, _PINK = "#d55e00", "#0072b2", "#009e73", "#cc79a7"
_ORANGE, _SKY, _BLACK, _GREY = "#e69f00", "#56b4e9", "#000000", "#888888"

#: Colour and dashes of each model, heuristic, layer and aggregation. What is ours has a colour of its own.
LOOKS: dict[str, tuple[str, str]] = {
    "CollaborativeMGWA": (_RED, "-"),
    "collaborative": (_RED, "-"),
    "MGWA": (_BLUE, "-"),
    "MGWA from TransE": (_BLUE, "--"),
    "KGCN": (_GREEN, "-"),
    "KGCN, sum": (_GREEN, "-"),
    "KGCN, concat": (_GREEN, "--"),
    "KGCN, neighbor": (_GREEN, ":"),
    "KGCN, sum, official code": (_GREEN, "-."),
    "RippleNet": (_PINK, "-"),
    "RippleNet, published settings": (_PINK, "--"),
    "RippleNet, undirected": (_PINK, ":"),
    "popularity": (_ORANGE, "-"),
    "item-knn": (_SKY, "-"),
    "ease": (_GREY, "-"),
    "stack": (_BLACK, "-"),
    "GatedAggregationConv, plan": (_RED, "-"),
    "GatedAggregationConv, plan, triton": (_RED, "-"),
    "SAGEConv": (_BLUE, "-"),
    "GATConv, edge_dim": (_GREEN, "-"),
    "GATv2Conv, edge_dim": (_GREEN, "--"),
    "TransformerConv": (_PINK, "-"),
    "RGCNConv": (_ORANGE, "-"),
    "RGATConv": (_ORANGE, "--"),
    "FiLMConv": (_SKY, "-"),
    "ours, torch": (_RED, "-"),
    "ours, triton": (_RED, "-"),
    "PyG softmax + scatter": (_BLUE, "-"),
    "torch_scatter": (_GREEN, "--"),
    "torch.compile of PyG's": (_PINK, "-"),
    "floor": (_GREY, ":"),
}
_OTHERS = (_BLUE, _ORANGE, _GREEN, _PINK, _SKY, _BLACK, _GREY)
_SIZE = 8  # Points of a label.


def plain(text: str) -> str:
    """Text that matplotlib draws as it is: a dollar sign would begin a formula."""
    return text.replace("$", r"\$")


def shortened(text: str, width: int) -> str:
    """Text of no more letters than fit, with an ellipsis where it was longer."""
    width = room(text, width)
    return text if len(text) <= width else f"{text[: width - 1].rstrip()}…"


def room(text: str, width: int) -> int:
    """How many letters fit where so many of usual width do: Chinese ones, say, take the room of two."""
    return width // 2 if any(east_asian_width(letter) in "FW" for letter in text) else width


def new_figure(
    width: float, height: float, title: str, rows: int = 1, columns: int = 1, **style: Any
) -> tuple[Figure, np.ndarray]:
    """A picture in inches below a title, and its axes. Without pyplot nothing is shown or left."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(plain(title), **{"fontsize": 12, **style})
    return figure, figure.subplots(rows, columns, squeeze=False)


def is_ours(name: str) -> bool:
    """Whether a name is drawn in bold."""
    return look(name)["color"] == _RED


def look(name: str, number: int = 0) -> dict[str, Any]:
    """The colour, dashes and width of a name's line; a name that is not known gets the colour of a number."""
    known = {other.lower(): value for other, value in LOOKS.items()}
    color, dashes = known.get(name.lower()) or (_OTHERS[number % len(_OTHERS)], "-")
    return {"color": color, "ls": dashes, "lw": 2.6 if color == _RED else 1.2}


def label_lines(ax: Axes) -> None:
    """Write what each line of a plot is beside its end, in its colour, and none over another.

    To be called when the limits of the axes are settled.
    """
    figure: Any = ax.figure
    figure.draw_without_rendering()
    lines = [line for line in ax.get_lines() if not str(line.get_label()).startswith("_")]
    ends = [np.asarray(line.get_xydata())[-1] for line in lines]
    to_axes = ax.transData + ax.transAxes.inverted()
    heights = [float(to_axes.transform(end)[1]) for end in ends]
    gap = 1.3 * _SIZE / 72 * figure.dpi / ax.bbox.height
    for line, end, height in zip(lines, ends, spread(heights, gap), strict=True):
        ax.annotate(
            str(line.get_label()),
            tuple(end),
            (1.04, height),
            textcoords="axes fraction",
            color=line.get_color(),
            fontsize=_SIZE,
            weight="bold" if line.get_linewidth() > 2 else "normal",
            va="center",
            arrowprops={
                "arrowstyle": "-",
                "color": line.get_color(),
                "lw": 0.5,
                "alpha": 0.6,
                "relpos": (0, 0.5),
                "shrinkA": 1,
            },
            annotation_clip=False,
        )


def spread(heights: Sequence[float], gap: float) -> list[float]:
    """The heights nearest to those given, in squares, that are in the same order and a gap apart."""
    order = sorted(range(len(heights)), key=heights.__getitem__)
    blocks: list[tuple[float, int]] = []  # Neighbours that touch: the height of the lowest, and how many.
    for rank, number in enumerate(order):
        blocks.append((heights[number] - rank * gap, 1))
        while len(blocks) > 1 and blocks[-2][0] > blocks[-1][0]:
            (low, few), (high, more) = blocks[-2:]
            blocks[-2:] = [((low * few + high * more) / (few + more), few + more)]
    level = [height for height, size in blocks for _ in range(size)]
    placed = {number: level[rank] + rank * gap for rank, number in enumerate(order)}
    return [placed[number] for number in range(len(heights))]
