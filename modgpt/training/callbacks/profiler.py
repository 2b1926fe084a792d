"""A profile of some training steps: which operations take the time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Callback
from torch.profiler import ProfilerActivity, profile


class Profiler(Callback):
    """Records some batches with `torch.profiler`, and writes the profile into the run's folder.

    `trace.json` shows every operation on a time line (chrome://tracing, or ui.perfetto.dev).
    `operators.txt` lists the operations that took most time of their own. Recorded batches are slower
    than others.

    Args:
        first: warm-up batches: the first ones after a start take longer than the others.
        steps: batches to record.
        rows: of the table.
        folder: where to write; None for the run's folder.

    Raises:
        ValueError: first is negative, or steps or rows < 1.
    """

    def __init__(
        self, first: int = 20, steps: int = 10, rows: int = 30, folder: str | None = None
    ) -> None:
        if first < 0 or steps < 1 or rows < 1:
            raise ValueError(
                f"callbacks.profiler needs first >= 0, steps >= 1 and rows >= 1, got {first}, {steps}, "
                f"{rows}"
            )
        self.first, self.steps, self.rows, self.folder = first, steps, rows, folder
        self.seen = 0
        self.running: profile | None = None

    def on_train_batch_start(self, trainer: L.Trainer, *_: Any) -> None:
        if self.seen == self.first and trainer.is_global_zero:
            activities = [ProfilerActivity.CPU]
            if trainer.strategy.root_device.type == "cuda":
                activities.append(ProfilerActivity.CUDA)
            self.running = profile(activities=activities)
            self.running.start()
        self.seen += 1

    def on_train_batch_end(self, trainer: L.Trainer, *_: Any) -> None:
        if self.seen == self.first + self.steps:
            self.close()

    def on_train_end(self, *_: Any) -> None:
        self.close()

    def on_exception(self, *_: Any) -> None:
        self.close()

    def close(self) -> None:
        """Write what has been recorded."""
        if self.running is None:
            return
        recorded, self.running = self.running, None
        recorded.stop()
        folder = Path(str(self.folder))
        recorded.export_chrome_trace(str(folder / "trace.json"))
        averages = recorded.key_averages()
        on_cuda = any(event.self_device_time_total for event in averages)
        order = "self_cuda_time_total" if on_cuda else "self_cpu_time_total"
        table = averages.table(sort_by=order, row_limit=self.rows, max_name_column_width=45)
        (folder / "operators.txt").write_text(table, encoding="utf-8")
