"""Descriptions of tokenizers: in tokenizer.json, in checkpoints, in folders of transformers."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import tokenizers

BOMB = "[" * 100_000 + "]" * 100_000


def _word_level(**changes: Any) -> dict[str, Any]:
    """A description that the library reads, with some of it changed."""
    words = tokenizers.models.WordLevel({f"w{i}": i for i in range(9)}, unk_token="w0")
    return json.loads(tokenizers.Tokenizer(words).to_str()) | changes


def _added(id: Any, content: Any = "<x>") -> dict[str, Any]:
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    return {"id": id, "content": content, "special": True} | flags


# Values that are no tokenizer, by name for the test's output.
DESCRIPTIONS: dict[str, Callable[[], Any]] = {
    "number": lambda: 7,
    "list": lambda: [1, 2],
    "empty": lambda: {},
    "type_unknown": lambda: {"type": "os.system", "vocabulary": "abc"},
    "type_a_list": lambda: {"type": ["char"], "vocabulary": "abc"},
    "type_a_trainer": lambda: {"type": "bpe", "vocab_size": 10**9, "cache_dir": "/tmp/x"},
    "char_without_vocabulary": lambda: {"type": "char"},
    "char_of_numbers": lambda: {"type": "char", "vocabulary": [1, 2, 3]},
    "char_of_words": lambda: {"type": "char", "vocabulary": ["ab", "c"]},
    "char_empty": lambda: {"type": "char", "vocabulary": ""},
    "char_twice": lambda: {"type": "char", "vocabulary": "aab"},
    "char_of_ten_million": lambda: {"type": "char", "vocabulary": "ab" * 5_000_000},
    "char_with_half_a_character": lambda: {"type": "char", "vocabulary": "a\ud800"},
    "model_a_number": lambda: {"model": 7},
    "model_null": lambda: _word_level(model=None),
    "model_unknown": lambda: _word_level(model={"type": "os.system", "vocab": {}}),
    "model_a_target": lambda: _word_level(model={"_target_": "os.system", "_args_": ["touch x"]}),
    "vocabulary_a_list": lambda: _word_level(
        model={"type": "WordLevel", "vocab": [1], "unk_token": "x"}
    ),
    "ids_negative": lambda: _word_level(
        model={"type": "WordLevel", "vocab": {"a": -1, "b": 0}, "unk_token": "b"}
    ),
    "ids_beyond_the_model": lambda: _word_level(
        model={"type": "WordLevel", "vocab": {"a": 4_000_000_000, "bc": 0}, "unk_token": "bc"}
    ),
    "ids_beyond_32_bits": lambda: _word_level(
        model={"type": "WordLevel", "vocab": {"a": 2**70, "b": 0}, "unk_token": "b"}
    ),
    "added_a_target": lambda: _word_level(added_tokens=[{"_target_": "os.system"}]),
    "added_beyond_32_bits": lambda: _word_level(added_tokens=[_added(2**40)]),
    "added_id_a_text": lambda: _word_level(added_tokens=[_added("__import__('os')")]),
    "added_content_a_list": lambda: _word_level(added_tokens=[_added(9, ["x"])]),
    "added_two_hundred_thousand": lambda: _word_level(
        added_tokens=[_added(i + 9, f"<{i}>") for i in range(200_000)]
    ),
    "regex_that_explodes": lambda: _word_level(
        pre_tokenizer={
            "type": "Split",
            "pattern": {"Regex": "(" * 5000 + ")" * 5000},
            "behavior": "Isolated",
            "invert": False,
        }
    ),
    "deep_normalizers": lambda: _word_level(normalizer=_nested(100)),
    "truncation_of_everything": lambda: _word_level(truncation={"max_length": -5}),
    "padding_of_everything": lambda: _word_level(padding={"strategy": {"Fixed": 2**60}}),
}


def _nested(depth: int) -> dict[str, Any]:
    inner: dict[str, Any] = {"type": "NFC"}
    for _ in range(depth):
        inner = {"type": "Sequence", "normalizers": [inner]}
    return inner


# Files that are no JSON, or none that a bounded reader takes.
FILES: dict[str, Callable[[Path], Any]] = {
    "nested_a_hundred_thousand_deep": lambda p: p.write_text(BOMB),
    "nested_inside": lambda p: p.write_text('{"model": ' + BOMB + "}"),
    "no_json": lambda p: p.write_text("import os"),
    "no_text": lambda p: p.write_bytes(bytes(range(256))),
    "number_of_ten_thousand_digits": lambda p: p.write_text('{"model": ' + "9" * 10_000 + "}"),
    "device": lambda p: p.symlink_to("/dev/zero"),
    "half_a_gigabyte": lambda p: _sparse(p, 2**29),
    "folder": lambda p: p.mkdir(),
}


def _sparse(path: Path, size: int) -> None:
    with path.open("wb") as file:
        file.truncate(size)
