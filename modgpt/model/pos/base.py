"""The interface of positional encodings, and `pos=none`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from modgpt.model.definition import bound
from modgpt.model.init import Initializer


class Position(nn.Module):
    """Positional information, entering through four hooks that do nothing by default.

    One object serves the whole model; every hook receives the positions it is asked about, so that
    training, prefill and decoding share one code path. An encoding overrides the hooks it needs.
    Used as it is, this class is `pos=none`, the control: a causal decoder still learns something of
    order from its mask alone (Haviv et al. 2022).

    Args:
        d_model: model width C.
        n_heads: query heads H.
        block_size: training window T.
        init_std: standard deviation of the token embeddings at the start.

    Attributes:
        embed_definition: the formula of `embed` for one embedding x (C,) at position t -> (C,).
        rotate_definition: the formula of `rotate` for one query or key x (D,) at position t -> (D,).
        bias_definition: the formula of the bias of head h for a key n tokens back.
        variants: values of knobs to test with.
        max_length: number of positions that exist, None when any position does.
        relative: True when the scores depend on distances i−j alone, so that a model whose attention
            reaches no further than it did in training may run on past the training window.
        extrapolates: True when distances longer than the training window work as well.
        needs_scores: True when the encoding is a bias of scores that no decay of a state can stand for.
    """

    embed_definition: ClassVar[Callable[..., Tensor] | None] = None
    rotate_definition: ClassVar[Callable[..., Tensor] | None] = None
    bias_definition: ClassVar[Callable[..., Tensor] | None] = None
    variants: ClassVar[Sequence[Mapping[str, Any]]] = ({},)
    max_length: int | None = None
    relative: bool = True
    extrapolates: bool = False
    needs_scores: bool = False

    def __init__(self, *, d_model: int, n_heads: int, block_size: int, init_std: float) -> None:
        super().__init__()

    def embed(self, x: Tensor, positions: Tensor) -> Tensor:
        """Add position to token embeddings: x (B,T,C), positions (T,) -> (B,T,C)."""
        return x

    def rotate(self, x: Tensor, positions: Tensor) -> Tensor:
        """Rotate queries or keys: x (B,H,T,D), positions (T,) -> (B,H,T,D)."""
        return x

    def score_bias(self, q_positions: Tensor, k_positions: Tensor) -> Tensor | None:
        """Bias of attention scores before the softmax: (Tq,), (Tk,) -> (H,Tq,Tk), or None.

        It may depend on the differences i−j only: blocked attention computes it once for all blocks.
        """
        return None

    def log_decay(self) -> Tensor | None:
        """Logarithm of the factor by which a past key fades per token, (H,), or None.

        The counterpart of `score_bias` for attention that keeps a recurrent state.
        """
        return None

    def of_layer(self, layer: int) -> Position:
        """The encoding of one layer: this one, unless layers differ (`pos=hybrid`)."""
        return self

    def unsupported(self, head_dim: int) -> str | None:
        """Why heads of this width cannot be used, None if they can."""
        return None

    def reset_parameters(self, init: Initializer) -> None:
        """Draw the initial weights."""

    def defined(self) -> DefinedPosition:
        """This encoding by its definition."""
        return DefinedPosition(
            self.embed_definition and bound(self.embed_definition, self),
            self.rotate_definition and bound(self.rotate_definition, self),
            self.bias_definition and bound(self.bias_definition, self),
        )


class DefinedPosition:
    """A positional encoding by its definition, as a sequence that begins at position 0 meets it.

    Args:
        on_embedding, on_query, on_score: formulas of the three hooks, None where one does nothing.
        head: the head h that a bias is for.
        layers: the encodings of the first layers, repeated from there on; None where all are this one.
    """

    def __init__(
        self,
        on_embedding: Callable[[Tensor, int], Tensor] | None = None,
        on_query: Callable[[Tensor, int], Tensor] | None = None,
        on_score: Callable[[int, int], Tensor] | None = None,
        head: int = 0,
        layers: Sequence[DefinedPosition] | None = None,
    ) -> None:
        self.on_embedding, self.on_query, self.on_score = on_embedding, on_query, on_score
        self.head, self.layers = head, layers

    def of_layer(self, layer: int) -> DefinedPosition:
        """The encoding of one layer."""
        return self if self.layers is None else self.layers[layer % len(self.layers)]

    def of_head(self, head: int) -> DefinedPosition:
        """The same encoding for one head."""
        return DefinedPosition(self.on_embedding, self.on_query, self.on_score, head)

    def embed(self, x: Tensor) -> Tensor:
        """Each embedding of x (T,C) with its position added."""
        formula = self.on_embedding
        return x if formula is None else torch.stack([formula(x[t], t) for t in range(len(x))])

    def rotate(self, x: Tensor) -> Tensor:
        """Each query or key of x (T,D) rotated by its position."""
        formula = self.on_query
        return x if formula is None else torch.stack([formula(x[t], t) for t in range(len(x))])

    def bias(self, distances: Sequence[int]) -> Tensor:
        """The bias of the scores of keys that lie so many tokens back: (n,)."""
        formula = self.on_score
        if formula is None:
            return torch.zeros(len(distances))
        return torch.stack([formula(self.head, n) for n in distances])

    def decay(self) -> Tensor:
        """The factor by which a recurrent state fades per token: e^bias of a key one token back."""
        return self.bias([1])[0].exp()
