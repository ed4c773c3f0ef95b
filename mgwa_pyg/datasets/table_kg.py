"""`TableKG`: somebody's own tables as a data set."""

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd
from torch_geometric.data import HeteroData, InMemoryDataset

from mgwa_pyg.datasets.base import KGRecDataset, load_content, save_content
from mgwa_pyg.datasets.interactions import INTERACTIONS, Interaction
from mgwa_pyg.datasets.kg_rec_tables import KGRecTables
from mgwa_pyg.datasets.splits import TEST, TRAIN, VAL, last_parts, parts_in_order
from mgwa_pyg.datasets.table import Column, Ids, Table
from mgwa_pyg.datasets.table_graph import Source, TableGraph, read_pairs, read_triples
from mgwa_pyg.datasets.tables import warn_of_twins
from mgwa_pyg.utils.checks import check_choice, check_count

_COLUMN = "column:"
_PARTS = {"train": TRAIN, "val": VAL, "valid": VAL, "validation": VAL, "test": TEST}
_FILE = "dataset.pt"
_REMEDY = (
    f"Pass a file that TableKG.to_file wrote, such as {_FILE} in a run folder; "
    f"TableKG.from_tables reads tables."
)
_ARGUMENTS = ("negatives", "seed", "split", "interaction", "summary")


