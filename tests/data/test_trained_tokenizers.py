"""The tokenizers byte, bpe and unigram: lossless, the same at every training, cached, bounded."""

from __future__ import annotations

import json
import multiprocessing
import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modgpt import generate, load_run
from modgpt.commands.train import main
from modgpt.data.corpus import Part
from modgpt.data.sources import pieces
from modgpt.data.tokenizers import trained
from modgpt.data.tokenizers.base import Tokenizer
from modgpt.data.tokenizers.bpe import bpe_tokenizer
from modgpt.data.tokenizers.byte import ByteTokenizer
from modgpt.data.tokenizers.saved import load_tokenizer, read_tokenizer_file
from modgpt.data.tokenizers.unigram import unigram_tokenizer
from modgpt.errors import UserError
from modgpt.inference.evaluation.evaluate import evaluate_runs
from modgpt.runs.saved import job_of
from modgpt.training.loop import train
from modgpt.training.prepare import prepare
from tests.data.parts import part_of

Overrides = Callable[..., list[str]]
_random = random.Random(0)
_PARTS = ["to", "be", "ra", "no", "quest", "ion", "ï"]
_WORDS = ["".join(_random.choices(_PARTS, k=3)) for _ in range(99)]
TEXT = " ".join(_random.choices([*_WORDS, "汉字", "😀"], k=4000)) + "\r\n"
MAKERS: dict[str, Callable[..., Tokenizer]] = {"bpe": bpe_tokenizer, "unigram": unigram_tokenizer}
KINDS = ("byte", *MAKERS)
SIZE = 270


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Tokenizer]:
    cache = str(tmp_path_factory.mktemp("cache"))
    found = {
        kind: make(part_of(TEXT), vocab_size=SIZE, cache_dir=cache) for kind, make in MAKERS.items()
    }
    return {"byte": ByteTokenizer.for_text(TEXT), **found}


# --- lossless -------------------------------------------------------------------------------------

ODD = [
    *("😀", "👩\u200d👩\u200d👧", "e\u0301", "\u0301", "\r\n", "\r", "\n\n", "\0", "  ", " ", "\t"),
    *("\u00a0", "\ufb01", "\ufffd", "\u2028", "\ufeff", "汉"),
]
TEXTS = st.lists(st.one_of(st.sampled_from([*ODD, "to", " be"]), st.text(max_size=5)), max_size=12)


@pytest.mark.parametrize("kind", KINDS)
@settings(deadline=None, max_examples=200, derandomize=True)
@given(parts=TEXTS)
def test_every_text_comes_back(made: dict[str, Tokenizer], kind: str, parts: list[str]) -> None:
    text, tokenizer = "".join(parts), made[kind]
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == text
    assert not len(ids) or 0 <= int(ids.min()) <= int(ids.max()) < len(tokenizer)
    assert tokenizer.unknown(text) == []


@pytest.mark.parametrize("kind", KINDS)
def test_half_a_surrogate_pair_is_no_text(made: dict[str, Tokenizer], kind: str) -> None:
    with pytest.raises(UserError, match=r"cannot be encoded: '\\udcff'"):
        made[kind].encode("a\udcff")


@pytest.mark.parametrize("kind", KINDS)
def test_it_is_saved_and_streams(made: dict[str, Tokenizer], kind: str, tmp_path: Path) -> None:
    tokenizer = made[kind]
    tokenizer.save(tmp_path / "tokenizer.json")
    again = read_tokenizer_file(tmp_path / "tokenizer.json")
    text = " to be 😀\r\n汉字"
    ids = again.encode(text)
    assert ids.tolist() == tokenizer.encode(text).tolist()
    pieces = list(again.decode_stream(iter(ids[:, None])))
    assert "".join(pieces) == text and not any("\ufffd" in piece for piece in pieces)
    assert again.start == "\n"


def test_a_byte_is_its_own_id() -> None:
    tokenizer = load_tokenizer({"type": "byte"})
    assert len(tokenizer) == 256
    assert tokenizer.encode("aé").tolist() == [97, 0xC3, 0xA9]
    assert tokenizer.decode([0xC3]) == "\ufffd"


