"""Sampled subgraphs against a slow sampler in plain Python with pyg-lib's rules, and in PyG's loaders."""

import random
from collections import Counter
from itertools import combinations

import numpy as np
import pytest
import torch
import torch_geometric.typing
from torch_geometric import sampler as pyg_sampler
from torch_geometric.data import Data, HeteroData
from torch_geometric.loader import LinkLoader, NodeLoader
from torch_geometric.nn import HeteroConv, RGCNConv, SAGEConv
from torch_geometric.sampler import EdgeSamplerInput, NegativeSampling, NodeSamplerInput, NumNeighbors
from torch_geometric.transforms import ToUndirected
from torch_geometric.utils import trim_to_layer

from mgwa_pyg.sampler import KHopSampler, k_hop_sampler

LISTENS, REVERSE = ("user", "listens", "item"), ("item", "rev_listens", "user")
KG, FOLLOWS = ("item", "kg", "item"), ("user", "follows", "user")


def plain_graph(num_nodes=12, num_edges=50):
    """A graph with parallel edges and loops, whose last node stands alone."""
    data = Data(edge_index=torch.randint(num_nodes - 1, (2, num_edges)), num_nodes=num_nodes)
    data.edge_type = torch.randint(4, (num_edges,))
    data.x = torch.randn(num_nodes, 5)
    return data


def typed_graph():
    """Users, items and a lonely third type; both node types have edges among themselves."""
    data = HeteroData()
    for name, number in (("user", 8), ("item", 11), ("nobody", 2)):
        data[name].num_nodes = number
        data[name].x = torch.randn(number, 5)
    data[LISTENS].edge_index = torch.stack([torch.randint(8, (30,)), torch.randint(10, (30,))])
    data[REVERSE].edge_index = data[LISTENS].edge_index.flip(0)
    data[FOLLOWS].edge_index = torch.randint(8, (2, 12))
    data[KG].edge_index = torch.randint(10, (2, 40))
    data[KG].rel_type = torch.randint(6, (40,))
    return data


def slow_sample(edge_index, seed, num_neighbors, disjoint, replace):
    """What pyg-lib does, one edge at a time.

    Edges, seeds and fanouts are dicts by type. Returns for each node type the hops of (owner, node), and for
    each edge type the hops of ((owner, source), (owner, target), edge).
    """
    hops, seen, owner = {}, {}, 0
    for edge_type in edge_index:
        for node_type in (edge_type[0], edge_type[2]):
            hops[node_type], seen[node_type] = [[]], set()
    for node_type, nodes in seed.items():
        for node in nodes:
            hops[node_type][0].append((owner, node))
            owner += disjoint
        seen[node_type] = set(hops[node_type][0])
    edges = {edge_type: [] for edge_type in edge_index}
    for hop in range(len(next(iter(num_neighbors.values())))):
        for nodes in hops.values():
            nodes.append([])
        for edge_type, (sources, targets) in edge_index.items():
            edges[edge_type].append([])
            count = num_neighbors[edge_type][hop]
            for owner, target in hops[edge_type[2]][-2]:
                into = [e for e, node in enumerate(targets) if node == target]
                if count < 0 or (not replace and count >= len(into)):
                    drawn = into
                elif replace:
                    drawn = random.choices(into, k=count) if into else []
                else:
                    drawn = random.sample(into, count)
                for e in drawn:
                    source = (owner, sources[e])
                    edges[edge_type][-1].append((source, (owner, target), e))
                    if source not in seen[edge_type[0]]:
                        seen[edge_type[0]].add(source)
                        hops[edge_type[0]][-1].append(source)
    return hops, edges


def by_hop(out, edge_types, disjoint):
    """The output of a sampler in the form of the slow one."""
    if isinstance(out, pyg_sampler.SamplerOutput):
        fields = ("node", "row", "col", "edge", "batch", "num_sampled_nodes", "num_sampled_edges")
        (edge_type,) = edge_types
        by_type = (edge_type[0], *[edge_type] * 3, edge_type[0], edge_type[0], edge_type)
        out = pyg_sampler.HeteroSamplerOutput(
            **{
                field: None if getattr(out, field) is None else {name: getattr(out, field)}
                for field, name in zip(fields, by_type, strict=True)
            }
        )
    names = {}
    for node_type, node in out.node.items():
        owner = out.batch[node_type].tolist() if disjoint else [0] * node.numel()
        names[node_type] = list(zip(owner, node.tolist(), strict=True))

    def split(items, sizes):
        assert len(items) == sum(sizes)
        items = iter(items)
        return [[next(items) for _ in range(size)] for size in sizes]

    hops = {node_type: split(names[node_type], sizes) for node_type, sizes in out.num_sampled_nodes.items()}
    edges = {}
    for edge_type, sizes in out.num_sampled_edges.items():
        links = zip(out.row[edge_type], out.col[edge_type], out.edge[edge_type], strict=True)
        head, _, tail = edge_type
        edges[edge_type] = split([(names[head][r], names[tail][c], int(e)) for r, c, e in links], sizes)
    return hops, edges


