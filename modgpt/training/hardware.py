"""What suits a machine, by fixed rules: what a measurement decides may differ from run to run."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import torch


def has_cuda(accelerator: str) -> bool:
    """Whether `trainer.accelerator` comes to a CUDA device here."""
    return accelerator in ("auto", "gpu", "cuda") and torch.cuda.is_available()


def best_precision(accelerator: str) -> str:
    """bf16-mixed where the hardware multiplies bf16 matrices, fp32 elsewhere.

    That is a CUDA device with bf16, or a processor with AMX. `trainer.precision` overrides it.
    """
    if has_cuda(accelerator):
        return "bf16-mixed" if torch.cuda.is_bf16_supported() else "32-true"
    if accelerator in ("auto", "mps") and torch.backends.mps.is_available():
        return "32-true"
    return "bf16-mixed" if has_amx() else "32-true"


def best_compile(accelerator: str) -> bool:
    """Whether to compile the blocks: on a CUDA device, with a compiler. `compile` overrides it."""
    return has_cuda(accelerator) and has_compiler()


def has_compiler() -> bool:
    """Whether there is what `torch.compile` translates its C++ with: CXX, g++ or clang++."""
    return any(shutil.which(name) for name in (os.environ.get("CXX", ""), "g++", "clang++"))


def has_amx() -> bool:
    """Whether the processor multiplies tiles of bf16 (Intel's AMX); Linux tells."""
    try:
        return "amx_bf16" in Path("/proc/cpuinfo").read_text()
    except OSError:
        return False
