"""`KGRecDataset`, what all data sets share: raw files or a generator in, one cached HeteroData out."""

import errno
import hashlib
import io
import json
import os
import pickle
import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import torch
from torch_geometric.data import Data, HeteroData, InMemoryDataset
from torch_geometric.data.data import BaseData

from mgwa_pyg.datasets.download import RAW_VARIABLE, RawFile, download_files
from mgwa_pyg.datasets.interactions import LISTENS, Interaction
from mgwa_pyg.datasets.kg_rec_tables import KGRecTables
from mgwa_pyg.datasets.names import NumberedNames
from mgwa_pyg.datasets.origin import class_digest, digest_and_strangers, digest_of, file_record, is_unchanged
from mgwa_pyg.datasets.splits import (
    TEST,
    TRAIN,
    VAL,
    have_negatives,
    parts_by_user,
    random_parts,
    sample_negatives,
)
from mgwa_pyg.utils.checks import check_choice, check_count
from mgwa_pyg.utils.files import load_mapped, save_tensors

FORMAT = "v4"  # Of the processed file: a new one leaves old files alone.
# As many as there are of these in the statistics.
_NAMES = {
    "user_ids": "users",
    "item_ids": "items",
    "item_names": "items",
    "entity_names": "entities",
    "relation_names": "relations",
    "entity_ids": "entities",
}
_CONTENT: dict[str, type] = {
    "kind": str,
    "data": dict,
    "statistics": dict,
    **dict.fromkeys(_NAMES, Sequence),
    "pre_transform": tuple,
    "origin": dict,
}
_KINDS = {"HeteroData": HeteroData, "Data": Data}  # What may be kept.


