"""A checkout compared with itself."""

import sys
from pathlib import Path

from benchmarks import against
from mgwa_pyg.utils.files import read_json


def test_a_checkout_against_itself(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(against.SIZES, "200k edges", (60, 20))
    monkeypatch.setattr(against, "JOBS", against.JOBS[::2])
    root = Path(against.__file__).resolve().parents[1]
    options = ["--rounds", "1", "--seconds", "0.01", "--json", str(tmp_path / "rows.json")]
    monkeypatch.setattr(sys, "argv", ["against", str(root), *options])
    against.main()
    rows = read_json(tmp_path / "rows.json", ["environment", "rows"], "")["rows"]
    assert [row["metric"] for row in rows] == ["time", "time before"] * 2
    assert all(row["value"] > 0 for row in rows)
    assert "GatedAggregationConv, plan" in capsys.readouterr().out
