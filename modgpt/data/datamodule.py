"""The LightningDataModule: a text, its tokenizer, its split, its windows."""

from __future__ import annotations

import hashlib
import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning as L
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from modgpt.data.shakespeare import prepare_shakespeare
from modgpt.data.tokenizer import Tokenizer
from modgpt.data.windows import EvaluationWindows, TrainingWindows

TRAIN_SHARE = 0.9


class CorpusDataModule(L.LightningDataModule, ABC):
    """Windows of one UTF-8 text: its first 90 % to train on, the rest to validate on.

    The vocabulary is that of the whole text, as in nanoGPT, so that losses compare.

    Args:
        tokenizer: makes a tokenizer from the text.
        batch_size: windows per training step, over all ranks and one micro-batch.
        eval_batch_size: windows per validation batch.
        block_size: T.
        seed: of the order of the training windows.

    Raises:
        ValueError: a size is below 1; from `load`: no such file, empty, not UTF-8, or too short.
    """

    def __init__(
        self,
        *,
        tokenizer: Callable[[str], Tokenizer],
        batch_size: int,
        eval_batch_size: int,
        block_size: int,
        seed: int,
    ) -> None:
        super().__init__()
        for name, value in (("batch_size", batch_size), ("eval_batch_size", eval_batch_size)):
            if value < 1:
                raise ValueError(f"data.{name} must be at least 1, got {value}")
        if seed < 0:
            raise ValueError(f"data.seed must not be negative, got {seed}")
        self.make_tokenizer = tokenizer
        self.batch_size, self.eval_batch_size = batch_size, eval_batch_size
        self.block_size, self.seed = block_size, seed

    @abstractmethod
    def file(self) -> Path:
        """The file of the text, brought here first where that is needed."""

    def load(self) -> Tokenizer:
        """Read the text, fit the tokenizer, split."""
        path = self.file()
        text = read_text(path)
        tokenizer = self.make_tokenizer(text)
        tokens = tokenizer.encode(text)
        n_train = int(TRAIN_SHARE * len(tokens))
        if n_train < self.block_size + 1 or len(tokens) - n_train < 2:
            raise ValueError(
                f"{path} has {len(tokens)} characters: model.block_size={self.block_size} needs at "
                f"least {minimum_length(self.block_size)}, so that 90 % of them hold one window"
            )
        self.train_tokens, self.val_tokens = tokens[:n_train], tokens[n_train:]
        self.tokenizer = tokenizer
        self.digest = hashlib.sha256(text.encode()).hexdigest()
        return tokenizer

    def train_dataloader(self) -> DataLoader[Tensor]:
        windows = TrainingWindows(
            self.train_tokens,
            block_size=self.block_size,
            batch_size=self.batch_size,
            seed=self.seed,
            first=self.first_batch(),
            **self.share(),
        )
        return loader(windows, self.on_gpu())

    def val_dataloader(self) -> DataLoader[Tensor]:
        windows = EvaluationWindows(
            self.val_tokens,
            block_size=self.block_size,
            batch_size=self.eval_batch_size,
            **self.share(),
        )
        return loader(windows, self.on_gpu())

    def tokens_per_step(self) -> int:
        """Tokens trained on in one optimizer step, over all ranks."""
        micro_batches = self.trainer.accumulate_grad_batches if self.trainer else 1
        return self.batch_size * self.block_size * micro_batches

    def first_batch(self) -> int:
        """The batch the trainer has to begin with: 0, or where the checkpoint left off."""
        if self.trainer is None:
            return 0
        return self.trainer.global_step * self.trainer.accumulate_grad_batches

    def share(self) -> dict[str, int]:
        """Which part of each batch is this process's."""
        if self.trainer is None:
            return {"rank": 0, "world_size": 1}
        return {"rank": self.trainer.global_rank, "world_size": self.trainer.world_size}

    def on_gpu(self) -> bool:
        return self.trainer is not None and self.trainer.strategy.root_device.type == "cuda"


class ShakespeareDataModule(CorpusDataModule):
    """Tiny Shakespeare: 1,115,394 characters, 65 distinct, byte for byte the usual file.

    Args:
        data_dir: where the file is, or will be put.
        base: as for `CorpusDataModule`.
    """

    def __init__(self, *, data_dir: str, **base: Any) -> None:
        super().__init__(**base)
        self.data_dir = Path(data_dir)

    def file(self) -> Path:
        return prepare_shakespeare(self.data_dir)


class TextDataModule(CorpusDataModule):
    """Any text of one's own.

    Args:
        path: the file.
        base: as for `CorpusDataModule`.

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


def loader(windows: TrainingWindows | EvaluationWindows, pin: bool) -> DataLoader[Tensor]:
    """Batches as the windows give them.

    The loader gets a random generator of its own: it would draw a number from the global one at every
    start, and validation would change the dropout of the steps after it.
    """
    return DataLoader(windows, batch_size=None, pin_memory=pin, generator=torch.Generator())


def minimum_length(block_size: int) -> int:
    """The length of the shortest text that has a training window and one validation target."""
    length = max(math.ceil((block_size + 1) / TRAIN_SHARE), 11)
    while int(TRAIN_SHARE * length) < block_size + 1 or length - int(TRAIN_SHARE * length) < 2:
        length += 1
    return length


def read_text(path: Path) -> str:
    """The text of a UTF-8 file, line ends as they are.

    Raises:
        ValueError: no such file, a folder, unreadable, empty, or not UTF-8 (with the byte's offset).
    """
    try:
        raw = path.read_bytes()
    except FileNotFoundError:
        raise ValueError(f"no such file: {path}") from None
    except OSError as error:
        raise ValueError(f"cannot read {path}: {error.strerror}") from error
    if not raw:
        raise ValueError(f"{path} is empty")
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{path} is not UTF-8: byte 0x{raw[error.start]:02x} at offset {error.start}"
        ) from error