def edge_lists(data):
    if isinstance(data, Data):
        return {("node", "to", "node"): data.edge_index.tolist()}
    return {edge_type: data[edge_type].edge_index.tolist() for edge_type in data.edge_types}


def sample(sampler, data, seed):
    """Sample around seeds given by type, without PyG's helpers."""
    if isinstance(data, Data):
        return sampler._sample(torch.tensor(seed["node"]))
    return sampler._sample({name: torch.tensor(nodes) for name, nodes in seed.items()})


SEEDS = {"plain": {"node": [3, 0, 11, 3, 5]}, "typed": {"user": [0, 7, 3], "item": [2, 10, 5, 1]}}


@pytest.mark.smoke
@pytest.mark.parametrize("disjoint", [False, True])
@pytest.mark.parametrize("kind", ["plain", "typed"])
def test_whole_neighborhoods(kind, disjoint):
    data, seed = plain_graph() if kind == "plain" else typed_graph(), SEEDS[kind]
    edge_index = edge_lists(data)
    for num_hops in (1, 2, 3):
        sampler = KHopSampler(data, [-1] * num_hops, disjoint=disjoint)
        hops, edges = by_hop(sample(sampler, data, seed), edge_index, disjoint)
        fanouts = {edge_type: [-1] * num_hops for edge_type in edge_index}
        slow_hops, slow_edges = slow_sample(edge_index, seed, fanouts, disjoint, False)
        hops.pop("nobody", None)
        for node_type, wanted in slow_hops.items():
            assert hops[node_type][0] == wanted[0]  # The seeds in their order, also those given twice.
            assert [sorted(hop) for hop in hops[node_type]] == [sorted(hop) for hop in wanted]
        for edge_type, wanted in slow_edges.items():
            assert [Counter(hop) for hop in edges[edge_type]] == [Counter(hop) for hop in wanted]


@pytest.mark.parametrize("replace", [False, True])
@pytest.mark.parametrize("disjoint", [False, True])
@pytest.mark.parametrize("kind", ["plain", "typed"])
def test_rules_of_a_sample(kind, disjoint, replace):
    data, seed = plain_graph() if kind == "plain" else typed_graph(), SEEDS[kind]
    edge_index = edge_lists(data)
    if kind == "plain":
        num_neighbors = [2, 3, None]
        fanouts = {edge_type: [2, 3, -1] for edge_type in edge_index}
    else:
        num_neighbors = {LISTENS: [1, 2, 3], REVERSE: [2, -1, 0], FOLLOWS: [0, 1, None], KG: [3, 0, 2]}
        fanouts = {name: [-1 if k is None else k for k in hops] for name, hops in num_neighbors.items()}
    sampler = KHopSampler(data, num_neighbors, disjoint=disjoint, replace=replace)
    for _ in range(20):
        hops, edges = by_hop(sample(sampler, data, seed), edge_index, disjoint)
        for node_type, nodes in hops.items():
            assert nodes[0] == [(disjoint and i, v) for i, v in owned(seed, node_type)]
            found = flat(nodes[1:])
            assert len(found) == len(set(found))
            assert not set(found) & set(nodes[0])
        reached = {node_type: set() for node_type in hops}
        for hop in range(3):
            for edge_type, links in edges.items():
                sources, targets = edge_index[edge_type]
                into = Counter(target for _, target, _ in links[hop])
                expanded = Counter(hops[edge_type[2]][hop])
                assert set(into) <= set(expanded)
                for (owner, source), (other, target), e in links[hop]:
                    assert owner == other
                    assert (sources[e], targets[e]) == (source, target)
                    reached[edge_type[0]].add((owner, source))
                for (owner, node), times in expanded.items():
                    degree, count = targets.count(node), fanouts[edge_type][hop]
                    if count < 0 or (not replace and count >= degree):
                        count = degree
                    assert into[owner, node] == times * (count if degree else 0)
                if not replace:
                    drawn = Counter((target, e) for _, target, e in links[hop])
                    assert all(n <= expanded[target] for (target, _), n in drawn.items())
        for node_type, nodes in hops.items():
            assert set(flat(nodes[1:])) <= reached[node_type] <= set(flat(nodes))


def owned(seed, node_type):
    """The seeds of a type, numbered over all types."""
    first = 0
    for name, nodes in seed.items():
        if name == node_type:
            return list(enumerate(nodes, first))
        first += len(nodes)
    return []


def flat(hops):
    return [item for hop in hops for item in hop]


def inclusions(outcomes):
    """How often each node, edge and pair of edges is in a sample."""
    count = Counter()
    for hops, edges in outcomes:
        names = {("node", name, node) for name, nodes in hops.items() for node in flat(nodes)}
        drawn = [("edge", name, e) for name, links in edges.items() for e in sorted(flat(links))]
        count.update(names | set(drawn))
        count.update(set(combinations(drawn, 2)))
    return count


