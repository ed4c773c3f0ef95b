"""Data sets with the data of one access, however random their transforms are."""

import copy

from mgwa_pyg.datasets.base import KGRecDataset


def fixed(dataset: KGRecDataset) -> KGRecDataset:
    r"""Return the data set with its transform, which may be random, applied once and for all.

    Args:
        dataset (KGRecDataset): The data set. It is left as it is.
    """
    if dataset.transform is None:
        return dataset
    copied = copy.copy(dataset)
    copied.data = dataset[0]
    copied.transform = None
    copied.__dict__.pop("fingerprint", None)  # It may be of another access.
    return copied
