"""Speed of training on the device: beside nanoGPT's loop, by how a step is run, and where it waits."""

from __future__ import annotations

import json
import tempfile
import time
from functools import partial
from typing import Any

import torch

from benchmarks.gpu.piece import Device, Result, Row
from benchmarks.peers import SIZES, Loop, PlainGPT, Size
from benchmarks.rounds import Turn, alternate
from benchmarks.training import COMPOSITIONS, silent, sized
from modgpt.config.build import build_model
from modgpt.config.compose import compose, compose_job
from modgpt.model.gpt import GPT
from modgpt.testing.build import options_of
from modgpt.training.loop import train

# 4 layers of 128, 6 of 256, and the one of nanoGPT's recipe for a GPU.
SIZES_ON_GPU = SIZES | {"nanogpt": Size(6, 384, 6, 256, 64)}
TINY = Size(n_layers=2, d_model=32, n_heads=2, block_size=16, batch_size=2)
# What makes the host wait for the device, in a trace of the profiler.
WAITING = ("cudaStreamSynchronize", "cudaDeviceSynchronize", "cudaEventSynchronize")


def recipe(name: str, device: Device) -> Result:
    """The whole program and nanoGPT's loop (compiled, fused attention, fused AdamW, bf16), by turns."""
    if not device.large and name != "mini":
        return Result(
            "needs CUDA", note="in miniature all sizes are one, which the default recipe measures"
        )
    rounds, steps = (3, 200) if device.large else (1, 3)
    size = SIZES_ON_GPU[name] if device.large else TINY
    peak = product_flops(device)
    contestants, flops = {}, {}
    for parts in COMPOSITIONS:
        contestants[parts] = partial(program_turn, parts, size, steps, device)
        flops[parts] = model_of(parts, size).cost(size.block_size).flops
    contestants["nanoGPT's loop"] = partial(plain_turn, size, steps, device)
    flops["nanoGPT's loop"] = flops["GPT-2"]
    rows: list[Row] = []
    for row in alternate(contestants, rounds, "nanoGPT's loop"):
        share = 3 * flops[row["contestant"]] * row["per second"] / peak
        rows.append({"size": name} | row | {"share of a product's speed": share})
    note = (
        f"One large bf16 product runs at {peak / 1e12:.1f} TFLOP/s; a training step counts 3 × forward."
    )
    return Result("measured", rows, note)


def product_flops(device: Device) -> float:
    """FLOP/s of one large product in bf16: what the share of the peak is measured against."""
    n = 8192 if device.large else 256
    a, b = (torch.randn(n, n, device=device.name, dtype=torch.bfloat16) for _ in range(2))
    speeds = []
    for _ in range(5):
        seconds = timed(lambda: a @ b, device, 20)
        speeds.append(20 * 2 * n**3 / seconds)
    return max(speeds)


def timed(call: Any, device: Device, times: int) -> float:
    """Seconds of some calls."""
    call()
    device.wait()
    start = time.perf_counter()
    for _ in range(times):
        call()
    device.wait()
    return time.perf_counter() - start


def model_of(parts: str, size: Size) -> GPT:
    return build_model(compose([*COMPOSITIONS[parts], *sized(size)]), size.vocab_size)


def plain_turn(size: Size, steps: int, device: Device) -> Turn:
    model: Any = PlainGPT(size).to(device.name)
    model = torch.compile(model) if device.large else model
    return partial(Loop(model, size, bf16=True, device=device.name).tokens_per_second, steps)


def program_turn(parts: str, size: Size, steps: int, device: Device, *more: str) -> Turn:
    return partial(program, parts, size, steps, device, *more)


