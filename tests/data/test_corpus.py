"""Texts of any format and size: documents, parts, and token ids on disk."""

from __future__ import annotations

import errno
import gzip
import json
import multiprocessing
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import parquet

from modgpt.commands.train import main
from modgpt.data import corpus as corpora
from modgpt.data import token_ids
from modgpt.data.corpus import Part, Text, cut_in_shares
from modgpt.data.datamodule import TextDataModule
from modgpt.data.sources import pieces
from modgpt.data.sources.files import find_files
from modgpt.data.tokenizers.base import Tokenizer
from modgpt.data.tokenizers.bpe import bpe_tokenizer
from modgpt.data.tokenizers.byte import ByteTokenizer
from modgpt.data.tokenizers.char import CharTokenizer
from modgpt.data.tokenizers.lossless import LosslessCheck
from modgpt.data.tokenizers.saved import load_tokenizer
from modgpt.data.tokenizers.unigram import unigram_tokenizer
from modgpt.errors import UserError
from tests.data.parts import part_of
from tests.data.test_trained_tokenizers import SIZE, TEXT

DOCUMENTS = ["To be,\r\nor not\n", "that is — ¿ä 汉字 😀", "the question " * 40]


def rows(documents: list[str], field: str = "text") -> list[dict[str, Any]]:
    return [{"id": i, field: text} for i, text in enumerate(documents)]


def write_jsonl(path: Path) -> None:
    path.write_text("\n".join(map(json.dumps, rows(DOCUMENTS))) + "\n\n", encoding="utf-8")


def write_parquet(path: Path) -> None:
    parquet.write_table(pa.Table.from_pylist(rows(DOCUMENTS)), path)


def packed(path: Path) -> None:
    write_jsonl(path.with_suffix(""))
    raw = path.with_suffix("").read_bytes()
    path.with_suffix("").unlink()
    pack = gzip.compress if path.suffix == ".gz" else zstandard.ZstdCompressor().compress
    path.write_bytes(pack(raw))


WRITERS: dict[str, Callable[[Path], None]] = {
    "web.jsonl": write_jsonl,
    "web.parquet": write_parquet,
    "web.jsonl.gz": packed,
    "web.jsonl.zst": packed,
}


@pytest.mark.parametrize("name", WRITERS)
def test_every_format_gives_the_same_documents(name: str, tmp_path: Path) -> None:
    WRITERS[name](tmp_path / name)
    text = Text(tuple(find_files(str(tmp_path / name))))
    assert [piece.text for piece in text.pieces()] == DOCUMENTS
    assert text.scan(tmp_path) == Text(of_files(tmp_path)).scan(tmp_path)


def of_files(folder: Path) -> tuple[Path, ...]:
    """The documents as plain files."""
    (folder / "plain").mkdir()
    for i, text in enumerate(DOCUMENTS):
        (folder / "plain" / f"{i}.txt").write_text(text, encoding="utf-8", newline="")
    return tuple(find_files(str(folder / "plain")))


def test_a_folder_and_a_pattern_are_read_in_the_order_of_names(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    for name in ("b/2.txt", "1.txt", "b/3.txt.gz", "notes.md"):
        content = name.encode()
        (tmp_path / name).write_bytes(
            gzip.compress(content, mtime=0) if name.endswith("gz") else content
        )
    found = [piece.text for piece in Text(tuple(find_files(str(tmp_path)))).pieces()]
    assert found == ["1.txt", "b/2.txt", "b/3.txt.gz"]
    assert [file.name for file in find_files(str(tmp_path / "**" / "*.txt"))] == ["1.txt", "2.txt"]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.jsonl", b'{"text": 1}', r"line 1: text must be a text, got int"),
        ("a.jsonl", b'{"body": "x", "id": 1}', r"has no field text: there are body, id; data.field="),
        ("a.jsonl", b'{"text": "x"}\n{', r"line 2: not JSON"),
        ("a.jsonl", b"[1]", r"a record must be an object, got list"),
        ("a.txt.gz", b"no gzip", r"cannot read .*: Not a gzipped file"),
        ("a.txt.zst", b"no zstd", r"cannot read "),
        ("a.parquet", b"no parquet", r"cannot read "),
        ("a.txt.gz", gzip.compress(b"ab\xff", mtime=0), r"not UTF-8: byte 0xff at offset 2"),
        ("a.txt", "ä".encode()[:1], r"not UTF-8: byte 0xc3 at offset 0"),
        ("a.jsonl", b"\n", r"is empty"),
    ],
)
def test_what_cannot_be_read_is_said_in_a_line(
    name: str, content: bytes, message: str, tmp_path: Path
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=message) as caught:
        Text(tuple(find_files(str(tmp_path / name)))).scan(tmp_path)
    assert "\n" not in str(caught.value)


