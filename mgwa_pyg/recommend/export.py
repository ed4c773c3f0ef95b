"""Vectors of users and items in files, for an index of inner products."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from mgwa_pyg.utils.files import whole_file

_Vectors = npt.NDArray[np.float32]
_LEAST, _MOST = -(2**63), 2**63 - 1
_INSTALL = "`pip install mgwa_pyg[export]`"


def write_vectors(
    folder: Path, file_format: str, vectors: dict[str, _Vectors], ids: dict[str, Sequence[int | str]]
) -> None:
    """Write the vectors of some kinds, ``"users"`` and ``"items"``, and their ids beside them.

    Args:
        folder (Path): Where; it is made if need be.
        file_format (str): One of :data:`FORMATS`.
        vectors (dict): The vectors by kind, :math:`(n, d)` each.
        ids (dict): The ids by kind, in the same order.

    Raises:
        ImportError: If the format's package is not installed.
        OSError: If a file cannot be written.
    """
    FORMATS[file_format](folder, vectors, ids)
    for kind, of_kind in ids.items():
        with whole_file(folder / f"{kind}.json") as file:
            file.write_text(json.dumps([*of_kind]))


def _write_numpy(folder: Path, vectors: dict[str, _Vectors], ids: dict[str, Sequence[int | str]]) -> None:
    for kind, of_kind in vectors.items():
        with whole_file(folder / f"{kind}.npy") as file, file.open("wb") as opened:
            np.save(opened, of_kind)


def _write_parquet(folder: Path, vectors: dict[str, _Vectors], ids: dict[str, Sequence[int | str]]) -> None:
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError as error:
        raise ImportError(f"Parquet files need pyarrow: {_INSTALL}, or take NumPy's") from error
    for kind, of_kind in vectors.items():
        # Ids of both kinds, and numbers of more than 64 bits, can only be kept as text.
        texts = any(isinstance(id_, str) or not _LEAST <= id_ <= _MOST for id_ in ids[kind])
        column = pa.array([str(id_) for id_ in ids[kind]] if texts else [*ids[kind]])
        lists = pa.FixedSizeListArray.from_arrays(pa.array(of_kind.reshape(-1)), of_kind.shape[1])
        with whole_file(folder / f"{kind}.parquet") as file:
            pq.write_table(pa.table({"id": column, "vector": lists}), file)


def _write_safetensors(
    folder: Path, vectors: dict[str, _Vectors], ids: dict[str, Sequence[int | str]]
) -> None:
    try:
        from safetensors.numpy import save_file
    except ImportError as error:
        raise ImportError(f"safetensors is not installed: {_INSTALL}, or take NumPy's files") from error
    with whole_file(folder / "vectors.safetensors") as file:
        save_file(vectors, file)


#: What writes vectors, by the name of the format.
FORMATS: dict[str, Callable[[Path, dict[str, _Vectors], dict[str, Sequence[int | str]]], None]] = {
    "numpy": _write_numpy,
    "parquet": _write_parquet,
    "safetensors": _write_safetensors,
}
