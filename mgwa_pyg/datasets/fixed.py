"""Data sets that hold still: one access, however often they are asked."""

import copy

from mgwa_pyg.datasets.base import KGRecDataset


def fixed(dataset: KGRecDataset) -> KGRecDataset:
    r"""Returns the data set with the data of one access: a transform, which may draw at random, is
    applied now, and then no more.

    Args:
        dataset (KGRecDataset): The data set. It is left as it is.
    """
    if dataset.transform is None:
        return dataset
    still = copy.copy(dataset)
    still.data = dataset[0]
    still.transform = None
    still.__dict__.pop("fingerprint", None)  # It may be of another access.
    return still
