"""The folder that a run leaves: settings, metrics, predictions, the best checkpoint and plots."""

from __future__ import annotations

import platform
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import torch
import torch_geometric

from mgwa_pyg.datasets import KGRecDataset
from mgwa_pyg.datasets.interactions import interactions
from mgwa_pyg.evaluation import click_report, predict_heuristics, summarize
from mgwa_pyg.train.click import kinds
from mgwa_pyg.train.fit import FitResult
from mgwa_pyg.train.plots import plot_curves, plot_roc, roc_curves
from mgwa_pyg.utils.files import read_json, whole_file, write_json
from mgwa_pyg.version import __version__

#: The columns of ``predictions.csv``; user and item are row numbers of the data, the score is a probability.
PREDICTION_COLUMNS = ("model", "negatives", "seed", "split", "user", "item", "label", "score")
# What the files of a run are asked for.
_SETTINGS = ("dataset", "synthetic", "model", "protocols", "seeds", "fit")
_RESULT = ("rows", "val_auc", "history", "transe")


def environment() -> dict[str, Any]:
    """The machine and the versions that something was done with."""
    return {
        "mgwa_pyg": __version__,
        "torch": torch.__version__,
        "torch_geometric": torch_geometric.__version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "threads": torch.get_num_threads(),
    }


