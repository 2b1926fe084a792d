"""Every synthetic task there is: its answers, its chance level, its seeds, and what it asks of a model.

The tasks are found in the configs, so that a new one is tested the moment it exists.
"""

from __future__ import annotations

import inspect
from contextlib import suppress
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from hydra.utils import instantiate
from omegaconf import DictConfig
from torch import Tensor

from modgpt.config.compose import compose
from modgpt.config.search import option_node, options
from modgpt.data.batch import IGNORED
from modgpt.data.tasks.base import TaskBatches, TaskDataModule
from modgpt.data.tokenizers.char import CharTokenizer
from modgpt.errors import UserError, as_user_errors
from modgpt.testing import build

TASKS = [
    name
    for name in options("data")
    if str(option_node("data", name)["_target_"]).startswith("modgpt.data.tasks.")
]
every_task = pytest.mark.parametrize("name", TASKS)


@cache
def node_of(name: str, *overrides: str) -> DictConfig:
    return compose([f"data={name}", "model.block_size=48", *overrides]).data


def task(name: str, *overrides: str, **changes: Any) -> TaskDataModule:
    """A task as its YAML makes it, loaded."""
    sizes = {"batch_size": 8, "val_sequences": 20} | changes
    data = instantiate(node_of(name, *overrides), tokenizer=CharTokenizer.from_text, **sizes)
    data.load()
    return data


def asked(targets: Tensor) -> dict[int, int]:
    """The answers at the places that are asked: (T,) -> {place: token}."""
    return {t: target for t, target in enumerate(targets.tolist()) if target != IGNORED}


@every_task
@pytest.mark.parametrize("block_size", [24, 48, 63])
def test_the_slow_solver_gets_all_answers(name: str, block_size: int) -> None:
    data = task(name, block_size=block_size)
    inputs, targets = data.drawn(np.random.default_rng(7), 200)
    assert inputs.shape == targets.shape == (200, block_size) and inputs.dtype == torch.int64
    assert inputs.min() >= 0 and inputs.max() < len(data.tokenizer.vocabulary)
    for read, wanted in zip(inputs, targets, strict=True):
        answers = asked(wanted)
        assert answers and data.solve(read.tolist()) == answers


@every_task
def test_an_answer_follows_from_the_tokens_up_to_its_question(name: str) -> None:
    data = task(name)
    inputs, targets = data.drawn(np.random.default_rng(3), 20)
    for read, wanted in zip(inputs.tolist(), targets, strict=True):
        for place, answer in asked(wanted).items():
            start = read[: place + 1]
            assert data.solve(start + [0] * (len(read) - len(start)))[place] == answer


@every_task
def test_the_chance_level_is_the_share_of_the_most_frequent_answers(name: str) -> None:
    """Counted: at every place the answer that is right most often."""
    small = {"memorization": ["data.vocabulary=16"], "recall": ["data.vocabulary=24", "data.power=1"]}
    data = task(name, *small.get(name, []), block_size=24)
    _, targets = data.drawn(np.random.default_rng(11), 20_000)
    right = sum(
        np.bincount(column[column != IGNORED], minlength=1).max() for column in targets.T.numpy()
    )
    assert right / int((targets != IGNORED).sum()) == pytest.approx(data.chance, abs=0.012)


def farthest_cause(data: TaskDataModule, read: list[int], place: int) -> tuple[int, list[int]]:
    """The first token that the answer at a place depends on, and the sequence with it changed."""
    answer = data.solve(read)[place]
    for i, token in enumerate(read[:place]):
        for other in set(range(len(data.tokenizer.vocabulary))) - {token}:
            changed = [*read[:i], other, *read[i + 1 :]]
            with suppress(ValueError, IndexError, KeyError):  # not a sequence of this task
                if data.solve(changed).get(place, answer) != answer:
                    return i, changed
    raise AssertionError("the answer does not depend on any earlier token")


@every_task
def test_a_window_shorter_than_the_distance_cannot_answer(name: str) -> None:
    """Two sequences with different answers look the same through it, and different through a longer one.

    One layer of attention over W tokens sees W tokens. So does the model, without positions.
    """
    data = task(name, *(["data.vocabulary=16"] if name == "memorization" else []))
    inputs, targets = data.drawn(np.random.default_rng(5), 1)
    read, place = inputs[0].tolist(), max(asked(targets[0]))
    cause, changed = farthest_cause(data, read, place)
    both = torch.tensor([read, changed])
    local_window = build.options_of("attention")["local_window"]
    for window, blind in ((place - cause, True), (place - cause + 1, False)):
        model = build.small_model(
            attention=build.with_knobs(local_window, window=window),
            vocab_size=len(data.tokenizer.vocabulary), block_size=data.block_size, n_layers=1,
        ).eval()  # fmt: skip
        with torch.no_grad():
            first, second = model(both)[:, place]
        assert torch.equal(first, second) == blind


