"""Sampling text over decoding state."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from modgpt.kernels.decoding import modules_as_attributes, without_onednn
from modgpt.model.gpt import GPT

if TYPE_CHECKING:
    from modgpt.data.tokenizers.base import Tokenizer


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

    Args:
        model: the GPT; its training mode is restored afterwards.
        tokenizer: the one it was trained with.
        prompt: text to continue; an empty one starts on a new line (`tokenizer.start`).
        max_new_tokens: length of the continuation.
        temperature: divides the logits; 0 takes the most probable token (greedy).
        top_k: sample among the k most probable tokens only.
        top_p: sample among the most probable tokens that together have probability p (nucleus,
            Holtzman et al. 2020).
        seed: of a random generator of its own; None for a random one.
        context: see `stream`.

    Raises:
        ValueError: a character is not in the vocabulary, or an option is out of its range.
    """
    pieces = stream_text(
        model,
        tokenizer,
        prompt,
        max_new_tokens=max_new_tokens,
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
        seed=seed,
        context=context,
    )
    return prompt + "".join(pieces)


def stream_text(
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
) -> Iterator[str]:
    """The continuation alone, piece by piece as it is sampled; arguments as for `generate`."""
    check_sampling(max_new_tokens, temperature, top_k, top_p)
    device = model.embedding.weight.device
    tokens = tokenizer.encode(prompt or tokenizer.start)[None].to(device)  # (1,T)
    generator = torch.Generator(device=device)
    if seed is None:
        generator.seed()
    else:
        generator.manual_seed(seed)

    def pick(logits: Tensor) -> Tensor:
        return sample(logits, generator, temperature, top_k, top_p)

    yield from tokenizer.decode_stream(stream(model, tokens, pick, max_new_tokens, context))


def stream(
    model: GPT,
    tokens: Tensor,
    pick: Callable[[Tensor], Tensor],
    max_new_tokens: int,
    context: int | Literal["auto"] | None = "auto",
) -> Iterator[Tensor]:
    """Read the prompt once, then one token after the other over the decoding state.

    When the state holds `context` tokens, the last half of them is read anew and the rest forgotten.

    Args:
        model: the GPT.
        tokens: (B,T) ids of the prompt, T ≥ 1.
        pick: chooses the next tokens, logits (B,V) -> (B,).
        max_new_tokens: how many to yield.
        context: None to let the state run on; `auto` for what the model has learned to use
            (`trained_context`).

    Yields: (B,) ids.
    """
    limit = trained_context(model) if context == "auto" else context
    prompt, capacity = tokens.shape[1], tokens.shape[1] + max_new_tokens
    tokens = F.pad(tokens, (0, max_new_tokens))  # the prompt, and room for what follows
    was_training = model.training
    model.eval()
    try:
        with modules_as_attributes(model):
            read, state = 0, None
            for known in range(prompt, capacity):
                with torch.inference_mode(), without_onednn(model.embedding.weight.dtype):
                    if limit is not None and (state.length if state else 0) + known - read > limit:
                        read, state = known - max(1, limit // 2), None
                    if state is None:
                        room = capacity if limit is None else min(capacity, limit)
                        state = model.initial_state(tokens.shape[0], room)
                    logits, state = model.decode(tokens[:, read:known], state)
                    picked = pick(logits[:, -1])
                tokens[:, known], read = picked, known
                yield picked
    finally:
        model.train(was_training)


def trained_context(model: GPT) -> int | None:
    """How many tokens the model's state may hold; None for any number.

    Positions that training never showed make nonsense of the text, so most compositions keep to
    `block_size`. It may be passed when the positional encoding extrapolates, or when it only tells
    distances and no attention reaches beyond the distances seen in training.
    """
    reaches = [block.attention.reach for block in model.blocks]
    within = all(reach is not None and reach <= model.block_size for reach in reaches)
    if model.pos.max_length is None and (model.pos.extrapolates or (model.pos.relative and within)):
        return None
    return model.block_size


def sample(
    logits: Tensor,
    generator: torch.Generator,
    temperature: float,
    top_k: int | None = None,
    top_p: float | None = None,
) -> Tensor:
    """Draw one token per row: logits (B,V) -> (B,). Temperature first, then top-k, then top-p."""
    if temperature == 0:
        return logits.argmax(-1)
    logits = logits.float() / temperature
    if top_k is not None and top_k < logits.shape[-1]:
        smallest = logits.topk(top_k).values[:, -1:]
        logits = logits.masked_fill(logits < smallest, float("-inf"))
    probabilities = logits.softmax(-1)
    if top_p is not None and top_p < 1:
        ordered, order = probabilities.sort(descending=True)
        # A token stays when those before it have not yet reached p; the first one always does.
        outside = ordered.cumsum(-1) - ordered >= top_p
        ordered = ordered.masked_fill(outside, 0.0)
        probabilities = torch.zeros_like(probabilities).scatter(-1, order, ordered)
    # The first token at which the cumulated probabilities reach a number drawn from (0, total]: so it is
    # never one of probability 0, and there always is one, whatever the total has been rounded to.
    cumulated = probabilities.cumsum(-1)
    u = 1 - torch.rand(len(cumulated), 1, generator=generator, device=cumulated.device)
    return torch.searchsorted(cumulated, u * cumulated[:, -1:]).squeeze(-1)


def check_sampling(
    max_new_tokens: int, temperature: float, top_k: int | None, top_p: float | None
) -> None:
    """Raise a `ValueError` for an option out of its range."""
    if max_new_tokens < 0:
        raise ValueError(f"max_new_tokens must not be negative, got {max_new_tokens}")
    if not 0 <= temperature < float("inf"):
        raise ValueError(f"temperature must not be negative, got {temperature} (0 is greedy)")
    if top_k is not None and top_k < 1:
        raise ValueError(f"top_k must be at least 1, got {top_k}")
    if top_p is not None and not 0 < top_p <= 1:
        raise ValueError(f"top_p must lie in (0, 1], got {top_p}")


def pick_device(name: str) -> torch.device:
    """The device of that name; `auto` for CUDA or MPS where there is one.

    Raises:
        ValueError: there is no such device.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.mps.is_available() else "cpu"
    try:
        torch.empty(0, device=name)
        return torch.device(name)
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"no device {name!r} here ({str(error).splitlines()[0]})") from error