class KGRecDataset(InMemoryDataset):
    r"""Base class of data sets for recommendation over knowledge graphs.

    A data set implements :meth:`build`, which returns its :class:`~mgwa_pyg.datasets.KGRecTables`. One that
    reads raw files declares them in :obj:`raw_files`. They are looked for in :obj:`$MGWA_PYG_RAW/raw_folder`
    if that variable is set, and else in :obj:`root/raw`, to which missing ones are downloaded.

    The data set holds one :class:`~torch_geometric.data.HeteroData`:

    * :obj:`data["user"].num_nodes` and :obj:`data["entity"].num_nodes`; the first :obj:`num_items` entities
      are the items.
    * :obj:`data["entity", "kg", "entity"]` with :obj:`edge_index` :obj:`[2, 2 * num_triples]` and
      :obj:`rel_type` :obj:`[2 * num_triples]`: all triples, then their inverses in the same order. The
      inverse of relation :math:`r` is :math:`r + R`, with :math:`R` the number of relations.
    * :obj:`data["user", "listens", "entity"]`, the interactions, with the word that :obj:`interaction` gives
      in the middle. Its :obj:`edge_index` holds the training positives, :obj:`edge_label_index`
      :obj:`[2, num_labels]` all labelled pairs, positives first, and :obj:`edge_label` 1.0 or 0.0 for each.
      :obj:`train_mask`, :obj:`val_mask` and :obj:`test_mask` select among the labelled pairs. Where the
      files have them, :obj:`edge_weight` and :obj:`edge_time` :obj:`[num_edges]` say how much each training
      positive weighs and when it was; nothing is known of those of validation and test.

    Each user has as many negatives as positives, or as many as there are where that is less. None of them is
    a positive in any split.

    With :obj:`split="per_user"`, validation and test each have :math:`n / 10` of a user's :math:`n`
    positives, rounded up or down at random so that all users together are 8:1:1, and each user has one in
    training at least. A user's :math:`k`-th negative has the part of the :math:`k`-th positive.

    Args:
        root (str, optional): The folder of the data set; :obj:`None` keeps it in memory only.
        negatives (str): What each user's negatives are drawn from, uniformly: all items (:obj:`"items"`), all
            entities (:obj:`"entities"`), or what else :obj:`negative_pools` has. (default: :obj:`"items"`)
        seed (int): The seed of the negatives and of the split. (default: :obj:`0`)
        split (str): :obj:`"random"`, which splits all labelled pairs 6:2:2; :obj:`"per_user"`, which splits
            each user's positives 8:1:1, for rankings; or what else :obj:`splits` has. (default:
            :obj:`"random"`)
        transform (callable, optional): Applied to the data at every access. (default: :obj:`None`)
        pre_transform (callable, optional): Applied once, before the data are saved. (default: :obj:`None`)
        force_reload (bool): Whether to build the data even if they were built before. (default: :obj:`False`)
        processed (str, optional): The folder of the processed file; :obj:`None` takes :obj:`root/processed`.
            (default: :obj:`None`)

    The data set is built anew when something differs from what its processed file was made from: its raw
    files, its class, its code, code of the same program that this calls, or an attribute that it set before
    it called this constructor. An attribute that cannot be told from others of its kind, such as an open
    file, has it built each time. The processed file holds tensors and plain values; nothing in it is run.

    Raises:
        TypeError: If there is no :obj:`root`, but the data set has raw files, or if :obj:`pre_transform`
            leaves what cannot be kept in the processed file.
        ValueError: If :obj:`negatives`, :obj:`split` or :obj:`seed` is none of the allowed values.
        FileNotFoundError: If :obj:`MGWA_PYG_RAW` is set and lacks a raw file, or one is missing that cannot
            be downloaded.
        DownloadError: If a raw file cannot be downloaded.
        RawDataError: If a raw file does not hold what it should.
        OSError: If the processed file cannot be written.
    """

    raw_files: ClassVar[Mapping[str, RawFile]] = {}
    raw_folder: ClassVar[str] = ""
    negative_pools: ClassVar[tuple[str, ...]] = ("items", "entities")
    splits: ClassVar[tuple[str, ...]] = ("random", "per_user")
    interaction: Interaction = LISTENS
    """What users do with items. It names the edges and gives explanations their words."""
    _variant = ""  # Tells data sets of one class apart.

    def __init__(
        self,
        root: str | os.PathLike[str] | None,
        negatives: str = "items",
        seed: int = 0,
        split: str = "random",
        transform: Callable[[HeteroData], HeteroData] | None = None,
        pre_transform: Callable[[HeteroData], HeteroData] | None = None,
        force_reload: bool = False,
        processed: str | os.PathLike[str] | None = None,
    ) -> None:
        own = dict(vars(self))  # What a class has set before, it is built from.
        digest, strangers = digest_and_strangers(own)
        self._variant = f"-{digest[:12]}" if own else ""
        self._is_told_apart = not strangers
        if root is None and self.raw_files:
            raise TypeError(f"{type(self).__name__} needs a folder for its files, but root is None")
        if not isinstance(self.interaction, Interaction):
            raise TypeError(f"interaction={self.interaction!r:.60}: an Interaction is needed")
        if not all(isinstance(word, str) and word for word in self.interaction):
            raise TypeError(f"interaction={self.interaction!r:.90}: three words are needed")
        check_choice("negatives", negatives, self.negative_pools)
        check_choice("split", split, self.splits)
        self.negatives = negatives
        self.split = split
        self.seed = check_count("seed", seed, minimum=0)
        root = self._root = None if root is None else _absolute(root)
        self._processed = None if processed is None else _absolute(processed)
        super().__init__(root, transform, pre_transform, log=False, force_reload=force_reload)

        # PyG's own download and process steps are not used: they write in place, and into the raw
        # folder even where it is somebody else's.
        in_memory = root is None and processed is None
        self._take(self._content(None if in_memory else Path(self.processed_paths[0])))

    def _take(self, content: Mapping[str, Any]) -> None:
        self.data = content["data"]
        self._statistics: dict[str, int] = content["statistics"]
        self._names: dict[str, Any] = {name: content[name] for name in _NAMES}

    def build(self) -> KGRecTables:
        r"""Read or generate the tables of the data set."""
        raise NotImplementedError

    @property
    def raw_dir(self) -> str:
        shared = os.environ.get(RAW_VARIABLE)
        if shared and self.raw_files:
            return str(Path(shared).expanduser() / self.raw_folder)
        return str(super().raw_dir)

    @property
    def raw_file_names(self) -> list[str]:
        return list(self.raw_files)

    @property
    def processed_dir(self) -> str:
        return str(super().processed_dir) if self._processed is None else self._processed

    @property
    def processed_file_names(self) -> str:
        name = re.sub(r"\W", "_", type(self).__name__)
        return f"{FORMAT}-{name}-{self.negatives}-{self.split}-seed{self.seed}{self._variant}.pt"

    @property
    def num_users(self) -> int:
        r"""The number of users."""
        return self._statistics["users"]

    @property
    def num_items(self) -> int:
        r"""The number of items, which are the first entities."""
        return self._statistics["items"]

    @property
    def num_interactions(self) -> int:
        r"""The number of positives in all splits."""
        return self._statistics["interactions"]

    @property
    def num_entities(self) -> int:
        r"""The number of entities, items included."""
        return self._statistics["entities"]

    @property
    def num_relations(self) -> int:
        r"""The number of relations :math:`R`, inverses not counted."""
        return self._statistics["relations"]

    @property
    def num_triples(self) -> int:
        r"""The number of triples, inverses not counted."""
        return self._statistics["triples"]

    @property
    def user_ids(self) -> Sequence[int | str]:
        r"""The users' ids in the files, in the order of their indices; row numbers where there are none."""
        return self._names["user_ids"]

    @property
    def item_ids(self) -> Sequence[int | str]:
        r"""The items' ids in the files, in the order of their indices; row numbers where there are none."""
        return self._names["item_ids"]

    @property
    def item_names(self) -> Sequence[str]:
        r"""The items' names."""
        return self._names["item_names"]

    @property
    def entity_names(self) -> Sequence[str]:
        r"""The names of all entities, the items first."""
        return self._names["entity_names"]

    @property
    def relation_names(self) -> Sequence[str]:
        r"""The relations' names, inverses not counted."""
        return self._names["relation_names"]

    @property
    def entity_ids(self) -> Sequence[int | str]:
        r"""What triples in the files call all entities, the items first. Where equal ids are several
        entities', triples mean the last of them. Where the files have none, they are the items' ids and the
        others' names, or row numbers.
        """
        return self._names["entity_ids"]

    @property
    def spec(self) -> dict[str, Any]:
        r"""What :func:`~mgwa_pyg.datasets.from_spec` makes the data set from again, as plain values: its
        :obj:`"class"` and the constructor's :obj:`"arguments"`, without transforms.
        """
        return {"class": type(self).__name__, "arguments": self._arguments()}

    @cached_property
    def fingerprint(self) -> str:
        r"""The SHA-256 of all that is learned from and predicted, that is sizes, training positives, labelled
        pairs with their labels and parts, weights and times, triples, the items' names, and ids and names of
        entities that are more than numbers. It is taken once, with the transform.
        """
        digest = hashlib.sha256(json.dumps(self._statistics).encode())
        data = self[0]
        kg, links = data["entity", "kg", "entity"], data["user", self.interaction.edge, "entity"]
        tensors = [kg.edge_index, kg.rel_type, links.edge_index, links.edge_label_index, links.edge_label]
        tensors += [links.train_mask, links.val_mask, links.test_mask]
        tensors += [links[key] for key in ("edge_weight", "edge_time") if key in links]
        for tensor in tensors:
            array = tensor.cpu().contiguous().numpy()
            digest.update(f"{array.dtype.name}{array.shape}".encode())
            digest.update(array.astype(array.dtype.newbyteorder("<"), copy=False))
        for name in self.item_names:
            digest.update(json.dumps(name).encode())
        for kind in ("user_ids", "item_ids", "entity_names"):
            if not isinstance(self._names[kind], (range, NumberedNames)):
                digest.update(json.dumps([kind, self._names[kind]]).encode())
        return digest.hexdigest()

    def keep(self, folder: Path) -> None:
        r"""Keep in a run folder what :func:`~mgwa_pyg.datasets.from_spec` needs beside :obj:`spec`: nothing
        where files or a seed make the data set again.
        """

    def _arguments(self) -> dict[str, Any]:
        """Return the constructor's arguments, as plain values."""
        arguments = {"root": self._root, "negatives": self.negatives, "seed": self.seed, "split": self.split}
        return arguments if self._processed is None else {**arguments, "processed": self._processed}

    def __repr__(self) -> str:
        counts = ", ".join(f"{name}={count}" for name, count in self._statistics.items())
        return f"{type(self).__name__}({counts})"

    def _content(self, path: Path | None) -> dict[str, Any]:
        """Load the processed file, or build what it holds and save it."""
        # Addresses differ from run to run.
        pre_transform = re.sub(" at 0x[0-9a-f]+", "", repr(self.pre_transform)), digest_of(self.pre_transform)
        if path is not None and path.exists() and not self.force_reload:
            content = load_content(path)
            if self._is_made_from(content["origin"]):
                if content["pre_transform"] != pre_transform:
                    before = content["pre_transform"][0]
                    warnings.warn(
                        f"'{path}' was made with the pre_transform {before}, not with {pre_transform[0]}"
                        f"{' as it is now' if before == pre_transform[0] else ''}. Pass "
                        f"`force_reload=True` to make it anew.",
                        stacklevel=4,
                    )
                return content

        self._provide_raw_files()
        # Before they are read: what is written meanwhile is noticed the next time.
        origin = {**self._code(), "files": {name: file_record(file) for name, file in self._files().items()}}
        tables = self.build()
        if not isinstance(tables, KGRecTables):
            raise TypeError(f"build() returned {tables!r:.60}, but KGRecTables are needed")
        content = {**self._made(tables.checked()), "pre_transform": pre_transform, "origin": origin}
        if path is not None:
            save_content(path, content)
        return content

    def _made(self, tables: KGRecTables) -> dict[str, Any]:
        """Return what a data set holds of tables that were checked."""
        data = self._to_data(tables)
        if self.pre_transform is not None:
            data = self.pre_transform(data)
        return {
            "kind": type(data).__name__,
            "data": data,
            "statistics": tables.statistics,
            **{name: getattr(tables, name) for name in _NAMES},
        }

    def _files(self) -> dict[str, Path]:
        """Return the raw files that are there, by name."""
        files = {name: Path(self.raw_dir, name) for name in self.raw_file_names}
        return {name: path for name, path in files.items() if path.is_file()}

    def _code(self) -> dict[str, str]:
        kind = type(self)
        return {
            "class": f"{kind.__module__}.{kind.__qualname__}{self._variant}",
            "code": class_digest(kind, KGRecDataset),
        }

    def _is_made_from(self, origin: Mapping[str, Any]) -> bool:
        """Return whether a file was made from this class and from the raw files that are still there."""
        if not self._is_told_apart or any(origin[key] != value for key, value in self._code().items()):
            return False
        records = origin["files"]
        return all(
            name in records and is_unchanged(file, records[name]) for name, file in self._files().items()
        )

    def _provide_raw_files(self) -> None:
        folder = Path(self.raw_dir)
        missing = [name for name in self.raw_file_names if not (folder / name).is_file()]
        if missing and os.environ.get(RAW_VARIABLE):
            raise FileNotFoundError(
                f"'{folder}' has no file {', '.join(missing)}. {RAW_VARIABLE} makes this folder "
                f"the only source of the raw data: place the file there, or unset {RAW_VARIABLE} "
                f"to have it downloaded."
            )
        download_files({name: self.raw_files[name] for name in missing}, folder)

    def _to_data(self, tables: KGRecTables) -> HeteroData:
        num_positives, num_triples = len(tables.positives), len(tables.triples)
        pool = len(tables.item_names) if self.negatives == "items" else tables.num_entities
        beside = np.ones(num_positives, dtype=bool)  # The positives that a negative goes with.
        if tables.negatives is None:
            beside = have_negatives(tables.positives[:, 0], tables.num_users, pool)
            self._warn_of_few_negatives(tables, beside, f"{pool} {self.negatives}")
        # Large arrays are written once, where they stay.
        pairs = np.empty((2, num_positives + beside.sum()), dtype=np.int64)
        positives, negatives = pairs[:, :num_positives].T, pairs[:, num_positives:].T
        positives[:] = tables.positives
        if tables.negatives is None:
            generator = np.random.default_rng([self.seed, 0])
            negatives[:] = sample_negatives(positives, tables.num_users, pool, generator)
        else:
            negatives[:] = tables.negatives
        # The split has a generator of its own, sees the positives first, and a negative for each: with one
        # seed, every pool of negatives leaves them in the same parts.
        generator = np.random.default_rng([self.seed, 1])
        if tables.positive_parts is not None:
            parts = np.tile(tables.positive_parts, 2)
        elif self.split == "per_user":
            parts = np.tile(parts_by_user(tables.positives[:, 0], generator), 2)
        else:
            parts = random_parts(2 * num_positives, generator)
        if not beside.all():
            parts = np.concatenate([parts[:num_positives], parts[num_positives:][beside]])
        in_train = parts[:num_positives] == TRAIN

        head, relation, tail = tables.triples.T
        edge_index = np.empty((2, 2 * num_triples), dtype=np.int64)
        edge_index[0, :num_triples] = edge_index[1, num_triples:] = head
        edge_index[1, :num_triples] = edge_index[0, num_triples:] = tail
        rel_type = np.empty(2 * num_triples, dtype=np.int64)
        rel_type[:num_triples] = relation
        np.add(rel_type[:num_triples], len(tables.relation_names), out=rel_type[num_triples:])

        data = HeteroData()
        data["user"].num_nodes = tables.num_users
        data["entity"].num_nodes = tables.num_entities

        kg = data["entity", "kg", "entity"]
        kg.edge_index = torch.from_numpy(edge_index)
        kg.rel_type = torch.from_numpy(rel_type)

        links = data["user", self.interaction.edge, "entity"]
        links.edge_index = torch.from_numpy(np.compress(in_train, pairs[:, :num_positives], axis=1))
        if tables.weights is not None:
            links.edge_weight = torch.from_numpy(tables.weights[in_train].astype(np.float32))
        if tables.times is not None:
            links.edge_time = torch.from_numpy(tables.times[in_train])
        links.edge_label_index = torch.from_numpy(pairs)
        links.edge_label = torch.zeros(pairs.shape[1], dtype=torch.float, device="cpu")
        links.edge_label[:num_positives] = 1.0
        links.train_mask = torch.from_numpy(parts == TRAIN)
        links.val_mask = torch.from_numpy(parts == VAL)
        links.test_mask = torch.from_numpy(parts == TEST)
        return data

    def _warn_of_few_negatives(
        self, tables: KGRecTables, beside: npt.NDArray[np.bool_], candidates: str
    ) -> None:
        lacking = np.bincount(tables.positives[~beside, 0], minlength=tables.num_users)
        if not lacking.any():
            return
        user = int(lacking.argmax())
        count = np.bincount(tables.positives[:, 0])[user]
        ids = tables.user_ids or range(tables.num_users)
        others = int((lacking > 0).sum()) - 1
        more = f", and so do {others} other users" if others else ""
        warnings.warn(
            f"User {ids[user]!r} has {count} of the {candidates} that negatives are drawn from: they get "
            f"the {count - lacking[user]} that are left, instead of a negative for each positive{more}.",
            stacklevel=6,
        )


