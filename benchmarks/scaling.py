"""Time and memory of a training step by sequence length, and with a mixture of experts."""

from __future__ import annotations

import multiprocessing
import resource
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from functools import partial

from benchmarks.peers import SIZES, Loop, Size
from benchmarks.rounds import Row, Turn, alternate
from benchmarks.training import sized
from modgpt.config.build import build_model
from modgpt.config.compose import compose
from modgpt.testing.build import class_of, options_of
from modgpt.training.hardware import best_precision

LENGTHS = (256, 2048, 8192)


def length(rounds: int) -> list[Row]:
    """Training tokens per second and peak memory by sequence length, with 8,192 tokens per step.

    Args:
        rounds: turns of each length, one step each. Memory is measured in another process.
    """
    rows = []
    for attention, make in options_of("attention").items():
        if not isinstance(class_of(make), type):  # a pattern of other options
            continue
        loops = {n: partial(loop_of, [f"attention={attention}"], long(n)) for n in LENGTHS}
        turns = {str(n): partial(turns_of, make, 1) for n, make in loops.items()}
        timed = {row["contestant"]: row for row in alternate(turns, rounds, str(LENGTHS[0]))}
        memory = {n: peak_mebibytes(make) for n, make in loops.items()}
        rows += [
            {
                "attention": attention,
                "T": n,
                "per second": timed[str(n)]["per second"],
                "time / T=256": 1 / timed[str(n)]["ratio"],
                "peak MiB": memory[n],
                "memory / T=256": memory[n] / memory[LENGTHS[0]],
            }
            for n in LENGTHS
        ]
    return rows


def long(n: int) -> Size:
    return replace(SIZES["mini"], block_size=n, batch_size=LENGTHS[-1] // n)


def peak_mebibytes(make: Callable[[], Loop]) -> float:
    """The growth of a process's peak memory during two steps."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        return pool.submit(grown, make).result()


def grown(make: Callable[[], Loop]) -> float:
    loop = make()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    loop.step()
    loop.step()
    return (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024


def experts(size_name: str, rounds: int, steps: int) -> list[Row]:
    """Training tokens per second of a mixture of experts and of dense layers with its active size."""
    size = SIZES[size_name]
    loops = {ffn: partial(loop_of, [f"ffn={ffn}"], size) for ffn in ("standard", "swiglu", "moe")}
    turns = {f"ffn={ffn}": partial(turns_of, make, steps) for ffn, make in loops.items()}
    return alternate(turns, rounds, "ffn=moe")


def turns_of(make: Callable[[], Loop], steps: int) -> Turn:
    return partial(make().tokens_per_second, steps)


def loop_of(overrides: list[str], size: Size) -> Loop:
    model = build_model(compose([*overrides, *sized(size)]), size.vocab_size)
    return Loop(model, size, best_precision("cpu") == "bf16-mixed")
