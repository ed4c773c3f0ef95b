"""Checkpoints on disk: plain data in a known format, refused when they are damaged or somebody else's."""

from __future__ import annotations

import pickle
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from mgwa_pyg.datasets import KGRecDataset, from_spec
from mgwa_pyg.datasets.fixed import fixed
from mgwa_pyg.recommenders.base import FitConfig, KGRecommender, make_recommender
from mgwa_pyg.utils.files import DamagedFileError, load_mapped
from mgwa_pyg.utils.modes import chosen_device

#: The version of what a checkpoint holds. A newer version of the package reads the older formats, too.
FORMAT = 1
#: Where a checkpoint keeps it.
FORMAT_KEY = "mgwa_pyg_format"
_CONTENT: dict[str, type] = {"hyper_parameters": Mapping, "state_dict": Mapping, "history": list}
# What the first of these says of the fit.
_FIT: dict[str, type] = {
    "config": Mapping, "seed": int, "recipe": Mapping, "sizes": Mapping, "fingerprint": str
}  # fmt: skip
_PLAIN = int | float | str | None  # Hyper-parameters are such.


class CheckpointError(ValueError):
    """A checkpoint cannot be used; the message says which, why, and what to do."""


def read_checkpoint(path: Path | str) -> dict[str, Any]:
    """Return the content of a checkpoint, its tensors on the CPU. Nothing in the file is run as code.

    Args:
        path (path): A checkpoint that :func:`~mgwa_pyg.train.fit` wrote.

    Raises:
        FileNotFoundError: If there is no such file.
        OSError: If it cannot be read.
        CheckpointError: If it is damaged, holds more than plain data, or was made by something else than
            mgwa_pyg, or by a newer version of it.
    """
    path = Path(path).expanduser()
    if path.is_dir():
        raise CheckpointError(f"{path} is a folder: pass a checkpoint, such as its best.ckpt")
    try:
        content = load_mapped(path)
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"{path} holds more than plain data, which might run as code, and is not loaded: pass a "
            f"checkpoint that mgwa_pyg.train.fit wrote"
        ) from error
    except DamagedFileError as error:
        raise CheckpointError(
            f"{path} is damaged, or no checkpoint ({error}): take another copy of it, or train again"
        ) from error
    version = content.get(FORMAT_KEY) if isinstance(content, dict) else None
    if not isinstance(version, int) or version < 1:
        raise CheckpointError(
            f"{path} was not made by mgwa_pyg, as it has no '{FORMAT_KEY}': pass a checkpoint that "
            f"mgwa_pyg.train.fit wrote"
        )
    if version > FORMAT:
        raise CheckpointError(
            f"{path} was made by a newer mgwa_pyg (format {version}; this one reads up to {FORMAT}): upgrade"
        )
    _check_parts(path, content, _CONTENT)
    _check_parts(path, content["hyper_parameters"], _FIT)
    _check_parts(path, content["hyper_parameters"]["recipe"], {"class": str, "arguments": Mapping})
    config, sizes = (content["hyper_parameters"][part] for part in ("config", "sizes"))
    _check_parts(path, config, dict.fromkeys(config, _PLAIN))
    _check_parts(path, sizes, dict.fromkeys(sizes, int))
    entries = [entry if isinstance(entry, Mapping) else {} for entry in content["history"]]
    figures = {"train_loss", "train_seconds"}.union(*entries)
    for entry in entries:
        _check_parts(path, entry, dict.fromkeys(figures, float))
    return content


def _check_parts(path: Path | str, content: Mapping[str, Any], kinds: Mapping[str, Any]) -> None:
    wrong = [name for name, kind in kinds.items() if not isinstance(content.get(name), kind)]
    if wrong:
        raise CheckpointError(
            f"{path} has no {', '.join(sorted(wrong))}, or not as mgwa_pyg.train.fit writes it: pass a whole "
            f"checkpoint"
        )


def kept_config(path: Path | str, kept: Mapping[str, Any]) -> FitConfig:
    """Return the hyper-parameters of a checkpoint from what it says of its fit; see :func:`describe`.

    Raises:
        CheckpointError: If this version of the package does not know them.
    """
    try:
        return FitConfig.from_dict(kept["config"])
    except ValueError as error:
        raise CheckpointError(
            f"{path} has hyper-parameters that this mgwa_pyg does not know ({error}): use the version that "
            f"it was made with, register a model of your own in RECOMMENDERS first, or train again"
        ) from error


def check_state(path: Path | str, content: Mapping[str, Any]) -> None:
    """Refuse a checkpoint without what a fit goes on with; Lightning would begin anew, without a word."""
    _check_parts(path, content, {"loops": Mapping, "callbacks": Mapping, "optimizer_states": list})
    if len(content["optimizer_states"]) != 1:
        raise CheckpointError(f"{path} has no state of the optimizer: pass a whole checkpoint")


def checkpoint_of(run_folder: Path | str) -> Path:
    """Return the best checkpoint of a run.

    Raises:
        FileNotFoundError: If there is none.
    """
    path = Path(run_folder).expanduser() / "best.ckpt"
    if not path.is_file():
        raise FileNotFoundError(
            f"{path} is missing: pass the folder of a run that has finished, such as "
            f"`mgwa-pyg fit` leaves one"
        )
    return path


