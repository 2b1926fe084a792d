"""Gaps over budgets, at equal compute and time, and the speed-up, on curves with known answers."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from modgpt.statistics.budgets import Budgets, over_budgets
from modgpt.statistics.pairs import Factor

FACTOR = Factor("part", ("base", "option"))
TOKENS = (1e5, 2e5, 4e5, 8e5)


def curves(faster: float = 1.0, cost: float = 1.0, noise: float = 0.0, seeds: int = 3) -> Budgets:
    """Loss = 5 − 0.3 ln(tokens · faster); the option costs `cost` times as much per token."""
    rng = np.random.default_rng(0)
    rows = [
        {
            "part": part, "seed": seed, "tokens_seen": t, "flops": 6.0 * t * c, "seconds": 1e-4 * t * c,
            "final_val_loss": 5 - 0.3 * np.log(t * f) + rng.normal(0, noise),
        }
        for part, f, c in (("base", 1.0, 1.0), ("option", faster, cost))
        for seed in range(seeds)
        for t in TOKENS
    ]  # fmt: skip
    (found,) = over_budgets(pd.DataFrame(rows), [FACTOR])
    return found


def test_an_option_that_needs_fewer_tokens() -> None:
    found = curves(faster=1.5)
    assert found.tokens == TOKENS
    assert [gap.value for gap in found.gaps] == pytest.approx([-0.3 * np.log(1.5)] * 4)
    assert found.speed_up is not None and found.speed_up.value == pytest.approx(1.5)


def test_an_option_that_costs_as_much_more_as_it_saves_tokens() -> None:
    found = curves(faster=1.5, cost=1.5)
    assert found.gaps[-1].value < -0.1
    assert found.at_equal_flops is not None and found.at_equal_time is not None
    assert found.at_equal_flops.value == pytest.approx(0, abs=1e-6)
    assert found.at_equal_time.value == pytest.approx(0, abs=1e-6)
    assert found.speed_up is not None and found.speed_up.value == pytest.approx(1)


def test_a_speed_up_outside_the_budgets_stays_blank() -> None:
    assert curves(faster=0.5).speed_up is None


def test_intervals_come_from_the_seeds() -> None:
    found = curves(faster=1.5, noise=0.01, seeds=5)
    assert found.speed_up is not None
    assert found.speed_up.low < 1.5 < found.speed_up.high < 1.8
    assert all(gap.low < gap.value < gap.high for gap in found.gaps)
    alone = curves(faster=1.5, seeds=1)
    assert all(np.isnan(gap.low) for gap in alone.gaps)


def test_one_budget_says_nothing() -> None:
    row = {"part": "base", "seed": 1, "tokens_seen": 1e5, "flops": 1.0, "seconds": 1.0}
    rows = [row | {"final_val_loss": 2.0}, row | {"part": "option", "final_val_loss": 1.9}]
    assert over_budgets(pd.DataFrame(rows), [FACTOR]) == []
