"""The column of how differences would vary over other validation texts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from modgpt.compare.comparison import read_comparison, write_comparison
from modgpt.compare.difference_tables import ON_TEXTS, effect_rows
from modgpt.runs.window_losses import WindowLosses
from tests.compare.synthetic import DEFAULT, STEPS, write_run

WINDOWS, TARGETS = 400, 64
HARDNESS = np.random.default_rng(0).normal(0, 1, WINDOWS)  # of the pieces of text, for every model


def write(folder: Path, seed: int, shift: float, spread: float, step: int = STEPS, **parts: str) -> None:
    """A run whose loss is `shift` above 10, by `spread` more on some windows than on others."""
    own = np.random.default_rng(len(str(parts))).normal(0, 1, WINDOWS)
    means = 10 + HARDNESS + shift + spread * (own - own.mean())
    counts = np.full(WINDOWS, TARGETS, np.int32)
    noise = 1e-4 * seed
    path = write_run(folder, DEFAULT | parts, seed, float(means.mean()) + noise)
    WindowLosses(step, (means + noise) * counts, counts).save(path)


@pytest.fixture
def sweep(tmp_path: Path) -> Path:
    """`standard` is worse everywhere by 0.1; `moe` by 0.01, a hundredth of its noise over the text."""
    for seed in (1, 2, 3):
        write(tmp_path, seed, 0.0, 0.0)
        write(tmp_path, seed, 0.1, 0.01, ffn="standard")
        write(tmp_path, seed, 0.03, 1.0, ffn="moe")
    return tmp_path


def test_a_difference_larger_than_the_noise_of_the_text_needs_no_caution(sweep: Path) -> None:
    found = read_comparison([sweep])
    rows = {row["option"]: row for row in effect_rows(found.statistics, found.texts)}
    assert rows["standard"][ON_TEXTS] == "± 0.0010"
    assert float(rows["moe"][ON_TEXTS].removeprefix("± ")) == pytest.approx(0.098, abs=0.01)
    assert rows["swiglu"][ON_TEXTS] == ""
    caution = next(c for c in found.words.cautions if "another text" in c)
    assert caution.startswith("ffn=moe:"), "by seeds both are worse; by texts only `standard` is"


def test_the_files_show_the_column_and_say_what_it_is(sweep: Path, tmp_path: Path) -> None:
    page = write_comparison(read_comparison([sweep]), tmp_path / "out").read_text(encoding="utf-8")
    markdown = (tmp_path / "out/results.md").read_text(encoding="utf-8")
    assert all("block bootstrap" in text and "± 0.0010" in text for text in (page, markdown))


def test_losses_of_an_earlier_validation_are_not_taken(sweep: Path) -> None:
    write(sweep, 4, 0.1, 0.01, step=STEPS - 100, ffn="standard")
    assert [option for _, option in read_comparison([sweep]).texts] == ["moe"]


def test_runs_without_window_losses_have_no_such_column(tmp_path: Path) -> None:
    for seed in (1, 2, 3):
        write_run(tmp_path, DEFAULT, seed, 1.7 + 0.001 * seed)
        write_run(tmp_path, DEFAULT | {"ffn": "standard"}, seed, 1.8 + 0.001 * seed)
    found = read_comparison([tmp_path])
    assert found.texts == {}
    assert all(ON_TEXTS not in row for row in effect_rows(found.statistics, found.texts))


def test_a_difference_whose_sign_turns_has_no_interval(tmp_path: Path) -> None:
    for seed in (1, 2, 3):
        for pos, shift in (("rope", 0.3), ("learned", -0.3)):
            for norm, more in (("rmsnorm", 0.0), ("layernorm", 0.01), ("scalenorm", 0.02)):
                write(tmp_path, seed, 0.01 * (seed == 1), 0.0, pos=pos, norm=norm)
                write(tmp_path, seed, shift + more, 0.0, pos=pos, norm=norm, ffn="standard")
    found = read_comparison([tmp_path])
    verdicts = {(d.factor, d.option): d.verdict for d in found.statistics.differences}
    assert verdicts["ffn", "standard"] == "depends on pos"
    assert ("ffn", "standard") not in found.texts
