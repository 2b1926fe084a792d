"""The progress bar knows the time left, also where a step takes minutes."""

from __future__ import annotations

import io
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from rich.console import Console

from modgpt.training.callbacks import progress
from modgpt.training.callbacks.progress import ProgressBar


@pytest.mark.parametrize("seconds", [0.02, 4.0, 40.0, 300.0])
def test_the_time_left_is_known_after_a_few_steps(
    seconds: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [0.0]
    console = Console(
        file=io.StringIO(), force_terminal=True, width=120, get_time=lambda: clock[0], _environ={}
    )
    monkeypatch.setattr(progress, "Output", lambda: console)
    trainer: Any = SimpleNamespace(
        is_global_zero=True, max_steps=100, global_step=0, log_every_n_steps=50
    )
    module: Any = SimpleNamespace(
        stepped=lambda: True,
        logs_now=lambda: trainer.global_step % 50 == 0,
        latest={"train/loss": torch.tensor(1.0)},
    )
    bar = ProgressBar()
    bar.on_train_start(trainer, module)
    try:
        for step in range(1, 11):
            clock[0] += seconds
            trainer.global_step = step
            bar.on_train_batch_end(trainer, module)
        assert bar.bar is not None
        left = bar.bar.tasks[0].time_remaining
        assert left is not None and left == pytest.approx(90 * seconds, abs=1)
    finally:
        bar.close()