def assert_same_chances(mine, wanted, draws):
    for event in mine.keys() | wanted.keys():
        chance = (mine[event] + wanted[event]) / (2 * draws)
        spread = (2 * chance * (1 - chance) / draws) ** 0.5
        # A few hundred events: 4.5 standard deviations are passed once in a thousand runs.
        assert abs(mine[event] - wanted[event]) / draws <= 4.5 * spread, event


CASES = [
    (kind, disjoint, replace)
    for kind in ("plain", "typed")
    for disjoint in (False, True)
    for replace in (False, True)
]


def small(kind):
    """Graphs small enough for every choice to matter, and their seeds."""
    if kind == "plain":
        edge_index = torch.tensor([[1, 2, 3, 4, 0, 0, 2, 1, 4, 3, 3], [0, 0, 0, 0, 1, 2, 1, 3, 3, 3, 0]])
        return Data(edge_index=edge_index, num_nodes=5), {"node": [0, 1]}
    data = HeteroData()
    data["user"].num_nodes, data["item"].num_nodes = 3, 4
    data[LISTENS].edge_index = torch.tensor([[0, 1, 2, 0, 1, 0], [0, 0, 0, 1, 1, 2]])
    data[REVERSE].edge_index = data[LISTENS].edge_index.flip(0)
    data[KG].edge_index = torch.tensor([[1, 2, 3, 3, 0, 2], [0, 0, 0, 1, 1, 2]])
    return data, {"user": [0, 1], "item": [0]}


@pytest.mark.parametrize(("kind", "disjoint", "replace"), CASES)
def test_chances_are_those_of_the_slow_sampler(kind, disjoint, replace):
    data, seed = small(kind)
    random.seed(0)
    edge_index, draws = edge_lists(data), 1000
    sampler = KHopSampler(data, [2, 2], disjoint=disjoint, replace=replace)
    fanouts = {edge_type: [2, 2] for edge_type in edge_index}
    mine = [by_hop(sample(sampler, data, seed), edge_index, disjoint) for _ in range(draws)]
    slow = [slow_sample(edge_index, seed, fanouts, disjoint, replace) for _ in range(draws)]
    assert_same_chances(inclusions(mine), inclusions(slow), draws)


@pytest.mark.parametrize(("kind", "disjoint", "replace"), CASES)
def test_chances_are_those_of_pyg_lib(kind, disjoint, replace):
    pytest.importorskip("pyg_lib")
    data, seed = small(kind)
    edge_index, draws = edge_lists(data), 2000
    theirs = k_hop_sampler(data, [2, 2], disjoint=disjoint, replace=replace)
    assert isinstance(theirs, pyg_sampler.NeighborSampler)
    counts = []
    for sampler in (KHopSampler(data, [2, 2], disjoint=disjoint, replace=replace), theirs):
        outcomes = []
        for _ in range(draws):
            out = sample(sampler, data, seed)
            permutation = sampler.edge_permutation
            if isinstance(data, Data):
                out.edge = out.edge if permutation is None else permutation[out.edge]
            elif permutation is not None:
                out.edge = {name: permutation[name][edge] for name, edge in out.edge.items()}
            outcomes.append(by_hop(out, edge_index, disjoint))
        counts.append(inclusions(outcomes))
    assert_same_chances(*counts, draws)


def assert_consistent(data, batch):
    """Nodes, edges and relations of a batch are those of the graph."""
    stores = [(data, batch, batch.n_id, batch.n_id)] if isinstance(data, Data) else []
    if not stores:
        stores = [
            (data[name], batch[name], batch[name[0]].n_id, batch[name[2]].n_id) for name in data.edge_types
        ]
    for whole, part, source, target in stores:
        assert torch.equal(
            whole.edge_index[:, part.e_id],
            torch.stack([source[part.edge_index[0]], target[part.edge_index[1]]]),
        )
        for name in ("edge_type", "rel_type"):
            if name in whole:
                assert torch.equal(whole[name][part.e_id], part[name])


@pytest.mark.parametrize("num_workers", [0, 2])
@pytest.mark.parametrize("disjoint", [False, True])
@pytest.mark.parametrize("kind", ["plain", "typed"])
def test_node_loader(kind, disjoint, num_workers):
    data = plain_graph() if kind == "plain" else typed_graph()
    loader = NodeLoader(
        data,
        KHopSampler(data, [3, 2], disjoint=disjoint),
        input_nodes=None if kind == "plain" else "item",
        batch_size=4,
        num_workers=num_workers,
    )
    seen = []
    for batch in loader:
        assert_consistent(data, batch)
        store = batch if kind == "plain" else batch["item"]
        seen += store.n_id[: store.batch_size].tolist()
        assert torch.equal(store.x, (data if kind == "plain" else data["item"]).x[store.n_id])
        if disjoint:
            assert store.batch[: store.batch_size].tolist() == list(range(store.batch_size))
    assert seen == list(range(12 if kind == "plain" else 11))


