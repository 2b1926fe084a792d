"""Training through the real Trainer: it learns, it records, it resumes exactly."""

from __future__ import annotations

import csv
import itertools
import json
import math
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch.callbacks import Callback
from omegaconf import OmegaConf
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams import plugin_data_pb2

import modgpt.training.loop
from modgpt import build_model, load_run
from modgpt.commands.train import main
from modgpt.config.search import options
from modgpt.data.corpus import VALIDATION
from modgpt.runs.checkpoint import model_weights, read_checkpoint, write_checkpoint
from modgpt.runs.saved import job_of
from modgpt.runs.window_losses import read_window_losses
from modgpt.training.callbacks.resuming import Interrupted, StopOnSignal
from modgpt.training.lit_module import LitGPT
from modgpt.training.loop import Outcome, train
from tests.compositions import GROUPS, alone, name_of

Overrides = Callable[..., list[str]]


def run(arguments: list[str]) -> Outcome:
    return train(job_of(arguments))


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def losses(folder: Path, column: str) -> list[float]:
    return [float(row[column]) for row in rows(folder) if row.get(column)]


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return model_weights(read_checkpoint(folder / "checkpoints" / "last.ckpt"))


@pytest.mark.parametrize("choices", alone(), ids=name_of)
def test_thirty_steps_lower_the_loss(choices: dict[str, str], overrides: Overrides) -> None:
    parts = (f"{group}={choices[group]}" for group in GROUPS)
    outcome = run(overrides(*parts, "logger=csv", "trainer.log_every_n_steps=1"))
    start, end = losses(outcome.folder, "train/loss")[0], outcome.record.final_val_loss
    assert start == pytest.approx(math.log(len(outcome.data.tokenizer)), abs=0.2), "a uniform guess"
    # Without a norm the first steps see vectors a fiftieth of the size.
    assert end < start - (0.3 if choices["norm"] == "none" else 0.5)
    assert outcome.record.status == "finished"


RECIPES = list(itertools.product(options("optimizer"), options("schedule")))


@pytest.mark.parametrize(("optimizer", "schedule"), RECIPES)
def test_every_recipe_lowers_the_loss(optimizer: str, schedule: str, overrides: Overrides) -> None:
    arguments = [f"optimizer={optimizer}", f"schedule={schedule}", "run_name=r"]
    outcome = run(overrides(*arguments, "trainer.log_every_n_steps=1"))
    train_losses = losses(outcome.folder, "train/loss")
    assert train_losses[-1] < train_losses[0] - 0.3


def test_validation_is_exact(overrides: Overrides, corpus: Path) -> None:
    """Each of the N−1 targets once, in windows that do not overlap: computed here one by one."""
    outcome = run(overrides("data.eval_batch_size=7", "trainer.max_steps=5"))
    assert (outcome.folder / "checkpoints" / "best.ckpt").exists(), "validated within the training"
    model, data = outcome.module.model.eval(), outcome.data
    text = corpus.read_bytes().decode()
    split = data.tokenizer.encode(text[int(0.9 * len(text)) :])
    total, block = 0.0, 16
    with torch.no_grad():
        for target in range(1, len(split)):
            start = (target - 1) // block * block
            logits = model(split[None, start:target])[0, -1]
            total += -logits.double().log_softmax(-1)[split[target]].item()
    wanted = total / (len(split) - 1)
    assert outcome.record.final_val_loss == pytest.approx(wanted, abs=1e-6)
    assert losses(outcome.folder, "val/loss")[-1] == pytest.approx(wanted, abs=1e-6)
    assert losses(outcome.folder, "val/bpc")[-1] == pytest.approx(wanted / math.log(2), abs=1e-6)
    assert losses(outcome.folder, "val/perplexity")[-1] == pytest.approx(math.exp(wanted), rel=1e-5)


