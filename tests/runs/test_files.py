"""Files are replaced whole or not at all."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from modgpt.files import replaced, write_json


def test_a_failure_leaves_the_old_file(tmp_path: Path) -> None:
    target = tmp_path / "file.txt"
    target.write_text("old")

    def fail() -> None:
        with replaced(target) as beside:
            beside.write_text("half of the n")
            assert target.read_text() == "old", "nothing is seen before the end"
            raise RuntimeError("power cut")

    with pytest.raises(RuntimeError, match="power cut"):
        fail()
    assert [p.name for p in tmp_path.iterdir()] == ["file.txt"]
    assert target.read_text() == "old"


def test_success_leaves_the_new_file_alone(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"ä": [1, None]})
    write_json(tmp_path / "a.json", {"ä": 2})
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]
    assert json.loads((tmp_path / "a.json").read_text(encoding="utf-8")) == {"ä": 2}
    plain = tmp_path / "plain"
    plain.touch()
    assert (tmp_path / "a.json").stat().st_mode == plain.stat().st_mode, "readable by others as usual"


def test_what_json_cannot_say_is_refused(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", 1)
    with pytest.raises(ValueError, match="JSON"):
        write_json(tmp_path / "a.json", float("nan"))
    assert (tmp_path / "a.json").read_text().strip() == "1"
