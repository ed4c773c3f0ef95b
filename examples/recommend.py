"""Given these artists, ten more, and why: what a run of examples/lastfm_mgwa.py is good for.

    python examples/recommend.py                   # the newest run, for who likes its five most popular ones
    python examples/recommend.py runs/NAME --items "Pink Floyd" "The Strokes" "Arctic Monkeys"
    python examples/recommend.py runs/NAME --user 7 --html why.html

The page is one file: tables, pictures of the explanations, and the curves of the run.
"""

import argparse
import base64
import io
import json
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from jinja2 import Environment, FileSystemLoader
from rich.console import Console
from rich.table import Table

from mgwa_pyg.datasets.interactions import interactions
from mgwa_pyg.recommend import Explanation, Recommender
from mgwa_pyg.recommend.catalog import one_line
from mgwa_pyg.utils.files import whole_file

REPOSITORY = Path(__file__).resolve().parent.parent


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    # fmt: off
    add("run", type=Path, nargs="?", help="the folder of a run (default: the newest one below runs/)")
    asked = parser.add_mutually_exclusive_group()
    asked.add_argument("--items", nargs="+", metavar="NAME",
        help="the items of a new user, by name or id (default: the five most popular ones)")
    asked.add_argument("--user", metavar="ID", help="a user of the data, by the id of its files, instead")
    add("-k", type=int, default=10, metavar="N", help="how many to recommend (default: 10)")
    add("--html", type=Path, metavar="FILE", help="also write a page")
    # fmt: on
    return parser.parse_args()


def newest_run() -> Path:
    runs = sorted((REPOSITORY / "runs").glob("*/best.ckpt"), key=lambda file: file.stat().st_mtime)
    if not runs:
        raise FileNotFoundError("there is no finished run below runs/: make one with `make lastfm`")
    return runs[-1].parent


def most_popular(recommender: Recommender) -> list[int | str]:
    seen = interactions(recommender.dataset[0]).edge_index[1]
    rows = seen.bincount(minlength=recommender.num_items).topk(min(5, recommender.num_items)).indices
    return list(recommender.catalog.item_ids(rows))


def shown(explanations: list[Explanation], scores: pd.DataFrame) -> Table:
    table = Table("", "item", "score", "why", title_justify="left")
    for rank, score, why in zip(scores["rank"], scores["score"], explanations, strict=True):
        table.add_row(str(rank), one_line(why.name), f"{score:.2f}", why.reason or "for itself")
    return table


def picture(source: Explanation | Path) -> str:
    """Return the address of a picture that holds its content."""
    if isinstance(source, Path):
        content = source.read_bytes()
    else:
        out = io.BytesIO()
        source.plot(out, kind="png")
        content = out.getvalue()
    return "data:image/png;base64," + base64.b64encode(content).decode()


# Of an explanation; the others are added up.
MOST_PARTS = 15


def page(run: Path, given: str, explanations: list[Explanation], scores: pd.DataFrame) -> str:
    rows: list[dict[str, Any]] = []
    for rank, score, why in zip(scores["rank"], scores["score"], explanations, strict=True):
        table = why.parts if why.history is None else why.history
        order = table["score"].abs().sort_values(ascending=False, kind="stable").index
        parts, rest = table.loc[order[:MOST_PARTS]], table.loc[order[MOST_PARTS:]]
        attention = parts["attention"].map("{:.3f}".format).where(parts["neighbor"].notna(), "")
        kind = parts["part"].replace("neighbor", "neighbour")  # As sentences spell it.
        rows.append(
            {
                "rank": rank,
                "name": why.name,
                "score": score,
                "reason": why.reason,
                "sentence": why.sentence(),
                "picture": picture(why),
                "parts": parts.fillna("").assign(part=kind, attention=attention).to_dict("records"),
                "more": len(rest),
                "rest": rest["score"].sum(),
            }
        )
    metrics = run / "metrics.json"
    results = json.loads(metrics.read_text()) if metrics.exists() else {"summary": [], "synthetic": False}
    curves = [
        (name, picture(run / file))
        for name, file in (("Learning curves", "curves.png"), ("ROC curves", "roc.png"))
        if (run / file).exists()
    ]
    # Names come from data: nothing of them is taken for HTML.
    folder = FileSystemLoader(Path(__file__).parent)
    template = Environment(loader=folder, autoescape=True, trim_blocks=True).get_template("_recommend.html")
    return template.render(
        title=f"{len(rows)} recommendations",
        given=given,
        synthetic=results["synthetic"],
        rows=rows,
        metrics=results["summary"],
        curves=curves,
        run=f"From {run.name}, by mgwa_pyg.",
    )


def main() -> None:
    args = parse_args()
    torch.set_num_threads(1)  # The questions are too small for more.
    run = args.run or newest_run()
    recommender = Recommender.load(run)
    if args.user is not None:
        given, scores = args.user, recommender.recommend(args.user, args.k)
        title = one_line(f"For user {args.user}.")
    else:
        given = args.items or most_popular(recommender)
        scores = recommender.recommend_for(given, args.k)
        names = [recommender.catalog.name(row) for row in recommender.catalog.items(given).tolist()]
        title = one_line(f"For somebody who {recommender.dataset.interaction.done} {', '.join(names)}.")
    explanations = [recommender.explain(given, item) for item in scores["item"]]

    console = Console(markup=False, emoji=False, highlight=False)  # Names are text.
    console.print(f"From {run}")
    console.print(title)
    console.print(shown(explanations, scores))
    if explanations:
        console.print(explanations[0].sentence())
    if args.html is not None:
        with whole_file(args.html) as file:
            file.write_text(page(run, title, explanations, scores), encoding="utf-8")
        console.print(f"The page is {args.html}")


if __name__ == "__main__":
    try:
        main()
    except (OSError, ValueError, IndexError, NotImplementedError) as error:
        sys.exit(f"error: {error}")
