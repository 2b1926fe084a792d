"""Tokenizers: exact streams, lossy ones, and files that hold none."""

from __future__ import annotations

import base64
import json
import os
from pathlib import Path
from typing import Any

import pytest
import tokenizers
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import decoders, models, normalizers, pre_tokenizers, trainers

from modgpt import generate
from modgpt.data.datamodule import TextDataModule
from modgpt.data.tokenizers.base import Tokenizer
from modgpt.data.tokenizers.char import CharTokenizer
from modgpt.data.tokenizers.lossless import first_difference
from modgpt.data.tokenizers.pretrained import PretrainedTokenizer
from modgpt.data.tokenizers.saved import load_tokenizer, saved_tokenizer
from modgpt.errors import UserError
from tests.compositions import small_model

LINES = [
    "to be or not to be, that is the question: ¿qué? 汉字",
    "whether 'tis nobler in the mind € 😀",
] * 20
BYTES = [f"<0x{byte:02X}>" for byte in range(256)]


def byte_level() -> tokenizers.Tokenizer:
    """GPT-2: bytes as characters, spaces before words."""
    fast = tokenizers.Tokenizer(models.BPE())
    fast.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    fast.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    fast.train_from_iterator(LINES, trainers.BpeTrainer(vocab_size=300, initial_alphabet=alphabet))
    return fast


def metaspace() -> tokenizers.Tokenizer:
    """T5: a mark in place of spaces, one before the first word."""
    fast = tokenizers.Tokenizer(models.BPE(unk_token="<unk>"))
    fast.pre_tokenizer, fast.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
    fast.train_from_iterator(LINES, trainers.BpeTrainer(vocab_size=80, special_tokens=["<unk>"]))
    return fast


def llama() -> tokenizers.Tokenizer:
    """Llama 2: marks for spaces, bytes for unknown characters, the first space stripped."""
    pieces = ["<unk>", "<s>", *BYTES, "▁", *"abehinoqrstu", "to", "▁to", "▁be", "be", "▁▁"]
    merges = [("t", "o"), ("▁", "to"), ("b", "e"), ("▁", "be"), ("▁", "▁")]
    vocabulary = {piece: i for i, piece in enumerate(pieces)}
    fast = tokenizers.Tokenizer(
        models.BPE(vocabulary, merges, unk_token="<unk>", byte_fallback=True, fuse_unk=True)
    )
    fast.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    fast.decoder = decoders.Sequence([
        decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0),
    ])  # fmt: skip
    fast.add_special_tokens(["<s>"])
    return fast


def word_piece() -> tokenizers.Tokenizer:
    """BERT: words between spaces, ## before the pieces inside a word."""
    fast = tokenizers.Tokenizer(models.WordPiece(unk_token="[UNK]"))
    fast.normalizer = normalizers.BertNormalizer(lowercase=True)
    fast.pre_tokenizer, fast.decoder = pre_tokenizers.BertPreTokenizer(), decoders.WordPiece()
    special = ["[UNK]", "[CLS]"]
    fast.train_from_iterator(LINES, trainers.WordPieceTrainer(vocab_size=90, special_tokens=special))
    return fast


def unigram() -> tokenizers.Tokenizer:
    """ALBERT: the most probable pieces, marks for spaces."""
    fast = tokenizers.Tokenizer(models.Unigram())
    fast.pre_tokenizer, fast.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
    trainer = trainers.UnigramTrainer(vocab_size=60, special_tokens=["<unk>"], unk_token="<unk>")
    fast.train_from_iterator(LINES, trainer)
    return fast


KINDS = {f.__name__: f for f in (byte_level, metaspace, llama, word_piece, unigram)}


def described(fast: tokenizers.Tokenizer) -> dict[str, Any]:
    return json.loads(fast.to_str())


@pytest.fixture(scope="module")
def pretrained() -> dict[str, PretrainedTokenizer]:
    return {name: PretrainedTokenizer(described(build())) for name, build in KINDS.items()}


def streamed(tokenizer: Tokenizer, prompt: torch.Tensor, ids: torch.Tensor) -> list[str]:
    return list(tokenizer.decode_stream(iter(ids[:, None]), prompt=prompt))


