"""Each combination with its own best value of a key, chosen on the runs that are compared."""

from __future__ import annotations

import csv
import re
from pathlib import Path

import pytest
from rich.console import Console

from modgpt.compare.analysis import analyse
from modgpt.compare.best import best_of
from modgpt.compare.comparison import compare
from modgpt.compare.load import Results, load_results
from modgpt.compare.sentences import describe
from modgpt.errors import UserError
from scripts.compare import main
from tests.compare.synthetic import DEFAULT, write_run

# Loss by feed-forward and rate; a second seed is 0.01 worse.
LOSSES = {
    "swiglu": {"0.003": 1.80, "0.01": 1.70, "0.02": 1.75},
    "moe": {"0.003": 1.90, "0.01": 1.85, "0.02": 1.80},
    "standard": {"0.003": 1.95, "0.01": 1.91, "0.02": 1.60},
}


@pytest.fixture
def sweep(tmp_path: Path) -> Path:
    """With standard the best rate has failed with one seed."""
    folder = tmp_path / "sweep"
    for ffn, by_rate in LOSSES.items():
        for rate, loss in by_rate.items():
            for seed in (1, 2):
                failed = (ffn, rate, seed) == ("standard", "0.02", 2)
                write_run(
                    folder, DEFAULT | {"ffn": ffn}, seed, None if failed else loss + 0.01 * (seed - 1),
                    overrides=[f"optimizer.lr={rate}"], status="failed" if failed else "finished",
                )  # fmt: skip
    return folder


def rates(results: Results) -> dict[str, set[str]]:
    rows = results.finished
    return {str(ffn): set(group["optimizer.lr"]) for ffn, group in rows.groupby("ffn")}


def test_each_combination_keeps_its_best(sweep: Path) -> None:
    results = best_of(load_results([sweep]), ["optimizer.lr"])
    assert rates(results) == {"swiglu": {"0.01"}, "moe": {"0.02"}, "standard": {"0.01"}}
    assert len(results.finished) == 6, "both seeds of each, and nothing else"
    assert [factor.name for factor in results.factors] == ["ffn"]
    statistics = analyse(results)
    means = {row["ffn"]: (row["mean"], row["n"]) for _, row in statistics.cells.iterrows()}
    assert means == {
        "swiglu": (pytest.approx(1.705), 2),
        "moe": (pytest.approx(1.805), 2),
        "standard": (pytest.approx(1.915), 2),
    }
    (tuning,) = results.tunings
    losses = {cell["overrides"][0]: cell["losses"] for cell in tuning["cells"]}
    assert losses["ffn=standard"]["optimizer.lr=0.02"] is None, "it did not finish with every seed"
    assert list(losses["ffn=moe"]) == ["optimizer.lr=0.003", "optimizer.lr=0.01", "optimizer.lr=0.02"]
    assert {c["overrides"][0]: c["at_edge"] for c in tuning["cells"]} == {
        "ffn=swiglu": False, "ffn=moe": True, "ffn=standard": False,
    }  # fmt: skip


def test_the_report_says_so(sweep: Path, tmp_path: Path) -> None:
    results = best_of(load_results([sweep]), ["optimizer.lr"])
    words = describe(results, analyse(results))
    assert "best of optimizer.lr=0.003, optimizer.lr=0.01, optimizer.lr=0.02" in words.tuning
    assert "over the very seeds that are compared" in words.tuning
    assert any("1 combination chose the first or last value" in caution for caution in words.cautions)
    out = tmp_path / "out"
    compare([sweep], out, Console(quiet=True), best=["optimizer.lr"])
    assert "| ffn=moe | 1.9050 | 1.8550 | 1.8050 | optimizer.lr=0.02 (at the edge) |" in (
        out / "results.md"
    ).read_text(encoding="utf-8")
    assert "over the very seeds that are compared" in (out / "report.html").read_text(encoding="utf-8")
    with (out / "results.csv").open(encoding="utf-8") as file:
        assert len(list(csv.DictReader(file))) == 18, "the CSV has every run"


def test_what_has_no_best_is_left_out(sweep: Path) -> None:
    write_run(sweep, DEFAULT | {"attention": "linear"}, 1, None, status="running",
              overrides=["optimizer.lr=0.01"])  # fmt: skip
    results = best_of(load_results([sweep]), ["optimizer.lr"])
    assert len(results.finished) == 6
    assert (results.table["status"] == "running").sum() == 1, "what has no loss stays in the list"
    cautions = describe(results, analyse(results)).cautions
    assert any(
        "1 combination left out: no value of optimizer.lr finished with every seed" in c
        for c in cautions
    )


def test_words_have_no_ends(sweep: Path) -> None:
    results = best_of(load_results([sweep]), ["ffn"])
    chosen = {cell["overrides"][0]: cell["chosen"] for cell in results.tunings[0]["cells"]}
    assert chosen == {
        "optimizer.lr=0.003": "ffn=swiglu",
        "optimizer.lr=0.01": "ffn=swiglu",
        "optimizer.lr=0.02": "ffn=swiglu",  # standard did not finish with every seed
    }
    assert not any(cell["at_edge"] for cell in results.tunings[0]["cells"])


def test_everything_may_be_chosen(sweep: Path) -> None:
    results = best_of(load_results([sweep]), ["optimizer.lr", "ffn"])
    assert results.factors == [] and rates(results) == {"swiglu": {"0.01"}}


def test_a_key_that_does_not_vary_is_refused(sweep: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(sweep), "--best", "optimizer.weight_decay"]) == 2
    wrong = "the runs do not differ in this key; they differ in ffn, optimizer.lr"
    assert capsys.readouterr().err == f"error: --best optimizer.weight_decay: {wrong}\n"
    assert not (sweep / "results.csv").exists()


def test_nothing_to_choose_from_is_refused(tmp_path: Path) -> None:
    for rate in ("0.01", "0.02"):
        write_run(tmp_path, DEFAULT, 1, None, status="running", overrides=[f"optimizer.lr={rate}"])
    with pytest.raises(UserError, match=re.escape("--best optimizer.lr: nothing has finished")):
        best_of(load_results([tmp_path]), ["optimizer.lr"])
