"""Synthetic tasks as data: sequences that ask questions, each with one right answer."""

from __future__ import annotations

import hashlib
import json
import unicodedata
from abc import abstractmethod
from collections.abc import Callable
from itertools import islice
from typing import Any

import numpy as np
from torch import Tensor

from modgpt.data.base import DataModule
from modgpt.data.batch import IGNORED, EndlessBatches
from modgpt.data.tokenizers.base import Tokenizer

TRAINING, VALIDATION = 0, 1  # streams of random numbers, which never meet
COLUMNS = 64  # of a sequence that is shown to a person

# Draws sequences: a random generator and their number n -> (2,n,T), inputs and targets.
Draw = Callable[[np.random.Generator, int], Tensor]


class TaskDataModule(DataModule):
    """Sequences of a task: new ones in every training batch, always the same ones to validate on.

    Batches are (2,B,T): what the model reads, and what it should answer where it is asked (elsewhere
    `IGNORED`). The training sequences are a function of the seed alone. The validation set is a function
    of the task alone, so that runs with different seeds are measured on the same questions.

    Tokens print as characters: 0 is the task's `marker`, 1 … `vocabulary` are letters.

    Args:
        vocabulary: number of symbols besides the marker.
        val_sequences: size of the validation set.
        base: as for `DataModule`.

    Raises:
        ValueError: a size is below 1, or there are not so many letters.
    """

    has_answers = True
    marker: str  # comes before every letter in Unicode, so that its id is 0

    def __init__(self, *, vocabulary: int, val_sequences: int, **base: Any) -> None:
        super().__init__(**base)
        for name, value in (("vocabulary", vocabulary), ("val_sequences", val_sequences)):
            if value < 1:
                raise ValueError(f"data.{name} must be at least 1, got {value}")
        self.vocabulary, self.val_sequences = vocabulary, val_sequences

    @abstractmethod
    def draw(self, rng: np.random.Generator, n: int) -> Tensor:
        """Draw n sequences: (2,n,T), inputs and targets."""

    @abstractmethod
    def definition(self) -> dict[str, Any]:
        """The task in plain values: losses and accuracies compare between equal definitions."""

    def load(self) -> Tokenizer:
        self.tokenizer = self.make_tokenizer(self.marker + letters(self.vocabulary))
        definition = json.dumps(self.definition(), sort_keys=True)
        self.digest = hashlib.sha256(definition.encode()).hexdigest()
        self.val_tokens = self.draw(np.random.default_rng((VALIDATION,)), self.val_sequences)
        return self.tokenizer

    def training_batches(self) -> TaskBatches:
        return TaskBatches(
            self.draw,
            seed=self.seed,
            **self.series(),
        )

    def validation_batches(self) -> list[Tensor]:
        share = self.share()
        batches = self.val_tokens.split(self.eval_batch_size, dim=1)
        return [batch[:, share["rank"] :: share["world_size"]] for batch in batches]

    def example(self) -> tuple[Tensor, Tensor]:
        """The inputs and targets of the first validation sequence: (T,) each."""
        inputs, targets = self.val_tokens[:, 0]
        return inputs, targets

    def compared(self, inputs: Tensor, targets: Tensor, answers: Tensor) -> str:
        """A sequence, the right answers and those of a model: (T,) each -> lines of text."""
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
        """The tokens where something is asked, blanks elsewhere: (T,), (T,) -> T characters."""
        pairs = zip(tokens.tolist(), asked.tolist(), strict=True)
        return "".join(self.tokenizer.decode([t]) if a else " " for t, a in pairs)


class TaskBatches(EndlessBatches):
    """Sequences of a task, new ones in every batch.

    Args:
        draw_sequences: draws them.
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


def letters(n: int) -> str:
    """The first n letters in the order of Unicode, A–Z and a–z before those with accents.

    Raises:
        ValueError: there are not so many.
    """
    letter = (chr(point) for point in range(0x10000) if is_letter(chr(point)))
    found = "".join(islice(letter, n))
    if len(found) < n:
        raise ValueError(f"data.vocabulary={n} is more than the {len(found)} letters there are")
    return found


def is_letter(character: str) -> bool:
    """Whether a character is a letter on its own, written from left to right."""
    kind, direction = unicodedata.category(character), unicodedata.bidirectional(character)
    return kind in ("Lu", "Ll", "Lo") and direction == "L"
