"""Data sets in RecBole's atomic files."""

import math
import os
import warnings
from collections.abc import Callable, Collection, Iterator, Mapping
from itertools import chain, compress
from numbers import Real
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from torch_geometric.data import HeteroData

from mgwa_pyg.datasets.base import KGRecDataset, KGRecTables
from mgwa_pyg.datasets.interactions import INTERACTIONS
from mgwa_pyg.datasets.raw import RawTable, decode, raise_at
from mgwa_pyg.datasets.splits import TEST, TRAIN, VAL
from mgwa_pyg.datasets.tables import Numbering, warn_of_twins
from mgwa_pyg.utils.checks import check_choice

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
    its title where :obj:`name.item` is there and has one: in the text field :obj:`title`, or else the first
    whose name ends with "title" or contains it, or else "name", such as :obj:`movie_title:token_seq`.

    Users and items are those with an interaction, in the order of their first one; an interaction that is
    repeated counts once. An item takes the place of the entity that it is linked to. Items without a link
    are entities without triples, even where an entity has the same token.

    .. note::
        As in RecBole, an entity that several items are linked to belongs to the last of them in
        :obj:`name.link`, and the others stay without its triples; a warning says how many. Links of
        items without an interaction, and to entities without triples, do not count; a warning says how many,
        and if none counts, that is an error. An item that is linked to several entities takes
        the place of all of them.

    Args:
        root (str): The folder that holds RecBole's data sets.
        name (str): The name of the data set: of its folder, and of the files therein.
        split (str): Also :obj:`"files"`, which reads the parts from RecBole's benchmark files, and gives each
            user's :math:`k`-th negative the part of the :math:`k`-th positive. (default: :obj:`"random"`)
        min_rating (float, optional): The least :obj:`rating` that makes an interaction; :obj:`None`
            takes all rows. (default: :obj:`None`)
        processed (str, optional): The folder of the processed file, where it is not to lie beside the
            atomic files. (default: :obj:`None`)
        interaction (str): What users do with items, which names the edges: :obj:`"listens"`,
            :obj:`"reads"`, :obj:`"watches"` or :obj:`"interacts"`. (default: :obj:`"listens"`)

    Other arguments are those of :class:`KGRecDataset`.

    Raises:
        ValueError: If an argument is none of the allowed values.
        FileNotFoundError: If an atomic file is missing.
        RawDataError: If an atomic file does not hold what it should, no interaction is left, or no
            link counts.
    """

    splits = (*KGRecDataset.splits, "files")

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
        interaction: str = "listens",
    ) -> None:
        if not isinstance(name, str) or name in ("", "..") or Path(name).name != name:
            raise ValueError(f"name={name!r}: the name of a folder in root is needed")
        self.name = name
        self.min_rating = _check_rating(min_rating)
        self.interaction = INTERACTIONS[check_choice("interaction", interaction, INTERACTIONS)]
        if not isinstance(root, (str, os.PathLike)):
            raise TypeError(f"root={root!r:.60}: the folder that holds RecBole's data sets is needed")
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
        parts = [f".{part}" for part in _PARTS] if self.split == "files" else [""]
        return [f"{self.name}{part}.inter" for part in parts]

    def _arguments(self) -> dict[str, Any]:
        folder = str(Path(self.root).parent)
        own = {"name": self.name, "min_rating": self.min_rating, "interaction": self.interaction.edge}
        return {**super()._arguments(), "root": folder, **own}

    def build(self) -> KGRecTables:
        users, items, entities, relations = (Numbering() for _ in range(4))
        named: set[str] = set()  # The items of all rows.
        positives, positive_parts = self._interactions(users, items, named)
        triples = np.concatenate(
            [
                np.stack([head_and_tail[::2], relation, head_and_tail[1::2]], axis=1)
                for table in self._parts(
                    f"{self.name}.kg", {"head_id": str, "relation_id": str, "tail_id": str}
                )
                for relation in [relations(table["relation_id"])]
                for head_and_tail in [entities(chain(*zip(table["head_id"], table["tail_id"], strict=True)))]
            ]
        )
        for kind, numbering in (("users", users), ("items", items), ("entities", entities)):
            warn_of_twins(kind, numbering.number, f"The files in '{self.raw_dir}'")
        # An entity is the item that is linked to it, or else follows the items.
        item_of = self._links(items.number, named, entities.number)
        number = np.array([item_of.get(token, -1) for token in entities.number])
        others = [token for token in entities.number if token not in item_of]
        number[number < 0] = np.arange(len(items.number), len(items.number) + len(others))
        triples[:, ::2] = number[triples[:, ::2]]

        entity_ids = [*items.number, *others]
        for token, item in item_of.items():
            entity_ids[item] = token
        item_names = self._titles(list(items.number))
        return KGRecTables(
            positives=positives,
            triples=triples,
            num_users=len(users.number),
            num_entities=len(items.number) + len(others),
            item_names=item_names,
            relation_names=list(relations.number),
            positive_parts=positive_parts,
            user_ids=list(users.number),
            item_ids=list(items.number),
            entity_names=[*item_names, *others],
            entity_ids=entity_ids,
        )

    def _provide_raw_files(self) -> None:
        missing = [name for name in self.raw_file_names if not Path(self.raw_dir, name).is_file()]
        if missing:
            raise FileNotFoundError(
                f"'{self.raw_dir}' has no file {', '.join(missing)}. 'root' must be the folder that "
                f"holds RecBole's data sets, and the files {', '.join(self.raw_file_names)} must lie "
                f"in its folder '{self.name}'."
            )

    def _columns(self, path: Path, fields: dict[str, type]) -> tuple[str, dict[str, type | None]]:
        """Return the header and the columns of a file: the fields needed, in whatever order it has them."""
        header, found = _header(path)
        for field in fields:
            if found.count(field) != 1:
                problem = f"the header {header!r} has {found.count(field)} fields '{field}' instead of one"
                raise_at(path, 1, problem, _REMEDY)
        # Fields that are ignored may bear any name, even the same one twice.
        return header, {
            field if field in fields else f"field {i}": fields.get(field)
            for i, field in enumerate(found, start=1)
        }

    def _parts(self, name: str, fields: dict[str, type]) -> Iterator[RawTable]:
        """Yield a file some rows at a time."""
        path = Path(self.raw_dir, name)
        header, columns = self._columns(path, fields)
        title = dict(zip(columns, header.split("\t"), strict=True))
        for table in RawTable.read_parts(path, columns, remedy=_REMEDY):
            again = [
                {row for row, cell in enumerate(table[field]) if cell == title[field]} for field in fields
            ]
            if rows := set.intersection(*again):
                table.fail(min(rows), "it is the header again")
            yield table

    def _interactions(
        self, users: Numbering, items: Numbering, named: set[str]
    ) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int8] | None]:
        """Return the interactions in the order of the files, and their parts where these are given."""
        fields: dict[str, type] = {"user_id": str, "item_id": str}
        if self.min_rating is not None:
            fields["rating"] = float
        pairs, counts = [], []
        for name in self._inter_files:
            counts.append(0)
            for table in self._parts(name, fields):
                named.update(table["item_id"])
                kept = [True] * len(table["item_id"])
                if self.min_rating is not None:
                    kept = (table["rating"] >= self.min_rating).tolist()
                tokens = (compress(table[field], kept) for field in ("user_id", "item_id"))
                pairs.append(
                    np.stack(
                        [number(column) for number, column in zip((users, items), tokens, strict=True)],
                        axis=1,
                    )
                )
                counts[-1] += len(pairs[-1])
        positives = np.concatenate(pairs)
        if len(positives) == 0:
            least = "" if self.min_rating is None else f" with a rating of at least {self.min_rating:g}"
            raise_at(
                Path(self.raw_dir, self._inter_files[0]), None, f"no interaction is left{least}", _REMEDY
            )
        if self.split != "files":
            return positives, None
        parts = np.repeat(np.arange(len(counts), dtype=np.int8), counts)
        key = positives[:, 0].astype(np.int64) * len(items.number) + positives[:, 1]
        _, first, inverse = np.unique(key, return_index=True, return_inverse=True)
        strayed = parts != parts[first][inverse]
        if strayed.any():
            row = int(strayed.argmax())
            user, item = (
                list(names.number)[number]
                for names, number in zip((users, items), positives[row], strict=True)
            )
            for table in self._parts(self._inter_files[parts[row]], fields):
                lines = zip(table["user_id"], table["item_id"], strict=True)
                for place, pair in enumerate(lines):
                    if pair == (user, item) and (
                        self.min_rating is None or table["rating"][place] >= self.min_rating
                    ):
                        table.fail(
                            place, f"user {user} and item {item} have a line in another part of the split"
                        )
        return positives, parts

    def _links(
        self, number: Mapping[str, int], named: Collection[str], entities: Collection[str]
    ) -> dict[str, int]:
        """Return the item of each linked entity."""
        path = Path(self.raw_dir, f"{self.name}.link")
        header, columns = self._columns(path, {"item_id": str, "entity_id": str})
        table = RawTable.read(path, columns, header, remedy=_REMEDY)
        links = list(zip(table["item_id"], table["entity_id"], strict=True))
        lost = [
            [item for item, _ in links if item not in named],
            [end for _, end in links if end not in entities],
        ]
        if not any(item in number and entity in entities for item, entity in links):
            item, entity = links[0]
            raise_at(
                path,
                None,
                f"none of its {len(links)} links leads from an item of an interaction to an entity of "
                f"{self.name}.kg, so that nothing is known of any item: the first link has item "
                f"{item!r} and entity {entity!r}, but the first item is {next(iter(number))!r} and the first "
                f"entity {next(iter(entities))!r}",
                _REMEDY,
            )
        if any(lost):
            examples = [f" (the first is {names[0]!r})" if names else "" for names in lost]
            warnings.warn(
                f"Of the {len(links)} links in '{path}', {len(lost[0])} have an item without an interaction"
                f"{examples[0]} and {len(lost[1])} an entity without triples{examples[1]}: they do not "
                f"count. See whether the files write ids alike.",
                stacklevel=2,
            )

        item_of: dict[str, int] = {}
        robbed = set()
        for name, entity in links:
            item = number.get(name)
            if item is not None:
                robbed.add(item_of.get(entity, item))
                item_of[entity] = item
        robbed -= set(item_of.values())
        if robbed:
            warnings.warn(
                f"'{path}' links {len(robbed)} items to an entity that a later line links to another item "
                f"(the first is item {list(number)[min(robbed)]}): they stay without triples.",
                stacklevel=2,
            )
        return item_of

    def _titles(self, items: list[str]) -> list[str]:
        """Return the items' names: their titles where a file gives them, else their tokens."""
        path = Path(self.raw_dir, f"{self.name}.item")
        title = _title(_header(path)[0]) if path.is_file() else None
        if title is None:
            return items
        header, columns = self._columns(path, {"item_id": str, title: object})
        table = RawTable.read(path, columns, header, remedy=_REMEDY)
        table.fail_if_repeated(np.array(table["item_id"], dtype=object), "item {item_id} has an earlier line")
        title_of = dict(zip(table["item_id"], table[title], strict=True))
        if title_of.keys().isdisjoint(items):
            warnings.warn(
                f"'{path}' has none of the items: its first is {table['item_id'][0]!r}, but that of the "
                f"interactions {items[0]!r}. So items are called by their ids. See whether the files write "
                f"ids alike.",
                stacklevel=2,
            )
        return [title_of.get(item, "").strip() or item for item in items]


def _title(header: str) -> str | None:
    """Return the field of the items' titles: the one of that very name, or else the first of its kind."""
    texts = [field.partition(":") for field in header.split("\t")]
    names = [name for name, _, kind in texts if name != "item_id" and not kind.startswith("float")]
    for word in ("title", "name"):
        for fits in (str.__eq__, str.endswith, str.__contains__):
            if found := [name for name in names if fits(name.lower(), word)]:
                return found[0]
    return None


def _header(path: Path) -> tuple[str, list[str]]:
    """Return the first line of a file and the names of its fields."""
    with path.open("rb") as file:
        header = decode(file.readline(), path, 1, _REMEDY).rstrip("\r\n")
    return header, [field.partition(":")[0] for field in header.split("\t")]


def _check_rating(value: Any) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, Real) or not math.isfinite(value):
        raise ValueError(f"min_rating={value!r}: a finite number or None is needed")
    return float(value)
