"""`scripts/benchmark.py --isa`."""

from __future__ import annotations

import pytest
import torch

from scripts.benchmark import main


def test_an_instruction_set_that_the_processor_lacks_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx2": True})
    assert main(["training", "--isa", "avx2", "avx512"]) == 2
    assert capsys.readouterr().err == "error: --isa avx512: this processor has avx2 at best\n"


def test_a_measure_without_processes_of_its_own_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", "--isa", "avx2"]) == 2
    assert "--isa is for training" in capsys.readouterr().err
