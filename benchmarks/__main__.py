"""`python -m benchmarks NAME`: runs a benchmark, prints its table and writes its rows as JSON."""

import argparse
import sys
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks import train
from benchmarks.harness import environment, write_json

BENCHMARKS = {"train": train.run}


def main() -> None:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("name", choices=[*BENCHMARKS, "all"])
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--json", type=Path, metavar="FILE", help="where to write the rows")
    parser.add_argument("--quick", action="store_true", help="fewer repetitions")
    args = parser.parse_args()

    names = list(BENCHMARKS) if args.name == "all" else [args.name]
    rows = [row for name in names for row in BENCHMARKS[name](args.device, args.quick)]
    stamp = environment(args.device)
    if args.json is not None:
        write_json(args.json, {"environment": stamp, "rows": rows})

    console = Console(highlight=False, width=None if sys.stdout.isatty() else 120)
    console.print(", ".join(f"{key} {value}" for key, value in stamp.items()))
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
    console.print(table)


if __name__ == "__main__":
    main()