@pytest.mark.parametrize("exclude", [False, True])
@pytest.mark.parametrize("negatives", [None, "binary", "triplet"])
@pytest.mark.parametrize("disjoint", [False, True])
@pytest.mark.parametrize("kind", ["plain", "typed", "typed, one node type"])
def test_link_loader(kind, disjoint, negatives, exclude):
    data = plain_graph() if kind == "plain" else typed_graph()
    link_type = {"plain": None, "typed": LISTENS}.get(kind, FOLLOWS)
    links = data.edge_index if link_type is None else data[link_type].edge_index
    loader = LinkLoader(
        data,
        KHopSampler(data, [3, 2], disjoint=disjoint, exclude_supervision=exclude),
        edge_label_index=links if link_type is None else (link_type, links),
        edge_label=None if negatives == "triplet" else torch.ones(links.size(1)),
        neg_sampling=None if negatives is None else NegativeSampling(negatives, 2),
        batch_size=5,
        num_workers=2 if negatives == "triplet" and disjoint else 0,
    )
    first = 0
    for batch in loader:
        assert_consistent(data, batch)
        head, tail = (batch, batch) if link_type is None else (batch[link_type[0]], batch[link_type[2]])
        wanted = links[:, first : first + 5]
        num_links, first = wanted.size(1), first + 5
        if negatives == "triplet":
            assert torch.equal(head.n_id[head.src_index], wanted[0])
            assert torch.equal(tail.n_id[tail.dst_pos_index], wanted[1])
            assert tail.dst_neg_index.shape == (num_links, 2)
            pairs = [(head.src_index, tail.dst_pos_index), (head.src_index, tail.dst_neg_index.t().flatten())]
        else:
            store = batch if link_type is None else batch[link_type]
            index = store.edge_label_index
            assert torch.equal(head.n_id[index[0, :num_links]], wanted[0])
            assert torch.equal(tail.n_id[index[1, :num_links]], wanted[1])
            assert index.size(1) == num_links * (1 if negatives is None else 3)
            assert store.edge_label.sum() == num_links
            pairs = [index]
        if disjoint:  # What belongs to one link has its number.
            for source, target in pairs:
                for part in target.split(source.numel()):
                    assert torch.equal(head.batch[source], tail.batch[part])
                assert torch.equal(head.batch[source], torch.arange(source.numel()) % num_links)


@pytest.mark.parametrize("disjoint", [False, True])
def test_convolutions_see_the_whole_graph(disjoint):
    data = plain_graph(num_nodes=40, num_edges=120)
    convs = torch.nn.ModuleList([RGCNConv(5, 8, 4), RGCNConv(8, 3, 4)])
    whole = data.x
    for conv in convs:
        whole = conv(whole, data.edge_index, data.edge_type).tanh()
    for batch in NodeLoader(data, KHopSampler(data, [-1, None], disjoint=disjoint), batch_size=9):
        x, trimmed = batch.x, (batch.x, batch.edge_index, batch.edge_type)
        for layer, conv in enumerate(convs):
            x = conv(x, batch.edge_index, batch.edge_type).tanh()
            trimmed = trim_to_layer(
                layer, batch.num_sampled_nodes, batch.num_sampled_edges, *trimmed[:2], trimmed[2]
            )
            trimmed = (conv(*trimmed).tanh(), *trimmed[1:])
        for out in (x, trimmed[0]):
            torch.testing.assert_close(out[: batch.batch_size], whole[batch.n_id[: batch.batch_size]])


@pytest.mark.parametrize("disjoint", [False, True])
def test_typed_convolutions_see_the_whole_graph(disjoint):
    data = typed_graph()
    convs = [
        HeteroConv({name: SAGEConv(5, 5) for name in data.edge_types if name[0] != "nobody"})
        for _ in range(2)
    ]

    def embed(graph):
        x = graph.x_dict
        for conv in convs:
            x = {name: value.tanh() for name, value in conv(x, graph.edge_index_dict).items()}
        return x

    whole = embed(data)
    loader = LinkLoader(
        data,
        KHopSampler(data, [-1, -1], disjoint=disjoint),
        edge_label_index=(LISTENS, data[LISTENS].edge_index),
        batch_size=7,
    )
    for batch in loader:
        x = embed(batch)
        for place, name in enumerate(("user", "item")):
            index = batch[LISTENS].edge_label_index[place]
            torch.testing.assert_close(x[name][index], whole[name][batch[name].n_id[index]])


BUYS, BOUGHT_BY = ("user", "buys", "item"), ("item", "bought_by", "user")
BOTH = (False, True)  # As predicted, and reversed.
LEAKY = [
    "plain, directed",
    "plain, undirected",
    "two node types",
    "the reverse",
    "one node type",
    "one node type, reverse apart",
    "reverse with a name of its own",
    "a named reverse that is predicted",
]


