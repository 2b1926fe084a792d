"""Every attention against its reference: outputs, gradients, state; and what only one of them has."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import fields
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from modgpt import build_model, compose
from modgpt.config.search import options
from modgpt.model.attention import base
from modgpt.model.attention.base import Attention, by_products
from modgpt.model.attention.linear import running_sums
from modgpt.model.pos.base import Position
from modgpt.model.state import State
from tests.reference import (
    ATTENTION,
    assert_same,
    assert_same_gradients,
    component,
    configured,
    knobs_of,
    reference_of,
)

C = 24
# Knobs that are worth several values: a window or chunk of one token, of a few, of more than there are.
KNOBS: dict[str, list[dict[str, Any]]] = {
    "bigbird": [
        {"block": 1, "n_random": 2},
        {"block": 2, "n_window": 1, "n_random": 2},
        {"block": 4, "n_window": 3, "n_global": 0, "seed": 7},
        {"block": 64},
    ],
    "gated_delta": [{"chunk": 1}, {"chunk": 4}, {"chunk": 64}],
    "linear": [{"chunk": 1}, {"chunk": 4}, {"chunk": 64}],
    "local_window": [{"window": 1}, {"window": 4}, {"window": 64}],
    "sparse": [
        {"pattern": "fixed", "stride": 1, "summary": 1},
        {"pattern": "fixed", "stride": 4, "summary": 1},
        {"pattern": "fixed", "stride": 4, "summary": 3},
        {"pattern": "fixed", "stride": 64},
        {"pattern": "strided", "stride": 1},
        {"pattern": "strided", "stride": 4},
        {"pattern": "strided", "stride": 64},
    ],
}
# One token; less than, exactly, twice and no multiple of a window or chunk of 4; many of them.
LENGTHS = [1, 3, 4, 8, 11, 30]

CASES = [(option, knobs) for option in options("attention") for knobs in KNOBS.get(option, [{}])]


def name_of(case: tuple[str, dict[str, Any]]) -> str:
    option, knobs = case
    return "-".join([option, *(f"{k}={v}" for k, v in knobs.items())])


every_option = pytest.mark.parametrize("option", options("attention"))
every_case = pytest.mark.parametrize("case", CASES, ids=name_of)
every_position = pytest.mark.parametrize("pos", options("pos"))


class Pair:
    """An attention and its reference, with the same weights and the same positions."""

    def __init__(self, option: str, pos: str = "none", n_heads: int = 6, **knobs: Any) -> None:
        node, pos_node = configured("attention", option, **knobs), configured("pos", pos)
        sizes = {"d_model": C, "n_heads": n_heads, "block_size": 32, "init_std": 0.02}
        self.module: Attention = component(node, d_model=C, n_heads=n_heads)
        self.pos: Position = component(pos_node, **sizes)
        self.slow_pos = reference_of("pos", pos)(self.pos.state_dict(), **sizes, **knobs_of(pos_node))
        self.reference: Callable[..., tuple[Tensor, dict[str, Tensor]]] = reference_of(
            "attention", option
        )
        self.knobs = {"n_heads": n_heads, **knobs_of(node)}

    def fast(self, x: Tensor, state: State | None = None, start: int = 0) -> tuple[Tensor, Any]:
        positions = torch.arange(start, start + x.shape[1])
        return self.module(x, self.pos, positions, state)

    def slow(self, x: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        weights = self.module.state_dict(keep_vars=True)
        return self.reference(x, weights, self.slow_pos, **self.knobs)

    def in_pieces(self, x: Tensor, state: State, pieces: list[int]) -> tuple[Tensor, Any]:
        """What `fast` gives when the tokens come piece by piece."""
        start, ys = 0, []
        for length in pieces:
            y, state = self.fast(x[:, start : start + length], state, start)
            ys.append(y)
            start += length
        return torch.cat(ys, dim=1), state

    def check(self, x: Tensor) -> None:
        """Outputs and all gradients are the reference's."""
        x = x.clone().requires_grad_()
        (fast, state), (slow, _) = self.fast(x), self.slow(x)
        assert state is None, "nobody asked for a state"
        assert_same(fast, slow, "output")
        assert_same_gradients(fast, slow, {"x": x, **dict(self.module.named_parameters())})


def inputs(length: int, batch: int = 2) -> Tensor:
    return torch.randn(batch, length, C, generator=torch.Generator().manual_seed(2))


