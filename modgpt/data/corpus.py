"""A corpus: documents, of any total size, in the parts on which models are trained and measured."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from modgpt.data.progress import watched
from modgpt.data.sources.pieces import Piece, read_pieces
from modgpt.files import write_json

TRAIN, VALIDATION, TEST = "train", "validation", "test"
SHARES = (0.9, 0.1)  # of the characters, in the order of the text: for training, for validation
LARGE = 2**21  # bytes or characters: what is known of a text above this size is kept on disk
SEPARATOR = "\n\n"  # between documents, for tokenizers without a token that ends a text
BETWEEN = b"\xff"  # a byte that no UTF-8 has, between two documents


@dataclass(frozen=True)
class Scan:
    """What one reading of a text finds.

    Attributes:
        digest: SHA-256 of its UTF-8, with the byte 255 between documents.
        characters, bytes, documents: how many.
        alphabet: the distinct characters, sorted; those of `SEPARATOR` too where it is needed.
    """

    digest: str
    characters: int
    bytes: int
    documents: int
    alphabet: str


@dataclass(frozen=True)
class Text:
    """The documents in some files.

    Attributes:
        files: in their order.
        field: of a record: the name of its text.
    """

    files: tuple[Path, ...]
    field: str = "text"

    @property
    def name(self) -> str:
        """How messages call it."""
        return str(self.files[0]) if len(self.files) == 1 else str(self.files[0].parent)

    @property
    def stored(self) -> int:
        """Bytes of the files, packed as they are."""
        return sum(file.stat().st_size for file in self.files)

    def pieces(self) -> Iterator[Piece]:
        """The documents in pieces."""
        return read_pieces(self.files, self.field)

    def scan(self, cache_dir: Path) -> Scan:
        """Read everything once; of large files that have not changed since, the earlier finding.

        Unchanged are files with the same path, size, time of modification and number on the disk.

        Raises:
            ValueError: a file cannot be read, or there is no text.
        """
        if self.stored <= LARGE:
            return self.read()
        stats = [(str(file.resolve()), file.stat()) for file in self.files]
        seen = [[name, stat.st_size, stat.st_mtime_ns, stat.st_ino] for name, stat in stats]
        key = hashlib.sha256(json.dumps([seen, self.field]).encode()).hexdigest()
        file = cache_dir / f"scan-{key[:16]}.json"
        with suppress(OSError, ValueError, TypeError):
            return Scan(**json.loads(file.read_text(encoding="utf-8")))
        found = self.read()
        with suppress(OSError):  # then the next start reads everything again
            file.parent.mkdir(parents=True, exist_ok=True)
            write_json(file, asdict(found))
        return found

    def read(self) -> Scan:
        """Read everything.

        Raises:
            ValueError: a file cannot be read, or there is no text.
        """
        digest, characters, size, documents, inside = hashlib.sha256(), 0, 0, 0, False
        alphabet = set[str]()
        for piece in watched(self.pieces(), f"reading {self.name}", self.stored):
            if documents and not inside:
                digest.update(BETWEEN)
            raw = piece.text.encode()
            digest.update(raw)
            characters += len(piece.text)
            size += len(raw)
            alphabet.update(piece.text)
            inside = not piece.ends
            documents += piece.ends
        if not characters:
            raise ValueError(f"{self.name} is empty")
        alphabet.update(SEPARATOR * (documents > 1))
        distinct = "".join(sorted(alphabet))
        return Scan(digest.hexdigest(), characters, size, documents, distinct)


@dataclass(frozen=True)
class Part:
    """A stretch of a text, which can be read as often as needed.

    Attributes:
        text: the whole text.
        digest: of the text and the stretch.
        start, stop: the characters.
        several: whether the text has several documents.
        alphabet: the distinct characters of the whole text, sorted.
    """

    text: Text
    digest: str
    start: int
    stop: int
    several: bool
    alphabet: str

    @property
    def characters(self) -> int:
        return self.stop - self.start

    def pieces(self) -> Iterator[Piece]:
        """The documents in pieces; a document can be cut at either end of the stretch."""
        at = 0
        for piece in self.text.pieces():
            begin, at = at, at + len(piece.text)
            if at <= self.start:
                continue
            cut = piece.text[max(0, self.start - begin) : self.stop - begin]
            if at >= self.stop:
                yield Piece(cut, True)
                return
            yield Piece(cut, piece.ends)

    def __iter__(self) -> Iterator[str]:
        """The pieces as texts, where there are several documents with `SEPARATOR` after each."""
        for piece in self.pieces():
            yield piece.text + SEPARATOR * (piece.ends and self.several)


@dataclass(frozen=True)
class Corpus:
    """The parts of a corpus.

    Attributes:
        name: in messages.
        digest: SHA-256: losses are comparable if it is the same.
        parts: by name; `train` and `validation` at least.
    """

    name: str
    digest: str
    parts: dict[str, Part]


def cut_in_shares(text: Text, cache_dir: Path, shares: Sequence[float] = SHARES) -> Corpus:
    """A corpus of one text: its first part is for training, the next for validation, a third for tests.

    The text is cut before it is encoded, by characters. So every tokenizer is measured on the same text,
    and a trained one has not seen it.

    Args:
        text: the text.
        cache_dir: where findings about large files are kept.
        shares: of the characters for each part; they sum to 1.

    Raises:
        ValueError: as `Text.scan`.
    """
    scan = text.scan(cache_dir)
    ends = [int(sum(shares[: i + 1]) * scan.characters) for i in range(len(shares) - 1)]
    bounds = [0, *ends, scan.characters]
    parts = {
        name: part(text, scan, start, stop)
        for name, start, stop in zip((TRAIN, VALIDATION, TEST), bounds, bounds[1:], strict=False)
    }
    return Corpus(text.name, scan.digest, parts)


def of_parts(name: str, texts: dict[str, Text], cache_dir: Path) -> Corpus:
    """A corpus whose parts are texts of their own.

    Args:
        name: in messages.
        texts: by the names of the parts.
        cache_dir: where findings about large files are kept.

    Raises:
        ValueError: as `Text.scan`.
    """
    scans = {part_name: text.scan(cache_dir) for part_name, text in texts.items()}
    digests = json.dumps({part_name: scan.digest for part_name, scan in scans.items()})
    parts = {n: part(texts[n], scan, 0, scan.characters) for n, scan in scans.items()}
    return Corpus(name, hashlib.sha256(digests.encode()).hexdigest(), parts)


def part(text: Text, scan: Scan, start: int, stop: int) -> Part:
    """A stretch of a scanned text."""
    digest = hashlib.sha256(f"{scan.digest} {start} {stop}".encode()).hexdigest()
    return Part(text, digest, start, stop, scan.documents > 1, scan.alphabet)
