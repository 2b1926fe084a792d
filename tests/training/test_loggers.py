"""What was logged before a resume is kept, what was logged past it is dropped."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.summary.writer import event_file_writer

from modgpt.training.loggers import RunCSVLogger, RunTensorBoardLogger


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_csv_goes_on_where_the_run_is_resumed(tmp_path: Path) -> None:
    first = RunCSVLogger(save_dir=str(tmp_path))
    for step in (10, 20, 30):
        first.log_metrics({"loss": 1.0 / step}, step)
    assert [r["step"] for r in rows(tmp_path)] == ["10", "20", "30"], "each row at once"
    second = RunCSVLogger(save_dir=str(tmp_path), resume_step=20)
    assert [r["step"] for r in rows(tmp_path)] == ["10", "20"]
    second.log_metrics({"loss": 0.5, "new": 7.0}, 30)
    second.finalize("success")
    assert [(r["step"], r["loss"], r["new"]) for r in rows(tmp_path)] == [
        ("10", "0.1", ""),
        ("20", "0.05", ""),
        ("30", "0.5", "7.0"),
    ]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["metrics.csv"], "no hparams.yaml"


def test_tensorboard_hides_what_was_logged_past_the_resume(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Files of one second and one process are read in the order of this counter, as text: 10 before 9.
    monkeypatch.setattr(event_file_writer, "_global_uid", event_file_writer.AtomicCounter(0))
    first = RunTensorBoardLogger(save_dir=str(tmp_path))
    for step in (10, 20, 30):
        first.log_metrics({"loss": float(step)}, step)
    first.finalize("failed")
    second = RunTensorBoardLogger(save_dir=str(tmp_path), resume_step=20)
    second.log_metrics({"loss": -30.0}, 30)
    second.finalize("success")
    events = EventAccumulator(str(tmp_path)).Reload().Scalars("loss")
    assert [(e.step, e.value) for e in events] == [(10, 10.0), (20, 20.0), (30, -30.0)]
