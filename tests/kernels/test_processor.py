"""The instruction set by which precision is chosen."""

from __future__ import annotations

import pytest
import torch

from modgpt.kernels.processor import instruction_set, multiplies_bf16
from modgpt.training.hardware import best_precision

CHECKS = {
    "amx": "_is_amx_tile_supported",
    "avx512_bf16": "_is_avx512_bf16_supported",
    "avx512": "_is_avx512_supported",
    "avx2": "_is_avx2_supported",
}


@pytest.fixture(autouse=True)
def no_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ONEDNN_MAX_CPU_ISA", raising=False)


def pretend(monkeypatch: pytest.MonkeyPatch, best: str) -> None:
    """A processor with this instruction set and all lesser ones."""
    names = list(CHECKS)
    for name, check in CHECKS.items():
        has = best in CHECKS and names.index(name) >= names.index(best)
        monkeypatch.setattr(torch.cpu, check, lambda has=has: has)


@pytest.mark.parametrize(
    ("best", "precision"),
    [
        ("amx", "bf16-mixed"),
        ("avx512_bf16", "bf16-mixed"),
        ("avx512", "32-true"),
        ("avx2", "32-true"),
        ("other", "32-true"),
    ],
)
def test_a_processor_that_multiplies_bf16_trains_in_it(
    best: str, precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pretend(monkeypatch, best)
    assert instruction_set() == best
    assert best_precision("cpu") == precision


@pytest.mark.parametrize(
    ("limit", "found"),
    [("AVX512_CORE_BF16", "avx512_bf16"), ("avx512_core", "avx512"), ("AVX2", "avx2"), ("ALL", "amx")],
)
def test_the_limit_of_onednn_counts(limit: str, found: str, monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, "amx")
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", limit)
    assert instruction_set() == found
    assert multiplies_bf16() == (found in ("amx", "avx512_bf16"))


def test_a_limit_adds_nothing_to_a_processor(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, "avx2")
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "AVX512_CORE_BF16")
    assert instruction_set() == "avx2"
