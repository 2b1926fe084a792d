"""Fixtures of the sweeps."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.sweep.script import tiny


@pytest.fixture
def arguments(corpus: Path, tmp_path: Path) -> list[str]:
    """Overrides for a sweep `s` of a tiny model in a folder of its own."""
    return tiny(corpus, tmp_path)
