"""A piece of the list: what it is given, and what it returns."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

import torch

Row = dict[str, Any]
Outcome = Literal["passed", "failed", "measured", "needs CUDA", "broke", "over its time"]


@dataclass(frozen=True)
class Device:
    """Where a piece runs.

    Attributes:
        name: `cuda` or `cpu`.
        large: sizes and budgets of a GPU; else those of the miniature.
    """

    name: str
    large: bool

    @classmethod
    def here(cls) -> Device:
        """The GPU where there is one, else the CPU in miniature."""
        cuda = torch.cuda.is_available()
        return cls("cuda" if cuda else "cpu", large=cuda)

    @property
    def is_cuda(self) -> bool:
        return self.name == "cuda"

    @property
    def accelerator(self) -> str:
        """The overrides of a training on this device."""
        return f"trainer.accelerator={'gpu' if self.is_cuda else 'cpu'}"

    def wait(self) -> None:
        """Wait until everything has been computed."""
        if self.is_cuda:
            torch.cuda.synchronize()


@dataclass(frozen=True)
class Result:
    """What a piece found.

    Attributes:
        outcome: passed or failed for a check, measured for a measurement without a limit.
        rows: of its table.
        note: one sentence.
    """

    outcome: Outcome
    rows: list[Row] = field(default_factory=list)
    note: str = ""

    @classmethod
    def of_checks(cls, rows: list[Row], note: str = "") -> Result:
        """Passed if every row did."""
        return cls("passed" if all(row["passed"] for row in rows) else "failed", rows, note)


Piece = Callable[[Device], Result]
