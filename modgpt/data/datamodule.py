"""Data modules of texts: corpus, tokenizer and windows."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from math import ceil
from pathlib import Path
from typing import Any

from torch import Tensor

from modgpt.data.base import DataModule
from modgpt.data.corpus import SHARES, TRAIN, VALIDATION, Corpus, Text, cut_in_shares
from modgpt.data.sources.files import find_files
from modgpt.data.sources.shakespeare import prepare_shakespeare
from modgpt.data.token_ids import encode_corpus
from modgpt.data.tokenizers.base import Tokenizer
from modgpt.data.windows import EvaluationWindows, TrainingWindows, as_tensor


class CorpusDataModule(DataModule):
    """Windows of a corpus of UTF-8.

    Args:
        cache_dir: where the token ids of large texts are kept.
        base: as for `DataModule`.

    Attributes:
        parts: the token ids of every part, with their counts, known after `load`.

    Raises:
        ValueError: a size is below 1. From `load`: the text cannot be read, or is too short.
    """

    def __init__(self, *, cache_dir: str = "data/cache", **base: Any) -> None:
        super().__init__(**base)
        self.cache_dir = Path(cache_dir).expanduser()

    @abstractmethod
    def corpus(self) -> Corpus:
        """The corpus; obtains it first if it is missing."""

    def load(self) -> Tokenizer:
        """Read the corpus, build the tokenizer, encode every part; returns the tokenizer."""
        corpus = self.corpus()
        tokenizer = self.make_tokenizer(*corpus.parts.values())
        self.parts = encode_corpus(corpus, tokenizer, self.cache_dir)
        training, held_out = self.parts[TRAIN].counts, self.parts[VALIDATION].counts
        if training.tokens < self.block_size + 1 or held_out.tokens < 2:
            raise ValueError(
                f"{corpus.name} has {training.tokens + held_out.tokens} {tokenizer.unit}s: "
                f"model.block_size={self.block_size} needs at least {minimum_length(self.block_size)}, "
                "so that 90 % of them contain one window"
            )
        self.tokenizer = tokenizer
        # Of the text itself: a lossy tokenizer decodes to another one.
        self.tokens_per_character = held_out.tokens / held_out.characters
        self.tokens_per_byte = held_out.tokens / held_out.bytes
        self.training_bytes_per_token = training.bytes / training.tokens
        self.digest = corpus.digest
        return tokenizer

    def tokens(self, part: str) -> Tensor:
        """The token ids of a part, (N,)."""
        return as_tensor(self.parts[part].ids)

    def training_batches(self) -> TrainingWindows:
        return TrainingWindows(
            self.parts[TRAIN].ids,
            block_size=self.block_size,
            seed=self.seed,
            **self.series(),
        )

    def validation_batches(self) -> EvaluationWindows:
        return EvaluationWindows(
            self.parts[VALIDATION].ids,
            block_size=self.block_size,
            batch_size=self.eval_batch_size,
            **self.share(),
        )

    def in_order(self, windows: Tensor) -> Tensor:
        order = self.validation_batches().order()[: windows.shape[-1]]
        return windows[..., order.argsort()]


class ShakespeareDataModule(CorpusDataModule):
    """Tiny Shakespeare: 1,115,394 characters, 65 distinct, byte for byte the usual file.

    The first 90 % of the characters are for training, the rest for validation.

    Args:
        data_dir: folder of the file, which is downloaded if it is missing.
        base: as for `CorpusDataModule`.
    """

    def __init__(self, *, data_dir: str, **base: Any) -> None:
        super().__init__(**base)
        self.data_dir = Path(data_dir)

    def corpus(self) -> Corpus:
        return cut_in_shares(Text((prepare_shakespeare(self.data_dir),)), self.cache_dir)


class TextDataModule(CorpusDataModule):
    """Any texts: plain, JSON lines or Parquet, also packed with gzip or Zstandard.

    The first 90 % of the characters of all documents are for training, the rest for validation. Between
    two documents stands the tokenizer's token for the end of a text, else an empty line.

    Args:
        path: a file, a folder, or a pattern such as `texts/*.jsonl.gz`.
        field: of a record of JSON lines or Parquet: the name of its text.
        base: as for `CorpusDataModule`.

    Raises:
        ValueError: no path is given.
    """

    def __init__(self, *, path: str | None, field: str = "text", **base: Any) -> None:
        super().__init__(**base)
        if path is None:
            raise ValueError("data=text needs a file: data.path=FILE")
        self.path, self.field = checked_text("path", path), checked_text("field", field)

    def corpus(self) -> Corpus:
        return cut_in_shares(Text(tuple(find_files(self.path)), self.field), self.cache_dir)


def checked_text(key: str, value: object) -> str:
    """The value of a knob that is a text.

    Raises:
        ValueError: it is something else.
    """
    if not isinstance(value, str):
        raise ValueError(f"data.{key} must be a text, got {value!r}")
    return value


def minimum_length(block_size: int, shares: Sequence[float] = SHARES) -> int:
    """The length of the shortest text that has a training window and one validation target."""
    length = max(ceil((block_size + 1) / shares[0]), 11)
    while int(shares[0] * length) < block_size + 1 or length - int(shares[0] * length) < 2:
        length += 1
    return length
