"""Pictures look alike: a colour for each model, a label beside each line, none over another."""

from itertools import pairwise

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text
from scipy.optimize import minimize

from mgwa_pyg.utils.looks import LOOKS, is_ours, label_lines, look, spread


@pytest.mark.parametrize(
    ("heights", "gap"),
    [([0.5], 0.1), ([0.3, 0.3, 0.3], 0.1), ([0.9, 0.1, 0.88, 0.5, 0.52, 0.86], 0.06), ([0.1, 0.4, 0.9], 0.2)],
)
def test_labels_are_as_near_as_a_gap_allows(heights, gap):
    placed = spread(heights, gap)
    order = np.argsort(heights, kind="stable")
    apart = [
        {"type": "ineq", "fun": lambda place, low=low, high=high: place[high] - place[low] - gap}
        for low, high in pairwise(order)
    ]
    best = minimize(lambda place: ((place - heights) ** 2).sum(), heights, constraints=apart)
    assert placed == pytest.approx(best.x, abs=1e-4)


def test_a_name_has_one_look_and_ours_are_bold():
    assert look("CollaborativeMGWA") == look("collaborative", 5)  # In a run folder it has its short name.
    assert look("MGWA") == look("mgwa", 3)
    assert {name for name in LOOKS if is_ours(name)} == {
        "CollaborativeMGWA",
        "collaborative",
        "GatedAggregationConv, plan",
        "GatedAggregationConv, plan, triton",
        "ours, torch",
        "ours, triton",
    }
    assert len({look(f"somebody's, {number}", number)["color"] for number in range(7)}) == 7
    assert not is_ours("somebody's")


def test_no_label_lies_over_another():
    figure = Figure(figsize=(5, 3), layout="constrained")
    FigureCanvasAgg(figure)
    ax = figure.subplots()
    for number, last in enumerate([10.0, 10.1, 10.2, 99.0, 1000.0, 1001.0, 1.0, 1.01]):
        ax.plot([1, 2 + number % 2], [5, last], label=f"line {number}")
    ax.plot([1, 2], [3, 3])  # Without a name it gets no label.
    ax.set_yscale("log")
    label_lines(ax)
    figure.draw_without_rendering()
    boxes = [Text.get_window_extent(text) for text in ax.texts]  # Without the line to it.
    assert [text.get_text() for text in ax.texts] == [f"line {number}" for number in range(8)]
    assert not any(one.overlaps(other) for one in boxes for other in boxes if one is not other)
    assert all(box.x0 > ax.bbox.x1 and box.x1 < figure.bbox.x1 for box in boxes)