def _absolute(path: str | os.PathLike[str]) -> str:
    if not isinstance(path, (str, os.PathLike)):
        raise TypeError(f"{path!r:.60} is no folder: a path is needed")
    return str(Path(path).expanduser().absolute())


def load_content(
    path: Path,
    problem: str = "is damaged",
    remedy: str = "Delete it, or pass `force_reload=True` to make it anew.",
) -> dict[str, Any]:
    r"""Return what :func:`save_content` wrote. Nothing in it is run.

    Args:
        path (Path): The file.
        problem (str): What a message says of a file that cannot be read.
        remedy (str): What it advises.

    Raises:
        OSError: If the file cannot be read.
        RuntimeError: If it is damaged, or holds more than tensors and plain values.
    """
    try:
        found = load_mapped(path)
        content = {key: found[key] for key in _CONTENT}
        wrong = [key for key, kind in _CONTENT.items() if not isinstance(content[key], kind)]
        wrong += [key for key, of in _NAMES.items() if len(content[key]) != content["statistics"][of]]
        if wrong or not content["origin"].keys() >= {"class", "code", "files"}:
            raise ValueError(f"its {', '.join(wrong) or 'origin'} is not as it was written")
        content["data"] = _KINDS[content["kind"]].from_dict(content["data"])
        return content
    except OSError:
        raise
    except pickle.UnpicklingError:
        problem = "holds more than tensors and plain values, and is not opened, as it could run code"
    except Exception as error:
        problem = f"{problem} ({error})"
    raise RuntimeError(f"'{path}' {problem}. {remedy}")


