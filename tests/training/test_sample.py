"""The sample of text that a run keeps."""

from __future__ import annotations

from collections.abc import Callable

from modgpt.config.compose import compose_job
from modgpt.training.loop import train


def test_a_run_keeps_the_text_of_its_last_validation(overrides: Callable[..., list[str]]) -> None:
    """Also where no logger writes it."""
    folder = train(compose_job(overrides("logger=csv", "callbacks.sample.length=40"))).folder
    assert len((folder / "sample.txt").read_text(encoding="utf-8")) >= 40


def test_without_the_callback_there_is_no_sample(overrides: Callable[..., list[str]]) -> None:
    folder = train(compose_job(overrides("callbacks.sample=null"))).folder
    assert not (folder / "sample.txt").exists()
