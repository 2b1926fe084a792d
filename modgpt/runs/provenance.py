"""Where a run comes from: the time, the code and the machine."""

from __future__ import annotations

import platform
import resource
import subprocess
import sys
from datetime import datetime
from importlib.metadata import version
from pathlib import Path

import torch

import modgpt

PACKAGES = ("modgpt", "torch", "lightning", "hydra-core", "omegaconf", "torchmetrics")


def versions() -> dict[str, str]:
    """The versions of Python and of the packages that a training depends on."""
    return {"python": platform.python_version()} | {p: version(p) for p in PACKAGES}


def now() -> str:
    """Local time with its offset, to the microsecond, so that records sort."""
    return datetime.now().astimezone().isoformat()


def git_revision() -> str | None:
    """Commit of the code that runs, `-dirty` where files differ from it; None outside a checkout."""
    checkout = Path(modgpt.__file__).parents[1]
    if not (checkout / ".git").exists():
        return None  # an installed package, perhaps below somebody else's checkout
    command = ["git", "-C", str(checkout), "describe", "--always", "--dirty", "--abbrev=40"]
    command += ["--exclude=*"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def peak_memory(device: torch.device) -> int:
    """Most bytes held at once: by tensors on a CUDA device, else by the whole process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # Linux counts in KiB


def device_name(device: torch.device) -> str:
    """`cuda: NVIDIA …`, `mps`, or `cpu: …` with the processor's architecture."""
    if device.type == "cuda":
        return f"cuda: {torch.cuda.get_device_name(device)}"
    return f"{device.type}: {platform.machine()}"
