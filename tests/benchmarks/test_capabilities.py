"""What the layer is said to be able to do, it does; and the page in docs/ says what is true of each layer."""

import re
from pathlib import Path

import pytest
import torch
import torch_geometric

from benchmarks.capabilities import CHECKS, LAYERS, attempt, markdown, saved_bytes

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "gated_aggregation_conv.md").read_text()
# The page says so, too.
NOT_OURS = {"the type of a node's only edge changes its result", "node ids in place of features"}


def cells(text):
    """Yes or no, by capability and layer, of a table in Markdown."""
    rows = [
        [cell.strip().strip("`") for cell in line.strip("|").split(" | ")]
        for line in text[text.index("| | `RGATConv`") :].split("\n\n")[0].splitlines()
    ]
    return {row[0]: dict(zip(rows[0][1:], row[1:], strict=True)) for row in rows[2:]}


TABLE = {
    capability: {name: cell.split(" (")[0] for name, cell in row.items()}
    for capability, row in cells(PAGE).items()
    if not capability.startswith("saved")
}
LAYER = {layer.name: layer for layer in LAYERS}


def test_the_page_has_every_capability():
    assert list(TABLE) == [name.strip("`") for name in CHECKS]
    assert all(list(row) == list(LAYER) for row in TABLE.values())


@pytest.mark.parametrize("name", CHECKS)
def test_our_layer(name):
    reason = attempt(LAYER["GatedAggregationConv"], CHECKS[name])
    assert (reason is not None) == (name in NOT_OURS), reason
    assert TABLE[name.strip("`")]["GatedAggregationConv"] == ("no" if name in NOT_OURS else "yes")


@pytest.mark.parametrize("name", CHECKS)
def test_the_page_is_true_of_pygs_layers(name):
    torch_version, pyg_version = re.search(r"torch (\d[\d.]+\d) and PyG (\d[\d.]+\d)", PAGE).groups()
    if torch.__version__.split("+")[0] != torch_version or torch_geometric.__version__ != pyg_version:
        pytest.skip(f"the page speaks of torch {torch_version} and PyG {pyg_version}")
    for layer in LAYERS[:-1]:
        reason = attempt(layer, CHECKS[name])
        assert TABLE[name.strip("`")][layer.name] == ("yes" if reason is None else "no"), (layer.name, reason)


def test_our_layer_saves_least():
    sizes = {name: saved_bytes(layer) for name, layer in LAYER.items()}
    assert min(sizes, key=sizes.get) == "GatedAggregationConv", sizes


def test_a_reason_is_printed_once():
    row = {"metric": "works", "value": 0, "reason": "too dull"}
    rows = [{**row, "case": "flying", "implementation": name} for name in ("A", "B")]
    assert markdown(rows).splitlines()[2:] == ["| flying | no (1) | no (1) |", "", "1. too dull"]