# --- training -------------------------------------------------------------------------------------

TRAIN = """
import json, sys
from tests.data.test_trained_tokenizers import MAKERS, SIZE, TEXT, part_of
made = MAKERS[sys.argv[1]](part_of(TEXT), vocab_size=SIZE, cache_dir=sys.argv[2])
print(json.dumps(made.to_dict()))
"""


@pytest.mark.parametrize("kind", MAKERS)
def test_every_training_gives_the_same(made: dict[str, Tokenizer], kind: str, tmp_path: Path) -> None:
    """In another process: the library's hash tables have another order there."""
    command = [sys.executable, "-c", TRAIN, kind, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == json.loads(json.dumps(made[kind].to_dict()))


@pytest.mark.parametrize("kind", MAKERS)
@pytest.mark.parametrize(
    ("size", "message"),
    [
        (255, r"tokenizer\.vocab_size must be at least 25[67], got 255"),
        (9000, "vocab_size=9000 is larger than the text allows: the training split of .* tokens"),
        (10**12, "vocab_size=1000000000000 is larger than the text allows"),
    ],
)
def test_sizes_that_cannot_be(kind: str, size: int, message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=message):
        MAKERS[kind](part_of(TEXT), vocab_size=size, cache_dir=str(tmp_path))
    assert not list(tmp_path.glob("*.json"))


def test_a_long_text_is_trained_on_in_even_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pieces, "SIZE", 1000)
    text = "".join(chr(ord("a") + i) * 999 + " " for i in range(20))
    whole = part_of(text)
    assert "".join(trained.sampled(whole)) == text
    some = list(trained.sampled(whole, most=5000))
    assert [piece.strip()[0] for piece in some] == list("aeimq")
    assert sum(map(len, some)) == pytest.approx(5000, rel=0.01)


# --- the cache ------------------------------------------------------------------------------------


def counted(monkeypatch: pytest.MonkeyPatch) -> list[Part]:
    trainings: list[Part] = []
    original = trained.trained

    def counting(text: Part, *arguments: Any) -> dict[str, Any]:
        trainings.append(text)
        return original(text, *arguments)

    monkeypatch.setattr(trained, "trained", counting)
    return trainings


def test_the_cache_is_used_and_a_damaged_one_rebuilt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainings = counted(monkeypatch)

    def make(text: str = TEXT, size: int = SIZE) -> Tokenizer:
        return bpe_tokenizer(part_of(text), vocab_size=size, cache_dir=str(tmp_path))

    first = make().to_dict()
    [file] = tmp_path.glob("*.json")
    assert make().to_dict() == first and len(trainings) == 1
    make(TEXT + "more")
    make(size=SIZE - 1)
    assert len(trainings) == 3, "another text and another size are other files"
    whole = file.read_text()
    for damage in (whole[:100], "", "[]", whole.replace('"merges":', '"merge":'), "[" * 100_000):
        file.write_text(damage)
        before = len(trainings)
        assert make().to_dict() == first and len(trainings) == before + 1
        assert file.read_text() == whole


def _make(folder: str) -> int:
    return len(bpe_tokenizer(part_of(TEXT), vocab_size=SIZE, cache_dir=folder))


def test_two_processes_at_once(tmp_path: Path) -> None:
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        assert pool.map(_make, [str(tmp_path)] * 4, chunksize=1) == [SIZE] * 4
    assert len(list(tmp_path.glob("*.json"))) == 1


def test_a_cache_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"cannot write .*; tokenizer.cache_dir=FOLDER") as caught:
        bpe_tokenizer(part_of(TEXT), vocab_size=SIZE, cache_dir=str(tmp_path / "file"))
    assert "\n" not in str(caught.value)


# --- in a run -------------------------------------------------------------------------------------


@pytest.fixture
def arguments(overrides: Overrides, tmp_path: Path) -> Overrides:
    text = tmp_path / "words.txt"
    text.write_text(TEXT, encoding="utf-8", newline="")
    base = [a for a in overrides() if not a.startswith("data.path")]

    def of(kind: str, *more: str) -> list[str]:
        sized = [f"tokenizer.vocab_size={SIZE}", f"tokenizer.cache_dir={tmp_path / 'cache'}"]
        given = [f"data.path={text}", f"tokenizer={kind}", *(sized if kind != "byte" else [])]
        return [*base, *given, "trainer.max_steps=4", "trainer.val_check_interval=2", *more]

    return of


