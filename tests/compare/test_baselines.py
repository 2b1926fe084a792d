"""What the options of a factor are compared with: the configured one, the first run, or as asked."""

from __future__ import annotations

from pathlib import Path

import pytest

from modgpt.compare.analysis import analyse
from modgpt.compare.factors import with_baselines
from modgpt.compare.load import load_results
from modgpt.errors import UserError
from tests.compare.synthetic import DEFAULT, losses, write_run, write_sweep


@pytest.mark.parametrize("first", ["alibi", "learned"])
def test_the_option_that_started_first_is_the_baseline_where_the_default_was_not_run(
    tmp_path: Path, first: str
) -> None:
    """Neither the alphabet nor the number of runs chooses it."""
    for number, pos in enumerate([first, "sinusoidal", "alibi", "learned", "learned"]):
        at = f"2026-11-22T16:{number:02d}:00+00:00"
        write_run(tmp_path, DEFAULT | {"pos": pos}, number, 1.7, started_at=at)
    (factor,) = load_results([tmp_path]).factors
    assert factor.name == "pos" and factor.baseline == first


@pytest.fixture
def sweep(tmp_path: Path) -> Path:
    return write_sweep(tmp_path, losses([DEFAULT, DEFAULT | {"ffn": "moe"}]))


def test_another_baseline_can_be_chosen(sweep: Path) -> None:
    results = load_results([sweep])
    (factor,) = with_baselines(results, ["ffn=moe"]).factors
    assert factor.levels == ("moe", "swiglu")
    effects = analyse(with_baselines(results, ["ffn=moe"])).effects.set_index("option")
    plain = analyse(results).effects.set_index("option")
    assert effects.loc["swiglu", "difference"] == pytest.approx(-plain.loc["moe", "difference"])
    assert with_baselines(results, []).factors == results.factors


def test_a_number_may_be_written_in_any_form_to_be_a_baseline(tmp_path: Path) -> None:
    for seed in (1, 2):
        write_run(tmp_path, DEFAULT, seed, 1.7)
        write_run(tmp_path, DEFAULT, seed, 1.8, overrides=["optimizer.lr=1e-2"])
    (factor,) = with_baselines(load_results([tmp_path]), ["optimizer.lr=10e-3"]).factors
    assert factor.levels == ("0.01", "0.003")


@pytest.mark.parametrize(
    ("chosen", "message"),
    [(["ffn"], "--baseline ffn: write FACTOR=OPTION"),
     (["fnn=moe"], "--baseline fnn=moe: the runs do not differ in fnn, but in ffn"),
     (["ffn=mo"], "--baseline ffn=mo: no finished run has it; options that finished: swiglu, moe"),
     (["ffn=moe", "ffn=swiglu"], "--baseline ffn=swiglu: ffn=moe is the baseline already")],
)  # fmt: skip
def test_a_baseline_that_was_not_run_is_refused(sweep: Path, chosen: list[str], message: str) -> None:
    with pytest.raises(UserError) as error:
        with_baselines(load_results([sweep]), chosen)
    assert str(error.value).startswith(message)
