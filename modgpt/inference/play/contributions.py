"""How much each earlier token contributes to an attention's output, for any attention."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from modgpt.model.attention.base import Attention
from modgpt.model.gpt import GPT


@torch.no_grad()
def contributions(attention: Attention, x: Tensor, model: GPT) -> Tensor:
    """The weights (H,T,T) with which each query's output adds up the values: y_i = Σ_j w_ij v_j.

    For softmax attention they are its weights. Every other attention here is linear in the values too:
    its weights are those that a table would have, summed over the steps of its state. They may be
    negative where a state is overwritten.

    They are read off by running the layer on values that are one-hot, D keys at a time.

    Args:
        attention: of the model.
        x: (1,T,C), what the layer gets when the model reads the text.
        model: for its positions.
    """
    length, positions = x.shape[1], torch.arange(x.shape[1], device=x.device)
    projected = attention.project(x, model.pos, positions)
    width = projected["v"].shape[-1]
    columns = []
    for start in range(0, length, width):
        values = torch.zeros_like(projected["v"])
        shown = torch.arange(start, min(start + width, length), device=x.device)
        values[:, :, shown, shown - start] = 1
        given = projected | {"v": values}
        y, _ = attention.mix(**given, pos=model.pos, positions=positions, state=None)
        columns.append(y[0, :, :, : len(shown)])  # (H,T,D)
    return torch.cat(columns, dim=-1).float()


@torch.no_grad()
def inputs_of(model: GPT, modules: list[nn.Module], tokens: Tensor) -> list[Tensor]:
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