class TableKG(KGRecDataset):
    r"""A data set made of tables: who did what, and, where there is one, a knowledge graph.

    .. code-block:: python

        dataset = TableKG.from_tables("plays.parquet", triples="kg.nt.gz", item="artist", weight="plays")

    :meth:`from_tables` reads the tables, :meth:`to_file` keeps the data set, and :obj:`TableKG(path)` opens
    it again. :func:`mgwa_pyg.train.fit` keeps it in the run folder, so that
    :meth:`Recommender.load <mgwa_pyg.recommend.Recommender.load>` needs the tables no more.

    Args:
        path (path): A file that :meth:`to_file` wrote, such as :obj:`dataset.pt` in a run folder.
        transform (callable, optional): Applied to the data at every access. (default: :obj:`None`)

    Raises:
        TypeError: If it is no path.
        OSError: If the file cannot be read, is a folder, or does not exist.
        RuntimeError: If it is damaged, or not such a file.
    """

    splits = (*KGRecDataset.splits, "time", "last", "none", "column:NAME")

    def __init__(
        self,
        path: str | os.PathLike[str],
        transform: Callable[[HeteroData], HeteroData] | None = None,
    ) -> None:
        if not isinstance(path, (str, os.PathLike)):
            raise TypeError(f"path={path!r:.60}: a path is needed. {_REMEDY}")
        path = Path(path).expanduser()
        if path.is_dir():
            raise IsADirectoryError(f"'{path}' is a folder. {_REMEDY}")
        if not path.exists():
            raise FileNotFoundError(f"'{path}' does not exist. {_REMEDY}")
        content = load_content(path, "is no file of a data set, or is damaged", _REMEDY)
        arguments = {**content["origin"].get("arguments", {})}
        if content["origin"]["class"] != _CLASS or not arguments.keys() >= {*_ARGUMENTS}:
            raise RuntimeError(f"'{path}' was not written by TableKG.to_file. {_REMEDY}")
        self._summary: dict[str, int] = arguments.pop("summary")
        self._begin(
            **{**arguments, "interaction": Interaction(*arguments["interaction"])}, transform=transform
        )
        self._take(content)

    @classmethod
    def from_tables(
        cls,
        interactions: Source,
        *,
        user: str | int = "user",
        item: str | int = "item",
        weight: str | int | None = None,
        time: str | int | None = None,
        items: Source | None = None,
        name: str | int | None = None,
        attributes: Sequence[str | int] = (),
        separator: str | None = None,
        triples: Source | None = None,
        links: Source | Mapping[Any, Any] | None = None,
        entity_names: Source | Mapping[Any, Any] | None = None,
        split: str = "random",
        negatives: str = "items",
        seed: int = 0,
        interaction: str | Interaction = "listens",
        transform: Callable[[HeteroData], HeteroData] | None = None,
    ) -> "TableKG":
        r"""Make a data set of tables.

        A table is a :class:`~pandas.DataFrame` or the path of a file: CSV (``.csv``), separated by tabs
        (``.tsv``, ``.txt``, ``.dat``, and RecBole's ``.inter``, ``.kg``, ``.link`` and
        ``.item``), each also packed (``.gz``), or Parquet (with the extra :obj:`tables`). Text is
        UTF-8, with a header. A column :obj:`user_id:token`, as RecBole writes it, may be called
        :obj:`user_id`. In CSV files, quotes enclose cells with commas; between tabs, a quote is a quote.

        Ids are whole numbers or strings, and stay what they are; a column of a text file in which all are
        whole numbers of 64 bits has whole numbers. Ids are compared as they are written, 7 with :obj:`"7"`.
        Users and items are those with an interaction, in the order of their first one.

        Args:
            interactions (DataFrame or path): Who did what: a row for each time, or for each pair.
            user (str): Its column of the users' ids. (default: :obj:`"user"`)
            item (str): Its column of the items' ids. (default: :obj:`"item"`)
            weight (str, optional): Its column of positive numbers that say how much a row weighs, such as
                plays. The weights of a pair add up; without a column each row weighs 1. They become
                :obj:`edge_weight`, which no model here uses yet. (default: :obj:`None`)
            time (str, optional): Its column of times: numbers, or dates in ISO 8601, which become seconds
                since 1970. The last time of a pair counts. They become :obj:`edge_time`.
                (default: :obj:`None`)
            items (DataFrame or path, optional): What is known of items, with their ids in a column that is
                called like that of the interactions. (default: :obj:`None`)
            name (str, optional): The column of the items' names, in ``items`` or, without it, in the
                interactions. (default: :obj:`None`)
            attributes (sequence of str): Columns of categories, there as well. Each makes triples: the
                column's name is the relation, and each value an entity, with the id :obj:`"column=value"`. A
                missing value makes none. (default: :obj:`()`)
            separator (str, optional): What stands between several values in a cell of :obj:`attributes`.
                (default: :obj:`None`)
            triples (DataFrame or path, optional): The knowledge graph: a table with the columns ``head``,
                ``relation`` and ``tail`` (or ``head_id``, …; of a frame, any three), or a file in
                N-Triples (``.nt``) or Turtle (``.ttl``, with the extra :obj:`tables`), also packed.
                There, the id of a node is its IRI without brackets. A triple that is repeated counts once.
                (default: :obj:`None`)
            links (DataFrame, path or mapping, optional): Which entity of the graph an item is: a table with
                the columns ``item`` and ``entity`` (or ``item_id`` and ``entity_id``; of a frame,
                any two), or ids by ids. An entity that several items are linked to belongs to the last.
                :obj:`None` takes entities with the id of an item for that item. (default: :obj:`None`)
            entity_names (DataFrame, path or mapping, optional): What the graph's entities are called: a table
                with the columns ``entity`` and ``name`` (of a frame, any two), or names by ids. Else
                the labels in the graph name them, or their ids. (default: :obj:`None`)
            split (str): :obj:`"random"` and :obj:`"per_user"` as in :class:`KGRecDataset`; :obj:`"time"`,
                which splits all interactions in the order of time, 6:2:2; :obj:`"last"`, each user's last
                interaction for test and the one before for validation, while one is left for training;
                :obj:`"column:NAME"`, by a column of the interactions that says :obj:`train`, :obj:`val` (or
                :obj:`valid`, :obj:`validation`) or :obj:`test`; or :obj:`"none"`, all for training. At equal
                times, the order of rows counts. (default: :obj:`"random"`)
            negatives (str): As in :class:`KGRecDataset`. (default: :obj:`"items"`)
            seed (int): As in :class:`KGRecDataset`. (default: :obj:`0`)
            interaction (str or Interaction): What users do with items: :obj:`"listens"`, :obj:`"reads"`,
                :obj:`"watches"`, :obj:`"interacts"`, or words of your own. (default: :obj:`"listens"`)
            transform (callable, optional): As in :class:`KGRecDataset`. (default: :obj:`None`)

        Raises:
            TypeError: If an argument is of another type.
            ValueError: If an argument has another value than these.
            FileNotFoundError: If there is no such file.
            RawDataError: If a table has no such column, or a row is not what it should be; the message names
                the file and the line.
            ImportError: If a file needs the extra :obj:`tables`.
        """
        check_choice("negatives", negatives, cls.negative_pools)
        seed = check_count("seed", seed, minimum=0)
        split_column = _split_column(split, time)
        if isinstance(interaction, str):
            interaction = INTERACTIONS[check_choice("interaction", interaction, INTERACTIONS)]
        if isinstance(attributes, (str, int)) or not isinstance(attributes, Sequence):
            raise TypeError(f"attributes={attributes!r:.60}: a list of columns is needed")
        if repeated := [column for column in attributes if [*attributes].count(column) > 1]:
            raise ValueError(f"attributes={attributes!r:.60}: {repeated[0]!r} is there twice, leave one out")
        if separator is not None and not (isinstance(separator, str) and separator):
            raise ValueError(f"separator={separator!r:.60}: text such as '|' is needed, or None")

        plays = Table("interactions", interactions)
        wanted = {"user": Column([user], "id"), "item": Column([item], "id")}
        optional = {"weight": (weight, "weight"), "time": (time, "time"), "part": (split_column, "category")}
        wanted |= {
            role: Column([column], kind) for role, (column, kind) in optional.items() if column is not None
        }
        roles = {f"attribute {column!r}": str(column) for column in attributes}
        about = {role: Column([column], "category") for role, column in zip(roles, attributes, strict=True)}
        if name is not None:
            about["name"] = Column([name], "category")
        read = plays.read(wanted if items is not None else wanted | about)
        num_rows = len(read["user"].code)
        user_ids, item_ids = read["user"].values, read["item"].values
        pairs = _pairs(plays, read, split)

        graph = TableGraph(read["item"])
        found = {}
        if triples is not None:
            found = graph.add(read_triples(triples), links, item)
        elif links is not None or entity_names is not None:
            raise ValueError(
                "links= and entity_names= are of a graph: pass it as triples=, or leave them out"
            )
        if entity_names is not None:
            graph.call_by_id(*read_pairs("entity_names", entity_names, "entity", "name"))
        known = plays
        if items is not None:
            known = Table("items", items)
            read = known.read({"item": Column([item], "id"), **about})
        graph.describe(known, read, roles, separator)
        del read  # It is as large as the pairs.

        for kind, ids in (("users", user_ids), ("items", item_ids)):
            warn_of_twins(kind, [id_ for id_ in ids if isinstance(id_, str)], "The tables")
        dataset = cls.__new__(cls)
        dataset._begin(negatives, seed, split, interaction, transform)
        tables = KGRecTables(
            positives=pairs.pairs,
            triples=graph.triples,
            num_users=len(user_ids),
            num_entities=len(graph.ids),
            item_names=graph.names[: graph.num_items],
            relation_names=[*graph.relations.number],
            positive_parts=pairs.parts,
            user_ids=user_ids,
            item_ids=item_ids,
            entity_names=graph.names,
            entity_ids=graph.ids,
            weights=pairs.weights,
            times=pairs.times,
        ).checked()
        dataset._take(dataset._made(tables))
        dataset._summary = {"rows": num_rows, **found}
        return dataset

    @classmethod
    def like(cls, dataset: KGRecDataset) -> "TableKG":
        """Return a data set with the settings of another, which needs no files to be opened again; whoever
        calls this gives it data.
        """
        made = cls.__new__(cls)
        made._begin(dataset.negatives, dataset.seed, dataset.split, dataset.interaction, None)
        made._summary = {}
        return made

    def summary(self) -> pd.Series:
        r"""Return what was read, by name: how many rows, users, items, interactions, entities and triples,
        how many items have triples, what of the graph matches an item, and how many interactions are in each
        part. Of data that have grown it is what there is, without what is of tables.
        """
        ends = self._data["entity", "kg", "entity"].edge_index.unique()
        links = self._data["user", self.interaction.edge, "entity"]
        masks = {part: links[f"{part}_mask"] & (links.edge_label == 1) for part in ("train", "val", "test")}
        of_tables = dict(self._summary)
        counts = {
            **({"rows": of_tables.pop("rows")} if of_tables else {}),
            **self._statistics,
            "items with triples": int((ends < self.num_items).sum()),
            **of_tables,
            **{f"interactions for {part}": int(mask.sum()) for part, mask in masks.items()},
        }
        return pd.Series(counts, name=type(self).__name__, dtype=np.int64)

    def to_file(self, path: str | os.PathLike[str]) -> None:
        r"""Keep the data set in a file that :obj:`TableKG(path)` opens, without its transform.

        Args:
            path (path): The file. It holds tensors and plain values; nothing in it is run.

        Raises:
            TypeError: If the data hold anything else.
            OSError: If the file cannot be written, or is a folder.
        """
        path = Path(path).expanduser()
        if path.is_dir():
            raise IsADirectoryError(f"'{path}' is a folder: pass the path of a file, such as {path / _FILE}")
        arguments = {
            "negatives": self.negatives,
            "seed": self.seed,
            "split": self.split,
            "interaction": tuple(self.interaction),
            "summary": self._summary,
        }
        content = {
            "kind": type(self._data).__name__,
            "data": self._data,
            "statistics": self._statistics,
            **self._names,
            "pre_transform": (),
            "origin": {"class": _CLASS, "code": "", "files": {}, "arguments": arguments},
        }
        save_content(path, content)

    def keep(self, folder: Path) -> None:
        self.to_file(folder / _FILE)

    def _begin(
        self,
        negatives: str,
        seed: int,
        split: str,
        interaction: Interaction,
        transform: Callable[[HeteroData], HeteroData] | None,
    ) -> None:
        """Take the place of the constructor of :class:`KGRecDataset`, which builds from files."""
        self.negatives, self.seed, self.split, self.interaction = negatives, seed, split, interaction
        self._root = self._processed = None
        InMemoryDataset.__init__(self, None, transform, log=False)

    def _arguments(self) -> dict[str, Any]:
        return {"path": _FILE}


