"""What the first screen says: a sentence per factor, and a row per option with its interval to scale."""

from __future__ import annotations

import math
from itertools import product
from pathlib import Path

import pytest

from modgpt.compare.analysis import Statistics, analyse
from modgpt.compare.curves import read_curves
from modgpt.compare.difference_tables import budget_rows
from modgpt.compare.figures.drawn import figures, rendered
from modgpt.compare.findings import Name, findings
from modgpt.compare.load import load_results
from modgpt.compare.report.overview import FURTHER, Scale, overview
from tests.compare.in_memory import results_of
from tests.compare.synthetic import DEFAULT, OPTIONS, grid, losses, one_at_a_time, write_run


@pytest.fixture(scope="module")
def single() -> Statistics:
    """One choice at a time, three seeds."""
    return analyse(results_of(losses(one_at_a_time())))


@pytest.fixture(scope="module")
def turning() -> Statistics:
    """A grid in which `standard` is better with rope and alibi, and worse with the other positions."""
    cells = grid({"attention": OPTIONS["attention"], "ffn": OPTIONS["ffn"][:2], "pos": OPTIONS["pos"]})
    runs = [
        (c, seed, loss + {"rope": -0.1, "alibi": -0.1}.get(c["pos"], 0.1) * (c["ffn"] == "standard"))
        for c, seed, loss in losses(cells, effects={}, noise=0.002)
    ]
    return analyse(results_of(runs))


def test_the_factor_that_matters_most_comes_first(single: Statistics) -> None:
    assert [f.factor for f in findings(single)] == ["pos", "attention", "ffn", "norm"]


def test_a_sentence_says_who_is_ahead_and_what_is_open(single: Statistics) -> None:
    found = {f.factor: f for f in findings(single)}
    assert found["pos"].text.startswith("rope ahead of alibi by 0.0")
    assert "sinusoidal by 0.2" in found["pos"].text and "±" in found["pos"].text
    assert found["norm"].text.startswith("cannot tell ") and "seeds)" in found["norm"].text
    assert found["norm"].size == 0


def test_the_names_of_options_are_set_apart(single: Statistics) -> None:
    for finding in findings(single):
        names = [piece for piece in finding.pieces if isinstance(piece, Name)]
        assert set(names) == set(OPTIONS[finding.factor])
        assert "".join(finding.pieces) == finding.text


def test_a_sign_that_turns_has_a_row_per_level_and_no_mean(turning: Statistics) -> None:
    found = overview(turning)
    assert found
    rows = [row for row in found.rows if row["factor"] == "ffn"]
    head, *parts = [row for row in rows if row["option"] == "standard"]
    assert head["verdict"] == "depends on pos" and head["difference"] == "" and head["at"] is None
    assert {p["where"]: p["verdict"] for p in parts} == {
        "with rope": "better", "with alibi": "better", "with learned": "worse",
        "with sinusoidal": "worse",
    }  # fmt: skip
    assert next(f for f in findings(turning) if f.factor == "ffn").size == pytest.approx(0.1, abs=0.02)


def test_intervals_are_drawn_to_scale(single: Statistics) -> None:
    found = overview(single)
    assert found and found.band and found.zero is not None
    drawn = {row["option"]: row for row in found.rows}
    effects = single.effects.set_index("option")
    per_nat = (found.band[1] - found.band[0]) / (2 * single.delta)
    for option, row in drawn.items():
        if row["baseline"]:
            assert row["at"] == found.zero and row["low"] is None
            continue
        for place, column in (("at", "difference"), ("low", "low"), ("high", "high")):
            expected = found.zero + per_nat * effects.loc[option, column]
            assert row[place] == pytest.approx(expected, abs=0.1)
            assert 0 < row[place] < 100


def test_one_seed_has_points_without_intervals() -> None:
    found = overview(analyse(results_of(losses(one_at_a_time(), seeds=[1]))))
    assert found and all(row["low"] is None and row["at"] is not None for row in found.rows)
    assert {row["note"] for row in found.rows if not row["baseline"]} == {"one seed"}


def test_zero_has_no_sign() -> None:
    runs = [(DEFAULT, 1, 1.7), (DEFAULT | {"ffn": "moe"}, 1, 1.69999)]
    found = overview(analyse(results_of(runs)))
    assert found and [row["difference"] for row in found.rows] == ["", "0.000"]


def test_runs_with_several_budgets_have_further_columns(single: Statistics, tmp_path: Path) -> None:
    """alibi needs twice the tokens of the baseline; learned has its loss at half of them."""
    factors = {"rope": 1.0, "alibi": 0.5, "learned": 2.0}
    for pos, steps, seed in product(factors, (175, 350, 700), (1, 2)):
        loss = 3.0 - 0.2 * math.log(steps * factors[pos]) + 0.001 * seed
        write_run(tmp_path, DEFAULT | {"pos": pos}, seed, loss, overrides=[f"trainer.max_steps={steps}"],
                  tokens_seen=steps * 2048, final_step=steps)  # fmt: skip
    statistics = analyse(load_results([tmp_path]))
    found = overview(statistics)
    assert found and found.further == list(FURTHER)
    rows = {row["option"]: row["further"] for row in found.rows}
    assert rows["learned"]["trend with budget"] == "-0.139 → -0.139 → -0.139"
    assert rows["learned"]["effective speed-up"] == "2.00 times (2.00 to 2.00)"
    assert rows["alibi"]["Δ at equal time"] == "+0.139 ± 0.000"
    assert rows["alibi"]["effective speed-up"] == "", "it never has the baseline's final loss"
    table = {row["option"]: row for row in budget_rows(statistics)}
    assert table["learned"]["Δ at 716,800 tokens"] == "-0.139 ± 0.000"
    assert overview(single) is not None and overview(single).further == []  # pyright: ignore
    curves = {path: read_curves(Path(path)) for path in load_results([tmp_path]).table["path"]}
    drawn = {figure.name: figure for figure in figures(load_results([tmp_path]), statistics, curves)}
    assert len(drawn["budgets"].panels) == 1 and rendered(drawn["budgets"], "svg")


@pytest.mark.parametrize(("low", "high"), [(-0.03, 0.03), (-1.4, 2.29), (0, 1), (-0.001, 3000)])
def test_ticks_are_few_and_round(low: float, high: float) -> None:
    ticks = Scale(low, high).ticks()
    assert 2 <= len(ticks) <= 7 and all(0 <= place <= 100 for place, _ in ticks)
    assert "0" in [text for _, text in ticks] and max(len(text) for _, text in ticks) <= 6


def test_nothing_to_compare_has_no_table() -> None:
    assert overview(analyse(results_of([(DEFAULT, 1, 1.7)]))) is None
