"""Machine defaults, by fixed rules so that runs reproduce."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass

import torch
from omegaconf import DictConfig

from modgpt.errors import UserError
from modgpt.kernels.processor import bf16_is_faster

MOST_THREADS = 1024


@dataclass(frozen=True)
class Machine:
    """What the machine decides for a training. Each changes the sums, so a resumed run keeps them."""

    threads: int
    precision: str
    compile: bool


def machine_for(cfg: DictConfig, decided: Machine | None = None) -> Machine:
    """Threads, precision and compiling of a training: as configured, else as decided, else by rule.

    Args:
        cfg: a configuration.
        decided: what a sweep has decided for all its jobs.
    """
    accelerator = cfg.trainer.get("accelerator", "auto")
    precision = cfg.trainer.get("precision")
    if precision == "auto":
        precision = decided.precision if decided else best_precision(accelerator)
    compiled = cfg.compile
    if compiled is None:
        compiled = decided.compile if decided else best_compile(accelerator)
    threads = decided.threads if decided else cfg.threads or torch.get_num_threads()
    return Machine(threads, str(precision), compiled)


def check_machine(machine: Machine) -> None:
    """Refuse what no machine can do.

    Raises:
        UserError: compiling without a compiler, or too many threads.
    """
    if machine.compile and not has_compiler():
        raise UserError(
            "compile=true needs a C++ compiler, and there is no CXX, g++ or clang++: leave it out"
        )
    if machine.threads > MOST_THREADS:
        raise UserError(f"threads must be at most {MOST_THREADS}, got {machine.threads}")


def has_cuda(accelerator: str) -> bool:
    """Whether `trainer.accelerator` comes to a CUDA device here."""
    return accelerator in ("auto", "gpu", "cuda") and torch.cuda.is_available()


def best_precision(accelerator: str) -> str:
    """bf16-mixed where the hardware multiplies bf16 matrices faster, fp32 elsewhere.

    That is a CUDA device with bf16, a processor with AMX, or one with the bf16 instructions of AVX-512
    that Intel has not made (`bf16_is_faster`).
    `trainer.precision` overrides it.
    """
    if has_cuda(accelerator):
        return "bf16-mixed" if torch.cuda.is_bf16_supported() else "32-true"
    if accelerator in ("auto", "mps") and torch.backends.mps.is_available():
        return "32-true"
    return "bf16-mixed" if bf16_is_faster() else "32-true"


def best_compile(accelerator: str) -> bool:
    """Whether to compile the blocks: on a CUDA device, with a compiler. `compile` overrides it."""
    return has_cuda(accelerator) and has_compiler()


def has_compiler() -> bool:
    """Whether `torch.compile` finds a C++ compiler: CXX, g++ or clang++."""
    return any(shutil.which(name) for name in (os.environ.get("CXX", ""), "g++", "clang++"))


def available_cores() -> int:
    """The cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