_CLASS = f"{TableKG.__module__}.{TableKG.__qualname__}"


class _Pairs(NamedTuple):
    """The interactions as distinct pairs, sorted by user and then by item."""

    pairs: npt.NDArray[np.integer]
    weights: npt.NDArray[np.float32]
    """What the rows of each pair weigh together."""
    times: npt.NDArray[Any] | None
    """The last time of each pair."""
    parts: npt.NDArray[np.int8] | None
    """The part of each pair; nothing where the data set draws it."""


def _pairs(table: Table, read: dict[str, Any], split: str) -> _Pairs:
    """Return the pairs that rows are of. Columns that nobody else needs are taken out, as they are large.

    Args:
        table (Table): Where the rows come from, for messages.
        read (dict): Its columns.
        split (str): How pairs are split.
    """
    users, items, num_rows = read["user"], read["item"], len(read["user"].code)
    key = users.code.astype(np.int64)
    key *= len(items.values)
    key += items.code
    order = np.argsort(key, kind="stable")
    key = key[order]
    first = np.flatnonzero(np.diff(key, prepend=-1))
    pairs = np.stack(np.divmod(key[first], len(items.values)), axis=1, dtype=np.int32, casting="unsafe")
    del key
    weights = np.diff(first, append=num_rows)
    if "weight" in read:
        weights = np.add.reduceat(read.pop("weight")[order], first)
        too_large = weights > np.finfo(np.float32).max
        if too_large.any():
            row = int(order[first[too_large.argmax()]])
            table.fail(row, "the weights of its user and item add up to more than a number of 32 bits holds")
    times = place = None
    if "time" in read:
        time = read.pop("time")
        by_time = time.order
        rank = np.empty_like(by_time)
        rank[by_time] = np.arange(num_rows)
        # At equal times, rows are in their order.
        place = np.maximum.reduceat(rank[order], first)
        times = time.numbers[by_time[place]]
    parts = None
    if split == "time":
        assert place is not None  # _split_column has seen to it.
        parts = parts_in_order(place)
    elif split == "last":
        assert place is not None
        parts = last_parts(pairs[:, 0], place)
    elif split == "none":
        parts = np.full(len(pairs), TRAIN, dtype=np.int8)
    elif "part" in read:
        parts = _parts_by_column(table, read.pop("part"), order, first)
    return _Pairs(pairs, weights.astype(np.float32), times, parts)


