"""What a record says of a run and of the machine it ran on."""

from __future__ import annotations

import platform
import resource
import subprocess
import sys
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from omegaconf import DictConfig

import modgpt
from modgpt.config.compose import RUN_KEYS, Job, parse
from modgpt.model.cost import cost_of

if TYPE_CHECKING:
    from modgpt.config.match import Matched
    from modgpt.data.base import DataModule
    from modgpt.model.gpt import GPT
    from modgpt.training.resume import Resumed

PACKAGES = ("modgpt", "torch", "lightning", "hydra-core", "omegaconf", "torchmetrics")


def first_record(
    job: Job,
    cfg: DictConfig,
    model: GPT,
    data: DataModule,
    resumed: Resumed | None,
    matched: Matched | None,
) -> dict[str, Any]:
    """The record of a run that begins or goes on, all that is known before the first step."""
    cost = cost_of(model, cfg.model.block_size)
    earlier = resumed.result if resumed else {}
    return {
        "status": "running",
        "choices": job.choices,
        "overrides": [o for o in job.overrides if parse([o])[0].key_or_group not in RUN_KEYS],
        "seed": cfg.seed,
        "init_from": cfg.init_from,
        "final_val_loss": earlier.get("final_val_loss"),
        "final_val_accuracy": earlier.get("final_val_accuracy"),  # of data with answers
        "final_step": earlier.get("final_step"),
        "best_val_loss": earlier.get("best_val_loss"),
        "best_step": earlier.get("best_step"),
        "parameters": cost.parameters,
        "active_parameters": cost.active_parameters,
        "match": matched.quantity if matched else "none",
        "matched_hidden": matched.hidden if matched else None,  # ffn.hidden that makes it fair
        "match_reference": matched.reference if matched else None,  # the default parts' quantity
        "flops_per_token": cost.flops,  # forward, at length block_size; training takes three times it
        "tokens_seen": earlier.get("tokens_seen", 0),
        "tokens_per_second": None,
        "wall_seconds": earlier.get("wall_seconds", 0.0),
        "peak_memory_bytes": None,
        "device": None,
        "threads": cfg.threads,
        "precision": str(cfg.trainer.precision),
        "compiled": cfg.compile,
        "attention_backend": None,
        "vocab_size": cfg.model.vocab_size,
        "corpus_sha256": data.digest,
        "tokens_per_character": data.tokens_per_character,
        "started_at": earlier.get("started_at", now()),
        "resumed_at_steps": [
            *earlier.get("resumed_at_steps", []),
            *([resumed.step] if resumed else []),
        ],
        "finished_at": None,
        "reason": None,
        "versions": {"python": platform.python_version()} | {p: version(p) for p in PACKAGES},
        "git_revision": git_revision(),
    }


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