def tensors_of(state: State) -> dict[str, Tensor]:
    values = {f.name: getattr(state, f.name) for f in fields(state)}
    return {name: value for name, value in values.items() if isinstance(value, Tensor)}


def assert_state(state: State, wanted: dict[str, Tensor]) -> None:
    found = tensors_of(state)
    assert sorted(found) == sorted(wanted)
    for name, tensor in found.items():
        assert_same(tensor, wanted[name], f"state.{name}")


# --- every option against its reference -----------------------------------------------------------


@every_option
def test_there_is_a_reference(option: str) -> None:
    assert option in ATTENTION, f"attention={option} needs an entry in tests/reference.py: ATTENTION"


@pytest.mark.parametrize("length", LENGTHS)
@every_position
@every_case
def test_outputs_and_gradients(case: tuple[str, dict[str, Any]], pos: str, length: int) -> None:
    option, knobs = case
    Pair(option, pos, n_kv_heads=2, **knobs).check(inputs(length))


# ALiBi gives every head a slope of its own, so that no two heads can be mistaken for each other.
@pytest.mark.parametrize("heads", [(1, 1), (4, 4), (4, 2), (4, 1), (6, 6), (6, 3), (6, 1)], ids=str)
@every_case
def test_head_counts(case: tuple[str, dict[str, Any]], heads: tuple[int, int]) -> None:
    option, knobs = case
    n_heads, n_kv_heads = heads
    pair = Pair(option, "alibi", n_heads, n_kv_heads=n_kv_heads, **knobs)
    pair.check(inputs(7))
    with torch.no_grad():
        _, state = pair.in_pieces(inputs(7), pair.module.initial_state(2, 7), [5, 1, 1])
        assert_state(state, pair.slow(inputs(7))[1])


@pytest.mark.parametrize("norm", [o for o in options("norm") if o != "none"])
@every_option
def test_qk_norm(option: str, norm: str) -> None:
    """Under RoPE, where norm before rotation and norm after it differ."""
    pair = Pair(option, "rope", n_kv_heads=3, qk_norm=configured("norm", norm, eps=0.1))
    assert not isinstance(pair.module.q_norm, torch.nn.Identity)
    pair.check(inputs(7))


@every_option
def test_bias(option: str) -> None:
    pair = Pair(option, "rope", bias=True)
    assert {"qkv.bias", "out.bias"} <= set(pair.module.state_dict())
    pair.check(inputs(7))


@pytest.mark.parametrize(("bias", "out_bias"), [(False, True), (True, False)])
@every_option
def test_bias_of_the_output_alone(option: str, bias: bool, out_bias: bool) -> None:
    pair = Pair(option, "rope", bias=bias, out_bias=out_bias)
    weights = pair.module.state_dict()
    assert ("qkv.bias" in weights, "out.bias" in weights) == (bias, out_bias)
    pair.check(inputs(7))


