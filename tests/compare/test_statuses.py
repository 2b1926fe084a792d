"""Every status of a run has its place: only finished ones count, and skipped ones leave no trace."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from rich.console import Console

from modgpt.compare.analysis import analyse
from modgpt.compare.comparison import compare
from modgpt.compare.load import LOSS, load_results
from modgpt.compare.sentences import describe
from modgpt.compare.tables import job_columns, ranked, unfinished_rows
from modgpt.compare.unfinished import unfinished
from modgpt.runs.record import STATUSES
from tests.compare.synthetic import DEFAULT, losses, write_run, write_skipped, write_sweep

MOE = DEFAULT | {"ffn": "moe"}


@pytest.fixture
def sweep(tmp_path: Path) -> Path:
    """A sweep with a run of each status; those that did not finish have the lowest losses."""
    folder = write_sweep(tmp_path / "sweep", losses([DEFAULT, MOE], [1, 2]), curves=True)
    for seed, status in enumerate(STATUSES, start=10):
        if status not in ("finished", "skipped"):
            write_run(folder, DEFAULT, seed, 0.5, status=status, reason=f"why {status}", final_step=123)
    write_skipped(folder, DEFAULT | {"attention": "linear"}, 1, "why skipped", ["trainer.max_steps=40"])
    return folder


def test_only_finished_runs_count(sweep: Path) -> None:
    results = load_results([sweep])
    assert set(results.table["status"]) == set(STATUSES)
    assert analyse(results).cells["n"].sum() == 4 == len(results.finished)
    best = ranked(results.table).iloc[0]
    assert best["status"] == "finished" and best[LOSS] > 1


@pytest.mark.parametrize("loss", [float("nan"), float("inf"), float("-inf")])
def test_a_loss_that_is_not_finite_is_diverged_and_never_best(sweep: Path, loss: float) -> None:
    write_run(sweep, MOE, 5, loss, final_step=77)
    results = load_results([sweep])
    (row,) = results.table[results.table["seed"] == "5"].to_dict("records")
    assert row["status"] == "diverged" and row["final_step"] == 77
    assert ranked(results.table).iloc[0]["status"] == "finished"
    assert ranked(results.table).head(4)["status"].eq("finished").all()


def test_a_run_that_finished_without_a_loss_failed(sweep: Path) -> None:
    write_run(sweep, MOE, 5, None)
    table = load_results([sweep]).table
    assert list(table.loc[table["seed"] == "5", "status"]) == ["failed"]


def test_partial_results_are_listed_apart_with_their_loss(sweep: Path) -> None:
    results = load_results([sweep])
    (row,) = [row for row in unfinished_rows(results) if row["status"] == "partial"]
    assert row["latest loss"] == "0.5000" and row["reason"] == "why partial"
    cautions = describe(results, analyse(results)).cautions
    assert any("1 partial result not in the statistics" in caution for caution in cautions)


def test_the_step_of_a_diverged_run_is_shown_everywhere(sweep: Path, tmp_path: Path) -> None:
    console = Console(record=True, width=200, file=open(os.devnull, "w"))  # noqa: SIM115
    page = compare([sweep], tmp_path / "out", console).read_text()
    assert "1 diverged job at step 123, latest loss 0.5000: why diverged" in console.export_text()
    assert "| 1 | diverged | why diverged | 123 |" in (tmp_path / "out" / "results.md").read_text()
    assert "why diverged" in page.split('id="unfinished">')[1].split("</section>")[0]


def test_skipped_jobs_of_an_earlier_sweep_are_no_factors(sweep: Path) -> None:
    """A sweep of too few steps was skipped whole, and its folders are still there."""
    for seed in range(20, 32):
        write_skipped(sweep, DEFAULT | {"pos": "alibi"}, seed, "40 steps are too few",
                      ["trainer.max_steps=40", "optimizer.lr=0.5"])  # fmt: skip
    results = load_results([sweep])
    assert [factor.name for factor in results.factors] == ["ffn"]
    assert not {"trainer.max_steps", "optimizer.lr", "pos"} & set(job_columns(results))
    assert "The jobs differ in ffn (2);" in describe(results, analyse(results)).jobs


def test_partial_and_imported_runs_are_no_factors(sweep: Path) -> None:
    for status in ("partial", "imported"):
        write_run(sweep, DEFAULT | {"pos": "alibi"}, 40, 0.1, status=status,
                  overrides=["trainer.limit_val_batches=2"])  # fmt: skip
    assert [factor.name for factor in load_results([sweep]).factors] == ["ffn"]


def test_many_jobs_with_one_reason_are_one_entry(sweep: Path, tmp_path: Path) -> None:
    for seed in range(20, 32):
        write_skipped(sweep, DEFAULT, seed, "40 steps are too few")
    (group,) = [g for g in unfinished(load_results([sweep])) if g.reason == "40 steps are too few"]
    assert len(group.runs) == 12 and group.sentence.startswith("12 skipped jobs: 40 steps are too few (")
    console = Console(record=True, width=200, file=open(os.devnull, "w"))  # noqa: SIM115
    page = compare([sweep], tmp_path / "out", console).read_text()
    assert (tmp_path / "out" / "results.md").read_text().count("| 12 | skipped | 40 steps") == 1
    assert page.split('id="unfinished">')[1].split("</section>")[0].count("40 steps are too few") == 1


def test_a_sweep_of_skipped_jobs_alone_has_a_report(tmp_path: Path) -> None:
    for seed in (1, 2):
        write_skipped(tmp_path, DEFAULT, seed, "does not fit")
    text = compare([tmp_path], console=Console(quiet=True)).read_text()
    assert "nothing to compare yet" in text and "does not fit" in text


def test_options_of_a_users_own_package_have_their_own_names(tmp_path: Path) -> None:
    config = "attention: {qk_norm: {_target_: mine.norms.GoodNorm}}"
    for seed in (1, 2):
        write_run(tmp_path, DEFAULT | {"attention": "mine"}, seed, 1.7)
        write_run(tmp_path, DEFAULT, seed, 1.8, overrides=["norm@attention.qk_norm=layernorm"])
        run = write_run(tmp_path, DEFAULT, seed, 1.9)
        (run / "config.yaml").write_text(config)
    factors = {f.name: set(f.levels) for f in load_results([tmp_path]).factors}
    assert factors["attention"] == {"flash", "mine"}
    assert "GoodNorm" in factors["norm@attention.qk_norm"]
