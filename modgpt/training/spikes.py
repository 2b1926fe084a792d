"""Steps with an exceptional gradient are skipped, up to a limit."""

from __future__ import annotations

from collections import deque
from statistics import median
from typing import Any

import torch

from modgpt.errors import TrainingError

ENTRY = "spikes"  # of a checkpoint
REMEMBERED = 100  # norms that the median is taken over
ENOUGH = 20  # norms before the first judgement


class TooManySpikes(TrainingError):
    """More steps than `max_skipped_steps` would be skipped."""


class SpikeGuard:
    """Judges every step by its gradient norm, before clipping.

    A step is a spike if its norm is above `factor` times the median norm of the last 100 steps that were
    not, or is no finite number. The first 20 steps are not judged. (PaLM, Chowdhery et al. 2022, section
    5.1, skips the batches around a spike of the loss by hand.)

    Args:
        factor: `skip_spikes`.
        at_most: `max_skipped_steps`.

    Attributes:
        skipped: steps so far, over all starts of the run.
        now: whether the latest step is skipped.
    """

    def __init__(self, factor: float, at_most: int) -> None:
        self.factor, self.at_most = factor, at_most
        self.norms: deque[float] = deque(maxlen=REMEMBERED)
        self.skipped, self.now = 0, False

    def judge(self, norm: float, step: int) -> bool:
        """Whether to skip a step of this gradient norm.

        Args:
            norm: of all gradients together.
            step: its number, for the message.

        Raises:
            TooManySpikes: it would be one more than `at_most`.
        """
        usual = median(self.norms) if len(self.norms) >= ENOUGH else None
        self.now = usual is not None and not norm <= self.factor * usual  # also NaN
        if not self.now:
            self.norms.append(norm)
            return False
        if self.skipped == self.at_most:
            raise TooManySpikes(
                f"step {step}: the gradient norm {norm:.4g} is above skip_spikes={self.factor:g} times "
                f"its running median {usual:.4g}, and max_skipped_steps={self.at_most} steps have been "
                "skipped: try a lower optimizer.lr, a longer schedule.warmup or a larger "
                "max_skipped_steps"
            )
        self.skipped += 1
        return True

    def save(self, checkpoint: dict[str, Any]) -> None:
        """Put the norms and the count into a checkpoint."""
        norms = torch.tensor(list(self.norms), dtype=torch.float64)
        checkpoint[ENTRY] = {"norms": norms, "skipped": self.skipped}

    def load(self, checkpoint: dict[str, Any]) -> None:
        """Take them from a checkpoint; one of a run without a guard has none.

        Raises:
            ValueError: they are damaged.
        """
        saved = checkpoint.get(ENTRY)
        if saved is None:
            return
        norms, skipped = saved["norms"].tolist(), saved["skipped"]
        if not isinstance(skipped, int) or skipped < 0:
            raise ValueError(f"the number of skipped steps is damaged: {skipped!r}")
        self.norms, self.skipped = deque(map(float, norms), maxlen=REMEMBERED), skipped
