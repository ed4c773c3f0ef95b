"""`kg_worth`: what the knowledge graph of a data set is worth to a model, as a whole and by relation."""

from __future__ import annotations

import copy
import os
import sys
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch

from mgwa_pyg.datasets import KGRecDataset
from mgwa_pyg.datasets.fixed import fixed
from mgwa_pyg.datasets.interactions import interactions
from mgwa_pyg.evaluation import holm, paired_test, ranking_metrics, top_items, user_aucs
from mgwa_pyg.recommenders import FitConfig, restore
from mgwa_pyg.train.evaluate import scorer_of
from mgwa_pyg.train.fit import FitResult, fit
from mgwa_pyg.train.plots import plot_worth
from mgwa_pyg.train.processes import num_processes, side_by_side
from mgwa_pyg.utils.checks import check_choice, check_count
from mgwa_pyg.utils.files import whole_file
from mgwa_pyg.utils.modes import chosen_device

_KG = ("entity", "kg", "entity")
# What a user's figure is called, by what fits are judged by: in tables, and in plots.
_METRICS = {"val_auc": ("auc_user", "AUC per user"), "val_recall": ("recall@10", "Recall@10")}


class _Variant(NamedTuple):
    """A change of the knowledge graph."""

    name: str
    left_out: tuple[int, ...] = ()
    is_shuffled: bool = False


class _Job(NamedTuple):
    variant: _Variant
    config: FitConfig
    seed: int
    split: str
    device: str