@every_task
def test_a_batch_is_a_function_of_seed_and_step(name: str) -> None:
    def batch(seed: int, index: int) -> Tensor:
        return TaskBatches(task(name).drawn, batch_size=8, seed=seed).batch(index)

    assert torch.equal(batch(1, 3), batch(1, 3))
    assert not torch.equal(batch(1, 3), batch(1, 4)) and not torch.equal(batch(1, 3), batch(2, 3))


@every_task
def test_validation_is_one_set_that_no_seed_trains_on(name: str) -> None:
    first, second = task(name, seed=1), task(name, seed=2)
    assert torch.equal(first.val_tokens, second.val_tokens) and first.digest == second.digest
    validated = {tuple(sequence) for sequence in first.val_tokens[0].tolist()}
    for seed in range(20):
        batch = TaskBatches(first.drawn, batch_size=8, seed=seed).batch(0)
        assert not validated & {tuple(sequence) for sequence in batch[0].tolist()}


@every_task
def test_every_setting_changes_the_digest(name: str) -> None:
    """Also the sequences, or else the setting would do nothing."""
    data = task(name)
    keys = set(option_node("data", name)) - {"_target_"}
    assert keys - {"vocabulary"} == set(data.settings)
    lower = {"noise": 0.5, "power": 0.5, "table_seed": 1, "vocabulary": data.vocabulary - 4}
    for key in keys:
        value = lower.get(key, getattr(data, key) - 1)
        other = task(name, f"data.{key}={value}")
        assert other.digest != data.digest
        assert not torch.equal(other.val_tokens, data.val_tokens)


def test_tasks_have_different_digests() -> None:
    assert len({task(name).digest for name in TASKS}) == len(TASKS)


@every_task
def test_a_definition_is_short(name: str) -> None:
    """At most 60 lines of code in a class, without its docstring and blank lines."""
    source = inspect.getsource(type(task(name)))
    docstring = type(task(name)).__doc__ or ""
    assert len([line for line in source.replace(docstring, "").splitlines() if line.strip()]) <= 60


def test_the_table_to_memorize_belongs_to_the_task() -> None:
    tables = [task("memorization", seed=seed).table.tolist() for seed in (1, 2)]
    other = task("memorization", "data.table_seed=1").table.tolist()
    assert tables[0] == tables[1] != other and sorted(other) == sorted(tables[0])


def test_the_sweep_over_tasks_has_all_of_them() -> None:
    swept = option_node("sweep", "tasks").hydra.sweeper.params.data
    assert swept.split(",") == TASKS


MISTAKES = [
    ("selective_copy", {"length": 0}, "data.length must be at least 1, got 0"),
    ("selective_copy", {"length": 25}, "data.length=25 needs at least model.block_size=50, got 48"),
    ("compression", {"length": 25}, "data.length=25 needs at least model.block_size=50, got 48"),
    ("compression", {"vocabulary": 0}, "data.vocabulary must be at least 1, got 0"),
    ("noisy_recall", {"vocabulary": 30}, "data.vocabulary must be a multiple of 4, got 30"),
    ("noisy_recall", {"noise": 1.0}, "data.noise must be at least 0 and below 1, got 1.0"),
    ("noisy_recall", {"noise": -0.1}, "data.noise must be at least 0 and below 1, got -0.1"),
    ("noisy_recall", {"block_size": 3}, "needs at least model.block_size=4, got 3"),
    ("fuzzy_recall", {"group": 0}, "data.group must be at least 1, got 0"),
    ("fuzzy_recall", {"group": 13}, "data.pairs must be at least 1, got 0"),
    ("fuzzy_recall", {"vocabulary": 4}, "data.vocabulary=4 must be even and at least 8"),
    ("fuzzy_recall", {"pairs": 5}, "data.pairs=5 needs at least model.block_size=60, got 48"),
    ("memorization", {"vocabulary": 7}, "data.vocabulary must be even, got 7"),
    ("memorization", {"table_seed": -1}, "data.table_seed must not be negative, got -1"),
    ("induction", {"block_size": 2}, "needs at least model.block_size=3, got 2"),
    ("addition", {"digits": 0}, "data.digits must be at least 1, got 0"),
    ("addition", {"digits": 16}, "data.digits=16 needs at least model.block_size=51, got 48"),
    ("addition", {"number_base": 11}, "data.number_base must be 2 to 10, got 11"),
    ("dyck", {"kinds": 5}, "data.kinds must be 1 to 4, got 5"),
    ("dyck", {"depth": 1}, "data.depth must be at least 2, got 1"),
    ("dyck", {"block_size": 2}, "data.depth=8 needs at least model.block_size=3, got 2"),
]


@pytest.mark.parametrize(("name", "changes", "text"), MISTAKES)
def test_mistakes(name: str, changes: dict[str, Any], text: str) -> None:
    with pytest.raises(UserError) as error, as_user_errors():
        task(name, **changes)
    assert text in str(error.value)
    assert "\n" not in str(error.value)
