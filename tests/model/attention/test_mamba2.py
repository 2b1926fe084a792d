"""Mamba-2: it is transformers' mixer, its chunks are its recurrence, and long texts do it no harm."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from modgpt import build_model, compose
from modgpt.model.attention.mamba2 import Mamba2Attention, mix_chunks
from modgpt.model.init import Initializer
from modgpt.testing.attention import AttentionPair, check_large_inputs
from modgpt.testing.build import options_of
from modgpt.testing.compare import assert_same
from modgpt.training.optimizers import adamw
from tests.model.attention.test_attention import option

C, H, P, N = 24, 6, 8, 16


def mamba2(pos: str = "none", **knobs: Any) -> AttentionPair:
    """The option and its definition."""
    return option("mamba2", pos, **knobs)


# --- the layer of transformers --------------------------------------------------------------------


def pair_and_mixer(n_groups: int) -> tuple[AttentionPair, Any]:
    """Our layer and transformers' with the same weights; v is twice as wide as the model."""
    theirs = pytest.importorskip("transformers.models.mamba2.modeling_mamba2")
    sizes = {"hidden_size": C, "num_heads": H, "head_dim": P, "state_size": N, "n_groups": n_groups}
    mixer = theirs.Mamba2Mixer(theirs.Mamba2Config(**sizes, num_hidden_layers=1, chunk_size=8), 0)
    pair = mamba2(n_heads=H, head_dim=P, d_state=N, n_kv_heads=n_groups)
    module = pair.module
    assert isinstance(module, Mamba2Attention) and module.convolution is not None
    module.convolution.bias.data.normal_()

    def reordered(weight: Tensor) -> Tensor:
        """x, B, C as C, B, x."""
        return torch.cat(list(weight.split([H * P, n_groups * N, n_groups * N]))[::-1])

    torch.manual_seed(0)
    with torch.no_grad():
        for name, parameter in mixer.named_parameters():
            parameter.normal_(std=1.0 if "conv1d" in name else 0.2)
        z, qkv, steps = mixer.in_proj.weight.split([H * P, H * P + 2 * n_groups * N, H])
        module.z.weight.copy_(z)
        module.qkv.weight.copy_(reordered(qkv))
        module.steps.weight.copy_(steps)
        module.convolution.weight.copy_(reordered(mixer.conv1d.weight))
        module.convolution.bias.copy_(reordered(mixer.conv1d.bias))
        module.a_log.copy_(mixer.A_log)
        module.dt_bias.copy_(mixer.dt_bias)
        module.skip.copy_(mixer.D)
        module.out_norm.weight.copy_(mixer.norm.weight)
        module.out.weight.copy_(mixer.out_proj.weight)
    mixer.norm.group_size = H * P  # one norm over all heads, as with one group
    return pair, mixer.eval()


@pytest.mark.parametrize("length", [1, 3, 21, 70])
@pytest.mark.parametrize("n_groups", [1, 2, 6])
def test_is_the_mixer_of_transformers(n_groups: int, length: int) -> None:
    """Weight for weight, outputs and gradients; in one pass and token by token."""
    pair, mixer = pair_and_mixer(n_groups)
    x = pair.inputs(length).requires_grad_()
    got, wanted = pair.fast(x)[0], mixer(x)
    torch.testing.assert_close(got, wanted, rtol=1e-5, atol=1e-5)
    toward = torch.randn(got.shape, generator=torch.Generator().manual_seed(1))
    gradients = [torch.autograd.grad(y, x, toward)[0] for y in (got, wanted)]
    torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-4, atol=1e-4)
    with torch.no_grad():
        by_token, _ = pair.in_pieces(x, [1] * length)
    torch.testing.assert_close(by_token, wanted, rtol=1e-5, atol=1e-5)


def test_with_one_group_nothing_is_changed_in_the_mixer() -> None:
    mixer = pair_and_mixer(1)[1]
    theirs = pytest.importorskip("transformers.models.mamba2.modeling_mamba2")
    sizes = {"hidden_size": C, "num_heads": H, "head_dim": P, "state_size": N, "n_groups": 1}
    fresh = theirs.Mamba2Mixer(theirs.Mamba2Config(**sizes, num_hidden_layers=1), 0)
    assert fresh.norm.group_size == mixer.norm.group_size


# --- chunks ---------------------------------------------------------------------------------------


def recurrence(q: Tensor, k: Tensor, v: Tensor, log_alpha: Tensor) -> tuple[Tensor, Tensor]:
    """Token by token in fp64: q, k (B,G,T,N), v (B,H,T,P), log α (B,H,T,1) -> (B,H,T,P), S."""
    shared = v.shape[1] // q.shape[1]
    q, k = (x.repeat_interleave(shared, dim=1) for x in (q, k))
    q, k, v, log_alpha = (x.double() for x in (q, k, v, log_alpha))
    s, ys = torch.zeros(*k.shape[:2], k.shape[3], v.shape[3], dtype=torch.float64), []
    for t in range(q.shape[2]):
        s = log_alpha[:, :, t, None].exp() * s + k[:, :, t, :, None] * v[:, :, t, None]
        ys.append(q[:, :, t, None] @ s)
    return torch.cat(ys, dim=2), s