def leaky_graph(name):
    """A graph in which links can be seen from both ends, the type of those that are predicted, the types that
    hold them, as they are and reversed, and the reverse that must be named.
    """
    data = plain_graph(num_edges=40) if name.startswith("plain") else typed_graph()
    if name == "plain, directed":
        return data, None, {("node", "to", "node"): BOTH}, None
    if name == "plain, undirected":
        data.edge_index = torch.cat([data.edge_index, data.edge_index.flip(0)], dim=1)
        data.edge_type = data.edge_type.repeat(2)
        return data, None, {("node", "to", "node"): BOTH}, None
    if name == "two node types":
        return data, LISTENS, {LISTENS: [False], REVERSE: [True]}, None
    if name == "the reverse":
        return data, REVERSE, {REVERSE: [False], LISTENS: [True]}, None
    if name == "one node type":
        return data, KG, {KG: BOTH}, None
    if name == "one node type, reverse apart":
        data = HeteroData({"user": {"num_nodes": 8}, FOLLOWS: {"edge_index": torch.randint(8, (2, 30))}})
        data = ToUndirected(merge=False)(data)
        return data, FOLLOWS, {FOLLOWS: BOTH, ("user", "rev_follows", "user"): BOTH}, None
    data[BUYS].edge_index = torch.stack([torch.randint(8, (25,)), torch.randint(11, (25,))])
    data[BOUGHT_BY].edge_index = data[BUYS].edge_index.flip(0)[:, torch.randperm(25)]
    named = {BUYS: BOUGHT_BY}
    if name == "reverse with a name of its own":
        return data, BUYS, {BUYS: [False], BOUGHT_BY: [True]}, named
    return data, BOUGHT_BY, {BOUGHT_BY: [False], BUYS: [True]}, named


def supervised_pairs(batch, link_type, negatives):
    """The pairs of nodes that a batch is to predict, as PyG's loader hands them out."""
    head, tail = (batch, batch) if link_type is None else (batch[link_type[0]], batch[link_type[2]])
    if negatives is not None and negatives.is_triplet():
        targets = tail.dst_neg_index.view(head.src_index.numel(), -1).tolist()
        local = [
            (source, target)
            for source, positive, others in zip(
                head.src_index.tolist(), tail.dst_pos_index.tolist(), targets, strict=True
            )
            for target in (positive, *others)
        ]
    else:
        store = batch if link_type is None else batch[link_type]
        local = store.edge_label_index.t().tolist()
    return {(int(head.n_id[source]), int(tail.n_id[target])) for source, target in local}


def reachable(edge_index, seeds, gone, num_hops):
    """Which edges lead to the seeds, by type, so many hops deep, walked one by one without those gone."""
    frontier = {name: set(nodes) for name, nodes in seeds.items()}
    seen = {name: set(nodes) for name, nodes in seeds.items()}
    taken = {edge_type: set() for edge_type in edge_index}
    for _ in range(num_hops):
        found = {}
        for (head, name, tail), (sources, targets) in edge_index.items():
            for e, (source, target) in enumerate(zip(sources, targets, strict=True)):
                if target in frontier.get(tail, ()) and (source, target) not in gone[head, name, tail]:
                    taken[head, name, tail].add(e)
                    if source not in seen.setdefault(head, set()):
                        seen[head].add(source)
                        found.setdefault(head, set()).add(source)
        frontier = found
    return taken


NEGATIVES = [None, *(("binary", amount) for amount in (1, 2, 0.4, 1.7))]
NEGATIVES += [("triplet", amount) for amount in (1, 2, 3, 2.0)]


@pytest.mark.parametrize("negatives", NEGATIVES)
@pytest.mark.parametrize("disjoint", [False, True])
@pytest.mark.parametrize("name", LEAKY)
def test_a_batch_sees_everything_but_its_links(name, disjoint, negatives):
    torch.manual_seed(0)
    data, link_type, holders, named = leaky_graph(name)
    links = data.edge_index if link_type is None else data[link_type].edge_index
    # Popular nodes are drawn most, so that many negatives are edges of the graph as well.
    num_nodes = [data.num_nodes] * 2 if link_type is None else [data[t].num_nodes for t in link_type[::2]]
    weights = [torch.bincount(row, minlength=n) + 0.1 for row, n in zip(links, num_nodes, strict=True)]
    if negatives is not None:
        negatives = NegativeSampling(*negatives, *weights)
    sampler = KHopSampler(
        data, [-1, -1], disjoint=disjoint, exclude_supervision=True, reverse_edge_types=named
    )
    loader = LinkLoader(
        data,
        sampler,
        edge_label_index=links if link_type is None else (link_type, links),
        neg_sampling=negatives,
        batch_size=3,
        shuffle=True,
    )
    edge_index, spared = edge_lists(data), 0
    for batch in loader:
        pairs = supervised_pairs(batch, link_type, negatives)
        gone = {edge_type: set() for edge_type in edge_index}
        for edge_type, directions in holders.items():
            gone[edge_type] = {pair[::-1] if back else pair for pair in pairs for back in directions}
        head, tail = ("node", "node") if link_type is None else link_type[::2]
        seeds = {head: set(), tail: set()}
        for source, target in pairs:
            seeds[head].add(source)
            seeds[tail].add(target)
        stores = [batch] if link_type is None else [batch[edge_type] for edge_type in edge_index]
        want = reachable(edge_index, seeds, gone, 2)
        got = {
            edge_type: set(store.e_id.tolist()) for edge_type, store in zip(edge_index, stores, strict=True)
        }
        assert got == want
        spared += sum(
            len(edges) for edges in reachable(edge_index, seeds, dict.fromkeys(edge_index, ()), 2).values()
        )
        spared -= sum(len(edges) for edges in want.values())
    assert spared > 0


