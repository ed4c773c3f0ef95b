"""The drop-in examples: every layer trains in the same model, and ours wins where relations matter."""

import re
import runpy
import sys
from pathlib import Path

import pytest
import torch

EXAMPLES = Path(__file__).resolve().parent.parent.parent / "examples"
ROW = re.compile(r"│ (\w+) +│ +([\d.]+)(?: ± [\d.]+)? │ +([\d.]+) │ +([\d.]+) │ +([\d,]+) │")


@pytest.fixture
def rows(monkeypatch, capsys):
    """Run an example in this process; gives accuracy, ms per epoch, MB and parameters of each layer."""
    threads = torch.get_num_threads()

    def run(name, *args):
        monkeypatch.syspath_prepend(EXAMPLES)  # As for a script that is started by its path.
        monkeypatch.setenv("COLUMNS", "100")
        monkeypatch.setenv("KINETO_LOG_LEVEL", "99")  # As the example does, but undone at the end.
        monkeypatch.setattr(sys, "argv", [name, *map(str, args)])
        runpy.run_path(str(EXAMPLES / name), run_name="__main__")
        table = ROW.findall(capsys.readouterr().out)
        return {layer: [float(value.replace(",", "")) for value in values] for layer, *values in table}

    yield run
    torch.set_num_threads(threads)  # The examples use one.


@pytest.mark.parametrize(
    ("name", "layers"),
    [
        ("drop_in_rgcn_entities.py", ["GATv2Conv", "RGCNConv", "GatedAggregationConv"]),
        ("drop_in_homogeneous.py", ["SAGEConv", "GATv2Conv", "RGCNConv", "GatedAggregationConv"]),
    ],
)
def test_the_table_has_a_row_for_each_layer(rows, name, layers):
    table = rows(name, "--seeds", 2, "--epochs", 3, "--hidden", 8)
    assert list(table) == layers
    for accuracy, milliseconds, megabytes, parameters in table.values():
        assert 0.1 < accuracy < 0.9  # Five classes, three epochs.
        assert milliseconds > 0
        assert 0.1 < megabytes < 100
        assert 100 < parameters < 10000


@pytest.mark.slow
def test_ours_is_at_least_as_accurate_where_relations_matter(rows):
    table = rows("drop_in_rgcn_entities.py", "--seeds", 1, "--epochs", 40)
    ours = table.pop("GatedAggregationConv")
    assert ours[0] >= max(accuracy for accuracy, *_ in table.values())


def test_results_repeat(rows):
    def accuracies():
        table = rows("drop_in_homogeneous.py", "--seeds", 1, "--epochs", 2)
        return {layer: values[0] for layer, values in table.items()}

    assert accuracies() == accuracies()


@pytest.mark.parametrize(
    ("device", "message"), [("cuda", "torch finds no CUDA device"), ("gpu", "invalid choice")]
)
def test_devices_that_are_not_there(rows, capsys, monkeypatch, device, message):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SystemExit) as error:
        rows("drop_in_homogeneous.py", "--device", device)
    assert error.value.code == 2
    assert message in capsys.readouterr().err
