"""The paper's experiment: MGWA, or a model it is compared with, on Last.FM and its knowledge graph.

Trains a model for each protocol and seed, and prints one table of the test rows with the paper's figures and
heuristics beside it. Everything is kept in a run folder.

    python examples/lastfm_mgwa.py                         # MGWA, both protocols, five seeds
    python examples/lastfm_mgwa.py --transe                # start from TransE's embeddings
    python examples/lastfm_mgwa.py --model collaborative   # our own model, the most accurate one
    python examples/lastfm_mgwa.py --model kgcn --fusion concat --negatives items --seeds 1
    python examples/lastfm_mgwa.py --resume runs/NAME      # go on with an interrupted run
"""

import argparse
import sys
import textwrap
from dataclasses import fields
from datetime import datetime
from pathlib import Path

import torch
from rich import print as print_table

from mgwa_pyg.datasets import DownloadError, KGRecDataset, LastFMKG, SyntheticKG
from mgwa_pyg.evaluation import results_table
from mgwa_pyg.nn import FUSIONS
from mgwa_pyg.recommenders import RECOMMENDERS
from mgwa_pyg.train import DivergedError, FitConfig, RunFolder, fit
from mgwa_pyg.train.fit import chosen_device

REPOSITORY = Path(__file__).resolve().parent.parent


# The options that are hyper-parameters, by their names there.
HYPERPARAMETERS = {
    "fusion": "fusion",
    "layers": "num_layers",
    "dim": "channels",
    "fanout": "fanout",
    "epochs": "epochs",
    "transe": "transe",
}


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    # fmt: off
    add("--data", choices=["auto", "lastfm", "synthetic"], default="auto",
        help="auto: Last.FM if it is at hand or can be downloaded, else synthetic")
    add("--negatives", choices=["items", "entities", "both"], default="both",
        help="what negatives are drawn from: the item protocol, the paper protocol, or both")
    add("--model", choices=list(RECOMMENDERS), default="mgwa")
    add("--seeds", type=int, default=5, metavar="N", help="number of seeds (default: 5)")
    add("--seed", type=int, default=0, metavar="FIRST", help="the first seed (default: 0)")
    add("--device", choices=["auto", "cpu", "cuda"], default="auto")
    add("--resume", type=Path, metavar="RUN",
        help="the folder of a run to go on with; its settings are taken from there")
    add("--root", type=Path, default=REPOSITORY / "data", metavar="DIR",
        help="where data sets are kept (default: data/ of the checkout)")
    add("--out", type=Path, metavar="RUN", help="the folder to write (default: runs/DATA-TIME)")
    model = parser.add_argument_group(
        "hyper-parameters", "Each model has defaults of its own: see its file in mgwa_pyg/recommenders/.",
        argument_default=argparse.SUPPRESS,
    )
    add = model.add_argument
    add("--fusion", choices=list(FUSIONS), help="how a node meets its neighbourhood")
    add("--layers", type=int, metavar="N", help="hops looked at")
    add("--dim", type=int, metavar="D", help="size of the embeddings")
    add("--fanout", type=fanout, metavar="K|all", help="neighbours kept per hop in training")
    add("--epochs", type=int, metavar="N", help="epochs at most")
    add("--transe", action="store_true", help="start from TransE's embeddings of the knowledge graph")
    # fmt: on
    args = parser.parse_args()
    if args.seeds < 1 or args.seed < 0:
        parser.error("--seeds must be at least 1 and --seed at least 0")
    names = {field.name for field in fields(RECOMMENDERS[args.model].config_class)}
    for option, name in HYPERPARAMETERS.items():
        if option in args and name not in names:
            parser.error(f"--{option} means nothing to --model {args.model}")
    return args


def fanout(text: str) -> int | None:
    return None if text == "all" else int(text)


def load(name: str, root: Path, negatives: str, seed: int) -> KGRecDataset:
    if name == "synthetic":
        return SyntheticKG(negatives=negatives, seed=seed)
    return LastFMKG(root / "LastFMKG", negatives=negatives, seed=seed)


