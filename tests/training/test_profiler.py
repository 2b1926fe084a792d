"""callbacks=profiler: what it writes, and that a run without it is the same run."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from modgpt.config.compose import compose_job
from modgpt.training.callbacks.profiler import Profiler
from modgpt.training.loop import train

Overrides = Callable[..., list[str]]


def test_it_writes_a_trace_and_a_table(overrides: Overrides) -> None:
    profiler = ("callbacks=profiler", "callbacks.profiler.first=3", "callbacks.profiler.steps=2")
    profiled = train(compose_job(overrides(*profiler, "trainer.max_steps=8", "run_name=a")))
    trace = json.loads((profiled.folder / "trace.json").read_text())
    names = [event.get("name") for event in trace["traceEvents"]]
    assert names.count("Optimizer.step#AdamW.step") == 2, "two steps, no more"
    table = (profiled.folder / "operators.txt").read_text()
    assert "aten::" in table and "Self CPU" in table
    plain = train(compose_job(overrides("trainer.max_steps=8", "run_name=b")))
    assert plain.record.final_val_loss == profiled.record.final_val_loss
    assert not (plain.folder / "trace.json").exists()


def test_a_run_that_ends_early_keeps_what_was_seen(overrides: Overrides) -> None:
    profiler = ("callbacks=profiler", "callbacks.profiler.first=3", "trainer.max_steps=5")
    run = train(compose_job(overrides(*profiler)))
    assert (run.folder / "operators.txt").exists()


def test_it_refuses_numbers_that_cannot_be() -> None:
    with pytest.raises(ValueError, match="steps >= 1"):
        Profiler(steps=0)
