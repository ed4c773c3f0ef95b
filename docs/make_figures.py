"""`python docs/make_figures.py`: draws the pictures of the pages in docs/ into docs/figures/."""

import math
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

FOLDER = Path(__file__).resolve().parent / "figures"
# Okabe and Ito's colours, told apart with any colour vision; relations differ in their dashes, too.
BLUE, ORANGE, GREEN, GREY = "#0072B2", "#D55E00", "#009E73", "#666666"
RELATIONS = [(BLUE, "-"), (ORANGE, (0, (4, 2))), (GREEN, (0, (1, 1.2)))]
RADIUS = 0.24

Point = tuple[float, float]


def canvas(width: float, height: float) -> Axes:
    """Axes without frame in which one unit is as long in both directions."""
    figure, axes = plt.subplots(figsize=(width, height))
    figure.subplots_adjust(0, 0, 1, 1)
    axes.set(xlim=(0, width), ylim=(0, height), aspect="equal")
    axes.axis("off")
    return axes


def node(axes: Axes, at: Point, text: str, color: str = GREY, fill: str = "white") -> None:
    """A node of the graph."""
    axes.add_patch(plt.Circle(at, RADIUS, facecolor=fill, edgecolor=color, linewidth=1.6, zorder=3))
    axes.text(*at, text, ha="center", va="center", fontsize=10, zorder=4)


def box(axes: Axes, at: Point, text: str, color: str, width: float = 0.9, height: float = 0.42) -> None:
    """A vector or a step of the computation."""
    corner = (at[0] - width / 2, at[1] - height / 2)
    style = "round,pad=0,rounding_size=0.08"
    patch = FancyBboxPatch(corner, width, height, style, facecolor=color, edgecolor="none", zorder=3)
    axes.add_patch(patch)
    axes.text(*at, text, ha="center", va="center", color="white", fontsize=10, zorder=4)


def arrow(
    axes: Axes,
    start: Point,
    stop: Point,
    color: str = GREY,
    style: object = "-",
    width: float = 1.6,
    cut: tuple[float, float] = (RADIUS, RADIUS),
    bend: float = 0.0,
) -> None:
    """An edge, drawn from rim to rim."""
    length = math.dist(start, stop)
    step = ((stop[0] - start[0]) / length, (stop[1] - start[1]) / length)
    gap = 0.04
    start = (start[0] + step[0] * (cut[0] + gap), start[1] + step[1] * (cut[0] + gap))
    stop = (stop[0] - step[0] * (cut[1] + gap), stop[1] - step[1] * (cut[1] + gap))
    axes.add_patch(
        FancyArrowPatch(
            start,
            stop,
            arrowstyle="-|>",
            mutation_scale=9 + 1.2 * width,
            connectionstyle=f"arc3,rad={bend}",
            shrinkA=0,
            shrinkB=0,
            color=color,
            linestyle=style,
            linewidth=width,
            zorder=2,
        )
    )


def dots(axes: Axes, start: Point, stop: Point, color: str) -> None:
    """A dotted line from a query to what uses it."""
    axes.plot(*zip(start, stop, strict=True), color=color, linestyle=":", linewidth=1.6, zorder=1)


def frame(axes: Axes, left: float, color: str) -> None:
    """A frame around the example graph, with a line to the query above it."""
    style = "round,pad=0,rounding_size=0.1"
    axes.add_patch(
        FancyBboxPatch((left - 0.35, 0.4), 4.0, 1.6, style, facecolor="none", edgecolor=color, linewidth=1.2)
    )
    dots(axes, (left + 1.65, 2.34), (left + 1.65, 2.0), color)


def save(name: str) -> None:
    """Write the picture that was drawn last; the same drawing gives the same bytes."""
    plt.savefig(FOLDER / f"{name}.png", dpi=100, metadata={"Software": None})
    plt.close()


