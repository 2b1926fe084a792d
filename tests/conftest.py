"""Fixtures: one thread, a small corpus, the overrides of a short training."""

from __future__ import annotations

import random
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from tests import compositions

# A suite that was started in the background ignores Ctrl-C, one under nohup ignores SIGHUP, and so would
# the programs that they start.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)


def pytest_report_header() -> str:
    """The seed of what is drawn, so that a failure can be repeated."""
    return f"MODGPT_TEST_SEED={compositions.SEED}"


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Small tensors are faster on one thread, and sums do not depend on how many there are."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A text of 6,000 characters that is easy to learn: sentences from a handful of words."""
    words = random.Random(0).choices(["to", "be", "or", "not", "that", "is", "the", "question"], k=2000)
    text = " ".join(words)[:5990] + "\n¿ünïcode"
    path = tmp_path_factory.mktemp("corpus") / "words.txt"
    path.write_text(text, encoding="utf-8")
    return path


@pytest.fixture
def overrides(corpus: Path, tmp_path: Path) -> Callable[..., list[str]]:
    """Overrides for a training of seconds in a folder of its own; arguments are added behind."""

    def of(*more: str) -> list[str]:
        return [
            "data=text",
            f"data.path={corpus}",
            "data.batch_size=8",
            f"output_dir={tmp_path / 'runs'}",
            "model.d_model=32",
            "model.n_layers=2",
            "model.n_heads=2",
            "model.block_size=16",
            "optimizer.lr=1e-2",
            "schedule.warmup_steps=3",
            "trainer.max_steps=30",
            "trainer.val_check_interval=15",
            "trainer.accelerator=cpu",
            "trainer.precision=32-true",  # the same sums on every processor
            "threads=1",
            *more,
        ]

    return of