@pytest.mark.parametrize("alpha", ["one", "slow", "fast", "mixed"])
def test_thousands_of_tokens_in_fp32(alpha: str) -> None:
    generator = torch.Generator().manual_seed(0)
    q, k = torch.randn(2, 2, 1, 2048, N, generator=generator)
    v, u = (torch.randn(2, 3, 2048, n, generator=generator) for n in (P, 1))
    u = u.sigmoid()
    log_alpha = {"one": 0 * u, "slow": -1e-3 * u, "fast": -10 * u, "mixed": -(10 ** (8 * u - 4))}[alpha]
    s = torch.zeros(2, 3, N, P)
    y, s = mix_chunks(s, *(x.unflatten(2, (-1, 64)) for x in (q, k, v, log_alpha)))
    slow_y, slow_s = recurrence(q, k, v, log_alpha)
    torch.testing.assert_close(y.double(), slow_y, rtol=1e-4, atol=2e-3)  # numbers of a few hundred
    torch.testing.assert_close(s.double(), slow_s, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("chunk", range(1, 15))
def test_chunks_of_every_size(chunk: int) -> None:
    pair = mamba2("alibi", n_kv_heads=2, chunk=chunk)
    names = {name for name, _ in pair.module.named_parameters()}
    assert {"steps.weight", "a_log", "dt_bias", "skip", "z.weight", "convolution.bias"} <= names
    pair.check(11)


def test_pieces_that_end_inside_a_chunk() -> None:
    mamba2("rope", chunk=16).check_pieces([41, 1, 58], [16, 84], [1] * 100)


@pytest.mark.parametrize("narrow", [False, True], ids=["fp32", "bf16"])
def test_long_sequences_stay_finite(narrow: bool) -> None:
    """Inputs up to 30 times the usual; outputs and all gradients."""
    check_large_inputs(mamba2("alibi"), 1000, 30, narrow=narrow)


# --- state, sizes, initial weights ----------------------------------------------------------------


def test_state_is_of_one_size_and_in_fp32() -> None:
    pair = mamba2("rope", d_state=6)
    x = pair.inputs(300)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        _, at_once = pair.fast(x, pair.module.initial_state(2, 300))
        _, by_token = pair.in_pieces(x, [1] * 300)
    assert at_once.s.dtype == by_token.s.dtype == torch.float32
    assert at_once.s.shape == (2, 6, 6, 4)
    assert at_once.nbytes == by_token.nbytes == pair.module.initial_state(2, 1).nbytes
    assert at_once.s.untyped_storage().nbytes() == at_once.s.nbytes
    assert_same(by_token.s, at_once.s, "state")


def test_heads_of_queries_and_keys_are_shared() -> None:
    """By the YAML one for all; every head of values has a state of its own."""
    module = mamba2(n_heads=6).module
    assert module.shapes == ((1, 4), (1, 4), (6, 4))
    assert module.fused["qkv.weight"] == [4, 4, 24]
    assert mamba2(n_kv_heads=None).module.shapes == ((6, 4), (6, 4), (6, 4))


def test_a_width_of_the_state_that_rope_cannot_rotate_is_refused() -> None:
    overrides = ["attention=mamba2", "attention.d_state=5", "model.n_layers=1"]
    with pytest.raises(ValueError, match="head_dim=5"):
        build_model(compose([*overrides, "pos=rope"]), vocab_size=5)
    build_model(compose([*overrides, "pos=alibi"]), vocab_size=5)


def test_initial_weights_of_the_gates() -> None:
    module = Mamba2Attention(d_model=64, n_heads=1000, head_dim=1)
    module.reset_parameters(Initializer(module, std=0.02, residual_std=0.005))
    assert module.steps.weight.std().item() == pytest.approx(0.02, rel=0.05)
    assert module.z.weight.std().item() == pytest.approx(0.02, rel=0.05)
    rates, steps = module.a_log.detach().exp(), F.softplus(module.dt_bias.detach())
    assert 1 <= rates.min() < 1.5 and 15.5 < rates.max() <= 16.001
    assert 0.00099 < steps.min() < 0.00105 and 0.098 < steps.max() < 0.1001
    assert torch.equal(module.skip, torch.ones(1000))


def test_vectors_of_the_layer_do_not_decay() -> None:
    model = build_model(compose(["attention=mamba2", "model.n_layers=1"]), vocab_size=5)
    groups = adamw(model, lr=1e-3, weight_decay=0.1, beta1=0.9, beta2=0.99).param_groups
    decayed, others = ({id(p) for p in group["params"]} for group in groups)
    attention = model.blocks[0].attention
    assert isinstance(attention, Mamba2Attention)
    assert {id(attention.steps.weight), id(attention.z.weight)} <= decayed
    assert {id(attention.a_log), id(attention.dt_bias), id(attention.skip)} <= others


def test_in_a_pattern_of_layers() -> None:
    overrides = ["attention=hybrid", "attention@attention.options.rest=mamba2", "attention.n_kv_heads=2"]
    model = build_model(compose(overrides), vocab_size=5)
    attention = model.blocks[1].attention
    assert isinstance(attention, Mamba2Attention) and attention.n_kv_heads == 2
    assert isinstance(attention.out_norm, type(options_of("norm")["rmsnorm"](4)))
