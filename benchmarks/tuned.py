"""Hyper-parameters chosen for each data set by one recipe, `mgwa_pyg.train.tune`, on validation rows alone.

    python -m benchmarks.tuned collaborative --data ml-100k --loss ranking

The experiments take what is kept in benchmarks/results/tuned_DATA_MODEL_LOSS.json. A search that was
interrupted goes on where it was.
"""

from dataclasses import replace
from pathlib import Path

from benchmarks.data import RANKED, load
from benchmarks.harness import DATA, Settings, interruptible, read_results, script_parser, write_results
from mgwa_pyg.recommenders import RECOMMENDERS
from mgwa_pyg.train import FitConfig, tune

#: Where the files are.
TUNED = Path(__file__).parent / "results"
#: Click-through data are those of the first seed.
SEED = 0


def chosen(data: str, config: FitConfig) -> FitConfig:
    """What the search has chosen for a data set, a model and a loss, or else what it begins with."""
    file = TUNED / _name(data, config)
    if file.exists():
        return FitConfig.from_dict(read_results(file)["chosen"]["config"])
    return _start(data, config)


def search(data: str, config: FitConfig, trials: int, minutes: float, folder: Path, root: Path) -> None:
    """Search, and keep what was tried and chosen."""
    dataset = load(Settings(data=data, root=root), RANKED if config.loss == "ranking" else "items", SEED)
    name = _name(data, config)
    place = folder / Path(name).stem
    tune(dataset, _start(data, config), place, trials=trials, minutes=minutes, seed=SEED)
    content = read_results(place / "search.json")
    # Where the data lay is nobody's business.
    content["dataset"] = {"name": DATA[data], "fingerprint": content["dataset"]["fingerprint"]}
    write_results(TUNED / name, content)


def _start(data: str, config: FitConfig) -> FitConfig:
    # An epoch of eight passes takes long where there is more than in Last.FM.
    is_long = (
        config.model == "collaborative" and config.loss == "click" and data not in ("lastfm", "synthetic")
    )
    return replace(config, passes=2) if is_long else config


def _name(data: str, config: FitConfig) -> str:
    return f"tuned_{data}_{config.model}_{config.loss}.json"


def main() -> None:
    """Search as the command line asks."""
    parser = script_parser("benchmarks.tuned", __doc__)
    parser.add_argument("model", choices=list(RECOMMENDERS))
    parser.add_argument("--data", choices=list(DATA), required=True)
    parser.add_argument("--loss", choices=["click", "ranking"], default="ranking")
    parser.add_argument("--trials", type=int, default=30)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--folder", type=Path, default=Path("runs"), help="where searches go on from")
    parser.add_argument("--root", type=Path, default=Path("data"), help="where data sets are kept")
    args = parser.parse_args()
    kind = RECOMMENDERS[args.model].config_class
    config = kind.for_ranking() if args.loss == "ranking" else kind()
    with interruptible():
        search(args.data, config, args.trials, args.minutes, args.folder, args.root)


if __name__ == "__main__":
    main()
