"""Data sets made again from what they say of themselves."""

from collections.abc import Mapping
from typing import Any

from mgwa_pyg.datasets.base import KGRecDataset
from mgwa_pyg.datasets.book_crossing_kg import BookCrossingKG
from mgwa_pyg.datasets.lastfm_kg import LastFMKG
from mgwa_pyg.datasets.movielens_kg import MovieLens1MKG, MovieLens20MKG
from mgwa_pyg.datasets.recbole_kg import RecBoleKG
from mgwa_pyg.datasets.synthetic_kg import SyntheticKG

_CLASSES: dict[str, type[KGRecDataset]] = {
    kind.__name__: kind
    for kind in (BookCrossingKG, LastFMKG, MovieLens1MKG, MovieLens20MKG, RecBoleKG, SyntheticKG)
}


def from_recipe(recipe: Mapping[str, Any]) -> KGRecDataset:
    r"""Makes a data set again, without transforms.

    Args:
        recipe (Mapping[str, Any]): The :obj:`recipe` of the data set.

    Raises:
        ValueError: If its class is none of mgwa_pyg's, or an argument is none of the allowed values.
        OSError: If its files are gone and cannot be had again.
    """
    name = recipe["class"]
    if name not in _CLASSES:
        raise ValueError(f"{name} is none of {', '.join(_CLASSES)}: pass the data set itself")
    return _CLASSES[name](**recipe["arguments"])
