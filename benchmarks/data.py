"""The data sets of the experiments: the protocols of clicks, and a fixed split of each for rankings."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.harness import NoDataError, Settings
from mgwa_pyg.datasets import BookCrossingKG, DownloadError, KGRecDataset, LastFMKG, RecBoleKG, SyntheticKG
from mgwa_pyg.datasets.download import RAW_VARIABLE

#: What stands for the negatives of a job that ranks all items on the fixed split.
RANKED = "ranking"

_GITHUB = "https://github.com"
_LIGHTKG = f"{_GITHUB}/1371149/LightKG/tree/4776f9aadfb3dfd3296665e4d6c9135baa02b6a2/dataset"
_RECBOLE = f"{_GITHUB}/RUCAIBox/RecBole/tree/7b02be5ec80a88310f2d04a27a82adfcbb5dc211/recbole/dataset_example"
# Where the atomic files come from that nothing downloads.
_ATOMIC_FILES = {"book-crossing": f"{_LIGHTKG}/book-crossing", "ml-100k": f"{_RECBOLE}/ml-100k"}


def load(settings: Settings, negatives: str, seed: int) -> KGRecDataset:
    """The data set of an experiment; for rankings one for all seeds, as its split is fixed.

    Raises:
        NoDataError: If its files are not there and cannot be had.
    """
    try:
        if negatives == RANKED:
            return _FOR_RANKINGS[settings.data](settings.root, "items", 0)
        return _FOR_CLICKS[settings.data](settings.root, negatives, seed)
    except (DownloadError, FileNotFoundError) as error:
        raise NoDataError(str(error)) from error


def _own_files(kind: type[LastFMKG] | type[BookCrossingKG], **options: Any) -> Callable[..., KGRecDataset]:
    """A data set that has its raw files downloaded."""
    return lambda root, negatives, seed: kind(root / kind.__name__, negatives, seed, **options)


def _atomic_files(name: str, **options: Any) -> Callable[..., KGRecDataset]:
    """One in atomic files, which lie in a folder that is only read."""

    def make(root: Path, negatives: str, seed: int) -> KGRecDataset:
        shared = os.environ.get(RAW_VARIABLE)
        folder = (Path(shared).expanduser() if shared else root) / "recbole"
        processed = root / "RecBoleKG" / name
        try:
            return RecBoleKG(folder, name, negatives, seed, processed=processed, **options)
        except FileNotFoundError as error:
            raise NoDataError(f"{error} They are public at {_ATOMIC_FILES[name]}.") from error

    return make


def _synthetic(root: Path, negatives: str, seed: int) -> KGRecDataset:
    return SyntheticKG(negatives=negatives, seed=seed)


_MOVIES = {"min_rating": 4, "interaction": "watches"}
_FOR_CLICKS: dict[str, Callable[..., KGRecDataset]] = {
    "lastfm": _own_files(LastFMKG),
    "bookcrossing": _own_files(BookCrossingKG),
    "ml-100k": _atomic_files("ml-100k", **_MOVIES),
    "synthetic": _synthetic,
}
_FOR_RANKINGS: dict[str, Callable[..., KGRecDataset]] = {
    "lastfm": _own_files(LastFMKG, split="lightkg"),
    "bookcrossing": _atomic_files("book-crossing", split="files", interaction="reads"),
    "ml-100k": _atomic_files("ml-100k", split="per_user", **_MOVIES),
    "synthetic": _synthetic,
}
