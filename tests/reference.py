"""Slow, obvious implementations, straight from the definitions: the fast ones are held to them.

Loops over tokens, heads and experts, on the weights of the fast module as plain tensors
(`module.state_dict()`). Matrix products (`@`) stand for exactly the pairs that a definition asks for, so
that the FLOPs counted here are those that a component has to declare.

Adding an option: write its reference and enter it below under the option's name.

Legend: B batch, T tokens, C model width, H query heads, Hkv key and value heads, D head width,
E experts.
"""

from __future__ import annotations

import cmath
import math
from collections.abc import Callable, Mapping, Sequence
from functools import cache, partial
from typing import Any

import torch
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from torch import Tensor

from modgpt.config.compose import compose
from modgpt.config.search import options

Weights = Mapping[str, Tensor]
# Final state by the names of the fast state's fields.
State = dict[str, Tensor]


def sub(weights: Weights, prefix: str) -> dict[str, Tensor]:
    """The weights of one submodule, by the names it gives them itself."""
    start = prefix + "."
    return {name.removeprefix(start): w for name, w in weights.items() if name.startswith(start)}


def linear(x: Tensor, weights: Weights, name: str) -> Tensor:
    """x (…,in) times the matrix of a Linear, plus its bias where it has one."""
    y = x @ weights[f"{name}.weight"].T
    return y + weights[f"{name}.bias"] if f"{name}.bias" in weights else y


# --- norms ----------------------------------------------------------------------------------------


def layer_norm(x: Tensor, weights: Weights, *, eps: float, **_: object) -> Tensor:
    """(x − mean) / √(variance + eps), times the weight, plus the bias (Ba et al. 2016)."""
    centred = x - x.mean(-1, keepdim=True)
    variance = (centred**2).mean(-1, keepdim=True)
    y = centred / torch.sqrt(variance + eps) * weights["weight"]
    return y + weights["bias"] if "bias" in weights else y


def rms_norm(x: Tensor, weights: Weights, *, eps: float, **_: object) -> Tensor:
    """x / √(mean of squares + eps), times the weight (Zhang & Sennrich 2019)."""
    return x / torch.sqrt((x**2).mean(-1, keepdim=True) + eps) * weights["weight"]


def scale_norm(x: Tensor, weights: Weights, *, eps: float, **_: object) -> Tensor:
    """g · x / √(‖x‖² + eps) (Nguyen & Salazar 2019)."""
    return weights["g"] * x / torch.sqrt((x**2).sum(-1, keepdim=True) + eps)


# --- positions ------------------------------------------------------------------------------------


class NoPosition:
    """pos=none, and what the others change of it; every method is asked about one token."""

    def __init__(self, weights: Weights, *, n_heads: int, init_std: float, **knobs: Any) -> None:
        self.weights, self.n_heads, self.init_std, self.knobs = weights, n_heads, init_std, knobs

    def embed(self, x: Tensor, t: int) -> Tensor:
        """The embedding x (C,) of token t with its position added."""
        return x

    def rotate(self, x: Tensor, t: int) -> Tensor:
        """A query or key x (D,) of token t, rotated."""
        return x

    def slope(self, head: int) -> float:
        """m: a key at distance n is weakened by e^(−m·n)."""
        return 0.0


class Sinusoidal(NoPosition):
    """Vaswani et al. 2017, section 3.5, scaled."""

    def embed(self, x: Tensor, t: int) -> Tensor:
        scale, width = self.knobs["scale"], len(x)
        if scale is None:
            scale = self.init_std * math.sqrt(2)
        encoding = torch.zeros(width)
        for column in range(width):
            angle = t / 10000 ** ((column - column % 2) / width)
            encoding[column] = math.cos(angle) if column % 2 else math.sin(angle)
        return x + scale * encoding


class Learned(NoPosition):
    """One row of a table per position."""

    def embed(self, x: Tensor, t: int) -> Tensor:
        return x + self.weights["table.weight"][t]


class Rotary(NoPosition):
    """Su et al. 2021: the pair (xᵢ, xᵢ₊D/2) as a complex number, times e^(i·t·θ^(−2i/D)).

    D is the rotated share of the head width; the columns behind it stay.
    """

    def rotate(self, x: Tensor, t: int) -> Tensor:
        width = int(len(x) * self.knobs.get("fraction", 1))
        half = width // 2
        pairs = torch.complex(x[:half], x[half:width])
        turns = [cmath.rect(1, t * self.knobs["theta"] ** (-2 * i / width)) for i in range(half)]
        turned = pairs * torch.tensor(turns, dtype=pairs.dtype)
        return torch.cat([turned.real, turned.imag, x[width:]])


