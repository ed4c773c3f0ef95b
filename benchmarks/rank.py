"""Ranking all items for all users: exactly and at once, beside scoring pair by pair with drawn neighbours."""

import time
from collections.abc import Callable
from dataclasses import replace

import torch

from benchmarks.data import load
from benchmarks.harness import NoDataError, Report, Settings, figure, not_run
from mgwa_pyg.datasets import KGRecDataset
from mgwa_pyg.datasets.interactions import interactions
from mgwa_pyg.nn import KGCN, MGWA
from mgwa_pyg.ops import RelationCSR
from mgwa_pyg.sampler import NeighborSampler

_K = 20
_FANOUT = 8
# How many pairs are scored at a time where each has a subgraph, and how many of them where that takes long.
_PAIRS_PER_STEP = {1: 2_000, 512: None, 8192: None}
# Data, model and layers; the first of a data set is compared with scoring pair by pair.
_CASES = [
    ("lastfm", MGWA, 1),
    ("lastfm", KGCN, 1),
    ("lastfm", MGWA, 2),
    ("bookcrossing", MGWA, 1),
    ("bookcrossing", KGCN, 1),
]


def run(settings: Settings) -> Report:
    """Measure whole rankings by models as they are made: how long it takes doesn't depend on training."""
    rows = []
    statuses = []
    cases = [("synthetic", *case[1:]) for case in _CASES[:3]] if settings.data == "synthetic" else _CASES
    for data, model_class, num_layers in cases:
        try:
            dataset = load(replace(settings, data=data), "items", 0)
        except NoDataError as error:
            statuses.append(not_run(data, model_class.__name__, str(error)))
            continue
        rows += _measure(dataset, model_class, num_layers, settings)
        settings.record.keep("rank", rows)
    if not rows:
        raise NoDataError("; ".join(status["reason"] for status in statuses))
    return Report(rows, statuses=statuses)


def _measure(
    dataset: KGRecDataset, model_class: type[MGWA] | type[KGCN], num_layers: int, settings: Settings
) -> list[dict]:
    device = torch.device(settings.device)
    data = dataset[0].to(device)
    torch.manual_seed(0)
    model = model_class(dataset.num_users, dataset.num_entities, dataset.num_relations, 16, num_layers)
    for parameter in model.to(device).parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    kg = data["entity", "kg", "entity"]
    edges = kg.edge_index, kg.rel_type % dataset.num_relations
    graph = RelationCSR.from_edge_index(*edges, dataset.num_relations, (dataset.num_entities,) * 2)
    users = torch.arange(dataset.num_users, device=device)
    seen = interactions(data).edge_index
    num_pairs = dataset.num_users * dataset.num_items

    def rank() -> None:
        model.rank(users, _K, graph, dataset.num_items, exclude=seen)

    case = f"{type(dataset).__name__} {dataset.num_users}x{dataset.num_items} layers={num_layers} d=16"
    name = f"{model_class.__name__}.rank"
    seconds = _seconds(rank, 1 if settings.quick else 5, device)
    rows = [
        figure("rank", case, name, "time", "s", seconds),
        figure("rank", case, name, "pairs scored", "1/s", [num_pairs / value for value in seconds]),
    ]
    # Against the same model on pairs with whole neighbourhoods.
    sampler = NeighborSampler(*edges, dataset.num_entities)
    user = torch.randint(dataset.num_users, (512,), device=device)
    item = torch.randint(dataset.num_items, (512,), device=device)
    with torch.no_grad():
        want = model(user, *sampler.sample(item, num_layers))
    got = model.score_items(user, graph, dataset.num_items)[torch.arange(512, device=device), item]
    difference = float((got - want).abs().max())
    rows.append(figure("rank", case, name, "largest difference to 512 pairs", "1", [difference]))
    if (model_class, num_layers) != (MGWA, 1) or dataset.num_items > 10_000:
        return rows

    sampler.fanout = _FANOUT
    for pairs_per_step, at_most in _PAIRS_PER_STEP.items():
        some = num_pairs // 20 if settings.quick else num_pairs
        some = min(some, at_most or some)

        @torch.no_grad()
        def by_pairs(pairs_per_step: int = pairs_per_step, some: int = some) -> None:
            for pair in torch.arange(some, device=device).split(pairs_per_step):
                item = pair % dataset.num_items
                model(pair // dataset.num_items, *sampler.sample(item, num_layers))

        seconds = _seconds(by_pairs, 1, device)
        name = f"{_FANOUT} neighbours drawn for each pair, {pairs_per_step} at a time"
        if some == num_pairs:
            rows.append(figure("rank", case, name, "time", "s", seconds))
        rows.append(figure("rank", case, name, "pairs scored", "1/s", [some / seconds[0]]))
    return rows


def _seconds(function: Callable[[], None], times: int, device: torch.device) -> list[float]:
    """How long each of some runs takes, after one to warm up if there are several, and always on CUDA."""
    values = []
    for _ in range(times + (times > 1 or device.type == "cuda")):
        started = time.perf_counter()
        function()
        if device.type == "cuda":
            torch.cuda.synchronize()
        values.append(time.perf_counter() - started)
    return values[-times:]
