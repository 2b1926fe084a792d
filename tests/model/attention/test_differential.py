"""Differential attention: transformers' implementation, its neighbour `flash`, and what positions do."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from modgpt import build_model, compose
from modgpt.model.attention.differential import DifferentialAttention
from modgpt.model.init import Initializer
from modgpt.testing.build import options_of, small_model
from modgpt.testing.compare import assert_same
from modgpt.training.optimizers import adamw
from tests.model.attention.test_attention import option


def paired(weight: Tensor, heads: int) -> Tensor:
    """Rows of `heads` heads of DiffLlama, of which h and h + heads/2 are one of ours, in our order."""
    first, second = weight.unflatten(0, (2, heads // 2, -1))
    return torch.stack([first, second], dim=1).flatten(0, 2)


@pytest.mark.parametrize("layer", [0, 3])
@pytest.mark.parametrize(("heads", "kv_heads"), [(4, 4), (8, 4), (8, 2)])
def test_it_is_that_of_transformers(heads: int, kv_heads: int, layer: int) -> None:
    """Weight for weight, under RoPE. It has a head of width d where ours has half of one."""
    modeling = pytest.importorskip("transformers.models.diffllama.modeling_diffllama")
    config = modeling.DiffLlamaConfig(
        hidden_size=32, num_attention_heads=heads, num_key_value_heads=kv_heads, head_dim=4,
        rms_norm_eps=1e-5, attn_implementation="sdpa",
    )  # fmt: skip
    theirs = modeling.DiffLlamaAttention(config, layer_idx=layer).eval()
    generator = torch.Generator().manual_seed(0)
    for parameter in theirs.parameters():
        nn.init.normal_(parameter, std=0.4, generator=generator)

    ours = DifferentialAttention(
        d_model=32, n_heads=heads // 2, n_kv_heads=kv_heads // 2, head_dim=8, layer=layer
    )
    q, k, v = (
        paired(projection.weight, n)
        for projection, n in (
            (theirs.q_proj, heads),
            (theirs.k_proj, kv_heads),
            (theirs.v_proj, kv_heads),
        )
    )
    vectors = {name: p for name, p in theirs.named_parameters() if name.startswith("lambda")}
    ours.load_state_dict(
        {"qkv.weight": torch.cat([q, k, v]), "out.weight": theirs.o_proj.weight, **vectors}
        | {"head_norm.weight": torch.ones(8)}
    )
    x = torch.randn(2, 9, 32, generator=generator)
    positions = torch.arange(9)
    tables = modeling.DiffLlamaRotaryEmbedding(config)(x, positions[None])
    rope = options_of("pos")["rope"](d_model=32, n_heads=heads // 2, block_size=16, init_std=0.02)
    with torch.no_grad():
        assert_same(ours(x, rope, positions)[0], theirs(x, tables)[0], "output")


def test_equal_halves_cancel() -> None:
    """Both maps are then the same: what is mixed is 1 − λ times softmax attention with one of them."""
    module = DifferentialAttention(d_model=32, n_heads=2)
    module.reset_parameters(Initializer(module, std=0.4))
    pos = options_of("pos")["none"](d_model=32, n_heads=2, block_size=16, init_std=0.02)
    q, k, v = torch.randn(3, 2, 2, 9, 16, generator=torch.Generator().manual_seed(0))
    q, k = (x[..., :8].repeat(1, 1, 1, 2) for x in (q, k))
    with torch.no_grad():
        got, _ = module.mix(q, k, v, pos, torch.arange(9), None)
        same = F.scaled_dot_product_attention(q[..., :8], k[..., :8], v, is_causal=True)
        assert_same(got, (1 - module.lambda_()) * same, "output")


@pytest.mark.parametrize("pos", ["rope", "alibi"])
def test_both_maps_depend_on_distances_alone(pos: str) -> None:
    pair = option("differential", pos)
    x = pair.inputs(9)
    assert_same(pair.fast(x, start=37)[0], pair.fast(x)[0], "output 37 tokens later")


def test_positions_need_halves_that_they_can_rotate() -> None:
    make, rope = options_of("attention")["differential"], options_of("pos")["rope"]
    assert small_model(attention=make, pos=rope, n_heads=4).blocks[0].attention.rotated_width == 6
    with pytest.raises(ValueError, match="the rotated head width must be even, got 3"):
        small_model(attention=make, pos=rope, n_heads=8)
    small_model(attention=make, pos=options_of("pos")["none"], n_heads=8)


@pytest.mark.parametrize("sizes", [{"n_heads": 8}, {"n_heads": 2, "head_dim": 3}], ids=str)
def test_heads_of_odd_width_are_refused(sizes: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"splits heads in half: their width must be even, got 3"):
        DifferentialAttention(d_model=24, **sizes)


# --- initial weights ------------------------------------------------------------------------------


def test_lambda_starts_near_its_initial_value() -> None:
    """0.2 in the first layer, near 0.8 in deep ones; the vectors have a standard deviation of 0.1."""
    for layer, wanted in ((0, 0.2), (1, 0.8 - 0.6 * math.exp(-0.3)), (30, 0.8)):
        module = DifferentialAttention(d_model=2000, n_heads=1, layer=layer)
        assert module.lambda_init == pytest.approx(wanted, abs=1e-4)
        module.reset_parameters(Initializer(module, std=0.02))
        assert module.lambda_q1.std().item() == pytest.approx(0.1, rel=0.1)
    module = DifferentialAttention(d_model=64, n_heads=2)
    module.reset_parameters(Initializer(module, std=0.02))
    assert module.lambda_().item() == pytest.approx(0.2, abs=0.15)


def test_other_weights_start_as_those_of_flash() -> None:
    ours, theirs = (
        build_model(compose([f"attention={name}", "model.n_layers=1"]), vocab_size=5).state_dict()
        for name in ("differential", "flash")
    )
    assert all(torch.equal(ours[name], weight) for name, weight in theirs.items())
    added = sum(ours[name].numel() for name in ours.keys() - theirs.keys())
    assert added == 4 * 16 + 32, "four vectors of λ and the gains"


def test_vectors_of_lambda_do_not_decay() -> None:
    model = build_model(compose(["attention=differential", "model.n_layers=1"]), vocab_size=5)
    _, others = adamw(model, lr=1e-3, weight_decay=0.1, beta1=0.9, beta2=0.99).param_groups
    attention = model.blocks[0].attention
    assert isinstance(attention, DifferentialAttention)
    undecayed = {id(p) for p in others["params"]}
    assert {id(attention.lambda_q1), id(attention.head_norm.weight)} <= undecayed
