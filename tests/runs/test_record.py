"""What is said of a record that cannot be read. Damaged records have tests of their own."""

from __future__ import annotations

from pathlib import Path

import pytest

from modgpt.errors import UserError
from modgpt.runs.record import FORMAT, read_record


@pytest.mark.parametrize("content", [None, "{", '{"format": "\\u001b[2J"}', f'{{"format": {FORMAT}}}'])
def test_names_and_values_in_messages_command_no_terminal(content: str | None, tmp_path: Path) -> None:
    folder = tmp_path / "run\x1b[2J\u202e"
    folder.mkdir()
    if content is not None:
        (folder / "result.json").write_text(content)
    with pytest.raises(UserError, match=r"run\\x1b\[2J\\u202e") as refusal:
        read_record(folder)
    assert "\x1b" not in str(refusal.value) and "\u202e" not in str(refusal.value)
