"""The search behind the defaults of `FitConfig`: a grid, judged by the validation rows alone.

    python -m benchmarks.mgwa_search

The test rows are never looked at. Every setting is fitted with the same seeds under both protocols; the
default is the one with the highest mean AUC on the validation rows of the paper protocol.
"""

import argparse
import itertools
import json
import tempfile
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import torch

from mgwa_pyg.datasets import LastFMKG
from mgwa_pyg.train import FitConfig, fit

GRID = {
    "lr": [5e-3, 1e-2, 2e-2],
    "weight_decay": [1e-4, 2e-4, 3e-4, 5e-4],
    "channels": [8, 16, 32],
}
# Varied around the best of the grid, one at a time.
AROUND = {
    "fanout": [4, 16, None],
    "num_layers": [2],
    "batch_size": [128, 256, 1024],
    "fusion": ["sum", "concat", "neighbor"],
}


def validation_auc(config: FitConfig, negatives: str, seeds: range) -> list[float]:
    """The AUC on the validation rows at the best epoch, for each seed."""
    aucs = []
    for seed in seeds:
        dataset = LastFMKG("data/LastFMKG", negatives=negatives, seed=seed)
        with tempfile.TemporaryDirectory() as folder:
            history = fit(dataset, config, folder, seed=seed).history
        aucs.append(max(entry["val_auc"] for entry in history))
    return aucs


def main() -> None:
    """Fit every setting and write what came of it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--json", type=Path, default=Path("benchmarks/results/mgwa_search.json"))
    args = parser.parse_args()

    torch.set_num_threads(1)  # The steps are small: a second thread costs more than it brings.
    rows = []

    def measure(config: FitConfig) -> float:
        row = asdict(config)
        for negatives in ("entities", "items"):
            aucs = validation_auc(config, negatives, range(args.seeds))
            row[f"val_auc_{negatives}"] = float(np.mean(aucs))
        rows.append(row)
        print(
            {key: value for key, value in row.items() if key in {*GRID, *AROUND} or key.startswith("val")},
            flush=True,
        )
        return row["val_auc_entities"]

    grid = [FitConfig(**dict(zip(GRID, values, strict=True))) for values in itertools.product(*GRID.values())]
    best = max(grid, key=measure)
    for name, values in AROUND.items():
        for value in values:
            measure(replace(best, **{name: value}))
    args.json.write_text(json.dumps({"seeds": args.seeds, "best": asdict(best), "rows": rows}, indent=1))


if __name__ == "__main__":
    main()
