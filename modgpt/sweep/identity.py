"""What makes two jobs the same job."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from omegaconf import DictConfig, OmegaConf

from modgpt.config.compose import label
from modgpt.config.keys import KEYS, LATER, NOT_IDENTITY, WATCHING
from modgpt.config.seeds import seed_in_name


def job_hash(config: DictConfig, corpus_sha256: str) -> str:
    """Eight hexadecimal digits of everything that decides what a training computes.

    Args:
        config: composed; interpolations are resolved.
        corpus_sha256: digest of the text.
    """
    content: Any = OmegaConf.to_container(config, resolve=True)
    changing = [n for n in content["callbacks"].values() if n and n.get("_target_") not in WATCHING]
    for key, about in KEYS.items():
        if not about.identity:
            content.pop(key, None)
    for key, without in LATER.items():
        if content.get(key) == without:
            content.pop(key, None)
    for key in NOT_IDENTITY:
        group, _, leaf = key.partition(".")
        content[group].pop(leaf, None)
    if changing:
        content["callbacks"] = changing
    text = json.dumps([content, corpus_sha256], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def job_name(choices: dict[str, str], config: DictConfig, corpus_sha256: str) -> str:
    """The name of a job's folder: `<label of the choices>-s<seed>-<hash8>`."""
    return f"{label(choices)}-{seed_in_name(config)}-{job_hash(config, corpus_sha256)}"
