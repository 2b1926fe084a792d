"""`--watch` writes the report again while jobs run, and ends with the last of them."""

from __future__ import annotations

import json
import os
import re
import time
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from modgpt.compare.watch import STALE_SECONDS, watch
from modgpt.errors import UserError
from tests.compare.synthetic import DEFAULT, losses, write_record, write_run, write_sweep

MOE = DEFAULT | {"ffn": "moe"}


@pytest.fixture
def sweep(tmp_path: Path) -> Path:
    return write_sweep(tmp_path / "sweep", losses([DEFAULT, MOE], [1, 2]))


def running(sweep: Path, seed: int, beat: float = 0.0) -> Path:
    """A job under way, whose last heartbeat was `beat` seconds ago."""
    path = write_run(sweep, DEFAULT, seed, None, status="running", final_step=10)
    (path / "lease.json").write_text("{}")
    os.utime(path / "lease.json", (time.time() - beat,) * 2)
    return path


def finish(path: Path) -> None:
    record = json.loads((path / "result.json").read_text())
    write_record(path, record | {"status": "finished", "final_val_loss": 1.7, "final_step": 700})


def data(sweep: Path) -> dict[str, Any]:
    text = (sweep / "report.html").read_text(encoding="utf-8")
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.S)
    assert found
    return json.loads(found[1]) | {"provisional": "Provisional:" in text}


def test_it_follows_the_jobs_until_all_are_done(sweep: Path) -> None:
    job = running(sweep, 3)
    looks = []

    def sleep(seconds: float) -> None:
        page = data(sweep)
        looks.append((seconds, page["refresh"], page["provisional"]))
        if len(looks) == 2:
            finish(job)

    console = Console(record=True, width=200, file=open(os.devnull, "w"))  # noqa: SIM115
    watch([sweep], None, 7.0, console, sleep=sleep)
    assert looks[:2] == [(7.0, 7, True)] * 2, "the page loads itself again while a job runs"
    assert len(looks) == 3 and looks[2] == (7.0, 7, False), "the next job may be about to begin"
    last = data(sweep)
    assert last["refresh"] is None and not last["provisional"] and len(last["runs"]) == 5
    text = console.export_text()
    assert text.count("4 finished, 1 running") == 2 and text.count("5 finished, 0 running") == 1
    assert text.count("differences from the baseline") == 1, "the summary comes once, at the end"


def test_a_job_may_begin_after_another_has_ended(sweep: Path) -> None:
    jobs: list[Path] = []

    def sleep(_: float) -> None:
        if not jobs:
            jobs.append(running(sweep, 3))
        else:
            finish(jobs[0])

    watch([sweep], None, 1.0, Console(quiet=True), sleep=sleep)
    assert len(data(sweep)["runs"]) == 5


def test_a_job_that_was_killed_is_not_waited_for(sweep: Path) -> None:
    running(sweep, 3, beat=STALE_SECONDS + 60)
    looks: list[float] = []
    watch([sweep], None, 1.0, Console(quiet=True), sleep=looks.append)
    assert len(looks) == 1 and data(sweep)["provisional"], "its result may still come"


def test_a_report_written_once_does_not_load_itself_again(sweep: Path) -> None:
    from modgpt.compare.comparison import compare

    running(sweep, 3)
    compare([sweep], console=Console(quiet=True))
    assert data(sweep)["refresh"] is None and data(sweep)["provisional"]


def test_options_are_those_of_the_comparison(sweep: Path) -> None:
    with pytest.raises(UserError, match="--baseline ffn=none"):
        watch([sweep], None, 1.0, Console(quiet=True), baselines=["ffn=none"])
    assert not (sweep / "report.html").exists()
