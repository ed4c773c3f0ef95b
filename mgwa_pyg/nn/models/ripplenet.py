"""`RippleNet`: a user as the answers of a knowledge graph's triples to an item, hop by hop."""

from __future__ import annotations

import torch
from torch import Tensor
from torch_geometric.nn.inits import glorot

from mgwa_pyg.nn.conv.fusion import whole_table
from mgwa_pyg.utils.checks import (
    check_choice,
    check_count,
    check_range,
    check_tensors,
    form,
    forms,
    values_are_checked,
)

_FORMS = forms(
    memory="index: users num_hops places",
    edge_index="index: 2 triples",
    edge_type="index: triples",
    item="index: users | users items | None",
)

ITEM_UPDATES = ("replace", "plus", "replace_transform", "plus_transform")


class RippleNet(torch.nn.Module):
    r"""The recommender of `"RippleNet: Propagating User Preferences on the Knowledge Graph for Recommender
    Systems" <https://arxiv.org/abs/1803.03467>`_, in the form of its released code.

    A user has no embedding, but a memory of triples :math:`(h_i, r_i, t_i)` for each hop, which
    :func:`~mgwa_pyg.sampler.ripple_sets` draws. The item :math:`\mathbf{v}` asks them (eqs. 4 and 5)

    .. math::
        p_i = \mathrm{softmax}_i (\mathbf{v}^{\top} \mathbf{R}_{r_i} \mathbf{h}_i), \qquad
        \mathbf{o} = \sum_i p_i \, \mathbf{t}_i,

    and is then updated by the answer :math:`\mathbf{o}` before it asks the next hop. The click is predicted
    (eqs. 6 and 7) by the inner product of the item after all updates and the sum of the answers,

    .. math::
        \hat{y}_{uv} = \sigma \Big( \mathbf{v}^{\top} \sum_{k=1}^{H} \mathbf{o}^{(k)} \Big).

    The users whose memory is -1 throughout have no triples: their logits are zero, and they take no part
    in the losses.

    Args:
        num_entities (int): Number of entities, the items among them.
        num_relations (int): Number of relations.
        channels (int, optional): Size :math:`d` of the embeddings. (default: :obj:`16`)
        num_hops (int, optional): Number of hops :math:`H`. (default: :obj:`2`)
        item_update (str, optional): What the item becomes after a hop: :obj:`"replace"`
            (:math:`\mathbf{o}`), :obj:`"plus"` (:math:`\mathbf{v} + \mathbf{o}`),
            :obj:`"replace_transform"` (:math:`\mathbf{W} \mathbf{o}`) or :obj:`"plus_transform"`
            (:math:`\mathbf{W} (\mathbf{v} + \mathbf{o})`), with one :math:`\mathbf{W}` for all hops.
            (default: :obj:`"plus_transform"`)
        all_hops (bool, optional): Whether the user is the sum of all answers, or the last one.
            (default: :obj:`True`)

    Raises:
        ValueError: If ``num_hops`` is not positive or ``item_update`` is none of the above.
    """

    def __init__(
        self,
        num_entities: int,
        num_relations: int,
        channels: int = 16,
        num_hops: int = 2,
        item_update: str = "plus_transform",
        all_hops: bool = True,
    ) -> None:
        super().__init__()
        num_entities = check_count("num_entities", num_entities)
        num_relations = check_count("num_relations", num_relations)
        channels = check_count("channels", channels)
        self.num_hops = check_count("num_hops", num_hops)
        check_choice("item_update", item_update, ITEM_UPDATES)
        self.item_update = item_update
        self.all_hops = all_hops
        self.entity_emb = torch.nn.Embedding(num_entities, channels)
        self.relation = torch.nn.Parameter(torch.empty(num_relations, channels, channels))
        self.transform: torch.nn.Linear | None = None
        if item_update.endswith("transform"):
            self.transform = torch.nn.Linear(channels, channels, bias=False)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        r"""Draw all parameters anew, uniformly after Glorot: the embeddings over their whole table, each
        relation's matrix by itself.

        The released code's initializer counts the :math:`R` relations as a part of the fans, hence draws
        their matrices :math:`\sqrt{R}` times smaller.
        """
        glorot(self.entity_emb.weight)
        glorot(self.relation)
        if self.transform is not None:
            glorot(self.transform.weight)

    def forward(self, item: Tensor, memory: Tensor, edge_index: Tensor, edge_type: Tensor) -> Tensor:
        r"""Return the logits of clicks of :math:`B` users on one item each, or on :math:`n` items each.

        Args:
            item (torch.Tensor): The items, :math:`(B)` or :math:`(B, n)`.
            memory (torch.Tensor): The users' ripple sets as positions in the triples, :math:`(B, H, M)`.
            edge_index (torch.Tensor): The heads and tails of all triples, :math:`(2, T)`.
            edge_type (torch.Tensor): The relations of all triples, :math:`(T)`.

        Returns:
            torch.Tensor: The logits, in the shape of ``item``.

        Raises:
            ValueError: If the shapes do not go together, or ``memory`` has not ``num_hops`` hops.
            IndexError: If a tensor holds what is no item, triple, entity or relation.
        """
        known, v, user, _, _ = self._ask(item, memory, edge_index, edge_type)
        score = (v * user).sum(dim=-1)
        logit = score.new_zeros(item.shape)
        logit[known] = score if item.dim() == 2 else score.squeeze(1)
        return logit

    def parts(
        self, item: Tensor, memory: Tensor, edge_index: Tensor, edge_type: Tensor
    ) -> tuple[Tensor, Tensor]:
        r"""Return what each triple of the users' memories adds to the logit, and its attention :math:`p_i`,
        both :math:`(B, H, M)` or :math:`(B, n, H, M)`; the sum over hops and triples is the logit.

        Arguments and errors are those of :meth:`forward`.
        """
        known, v, _, hops, value = self._ask(item, memory, edge_index, edge_type)
        attention = torch.stack(hops, dim=2)
        part = attention * torch.einsum("bnd,bhmd->bnhm", v, value)
        if not self.all_hops:
            part[:, :, :-1] = 0.0
        both = part.new_zeros(2, known.numel(), *part.shape[1:])
        both[:, known] = torch.stack([part, attention])
        part, attention = both if item.dim() == 2 else both.squeeze(2)
        return part, attention

    def kge_loss(self, memory: Tensor, edge_index: Tensor, edge_type: Tensor) -> Tensor:
        r"""Return how badly the embeddings explain the triples of the users' memories, a scalar.

        With :math:`B'` users that have triples it is (from Sec. 3.5, in the form of the released code)

        .. math::
            -\sum_{k=1}^{H} \frac{1}{B' M} \sum_{u, i}
            \sigma \big( \mathbf{h}_{uki}^{\top} \mathbf{R}_{uki} \mathbf{t}_{uki} \big),

        to be added to the loss with a small weight.

        Arguments and errors are those of :meth:`forward`.
        """
        _, memory = self._known(memory, edge_index, edge_type)
        triple, count = torch.unique(memory, return_counts=True)
        head, relation, tail = _at(triple, edge_index, edge_type)
        score = (self.entity_emb(head) * self._related(tail, relation)).sum(dim=-1)
        return -self.num_hops * (count * _wide(score).sigmoid()).sum() / max(memory.numel(), 1)

    def embedding_penalty(self, memory: Tensor, edge_index: Tensor, edge_type: Tensor) -> Tensor:
        r"""Return the sum of squares of what the users' memories touch, a scalar.

        It is a sum, and no mean, over hops, users and memories, as in the released code:

        .. math::
            \sum_{k, u, i} \big( \lVert \mathbf{h}_{uki} \rVert^2 + \lVert \mathbf{R}_{uki} \rVert_F^2 +
            \lVert \mathbf{t}_{uki} \rVert^2 \big).

        The released code means to add :math:`\mathbf{W}`, too, but under a condition that none of its item
        updates fulfils.

        Arguments and errors are those of :meth:`forward`.
        """
        _, memory = self._known(memory, edge_index, edge_type)
        entity, relation = whole_table(self.entity_emb, memory.device), self.relation
        head, kind, tail = (index.flatten() for index in _at(memory, edge_index, edge_type))
        entity_count = torch.bincount(torch.cat([head, tail]), minlength=entity.size(0))
        relation_count = torch.bincount(kind, minlength=relation.size(0))
        penalty = (entity_count * _wide(entity).square().sum(dim=1)).sum()
        penalty = penalty + (relation_count * _wide(relation).square().sum(dim=(1, 2))).sum()
        return penalty

    def _ask(
        self, item: Tensor, memory: Tensor, edge_index: Tensor, edge_type: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, list[Tensor], Tensor]:
        """Check the arguments; which users have triples, and for those the items after all updates and the
        sums of the answers, ``(B, n, d)`` both, each hop's attention ``(B, n, M)``, and the tails
        ``(B, H, M, d)``.
        """
        known, memory = self._known(memory, edge_index, edge_type, item)
        if values_are_checked(item.device):
            check_range("item", item, self.entity_emb.num_embeddings, "num_entities")
        head, relation, tail = _at(memory, edge_index, edge_type)
        key = self._related(head, relation)
        value = self.entity_emb(tail)
        v = self.entity_emb((item if item.dim() == 2 else item.unsqueeze(1))[known].long())
        answers, attention = [], []
        for K, V in zip(key.unbind(dim=1), value.unbind(dim=1), strict=True):
            p = (v @ K.mT).softmax(dim=-1)
            attention.append(p)
            answers.append(p @ V)
            v = v + answers[-1] if self.item_update.startswith("plus") else answers[-1]
            if self.transform is not None:
                v = self.transform(v)
        user = torch.stack(answers).sum(dim=0) if self.all_hops else answers[-1]
        return known, v, user, attention, value

    def _known(
        self, memory: Tensor, edge_index: Tensor, edge_type: Tensor, item: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Check the arguments; which users have triples, and the memories of those."""
        tensors = {"memory": memory, "edge_index": edge_index, "edge_type": edge_type, "item": item}
        check_tensors(_FORMS, tensors, num_hops=self.num_hops)
        if memory.size(2) == 0:
            raise ValueError(f"memory {form(memory)}, but at least one triple of each hop is needed")
        known = memory[:, 0, 0] >= 0
        memory = memory[known].long()
        if values_are_checked(memory.device):
            check_range("memory", memory, edge_type.numel(), "the number of triples")
            check_range("edge_index", edge_index, self.entity_emb.num_embeddings, "num_entities")
            check_range("edge_type", edge_type, self.relation.size(0), "num_relations")
        return known, memory

    def _related(self, entity: Tensor, relation: Tensor) -> Tensor:
        r"""The products :math:`\mathbf{R}_r \mathbf{e}`, each distinct one computed once."""
        num_entities = self.entity_emb.num_embeddings
        pair, inverse = torch.unique(relation * num_entities + entity, return_inverse=True)
        # The pairs are sorted by relation: one product of matrices each, and no matrix is copied.
        count = torch.bincount(pair // num_entities, minlength=self.relation.size(0))
        block = self.entity_emb(pair % num_entities).split(count.tolist())
        product = torch.cat([x @ R.T for x, R in zip(block, self.relation, strict=True)])
        return product.index_select(0, inverse.flatten()).unflatten(0, inverse.shape)


def _wide(value: Tensor) -> Tensor:
    """In single precision at least: sums over all memories are beyond what half precision holds."""
    return value.to(torch.promote_types(value.dtype, torch.float32))


def _at(place: Tensor, edge_index: Tensor, edge_type: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Head, relation and tail of the triples at these places."""
    head, tail = edge_index[:, place].long()
    return head, edge_type[place].long(), tail
