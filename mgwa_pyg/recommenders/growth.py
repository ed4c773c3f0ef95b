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
from mgwa_pyg.datasets.interactions import interactions
from mgwa_pyg.recommenders.base import FitConfig, KGRecommender, make_recommender
from mgwa_pyg.recommenders.checkpoint import CheckpointError, read_checkpoint, restore

# An interaction has two directions, which stand behind the relations of the knowledge graph.
_DIRECTIONS = 2


class Start(NamedTuple):
    """The parameters that a run has left, and what their rows are of."""

    state: Mapping[str, Tensor]
    ids: DataIds
    #: The users and items of which it has learned, rows of its own data set, :math:`(2, P)`.
    learned: Tensor
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
        if not path.exists():
            raise FileNotFoundError(
                f"{path} does not exist: pass the folder of a run that has finished, or a checkpoint"
            )
        content = read_checkpoint(path)
        model = content["hyper_parameters"]["config"].get("model")
        if model != config.model:
            raise CheckpointError(
                f"{path} is of model={model!r}, which cannot start a fit of {config.model!r}"
            )
        learned = content.get("learned")
        if "ids" in content and isinstance(learned, Tensor):
            try:
                ids = DataIds.unpacked(content["ids"])
            except (KeyError, TypeError, ValueError) as error:
                raise CheckpointError(f"{path} does not hold ids as they are written ({error})") from error
        else:  # Of an older version: the data set knows them.
            old = restore(path)
            ids, learned = DataIds.of(old.dataset), learned_by(old)
        state = {name.removeprefix("model."): value for name, value in content["state_dict"].items()}
        digest = hashlib.sha256()
        for name, value in state.items():
            digest.update(name.encode())
            digest.update(value.contiguous().numpy())
        return cls(state, ids, learned, digest.hexdigest()[:12])

    def give(self, recommender: KGRecommender) -> Rows:
        """Have a recommender start from here, as :func:`carry_over` does, and know what was learned from."""
        rows = carry_over(recommender, self.state, self.ids)
        user, item = (
            _inverse(kind, len(old))[self.learned[end].long()]
            for end, (kind, old) in enumerate([(rows.user, self.ids.user), (rows.item, self.ids.item)])
        )
        before = torch.stack([user, item])[:, (user >= 0) & (item >= 0)]
        recommender.learned = torch.cat([learned_by(recommender).long(), before], dim=1).unique(dim=1).int()
        recommender.started_from = self.digest
        return rows


def learned_by(recommender: KGRecommender) -> Tensor:
    r"""Return the users and items of which a recommender has learned, :math:`(2, P)`, in runs that it started
    from, too.
    """
    if recommender.learned is not None:
        return recommender.learned
    return interactions(recommender.dataset[0]).edge_index.int()


def held_out_but_learned(recommender: KGRecommender, part: str) -> tuple[int, int]:
    """Return how many positives of a part a recommender has learned from, in a run that it started from, and
    how many there are.
    """
    links, num_items = interactions(recommender.dataset[0]), recommender.num_items
    held_out = links.edge_label_index[:, links[f"{part}_mask"] & (links.edge_label == 1)]
    if recommender.learned is None:
        return 0, held_out.size(1)
    user, item = recommender.learned.long()
    known = torch.isin(held_out[0] * num_items + held_out[1], user * num_items + item)
    return int(known.sum()), held_out.size(1)


def _inverse(rows: Tensor, size: int) -> Tensor:
    """Return for each old row the new one that is of it, or -1."""
    new = torch.full((size,), -1)
    known = (rows >= 0).nonzero().squeeze(1)
    new[rows[known]] = known
    return new


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
