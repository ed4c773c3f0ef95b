"""`from_spec`: a data set made again from its class and arguments."""

import os
from collections.abc import Mapping
from inspect import signature
from pathlib import Path
from typing import Any

from mgwa_pyg.datasets.base import KGRecDataset
from mgwa_pyg.datasets.book_crossing_kg import BookCrossingKG
from mgwa_pyg.datasets.lastfm_kg import LastFMKG
from mgwa_pyg.datasets.movielens_kg import MovieLens1MKG, MovieLens20MKG
from mgwa_pyg.datasets.recbole_kg import RecBoleKG
from mgwa_pyg.datasets.synthetic_kg import SyntheticKG
from mgwa_pyg.datasets.table_kg import TableKG

_CLASSES: dict[str, type[KGRecDataset]] = {
    kind.__name__: kind
    for kind in (BookCrossingKG, LastFMKG, MovieLens1MKG, MovieLens20MKG, RecBoleKG, SyntheticKG, TableKG)
}
_NOT_KEPT = {"transform", "pre_transform", "force_reload"}
_PLAIN = (bool, int, float, str, type(None))


def from_spec(spec: Mapping[str, Any], folder: str | os.PathLike[str] = ".") -> KGRecDataset:
    r"""Make a data set again, without transforms.

    Args:
        spec (Mapping[str, Any]): The :obj:`spec` of the data set.
        folder (path): Where a data set that a run folder keeps is looked for. (default: :obj:`"."`)

    Raises:
        TypeError: If an argument is missing.
        ValueError: If this is no spec, its class is none of mgwa_pyg's, or an argument is none that a
            spec has, or none of the allowed values.
        OSError: If its files are gone and cannot be had again.
    """
    try:
        name, arguments = spec["class"], {**spec["arguments"]}
    except (KeyError, TypeError) as error:
        raise ValueError(f"spec={spec!r:.60}: a class and its arguments are needed") from error
    if not isinstance(name, str) or name not in _CLASSES:
        raise ValueError(f"{name} is none of {', '.join(_CLASSES)}: pass the data set itself")
    # A spec may come from somebody else.
    allowed = signature(_CLASSES[name]).parameters.keys() - _NOT_KEPT
    for argument, value in arguments.items():
        if argument not in allowed or not isinstance(value, _PLAIN):
            raise ValueError(f"a spec of {name} has no {argument}={value!r:.60}: pass the data set itself")
    if isinstance(arguments.get("path"), str):
        arguments["path"] = str(Path(folder, arguments["path"]))
    return _CLASSES[name](**arguments)
