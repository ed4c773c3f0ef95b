"""Last.FM listening data with a Microsoft Satori knowledge graph."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import pandas as pd

from mgwa_pyg.datasets.base import KGRecDataset, KGRecTables
from mgwa_pyg.datasets.download import RawFile
from mgwa_pyg.datasets.raw import IntArray, RawTable, raise_at
from mgwa_pyg.datasets.splits import TEST, TRAIN, VAL
from mgwa_pyg.datasets.tables import distinct_pairs, frozen_negatives, index_pairs, number_triples

_GITHUB = "https://raw.githubusercontent.com"
_KGCN = f"{_GITHUB}/hwwang55/KGCN/2363ca2ddc66a79860629b2e0ec6ad23c57697c8/data/music"
_MCCLK = f"{_GITHUB}/CCIIPLab/MCCLK/4b0d2843b73adbe816a7a5bb1788b4f4bcd777f4/data/music"
_LIGHTKG = f"{_GITHUB}/1371149/LightKG/4776f9aadfb3dfd3296665e4d6c9135baa02b6a2/dataset/lastfm"
_HETREC = f"{_GITHUB}/DarakhTech/lastfm-dataset/bee00fcda694e80855c878307ac0e27881d31fd5/hetrec2011-lastfm-2k"

_ITEMS = "item_index2entity_id.txt"
_NAMES = "artists.dat"
_INTERACTIONS = "user_artists.dat"
_TRIPLES = "kg.txt"
_FROZEN = "ratings_final.txt"
_TRAIN, _VAL, _TEST = (f"lightkg_split/lastfm.{part}.inter" for part in ("train", "valid", "test"))
_LIGHTKG_PARTS = {_TRAIN: TRAIN, _VAL: VAL, _TEST: TEST}
# Where each file comes from, its size and its SHA-256.
_FILES = {
    _ITEMS: (_KGCN, 42_414, "f9693bdde538f755d09b9931b0be662a98965e538658a00c2050912c0adf487b"),
    _NAMES: (_HETREC, 1_925_608, "4c99dc28397ec559520d5bf5341f4c952c8c416c3de918548f88269b88039806"),
    _INTERACTIONS: (_KGCN, 1_203_620, "254272fa721c3935e8be286d28c051b206844307128698ab4eaa41d483379416"),
    _TRIPLES: (_KGCN, 597_942, "f62bbc8f717c9f68e66dff6faeaa71025092acc11a0f1b4878b953eb05f946a9"),
    _FROZEN: (_MCCLK, 457_561, "a1589f7ff2f36ea25c946900e38c941eb6d8fae27422b32c73dc571d731e1c70"),
    _TRAIN: (_LIGHTKG, 260_414, "4a7e1c6d93a381d9c8f68046bb13d1e6ed29524e91cc886e20756de4574b4f9f"),
    _VAL: (_LIGHTKG, 28_625, "e5f809fc58763d2cd0d3f815e2fb2f6fae7540602819f7623044d595bebd0e77"),
    _TEST: (_LIGHTKG, 28_741, "4a51069b1769e7419799ce5f7bb984433a4a97aa9d7879815774190ab781b0cf"),
}


class LastFMKG(KGRecDataset):
    r"""The Last.FM data set of the `"Knowledge Graph Convolutional Networks for Recommender
    Systems" <https://arxiv.org/abs/1904.12575>`_ paper: who listened to which artist in the
    `HetRec 2011 <https://grouplens.org/datasets/hetrec-2011/>`_ data, with an extract of the
    Microsoft Satori knowledge graph about the artists. Indices are those of KGCN's preprocessing.

    The listening data are for non-commercial use; publications cite Last.fm and the HetRec 2011
    workshop. The raw files are downloaded from the public repositories that carry them and compared
    with their SHA-256; see :class:`KGRecDataset` for where else they may lie.

    .. note::
        How negatives are drawn decides how hard the task is. Ranking by the number of training
        positives alone reaches a test AUC of 0.79 with :obj:`negatives="items"`, and of 0.88 with
        :obj:`negatives="entities"`, most of which no user could ever have listened to.

    Args:
        negatives (str): Also :obj:`"frozen"`, those published with the MCCLK model, drawn from the items.
            (default: :obj:`"items"`)
        split (str): Also :obj:`"lightkg"`, which gives the positives the parts published with the LightKG
            model, and each user's :math:`k`-th negative the part of the :math:`k`-th positive.
            (default: :obj:`"random"`)

    Other arguments and errors are those of :class:`KGRecDataset`.

    **STATS:**

    ====== ====== ============= ========= ========== ========
    #users #items #interactions #entities #relations #triples
    ====== ====== ============= ========= ========== ========
    1,872  3,846  21,173        9,366     60         15,518
    ====== ====== ============= ========= ========== ========
    """

    raw_folder = "lastfm"
    raw_files: ClassVar[Mapping[str, RawFile]] = {
        name: RawFile(f"{folder}/{Path(name).name}", size, sha256)
        for name, (folder, size, sha256) in _FILES.items()
    }
    negative_pools = ("items", "entities", "frozen")
    splits = (*KGRecDataset.splits, "lightkg")

    @property
    def raw_file_names(self) -> list[str]:
        names = [_ITEMS, _NAMES, _INTERACTIONS, _TRIPLES]
        if self.negatives == "frozen":
            names.append(_FROZEN)
        if self.split == "lightkg":
            names.extend(_LIGHTKG_PARTS)
        return names

    # Each file is checked row by row, then against its SHA-256, and only then for what it lacks.
    # Files are compared with such as have passed before, so that an error blames the right one.
    def build(self) -> KGRecTables:
        items = self._read(_ITEMS, {"artist": int, "entity": int})
        items.fail_if_repeated(items["artist"], "artist {artist} has an earlier line")
        items.fail_if_repeated(items["entity"], "entity {entity} has an earlier line")
        self._verify(_ITEMS, items)
        artists = pd.Index(items["artist"])

        item_names = self._item_names_of(items)
        users, positives = self._interactions(artists)
        return KGRecTables(
            positives=positives,
            num_users=len(users),
            user_ids=users.tolist(),
            item_ids=artists.tolist(),
            **self._triples(items, item_names),
            negatives=self._frozen(positives, len(artists)) if self.negatives == "frozen" else None,
            positive_parts=(
                self._lightkg_parts(positives, users, artists) if self.split == "lightkg" else None
            ),
        )

    def _read(self, name: str, columns: Mapping[str, type | None], header: str | None = None) -> RawTable:
        return RawTable.read(Path(self.raw_dir, name), columns, header)

    def _verify(self, name: str, table: RawTable) -> None:
        table.verify(self.raw_files[name].sha256)

    def _item_names_of(self, items: RawTable) -> list[str]:
        table = self._read(
            _NAMES,
            {"artist": int, "name": str, "url": None, "picture": None},
            header="id\tname\turl\tpictureURL",
        )
        table.fail_if_repeated(table["artist"], "artist {artist} has an earlier line")
        self._verify(_NAMES, table)
        row = pd.Index(table["artist"]).get_indexer(items["artist"])
        if (row < 0).any():
            raise_at(table.path, None, f"it has no artist {items['artist'][(row < 0).argmax()]}")
        return [str(name) for name in np.array(table["name"], dtype=object)[row]]

    def _interactions(self, artists: pd.Index) -> tuple[pd.Index, IntArray]:
        table = self._read(
            _INTERACTIONS, {"user": int, "artist": int, "weight": int}, header="userID\tartistID\tweight"
        )
        self._verify(_INTERACTIONS, table)
        item = artists.get_indexer(table["artist"])
        is_item = item >= 0
        if not is_item.any():
            table.fail(0, f"neither this row nor a later one has an artist of {_ITEMS}")
        user, users = pd.factorize(table["user"][is_item])
        return pd.Index(users), distinct_pairs(user, item[is_item], len(artists))

    def _triples(self, items: RawTable, item_names: list[str]) -> dict[str, Any]:
        table = self._read(_TRIPLES, {"head": int, "relation": str, "tail": int})
        self._verify(_TRIPLES, table)
        relation = np.array(table["relation"], dtype=object)
        return number_triples(table["head"], relation, table["tail"], items["entity"], item_names)

    def _frozen(self, positives: IntArray, num_items: int) -> IntArray:
        table = self._read(_FROZEN, {"user": int, "item": int, "label": int})
        sha256 = self.raw_files[_FROZEN].sha256
        return frozen_negatives(table, positives, num_items, _INTERACTIONS, sha256)

    def _lightkg_parts(self, positives: IntArray, users: pd.Index, artists: pd.Index) -> npt.NDArray[np.int8]:
        index = index_pairs(positives, len(artists))
        parts = np.full(len(positives), -1, dtype=np.int8)
        for name, part in _LIGHTKG_PARTS.items():
            table = self._read(
                name,
                {"user": int, "artist": int, "weight": None},
                header="user_id:token\titem_id:token\trating:float",
            )
            item = artists.get_indexer(table["artist"])
            table.fail_if(item < 0, f"artist {{artist}} is not in {_ITEMS}")
            user = users.get_indexer(table["user"])
            table.fail_if(user < 0, f"user {{user}} has no interaction in {_INTERACTIONS}")
            row = index.get_indexer(user * len(artists) + item)
            pair = "user {user} and artist {artist}"
            table.fail_if(row < 0, f"{pair} are no interaction in {_INTERACTIONS}")
            table.fail_if_repeated(row, f"{pair} have an earlier line")
            table.fail_if(parts[row] >= 0, f"{pair} have a line in another part of the split")
            self._verify(name, table)
            parts[row] = part
        if (parts < 0).any():
            user, item = positives[(parts < 0).argmax()]
            raise_at(
                Path(self.raw_dir, next(iter(_LIGHTKG_PARTS))),
                None,
                f"neither it nor the files beside it have user {users[user]} and artist "
                f"{artists[item]}, an interaction in {_INTERACTIONS}",
            )
        return parts
