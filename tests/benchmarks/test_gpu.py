"""The list of checks for a GPU, in miniature on a CPU: it runs, and it goes on where it was."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from benchmarks.gpu.__main__ import PIECES, main
from benchmarks.gpu.page import page


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.skipif(torch.cuda.is_available(), reason="the miniature is for machines without CUDA")
def test_the_whole_list_runs_in_miniature(tmp_path: Path) -> None:
    assert main(["--out", str(tmp_path)]) == 0
    found = json.loads((tmp_path / "gpu.json").read_text())
    assert found["miniature"] and list(found["pieces"]) == list(PIECES)
    outcomes = {name: piece["outcome"] for name, piece in found["pieces"].items()}
    assert set(outcomes.values()) == {"passed", "measured", "needs CUDA"}, outcomes
    text = (tmp_path / "gpu.md").read_text()
    assert "A miniature on a CPU" in text and "Not run yet" not in text
    assert all(f"\n## {name}\n" in text for name in PIECES)


@pytest.mark.skipif(torch.cuda.is_available(), reason="the miniature is for machines without CUDA")
def test_pieces_that_are_done_are_not_run_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--out", str(tmp_path), "--only", "norm"]) == 0
    assert "Not run yet: attention, waiting" in (tmp_path / "gpu.md").read_text()

    def fails(device: object) -> None:
        raise RuntimeError("the device is on fire")

    monkeypatch.setattr("benchmarks.gpu.__main__.PIECES", dict(PIECES) | {"norm": fails, "pos": fails})
    assert main(["--out", str(tmp_path), "--only", "norm"]) == 0, "it was not run again"
    capsys.readouterr()
    assert main(["--out", str(tmp_path), "--only", "norm", "pos"]) == 1
    assert capsys.readouterr().err == "not as it should be: pos\n"
    assert "RuntimeError: the device is on fire" in (tmp_path / "gpu.md").read_text()


def test_a_page_of_nothing_names_what_is_missing() -> None:
    about = {"device": "x", "begun": "now", "revision": None, "versions": {}, "miniature": False}
    assert "Not run yet: a, b." in page(about | {"pieces": {}}, ["a", "b"])
