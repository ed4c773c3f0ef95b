"""What a processed file was made from: the digest of values, of code, and of raw files."""

import copyreg
import hashlib
import re
import sys
import threading
import types
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from functools import lru_cache, partial
from importlib.util import find_spec
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

_PLAIN = (bool, int, float, complex, str, bytes, type(None), Path, np.generic, np.dtype, torch.dtype)
_SIMPLE = {bool, int, float, str, bytes, type(None)}  # Of which a list reads like no other.
_LOCKS = (type(threading.Lock()), type(threading.RLock()))
# Whose objects are data; those of other libraries may be another at every start.
_OF_DATA = {*sys.stdlib_module_names, "mgwa_pyg", "numpy", "pandas", "scipy", "torch", "torch_geometric"}


def digest_of(value: Any) -> str:
    r"""Return the SHA-256 of a value: the same in every process, and another one if the value is another.

    A function is its code, what it is bound to, and what it uses of the same program; a class is what it adds
    to those of libraries, which count by their names.
    """
    return digest_and_strangers(value)[0]


def digest_and_strangers(value: Any) -> tuple[str, list[Any]]:
    r"""Return the SHA-256 of a value, and what in it looks like any other of its kind: an open file, say."""
    digests = _Digests()
    return digests.of(value).hex(), digests.strangers


def class_digest(kind: type, base: type) -> str:
    r"""Return the SHA-256 of all that a class and its other bases add to one of its bases."""
    digests = _Digests(program={_package(kind)})
    return digests.of([one for one in kind.__mro__ if one not in base.__mro__]).hex()


def file_record(path: Path) -> dict[str, Any]:
    r"""Return what :func:`is_unchanged` compares a file with."""
    stat, digest = _stat(path), hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(2**20):
            digest.update(block)
    return {"stat": stat, "sha256": digest.hexdigest()}


def is_unchanged(path: Path, record: Mapping[str, Any]) -> bool:
    r"""Return whether a file is what it was; it is read only where its size or a time is another."""
    return _stat(path) == record["stat"] or file_record(path)["sha256"] == record["sha256"]


def _stat(path: Path) -> list[int]:
    stat = path.stat()
    return [stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns]


