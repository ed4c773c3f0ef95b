"""The paper's equations by plain Python loops over nodes and edges: slow, obvious, in double precision."""

import torch


def activate(score, name):
    if name == "sigmoid":
        return 1 / (1 + torch.exp(-score))
    if name == "tanh":
        return 1 - 2 / (torch.exp(2 * score) + 1)
    if name == "leaky_relu":
        return score if score > 0 else 0.2 * score
    return score


def attention(edges, queries, relation, activation, extra=None):
    """Eqs. 4 and 5 for one head: the attention of each edge ``(source, target, type)``.

    ``queries[v]`` is the query of target ``v``, and ``extra[e]`` a vector added to the relation of edge e.
    """
    score = []
    for number, (_, target, kind) in enumerate(edges):
        vector = relation[kind] if extra is None else relation[kind] + extra[number]
        dot = sum(queries[target][d] * vector[d] for d in range(len(vector)))
        score.append(activate(dot, activation))
    alpha = []
    for number, (_, target, _) in enumerate(edges):
        others = [score[other] for other, edge in enumerate(edges) if edge[1] == target]
        highest = max(others)  # Nothing changes but that no exponential is too large.
        alpha.append(torch.exp(score[number] - highest) / sum(torch.exp(other - highest) for other in others))
    return alpha


def aggregate(edges, alpha, x_source, num_targets):
    """Eq. 3: the neighbourhood of each target, zero where there is none."""
    rows = []
    for node in range(num_targets):
        row = torch.zeros(x_source.size(1), dtype=x_source.dtype)
        for number, (source, target, _) in enumerate(edges):
            if target == node:
                row = row + alpha[number] * x_source[source]
        rows.append(row)
    return rows


def scale_by_degree(edges, rows, power):
    """Each target's row times the number of its edges to this power, where there are any."""
    scaled = []
    for node, row in enumerate(rows):
        count = sum(1 for _, target, _ in edges if target == node)
        scaled.append(row * float(count) ** power if count > 0 else row)
    return scaled


def fuse(name, x, neighborhood, parameters):
    """Eqs. 8 to 10, KGCN's aggregators and those that keep the width, for one node and one head."""
    if name == "identity":
        return neighborhood
    if name == "sum":
        return (x + neighborhood) @ parameters["W"] + parameters["b"]
    if name == "neighbor":
        return neighborhood @ parameters["W"] + parameters["b"]
    z = torch.cat([x, neighborhood])
    if name == "concat":
        return z @ parameters["W"] + parameters["b"]
    gate = 1 / (1 + torch.exp(-(z @ parameters["W"] + parameters["b"])))
    if name == "highway":
        return gate * x + (1 - gate) * neighborhood
    return gate * (z @ parameters["V"] + parameters["c"])


def head_parameters(fusion, name, head, heads):
    """The equations' matrices, cut out of the layer's merged maps."""
    state = dict(fusion.named_parameters())
    if name == "identity":
        return {}

    def cut(key):
        tensor = state[key]
        return tensor.view(heads, tensor.size(0) // heads, *tensor.shape[1:])[head]

    if name == "sum":
        return {"W": cut("lin.weight").t(), "b": cut("lin.bias")}
    W, b = cut("lin_neighbor.weight").t(), cut("lin_neighbor.bias")
    if name == "neighbor":
        return {"W": W, "b": b}
    merged = torch.cat([cut("lin_self.weight").t(), W])
    if name in ("concat", "highway"):
        return {"W": merged, "b": b}
    (V, W), (c, b) = merged.chunk(2, dim=1), b.chunk(2)
    return {"V": V, "c": c, "W": W, "b": b}


def width(fusion, in_channels, out_channels):
    """The width of a layer's result: ``out_channels``, unless its fusion keeps that of the input."""
    return in_channels if fusion in ("highway", "identity") else out_channels


def randomize(module, std=1.0):
    """Draw all parameters, so that no term of the equations is missing because it starts at zero."""
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter, std=std)
    return module


def assert_same(got, want, inputs, want_inputs=None):
    """Equal values, and equal gradients by all inputs; those of the wanted values may be others."""
    torch.testing.assert_close(got, want)
    inputs = list(inputs)
    weight = torch.randn_like(want)
    gradients = (
        torch.autograd.grad((out * weight).sum(), leaves, allow_unused=True, materialize_grads=True)
        for out, leaves in ((got, inputs), (want, want_inputs or inputs))
    )
    torch.testing.assert_close(*gradients)
