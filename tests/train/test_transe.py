"""TransE pre-training: it learns, it repeats itself, it holds triples out and leaves no trace."""

import random
import warnings

import numpy as np
import pytest
import torch
from torch_geometric.data import HeteroData
from torch_geometric.nn.kge import TransE

from mgwa_pyg.datasets import LastFMKG
from mgwa_pyg.train import transe
from mgwa_pyg.train.transe import fit_transe

NODES, RELATIONS = 60, 4
METRICS = ["mrr", "hits@10", "mrr_without_twins", "hits@10_without_twins", "twins", "val_mrr"]


def as_data(head, relation, tail, num_nodes=NODES, num_relations=RELATIONS):
    data = HeteroData()
    data["entity"].num_nodes = num_nodes
    kg = data["entity", "kg", "entity"]
    kg.edge_index = torch.stack([torch.cat([head, tail]), torch.cat([tail, head])])
    kg.rel_type = torch.cat([relation, relation + num_relations])
    return data


@pytest.fixture
def graph():
    """48 items in 6 groups, and 2 hubs for each group; the first two relations say the same."""
    hubs = [lambda g: g, lambda g: g, lambda g: 6 + g, lambda g: 6 + (g + 1) % 6]
    triples = [(item, r, 48 + hub(item % 6)) for r, hub in enumerate(hubs) for item in range(48)]
    return as_data(*torch.tensor(triples).T)


def capture(monkeypatch):
    """Keeps every triple that a loader gets, every batch that is trained on, and the model."""
    seen = {"loader": [], "batches": [], "models": []}
    loader, loss = TransE.loader, TransE.loss

    def keep_loader(self, *triples, **options):
        seen["loader"].append(torch.stack(triples))
        seen["models"].append(self)
        return loader(self, *triples, **options)

    def keep_loss(self, *triples):
        seen["batches"].append(torch.stack(triples))
        return loss(self, *triples)

    monkeypatch.setattr(TransE, "loader", keep_loader)
    monkeypatch.setattr(TransE, "loss", keep_loss)
    return seen


def as_set(triples):
    return set(map(tuple, triples.T.tolist()))


def naive_metrics(result, tested, trained, known):
    """The metrics of the result's embeddings, candidate by candidate."""
    entity, relation = result.entity.double().numpy(), result.relation.double().numpy()

    def distance(h, r, t):
        # Rounded, as equal distances must be found equal.
        return round(float(np.sqrt(((entity[h] + relation[r] - entity[t]) ** 2).sum())), 6)

    ends = {(h, t) for h, _, t in trained}
    ranks = {True: [], False: []}
    for h, r, t in tested:
        for target, candidates in (
            ((h, r, t), [(h, r, other) for other in range(len(entity))]),
            ((h, r, t), [(other, r, t) for other in range(len(entity))]),
        ):
            rivals = [distance(*c) for c in candidates if c == target or c not in known]
            own = distance(*target)
            better = sum(d < own for d in rivals)
            tied = sum(d == own for d in rivals) - 1
            ranks[(h, t) in ends].append(1 + better + tied / 2)
    both, rest = ranks[True] + ranks[False], ranks[False]
    return {
        "mrr": np.mean([1 / rank for rank in both]),
        "hits@10": np.mean([rank <= 10 for rank in both]),
        "mrr_without_twins": np.mean([1 / rank for rank in rest]),
        "hits@10_without_twins": np.mean([rank <= 10 for rank in rest]),
        "twins": len(ranks[True]) / len(both),
    }


def test_metrics_equal_the_loops_and_the_split_is_kept(graph, monkeypatch):
    monkeypatch.setattr(transe, "_CHUNK", 4)  # More than one chunk, the last not full.
    seen = capture(monkeypatch)
    queries = []
    ranks = transe._ranks
    monkeypatch.setattr(transe, "_ranks", lambda m, q, k: queries.append(as_set(q)) or ranks(m, q, k))
    result = fit_transe(graph, RELATIONS, channels=8, epochs=10)

    kg = graph["entity", "kg", "entity"]
    half = len(kg.rel_type) // 2
    known = as_set(torch.stack([kg.edge_index[0], kg.rel_type, kg.edge_index[1]])[:, :half])
    trained = as_set(seen["loader"][0])
    tested, validated = queries
    # The three parts make up all triples, and none is in two.
    assert trained | tested | validated == known
    assert len(trained) + len(tested) + len(validated) == half
    assert len(tested) == len(validated) == round(0.05 * half)
    assert {triple for batch in seen["batches"] for triple in as_set(batch)} == trained
    assert sum(batch.size(1) for batch in seen["batches"]) == 10 * len(trained)

    want = naive_metrics(result, tested, trained, known)
    assert 0 < want["twins"] < 1
    assert list(result.metrics) == METRICS
    assert {name: result.metrics[name] for name in want} == pytest.approx(want)
    assert result.metrics["val_mrr"] == pytest.approx(naive_metrics(result, validated, trained, known)["mrr"])


