"""How many tokens a model's state holds while it generates."""

from __future__ import annotations

from dataclasses import fields
from typing import Literal

from torch import Tensor

from modgpt.errors import UserError
from modgpt.model.gpt import GPT
from modgpt.model.state import ModelState


def context_limit(model: GPT, context: int | Literal["auto"] | None) -> int | None:
    """The most tokens that the state may hold; None for no limit.

    Args:
        model: the GPT.
        context: a number of tokens, None for no limit, or `auto` for `trained_context`.

    Raises:
        UserError: the model's table of positions is shorter than that.
    """
    if context == "auto":
        return trained_context(model)
    table = model.pos.max_length
    if table is not None and (context is None or context > table):
        asked = "no limit" if context is None else f"{context} tokens"
        raise UserError(
            f"the model has a table of {table} positions: its context cannot have {asked}, "
            f"{table} at most"
        )
    return context


def trained_context(model: GPT) -> int | None:
    """The most tokens that the model has learned to use; None for any number.

    Text becomes nonsense at positions that training never showed, so most compositions keep to
    `block_size`. There is no limit when the positional encoding extrapolates. There is none either when
    it encodes distances alone and no attention reaches further than the distances seen in training.
    """
    reaches = [block.attention.reach for block in model.blocks]
    within = all(reach is not None and reach <= model.block_size for reach in reaches)
    if model.pos.max_length is None and (model.pos.extrapolates or (model.pos.relative and within)):
        return None
    return model.block_size


def with_room(model: GPT, state: ModelState, batch_size: int, capacity: int) -> ModelState:
    """The same state with buffers for `capacity` tokens; consumes `state`.

    Buffers that grow with the text are copied into larger ones. All others stay.
    """
    larger = model.initial_state(batch_size, capacity)
    for old, new in zip(state.layers, larger.layers, strict=True):
        if old is None:
            continue
        for field in fields(old):
            buffer, room = getattr(old, field.name), getattr(new, field.name)
            if isinstance(buffer, Tensor) and room.numel() > buffer.numel():
                room[tuple(slice(size) for size in buffer.shape)] = buffer
                setattr(old, field.name, room)
    return state
