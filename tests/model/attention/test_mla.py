"""Latent attention: DeepSeek's own layer weight for weight, and a cache of latents that stay latents."""

from __future__ import annotations

import re
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

from modgpt import build_model, compose
from modgpt.errors import UserError
from modgpt.model.attention.mla import LatentAttention
from modgpt.model.norm.rmsnorm import RMSNorm
from modgpt.model.pos.rope import RotaryPosition
from modgpt.testing.attention import AttentionPair, tensors_of
from modgpt.testing.build import component
from modgpt.testing.compare import assert_same
from modgpt.testing.cost import flops_of
from tests.model.attention.test_attention import option

SIZES: dict[str, Any] = {"kv_rank": 10, "rope_dim": 4, "head_dim": 6, "v_head_dim": 5}


def mla(pos: str = "none", **knobs: Any) -> AttentionPair:
    """The option and its definition."""
    return option("mla", pos, **knobs)


# --- DeepSeek-V3 ----------------------------------------------------------------------------------


def by_head(weight: Tensor, *widths: int) -> Tensor:
    """Rows of kind after kind, each head by head, to rows of head after head."""
    kinds = weight.split([4 * width for width in widths])
    return torch.cat([kind.unflatten(0, (4, -1)) for kind in kinds], dim=1).flatten(0, 1)


@pytest.mark.parametrize("interleaved", [True, False])
@pytest.mark.parametrize("q_rank", [None, 7])
def test_it_is_the_layer_of_transformers(q_rank: int | None, interleaved: bool) -> None:
    deepseek = pytest.importorskip("transformers.models.deepseek_v3.modeling_deepseek_v3")
    config = deepseek.DeepseekV3Config(
        hidden_size=24, num_attention_heads=4, num_key_value_heads=4, q_lora_rank=q_rank,
        kv_lora_rank=10, qk_rope_head_dim=4, qk_nope_head_dim=6, v_head_dim=5,
        rope_interleave=interleaved, attn_implementation="eager",
    )  # fmt: skip
    norm = partial(RMSNorm, eps=1e-6)
    ours = component(LatentAttention, d_model=24, n_heads=4, q_rank=q_rank, qk_norm=norm, **SIZES)
    pos = RotaryPosition(
        d_model=24, n_heads=4, block_size=16, init_std=0.02, interleaved=interleaved, theta=10000.0
    )
    q, *from_x = ours.qkv.weight.split(ours.fused["qkv.weight"])
    state = {
        "kv_a_proj_with_mqa.weight": torch.cat(from_x),
        "kv_a_layernorm.weight": ours.k_norm.weight,
        "kv_b_proj.weight": by_head(ours.kv_up.weight, 6, 5),
        "o_proj.weight": ours.out.weight,
    }
    if ours.q_up is None:
        state["q_proj.weight"] = q
    else:
        state |= {"q_a_proj.weight": q, "q_b_proj.weight": ours.q_up.weight}
        state["q_a_layernorm.weight"] = ours.q_norm.weight
    theirs = deepseek.DeepseekV3Attention(config, layer_idx=0)
    theirs.load_state_dict(state)
    x = torch.randn(2, 9, 24, generator=torch.Generator().manual_seed(3))
    positions = torch.arange(9)
    rotary = deepseek.DeepseekV3RotaryEmbedding(config)(x, positions[None])
    future = torch.full((9, 9), float("-inf")).triu(1)
    with torch.no_grad():
        wanted = theirs(x, rotary, future)[0]
        assert_same(ours(x, pos, positions)[0], wanted, "forward")
        cache = ours.initial_state(2, 9)
        pieces = []
        for part, at in zip(x.split([4, 3, 1, 1], 1), positions.split([4, 3, 1, 1]), strict=True):
            y, cache = ours(part, pos, at, cache)
            pieces.append(y)
        assert_same(torch.cat(pieces, 1), wanted, "in pieces")


# --- the cache ------------------------------------------------------------------------------------


