"""The notebooks: they run, and what is stored of them is of no particular machine."""

from __future__ import annotations

import os
import re
import shutil
import sys
from itertools import pairwise
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from tests.docs.markdown import ROOT

NOTEBOOKS = sorted((ROOT / "docs" / "notebooks").glob("*.ipynb"))
NAMES = [notebook.stem for notebook in NOTEBOOKS]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=NAMES)
def test_a_stored_notebook_reads_well(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    machine = re.findall(r"/(?:home|root|Users|tmp|work|opt|usr|var)/[\w./-]*|\b[A-Z]:\\\\\w+", text)
    assert not machine, "paths of a machine"
    cells = nbformat.reads(text, as_version=4).cells
    for before, cell in pairwise(cells):
        if cell.cell_type == "code":
            assert before.cell_type == "markdown", f"no sentence before {cell.source}"
            assert len(cell.source.splitlines()) <= 12, f"a long cell: {cell.source}"
            assert cell.execution_count, f"stored without having run: {cell.source}"
            assert all(output.output_type != "error" for output in cell.outputs)


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=NAMES)
def test_a_notebook_runs(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STEPS", "20")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    (tmp_path / "data").mkdir()
    if (text := ROOT / "data" / "tinyshakespeare.txt").exists():  # else the notebook fetches it
        shutil.copy(text, tmp_path / "data")
    notebook = nbformat.read(path, as_version=4)
    NotebookClient(
        notebook, timeout=250, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}
    ).execute()
    # A command that fails stops no notebook: look at what is there at the end.
    assert len(list((tmp_path / "outputs" / "runs").glob("*/result.json"))) == 1
    assert len(list((tmp_path / "outputs" / "sweeps").glob("*/*/result.json"))) == 6
    assert len(list((tmp_path / "outputs" / "sweeps").glob("*/report.html"))) == 1
    drawn = [
        o for cell in notebook.cells for o in cell.get("outputs", []) if "image/png" in o.get("data", {})
    ]
    assert len(drawn) == 3
