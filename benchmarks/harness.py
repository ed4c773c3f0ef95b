"""What the benchmarks share: the environment's stamp, the form of a measured figure, files and pages."""

import argparse
import gzip
import json
import os
import platform
import re
import signal
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch_geometric

import mgwa_pyg
from mgwa_pyg.utils.files import whole_file

#: The data sets by the names of the command line, and what pages and plots call them.
DATA = {
    "lastfm": "Last.FM",
    "bookcrossing": "Book-Crossing",
    "ml-100k": "MovieLens-100k",
    "synthetic": "SYNTHETIC data, not Last.FM",
}


@dataclass
class Record:
    """The rows of a run so far, in its file from the first one on: whoever ends it loses none."""

    environment: dict[str, Any] = field(default_factory=dict)
    path: Path | None = None
    rows: list[dict[str, Any]] = field(default_factory=list)
    tests: list[Mapping[str, Any]] = field(default_factory=list)
    statuses: list[dict[str, str]] = field(default_factory=list)
    unfinished: dict[str, list[dict[str, Any]]] = field(default_factory=dict)

    def keep(self, name: str, rows: Iterable[dict[str, Any]]) -> None:
        """Take all rows so far of a benchmark, or of a part of it, that goes on."""
        self.unfinished[name] = [*rows]
        self.write()

    def finish(self, report: "Report") -> None:
        """Take what a benchmark that is done gives, in place of what it had so far."""
        self.unfinished.clear()
        self.rows += report.rows
        self.tests += report.tests
        self.statuses += report.statuses
        self.write()

    def write(self) -> None:
        """Write everything, if there is a file."""
        if self.path is None:
            return
        rows = [*self.rows, *(row for rows in self.unfinished.values() for row in rows)]
        more = {"tests": self.tests, "statuses": self.statuses}
        known = {name: entries for name, entries in more.items() if entries}
        write_results(self.path, {"environment": self.environment, "rows": rows, **known})


@dataclass(frozen=True)
class Settings:
    """What the command line asks of a benchmark."""

    device: str = "cpu"
    """Where models run."""
    quick: bool = False
    """Whether to repeat less."""
    out: Path = Path("benchmarks/results")
    """Where pages, plots and whatever is more than rows go."""
    data: str = "lastfm"
    """What experiments run on, by the names of :data:`DATA`."""
    root: Path = Path("data")
    """Where data sets are kept."""
    recommendations: Path | None = None
    """The file for the first ten items of each ranking."""
    record: Record = field(default_factory=Record, compare=False, repr=False)
    """What is done so far."""


class Report(NamedTuple):
    """What a benchmark gives."""

    rows: list[dict[str, Any]]
    """One row a figure."""
    page: str | None = None
    """The page in Markdown that shows the figures, where a table of the rows would be too long."""
    statuses: Sequence[dict[str, str]] = ()
    """What has no figures and why: ``case``, ``implementation``, ``status`` and ``reason``."""
    tests: Sequence[Mapping[str, Any]] = ()
    """The tests of differences between rows."""


class NoDataError(Exception):
    """The data of a benchmark cannot be had; the message says why."""


@contextmanager
def interruptible(before_the_end: Callable[[], None] = lambda: None) -> Iterator[None]:
    """Ends the command with 130 at Ctrl-C, with 143 at SIGTERM, in one line and after a last call."""
    code = 0

    def stop(number: int, frame: Any) -> None:
        nonlocal code
        code = 128 + number
        raise KeyboardInterrupt

    handlers = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    except BaseException:  # Lightning makes an exit of its own of an interrupt.
        if not code:
            raise
        for number in handlers:
            signal.signal(number, signal.SIG_IGN)
        print("interrupted", file=sys.stderr)
        before_the_end()
        sys.exit(code)
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)


@contextmanager
def child_process(arguments: Sequence[str], **options: Any) -> Iterator["subprocess.Popen[str]"]:
    """A Python process that Ctrl-C does not reach, gone with all that it started when the block ends."""
    with subprocess.Popen([sys.executable, *arguments], start_new_session=True, **options) as process:
        try:
            yield process
        finally:
            for number in [*_descendants(process.pid), process.pid] if process.poll() is None else []:
                with suppress(ProcessLookupError):
                    os.kill(number, signal.SIGKILL)


def _descendants(process: int) -> list[int]:
    """The processes that one started, and those that these started, where the system tells."""
    children: list[int] = []
    for file in Path("/proc").glob(f"{process}/task/*/children"):
        with suppress(OSError):
            children += map(int, file.read_text().split())
    return [*children, *(number for child in children for number in _descendants(child))]


