"""Data modules of texts: tokenizer, split and windows."""

from __future__ import annotations

import hashlib
import math
from abc import abstractmethod
from pathlib import Path
from typing import Any

from modgpt.data.base import DataModule
from modgpt.data.sources.files import read_text
from modgpt.data.sources.shakespeare import prepare_shakespeare
from modgpt.data.tokenizers.base import Tokenizer
from modgpt.data.tokenizers.lossless import check_lossless
from modgpt.data.windows import EvaluationWindows, TrainingWindows

TRAIN_SHARE = 0.9


class CorpusDataModule(DataModule):
    """Windows of one UTF-8 text: the first 90 % of its characters for training, the rest for validation.

    The text is split before it is encoded: every tokenizer is measured on the same text, and a trained
    one has not seen it.

    Raises:
        ValueError: a size is below 1. From `load`: the file is not a readable text, or is too short.
    """

    @abstractmethod
    def file(self) -> Path:
        """The path of the text; obtains the file first if it is missing."""

    def load(self) -> Tokenizer:
        """Read the text, build the tokenizer, split the tokens; returns the tokenizer."""
        path = self.file()
        text = read_text(path)
        training, held_out = split(text)
        tokenizer = self.make_tokenizer(training, held_out)
        self.train_tokens, self.val_tokens = tokenizer.encode(training), tokenizer.encode(held_out)
        n_train, n_val = len(self.train_tokens), len(self.val_tokens)
        if n_train < self.block_size + 1 or n_val < 2:
            raise ValueError(
                f"{path} has {n_train + n_val} {tokenizer.unit}s: model.block_size={self.block_size} "
                f"needs at least {minimum_length(self.block_size)}, so that 90 % of them contain one "
                "window"
            )
        first, second = tokenizer.decode(self.train_tokens), tokenizer.decode(self.val_tokens)
        if held_out == f" {second}":
            second = held_out  # a tokenizer may drop a space at the start of a text: here, at the cut
        check_lossless(tokenizer, text, first + second)
        self.tokenizer = tokenizer
        # Of the text itself: a lossy tokenizer decodes to another one.
        self.tokens_per_character = n_val / len(held_out)
        self.tokens_per_byte = n_val / len(held_out.encode())
        self.training_bytes_per_token = len(training.encode()) / n_train
        self.digest = hashlib.sha256(text.encode()).hexdigest()
        return tokenizer

    def training_batches(self) -> TrainingWindows:
        return TrainingWindows(
            self.train_tokens,
            block_size=self.block_size,
            seed=self.seed,
            **self.series(),
        )

    def validation_batches(self) -> EvaluationWindows:
        return EvaluationWindows(
            self.val_tokens,
            block_size=self.block_size,
            batch_size=self.eval_batch_size,
            **self.share(),
        )


class ShakespeareDataModule(CorpusDataModule):
    """Tiny Shakespeare: 1,115,394 characters, 65 distinct, byte for byte the usual file.

    Args:
        data_dir: folder of the file, which is downloaded if it is missing.
        base: as for `DataModule`.
    """

    def __init__(self, *, data_dir: str, **base: Any) -> None:
        super().__init__(**base)
        self.data_dir = Path(data_dir)

    def file(self) -> Path:
        return prepare_shakespeare(self.data_dir)


class TextDataModule(CorpusDataModule):
    """Any text file.

    Args:
        path: the file.
        base: as for `DataModule`.

    Raises:
        ValueError: no path is given.
    """

    def __init__(self, *, path: str | None, **base: Any) -> None:
        super().__init__(**base)
        if path is None:
            raise ValueError("data=text needs a file: data.path=FILE")
        self.path = Path(path).expanduser()

    def file(self) -> Path:
        return self.path


def split(text: str) -> tuple[str, str]:
    """The training and the validation text: cut after 90 % of the characters."""
    cut = int(TRAIN_SHARE * len(text))
    return text[:cut], text[cut:]


def minimum_length(block_size: int) -> int:
    """The length of the shortest text that has a training window and one validation target."""
    length = max(math.ceil((block_size + 1) / TRAIN_SHARE), 11)
    while int(TRAIN_SHARE * length) < block_size + 1 or length - int(TRAIN_SHARE * length) < 2:
        length += 1
    return length
