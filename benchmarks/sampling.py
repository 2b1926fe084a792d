"""Sampling speed of one sequence: ours, a loop without a cache, and transformers' `generate`."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from benchmarks.peers import SIZES, PlainGPT, Size, transformers_gpt2, transformers_llama
from benchmarks.rounds import Row, Turn, alternate
from benchmarks.training import COMPOSITIONS, sized
from modgpt.config.build import build_model
from modgpt.config.compose import compose
from modgpt.inference.generation import stream
from modgpt.inference.sampling import sample

BASELINE = "plain GPT-2, no cache"
TRANSFORMERS = {"GPT-2": transformers_gpt2, "Llama": transformers_llama}
PROMPT = torch.zeros(1, 1, dtype=torch.long)


def sampling(size_name: str, rounds: int, tokens: int) -> list[Row]:
    """Tokens per second of one sequence, and the ratio to a loop without a cache.

    The models have random weights and run in fp32. When the window of a model with a table of positions
    is full, ours continues with the last half of it, and the plain loop moves it by one token. The cache
    of transformers has room for all tokens.

    Args:
        size_name: one of `SIZES`.
        rounds: turns of each contestant.
        tokens: sampled tokens per turn.
    """
    size = SIZES[size_name]
    contestants: dict[str, Callable[[], Turn]] = {
        f"modgpt {name}": partial(ours, name, size, tokens) for name in COMPOSITIONS
    }
    contestants[BASELINE] = partial(plain, size, tokens)
    for name in TRANSFORMERS:
        contestants[f"transformers {name}, cached"] = partial(cached, name, size, tokens)
    return alternate(contestants, rounds, BASELINE)


def ours(name: str, size: Size, tokens: int) -> Turn:
    model = build_model(compose([*COMPOSITIONS[name], *sized(size)]), size.vocab_size)
    generator = torch.Generator().manual_seed(1)

    def pick(logits: Tensor) -> Tensor:
        return sample(logits, generator, temperature=1.0)

    def write() -> None:
        for _ in stream(model, PROMPT, pick, tokens):
            pass

    return partial(speed, write, tokens)


def plain(size: Size, tokens: int) -> Turn:
    model = PlainGPT(size).eval()
    return partial(speed, partial(model.generate, PROMPT, tokens, size.block_size), tokens)


def cached(name: str, size: Size, tokens: int) -> Turn:
    model = TRANSFORMERS[name](size, room=tokens + 1).eval().model
    write = partial(
        model.generate, PROMPT, attention_mask=torch.ones_like(PROMPT), max_new_tokens=tokens,
        min_new_tokens=tokens, do_sample=True, top_k=0, use_cache=True, pad_token_id=0,
    )  # fmt: skip
    return partial(speed, write, tokens)


def speed(write: Callable[[], object], tokens: int) -> float:
    start = time.perf_counter()
    write()
    return tokens / (time.perf_counter() - start)
