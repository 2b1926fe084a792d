"""Every attention against its definition: outputs, gradients, state; and what only one of them has."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch

from modgpt.model.attention.linear import running_sums
from modgpt.model.init import Initializer
from modgpt.testing.attention import PIECES, AttentionPair, check_clone, tensors_of
from modgpt.testing.build import Make, class_of, options_of, positions_for, variants, with_knobs
from modgpt.testing.compare import assert_same, relative_error
from modgpt.testing.initial import check_initial_weights
from tests.compositions import fitting_pairs

C = 24
# One token; less than, exactly, twice and no multiple of a window or chunk of 4; many of them.
LENGTHS = [1, 4, 11, 30]
OPTIONS = options_of("attention")

every_option = pytest.mark.parametrize("make", OPTIONS.values(), ids=OPTIONS)
every_case = pytest.mark.parametrize(
    "make",
    [
        pytest.param(variant, id=f"{option}-{n}")
        for option, make in OPTIONS.items()
        for n, variant in enumerate(variants(make))
    ],
)
every_case_and_position = pytest.mark.parametrize(
    ("make", "pos"),
    [
        pytest.param(variant, pos, id=f"{option}-{n}-{pos}")
        for option, make in OPTIONS.items()
        for n, variant in enumerate(variants(make))
        for pos in (positions_for(variant) if n == 0 else ("rope", "alibi"))
    ],
)


def pair_of(make: Make, pos: str = "none", n_heads: int = 6, **knobs: Any) -> AttentionPair:
    """An attention with some knobs changed, and its definition."""
    return AttentionPair(with_knobs(make, **knobs), options_of("pos")[pos], n_heads=n_heads)


def option(name: str, pos: str = "none", **knobs: Any) -> AttentionPair:
    """One option of the configs with some knobs changed, and its definition."""
    return pair_of(OPTIONS[name], pos, **knobs)


# --- every option against its definition ----------------------------------------------------------


@pytest.mark.parametrize("length", LENGTHS)
@every_case_and_position
def test_outputs_and_gradients(make: Make, pos: str, length: int) -> None:
    pair_of(make, pos, n_kv_heads=2).check(length)


# ALiBi gives every head a slope of its own, so that no two heads can be mistaken for each other.
@pytest.mark.parametrize("heads", [(1, 1), (4, 4), (4, 2), (4, 1), (6, 6), (6, 3), (6, 1)], ids=str)
@every_case
def test_head_counts(make: Make, heads: tuple[int, int]) -> None:
    n_heads, n_kv_heads = heads
    pair = pair_of(make, "alibi", n_heads, n_kv_heads=n_kv_heads)
    pair.check(7)
    pair.check_pieces([5, 1, 1])


NORMS = [n for norm in options_of("norm").values() for n in variants(norm)]


@pytest.mark.parametrize("over", ["head", "width"])
@every_option
def test_qk_norm(make: Make, over: str) -> None:
    """Under RoPE, where norm before rotation and norm after it differ.

    In fp64: a delta rule undoes the gain of `scalenorm`, whose gradient is mostly rounding in fp32.
    """
    for norm in NORMS:
        for n_kv_heads in (6, 3, 1):
            knobs = {"n_kv_heads": n_kv_heads, "qk_norm": norm, "qk_norm_over": over}
            pos = options_of("pos")["rope"]
            AttentionPair(with_knobs(make, **knobs), pos, dtype=torch.float64).check(7)


def test_one_norm_is_over_all_heads() -> None:
    norm = options_of("norm")["rmsnorm"]
    for n_kv_heads in (6, 2, 1):
        pair = option("flash", n_kv_heads=n_kv_heads, qk_norm=norm, qk_norm_over="width")
        assert pair.module.k_norm.weight.shape == (n_kv_heads * C // 6,)


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("out_bias", [None, False, True])
@every_option
def test_bias(make: Make, bias: bool, out_bias: bool | None) -> None:
    pair = pair_of(make, "rope", bias=bias, out_bias=out_bias)
    weights = pair.module.state_dict()
    assert ("qkv.bias" in weights) == bias
    assert ("out.bias" in weights) == (bias if out_bias is None else out_bias)
    pair.check(7)


@pytest.mark.parametrize("gate", ["head", "element", "silu"])
@every_option
def test_output_gate_and_clipped_projections(make: Make, gate: str) -> None:
    pair = pair_of(make, "rope", n_kv_heads=2, output_gate=gate, clip_qkv=0.7)
    assert pair.module.output_gate is not None
    assert len(pair.module.output_gate.weight) == (6 if gate == "head" else C)
    pair.check(7)
    pair.check_pieces([5, 1, 1])
    x = pair.inputs(7)
    unclipped = pair_of(make, "rope", n_kv_heads=2, output_gate=gate)
    assert not torch.allclose(pair.fast(x)[0], unclipped.fast(x)[0]), "the clip has no effect"


@every_option
def test_head_dim(make: Make) -> None:
    """Heads wider than C/H, and a head count that does not divide C."""
    pair = pair_of(make, "rope", n_heads=5, head_dim=8)
    assert pair.module.out.weight.shape == (C, 40)
    pair.check(7)


@every_option
def test_scale(make: Make) -> None:
    """It is honoured, or refused where the class says so."""
    if "scale" in getattr(class_of(make), "refuses", {}):
        with pytest.raises(ValueError, match=r"attention\.scale=0\.9 has no effect: "):
            pair_of(make, scale=0.9)
    else:
        pair_of(make, scale=0.9).check(7)


# --- state ----------------------------------------------------------------------------------------


@every_case_and_position
def test_pieces_equal_one_pass(make: Make, pos: str) -> None:
    pair_of(make, pos, n_kv_heads=2).check_pieces(*PIECES)


@every_case
def test_a_clone_branches(make: Make) -> None:
    check_clone(pair_of(make, "alibi"))


@every_case
def test_a_clone_shares_no_memory(make: Make) -> None:
    pair = pair_of(make)
    with torch.no_grad():
        _, state = pair.fast(pair.inputs(5), pair.module.initial_state(2, 5))
        before = {name: tensor.clone() for name, tensor in tensors_of(state).items()}
        for tensor in tensors_of(state.clone()).values():
            tensor.zero_()
        for name, tensor in tensors_of(state).items():
            assert torch.equal(tensor, before[name]), name


# --- initial weights and dropout ------------------------------------------------------------------


@every_option
def test_initial_weights(make: Make) -> None:
    check_initial_weights(make, d_model=C, n_heads=6)
    module = pair_of(make, bias=True).module
    module.reset_parameters(Initializer(module, std=0.02, residual_std=0.005))
    assert module.qkv.weight.std().item() == pytest.approx(0.02, rel=0.1)
    assert module.out.weight.std().item() == pytest.approx(0.005, rel=0.1)
    assert not module.qkv.bias.any()
    assert not module.out.bias.any()


@every_option
def test_silent_start(make: Make) -> None:
    """With a residual_std of 0 the branch adds nothing: what writes into the stream is told apart."""
    pair = pair_of(make, bias=True)
    pair.module.reset_parameters(Initializer(pair.module, std=0.02, residual_std=0.0))
    assert not pair.fast(pair.inputs(7))[0].any()


@every_option
def test_dropout_only_in_training(make: Make) -> None:
    torch.manual_seed(0)
    pair = pair_of(make)
    x = pair.inputs(7)
    pair.module.dropout = 0.5
    with torch.no_grad():
        wanted = pair.slow(x)[0]
        pair.module.eval()
        assert_same(pair.fast(x)[0], wanted, "evaluation")
        pair.module.train()
        dropped = pair.fast(x)[0]
    assert 0.3 < (dropped == 0).float().mean() < 0.7, "about half of the outputs are dropped"


# --- precision ------------------------------------------------------------------------------------


@every_case
def test_fp64_is_fp64(make: Make) -> None:
    """Outputs and gradients agree with the definition to the rounding of fp64, states included."""
    for pos in positions_for(make).values():
        pair = AttentionPair(with_knobs(make, n_kv_heads=2), pos, dtype=torch.float64)
        pair.check(11)
        pair.check_pieces([3, 6, 1, 1, 1])


@pytest.mark.parametrize(("option", "pos"), fitting_pairs())
def test_bf16_is_near_fp32(option: str, pos: str) -> None:
    """Forwards alone, as in validation, and with gradients, which may take another way."""
    pair = pair_of(OPTIONS[option], pos)
    x = pair.inputs(11).requires_grad_()
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
    error, limit = relative_error(in_bf16, gradient), 0.03
    if error >= limit:  # a norm of what is nearly 0 loses as much by its definition
        with torch.autocast("cpu", torch.bfloat16):
            slow = pair.slow(x)[0]
        (by_definition,) = torch.autograd.grad(slow, x, toward.to(slow.dtype))
        limit = 1.5 * relative_error(by_definition, gradient)
    assert error < limit


# --- one option alone -----------------------------------------------------------------------------


def test_window_forgets() -> None:
    """Tokens W and more back have no influence, the one W−1 back has."""
    pair = option("local_window", window=4)
    x = pair.inputs(11).requires_grad_()
    (gradient,) = torch.autograd.grad(pair.fast(x)[0][:, 9].sum(), x)
    seen = gradient.abs().sum((0, 2)) > 0
    assert seen.tolist() == [6 <= j <= 9 for j in range(11)]


def test_window_cache_does_not_grow() -> None:
    pair = option("local_window", window=4)
    state = pair.module.initial_state(1, 100)
    for length in range(1, 10):
        _, state = pair.fast(pair.inputs(1, batch=1), state, start=length - 1)
        assert tensors_of(state)["k"].shape[2] == min(length, 4)


def test_window_cache_holds_no_more_than_it_says() -> None:
    """A view of the last keys would keep those of the whole prompt in memory."""
    pair = option("local_window", window=4)
    _, state = pair.fast(pair.inputs(100), pair.module.initial_state(2, 100))
    held = sum(tensor.untyped_storage().nbytes() for tensor in tensors_of(state).values())
    assert held == state.nbytes


def test_window_as_wide_as_the_text_is_full_attention() -> None:
    window, full = option("local_window", window=9), option("flash")
    x = full.inputs(9)
    assert_same(window.fast(x)[0], full.fast(x)[0], "output")


def test_flash_refuses_more_than_its_capacity() -> None:
    pair = option("flash")
    _, state = pair.fast(pair.inputs(4), pair.module.initial_state(2, 5))
    with pytest.raises(ValueError, match="the cache has room for 5 tokens, 6 are needed"):
        pair.fast(pair.inputs(2), state, start=4)


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
    pair = option("linear")
    x = pair.inputs(1000)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        projected = pair.module.project(x, pair.pos, torch.arange(1000))
        k, v = projected["k"], projected["v"]
        _, at_once = pair.fast(x, pair.module.initial_state(2, 1000))
        _, by_token = pair.in_pieces(x[:, :300], [1] * 300)
    assert k.dtype == torch.bfloat16
    phi_k, v = torch.nn.functional.elu(k.double()) + 1, v.double()
    for state, length in ((at_once, 1000), (by_token, 300)):
        assert (state.s.dtype, state.z.dtype) == (torch.float32, torch.float32)
        s = phi_k[:, :, :length].mT @ v[:, :, :length]
        torch.testing.assert_close(state.z.double(), phi_k[:, :, :length].sum(2), rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(state.s.double(), s, rtol=1e-4, atol=1e-2)


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
        ({"clip_qkv": 0.0}, "attention.clip_qkv must be positive, got 0.0"),
        ({"clip_qkv": float("nan")}, "attention.clip_qkv must be positive, got nan"),
        (
            {"output_gate": "width"},
            "attention.output_gate must be head, element, silu or null, got 'width'",
        ),
    ],
    ids=lambda value: str(value) if isinstance(value, dict) else "",
)
def test_sizes_that_do_not_fit(make: Make, sizes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        pair_of(make, **sizes)


@pytest.mark.parametrize(
    ("name", "knobs", "message"),
    [
        ("gated_delta", {"chunk": 0}, "attention.chunk must be at least 1, got 0"),
        ("gated_delta", {"conv": -1}, "attention.conv must be at least 0, got -1; 0 leaves it out"),
        ("mamba2", {"chunk": 0}, "attention.chunk must be at least 1, got 0"),
        ("mamba2", {"d_state": 0}, "attention.d_state must be at least 1, got 0"),
        ("mamba2", {"conv": -1}, "attention.conv must be at least 0, got -1; 0 leaves it out"),
        ("flash", {"softcap": 0.0}, "attention.softcap must be positive, got 0.0"),
        ("sparse", {"kernel": "flex", "sinks": True}, "attention.kernel=flex knows no sinks"),
        ("bigbird", {"kernel": "flex", "softcap": 5.0}, "attention.kernel=flex knows no sinks"),
        ("linear", {"chunk": 0}, "attention.chunk must be at least 1, got 0"),
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
def test_knobs_that_cannot_be(name: str, knobs: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        option(name, **knobs)
