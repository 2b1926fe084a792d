"""Kimi Delta Attention: a decay per channel, chunks that lose no digits, the layer of transformers."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from modgpt import build_model, compose
from modgpt.model.attention.gated_delta import mix_chunks
from modgpt.model.attention.kda import (
    KimiDeltaAttention,
    faded_products,
    mix_channels,
    sums_of_later,
)
from modgpt.model.init import Initializer
from modgpt.model.norm.rmsnorm import RMSNorm
from modgpt.testing.attention import AttentionPair, check_large_inputs
from modgpt.testing.build import options_of, small, small_model, with_knobs
from modgpt.testing.models import check_model
from modgpt.training.optimizers import adamw
from tests.model.attention.delta import (
    DECAYS,
    D,
    check_thousands_of_tokens,
    in_chunks,
    random_parts,
)
from tests.model.attention.test_attention import option

# The paper's layer, but for the two matrices of its output gate.
LAYER = {"conv": 4, "out_norm": partial(RMSNorm, eps=1e-6), "output_gate": "element"}


def kda(pos: str = "none", **knobs: Any) -> AttentionPair:
    """The option and its definition."""
    return option("kda", pos, **knobs)


# --- the layer of transformers --------------------------------------------------------------------


@pytest.mark.parametrize("length", [1, 3, 70])
def test_is_the_layer_of_kimi_linear(length: int) -> None:
    """Weight for weight, outputs and gradients; in one pass and token by token."""
    kimi = pytest.importorskip("transformers.models.kimi_linear.modeling_kimi_linear")
    sizes = {"hidden_size": 24, "linear_num_heads": 3, "linear_head_dim": D}
    types = {"num_hidden_layers": 1, "layer_types": ["linear_attention"]}
    config = kimi.KimiLinearConfig(**sizes, **types, rms_norm_eps=1e-6, linear_conv_kernel_dim=4)
    theirs = kimi.KimiLinearDeltaAttention(config, 0)
    pair = kda(n_heads=3, **LAYER)
    module = pair.module
    assert isinstance(module, KimiDeltaAttention)
    assert module.convolution is not None and module.output_gate is not None
    torch.manual_seed(0)
    with torch.no_grad():
        for name, parameter in theirs.named_parameters():
            parameter.normal_(std=1.0 if "conv1d" in name else 0.2)
        qkv = [theirs.q_proj.weight, theirs.k_proj.weight, theirs.v_proj.weight]
        module.qkv.weight.copy_(torch.cat(qkv))
        module.convolution.weight.copy_(theirs.conv1d.weight)
        gate = theirs.forget_gate
        module.gates.weight.copy_(torch.cat([gate.f_a_proj.weight, theirs.b_proj.weight]))
        module.decay_up.weight.copy_(gate.f_b_proj.weight)
        module.a_log.copy_(gate.A_log.flatten())
        module.dt_bias.copy_(gate.dt_bias)
        module.output_gate.weight.copy_(theirs.g_b_proj.weight @ theirs.g_a_proj.weight)
        module.out_norm.weight.copy_(theirs.o_norm.weight)
        module.out.weight.copy_(theirs.o_proj.weight)
    x = pair.inputs(length).requires_grad_()
    got, wanted = pair.fast(x)[0], theirs(x)
    torch.testing.assert_close(got, wanted, rtol=1e-5, atol=1e-5)
    toward = torch.randn(got.shape, generator=torch.Generator().manual_seed(1))
    gradients = [torch.autograd.grad(y, x, toward)[0] for y in (got, wanted)]
    torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-4, atol=1e-4)
    with torch.no_grad():
        by_token, _ = pair.in_pieces(x, [1] * length)
    torch.testing.assert_close(by_token, wanted, rtol=1e-5, atol=1e-5)


# --- decays ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("length", [1, 2, 3, 8, 13])
def test_faded_products_are_those_of_a_loop(length: int) -> None:
    """In fp32 behind channels that forget nearly everything, and others that forget nothing."""
    generator = torch.Generator().manual_seed(0)
    x, k = torch.randn(2, 2, length, D, generator=generator)
    log_alpha = -(10 ** torch.empty(2, length, D).uniform_(-6, 6, generator=generator))
    got = faded_products(x, k, log_alpha)
    for i in range(length):
        for j in range(length):
            fade = log_alpha[:, j + 1 : i + 1].double().sum(1).exp()
            wanted = (x[:, i] * k[:, j] * fade).sum(-1) * (j <= i)
            torch.testing.assert_close(got[:, i, j].double(), wanted, rtol=1e-5, atol=1e-6)
    later = torch.stack([log_alpha[:, t + 1 :].sum(1) for t in range(length)], dim=1)
    torch.testing.assert_close(sums_of_later(log_alpha), later)


def test_each_channel_fades_at_its_own_rate() -> None:
    """Two values under keys of one channel each; the first channel forgets, the second does not."""
    k = torch.eye(D)[None, None, :2]
    v = torch.randn(1, 1, 3, D, generator=torch.Generator().manual_seed(0))
    k = torch.cat([k, torch.eye(D)[None, None, 2:3]], dim=2)
    q = torch.ones(1, 1, 3, D)
    log_alpha = torch.zeros(1, 1, 3, D)
    log_alpha[..., 0] = -1e4
    y, s = in_chunks(mix_channels, q, k, v, log_alpha, torch.ones(1, 1, 3, 1), chunk=3)
    torch.testing.assert_close(s[0, 0, :3], torch.stack([0 * v[0, 0, 0], v[0, 0, 1], v[0, 0, 2]]))
    torch.testing.assert_close(y[0, 0, 2], v[0, 0, 1] + v[0, 0, 2])


@pytest.mark.parametrize("chunk", [1, 4, 16])
def test_with_one_decay_for_all_channels_it_is_the_gated_delta_rule(chunk: int) -> None:
    q, k, v = (x.double() for x in random_parts(16))
    gates = torch.rand(2, 2, 3, 16, 1, generator=torch.Generator().manual_seed(1)).double()
    log_alpha, beta = -gates[0], gates[1]
    wanted = in_chunks(mix_chunks, q, k, v, log_alpha, beta, chunk=chunk)
    got = in_chunks(mix_channels, q, k, v, log_alpha.expand_as(k), beta, chunk=chunk)
    torch.testing.assert_close(got, wanted)


# --- chunks and long texts ------------------------------------------------------------------------


@pytest.mark.parametrize("chunk", range(1, 15))
def test_chunks_of_every_size(chunk: int) -> None:
    """Outputs and gradients, those of all gates among them, for chunks of 1 to T + 3 tokens."""
    pair = kda("alibi", n_kv_heads=2, chunk=chunk)
    names = {name for name, _ in pair.module.named_parameters()}
    assert {"gates.weight", "decay_up.weight", "a_log", "dt_bias"} <= names
    pair.check(11)


def test_pieces_that_end_inside_a_chunk() -> None:
    kda("rope", chunk=16).check_pieces([41, 1, 58], [16, 84], [1] * 100)


@pytest.mark.parametrize("alpha", DECAYS)
@pytest.mark.parametrize("keys", ["random", "the same"])
def test_thousands_of_tokens_in_fp32(keys: str, alpha: str) -> None:
    check_thousands_of_tokens(mix_channels, keys, alpha, channels=D)


@pytest.mark.parametrize("narrow", [False, True], ids=["fp32", "bf16"])
def test_long_sequences_stay_finite(narrow: bool) -> None:
    """Inputs up to 30 times the usual, so that gates saturate; outputs and all gradients."""
    check_large_inputs(kda("alibi"), 1000, 30, narrow=narrow)


# --- models, initial weights ----------------------------------------------------------------------


@pytest.mark.parametrize("pos", ["rope", "alibi", "none"])
def test_a_model_of_the_papers_layers(pos: str) -> None:
    make = with_knobs(small(options_of("attention")["kda"]), **LAYER)
    check_model(small_model(attention=make, pos=options_of("pos")[pos]))


def test_initial_gates() -> None:
    module = KimiDeltaAttention(d_model=64, n_heads=100, head_dim=10)
    module.reset_parameters(Initializer(module, std=0.02, residual_std=0.005))
    assert module.gates.weight.std().item() == pytest.approx(0.02, rel=0.05)
    assert module.decay_up.weight.std().item() == pytest.approx(0.02, rel=0.05)
    rates, steps = module.a_log.detach().exp(), F.softplus(module.dt_bias.detach())
    assert rates.shape == (100,) and steps.shape == (1000,)
    assert rates.min() >= 1 and rates.max() <= 16.001
    assert 0.00099 < steps.min() < 0.00105 and 0.098 < steps.max() < 0.1001


def test_only_the_matrices_of_the_gates_decay() -> None:
    model = build_model(compose(["attention=kda", "model.n_layers=1"]), vocab_size=5)
    groups = adamw(model, lr=1e-3, weight_decay=0.1, beta1=0.9, beta2=0.99).param_groups
    decayed, others = ({id(p) for p in group["params"]} for group in groups)
    attention = model.blocks[0].attention
    assert isinstance(attention, KimiDeltaAttention)
    assert {id(attention.gates.weight), id(attention.decay_up.weight)} <= decayed
    assert {id(attention.a_log), id(attention.dt_bias)} <= others
