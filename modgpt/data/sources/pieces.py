"""Documents read from files in pieces, so that a text of any size fits into memory."""

from __future__ import annotations

import codecs
import gzip
import io
import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO, NamedTuple

from modgpt.data.sources.files import kind_of, packing_of

SIZE = 2**20  # bytes read at once
LONGEST_WORD = 10_000  # characters that are searched for white space before a text is cut


class Piece(NamedTuple):
    """A part of a document, and whether it is the last one."""

    text: str
    ends: bool


def read_pieces(files: Sequence[Path], field: str) -> Iterator[Piece]:
    """The documents of some files, one after the other.

    Plain text is one document per file, JSON lines and Parquet one per record. Line ends stay as they
    are. Empty documents are left out.

    Args:
        files: by their endings `.jsonl` and `.parquet`, else plain text; `.gz` or `.zst` in addition.
        field: of a record: the name of its text.

    Raises:
        ValueError: a file is not UTF-8, is damaged, or has a record without that field.
    """
    for file in files:
        try:
            yield from READERS.get(kind_of(file), plain)(file, field)
        except ValueError:
            raise
        except Exception as error:  # each packing has errors of its own
            reason = getattr(error, "strerror", None) or str(error)
            raise ValueError(f"cannot read {file}: {reason}") from error


def plain(file: Path, field: str) -> Iterator[Piece]:
    """The pieces of a plain text. Each but the first begins with the white space after a word."""
    held = ""
    with unpacked(file) as stream:
        for text in decoded(stream, file):
            at = before_space(held)
            if at < len(held) or at >= LONGEST_WORD:
                yield Piece(held[:at], False)
                held = held[at:]
            held += text
    if held:
        yield Piece(held, True)


def before_space(text: str) -> int:
    """Where to cut: before the last white space that follows a word; at the end without any.

    Byte-level tokenizers end a token there, whatever comes later. So the pieces of a text have the ids
    of the whole text.
    """
    for at in range(len(text) - 1, max(0, len(text) - LONGEST_WORD), -1):
        if text[at].isspace() and not text[at - 1].isspace():
            return at
    return len(text)


def decoded(stream: IO[bytes], file: Path) -> Iterator[str]:
    """The text of a stream of UTF-8.

    Raises:
        ValueError: it is not UTF-8; the message gives the offset of the byte.
    """
    decoder, start = codecs.getincrementaldecoder("utf-8")(), 0
    while True:
        raw = stream.read(SIZE)
        held = decoder.getstate()[0]
        try:
            text = decoder.decode(raw, final=not raw)
        except UnicodeDecodeError as error:
            at = start - len(held) + error.start
            byte = (held + raw)[error.start]
            raise ValueError(f"{file} is not UTF-8: byte 0x{byte:02x} at offset {at}") from error
        if text:
            yield text
        if not raw:
            return
        start += len(raw)


def json_lines(file: Path, field: str) -> Iterator[Piece]:
    """A document per line, each a JSON object."""
    with unpacked(file) as stream:
        for number, line in enumerate(stream, 1):
            if not line.strip():
                continue
            try:
                record = json.loads(line)
            except (ValueError, RecursionError) as error:
                raise ValueError(f"{file}, line {number}: not JSON ({type(error).__name__})") from error
            yield from document(record, field, f"{file}, line {number}")


def parquet(file: Path, field: str) -> Iterator[Piece]:
    """A document per row; only the column of the text is read."""
    try:
        from pyarrow import ArrowException
        from pyarrow.parquet import ParquetFile
    except ImportError:
        raise missing(file, "pyarrow") from None
    try:
        with ParquetFile(file) as table:
            names = table.schema_arrow.names
            if field not in names:
                raise ValueError(no_field(file, field, names))
            for batch in table.iter_batches(batch_size=1000, columns=[field]):
                for number, text in enumerate(batch.column(0).to_pylist(), 1):
                    yield from document({field: text}, field, f"{file}, a row near {number}")
    except ArrowException as error:
        raise ValueError(f"cannot read {file}: {str(error).splitlines()[0]}") from error


def document(record: object, field: str, where: str) -> Iterator[Piece]:
    """The text of a record, unless it is empty.

    Raises:
        ValueError: the record has no such field, or it is not a text.
    """
    if not isinstance(record, dict):
        raise ValueError(f"{where}: a record must be an object, got {type(record).__name__}")
    if field not in record:
        raise ValueError(no_field(where, field, record))
    text = record[field]
    if not isinstance(text, str):
        raise ValueError(f"{where}: {field} must be a text, got {type(text).__name__}")
    if text:
        yield Piece(text, True)


def no_field(where: object, field: str, names: Iterable[str]) -> str:
    """The message about a field that is missing."""
    there = ", ".join(list(names)[:12]) or "none"
    return f"{where} has no field {field}: there are {there}; data.field=NAME chooses one"


def unpacked(file: Path) -> IO[bytes]:
    """The file opened, its packing undone while it is read."""
    packing = packing_of(file)
    if packing == ".gz":
        return gzip.open(file)  # pyright: ignore[reportReturnType]
    if packing == ".zst":
        try:
            import zstandard
        except ImportError:
            raise missing(file, "zstandard") from None
        return io.BufferedReader(zstandard.open(file, "rb"))  # pyright: ignore[reportArgumentType]
    return file.open("rb")


def missing(file: Path, package: str) -> ValueError:
    """The error about a package that a format needs."""
    return ValueError(f"{file} needs {package}: install with python -m pip install -e '.[data]'")


READERS = {".jsonl": json_lines, ".parquet": parquet}
