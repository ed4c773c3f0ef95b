"""Files that appear whole or not at all, whoever works in the same folder, and tensors mapped from them."""

import errno
import glob
import json
import os
import pickle
import secrets
import sys
import zipfile
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch

if sys.platform != "win32":
    import fcntl

# The errors that do not name the file.
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)


class DamagedFileError(ValueError):
    r"""A file is not what was written."""


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    r"""Yields a temporary path beside :obj:`path`, to be written by the caller.

    It takes the place of :obj:`path` in one step when the block ends, once it is on the disk. When the block
    raises, it is removed, and so are the folders that were made for it. What a killed process leaves is
    removed by whoever writes the same file next.

    Args:
        path (Path): The file to write.

    Raises:
        OSError: If it cannot be written.
    """
    new_folders = [folder for folder in path.parents if not folder.exists()]
    path.parent.mkdir(parents=True, exist_ok=True)
    _remove_leftovers(path)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    try:
        with _locked(temporary):
            yield temporary
            with temporary.open("rb+") as file:
                os.fsync(file.fileno())
            temporary.replace(path)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        with suppress(OSError):  # Stops at the first folder that somebody else fills.
            for folder in new_folders:
                folder.rmdir()
        if isinstance(error, OSError) and error.errno in _NO_ROOM and error.filename is None:
            raise OSError(error.errno, error.strerror, str(path)) from error
        raise


@contextmanager
def _locked(temporary: Path) -> Iterator[None]:
    """Makes a file that :func:`_remove_leftovers` spares while the block runs, unless the process dies."""
    if sys.platform == "win32":
        yield
        return
    while True:
        file = os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o666)
        with suppress(OSError):  # There are file systems without locks; nothing is removed there, either.
            fcntl.flock(file, fcntl.LOCK_EX)
        if temporary.exists():
            break
        os.close(file)  # Somebody took it for a leftover before it was locked.
    try:
        yield
    finally:
        os.close(file)


def _remove_leftovers(path: Path) -> None:
    """Removes the temporary files for :obj:`path` that nobody is writing any more."""
    if sys.platform == "win32":  # Nobody can tell there who is writing.
        return
    for leftover in path.parent.glob(f".{glob.escape(path.name)}.????????.part"):
        with suppress(OSError):
            file = os.open(leftover, os.O_RDWR)
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                leftover.unlink()
            finally:
                os.close(file)


@contextmanager
def locked_folder(folder: Path) -> Iterator[bool]:
    r"""Keeps a folder, which is made if need be, to oneself until the block ends or the process dies. If it
    was made, and nothing is in it then, it goes.

    Yields whether somebody died who worked there. There are file systems without locks, where nobody is
    kept out; nor is anybody on Windows, where this does nothing.

    Args:
        folder (Path): The folder.

    Raises:
        BlockingIOError: If somebody is working there.
        NotADirectoryError: If it is a file.
        OSError: If it cannot be written.
    """
    if folder.exists() and not folder.is_dir():
        raise NotADirectoryError(f"{folder} is a file: choose a folder")
    is_new = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    if sys.platform == "win32":
        yield False
        return
    path = folder / ".lock"
    while True:
        file = os.open(path, os.O_CREAT | os.O_RDWR, 0o666)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(file)
            raise BlockingIOError(
                f"{folder} is in use by another process or thread: wait until it is done, or choose "
                f"another folder"
            ) from None
        except OSError:  # There are file systems without locks.
            break
        if os.fstat(file).st_nlink > 0:
            break
        os.close(file)  # Whoever had it has removed it meanwhile.
    try:
        died = os.fstat(file).st_size > 0
        os.ftruncate(file, 1)  # Somebody works here. It takes no room.
        yield died
    finally:
        try:
            path.unlink(missing_ok=True)
        finally:
            os.close(file)
            if is_new:
                with suppress(OSError):  # Something is in it.
                    folder.rmdir()


def save_tensors(path: Path, content: Any, try_to_load: bool = False) -> None:
    r"""Writes :obj:`content` with :func:`torch.save`, whole or not at all.

    Args:
        path (Path): The file to write.
        content (Any): What it is to hold.
        try_to_load (bool): Whether to write it only if :func:`load_mapped` would open it.
            (default: :obj:`False`)

    Raises:
        OSError: If it cannot be written.
        pickle.UnpicklingError: If it holds what torch does not know to be safe.
    """
    with whole_file(path) as temporary:
        try:
            with temporary.open("wb") as file:
                torch.save(content, file)
        except RuntimeError as error:  # It hides why the file cannot be written.
            raise (error.__context__ if isinstance(error.__context__, OSError) else error) from None
        if try_to_load:
            torch.load(temporary, map_location="cpu", mmap=True, weights_only=True)


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
