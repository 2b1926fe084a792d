"""A sweep over several tasks: counts per option and task, and no comparison between tasks."""

from __future__ import annotations

from pathlib import Path

import pytest
from scipy import stats

from modgpt.compare.comparison import compare, read_comparison
from modgpt.compare.difference_tables import task_rows
from modgpt.compare.figures.drawn import figures
from tests.compare.synthetic import DEFAULT, write_run

# Solved runs of four, by attention and task.
TRUTH = {
    ("flash", "recall"): 4, ("linear", "recall"): 0, ("local_window", "recall"): 1,
    ("flash", "parity"): 0, ("linear", "parity"): 2, ("local_window", "parity"): 0,
    ("flash", "dyck"): 4, ("linear", "dyck"): 4, ("local_window", "dyck"): 0,
}  # fmt: skip


@pytest.fixture
def sweep(tmp_path: Path) -> Path:
    for (attention, task), solved in TRUTH.items():
        for seed in range(1, 5):
            accuracy = 0.995 if seed <= solved else 0.6
            write_run(
                tmp_path / f"{attention}-{task}", DEFAULT | {"attention": attention, "data": task}, seed,
                2.0 * (1 - accuracy), overrides=[f"data={task}"],
                final_val_accuracy=accuracy, corpus_sha256=f"digest of {task}",
            )  # fmt: skip
    return tmp_path


def test_counts_of_every_attention_and_task(sweep: Path) -> None:
    statistics = read_comparison([sweep]).statistics
    found = {(c.option, c.task): c for c in statistics.tasks}
    assert {key: count.solved for key, count in found.items()} == TRUTH
    for count in found.values():
        exact = stats.binomtest(count.solved, 4).proportion_ci(0.95, method="exact")
        assert count.runs == 4 and (count.low, count.high) == pytest.approx((exact.low, exact.high))
    rows = {row["task"]: row for row in task_rows(statistics)}
    assert list(rows) == ["dyck", "parity", "recall"]
    assert rows["recall"]["flash"] == "4 of 4 (40% to 100%)"
    assert rows["parity"]["linear"] == "2 of 4 (7% to 93%)"


def test_tasks_are_contexts_and_not_options(sweep: Path) -> None:
    """Attention is judged over all tasks; no task is better than another."""
    comparison = read_comparison([sweep])
    assert {s.factor for s in comparison.statistics.solved} == {"attention"}
    counts = {s.option: (s.solved, s.base_solved, s.runs) for s in comparison.statistics.solved}
    assert counts == {"linear": (6, 8, 12), "local_window": (1, 8, 12)}
    verdicts = {s.option: s.verdict for s in comparison.statistics.solved}
    assert verdicts == {"linear": "cannot tell", "local_window": "worse"}
    assert set(comparison.statistics.effects["factor"]) == {"attention"}
    assert any("compare losses within one task" in caution for caution in comparison.words.cautions)


def test_the_files_show_the_counts(sweep: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report = compare([sweep], figures="png")
    text = (sweep / "results.md").read_text(encoding="utf-8")
    assert "## Solved tasks" in text and "4 of 4 (40% to 100%)" in text
    page = report.read_text(encoding="utf-8")
    assert 'id="solved"' in page and "4 of 4 (40% to 100%)" in page
    assert (sweep / "solved.png").stat().st_size > 1000
    assert "exact 95 % intervals" in capsys.readouterr().out


def test_the_picture_has_every_count(sweep: Path) -> None:
    found = read_comparison([sweep])
    drawn = {f.name: f for f in figures(found.results, found.statistics, found.curves)}
    (panel,) = drawn["solved"].on_screen()
    (values,) = panel["datasets"].values() if "datasets" in panel else [panel["data"]["values"]]
    assert {(v["option"], v["task"]): v["count"] for v in values} == {
        key: f"{solved}/4" for key, solved in TRUTH.items()
    }


def test_one_task_has_no_such_table(tmp_path: Path) -> None:
    for attention in ("flash", "linear"):
        for seed in (1, 2):
            write_run(tmp_path, DEFAULT | {"attention": attention}, seed, 0.1, final_val_accuracy=1.0)
    statistics = read_comparison([tmp_path]).statistics
    assert statistics.solved and not statistics.tasks and not task_rows(statistics)
