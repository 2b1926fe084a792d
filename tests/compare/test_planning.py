"""`--plan`: the seeds of a next sweep, from the noise of the runs found."""

from __future__ import annotations

import os
from math import ceil, sqrt
from pathlib import Path

import pytest
from rich.console import Console

from modgpt.compare.analysis import analyse
from modgpt.compare.load import load_results
from modgpt.compare.planning import print_plan
from modgpt.errors import UserError
from modgpt.statistics.power import plan
from tests.compare.synthetic import DEFAULT, losses, one_at_a_time, write_run, write_sweep


def printed(folder: Path, **options: float) -> str:
    console = Console(record=True, width=200, file=open(os.devnull, "w"))  # noqa: SIM115
    print_plan([folder], console=console, **options)
    return console.export_text()


@pytest.fixture
def sweep(tmp_path: Path) -> Path:
    return write_sweep(tmp_path / "sweep", losses(one_at_a_time()))


def test_the_table_has_the_seeds_of_the_plan(sweep: Path) -> None:
    text = printed(sweep)
    noise = analyse(load_results([sweep])).noise
    assert noise.sigma and f"σ = {noise.sigma:.4f}" in text and "9 options" in text
    for share in (1, sqrt(9)):
        for entry in plan(noise.sigma, 9, baseline_share=share):
            for seeds in (entry.to_show, entry.to_call_same):
                assert seeds and f"{seeds} ({9 * seeds + ceil(share * seeds):,})" in text
    assert not list(sweep.glob("re*")), "nothing is written"


def test_a_further_size_can_be_asked_for(sweep: Path) -> None:
    assert "0.015" not in printed(sweep) and "0.015" in printed(sweep, same_within=0.015)


def test_one_option_needs_no_further_runs_of_the_baseline(tmp_path: Path) -> None:
    text = printed(write_sweep(tmp_path, losses([DEFAULT, DEFAULT | {"ffn": "moe"}])))
    assert "1 option and" in text and "√k" not in text


def test_without_noise_there_is_no_plan(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--plan: the seed noise is unknown"):
        printed(write_sweep(tmp_path, losses(one_at_a_time(), seeds=[1])))


def test_solved_tasks_are_not_planned_by_their_losses(tmp_path: Path) -> None:
    for seed in (1, 2, 3):
        for attention, loss in (("flash", 0.01), ("linear", 1.2 + seed / 10)):
            choices = DEFAULT | {"attention": attention}
            write_run(tmp_path, choices, seed, loss, final_val_accuracy=1 - loss / 2)
    with pytest.raises(UserError, match="--plan: these runs solve a task or do not"):
        printed(tmp_path)
