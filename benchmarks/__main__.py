"""`python -m benchmarks NAME`: runs a benchmark, prints what came out and writes its rows as JSON."""

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markdown import Markdown
from rich.table import Table

from benchmarks import ablations, layer, table2, topk, train
from benchmarks.harness import Report, Settings, environment
from mgwa_pyg.datasets import DownloadError
from mgwa_pyg.files import write_json

BENCHMARKS: dict[str, Callable[[Settings], Report]] = {
    "train": train.run,
    "table2": table2.run,
    "ablations": ablations.run,
    "topk": topk.run,
    "layer": layer.run,
}


def main() -> None:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    add = parser.add_argument
    # fmt: off
    add("name", choices=[*BENCHMARKS, "all"])
    add("--device", choices=["cpu", "cuda"], default="cpu")
    add("--json", type=Path, metavar="FILE", help="where to write the rows")
    add("--quick", action="store_true", help="fewer repetitions; experiments run one seed instead of five")
    add("--data", choices=["lastfm", "synthetic"], default="lastfm",
        help="what table2, ablations and topk run on (default: lastfm)")
    add("--root", type=Path, default=Path("data"), metavar="DIR",
        help="where data sets are kept (default: data)")
    add("--out", type=Path, metavar="DIR",
        help="where their pages and plots go (default: benchmarks/results for a full run on Last.FM, else "
        "runs/benchmarks)")
    # fmt: on
    args = parser.parse_args()
    full = args.data == "lastfm" and not args.quick
    out = args.out or Path("benchmarks/results" if full else "runs/benchmarks")
    settings = Settings(args.device, args.quick, out, args.data, args.root)

    names = list(BENCHMARKS) if args.name == "all" else [args.name]
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 120)
    stamp = environment(args.device)
    console.print(", ".join(f"{key} {value}" for key, value in stamp.items()))
    rows = []
    for name in names:
        report = BENCHMARKS[name](settings)
        rows += report.rows
        console.print(rows_table(report.rows) if report.page is None else Markdown(report.page))
        if report.page is not None:
            console.print(f"\nThis page and its plots are in {out}")
    if args.json is not None:
        write_json(args.json, {"environment": stamp, "rows": rows})


def rows_table(rows: Sequence[Mapping[str, Any]]) -> Table:
    """One line a figure."""
    table = Table("benchmark", "case", "implementation", "metric", "value", "sd", "n")
    for row in rows:
        table.add_row(
            row["benchmark"],
            row["case"],
            row["implementation"],
            f"{row['metric']} [{row['unit']}]",
            f"{row['value']:,.4g}" if row["value"] < 1e4 else f"{row['value']:,.0f}",
            f"{row['sd']:,.3g}",
            str(row["n"]),
        )
    return table


if __name__ == "__main__":
    try:
        main()
    except DownloadError as error:
        sys.exit(f"error: {error} For a trial without the data, add --data synthetic.")
