"""The base of all data modules."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence

import lightning as L
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from modgpt.data.batch import EndlessBatches
from modgpt.data.tokenizers.base import Tokenizer


class DataModule(L.LightningDataModule, ABC):
    """Batches to train and to validate on, with their vocabulary.

    Args:
        tokenizer: builds a tokenizer from the training text and, if there is one, the text held out.
        batch_size: sequences per micro-batch, over all ranks.
        eval_batch_size: sequences per validation batch.
        val_share: of the validation batches, for validations before the last one.
        block_size: T.
        seed: of the training batches.

    Attributes:
        tokenizer: known after `load`.
        digest: SHA-256 of the data, known after `load`. Losses are comparable if it is the same.
        tokens_per_character, tokens_per_byte: of the validation split, known after `load`; they turn a
            loss per token into bits per character and per byte of UTF-8.
        training_bytes_per_token: of the training split, known after `load`.
        has_answers: whether each counted target has one right answer. Then accuracy is measured instead
            of perplexity.

    Raises:
        ValueError: a size is below 1, the seed negative, or the share not in (0, 1].
    """

    tokenizer: Tokenizer
    digest: str
    tokens_per_character = 1.0
    tokens_per_byte = 1.0
    training_bytes_per_token = 1.0
    has_answers = False

    def __init__(
        self,
        *,
        tokenizer: Callable[..., Tokenizer],
        batch_size: int,
        eval_batch_size: int,
        block_size: int,
        seed: int,
        val_share: float = 1.0,
    ) -> None:
        super().__init__()
        sizes = {
            "data.batch_size": batch_size,
            "data.eval_batch_size": eval_batch_size,
            "model.block_size": block_size,
        }
        for name, value in sizes.items():
            if value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        if seed < 0:
            raise ValueError(f"data.seed must not be negative, got {seed}")
        if not 0 < val_share <= 1:
            raise ValueError(f"data.val_share must be a share above 0, at most 1, got {val_share}")
        self.make_tokenizer = tokenizer
        self.batch_size, self.eval_batch_size = batch_size, eval_batch_size
        self.block_size, self.seed, self.val_share = block_size, seed, val_share
        # Where this start of the training began, and the batch size of the first start.
        self.begun = {"step": 0, "sequences": 0, "portion": batch_size}

    @property
    def chance(self) -> float | None:
        """Accuracy of a guess, where there are answers; else None."""
        return None

    @abstractmethod
    def load(self) -> Tokenizer:
        """Read or build the data, set the tokenizer and the digest; returns the tokenizer."""

    @abstractmethod
    def training_batches(self) -> EndlessBatches:
        """This process's share of the training batches, starting with the first unseen sequence."""

    @abstractmethod
    def validation_batches(self) -> Dataset[Tensor] | Sequence[Tensor]:
        """This process's share of the validation batches; the same at every call.

        The first few are a sample of all.
        """

    def sampled_batches(self, batches: int) -> int:
        """How many of the validation batches, the first ones, a validation before the last one uses."""
        return max(1, round(self.val_share * batches))

    def in_order(self, windows: Tensor) -> Tensor:
        """Results of validation windows, (…,windows), from the order of batches to that of the data."""
        return windows

    def train_dataloader(self) -> DataLoader[Tensor]:
        return loader(self.training_batches(), self.on_gpu())

    def val_dataloader(self) -> DataLoader[Tensor]:
        return loader(self.validation_batches(), self.on_gpu())

    def sequences_per_step(self) -> int:
        """Sequences of one optimizer step, over all ranks."""
        return self.batch_size * (self.trainer.accumulate_grad_batches if self.trainer else 1)

    def tokens_per_step(self) -> int:
        """Tokens of one optimizer step, over all ranks."""
        return self.sequences_per_step() * self.block_size

    def sequences_seen(self) -> int:
        """Sequences trained on, including earlier starts, which may have had other batch sizes."""
        steps = (self.trainer.global_step if self.trainer else 0) - self.begun["step"]
        return self.begun["sequences"] + steps * self.sequences_per_step()

    def tokens_seen(self) -> int:
        """Tokens trained on."""
        return self.sequences_seen() * self.block_size

    def state_dict(self) -> dict[str, int]:
        """The position in the training data, for a checkpoint."""
        step = self.trainer.global_step if self.trainer else 0
        return {"step": step, "sequences": self.sequences_seen(), "portion": self.begun["portion"]}

    def load_state_dict(self, state_dict: dict[str, int]) -> None:
        if any(type(value) is not int or value < 0 for value in state_dict.values()):
            raise ValueError(f"the position in the data is damaged: {state_dict}")
        self.begun = dict(state_dict)

    def series(self) -> dict[str, int]:
        """Arguments of `EndlessBatches`: where the batches start, and this process's share of them."""
        begun = {"first": self.sequences_seen(), "portion": self.begun["portion"]}
        return {"batch_size": self.batch_size, **begun, **self.share()}

    def share(self) -> dict[str, int]:
        """This process's rank and the number of processes."""
        if self.trainer is None:
            return {"rank": 0, "world_size": 1}
        return {"rank": self.trainer.global_rank, "world_size": self.trainer.world_size}

    def on_gpu(self) -> bool:
        return self.trainer is not None and self.trainer.strategy.root_device.type == "cuda"


def loader(batches: Dataset[Tensor] | Sequence[Tensor], pin: bool) -> DataLoader[Tensor]:
    """A loader that passes on complete batches.

    It has its own random generator. Otherwise each start would draw a number from the global generator,
    and each validation would change the dropout of the following steps.
    """
    return DataLoader(
        batches,  # pyright: ignore[reportArgumentType]
        batch_size=None,
        pin_memory=pin,
        generator=torch.Generator(),
    )
