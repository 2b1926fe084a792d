"""What is not a readable text file: one line each, before anything is read or written."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from modgpt.commands.train import main
from modgpt.data.corpus import Text
from modgpt.data.sources import shakespeare
from modgpt.data.sources.files import find_files


def a_pipe(path: Path) -> Path:
    os.mkfifo(path)
    return path


def a_socket(path: Path) -> Path:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
    return path


def of_bytes(content: bytes) -> Callable[[Path], Path]:
    def make(path: Path) -> Path:
        path.write_bytes(content)
        return path

    return make


def a_folder(path: Path) -> Path:
    path.mkdir()
    return path


def a_link(path: Path) -> Path:
    path.symlink_to("/dev/zero")
    return path


UNREADABLE = [
    (a_pipe, "is a pipe, not a regular file: save its text to a file"),
    (a_socket, "is a socket, not a regular file"),
    (a_link, "is a device, not a regular file"),
    (lambda path: Path("/dev/zero"), "/dev/zero is a device, not a regular file"),
    (a_folder, "has no text: no file in it ends in .txt, .jsonl, .parquet"),
    (lambda path: path.with_name("*.txt"), "no file matches "),
    (lambda path: path, "no such file: "),
    (lambda path: path.with_name("x" * 300), "File name too long"),
    (of_bytes(b""), "is empty"),
    (of_bytes("ä".encode() * 50 + b"\xff\xfe" + b"b" * 50), "is not UTF-8: byte 0xff at offset 100"),
    (of_bytes(b"short"), "has 5 characters: model.block_size=16 needs at least 19"),
]


@pytest.mark.parametrize(("make", "text"), UNREADABLE, ids=[text for _, text in UNREADABLE])
def test_what_is_no_corpus_is_refused_in_one_line(
    make: Callable[[Path], Path],
    text: str,
    overrides: Callable[..., list[str]],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(overrides(f"data.path={make(tmp_path / 'corpus')}")) == 2
    error = capsys.readouterr().err
    assert text in error and error.count("\n") == 1
    assert not (tmp_path / "runs").exists()


def test_a_link_to_a_text_is_a_text(tmp_path: Path) -> None:
    (tmp_path / "text").write_bytes("line\r\nanother ¿é\n".encode())
    (tmp_path / "link").symlink_to(tmp_path / "text")
    found = Text(tuple(find_files(str(tmp_path / "link"))))
    assert list(found.pieces()) == [("line\r\nanother ¿é\n", True)]


def test_a_data_dir_that_is_none_is_refused(
    overrides: Callable[..., list[str]],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(shakespeare, "SOURCES", [])  # nothing is downloaded before it is refused
    arguments = [o for o in overrides() if not o.startswith("data=") and not o.startswith("data.path")]
    assert main([*arguments, f"data.data_dir={tmp_path / 'file'}"]) == 2
    assert f"{tmp_path / 'file'} is not a folder to write to" in capsys.readouterr().err
    os.mkfifo(tmp_path / "tinyshakespeare.txt")
    assert main([*arguments, f"data.data_dir={tmp_path}"]) == 2
    assert "is a pipe" in capsys.readouterr().err
