"""`tokenizer=bpe`: byte-level byte-pair encoding, trained on the training split."""

from __future__ import annotations

from collections.abc import Iterable

import tokenizers
from tokenizers import models, trainers

from modgpt.data.corpus import Part
from modgpt.data.tokenizers.base import Tokenizer
from modgpt.data.tokenizers.trained import BYTES, byte_level, cached, check_size

SMALLEST = len(BYTES)


def bpe_tokenizer(text: Part, *held_out: Part, vocab_size: int, cache_dir: str) -> Tokenizer:
    """Byte-level BPE (Sennrich et al. 2016, on bytes as in GPT-2).

    The tokens are the 256 bytes and one for each of `vocab_size` − 256 merges. Training joins the most
    frequent pair of neighbouring tokens, again and again. Encoding joins in the same order. No merge
    crosses the boundary of a word. Where the text has several documents, the last token ends a text.

    Args:
        text: the part for training.
        held_out: the other parts, which training does not see.
        vocab_size: V.
        cache_dir: folder of trained tokenizers.

    Raises:
        UserError: `vocab_size` is below 256, or the text has too few pairs that occur twice.
    """
    check_size(vocab_size, SMALLEST, text)

    def train(pieces: Iterable[str], size: int) -> tokenizers.Tokenizer:
        tokenizer = byte_level(models.BPE())
        trainer = trainers.BpeTrainer(
            vocab_size=size, min_frequency=2, initial_alphabet=BYTES, show_progress=False
        )
        tokenizer.train_from_iterator(pieces, trainer)
        return tokenizer

    return cached("bpe", text, vocab_size, cache_dir, train)
