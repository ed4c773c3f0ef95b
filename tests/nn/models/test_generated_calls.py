"""Models with arguments that make no sense, made and asked."""

import torch
from hypothesis import strategies as st

from mgwa_pyg.nn import KGCN, MGWA, CollaborativeMGWA, RippleNet
from mgwa_pyg.ops import RelationCSR
from mgwa_pyg.sampler import NeighborSampler
from tests.damage import answer, damaged, examples, faults_of

USERS, ITEMS, ENTITIES, RELATIONS = 5, 4, 9, 3
SIZES = {"num_users": USERS, "num_entities": ENTITIES, "num_relations": RELATIONS}
LAYERS = {**SIZES, "channels": 4, "num_layers": 2, "dropout": 0.0, "fusion": "sum", "backend": "auto"}
OPTIONS = {
    MGWA: {**LAYERS, "score_activation": "sigmoid"},
    KGCN: {**LAYERS, "equations": "official", "num_neighbors": 8},
    RippleNet: {
        **{"num_entities": ENTITIES, "num_relations": RELATIONS, "channels": 4, "num_hops": 2},
        "item_update": "plus_transform",
    },
    CollaborativeMGWA: {
        **{"num_items": ITEMS, "num_entities": ENTITIES, "num_relations": RELATIONS, "channels": 4},
        **{"num_layers": 2, "dropout": 0.0, "degree_power": 0.5, "fusion": "highway", "backend": "auto"},
    },
}
#: The questions to each model: their tensors, numbers and lists.
NEIGHBORHOOD = (["user", "node", "edge_index", "edge_type", "batch"], [])
NODES, EDGES = "num_sampled_nodes", "num_sampled_edges"
LISTS = [None, [], [3], [3, 0, 0], [3, -1, 1], [3, 10**6, 1], [1, 2, 3], 3, "3", [3.0, 1.0, 1.0], [None] * 3]
ASKED = {
    (MGWA, "forward"): NEIGHBORHOOD,
    (KGCN, "forward"): NEIGHBORHOOD,
    (MGWA, "rank"): (["users", "exclude"], ["k", "num_items", "max_bytes", "graph"]),
    (RippleNet, "forward"): (["item", "memory", "edge_index", "edge_type"], []),
    (RippleNet, "kge_loss"): (["memory", "edge_index", "edge_type"], []),
    (CollaborativeMGWA, "graph"): (["interactions", "edge_index", "edge_type"], ["num_users"]),
    (CollaborativeMGWA, "forward"): (["user", "item"], ["graph"]),
    (CollaborativeMGWA, "rank"): (["users", "exclude"], ["k", "graph"]),
}


def good_arguments(kind, method, draw):
    """What the models with the sizes above take."""

    def numbers(stop, *shape):
        return torch.randint(stop, shape, generator=draw)

    edge_index, edge_type = numbers(ENTITIES, 2, 20), numbers(RELATIONS, 20)
    edges = {"edge_index": edge_index, "edge_type": edge_type}
    if method == "forward" and kind in (MGWA, KGCN):
        found = NeighborSampler(edge_index, edge_type, ENTITIES, 2).sample(numbers(ITEMS, 3), 2, draw)
        return {"user": numbers(USERS, 3), **found._asdict()}
    if kind is MGWA:
        graph = RelationCSR.from_edge_index(edge_index, edge_type, RELATIONS, (ENTITIES, ENTITIES))
        exclude = torch.stack([numbers(USERS, 6), numbers(ITEMS, 6)])
        return {
            "users": numbers(USERS, 3),
            "k": 3,
            "graph": graph,
            "num_items": ITEMS,
            "exclude": exclude,
            "max_bytes": None,
        }
    if kind is RippleNet:
        memory = numbers(20, 3, 2, 4)
        return (
            {"item": numbers(ITEMS, 3), "memory": memory, **edges}
            if method == "forward"
            else {"memory": memory, **edges}
        )
    listens = torch.stack([numbers(USERS, 8), numbers(ITEMS, 8)])
    if method == "graph":
        return {"interactions": listens, **edges, "num_users": USERS}
    graph = CollaborativeMGWA(**OPTIONS[CollaborativeMGWA]).graph(listens, edge_index, edge_type, USERS)
    if method == "rank":
        return {"users": numbers(USERS, 3), "k": 2, "graph": graph, "exclude": listens}
    return {"user": numbers(USERS, 3), "item": numbers(ITEMS, 3), "graph": graph}


def tensors_of(value):
    if isinstance(value, RelationCSR):
        return [value.rowptr, value.col, value.dst, value.rel]
    return [value] if isinstance(value, torch.Tensor) else list(value)


def question_to(kind, method):
    tensors, numbers = ASKED[kind, method]
    words = [name for name, value in OPTIONS[kind].items() if isinstance(value, str)]
    return st.tuples(
        st.just((kind, method)),
        faults_of([], [name for name in OPTIONS[kind] if name not in words], words),
        faults_of(tensors, numbers),
        st.sampled_from([*[None] * 8, *LISTS]),
    )


@examples(
    "models",
    question=st.one_of([question_to(*asked) for asked in ASKED]),
    seed=st.integers(0, 99),
    which=st.sampled_from([NODES, EDGES]),
)
def test_models(question, seed, which):
    (kind, method), option_faults, faults, sizes = question
    draw = torch.Generator().manual_seed(seed)
    options = damaged(OPTIONS[kind], option_faults)
    good = good_arguments(kind, method, draw)
    given = damaged(good, faults)
    if sizes is not None and which in given:
        given[which] = sizes
    torch.manual_seed(0)
    model = answer(options, lambda: kind(**options))
    if model is None:
        assert option_faults
        return
    model.eval()
    out = answer([*good, *options], lambda: getattr(model, method)(*given.values()))
    if out is None:
        assert option_faults or faults or sizes is not None
        return
    whole = {
        name: value.long().contiguous() if isinstance(value, torch.Tensor) else value
        for name, value in given.items()
    }
    want = getattr(model, method)(*whole.values())
    for got, wanted in zip(tensors_of(out), tensors_of(want), strict=True):
        assert not got.isnan().any()
        torch.testing.assert_close(got, wanted, check_dtype=False)
