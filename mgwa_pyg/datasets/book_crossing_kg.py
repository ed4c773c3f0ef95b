"""Book-Crossing ratings with a Microsoft Satori knowledge graph."""

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

import numpy as np

from mgwa_pyg.datasets.base import KGRecDataset, KGRecTables
from mgwa_pyg.datasets.download import RawFile
from mgwa_pyg.datasets.interactions import READS
from mgwa_pyg.datasets.raw import IntArray, RawTable, raise_at
from mgwa_pyg.datasets.tables import distinct_pairs, frozen_negatives

_MCCLK = "https://raw.githubusercontent.com/CCIIPLab/MCCLK/4b0d2843b73adbe816a7a5bb1788b4f4bcd777f4/data/book"

_RATINGS = "ratings_final.npy"
_TRIPLES = "kg_final.txt"
# The size and the SHA-256 of each file.
_FILES = {
    _RATINGS: (1_677_080, "d223b814c1a2c313eb030767d8b828ffad6f6341111b1911e485e008885071ba"),
    _TRIPLES: (2_094_588, "60a4a2c2e6f101fbbd5763c72be3ed4f565498e7f6c8660eb19fe598dc7158b2"),
}


class BookCrossingKG(KGRecDataset):
    r"""The Book-Crossing data set of the `"Multi-level Cross-view Contrastive Learning for
    Knowledge-aware Recommender System" <https://arxiv.org/abs/2204.08807>`_ paper (MCCLK): who read
    which book, with an extract of the Microsoft Satori knowledge graph about the books.

    The files give numbers instead of names, and the indices are those numbers: so are
    :obj:`item_names` and :obj:`relation_names`, as strings. The published statistics speak of
    139,746 interactions because they count the published negatives, one for each positive. The raw
    files are downloaded from the public repository of MCCLK and compared with their SHA-256; see
    :class:`KGRecDataset` for where else they may lie, with :obj:`raw_folder` being
    :obj:`book_crossing`.

    Args:
        negatives (str): Also :obj:`"frozen"`, those published with the MCCLK model, drawn from the items.
            (default: :obj:`"items"`)

    Other arguments and errors are those of :class:`KGRecDataset`.

    **STATS:**

    ====== ====== ============= ========= ========== ========
    #users #items #interactions #entities #relations #triples
    ====== ====== ============= ========= ========== ========
    17,860 14,967 69,873        77,903    25         151,500
    ====== ====== ============= ========= ========== ========
    """

    raw_folder = "book_crossing"
    raw_files: ClassVar[Mapping[str, RawFile]] = {
        name: RawFile(f"{_MCCLK}/{name}", size, sha256) for name, (size, sha256) in _FILES.items()
    }
    negative_pools = ("items", "entities", "frozen")
    interaction = READS

    def build(self) -> KGRecTables:
        ratings = RawTable.read_npy(Path(self.raw_dir, _RATINGS), ("user", "item", "label"))
        user, item, label = ratings["user"], ratings["item"], ratings["label"]
        ratings.fail_if(label > 1, "the label is {label}, not 0 or 1")
        ratings.verify(self.raw_files[_RATINGS].sha256)
        num_users = _count(ratings, user[label == 1], "user with a positive")
        num_items = _count(ratings, item, "item")
        positives = distinct_pairs(user[label == 1], item[label == 1], num_items)
        # Checked whatever the negatives: the file is the source of the positives too.
        negatives = frozen_negatives(ratings, positives, num_items, _RATINGS, None)

        kg = RawTable.read(Path(self.raw_dir, _TRIPLES), {"head": int, "relation": int, "tail": int})
        kg.verify(self.raw_files[_TRIPLES].sha256)
        entities = np.concatenate([np.arange(num_items), kg["head"], kg["tail"]])
        return KGRecTables(
            positives=positives,
            triples=np.stack([kg["head"], kg["relation"], kg["tail"]], axis=1),
            num_users=num_users,
            num_entities=_count(kg, entities, "entity"),
            item_names=[str(i) for i in range(num_items)],
            relation_names=[str(r) for r in range(_count(kg, kg["relation"], "relation"))],
            negatives=negatives if self.negatives == "frozen" else None,
        )


def _count(table: RawTable, numbers: IntArray, what: str) -> int:
    """Return how many different numbers there are, which must be 0, 1, 2, …"""
    found = np.unique(numbers)
    missing = np.setdiff1d(np.arange(len(found) + 1), found)[0]
    if missing != len(found) or missing == 0:
        raise_at(table.path, None, f"it has no {what} numbered {missing}", table.remedy)
    return len(found)
