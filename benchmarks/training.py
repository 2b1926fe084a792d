"""Training speed of our whole program, and of our model and other models in a bare loop."""

from __future__ import annotations

import contextlib
import io
import tempfile
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import torch

from benchmarks.peers import (
    SIZES,
    Loop,
    PlainGPT,
    Size,
    transformers_gpt2,
    transformers_llama,
    x_transformers,
)
from benchmarks.rounds import Row, Turn, alternate
from modgpt.config.build import build_model
from modgpt.config.compose import compose, compose_job
from modgpt.training.hardware import best_precision
from modgpt.training.loop import train

COMPOSITIONS: dict[str, tuple[str, ...]] = {
    "GPT-2": ("experiment=nanogpt_cpu", "norm.bias=true", "ffn.bias=true", "attention.bias=true"),
    "Llama": (),
}
PEERS: dict[str, Callable[[Size], Any]] = {
    "plain GPT-2": PlainGPT,
    "transformers GPT-2": transformers_gpt2,
    "transformers Llama": transformers_llama,
    "x-transformers": x_transformers,
}
BASELINE = "plain GPT-2, fp32"


def training(size_name: str, rounds: int, steps: int, only: Sequence[str] = ()) -> list[Row]:
    """Training tokens per second, and the ratio to the plain loop in fp32.

    Args:
        size_name: one of `SIZES`.
        rounds: turns of each contestant.
        steps: steps per turn.
        only: parts of names: measures these contestants and the baseline. Empty for all.
    """
    size = SIZES[size_name]
    contestants: dict[str, Callable[[], Turn]] = {}
    for name in COMPOSITIONS:
        contestants[f"modgpt {name}, whole program"] = partial(WholeProgram, name, size, steps)
        contestants[f"modgpt {name}, whole program, compiled"] = partial(
            WholeProgram, name, size, steps, "compile=true"
        )
        contestants[f"modgpt {name}, bare loop"] = partial(our_loop, name, size, steps)
    for name in PEERS:
        for bf16 in (False, True):
            label = f"{name}, {'bf16' if bf16 else 'fp32'}"
            contestants[label] = partial(peer_loop, name, size, steps, bf16)
    contestants["plain GPT-2, bf16, compiled"] = partial(compiled_loop, size, steps)
    if only:
        wanted = (BASELINE, *only)
        contestants = {n: c for n, c in contestants.items() if any(part in n for part in wanted)}
    return alternate(contestants, rounds, BASELINE)


def our_loop(name: str, size: Size, steps: int) -> Turn:
    """Our model in the bare loop, in the precision that our program would choose."""
    model = build_model(compose([*COMPOSITIONS[name], *sized(size)]), size.vocab_size)
    loop = Loop(model, size, bf16=best_precision("cpu") == "bf16-mixed")
    return partial(loop.tokens_per_second, steps)


def peer_loop(name: str, size: Size, steps: int, bf16: bool) -> Turn:
    return partial(Loop(PEERS[name](size), size, bf16).tokens_per_second, steps)


def compiled_loop(size: Size, steps: int) -> Turn:
    return partial(Loop(torch.compile(PlainGPT(size)), size, bf16=True).tokens_per_second, steps)


class WholeProgram:
    """A training by the whole program: Lightning, loggers, checkpoints.

    A call returns tokens per second. Validation and compilation are not included.
    """

    def __init__(self, name: str, size: Size, steps: int, *more: str) -> None:
        self.overrides = [
            *COMPOSITIONS[name], *sized(size), f"trainer.max_steps={steps}", "schedule.warmup_steps=2",
            "trainer.accelerator=cpu", "trainer.val_check_interval=100000",
            "trainer.limit_val_batches=1", "callbacks.sample.length=0", *more,
        ]  # fmt: skip

    def __call__(self) -> float:
        torch.compiler.reset()  # each turn compiles again
        with tempfile.TemporaryDirectory() as folder, silent():
            job = compose_job([*self.overrides, f"output_dir={folder}"])
            return float(train(job).record.tokens_per_second or 0)


@contextlib.contextmanager
def silent() -> Iterator[None]:
    """Discard what is printed to the standard output."""
    with contextlib.redirect_stdout(io.StringIO()):
        yield


def sized(size: Size) -> list[str]:
    """Overrides that give our model a size."""
    return [
        f"model.n_layers={size.n_layers}", f"model.d_model={size.d_model}",
        f"model.n_heads={size.n_heads}", f"model.block_size={size.block_size}",
        f"data.batch_size={size.batch_size}",
    ]  # fmt: skip
