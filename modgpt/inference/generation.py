"""Generate text: a prompt is read once, then one token follows the other over the decoding state."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor

from modgpt.errors import UserError
from modgpt.inference.context import context_limit, with_room
from modgpt.inference.sampling import Sampling
from modgpt.kernels.decoding import modules_as_attributes, without_onednn
from modgpt.model.gpt import GPT

if TYPE_CHECKING:
    from modgpt.data.tokenizers.base import Tokenizer

FIRST_ROOM = 256  # tokens that a new state has room for besides those it reads at once


def generate(
    model: GPT,
    tokenizer: Tokenizer,
    prompt: str = "",
    *,
    max_new_tokens: int = 500,
    temperature: float = 0.8,
    top_k: int | None = None,
    top_p: float | None = None,
    seed: int | None = None,
    context: int | Literal["auto"] | None = "auto",
) -> str:
    """The prompt and its continuation.

    The text is the model's own, control characters included: escape them before a terminal shows it.

    Args:
        model: the GPT; its training mode is restored afterwards.
        tokenizer: the one it was trained with.
        prompt: text to continue; an empty one stands for `tokenizer.start`.
        max_new_tokens, temperature, top_k, top_p, seed, context: see `Sampling`.

    Raises:
        UserError: the prompt cannot be encoded, or an option is out of its range.
    """
    options = Sampling(max_new_tokens, temperature, top_k, top_p, seed, context)
    return prompt + "".join(stream_text(model, tokenizer, prompt, **vars(options)))


def stream_text(model: GPT, tokenizer: Tokenizer, prompt: str = "", **options: Any) -> Iterator[str]:
    """The continuation alone, piece by piece as it is sampled.

    The pieces together are the text of all tokens without the text of the prompt's.

    Args:
        model: the GPT; its training mode is restored afterwards.
        tokenizer: the one it was trained with.
        prompt: text to continue; an empty one stands for `tokenizer.start`.
        options: of `Sampling`.

    Raises:
        UserError: the prompt cannot be encoded, or an option is out of its range.
    """
    sampling = Sampling(**options)
    device = model.embedding.weight.device
    tokens = tokenizer.encode(prompt or tokenizer.start)  # (T,)
    if not len(tokens):
        raise UserError(f"the prompt {prompt!r} has no tokens: the tokenizer drops all of it")
    pick = sampling.picker(device)
    new = stream(model, tokens[None].to(device), pick, sampling.max_new_tokens, sampling.context)
    return tokenizer.decode_stream(new, prompt=tokens)


def stream(
    model: GPT,
    tokens: Tensor,
    pick: Callable[[Tensor], Tensor],
    max_new_tokens: int,
    context: int | Literal["auto"] | None = "auto",
) -> Iterator[Tensor]:
    """Read the prompt once, then one token after the other over the decoding state.

    When the state holds `context` tokens, the last half of them is read again and the rest forgotten.
    Memory grows with the text, never with `max_new_tokens`.

    Args:
        model: the GPT.
        tokens: (B,T) ids of the prompt, T ≥ 1.
        pick: chooses the next tokens, logits (B,V) -> (B,).
        max_new_tokens: how many to yield.
        context: see `Sampling`.

    Yields: (B,) ids.

    Raises:
        UserError: `context` is longer than the model's table of positions.
    """
    limit = context_limit(model, context)
    kept = 1 if limit is None else max(1, limit // 2)
    most = limit if limit is not None else tokens.shape[1] + max_new_tokens
    unread, recent, state, room = tokens, tokens[:, -kept:], None, 0
    was_training = model.training
    model.eval()
    try:
        with modules_as_attributes(model):
            for _ in range(max_new_tokens):
                with torch.inference_mode(), without_onednn(model.embedding.weight.dtype):
                    if limit is not None and (state.length if state else 0) + unread.shape[1] > limit:
                        unread, state = recent, None
                    needed = (state.length if state else 0) + unread.shape[1]
                    if state is None:
                        room = min(most, needed + FIRST_ROOM)
                        state = model.initial_state(len(tokens), room)
                    elif needed > room:
                        room = min(most, 2 * needed)
                        state = with_room(model, state, len(tokens), room)
                    logits, state = model.decode(unread, state)
                    picked = pick(logits[:, -1])
                    unread = picked[:, None]
                    recent = torch.cat([recent, unread], dim=1)[:, -kept:]
                yield picked
    finally:
        model.train(was_training)
