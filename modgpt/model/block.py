"""One layer of the model: attention and feed-forward, each a residual branch.

Legend of all shapes: B batch, T tokens, C model width.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from torch import Tensor, nn

from modgpt.model.attention.base import Attention
from modgpt.model.cost import Cost, cost_of
from modgpt.model.ffn.base import FeedForward
from modgpt.model.init import Initializer
from modgpt.model.pos.base import DefinedPosition, Position
from modgpt.model.state import State


def block(
    x: Tensor,
    pos: DefinedPosition,
    *,
    attention: Callable[..., tuple[Tensor, dict[str, Tensor]]],
    ffn: Callable[..., tuple[Tensor, dict[str, Tensor]]],
    attention_norm_in: Callable[[Tensor], Tensor],
    attention_norm_out: Callable[[Tensor], Tensor],
    ffn_norm_in: Callable[[Tensor], Tensor],
    ffn_norm_out: Callable[[Tensor], Tensor],
    parallel: bool,
    one_norm: bool,
    residual_scale: float,
) -> Tensor:
    """x + r·a(x) + r·f(x + r·a(x)), or x + r·a(x) + r·f(x) in parallel, r = `residual_scale`.

    a and f stand between their norms; with `one_norm` both read what the first norm puts out.
    """
    normed = attention_norm_in(x)
    mixed = x + residual_scale * attention_norm_out(attention(normed, pos)[0])
    read = normed if one_norm else ffn_norm_in(x if parallel else mixed)
    return mixed + residual_scale * ffn_norm_out(ffn(read)[0])


class Block(nn.Module):
    """One layer of two branches, attention and feed-forward, each x + norm_out(f(norm_in(x))).

    Sequential (Vaswani et al. 2017): the second branch reads what the first has added. Parallel (GPT-J;
    PaLM, Chowdhery et al. 2022, section 2): both read the same x and are added together.

    Args:
        d_model, n_heads, layer, dropout: passed on to the parts.
        attention, ffn, norm: partials that make the parts.
        parallel: add both branches to one x.
        norm_at: where the norms stand: `in` (pre-norm, GPT-2), `out` (OLMo 2) or `both` (sandwich).
        one_norm: both parallel branches read one normed x (GPT-J, Phi, Cohere), instead of a norm each
            (GPT-NeoX).
        residual_scale: factor of what each branch adds (Granite's residual_multiplier).

    Raises:
        ValueError: `norm_at` is none of these, the scale is not positive, or `one_norm` where there are
            not two norms of one x.
    """

    definition = staticmethod(block)
    variants = ({}, {"norm_at": "out"}, {"norm_at": "both"}, {"residual_scale": 0.3})

    def __init__(
        self,
        *,
        d_model: int,
        n_heads: int,
        layer: int,
        dropout: float,
        attention: Callable[..., Attention],
        ffn: Callable[..., FeedForward],
        norm: Callable[[int], nn.Module],
        parallel: bool = False,
        norm_at: Literal["in", "out", "both"] = "in",
        one_norm: bool = False,
        residual_scale: float = 1.0,
    ) -> None:
        super().__init__()
        if not residual_scale > 0:  # also NaN
            raise ValueError(f"block.residual_scale must be positive, got {residual_scale}")
        if norm_at not in ("in", "out", "both"):
            raise ValueError(f"block.norm_at must be in, out or both, got {norm_at!r}")
        if one_norm and (not parallel or norm_at == "out"):
            raise ValueError(
                f"block.one_norm=true needs block=parallel and block.norm_at=in or both, got "
                f"parallel={parallel}, norm_at={norm_at}: there are not two norms of one x"
            )
        self.parallel, self.one_norm, self.residual_scale = parallel, one_norm, residual_scale
        self.attention = attention(d_model=d_model, n_heads=n_heads, layer=layer, dropout=dropout)
        self.ffn = ffn(d_model=d_model, layer=layer, dropout=dropout)

        def norm_if(wanted: bool) -> nn.Module:
            return norm(d_model) if wanted else nn.Identity()

        self.attention_norm_in = norm_if(norm_at != "out")
        self.attention_norm_out = norm_if(norm_at != "in")
        self.ffn_norm_in = norm_if(norm_at != "out" and not one_norm)
        self.ffn_norm_out = norm_if(norm_at != "in")

    def forward(
        self, x: Tensor, pos: Position, positions: Tensor, state: State | None = None
    ) -> tuple[Tensor, State | None, dict[str, Tensor]]:
        """x (B,T,C) -> (B,T,C), the attention's state after x, the feed-forward's aux."""
        normed = self.attention_norm_in(x)
        mixed, state = self.attention(normed, pos, positions, state)
        after = x + self.scaled(self.attention_norm_out(mixed))
        read = normed if self.one_norm else self.ffn_norm_in(x if self.parallel else after)
        y, aux = self.ffn(read)
        return after + self.scaled(self.ffn_norm_out(y)), state, aux

    def scaled(self, branch: Tensor) -> Tensor:
        """What a branch adds to the residual stream."""
        return branch if self.residual_scale == 1 else self.residual_scale * branch

    def reset_parameters(self, init: Initializer) -> None:
        """Draw the initial weights of both branches."""
        self.attention.reset_parameters(init)
        self.ffn.reset_parameters(init)

    def cost(self, length: int) -> Cost:
        """Sum of the parts' declared costs."""
        return sum((cost_of(part, length) for part in self.children()), Cost())