def kg_worth(
    dataset: KGRecDataset,
    config: FitConfig,
    folder: Path | str,
    seeds: int = 3,
    relations: bool | Sequence[int | str] = True,
    max_relations: int = 10,
    split: str = "val",
    processes: int | None = None,
    seed: int = 0,
    device: str = "auto",
    progress: bool = True,
) -> pd.DataFrame:
    """Measure what the knowledge graph of a data set is worth to a model.

    The model is fitted with the knowledge graph ("with it"), without any triple ("without"), with each
    relation's tails permuted among its triples ("tails shuffled", which keeps degrees and the size of each
    relation, but says nothing true), and without each of its relations. A model that is nothing without
    relations is not fitted without any triple; a warning says so.

    The figure is Recall@10 of each user if the model is judged by recall, and else the AUC of each user's own
    rows. Differences are those to the fits with the knowledge graph, as means over users of means over seeds:
    below zero where a change does harm, and the knowledge graph is worth something.
    :func:`~mgwa_pyg.evaluation.paired_test` tests them over users: of what another seed might give it says
    nothing, and with one seed nothing is known of that.

    It writes ``kg_worth.csv`` and ``kg_worth.png`` into ``folder``. Scripts call this below
    ``if __name__ == "__main__":``, as new processes import them.

    Args:
        dataset (KGRecDataset): The data set. Its data are read once.
        config (FitConfig): The hyper-parameters, the same for all fits.
        folder (path): Where the files are written.
        seeds (int, optional): How many fits each figure is the mean of. (default: :obj:`3`)
        relations (bool or sequence, optional): Whether each relation is left out, or which ones, by number or
            name. (default: :obj:`True`)
        max_relations (int, optional): So many relations, the largest, are left out one by one, and all others
            together as "the rest"; of relations that were listed all are. (default: :obj:`10`)
        split (str, optional): The rows that figures are of, ``"val"`` or ``"test"``. The first are for
            decisions; epochs are chosen by them, in all fits alike. (default: :obj:`"val"`)
        processes (int, optional): How many fits run at once; :obj:`1` runs them in this process. :obj:`None`
            takes one a core on the CPU, and one on a GPU. (default: :obj:`None`)
        seed (int, optional): The first of the fits' seeds, which the permutation of tails has, too.
            (default: :obj:`0`)
        device (str, optional): ``"auto"``, ``"cpu"`` or ``"cuda"``. (default: :obj:`"auto"`)
        progress (bool, optional): Whether each fit prints a line. (default: :obj:`True`)

    Returns:
        DataFrame: A row for each variant, with the columns ``variant``, ``triples`` (how many are left),
        ``recall@10`` or ``auc_user``, ``difference``, the ends ``low`` and ``high`` of its 95 % interval, and
        ``p``, adjusted after Holm for all variants. The last four are missing where nothing was changed.

    Raises:
        ValueError: If there are no triples, the model leaves them out, a relation is unknown, the rows of the
            split have no figure for two users at least, or as :func:`fit` raises it.
        DivergedError: If a fit leaves the finite numbers.
    """
    seeds, seed = check_count("seeds", seeds), check_count("seed", seed, minimum=0)
    max_relations = check_count("max_relations", max_relations, minimum=0)
    check_choice("split", split, ("val", "test"))
    if not isinstance(folder, str | os.PathLike):
        raise TypeError(f"folder={folder!r:.60}: a path is needed")
    if not getattr(config, "knowledge_graph", True):
        raise ValueError(
            "knowledge_graph=False: the model leaves the triples out, so that they are worth nothing to it; "
            "set it to True"
        )
    device = chosen_device(device)
    folder, dataset = Path(folder).expanduser().absolute(), fixed(dataset)
    sizes = _sizes(dataset)
    if not sizes.any():
        raise ValueError("the data have no triples: there is nothing to measure")
    variants = []
    for variant in _variants(dataset, sizes, relations, max_relations):
        if config.needs_relations and sizes[list(variant.left_out)].sum() == sizes.sum():
            warnings.warn(
                f"model={config.model!r} cannot do without any triple: {variant.name!r} is left out",
                stacklevel=2,
            )
        else:
            variants.append(variant)

    jobs = [
        _Job(variant, config, number, split, device)
        for variant in variants
        for number in range(seed, seed + seeds)
    ]
    metric, words = _METRICS[config.monitor]
    figures = []
    with side_by_side(dataset, num_processes(processes, device)) as run:
        for number, (job, of_users) in enumerate(zip(jobs, run(_measured, jobs), strict=True), start=1):
            figures.append(of_users)
            if progress:
                what = f"{job.variant.name}, seed {job.seed}: {words} {of_users.mean():.4f}"
                print(f"fit {number} of {len(jobs)}: {what}", file=sys.stderr)

    # The users are the same in all fits: the rows are.
    of_variants = np.stack(figures).reshape(len(variants), seeds, -1).mean(axis=1)
    tests = [paired_test(changed - of_variants[0]) for changed in of_variants[1:]]
    adjusted = holm([test["p"] for test in tests])
    table = pd.DataFrame(
        {
            "variant": [variant.name for variant in variants],
            "triples": [int(sizes.sum() - sizes[list(variant.left_out)].sum()) for variant in variants],
            metric: of_variants.mean(axis=1),
            "difference": [np.nan, *(test["mean"] for test in tests)],
            "low": [np.nan, *(test["low"] for test in tests)],
            "high": [np.nan, *(test["high"] for test in tests)],
            "p": [np.nan, *adjusted],
        }
    )
    with whole_file(folder / "kg_worth.csv") as file:
        table.to_csv(file, index=False)
    fits = "1 seed" if seeds == 1 else f"{seeds} seeds"
    title = f"The knowledge graph of {type(dataset).__name__}, to {config.model} ({fits})"
    with whole_file(folder / "kg_worth.png") as file:
        plot_worth(table, words, title, file)
    return table


def _sizes(dataset: KGRecDataset) -> npt.NDArray[np.int64]:
    """Return how many triples each relation has."""
    relation = dataset[0][_KG].rel_type
    return torch.bincount(relation[relation < dataset.num_relations], minlength=dataset.num_relations).numpy()


def _variants(
    dataset: KGRecDataset,
    sizes: npt.NDArray[np.int64],
    relations: bool | Sequence[int | str],
    max_relations: int,
) -> Iterator[_Variant]:
    yield _Variant("with it")
    yield _Variant("without", tuple(range(dataset.num_relations)))
    yield _Variant("tails shuffled", is_shuffled=True)
    names = dataset.relation_names
    rest: list[int] = []
    if isinstance(relations, bool):
        order = [int(number) for number in np.argsort(-sizes, kind="stable") if sizes[number]]
        single = order if relations and len(order) > 1 else []  # A single one is the whole.
        if len(single) > max_relations + 1:  # One alone needs no other name.
            single, rest = single[:max_relations], single[max_relations:]
    else:
        single = [_number(dataset, relation) for relation in relations]
    for number in single:
        yield _Variant(f"without {names[number]}", (number,))
    if rest:
        yield _Variant(f"without the rest ({len(rest)} relations)", tuple(rest))


