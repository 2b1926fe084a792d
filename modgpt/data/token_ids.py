"""The token ids of a corpus: in memory for a small one, memory-mapped files for a large one.

A cache folder holds, for one corpus and one tokenizer, a file of ids for each part and `meta.json`:

train.bin, validation.bin, …   uint16 or uint32, one id after the other
meta.json                      the key of the folder, and the counts of every part

A folder is filled under a name of its own and then renamed, so that a whole one is there or none.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import filelock
import numpy as np
from numpy.typing import NDArray

from modgpt.data.corpus import LARGE, SEPARATOR, Corpus, Part
from modgpt.data.progress import watched
from modgpt.data.sources import pieces
from modgpt.data.sources.pieces import Piece
from modgpt.data.tokenizers.base import Tokenizer
from modgpt.data.tokenizers.lossless import LosslessCheck
from modgpt.errors import UserError
from modgpt.files import write_json

Ids = NDArray[np.unsignedinteger]
BATCH = 2**22  # characters that are encoded at once
META, PROGRESS = "meta.json", ".progress"


@dataclass(frozen=True)
class Counts:
    """What a part of a corpus has: tokens, characters, and bytes of UTF-8."""

    tokens: int = 0
    characters: int = 0
    bytes: int = 0

    def __add__(self, other: Counts) -> Counts:
        pairs = zip(asdict(self).values(), asdict(other).values(), strict=True)
        return Counts(*(a + b for a, b in pairs))


@dataclass(frozen=True)
class Encoded:
    """A part of a corpus as token ids.

    Attributes:
        ids: (N,).
        counts: of the part. Separators between documents are tokens, but no characters.
    """

    ids: Ids
    counts: Counts


def encode_corpus(corpus: Corpus, tokenizer: Tokenizer, cache_dir: Path) -> dict[str, Encoded]:
    """The token ids of every part.

    Texts above `LARGE` characters are encoded once and kept in `cache_dir`; every later start maps the
    files into memory. Several processes may ask for the same corpus: one encodes it, the others wait.

    Raises:
        UserError: a character cannot be encoded, the tokenizer changes the text, or the cache cannot be
            written.
    """
    kind = np.dtype(np.uint16 if len(tokenizer) <= 2**16 else np.uint32)
    if sum(part.characters for part in corpus.parts.values()) <= LARGE:
        return {name: in_memory(part, tokenizer, kind) for name, part in corpus.parts.items()}
    # The sizes too: an encoding that was stopped goes on only with the same batches.
    settings = [corpus.digest, tokenizer.to_dict(), BATCH, pieces.SIZE]
    key = hashlib.sha256(json.dumps(settings).encode()).hexdigest()
    folder = cache_dir / f"tokens-{key[:16]}"
    try:
        cache_dir.mkdir(parents=True, exist_ok=True)
        with filelock.FileLock(cache_dir / f"{folder.name}.lock"):
            counts = read_meta(folder, key, kind)
            if counts is None:
                counts = write_folder(folder, key, corpus, tokenizer, kind)
        return {name: Encoded(mapped(folder / f"{name}.bin", kind), n) for name, n in counts.items()}
    except OSError as error:
        raise UserError(
            f"cannot keep the tokens of {corpus.name} in {cache_dir}: {error.strerror or error}; "
            "data.cache_dir=FOLDER takes another folder"
        ) from error


def in_memory(part: Part, tokenizer: Tokenizer, kind: np.dtype) -> Encoded:
    """The ids of a part as an array."""
    arrays, counts = [], Counts()
    for ids, found in encoded(part, tokenizer):
        arrays.append(ids.astype(kind))
        counts += found
    check_whole(part, counts)
    return Encoded(np.concatenate(arrays) if arrays else np.zeros(0, kind), counts)


def write_folder(
    folder: Path, key: str, corpus: Corpus, tokenizer: Tokenizer, kind: np.dtype
) -> dict[str, Counts]:
    """Encode every part into a folder beside, which then gets its name; returns the counts."""
    beside = folder.with_name(f".{folder.name}")
    beside.mkdir(exist_ok=True)
    counts = {
        name: write_part(beside / f"{name}.bin", part, tokenizer, kind)
        for name, part in corpus.parts.items()
    }
    write_json(beside / META, {"key": key, "parts": {name: asdict(n) for name, n in counts.items()}})
    for progress in beside.glob(f"*{PROGRESS}"):
        progress.unlink()
    shutil.rmtree(folder, ignore_errors=True)  # a damaged one
    beside.rename(folder)
    return counts


def write_part(file: Path, part: Part, tokenizer: Tokenizer, kind: np.dtype) -> Counts:
    """Encode a part into a file, from where an earlier process was stopped."""
    progress = file.with_suffix(PROGRESS)
    done, counts = 0, Counts()
    with suppress(OSError, ValueError, TypeError, KeyError):
        state = json.loads(progress.read_text(encoding="utf-8"))
        before = Counts(**state["counts"])
        if file.stat().st_size >= before.tokens * kind.itemsize:
            done, counts = int(state["batches"]), before
    with file.open("r+b" if done else "wb") as out:
        out.truncate(counts.tokens * kind.itemsize)
        out.seek(0, os.SEEK_END)
        for ids, found in encoded(part, tokenizer, done):
            ids.astype(kind).tofile(out)
            out.flush()
            os.fsync(out.fileno())
            done, counts = done + 1, counts + found
            write_json(progress, {"batches": done, "counts": asdict(counts)})
    check_whole(part, counts)
    return counts


def check_whole(part: Part, counts: Counts) -> None:
    """Refuse ids of a text that has become shorter since it was scanned.

    Raises:
        ValueError: it has.
    """
    if counts.characters != part.characters:
        raise ValueError(f"{part.text.name} has changed while it was read: start again")


def encoded(part: Part, tokenizer: Tokenizer, skipped: int = 0) -> Iterator[tuple[Ids, Counts]]:
    """The ids of a part, batch by batch, with the counts of each batch.

    Args:
        part: the part.
        tokenizer: encodes; on all cores where its library does.
        skipped: batches at the beginning that are read and not encoded.
    """
    end, check = tokenizer.end_of_text, LosslessCheck(tokenizer)
    at = part.start
    read = watched(part.pieces(), f"encoding {part.text.name}", part.characters)
    for number, batch in enumerate(batches(read, tokenizer.cuts)):
        begin, at = at, at + sum(len(piece.text) for piece in batch)
        if number < skipped:
            continue
        texts = [piece.text for piece in batch]
        if part.several and end is None:
            texts = [text + SEPARATOR * ends for text, ends in batch]
        arrays = tokenizer.encode_batch(texts)
        check(texts, arrays, begin, at_cut=number == 0 and part.start > 0)
        if part.several and end is not None:
            pairs = zip(batch, arrays, strict=True)
            arrays = [np.append(ids, end) if piece.ends else ids for piece, ids in pairs]
        ids = np.concatenate(arrays)
        size = sum(len(piece.text.encode()) for piece in batch)
        yield ids, Counts(len(ids), at - begin, size)


def batches(read: Iterator[Piece], cuts: bool) -> Iterator[list[Piece]]:
    """Lists of about `BATCH` characters; of whole documents where a tokenizer does not allow cuts."""
    batch: list[Piece] = []
    held: list[str] = []  # of a document that is not complete
    size = 0
    for piece in read:
        size += len(piece.text)
        if cuts or (piece.ends and not held):
            batch.append(piece)
        else:
            held.append(piece.text)
            if not piece.ends:
                continue
            batch.append(Piece("".join(held), True))
            held = []
        if size >= BATCH:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def read_meta(folder: Path, key: str, kind: np.dtype) -> dict[str, Counts] | None:
    """The counts of a folder's parts; None where the folder is not there or not whole."""
    try:
        meta = json.loads((folder / META).read_text(encoding="utf-8"))
        counts = {name: Counts(**found) for name, found in meta["parts"].items()}
        sizes = [(folder / f"{name}.bin").stat().st_size for name in counts]
        whole = sizes == [n.tokens * kind.itemsize for n in counts.values()]
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None
    return counts if whole and meta["key"] == key else None


def mapped(file: Path, kind: np.dtype) -> Ids:
    """The ids in a file, mapped into memory."""
    return np.memmap(file, kind, mode="r") if file.stat().st_size else np.zeros(0, kind)
