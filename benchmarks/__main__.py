"""`python -m benchmarks NAME`: runs a benchmark, prints what came out and writes its rows as JSON."""

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

import torch

from benchmarks.harness import (
    DATA,
    NoDataError,
    Record,
    Report,
    Settings,
    environment,
    interruptible,
    not_run,
    table,
)

#: Modules with a function `run`, imported when asked for. Those that need the fewest packages come first.
BENCHMARKS = [
    "layer",
    "train",
    "rank",
    "scale",
    "recommend",
    "update",
    "warm_start",
    "table2",
    "topk",
    "ablations",
    "collaborative",
    "clicks",
    "tables",
]


def main() -> None:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    add = parser.add_argument
    # fmt: off
    add("name", choices=[*BENCHMARKS, "all"], help="\"all\" goes on where one cannot run")
    add("--device", choices=["cpu", "cuda"], default="cpu")
    add("--json", type=Path, metavar="FILE",
        help="where to write the rows, each as it is finished, compressed if the name ends with .gz "
        "(default: nowhere, but when interrupted to NAME_interrupted.json in --out)")
    add("--quick", action="store_true", help="fewer repetitions; experiments run one seed instead of five")
    add("--data", choices=list(DATA),
        help="what experiments run on (default: Last.FM, but Book-Crossing for clicks); topk runs on "
        "all of them; synthetic: a trial of all that run on real data without these")
    add("--root", type=Path, default=Path("data"), metavar="DIR",
        help="where data sets are kept (default: data)")
    add("--out", type=Path, metavar="DIR",
        help="where their pages and plots go (default: benchmarks/results for a full run on real data, else "
        "runs/benchmarks)")
    add("--recommendations", type=Path, metavar="FILE",
        help="topk: where to write the first ten items of every test user by every model, as CSV with the "
        "columns model, seed, user, item and rank, compressed if the name ends with .gz")
    add("--redraw", action="store_true",
        help="layer and the experiments: write page and plots again from the figures in --out, and measure "
        "nothing")
    # fmt: on
    args = parser.parse_args()
    if args.device == "cuda" and not args.redraw and not torch.cuda.is_available():
        sys.exit(f"error: --device cuda, but torch {torch.__version__} finds no CUDA device here")
    if args.recommendations and (args.name != "topk" or args.redraw):
        parser.error("--recommendations goes with topk, which makes rankings, and without --redraw")
    if args.recommendations and args.recommendations.is_dir():
        parser.error(f"--recommendations {args.recommendations} is a folder: name a file")
    full = args.data != "synthetic" and not args.quick
    out = args.out or Path("benchmarks/results" if full else "runs/benchmarks")
    record = Record({} if args.redraw else environment(args.device), args.json)
    settings = Settings(
        args.device, args.quick, out, root=args.root, recommendations=args.recommendations, record=record
    )

    def keep_the_rows() -> None:
        record.path = args.json or out / f"{args.name}_interrupted.json"
        if record.rows or record.unfinished:
            record.write()
            print(f"the rows that were finished are in {record.path}", file=sys.stderr)

    print(", ".join(f"{key} {value}" for key, value in record.environment.items()))
    with interruptible(keep_the_rows):
        for name in BENCHMARKS if args.name == "all" else [args.name]:
            report = attempt(name, settings, args.data, "redraw" if args.redraw else "run")
            if isinstance(report, str):
                if args.name != "all":
                    sys.exit(f"error: {name} cannot run: {report}")
                print(f"{name} cannot run: {report}")
                report = Report([], statuses=[not_run(name, "all", report)])
            elif report.page is None:
                show(rows_table(report.rows))
            else:
                show(report.page)
                print(f"\nThis page and its plots are in {out}")
            record.finish(report)


def attempt(name: str, settings: Settings, data: str | None = None, what: str = "run") -> Report | str:
    """What a benchmark gives on some data, or on its own, or why it cannot run here."""
    try:
        module = import_module(f"benchmarks.{name}")
        function, experiment = getattr(module, what, None), getattr(module, "EXPERIMENT", None)
        known = [*(experiment.data if experiment else ["lastfm"]), "synthetic"]
        if function is None:
            return "it keeps no page that could be drawn again: run it without --redraw"
        if data not in (None, *known):
            return f"it does not run on --data {data}: choose {' or '.join(known)}"
        return function(replace(settings, data=data or known[0]))
    except ModuleNotFoundError as error:
        return f"it needs {error.name}, which is not installed"
    except FileNotFoundError as error:
        if what != "redraw":
            raise
        return f"{error.filename} is not there: run it without --redraw first"
    except NoDataError as error:
        return f"{error} For a trial without the data, add --data synthetic."


def show(page: str) -> None:
    """Print Markdown, typeset if rich is installed."""
    try:
        from rich.console import Console
        from rich.markdown import Markdown
    except ImportError:
        print(page)
    else:
        Console(width=None if sys.stdout.isatty() else 120).print(Markdown(page))


def rows_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """One line a figure."""
    lines = [
        [
            row["benchmark"],
            row["case"],
            row["implementation"],
            f"{row['metric']} [{row['unit']}]",
            f"{row['value']:,.4g}" if row["value"] < 1e4 else f"{row['value']:,.0f}",
            f"{row['sd']:,.3g}",
            str(row["n"]),
        ]
        for row in rows
    ]
    return table(["benchmark", "case", "implementation", "metric", "value", "sd", "n"], lines)


if __name__ == "__main__":
    main()
