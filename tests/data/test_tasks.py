"""Recall and copy: what the sequences are, where they are asked, and that nothing else decides them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from modgpt.data.batch import IGNORED, inputs_and_targets
from modgpt.data.tasks.base import TaskBatches, TaskDataModule, letters
from modgpt.data.tasks.copying import CopyDataModule
from modgpt.data.tasks.recall import RecallDataModule, without_replacement
from modgpt.data.tokenizers.char import CharTokenizer
from modgpt.inference.samples import sample
from tests.compositions import small_model

BASE: dict[str, Any] = {
    "tokenizer": CharTokenizer.from_text, "batch_size": 8, "eval_batch_size": 3, "block_size": 32,
    "seed": 1, "val_sequences": 10,
}  # fmt: skip


def recall(**changes: Any) -> RecallDataModule:
    return RecallDataModule(**BASE | {"vocabulary": 12, "pairs": 5, "power": 0.01} | changes)


def copying(**changes: Any) -> CopyDataModule:
    return CopyDataModule(**BASE | {"vocabulary": 7, "length": 10} | changes)


MAKERS = pytest.mark.parametrize("make", [recall, copying], ids=["recall", "copy"])


def sequences(data: TaskDataModule, n: int) -> list[tuple[list[int], list[int]]]:
    inputs, targets = data.drawn(np.random.default_rng(0), n)
    assert inputs.dtype == targets.dtype == torch.int64 and inputs.shape == (n, data.block_size)
    return list(zip(inputs.tolist(), targets.tolist(), strict=True))


@pytest.mark.parametrize(("block_size", "pairs"), [(32, 5), (20, 5), (21, 5), (4, 1), (40, 6)])
def test_every_key_is_asked_once_for_its_value(block_size: int, pairs: int) -> None:
    for inputs, targets in sequences(recall(block_size=block_size, pairs=pairs), 50):
        value_of = {inputs[2 * i]: inputs[2 * i + 1] for i in range(pairs)}
        assert len(value_of) == len(set(value_of.values())) == pairs
        assert all(1 <= key <= 6 for key in value_of), "keys are the first half"
        assert all(7 <= value <= 12 for value in value_of.values()), "values the second"
        assert targets[: 2 * pairs] == [IGNORED] * (2 * pairs)
        asked = []
        for place, (token, target) in enumerate(zip(inputs, targets, strict=True)):
            if place < 2 * pairs:
                continue
            if target == IGNORED:
                assert token == 0
            else:
                assert place % 2 == 0 and target == value_of[token]
                asked.append(token)
        assert sorted(asked) == sorted(value_of)


@pytest.mark.parametrize("length", [1, 10, 16])
def test_the_second_half_of_a_copy_is_asked(length: int) -> None:
    for inputs, targets in sequences(copying(length=length), 20):
        string = inputs[:length]
        assert all(1 <= token <= 7 for token in string)
        tokens = [*string, 0, *string]
        rest = BASE["block_size"] - 2 * length
        assert inputs == tokens[:-1] + [0] * rest
        assert targets == [IGNORED] * length + string + [IGNORED] * rest
        for place, target in enumerate(targets[: 2 * length]):
            assert target in (IGNORED, tokens[place + 1]), "the next token"


def test_a_copy_is_as_long_as_the_window_allows() -> None:
    assert copying(length=None).length == 16 and copying(length=None, block_size=9).length == 4


def test_a_window_holds_a_fourth_of_it_in_pairs() -> None:
    data = recall(pairs=None, vocabulary=16)
    assert data.pairs == 8
    _, targets = data.drawn(np.random.default_rng(0), 5)
    asked = targets != IGNORED
    assert (asked[:, 16::2]).all() and asked.sum() == 5 * 8, "every place is a query"


def test_all_keys_and_values_are_drawn() -> None:
    inputs, _ = recall().drawn(np.random.default_rng(0), 300)
    assert set(inputs[:, 0:10:2].flatten().tolist()) == set(range(1, 7))
    assert set(inputs[:, 1:10:2].flatten().tolist()) == set(range(7, 13))


def test_draws_without_replacement_have_their_probabilities() -> None:
    """Against one draw after the other: P(i, j) = wᵢ · wⱼ / (1 − wᵢ)."""
    weights, n = np.array([0.5, 0.3, 0.15, 0.05]), 40_000
    drawn = without_replacement(np.random.default_rng(0), 3 * weights, n, 2)
    assert drawn.shape == (n, 2) and (drawn[:, 0] != drawn[:, 1]).all()
    for i in range(4):
        for j in range(4):
            if i != j:
                wanted = weights[i] * weights[j] / (1 - weights[i])
                found = ((drawn == (i, j)).all(axis=1)).mean()
                assert found == pytest.approx(wanted, abs=5 * (wanted / n) ** 0.5)


@pytest.mark.parametrize("power", [0.01, 0.5, 1.0])
def test_gaps_follow_the_power_law(power: float) -> None:
    data, n = recall(pairs=1, power=power), 20_000
    _, targets = data.drawn(np.random.default_rng(0), n)
    gaps = ((targets != IGNORED).float().argmax(1) - 2) // 2 + 1
    wanted = np.arange(1, 16) ** (power - 1)
    found = np.bincount(gaps, minlength=16)[1:] / n
    np.testing.assert_allclose(found, wanted / wanted.sum(), atol=0.02)


def batches(data: TaskDataModule, first: int = 0, n: int = 3) -> list[Tensor]:
    made = TaskBatches(data.drawn, batch_size=data.batch_size, seed=data.seed, first=first)
    return [batch for _, batch in zip(range(n), made, strict=False)]


@MAKERS
def test_a_batch_is_a_function_of_seed_and_step(make: Any) -> None:
    first = batches(make(), n=5)
    assert first[0].shape == (2, 8, 32)
    again = batches(make(), first=2 * 8)
    assert all(torch.equal(a, b) for a, b in zip(first[2:], again, strict=True))
    assert not torch.equal(first[0], first[1])
    assert not torch.equal(first[0], batches(make(seed=2))[0])
    assert not torch.equal(batches(make(seed=1))[2], batches(make(seed=2))[1])


@MAKERS
def test_ranks_share_one_global_batch(make: Any) -> None:
    data = make()
    whole = batches(data)[0]
    parts = [
        TaskBatches(data.drawn, batch_size=8, seed=1, rank=r, world_size=4).batch(0) for r in range(4)
    ]
    assert all(part.shape == (2, 2, 32) for part in parts)
    assert torch.equal(torch.stack(parts, dim=2).flatten(1, 2), whole)


@MAKERS
def test_validation_is_one_fixed_set(make: Any) -> None:
    made = []
    for changes in ({}, {"seed": 2}, {"eval_batch_size": 4}):
        data = make(**changes)
        data.load()
        found = list(data.val_dataloader())
        assert [b.shape[1] for b in found] == (
            [4, 4, 2] if "eval_batch_size" in changes else [3, 3, 3, 1]
        )
        made.append(torch.cat(found, dim=1))
    assert made[0].shape == (2, 10, 32)
    assert torch.equal(made[0], made[1]) and torch.equal(made[0], made[2])
    for seed in range(20):
        seen = {tuple(s) for s in batches(make(seed=seed), n=1)[0][0].tolist()}
        assert not seen & {tuple(s) for s in made[0][0].tolist()}, "validated on what was trained"


@MAKERS
def test_the_digest_is_of_the_task(make: Any) -> None:
    def digest(**changes: Any) -> str:
        data = make(**changes)
        data.load()
        return data.digest

    assert len(digest()) == 64
    assert digest() == digest(seed=5, batch_size=1, eval_batch_size=1)
    others = {digest(vocabulary=14), digest(block_size=48), digest(val_sequences=3), digest()}
    others |= {digest(pairs=4), digest(power=1.0)} if make is recall else {digest(length=9)}
    assert len(others) == (6 if make is recall else 5)


def test_the_two_tasks_are_not_the_same() -> None:
    recalled, copied = recall(), copying()
    assert recalled.load().vocabulary == ".ABCDEFGHIJKL" and copied.load().vocabulary == ">ABCDEFG"
    assert recalled.digest != copied.digest


def test_letters_print_and_their_order_is_that_of_their_ids() -> None:
    assert letters(52) == "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
    many = letters(8192)
    assert len(set(many)) == 8192 and many.isprintable() and many == "".join(sorted(many))
    data = recall(vocabulary=8192)
    assert data.load().vocabulary == "." + many
    with pytest.raises(ValueError, match=r"data.vocabulary=1000000 is more than the \d+ letters"):
        letters(1_000_000)


def test_what_a_model_answers_is_shown() -> None:
    data = recall(vocabulary=10, pairs=2, block_size=70)
    data.load()
    model = small_model({}, block_size=70).train()
    inputs, targets = data.val_tokens[:, 0]
    shown = sample(model, data, max_new_tokens=200, seed=1)
    assert model.training
    first, second = (block.split("\n") for block in shown.split("\n\n"))
    assert [line[:8] for line in first] == ["reads   ", "wanted  ", "answers "]
    reads = first[0][8:] + second[0][8:]
    assert reads == data.tokenizer.decode(inputs)
    wanted, answers = (
        first[i][8:].ljust(64) + (second[i][8:] if len(second) > i else "") for i in (1, 2)
    )
    predicted = model.eval()(inputs[None])[0].argmax(-1)
    for place in range(70):
        asked = targets[place] != IGNORED
        want = data.tokenizer.decode([int(targets[place])]) if asked else ""
        got = data.tokenizer.decode([int(predicted[place])]) if asked else ""
        assert (wanted + " " * 70)[place].strip() == want
        assert (answers + " " * 70)[place].strip() == got


MISTAKES = [
    (recall, {"pairs": None, "block_size": 3}, "data.pairs must be at least 1, got 0"),
    (recall, {"pairs": 0}, "data.pairs must be at least 1, got 0"),
    (recall, {"pairs": 7}, "data.vocabulary=12 must be even and at least 14, for data.pairs=7"),
    (recall, {"vocabulary": 13}, "data.vocabulary=13 must be even"),
    (recall, {"block_size": 19}, "data.pairs=5 needs at least model.block_size=20"),
    (recall, {"power": 0.0}, "data.power must be positive, got 0.0"),
    (recall, {"val_sequences": 0}, "data.val_sequences must be at least 1, got 0"),
    (recall, {"batch_size": 0}, "data.batch_size must be at least 1, got 0"),
    (copying, {"vocabulary": 0}, "data.vocabulary must be at least 1, got 0"),
    (copying, {"length": 0}, "data.length must be at least 1, got 0"),
    (copying, {"length": 17}, "data.length=17 needs at least model.block_size=34"),
    (copying, {"length": None, "block_size": 1}, "data.length must be at least 1, got 0"),
]


@pytest.mark.parametrize(("make", "changes", "text"), MISTAKES)
def test_mistakes(make: Any, changes: dict[str, Any], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        make(**changes)


def test_both_kinds_of_batches_split() -> None:
    tokens = torch.arange(12).view(3, 4)
    inputs, targets = inputs_and_targets(tokens)
    assert torch.equal(inputs, tokens[:, :3]) and torch.equal(targets, tokens[:, 1:])
    pair = torch.stack([tokens, -tokens])
    inputs, targets = inputs_and_targets(pair)
    assert torch.equal(inputs, tokens) and torch.equal(targets, -tokens)