class RunFolder:
    """A run: one fit for each protocol and seed, and what they come to together.

    Each fit is kept in a folder of its own under ``fits/`` as soon as it is done, so that an interrupted
    run can go on; :meth:`finish` puts them together.

    Args:
        path (path): The folder.
        settings (mapping): What the run was asked to do, for ``config.json``. Its ``protocols`` and
            ``seeds`` list the fits, ``dataset`` names the data and ``synthetic`` says whether it was
            made up.

    Raises:
        FileExistsError: If the folder holds a run already.
        NotADirectoryError: If it is a file.
    """

    def __init__(self, path: Path | str, settings: Mapping[str, Any]) -> None:
        self.path = Path(path).expanduser()
        if self.path.exists() and not self.path.is_dir():
            raise NotADirectoryError(f"{self.path} is a file: choose a folder")
        if (self.path / "config.json").exists():
            raise FileExistsError(
                f"{self.path} holds a run already: go on with it (--resume {self.path}), or choose "
                f"another folder"
            )
        self.settings = {**settings, "environment": environment()}
        write_json(self.path / "config.json", self.settings)

    @classmethod
    def resume(cls, path: Path | str) -> RunFolder:
        """Open the folder of a run that was begun before.

        Raises:
            FileNotFoundError: If there is no run.
            DamagedFileError: If its settings were damaged.
        """
        run = cls.__new__(cls)
        run.path = Path(path).expanduser()
        config = run.path / "config.json"
        if not config.exists():
            raise FileNotFoundError(f"{config} is missing: {path} is not the folder of a run")
        run.settings = read_json(config, _SETTINGS, "begin anew in another folder")
        return run

    def fit_folder(self, negatives: str, seed: int) -> Path:
        """The folder of the fit for a protocol and a seed."""
        return self.path / "fits" / f"{negatives}-seed{seed}"

    def has(self, negatives: str, seed: int) -> bool:
        """Whether the fit for a protocol and a seed is done."""
        return (self.fit_folder(negatives, seed) / "result.json").exists()

    def add(self, dataset: KGRecDataset, negatives: str, seed: int, result: FitResult) -> list[dict]:
        """Evaluate a fit and the heuristics on the test rows, keep both, and return their rows.

        Raises:
            ValueError: If the test or the validation rows do not have both labels.
        """
        data = result.data
        links = interactions(data)
        for name, mask in (("validation", links.val_mask), ("test", links.test_mask)):
            label = links.edge_label[mask]
            if label.unique().numel() < 2:
                raise ValueError(
                    f"the {name} rows are {kinds(label)}, but both labels are needed for the figures of a "
                    f"run: split the data otherwise, or take the fit by itself, which is {result.checkpoint}"
                )
        scores = {
            self.settings["model"]: (result.val_score, result.score),
            **predict_heuristics(data, dataset.num_items),
        }
        cost = {
            "epochs": len(result.history),
            "train_seconds": result.train_seconds,
            "rows_per_second": result.rows_per_second,
        }
        key = {"negatives": negatives, "seed": seed, "split": "test"}
        user, item = links.edge_label_index[:, links.test_mask].numpy()
        pairs = {"user": user, "item": item, "label": links.edge_label[links.test_mask].long().numpy()}
        rows, frames = [], []
        for model, (val_score, score) in scores.items():
            columns = {"model": model, **key, **pairs, "score": score.float().numpy()}
            frames.append(pd.DataFrame(columns, columns=PREDICTION_COLUMNS))
            spent = cost if model == self.settings["model"] else dict.fromkeys(cost)
            rows.append({"model": model, **key, **click_report(data, val_score, score), **spent})

        folder = self.fit_folder(negatives, seed)
        with whole_file(folder / "predictions.csv") as file:
            # Nine digits give back every single-precision number.
            pd.concat(frames).to_csv(file, index=False, float_format="%.9g")
        content = {
            "rows": rows,
            "val_auc": result.history[result.best_epoch - 1]["val_auc"],
            "history": result.history,
            "transe": result.transe,
        }
        write_json(folder / "result.json", content)
        return rows

    def finish(self) -> dict[str, Any]:
        """Put the fits together: ``metrics.json``, ``predictions.csv``, ``best.ckpt`` and the plots.

        The best checkpoint is the one with the highest AUC on the validation rows of the item protocol,
        or of the only protocol there is: AUCs of different protocols do not compare.

        Returns the content of ``metrics.json``.

        Raises:
            FileNotFoundError: If a fit is not done.
            DamagedFileError: If what it left was damaged.
        """
        fits = [
            (negatives, seed) for negatives in self.settings["protocols"] for seed in self.settings["seeds"]
        ]
        results = {
            fit: read_json(
                self.fit_folder(*fit) / "result.json", _RESULT, "delete it, and the fit is done anew"
            )
            for fit in fits
        }
        rows = [row for result in results.values() for row in result["rows"]]
        metrics = {
            "dataset": self.settings["dataset"],
            "synthetic": self.settings["synthetic"],
            "rows": rows,
            "summary": summarize(rows),
        }
        transe = [
            {"negatives": negatives, "seed": seed, **result["transe"]}
            for (negatives, seed), result in results.items()
            if result["transe"] is not None
        ]
        if transe:
            metrics["transe"] = transe
        write_json(self.path / "metrics.json", metrics)

        with whole_file(self.path / "predictions.csv") as file, file.open("w") as out:
            for number, fit in enumerate(fits):
                text = (self.fit_folder(*fit) / "predictions.csv").read_text()
                out.write(text if number == 0 else text.split("\n", 1)[1])

        headline = "items" if "items" in self.settings["protocols"] else fits[0][0]
        best = max((fit for fit in fits if fit[0] == headline), key=lambda fit: results[fit]["val_auc"])
        with whole_file(self.path / "best.ckpt") as file:
            shutil.copyfile(self.fit_folder(*best) / "best.ckpt", file)
        if (data := self.fit_folder(*best) / "dataset.pt").exists():  # Of tables, which are no more needed.
            with whole_file(self.path / data.name) as file:
                shutil.copyfile(data, file)

        title = self.settings["dataset"] + (" (synthetic)" if self.settings["synthetic"] else "")
        histories: dict[str, list[Any]] = {}
        for (negatives, _), result in results.items():
            histories.setdefault(negatives, []).append(result["history"])
        with whole_file(self.path / "curves.png") as file:
            plot_curves(histories, title, file)
        with whole_file(self.path / "roc.png") as file:
            plot_roc(roc_curves(pd.read_csv(self.path / "predictions.csv")), title, file)
        return metrics