def test_a_missing_column_is_named(tmp_path: Path) -> None:
    write_parquet(tmp_path / "a.parquet")
    with pytest.raises(ValueError, match="has no field body: there are id, text"):
        list(Text((tmp_path / "a.parquet",), "body").pieces())


def test_bytes_that_no_read_cuts_at_a_character(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.txt").write_bytes(("ä汉😀 " * 50).encode() + b"\xff")
    for size in (1, 2, 3, 7):
        monkeypatch.setattr(pieces, "SIZE", size)
        with pytest.raises(ValueError, match="byte 0xff at offset 500"):
            list(Text((tmp_path / "a.txt",)).pieces())


# --- the ids do not depend on how the text is read ------------------------------------------------

WORDS = "Alas, poor Yorick! I knew him: don't  you?\n\n\tA fellow 1603 — of infinite jest… 汉字\r\n"
TRAINED = {"bpe": bpe_tokenizer, "unigram": unigram_tokenizer}


@pytest.fixture(scope="module")
def tokenizers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Tokenizer]:
    cache, text = str(tmp_path_factory.mktemp("cache")), part_of(TEXT)
    trained = {k: make(text, vocab_size=SIZE, cache_dir=cache) for k, make in TRAINED.items()}
    return {"byte": ByteTokenizer(), **trained}


@settings(max_examples=100, deadline=None)
@given(text=st.text(max_size=200), extra=st.integers(0, len(WORDS)), size=st.integers(1, 40))
def test_a_text_in_pieces_has_the_ids_of_the_whole(
    tokenizers: dict[str, Tokenizer], text: str, extra: int, size: int
) -> None:
    whole = text + WORDS[:extra] + text
    if not whole:
        return
    part = part_of(whole)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pieces, "SIZE", size)
        patch.setattr(token_ids, "BATCH", size)
        for tokenizer in tokenizers.values():
            encoded = token_ids.in_memory(part, tokenizer, np.dtype(np.uint16))
            assert encoded.ids.tolist() == tokenizer.encode(whole).tolist()
            assert encoded.counts.characters == len(whole)
            assert encoded.counts.bytes == len(whole.encode())
            # As read from the file of a run: encoded in whole documents.
            saved = load_tokenizer(tokenizer.to_dict())
            assert np.array_equal(token_ids.in_memory(part, saved, np.dtype(np.uint16)).ids, encoded.ids)


