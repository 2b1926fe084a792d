"""Training speed: our whole program, our model in a bare loop, and peers' models in that loop."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch

from modgpt.benchmark.peers import (
    SIZES,
    Loop,
    PlainGPT,
    Size,
    transformers_gpt2,
    transformers_llama,
    x_transformers,
)
from modgpt.benchmark.rounds import Row, alternate
from modgpt.build import build_model
from modgpt.composition import compose, compose_job
from modgpt.training import best_precision, train

COMPOSITIONS: dict[str, tuple[str, ...]] = {
    "GPT-2": ("experiment=nanogpt_cpu", "ffn.bias=true", "attention.bias=true"),
    "Llama": (),
}
PEERS: dict[str, Callable[[Size], Any]] = {
    "plain GPT-2": PlainGPT,
    "transformers GPT-2": transformers_gpt2,
    "transformers Llama": transformers_llama,
    "x-transformers": x_transformers,
}
BASELINE = "plain GPT-2, fp32"


def training(size_name: str, rounds: int, steps: int) -> list[Row]:
    """Training tokens per second, as ratios to the plain loop in fp32.

    Args:
        size_name: one of `SIZES`.
        rounds: how often each contestant has its turn.
        steps: of each turn.
    """
    size = SIZES[size_name]
    bf16 = best_precision("cpu") == "bf16-mixed"
    contestants: dict[str, Callable[[], float]] = {}
    for name, overrides in COMPOSITIONS.items():
        contestants[f"modgpt {name}, whole program"] = partial(whole_program, overrides, size, steps)
        ours = Loop(build_model(compose([*overrides, *sized(size)]), size.vocab_size), size, bf16)
        contestants[f"modgpt {name}, bare loop"] = partial(ours.tokens_per_second, steps)
    for name, make in PEERS.items():
        for precision in ("fp32", "bf16"):
            peer = Loop(make(size), size, bf16=precision == "bf16")
            contestants[f"{name}, {precision}"] = partial(peer.tokens_per_second, steps)
    return alternate(contestants, rounds, BASELINE)


def whole_program(overrides: tuple[str, ...], size: Size, steps: int) -> float:
    """Tokens per second of a training with everything a user gets: Lightning, loggers, checkpoints."""
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as folder:
        job = compose_job([
            *overrides, *sized(size), f"trainer.max_steps={steps}", "schedule.warmup_steps=2",
            "trainer.accelerator=cpu", "trainer.val_check_interval=100000", f"output_dir={folder}",
            "callbacks.sample.length=0", "trainer.limit_val_batches=1",
        ])  # fmt: skip
        return float(train(job, Path(folder) / "run").result["tokens_per_second"])


def sized(size: Size) -> list[str]:
    """Overrides that give our model a size."""
    return [
        f"model.n_layers={size.n_layers}", f"model.d_model={size.d_model}",
        f"model.n_heads={size.n_heads}", f"model.block_size={size.block_size}",
        f"data.batch_size={size.batch_size}",
    ]  # fmt: skip