@pytest.mark.parametrize("amount", [0.4, 1, 1.7, 2])
@pytest.mark.parametrize("kind", ["plain", "typed", "typed, one node type"])
def test_both_nodes_of_a_pair_belong_to_one_link(kind, amount):
    data = plain_graph() if kind == "plain" else typed_graph()
    link_type = {"plain": None, "typed": LISTENS}.get(kind, FOLLOWS)
    links = data.edge_index if link_type is None else data[link_type].edge_index
    loader = LinkLoader(
        data,
        KHopSampler(data, [2]),
        edge_label_index=links if link_type is None else (link_type, links),
        neg_sampling=NegativeSampling("binary", amount),
        batch_size=5,
    )
    for batch in loader:
        head, tail = (batch, batch) if link_type is None else (batch[link_type[0]], batch[link_type[2]])
        index = (batch if link_type is None else batch[link_type]).edge_label_index
        num_links = int((batch if link_type is None else batch[link_type]).edge_label.sum())
        wanted = [i % num_links for i in range(index.size(1))]
        assert head.batch[index[0]].tolist() == tail.batch[index[1]].tolist() == wanted


def test_negatives_are_those_of_the_class_that_was_given():
    class Last(NegativeSampling):
        def sample(self, num_samples, endpoint, num_nodes=None):
            return torch.full((num_samples,), num_nodes - 1)

    data = plain_graph()
    sampler = KHopSampler(data, [2], exclude_supervision=True)
    loader = LinkLoader(data, sampler, data.edge_index, neg_sampling=Last("triplet", 2), batch_size=50)
    batch = next(iter(loader))
    assert batch.n_id[batch.dst_neg_index].tolist() == [[11, 11]] * 50
    with pytest.raises(ValueError, match=r"dst_weight has shape \(3,\).*12 nodes"):
        sampler.sample_from_edges(
            EdgeSamplerInput(None, *data.edge_index), NegativeSampling("triplet", 1, dst_weight=torch.ones(3))
        )
    for weight in ([1.0] * 12, torch.ones(12, dtype=torch.long)):
        with pytest.raises(ValueError, match=r"src_weight .*floating-point"):
            sampler.sample_from_edges(
                EdgeSamplerInput(None, *data.edge_index), NegativeSampling("binary", 1, src_weight=weight)
            )


def test_the_rest_is_drawn_as_before():
    # Into node 0: three edges from 3 and one each from 1, 2, 4, 5, 6, 7; links from 3 and 5 leave five.
    edge_index = torch.tensor([[3, 1, 2, 3, 4, 5, 3, 6, 7], [0] * 9])
    data = Data(edge_index=edge_index, num_nodes=8)
    sampler = KHopSampler(data, [2], exclude_supervision=True)
    draws = 10_000
    row, col = torch.tensor([3, 5]).repeat(draws), torch.zeros(2 * draws, dtype=torch.long)
    out = sampler.sample_from_edges(EdgeSamplerInput(torch.arange(2 * draws), row, col))
    assert out.edge.numel() == 2 * 2 * draws  # The fanout is filled.
    pairs = Counter(map(frozenset, out.edge.view(-1, 2).tolist()))
    assert set(pairs) == set(map(frozenset, combinations([1, 2, 4, 7, 8], 2)))
    # Nine degrees of freedom: 27.9 is passed once in a thousand.
    assert sum((n - 2 * draws / 10) ** 2 / (2 * draws / 10) for n in pairs.values()) < 27.9

    # Fewer than the fanout remain.
    sampler = KHopSampler(data, [8], exclude_supervision=True)
    out = sampler.sample_from_edges(EdgeSamplerInput(None, torch.tensor([3]), torch.tensor([0])))
    assert sorted(out.edge.tolist()) == [1, 2, 4, 5, 7, 8]


def test_links_of_a_type_that_the_graph_lacks():
    data = typed_graph()
    del data[LISTENS]
    out = KHopSampler(data, [-1], exclude_supervision=True).sample_from_edges(
        EdgeSamplerInput(None, torch.tensor([0]), torch.tensor([1]), input_type=LISTENS)
    )
    edge = data[REVERSE].edge_index
    wanted = (edge[1] == 0) & (edge[0] != 1)
    assert sorted(out.edge[REVERSE].tolist()) == wanted.nonzero().flatten().tolist()