def save_content(path: Path, content: dict[str, Any]) -> None:
    r"""Write what a data set holds, whole or not at all.

    Raises:
        TypeError: If it holds more than tensors and plain values.
        OSError: If the file cannot be written.
    """
    data = content["data"]
    if _KINDS.get(content["kind"]) is not type(data):
        raise TypeError(
            f"pre_transform returned {data!r:.60}, but only {' and '.join(_KINDS)} can be kept in the "
            f"processed file: use `transform`, or no root"
        )
    try:
        save_tensors(path, {**content, "data": data.to_dict()}, try_to_load=True)
    except OSError as error:
        if error.errno not in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise
        remedy = (
            "where the data may only be read, pass a folder of yours as `processed=`, where the class takes "
            "it, or another root"
        )
        raise OSError(error.errno, f"{error.strerror}: {remedy}", str(path)) from error
    except (pickle.PickleError, AttributeError, TypeError) as error:
        raise TypeError(
            f"pre_transform left {_strangers(data)} in the data, but only tensors and plain values can be "
            f"kept in the processed file: make it one of them, use `transform`, or no root"
        ) from error


def _strangers(data: BaseData) -> str:
    """Return what in the data no processed file may hold, by name and class."""
    found = []
    for store in data.stores:
        for key, value in store.items():
            try:
                file = io.BytesIO()
                torch.save(value, file)
                file.seek(0)
                torch.load(file, weights_only=True)
            except Exception:
                found.append(f"'{key}' of the class {type(value).__name__}")
    return ", ".join(found) or "something"
