"""A model of a new data set with the parameters of another, where their ids agree."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from mgwa_pyg.datasets import KGRecDataset
from mgwa_pyg.datasets.fixed import fixed
from mgwa_pyg.datasets.ids import DataIds, Rows
from mgwa_pyg.recommenders.base import FitConfig, KGRecommender, make_recommender
from mgwa_pyg.recommenders.checkpoint import CheckpointError, read_checkpoint, restore

# An interaction has two directions, which stand behind the relations of the knowledge graph.
_DIRECTIONS = 2


class Start(NamedTuple):
    """The parameters that a run has left, and what their rows are of."""

    state: Mapping[str, Tensor]
    ids: DataIds
    #: The first digits of the SHA-256 of the parameters.
    digest: str

    @classmethod
    def of(cls, run_folder: Path | str, config: FitConfig) -> Start:
        """Return those of a run of the same model, whose data set needs not be there any more.

        Args:
            run_folder (path): A folder with a ``best.ckpt``, or a checkpoint.
            config (FitConfig): The hyper-parameters of what is to start from there.

        Raises:
            FileNotFoundError: If there is no checkpoint.
            CheckpointError: If it is damaged, or of another model.
        """
        path = Path(run_folder).expanduser()
        path = path / "best.ckpt" if path.is_dir() else path
        content = read_checkpoint(path)
        model = content["hyper_parameters"]["config"].get("model")
        if model != config.model:
            raise CheckpointError(
                f"{path} is of model={model!r}, which cannot start a fit of {config.model!r}"
            )
        if "ids" in content:
            try:
                ids = DataIds.unpacked(content["ids"])
            except (KeyError, TypeError, ValueError) as error:
                raise CheckpointError(f"{path} does not hold ids as they are written ({error})") from error
        else:  # Of an older version: the data set knows them.
            ids = DataIds.of(restore(path).dataset)
        state = {name.removeprefix("model."): value for name, value in content["state_dict"].items()}
        digest = hashlib.sha256()
        for name, value in state.items():
            digest.update(name.encode())
            digest.update(value.contiguous().numpy())
        return cls(state, ids, digest.hexdigest()[:12])


def grown(recommender: KGRecommender, dataset: KGRecDataset) -> KGRecommender:
    """Return a recommender of another data set, such as one that has grown, with the parameters of this one
    where users, items, entities and relations have the same ids.

    Args:
        recommender (KGRecommender): A trained recommender. It stays as it is.
        dataset (KGRecDataset): The other data set.

    Raises:
        NotImplementedError: If the recommender does not say what its parameters are of.
    """
    with torch.random.fork_rng(devices=[]):  # What has no neighbours is drawn, the same each time.
        torch.default_generator.manual_seed(recommender.seed)
        made = make_recommender(fixed(dataset), recommender.config, recommender.seed)
    rows = carry_over(made, recommender.model.state_dict(), DataIds.of(recommender.dataset))
    made.untrained = rows.item < 0
    if recommender.untrained is not None:  # It has grown before.
        made.untrained |= recommender.untrained[rows.item] & (rows.item >= 0)
    made.model.to(recommender.device).eval()
    return made.to(recommender.device)


@torch.no_grad()
def carry_over(recommender: KGRecommender, state: Mapping[str, Tensor], old: DataIds) -> Rows:
    """Give a recommender's model the parameters of another of its kind, rows of tables by their ids.

    New rows start as :meth:`KGRecommender.start_rows` has them.

    Args:
        recommender (KGRecommender): The recommender of a new data set, as it was made.
        state (dict): The other model's ``state_dict()``.
        old (DataIds): The ids of the other model's data set.

    Returns:
        Rows: Where the rows are from.

    Raises:
        ValueError: If the models have other parameters, or their shapes differ in more than rows.
    """
    rows = Rows.between(old, DataIds.of(recommender.dataset))
    sizes = {"user": len(old.user), "item": len(old.item), "entity": len(old.entity)}
    sizes |= {"relation": len(old.relation), "inverse": len(old.relation), "direction": _DIRECTIONS}
    sources = {**rows._asdict(), "inverse": rows.relation, "direction": torch.arange(_DIRECTIONS)}
    own = recommender.model.state_dict()
    if own.keys() != state.keys():
        names = ", ".join(sorted(own.keys() ^ state.keys()))
        raise ValueError(
            f"the models differ in their parameters {names:.200}: take the same hyper-parameters"
        )
    tables = recommender.tables()
    for name, value in own.items():
        there, kinds = state[name], tables.get(name, ())
        shape = (sum(sizes[kind] for kind in kinds), *value.shape[1:]) if kinds else value.shape
        if there.shape != shape:
            raise ValueError(
                f"the parameter {name} has the shape {tuple(there.shape)} there, but {tuple(shape)} is "
                f"needed: take the same hyper-parameters"
            )
        if not kinds:
            value.copy_(there)
            continue
        source, start = [], 0
        for kind in kinds:
            source.append(torch.where(sources[kind] >= 0, sources[kind] + start, -1))
            start += sizes[kind]
        row = torch.cat(source)
        known = (row >= 0).nonzero().squeeze(1)
        value[known.to(value.device)] = there[row[known].to(there.device)].to(value)
    recommender.start_rows(rows)
    return rows