@pytest.mark.parametrize("kind", KINDS)
@settings(deadline=None, max_examples=60, derandomize=True)
@given(
    text=st.lists(st.sampled_from([*"to be,€汉😀\n", " to", "question", "  "]), max_size=12).map(
        "".join
    ),
    more=st.lists(st.sampled_from([*"or not¿é字", " be", "that", " "]), max_size=12).map("".join),
)
def test_a_stream_is_the_text_of_all_tokens_without_the_prompts(
    pretrained: dict[str, PretrainedTokenizer], kind: str, text: str, more: str
) -> None:
    tokenizer = pretrained[kind]
    prompt, new = tokenizer.encode("to be" + text), tokenizer.encode(more)
    before, whole = tokenizer.decode(prompt), tokenizer.decode([*prompt.tolist(), *new.tolist()])
    assert whole.startswith(before)
    assert "".join(streamed(tokenizer, prompt, new)) == whole[len(before) :]


@pytest.mark.parametrize("kind", ["byte_level", "metaspace", "word_piece", "unigram"])
@settings(deadline=None, max_examples=60, derandomize=True)
@given(data=st.data())
def test_a_stream_of_any_tokens_loses_none(
    pretrained: dict[str, PretrainedTokenizer], kind: str, data: st.DataObject
) -> None:
    """A model draws tokens in any order: bytes that make no character, pieces of words alone."""
    tokenizer = pretrained[kind]
    ids = torch.tensor(data.draw(st.lists(st.integers(0, len(tokenizer) - 1), max_size=40)))
    prompt = tokenizer.encode("to be")
    before = tokenizer.decode(prompt)
    whole = tokenizer.decode([*prompt.tolist(), *ids.long().tolist()])
    assert "".join(streamed(tokenizer, prompt, ids.long())) == whole[len(before) :]


def test_pieces_end_with_whole_characters(pretrained: dict[str, PretrainedTokenizer]) -> None:
    for kind in ("byte_level", "llama"):
        tokenizer = pretrained[kind]
        ids = tokenizer.encode("to 😀€汉字 be")
        pieces = streamed(tokenizer, tokenizer.encode("to"), ids)
        assert len(pieces) > 5 and not any("\N{REPLACEMENT CHARACTER}" in piece for piece in pieces)


def test_the_first_space_after_the_prompt_is_kept(pretrained: dict[str, PretrainedTokenizer]) -> None:
    """Generated text of a model that repeats ` be`, for tokens that hold the space before a word."""
    for kind in ("metaspace", "llama", "unigram"):
        tokenizer = pretrained[kind]
        be = tokenizer.encode("to be")[-1]
        model = small_model({})
        model.embedding = torch.nn.Embedding(len(tokenizer), 48)
        model.head = torch.nn.Linear(48, len(tokenizer))
        with torch.no_grad():
            model.head.bias[be] = 1e3
        text = generate(model, tokenizer, "to", max_new_tokens=3, temperature=0)
        assert text == "to be be be", kind


def test_endless_bytes_do_not_wait_for_ever(pretrained: dict[str, PretrainedTokenizer]) -> None:
    tokenizer = pretrained["byte_level"]
    half = tokenizer.encode("€")[:1]  # the first byte of three
    pieces = streamed(tokenizer, tokenizer.encode("to"), half.repeat(200))
    assert "".join(pieces) == "\N{REPLACEMENT CHARACTER}" * 200
    assert len(pieces) > 10


# --- lossy tokenizers -----------------------------------------------------------------------------


def corpus_of(path: Path, tokenizer: PretrainedTokenizer, text: str, **options: Any) -> TextDataModule:
    (path / "text.txt").write_text(text, encoding="utf-8")
    tokenizer.save(path / "tokenizer.json")
    return TextDataModule(
        path=str(path / "text.txt"), batch_size=2, eval_batch_size=2, block_size=8, seed=0,
        field="text", cache_dir=str(path / "cache"),
        tokenizer=lambda *texts: saved_tokenizer(*texts, path=str(path / "tokenizer.json"), **options),
    )  # fmt: skip


def test_a_lossy_tokenizer_is_refused(
    pretrained: dict[str, PretrainedTokenizer], tmp_path: Path
) -> None:
    data = corpus_of(tmp_path, pretrained["word_piece"], "to be To Be\nor not " * 50)
    with pytest.raises(UserError, match=r"from character 6 on 'To Be.+ comes back as 'to be or not'"):
        data.load()
    data = corpus_of(tmp_path, pretrained["metaspace"], "to be xyz " * 50)
    with pytest.raises(UserError, match=r"allow_lossy=true"):
        data.load()


