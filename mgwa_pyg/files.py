"""Files that appear whole or not at all, whoever works in the same folder, and tensors mapped from them."""

import json
import os
import pickle
import secrets
import zipfile
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch


class DamagedFileError(ValueError):
    r"""A file is not what was written."""


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    r"""Yields a temporary path beside :obj:`path`, to be written by the caller.

    It takes the place of :obj:`path` in one step when the block ends. When the block raises, it is
    removed, and so are the folders that were made for it.

    Args:
        path (Path): The file to write.
    """
    new_folders = [folder for folder in path.parents if not folder.exists()]
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}.part")
    try:
        yield temporary
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        with suppress(OSError):  # Stops at the first folder that somebody else fills.
            for folder in new_folders:
                folder.rmdir()
        raise


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    r"""Writes :obj:`content` as JSON, whole or not at all."""
    with whole_file(path) as file:
        file.write_text(json.dumps(content, indent=1) + "\n")


def read_json(path: Path, keys: Collection[str], remedy: str) -> dict[str, Any]:
    r"""Reads what :func:`write_json` wrote.

    Args:
        path (Path): The file.
        keys (Collection[str]): What it must have at least.
        remedy (str): What to do if it is damaged, for the message.

    Raises:
        OSError: If it cannot be read.
        DamagedFileError: If it was damaged.
    """
    try:
        content = json.loads(path.read_bytes())
        if missing := set(keys).difference(content):
            raise ValueError(f"it has no {', '.join(sorted(missing))}")
    except (TypeError, ValueError) as error:
        raise DamagedFileError(f"{path} is damaged ({error}): {remedy}") from error
    return content


def load_mapped(path: Path) -> Any:
    r"""Loads what :func:`torch.save` wrote, with its tensors mapped into memory: all processes of a machine
    share one copy of what none of them changes, and what is not looked at takes no memory.

    The checksums are verified, which reads the file once, as torch verifies none of a mapped file.

    Args:
        path (Path): The file. It must stay as it is; another may take its place.

    Raises:
        OSError: If it cannot be read.
        pickle.UnpicklingError: If it holds what torch does not know to be safe.
        DamagedFileError: If it was damaged, or not written by :func:`torch.save`.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            wrong = archive.testzip()
        if wrong is not None:
            raise zipfile.BadZipFile(f"the checksum of {wrong} is wrong")
        return torch.load(path, map_location="cpu", mmap=True, weights_only=True)
    except (OSError, pickle.UnpicklingError):
        raise
    except Exception as error:
        raise DamagedFileError(f"{type(error).__name__}: {error}") from error
