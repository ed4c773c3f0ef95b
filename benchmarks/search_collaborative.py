"""The search behind the settings of CollaborativeMGWA: Optuna, judged by the validation rows alone.

    python -m benchmarks.search_collaborative click
    python -m benchmarks.search_collaborative ranking

The test rows are never looked at. For clicks the item protocol's AUC counts, for rankings Recall@10 on the
fixed split; each setting is the mean over the seeds. Settings are drawn a few at a time, so that all cores
have work. Optuna comes with `pip install -e '.[search]'`.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import optuna

from benchmarks.data import RANKED
from benchmarks.experiments import Job, parallel
from benchmarks.harness import Settings, environment, interruptible, script_parser, write_results
from mgwa_pyg.train import CollaborativeConfig

#: What is tried for each loss: from, to, and whether the scale is logarithmic.
RANGES: dict[str, dict[str, tuple[float, float, bool]]] = {
    "click": {
        "lr": (5e-3, 5e-2, True),
        "weight_decay": (3e-5, 1e-3, True),
        "hold_out": (0.1, 0.6, False),
        "dropout": (0.0, 0.5, False),
    },
    "ranking": {
        "lr": (5e-3, 5e-2, True),
        "weight_decay": (3e-5, 5e-4, True),
        "hold_out": (0.05, 0.6, False),
        "dropout": (0.0, 0.4, False),
        "degree_power": (0.2, 0.7, False),
    },
}
CHOICES: dict[str, list[Any]] = {
    "channels": [16, 32, 64],
    "num_layers": [1, 2, 3],
    "fusion": ["highway", "identity"],
}
#: Shorter than a fit of the defaults: a setting that needs long is passed over.
LENGTH = {"epochs": 20, "patience": 6}
#: What is chosen now, from which the search starts.
CHOSEN = {"click": CollaborativeConfig(), "ranking": CollaborativeConfig.for_ranking()}
_AT_ONCE = 6


@dataclass(frozen=True)
class Found:
    """What a fit came to on the validation rows."""

    value: float
    best_epoch: int
    seconds: float


def best_of_fit(job: Job) -> Found:
    """Fit, and look at the validation rows."""
    assert job.config is not None
    with job.fitted() as (_, result):
        best = result.history[result.best_epoch - 1]
        return Found(best[job.config.monitor], result.best_epoch, result.train_seconds)


def suggest(trial: optuna.Trial, ranges: dict[str, tuple[float, float, bool]]) -> dict[str, Any]:
    """A setting."""
    chosen: dict[str, Any] = {
        name: trial.suggest_float(name, low, high, log=log) for name, (low, high, log) in ranges.items()
    }
    return chosen | {name: trial.suggest_categorical(name, values) for name, values in CHOICES.items()}


def main() -> None:
    """Search and write what came of it."""
    parser = script_parser("benchmarks.search_collaborative", __doc__)
    parser.add_argument("loss", choices=["click", "ranking"])
    parser.add_argument("--trials", type=int, default=24)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument(
        "--json", type=Path, help="default: benchmarks/results/search_collaborative_LOSS.json"
    )
    args = parser.parse_args()

    settings, negatives = Settings(), "items" if args.loss == "click" else RANKED
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(direction="maximize", sampler=optuna.samplers.TPESampler(seed=0))
    chosen_now, ranges = CHOSEN[args.loss], RANGES[args.loss]
    known = chosen_now.to_dict()
    for fusion in CHOICES["fusion"]:
        study.enqueue_trial({name: known[name] for name in (*ranges, *CHOICES)} | {"fusion": fusion})
    rows: list[dict[str, Any]] = []
    path = args.json or Path(f"benchmarks/results/search_collaborative_{args.loss}.json")

    def write(path: Path) -> None:
        if not rows:
            return
        rows.sort(key=lambda row: -row["value"])
        content = {
            "environment": environment("cpu"),
            "seeds": args.seeds,
            "fixed": {**LENGTH, "passes": chosen_now.passes},
            "validation AUC" if args.loss == "click" else "validation Recall@10": rows,
        }
        write_results(path, content)

    with interruptible(lambda: write(args.json or path.with_name(f"{path.stem}_interrupted.json"))):
        while len(rows) < args.trials:
            trials = [study.ask() for _ in range(min(_AT_ONCE, args.trials - len(rows)))]
            chosen = [suggest(trial, ranges) for trial in trials]
            configs = [replace(chosen_now, **LENGTH, **setting) for setting in chosen]
            jobs = [
                Job("collaborative", config, negatives, seed, settings)
                for config in configs
                for seed in range(args.seeds)
            ]
            found = np.array(parallel(best_of_fit, jobs, args.loss)).reshape(len(trials), args.seeds)
            for trial, setting, of_seeds in zip(trials, chosen, found, strict=True):
                value = float(np.mean([one.value for one in of_seeds]))
                study.tell(trial, value)
                epochs, seconds = (
                    float(np.mean([getattr(one, name) for one in of_seeds]))
                    for name in ("best_epoch", "seconds")
                )
                row = {
                    **setting,
                    "best_epoch": epochs,
                    "seconds": round(seconds, 1),
                    "value": round(value, 5),
                }
                rows.append(row)
                print(row, flush=True)
    write(path)


if __name__ == "__main__":
    main()
