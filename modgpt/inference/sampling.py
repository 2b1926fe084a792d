"""Draw the next token from logits: temperature, top-k, top-p."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from modgpt.errors import UserError

MOST_SEED = 2**63 - 1


@dataclass(frozen=True)
class Sampling:
    """How a continuation is drawn.

    Args:
        max_new_tokens: length of the continuation.
        temperature: divides the logits; 0 takes the most probable token (greedy).
        top_k: sample among the k most probable tokens; None for all.
        top_p: sample among the fewest tokens that together have probability p (nucleus sampling,
            Holtzman et al. 2020); None for all.
        seed: of a random generator of its own; None for a random one.
        context: how many tokens the model keeps in its state; None for no limit, `auto` for what it was
            trained for (`trained_context`).

    Raises:
        UserError: an option is out of its range.
    """

    max_new_tokens: int = 500
    temperature: float = 0.8
    top_k: int | None = None
    top_p: float | None = None
    seed: int | None = None
    context: int | Literal["auto"] | None = "auto"

    def __post_init__(self) -> None:
        if self.max_new_tokens < 0:
            raise UserError(f"max_new_tokens must be at least 0, got {self.max_new_tokens}")
        if not 0 <= self.temperature < math.inf:
            raise UserError(
                f"temperature must be 0 (greedy) or a positive number, got {self.temperature}"
            )
        if self.top_k is not None and self.top_k < 1:
            raise UserError(f"top_k must be at least 1, got {self.top_k}")
        if self.top_p is not None and not 0 < self.top_p <= 1:
            raise UserError(f"top_p must lie in (0, 1], got {self.top_p}")
        if self.seed is not None and not 0 <= self.seed <= MOST_SEED:
            raise UserError(f"seed must lie between 0 and {MOST_SEED}, got {self.seed}")
        if isinstance(self.context, int) and self.context < 1:
            raise UserError(f"context must be at least 1 token, got {self.context}")

    def picker(self, device: torch.device) -> Callable[[Tensor], Tensor]:
        """A function that draws the next tokens, logits (B,V) -> (B,), with a generator of its own."""
        generator = torch.Generator(device=device)
        if self.seed is None:
            generator.seed()
        else:
            generator.manual_seed(self.seed)
        return lambda logits: sample(logits, generator, self.temperature, self.top_k, self.top_p)

    def next_seed(self) -> Sampling:
        """The same settings for one more text, which is another one and as repeatable."""
        return self if self.seed is None else replace(self, seed=(self.seed + 1) % (MOST_SEED + 1))


def sample(
    logits: Tensor,
    generator: torch.Generator,
    temperature: float,
    top_k: int | None = None,
    top_p: float | None = None,
) -> Tensor:
    """Draw one token per row: logits (B,V) -> (B,). Temperature first, then top-k, then top-p.

    Of equally probable tokens top-k and top-p keep those with the lowest ids.

    Raises:
        UserError: logits that are not finite, as of a model whose training has diverged.
    """
    logits = logits.float()
    highest = logits.amax(-1, keepdim=True)  # (B,1); NaN where a row holds a NaN
    if not highest.isfinite().all():
        raise UserError("the model's logits are not finite: its weights are damaged or have diverged")
    if temperature == 0:
        return logits.argmax(-1)
    # The highest logit becomes 0 first: then no temperature makes inf − inf, and the limit is greedy.
    range_ = torch.finfo(logits.dtype)
    scaled = (logits - highest) / min(max(temperature, range_.tiny), range_.max)
    probabilities = scaled.softmax(-1)
    if (top_k is not None and top_k < logits.shape[-1]) or (top_p is not None and top_p < 1):
        order = logits.sort(dim=-1, descending=True, stable=True).indices  # ties by ascending id
        probabilities = truncated(probabilities, order, top_k, top_p)
    # The first token at which the cumulated probabilities reach a number drawn from (0, total]: it has
    # a probability above 0, and it exists however the total was rounded.
    cumulated = probabilities.cumsum(-1)
    u = 1 - torch.rand(len(cumulated), 1, generator=generator, device=cumulated.device)
    return torch.searchsorted(cumulated, u * cumulated[:, -1:]).squeeze(-1)


def truncated(probabilities: Tensor, order: Tensor, top_k: int | None, top_p: float | None) -> Tensor:
    """Probabilities (B,V) with 0 outside the k most probable tokens and outside the nucleus of p.

    p counts in the distribution that top-k leaves.

    Args:
        probabilities: (B,V).
        order: (B,V) ids, the most probable first.
        top_k, top_p: see `Sampling`.
    """
    ordered = probabilities.gather(-1, order)
    if top_k is not None:
        ordered[:, min(top_k, ordered.shape[-1]) :] = 0
    if top_p is not None:
        before = ordered.cumsum(-1) - ordered
        outside = before >= top_p * ordered.sum(-1, keepdim=True)
        outside[:, 0] = False  # p may round to 0
        ordered = ordered.masked_fill(outside, 0)
    return torch.zeros_like(probabilities).scatter(-1, order, ordered)
