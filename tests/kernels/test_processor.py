"""The instruction set by which precision is chosen."""

from __future__ import annotations

import pytest
import torch

from modgpt.kernels.processor import ORDER, bf16_is_faster, instruction_set
from modgpt.training.hardware import best_precision

KEYS = {"avx2": "avx2", "avx512": "avx512_f", "avx512_bf16": "avx512_bf16", "amx": "amx_tile"}


@pytest.fixture(autouse=True)
def no_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ONEDNN_MAX_CPU_ISA", raising=False)


def pretend(monkeypatch: pytest.MonkeyPatch, best: str, name: str = "Intel Xeon") -> None:
    """A processor with this instruction set and all lesser ones."""
    has = {key: ORDER.index(of) <= ORDER.index(best) for of, key in KEYS.items()}
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: has | {"cpu_name": name})


@pytest.mark.parametrize(
    ("best", "name", "precision"),
    [
        ("amx", "Intel Xeon", "bf16-mixed"),
        ("avx512_bf16", "AMD EPYC 9654", "bf16-mixed"),
        ("avx512_bf16", "Intel Xeon", "32-true"),
        ("avx512", "AMD EPYC 9654", "32-true"),
        ("avx2", "AMD EPYC 7763", "32-true"),
        ("other", "Apple M3", "32-true"),
    ],
)
def test_a_processor_trains_in_bf16_where_it_multiplies_bf16_faster(
    best: str, name: str, precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pretend(monkeypatch, best, name)
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
    assert bf16_is_faster() == (found == "amx")


def test_a_limit_adds_nothing_to_a_processor(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, "avx2")
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "AVX512_CORE_BF16")
    assert instruction_set() == "avx2"


def test_this_processor_is_known() -> None:
    """The names of PyTorch's capabilities have not changed: the real ones give an answer."""
    has = torch.cpu.get_capabilities()
    assert isinstance(has.get("cpu_name"), str)
    assert all(key in has for key in KEYS.values()) or has["architecture"] != "x86_64"
