"""From tables to a recommendation and its reason: `python examples/own_data.py`, a few seconds.

The tables are those in the folder of the same name, an invented log of who played whom: put yours in their
place.
"""

import argparse
from pathlib import Path

from mgwa_pyg.datasets import TableKG
from mgwa_pyg.recommend import Recommender
from mgwa_pyg.train import CollaborativeConfig, evaluate, fit

TABLES = Path(__file__).resolve().parent / "own_data"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition(":")[0])
    parser.add_argument("--user", default="giulia.2", help="whom to recommend to (default: giulia.2)")
    parser.add_argument("--out", type=Path, default=Path("runs/own_data"), help="the run folder")
    args = parser.parse_args()

    dataset = TableKG.from_tables(
        TABLES / "plays.csv",
        item="artist",
        weight="plays",
        time="when",
        items=TABLES / "artists.csv",
        name="name",
        attributes=["genre", "country"],
        triples=TABLES / "triples.tsv",
        split="last",  # What everybody played last is for the test.
    )
    print(dataset.summary().to_string(), end="\n\n")
    fit(dataset, CollaborativeConfig.for_ranking(), args.out)

    recommender = Recommender.load(args.out)
    table = recommender.recommend(args.user, k=5)
    print(table.to_string(index=False), end="\n\n")
    print(recommender.explain(args.user, table["item"][0]), end="\n\n")
    print(evaluate(args.out)[["model", "recall@10", "ndcg@10", "p"]].to_string(index=False))


if __name__ == "__main__":
    main()