def choose_data(wanted: str, root: Path) -> str:
    if wanted != "auto":
        return wanted
    try:
        load("lastfm", root, "items", seed=0)
    except DownloadError as error:
        message = (
            f"LAST.FM IS NOT AT HAND, SO THIS RUN USES SYNTHETIC DATA. {error} The figures below say "
            f"nothing about Last.FM, and this run's files are marked as synthetic."
        )
        print(textwrap.fill(message, 100, break_long_words=False, break_on_hyphens=False), flush=True)
        print(flush=True)
        return "synthetic"
    return "lastfm"


def start_run(args: argparse.Namespace) -> RunFolder:
    chosen = {name: getattr(args, option) for option, name in HYPERPARAMETERS.items() if option in args}
    config = RECOMMENDERS[args.model].config_class(**chosen)
    chosen_device(args.device)  # Or an error, before anything is written.
    data = choose_data(args.data, args.root)
    settings = {
        "dataset": {"lastfm": "LastFMKG", "synthetic": "SyntheticKG"}[data],
        "data": data,
        "synthetic": data == "synthetic",
        "model": args.model,
        "protocols": ["entities", "items"] if args.negatives == "both" else [args.negatives],
        "seeds": list(range(args.seed, args.seed + args.seeds)),
        "device": args.device,
        "fit": config.to_dict(),
    }
    default = REPOSITORY / "runs" / f"{data}-{datetime.now():%Y%m%d-%H%M%S}"
    return RunFolder(args.out or default, settings)


def main() -> None:
    args = parse_args()
    # The steps are too small for a second thread to help, but two runs side by side with two threads each
    # slow each other down many times over.
    torch.set_num_threads(1)
    run = RunFolder.resume(args.resume) if args.resume else start_run(args)
    try:
        train(run, args.root)
    except KeyboardInterrupt:
        print(f"interrupted; go on with --resume {run.path}, where all is that was finished", file=sys.stderr)
        raise
    show(run)


def train(run: RunFolder, root: Path) -> None:
    settings = run.settings
    config = FitConfig.from_dict(settings["fit"])

    for negatives in settings["protocols"]:
        for seed in settings["seeds"]:
            if run.has(negatives, seed):
                continue
            dataset = load(settings["data"], root, negatives, seed)
            result = fit(
                dataset,
                config,
                run.fit_folder(negatives, seed),
                seed=seed,
                device=settings["device"],
                name=f"{negatives}, seed {seed}",
            )
            row = run.add(dataset, negatives, seed, result)[0]
            if result.transe is not None:
                mrr, hits, *untwinned = (
                    "-" if result.transe[name] is None else f"{result.transe[name]:.4f}"
                    for name in ("mrr", "hits@10", "mrr_without_twins", "hits@10_without_twins")
                )
                print(
                    f"TransE, held-out triples, filtered: MRR {mrr}, Hits@10 {hits}; where no training "
                    f"triple joins the same two entities: {', '.join(untwinned)}"
                )
            print(
                f"negatives from {negatives}, seed {seed}: AUC {row['auc']:.4f}, best of "
                f"{row['epochs']} epochs: {result.best_epoch}, {row['train_seconds']:.1f} s, "
                f"{row['rows_per_second']:,.0f} rows/s",
                flush=True,
            )


def show(run: RunFolder) -> None:
    metrics, settings = run.finish(), run.settings
    data = "SYNTHETIC data, not Last.FM" if settings["synthetic"] else "Last.FM"
    first, *others = settings["seeds"]
    over = f"mean ± sd of {len(others) + 1} seeds" if others else f"seed {first}"
    print()
    print_table(
        results_table(
            metrics["summary"],
            title=f"Test rows of {data}: {over}",
            paper=not settings["synthetic"],
        )
    )
    print(f"Everything is in {run.path}")


if __name__ == "__main__":
    try:
        main()
    except (DivergedError, OSError, ValueError) as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit(130)
