"""Models to compare ours with, written by hand or from libraries, and a bare training loop for them.

The plain GPT is a GPT-2 as in a tutorial: fp32, AdamW and gradient clipping. The other models come from
transformers and x-transformers (the extra `bench`).
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@dataclass(frozen=True)
class Size:
    """The size of a model and its batches: layers, C, H, T, B, V."""

    n_layers: int
    d_model: int
    n_heads: int
    block_size: int
    batch_size: int
    vocab_size: int = 65

    @property
    def tokens(self) -> int:
        """Tokens per step."""
        return self.batch_size * self.block_size


SIZES = {"mini": Size(4, 128, 4, 64, 12), "small": Size(6, 256, 8, 256, 16)}


class PlainBlock(nn.Module):
    """Pre-norm block of GPT-2."""

    def __init__(self, size: Size, bias: bool) -> None:
        super().__init__()
        width, linear = size.d_model, partial(nn.Linear, bias=bias)
        self.n_heads = size.n_heads
        self.norm_1, self.norm_2 = nn.LayerNorm(width, bias=bias), nn.LayerNorm(width, bias=bias)
        self.qkv, self.out = linear(width, 3 * width), linear(width, width)
        self.up, self.down = linear(width, 4 * width), linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        b, t, c = x.shape
        q, k, v = (
            y.view(b, t, self.n_heads, -1).transpose(1, 2)
            for y in self.qkv(self.norm_1(x)).split(c, dim=2)
        )
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(y.transpose(1, 2).reshape(b, t, c))
        return x + self.down(F.gelu(self.up(self.norm_2(x))))


class PlainGPT(nn.Module):
    """GPT-2 as in a tutorial."""

    def __init__(self, size: Size, bias: bool = True) -> None:
        super().__init__()
        self.tokens = nn.Embedding(size.vocab_size, size.d_model)
        self.positions = nn.Embedding(size.block_size, size.d_model)
        self.blocks = nn.Sequential(*(PlainBlock(size, bias) for _ in range(size.n_layers)))
        self.norm = nn.LayerNorm(size.d_model, bias=bias)
        self.head = nn.Linear(size.d_model, size.vocab_size, bias=False)
        self.head.weight = self.tokens.weight
        for name, weight in self.named_parameters():
            if weight.dim() == 2:
                residual = name.endswith(("out.weight", "down.weight"))
                nn.init.normal_(weight, std=0.02 / (math.sqrt(2 * size.n_layers) if residual else 1))

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.tokens(tokens) + self.positions(torch.arange(tokens.shape[1], device=tokens.device))
        return self.head(self.norm(self.blocks(x)))

    @torch.no_grad()
    def generate(self, tokens: Tensor, n: int, block_size: int) -> Tensor:
        """Append n sampled tokens, without a cache: each token reads the whole window again."""
        for _ in range(n):
            logits = self(tokens[:, -block_size:])[:, -1]
            tokens = torch.cat([tokens, torch.multinomial(logits.softmax(-1), 1)], dim=1)
        return tokens


def transformers_gpt2(size: Size, room: int = 0) -> Logits:
    from transformers import GPT2Config, GPT2LMHeadModel

    config = GPT2Config(
        vocab_size=size.vocab_size, n_positions=max(size.block_size, room), n_embd=size.d_model,
        n_layer=size.n_layers, n_head=size.n_heads, resid_pdrop=0, embd_pdrop=0, attn_pdrop=0,
        use_cache=False, bos_token_id=0, eos_token_id=0,
    )  # fmt: skip
    return Logits(GPT2LMHeadModel(config))


def transformers_llama(size: Size, room: int = 0) -> Logits:
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=size.vocab_size, max_position_embeddings=max(size.block_size, room),
        hidden_size=size.d_model, intermediate_size=round(size.d_model / 3) * 8,
        num_hidden_layers=size.n_layers, num_attention_heads=size.n_heads,
        use_cache=False, tie_word_embeddings=True, bos_token_id=0, eos_token_id=0,
    )  # fmt: skip
    return Logits(LlamaForCausalLM(config))


def x_transformers(size: Size) -> nn.Module:
    from x_transformers import Decoder, TransformerWrapper

    return TransformerWrapper(
        num_tokens=size.vocab_size,
        max_seq_len=size.block_size,
        tie_embedding=True,
        attn_layers=Decoder(
            dim=size.d_model, depth=size.n_layers, heads=size.n_heads,
            attn_dim_head=size.d_model // size.n_heads, attn_flash=True,
        ),
    )  # fmt: skip


class Logits(nn.Module):
    """A wrapper of a transformers model that returns only its logits."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model: Any = model

    def forward(self, tokens: Tensor) -> Tensor:
        return self.model(tokens).logits


class Loop:
    """A bare training loop on random batches: forward, backward, clipping, AdamW.

    Args:
        model: tokens (B,T) -> logits (B,T,V).
        size: of the batches.
        bf16: multiply matrices in bf16 (autocast).
        device: cpu or cuda, where the batches lie as well.
    """

    def __init__(self, model: Any, size: Size, bf16: bool, device: str = "cpu") -> None:
        self.model, self.bf16, self.size, self.device = model.to(device), bf16, size, device
        self.optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, fused=True)
        generator = torch.Generator().manual_seed(0)
        shape = (16, size.batch_size, size.block_size + 1)
        self.batches = torch.randint(size.vocab_size, shape, generator=generator).to(device)
        self.at = 0

    def step(self) -> None:
        batch = self.batches[self.at % len(self.batches)]
        self.at += 1
        with torch.autocast(self.device, torch.bfloat16, enabled=self.bf16):
            logits = self.model(batch[:, :-1])
            loss = F.cross_entropy(logits.flatten(0, 1).float(), batch[:, 1:].flatten())
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad()

    def tokens_per_second(self, steps: int) -> float:
        """Tokens per second over some steps, after two warm-up steps."""
        for _ in range(2):
            self.step()
        self.wait()
        start = time.perf_counter()
        for _ in range(steps):
            self.step()
        self.wait()
        return steps * self.size.tokens / (time.perf_counter() - start)

    def wait(self) -> None:
        """Wait until the device has computed everything."""
        if self.device == "cuda":
            torch.cuda.synchronize()
