"""`tune`: hyper-parameters chosen on the validation rows, by one recipe for every data set and model."""

from __future__ import annotations

import itertools
import os
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from mgwa_pyg.datasets import KGRecDataset
from mgwa_pyg.datasets.fixed import fixed
from mgwa_pyg.datasets.interactions import interactions
from mgwa_pyg.recommenders import FitConfig
from mgwa_pyg.train.click import DivergedError
from mgwa_pyg.train.fit import MEASURES, fit
from mgwa_pyg.train.processes import num_processes, side_by_side
from mgwa_pyg.train.run_folder import environment
from mgwa_pyg.utils.checks import check_count, check_number
from mgwa_pyg.utils.files import locked_folder, read_json, write_json
from mgwa_pyg.utils.modes import chosen_device

if TYPE_CHECKING:  # An extra of its own.
    from optuna.distributions import BaseDistribution
    from optuna.trial import FrozenTrial

# What the file of a search has, and what must be the same for the search to go on.
_CONTENT = ("dataset", "config", "space", "seeds", "rounds", "trials")
_SAME = {"config": "other hyper-parameters", "space": "another search space", "seeds": "other seeds"}
_ROUNDS = 1_000_003  # More than a search has rounds.


class _Job(NamedTuple):
    config: FitConfig
    seed: int
    device: str


class _Proposed(NamedTuple):
    config: FitConfig
    params: dict[str, Any] | None
    """What was chosen from the space; nothing if it has no such hyper-parameters."""


class _Found(NamedTuple):
    """What a fit came to on the validation rows; nothing where it diverged."""

    value: float | None
    best_epoch: int
    seconds: float


def tune(
    dataset: KGRecDataset,
    config: FitConfig,
    folder: Path | str,
    trials: int = 30,
    minutes: float = 30,
    seeds: int = 1,
    processes: int | None = None,
    seed: int = 0,
    device: str = "auto",
    progress: bool = True,
) -> FitConfig:
    """Choose hyper-parameters on the validation rows, and return them. The test rows are never looked at.

    The given hyper-parameters are the first trial. The next ones turn each of the model's switches, such as
    whether it takes the knowledge graph, and nothing else. Those of the others come from
    ``config.suggested``, the search space of the model, as Optuna's tree-structured Parzen estimator proposes
    them (`Bergstra et al., "Algorithms for Hyper-Parameter Optimization" <https://proceedings.neurips.cc/
    paper/2011/hash/86e8f7ab32cfd12577bc2619bc635690-Abstract.html>`_, 2011). A trial is worth
    what its fit is judged by, ``config.monitor``, at its best epoch; one that diverges counts as failed.

    Trials run ``processes`` at a time, and the next ones are proposed when all of these are done: on the CPU
    a search with the same seeds and as many processes makes the same trials, unless its time is up earlier.

    ``search.json`` in ``folder`` holds all trials, each with its hyper-parameters and value, and what was
    chosen. It is written as trials end. The same call goes on with it: after an interrupt (Ctrl-C ends all
    processes at once), or with more trials or minutes.

    Scripts call this below ``if __name__ == "__main__":``, as new processes import them.

    Args:
        dataset (KGRecDataset): The data set, with validation rows. Its data are read once.
        config (FitConfig): The hyper-parameters to start from; those that the space does not have, such as
            ``epochs``, stay as they are.
        folder (path): Where ``search.json`` is written.
        trials (int, optional): How many hyper-parameters are tried. (default: :obj:`30`)
        minutes (float, optional): No more trials begin where they might end after so many minutes, judged by
            the slowest so far; those of a search that goes on count. (default: :obj:`30`)
        seeds (int, optional): How many fits a trial is the mean of. (default: :obj:`1`)
        processes (int, optional): How many trials run at once; :obj:`1` runs them in this process.
            :obj:`None` takes one a core on the CPU, and one on a GPU. (default: :obj:`None`)
        seed (int, optional): The seed of what is proposed, and of the first of the fits.
            (default: :obj:`0`)
        device (str, optional): ``"auto"``, ``"cpu"`` or ``"cuda"``. (default: :obj:`"auto"`)
        progress (bool, optional): Whether each trial prints a line. (default: :obj:`True`)

    Raises:
        ModuleNotFoundError: If Optuna is not installed.
        ValueError: If there are no validation rows, ``folder`` holds a search of other data,
            hyper-parameters or seeds, or as :func:`fit` raises it.
        DamagedFileError: If the file of a search that is to go on was damaged.
        DivergedError: If all trials diverged.
        BlockingIOError: If another search works in ``folder``.
    """
    try:
        import optuna  # noqa: F401
    except ModuleNotFoundError as error:
        remedy = "tune needs Optuna: pip install 'mgwa_pyg[search]'"
        raise ModuleNotFoundError(remedy, name=error.name) from error
    trials, seeds = check_count("trials", trials), check_count("seeds", seeds)
    seed, device = check_count("seed", seed, minimum=0), chosen_device(device)
    if check_number("minutes", minutes) <= 0:
        raise ValueError(f"minutes={minutes}: more than 0 are needed")
    if not isinstance(folder, str | os.PathLike):
        raise TypeError(f"folder={folder!r:.60}: a path is needed")
    count, dataset = num_processes(processes, device), fixed(dataset)
    if not interactions(dataset[0]).val_mask.any():
        raise ValueError(
            "the data have no validation rows, by which trials are judged: leave val_mask as the data set "
            "has it"
        )
    folder = Path(folder).expanduser().absolute()
    with locked_folder(folder):
        search = _Search(dataset, config, folder / "search.json", seed, seeds)
        with side_by_side(dataset, count) as run:
            while (number := min(count, trials - len(search.trials))) > 0 and search.has_time(minutes):
                started = time.perf_counter()
                proposed = search.propose(number)
                jobs = [_Job(one, other, device) for one, _ in proposed for other in search.seeds]
                found = list(run(_judged, jobs))
                parts = [found[at : at + seeds] for at in range(0, len(found), seeds)]
                search.add(proposed, parts, (time.perf_counter() - started) / 60)
                if progress:
                    search.show(number, trials, minutes)
        return search.chosen()


