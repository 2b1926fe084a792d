"""The estimate of a sweep's time: measured as its jobs will run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from modgpt.errors import UserError
from modgpt.sweep.plan import plan, seconds_per_flop
from modgpt.training.hardware import Machine
from modgpt.training.lit_module import LitGPT

Overrides = Callable[..., list[str]]


@pytest.mark.parametrize(("precision", "mixed"), [("32-true", False), ("bf16-mixed", True)])
def test_it_is_measured_in_the_precision_of_the_jobs(
    precision: str, mixed: bool, overrides: Overrides, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen, step = [], LitGPT.training_step

    def watched(*arguments: Any) -> Any:
        seen.append(torch.is_autocast_enabled("cpu"))
        return step(*arguments)

    monkeypatch.setattr(LitGPT, "training_step", watched)
    job = overrides(f"trainer.precision={precision}", "trainer.accelerator=cpu", "match=none")
    (entry,) = plan([job], tmp_path)
    measured = seconds_per_flop(entry, Machine(1, "32-true", False))
    assert measured is not None and measured > 0
    assert seen == [mixed] * 3


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_there_is_none_for_a_device_that_is_elsewhere(overrides: Overrides, tmp_path: Path) -> None:
    (entry,) = plan([overrides("trainer.accelerator=gpu", "match=none")], tmp_path)
    assert seconds_per_flop(entry, Machine(1, "32-true", False)) is None


@pytest.mark.parametrize(
    ("key", "values"),
    [("threads", ("1", "2")), ("compile", ("true", "false"))],
    ids=["threads", "compile"],
)
def test_what_all_jobs_have_in_common_is_not_swept(
    key: str, values: tuple[str, str], overrides: Overrides, tmp_path: Path
) -> None:
    """They would be one job, and the second value would be ignored."""
    base = [override for override in overrides() if not override.startswith("threads=")]
    jobs = [[*base, f"{key}={value}", "match=none"] for value in values]
    with pytest.raises(UserError, match=f"are the same job: all jobs of a sweep have the same {key}"):
        plan(jobs, tmp_path)
    assert len(plan([jobs[0], jobs[0]], tmp_path)) == 2, "the same job twice is no mistake"