@pytest.mark.parametrize("kind", TRAINED)
def test_documents_are_split_by_characters_and_separated(kind: str, tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text("\n".join(json.dumps({"text": t}) for t in ("abcdefgh", "ij")))
    corpus = cut_in_shares(Text((tmp_path / "a.jsonl",)), tmp_path)
    train, held_out = (list(p.pieces()) for p in corpus.parts.values())
    assert train == [("abcdefgh", True), ("i", True)] and held_out == [("j", True)]
    encoded = token_ids.encode_corpus(corpus, ByteTokenizer(), tmp_path)
    assert encoded["train"].ids.tobytes().decode("utf-16-le") == "abcdefgh\n\ni\n\n"
    assert encoded["train"].counts == token_ids.Counts(tokens=13, characters=9, bytes=9)
    many = Text((tmp_path / "b.jsonl",))
    many.files[0].write_text(
        "\n".join(json.dumps({"text": TEXT[i : i + 400]}) for i in range(0, 4000, 400))
    )
    corpus = cut_in_shares(many, tmp_path)
    trained = TRAINED[kind](corpus.parts["train"], vocab_size=SIZE, cache_dir=str(tmp_path))
    end = trained.end_of_text
    assert len(trained) == SIZE and end is not None and trained.decode([end]) == "<|endoftext|>"
    ids = token_ids.encode_corpus(corpus, trained, tmp_path)["train"].ids.tolist()
    assert ids.count(end) == 9 and trained.decode(ids) == "".join(
        f"{TEXT[i : i + 400]}<|endoftext|>" for i in range(0, 3600, 400)
    )
    with pytest.raises(UserError, match=r"must be at least 25[78], got 256"):
        TRAINED[kind](corpus.parts["train"], vocab_size=256, cache_dir=str(tmp_path))


def test_a_saved_tokenizer_may_lose_a_space_only_where_the_corpus_is_cut() -> None:
    class Drops(ByteTokenizer):
        lossless = False

        def decode(self, ids: Any) -> str:
            return super().decode(ids).removeprefix(" ")

    def check(*texts: str, at_cut: bool) -> None:
        LosslessCheck(Drops())(texts, Drops().encode_batch(texts), 0, at_cut)

    check(" first", "next", at_cut=True)
    with pytest.raises(UserError, match=r"the tokenizer changes the text: from character 0 on ' first'"):
        check(" first", "next", at_cut=False)
    with pytest.raises(UserError, match=r"the tokenizer changes the text: from character 6 on ' next'"):
        check(" first", " next", at_cut=True)


# --- on disk --------------------------------------------------------------------------------------


@pytest.fixture
def large(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every text counts as large, and is encoded in small batches."""
    for module in (corpora, token_ids):
        monkeypatch.setattr(module, "LARGE", 0)
    monkeypatch.setattr(pieces, "SIZE", 64)
    monkeypatch.setattr(token_ids, "BATCH", 100)


def module_of(folder: Path, **changes: Any) -> TextDataModule:
    options: dict[str, Any] = {"tokenizer": CharTokenizer.from_text, "path": str(folder / "text.txt")}
    options |= {"cache_dir": str(folder / "cache"), "field": "text", "seed": 0, "block_size": 8}
    return TextDataModule(**options | {"batch_size": 4, "eval_batch_size": 3} | changes)


def batches_of(data: TextDataModule) -> list[list[int]]:
    data.load()
    drawn = [data.training_batches().batch(i) for i in range(3)]
    return [batch.flatten().tolist() for batch in (*drawn, *data.validation_batches())]


def test_the_ids_on_disk_are_those_in_memory(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    (tmp_path / "text.txt").write_text(WORDS * 20, encoding="utf-8", newline="")
    wanted = batches_of(module_of(tmp_path))
    assert not (tmp_path / "cache").exists(), "a small text is kept in memory"
    request.getfixturevalue("large")
    assert batches_of(module_of(tmp_path)) == wanted
    [folder] = (path for path in (tmp_path / "cache").iterdir() if path.is_dir())
    assert sorted(file.name for file in folder.iterdir()) == ["meta.json", "train.bin", "validation.bin"]
    assert (folder / "train.bin").stat().st_size == 2 * int(0.9 * 20 * len(WORDS)), "uint16"
    data = module_of(tmp_path)
    data.load()
    assert isinstance(data.parts["train"].ids, np.memmap)


@pytest.mark.usefixtures("large")
def test_a_text_is_read_and_encoded_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "text.txt").write_text(WORDS * 20, encoding="utf-8", newline="")
    tokenizer = CharTokenizer.from_text(WORDS)
    wanted = batches_of(module_of(tmp_path, tokenizer=lambda *texts: tokenizer))

    def never(*_: object) -> None:
        raise AssertionError("the text is read again")

    monkeypatch.setattr(corpora, "read_pieces", never)
    assert batches_of(module_of(tmp_path, tokenizer=lambda *texts: tokenizer)) == wanted
    monkeypatch.undo()
    monkeypatch.setattr(corpora, "LARGE", 0)
    monkeypatch.setattr(token_ids, "LARGE", 0)
    (tmp_path / "text.txt").write_text("another text " * 90)
    assert batches_of(module_of(tmp_path)) != wanted, "a changed file is another text"


@pytest.mark.usefixtures("large")
@pytest.mark.parametrize("file", ["train.bin", "meta.json"])
def test_a_damaged_folder_is_not_used(file: str, tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text(WORDS * 20, encoding="utf-8", newline="")
    wanted = batches_of(module_of(tmp_path))
    [found] = (tmp_path / "cache").glob(f"tokens-*/{file}")
    found.write_bytes(found.read_bytes()[:-3])
    assert batches_of(module_of(tmp_path)) == wanted


@pytest.mark.usefixtures("large")
@pytest.mark.parametrize("stopped_at", [1, 7, -1])  # the last batch is one of the validation part
@pytest.mark.parametrize("left", ["more", "less"])
def test_an_interrupted_encoding_goes_on(stopped_at: int, left: str, tmp_path: Path) -> None:
    """Every batch is encoded once, but for the one that was stopped and for those that were lost."""
    (tmp_path / "text.txt").write_text(WORDS * 20, encoding="utf-8", newline="")
    wanted = ids_of(module_of(tmp_path, cache_dir=str(tmp_path / "other")))
    calls: list[int] = []
    number = stopped_at if stopped_at > 0 else len(every_batch(tmp_path))

    class Stops(CharTokenizer):
        def encode_batch(self, texts: Any) -> Any:
            calls.append(len(texts))
            if len(calls) == number:
                raise KeyboardInterrupt
            return super().encode_batch(texts)

    with pytest.raises(KeyboardInterrupt):
        module_of(tmp_path, tokenizer=Stops.from_text).load()
    [folder] = (tmp_path / "cache").glob(".tokens-*")
    for part in folder.glob("*.bin"):
        raw = part.read_bytes()
        part.write_bytes(raw + b"\1\2\3" if left == "more" else raw[:-2])
    assert ids_of(module_of(tmp_path, tokenizer=Stops.from_text)) == wanted
    if left == "more":  # what a kill can leave behind the last complete batch
        assert len(calls) == len(every_batch(tmp_path)) + 1
    [whole] = (tmp_path / "cache").glob("tokens-*/")
    assert sorted(file.name for file in whole.iterdir()) == ["meta.json", "train.bin", "validation.bin"]


def ids_of(data: TextDataModule) -> list[list[int]]:
    data.load()
    return [part.ids.tolist() for part in data.parts.values()]


def every_batch(folder: Path) -> list[list[pieces.Piece]]:
    parts = cut_in_shares(Text((folder / "text.txt",)), folder).parts.values()
    return [batch for part in parts for batch in token_ids.batches(part.pieces(), cuts=True)]


@pytest.mark.parametrize("size", ["small", "large"])
def test_a_text_that_shrinks_while_it_is_read_is_refused(
    size: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    if size == "large":
        request.getfixturevalue("large")
    (tmp_path / "text.txt").write_text(WORDS * 20, encoding="utf-8", newline="")

    def shrinks(*_: Part) -> Tokenizer:
        (tmp_path / "text.txt").write_text(WORDS, encoding="utf-8", newline="")
        return ByteTokenizer()

    with pytest.raises(ValueError, match=r"text.txt has changed while it was read: start again"):
        module_of(tmp_path, tokenizer=shrinks).load()


def _load(folder: str) -> int:
    for module in (corpora, token_ids):
        module.LARGE = 0  # pyright: ignore
    data = module_of(Path(folder))
    data.load()
    return int(data.parts["train"].ids.sum())


def test_two_processes_at_once_are_harmless(tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text(WORDS * 200, encoding="utf-8", newline="")
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        sums = pool.map(_load, [str(tmp_path)] * 4, chunksize=1)
    assert len(set(sums)) == 1
    assert len(list((tmp_path / "cache").glob("tokens-*/meta.json"))) == 1


@pytest.mark.usefixtures("large")
def test_a_full_disk_is_a_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "text.txt").write_text(WORDS * 20, encoding="utf-8", newline="")

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(token_ids.os, "fsync", full)
    with pytest.raises(UserError, match=r"No space left on device; data.cache_dir=FOLDER") as caught:
        module_of(tmp_path).load()
    assert "\n" not in str(caught.value)
    assert not list((tmp_path / "cache").glob("tokens-*/"))


@pytest.mark.usefixtures("large")
def test_a_run_on_ids_from_disk_is_that_on_ids_in_memory(
    overrides: Callable[..., list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def trained(name: str) -> float:
        cache = f"data.cache_dir={tmp_path / name}"
        assert main(overrides(cache, "trainer.max_steps=10", f"run_name={name}")) == 0
        return json.loads((tmp_path / "runs" / name / "result.json").read_text())["final_val_loss"]

    from_disk = trained("disk")
    assert (tmp_path / "disk").exists()
    monkeypatch.undo()
    assert trained("memory") == from_disk and not (tmp_path / "memory").exists()


def test_a_part_is_read_as_often_as_needed() -> None:
    part: Part = part_of("abc")
    assert list(part) == list(part) == ["abc"]
