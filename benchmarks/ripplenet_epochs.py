"""What RippleNet comes to if nobody stops it: validation AUC after each epoch, with the published settings.

    python -m benchmarks.ripplenet_epochs

The paper's figure for RippleNet lies far below what the same settings give at the best epoch, under either
protocol; this looks for an epoch that gives it.
"""

from pathlib import Path

import numpy as np

from benchmarks.experiments import PROTOCOLS, make_jobs, parallel, short
from benchmarks.harness import Settings, environment, interruptible, script_parser, table, write_results
from benchmarks.search import fit_history
from mgwa_pyg.train import RippleNetConfig

EPOCHS = 40
SHOWN = (1, 2, 5, 10, 20, 40)


def main() -> None:
    """Fit without stopping, print and write what came of it."""
    parser = script_parser("benchmarks.ripplenet_epochs", __doc__)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--json", type=Path, default=Path("benchmarks/results/ripplenet_epochs.json"))
    args = parser.parse_args()

    config = RippleNetConfig(lr=5e-3, weight_decay=1e-5, epochs=EPOCHS, patience=EPOCHS)
    jobs = make_jobs(Settings(), {"RippleNet": config}, PROTOCOLS, args.seeds)
    with interruptible():
        histories = parallel(fit_history, jobs, "epochs")
    aucs = np.array([[epoch["val_auc"] for epoch in history] for history in histories])
    aucs = aucs.reshape(len(PROTOCOLS), args.seeds, EPOCHS)
    body = [
        [name, *(f"{short(a[:, e - 1].mean(), 3)} ± {short(a[:, e - 1].std(ddof=1), 3)}" for e in SHOWN)]
        for name, a in zip(PROTOCOLS.values(), aucs, strict=True)
    ]
    print(table(["validation AUC after epoch", *map(str, SHOWN)], body))
    content = {
        "environment": environment("cpu"),
        "validation AUC by seed and epoch": dict(zip(PROTOCOLS, aucs.round(5).tolist(), strict=True)),
    }
    write_results(args.json, content)


if __name__ == "__main__":
    main()
