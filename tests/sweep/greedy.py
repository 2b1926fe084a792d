"""A job that runs out of memory whenever it does not have its device for itself."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.callbacks import Callback


class Greedy(Callback):
    """Raises what CUDA raises when other jobs of the sweep are running, or always.

    Args:
        sweep: the sweep's folder; None to be alone and still run out.
    """

    def __init__(self, sweep: str | None) -> None:
        self.sweep = sweep

    def on_train_start(self, *_: Any) -> None:
        if self.sweep is None:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        deadline = time.monotonic() + 3
        while time.monotonic() < deadline:  # others may be a moment behind
            if len(list(Path(self.sweep).glob("*/lease.json"))) > 1:
                raise torch.OutOfMemoryError("CUDA out of memory.")
            time.sleep(0.05)
