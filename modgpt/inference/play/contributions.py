"""How much each earlier token contributes to an attention's output, for any attention."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from modgpt.model.attention.base import Attention
from modgpt.model.gpt import GPT
from modgpt.model.pos.base import Position


@torch.no_grad()
def contributions(attention: Attention, x: Tensor, pos: Position) -> Tensor:
    """The weights (H,T,T) with which each query's output adds up the values: y_i = Σ_j w_ij v_j.

    For softmax attention they are its weights. Every other attention here is linear in the values too:
    its weights are those that a table would have, summed over the steps of its state. They may be
    negative where a state is overwritten.

    Args:
        attention: a layer.
        x: (1,T,C), what the layer gets when the model reads the text.
        pos: the model's positions.
    """
    pos, positions = pos.of_layer(attention.layer), torch.arange(x.shape[1], device=x.device)
    return mixing_weights(attention, attention.project(x, pos, positions), pos)


@torch.no_grad()
def mixing_weights(attention: Attention, projected: dict[str, Tensor], pos: Position) -> Tensor:
    """The same weights for what `project` returns. The values do not matter.

    They are read off by running `mix` on values that are one-hot, D keys at a time.
    """
    length, width = projected["v"].shape[-2:]
    positions = torch.arange(length, device=projected["v"].device)
    columns = []
    for start in range(0, length, width):
        shown = positions[start : start + width]
        values = torch.zeros_like(projected["v"])
        values[:, :, shown, shown - start] = 1
        y, _ = attention.mix(**projected | {"v": values}, pos=pos, positions=positions, state=None)
        columns.append(y[0, :, :, : len(shown)])  # (H,T,D)
    return torch.cat(columns, dim=-1).float()


@torch.no_grad()
def inputs_of(model: GPT, modules: Sequence[nn.Module], tokens: Tensor) -> list[Tensor]:
    """What each module gets first when the model reads tokens (1,T): (1,T,C) each."""
    kept: dict[nn.Module, Tensor] = {}

    def keep(module: nn.Module, arguments: tuple[Tensor, ...]) -> None:
        kept[module] = arguments[0]

    hooks = [module.register_forward_pre_hook(keep) for module in modules]
    try:
        model.eval()(tokens)
    finally:
        for hook in hooks:
            hook.remove()
    return [kept[module] for module in modules]
