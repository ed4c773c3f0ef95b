"""`mgwa-pyg`: the package on the command line, also as `python -m mgwa_pyg.cli`."""

from __future__ import annotations

import argparse
import json
import os
import re
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

# What takes seconds to import is imported by the commands: help is there at once.
if TYPE_CHECKING:
    import pandas as pd

    from mgwa_pyg.datasets import KGRecDataset
    from mgwa_pyg.recommend import Recommender
    from mgwa_pyg.recommenders import FitConfig

# What a command ends with, in one line.
_ERRORS = (ImportError, IndexError, OSError, RuntimeError, TypeError, ValueError)
# How the library's messages call an argument: `name=`, with a value or without, or a word like `warm_start`.
_ARGUMENT = re.compile(r"(?<![^\s(`])(?:([a-z_]+)=(?=([\w'\"\[-])?)|([a-z]+_[a-z_]+)(?![^\s,:;)]))")

_DATA = """\
DATA is a table of who did what, such as plays.csv (CSV, TSV or Parquet, also .gz); or lastfm, bookcrossing or
synthetic; or FOLDER/NAME of a data set in RecBole's atomic files."""

_FIT = f"""\
Train a model on tables of your own, or on a data set that has a name here.

{_DATA}
The folder of --out is what the other commands take, and what mgwa_pyg.recommend.Recommender.load opens. The
same command goes on with an interrupted fit.

example:
  mgwa-pyg fit plays.csv --user user --item artist --weight plays --time when --split last \\
      --items artists.csv --name name --attributes genre country --triples triples.tsv --out runs/mine
  mgwa-pyg recommend runs/mine --user giulia.2
  mgwa-pyg fit grown.csv --item artist --epochs 2 --warm-start runs/mine --out runs/grown"""

_TUNE = f"""\
Choose the hyper-parameters of a model for a data set, on its validation rows, and fit the model with them.

{_DATA}
The folder of --out holds search.json, all that was tried, and the fit, as `mgwa-pyg fit` leaves it. The same
command goes on with an interrupted search.

example:
  mgwa-pyg tune plays.csv --item artist --triples triples.tsv --trials 30 --minutes 30 --out runs/tuned"""

_EVALUATE = """\
Measure a run on its test rows, beside popularity, item-kNN, EASE and shared tails.

The table is printed, and goes to evaluation.csv in the run folder, with a plot, evaluation.png, and what the
model recommends to each user, recommendations.csv (user, item, rank, score).

example:
  mgwa-pyg evaluate runs/mine
  mgwa-pyg evaluate runs/mine -k 20 --json evaluation.json"""

_RECOMMEND = """\
Recommend items to a user of a run's data, or to somebody new.

example:
  mgwa-pyg recommend runs/mine --user giulia.2 -k 10
  mgwa-pyg recommend runs/mine --items "The Velvet Otters" "Brass Umbrella" --exclude "No Mow May" --json"""

_SIMILAR = """\
List the items most like another.

example:
  mgwa-pyg similar runs/mine --item "The Velvet Otters" -k 5"""

_EXPLAIN = """\
Say what the score of an item for a user comes from.

example:
  mgwa-pyg explain runs/mine --user giulia.2 --item "Brass Umbrella" --plot why.png"""

_EXPORT = """\
Write vectors of users and items whose inner products rank like the model, for an index or a vector database,
and their ids. What is printed tells how many of the model's ten best items the vectors find again.

example:
  mgwa-pyg export runs/mine --out vectors --dimensions 32
  mgwa-pyg export runs/mine --out vectors --format parquet --dimensions 32"""

_KG_WORTH = """\
Measure what a knowledge graph is worth to a model: with it, without it, with its tails shuffled, and without
each of its relations, with paired tests over users. The table is printed, and goes to kg_worth.csv beside a
plot, kg_worth.png.

example:
  mgwa-pyg kg-worth --run runs/mine
  mgwa-pyg kg-worth plays.csv --item artist --triples triples.tsv --seeds 3 --out runs/worth"""