def environment(device: str) -> dict[str, Any]:
    """The machine, the versions and the command that figures were measured with."""
    stamp: dict[str, Any] = {
        "command": _command(),
        "date": date.today().isoformat(),
        "mgwa_pyg": mgwa_pyg.__version__,
        "torch": torch.__version__,
        "torch_geometric": torch_geometric.__version__,
        "python": platform.python_version(),
        "cpu": proc_field("cpuinfo", "model name") or platform.processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
    }
    if device == "cuda":
        stamp["gpu"] = torch.cuda.get_device_name()
    return stamp


def _command() -> str:
    # The module that was started, `benchmarks` or one of its scripts.
    spec = sys.modules["__main__"].__spec__
    module = "benchmarks" if spec is None else spec.name.removesuffix(".__main__")
    return " ".join(["python", "-m", module, *sys.argv[1:]])


def proc_field(file: str, field: str) -> str:
    """What a file below /proc says in its first line of that name; nothing where the system does not tell."""
    with suppress(OSError):
        found = re.search(rf"^{field}\s*:(.*)$", Path("/proc", file).read_text(), re.MULTILINE)
        return found[1].strip() if found else ""
    return ""


def proc_bytes(file: str, field: str) -> int:
    """The same of a size, in bytes; zero where the system does not tell."""
    return int(proc_field(file, field).removesuffix("kB") or 0) * 2**10


def not_run(case: str, implementation: str, reason: str) -> dict[str, str]:
    """A status: why something has no figures."""
    return {"case": case, "implementation": implementation, "status": "not run", "reason": reason}


def figure(
    benchmark: str,
    case: str,
    implementation: str,
    metric: str,
    unit: str,
    values: Sequence[float],
    center: Callable[[Sequence[float]], float] = statistics.median,
) -> dict[str, Any]:
    """One row: the median of repeated measurements, or another centre, and their standard deviation."""
    return {
        "benchmark": benchmark,
        "case": case,
        "implementation": implementation,
        "metric": metric,
        "value": center(values),
        "unit": unit,
        "sd": statistics.stdev(values) if len(values) > 1 else 0.0,
        "n": len(values),
    }


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table in Markdown."""
    lines = [f"| {' | '.join(row)} |" for row in [header, ["---"] * len(header), *rows]]
    return "\n".join(lines)


def write_results(path: Path, content: Mapping[str, Any]) -> None:
    """Write JSON, a line for each row, compressed if the name ends with .gz; same rows, same bytes."""

    def text_of(value: Any) -> str:
        if not isinstance(value, list) or not value:
            return json.dumps(value)
        return "[\n" + ",\n".join(f" {json.dumps(row)}" for row in value) + "\n]"

    parts = ",\n".join(f"{json.dumps(key)}: {text_of(value)}" for key, value in content.items())
    data = f"{{\n{parts}\n}}\n".encode()
    with whole_file(path) as file:
        file.write_bytes(gzip.compress(data, mtime=0) if path.suffix == ".gz" else data)


def read_results(path: Path) -> dict[str, Any]:
    """What :func:`write_results` wrote."""
    data = path.read_bytes()
    return json.loads(gzip.decompress(data) if path.suffix == ".gz" else data)


def write_page(path: Path, title: str, blocks: Mapping[str, str]) -> str:
    """Put each block between its markers in a page, whose other lines are written by hand.

    A page that is not there begins with the title, and a block that has no place comes last, below its name.
    Between markers for which there is no block nothing of an earlier run stays.
    """
    page = path.read_text() if path.exists() else f"# {title}\n"
    start, end = "<!-- generated: {} -->\n", "<!-- end -->\n"
    for name in blocks:
        if start.format(name) not in page:
            page += f"\n## {name}\n\n{start.format(name)}{end}"

    def filled(place: re.Match[str]) -> str:
        return f"{start.format(place[1])}\n{blocks.get(place[1], 'Not measured.')}\n\n{end}"

    page = re.sub(f"{start.format('(.*)')}(?s:.*?){end}", filled, page)
    with whole_file(path) as file:
        file.write_text(page)
    return page


def script_parser(module: str, doc: str | None) -> argparse.ArgumentParser:
    """The parser of a script that is run by itself."""
    return argparse.ArgumentParser(
        prog=f"python -m {module}", description=doc, formatter_class=argparse.RawDescriptionHelpFormatter
    )
