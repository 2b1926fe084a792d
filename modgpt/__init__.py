"""modgpt: a Lightning + Hydra experiment suite for transformer components.

In a notebook::

    cfg = modgpt.compose(["attention=linear", "ffn=moe"])
    model = modgpt.build_model(cfg, vocab_size=65)
    run = modgpt.load_run("outputs/runs/NAME")
    text = modgpt.generate(run.model, run.tokenizer, "ROMEO:")
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from modgpt.config.build import build_model
    from modgpt.config.compose import compose
    from modgpt.inference.generation import generate
    from modgpt.runs.folder import Run, load_run

__all__ = ["Run", "build_model", "compose", "generate", "load_run"]

_HOMES = {
    "compose": "modgpt.config.compose",
    "build_model": "modgpt.config.build",
    "load_run": "modgpt.runs.folder",
    "Run": "modgpt.runs.folder",
    "generate": "modgpt.inference.generation",
}


def __getattr__(name: str) -> Any:
    # On demand: composing a configuration, or refusing one, must not wait for torch to be imported.
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'modgpt' has no attribute {name!r}")
