"""modgpt find-lr: the rates it tries, what it suggests, and that it leaves no run."""

from __future__ import annotations

import csv
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from modgpt.commands.find_lr import main
from modgpt.compare.folders import read_runs
from modgpt.compare.run_row import read_run_row
from modgpt.errors import UserError
from modgpt.runs.saved import job_of
from modgpt.training.rate_range import RateRange, measure_rates
from tests.training.test_loop import losses, run

Overrides = Callable[..., list[str]]


def without_output(arguments: list[str]) -> list[str]:
    return [o for o in arguments if not o.startswith("output_dir")]


def test_what_it_writes_and_prints(
    overrides: Overrides,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    out = tmp_path / "found"
    assert main([*without_output(overrides()), "--steps", "60", "--out", str(out)]) == 0
    printed = capsys.readouterr()
    assert printed.err == ""
    assert sorted(p.name for p in tmp_path.rglob("*") if p.is_file()) == ["find_lr.csv", "find_lr.png"]
    assert (out / "find_lr.png").read_bytes().startswith(b"\x89PNG")
    with (out / "find_lr.csv").open(newline="") as file:
        rows = [{k: float(v) for k, v in row.items()} for row in csv.DictReader(file)]
    rates = [row["lr"] for row in rows]
    assert rates == pytest.approx([1e-5 * 1e5 ** (i / 59) for i in range(len(rows))])
    assert rows[0]["loss"] == pytest.approx(math.log(15), abs=0.3), "a guess among the characters"
    smoothed = [row["smoothed_loss"] for row in rows]
    lowest = rates[int(np.argmin(smoothed))]
    suggested, bound = (
        float(line.split()[0].partition("=")[2]) for line in printed.out.splitlines()[:2]
    )
    assert bound == pytest.approx(lowest, rel=0.06) and 1e-4 < suggested < bound
    with pytest.raises(UserError):
        read_runs([out], read_run_row)


def test_its_steps_are_those_of_a_training(overrides: Overrides) -> None:
    """At a rate that hardly grows, the losses are those of the job at that rate."""
    more = ["optimizer.lr=3e-3", "schedule=constant", "schedule.warmup_steps=0", "model.dropout=0.1"]
    trained = run(overrides(*more, "trainer.log_every_n_steps=1", "trainer.max_steps=20"))
    test = measure_rates(job_of(overrides(*more)), 3e-3, 3e-3 * (1 + 1e-12), 20)
    assert test.losses == pytest.approx(losses(trained.folder, "train/loss"), abs=1e-4)


def test_the_suggestion_is_where_the_loss_falls_fastest() -> None:
    rates = [10 ** (-5 + i / 10) for i in range(40)]
    curve = [3 - 1 / (1 + math.exp(-(i - 20) / 2)) + max(0, i - 30) ** 2 / 20 for i in range(40)]
    found = RateRange(rates, curve, curve)
    assert found.suggestion == pytest.approx(rates[20])
    assert found.lowest == rates[int(np.argmin(curve))] > found.suggestion


REFUSED = [
    (["--steps", "3"], "--steps must be at least 20, got 3"),
    (["--from", "1", "--to", "0.1"], "the rates must grow from above 0, got --from 1 --to 0.1"),
    (["--from", "0"], "got --from 0 --to 1"),
    (["--to", "nan"], "got --from 1e-05 --to nan"),
    (["optimizer.lr=0"], "optimizer.lr must be above 0 to be scaled, got 0"),
    (["resume=somewhere"], "resume belongs to modgpt train: find-lr leaves no run"),
    (["run_name=x"], "run_name belongs to modgpt train"),
    (["sweep=components"], "sweep belongs to modgpt train"),
    (["skip_spikes=3"], "skip_spikes=3 would skip the steps that find-lr looks for"),
    (["trainer.devices=2"], "find-lr runs on one device, got trainer.devices=2"),
    (["ffn=mo"], "unknown option ffn=mo"),
    (["ffn=moe,swiglu"], "ffn=moe,swiglu gives several values"),
]


@pytest.mark.parametrize(("given", "text"), REFUSED, ids=lambda x: str(x))
def test_what_is_refused(
    given: list[str], text: str, overrides: Overrides, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*without_output(overrides()), *given, "--out", str(tmp_path / "out")]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert text in line
    assert not (tmp_path / "out").exists()


def test_a_loss_that_never_falls_is_told(
    overrides: Overrides, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    high = ["--from", "1e3", "--to", "1e6", "--out", str(tmp_path / "out")]
    assert main([*without_output(overrides()), *high]) == 1
    assert "error: the loss does not fall at any rate from 1000 to 1e+06" in capsys.readouterr().err
