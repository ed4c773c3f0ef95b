"""`mgwa-pyg`: the package on the command line, also as `python -m mgwa_pyg.cli`."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

# What takes seconds to import is imported by the commands: help is there at once.
if TYPE_CHECKING:
    from mgwa_pyg.datasets import KGRecDataset
    from mgwa_pyg.recommenders import FitConfig

# What a command ends with, in one line.
_ERRORS = (ImportError, IndexError, OSError, RuntimeError, TypeError, ValueError)

_TUNE = """\
Choose the hyper-parameters of a model for a data set, on its validation rows, and fit the model with them.

The folder of --out holds search.json, all that was tried, and best.ckpt, which
mgwa_pyg.recommend.Recommender.load(OUT) opens. The same command goes on with an interrupted search."""

_KG_WORTH = """\
Measure what a knowledge graph is worth to a model: with it, without it, with its tails shuffled, and without
each of its relations, with paired tests over users. The table is printed, and goes to kg_worth.csv beside a
plot, kg_worth.png."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command, and return its exit code.

    Args:
        arguments (sequence of str, optional): The command and its options; by default those of the process.
    """
    args = _parser().parse_args(arguments)
    try:
        with _ended_by_signals(), _short_warnings():
            args.run_command(args)
    except KeyboardInterrupt as error:
        print("interrupted", file=sys.stderr)
        return 128 + int(error.args[0] if error.args else signal.SIGINT)
    except _ERRORS as error:
        text = " ".join(str(error).split())
        if isinstance(error, ImportError) and "pip install" not in text:
            text += ": pip install 'mgwa_pyg[search]'"
        print(f"error: {text}", file=sys.stderr)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="mgwa-pyg", description="Recommendation over knowledge graphs.")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")

    def add(name: str, run: Callable[[argparse.Namespace], None], short: str, text: str) -> Any:
        command = commands.add_parser(
            name, help=short, description=text, formatter_class=argparse.RawDescriptionHelpFormatter
        )
        command.set_defaults(run_command=run)
        return command.add_argument

    # fmt: off
    option = add("tune", _tune, "choose hyper-parameters for a data set, and fit", _TUNE)
    _add_data(option, required=True)
    option("--trials", type=int, default=30, metavar="N", help="hyper-parameters to try (default: 30)")
    option("--minutes", type=float, default=30, metavar="M",
           help="no trial begins that might end later (default: 30)")
    option("--seeds", type=int, default=1, metavar="N", help="fits that a trial is the mean of (default: 1)")
    option("--out", type=Path, default=Path("runs/tuned"), metavar="DIR",
           help="where search.json and the fit go (default: runs/tuned)")
    _add_machine(option)

    option = add("kg-worth", _kg_worth, "measure what a knowledge graph is worth", _KG_WORTH)
    option("--run", type=Path, metavar="DIR",
           help="a folder with a fit, such as `mgwa-pyg tune` leaves: its data and its hyper-parameters")
    _add_data(option, required=False)
    option("--seeds", type=int, default=3, metavar="N", help="fits that a figure is the mean of (default: 3)")
    option("--relations", nargs="*", metavar="NAME",
           help="leave out these relations, or none if no name follows (default: each)")
    option("--max-relations", type=int, default=10, metavar="N",
           help="leave out the N largest one by one, the others together (default: 10)")
    option("--rows", choices=["val", "test"], default="val",
           help="what figures are of: validation rows for decisions, test rows for a final report")
    option("--out", type=Path, metavar="DIR",
           help="where table and plot go (default: the folder of --run, or runs/kg_worth)")
    _add_machine(option)
    # fmt: on
    return parser


def _add_data(option: Callable[..., Any], required: bool) -> None:
    """Add what says which data and which model."""
    # fmt: off
    option("--data", required=required, metavar="DATA",
           help="lastfm, bookcrossing, synthetic, or FOLDER/NAME of a data set in RecBole's atomic files")
    option("--model", default="collaborative", help="the model (default: collaborative)")
    option("--loss", choices=["click", "ranking"], default="click",
           help="what the model learns, and is judged by: clicks by AUC, rankings by Recall@10 "
           "(default: click)")
    option("--split", help="how the data are split: random, per_user, or files (RecBole's own), or lightkg "
           "(lastfm's) (default: random for clicks, per_user for rankings)")
    option("--min-rating", type=float, metavar="R",
           help="the least rating that is an interaction, in RecBole's files (default: all rows are)")
    option("--root", type=Path, default=Path("data"), metavar="DIR",
           help="where the data sets that have names here are kept (default: data)")
    option("--epochs", type=int, metavar="N", help="epochs of a fit at most (default: the model's)")
    option("--seed", type=int, default=0, metavar="N", help="the seed of split, search and fits (default: 0)")
    # fmt: on


def _add_machine(option: Callable[..., Any]) -> None:
    option("--device", choices=["auto", "cpu", "cuda"], default="auto")
    option("--processes", type=int, metavar="N", help="fits at once (default: one a core; one on a GPU)")


def _tune(args: argparse.Namespace) -> None:
    from mgwa_pyg.train import fit, tune

    dataset, config = _dataset(args), _config(args)
    chosen = tune(
        dataset,
        config,
        args.out,
        trials=args.trials,
        minutes=args.minutes,
        seeds=args.seeds,
        processes=args.processes,
        seed=args.seed,
        device=args.device,
    )
    result = fit(dataset, chosen, args.out, seed=args.seed, device=args.device)
    changed = [
        f"{field.name}={getattr(chosen, field.name)!r}"
        for field in fields(chosen)
        if getattr(chosen, field.name) != getattr(config, field.name)
    ]
    value = result.history[result.best_epoch - 1][chosen.monitor]
    print(f"chosen: {', '.join(changed) or 'what the search began with'}")
    print(f"{chosen.monitor} {value:.4f} after {result.best_epoch} epochs; the fit is in {args.out}")


def _kg_worth(args: argparse.Namespace) -> None:
    from mgwa_pyg.recommenders import restore
    from mgwa_pyg.train import kg_worth

    if (args.run is None) == (args.data is None):
        raise ValueError("which model and data? Pass either --run DIR or --data DATA")
    if args.run is None:
        dataset, config = _dataset(args), _config(args)
    else:
        recommender = restore(args.run.expanduser() / "best.ckpt")
        dataset, config = recommender.dataset, recommender.config
        if not getattr(config, "knowledge_graph", True):
            warnings.warn("this fit left the triples out; they are taken in here", stacklevel=1)
            config = replace(config, knowledge_graph=True)  # type: ignore[call-arg]
    out = args.out or args.run or Path("runs/kg_worth")
    table = kg_worth(
        dataset,
        config,
        out,
        seeds=args.seeds,
        relations=True if args.relations is None else args.relations,
        max_relations=args.max_relations,
        split=args.rows,
        processes=args.processes,
        seed=args.seed,
        device=args.device,
    )
    print(table.to_string(index=False, float_format="{:.4f}".format, na_rep=""))
    print(f"Below zero a change does harm; p is adjusted for {len(table) - 1} tests. Also in {out}")


def _dataset(args: argparse.Namespace) -> KGRecDataset:
    from mgwa_pyg.datasets import BookCrossingKG, LastFMKG, RecBoleKG, SyntheticKG

    split = args.split or ("per_user" if args.loss == "ranking" else "random")
    options = {"seed": args.seed, "split": split}
    folder = Path(args.data).expanduser()
    if args.data in ("lastfm", "bookcrossing", "synthetic"):
        if args.min_rating is not None:
            raise ValueError(f"--min-rating is for RecBole's files: {args.data} has interactions, no ratings")
        if args.data == "synthetic":
            return SyntheticKG(**options)
        kind = {"lastfm": LastFMKG, "bookcrossing": BookCrossingKG}[args.data]
        return kind(args.root.expanduser() / kind.__name__, **options)
    if not folder.is_dir():
        raise ValueError(
            f"--data {args.data} is neither lastfm, bookcrossing or synthetic nor a folder of RecBole's files"
        )
    return RecBoleKG(folder.absolute().parent, folder.name, min_rating=args.min_rating, **options)


def _config(args: argparse.Namespace) -> FitConfig:
    from mgwa_pyg.recommenders import RECOMMENDERS
    from mgwa_pyg.utils.checks import check_choice

    kind = RECOMMENDERS[check_choice("model", args.model, RECOMMENDERS)].config_class
    config = kind.for_ranking() if args.loss == "ranking" else kind()
    return config if args.epochs is None else replace(config, epochs=args.epochs)


@contextmanager
def _ended_by_signals() -> Iterator[None]:
    """End the block at SIGTERM as at Ctrl-C, wherever it runs: so the processes that it started end, too."""
    if threading.current_thread() is not threading.main_thread():  # Handlers are the main thread's alone.
        yield
        return
    heard: list[int] = []

    def stop(number: int, frame: Any) -> None:
        heard.append(number)
        raise KeyboardInterrupt(number)

    def send_again(unraisable: Any) -> None:
        if isinstance(unraisable.exc_value, KeyboardInterrupt):  # It came while something was destroyed.
            threading.Timer(0.1, os.kill, (os.getpid(), heard[-1])).start()
        else:
            hook(unraisable)

    handlers = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    hook, sys.unraisablehook = sys.unraisablehook, send_again
    try:
        yield
    except BaseException:
        if heard:  # What was interrupted may have ended in an error of its own.
            raise KeyboardInterrupt(heard[0]) from None
        raise
    finally:
        sys.unraisablehook = hook
        for number, handler in handlers.items():
            signal.signal(number, handler)


@contextmanager
def _short_warnings() -> Iterator[None]:
    """Show warnings in one line each."""

    def show(message: Warning | str, *args: Any, **options: Any) -> None:
        print(f"warning: {' '.join(str(message).split())}", file=sys.stderr)

    with warnings.catch_warnings():
        warnings.showwarning = show
        yield


if __name__ == "__main__":
    sys.exit(main())
