"""What all attentions share: projections, heads, QK-norm."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from modgpt.model.attention.short_convolution import ConvolvedState, ShortConvolution
from modgpt.model.cost import Cost, count_parameters
from modgpt.model.definition import bound, definition_of
from modgpt.model.init import Initializer
from modgpt.model.pos.base import DefinedPosition, Position
from modgpt.model.state import State


def attention(
    x: Tensor,
    pos: DefinedPosition,
    *,
    project: Callable[[Tensor], tuple[dict[str, Tensor], dict[str, Tensor]]],
    mix: Callable[..., tuple[Tensor, dict[str, Tensor]]],
    gates: Callable[[Tensor], dict[str, Tensor]],
    gated: Callable[[Tensor, Tensor], Tensor],
    out: nn.Linear,
    n_heads: int,
    layer: int,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Project x (B,T,C) to heads, mix the tokens of each head, project back: (B,T,C), final state.

    mix(q, k, v, pos) is the definition of an option, for one head of one sequence, (T,D) each. Where
    there are fewer heads of queries, keys or values than H, several of the H share one.
    """
    pos = pos.of_layer(layer)
    heads, final = project(x)  # (B,heads,T,D) each
    made = heads | gates(x)  # and (B,H,T)
    mixed, states = [], []
    for b in range(len(x)):
        for h in range(n_heads):
            own = {name: z[b, h * z.shape[1] // n_heads] for name, z in made.items()}
            q, k, v = (own.pop(name) for name in "qkv")
            y, state = mix(q, k, v, pos.of_head(h), **own)
            mixed.append(y)
            states.append(state)
    y = torch.stack(mixed).unflatten(0, (-1, n_heads)).transpose(1, 2)  # (B,T,H,D)
    for n in states[0]:
        final[n] = torch.stack([s[n] for s in states]).unflatten(0, (-1, n_heads))
    return out(gated(y, x).flatten(2)), final


def gated(y: Tensor, x: Tensor, *, output_gate: nn.Linear | None, gate_is_silu: bool) -> Tensor:
    """What is mixed, y (B,T,H,D), times its gates made of x (B,T,C), one per head or per element."""
    if output_gate is None:
        return y
    z = output_gate(x).unflatten(2, (y.shape[2], -1))
    return y * (z * torch.sigmoid(z) if gate_is_silu else torch.sigmoid(z))


def queries_keys_values(
    x: Tensor,
    *,
    qkv: nn.Linear,
    convolution: Callable[[Tensor], tuple[Tensor, Tensor]] | None,
    q_norm: Callable[[Tensor], Tensor],
    k_norm: Callable[[Tensor], Tensor],
    qk_norm_over: str,
    clip_qkv: float | None,
    shapes: Sequence[tuple[int, int]],
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """q (B,H,T,D), k and v (B,Hkv,T,D) of x (B,T,C), normed and not yet rotated.

    And the last inputs of the convolution, where there is one.
    """
    heads, kept = qkv(x) if clip_qkv is None else qkv(x).clamp(-clip_qkv, clip_qkv), {}
    if convolution is not None:
        heads, kept["inputs"] = convolution(heads)
    q, k, v = heads.split([n * width for n, width in shapes], dim=2)
    if qk_norm_over == "width":
        q, k = q_norm(q), k_norm(k)
    q, k, v = (
        z.unflatten(2, shape).transpose(1, 2) for z, shape in zip((q, k, v), shapes, strict=True)
    )  # (B,heads,T,D)
    if qk_norm_over == "head":
        q, k = q_norm(q), k_norm(k)
    return {"q": q, "k": k, "v": v}, kept


def no_gates(x: Tensor) -> dict[str, Tensor]:
    """Most options make nothing of x but queries, keys and values."""
    return {}


class Attention(nn.Module, ABC):
    """Base of every attention: projects to heads, leaves the mixing of tokens to the option.

    An option implements `mix`, `initial_state`, `mixing_flops` and `state_size`. Causality lives in
    `mix` and nowhere else.

    Attributes:
        definition: the formula of `mix` for one head of one sequence, (q, k, v, pos) -> y, final state:
            (T,D) each, q and k not yet rotated; gates come by name.
        gates_definition: the formulas of what an option makes of x besides, (B,T,C) -> (B,H,T) by name.
        gated_definition: the formula of `gated`, what is done with what is mixed before it is projected
            back.
        projection_definition: the formula of the heads, (B,T,C) -> q, k and v (B,heads,T,D) by name, and
            what decoding keeps of it.
        variants: values of knobs to test with. Those of the first are so small that a dozen tokens pass
            every window, block and chunk.
        refuses: knobs of the base that an option has no use for, with the reason.
        has_scores: whether every query has a score for every key, to which a bias can be added.

    Legend: B batch, T tokens, C model width, H query heads, Hkv key and value heads, D head width.

    Args:
        d_model: model width C.
        n_heads: query heads H.
        layer: index of the layer, for options that differ from layer to layer.
        dropout: probability of dropping an attention weight (softmax options) or an output element.
        n_kv_heads: key and value heads Hkv, each shared by H/Hkv query heads (grouped-query attention,
            Ainslie et al. 2023; 1 is multi-query, Shazeer 2019); None for H.
        head_dim: head width D; None for C/H.
        bias: give the projections a bias.
        out_bias: the same for the projection of the output; None for `bias`.
        scale: factor of the scores; None for 1/√D.
        qk_norm: makes the norm of queries and keys, before any rotation (Henry et al. 2020).
        qk_norm_over: what one norm is over: `head`, called with D and shared by the heads (Qwen3), or
            `width`, called with H·D or Hkv·D (OLMo 2).
        clip_qkv: c, which keeps the elements of q, k and v within ±c, before any norm (DBRX, 2024; OLMo,
            Groeneveld et al. 2024); None to leave them alone.
        output_gate: multiply what is mixed by sigmoid(xW): `head`, one gate per head, or `element`, one
            per element (Qiu et al. 2025, "Gated Attention for Large Language Models"; Qwen3-Next);
            `silu`, one per element, but SiLU(xW) (Gated Delta Networks); None for no gate.

    Raises:
        ValueError: C is not divisible by H, H not by Hkv, a size is below 1, `qk_norm_over` or
            `output_gate` is none of these, `clip_qkv` is not positive, or a knob is one that the option
            refuses.
    """

    definition: ClassVar[Callable[..., tuple[Tensor, dict[str, Tensor]]]]
    gates_definition: ClassVar[Callable[..., dict[str, Tensor]]] = staticmethod(no_gates)
    gated_definition: ClassVar[Callable[..., Tensor]] = staticmethod(gated)
    projection_definition: ClassVar[Callable[..., Any]] = staticmethod(queries_keys_values)
    variants: ClassVar[Sequence[Mapping[str, Any]]] = ({},)
    refuses: ClassVar[Mapping[str, str]] = {}
    has_scores: ClassVar[bool] = False

    def __init__(
        self,
        *,
        d_model: int,
        n_heads: int,
        layer: int = 0,
        dropout: float = 0.0,
        n_kv_heads: int | None = None,
        head_dim: int | None = None,
        bias: bool = False,
        out_bias: bool | None = None,
        scale: float | None = None,
        qk_norm: Callable[[int], nn.Module] = nn.Identity,
        qk_norm_over: Literal["head", "width"] = "head",
        clip_qkv: float | None = None,
        output_gate: Literal["head", "element", "silu"] | None = None,
    ) -> None:
        super().__init__()
        given = {"n_kv_heads": n_kv_heads, "head_dim": head_dim, "scale": scale}
        for knob, reason in self.refuses.items():
            if given[knob] is not None:
                raise ValueError(
                    f"attention.{knob}={given[knob]} has no effect: {reason}; leave it null"
                )
        n_kv_heads = n_heads if n_kv_heads is None else n_kv_heads
        if head_dim is None:
            if d_model % n_heads:
                raise ValueError(
                    f"model.d_model={d_model} is not divisible by model.n_heads={n_heads}: "
                    f"choose a multiple of {n_heads}, or set attention.head_dim"
                )
            head_dim = d_model // n_heads
        if n_kv_heads < 1 or n_heads % n_kv_heads:
            raise ValueError(f"attention.n_kv_heads={n_kv_heads} must divide model.n_heads={n_heads}")
        if head_dim < 1:
            raise ValueError(f"attention.head_dim must be at least 1, got {head_dim}")
        if qk_norm_over not in ("head", "width"):
            raise ValueError(f"attention.qk_norm_over must be head or width, got {qk_norm_over!r}")
        if clip_qkv is not None and not clip_qkv > 0:  # also NaN
            raise ValueError(f"attention.clip_qkv must be positive, got {clip_qkv}; null leaves it out")
        if output_gate not in (None, "head", "element", "silu"):
            raise ValueError(
                f"attention.output_gate must be head, element, silu or null, got {output_gate!r}"
            )
        # A damaged configuration may have a truth value for a number: true counts as 1.
        self.n_heads, self.n_kv_heads, self.head_dim = map(int, (n_heads, n_kv_heads, head_dim))
        self.layer, self.dropout = layer, dropout
        self.scale = head_dim**-0.5 if scale is None else scale
        self.shapes = self.shapes_of_heads()
        rows = [n * width for n, width in self.shapes]
        self.qkv = nn.Linear(d_model, sum(rows), bias=bias)
        # Rows of the single projections, for optimizers that treat each by itself (Muon).
        self.fused = {"qkv.weight": rows}
        self.convolution: ShortConvolution | None = None  # an option may have one
        self.out_bias = bias if out_bias is None else out_bias
        self.out = nn.Linear(n_heads * head_dim, d_model, bias=self.out_bias)
        self.qk_norm_over = qk_norm_over
        over_width = qk_norm_over == "width"
        self.q_norm, self.k_norm = (
            qk_norm(n * width if over_width else width) for n, width in self.shapes[:2]
        )
        self.clip_qkv = clip_qkv
        gates = n_heads if output_gate == "head" else n_heads * head_dim
        self.output_gate = nn.Linear(d_model, gates, bias=False) if output_gate else None
        self.gate_is_silu = output_gate == "silu"

    def shapes_of_heads(self) -> Sequence[tuple[int, int]]:
        """Number and width of the heads of q, k and v: (H,D), (Hkv,D), (Hkv,D) but for some options."""
        queries, others = (self.n_heads, self.head_dim), (self.n_kv_heads, self.head_dim)
        return queries, others, others

    def forward(
        self, x: Tensor, pos: Position, positions: Tensor, state: State | None = None
    ) -> tuple[Tensor, State | None]:
        """Mix each token with those before it.

        Args:
            x: (B,T,C).
            pos: the model's positional encoding.
            positions: (T,) positions of x, consecutive.
            state: what came before x, None for nothing.

        Returns:
            (B,T,C), and the state after x (None if none was given).
        """
        pos = pos.of_layer(self.layer)
        projected = self.project(x, pos, positions, state)
        y, state = self.mix(**projected, pos=pos, positions=positions, state=state)
        y = self.gated(y.transpose(1, 2), x)  # (B,T,H,D)
        y = self.out(y.flatten(2))  # (B,T,H·D) -> (B,T,C)
        return F.dropout(y, self.dropout) if self.training else y, state

    def project(
        self, x: Tensor, pos: Position, positions: Tensor, state: State | None = None
    ) -> dict[str, Tensor]:
        """What `mix` gets of x (B,T,C), by name: q (B,H,T,D), k and v (B,Hkv,T,D), normed and rotated.

        An option that makes more of x (gates, decays, latent keys) adds it here under its own name. With
        a short convolution, `inputs` is what the state after x keeps of its inputs.
        """
        heads, kept = self.qkv(x), {}
        if self.clip_qkv is not None:
            heads = heads.clamp(-self.clip_qkv, self.clip_qkv)
        if self.convolution is not None:
            past = state.inputs if isinstance(state, ConvolvedState) else None
            heads, kept["inputs"] = self.convolution(heads, past)
        (n_q, width), (n_k, _), (n_v, v_width) = self.shapes
        qk, v = heads.split_with_sizes([(n_q + n_k) * width, n_v * v_width], dim=2)
        qk, v = (x.unflatten(2, (-1, w)).transpose(1, 2) for x, w in ((qk, width), (v, v_width)))
        q, k = self.norm_and_rotate(qk, pos, positions)
        return {"q": q, "k": k, "v": v} | kept

    def gated(self, y: Tensor, x: Tensor) -> Tensor:
        """What is done with y (B,T,H,D), mixed from x (B,T,C), before it is projected back.

        A norm of what is mixed belongs here, so that `mix` gives weighted sums of values.
        """
        if self.output_gate is None:
            return y
        z = self.output_gate(x)
        z = F.silu(z) if self.gate_is_silu else z.sigmoid()
        return y * z.unflatten(2, (self.n_heads, -1))

    def norm_and_rotate(self, qk: Tensor, pos: Position, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Norm first, so that rotation keeps the norm's scale; qk (B,H+Hkv,T,D) -> q, k."""
        # Queries and keys are rotated in one call: half as many small operations.
        return self.split(pos.rotate(self.normed(qk), positions))

    def normed(self, qk: Tensor) -> Tensor:
        """QK-norm of (B,H+Hkv,T,D), queries and keys with weights of their own."""
        if isinstance(self.q_norm, nn.Identity):
            return qk
        q, k = self.split(qk)
        if self.qk_norm_over == "head":
            return torch.cat([self.q_norm(q), self.k_norm(k)], dim=1)
        q, k = (x.transpose(1, 2).flatten(2) for x in (q, k))  # (B,T,·D)
        both = torch.cat([self.q_norm(q), self.k_norm(k)], dim=2)
        return both.unflatten(2, (-1, self.shapes[0][1])).transpose(1, 2)

    def split(self, qk: Tensor) -> tuple[Tensor, Tensor]:
        """(B,H+Hkv,T,D) -> q (B,H,T,D), k (B,Hkv,T,D)."""
        q, k = qk.split_with_sizes([n for n, _ in self.shapes[:2]], dim=1)
        return q, k

    @abstractmethod
    def mix(self, *args: Any, **kwargs: Any) -> tuple[Tensor, State | None]:
        """Mix the tokens of each head: mix(q, k, v, pos, positions, state) -> (B,H,T,D), state after.

        Its arguments are what `project` returns, by name, then the positional encoding, the positions
        (T,) of x, and the state before x or None.
        """

    def defined(self) -> Callable[..., tuple[Tensor, dict[str, Tensor]]]:
        """This layer by its definition: (x (B,T,C), pos) -> (B,T,C), final state by name."""
        mix, gates = bound(definition_of(self), self), bound(self.gates_definition, self)
        gated = bound(self.gated_definition, self)
        project = bound(self.projection_definition, self)
        return bound(attention, self, mix=mix, gates=gates, gated=gated, project=project)

    @abstractmethod
    def initial_state(self, batch_size: int, capacity: int) -> State:
        """The state before the first token, with room for `capacity` tokens where it grows."""

    @abstractmethod
    def mixing_flops(self, length: int) -> float:
        """FLOPs of `mix` per token, averaged over `length` tokens, without any projection of x."""

    @abstractmethod
    def state_size(self, length: int) -> int:
        """Numbers in the state of one sequence after `length` tokens."""

    def unsupported(self, pos: Position) -> str | None:
        """Why this layer cannot use a positional encoding, None if it can."""
        pos = pos.of_layer(self.layer)
        if pos.needs_scores and not self.has_scores:
            own, its = (type(part).__module__.rpartition(".")[2] for part in (self, pos))
            return (
                f"pos={its} adds a bias to attention scores, and attention={own} has none: "
                "take rope, alibi, sinusoidal, learned or none"
            )
        return pos.unsupported(self.rotated_width)

    @property
    def rotated_width(self) -> int:
        """Columns of the queries and keys that the positions rotate together."""
        return self.shapes[0][1]

    @property
    def reach(self) -> int | None:
        """How many of the last keys a query can see, None for all of them."""
        return None

    @property
    def projections(self) -> list[nn.Linear]:
        """The matrices that each token is multiplied with once; an option adds its own."""
        return [m for m in (self.qkv, self.out, self.output_gate) if m is not None]

    def cost(self, length: int) -> Cost:
        """Declared cost at sequence length `length`."""
        n = count_parameters(self)
        projections = 2 * sum(matrix.weight.numel() for matrix in self.projections)
        flops = projections + self.mixing_flops(length)
        return Cost(n, n, flops, self.state_size(length))

    def reset_parameters(self, init: Initializer) -> None:
        """Draw the initial weights of the projections."""
        for matrix in self.projections:
            init.linear(matrix, residual=matrix is self.out)
        if self.convolution is not None:
            self.convolution.reset_parameters(init)
