"""What the drop-in examples share: train a model with one layer or another, and print them side by side."""

import argparse
import itertools
import json
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import mean, median, stdev

import torch
import torch.nn.functional as F
from rich import print as print_table
from rich.table import Table
from torch_geometric import seed_everything
from torch_geometric.data import Data

# Learning rate and weight decay: each layer is trained with both pairs, and validation picks one a seed.
HYPER_PARAMETERS = [(0.02, 5e-4), (0.01, 5e-3)]
PATIENCE = 25  # Epochs without a better validation accuracy before a run ends.


def parse_args(description: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=150)
    parser.add_argument("--hidden", type=int, default=32)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    args = parser.parse_args()
    if args.device == "cuda" and not torch.cuda.is_available():
        parser.error("--device cuda, but torch finds no CUDA device here")
    if min(args.seeds, args.epochs, args.hidden) < 1:
        parser.error("--seeds, --epochs and --hidden must be at least 1")
    return args


def train(model: torch.nn.Module, data: Data, optimizer: torch.optim.Optimizer) -> None:
    model.train()
    optimizer.zero_grad()
    out = model(data)
    F.cross_entropy(out[data.train_mask], data.y[data.train_mask]).backward()
    optimizer.step()


@torch.no_grad()
def test(model: torch.nn.Module, data: Data) -> list[float]:
    model.eval()
    correct = model(data).argmax(dim=-1) == data.y
    return [float(correct[mask].float().mean()) for mask in (data.val_mask, data.test_mask)]


def fit(model: torch.nn.Module, data: Data, lr: float, weight_decay: float, epochs: int) -> dict:
    """Train; return the accuracies at the epoch of the best validation, and how long each epoch took."""
    optimizer = torch.optim.Adam(model.parameters(), lr=lr, weight_decay=weight_decay)
    best, seconds = {"val": -1.0}, []
    for epoch in range(epochs):
        start = time.perf_counter()
        train(model, data, optimizer)
        if data.x.is_cuda:
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - start)
        val_acc, test_acc = test(model, data)
        if val_acc > best["val"]:
            best = {"val": val_acc, "test": test_acc, "epoch": epoch}
        elif epoch - best["epoch"] >= PATIENCE:
            break
    return {**best, "lr": lr, "weight_decay": weight_decay, "seconds": seconds}


def peak_memory(model: torch.nn.Module, data: Data) -> float:
    """Return by how many MB one training step raises the memory that tensors take, at its peak."""
    optimizer = torch.optim.Adam(model.parameters())
    train(model, data, optimizer)  # From here on Adam's state is there, as in most epochs.
    optimizer.zero_grad()
    if data.x.is_cuda:
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        train(model, data, optimizer)
        return (torch.cuda.max_memory_allocated() - before) / 2**20
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # Else the profiler writes to the terminal.
    # The profiler sees every allocation, inside of operators too; its trace lists them in time.
    cpu = [torch.profiler.ProfilerActivity.CPU]
    with torch.profiler.profile(activities=cpu, profile_memory=True) as profile:
        train(model, data, optimizer)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "trace.json"
        profile.export_chrome_trace(str(path))
        events = json.loads(path.read_text())["traceEvents"]
    events = sorted((e for e in events if e["name"] == "[memory]"), key=lambda e: e["ts"])
    return max(itertools.accumulate(e["args"]["Bytes"] for e in events)) / 2**20


def compare(
    title: str,
    names: list[str],
    make_data: Callable[[int], Data],
    make_model: Callable[[str, Data], torch.nn.Module],
    args: argparse.Namespace,
) -> None:
    """Train ``make_model(name, data)`` for each name and seed, and print a table of the results."""
    torch.set_num_threads(1)  # The tensors are small: more threads hardly help, and make timings noisy.
    runs: dict[str, list[dict]] = {name: [] for name in names}
    for seed in range(args.seeds):
        data = make_data(seed).to(args.device)
        for name in names:
            fits = []
            for lr, weight_decay in HYPER_PARAMETERS:
                seed_everything(seed)
                model = make_model(name, data).to(args.device)
                fits.append(fit(model, data, lr, weight_decay, args.epochs))
            best = max(fits, key=lambda run: run["val"])
            best["seconds"] = [second for run in fits for second in run["seconds"]]
            runs[name].append(best)
            print(
                f"Seed: {seed}, {name}, Epoch: {best['epoch']:03d}, lr: {best['lr']}, "
                f"Val: {best['val']:.4f}, Test: {best['test']:.4f}",
                flush=True,
            )

    table = Table(title=title, title_justify="left", caption_justify="left")
    table.add_column("")
    for column in ("test accuracy", "ms/epoch", "peak MB", "parameters"):
        table.add_column(column, justify="right", no_wrap=True)
    for name in names:
        accuracy = [run["test"] for run in runs[name]]
        spread = f" ± {stdev(accuracy):.4f}" if len(accuracy) > 1 else ""
        model = make_model(name, data).to(args.device)
        milliseconds = 1e3 * median(second for run in runs[name] for second in run["seconds"])
        parameters = sum(parameter.numel() for parameter in model.parameters())
        table.add_row(
            name,
            f"{mean(accuracy):.4f}{spread}",
            f"{milliseconds:.1f}",
            f"{peak_memory(model, data):.1f}",
            f"{parameters:,}",
        )
    source = "CUDA's allocator" if data.x.is_cuda else "the CPU profiler, which sees every allocation"
    table.caption = (
        f"Mean ± sd, seeds: {args.seeds}. ms/epoch: one training step, median. "
        f"peak MB: how far tensors' memory rises in it, by {source}."
    )
    print()
    print_table(table)
