"""Downloads of raw files: verified TLS alone, a size limit, a SHA-256 check, nothing half-written."""

import hashlib
import http.client
import queue
import ssl
import threading
import urllib.error
import urllib.request
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mgwa_pyg.utils.files import whole_file

RAW_VARIABLE = "MGWA_PYG_RAW"
ANSWER_SECONDS = 4.0
MAX_BYTES = 64 * 2**20
SCHEMES = ("https",)


class DownloadError(OSError):
    r"""A raw file could not be downloaded; the message says why and what to do instead."""


@dataclass(frozen=True)
class RawFile:
    r"""Where a raw file comes from and what it must be.

    Args:
        url (str, optional): The public address. (default: :obj:`""`)
        size (int, optional): The size in bytes; a download never reads more. (default: :obj:`None`)
        sha256 (str, optional): The SHA-256 in hexadecimal digits; :obj:`None` leaves the content
            unchecked. (default: :obj:`None`)
    """

    url: str = ""
    size: int | None = None
    sha256: str | None = None


def download_files(files: Mapping[str, RawFile], folder: Path) -> None:
    r"""Download files one after the other, and stop at the first that fails.

    Args:
        files (Mapping[str, RawFile]): The files by their name below :obj:`folder`.
        folder (Path): Where to put them.

    Raises:
        DownloadError: If a file cannot be had, is larger or smaller than it should be, or differs
            from its SHA-256.
    """
    for name, file in files.items():
        try:
            _download(file, folder / name)
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise DownloadError(
                f"Could not download '{file.url}': {_reason(error)}. Place {', '.join(files)} into "
                f"'{folder}' by hand, or set {RAW_VARIABLE} to the folder that holds the raw data."
            ) from error


def _download(file: RawFile, path: Path) -> None:
    digest = hashlib.sha256()
    received = 0
    with closing(_open(file.url)) as response, whole_file(path) as temporary:
        length = response.headers["Content-Length"]
        expected = int(length) if file.size is None and length else file.size
        limit = MAX_BYTES if file.size is None else file.size
        with temporary.open("wb") as out:
            while chunk := response.read(2**16):
                received += len(chunk)
                if received > limit:
                    raise ValueError(f"the file is larger than the {limit} bytes expected")
                digest.update(chunk)
                out.write(chunk)
        if expected is not None and received != expected:
            raise ValueError(f"only {received} of {expected} bytes arrived")
        if file.sha256 is not None and digest.hexdigest() != file.sha256:
            raise ValueError(f"its SHA-256 is {digest.hexdigest()} instead of {file.sha256}")


def _open(url: str) -> Any:
    """Open a URL and wait for the answer's headers, at most :obj:`ANSWER_SECONDS`."""
    answer: queue.SimpleQueue[Any] = queue.SimpleQueue()

    def work() -> None:
        try:
            https = urllib.request.HTTPSHandler(context=ssl.create_default_context())
            opener = urllib.request.build_opener(https, _Redirects)
            answer.put(opener.open(_checked(url), timeout=ANSWER_SECONDS))
        except Exception as error:
            answer.put(error)

    # A name server that stays silent blocks past any socket timeout, hence the thread.
    threading.Thread(target=work, daemon=True).start()
    try:
        result = answer.get(timeout=ANSWER_SECONDS)
    except queue.Empty:
        raise TimeoutError from None
    if isinstance(result, Exception):
        raise result
    return result


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows redirects to addresses that would be opened themselves."""

    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
        return super().redirect_request(req, fp, code, msg, headers, _checked(newurl))


def _checked(url: str) -> str:
    scheme = url.partition(":")[0].lower()
    if scheme not in SCHEMES:
        raise ValueError(f"'{url}' is not opened, as it does not begin with {' or '.join(SCHEMES)}")
    return url


def _reason(error: Exception) -> str:
    if isinstance(error, urllib.error.HTTPError):
        return f"the server answered {error.code} {error.reason}"
    if isinstance(error, urllib.error.URLError) and isinstance(error.reason, Exception):
        error = error.reason
    if isinstance(error, TimeoutError):  # Of whichever clock rang first.
        return f"no answer within {ANSWER_SECONDS:g} seconds"
    return str(error) or type(error).__name__
