"""What a record says when a run begins: the job, the code and the machine."""

from __future__ import annotations

import platform
import resource
import subprocess
import sys
from dataclasses import replace
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import torch

import modgpt
from modgpt.config.keys import command_keys
from modgpt.config.overrides import parse_one
from modgpt.runs.record import RunRecord

if TYPE_CHECKING:
    from modgpt.training.prepare import Prepared
    from modgpt.training.resume import Resumed

# What a resumed run goes on with.
KEPT = (
    *("final_val_loss", "final_val_accuracy", "final_step", "best_val_loss", "best_step"),
    *("tokens_seen", "wall_seconds", "started_at"),
)
MATCHED = ("match", "matched_hidden", "match_reference")
PACKAGES = ("modgpt", "torch", "lightning", "hydra-core", "omegaconf", "torchmetrics")


def first_record(prepared: Prepared, resumed: Resumed | None) -> RunRecord:
    """The record of a run that begins or goes on, all that is known before the first step."""
    job, cfg, cost, matched = prepared.job, prepared.config, prepared.cost, prepared.matched
    kept = [o for o in job.overrides if parse_one(o).key_or_group not in command_keys()]
    begun = RunRecord(
        status="running",
        choices=job.choices,
        overrides=kept,
        seed=cfg.seed,
        init_from=cfg.init_from,
        parameters=cost.parameters,
        active_parameters=cost.active_parameters,
        match=matched.quantity if matched else "none",
        matched_hidden=matched.hidden if matched else None,
        match_reference=matched.reference if matched else None,
        flops_per_token=cost.flops,
        threads=cfg.threads,
        precision=str(cfg.trainer.precision),
        compiled=cfg.compile,
        vocab_size=cfg.model.vocab_size,
        corpus_sha256=prepared.data.digest,
        tokens_per_character=prepared.data.tokens_per_character,
        started_at=now(),
        versions={"python": platform.python_version()} | {p: version(p) for p in PACKAGES},
        git_revision=git_revision(),
    )
    if resumed is None:
        return begun
    earlier = {name: getattr(resumed.record, name) for name in KEPT}
    if resumed.record.match != "none":  # the width is in the saved configuration since
        earlier |= {name: getattr(resumed.record, name) for name in MATCHED}
    steps = [*resumed.record.resumed_at_steps, resumed.step]
    return replace(begun, **earlier, resumed_at_steps=steps)


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