def restore(
    checkpoint: Path | str, dataset: KGRecDataset | None = None, device: torch.device | str = "cpu"
) -> KGRecommender:
    """Return the recommender that a fit left in a checkpoint, not training.

    Args:
        checkpoint (path): The checkpoint.
        dataset (KGRecDataset, optional): The data set of that fit; :obj:`None` makes it again from what
            the checkpoint says of it. (default: :obj:`None`)
        device (torch.device or str, optional): Where the recommender goes. (default: ``"cpu"``)

    Raises:
        FileNotFoundError: If there is no such file.
        CheckpointError: If the checkpoint is damaged, not ours, too new or of other data, its data
            cannot be made again, or it holds no parameters of its model.
        ValueError: If there is no such device here.
    """
    if torch.device(device).type == "cuda":
        chosen_device("cuda")
    content = read_checkpoint(checkpoint)
    kept = content["hyper_parameters"]
    config = kept_config(checkpoint, kept)
    dataset = remake_data(checkpoint, kept["recipe"]) if dataset is None else fixed(dataset)
    check_fit(checkpoint, kept, describe(dataset, config, kept["seed"], kept.get("started_from")))
    with in_words_of(checkpoint):
        recommender = make_recommender(dataset, config, kept["seed"])
        # The trainer's module has the model, and nothing else.
        state = {name.removeprefix("model."): value for name, value in content["state_dict"].items()}
        recommender.model.load_state_dict(state)
    recommender.started_from, recommender.learned = kept.get("started_from"), content.get("learned")
    recommender.model.to(device).eval()
    return recommender.to(device)


@contextmanager
def in_words_of(path: Path | str) -> Iterator[None]:
    """Make a :class:`CheckpointError` of what is raised where a model takes its parameters from one."""
    try:
        yield
    except (RuntimeError, TypeError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise CheckpointError(
            f"{path} does not hold the parameters of its model ({reason}): take another copy, or train again"
        ) from error


def describe(
    dataset: KGRecDataset, config: FitConfig, seed: int, started_from: str | None = None
) -> dict[str, Any]:
    """Return what a checkpoint says of its fit: the hyper-parameters, the seed, what it started from if the
    parameters were not drawn, and the data.
    """
    return {
        "config": config.to_dict(),
        "seed": seed,
        "started_from": started_from,
        "recipe": dataset.spec,
        "sizes": {
            name: getattr(dataset, name)
            for name in ("num_users", "num_items", "num_entities", "num_relations")
        },
        "fingerprint": dataset.fingerprint,
    }


def check_fit(path: Path | str, kept: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    """Refuse a checkpoint of another fit.

    Args:
        path (path): The checkpoint, for the message.
        kept (dict): What the checkpoint says of its fit; see :func:`describe`.
        wanted (dict): What it should say.

    Raises:
        CheckpointError: If the data, the hyper-parameters or the seed are others.
    """
    for name, size in wanted["sizes"].items():
        if kept["sizes"].get(name) != size:
            raise CheckpointError(
                f"{path} was made with {name}={kept['sizes'].get(name)}, but the data have {size}: "
                f"pass the data set of that fit"
            )
    if kept["fingerprint"] != wanted["fingerprint"]:
        made_with, given = _text(kept["recipe"]), _text(wanted["recipe"])
        reason = "with other files or transforms" if made_with == given else f"not {given}"
        raise CheckpointError(
            f"{path} was made with other data of the same sizes: {made_with}, {reason}. Pass the data set of "
            f"that fit"
        )
    # Of an older version, it lacks what came later.
    there = {
        **kept_config(path, kept).to_dict(),
        "seed": kept["seed"],
        "started_from": kept.get("started_from"),
    }
    here = {**wanted["config"], "seed": wanted["seed"], "started_from": wanted["started_from"]}
    names = [name for name in {**there, **here} if there.get(name) != here.get(name)]
    if names:
        raise CheckpointError(
            f"{path} is of another fit, with {_list(there, names)} instead of {_list(here, names)}: go on "
            f"with the settings of that fit, or choose another folder"
        )


def remake_data(path: Path | str, spec: Mapping[str, Any]) -> KGRecDataset:
    """Return the data set that a checkpoint was made with, from what it says of it.

    Raises:
        CheckpointError: If the data set cannot be made again.
    """
    try:
        return from_spec(spec, Path(path).expanduser().parent)
    except Exception as error:  # Its arguments may be anything.
        raise CheckpointError(
            f"{path} was made with {_text(spec)}, which cannot be made again here: pass the data set as "
            f"`dataset=` ({error})"
        ) from error


def _text(spec: Mapping[str, Any]) -> str:
    arguments = ", ".join(f"{name}={value!r}" for name, value in spec["arguments"].items())
    return f"{spec['class']}({arguments})"


def _list(values: Mapping[str, Any], names: list[str]) -> str:
    return ", ".join(f"{name}={values.get(name)!r}" for name in names)