def _parts_by_column(
    table: Table, column: Ids, order: npt.NDArray[np.integer], first: npt.NDArray[np.integer]
) -> npt.NDArray[np.int8]:
    """Return the part of each pair, whose rows stand side by side in an order, from their first on."""
    number = [_PARTS.get(word.strip().casefold(), -1) for word in column.written]
    part = np.array([*number, -1], dtype=np.int8)[column.code]  # What is missing has the code -1.
    if (part < 0).any():
        row = int((part < 0).argmax())
        word = "nothing" if column.code[row] < 0 else repr(column.values[column.code[row]])
        table.fail(row, f"the part is {word}, but one of {', '.join(_PARTS)} is needed")
    part = part[order]
    parts = part[first]
    strays = part != np.repeat(parts, np.diff(first, append=len(order)))
    if strays.any():
        table.fail(int(order[strays.argmax()]), "its user and item are in another part in an earlier row")
    return parts


def _split_column(split: Any, time: Any) -> str | None:
    """Return the column that a split goes by, if it goes by one."""
    if isinstance(split, str) and split.startswith(_COLUMN):
        return split.removeprefix(_COLUMN)
    check_choice("split", split, TableKG.splits[:-1])
    if split in ("time", "last") and time is None:
        raise ValueError(f"split={split!r} goes by time: name the column of the times as time=")
    return None
