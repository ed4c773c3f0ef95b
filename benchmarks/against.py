"""Whether the layer has become slower: this checkout against another, one job of each in turn.

    python -m benchmarks.against ../other-checkout [--rounds 8] [--json FILE]

Both run with this environment. Each process imports its own checkout once, and each job is a child of it.
"""

import subprocess
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.harness import environment, interruptible, script_parser, table, write_results
from benchmarks.layer import ROOT, SIZES, ask, worker
from benchmarks.layer_worker import Job

JOBS = [
    ("aggregation", "ours, torch"),
    ("aggregation", "PyG softmax + scatter"),
    ("layer", "GatedAggregationConv, plan"),
    ("layer", "GatedAggregationConv"),
]


def fastest(process: "subprocess.Popen[str]", job: Job) -> float:
    """The milliseconds of the fastest step of a job, forward and backward."""
    result = ask(process, job)
    if "status" in result:
        raise RuntimeError(f"{job.part}, {job.implementation}: {result['status']} ({result['reason']})")
    return float(np.add(result["forward"], result["backward"]).min())


def compare(other: Path, sizes: list[str], rounds: int, seconds: float) -> list[dict[str, Any]]:
    """The times of both checkouts, medians over the rounds, and their ratio."""
    rows = []
    with ExitStack() as stack:
        processes = [stack.enter_context(worker({}, checkout)) for checkout in (ROOT, other)]
        for size in sizes:
            for part, implementation in JOBS:
                job = Job(part, implementation, *SIZES[size], 64, repeats=30, seconds=seconds)
                # Each round begins with the other one: the machine's state is the same for both.
                order = [(n + turn) % 2 for turn in range(rounds) for n in (0, 1)]
                times: tuple[list[float], list[float]] = ([], [])
                for number in order:
                    times[number].append(fastest(processes[number], job))
                here, there = map(np.median, times)
                case = f"{part} E={job.edges} d={job.channels} {job.dtype}"
                key = {"benchmark": "against", "case": case, "implementation": implementation}
                spread = {"unit": "ms", "sd": None, "n": rounds}
                for metric, value in (("time", here), ("time before", there)):
                    rows.append({**key, "metric": metric, "value": float(value), **spread})
                print(
                    f"{case}, {implementation}: {here:.2f} ms, {here / there:.3f} times {there:.2f}",
                    flush=True,
                )
    return rows


def main() -> None:
    """Measure, print, and write the rows where it is asked for."""
    parser = script_parser("benchmarks.against", __doc__)
    parser.add_argument("other", type=Path, help="the other checkout")
    parser.add_argument("--sizes", nargs="+", choices=list(SIZES), default=["200k edges"])
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=2.0, help="of each job at most")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    with interruptible():
        rows = compare(args.other.resolve(), args.sizes, args.rounds, args.seconds)
    body = [
        [f"{a['case']}, {a['implementation']}", f"{a['value']:.2f}", f"{a['value'] / b['value']:.3f}"]
        for a, b in zip(rows[::2], rows[1::2], strict=True)
    ]
    print(table(["", "ms", "over the other"], body))
    if args.json is not None:
        write_results(args.json, {"environment": environment("cpu"), "rows": rows})


if __name__ == "__main__":
    main()
