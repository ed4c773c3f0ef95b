"""What a processed file was made from: the digest of values, of code, and of raw files."""

import hashlib
import re
import types
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

_PLAIN = (bool, int, float, complex, str, bytes, type(None), Path, np.generic, np.dtype, torch.dtype)
_DATA = (*_PLAIN, list, tuple, set, frozenset, dict, np.ndarray, torch.Tensor, pd.DataFrame, pd.Series)


def digest_of(value: Any) -> str:
    r"""Returns the SHA-256 of a value: the same in every process, and another one if the value is another.

    A function is its code, what it is bound to, and what it uses of its own module; classes and libraries
    count by their names.
    """
    digest = hashlib.sha256()
    _feed(digest, value, set())
    return digest.hexdigest()


def class_digest(kind: type, base: type) -> str:
    r"""Returns the SHA-256 of all that a class adds to one of its bases."""
    return digest_of([_members(one) for one in kind.__mro__[: kind.__mro__.index(base)] if not _is_ours(one)])


def file_record(path: Path) -> dict[str, Any]:
    r"""Returns what :func:`is_unchanged` compares a file with."""
    stat, digest = _stat(path), hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(2**20):
            digest.update(block)
    return {"stat": stat, "sha256": digest.hexdigest()}


def is_unchanged(path: Path, record: Mapping[str, Any]) -> bool:
    r"""Returns whether a file is what it was; it is read only where its size or a time is another."""
    return _stat(path) == record["stat"] or file_record(path)["sha256"] == record["sha256"]


def _stat(path: Path) -> list[int]:
    stat = path.stat()
    return [stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns]


def _is_ours(kind: Any) -> bool:
    return str(getattr(kind, "__module__", "")).partition(".")[0] == "mgwa_pyg"


def _name(value: Any) -> str:
    return f"{getattr(value, '__module__', '')}.{getattr(value, '__qualname__', '')}"


def _members(kind: type) -> list[Any]:
    """What stands in the body of a class, without what Python notes there by itself."""
    return [
        _name(kind),
        *(
            (name, value)
            for name, value in vars(kind).items()
            if not name.startswith("__") or isinstance(value, types.FunctionType)
        ),
    ]


def _feed(digest: Any, value: Any, seen: set[int]) -> None:
    """Adds a value to a digest; ``seen`` holds what is being added, or has been."""
    digest.update(f"<{_name(type(value))}>".encode())
    if isinstance(value, _PLAIN):
        digest.update(repr(value).encode())
        return
    if id(value) in seen:
        return
    seen = seen | {id(value)}
    parts: Any
    if isinstance(value, (list, tuple)):
        parts = value
    elif isinstance(value, (set, frozenset)):
        parts = sorted(map(digest_of, value))
    elif isinstance(value, Mapping):
        parts = value.items()
    elif isinstance(value, np.ndarray):
        parts = [value.dtype, value.shape, value.tolist() if value.dtype.hasobject else value.tobytes()]
    elif isinstance(value, torch.Tensor):
        parts = [
            value.dtype,
            value.detach().cpu().to_dense().reshape(-1).view(torch.uint8).numpy(),
            [*value.shape],
        ]
    elif isinstance(value, (pd.Series, pd.Index)):
        parts = [value.name, value.to_numpy()]
    elif isinstance(value, pd.DataFrame):
        parts = [value.index, *value.items()]
    elif isinstance(value, types.FunctionType):
        parts = _function_parts(value)
    elif isinstance(value, types.CodeType):
        parts = [value.co_code, value.co_names, value.co_consts]
    elif isinstance(value, types.CellType):
        parts = [_content_of(value)]
    elif isinstance(value, (staticmethod, classmethod)):
        parts = [value.__func__]
    elif isinstance(value, types.MethodType):
        parts = [value.__func__, value.__self__]
    elif isinstance(value, property):
        parts = [value.fget]
    elif isinstance(value, partial):
        parts = [value.func, value.args, value.keywords]
    elif isinstance(value, (type, types.ModuleType, types.BuiltinFunctionType)):
        parts = [_name(value), value.__name__]
    elif hasattr(value, "__dict__"):
        parts = vars(value).items()
    else:
        parts = [re.sub(" at 0x[0-9a-fA-F]+", "", repr(value))]  # Addresses differ from run to run.
    for part in parts:
        _feed(digest, part, seen)
    digest.update(b";")


def _content_of(cell: types.CellType) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # Nothing is in it yet.
        return None


def _function_parts(function: types.FunctionType) -> list[Any]:
    """The code of a function, what it is bound to, and what it uses of its own module."""
    used = [
        (name, _members(value) if isinstance(value, type) else value)
        for name in _names(function.__code__)
        if (value := function.__globals__.get(name)) is not None
        and (
            isinstance(value, _DATA)
            or (isinstance(value, (types.FunctionType, type)) and value.__module__ == function.__module__)
        )
    ]
    bound = [function.__defaults__, function.__kwdefaults__, function.__closure__]
    return [function.__code__, *bound, *([] if _is_ours(function) else used)]


def _names(code: types.CodeType) -> list[str]:
    """The names that a piece of code uses, and the functions in it."""
    inner = [constant for constant in code.co_consts if isinstance(constant, types.CodeType)]
    return sorted({*code.co_names, *(name for one in inner for name in _names(one))})