class _Digests:
    """The digests of values, each taken once.

    Args:
        program (set[str]): The packages that are looked into even where they are installed.
    """

    def __init__(self, program: Iterable[str] = ()) -> None:
        self.strangers: list[Any] = []
        self._program = {*program} - {"mgwa_pyg"}
        self._taken: dict[int, tuple[Any, bytes]] = {}  # With the value, as its number is free without it.
        self._depth = 0

    def of(self, value: Any) -> bytes:
        digest = hashlib.sha256(f"<{_name(type(value))}>".encode())
        if isinstance(value, _PLAIN) or (
            type(value) in (list, tuple) and _SIMPLE.issuperset(map(type, value))
        ):
            digest.update(value if isinstance(value, bytes) else repr(value).encode())
            return digest.digest()
        if id(value) in self._taken:
            return self._taken[id(value)][1]
        self._taken[id(value)] = value, b"%d" % self._depth  # For what leads back to it.
        self._depth += 1
        for part in self._parts(value):
            digest.update(self.of(part))
        self._depth -= 1
        self._taken[id(value)] = value, digest.digest()
        return digest.digest()

    def _parts(self, value: Any) -> Iterable[Any]:
        if isinstance(value, (list, tuple)):
            return value
        if isinstance(value, (set, frozenset)):
            return sorted(map(self.of, value))
        if isinstance(value, Mapping):
            return chain.from_iterable(value.items())
        if isinstance(value, np.ma.MaskedArray):
            return [value.data, np.ma.getmaskarray(value)]
        if isinstance(value, np.ndarray):
            return [value.dtype, value.shape, value.tolist() if value.dtype.hasobject else value.tobytes()]
        if isinstance(value, torch.Tensor) and value.is_meta:
            return [value.dtype, value.shape]
        if isinstance(value, torch.Tensor):
            dense = value.detach().cpu().to_dense().resolve_conj().resolve_neg()
            return [value.dtype, value.shape, dense.reshape(-1).view(torch.uint8).numpy()]
        if isinstance(value, torch.Generator):
            return [value.get_state()]
        if isinstance(value, (pd.Series, pd.Index)):
            rows = [value.index] if isinstance(value, pd.Series) else []
            return [value.name, *rows, value.to_numpy() if isinstance(value.dtype, np.dtype) else value.array]
        if isinstance(value, pd.DataFrame):
            return [value.index, *chain.from_iterable(value.items())]
        if isinstance(value, types.FunctionType):
            bound = value.__defaults__, value.__kwdefaults__, value.__closure__
            return [value.__code__, *bound, *([] if self._is_foreign(value) else self._used_by(value))]
        if isinstance(value, types.CodeType):
            return [value.co_code, value.co_names, value.co_consts]
        if isinstance(value, types.CellType):
            return _content_of(value)
        if isinstance(value, (staticmethod, classmethod)):
            return [value.__func__]
        if isinstance(value, types.MethodType):
            return [value.__func__, value.__self__]
        if isinstance(value, property):
            return [value.fget]
        if isinstance(value, partial):
            return [value.func, value.args, value.keywords]
        if isinstance(value, type):
            bodies = (_body(one) for one in value.__mro__ if not self._is_foreign(one))
            return [_name(value), *chain.from_iterable(bodies)]
        if isinstance(value, types.ModuleType):
            return [value.__name__]
        if isinstance(value, types.BuiltinFunctionType):
            return [_name(value), value.__name__, value.__self__]
        if isinstance(value, _LOCKS):
            return []
        if callable(value) and hasattr(value, "__wrapped__"):  # By functools.lru_cache.
            return [value.__wrapped__]
        return self._state(value)

    def _state(self, value: Any) -> Iterable[Any]:
        """Return what a copy of the object would be made from."""
        reduce = copyreg.dispatch_table.get(type(value))
        try:
            made = value.__reduce_ex__(4) if reduce is None else reduce(value)
        except Exception:
            if hasattr(value, "__dict__"):
                return [type(value), vars(value)]
            self.strangers.append(value)
            return [re.sub(" at 0x[0-9a-fA-F]+", "", repr(value))]  # Addresses differ from run to run.
        if isinstance(made, str):
            return [made]
        function, arguments, state, items, pairs = (*made, None, None, None)[:5]
        return [_name(function), arguments, state, [*(items or ())], [*(pairs or ())]]

    def _used_by(self, function: types.FunctionType) -> Iterator[Any]:
        """Yield what a function uses of its own program: names with values, or with files that it imports."""
        names = _names(function.__code__)
        for name in names:
            if name not in function.__globals__:
                yield from ((name, file.read_bytes()) for file in _sources(name, function))
        spaces = [function.__globals__]
        for space in spaces:
            for name in names:
                value = space.get(name)
                if isinstance(value, types.ModuleType):
                    if not self._is_foreign(value) and not any(vars(value) is one for one in spaces):
                        spaces.append(vars(value))
                elif isinstance(value, (types.FunctionType, type)):
                    if not self._is_foreign(value):
                        yield name, value
                elif value is not None and not isinstance(value, types.BuiltinFunctionType):
                    kind = type(value)
                    if _package(kind) in _OF_DATA or not self._is_foreign(kind):
                        yield name, value

    def _is_foreign(self, value: Any) -> bool:
        """Return whether a function, class or module counts by its name, as Python's, ours or installed."""
        return _package(value) not in self._program and _is_installed(_module(value))


def _module(value: Any) -> str:
    return str(value.__name__ if isinstance(value, types.ModuleType) else value.__module__)


def _package(value: Any) -> str:
    return _module(value).partition(".")[0]


@lru_cache
def _is_installed(module: str) -> bool:
    package = module.partition(".")[0]
    if package in sys.stdlib_module_names or package == "mgwa_pyg":
        return True
    file = getattr(sys.modules.get(module), "__file__", None)
    return file is not None and _is_in_a_library(Path(file))


def _is_in_a_library(file: Path) -> bool:
    return not {"site-packages", "dist-packages"}.isdisjoint(file.parts)


def _sources(name: str, function: types.FunctionType) -> Iterator[Path]:
    """Yield the files of the program that a function may import by a name. None is imported."""
    package = function.__globals__.get("__package__")
    for module in [name, f".{name}"] if package else [name]:
        if module.partition(".")[0] not in sys.stdlib_module_names:
            with suppress(Exception):  # There is no such module, or its package cannot be imported.
                spec = find_spec(module, package)
                file = Path((spec and spec.origin) or "")
                if file.is_file() and not _is_in_a_library(file):
                    yield file


def _name(value: Any) -> str:
    return f"{getattr(value, '__module__', '')}.{getattr(value, '__qualname__', '')}"


def _body(kind: type) -> Iterator[Any]:
    """Yield what stands in the body of a class, without what Python notes there by itself."""
    yield _name(kind)
    for name, value in vars(kind).items():
        if isinstance(value, types.FunctionType) or not name.startswith(("__", "_abc_")):
            yield name, value


def _content_of(cell: types.CellType) -> list[Any]:
    try:
        return [cell.cell_contents]
    except ValueError:  # Nothing is in it yet.
        return []


def _names(code: types.CodeType) -> list[str]:
    """Return the names that a piece of code uses, and the functions in it."""
    inner = [constant for constant in code.co_consts if isinstance(constant, types.CodeType)]
    return sorted({*code.co_names, *(name for one in inner for name in _names(one))})