def test_validations_before_the_last_are_samples_and_marked(overrides: Overrides) -> None:
    """Of 38 windows in 8 batches, the first batch stands for all; every loss is that of its windows."""
    more = ["data.eval_batch_size=5", "trainer.max_steps=10", "trainer.val_check_interval=5"]
    outcome = run(overrides(*more))
    folder, record, data = outcome.folder, outcome.record, outcome.data
    batches = list(data.validation_batches())
    n, all_of_them = len(batches[0]), sum(map(len, batches))
    assert losses(folder, "val/windows") == [n, all_of_them] and 1 < n < all_of_them / 4
    assert (record.best_val_windows, record.final_val_windows) == (n, all_of_them)

    def loss_on(some: list[torch.Tensor]) -> float:
        model = outcome.module.model.eval()
        with torch.no_grad():
            nats = [-model(b[:, :-1]).double().log_softmax(-1).gather(2, b[:, 1:, None]) for b in some]
        return float(torch.cat([part.flatten() for part in nats]).mean())

    on_the_way, last = losses(folder, "val/loss")
    first_sample, last_sample = losses(folder, "val/sampled_loss")
    assert on_the_way == first_sample, "a sample is all that it read"
    assert last == pytest.approx(loss_on(batches), abs=1e-6)
    assert last_sample == pytest.approx(loss_on(batches[:1]), abs=1e-6)
    assert record.best_val_loss == min(first_sample, last_sample) and record.final_val_loss == last
    windows = read_window_losses(folder)
    assert windows is not None and windows.step == 10
    in_the_text = torch.as_tensor(np.asarray(data.parts[VALIDATION].ids[:17], dtype=np.int64))[None]
    assert windows.nats[0] / 16 == pytest.approx(loss_on([in_the_text]), abs=1e-5)


def test_a_training_that_ends_early_is_validated_completely(overrides: Overrides) -> None:
    stops = ("patience=1", "min_delta=1")
    more = ["callbacks=early_stopping", *(f"callbacks.early_stopping.{stop}" for stop in stops)]
    outcome = run(overrides(*more, "trainer.val_check_interval=5", "optimizer.lr=1e-12"))
    record = outcome.record
    assert (record.status, record.final_step) == ("finished", 10)
    assert record.final_val_windows == sum(map(len, outcome.data.validation_batches()))
    assert read_window_losses(outcome.folder).mean == pytest.approx(record.final_val_loss)


