"""Invented plays that are nothing but popularity, and how far beyond popularity predictions of them get."""

from functools import cache
from statistics import mean

import numpy as np

from mgwa_pyg.datasets import KGRecDataset, KGRecTables
from mgwa_pyg.evaluation import Popularity, click_metrics

USERS, ITEMS, OTHERS, RELATIONS, TRIPLES = 300, 800, 300, 4, 1_500
PLAYS = 3_000

#: What may pass for noise in the mean of a few data sets.
NOISE = 0.01


class PopularityKG(KGRecDataset):
    """Each user plays each item with a probability that grows with the user's activity times the item's
    popularity, and triples are drawn at random. As in real data, items that nobody plays are left out.
    """

    def __init__(self, seed=0, negatives="items"):
        super().__init__(None, negatives, seed)

    def build(self):
        generator = np.random.default_rng([self.seed, 4])
        activity = generator.lognormal(sigma=0.5, size=USERS)
        popularity = generator.permutation(1 / np.arange(3, ITEMS + 3))
        rate = PLAYS * np.outer(activity / activity.sum(), popularity / popularity.sum())
        user, item = np.nonzero(generator.random(rate.shape) < 1 - np.exp(-rate))
        played, item = np.unique(item, return_inverse=True)
        num_entities = len(played) + OTHERS
        ends = len(played), RELATIONS, num_entities
        return KGRecTables(
            positives=np.stack([user, item], axis=1),
            triples=np.stack([generator.integers(end, size=TRIPLES) for end in ends], axis=1),
            num_users=USERS,
            num_entities=num_entities,
            item_names=[f"item {i}" for i in played],
            relation_names=[f"relation {r}" for r in range(RELATIONS)],
        )


def lead_over_popularity(predict, negatives="items", seeds=range(4)):
    """By how much the AUC of predictions exceeds that of popularity, the mean over data sets.

    A lead of more than :obj:`NOISE` is read off the way the rows were made, as nothing else is there.

    Args:
        predict (callable): Takes a data set and returns the probabilities of its test rows.
        negatives (str): What negatives are drawn from.
        seeds (iterable of int): The seeds of the data sets.
    """
    leads = []
    for seed in seeds:
        dataset, label, theirs = _with_popularity(seed, negatives)
        leads.append(click_metrics(label, predict(dataset))["auc"] - theirs)
    return mean(leads)


@cache
def _with_popularity(seed, negatives):
    """A data set, the labels of its test rows, and the AUC of popularity."""
    dataset = PopularityKG(seed, negatives)
    links = dataset[0]["user", "listens", "entity"]
    rows, label = links.edge_label_index[:, links.test_mask], links.edge_label[links.test_mask]
    popularity = Popularity(dataset[0], dataset.num_items).predict(*rows)
    return dataset, label, click_metrics(label, popularity)["auc"]