# What tables have, by the arguments of TableKG.from_tables.
_TABLES = {
    "user": ("COLUMN", "the column of the users (default: user)"),
    "item": ("COLUMN", "the column of the items (default: item)"),
    "weight": ("COLUMN", "the column of what a row weighs, such as plays: kept, but no model uses it yet"),
    "time": ("COLUMN", "the column of the times, for splits"),
    "items": ("FILE", "a table of what is known of items"),
    "name": ("COLUMN", "the column of the items' names"),
    "attributes": ("COLUMN", "columns of categories of items, which become triples"),
    "separator": ("TEXT", "what stands between several categories in a cell"),
    "triples": ("FILE", "the graph: a table with the columns head, relation and tail, or N-Triples, Turtle"),
    "links": ("FILE", "a table of items and the entities that they are in the graph"),
    "entity_names": ("FILE", "a table of entities and their names"),
    "interaction": ("WORD", "what users do with items: listens, reads, watches or interacts"),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command, and return its exit code.

    Args:
        arguments (sequence of str, optional): The command and its options; by default those of the process.
    """
    args = _parser().parse_args(arguments)
    try:
        with _ended_by_signals(), _short_warnings(args.options):
            args.run_command(args)
            sys.stdout.flush()
    except BrokenPipeError:  # Whoever reads, such as `head`, has what they want.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python flushes once more at the end.
        return 141  # What a shell has for SIGPIPE.
    except KeyboardInterrupt as error:
        print("interrupted", file=sys.stderr)
        return 128 + int(error.args[0] if error.args else signal.SIGINT)
    except _ERRORS as error:
        text = _as_typed(str(error), args.options)
        if isinstance(error, ImportError) and "pip install" not in text:
            text += ": pip install 'mgwa_pyg[search]'"
        print(f"error: {text}", file=sys.stderr)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="mgwa-pyg", description="Recommendation over knowledge graphs.")
    options: dict[str, str] = {}  # By their arguments: also those of `fit`, to which others send back.
    parser.set_defaults(options=options)
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")

    def add(
        name: str, run: Callable[[argparse.Namespace], None], short: str, text: str
    ) -> Callable[..., None]:
        command = commands.add_parser(
            name, help=short, description=text, formatter_class=argparse.RawDescriptionHelpFormatter
        )
        command.set_defaults(run_command=run)

        def option(*names: str, **settings: Any) -> None:
            action = command.add_argument(*names, **settings)
            if action.option_strings:
                options[action.dest] = action.option_strings[0]

        return option

    # fmt: off
    option = add("fit", _fit, "train a model on your tables", _FIT)
    _add_data(option)
    option("--out", type=Path, default=Path("runs/mine"), metavar="RUN",
           help="the run folder that is made (default: runs/mine)")
    option("--warm-start", type=Path, metavar="RUN",
           help="start from this run of the same model, if data have grown since: few --epochs are enough")
    _add_device(option)

    option = add("tune", _tune, "choose hyper-parameters for a data set, and fit", _TUNE)
    _add_data(option)
    option("--trials", type=int, default=30, metavar="N", help="hyper-parameters to try (default: 30)")
    option("--minutes", type=float, default=30, metavar="M",
           help="no trial begins that might end later (default: 30)")
    option("--seeds", type=int, default=1, metavar="N", help="fits that a trial is the mean of (default: 1)")
    option("--out", type=Path, default=Path("runs/tuned"), metavar="RUN",
           help="where search.json and the fit go (default: runs/tuned)")
    _add_processes(option)

    option = add("evaluate", _evaluate, "measure a run beside heuristics", _EVALUATE)
    _add_run(option)
    option("-k", type=int, default=10, metavar="K", help="the length of the rankings (default: 10)")
    option("--json", nargs="?", const="-", metavar="FILE",
           help="write the table as JSON; without FILE, print nothing else")
    _add_device(option)

    option = add("recommend", _recommend, "the best items for a user", _RECOMMEND)
    _add_run(option)
    _add_whom(option)
    option("--candidates", nargs="+", metavar="ITEM", help="recommend among these only")
    option("--exclude", nargs="+", metavar="ITEM", help="recommend none of these")
    _add_answer(option)

    option = add("similar", _similar, "the items most like another", _SIMILAR)
    _add_run(option)
    option("--item", required=True, metavar="ITEM", help="the item, by id or name")
    _add_answer(option)

    option = add("explain", _explain, "why an item has its score", _EXPLAIN)
    _add_run(option)
    _add_whom(option)
    option("--item", required=True, metavar="ITEM", help="the item, by id or name")
    option("--plot", type=Path, metavar="FILE", help="draw what the score comes from")
    option("--json", action="store_true", help="print JSON, with each part of the score")

    option = add("export", _export, "write vectors for other programs", _EXPORT)
    _add_run(option)
    option("--out", type=Path, required=True, metavar="FOLDER", help="where the files go")
    option("--format", choices=["numpy", "parquet", "safetensors"], default="numpy",
           help="how vectors are written (default: numpy)")
    option("--dimensions", type=int, metavar="N",
           help="for what of a score is no inner product: collaborative needs it if trained to rank")

    option = add("kg-worth", _kg_worth, "measure what a knowledge graph is worth", _KG_WORTH)
    option("--run", type=Path, metavar="RUN", help="a run folder: its data and its hyper-parameters")
    _add_data(option)
    option("--seeds", type=int, default=3, metavar="N", help="fits that a figure is the mean of (default: 3)")
    option("--relations", nargs="*", metavar="NAME",
           help="leave out these relations, or none if no name follows (default: each)")
    option("--max-relations", type=int, default=10, metavar="N",
           help="leave out the N largest one by one, the others together (default: 10)")
    option("--rows", choices=["val", "test"], default="val",
           help="what figures are of: validation rows for decisions (default), test rows for a final report")
    option("--out", type=Path, metavar="DIR",
           help="where table and plot go (default: the folder of --run, or runs/kg_worth)")
    _add_processes(option)
    # fmt: on
    return parser


def _add_data(option: Callable[..., Any]) -> None:
    """Add what says which data and which model."""
    # fmt: off
    option("table", nargs="?", metavar="DATA", help="the data: see above")
    option("--data", metavar="DATA", help="the same")
    for name, (kind, text) in _TABLES.items():
        many = {"nargs": "+"} if name == "attributes" else {}
        option(f"--{name.replace('_', '-')}", metavar=kind, help=f"of tables: {text}", **many)
    option("--split", help="how the data are split: random or per_user; of tables also time, last, none or "
           "column:NAME, of RecBole's files also files, and lightkg of lastfm "
           "(default: per_user for rankings, random for clicks)")
    option("--model", default="collaborative",
           help="collaborative, mgwa, kgcn, ripplenet or lightgcn (default: collaborative)")
    option("--loss", choices=["click", "ranking"],
           help="what the model learns, and is judged by: clicks by AUC, rankings by Recall@10 (default: "
           "ranking for tables, which asks what to recommend, click for the other data sets)")
    option("--min-rating", type=float, metavar="R",
           help="the least rating that is an interaction, in RecBole's files (default: all rows are)")
    option("--root", type=Path, default=Path("data"), metavar="DIR",
           help="where the data sets that have names here are kept (default: data)")
    option("--epochs", type=int, metavar="N", help="epochs of a fit at most (default: the model's)")
    option("--seed", type=int, default=0, metavar="N", help="the seed of split, search and fits (default: 0)")
    # fmt: on


def _add_run(option: Callable[..., Any]) -> None:
    option("run", type=Path, metavar="RUN", help="a run folder, as `mgwa-pyg fit` leaves it")


def _add_whom(option: Callable[..., Any]) -> None:
    option("--user", metavar="ID", help="the user's id")
    option("--items", nargs="+", metavar="ITEM", help="or what somebody new has seen, by ids or names")


def _add_answer(option: Callable[..., Any]) -> None:
    option("-k", type=int, default=10, metavar="K", help="how many items (default: 10)")
    option("--json", action="store_true", help="print JSON")


def _add_device(option: Callable[..., Any]) -> None:
    option("--device", choices=["auto", "cpu", "cuda"], default="auto")


def _add_processes(option: Callable[..., Any]) -> None:
    _add_device(option)
    option("--processes", type=int, metavar="N", help="fits at once (default: one a core; one on a GPU)")


def _fit(args: argparse.Namespace) -> None:
    from mgwa_pyg.datasets import TableKG
    from mgwa_pyg.train import fit

    dataset, config = _dataset(args), _config(args)
    if isinstance(dataset, TableKG):  # Whether all was read as it was meant.
        print(dataset.summary().to_string(), file=sys.stderr)
    result = fit(dataset, config, args.out, seed=args.seed, device=args.device, warm_start=args.warm_start)
    print(f"{result.sentence()} The fit is in {args.out}")


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
    print(f"chosen: {', '.join(changed) or 'what the search began with'}")
    print(f"{result.sentence()} The fit is in {args.out}")


def _evaluate(args: argparse.Namespace) -> None:
    from mgwa_pyg.train import evaluate

    table = evaluate(args.run, k=args.k, device=args.device)
    text = json.dumps({"run": str(args.run), "k": args.k, "rows": _records(table)}, indent=2)
    if args.json == "-":
        print(text)
        return
    if args.json is not None:
        Path(args.json).write_text(f"{text}\n", encoding="utf-8")
    print(table.set_index("model").T.to_string(float_format="{:.4f}".format, na_rep=""))
    print(
        f"difference: by how much Recall@{args.k} of the model is above, with its 95 % interval and p. "
        f"Also in {args.run}"
    )


def _recommend(args: argparse.Namespace) -> None:
    options = {"k": args.k, "candidates": args.candidates, "exclude": args.exclude}
    if _is_newcomer(args):
        table = _load(args).recommend_for(args.items, **options)
    else:
        table = _load(args).recommend(args.user, **options)
    those = "the items of the data" if args.candidates is None else "the items of --candidates"
    left_out = "" if args.exclude is None else " or in --exclude"
    _show(table, args.json, f"There is nothing to recommend: all {those} are seen{left_out}.")


def _similar(args: argparse.Namespace) -> None:
    table = _load(args).similar_items(args.item, args.k)
    _show(table, args.json, "There is nothing like it: the data have no other item.")


def _explain(args: argparse.Namespace) -> None:
    whom = args.items if _is_newcomer(args) else args.user
    why = _load(args).explain(whom, args.item)
    if args.plot is not None:
        why.plot(args.plot)
    if not args.json:
        print(why)
        return
    answer = {name: getattr(why, name) for name in ("user", "item", "name", "score", "is_seen")}
    answer["sentence"] = why.sentence()
    for name, table in (("parts", why.parts), ("history", why.history)):
        answer[name] = None if table is None else _records(table)
    print(json.dumps(answer, ensure_ascii=False, indent=2))


def _export(args: argparse.Namespace) -> None:
    written = _load(args).export(args.out, args.format, dimensions=args.dimensions)
    print(written.to_string(float_format="{:.4f}".format))
    print(f"The files are in {args.out}")


def _load(args: argparse.Namespace) -> Recommender:
    from mgwa_pyg.recommend import Recommender

    return Recommender.load(args.run)


def _is_newcomer(args: argparse.Namespace) -> bool:
    if (args.user is None) == (args.items is None):
        given = "none of them is" if args.user is None else "both are"
        raise ValueError(
            f"for whom? Pass either --user ID, or --items that somebody new has seen: {given} given"
        )
    return args.user is None


def _show(table: pd.DataFrame, as_json: bool, nothing: str) -> None:
    """Print an answer; in words where it is empty."""
    if as_json:
        print(json.dumps(_records(table), ensure_ascii=False, indent=2))
    elif table.empty:
        print(nothing)
    else:
        print(table.to_string(index=False, float_format="{:.3f}".format))


def _records(table: pd.DataFrame) -> list[dict[str, Any]]:
    """A table as JSON has it: a missing value is null."""
    return table.astype(object).where(table.notna(), None).to_dict("records")


def _kg_worth(args: argparse.Namespace) -> None:
    from mgwa_pyg.recommenders import restore
    from mgwa_pyg.recommenders.checkpoint import checkpoint_of
    from mgwa_pyg.train import kg_worth

    if (args.run is None) == (args.table is None and args.data is None):
        raise ValueError("which model and data? Pass either --run RUN or DATA")
    if args.run is None:
        dataset, config = _dataset(args), _config(args)
    else:
        recommender = restore(checkpoint_of(args.run))
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
    rows = {"val": "validation", "test": "test"}[args.rows]
    print(
        f"On {rows} rows. Below zero a change does harm; p is over users, adjusted for {len(table) - 1} "
        f"tests. Also in {out}"
    )
    if args.seeds == 1:
        print("One seed says nothing of what another would give: take --seeds 3 or more to decide by.")


def _dataset(args: argparse.Namespace) -> KGRecDataset:
    from mgwa_pyg.datasets import BookCrossingKG, LastFMKG, RecBoleKG, SyntheticKG, TableKG

    name = args.table if args.data is None else args.data
    if name is None or (args.table is not None and args.data is not None):
        raise ValueError("which data? Pass one: a table, such as plays.csv, a folder, or a name")
    split = args.split or ("per_user" if _loss(args) == "ranking" else "random")
    options = {"seed": args.seed, "split": split}
    tables = {key: value for key in _TABLES if (value := getattr(args, key)) is not None}
    path = Path(name).expanduser()
    if args.min_rating is not None and not path.is_dir():
        raise ValueError(f"--min-rating is for RecBole's files: {name} has interactions, no ratings")
    if _is_table(name):
        if not path.is_file():
            raise ValueError(
                f"{name} is neither a table, nor lastfm, bookcrossing or synthetic, nor a folder of "
                f"RecBole's files: there is no such file"
            )
        return TableKG.from_tables(path, **tables, **options)
    if tables:
        raise ValueError(
            f"--{next(iter(tables)).replace('_', '-')} is for tables of your own: {name} is none"
        )
    if path.is_dir():
        path = path.absolute() if path.name not in ("", "..") else path.resolve()  # "." has a name, too.
        return RecBoleKG(path.parent, path.name, min_rating=args.min_rating, **options)
    if name == "synthetic":
        return SyntheticKG(**options)
    kind = {"lastfm": LastFMKG, "bookcrossing": BookCrossingKG}[name]
    return kind(args.root.expanduser() / kind.__name__, **options)


def _is_table(name: str) -> bool:
    return name not in ("lastfm", "bookcrossing", "synthetic") and not Path(name).expanduser().is_dir()


def _loss(args: argparse.Namespace) -> str:
    return args.loss or ("ranking" if _is_table(args.data or args.table) else "click")


def _config(args: argparse.Namespace) -> FitConfig:
    from mgwa_pyg.recommenders import RECOMMENDERS
    from mgwa_pyg.utils.checks import check_choice

    kind = RECOMMENDERS[check_choice("model", args.model, RECOMMENDERS)].config_class
    config = kind.for_ranking() if _loss(args) == "ranking" else kind()
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
def _short_warnings(options: Mapping[str, str]) -> Iterator[None]:
    """Show warnings in one line each."""

    def show(message: Warning | str, *args: Any, **settings: Any) -> None:
        print(f"warning: {_as_typed(str(message), options)}", file=sys.stderr)

    with warnings.catch_warnings():
        warnings.showwarning = show
        yield


def _as_typed(text: str, options: Mapping[str, str]) -> str:
    """A message in one line, with the options that people type in the place of the arguments of Python."""

    def typed(found: re.Match[str]) -> str:
        option = options.get(found[1] or found[3])
        return found[0] if option is None else option + (" " if found[2] else "")

    return _ARGUMENT.sub(typed, " ".join(text.split()))


if __name__ == "__main__":
    sys.exit(main())
