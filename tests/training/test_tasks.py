"""Made-up tasks through the real Trainer: what is measured, exact resume, the scripts."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from modgpt import load_run
from modgpt.commands.train import main
from modgpt.compare.comparison import compare
from modgpt.data.batch import IGNORED
from modgpt.data.tasks.base import TaskDataModule
from modgpt.training.lit_module import LitGPT
from tests.compositions import small_model
from tests.test_cli import check_mistake
from tests.training.test_loop import interrupted_run, losses, run, weights

Overrides = Callable[..., list[str]]
TASKS = ("recall", "copy")


@pytest.fixture
def task(overrides: Overrides) -> Overrides:
    """Overrides of a training of seconds on a task; the first argument names it."""

    def of(name: str, *more: str) -> list[str]:
        small = ["data.vocabulary=8", "data.val_sequences=20"]
        small += ["data.pairs=2"] if name == "recall" else []
        rest = [o for o in overrides() if not o.startswith(("data=", "data.path="))]
        return [f"data={name}", *rest, *small, *more]

    return of


def test_the_loss_counts_what_is_asked() -> None:
    generator = torch.Generator().manual_seed(0)
    batch = torch.randint(11, (2, 3, 8), generator=generator)
    asked = torch.rand(3, 8, generator=generator) < 0.3
    batch[1][~asked] = IGNORED
    lit = LitGPT(
        small_model({}), lambda model: torch.optim.SGD(model.parameters(), lr=1), lambda step: 1.0
    )
    logits = lit.model(batch[0])
    wanted = [
        F.cross_entropy(logits[b, t], batch[1, b, t]) for b in range(3) for t in range(8) if asked[b, t]
    ]
    torch.testing.assert_close(lit.training_step(batch, 0), torch.stack(wanted).mean())


@pytest.mark.parametrize("name", TASKS)
@pytest.mark.parametrize("eval_batch_size", [3, 20])
def test_validation_is_exact(name: str, eval_batch_size: int, task: Overrides) -> None:
    """Every asked target once, however they are batched: computed here one by one."""
    outcome = run(task(name, f"data.eval_batch_size={eval_batch_size}", "trainer.log_every_n_steps=1"))
    model, data = outcome.module.model.eval(), outcome.data
    assert isinstance(data, TaskDataModule)
    total, right, asked = 0.0, 0, 0
    with torch.no_grad():
        for inputs, targets in data.val_tokens.transpose(0, 1):
            log_p = model(inputs[None])[0].double().log_softmax(-1)
            for t in range(16):
                if targets[t] != IGNORED:
                    total -= log_p[t, targets[t]].item()
                    right += int(log_p[t].argmax() == targets[t])
                    asked += 1
    assert asked == 20 * (2 if name == "recall" else 8)
    result = asdict(outcome.record)
    assert result["final_val_loss"] == pytest.approx(total / asked, abs=1e-6)
    assert result["final_val_accuracy"] == pytest.approx(right / asked, abs=1e-9)
    assert losses(outcome.folder, "val/accuracy")[-1] == result["final_val_accuracy"]
    assert not losses(outcome.folder, "val/bpc") and not losses(outcome.folder, "val/perplexity")
    start = losses(outcome.folder, "train/loss")[0]
    assert start == pytest.approx(math.log(9), abs=0.2), "a uniform guess"
    assert result["tokens_seen"] == 30 * 8 * 16 and result["vocab_size"] == 9


def test_a_text_has_no_accuracy(overrides: Overrides) -> None:
    outcome = run(overrides("trainer.max_steps=4"))
    assert outcome.record.final_val_accuracy is None
    with (outcome.folder / "metrics.csv").open(newline="") as file:
        assert "val/accuracy" not in next(csv.reader(file))


def test_attention_learns_to_recall(task: Overrides) -> None:
    """The recipe with windows of 16, which are quick: 4 pairs of 16 letters."""
    recipe = ["experiment=recall", "model.d_model=64", "model.n_heads=1", "optimizer.lr=0.02"]
    sizes = ["data.vocabulary=16", "data.pairs=null", "data.batch_size=64"]
    steps = ["schedule.warmup_steps=50", "trainer.max_steps=150", "trainer.val_check_interval=50"]
    outcome = run(task("recall", *recipe, *sizes, *steps))
    assert outcome.record.final_val_accuracy > 0.95


@pytest.mark.parametrize("name", TASKS)
def test_a_resumed_run_ends_with_the_same_bits(
    name: str, task: Overrides, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = task(name, "model.dropout=0.1", "attention=linear")
    whole = run([*arguments, "run_name=whole"])
    folder = interrupted_run([*arguments, "run_name=parts"], 17, monkeypatch)
    resumed = run([f"resume={folder}"])
    assert resumed.record.resumed_at_steps == [17]
    for key in ("final_val_loss", "final_val_accuracy", "best_val_loss"):
        assert getattr(resumed.record, key) == getattr(whole.record, key)
    first, second = weights(whole.folder), weights(resumed.folder)
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_another_task_is_not_gone_on_with(task: Overrides, capsys: pytest.CaptureFixture[str]) -> None:
    folder = run(task("recall", "trainer.max_steps=4")).folder
    assert main([f"resume={folder}", "trainer.max_steps=8", "data.pairs=3"]) == 2
    assert "a resumed run keeps its corpus" in capsys.readouterr().err


@pytest.mark.parametrize("name", TASKS)
def test_the_summary_shows_answers(
    name: str, task: Overrides, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(task(name, "run_name=seen")) == 0
    out = capsys.readouterr().out
    result = json.loads((tmp_path / "runs" / "seen" / "result.json").read_text())
    assert f"accuracy {result['final_val_accuracy']:.2%}" in out, "a line per validation"
    assert f"(chance {1 / (4 if name == 'recall' else 8):.2%})" in out
    for word in ("reads", "wanted", "answers", "validation loss", "modgpt generate --run"):
        assert word in out
    assert "perplexity" not in out and "bits per character" not in out


@pytest.mark.parametrize("name", TASKS)
def test_a_run_can_be_asked_and_compared(
    name: str, task: Overrides, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from scripts.generate import main as generate

    outcome = run(task(name, "run_name=one"))
    prompt = "AEBF.A" if name == "recall" else "ABCDEFGH>"
    assert load_run(outcome.folder).tokenizer.unknown(prompt) == []
    capsys.readouterr()
    options = ["--max-new-tokens", "3", "--temperature", "0", "--device", "cpu"]
    assert generate(["--run", str(outcome.folder), "--prompt", prompt, *options]) == 0
    shown = capsys.readouterr().out
    assert shown.startswith(prompt) and len(shown.strip()) == len(prompt) + 3
    assert generate(["--run", str(outcome.folder), "--prompt", "AB?", *options]) == 2
    run(task(name, "run_name=two", "attention=linear"))
    compare([tmp_path / "runs"])
    with (tmp_path / "runs" / "results.csv").open(newline="") as file:
        rows = {row["run"]: row for row in csv.DictReader(file)}
    assert float(rows["one"]["final_val_accuracy"]) == outcome.record.final_val_accuracy
    table = (tmp_path / "runs" / "results.md").read_text()
    assert "final val accuracy" in table and f"{outcome.record.final_val_accuracy:.4f}" in table


def test_mistakes(task: Overrides, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cases = [
        (task("recall", "data.pairs=5"), "data.vocabulary=8 must be even and at least 10"),
        (task("recall", "model.block_size=7"), "data.pairs=2 needs at least model.block_size=8, got 7"),
        (task("recall", "data.power=x"), "data.power must be a number, got 'x'"),
        (task("copy", "data.length=9"), "data.length=9 needs at least model.block_size=18, got 16"),
        (task("copy", "data.pairs=2"), "unknown key 'data.pairs'"),
        (task("noisy_recall", "data.noise=1"), "data.noise must be at least 0 and below 1, got 1"),
    ]
    for arguments, text in cases:
        check_mistake(arguments, text, tmp_path / "runs", capsys)