def _judged(dataset: KGRecDataset, job: _Job) -> _Found:
    """Fit, and look at the validation rows."""
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        try:
            result = fit(dataset, job.config, folder, seed=job.seed, device=job.device)
        except DivergedError:
            return _Found(None, 0, time.perf_counter() - started)
    best = result.history[result.best_epoch - 1]
    return _Found(best[job.config.monitor], result.best_epoch, result.train_seconds)


class _Search:
    """The trials so far, and their file.

    What is proposed follows from the seed and these trials, so that a search that goes on proposes what it
    would have proposed.
    """

    def __init__(self, dataset: KGRecDataset, config: FitConfig, file: Path, seed: int, seeds: int) -> None:
        self.config, self.seed, self._file = config, seed, file
        self.seeds = list(range(seed, seed + seeds))
        recorder = _Recorder(config.to_dict())
        config.suggested(recorder)
        self._content: dict[str, Any] = {
            "dataset": {**dataset.spec, "fingerprint": dataset.fingerprint},
            "config": config.to_dict(),
            "monitor": config.monitor,
            "space": {name: str(one) for name, one in recorder.distributions.items()},
            "seeds": self.seeds,
            "environment": environment(),
            "rounds": [],
            "minutes": 0.0,
            "chosen": None,
            "trials": [],
        }
        if file.exists():
            kept = read_json(file, _CONTENT, "delete it, and search again")
            others = [what for name, what in _SAME.items() if kept[name] != self._content[name]]
            if kept["dataset"]["fingerprint"] != dataset.fingerprint:
                others = ["other data"]
            if others:
                raise ValueError(
                    f"{file} is of a search with {' and '.join(others)}: go on with those, or choose another "
                    f"folder"
                )
            self._content |= {name: kept[name] for name in ("rounds", "minutes", "chosen", "trials")}

    @property
    def trials(self) -> list[dict[str, Any]]:
        """What was tried, and what it came to."""
        return self._content["trials"]

    def has_time(self, minutes: float) -> bool:
        """Whether another round ends in time if it takes as long as the slowest so far."""
        rounds = self._content["rounds"]
        return not rounds or sum(rounds) + max(rounds) <= minutes

    def propose(self, number: int) -> list[_Proposed]:
        """Return hyper-parameters to try next."""
        import optuna

        done = len(self.trials)
        first = self._first()[done : done + number]
        seed = (self.seed * _ROUNDS + len(self._content["rounds"])) % 2**32
        verbosity = optuna.logging.get_verbosity()
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
                sampler = optuna.samplers.TPESampler(
                    seed=seed, multivariate=True, group=True, constant_liar=True
                )
            study = optuna.create_study(direction="maximize", sampler=sampler)
        finally:
            optuna.logging.set_verbosity(verbosity)
        study.add_trials(
            [self._frozen(one["params"], one["value"]) for one in self.trials if one["params"] is not None]
        )
        asked = [study.ask() for _ in range(number - len(first))]
        return first + [_Proposed(self.config.suggested(trial), trial.params) for trial in asked]

    def _first(self) -> list[_Proposed]:
        """Return what the search begins with: the configuration, and each of its switches turned."""
        values = self.config.to_dict()
        recorder = _Recorder(values)
        self.config.suggested(recorder)
        found = [_Proposed(self.config, _params_of(self.config))]
        for name, value in recorder.params.items():
            if isinstance(value, bool):
                turned = _Recorder({**values, name: not value})
                config = self.config.suggested(turned)
                if config != self.config:
                    found.append(_Proposed(config, turned.params))
        return found

    def _frozen(self, params: dict[str, Any], value: float | None) -> FrozenTrial:
        """Return a trial as Optuna knows it."""
        import optuna

        recorder = _Recorder(params)
        self.config.suggested(recorder)
        return optuna.trial.create_trial(
            params=recorder.params,
            distributions=recorder.distributions,
            value=0.0 if value is None else value,  # The least there is, so that others are sought.
        )

    def add(
        self,
        proposed: Sequence[_Proposed],
        found: Sequence[Sequence[_Found]],
        minutes: float,
    ) -> None:
        """Add a round of trials, and write the file."""
        for (config, params), fits in zip(proposed, found, strict=True):
            values = [one.value for one in fits if one.value is not None]
            self.trials.append(
                {
                    "trial": len(self.trials) + 1,
                    "value": statistics.mean(values) if len(values) == len(fits) else None,
                    "values": [one.value for one in fits],
                    "best_epochs": [one.best_epoch for one in fits],
                    "seconds": [round(one.seconds, 2) for one in fits],
                    "params": params,
                    "config": config.to_dict(),
                }
            )
        self._content["rounds"].append(minutes)
        self._content["minutes"] = sum(self._content["rounds"])
        best = self._best()
        if best is not None:
            self._content["chosen"] = self.trials[best]
        write_json(self._file, self._content)

    def _best(self) -> int | None:
        """Return the number of the best trial, the first of equals; nothing where all diverged."""
        done = [number for number, trial in enumerate(self.trials) if trial["value"] is not None]
        return max(done, key=lambda number: self.trials[number]["value"], default=None)

    def show(self, number: int, trials: int, minutes: float) -> None:
        """Print a line for each of the last trials."""
        best, measure = self._best(), MEASURES[self.config.monitor]
        left = max(0.0, minutes - self._content["minutes"])
        so_far = "" if best is None else f", best {self.trials[best]['value']:.4f} of trial {best + 1}"
        for place in range(len(self.trials) - number, len(self.trials)):
            value = self.trials[place]["value"]
            what = "diverged" if value is None else f"{measure} {value:.4f}"
            print(f"trial {place + 1} of {trials}: {what}{so_far}, {left:.1f} minutes left", file=sys.stderr)

    def chosen(self) -> FitConfig:
        """Return the best hyper-parameters."""
        best = self._best()
        if best is None:
            raise DivergedError(
                f"all {len(self.trials)} trials in {self._file} have left the finite numbers: start from a "
                f"lower learning rate than lr={self.config.lr}, in another folder"
            )
        return FitConfig.from_dict(self.trials[best]["config"])


