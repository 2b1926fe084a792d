"""What a training needs of its data, whatever they are."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

import lightning as L
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from modgpt.data.batch import EndlessBatches
from modgpt.data.tokenizers.base import Tokenizer
from modgpt.inference.generation import generate
from modgpt.model.gpt import GPT


class DataModule(L.LightningDataModule, ABC):
    """Batches to train and to validate on, and the vocabulary they are written in.

    Args:
        tokenizer: makes a tokenizer from a text.
        batch_size: sequences per training step, over all ranks and one micro-batch.
        eval_batch_size: sequences per validation batch.
        block_size: T.
        seed: of the training batches and their order.

    Attributes:
        tokenizer: known after `load`.
        digest: SHA-256 of what the data are, known after `load`: losses compare where it is the same.
        tokens_per_character: of the validation split, known after `load`; makes bits per character of a
            loss per token.
        has_answers: True when a counted target has one right answer, so that accuracy tells more than
            perplexity.

    Raises:
        ValueError: a size is below 1, or the seed negative.
    """

    tokenizer: Tokenizer
    digest: str
    tokens_per_character = 1.0
    has_answers = False

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
    def load(self) -> Tokenizer:
        """Bring the data here; sets and returns the tokenizer, sets the digest."""

    @abstractmethod
    def training_batches(self) -> EndlessBatches:
        """This process's share of the training batches, from `first_batch` on."""

    @abstractmethod
    def validation_batches(self) -> Dataset[Tensor] | Sequence[Tensor]:
        """This process's share of the validation batches, always the same."""

    def sample(self, model: GPT, prompt: str = "", **options: Any) -> str:
        """What the model has learned, for a person to read; arguments as for `generate`."""
        return generate(model, self.tokenizer, prompt, **options)

    def train_dataloader(self) -> DataLoader[Tensor]:
        return loader(self.training_batches(), self.on_gpu())

    def val_dataloader(self) -> DataLoader[Tensor]:
        return loader(self.validation_batches(), self.on_gpu())

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


def loader(batches: Dataset[Tensor] | Sequence[Tensor], pin: bool) -> DataLoader[Tensor]:
    """Batches as they are given.

    The loader gets a random generator of its own: it would draw a number from the global one at every
    start, and validation would change the dropout of the steps after it.
    """
    return DataLoader(
        batches,  # pyright: ignore[reportArgumentType]
        batch_size=None,
        pin_memory=pin,
        generator=torch.Generator(),
    )