def test_a_resumed_run_keeps_its_sample(
    overrides: Overrides, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = run(overrides("trainer.max_steps=5")).folder
    assert main([f"resume={folder}", "trainer.max_steps=8", "data.val_share=0.5"]) == 2
    assert "data.val_share was 0.125, not 0.5" in capsys.readouterr().err


@pytest.mark.parametrize("share", ["0", "-1", "1.5"])
def test_a_share_of_the_validation_lies_in_its_range(
    share: str, overrides: Overrides, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(overrides(f"data.val_share={share}")) == 2
    assert f"data.val_share must be a share above 0, at most 1, got {share}" in capsys.readouterr().err


class StopAt(Callback):
    """Sends this process a signal at the end of a step, as a user or a scheduler would."""

    def __init__(self, step: int, signum: int) -> None:
        self.step, self.signum = step, signum

    def on_train_batch_start(self, trainer: Any, *_: Any) -> None:
        if trainer.global_step == self.step - 1:
            os.kill(os.getpid(), self.signum)


def interrupted_run(
    arguments: list[str], step: int, monkeypatch: pytest.MonkeyPatch, signum: int = signal.SIGTERM
) -> Path:
    original = modgpt.training.loop.build_trainer

    def with_stop(*arguments: Any) -> Any:
        trainer = original(*arguments)
        trainer.callbacks.insert(0, StopAt(step, signum))  # type: ignore[attr-defined]
        return trainer

    with monkeypatch.context() as patch:
        patch.setattr(modgpt.training.loop, "build_trainer", with_stop)
        with pytest.raises(Interrupted) as stop:
            run(arguments)
    assert stop.value.signum == signum
    return stop.value.folder


RESUMED = [
    ("", 1),
    ("", 15),  # where a validation is due
    ("trainer.val_check_interval=5 data.eval_batch_size=3", 15),  # and others were before
    ("attention=linear ffn=moe norm=scalenorm pos=alibi", 7),
    ("attention=local_window ffn=standard norm=layernorm pos=learned", 22),
    ("optimizer=muon schedule=wsd ffn=moe", 11),
    ("optimizer=normuon optimizer.orthogonalization=polar_express", 11),
    ("optimizer=soap ffn=moe", 14),
    ("optimizer=ademamix", 7),
    ("optimizer=schedule_free schedule=constant trainer.accumulate_grad_batches=2", 16),
    ("ffn=moe ffn.bias_rate=0.01 ffn.n_shared=1 trainer.accumulate_grad_batches=2", 9),
    ("trainer.accumulate_grad_batches=3", 1),
    ("trainer.accumulate_grad_batches=3", 15),
]


@pytest.mark.parametrize(("recipe", "step"), RESUMED, ids=str)
def test_a_resumed_run_ends_with_the_same_bits(
    recipe: str, step: int, overrides: Overrides, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = [*recipe.split(), "model.dropout=0.1", "trainer.log_every_n_steps=1"]
    straight = run(overrides(*arguments, "run_name=straight"))
    folder = interrupted_run(overrides(*arguments, "run_name=stopped"), step, monkeypatch)
    record = json.loads((folder / "result.json").read_text())
    assert record["tokens_seen"] == straight.record.tokens_seen * step // 30
    assert record["status"] == "interrupted" and "SIGTERM" in record["reason"]
    torch.rand(3)  # whatever happens in between
    resumed = run([f"resume={folder}"])
    assert resumed.folder == folder
    expected, got = weights(straight.folder), weights(folder)
    assert expected.keys() == got.keys()
    for name, value in expected.items():
        assert torch.equal(value, got[name]), f"{name} differs"
    for key in ("final_val_loss", "final_step", "best_val_loss", "best_step", "tokens_seen"):
        assert getattr(resumed.record, key) == getattr(straight.record, key), key
    assert resumed.record.resumed_at_steps == [step]
    for column in ("train/loss", "val/loss", "lr"):
        assert losses(folder, column) == losses(straight.folder, column), f"{column} in metrics.csv"


@pytest.mark.parametrize(
    ("sizes", "exact"),
    [
        (["data.batch_size=4", "trainer.accumulate_grad_batches=2"], True),
        (["data.batch_size=2", "trainer.accumulate_grad_batches=4"], True),
        (["data.batch_size=6", "trainer.accumulate_grad_batches=2"], False),
    ],
    ids=str,
)
@pytest.mark.parametrize("data", ["text", "copy"])
def test_a_resume_with_another_batch_size_continues_with_unseen_data(
    sizes: list[str],
    exact: bool,
    data: str,
    overrides: Overrides,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Steps of the same sequences, cut into other batches, train the same model."""
    arguments = overrides()
    if data == "copy":
        arguments = [o for o in arguments if not o.startswith("data")]
        arguments += ["data=copy", "data.batch_size=8"]
    arguments += ["trainer.max_steps=20", "trainer.val_check_interval=5", "trainer.log_every_n_steps=1"]
    seen: list[torch.Tensor] = []
    training_step = LitGPT.training_step

    def noting(module: LitGPT, batch: torch.Tensor, batch_idx: int) -> torch.Tensor:
        seen.append(batch)
        return training_step(module, batch, batch_idx)

    monkeypatch.setattr(LitGPT, "training_step", noting)
    straight = run([*arguments, "run_name=straight"])
    wanted = torch.cat(seen, dim=-2)
    seen.clear()
    folder = interrupted_run([*arguments, "run_name=stopped"], 7, monkeypatch)
    resumed = run([f"resume={folder}", *sizes])
    got = torch.cat(seen, dim=-2)
    both = min(got.shape[-2], wanted.shape[-2])
    assert torch.equal(got[..., :both, :], wanted[..., :both, :])
    assert resumed.record.tokens_seen == got.shape[-2] * 16
    assert [int(row["step"]) for row in rows(folder) if row.get("val/loss")] == [5, 10, 15, 20]
    if exact:
        assert got.shape == wanted.shape
        for name, value in weights(straight.folder).items():
            torch.testing.assert_close(weights(folder)[name], value, rtol=1e-3, atol=1e-4)


KILLED_AFTER_SAVING = """
import os, signal, sys
from modgpt.training.checkpoint_io import AtomicCheckpointIO
from modgpt.commands.train import main

name, step, save = sys.argv[1], int(sys.argv[2]), AtomicCheckpointIO.save_checkpoint

def save_and_die(self, checkpoint, path, storage_options=None):
    save(self, checkpoint, path, storage_options)
    if os.path.basename(path) == name and checkpoint["global_step"] == step:
        os.kill(os.getpid(), signal.SIGKILL)

AtomicCheckpointIO.save_checkpoint = save_and_die
main(sys.argv[3:])
"""


@pytest.mark.parametrize(
    ("name", "step", "resumed_at"),
    [
        ("last.ckpt", 5, 5),  # nothing happens between a checkpoint and the kill
        ("last.ckpt", 15, 15),  # a validation was due after it
        ("best.ckpt", 15, 15),  # it was done and logged, which that checkpoint does not know
        ("best.ckpt", 7, 5),  # steps done and logged are done again
    ],
)
def test_a_killed_run_resumes_from_its_last_checkpoint(
    name: str, step: int, resumed_at: int, overrides: Overrides, tmp_path: Path
) -> None:
    """SIGKILL: what is on disk is whole, each step is logged once, and the end is the same."""
    interval = 7 if step == 7 else 15
    options = ("model.dropout=0.1", "callbacks.last.every_n_train_steps=5",
               f"trainer.val_check_interval={interval}", "trainer.log_every_n_steps=1")  # fmt: skip
    straight = run(overrides(*options, "run_name=straight"))
    arguments = overrides(*options, "run_name=killed")
    process = subprocess.run([sys.executable, "-c", KILLED_AFTER_SAVING, name, str(step), *arguments],
                             capture_output=True, text=True)  # fmt: skip
    assert process.returncode == -signal.SIGKILL, process.stderr
    folder = tmp_path / "runs" / "killed"
    assert json.loads((folder / "result.json").read_text())["status"] == "running"
    resumed = run([f"resume={folder}"])
    assert resumed.record.resumed_at_steps == [resumed_at]
    for key, value in weights(straight.folder).items():
        assert torch.equal(value, weights(folder)[key]), f"{key} differs"
    assert resumed.record.final_val_loss == straight.record.final_val_loss
    for column in ("train/loss", "val/loss"):
        assert losses(folder, column) == losses(straight.folder, column), f"{column} in metrics.csv"


def test_ctrl_c_keeps_the_work(
    overrides: Overrides, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = interrupted_run(overrides(), 4, monkeypatch, signal.SIGINT)
    assert read_checkpoint(folder / "checkpoints" / "last.ckpt")["global_step"] == 4
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler, "the handler is given back"


def test_what_a_resume_refuses(overrides: Overrides, capsys: pytest.CaptureFixture[str]) -> None:
    folder = run(overrides("trainer.max_steps=4", "attention=local_window")).folder
    before = {p.name: p.read_bytes() for p in folder.iterdir() if p.is_file()}
    for more, text in (
        ([], "is already at step 4 of trainer.max_steps=4"),
        (["trainer.max_steps=8", "ffn=moe"], "ffn=moe: a resumed run keeps its architecture"),
        (["trainer.max_steps=8", "attention.window=7"], "attention.window was 32, not 7"),
        (["trainer.max_steps=8", "model.d_model=64"], "model.d_model was 32, not 64"),
    ):
        assert main([f"resume={folder}", *more]) == 2
        assert text in capsys.readouterr().err
    other = folder.parent / "other.txt"
    other.write_text("abc " * 500)
    assert main([f"resume={folder}", "trainer.max_steps=8", f"data.path={other}"]) == 2
    assert {p.name: p.read_bytes() for p in folder.iterdir() if p.is_file()} == before


def test_a_resume_goes_on_longer_with_new_overrides(overrides: Overrides) -> None:
    folder = run(overrides("trainer.max_steps=10")).folder
    longer = run([f"resume={folder}", "trainer.max_steps=20", "model.dropout=0.2"])
    assert longer.folder == folder and longer.record.final_step == 20
    assert longer.module.model.dropout == 0.2
    assert "trainer.max_steps=20" in longer.record.overrides
    assert "trainer.max_steps=10" not in longer.record.overrides


def test_going_on_longer_is_exact_too(overrides: Overrides) -> None:
    """A finished run, resumed with a larger budget, is the run that had that budget from the start."""
    options = ("schedule=constant", "model.dropout=0.1", "trainer.val_check_interval=7")
    straight = run(overrides(*options, "trainer.max_steps=25"))
    folder = run(overrides(*options, "trainer.max_steps=10")).folder
    run([f"resume={folder}", "trainer.max_steps=25"])
    for name, value in weights(straight.folder).items():
        assert torch.equal(value, weights(folder)[name]), f"{name} differs"


def test_a_run_that_missed_its_last_validation_gets_it(
    overrides: Overrides, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = ("trainer.max_steps=10", "callbacks.last.every_n_train_steps=5")
    straight = run(overrides(*arguments, "run_name=straight"))
    folder = interrupted_run(overrides(*arguments, "run_name=stopped"), 10, monkeypatch)
    assert json.loads((folder / "result.json").read_text())["final_val_loss"] is None
    resumed = run([f"resume={folder}"])
    assert resumed.record.status == "finished"
    assert resumed.record.final_val_loss == straight.record.final_val_loss
    assert losses(folder, "val/loss") == losses(straight.folder, "val/loss")


def test_looking_changes_nothing(overrides: Overrides) -> None:
    """Validations, samples and logging draw no number that the training would draw."""
    dropout = "model.dropout=0.2"
    quiet = run(overrides(dropout, "callbacks=none", "+callbacks.last._target_="
                "lightning.pytorch.callbacks.ModelCheckpoint", "+callbacks.last.filename=last",
                "trainer.val_check_interval=30", "logger=none"))  # fmt: skip
    busy = run(overrides(dropout, "trainer.val_check_interval=2", "trainer.log_every_n_steps=1"))
    for name, value in weights(quiet.folder).items():
        assert torch.equal(value, weights(busy.folder)[name]), f"{name} differs"


def test_the_same_seed_gives_the_same_run(overrides: Overrides) -> None:
    first, second, other = (run(overrides(f"seed={s}")).record.final_val_loss for s in (1, 1, 2))
    assert first == second != other


def test_each_seed_decides_its_own_part(overrides: Overrides) -> None:
    """Initial weights, data and dropout: each has a seed, and nothing else is drawn."""

    def loss(*given: str) -> float | None:
        torch.manual_seed(len(given))  # what was drawn before does not matter
        return run(overrides("trainer.max_steps=4", *given)).record.final_val_loss

    kept = ("model.seed=1", "data.seed=1")
    dropout = "model.dropout=0.2"
    assert loss() == loss("seed=2", *kept), "without dropout these two decide everything"
    others = [loss(dropout, *o) for o in ([], ["model.seed=2"], ["data.seed=2"], ["seed=2", *kept])]
    assert len(set(others)) == 4
    assert others[0] == loss("seed=1", dropout, *kept)


def test_the_record_tells_everything(overrides: Overrides) -> None:
    outcome = run(overrides("ffn=moe", "seed=3"))
    result = json.loads((outcome.folder / "result.json").read_text())
    assert result == asdict(outcome.record)
    assert result["status"] == "finished"
    assert result["choices"]["ffn"] == "moe" and result["choices"]["attention"] == "flash"
    assert "ffn=moe" in result["overrides"] and result["seed"] == 3
    assert result["final_step"] == 30 and result["best_step"] in (15, 30)
    assert result["best_val_loss"] <= result["final_val_loss"]
    assert result["tokens_seen"] == 30 * 8 * 16
    assert result["parameters"] == sum(p.numel() for p in outcome.module.model.parameters())
    assert 0 < result["active_parameters"] < result["parameters"]
    assert result["flops_per_token"] == outcome.module.model.cost(16).flops
    assert result["tokens_per_second"] > 0 and result["wall_seconds"] > 0
    assert result["peak_memory_bytes"] > 50e6 and result["device"].startswith("cpu")
    assert result["threads"] == 1 and result["precision"] == "32-true"
    assert result["versions"]["torch"] == torch.__version__
    assert result["git_revision"] is None or len(result["git_revision"].split("-")[0]) == 40


@pytest.mark.parametrize(
    ("options", "backend"),
    [([], "flash"), (["model.dropout=0.1"], "math"), (["attention=linear"], "math")],
    ids=str,
)
def test_the_record_tells_the_kernel_that_ran(
    options: list[str], backend: str, overrides: Overrides
) -> None:
    result = run(overrides("trainer.max_steps=4", *options)).record
    assert result.attention_backend == backend


def test_the_model_is_rebuilt_from_the_folder_alone(overrides: Overrides) -> None:
    outcome = run(overrides("attention=local_window", "ffn=moe"))
    config = OmegaConf.load(outcome.folder / "config.yaml")
    assert "${" not in (outcome.folder / "config.yaml").read_text(), "not resolved"
    model = build_model(config)  # type: ignore[arg-type]
    model.load_state_dict(weights(outcome.folder))
    loaded = load_run(outcome.folder, "last")
    alone = load_run(outcome.folder / "checkpoints" / "last.ckpt")
    ids = loaded.tokenizer.encode("to be or not")[None]
    trained = outcome.module.model.eval()
    for other in (model.eval(), loaded.model, alone.model):
        assert torch.equal(trained(ids), other(ids))
    assert loaded.record.status == "finished"
    assert loaded.tokenizer.vocabulary == outcome.data.tokenizer.vocabulary


def test_tensorboard_finds_everything(overrides: Overrides) -> None:
    outcome = run(overrides("ffn=moe", "trainer.log_every_n_steps=5"))
    events = EventAccumulator(str(outcome.folder)).Reload()
    names = {
        "loss/train", "loss/val", "train/grad_norm", "lr", "tokens_per_second", "val/bpc", "val/bpb",
        "val/perplexity", "val/windows", "val/sampled_loss",
        "train/aux/loss", "train/aux/balance_loss", "train/aux/router_z_loss",
        *(f"train/expert_load/{i}" for i in range(8)), "hp/final_val_loss", "hp/best_val_loss",
    }  # fmt: skip
    assert names == set(events.Tags()["scalars"])
    shown = [name for name in sorted(names) if not name.startswith("hp/")]  # as TensorBoard sorts them
    assert shown[:2] == ["loss/train", "loss/val"]
    assert [e.step for e in events.Scalars("loss/train")] == [5, 10, 15, 20, 25, 30]
    assert [e.step for e in events.Scalars("loss/val")] == [15, 30]
    load = sum(events.Scalars(f"train/expert_load/{i}")[-1].value for i in range(8))
    assert load == pytest.approx(1)
    final = events.Scalars("hp/final_val_loss")[-1].value
    assert final == pytest.approx(outcome.record.final_val_loss, rel=1e-6)
    samples = events.Tensors("sample/text_summary")
    assert [s.step for s in samples] == [15, 30]
    assert len(samples[-1].tensor_proto.string_val[0]) > 200
    content = events.SummaryMetadata("_hparams_/session_start_info").plugin_data.content
    parsed = plugin_data_pb2.HParamsPluginData.FromString(content)
    hparams = parsed.session_start_info.hparams
    assert hparams["ffn"].string_value == "moe"
    assert hparams["seed"].number_value == 1


def test_a_diverged_run_says_so(
    overrides: Overrides, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    # Weights in the thousands overflow in the first steps.
    code = main(overrides("run_name=wild", "optimizer.lr=1e30", "trainer.log_every_n_steps=1"))
    assert code == 1
    assert "try a lower optimizer.lr" in capsys.readouterr().err
    result = json.loads((tmp_path / "runs" / "wild" / "result.json").read_text())
    assert result["status"] == "diverged" and "train/loss is nan" in result["reason"]


def test_a_validation_that_is_not_a_number_is_a_divergence(
    overrides: Overrides, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Where no training loss is logged before it, the validation notices."""
    quiet = ["optimizer.lr=1e30", "trainer.log_every_n_steps=1000", "trainer.val_check_interval=5"]
    assert main(overrides("run_name=wild", *quiet)) == 1
    assert "error: val/loss is nan at step 5: try a lower" in capsys.readouterr().err
    folder = tmp_path / "runs" / "wild"
    result = json.loads((folder / "result.json").read_text())
    assert result["status"] == "diverged" and "val/loss is nan at step 5" in result["reason"]
    assert result["final_val_loss"] is None and result["best_val_loss"] is None
    assert not (folder / "checkpoints" / "best.ckpt").exists()
    assert math.isnan(losses(folder, "val/loss")[0]), "the log shows it"


def test_the_best_checkpoint_is_that_before_the_divergence(
    overrides: Overrides, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    training_step = LitGPT.training_step

    def poisoned(module: LitGPT, batch: torch.Tensor, batch_idx: int) -> torch.Tensor:
        return training_step(module, batch, batch_idx) * (math.nan if module.global_step == 12 else 1)

    monkeypatch.setattr(LitGPT, "training_step", poisoned)
    quiet = ["trainer.log_every_n_steps=1000", "trainer.val_check_interval=5"]
    assert main(overrides("run_name=wild", *quiet)) == 1
    folder = tmp_path / "runs" / "wild"
    result = json.loads((folder / "result.json").read_text())
    assert result["status"] == "diverged" and "val/loss is nan at step 15" in result["reason"]
    assert result["best_step"] == result["final_step"] == 10
    best = read_checkpoint(folder / "checkpoints" / "best.ckpt")
    assert best["global_step"] == 10
    assert all(weight.isfinite().all() for weight in model_weights(best).values())


def test_the_perplexity_of_a_large_loss_is_finite(overrides: Overrides) -> None:
    """e^100 is too large for fp32, and no reason to write inf."""
    large = ["model.init_std=12", "optimizer.lr=0", "trainer.max_steps=4", "logger=csv"]
    folder = run(overrides(*large)).folder
    (loss,), (perplexity,) = losses(folder, "val/loss"), losses(folder, "val/perplexity")
    assert 90 < loss < 700
    assert perplexity == pytest.approx(math.exp(loss))


class _Evil:
    """Runs a command when it is unpickled by a reader that trusts it."""

    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (self.command,)


def test_a_checkpoint_that_wants_to_execute_code_is_refused(
    overrides: Overrides, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = run(overrides("trainer.max_steps=4")).folder
    evil = _Evil(f"touch {tmp_path / 'executed'}")
    write_checkpoint({"modgpt": {}, "state_dict": evil}, folder / "checkpoints" / "last.ckpt")
    assert main([f"resume={folder}", "trainer.max_steps=8"]) == 2
    assert "refused" in capsys.readouterr().err
    assert not (tmp_path / "executed").exists()
    torch.save({"weights": torch.zeros(1)}, tmp_path / "foreign.ckpt")
    (tmp_path / "text.ckpt").write_text("hello")
    for name in ("foreign.ckpt", "text.ckpt", "missing.ckpt"):
        with pytest.raises(ValueError, match=name):
            read_checkpoint(tmp_path / name)


def test_the_default_names_of_runs_never_meet(overrides: Overrides) -> None:
    folders = {run(overrides("trainer.max_steps=4", "logger=none")).folder for _ in range(3)}
    assert len(folders) == 3
    assert all("flash-swiglu-rmsnorm-rope-s1" in folder.name for folder in folders)


def test_the_summary_is_printed(
    overrides: Overrides, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(overrides("run_name=seen")) == 0
    out = capsys.readouterr().out
    result = json.loads((tmp_path / "runs" / "seen" / "result.json").read_text())
    assert f"{result['final_val_loss']:.4f} nats" in out
    assert f"{result['parameters']:,}" in out
    for word in ("bits per character", "perplexity", "tokens/s", "wall time", "sample",
                 "tensorboard --logdir", "modgpt generate --run"):  # fmt: skip
        assert word in out


def test_a_signal_while_processes_agree_is_not_lost(tmp_path: Path) -> None:
    """It may come while the first of two processes waits for the other: the next step stops."""
    stop, saved = StopOnSignal(), []
    stop.checkpoint = tmp_path / "run" / "checkpoints" / "last.ckpt"

    class Strategy:
        def reduce(self, asked: torch.Tensor, reduce_op: str) -> torch.Tensor:
            assert reduce_op == "max"
            if not saved and stop.received is None:
                stop.note(signal.SIGTERM, None)
            return asked

    trainer: Any = SimpleNamespace(world_size=2, strategy=Strategy(), save_checkpoint=saved.append)
    module: Any = SimpleNamespace(stepped=lambda: True, device=torch.device("cpu"))
    stop.on_train_batch_end(trainer, module)
    assert not saved, "the other process does not know yet"
    with pytest.raises(Interrupted, match="SIGTERM"):
        stop.on_train_batch_end(trainer, module)
    assert saved == [stop.checkpoint]
