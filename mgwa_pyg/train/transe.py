"""TransE pre-training: embeddings of entities and relations from the triples alone."""

from __future__ import annotations

from dataclasses import dataclass

import lightning as L
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import DataLoader
from torch_geometric.data import HeteroData
from torch_geometric.nn.kge import TransE

from mgwa_pyg.evaluation.link_prediction import filtered_ranks, link_prediction_metrics
from mgwa_pyg.train.trainer import lightning_as_guest, make_trainer
from mgwa_pyg.utils.modes import plain_modes

# The share of the triples that is held out for choosing, and again for testing.
_HELD_OUT = 0.05
# Triples ranked at once: each asks for the distances to all entities, twice.
_CHUNK = 32


@dataclass(frozen=True)
class TransEResult:
    """What TransE has learnt, and how well it completes the knowledge graph."""

    entity: Tensor
    r"""The entities' embeddings of length 1, as TransE scores with them, :math:`(N, d)`."""
    relation: Tensor
    r"""The relations' embeddings, :math:`(R, d)`."""
    metrics: dict[str, float | None]
    """``mrr`` and ``hits@10`` of the test triples, filtered, head and tail queries together; the same
    ``_without_twins``, of those whose head and tail no training triple joins under another relation
    (:obj:`None` if there are none); ``twins``, the share of the test triples that have such a twin; and
    ``val_mrr``, the MRR of the validation triples, to choose hyper-parameters by."""


class _TransEModule(L.LightningModule):
    """Learns triples by the margin loss of PyG's TransE, one corrupted triple for each true one."""

    def __init__(self, model: TransE, lr: float) -> None:
        super().__init__()
        self.model = model
        self.lr = lr

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), lr=self.lr, fused=True)

    def training_step(self, batch: tuple[Tensor, Tensor, Tensor], batch_idx: int) -> Tensor:
        return self.model.loss(*batch)


@plain_modes()
def fit_transe(
    data: HeteroData,
    num_relations: int,
    channels: int,
    seed: int = 0,
    lr: float = 3e-2,
    batch_size: int = 1024,
    margin: float = 1.0,
    epochs: int = 100,
) -> TransEResult:
    r"""Learn embeddings by `"Translating Embeddings for Modeling Multi-relational Data"
    <https://papers.nips.cc/paper/5071-translating-embeddings-for-modeling-multi-relational-data>`_ (TransE;
    eqs. 1-2 of the MGWA paper), with which a recommender may begin.

    A triple is as true as the distance :math:`\Vert \mathbf{e}_h + \mathbf{e}_r - \mathbf{e}_t \Vert_2` is
    small, with entities of length 1; each triple is to be nearer than one whose head or tail is replaced
    at random, by a margin. 90 % of the triples are trained on; 5 % are held out to choose hyper-parameters
    by and 5 % to test. The paper states none of its hyper-parameters: the defaults were chosen by
    the validation MRR on Last.FM, for 8 and 16 channels.

    On Last.FM two thirds of the test triples repeat the ends of a training triple under another relation,
    which is easily learnt: look at the metrics without these twins, too.

    Runs on the CPU. The same seed gives the same result bit for bit, and torch's own generator is left as
    it was.

    Args:
        data (HeteroData): A data set in the schema of :mod:`mgwa_pyg.datasets`.
        num_relations (int): The number of relations :math:`R`, inverses not counted.
        channels (int): The size :math:`d` of the embeddings.
        seed (int, optional): The seed of split, initialisation, order and negatives. (default: :obj:`0`)
        lr (float, optional): The learning rate of Adam. (default: :obj:`3e-2`)
        batch_size (int, optional): Triples per step. (default: :obj:`1024`)
        margin (float, optional): The margin of the loss. (default: :obj:`1.0`)
        epochs (int, optional): The number of epochs. (default: :obj:`100`)

    Raises:
        ValueError: If a hyper-parameter is out of range, :obj:`num_relations` does not fit the data, or there
            are too few triples to hold any out.
        RuntimeError: If the embeddings leave the finite numbers.
    """
    if min(channels, batch_size, epochs) < 1 or lr <= 0 or margin <= 0:
        raise ValueError(
            f"channels={channels}, batch_size={batch_size}, epochs={epochs}, lr={lr} and margin={margin}: "
            f"the first three must be at least 1, the others positive"
        )
    triples = _triples(data, num_relations)
    train, val, test = _split(triples, seed)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        model = TransE(data["entity"].num_nodes, num_relations, channels, margin=margin, p_norm=2.0)
        loader = model.loader(*train, batch_size=batch_size, shuffle=True)
        _quiet_fit(_TransEModule(model, lr), loader, epochs)
    if not all(parameter.isfinite().all() for parameter in model.parameters()):
        raise RuntimeError(f"TransE has left the finite numbers with lr={lr}: lower the learning rate")

    ranks = _ranks(model, test, triples)
    twin = _has_twin(test, train)
    untwinned = ranks[:, ~twin]
    metrics: dict[str, float | None] = {**link_prediction_metrics(ranks)}
    rest = link_prediction_metrics(untwinned) if untwinned.numel() else dict.fromkeys(metrics)
    metrics |= {f"{name}_without_twins": value for name, value in rest.items()}
    metrics["twins"] = float(twin.double().mean())
    metrics["val_mrr"] = link_prediction_metrics(_ranks(model, val, triples))["mrr"]
    with torch.no_grad():
        entity = F.normalize(model.node_emb.weight, p=model.p_norm, dim=-1)
    return TransEResult(entity, model.rel_emb.weight.detach(), metrics)


