"""Tokenizers of other models, through the library tokenizers."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import tokenizers
import torch
from numpy.typing import NDArray
from torch import Tensor

from modgpt.data.tokenizers.base import Tokenizer, listed
from modgpt.data.tokenizers.char import is_surrogate
from modgpt.errors import UserError

MOST_TOKENS = 10_000_000  # the largest vocabularies in use have about 260,000
PROBE_SECONDS = 120
ENDS = ("<|endoftext|>", "<|end_of_text|>", "</s>", "<eos>", "[EOS]")  # usual names of the end of a text
# Builds the tokenizer and encodes a line. An error about unknown characters is allowed, a crash is not.
PROBE = """
import sys, tokenizers
fast = tokenizers.Tokenizer.from_str(sys.stdin.buffer.read().decode())
try:
    fast.decode(fast.encode("A line of text.\\n", add_special_tokens=False).ids)
except Exception:
    pass
"""


class PretrainedTokenizer(Tokenizer):
    """A tokenizer in the format of the library tokenizers (`tokenizer.json` on Hugging Face).

    Text is encoded without special tokens, truncation, padding or BPE dropout. Byte-level tokenizers
    are lossless. Those that lower-case, normalise or drop white space are not.

    Args:
        description: the content of the file.

    Raises:
        UserError: the library cannot read the description.
    """

    def __init__(self, description: dict[str, Any]) -> None:
        model = description.get("model")
        if not isinstance(model, dict):
            raise UserError(f"the tokenizer's model must be an object, got {type(model).__name__}")
        without = {"dropout": None} if "dropout" in model else {}
        self.description = description | {
            "truncation": None, "padding": None, "model": model | without,
        }  # fmt: skip
        text = json.dumps(self.description)
        probe(text)
        with library_errors():
            self.fast = tokenizers.Tokenizer.from_str(text)
            ids = self.fast.get_vocab(with_added_tokens=True).values()
        self.size = max(ids, default=-1) + 1  # ids may have gaps
        if not 1 <= self.size <= MOST_TOKENS:
            raise UserError(
                f"the tokenizer has ids up to {self.size - 1:,}: from 1 to {MOST_TOKENS:,} tokens work"
            )

    def __len__(self) -> int:
        return self.size

    @property
    def end_of_text(self) -> int | None:
        """The id of the first of the usual names, if the tokenizer has one of them."""
        found = (self.fast.token_to_id(name) for name in ENDS)
        return next((token for token in found if token is not None), None)

    @property
    def start(self) -> str:
        """The token that begins a document; without one, a new line or the first token."""
        unk = self.description["model"].get("unk_token")
        with library_errors():
            template = self.fast.encode("", add_special_tokens=True).tokens
        added = self.fast.get_added_tokens_decoder().values()
        special = [token.content for token in added if token.special and token.content != unk]
        candidates = [*template[:1], *special[:1], "\n", self.decode([0])]
        return next((c for c in candidates if c and not self.unknown(c) and len(self.encode(c))), "\n")

    def unknown(self, text: str) -> list[str]:
        whole = "".join(c for c in text if not is_surrogate(c))
        lost = self.lost_characters(whole)
        # A character can be known alone and unknown inside a word, if the word has no tokens.
        alone = {c for c in lost if self.lost_characters(c)}
        named = (alone or lost) | {c for c in text if is_surrogate(c)}
        return [c for c in dict.fromkeys(text) if c in named]

    def lost_characters(self, text: str) -> set[str]:
        """The characters of `text` that become the unknown token, or no token.

        White space does not count: many tokenizers use it only to separate words.
        """
        model = self.description["model"]
        unk = model.get("unk_token")
        unk_id = model.get("unk_id") if unk is None else self.fast.token_to_id(unk)
        try:
            with library_errors():
                encoding = self.fast.encode(text, add_special_tokens=False)
        except UserError:  # without an unknown token the library refuses the whole text
            return {text} if len(text) == 1 else {c for c in set(text) if self.lost_characters(c)}
        pairs = list(zip(encoding.ids, encoding.offsets, strict=True))
        covered = {i for _, (first, last) in pairs for i in range(first, last)}
        unread = {i for i, c in enumerate(text) if i not in covered and not c.isspace()}
        for token, (first, last) in pairs:
            if token == unk_id:
                unread.update(range(first, last))
        return {text[i] for i in unread}

    def encode(self, text: str) -> Tensor:
        broken = [c for c in dict.fromkeys(text) if is_surrogate(c)]
        if broken:
            raise UserError(f"cannot be encoded: {listed(broken)}")
        with library_errors():
            ids = self.fast.encode(text, add_special_tokens=False).ids
        return torch.tensor(ids, dtype=torch.int64)

    def encode_batch(self, texts: Sequence[str]) -> list[NDArray[np.integer]]:
        """Token ids of every text, on all cores."""
        broken = [c for text in texts for c in dict.fromkeys(text) if is_surrogate(c)]
        if broken:
            raise UserError(f"cannot be encoded: {listed(broken)}")
        with library_errors():
            encodings = self.fast.encode_batch_fast(list(texts), add_special_tokens=False)
        return [np.asarray(encoding.ids, dtype=np.uint32) for encoding in encodings]

    def decode(self, ids: Iterable[int] | Tensor) -> str:
        numbers = ids.tolist() if isinstance(ids, Tensor) else [int(i) for i in ids]
        with library_errors():
            return self.fast.decode(numbers, skip_special_tokens=False)

    def to_dict(self) -> dict[str, Any]:
        return self.description


def probe(text: str) -> None:
    """Build the tokenizer in another process first.

    A damaged file can make the library panic, run forever or end the process. Here that is an error.

    Raises:
        UserError: the library cannot build the tokenizer. The message gives the reason.
    """
    command = [sys.executable, "-P", "-c", PROBE]
    try:
        done = subprocess.run(
            command, input=text.encode(), capture_output=True, timeout=PROBE_SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        raise UserError(f"the tokenizer takes more than {PROBE_SECONDS} s to load") from None
    if done.returncode:
        lines = done.stderr.decode(errors="replace").strip().splitlines() or [""]
        reason = lines[-1] if done.returncode > 0 else lines[0]
        raise UserError(f"the library tokenizers cannot read the tokenizer: {reason[:200]}")


@contextmanager
def library_errors() -> Iterator[None]:
    """Turn exceptions of the library and panics of its Rust code into a `UserError`."""
    try:
        yield
    except (KeyboardInterrupt, SystemExit, GeneratorExit, MemoryError, UserError):
        raise
    except BaseException as error:
        raise UserError(f"the library tokenizers refuses: {str(error)[:200]}") from error
