"""Data modules of synthetic tasks: sequences of questions, each with one right answer."""

from __future__ import annotations

import hashlib
import json
import unicodedata
from abc import abstractmethod
from collections.abc import Callable
from itertools import islice
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from modgpt.data.base import DataModule
from modgpt.data.batch import IGNORED, EndlessBatches
from modgpt.data.tokenizers.base import Tokenizer

TRAINING, VALIDATION = 0, 1  # numbers of two independent random streams
COLUMNS = 64  # tokens per line when a sequence is printed

Tokens = NDArray[np.int64]
# Draws n sequences with a random generator: (generator, n) -> (2,n,T), inputs and targets.
Draw = Callable[[np.random.Generator, int], Tensor]


class TaskDataModule(DataModule):
    """Sequences of a task: new ones in every training batch, and a fixed validation set.

    Batches are (2,B,T): the inputs, and the right answers at the places that are asked (`IGNORED` at
    all others). The training sequences depend on the seed alone. The validation set depends on the task
    alone, so that runs with different seeds are measured on the same questions.

    A task of your own derives from this class. It draws sequences (`draw`), names its `settings`, states
    its `chance`, and answers one sequence slowly (`solve`), which defines the task and tests `draw`.

    Args:
        vocabulary: number of symbols without the markers.
        val_sequences: size of the validation set.
        base: as for `DataModule`.

    Attributes:
        markers: the characters of tokens 0, 1, …, which come before the symbols of the vocabulary.
        settings: names of the attributes that decide the sequences, besides `vocabulary`.

    Raises:
        ValueError: a size is below 1, or `vocabulary` is larger than the number of letters.
    """

    has_answers = True
    markers: str
    settings: tuple[str, ...] = ()

    def __init__(self, *, vocabulary: int, val_sequences: int, **base: Any) -> None:
        super().__init__(**base)
        self.vocabulary, self.val_sequences = vocabulary, val_sequences
        at_least(1, vocabulary=vocabulary, val_sequences=val_sequences)

    @abstractmethod
    def draw(self, rng: np.random.Generator, n: int) -> tuple[Tokens, Tokens]:
        """Draw n sequences: inputs and targets, (n,T) each."""

    @abstractmethod
    def solve(self, read: list[int]) -> dict[int, int]:
        """The right answer at every asked place of one sequence, found slowly from its T tokens."""

    @property
    @abstractmethod
    def chance(self) -> float:
        """Accuracy of the best guess that knows the place and none of the tokens.

        The docstring of a task gives the formula, which the documentation shows.
        """

    def symbols(self) -> str:
        """The characters of the tokens after the markers, in Unicode order."""
        return letters(self.vocabulary)

    def definition(self) -> dict[str, Any]:
        """The task as plain values. Losses and accuracies are comparable if they are equal."""
        names = ("vocabulary", "val_sequences", "block_size", *self.settings)
        return {"task": type(self).__name__} | {name: getattr(self, name) for name in names}

    def blank(self, n: int) -> tuple[Tokens, Tokens]:
        """n sequences of the first marker in which nothing is asked: inputs and targets, (n,T) each."""
        shape = (n, self.block_size)
        return np.zeros(shape, dtype=np.int64), np.full(shape, IGNORED, dtype=np.int64)

    def needs_length(self, least: int, **setting: int) -> None:
        """Check that a sequence is long enough for a setting.

        Raises:
            ValueError: it is shorter than `least`.
        """
        if self.block_size < least:
            ((name, value),) = setting.items()
            raise ValueError(
                f"data.{name}={value} needs at least model.block_size={least}, got {self.block_size}"
            )

    def load(self) -> Tokenizer:
        alphabet = self.markers + self.symbols()
        self.tokenizer = self.make_tokenizer(alphabet)
        if self.tokenizer.encode(alphabet).tolist() != list(range(len(alphabet))):
            raise ValueError("a task prints its tokens as characters: it needs tokenizer=char")
        definition = json.dumps(self.definition(), sort_keys=True)
        self.digest = hashlib.sha256(definition.encode()).hexdigest()
        self.val_tokens = self.drawn(np.random.default_rng((VALIDATION,)), self.val_sequences)
        return self.tokenizer

    def drawn(self, rng: np.random.Generator, n: int) -> Tensor:
        """n sequences as a batch: (2,n,T)."""
        return torch.from_numpy(np.stack(self.draw(rng, n)))

    def training_batches(self) -> TaskBatches:
        return TaskBatches(self.drawn, seed=self.seed, **self.series())

    def validation_batches(self) -> list[Tensor]:
        share = self.share()
        batches = self.val_tokens.split(self.eval_batch_size, dim=1)
        return [batch[:, share["rank"] :: share["world_size"]] for batch in batches]

    def example(self) -> tuple[Tensor, Tensor]:
        """The inputs and targets of the first validation sequence: (T,) each."""
        inputs, targets = self.val_tokens[:, 0]
        return inputs, targets

    def compared(self, inputs: Tensor, targets: Tensor, answers: Tensor) -> str:
        """Lines of text that show a sequence, the right answers and a model's answers, (T,) each."""
        asked = targets != IGNORED
        lines = [
            ("reads", self.tokenizer.decode(inputs)),
            ("wanted", self.written(targets, asked)),
            ("answers", self.written(answers, asked)),
        ]
        blocks = [
            "\n".join(f"{name:<8}{text[start : start + COLUMNS]}".rstrip() for name, text in lines)
            for start in range(0, self.block_size, COLUMNS)
        ]
        return "\n\n".join(blocks)

    def written(self, tokens: Tensor, asked: Tensor) -> str:
        """The tokens at questions, and blanks elsewhere: (T,), (T,) -> T characters."""
        pairs = zip(tokens.tolist(), asked.tolist(), strict=True)
        return "".join(self.tokenizer.decode([t]) if a else " " for t, a in pairs)


class TaskBatches(EndlessBatches):
    """Sequences of a task, new ones in every batch.

    Args:
        draw_sequences: draws sequences of the task.
        seed: of the series of sequences.
        base: as for `EndlessBatches`.

    Yields: (2, batch_size/world_size, T), inputs and targets.
    """

    def __init__(self, draw_sequences: Draw, *, seed: int, **base: Any) -> None:
        super().__init__(**base)
        self.draw_sequences, self.seed = draw_sequences, seed

    def draw(self, index: int) -> Tensor:
        rng = np.random.default_rng((TRAINING, self.seed, index))
        return self.draw_sequences(rng, self.portion)


def at_least(least: int, **settings: int) -> None:
    """Check settings of the data.

    Raises:
        ValueError: one is below `least`.
    """
    for name, value in settings.items():
        if value < least:
            raise ValueError(f"data.{name} must be at least {least}, got {value}")


def letters(n: int) -> str:
    """The first n letters in Unicode order: A–Z, a–z, then letters with accents.

    Raises:
        ValueError: Unicode has fewer letters.
    """
    letter = (chr(point) for point in range(0x10000) if is_letter(chr(point)))
    found = "".join(islice(letter, n))
    if len(found) < n:
        raise ValueError(f"data.vocabulary={n} is more than the {len(found)} letters of Unicode")
    return found


def is_letter(character: str) -> bool:
    """Whether a character is a single letter that is written from left to right."""
    kind, direction = unicodedata.category(character), unicodedata.bidirectional(character)
    return kind in ("Lu", "Ll", "Lo") and direction == "L"
