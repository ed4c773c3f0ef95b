"""How fast MGWA trains: the example's own fit, on data of the size of Last.FM."""

import tempfile

from benchmarks.harness import Report, Settings, figure
from mgwa_pyg.datasets import SyntheticKG
from mgwa_pyg.datasets.interactions import interactions
from mgwa_pyg.train import MGWAConfig, fit


def run(settings: Settings) -> Report:
    """Measure training rows per second: neighbour sampling, forward, backward and Adam, no validation."""
    dataset = SyntheticKG(
        num_users=1872,
        num_items=3846,
        num_entities=9366,
        num_relations=60,
        num_triples=15518,
        num_interactions=21173,
    )
    rows = []
    for num_layers in (1, 2):
        config = MGWAConfig(
            channels=16,
            fanout=8,
            batch_size=512,
            num_layers=num_layers,
            epochs=2 if settings.quick else 6,
            patience=100,
        )
        speeds = []
        for seed in range(2 if settings.quick else 5):
            with tempfile.TemporaryDirectory() as folder:
                history = fit(dataset, config, folder, seed=seed, device=settings.device).history
            train_rows = int(interactions(dataset[0]).train_mask.sum())
            # The first epoch warms up.
            speeds += [train_rows / entry["train_seconds"] for entry in history[1:]]
        case = f"layers={num_layers} d=16 K=8 batch=512"
        rows.append(figure("train", case, "MGWA", "training throughput", "rows/s", speeds))
        settings.record.keep("train", rows)
    return Report(rows)
