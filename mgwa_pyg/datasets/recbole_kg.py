"""Data sets in RecBole's atomic files."""

import math
import os
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from torch_geometric.data import HeteroData

from mgwa_pyg.datasets.base import KGRecDataset, KGRecTables
from mgwa_pyg.datasets.raw import RawTable, raise_at
from mgwa_pyg.datasets.splits import TEST, TRAIN, VAL
from mgwa_pyg.datasets.tables import distinct_pairs, index_pairs, number_triples

_REMEDY = "Correct the file, or convert it again: see RecBole's description of atomic files."
_PARTS = {"train": TRAIN, "valid": VAL, "test": TEST}


class RecBoleKG(KGRecDataset):
    r"""Any data set with a knowledge graph in the
    `atomic files <https://recbole.io/docs/user_guide/data/atomic_files.html>`_ of RecBole.

    In :obj:`root/name/` it reads

    * :obj:`name.inter` with the fields :obj:`user_id` and :obj:`item_id`, and :obj:`rating` where
      :obj:`min_rating` is given; or :obj:`name.train.inter`, :obj:`name.valid.inter` and
      :obj:`name.test.inter` with :obj:`split="files"`;
    * :obj:`name.kg` with the fields :obj:`head_id`, :obj:`relation_id` and :obj:`tail_id`;
    * :obj:`name.link` with the fields :obj:`item_id` and :obj:`entity_id`;
    * :obj:`name.item`, if there is one, for the titles of items.

    Each file starts with a line of fields such as :obj:`user_id:token`; the order of the fields is
    free, and fields that are not needed are ignored. Fields are separated by tabs. The folder is
    that of a RecBole user, so the variable :obj:`MGWA_PYG_RAW` does not apply, and the processed
    file goes to :obj:`root/name/processed/`, or to :obj:`processed`. It is made anew when a file changes.

    Ids are the tokens, as strings, and so are the names of entities and relations. The name of an item is
    its title where :obj:`name.item` is there and has one: the first field whose name contains "title",
    or else "name", such as :obj:`movie_title:token_seq`.

    Users and items are those with an interaction, in the order of their first one; an interaction that is
    repeated counts once. An item takes the place of the entity that it is linked to. Items without a link
    are entities without triples, even where an entity has the same token.

    .. note::
        As in RecBole, an entity that several items are linked to belongs to the last of them in
        :obj:`name.link`, and the others stay without its triples; a warning says how many. Links of
        items without an interaction do not count. An item that is linked to several entities takes
        the place of all of them.

    Args:
        root (str): The folder that holds RecBole's data sets.
        name (str): The name of the data set: of its folder, and of the files therein.
        negatives (str): What each user's negatives are: drawn uniformly from all items
            (:obj:`"items"`), or drawn uniformly from all entities (:obj:`"entities"`).
            (default: :obj:`"items"`)
        seed (int): The seed of the negatives and of the random split. (default: :obj:`0`)
        split (str): :obj:`"random"` splits all labelled pairs 6:2:2; :obj:`"files"` reads the parts
            from RecBole's benchmark files, and gives each user's :math:`k`-th negative the part of
            the :math:`k`-th positive. (default: :obj:`"random"`)
        min_rating (float, optional): The least :obj:`rating` that makes an interaction; :obj:`None`
            takes all rows. (default: :obj:`None`)
        transform (callable, optional): Applied to the data at every access.
            (default: :obj:`None`)
        pre_transform (callable, optional): Applied to the data once, before it is saved.
            (default: :obj:`None`)
        force_reload (bool): Whether to build the data set even if it has been built before.
            (default: :obj:`False`)
        processed (str, optional): The folder of the processed file, where it is not to lie beside the
            atomic files. (default: :obj:`None`)

    Raises:
        ValueError: If an argument is none of the allowed values.
        FileNotFoundError: If an atomic file is missing.
        RawDataError: If an atomic file does not hold what it should, or no interaction is left.
    """

    splits = ("random", "files")

    def __init__(
        self,
        root: str | os.PathLike[str],
        name: str,
        negatives: str = "items",
        seed: int = 0,
        split: str = "random",
        min_rating: float | None = None,
        transform: Callable[[HeteroData], HeteroData] | None = None,
        pre_transform: Callable[[HeteroData], HeteroData] | None = None,
        force_reload: bool = False,
        processed: str | os.PathLike[str] | None = None,
    ) -> None:
        if not isinstance(name, str) or name in ("", "..") or Path(name).name != name:
            raise ValueError(f"name={name!r}: the name of a folder in root is needed")
        self.name = name
        self.min_rating = _check_rating(min_rating)
        folder = Path(root, name)
        super().__init__(folder, negatives, seed, split, transform, pre_transform, force_reload, processed)

    @property
    def raw_dir(self) -> str:
        return str(self.root)

    @property
    def raw_file_names(self) -> list[str]:
        return [*self._inter_files, f"{self.name}.kg", f"{self.name}.link"]

    def _files(self) -> dict[str, Path]:
        titles = Path(self.raw_dir, f"{self.name}.item")
        return {**super()._files(), **({titles.name: titles} if titles.is_file() else {})}

    @property
    def _inter_files(self) -> list[str]:
        parts = [""] if self.split == "random" else [f".{part}" for part in _PARTS]
        return [f"{self.name}{part}.inter" for part in parts]

    def _arguments(self) -> dict[str, Any]:
        folder = str(Path(self.root).parent)
        return {**super()._arguments(), "root": folder, "name": self.name, "min_rating": self.min_rating}

    def build(self) -> KGRecTables:
        raw_users, raw_items, parts = self._interactions()
        user, users = pd.factorize(raw_users)
        item, items = pd.factorize(raw_items)
        positives = distinct_pairs(user, item, len(items))
        positive_parts = None
        if self.split == "files":
            row = index_pairs(positives, len(items)).get_indexer(user * len(items) + item)
            positive_parts = np.empty(len(positives), dtype=np.int8)
            positive_parts[row] = parts

        kg = self._read(f"{self.name}.kg", {"head_id": str, "relation_id": str, "tail_id": str})
        # An item stands as its index, which no token equals.
        item_of = self._links(pd.Index(items))
        head, tail = ([item_of.get(token, token) for token in kg[name]] for name in ("head_id", "tail_id"))
        triples, others, relation_names = number_triples(
            np.array(head, dtype=object),
            np.array(kg["relation_id"], dtype=object),
            np.array(tail, dtype=object),
            np.arange(len(items)).astype(object),
        )
        item_names = self._titles(items.tolist())
        return KGRecTables(
            positives=positives,
            triples=triples,
            num_users=len(users),
            num_entities=len(items) + len(others),
            item_names=item_names,
            relation_names=relation_names,
            positive_parts=positive_parts,
            user_ids=users.tolist(),
            item_ids=items.tolist(),
            entity_names=[*item_names, *others],
        )

    def _provide_raw_files(self) -> None:
        missing = [name for name in self.raw_file_names if not Path(self.raw_dir, name).is_file()]
        if missing:
            raise FileNotFoundError(
                f"'{self.raw_dir}' has no file {', '.join(missing)}. 'root' must be the folder that "
                f"holds RecBole's data sets, and the files {', '.join(self.raw_file_names)} must lie "
                f"in its folder '{self.name}'."
            )

    def _read(self, name: str, fields: dict[str, type]) -> RawTable:
        """Reads the fields needed, in whatever order the file has them."""
        path = Path(self.raw_dir, name)
        header, found = _header(path)
        for field in fields:
            if found.count(field) != 1:
                problem = f"the header {header!r} has {found.count(field)} fields '{field}' instead of one"
                raise_at(path, 1, problem, _REMEDY)
        # Fields that are ignored may bear any name, even the same one twice.
        columns: dict[str, type | None] = {
            field if field in fields else f"field {i}": fields.get(field)
            for i, field in enumerate(found, start=1)
        }
        return RawTable.read(path, columns, header, remedy=_REMEDY)

    def _interactions(
        self,
    ) -> tuple[npt.NDArray[Any], npt.NDArray[Any], npt.NDArray[np.int8]]:
        """The users, the items and the parts of the interactions, in the order of the files."""
        fields: dict[str, type] = {"user_id": str, "item_id": str}
        if self.min_rating is not None:
            fields["rating"] = float
        tables = [self._read(name, fields) for name in self._inter_files]
        rows = [
            np.arange(len(table["user_id"]))
            if self.min_rating is None
            else np.flatnonzero(table["rating"] >= self.min_rating)
            for table in tables
        ]
        users, items = (
            np.concatenate(
                [np.array(table[name], dtype=object)[row] for table, row in zip(tables, rows, strict=True)]
            )
            for name in ("user_id", "item_id")
        )
        if len(users) == 0:
            least = "" if self.min_rating is None else f" with a rating of at least {self.min_rating:g}"
            raise_at(tables[0].path, None, f"no interaction is left{least}", _REMEDY)
        parts = np.repeat(np.arange(len(tables), dtype=np.int8), [len(row) for row in rows])
        if len(tables) > 1:
            pairs = pd.MultiIndex.from_arrays([users, items])
            _, first, inverse = np.unique(pairs.factorize()[0], return_index=True, return_inverse=True)
            strayed = np.flatnonzero(parts != parts[first][inverse])
            if len(strayed) > 0:
                part, place = parts[strayed[0]], strayed[0] - int((parts < parts[strayed[0]]).sum())
                pair = f"user {users[strayed[0]]} and item {items[strayed[0]]}"
                tables[part].fail(rows[part][place], f"{pair} have a line in another part of the split")
        return users, items, parts

    def _links(self, items: pd.Index) -> dict[str, int]:
        """The item of each linked entity."""
        table = self._read(f"{self.name}.link", {"item_id": str, "entity_id": str})
        item_of: dict[str, int] = {}
        robbed = set()
        links = zip(items.get_indexer(table["item_id"]).tolist(), table["entity_id"], strict=True)
        for item, entity in links:
            if item >= 0:
                robbed.add(item_of.get(entity, item))
                item_of[entity] = item
        robbed -= set(item_of.values())
        if robbed:
            warnings.warn(
                f"'{table.path}' links {len(robbed)} items to an entity that a later line links to "
                f"another item (the first is item {items[min(robbed)]}): they stay without triples.",
                stacklevel=2,
            )
        return item_of

    def _titles(self, items: list[str]) -> list[str]:
        """The items' names: their titles where a file gives them, else their tokens."""
        path = Path(self.raw_dir, f"{self.name}.item")
        fields = _header(path)[1] if path.is_file() else []
        title = next((field for word in ("title", "name") for field in fields if word in field.lower()), None)
        if title is None:
            return items
        table = self._read(path.name, {"item_id": str, title: object})
        table.fail_if_repeated(np.array(table["item_id"], dtype=object), "item {item_id} has an earlier line")
        title_of = dict(zip(table["item_id"], table[title], strict=True))
        return [title_of.get(item, "").strip() or item for item in items]


def _header(path: Path) -> tuple[str, list[str]]:
    """The first line of a file and the names of its fields."""
    with path.open("rb") as file:
        header = file.readline().rstrip(b"\r\n").decode(errors="replace")
    return header, [field.partition(":")[0] for field in header.split("\t")]


def _check_rating(value: Any) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise ValueError(f"min_rating={value!r}: a finite number or None is needed")
    return float(value)
