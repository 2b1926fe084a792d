"""One layer of the model: attention and feed-forward, each a residual branch.

Legend of all shapes: B batch, T tokens, C model width.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
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
    embedded: Tensor,
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
    gains: list[Tensor] | None,
    shares: Tensor | None,
) -> Tensor:
    """x + r·a(x) + r·f(x + r·a(x)), or x + r·a(x) + r·f(x) in parallel, r = `residual_scale`.

    a and f stand between their norms; with `one_norm` both read what the first norm puts out. `gains`
    multiply what they add; with `shares` (s, s₀) the layer begins with s·x + s₀·embedded.
    """
    if shares is not None:
        x = shares[0] * x + shares[1] * embedded
    for_attention, for_ffn = (1.0, 1.0) if gains is None else gains
    normed = attention_norm_in(x)
    mixed = x + residual_scale * for_attention * attention_norm_out(attention(normed, pos)[0])
    read = normed if one_norm else ffn_norm_in(x if parallel else mixed)
    return mixed + residual_scale * for_ffn * ffn_norm_out(ffn(read)[0])


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
        layer_scale: start of a trained gain per column of what each branch adds (LayerScale, Touvron et
            al. 2021, "Going Deeper with Image Transformers", section 2); None for no gains.
        embedding_residual: begin the layer with s·x + s₀·x₀, where x₀ is the embedding and the two
            trained numbers start at 1 and 0 (modded-nanogpt, 2024; nanochat, 2025).
        stochastic_depth: probability that a branch adds nothing for a sequence in training; those that
            stay are divided by 1 minus it (Huang et al. 2016, "Deep Networks with Stochastic Depth",
            section 3, with the same probability in all layers).

    Raises:
        ValueError: `norm_at` is unknown, a scale is not positive, the probability is not in [0, 1),
            or `one_norm` where there are not two norms of one x.
    """

    definition = staticmethod(block)
    variants = (
        {},
        {"norm_at": "out"},
        {"norm_at": "both"},
        {"residual_scale": 0.3, "layer_scale": 0.5, "embedding_residual": True},
    )

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
        layer_scale: float | None = None,
        embedding_residual: bool = False,
        stochastic_depth: float = 0.0,
    ) -> None:
        super().__init__()
        for name, value in {"residual_scale": residual_scale, "layer_scale": layer_scale}.items():
            if value is not None and not value > 0:  # also NaN
                raise ValueError(f"block.{name} must be positive, got {value}")
        if not 0 <= stochastic_depth < 1:
            raise ValueError(f"block.stochastic_depth must lie in [0, 1), got {stochastic_depth}")
        if norm_at not in ("in", "out", "both"):
            raise ValueError(f"block.norm_at must be in, out or both, got {norm_at!r}")
        if one_norm and (not parallel or norm_at == "out"):
            raise ValueError(
                f"block.one_norm=true needs block=parallel and block.norm_at=in or both, got "
                f"parallel={parallel}, norm_at={norm_at}: there are not two norms of one x"
            )
        self.parallel, self.one_norm, self.residual_scale = parallel, one_norm, residual_scale
        self.layer_scale, self.stochastic_depth = layer_scale, stochastic_depth
        self.attention = attention(d_model=d_model, n_heads=n_heads, layer=layer, dropout=dropout)
        self.ffn = ffn(d_model=d_model, layer=layer, dropout=dropout)

        def norm_if(wanted: bool) -> nn.Module:
            return norm(d_model) if wanted else nn.Identity()

        self.attention_norm_in = norm_if(norm_at != "out")
        self.attention_norm_out = norm_if(norm_at != "in")
        self.ffn_norm_in = norm_if(norm_at != "out" and not one_norm)
        self.ffn_norm_out = norm_if(norm_at != "in")
        both = [nn.Parameter(torch.empty(d_model)) for _ in range(2)]
        self.gains = None if layer_scale is None else nn.ParameterList(both)
        self.shares = nn.Parameter(torch.empty(2)) if embedding_residual else None

    def forward(
        self,
        x: Tensor,
        pos: Position,
        positions: Tensor,
        embedded: Tensor,
        state: State | None = None,
    ) -> tuple[Tensor, State | None, dict[str, Tensor]]:
        """The layer's output, the attention's state after x, the feed-forward's aux.

        Args:
            x: (B,T,C).
            pos, positions, state: for the attention.
            embedded: (B,T,C), what the first layer gets.
        """
        if self.shares is not None:
            x = self.shares[0] * x + self.shares[1] * embedded
        normed = self.attention_norm_in(x)
        mixed, state = self.attention(normed, pos, positions, state)
        after = x + self.added(self.attention_norm_out(mixed), 0)
        read = normed if self.one_norm else self.ffn_norm_in(x if self.parallel else after)
        y, aux = self.ffn(read)
        return after + self.added(self.ffn_norm_out(y), 1), state, aux

    def added(self, y: Tensor, branch: int) -> Tensor:
        """What a branch, 0 or 1, adds to the residual stream: y (B,T,C) -> (B,T,C)."""
        if self.residual_scale != 1:
            y = self.residual_scale * y
        if self.gains is not None:
            y = self.gains[branch] * y
        if self.training and self.stochastic_depth:
            kept = torch.rand(len(y), 1, 1, device=y.device) >= self.stochastic_depth
            y = y * kept.to(y.dtype) / (1 - self.stochastic_depth)
        return y

    def reset_parameters(self, init: Initializer) -> None:
        """Draw the initial weights of both branches."""
        self.attention.reset_parameters(init)
        self.ffn.reset_parameters(init)
        for gain in self.gains or ():
            nn.init.constant_(gain, self.layer_scale or 0.0)
        if self.shares is not None:
            with torch.no_grad():
                self.shares.copy_(torch.tensor([1.0, 0.0]))

    def cost(self, length: int) -> Cost:
        """Sum of the parts' declared costs."""
        own = sum(p.numel() for p in self.parameters(recurse=False))
        return sum((cost_of(part, length) for part in self.children()), Cost(own, own))