class Alibi(NoPosition):
    """Press et al. 2022."""

    def slope(self, head: int) -> float:
        return alibi_slopes(self.n_heads)[head]


def alibi_slopes(n: int) -> list[float]:
    """The slopes of n heads by the authors' rule, which calls itself for n no power of two."""
    if math.log2(n).is_integer():
        ratio = 2 ** (-8 / n)
        return [ratio ** (head + 1) for head in range(n)]
    power = 2 ** math.floor(math.log2(n))
    return alibi_slopes(power) + alibi_slopes(2 * power)[0::2][: n - power]


# --- attention ------------------------------------------------------------------------------------


def heads_of(
    x: Tensor,
    weights: Weights,
    n_heads: int,
    n_kv_heads: int | None,
    qk_norm: Callable[[Tensor, Weights], Tensor],
    qk_norm_over: str = "head",
) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
    """x (T,C) -> q, k and v of every query head, each (T,D); query heads share keys and values."""
    n_kv_heads = n_heads if n_kv_heads is None else n_kv_heads
    width = weights["out.weight"].shape[1] // n_heads
    columns = linear(x, weights, "qkv").split(width, dim=1)
    q = list(columns[:n_heads])
    k, v = columns[n_heads : n_heads + n_kv_heads], columns[n_heads + n_kv_heads :]
    if qk_norm_over == "width":  # one long vector
        q = list(qk_norm(torch.cat(q, dim=1), sub(weights, "q_norm")).split(width, dim=1))
        k = list(qk_norm(torch.cat(k, dim=1), sub(weights, "k_norm")).split(width, dim=1))
    else:
        q = [qk_norm(head, sub(weights, "q_norm")) for head in q]
        k = [qk_norm(head, sub(weights, "k_norm")) for head in k]
    shared = n_heads // n_kv_heads
    return q, [k[h // shared] for h in range(n_heads)], [v[h // shared] for h in range(n_heads)]


def rotated(x: Tensor, pos: NoPosition) -> Tensor:
    """x (T,D), each row rotated by its position."""
    return torch.stack([pos.rotate(x[t], t) for t in range(len(x))])


def softmax_attention(
    x: Tensor,
    weights: Weights,
    pos: NoPosition,
    visible: Callable[[int], Sequence[int]],
    *,
    n_heads: int,
    n_kv_heads: int | None = None,
    scale: float | None = None,
    qk_norm: Callable[[Tensor, Weights], Tensor],
    qk_norm_over: str = "head",
    **_: object,
) -> tuple[Tensor, Tensor, Tensor]:
    """softmax(scale·QKᵀ − m·(i−j)) V over the keys `visible(i)`, for one sequence x (T,C).

    The layer's index changes nothing here.

    Returns:
        (T,C), and keys and values of all tokens (Hkv,T,D), the keys as they are compared.
    """
    q, k, v = heads_of(x, weights, n_heads, n_kv_heads, qk_norm, qk_norm_over)
    q, k = [rotated(head, pos) for head in q], [rotated(head, pos) for head in k]
    factor = q[0].shape[1] ** -0.5 if scale is None else scale
    rows = []
    for i in range(len(x)):
        mixed = []
        for h in range(n_heads):
            seen = list(visible(i))
            distance = torch.tensor([i - j for j in seen])
            scores = factor * (q[h][i : i + 1] @ k[h][seen].T) - pos.slope(h) * distance
            exponentials = torch.exp(scores - scores.max())
            mixed.append(exponentials / exponentials.sum() @ v[h][seen])
        rows.append(torch.cat(mixed, dim=1))
    step = n_heads // n_kv_heads if n_kv_heads else 1
    return linear(torch.cat(rows), weights, "out"), torch.stack(k[::step]), torch.stack(v[::step])


def full_attention(x: Tensor, weights: Weights, pos: NoPosition, **base: Any) -> tuple[Tensor, State]:
    """Each query over all keys up to its own (Vaswani et al. 2017); x (B,T,C)."""
    every = [softmax_attention(one, weights, pos, lambda i: range(i + 1), **base) for one in x]
    y, k, v = (torch.stack(part) for part in zip(*every, strict=True))
    return y, {"k": k, "v": v}


def local_window_attention(
    x: Tensor,
    weights: Weights,
    pos: NoPosition,
    *,
    window: int,
    **base: Any,
) -> tuple[Tensor, State]:
    """Each query i over the keys j with 0 ≤ i−j < W; x (B,T,C)."""

    def visible(i: int) -> list[int]:
        return [j for j in range(x.shape[1]) if 0 <= i - j < window]

    every = [softmax_attention(one, weights, pos, visible, **base) for one in x]
    y, k, v = (torch.stack(part) for part in zip(*every, strict=True))
    return y, {"k": k[:, :, -window:], "v": v[:, :, -window:]}


def sparse_attention(
    x: Tensor,
    weights: Weights,
    pos: NoPosition,
    *,
    pattern: str,
    stride: int,
    summary: int,
    **base: Any,
) -> tuple[Tensor, State]:
    """The patterns of Child et al. 2019, section 4.3, both parts of each in one softmax; x (B,T,C)."""
    length = x.shape[1]

    def visible(i: int) -> list[int]:
        if pattern == "strided":
            return [j for j in range(i + 1) if i - j < stride or (i - j) % stride == 0]
        return [j for j in range(i + 1) if j // stride == i // stride or is_summary(j)]

    def is_summary(j: int) -> bool:
        return j % stride >= stride - summary

    every = [softmax_attention(one, weights, pos, visible, **base) for one in x]
    y, k, v = (torch.stack(part) for part in zip(*every, strict=True))
    open_block = length - length % stride  # its first token, be it there or not
    kept = [j for j in range(length) if pattern == "strided" or j >= open_block or is_summary(j)]
    return y, {"k": k[:, :, kept], "v": v[:, :, kept]}


def bigbird_attention(
    x: Tensor,
    weights: Weights,
    pos: NoPosition,
    *,
    block: int,
    n_window: int,
    n_global: int,
    n_random: int,
    seed: int,
    layer: int = 0,
    **base: Any,
) -> tuple[Tensor, State]:
    """Blocks in the window, the first, and random ones (Zaheer et al. 2020, section 2); x (B,T,C)."""

    def visible(i: int) -> list[int]:
        n = i // block
        window = set(range(max(0, n - n_window + 1), n + 1))
        others = set(range(n)) - window - set(range(n_global))
        seen = window | set(range(min(n_global, n))) | drawn(n, sorted(others))
        return [j for j in range(i + 1) if j // block in seen]

    def drawn(n: int, others: list[int]) -> set[int]:
        """Floyd's sample of n_random, on the hash of (seed, layer, n)."""
        sample: set[int] = set()
        for d in range(n_random):
            last = len(others) - n_random + d
            if last >= 0:
                random = scramble(scramble(scramble(scramble(seed) + layer) + n) + d)
                pick = others[random % (last + 1)]
                sample.add(others[last] if pick in sample else pick)
        return sample

    def scramble(number: int) -> int:
        """A public hash of 32 bits."""
        number = (number ^ number >> 16) * 73244475 % 2**32
        number = (number ^ number >> 16) * 73244475 % 2**32
        return number ^ number >> 16

    every = [softmax_attention(one, weights, pos, visible, **base) for one in x]
    y, k, v = (torch.stack(part) for part in zip(*every, strict=True))
    return y, {"k": k, "v": v}


def linear_attention(
    x: Tensor,
    weights: Weights,
    pos: NoPosition,
    *,
    n_heads: int,
    eps: float,
    n_kv_heads: int | None = None,
    qk_norm: Callable[[Tensor, Weights], Tensor],
    qk_norm_over: str = "head",
    **_: object,
) -> tuple[Tensor, State]:
    """The recurrence of Katharopoulos et al. 2020, token by token; x (B,T,C).

    RoPE turns φ(q) and φ(k) in the numerator alone (Su et al. 2021, eq. 19); ALiBi lets both sums
    fade by e^(−m) per token.
    """

    def phi(a: Tensor) -> Tensor:
        return torch.where(a > 0, a + 1, torch.exp(a.clamp(max=0)))  # elu(a) + 1

    ys, ss, zs = [], [], []
    for one in x:
        q, k, v = heads_of(one, weights, n_heads, n_kv_heads, qk_norm, qk_norm_over)
        width = q[0].shape[1]
        columns, s_of_heads, z_of_heads = [], [], []
        for h in range(n_heads):
            fade = math.exp(-pos.slope(h))
            s, z = torch.zeros(width, width), torch.zeros(width)
            rows = []
            for t in range(len(one)):
                phi_q, phi_k = phi(q[h][t]), phi(k[h][t])
                s = fade * s + pos.rotate(phi_k, t)[:, None] @ v[h][t][None, :]
                z = fade * z + phi_k
                numerator = pos.rotate(phi_q, t)[None, :] @ s  # (1,D)
                denominator = phi_q[None, :] @ z[:, None]  # (1,1)
                rows.append(numerator / (denominator + eps))
            columns.append(torch.cat(rows))
            s_of_heads.append(s)
            z_of_heads.append(z)
        ys.append(linear(torch.cat(columns, dim=1), weights, "out"))
        ss.append(torch.stack(s_of_heads))
        zs.append(torch.stack(z_of_heads))
    return torch.stack(ys), {"s": torch.stack(ss), "z": torch.stack(zs)}


def gated_delta_attention(
    x: Tensor,
    weights: Weights,
    pos: NoPosition,
    *,
    n_heads: int,
    eps: float,
    n_kv_heads: int | None = None,
    scale: float | None = None,
    qk_norm: Callable[[Tensor, Weights], Tensor],
    qk_norm_over: str = "head",
    **_: object,
) -> tuple[Tensor, State]:
    """The recurrence of Yang, Kautz & Hatamizadeh 2024, token by token, S transposed; x (B,T,C)."""

    def unit(a: Tensor) -> Tensor:
        return a / torch.sqrt((a**2).sum() + eps)

    ys, ss = [], []
    for one in x:
        q, k, v = heads_of(one, weights, n_heads, n_kv_heads, qk_norm, qk_norm_over)
        gates = linear(one, weights, "gates")  # (T,2H)
        width = q[0].shape[1]
        factor = width**-0.5 if scale is None else scale
        columns, s_of_heads = [], []
        for h in range(n_heads):
            s, rows = torch.zeros(width, width), []
            for t in range(len(one)):
                step = torch.log(1 + torch.exp(gates[t, h] + weights["dt_bias"][h]))
                alpha = torch.exp(-torch.exp(weights["a_log"][h]) * step) * math.exp(-pos.slope(h))
                beta = 1 / (1 + torch.exp(-gates[t, n_heads + h]))
                unit_q, unit_k = pos.rotate(unit(q[h][t]), t), pos.rotate(unit(k[h][t]), t)
                s = alpha * s
                held = unit_k[None, :] @ s  # (1,D)
                s = s + unit_k[:, None] @ (beta * (v[h][t][None, :] - held))
                rows.append(factor * unit_q[None, :] @ s)
            columns.append(torch.cat(rows))
            s_of_heads.append(s)
        ys.append(linear(torch.cat(columns, dim=1), weights, "out"))
        ss.append(torch.stack(s_of_heads))
    return torch.stack(ys), {"s": torch.stack(ss)}


def hybrid_attention(
    x: Tensor,
    weights: Weights,
    pos: NoPosition,
    *,
    n_heads: int,
    options: Mapping[str, Any],
    pattern: Sequence[str],
    layer: int = 0,
    **_: object,
) -> tuple[Tensor, State]:
    """The option whose turn it is in this layer; its knobs of the base are those of all layers."""
    node = options[pattern[layer % len(pattern)]]
    attention = reference_of("attention", option_of("attention", node))
    return attention(x, weights, pos, n_heads=n_heads, layer=layer, **knobs_of(node))


# --- feed-forward ---------------------------------------------------------------------------------


ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    # a·Φ(a) with the normal distribution function Φ; and Φ approximated (Hendrycks & Gimpel 2016)
    "gelu": lambda a: a * 0.5 * (1 + torch.erf(a / math.sqrt(2))),
    "gelu_tanh": lambda a: a * 0.5 * (1 + torch.tanh(math.sqrt(2 / math.pi) * (a + 0.044715 * a**3))),
    "relu": lambda a: torch.where(a > 0, a, 0.0),
    "relu_squared": lambda a: torch.where(a > 0, a, 0.0) ** 2,
    "silu": lambda a: a / (1 + torch.exp(-a)),  # a·sigmoid(a)
}


def standard(
    x: Tensor, weights: Weights, *, activation: str = "gelu", **_: object
) -> tuple[Tensor, dict[str, Tensor]]:
    """W₂ f(W₁x)."""
    return linear(ACTIVATIONS[activation](linear(x, weights, "up")), weights, "down"), {}


def swiglu(
    x: Tensor, weights: Weights, *, activation: str = "silu", **_: object
) -> tuple[Tensor, dict[str, Tensor]]:
    """W₂ (f(W₁x) ⊙ W₃x); W₁ stands above W₃ in one matrix."""
    hidden = weights["gate_up.weight"].shape[0] // 2
    matrices = sub(weights, "gate_up").items()
    a = linear(x, {f"w1.{name}": w[:hidden] for name, w in matrices}, "w1")
    b = linear(x, {f"w3.{name}": w[hidden:] for name, w in matrices}, "w3")
    return linear(ACTIVATIONS[activation](a) * b, weights, "down"), {}


def moe(
    x: Tensor,
    weights: Weights,
    *,
    expert: Mapping[str, Any],
    n_experts: int,
    top_k: int,
    balance_coef: float,
    z_coef: float,
    **_: object,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Token by token through the top-k experts; x (…,C). The balance loss is E·Σ fₑpₑ."""
    one_expert, knobs = FFN[option_of("ffn", expert)], knobs_of(expert)
    outputs, probabilities, squares = [], [], []
    assigned = [0] * n_experts
    for token in x.flatten(0, -2):
        logits = linear(token[None], weights, "router")[0]
        exponentials = torch.exp(logits)
        p = exponentials / exponentials.sum()
        best = sorted(range(n_experts), key=lambda e: -p[e].item())[:top_k]
        y = torch.zeros_like(token)
        for e in best:
            own = {name: w[e] for name, w in sub(weights, "experts").items()}
            y = y + p[e] / sum(p[i] for i in best) * one_expert(token[None], own, **knobs)[0][0]
            assigned[e] += 1
        outputs.append(y)
        probabilities.append(p)
        squares.append(torch.log(exponentials.sum()) ** 2)
    load = torch.tensor(assigned) / sum(assigned)
    mean = torch.stack(probabilities).mean(0)
    balance = n_experts * sum(load[e] * mean[e] for e in range(n_experts))
    z = torch.stack(squares).mean()
    loss = balance_coef * balance + z_coef * z
    aux = {"loss": loss, "balance_loss": balance, "router_z_loss": z, "expert_load": load}
    return torch.stack(outputs).view_as(x), aux


# --- the references by option ---------------------------------------------------------------------

# (x (B,T,C), weights, position, **knobs) -> (B,T,C), final state
ATTENTION = {
    "bigbird": bigbird_attention,
    "flash": full_attention,
    "gated_delta": gated_delta_attention,
    "hybrid": hybrid_attention,
    "linear": linear_attention,
    "local_window": local_window_attention,
    "sparse": sparse_attention,
}
# (x (…,C), weights, **knobs) -> (…,C), aux
FFN: dict[str, Callable[..., tuple[Tensor, dict[str, Tensor]]]] = {
    "moe": moe,
    "standard": standard,
    "swiglu": swiglu,
}
# (x (…,C), weights, **knobs) -> (…,C)
NORM = {
    "layernorm": layer_norm,
    "none": lambda x, *_, **__: x,
    "rmsnorm": rms_norm,
    "scalenorm": scale_norm,
}
POS = {
    "alibi": Alibi,
    "learned": Learned,
    "none": NoPosition,
    "rope": Rotary,
    "sinusoidal": Sinusoidal,
}
GROUPS: dict[str, dict[str, Any]] = {"attention": ATTENTION, "ffn": FFN, "norm": NORM, "pos": POS}


def reference_of(group: str, option: str) -> Any:
    """The reference of an option, or a failure that tells where to write it."""
    assert option in GROUPS[group], (
        f"{group}={option} has no reference: write one in tests/reference.py and enter it in "
        f"{group.upper()}"
    )
    return GROUPS[group][option]


def option_of(group: str, node: Mapping[Any, Any]) -> str:
    """The name of the option that a part of a configuration stands for, told by its class."""
    for option in options(group):
        if _composed(group, option)["_target_"] == node["_target_"]:
            return option
    raise AssertionError(f"no option of {group} is made by {node['_target_']}")


def knobs_of(node: Mapping[Any, Any]) -> dict[str, Any]:
    """The knobs in a part of a configuration; QK-norm as the reference of the norm it names."""
    knobs = {str(k): v for k, v in node.items() if k not in ("_target_", "_partial_")}
    if "qk_norm" in knobs:
        knobs["qk_norm"] = norm_of(knobs["qk_norm"])
    return knobs


def norm_of(node: Mapping[Any, Any]) -> Callable[[Tensor, Weights], Tensor]:
    """The reference of a norm that is a knob of something else."""
    return partial(reference_of("norm", option_of("norm", node)), **knobs_of(node))


# --- the whole model ------------------------------------------------------------------------------


def gpt(tokens: Tensor, weights: Weights, cfg: DictConfig) -> Tensor:
    """tokens (B,T) -> logits (B,T,V), for a composed configuration and all weights of its model."""
    attention, ffn, norm, make_pos = (
        partial(reference_of(group, option_of(group, cfg[group])), **knobs_of(cfg[group]))
        for group in ("attention", "ffn", "norm", "pos")
    )
    n_heads, norm_at = cfg.model.n_heads, cfg.block.norm_at
    pos = make_pos(sub(weights, "pos"), n_heads=n_heads, init_std=cfg.model.init_std)

    def branch(x: Tensor, layer: str, part: str, apply: Callable[[Tensor, Weights], Tensor]) -> Tensor:
        """norm_out(f(norm_in(x))), with the norms that there are."""
        if norm_at in ("in", "both"):
            x = norm(x, sub(weights, f"{layer}.{part}_norm_in"))
        x = apply(x, sub(weights, f"{layer}.{part}"))
        return norm(x, sub(weights, f"{layer}.{part}_norm_out")) if norm_at in ("out", "both") else x

    def attend(number: int, x: Tensor, own: Weights) -> Tensor:
        return attention(x, own, pos, n_heads=n_heads, layer=number)[0]

    def feed_forward(x: Tensor, own: Weights) -> Tensor:
        return ffn(x, own)[0]

    rows = [
        [pos.embed(weights["embedding.weight"][token], t) for t, token in enumerate(row)]
        for row in tokens.tolist()
    ]
    x = torch.stack([torch.stack(row) for row in rows])  # (B,T,C)
    x = norm_of(cfg.model.embedding_norm)(x, sub(weights, "embedding_norm"))
    for number in range(cfg.model.n_layers):
        layer = f"blocks.{number}"
        mixed = branch(x, layer, "attention", partial(attend, number))
        x = x + mixed + branch(x if cfg.block.parallel else x + mixed, layer, "ffn", feed_forward)
    return linear(norm(x, sub(weights, "norm")), weights, "head")


# --- holding a component to its reference ---------------------------------------------------------


@cache
def _composed(group: str, option: str) -> DictConfig:
    return compose([f"{group}={option}"])[group]


def configured(group: str, option: str, **knobs: Any) -> DictConfig:
    """The configuration of an option as its YAML gives it, some knobs changed."""
    node = OmegaConf.merge(_composed(group, option), {})
    OmegaConf.set_struct(node, False)  # for nested parts, which are absent until one is chosen
    assert isinstance(node, DictConfig)
    node.merge_with(knobs)
    return node


def component(node: DictConfig, *args: Any, **sizes: Any) -> Any:
    """The component that a configuration describes, with large random weights.

    With weights as small as at the start of a training, scores would hardly differ from zero, and
    an error in them would hardly be seen.
    """
    made = instantiate(node)(*args, **sizes)
    generator = torch.Generator().manual_seed(0)
    for parameter in made.parameters():
        torch.nn.init.normal_(parameter, std=0.4, generator=generator)
    return made


def assert_same(fast: Tensor, slow: Tensor, what: str) -> None:
    """Equal to within the rounding of fp32."""
    torch.testing.assert_close(fast, slow, rtol=1e-4, atol=1e-4, msg=lambda text: f"{what}: {text}")


def assert_same_gradients(fast: Tensor, slow: Tensor, of: Mapping[str, Tensor]) -> None:
    """Equal gradients with respect to every tensor in `of`, for a random gradient of the output."""
    seed = torch.randn(fast.shape, generator=torch.Generator().manual_seed(1))
    tensors = list(of.values())
    got = torch.autograd.grad(fast, tensors, seed, retain_graph=True, materialize_grads=True)
    wanted = torch.autograd.grad(slow, tensors, seed, retain_graph=True, materialize_grads=True)
    for name, one, other in zip(of, got, wanted, strict=True):
        assert_same(one, other, f"gradient of {name}")
