"""The gated delta rule: what it remembers, replaces and forgets, and that long texts do it no harm."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from modgpt import build_model, compose
from modgpt.model.attention.gated_delta import GatedDeltaAttention, mix_chunks, segment_sums
from modgpt.model.init import Initializer
from modgpt.model.norm.rmsnorm import RMSNorm
from modgpt.model.pos.base import Position
from modgpt.testing.attention import AttentionPair, check_large_inputs
from modgpt.testing.build import options_of, small, small_model, with_knobs
from modgpt.testing.compare import assert_same
from modgpt.testing.models import check_model
from modgpt.training.optimizers import adamw, muon
from tests.model.attention.delta import (
    DECAYS,
    D,
    check_thousands_of_tokens,
    random_parts,
)
from tests.model.attention.test_attention import option

# What makes a gate 1 or 0, to the last bit.
OPEN, SHUT = 1e4, -1e4


def memory(**knobs: Any) -> GatedDeltaAttention:
    """One head of width D whose decay is the gate's alone."""
    return GatedDeltaAttention(d_model=D, n_heads=1, scale=1.0, **knobs)


def mixed(
    module: GatedDeltaAttention, q: Tensor, k: Tensor, v: Tensor, a: float, b: float | list[float]
) -> Tensor:
    """`mix` of q, k, v (T,D), log α = −softplus(a) and β = sigmoid(b), of all tokens or each: (T,D)."""
    log_alpha = -F.softplus(torch.tensor(a).expand(len(q)))[None, None, :, None]
    beta = torch.tensor(b).expand(len(q)).sigmoid()[None, None, :, None]
    pos = Position(d_model=D, n_heads=1, block_size=8, init_std=0.02)
    q, k, v = (x[None, None] for x in (q, k, v))
    positions = torch.arange(q.shape[2])
    y, _ = module.mix(q, k, v, pos, positions, None, log_alpha=log_alpha, beta=beta)
    return y[0, 0].detach()


def gated_delta(pos: str = "none", **knobs: Any) -> AttentionPair:
    """The option and its definition."""
    return option("gated_delta", pos, **knobs)


