"""Files that appear whole or not at all, whoever else works in the same folder."""

import json
import os
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any


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
