"""What trained tokenizers share: the bytes below them, bounded training text, and a cache on disk."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import filelock
import tokenizers
from tokenizers import decoders, pre_tokenizers

from modgpt.data.corpus import Part
from modgpt.data.tokenizers.base import Tokenizer
from modgpt.data.tokenizers.pretrained import ENDS, PretrainedTokenizer, library_errors
from modgpt.errors import UserError
from modgpt.files import replaced

BYTES = sorted(pre_tokenizers.ByteLevel.alphabet())  # one printable character for each byte
MOST_TRAINED = 10**8  # characters to train on; of a longer text, evenly spaced pieces

# Trains a tokenizer of some size on the pieces of a text.
Train = Callable[[Iterable[str], int], tokenizers.Tokenizer]


class TrainedTokenizer(PretrainedTokenizer):
    """A tokenizer over bytes that was trained here: lossless, and with cuts before white space."""

    lossless = True
    cuts = True


def byte_level(model: tokenizers.models.Model) -> tokenizers.Tokenizer:
    """A tokenizer of words cut as in GPT-2, each as its bytes of UTF-8: lossless for every text."""
    tokenizer = tokenizers.Tokenizer(model)
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def check_size(vocab_size: int, smallest: int, text: Part) -> None:
    """Refuse sizes that cannot be, before memory is reserved for them.

    Raises:
        UserError: the size is below the smallest one, or above 256 and one token for each byte of text.
    """
    smallest += text.several  # the end of a text
    if vocab_size < smallest:
        raise UserError(f"tokenizer.vocab_size must be at least {smallest}, got {vocab_size}")
    if vocab_size > len(BYTES) + 4 * text.characters:
        raise UserError(
            f"tokenizer.vocab_size={vocab_size} is larger than the text allows: the training split has "
            f"{text.characters:,} characters"
        )


def cached(kind: str, text: Part, vocab_size: int, cache_dir: str, train: Train) -> Tokenizer:
    """The tokenizer of a text and its settings, from the cache if it is there; else trained and kept.

    Several processes may ask for the same one: the first trains it, the others wait. A damaged file is
    written again.

    Args:
        kind: of tokenizer.
        text: to train on. If it has several documents, one of the tokens ends a text.
        vocab_size: V.
        cache_dir: folder of the files; made if it is missing.
        train: trains the tokenizer.

    Raises:
        UserError: the text allows only a smaller vocabulary, or the cache cannot be written.
    """
    # A text that differs, another size or another version of the library is another file.
    settings = f"{kind} {vocab_size} {MOST_TRAINED} {tokenizers.__version__}"
    key = f"{text.digest} {settings}"
    name = f"tokenizer-{kind}-{vocab_size}-{hashlib.sha256(key.encode()).hexdigest()[:16]}.json"
    file = Path(cache_dir).expanduser() / name
    description = read_cache(file, key)
    if description is None:
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            with filelock.FileLock(file.with_suffix(".lock")):
                description = read_cache(file, key)  # another process may have been first
                if description is None:
                    description = trained(text, vocab_size, train)
                    write_cache(file, key, description)
        except OSError as error:
            raise UserError(
                f"cannot write {file}: {error.strerror or error}; tokenizer.cache_dir=FOLDER takes "
                "another folder"
            ) from error
    return TrainedTokenizer(description)


def trained(text: Part, vocab_size: int, train: Train) -> dict[str, Any]:
    """The description of a newly trained tokenizer.

    Raises:
        UserError: it has fewer tokens than asked for.
    """
    with library_errors():
        tokenizer = train(sampled(text), vocab_size - text.several)
        if text.several:
            tokenizer.add_special_tokens([ENDS[0]])
    size = tokenizer.get_vocab_size()
    if size != vocab_size:
        raise UserError(
            f"tokenizer.vocab_size={vocab_size} is larger than the text allows: the training split of "
            f"{text.characters:,} characters gives {size:,} tokens"
        )
    return json.loads(tokenizer.to_str())


def sampled(text: Part, most: int = MOST_TRAINED) -> Iterator[str]:
    """The text in pieces; of one with more than `most` characters, pieces at even distances."""
    at, wanted = 0, 0.0
    for piece in text:
        if at >= wanted:
            yield piece
            wanted += len(piece) * max(1.0, text.characters / most)
        at += len(piece)


def digest_of(description: str) -> str:
    """SHA-256 of a description."""
    return hashlib.sha256(description.encode("utf-8", "surrogatepass")).hexdigest()


def read_cache(file: Path, key: str) -> dict[str, Any] | None:
    """The description in a file of the cache; None where there is none that is whole."""
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        description = content["tokenizer"]
        whole = content["key"] == key and content["sha256"] == digest_of(json.dumps(description))
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        return None
    return description if whole else None


def write_cache(file: Path, key: str, description: dict[str, Any]) -> None:
    """Write a description with its key and its digest, whole or not at all."""
    content = {"key": key, "sha256": digest_of(json.dumps(description)), "tokenizer": description}
    with replaced(file) as beside:
        beside.write_text(json.dumps(content, ensure_ascii=False) + "\n", encoding="utf-8")
