"""The paper's experiment: MGWA on Last.FM and its knowledge graph, under both protocols.

Trains a model for each protocol and seed, and prints one table of the test rows with the paper's figures
and the popularity heuristic beside it. Everything is kept in a run folder.

    python examples/lastfm_mgwa.py                      # both protocols, five seeds
    python examples/lastfm_mgwa.py --negatives items --seeds 1 --layers 2
    python examples/lastfm_mgwa.py --resume runs/NAME   # go on with an interrupted run
"""

import argparse
import sys
from datetime import datetime
from pathlib import Path

from rich.console import Console

from mgwa_pyg.datasets import DownloadError, KGRecDataset, LastFMKG, SyntheticKG
from mgwa_pyg.evaluation import results_table
from mgwa_pyg.nn import FUSIONS
from mgwa_pyg.train import FitConfig, RunFolder, fit

REPOSITORY = Path(__file__).resolve().parent.parent
console = Console(highlight=False)


def parse_args() -> argparse.Namespace:
    default = FitConfig()
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add(
        "--data",
        choices=["auto", "lastfm", "synthetic"],
        default="auto",
        help="auto: Last.FM if it is at hand or can be downloaded, else synthetic",
    )
    add(
        "--negatives",
        choices=["items", "entities", "both"],
        default="both",
        help="what negatives are drawn from: the item protocol, the paper protocol, or both",
    )
    add("--model", choices=["mgwa"], default=default.model)
    add("--fusion", choices=list(FUSIONS), default=default.fusion)
    add("--layers", type=int, default=default.num_layers, help="hops looked at")
    add("--dim", type=int, default=default.channels, help="size of the embeddings")
    add(
        "--fanout",
        type=lambda text: None if text == "all" else int(text),
        default=default.fanout,
        metavar="K|all",
        help="neighbours kept per hop in training",
    )
    add("--seeds", type=int, default=5, help="number of seeds")
    add("--seed", type=int, default=0, help="the first seed")
    add("--epochs", type=int, default=default.epochs, help="epochs at most")
    add("--device", choices=["auto", "cpu", "cuda"], default="auto")
    add("--resume", type=Path, metavar="RUN", help="the folder of a run to go on with")
    add("--out", type=Path, metavar="RUN", help="the folder to write (default: runs/DATA-TIME)")
    args = parser.parse_args()
    if args.seeds < 1:
        parser.error(f"--seeds {args.seeds}: at least one is needed")
    return args


def load(name: str, negatives: str, seed: int) -> KGRecDataset:
    if name == "synthetic":
        return SyntheticKG(negatives=negatives, seed=seed)
    return LastFMKG(REPOSITORY / "data" / "LastFMKG", negatives=negatives, seed=seed)


def choose_data(wanted: str, seed: int) -> str:
    if wanted != "auto":
        return wanted
    try:
        load("lastfm", "items", seed)
    except DownloadError as error:
        console.print(
            f"[bold yellow]Last.FM cannot be had, so this run uses synthetic data.[/] {error} The "
            "figures below say nothing about Last.FM, and everything this run writes is marked as "
            "synthetic.\n"
        )
        return "synthetic"
    return "lastfm"


def main() -> None:
    args = parse_args()
    if args.resume is not None:
        run = RunFolder.resume(args.resume)
        config = FitConfig(**run.settings["fit"])
    else:
        config = FitConfig(
            model=args.model,
            fusion=args.fusion,
            num_layers=args.layers,
            channels=args.dim,
            fanout=args.fanout,
            epochs=args.epochs,
        )
        data = choose_data(args.data, args.seed)
        out = REPOSITORY / "runs" / f"{data}-{datetime.now():%Y%m%d-%H%M%S}"
        run = RunFolder(
            args.out or out,
            {
                "dataset": {"lastfm": "LastFMKG", "synthetic": "SyntheticKG"}[data],
                "synthetic": data == "synthetic",
                "data": data,
                "model": args.model,
                "protocols": ["entities", "items"] if args.negatives == "both" else [args.negatives],
                "seeds": list(range(args.seed, args.seed + args.seeds)),
                "device": args.device,
                "fit": vars(config),
            },
        )

    settings = run.settings
    for negatives in settings["protocols"]:
        for seed in settings["seeds"]:
            if run.has(negatives, seed):
                continue
            dataset = load(settings["data"], negatives, seed)
            result = fit(
                dataset,
                config,
                run.fit_folder(negatives, seed),
                seed=seed,
                device=settings["device"],
                name=f"{negatives}, seed {seed}",
                origin={"dataset": settings["dataset"], "negatives": negatives, "seed": seed},
            )
            row = run.add(dataset, negatives, seed, result)[0]
            console.print(
                f"negatives from {negatives}, seed {seed}: AUC {row['auc']:.4f} after "
                f"{result.best_epoch} of {row['epochs']} epochs, {row['train_seconds']:.1f} s, "
                f"{row['rows_per_second']:,.0f} rows/s"
            )
    metrics = run.finish()
    title = f"Test rows of {dataset_title(settings)}, mean ± sd of {len(settings['seeds'])} seeds"
    console.print()
    console.print(results_table(metrics["summary"], title, paper=not settings["synthetic"]))
    console.print(f"Everything is in {run.path}")


def dataset_title(settings: dict) -> str:
    return "SYNTHETIC data (not Last.FM)" if settings["synthetic"] else "Last.FM"


if __name__ == "__main__":
    try:
        main()
    except (OSError, ValueError) as error:
        sys.exit(f"error: {error}")
