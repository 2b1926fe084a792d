"""`tokenizer=unigram`: byte-level unigram language model, trained on the training split."""

from __future__ import annotations

import json
from collections.abc import Iterable

import tokenizers
from tokenizers import models, trainers

from modgpt.data.corpus import Part
from modgpt.data.tokenizers.base import Tokenizer
from modgpt.data.tokenizers.trained import BYTES, byte_level, cached, check_size

SMALLEST = len(BYTES) + 1  # with 256 the library's trainer does not stop at the size asked for
FLOOR = 0.03  # the trainer gives the bytes that it had dropped scores up to 0.0256 above the lowest
DIGITS = 6  # of a score


def unigram_tokenizer(text: Part, *held_out: Part, vocab_size: int, cache_dir: str) -> Tokenizer:
    """Unigram language model (Kudo 2018) over bytes: a text becomes its most probable pieces.

    Training begins with many frequent pieces, and drops those whose loss costs the least probability.
    All 256 bytes stay. No piece crosses the boundary of a word. Where the text has several documents,
    the last token ends a text.

    Args:
        text: the part for training.
        held_out: the other parts, which training does not see.
        vocab_size: V.
        cache_dir: folder of trained tokenizers.

    Raises:
        UserError: `vocab_size` is below 257, or the text has too few pieces.
    """
    check_size(vocab_size, SMALLEST, text)

    def train(pieces: Iterable[str], size: int) -> tokenizers.Tokenizer:
        tokenizer = byte_level(models.Unigram())
        trainer = trainers.UnigramTrainer(vocab_size=size, initial_alphabet=BYTES, show_progress=False)
        tokenizer.train_from_iterator(pieces, trainer)
        return in_fixed_order(tokenizer)

    return cached("unigram", text, vocab_size, cache_dir, train)


def in_fixed_order(tokenizer: tokenizers.Tokenizer) -> tokenizers.Tokenizer:
    """The tokenizer with rounded scores, in an order that every training of it gives.

    The library sums in the order of a hash table, so the last digits differ from run to run. It also
    gives the bytes that it had dropped their scores in that order. Here they all get the lowest score.
    """
    description = json.loads(tokenizer.to_str())
    scores = dict(description["model"]["vocab"])
    lowest = round(min(scores.values()), DIGITS)
    for piece, score in scores.items():
        dropped = len(piece) == 1 and score < lowest + FLOOR
        scores[piece] = lowest if dropped else round(score, DIGITS)
    description["model"]["vocab"] = sorted(scores.items(), key=lambda item: (-item[1], item[0]))
    return tokenizers.Tokenizer.from_str(json.dumps(description))