@pytest.mark.parametrize("n_kv_heads", [6, 2, 1])
@every_option
def test_qk_norm_over_all_heads(option: str, n_kv_heads: int) -> None:
    norm = configured("norm", "rmsnorm", eps=0.1)
    pair = Pair(option, "rope", n_kv_heads=n_kv_heads, qk_norm=norm, qk_norm_over="width")
    assert pair.module.k_norm.weight.shape == (n_kv_heads * C // 6,)
    pair.check(inputs(7))


@every_option
def test_head_dim(option: str) -> None:
    """Heads wider than C/H, and a head count that does not divide C."""
    pair = Pair(option, "rope", n_heads=5, head_dim=8)
    assert pair.module.out.weight.shape == (C, 40)
    pair.check(inputs(7))


@pytest.mark.parametrize("option", [o for o in options("attention") if o != "linear"])
def test_scale(option: str) -> None:
    Pair(option, scale=0.9).check(inputs(7))


# --- state ----------------------------------------------------------------------------------------

# All at once; several tokens, more than a window of 4 at once, single ones; from an empty state one by
# one; pieces that end where a window or chunk of 4 does, and one longer than two of them.
PIECES = [[12], [3, 6, 1, 1, 1], [1] * 12, [4, 8], [2, 10]]


@every_position
@every_case
def test_pieces_equal_one_pass(case: tuple[str, dict[str, Any]], pos: str) -> None:
    option, knobs = case
    pair, x = Pair(option, pos, n_kv_heads=2, **knobs), inputs(12)
    with torch.no_grad():
        wanted, final = pair.slow(x)
        for pieces in PIECES:
            y, state = pair.in_pieces(x, pair.module.initial_state(2, 12), pieces)
            assert_same(y, wanted, f"output in pieces of {pieces}")
            assert_state(state, final)


@every_case
def test_a_clone_branches(case: tuple[str, dict[str, Any]]) -> None:
    option, knobs = case
    pair, x, other = Pair(option, "alibi", **knobs), inputs(6), inputs(6).flip(1)
    with torch.no_grad():
        _, state = pair.fast(x[:, :4], pair.module.initial_state(2, 6))
        branch = state.clone()
        assert branch.nbytes == state.nbytes
        # By turns, so that each would overwrite what the other reads if they shared a buffer.
        _, state = pair.fast(x[:, 4:5], state, start=4)
        _, branch = pair.fast(other[:, 4:5], branch, start=4)
        y, _ = pair.fast(x[:, 5:], state, start=5)
        branch_y, _ = pair.fast(other[:, 5:], branch, start=5)
        assert_same(y, pair.slow(x)[0][:, 5:], "the original")
        wanted = pair.slow(torch.cat([x[:, :4], other[:, 4:]], dim=1))[0][:, 5:]
        assert_same(branch_y, wanted, "the branch")


@every_case
def test_a_clone_shares_no_memory(case: tuple[str, dict[str, Any]]) -> None:
    option, knobs = case
    pair = Pair(option, **knobs)
    with torch.no_grad():
        _, state = pair.fast(inputs(5), pair.module.initial_state(2, 5))
        before = {name: tensor.clone() for name, tensor in tensors_of(state).items()}
        for tensor in tensors_of(state.clone()).values():
            tensor.zero_()
        for name, tensor in tensors_of(state).items():
            assert torch.equal(tensor, before[name]), name


# --- initial weights and dropout ------------------------------------------------------------------


@every_option
def test_initial_weights(option: str) -> None:
    torch.manual_seed(0)
    module = Pair(option, bias=True).module
    module.reset_parameters(std=0.02, residual_std=0.005)
    assert module.qkv.weight.std().item() == pytest.approx(0.02, rel=0.1)
    assert module.out.weight.std().item() == pytest.approx(0.005, rel=0.1)
    assert not module.qkv.bias.any()
    assert not module.out.bias.any()


@every_option
def test_silent_start(option: str) -> None:
    """With a residual_std of 0 the branch adds nothing: what writes into the stream is told apart."""
    pair = Pair(option, bias=True)
    pair.module.reset_parameters(std=0.02, residual_std=0.0)
    assert not pair.fast(inputs(7))[0].any()


@every_option
def test_dropout_only_in_training(option: str) -> None:
    torch.manual_seed(0)
    pair, x = Pair(option), inputs(7)
    pair.module.dropout = 0.5
    with torch.no_grad():
        wanted = pair.slow(x)[0]
        assert_same(pair.module.eval()(x, pair.pos, torch.arange(7))[0], wanted, "evaluation")
        dropped = pair.module.train()(x, pair.pos, torch.arange(7))[0]
    assert 0.3 < (dropped == 0).float().mean() < 0.7, "about half of the outputs are dropped"


# --- one option alone -----------------------------------------------------------------------------


def test_window_forgets() -> None:
    """Tokens W and more back have no influence, the one W−1 back has."""
    pair, x = Pair("local_window", window=4), inputs(11).requires_grad_()
    (gradient,) = torch.autograd.grad(pair.fast(x)[0][:, 9].sum(), x)
    seen = gradient.abs().sum((0, 2)) > 0
    assert seen.tolist() == [6 <= j <= 9 for j in range(11)]


def test_window_cache_does_not_grow() -> None:
    pair = Pair("local_window", window=4)
    state = pair.module.initial_state(1, 100)
    for length in range(1, 10):
        _, state = pair.fast(inputs(1, batch=1), state, start=length - 1)
        assert tensors_of(state)["k"].shape[2] == min(length, 4)


def test_window_cache_holds_no_more_than_it_says() -> None:
    """A view of the last keys would keep those of the whole prompt in memory."""
    pair = Pair("local_window", window=4)
    _, state = pair.fast(inputs(100), pair.module.initial_state(2, 100))
    held = sum(tensor.untyped_storage().nbytes() for tensor in tensors_of(state).values())
    assert held == state.nbytes


def test_window_as_wide_as_the_text_is_full_attention() -> None:
    x = inputs(9)
    assert_same(Pair("local_window", window=9).fast(x)[0], Pair("flash").fast(x)[0], "output")


def test_flash_refuses_more_than_its_capacity() -> None:
    pair = Pair("flash")
    _, state = pair.fast(inputs(4), pair.module.initial_state(2, 5))
    with pytest.raises(ValueError, match="the cache has room for 5 tokens, 6 are needed"):
        pair.fast(inputs(2), state, start=4)


@pytest.mark.parametrize("n", [1, 2, 3, 8, 13])
def test_sums_by_doubling_are_those_of_a_loop(n: int) -> None:
    generator = torch.Generator().manual_seed(0)
    before = torch.randn(2, 3, 4, 5, generator=generator, dtype=torch.float64)
    added = torch.randn(2, 3, n, 4, 5, generator=generator, dtype=torch.float64)
    decay = torch.rand(3, 1, 1, 1, generator=generator, dtype=torch.float64)
    wanted = [before]
    for i in range(n):
        wanted.append(decay[..., 0] * wanted[-1] + added[:, :, i])
    torch.testing.assert_close(running_sums(before, added, decay), torch.stack(wanted, dim=2))


def test_linear_keeps_its_sums_in_fp32() -> None:
    """A sum over a thousand keys, each of about 1, stands still in bf16 from 256 on."""
    pair, x = Pair("linear"), inputs(1000)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        _, k, v = pair.module.project(x, pair.pos, torch.arange(1000))
        _, at_once = pair.fast(x, pair.module.initial_state(2, 1000))
        _, by_token = pair.in_pieces(x[:, :300], pair.module.initial_state(2, 300), [1] * 300)
    assert k.dtype == torch.bfloat16
    phi_k, v = torch.nn.functional.elu(k.double()) + 1, v.double()
    for state, length in ((at_once, 1000), (by_token, 300)):
        assert (state.s.dtype, state.z.dtype) == (torch.float32, torch.float32)
        s = phi_k[:, :, :length].mT @ v[:, :, :length]
        assert_same(state.z.double(), phi_k[:, :, :length].sum(2), f"z after {length} tokens")
        torch.testing.assert_close(state.s.double(), s, rtol=1e-4, atol=1e-2)


@every_position
@every_option
def test_bf16_is_near_fp32(option: str, pos: str) -> None:
    """Forwards alone, as in validation, and with gradients, which may take another way."""
    pair, x = Pair(option, pos), inputs(11).requires_grad_()
    wanted = pair.fast(x)[0]
    with torch.autocast("cpu", torch.bfloat16):
        got = pair.fast(x)[0]
        with torch.no_grad():
            alone = pair.fast(x)[0]
    assert got.dtype == alone.dtype == torch.bfloat16
    assert relative_error(got, wanted) < 0.03 and relative_error(alone, wanted) < 0.03
    toward = torch.randn(wanted.shape, generator=torch.Generator().manual_seed(1))
    (gradient,) = torch.autograd.grad(wanted, x, toward)
    (in_bf16,) = torch.autograd.grad(got, x, toward.to(got.dtype))
    assert relative_error(in_bf16, gradient) < 0.03


def relative_error(got: Tensor, wanted: Tensor) -> float:
    error = (got - wanted).detach().square().mean() / wanted.detach().square().mean()
    return float(error.sqrt())


# --- errors ---------------------------------------------------------------------------------------


@every_option
@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"n_heads": 5}, "model.d_model=24 is not divisible by model.n_heads=5: choose a multiple of 5"),
        ({"n_kv_heads": 4}, "attention.n_kv_heads=4 must divide model.n_heads=6"),
        ({"n_kv_heads": 0}, "attention.n_kv_heads=0 must divide model.n_heads=6"),
        ({"n_kv_heads": 12}, "attention.n_kv_heads=12 must divide model.n_heads=6"),
        ({"head_dim": 0}, "attention.head_dim must be at least 1, got 0"),
        ({"qk_norm_over": "heads"}, "attention.qk_norm_over must be head or width, got 'heads'"),
    ],
    ids=lambda value: str(value) if isinstance(value, dict) else "",
)
def test_sizes_that_do_not_fit(option: str, sizes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        Pair(option, **sizes)


@pytest.mark.parametrize(
    ("option", "knobs", "message"),
    [
        ("gated_delta", {"chunk": 0}, "attention.chunk must be at least 1, got 0"),
        ("linear", {"chunk": 0}, "attention.chunk must be at least 1, got 0"),
        ("linear", {"scale": 0.5}, "attention.scale=0.5 has no effect on attention=linear"),
        ("local_window", {"window": 0}, "attention.window must be at least 1, got 0"),
        ("bigbird", {"block": 0}, "attention.block must be at least 1, got 0"),
        ("bigbird", {"n_window": 0}, "attention.n_window must be at least 1, got 0"),
        ("bigbird", {"n_global": -1}, "attention.n_global must be at least 0, got -1"),
        ("bigbird", {"n_random": -1}, "attention.n_random must be at least 0, got -1"),
        ("sparse", {"pattern": "dilated"}, "attention.pattern must be fixed or strided, got 'dilated'"),
        ("bigbird", {"kernel": "dense"}, "attention.kernel must be gathered or flex, got 'dense'"),
        ("sparse", {"kernel": "dense"}, "attention.kernel must be gathered or flex, got 'dense'"),
        ("sparse", {"stride": 0}, "attention.stride must be at least 1, got 0"),
        ("sparse", {"summary": 0}, "attention.summary=0 must lie between 1 and attention.stride=16"),
        ("sparse", {"summary": 17}, "attention.summary=17 must lie between 1 and attention.stride=16"),
    ],
)
def test_knobs_that_cannot_be(option: str, knobs: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        Pair(option, **knobs)


@pytest.mark.parametrize("kv_heads", [4, 2, 1])
@pytest.mark.parametrize("kind", ["causal", "allowed", "bias", "both", "none"])
@pytest.mark.parametrize("at_once", [1, 2], ids=["one by one", "together"])
def test_products_equal_the_fused_kernel(
    at_once: int, kind: str, kv_heads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The way the CPU takes in bf16, held in fp64 to the kernel it stands for: outputs and gradients."""
    monkeypatch.setattr(base, "SCORES_AT_ONCE", at_once * 4 * 7 * 7)
    generator = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64).requires_grad_()

    q, k, v = normal(2, 4, 7, 6), normal(2, kv_heads, 7, 6), normal(2, kv_heads, 7, 6)
    allowed = torch.ones(7, 7, dtype=torch.bool).tril()
    bias = torch.randn(4, 7, 7, generator=generator, dtype=torch.float64)
    mask = {"allowed": allowed, "bias": bias, "both": bias.masked_fill(~allowed, float("-inf"))}.get(
        kind
    )
    causal = kind == "causal"
    scale = 0.3 if kind == "bias" else None
    got = by_products(q, k, v, mask, scale, 0.0, causal)
    wanted = F.scaled_dot_product_attention(
        q, k, v, attn_mask=mask, is_causal=causal, scale=scale, enable_gqa=True
    )
    torch.testing.assert_close(got, wanted, rtol=1e-12, atol=1e-12)
    toward = torch.randn(got.shape, generator=generator, dtype=torch.float64)
    for a, b in zip(
        torch.autograd.grad(got, (q, k, v), toward),
        torch.autograd.grad(wanted, (q, k, v), toward),
        strict=True,
    ):
        torch.testing.assert_close(a, b, rtol=1e-11, atol=1e-12)


def test_bf16_training_takes_the_products_on_a_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    monkeypatch.setattr(base, "by_products", lambda *args: calls.append(1) or by_products(*args))
    model = build_model(compose(["model.n_layers=1"]), vocab_size=5)
    tokens = torch.zeros(1, 8, dtype=torch.long)
    model(tokens)
    assert not calls, "in fp32 the fused kernel is the faster one"
    with torch.autocast("cpu", torch.bfloat16):
        model(tokens)
        assert len(calls) == 1
        with torch.no_grad():
            model(tokens)
    assert len(calls) == 1, "and forwards it is so in bf16 too"
    monkeypatch.setattr(base, "LONGEST_BY_PRODUCTS", 7)
    with torch.autocast("cpu", torch.bfloat16):
        model(tokens)
    assert len(calls) == 1, "and where the scores would be too many to write down"