def test_the_cache_holds_latents_alone() -> None:
    """r + R numbers per token, whatever the numbers of heads."""
    for n_kv_heads in (1, 3, 6):
        pair = mla("rope", n_kv_heads=n_kv_heads, **SIZES)
        assert tensors_of(pair.module.initial_state(2, 7))["latents"].shape == (2, 1, 7, 14)
        assert pair.module.state_size(7) == 7 * 14


def test_a_step_makes_no_key_again() -> None:
    """Its FLOPs are those that the docstring states, and the products with weights."""
    pair, length = mla(softcap=2.0, **SIZES), 400  # with a cap scores are written, and counted
    module = pair.module
    assert isinstance(module, LatentAttention)
    _, state = pair.fast(pair.inputs(length - 1, batch=1), module.initial_state(1, length))
    x = pair.inputs(1, batch=1)
    mixing = 4 * 6 * (10 + 4) * length
    weights = 2 * sum(p.numel() for p in module.parameters() if p.dim() == 2)
    absorbed = 2 * module.kv_up.weight.numel()
    assert flops_of(pair.fast, x, state, length - 1) == mixing + weights + absorbed


@pytest.mark.parametrize("knobs", [{}, {"sinks": True}, {"softcap": 2.0}], ids=str)
def test_the_latents_give_what_keys_and_values_give(knobs: dict[str, Any]) -> None:
    """In fp64, for a piece of several tokens behind others."""
    pair = AttentionPair(
        lambda **sizes: LatentAttention(**SIZES, **knobs, n_kv_heads=3, **sizes), dtype=torch.float64
    )
    x = pair.inputs(9)
    with torch.no_grad():
        at_once, _ = pair.fast(x)
        behind, _ = pair.in_pieces(x, [4, 5])
    torch.testing.assert_close(behind, at_once, rtol=1e-12, atol=1e-12)


def test_more_than_the_capacity_is_refused() -> None:
    pair = mla()
    _, state = pair.fast(pair.inputs(4), pair.module.initial_state(2, 5))
    with pytest.raises(ValueError, match="the cache has room for 5 tokens, 6 are needed"):
        pair.fast(pair.inputs(2), state, start=4)


# --- sizes ----------------------------------------------------------------------------------------


def test_left_null_the_ranks_make_it_as_large_as_flash() -> None:
    for size in ("mini", "small", "nanogpt"):
        models = (
            build_model(compose([f"model={size}", f"attention={name}"]), vocab_size=5)
            for name in ("mla", "flash")
        )
        ours, flash = (model.blocks[0].attention for model in models)
        assert isinstance(ours, LatentAttention)
        cost, wanted = ours.cost(64), flash.cost(64)
        assert wanted.parameters < cost.parameters < 1.05 * wanted.parameters
        assert cost.state < wanted.state / 3


def test_only_the_decoupled_columns_are_rotated() -> None:
    """So rope_dim must suit the positions, and head_dim need not."""
    assert mla("rope", head_dim=5, rope_dim=4).module.rotated_width == 4
    with pytest.raises(UserError, match="rotated head width must be even, got 3"):
        build_model(compose(["attention=mla", "attention.rope_dim=3"]), vocab_size=5)


def test_its_norms_are_those_of_the_latents() -> None:
    module = mla(q_rank=7, kv_rank=10).module
    assert (module.q_norm.weight.shape, module.k_norm.weight.shape) == ((7,), (10,))
    plain = compose(["attention=mla", "norm@attention.qk_norm=none"])
    names = [name for name, _ in build_model(plain, vocab_size=5).named_parameters()]
    assert not any("attention.k_norm" in name for name in names)


@pytest.mark.parametrize("knob", ["kv_rank", "q_rank", "rope_dim", "v_head_dim"])
def test_widths_that_cannot_be(knob: str) -> None:
    with pytest.raises(ValueError, match=re.escape(f"attention.{knob} must be at least 1, got 0")):
        option("mla", **{knob: 0})