def _triples(data: HeteroData, num_relations: int) -> Tensor:
    """Returns the distinct triples as head, relation and tail, (3, E)."""
    kg = data["entity", "kg", "entity"]
    forward = kg.rel_type < num_relations
    if num_relations < 1 or 2 * int(forward.sum()) != len(forward):
        raise ValueError(
            f"num_relations={num_relations}, but {int(forward.sum())} of {len(forward)} edges have a "
            f"relation below it: half of them should, the others being their inverses"
        )
    head, tail = kg.edge_index[:, forward]
    return torch.stack([head, kg.rel_type[forward], tail]).cpu().unique(dim=1)


def _split(triples: Tensor, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Returns the triples for training, validation and testing."""
    num = triples.size(1)
    held_out = round(_HELD_OUT * num)
    if held_out == 0:
        raise ValueError(
            f"the knowledge graph has {num} triples: too few to hold {_HELD_OUT:.0%} of them out"
        )
    order = torch.randperm(num, generator=torch.Generator().manual_seed(seed))
    test, val, train = triples[:, order].split([held_out, held_out, num - 2 * held_out], dim=1)
    return train, val, test


def _quiet_fit(module: L.LightningModule, loader: DataLoader, epochs: int) -> None:
    with lightning_as_guest(".*GPU available but not used.*"):
        trainer = make_trainer("cpu", epochs, enable_checkpointing=False)
        trainer.fit(module, loader)


@torch.no_grad()
def _ranks(model: TransE, queries: Tensor, known: Tensor) -> Tensor:
    """Returns the filtered ranks of the tails, then of the heads, of some triples, (2, Q)."""
    node = torch.arange(model.num_nodes)
    ranks = []
    for chunk in queries.split(_CHUNK, dim=1):
        head, relation, tail = chunk.unsqueeze(-1)
        same = known[1] == relation
        of_head, of_tail = (same & (known[0] == head)).nonzero().T, (same & (known[2] == tail)).nonzero().T
        tails = torch.stack([of_head[0], known[2, of_head[1]]])
        heads = torch.stack([of_tail[0], known[0, of_tail[1]]])
        tail_ranks = filtered_ranks(model(head, relation, node), chunk[2], tails)
        head_ranks = filtered_ranks(model(node, relation, tail), chunk[0], heads)
        ranks.append(torch.stack([tail_ranks, head_ranks]))
    return torch.cat(ranks, dim=1)


def _has_twin(triples: Tensor, others: Tensor) -> Tensor:
    """Returns for each triple whether one of the others has the same head and tail, (Q)."""
    num_nodes = int(torch.cat([triples, others], dim=1)[[0, 2]].max()) + 1
    return torch.isin(triples[0] * num_nodes + triples[2], others[0] * num_nodes + others[2])
