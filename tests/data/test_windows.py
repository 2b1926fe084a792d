"""Tokenizer, windows and split."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from modgpt.data.datamodule import TextDataModule, minimum_length
from modgpt.data.tokenizers.char import CharTokenizer
from modgpt.data.tokenizers.saved import load_tokenizer
from modgpt.data.windows import EvaluationWindows, TrainingWindows

TEXT = "First Citizen:\nBefore we proceed, hear me speak. ¿Qué? 汉字 \U0001f600\r\n"


def test_characters_are_numbered_in_sorted_order() -> None:
    tokenizer = CharTokenizer.from_text(TEXT)
    assert tokenizer.vocabulary == "".join(sorted(set(TEXT)))
    assert tokenizer.encode(TEXT).tolist() == [sorted(set(TEXT)).index(c) for c in TEXT]
    assert tokenizer.decode(tokenizer.encode(TEXT)) == TEXT
    assert tokenizer.encode("").shape == (0,)


def test_unknown_characters_are_named() -> None:
    with pytest.raises(ValueError, match="not in the vocabulary of 2 characters: 'x', 'y'"):
        CharTokenizer("ab").encode("axbyx")


def test_a_tokenizer_survives_its_file(tmp_path: Path) -> None:
    import json

    tokenizer = CharTokenizer.from_text(TEXT)
    tokenizer.save(tmp_path / "t.json")
    again = load_tokenizer(json.loads((tmp_path / "t.json").read_text(encoding="utf-8")))
    assert again.vocabulary == tokenizer.vocabulary
    with pytest.raises(ValueError, match="bpe"):
        load_tokenizer({"type": "bpe"})


def training(**changes: int) -> TrainingWindows:
    options = {"block_size": 5, "batch_size": 8, "seed": 1} | changes
    return TrainingWindows(np.arange(100), **options)  # type: ignore[arg-type]


def test_training_windows_are_runs_of_the_text() -> None:
    batch = training().batch(0)
    assert batch.shape == (8, 6)
    assert (batch.diff(dim=1) == 1).all()


def test_a_batch_is_a_function_of_seed_and_step() -> None:
    first = [b for _, b in zip(range(5), training(), strict=False)]
    again = [b for _, b in zip(range(3), training(first=2 * 8), strict=False)]
    assert all(torch.equal(a, b) for a, b in zip(first[2:], again, strict=True))
    assert not torch.equal(first[0], first[1])
    assert not torch.equal(training(seed=2).batch(0), first[0])
    # Seed and step are not simply added: (1, 2) and (2, 1) differ.
    assert not torch.equal(training(seed=1).batch(2), training(seed=2).batch(1))


@pytest.mark.parametrize("batch_size", [1, 3, 8, 20])
@pytest.mark.parametrize("first", [0, 5, 16])
def test_another_batch_size_continues_the_same_series(batch_size: int, first: int) -> None:
    series = torch.cat([training().batch(n) for n in range(20)])
    other = training(batch_size=batch_size, portion=8, first=first)
    got = torch.cat([other.batch(n) for n in range(4)])
    assert torch.equal(got, series[first : first + 4 * batch_size])


def test_the_order_is_that_of_numpy_s_generator() -> None:
    """Published losses depend on it: batch n of a run is drawn by the generator of (seed, n)."""
    starts = np.random.default_rng((1, 7)).integers(95, size=8)
    assert training().batch(7)[:, 0].tolist() == starts.tolist()


def test_ranks_share_one_global_batch() -> None:
    whole = training().batch(3)
    parts = [training(rank=r, world_size=4).batch(3) for r in range(4)]
    assert all(part.shape == (2, 6) for part in parts)
    assert torch.equal(torch.stack(parts, dim=1).flatten(0, 1), whole)


def test_every_start_is_drawn() -> None:
    """The last possible window, and with it the last token, is used too."""
    windows = TrainingWindows(np.arange(8), block_size=5, batch_size=64, seed=0)
    assert set(windows.batch(0)[:, 0].tolist()) == {0, 1, 2}


@pytest.mark.parametrize("length", [2, 5, 6, 7, 11, 12, 13, 100])
@pytest.mark.parametrize("batch_size", [1, 3, 50])
def test_evaluation_scores_each_target_once(length: int, batch_size: int) -> None:
    windows = EvaluationWindows(np.arange(length), block_size=5, batch_size=batch_size)
    targets = [t for batch in windows for t in batch[:, 1:].flatten().tolist()]
    assert sorted(targets) == list(range(1, length))
    assert all((batch.diff(dim=1) == 1).all() for batch in windows)
    assert all(len(batch) <= batch_size for batch in windows)
    first = [row[0] for batch in windows for row in batch.tolist()]
    assert [start // 5 for start in first] == windows.order().tolist()


def test_each_evaluation_batch_is_an_even_sample() -> None:
    windows = EvaluationWindows(np.arange(102), block_size=5, batch_size=4)
    starts = [batch[:, 0].tolist() for batch in windows]
    assert starts[0] == [0, 25, 50, 75] and starts[4] == [20, 45, 70, 95]
    assert starts[5] == [100], "the short one comes last"


def test_ranks_share_the_evaluation() -> None:
    targets: list[int] = []
    for rank in range(3):
        windows = EvaluationWindows(np.arange(99), block_size=5, batch_size=2, rank=rank, world_size=3)
        targets += [t for batch in windows for t in batch[:, 1:].flatten().tolist()]
    assert sorted(targets) == list(range(1, 99))


@pytest.mark.parametrize("block_size", [1, 8, 16, 64, 100, 255, 256])
def test_the_minimum_length_is_the_minimum(block_size: int, tmp_path: Path) -> None:
    def load(length: int) -> None:
        path = tmp_path / "text.txt"
        path.write_text("ab" * length)
        path.write_text(("ab" * length)[:length])
        data = TextDataModule(
            path=str(path), tokenizer=CharTokenizer.from_text, batch_size=2, eval_batch_size=2,
            block_size=block_size, seed=0, field="text", cache_dir=str(tmp_path / "cache"),
        )  # fmt: skip
        data.load()
        assert next(iter(data.train_dataloader())).shape == (2, block_size + 1)
        assert len(list(data.val_dataloader())) >= 1

    minimum = minimum_length(block_size)
    load(minimum)
    with pytest.raises(ValueError, match=f"at least {minimum}"):
        load(minimum - 1)


def test_the_split_is_contiguous_and_the_vocabulary_the_whole_texts(tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text("a" * 95 + "Z" * 5)
    data = TextDataModule(
        path=str(tmp_path / "text.txt"), tokenizer=CharTokenizer.from_text, batch_size=2,
        eval_batch_size=2, block_size=4, seed=0, field="text", cache_dir=str(tmp_path / "cache"),
    )  # fmt: skip
    tokenizer = data.load()
    assert tokenizer.vocabulary == "Za"
    assert len(data.tokens("train")) == 90
    assert tokenizer.decode(data.tokens("validation")) == "aaaaaZZZZZ"