def program(parts: str, size: Size, steps: int, device: Device, *more: str) -> float:
    """Tokens per second of a training by the whole program, without validation and compiling."""
    overrides = [
        *COMPOSITIONS[parts], *sized(size), f"trainer.max_steps={steps}", "schedule.warmup_steps=2",
        device.accelerator, "trainer.val_check_interval=100000", "trainer.limit_val_batches=1",
        "callbacks.sample.length=0", "trainer.precision=bf16-mixed", *more,
    ]  # fmt: skip
    torch.compiler.reset()  # each turn compiles again
    with tempfile.TemporaryDirectory() as folder, silent():
        outcome = train(compose_job([*overrides, f"output_dir={folder}"]))
        return float(outcome.record.tokens_per_second or 0)


def steps_in_one_go(device: Device) -> Result:
    """How a step is launched, at sizes where launching is most of it: eager, compiled, CUDA graphs."""
    rounds, steps = (5, 300) if device.large else (1, 3)
    size = SIZES["mini"] if device.large else TINY
    modes = ["eager", "compiled", "reduce-overhead"] if device.is_cuda else ["eager"]
    turns = {mode: partial(launched, mode, size, steps, device) for mode in modes}
    return Result("measured", alternate(turns, rounds, "eager"))


def launched(mode: str, size: Size, steps: int, device: Device) -> Turn:
    model = model_of("Llama", size).to(device.name)
    if mode != "eager":
        model.compile_blocks(**({} if mode == "compiled" else {"mode": mode}))
    return partial(Loop(model, size, bf16=True, device=device.name).tokens_per_second, steps)


def flex_by_length(device: Device) -> Result:
    """From which length on FlexAttention is faster than the gathered keys."""
    if not device.is_cuda:
        return Result("needs CUDA", note="FlexAttention has no gradients on a CPU")
    rows = []
    for option, make in options_of("attention").items():
        if "kernel" not in getattr(make, "keywords", {}):
            continue
        for length in (256, 1024, 4096):
            size = Size(2, 256, 4, length, 16384 // length)
            turns = {k: partial(kernel_turn, option, k, size, device) for k in ("gathered", "flex")}
            ratio = {row["contestant"]: row["ratio"] for row in alternate(turns, 3, "gathered")}
            rows.append({"attention": option, "T": length, "flex / gathered": ratio["flex"]})
    return Result("measured", rows)


def kernel_turn(option: str, kernel: str, size: Size, device: Device) -> Turn:
    choices = [f"attention={option}", f"attention.kernel={kernel}"]
    model = build_model(compose([*choices, *sized(size)]), size.vocab_size).to(device.name)
    model.compile_blocks()
    return partial(Loop(model, size, bf16=True, device=device.name).tokens_per_second, 20)


def waiting(device: Device) -> Result:
    """Whether the host waits for the device between steps that are not logged."""
    steps = 10
    with tempfile.TemporaryDirectory() as folder, silent():
        size = SIZES["mini"] if device.large else TINY
        job = compose_job([
            *sized(size), f"output_dir={folder}", device.accelerator, "trainer.max_steps=40",
            "schedule.warmup_steps=2", "trainer.log_every_n_steps=1000", "callbacks=profiler",
            "callbacks.last.every_n_train_steps=1000", "callbacks.sample=null",
            f"callbacks.profiler.steps={steps}",
        ])  # fmt: skip
        trace = json.loads((train(job).folder / "trace.json").read_text())
    names = [event.get("name", "") for event in trace["traceEvents"]]
    rows = [
        {"operation": name, "per step": names.count(name) / steps, "passed": names.count(name) < steps}
        for name in WAITING
    ]
    return Result.of_checks(rows, "Ten steps without a log. The profiler itself waits once, at its end.")


def batches(device: Device) -> Result:
    """What handing batches to the device costs: the loader's pinned copies beside batches kept there."""
    rounds, steps = (5, 300) if device.large else (1, 3)
    size = SIZES["mini"] if device.large else TINY
    turns = {
        "whole program": partial(program_turn, "Llama", size, steps, device),
        "bare loop, batches on the device": partial(launched, "eager", size, steps, device),
    }
    return Result("measured", alternate(turns, rounds, "whole program"))