def test_the_embeddings_are_those_that_are_scored_with(graph, monkeypatch):
    seen = capture(monkeypatch)
    result = fit_transe(graph, RELATIONS, channels=6, epochs=2)
    assert result.entity.shape == (NODES, 6)
    assert result.relation.shape == (RELATIONS, 6)
    assert not result.entity.requires_grad
    assert not result.relation.requires_grad
    assert torch.allclose(result.entity.norm(dim=1), torch.ones(NODES))
    head, relation, tail = seen["loader"][0]
    score = -(result.entity[head] + result.relation[relation] - result.entity[tail]).norm(dim=1)
    (model,) = seen["models"]
    assert torch.allclose(model(head, relation, tail), score, atol=1e-6)


def test_it_learns(graph):
    untrained = fit_transe(graph, RELATIONS, channels=8, lr=1e-9, epochs=1).metrics
    trained = fit_transe(graph, RELATIONS, channels=8, lr=0.1, batch_size=32, epochs=60).metrics
    chance = np.mean([1 / rank for rank in range(1, NODES + 1)])  # 0.08
    assert untrained["mrr"] < 2 * chance
    for name in ("mrr", "mrr_without_twins", "val_mrr"):
        assert trained[name] > max(3 * chance, 2 * untrained[name]), name


def test_the_same_seed_gives_the_same_bits_whatever_came_before(graph):
    results = []
    for seed in (3, 3, 4):
        torch.rand(5)
        results.append(fit_transe(graph, RELATIONS, channels=8, seed=seed, epochs=3))
    first, second, other = results
    assert torch.equal(first.entity, second.entity)
    assert torch.equal(first.relation, second.relation)
    assert first.metrics == second.metrics
    assert not torch.equal(first.entity, other.entity)


def test_no_trace_is_left(graph, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    before = torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fit_transe(graph, RELATIONS, channels=8, epochs=2)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert (np.random.get_state()[1].tolist(), random.getstate()) == before[1:]
    assert list(tmp_path.iterdir()) == []
    assert capfd.readouterr() == ("", "")


def test_equal_triples_count_once(graph):
    kg = graph["entity", "kg", "entity"]
    half = len(kg.rel_type) // 2
    head, tail = kg.edge_index[:, :half]
    doubled = as_data(*(torch.cat([part, part]) for part in (head, kg.rel_type[:half], tail)))
    once, twice = (fit_transe(data, RELATIONS, channels=4, epochs=1) for data in (graph, doubled))
    assert torch.equal(once.entity, twice.entity)


def test_without_a_triple_that_has_no_twin():
    """Five relations join the same pairs, so every triple has a twin."""
    head, relation, tail = torch.cartesian_prod(torch.arange(2), torch.arange(5), torch.arange(2, 4)).T
    metrics = fit_transe(as_data(head, relation, tail, 4, 5), 5, channels=2, epochs=1).metrics
    assert metrics["twins"] == 1
    assert metrics["mrr_without_twins"] is metrics["hits@10_without_twins"] is None


def test_bad_input(graph):
    with pytest.raises(ValueError, match="num_relations=3, but 144 of 384 edges"):
        fit_transe(graph, 3, channels=4)
    with pytest.raises(ValueError, match=r"channels=0, .* at least 1"):
        fit_transe(graph, RELATIONS, channels=0)
    with pytest.raises(ValueError, match=r"margin=-1: .* positive"):
        fit_transe(graph, RELATIONS, channels=4, margin=-1)
    with pytest.raises(ValueError, match="has 1 triples: too few"):
        fit_transe(as_data(*torch.tensor([[0], [0], [1]])), RELATIONS, channels=4)
    with pytest.raises(RuntimeError, match=r"left the finite numbers with lr=1e\+38"):
        fit_transe(graph, RELATIONS, channels=4, lr=1e38, epochs=3)


@pytest.mark.real_data
def test_lastfm(lastfm_raw, tmp_path):
    dataset = LastFMKG(str(tmp_path), negatives="items", seed=0)
    metrics = fit_transe(dataset[0], dataset.num_relations, channels=8, epochs=20).metrics
    # Two relations say the same of their ends.
    assert metrics["twins"] == pytest.approx(0.67, abs=0.05)
    assert metrics["mrr"] > metrics["mrr_without_twins"] > 0.002  # By chance 0.001.
