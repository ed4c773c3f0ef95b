"""The searches behind the defaults of `mgwa_pyg.train`: a grid a model, judged by the validation rows alone.

    python -m benchmarks.search mgwa
    python -m benchmarks.search mgwa --data bookcrossing

The test rows are never looked at. Every setting is fitted with the same seeds, under both protocols and
in all forms of the model that use the same defaults (layers, aggregators); the defaults are the setting with
the highest mean AUC on the validation rows over all of these. Some settings of MGWA that do well with one
layer don't leave the start with two: Adam's L2 regularisation pulls the embeddings to zero before the gates
let a signal through.
"""

import itertools
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.experiments import PROTOCOLS, Interrupted, Job, parallel
from benchmarks.harness import Settings, environment, interruptible, script_parser, write_results
from mgwa_pyg.recommenders import RECOMMENDERS

# For each data set and model what is tried, and the forms in which it is tried.
GRIDS: dict[str, dict[str, dict[str, list[Any]]]] = {
    "lastfm": {
        "mgwa": {"lr": [5e-3, 1e-2, 2e-2], "weight_decay": [1e-4, 2e-4, 3e-4], "channels": [8, 16]},
        "kgcn": {"lr": [2e-3, 5e-3, 1e-2, 2e-2], "weight_decay": [1e-5, 1e-4, 3e-4]},
        "ripplenet": {"lr": [2e-3, 5e-3, 1e-2], "weight_decay": [1e-7, 1e-6, 1e-5]},
    },
    "bookcrossing": {
        "mgwa": {"lr": [5e-3, 1e-2, 2e-2], "weight_decay": [1e-5, 3e-5, 1e-4], "channels": [8, 16]},
        "kgcn": {"lr": [2e-3, 5e-3, 1e-2], "weight_decay": [1e-5, 3e-5, 1e-4]},
    },
}
#: The protocols that a data set is judged by: the paper's is there for the paper's table.
JUDGED_BY = {"lastfm": list(PROTOCOLS), "bookcrossing": ["items"]}
FORMS: dict[str, dict[str, list[Any]]] = {
    "mgwa": {"num_layers": [1, 2]},
    "kgcn": {"fusion": ["sum", "concat", "neighbor"]},
    "ripplenet": {"directed": [True]},
}


def fit_history(job: Job) -> list[dict[str, float]]:
    """The learning curve of a fit."""
    with job.fitted() as (_, result):
        return result.history


def product(options: dict[str, list[Any]]) -> list[dict[str, Any]]:
    """All combinations."""
    return [dict(zip(options, values, strict=True)) for values in itertools.product(*options.values())]


def main() -> None:
    """Fit every setting and write what came of it."""
    parser = script_parser("benchmarks.search", __doc__)
    parser.add_argument("model", choices=list(FORMS))
    parser.add_argument("--data", choices=list(GRIDS), default="lastfm")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--json", type=Path, help="default: benchmarks/results/search_MODEL[_DATA].json")
    args = parser.parse_args()
    if args.model not in GRIDS[args.data]:
        parser.error(f"there is no grid for {args.model} on {args.data}")

    settings, forms = product(GRIDS[args.data][args.model]), product(FORMS[args.model])
    protocols, config_class = JUDGED_BY[args.data], RECOMMENDERS[args.model].config_class
    jobs = [
        Job(args.model, config_class(**setting, **form), negatives, seed, Settings(data=args.data))
        for setting, form, negatives, seed in itertools.product(settings, forms, protocols, range(args.seeds))
    ]
    name = args.model if args.data == "lastfm" else f"{args.model}_{args.data}"
    path = args.json or Path(f"benchmarks/results/search_{name}.json")

    def write(histories: list[list[dict[str, float]] | None], path: Path) -> None:
        """The settings of which all fits are done."""
        aucs = np.array([max(epoch["val_auc"] for epoch in h) if h else np.nan for h in histories])
        aucs = aucs.reshape(len(settings), len(forms), len(protocols), args.seeds).mean(axis=-1)
        rows = []
        for setting, of_setting in zip(settings, aucs, strict=True):
            if np.isnan(of_setting).any():
                continue
            row: dict[str, Any] = dict(setting)
            for form, of_form in zip(forms, of_setting, strict=True):
                name = ", ".join(f"{key}={value}" for key, value in form.items())
                for negatives, auc in zip(protocols, of_form, strict=True):
                    row[f"{negatives}, {name}"] = round(float(auc), 5)
            row["mean"] = round(float(of_setting.mean()), 5)
            rows.append(row)
        rows.sort(key=lambda row: -row["mean"])
        for row in rows:
            print(row)
        if rows:
            content = {"environment": environment("cpu"), "seeds": args.seeds, "validation AUC": rows}
            write_results(path, content)

    with interruptible():
        try:
            histories = parallel(fit_history, jobs, args.model)
        except Interrupted as stop:
            write(stop.results, args.json or path.with_name(f"{path.stem}_interrupted.json"))
            raise
        write(histories, path)


if __name__ == "__main__":
    main()