def _number(dataset: KGRecDataset, relation: int | str) -> int:
    """Return the number of a relation."""
    names = list(dataset.relation_names)
    if isinstance(relation, str) and relation in names:
        return names.index(relation)
    if not isinstance(relation, str) and check_count("relations", relation, minimum=0) < len(names):
        return int(relation)
    raise ValueError(
        f"relations has {relation!r}, but the data have {len(names)} relations: {', '.join(names):.200}"
    )


def _measured(dataset: KGRecDataset, job: _Job) -> npt.NDArray[np.float64]:
    """Fit a variant, and return the figure of each user."""
    changed = _changed(dataset, job.variant, job.seed)
    with tempfile.TemporaryDirectory() as folder:
        result = fit(changed, job.config, folder, seed=job.seed, device=job.device)
        return _of_users(changed, result, job)


def _of_users(dataset: KGRecDataset, result: FitResult, job: _Job) -> npt.NDArray[np.float64]:
    if job.config.monitor == "val_auc":
        links = interactions(result.data)
        rows = links[f"{job.split}_mask"]
        score = result.val_score if job.split == "val" else result.score
        return user_aucs(links.edge_label[rows], score, links.edge_label_index[0, rows])[1]
    recommender = restore(result.checkpoint, dataset, job.device)
    data, num_items, per_step = result.data, dataset.num_items, recommender.users_per_step
    top = top_items(scorer_of(recommender), data, num_items, split=job.split, users_per_step=per_step)
    return ranking_metrics(top, data, num_items, job.split, ks=(10,))["recall@10"]


def _changed(dataset: KGRecDataset, variant: _Variant, seed: int) -> KGRecDataset:
    """Return the data set with another knowledge graph; all numbers of things stay as they are."""
    data = copy.copy(dataset[0])
    kg = data[_KG]
    if variant.is_shuffled:
        kg.edge_index = _shuffled(kg.edge_index, kg.rel_type, dataset.num_relations, seed)
    left_out = torch.tensor(variant.left_out, dtype=kg.rel_type.dtype)
    kept = ~torch.isin(kg.rel_type % dataset.num_relations, left_out)
    kg.edge_index, kg.rel_type = kg.edge_index[:, kept], kg.rel_type[kept]
    copied = copy.copy(dataset)
    copied.data = data
    copied.__dict__.pop("fingerprint", None)  # It is of the data as they were.
    return copied


def _shuffled(
    edge_index: torch.Tensor, rel_type: torch.Tensor, num_relations: int, seed: int
) -> torch.Tensor:
    """Return the edges with each relation's tails in another order, and the inverses after them."""
    is_inverse = rel_type >= num_relations
    head, tail = edge_index[:, ~is_inverse]
    relation = rel_type[~is_inverse]
    inverse = edge_index[:, is_inverse].flip(0)
    # Inverses stand in the order of the triples, or were left out.
    whole = torch.equal(inverse, torch.stack([head, tail]))
    if not whole and inverse.numel() > 0:
        raise ValueError(
            "the inverses of the triples are in another order, or some are left out: leave out the transform "
            "that does so"
        )
    generator = np.random.default_rng(seed)
    place = np.argsort(relation.numpy(), kind="stable")
    taken = np.lexsort([generator.random(len(place)), relation.numpy()])
    tail = tail.clone()
    tail[torch.from_numpy(place)] = edge_index[1, ~is_inverse][torch.from_numpy(taken)]
    shuffled = edge_index.clone()
    shuffled[:, ~is_inverse] = torch.stack([head, tail])
    shuffled[:, is_inverse] = torch.stack([tail, head])[:, : int(is_inverse.sum())]
    return shuffled
