"""Data sets for recommendation over knowledge graphs: raw files in, one HeteroData out."""

from mgwa_pyg.datasets.base import KGRecDataset, KGRecTables
from mgwa_pyg.datasets.book_crossing_kg import BookCrossingKG
from mgwa_pyg.datasets.download import DownloadError
from mgwa_pyg.datasets.interactions import Interaction
from mgwa_pyg.datasets.lastfm_kg import LastFMKG
from mgwa_pyg.datasets.movielens_kg import MovieLens1MKG, MovieLens20MKG
from mgwa_pyg.datasets.raw import RawDataError
from mgwa_pyg.datasets.recbole_kg import RecBoleKG
from mgwa_pyg.datasets.spec import from_spec
from mgwa_pyg.datasets.synthetic_kg import SyntheticKG
from mgwa_pyg.datasets.table_kg import TableKG

__all__ = [
    "BookCrossingKG",
    "DownloadError",
    "Interaction",
    "KGRecDataset",
    "KGRecTables",
    "LastFMKG",
    "MovieLens1MKG",
    "MovieLens20MKG",
    "RawDataError",
    "RecBoleKG",
    "SyntheticKG",
    "TableKG",
    "from_spec",
]