def test_bits_per_character_are_those_of_the_text_itself(
    pretrained: dict[str, PretrainedTokenizer], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A tokenizer that drops every second character has as many tokens per character of the text."""
    text = "to be  \n  or not  \n  " * 50  # white space is dropped
    data = corpus_of(tmp_path, pretrained["word_piece"], text, allow_lossy=True)
    data.load()
    assert "note: the tokenizer changes the text" in capsys.readouterr().err
    ids = pretrained["word_piece"].encode(text)
    assert data.tokens_per_character == pytest.approx(len(ids) / len(text), rel=0.02)
    lossless = corpus_of(tmp_path, pretrained["byte_level"], "to be € 汉字 or not\n" * 50)
    lossless.load()
    ids = lossless.tokens("validation")
    held_out = len(ids) / len(lossless.tokenizer.decode(ids))
    assert lossless.tokens_per_character == pytest.approx(held_out, rel=0.02)
    assert capsys.readouterr().err == ""


def test_the_first_difference() -> None:
    assert first_difference("abc", "abc") is None
    assert first_difference("abc", "abX") == "from character 2 on 'c' comes back as 'X'"
    assert first_difference("abc", "ab") == "from character 2 on 'c' comes back as ''"
    assert first_difference("ab", "ab ") == "from character 2 on '' comes back as ' '"


# --- what a tokenizer knows -----------------------------------------------------------------------


def test_unknown_characters(pretrained: dict[str, PretrainedTokenizer]) -> None:
    expected = {
        "byte_level": [], "metaspace": ["п", "р"], "llama": [], "word_piece": ["п", "р"],
        "unigram": ["п", "р"],
    }  # fmt: skip
    for kind, characters in expected.items():
        assert pretrained[kind].unknown("to be, при п"[:-2].replace("и", "")) == characters, kind
        assert pretrained[kind].unknown("to be") == [], "white space may be a boundary alone"
        assert "\udcff" in pretrained[kind].unknown("to \udcff")
        with pytest.raises(UserError, match="cannot be encoded"):
            pretrained[kind].encode("to \udcff")


def test_an_empty_prompt_begins_with_tokens(pretrained: dict[str, PretrainedTokenizer]) -> None:
    for kind, tokenizer in pretrained.items():
        assert len(tokenizer.encode(tokenizer.start)) > 0, kind
    assert pretrained["llama"].start == "<s>" and pretrained["word_piece"].start == "[CLS]"
    assert CharTokenizer("ab").start == "a" and CharTokenizer("\nab").start == "\n"


def test_a_prompt_without_tokens_is_refused(pretrained: dict[str, PretrainedTokenizer]) -> None:
    tokenizer = pretrained["word_piece"]
    with pytest.raises(UserError, match=r"the prompt ' ' has no tokens"):
        generate(small_model({}), tokenizer, " ", max_new_tokens=1)


def test_text_is_neither_cut_nor_padded_nor_drawn() -> None:
    fast = byte_level()
    fast.enable_truncation(4)
    fast.enable_padding(length=10)
    description = described(fast)
    description["model"]["dropout"] = 0.9
    tokenizer = load_tokenizer(description)
    text = "to be or not to be, that is the question"
    assert len(tokenizer.encode("to")) == len(byte_level().encode("to").ids)
    assert tokenizer.decode(tokenizer.encode(text)) == text
    assert len({tuple(tokenizer.encode(text).tolist()) for _ in range(5)}) == 1


def test_every_id_lies_below_the_length() -> None:
    words = models.WordLevel({"to": 0, "be": 7, "[UNK]": 3}, unk_token="[UNK]")
    tokenizer = load_tokenizer(described(tokenizers.Tokenizer(words)))
    assert len(tokenizer) == 8 and tokenizer.encode("be").tolist() == [7]


def test_char_names_what_it_has_not_seen() -> None:
    with pytest.raises(UserError, match="vocabulary of 2 characters: 'x', '\\\\udcff', 'y'"):
        CharTokenizer("ab").encode("ax\udcffby")
    with pytest.raises(UserError, match="and 8 more"):
        CharTokenizer("ab").encode("cdefghijklmnopqrstuv")


# --- damaged and hostile files --------------------------------------------------------------------

BPE: dict[str, Any] = {"type": "BPE", "vocab": {"a": 0, "b": 1}, "merges": []}
NO_TOKENIZERS = {
    "null": (None, "must be a JSON object, got NoneType"),
    "list": ([], "must be a JSON object, got list"),
    "number": (7, "must be a JSON object, got int"),
    "empty": ({}, "unknown type of tokenizer: None"),
    "kind": ({"type": ["char"]}, "unknown type of tokenizer"),
    "vocabulary missing": ({"type": "char"}, "one string of characters, got NoneType"),
    "vocabulary a list": ({"type": "char", "vocabulary": ["a", "bc"]}, "one string of characters"),
    "vocabulary empty": ({"type": "char", "vocabulary": ""}, "the vocabulary is empty"),
    "duplicates": ({"type": "char", "vocabulary": "abab"}, "has 'a', 'b' more than once"),
    "half a pair": ({"type": "char", "vocabulary": "a\ud800"}, r"has '\\ud800'"),
    "model null": ({"model": None}, "model must be an object, got NoneType"),
    "model list": ({"model": [1]}, "model must be an object, got list"),
    "model empty": ({"model": {}}, "cannot read the tokenizer"),
    "model type": ({"model": {"type": "Evil"}}, "cannot read the tokenizer"),
    "vocab type": ({"model": BPE | {"vocab": 7}}, "cannot read the tokenizer"),
    "no tokens": ({"model": BPE | {"vocab": {}}}, "from 1 to 10,000,000 tokens"),
    "merges": ({"model": BPE | {"merges": ["a c"]}}, "Token `c` out of vocabulary"),
    "negative id": ({"model": BPE | {"vocab": {"a": -1}}}, "expected u32"),
    "huge id": ({"model": BPE | {"vocab": {"a": 4294967295}}}, "ids up to 4,294,967,295"),
    "unk id": ({"model": {"type": "Unigram", "vocab": [["a", 0.0]], "unk_id": 5}}, "Unable to load"),
    "panic": (
        {"model": BPE, "normalizer": {"type": "Precompiled", "precompiled_charsmap": ""}},
        "cannot read the tokenizer: pyo3_runtime.PanicException",
    ),
    "out of memory": (
        {
            "model": BPE,
            "normalizer": {
                "type": "Precompiled",
                "precompiled_charsmap": base64.b64encode(b"\xff" * 64).decode(),
            },
        },
        "cannot read the tokenizer",
    ),
    "regex": (
        {
            "model": BPE,
            "normalizer": {"type": "Replace", "pattern": {"Regex": "("}, "content": ""},
        },
        "cannot read the tokenizer",
    ),
    "added": ({"model": BPE, "added_tokens": 5}, "cannot read the tokenizer"),
}


@pytest.mark.parametrize("name", NO_TOKENIZERS)
def test_no_tokenizer(name: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    content, message = NO_TOKENIZERS[name]
    with pytest.raises(UserError, match=message) as caught:
        load_tokenizer(content)
    assert "\n" not in str(caught.value)
    file = tmp_path / "tokenizer.json"
    file.write_text(json.dumps(content))
    with pytest.raises(UserError, match=message) as caught:
        saved_tokenizer("", path=str(file))
    assert str(file) in str(caught.value)
    assert capfd.readouterr().err == "", "the library's own report stays away"


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"\xff\xfe", b"[" * 100_000, b"9" * 5000, b'{"type": "char", "vocabulary'],
    ids=len,
)
def test_files_without_json(content: bytes, tmp_path: Path) -> None:
    file = tmp_path / "tokenizer.json"
    file.write_bytes(content)
    with pytest.raises(UserError, match=r"tokenizer\.json is not readable JSON") as caught:
        saved_tokenizer("", path=str(file))
    assert "\n" not in str(caught.value)


def test_files_that_are_none(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "huge").touch()
    os.truncate(tmp_path / "huge", 2**29)
    for path, message in (
        (tmp_path / "none", "does not exist"),
        (tmp_path, "is not a regular file"),
        (tmp_path / "fifo", "is not a regular file"),
        ("/dev/zero", "is not a regular file"),
        (tmp_path / "huge", "is larger than 268,435,456 bytes"),
        ("a\0b", "does not exist"),
        (None, r"tokenizer=saved needs a file: tokenizer.path=FILE"),
    ):
        with pytest.raises(UserError, match=message):
            saved_tokenizer("", path=None if path is None else str(path))


def test_saved_without_a_path_writes_nothing(
    overrides: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from modgpt.commands.train import main

    assert main(overrides("tokenizer=saved")) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "tokenizer.path=FILE" in error
    assert not (tmp_path / "runs").exists()
