"""Attention by products is the fused kernel's, and is taken where that one is slow."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from modgpt import build_model, compose
from modgpt.kernels import attention_products


@pytest.mark.parametrize("kv_heads", [4, 2, 1])
@pytest.mark.parametrize("kind", ["causal", "allowed", "bias", "both", "of each", "none"])
@pytest.mark.parametrize("at_once", [1, 2], ids=["one by one", "together"])
def test_products_equal_the_fused_kernel(
    at_once: int, kind: str, kv_heads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The way the CPU takes in bf16, held in fp64 to the kernel it stands for: outputs and gradients."""
    monkeypatch.setattr(attention_products, "SCORES_AT_ONCE", at_once * 4 * 7 * 7)
    generator = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64).requires_grad_()

    q, k, v = normal(2, 4, 7, 6), normal(2, kv_heads, 7, 6), normal(2, kv_heads, 7, 6)
    allowed = torch.ones(7, 7, dtype=torch.bool).tril()
    bias = torch.randn(4, 7, 7, generator=generator, dtype=torch.float64)
    of_each = normal(2, 4, 7, 7)  # a bias of each sequence, which may have a gradient
    both = bias.masked_fill(~allowed, float("-inf"))
    mask = {"allowed": allowed, "bias": bias, "both": both, "of each": of_each}.get(kind)
    causal = kind == "causal"
    scale = 0.3 if kind == "bias" else None
    got = attention_products.scaled_dot_product_attention(
        q, k, v, mask, 0.0, causal, scale, enable_gqa=kv_heads != 4
    )
    wanted = F.scaled_dot_product_attention(
        q, k, v, attn_mask=mask, is_causal=causal, scale=scale, enable_gqa=True
    )
    torch.testing.assert_close(got, wanted, rtol=1e-12, atol=1e-12)
    toward = torch.randn(got.shape, generator=generator, dtype=torch.float64)
    inputs = (q, k, v, of_each) if kind == "of each" else (q, k, v)
    for a, b in zip(
        torch.autograd.grad(got, inputs, toward),
        torch.autograd.grad(wanted, inputs, toward),
        strict=True,
    ):
        torch.testing.assert_close(a, b, rtol=1e-11, atol=1e-12)


def test_bf16_training_takes_the_products_on_a_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    kernel = attention_products.scaled_dot_product_attention

    def counting(*args: Any, **kwargs: Any) -> Tensor:
        calls.append(1)
        return kernel(*args, **kwargs)

    monkeypatch.setattr(attention_products, "scaled_dot_product_attention", counting)
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
    monkeypatch.setattr(attention_products, "LONGEST", 7)
    with torch.autocast("cpu", torch.bfloat16):
        model(tokens)
    assert len(calls) == 1, "and where the scores would be too many to write down"
