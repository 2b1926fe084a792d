"""What makes two jobs the same job."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from omegaconf import DictConfig, OmegaConf

from modgpt.config.compose import label

# Keys that name, place, watch or launch a run, and leave its weights and losses as they are.
WITHOUT = {
    "": ("run_name", "resume", "output_dir", "threads", "compile", "sweep_dir", "sweep_name",
         "job_folder", "dry_run", "retry_failed", "callbacks", "logger",
         "match"),  # the width it leads to stands for it
    "data": ("path", "data_dir"),  # the digest of the corpus stands for them
    "trainer": ("accelerator", "devices", "enable_progress_bar", "enable_model_summary",
                "log_every_n_steps", "num_sanity_val_steps"),
}  # fmt: skip


def job_hash(config: DictConfig, corpus_sha256: str) -> str:
    """Eight hexadecimal digits of everything that decides what a training computes.

    Args:
        config: composed; interpolations are resolved.
        corpus_sha256: digest of the text.
    """
    content: Any = OmegaConf.to_container(config, resolve=True)
    for node, keys in WITHOUT.items():
        for key in keys:
            (content[node] if node else content).pop(key, None)
    text = json.dumps([content, corpus_sha256], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def job_name(choices: dict[str, str], config: DictConfig, corpus_sha256: str) -> str:
    """The name of a job's folder: `<label of the choices>-s<seed>-<hash8>`."""
    return f"{label(choices)}-s{config.seed}-{job_hash(config, corpus_sha256)}"
