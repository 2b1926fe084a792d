"""The interface of positional encodings, and `pos=none`."""

from __future__ import annotations

from torch import Tensor, nn

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
        max_length: number of positions that exist, None when any position does.
        relative: True when the scores depend on distances i−j alone, so that a model whose attention
            reaches no further than it did in training may run on past the training window.
        extrapolates: True when distances longer than the training window are in order as well.
    """

    max_length: int | None = None
    relative: bool = True
    extrapolates: bool = False

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

    def reset_parameters(self, init: Initializer) -> None:
        """Draw the initial weights."""
