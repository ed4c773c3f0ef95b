"""MovieLens ratings with a Microsoft Satori knowledge graph: 20M as in KGCN, 1M as in RippleNet."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pandas as pd

from mgwa_pyg.datasets.base import KGRecDataset, KGRecTables
from mgwa_pyg.datasets.download import RawFile
from mgwa_pyg.datasets.interactions import WATCHES
from mgwa_pyg.datasets.raw import IntArray, RawTable, raise_at, read_in_chunks
from mgwa_pyg.datasets.tables import distinct_pairs, number_triples

_GITHUB = "https://raw.githubusercontent.com/hwwang55"
_KGCN = f"{_GITHUB}/KGCN/2363ca2ddc66a79860629b2e0ec6ad23c57697c8/data/movie"
_RIPPLENET = f"{_GITHUB}/RippleNet/0e4f648a51266092df8ffff134f306d49a398052/data/movie"

POSITIVE_RATING = 4


class _MovieLensKG(KGRecDataset):
    """What the MovieLens data sets share: all but the form of the ratings."""

    interaction = WATCHES
    archive: ClassVar[str]  # The address of GroupLens' archive, which has the ratings.
    ratings_file: ClassVar[str]
    items_file: ClassVar[str]
    triples_files: ClassVar[tuple[str, ...]]
    expected_statistics: ClassVar[Mapping[str, int]]

    def build(self) -> KGRecTables:
        items = self._read(self.items_file, {"movie": int, "entity": str})
        items.fail_if_repeated(items["movie"], "movie {movie} has an earlier line")
        items.fail_if_repeated(items["entity"], "entity {entity} has an earlier line")

        users, positives = self._interactions(pd.Index(items["movie"]))
        columns = {"head": str, "relation": str, "tail": str}
        parts = [self._read(name, columns) for name in self.triples_files]
        head, relation, tail = (
            np.array([value for part in parts for value in part[name]], dtype=object) for name in columns
        )
        first, item_names = np.array(items["entity"], dtype=object), [str(movie) for movie in items["movie"]]
        tables = KGRecTables(
            positives=positives,
            num_users=len(users),
            user_ids=users.tolist(),
            item_ids=items["movie"].tolist(),
            **number_triples(head, relation, tail, first, item_names),
        )
        self._check_statistics(tables)
        return tables

    def _ratings(self) -> Iterator[Mapping[str, Any]]:
        """Yield the columns user, movie and rating, some rows at a time."""
        raise NotImplementedError

    @property
    def _ratings_remedy(self) -> str:
        return f"Take {self.ratings_file} anew from {self.archive}."

    def _read(self, name: str, columns: Mapping[str, type | None]) -> RawTable:
        table = RawTable.read(Path(self.raw_dir, name), columns)
        table.verify(self.raw_files[name].sha256)
        return table

    def _provide_raw_files(self) -> None:
        # First, as nothing else is of use without them.
        if not Path(self.raw_dir, self.ratings_file).is_file():
            name = self.archive.rpartition("/")[2]
            raise FileNotFoundError(
                f"'{self.raw_dir}' has no file {self.ratings_file}, which cannot be downloaded by "
                f"itself. Download {self.archive}, unpack it, and copy its file "
                f"{name.removesuffix('.zip')}/{self.ratings_file} into '{self.raw_dir}'."
            )
        super()._provide_raw_files()

    def _interactions(self, movies: pd.Index) -> tuple[pd.Index, IntArray]:
        raw_users, items = [], []
        for ratings in self._ratings():
            item = movies.get_indexer(ratings["movie"])
            positive = (item >= 0) & (ratings["rating"] >= POSITIVE_RATING)
            raw_users.append(ratings["user"][positive])
            items.append(item[positive])
        user, users = pd.factorize(np.concatenate(raw_users))
        if len(users) == 0:
            raise_at(
                Path(self.raw_dir, self.ratings_file),
                None,
                f"it has no rating of at least {POSITIVE_RATING} for a movie of {self.items_file}",
                self._ratings_remedy,
            )
        return pd.Index(users), distinct_pairs(user, np.concatenate(items), len(movies))

    def _check_statistics(self, tables: KGRecTables) -> None:
        found = tables.statistics
        wrong = [
            f"{found[name]:,} {name} instead of {count:,}"
            for name, count in self.expected_statistics.items()
            if found[name] != count
        ]
        if wrong:
            raise_at(
                Path(self.raw_dir),
                None,
                f"its files give {', '.join(wrong)}",
                f"Delete {', '.join(self.raw_files)} and let the data set download them again. "
                f"{self._ratings_remedy}",
            )


class MovieLens20MKG(_MovieLensKG):
    r"""The MovieLens-20M data set of the `"Knowledge Graph Convolutional Networks for Recommender
    Systems" <https://arxiv.org/abs/1904.12575>`_ paper: who rated which movie with at least 4, with
    an extract of the Microsoft Satori knowledge graph about the movies. Indices are those of KGCN's
    preprocessing; the names of the items are their MovieLens ids.

    GroupLens offers the ratings in an archive only: download
    `ml-20m.zip <http://files.grouplens.org/datasets/movielens/ml-20m.zip>`_ and copy its
    :obj:`ml-20m/ratings.csv` into :obj:`root/raw`, or into the folder :obj:`movielens_20m` below
    :obj:`$MGWA_PYG_RAW`. The two files of the knowledge graph are downloaded from KGCN's public
    repository.

    .. warning::
        We do not know the checksums of these files, so none is compared. Instead, the published
        statistics are compared with what was read, and :class:`RawDataError` says which differ.

    Arguments and errors are those of :class:`KGRecDataset`; without the ratings, it is a
    :class:`FileNotFoundError`.

    **STATS:** (as published; the paper's 13,501,622 interactions count a negative for each
    positive, as do its 42,346 of Last.FM)

    ======= ====== ============= ========= ========== ========
    #users  #items #interactions #entities #relations #triples
    ======= ====== ============= ========= ========== ========
    138,159 16,954 6,750,811     102,569   32         499,474
    ======= ====== ============= ========= ========== ========
    """

    raw_folder = "movielens_20m"
    archive = "http://files.grouplens.org/datasets/movielens/ml-20m.zip"
    ratings_file = "ratings.csv"
    items_file = "item_index2entity_id.txt"
    triples_files = ("kg.txt",)
    raw_files: ClassVar[Mapping[str, RawFile]] = {
        name: RawFile(f"{_KGCN}/{name}") for name in (items_file, *triples_files)
    }
    expected_statistics: ClassVar[Mapping[str, int]] = {
        "users": 138_159,
        "items": 16_954,
        "interactions": 6_750_811,
        "entities": 102_569,
        "relations": 32,
        "triples": 499_474,
    }

    def _ratings(self) -> Iterator[Mapping[str, Any]]:
        return read_in_chunks(
            Path(self.raw_dir, self.ratings_file),
            {"user": int, "movie": int, "rating": float, "timestamp": int},
            header="userId,movieId,rating,timestamp",
            separator=",",
            remedy=self._ratings_remedy,
        )


class MovieLens1MKG(_MovieLensKG):
    r"""The MovieLens-1M data set of the `"RippleNet: Propagating User Preferences on the Knowledge
    Graph for Recommender Systems" <https://arxiv.org/abs/1803.03467>`_ paper: who rated which movie
    with at least 4, with an extract of the Microsoft Satori knowledge graph about the movies.
    Indices are those of RippleNet's preprocessing; the names of the items are their MovieLens ids.

    GroupLens offers the ratings in an archive only: download
    `ml-1m.zip <http://files.grouplens.org/datasets/movielens/ml-1m.zip>`_ and copy its
    :obj:`ml-1m/ratings.dat` into :obj:`root/raw`, or into the folder :obj:`movielens_1m` below
    :obj:`$MGWA_PYG_RAW`. The three files of the knowledge graph are downloaded from RippleNet's
    public repository.

    .. note::
        RippleNet's own script takes the first line of :obj:`ratings.dat` for a header and drops
        it. It is a rating, and kept here.

    Arguments and errors are those of :class:`KGRecDataset`. No checksum is compared here, either.

    **STATS:** (as published; the paper's 753,772 interactions count a negative for each positive,
    without the first line)

    ====== ====== ==========
    #users #items #relations
    ====== ====== ==========
    6,036  2,445  12
    ====== ====== ==========
    """

    raw_folder = "movielens_1m"
    archive = "http://files.grouplens.org/datasets/movielens/ml-1m.zip"
    ratings_file = "ratings.dat"
    items_file = "item_index2entity_id_rehashed.txt"
    triples_files = ("kg_part1_rehashed.txt", "kg_part2_rehashed.txt")
    raw_files: ClassVar[Mapping[str, RawFile]] = {
        name: RawFile(f"{_RIPPLENET}/{name}") for name in (items_file, *triples_files)
    }
    expected_statistics: ClassVar[Mapping[str, int]] = {"users": 6_036, "items": 2_445, "relations": 12}

    def _ratings(self) -> Iterator[Mapping[str, Any]]:
        yield RawTable.read(
            Path(self.raw_dir, self.ratings_file),
            {"user": int, "movie": int, "rating": int, "timestamp": int},
            separator="::",
            remedy=self._ratings_remedy,
        ).columns
