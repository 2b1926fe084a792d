"""Conversion of weights: our tensors from those of transformers, and the reverse."""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor

from modgpt.errors import UserError
from modgpt.model.block import Block
from modgpt.model.gpt import GPT

Weights = Mapping[str, Tensor]


class Same:
    """One tensor, as it is.

    Args:
        names: theirs, of modules or of single tensors.

    A rule sees the layer that the tensor belongs to, for the numbers and widths of its heads.
    """

    def __init__(self, *names: str) -> None:
        self.names = names

    def ours(self, theirs: list[Tensor], layer: Block) -> Tensor:
        """Our tensor from theirs, in the order of `names`."""
        return theirs[0]

    def theirs(self, ours: Tensor, layer: Block) -> list[Tensor]:
        """Their tensors from ours, in the order of `names`."""
        return [ours]


class Transposed(Same):
    """A matrix stored as (in, out): GPT-2's `Conv1D`."""

    def ours(self, theirs: list[Tensor], layer: Block) -> Tensor:
        return theirs[0].T

    def theirs(self, ours: Tensor, layer: Block) -> list[Tensor]:
        return [ours.T]


class Stacked(Same):
    """Several matrices of one size, stacked by rows: gate and up."""

    def ours(self, theirs: list[Tensor], layer: Block) -> Tensor:
        return torch.cat(theirs)

    def theirs(self, ours: Tensor, layer: Block) -> list[Tensor]:
        return list(ours.chunk(len(self.names)))


class QueryKeyValue(Stacked):
    """Queries, keys and values, stacked by rows; grouped-query attention has fewer keys and values."""

    def theirs(self, ours: Tensor, layer: Block) -> list[Tensor]:
        heads = layer.attention
        n = heads.n_heads, heads.n_kv_heads, heads.n_kv_heads
        return list(ours.split([heads.head_dim * heads_of_kind for heads_of_kind in n]))


class ByHead(Same):
    """Queries, keys and values stacked head by head: Bloom, GPT-NeoX."""

    def ours(self, theirs: list[Tensor], layer: Block) -> Tensor:
        return theirs[0].unflatten(0, (layer.attention.n_heads, 3, -1)).transpose(0, 1).flatten(0, 2)

    def theirs(self, ours: Tensor, layer: Block) -> list[Tensor]:
        return [ours.unflatten(0, (3, layer.attention.n_heads, -1)).transpose(0, 1).flatten(0, 2)]


class QueriesAndLatents(Stacked):
    """Queries or their latents, then latents of keys and values with the shared keys: DeepSeek."""

    def theirs(self, ours: Tensor, layer: Block) -> list[Tensor]:
        queries, *others = layer.attention.fused["qkv.weight"]
        return list(ours.split([queries, sum(others)]))


class KeysAndValuesByHead(Same):
    """Keys of all heads above values of all heads, stored head by head: DeepSeek."""

    def ours(self, theirs: list[Tensor], layer: Block) -> Tensor:
        heads = layer.attention.n_kv_heads
        rows = [n // heads for n in layer.attention.fused["kv_up.weight"]]
        return torch.cat([x.flatten(0, 1) for x in theirs[0].unflatten(0, (heads, -1)).split(rows, 1)])

    def theirs(self, ours: Tensor, layer: Block) -> list[Tensor]:
        heads = layer.attention.n_kv_heads
        kinds = ours.split(layer.attention.fused["kv_up.weight"])
        return [torch.cat([x.unflatten(0, (heads, -1)) for x in kinds], dim=1).flatten(0, 1)]


Table = Mapping[str, Same]


def rule_of(name: str, table: Table) -> tuple[Same, list[str], int]:
    """The rule for a tensor of ours, the names of theirs that it is made of, and its layer.

    The layer of a tensor outside the blocks is 0.

    Raises:
        UserError: the table has no rule for it.
    """
    layer = re.search(r"blocks\.(\d+)\.", name)
    general = re.sub(r"blocks\.\d+\.", "blocks.{i}.", name)
    module, _, leaf = general.rpartition(".")
    rule = table.get(general) or table.get(module)
    if rule is None:
        raise UserError(f"the table of weights has no {general}")
    suffix = "" if general in table else f".{leaf}"
    number = int(layer.group(1)) if layer else 0
    return rule, [their.format(i=number) + suffix for their in rule.names], number


def check_rules(model: GPT, table: Table) -> None:
    """Hold a table to a model: every tensor has a rule, every rule a tensor.

    Raises:
        UserError: names the tensor without a rule, or the rule without a tensor.
    """
    unused = set(table)
    for name in model.state_dict():
        rule_of(name, table)
        general = re.sub(r"blocks\.\d+\.", "blocks.{i}.", name)
        unused -= {general, general.rpartition(".")[0]}
    if unused:
        raise UserError(f"the table of weights has {min(unused)}, which the model does not have")


def from_theirs(theirs: Weights, model: GPT, table: Table) -> dict[str, Tensor]:
    """A state dict for `model` from one of transformers.

    Raises:
        UserError: a tensor is missing, left over or of another shape, or tied tensors differ.
    """
    left, state = set(theirs), {}
    tied: dict[int, str] = {}
    for name, own in model.state_dict().items():
        rule, names, layer = rule_of(name, table)
        missing = [n for n in names if n not in theirs]
        if missing:
            raise UserError(f"the weights lack {missing[0]}, which {name} is made of")
        tensor = rule.ours([theirs[n] for n in names], model.blocks[layer])
        if tensor.shape != own.shape:
            raise UserError(
                f"{', '.join(names)} make {name} of shape {tuple(tensor.shape)}, the configuration "
                f"says {tuple(own.shape)}"
            )
        state[name] = tensor.to(own.dtype).contiguous()
        first = tied.setdefault(own.data_ptr(), name)
        if not torch.equal(state[first], state[name]):
            raise UserError(
                f"{first} and {name} are one tensor here, but the weights have different values for them"
            )
        left.difference_update(names)
    if left:
        raise UserError(f"the weights have {', '.join(sorted(left))}, which no part here stands for")
    return state


def to_theirs(model: GPT, table: Table) -> dict[str, Tensor]:
    """A state dict of transformers from our model's weights.

    Raises:
        UserError: two of our tensors become one of theirs and differ; names all three.
    """
    state: dict[str, Tensor] = {}
    origin: dict[str, str] = {}
    for name, tensor in model.state_dict().items():
        rule, names, layer = rule_of(name, table)
        for n, part in zip(names, rule.theirs(tensor, model.blocks[layer]), strict=True):
            if n in state and not torch.equal(state[n], part):
                raise UserError(f"{origin[n]} and {name} differ, but both become {n}")
            state[n], origin[n] = part.contiguous(), name
    return state