def _params_of(config: FitConfig) -> dict[str, Any] | None:
    """Return the choice in the space that gives these hyper-parameters, if there is one."""
    values = config.to_dict()
    recorder = _Recorder(values)
    config.suggested(recorder)
    # The space may have other words for them.
    choices = [[(name, choice) for choice in recorder.others[name]] for name in recorder.others]
    for chosen in itertools.product(*choices):
        recorder = _Recorder({**values, **dict(chosen)})
        if config.suggested(recorder) == config:
            return recorder.params
    return None


class _Recorder:
    """A trial whose values are known. It keeps what it was asked for.

    Args:
        values (mapping): The values by name. The first that is allowed stands for one that is missing or not
            allowed.
    """

    def __init__(self, values: Mapping[str, Any]) -> None:
        self._values = values
        self.params: dict[str, Any] = {}
        self.distributions: dict[str, BaseDistribution] = {}
        #: The choices of what has a value that is none of them.
        self.others: dict[str, Sequence[Any]] = {}

    def suggest_float(self, name: str, low: float, high: float, *, log: bool = False) -> float:
        from optuna.distributions import FloatDistribution

        self.distributions[name] = FloatDistribution(low, high, log=log)
        return self._take(name, self._values.get(name, low), low, high)

    def suggest_int(self, name: str, low: int, high: int) -> int:
        from optuna.distributions import IntDistribution

        self.distributions[name] = IntDistribution(low, high)
        return self._take(name, self._values.get(name, low), low, high)

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any:
        from optuna.distributions import CategoricalDistribution

        self.distributions[name] = CategoricalDistribution(choices)
        value = self._values.get(name)
        if value not in choices:
            self.others[name] = choices
            value = choices[0]
        self.params[name] = value
        return value

    def _take(self, name: str, value: Any, low: Any, high: Any) -> Any:
        self.params[name] = value if low <= value <= high else low
        return self.params[name]