@pytest.mark.parametrize("kind", KINDS)
def test_a_run_keeps_its_tokenizer(kind: str, arguments: Overrides, tmp_path: Path) -> None:
    """Generate, evaluate and resume use the run's own: the cache is gone, and need not be made again."""
    outcome = train(job_of(arguments(kind)))
    record, run = outcome.record, load_run(outcome.folder)
    assert record.vocab_size == (256 if kind == "byte" else SIZE)
    held_out = TEXT[len(TEXT) * 9 // 10 :]
    assert outcome.data.tokenizer.decode(outcome.data.tokens("validation")) == held_out  # pyright: ignore
    per_byte = len(run.tokenizer.encode(held_out)) / len(held_out.encode())
    assert record.tokens_per_byte == per_byte
    assert record.final_val_loss is not None and record.final_val_bits_per_byte == pytest.approx(
        record.final_val_loss / 0.6931471805599453 * per_byte
    )
    for file in (tmp_path / "cache").glob("*"):
        file.unlink()
    assert generate(run.model, run.tokenizer, "to 😀", max_new_tokens=3, seed=1).startswith("to 😀")
    [measured] = evaluate_runs([outcome.folder], [16], device="cpu")
    assert measured.loss == pytest.approx(record.final_val_loss, rel=1e-5)
    longer = train(job_of([f"resume={outcome.folder}", "trainer.max_steps=6"]))
    assert longer.record.final_step == 6
    assert longer.data.tokenizer.to_dict() == run.tokenizer.to_dict()
    assert not list((tmp_path / "cache").glob("*.json"))


def test_a_trained_tokenizer_does_not_see_the_held_out_text(
    arguments: Overrides, tmp_path: Path
) -> None:
    data = prepare(job_of(arguments("bpe"))).data
    alone = bpe_tokenizer(
        part_of(TEXT[: len(TEXT) * 9 // 10]), vocab_size=SIZE, cache_dir=str(tmp_path / "b")
    )
    assert data.tokenizer.to_dict() == alone.to_dict()


def test_a_budget_in_bytes_is_equal_for_every_tokenizer(arguments: Overrides) -> None:
    """And so are the parameters without the embeddings."""
    seen, others = {}, set()
    for kind in KINDS:
        line = [a for a in arguments(kind, "max_bytes=50000") if not a.startswith("trainer.max_steps")]
        ready = prepare(job_of(line))
        steps = ready.config.trainer.max_steps
        assert ready.config.schedule.max_steps == steps
        seen[kind] = ready.training_tokens * ready.data.training_bytes_per_token
        others.add(ready.cost.parameters - len(ready.data.tokenizer) * ready.config.model.d_model)
    assert all(amount == pytest.approx(50_000, rel=0.02) for amount in seen.values()), seen
    assert len(others) == 1


@pytest.mark.parametrize(
    ("kind", "more", "message"),
    [
        ("bpe", ["tokenizer.vocab_size=100"], "tokenizer.vocab_size must be at least 256, got 100"),
        ("unigram", ["tokenizer.vocab_size=8000"], "is larger than the text allows"),
        ("bpe", ["tokenizer.vocab_size=many"], "tokenizer.vocab_size"),
        ("byte", ["max_bytes=0"], "max_bytes must be a whole number of at least 1, got 0"),
        ("byte", ["max_bytes=500"], "decides trainer.max_steps: give one of them"),
        ("byte", ["data=copy"], "a task prints its tokens as characters: it needs tokenizer=char"),
    ],
)
def test_a_mistake_is_one_line(
    kind: str, more: list[str], message: str, arguments: Overrides, tmp_path: Path, capsys: Any
) -> None:
    line = arguments(kind, *more)
    if "data=copy" in more:
        line = [a for a in line if not a.startswith(("data.path", "data=text"))]
    assert main(line) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and message in error
    assert not (tmp_path / "runs").exists()