def layer() -> None:
    """One target: typed neighbours, attention as widths, the gate."""
    axes = canvas(8.2, 3.7)
    types, scores = [0, 1, 1, 2], [0.9, 0.5, 0.1]  # sigmoid(q . r) of each relation.
    weights = [math.exp(scores[kind]) for kind in types]
    total = sum(weights)
    sum_at = (3.55, 1.6)
    for row, (kind, weight) in enumerate(zip(types, weights, strict=True)):
        at = (0.5, 2.75 - 0.77 * row)
        color, dashes = RELATIONS[kind]
        node(axes, at, f"$a_{row + 1}$")
        alpha = weight / total
        arrow(axes, at, sum_at, color, dashes, width=0.5 + 12 * alpha, cut=(RADIUS, 0.36))
        middle = (at[0] + 0.36 * (sum_at[0] - at[0]), at[1] + 0.36 * (sum_at[1] - at[1]))
        label = rf"$r_{kind}$: {alpha:.2f}"
        ground = {"facecolor": "white", "edgecolor": "none", "pad": 1.5}
        axes.text(*middle, label, color=color, ha="center", va="center", fontsize=10, bbox=ground, zorder=4)
    box(axes, (2.05, 3.35), "query $q$", GREY, 1.0)
    axes.plot((2.3, 3.4), (3.14, 1.88), color=GREY, linestyle=":", linewidth=1.3)
    note = r"$s_r=\phi(q\cdot r)$, softmax over the neighbourhood"
    axes.text(2.7, 3.35, note, va="center", fontsize=10, color=GREY)
    box(axes, sum_at, "$e_{N(v)}$", BLUE, 0.72, 0.5)
    node(axes, (3.55, 0.4), "$v$")
    box(axes, (5.5, 2.1), r"$\sigma(zW+b)$", ORANGE, 1.3)
    box(axes, (5.5, 0.9), "$zV+c$", GREEN, 1.3)
    for stop in ((5.5, 2.1), (5.5, 0.9)):
        arrow(axes, (3.91, 1.6), (4.85, stop[1]), cut=(0, 0))
        arrow(axes, (3.55, 0.4), (4.85, stop[1] - 0.06), cut=(RADIUS, 0))
    axes.text(5.5, 2.47, "gate", ha="center", fontsize=9, color=GREY)
    axes.text(5.5, 0.44, r"$z=[e_v\,\Vert\,e_{N(v)}]$", ha="center", fontsize=10, color=GREY)
    node(axes, (6.95, 1.5), r"$\odot$")
    for start in ((6.15, 2.1), (6.15, 0.9)):
        arrow(axes, start, (6.95, 1.5), cut=(0, RADIUS))
    box(axes, (7.8, 1.5), r"$e'_v$", BLUE, 0.55)
    arrow(axes, (6.95, 1.5), (7.525, 1.5), cut=(RADIUS, 0))
    save("layer")


GRAPH = [(0, 2, 0), (1, 2, 1), (1, 3, 2), (2, 3, 0), (3, 4, 1)]
PLACES = [(0.0, 0.95), (0.0, 0.0), (1.15, 0.5), (2.3, 0.0), (3.3, 0.5)]


def graph(axes: Axes, left: float, bottom: float, colors: list[str], names: list[str]) -> list[Point]:
    """The example graph of the query pictures; returns where its nodes are."""
    places = [(left + x, bottom + y) for x, y in PLACES]
    for source, target, kind in GRAPH:
        color, dashes = RELATIONS[kind]
        arrow(axes, places[source], places[target], color, dashes)
    for place, color, name in zip(places, colors, names, strict=True):
        node(axes, place, name, color, color + "33")
    return places


def legend(axes: Axes, left: float, bottom: float) -> None:
    """Which dashes are which relation."""
    for kind, (color, dashes) in enumerate(RELATIONS):
        x = left + 0.95 * kind
        axes.plot((x, x + 0.4), (bottom, bottom), color=color, linestyle=dashes, linewidth=1.6)
        axes.text(x + 0.48, bottom, f"$r_{kind}$", va="center", fontsize=9, color=color)


PINK, SKY, YELLOW, PURPLE, OLIVE = "#A8457E", "#2B8CBE", "#A6761D", "#5E4FA2", "#44803F"


def one_query() -> None:
    """One query for all targets."""
    axes = canvas(4.3, 2.85)
    graph(axes, 0.5, 0.72, [PINK] * 5, [str(i) for i in range(5)])
    frame(axes, 0.5, PINK)
    box(axes, (2.15, 2.55), "$q$", PINK)
    legend(axes, 0.95, 0.18)
    save("query_one")


def query_per_target() -> None:
    """A query for each target."""
    axes = canvas(4.8, 2.6)
    colors = [PINK, SKY, YELLOW, PURPLE, OLIVE]
    places = graph(axes, 1.15, 0.7, colors, [str(i) for i in range(5)])
    for number, (place, color) in enumerate(zip(places, colors, strict=True)):
        beside = number < 2
        at = (0.33, place[1]) if beside else (place[0], 2.3)
        dots(axes, at, (place[0] - RADIUS, place[1]) if beside else (place[0], place[1] + RADIUS), color)
        box(axes, at, f"$q_{number}$", color, 0.46)
    legend(axes, 1.4, 0.18)
    save("query_per_target")


def query_index() -> None:
    """Queries of users, of which each target uses one: a subgraph for each user."""
    axes = canvas(8.5, 2.85)
    for user, color in enumerate((PINK, SKY)):
        left = 0.5 + 4.2 * user
        graph(axes, left, 0.72, [color] * 5, [str(5 * user + i) for i in range(5)])
        frame(axes, left, color)
        box(axes, (left + 1.65, 2.55), f"$q_{user}$ (user {user})", color, 1.4)
        text = f"query_index = {user} for these five"
        axes.text(left + 1.65, 0.2, text, ha="center", va="center", fontsize=9, color=color)
    save("query_index")


def main() -> None:
    """Draw all of them."""
    FOLDER.mkdir(exist_ok=True)
    for draw in (layer, one_query, query_per_target, query_index):
        draw()


if __name__ == "__main__":
    main()
