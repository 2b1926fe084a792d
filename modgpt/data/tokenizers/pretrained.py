"""Tokenizers of models from elsewhere, through the library tokenizers."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor

from modgpt.data.tokenizers.base import Tokenizer
from modgpt.errors import UserError


class PretrainedTokenizer(Tokenizer):
    """A tokenizer in the format of the library tokenizers (`tokenizer.json` on Hugging Face).

    Text is encoded as it stands: no token is put before or behind it.

    Args:
        description: the content of the file.

    Raises:
        UserError: the library is not installed.
    """

    def __init__(self, description: dict[str, Any]) -> None:
        try:
            import tokenizers
        except ImportError as error:
            raise UserError(
                "this tokenizer needs the library tokenizers: pip install -e '.[hf]'"
            ) from error
        self.description = description
        self.library = tokenizers
        self.fast = tokenizers.Tokenizer.from_str(json.dumps(description))

    def __len__(self) -> int:
        return self.fast.get_vocab_size(with_added_tokens=True)

    @property
    def start(self) -> str:
        """A new document, where there is a token for it, otherwise a new line."""
        special = [t.content for t in self.fast.get_added_tokens_decoder().values() if t.special]
        return special[0] if special else "\n"

    def unknown(self, text: str) -> list[str]:
        unk = self.description["model"].get("unk_token")
        lost = None if unk is None else self.fast.token_to_id(unk)

        def known(character: str) -> bool:
            ids = self.fast.encode(character, add_special_tokens=False).ids
            return bool(ids) and lost not in ids

        return [c for c in dict.fromkeys(text) if not known(c)]

    def encode(self, text: str) -> Tensor:
        return torch.tensor(self.fast.encode(text, add_special_tokens=False).ids, dtype=torch.int64)

    def decode(self, ids: Iterable[int] | Tensor) -> str:
        return self.fast.decode([int(i) for i in ids], skip_special_tokens=False)

    def decode_stream(self, ids: Iterable[Tensor]) -> Iterator[str]:
        # A character can be spread over several tokens, and a space belong to the next one.
        stream = self.library.decoders.DecodeStream(skip_special_tokens=False)
        for token in ids:
            piece = stream.step(self.fast, int(token))
            if piece:
                yield piece

    def to_dict(self) -> dict[str, Any]:
        return self.description
