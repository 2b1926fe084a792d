"""`tokenizer=byte`: one token per byte of UTF-8."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from modgpt.data.tokenizers.base import Tokenizer, listed
from modgpt.data.tokenizers.char import is_surrogate
from modgpt.errors import UserError


class ByteTokenizer(Tokenizer):
    """One token per byte of UTF-8: the id of a byte is its value, so V is 256.

    It needs no training and knows every text. Bytes that form no character decode to U+FFFD.
    """

    unit = "byte"
    lossless = True
    cuts = True

    @classmethod
    def for_text(cls, *texts: Iterable[str]) -> ByteTokenizer:
        """The tokenizer, which is the same for every text."""
        return cls()

    def __len__(self) -> int:
        return 256

    @property
    def start(self) -> str:
        return "\n"

    def unknown(self, text: str) -> list[str]:
        return [c for c in dict.fromkeys(text) if is_surrogate(c)]

    def encode(self, text: str) -> Tensor:
        try:
            content = text.encode()
        except UnicodeEncodeError:
            raise UserError(f"cannot be encoded: {listed(self.unknown(text))}") from None
        return torch.from_numpy(np.frombuffer(content, dtype=np.uint8).astype(np.int64))

    def decode(self, ids: Iterable[int] | Tensor) -> str:
        numbers = ids.tolist() if isinstance(ids, Tensor) else ids
        return bytes(numbers).decode(errors="replace")

    def to_dict(self) -> dict[str, Any]:
        return {"type": "byte"}