def draw(loader):
    return [batch.e_id.tolist() for batch in loader]


def test_randomness():
    data = plain_graph()
    seeds = torch.tensor([0, 1, 2]).repeat(4)  # Every batch is the same.
    for num_workers in (0, 2):
        loader = NodeLoader(
            data, KHopSampler(data, [2, 2]), input_nodes=seeds, batch_size=3, num_workers=num_workers
        )
        drawn = []
        for state in (1, 1, 2):
            torch.manual_seed(state)
            drawn.append(draw(loader))
        assert drawn[0] == drawn[1] != drawn[2]
        assert len(set(map(tuple, drawn[0]))) == 4  # No two workers draw alike.

    drawn = []
    for state in (1, 1, 2):
        sampler = KHopSampler(data, [2, 2], generator=torch.Generator().manual_seed(state))
        drawn.append(draw(NodeLoader(data, sampler, input_nodes=seeds, batch_size=3)))
    assert drawn[0] == drawn[1] != drawn[2]

    loader = NodeLoader(data, sampler, input_nodes=seeds, batch_size=3, num_workers=1)
    with pytest.raises(ValueError, match="each worker of a loader would have a copy of the generator"):
        draw(loader)


def test_no_edges_and_no_seeds():
    data = Data(edge_index=torch.empty(2, 0, dtype=torch.long), num_nodes=3)
    for disjoint in (False, True):
        sampler = KHopSampler(data, [2, 2], disjoint=disjoint, exclude_supervision=True)
        out = sampler.sample_from_nodes(NodeSamplerInput(None, torch.tensor([2, 0, 2])))
        assert out.node.tolist() == [2, 0, 2]
        assert out.row.numel() == out.col.numel() == out.edge.numel() == 0
        assert (out.num_sampled_nodes, out.num_sampled_edges) == ([3, 0, 0], [0, 0])
        out = sampler.sample_from_edges(EdgeSamplerInput(None, torch.tensor([2]), torch.tensor([0])))
        assert out.edge.numel() == 0
        out = sampler.sample_from_nodes(NodeSamplerInput(None, torch.empty(0, dtype=torch.long)))
        assert out.node.numel() == 0


def test_bad_arguments():
    data, typed = plain_graph(), typed_graph()
    for num_neighbors, message in (
        ([], "one or more hops"),
        ([2, 0], "each hop keeps at least one"),
        ([2, -2], "whole numbers"),
        ([2, 0.5], "whole numbers"),
        ({("node", "to", "node"): [2]}, "those of the graph are none"),
    ):
        with pytest.raises(ValueError, match=message):
            KHopSampler(data, num_neighbors)
        with pytest.raises(ValueError, match=message):
            k_hop_sampler(data, num_neighbors)
    fanouts = {LISTENS: [2, 1], REVERSE: [2, 1], FOLLOWS: [2, 0], KG: [2, 0]}
    KHopSampler(typed, fanouts)
    for name, value, message in (
        (KG, [2], "as many for all types"),
        (("item", "unknown", "item"), [2, 1], "names the types of edges"),
    ):
        with pytest.raises(ValueError, match=message):
            KHopSampler(typed, {**fanouts, name: value})
    with pytest.raises(ValueError, match="names the types of edges"):
        KHopSampler(typed, {LISTENS: [2, 1]})
    for hops in (2, None, "21", [True, 1], ["2", 1], [2, None, -3], [1.0, 2]):
        with pytest.raises(ValueError, match="num_neighbors="):
            KHopSampler(typed, {**fanouts, KG: hops})
        with pytest.raises(ValueError, match="num_neighbors="):
            KHopSampler(typed, hops)
    with pytest.raises(ValueError, match="each hop keeps at least one"):
        KHopSampler(typed, {name: [2, 0] for name in fanouts})
    with pytest.raises(ValueError, match="a Data or HeteroData is needed, but this is a tuple"):
        KHopSampler((typed, typed), [2])
    with pytest.raises(ValueError, match="have no edge_index"):
        KHopSampler(Data(x=torch.ones(3, 1)), [2])
    with pytest.raises(ValueError, match="no types of edges"):
        KHopSampler(HeteroData(), [2])
    with pytest.raises(IndexError, match=r"edge_index\[0\] holds"):
        KHopSampler(Data(edge_index=data.edge_index, num_nodes=3), [2])

    sampler, node = KHopSampler(data, [2]), torch.tensor([0, 12])
    with pytest.raises(IndexError, match=r"node of the seeds holds 12"):
        sampler.sample_from_nodes(NodeSamplerInput(None, node))
    with pytest.raises(IndexError, match=r"col of the seeds holds 12"):
        sampler.sample_from_edges(EdgeSamplerInput(None, node[:1], node[1:]))
    with pytest.raises(ValueError, match="does not sample by time"):
        sampler.sample_from_nodes(NodeSamplerInput(None, node, time=node))
    with pytest.raises(ValueError, match="does not sample by time"):
        sampler.sample_from_edges(EdgeSamplerInput(None, node[:1], node[:1], time=node[:1]))
    sampler._num_nodes = {"node": 2**62}  # No such graph fits into memory.
    with pytest.raises(ValueError, match="2 subgraphs of up to 4611686018427387904 nodes are too many"):
        sampler._sample(torch.tensor([0, 1]))