# --- memory ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("chunk", [1, 3, 64])
def test_a_second_value_replaces_the_first(chunk: int) -> None:
    """Write under D orthonormal keys, then under half of them anew; read all. A sum would mix them."""
    keys = torch.linalg.qr(torch.randn(D, D, generator=torch.Generator().manual_seed(0)))[0]
    values = torch.randn(D + D // 2, D, generator=torch.Generator().manual_seed(1))
    written, reads = torch.cat([keys, keys[: D // 2]]), torch.cat([keys, keys[: D // 2]])
    for wanted_key in range(D):
        reads[-1] = keys[wanted_key]
        y = mixed(memory(chunk=chunk), reads, written, values, a=SHUT, b=OPEN)
        wanted = values[D + wanted_key] if wanted_key < D // 2 else values[wanted_key]
        torch.testing.assert_close(y[-1], wanted, rtol=1e-4, atol=1e-5)


def test_what_is_not_written_leaves_the_memory_alone() -> None:
    """The first token writes with β = 1, three others under the same key with β = 0."""
    _, k, v = (x[0, 0, :4] for x in random_parts(4))
    keys = k[:1].expand(4, -1)
    y = mixed(memory(), keys, keys, v, a=SHUT, b=[OPEN, SHUT, SHUT, SHUT])
    torch.testing.assert_close(y, v[:1].expand(4, -1), rtol=1e-4, atol=1e-5)


def test_alpha_of_zero_forgets_everything() -> None:
    """With A = 1 and softplus(a) = 10⁴ each token is alone."""
    q, k, v = (x[0, 0] for x in random_parts(20))
    y = mixed(memory(chunk=8), q, k, v, a=OPEN, b=OPEN)
    torch.testing.assert_close(y, (q * k).sum(1, keepdim=True) * v, rtol=1e-4, atol=1e-5)


# --- chunks ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("chunk", range(1, 15))
def test_chunks_of_every_size(chunk: int) -> None:
    """Outputs and gradients, those of both gates among them, for chunks of 1 to T + 3 tokens."""
    pair = gated_delta("alibi", n_kv_heads=2, chunk=chunk)
    names = {name for name, _ in pair.module.named_parameters()}
    assert {"gates.weight", "a_log", "dt_bias"} <= names
    pair.check(11)


def test_pieces_that_end_inside_a_chunk() -> None:
    gated_delta("rope", chunk=16).check_pieces([41, 1, 58], [16, 84], [1] * 100)


def test_segment_sums_are_those_of_a_loop() -> None:
    """In fp32, behind a token that forgets nearly everything, differences of two sums would be off."""
    x = -torch.rand(9, generator=torch.Generator().manual_seed(0)) / 100
    x[3] = -1e6
    got, since_start = segment_sums(x), x.cumsum(0)
    assert got.shape == (9, 9)
    for i in range(9):
        for j in range(9):
            wanted = x.double()[j + 1 : i + 1].sum() if i >= j else torch.tensor(float("-inf"))
            torch.testing.assert_close(got[i, j].double(), wanted.double(), rtol=1e-5, atol=1e-7)
    assert (since_start[8] - since_start[4] - got[8, 4]).abs() > 1e-3


# --- long texts -----------------------------------------------------------------------------------


@pytest.mark.parametrize("alpha", DECAYS)
@pytest.mark.parametrize("keys", ["random", "the same"])
def test_thousands_of_tokens_in_fp32(keys: str, alpha: str) -> None:
    check_thousands_of_tokens(mix_chunks, keys, alpha, channels=1)


@pytest.mark.parametrize("narrow", [False, True], ids=["fp32", "bf16"])
def test_long_sequences_stay_finite(narrow: bool) -> None:
    """Inputs up to 30 times the usual, so that gates saturate; outputs and all gradients."""
    check_large_inputs(gated_delta("alibi"), 1000, 30, narrow=narrow)


def test_state_is_of_one_size_and_in_fp32() -> None:
    pair = gated_delta("rope")
    x = pair.inputs(300)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        _, at_once = pair.fast(x, pair.module.initial_state(2, 300))
        _, by_token = pair.in_pieces(x, [1] * 300)
    assert at_once.s.dtype == by_token.s.dtype == torch.float32
    assert at_once.nbytes == by_token.nbytes == pair.module.initial_state(2, 1).nbytes
    # Both read the same rounded q, k and v; only the order of the sums differs.
    assert_same(by_token.s, at_once.s, "state")


# --- initial weights ------------------------------------------------------------------------------


def test_initial_gates() -> None:
    module = GatedDeltaAttention(d_model=64, n_heads=1000, head_dim=1)
    module.reset_parameters(Initializer(module, std=0.02, residual_std=0.005))
    assert module.gates.weight.std().item() == pytest.approx(0.02, rel=0.05)
    rates, steps = module.a_log.detach().exp(), F.softplus(module.dt_bias.detach())
    assert 1 <= rates.min() < 1.5 and 15.5 < rates.max() <= 16.001
    assert rates.mean().item() == pytest.approx(8.5, rel=0.05), "uniform"
    assert 0.00099 < steps.min() < 0.00105 and 0.098 < steps.max() < 0.1001
    assert steps.log10().mean().item() == pytest.approx(-2, abs=0.05), "log-uniform"


def test_only_the_matrix_of_the_gates_decays() -> None:
    model = build_model(compose(["attention=gated_delta", "model.n_layers=1"]), vocab_size=5)
    groups = adamw(model, lr=1e-3, weight_decay=0.1, beta1=0.9, beta2=0.99).param_groups
    decayed, others = ({id(p) for p in group["params"]} for group in groups)
    attention = model.blocks[0].attention
    assert isinstance(attention, GatedDeltaAttention)
    assert id(attention.gates.weight) in decayed
    assert {id(attention.a_log), id(attention.dt_bias)} <= others


# --- the paper's layer ----------------------------------------------------------------------------

LAYER = {"conv": 4, "out_norm": partial(RMSNorm, eps=1e-6), "output_gate": "silu"}


@pytest.mark.parametrize("length", [1, 3, 70])
def test_is_the_layer_of_qwen3_next(length: int) -> None:
    """Weight for weight: convolution, rule, norm and gate; in one pass and token by token."""
    qwen = pytest.importorskip("transformers.models.qwen3_next.modeling_qwen3_next")
    heads = {"linear_num_value_heads": 3, "linear_num_key_heads": 3}
    widths = {"linear_value_head_dim": D, "linear_key_head_dim": D}
    config = qwen.Qwen3NextConfig(hidden_size=24, num_hidden_layers=1, **heads, **widths)
    torch.manual_seed(0)
    theirs = qwen.Qwen3NextGatedDeltaNet(config, 0)
    pair = gated_delta(n_heads=3, **LAYER)
    module = pair.module
    assert isinstance(module, GatedDeltaAttention)
    assert module.convolution is not None and module.output_gate is not None
    with torch.no_grad():
        for name, parameter in theirs.named_parameters():
            parameter.normal_(std=1.0 if name == "conv1d.weight" else 0.2)
        # Of each head: q, k, v and z; b and a.
        q, k, v, z = theirs.in_proj_qkvz.weight.unflatten(0, (3, 4, D)).unbind(1)
        b, a = theirs.in_proj_ba.weight.unflatten(0, (3, 2)).unbind(1)
        module.qkv.weight.copy_(torch.cat([q, k, v]).flatten(0, 1))
        module.output_gate.weight.copy_(z.flatten(0, 1))
        module.gates.weight.copy_(torch.cat([a, b]))
        module.convolution.weight.copy_(theirs.conv1d.weight)
        module.a_log.copy_(theirs.A_log)
        module.dt_bias.copy_(theirs.dt_bias)
        module.out_norm.weight.copy_(theirs.norm.weight)
        module.out.weight.copy_(theirs.out_proj.weight)
        x = pair.inputs(length)
        wanted = theirs(x)
        torch.testing.assert_close(pair.fast(x)[0], wanted, rtol=1e-5, atol=1e-5)
        by_token, _ = pair.in_pieces(x, [1] * length)
        torch.testing.assert_close(by_token, wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("pos", ["rope", "alibi"])
def test_a_model_of_such_layers(pos: str) -> None:
    make = with_knobs(small(options_of("attention")["gated_delta"]), **LAYER)
    check_model(small_model(attention=make, pos=options_of("pos")[pos]))


def test_the_state_keeps_the_inputs_of_the_convolution() -> None:
    pair = gated_delta(**LAYER)
    state = pair.module.initial_state(2, 1)
    assert state.inputs.shape == (2, 3, 3 * 24) and not state.inputs.any()
    x = pair.inputs(5)
    with torch.no_grad():
        _, state = pair.in_pieces(x, [1] * 5)
        assert_same(state.inputs, pair.module.qkv(x)[:, 2:], "inputs")
    assert gated_delta().module.initial_state(2, 1).inputs is None


def test_a_convolution_is_no_projection_to_muon() -> None:
    """Muon would make its channels orthogonal to each other; AdamW gets it instead."""
    overrides = ["attention=gated_delta", "attention.conv=4", "model.n_layers=1"]
    model = build_model(compose(overrides), vocab_size=5)
    rates = {"lr": 0.02, "adamw_lr": 1e-3}
    optimizer = muon(model, **rates, weight_decay=0.1, momentum=0.9, beta1=0.9, beta2=0.99)
    attention = model.blocks[0].attention
    assert attention.convolution is not None
    of_muon = {id(p) for p in optimizer.param_groups[0]["params"]}
    assert id(attention.convolution.weight) not in of_muon and id(attention.qkv.weight) in of_muon