def test_forms_of_num_neighbors():
    data, seed = typed_graph(), SEEDS["typed"]
    whole = {name: [-1, 2] for name in data.edge_types}
    forms = [
        [-1, 2],
        (None, np.int64(2)),
        whole,
        NumNeighbors([-1, 2]),
        NumNeighbors({KG: [-1, 2]}, default=[-1, 2]),
    ]
    outs = [sample(KHopSampler(data, form, generator=seeded(1)), data, seed) for form in forms]
    for out in outs[1:]:
        assert all(torch.equal(out.edge[name], outs[0].edge[name]) for name in data.edge_types)
    with pytest.raises(ValueError, match="Missing number of neighbors"):
        KHopSampler(data, NumNeighbors({KG: [-1, 2]}))
    with pytest.raises(ValueError, match="Not all edge types"):
        KHopSampler(data, NumNeighbors({("user", "sees", "item"): [1]}, default=[2]))


def seeded(state):
    return torch.Generator().manual_seed(state)


def test_types_that_the_graph_lacks():
    data = HeteroData()
    data["a", "to", "b"].edge_index = torch.tensor([[0, 1], [0, 1]])
    with pytest.raises(ValueError, match=r"edges \('a', 'to', 'b'\) join nodes 'a'.*data\['a'\].num_nodes"):
        KHopSampler(data, [2])
    data["a"].num_nodes = 2
    with pytest.raises(ValueError, match=r"data\['b'\].num_nodes"):
        KHopSampler(data, [2])
    data["b"].num_nodes = 2
    typed, plain = KHopSampler(data, [2]), KHopSampler(plain_graph(), [2])
    node = torch.tensor([0])
    for sampler, kind, message in (
        (typed, "c", r"input_type='c' of the seeds, but one of the types of nodes \['a', 'b'\]"),
        (typed, None, r"input_type=None of the seeds, but one of"),
        (typed, ["a"], r"input_type=\['a'\] of the seeds, but one of"),
        (plain, "node", r"input_type='node' of the seeds, but the graph has no types"),
    ):
        with pytest.raises(ValueError, match=message):
            sampler.sample_from_nodes(NodeSamplerInput(None, node, input_type=kind))
    for sampler, kind, message in (
        (typed, ("a", "to", "c"), "a type of edges between the types of nodes"),
        (typed, ("a", "b"), "a type of edges between the types of nodes"),
        (typed, "a__to__b", "a type of edges between the types of nodes"),
        (typed, None, "a type of edges between the types of nodes"),
        (plain, ("node", "to", "node"), "the graph has no types"),
    ):
        with pytest.raises(ValueError, match=f"input_type=.* of the seeds, but {message}"):
            sampler.sample_from_edges(EdgeSamplerInput(None, node, node, input_type=kind))
    with pytest.raises(ValueError, match=r"col of the seeds has shape \(2,\) .* 1 seeds"):
        plain.sample_from_edges(EdgeSamplerInput(None, node, node.repeat(2)))
    with pytest.raises(ValueError, match="no link to draw triplets for"):
        plain.sample_from_edges(EdgeSamplerInput(None, node[:0], node[:0]), NegativeSampling("triplet"))
    out = plain.sample_from_edges(EdgeSamplerInput(None, node[:0], node[:0]), NegativeSampling("binary"))
    assert out.node.numel() == out.edge.numel() == 0


def test_the_choice_of_a_sampler(monkeypatch):
    data, typed = plain_graph(), typed_graph()
    monkeypatch.setattr(torch_geometric.typing, "WITH_PYG_LIB", False)
    ours = k_hop_sampler(data, [3, None], disjoint=False, replace=True)
    assert type(ours) is KHopSampler
    assert (ours.disjoint, ours.replace, ours.exclude_supervision) == (False, True, False)

    monkeypatch.setattr(torch_geometric.typing, "WITH_PYG_LIB", True)
    assert k_hop_sampler(data, [3], exclude_supervision=True).exclude_supervision
    theirs = k_hop_sampler(data, [3, None], disjoint=False, replace=True)
    assert type(theirs) is pyg_sampler.NeighborSampler
    assert theirs.num_neighbors.get_mapped_values() == [3, -1]
    assert (theirs.disjoint, theirs.replace) == (False, True)
    theirs = k_hop_sampler(typed, {LISTENS: [2], REVERSE: [None], FOLLOWS: [0], KG: [-1]})
    assert theirs.num_neighbors.get_values(typed.edge_types) == {
        LISTENS: [2],
        REVERSE: [-1],
        FOLLOWS: [0],
        KG: [-1],
    }
    assert theirs.disjoint
