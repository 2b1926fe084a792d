"""Every argument of Lightning's Trainer: honoured, or refused in one line with nothing written."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from pathlib import Path

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import Callback, Timer
from omegaconf import OmegaConf
from torch import Tensor

from modgpt import compose
from modgpt.commands.train import main
from modgpt.errors import UserError
from modgpt.runs.saved import job_of
from modgpt.sweep.identity import job_hash
from modgpt.training.checkpoint_io import AtomicCheckpointIO
from modgpt.training.lit_module import LitGPT
from modgpt.training.loop import train
from modgpt.training.trainer import FIXED, build_trainer, check_trainer, validated_batches
from tests.training.test_loop import losses, rows, run, weights

Overrides = Callable[..., list[str]]

HONOURED = {
    "accelerator", "strategy", "devices", "num_nodes", "precision", "max_steps", "min_steps", "max_time",
    "limit_val_batches", "val_check_interval", "log_every_n_steps", "enable_progress_bar",
    "enable_model_summary", "accumulate_grad_batches", "gradient_clip_val", "gradient_clip_algorithm",
    "deterministic", "benchmark", "inference_mode", "detect_anomaly", "sync_batchnorm",
    "enable_autolog_hparams",
}  # fmt: skip


def test_every_argument_of_the_trainer_is_decided_about() -> None:
    arguments = set(inspect.signature(L.Trainer.__init__).parameters) - {"self"}
    assert arguments == HONOURED | set(FIXED)


REFUSED = [
    ("max_epochs=3", "trainer.max_epochs=3 is not supported: the data are one endless epoch"),
    ("+min_epochs=1", "trainer.min_epochs=1 is not supported"),
    ("check_val_every_n_epoch=1", "trainer.check_val_every_n_epoch=1 is not supported"),
    ("+reload_dataloaders_every_n_epochs=1", "is not supported: the data are one endless epoch"),
    ("+limit_train_batches=10", "trainer.limit_train_batches=10 is not supported"),
    ("+limit_train_batches=0.5", "trainer.limit_train_batches=0.5 is not supported"),
    ("+limit_test_batches=1", "there is no test split"),
    ("+limit_predict_batches=1", "training predicts nothing"),
    ("+overfit_batches=1", "trainer.overfit_batches=1 is not supported: to overfit"),
    ("+fast_dev_run=true", "trainer.fast_dev_run=True is not supported: for a quick try"),
    ("+fast_dev_run=7", "trainer.fast_dev_run=7 is not supported"),
    ("num_sanity_val_steps=2", "trainer.num_sanity_val_steps=2 is not supported"),
    ("+barebones=true", "trainer.barebones=True is not supported"),
    ("+logger=true", "trainer.logger=True is not supported: the group logger"),
    ("+callbacks=[]", "the group callbacks"),
    ("+plugins=[]", "trainer.plugins=[] is not supported"),
    ("+profiler=simple", "callbacks=profiler records a profile"),
    ("+enable_checkpointing=false", "callbacks.best=null"),
    ("use_distributed_sampler=true", "the data give each process its share"),
    ("+default_root_dir=x", "output_dir is the folder of the runs"),
    ("+model_registry=x", "trainer.model_registry=x is not supported"),
    ("+strategy=fsdp", "trainer.strategy=fsdp is not supported: it must be one of auto, ddp"),
    ("gradient_clip_val=-1", "trainer.gradient_clip_val must not be negative, got -1; 0 turns it off"),
    ("gradient_clip_val=nan", "trainer.gradient_clip_val must not be negative, got nan"),
    ("gradient_clip_algorithm=median", "gradient_clip_algorithm"),
    ("+min_steps=31", "trainer.min_steps=31 must not be above trainer.max_steps=30"),
    ("max_time=soon", "DD:HH:MM:SS"),
    ("max_time='00:00:00:00'", "trainer.max_time=00:00:00:00 leaves no time to train"),
    ("limit_val_batches=0", "trainer.limit_val_batches must be a number of batches, or a share"),
    ("limit_val_batches=-1", "every run is validated"),
    ("limit_val_batches=1.5", "trainer.limit_val_batches must be"),
    ("limit_val_batches=0.01", "trainer.limit_val_batches=0.01 of 6 validation batches is none"),
]


@pytest.mark.parametrize(("argument", "text"), REFUSED, ids=[argument for argument, _ in REFUSED])
def test_what_is_refused_leaves_nothing_behind(
    argument: str, text: str, overrides: Overrides, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plus, _, rest = argument.rpartition("+")
    assert (
        main(overrides(f"{'+' if argument[0] == '+' else plus}trainer.{rest}", "data.eval_batch_size=8"))
        == 2
    )
    assert text in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    "arguments",
    [
        ["trainer.max_epochs=null", "+trainer.fast_dev_run=false", "+trainer.limit_train_batches=1.0"],
        ["+trainer.overfit_batches=0.0", "+trainer.logger=null", "+trainer.enable_checkpointing=true"],
        ["trainer.limit_val_batches=null", "trainer.gradient_clip_val=null"],
    ],
)
def test_values_that_change_nothing_are_taken(arguments: list[str]) -> None:
    check_trainer(compose(arguments))


def test_nothing_falls_back_to_lightning_s_default() -> None:
    """Which would be two batches of validation before the training, and a sampler that drops data."""
    cfg = compose(
        [
            "trainer.num_sanity_val_steps=null", "~trainer.use_distributed_sampler",
            "trainer.precision=32-true", "trainer.accelerator=cpu",
            "callbacks=none",
        ]
    )  # fmt: skip
    check_trainer(cfg)
    trainer = build_trainer(cfg, [], AtomicCheckpointIO())
    assert trainer.num_sanity_val_steps == 0
    assert not trainer._accelerator_connector.use_distributed_sampler


# --- gradient clipping ----------------------------------------------------------------------------


def clipped(limit: float | None, algorithm: str | None) -> tuple[LitGPT, list[Tensor], list[Tensor]]:
    """A module with gradients, those before clipping and those after it."""
    from tests.training.test_lit_module import batch, module

    lit = module()
    lit.training_step(batch(), 0).backward()
    gradients = [p.grad for p in lit.parameters() if p.grad is not None]
    before = [g.clone() for g in gradients]
    lit.configure_gradient_clipping(torch.optim.SGD(lit.parameters(), lr=1), limit, algorithm)
    return lit, before, gradients


@pytest.mark.parametrize("algorithm", ["norm", "value"])
@pytest.mark.parametrize("limit", [0, 0.0, None])
def test_clipping_at_0_is_off(limit: float | None, algorithm: str) -> None:
    lit, before, after = clipped(limit, algorithm)
    assert all(torch.equal(b, a) for b, a in zip(before, after, strict=True))
    norm = torch.stack([g.norm() for g in before]).norm()
    assert lit.latest["train/grad_norm"] == pytest.approx(norm.item(), rel=1e-5), "logged all the same"


def test_clipping_by_value() -> None:
    lit, before, after = clipped(0.01, "value")
    assert any((b.abs() > 0.01).any() for b in before)
    for b, a in zip(before, after, strict=True):
        torch.testing.assert_close(a, b.clamp(-0.01, 0.01))
    norm = torch.stack([g.norm() for g in before]).norm()
    assert lit.latest["train/grad_norm"] == pytest.approx(norm.item(), rel=1e-5), "of before clipping"


def test_the_trainer_s_clipping_reaches_the_gradients(overrides: Overrides) -> None:
    off, none, wide, value = (
        run(overrides("trainer.max_steps=8", *more)).folder
        for more in (
            ["trainer.gradient_clip_val=0"],
            ["trainer.gradient_clip_val=null"],
            ["trainer.gradient_clip_val=1e9"],
            ["trainer.gradient_clip_val=1e-4", "trainer.gradient_clip_algorithm=value"],
        )
    )
    for name, weight in weights(off).items():
        assert torch.equal(weight, weights(none)[name]) and torch.equal(weight, weights(wide)[name])
    assert any(not torch.equal(weight, weights(value)[name]) for name, weight in weights(off).items())


# --- partial results ------------------------------------------------------------------------------


def test_a_partial_validation_is_a_partial_result(
    overrides: Overrides, capsys: pytest.CaptureFixture[str]
) -> None:
    """600 characters in windows of 16: 37 whole ones and a rest, five batches of eight."""
    arguments = overrides("data.eval_batch_size=8", "trainer.max_steps=4", "logger=csv")
    result = run([*arguments, "trainer.limit_val_batches=2", "run_name=partial"]).record
    assert result.status == "partial"
    assert result.reason == "validated on the first 2 of 6 batches: trainer.limit_val_batches=2"
    folder = Path(arguments[3].split("=")[1]) / "partial"
    assert main([f"resume={folder}", "trainer.max_steps=8", "trainer.limit_val_batches=1.0"]) == 2
    assert "trainer.limit_val_batches was 2, not 1.0" in capsys.readouterr().err
    whole = run([*arguments, "trainer.limit_val_batches=6"]).record
    assert (whole.status, whole.reason) == ("finished", None)


@pytest.mark.parametrize(("limit", "used"), [(None, 6), (1.0, 6), (0.5, 3), (1, 1), (2, 2), (99, 6)])
def test_a_share_and_a_number_of_validation_batches(limit: float | None, used: int) -> None:
    cfg = compose(["trainer.limit_val_batches=" + ("null" if limit is None else str(limit))])
    assert validated_batches(cfg, 6) == used


def test_a_share_that_is_no_batch_names_one_that_is() -> None:
    with pytest.raises(UserError, match=r"of 6 validation batches is none: give at least 0\.167"):
        validated_batches(compose(["trainer.limit_val_batches=0.1"]), 6)


@pytest.mark.parametrize("limit", ["trainer.max_time='00:00:00:20'", "trainer.max_time={seconds:20}"])
def test_a_training_that_runs_out_of_time_is_partial_and_goes_on(
    limit: str, overrides: Overrides, monkeypatch: pytest.MonkeyPatch
) -> None:
    readings = iter(range(10**6))
    with monkeypatch.context() as patch:  # each look at the clock takes a second
        patch.setattr(Timer, "time_elapsed", lambda timer, stage=None: float(next(readings)))
        outcome = run(overrides(limit, "logger=csv", "run_name=timed"))
    step = outcome.record.final_step
    assert 0 < step < 30 and math.isfinite(outcome.record.final_val_loss)
    assert outcome.record.status == "partial"
    assert outcome.record.reason == f"step {step} of trainer.max_steps=30: the time limit was reached"
    resumed = run([f"resume={outcome.folder}", "trainer.max_time='00:01:00:00'"]).record
    assert (resumed.status, resumed.reason, resumed.final_step) == ("finished", None, 30)


class StopAt(Callback):
    """Ends a training at a step, for no reason that it gives."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_train_batch_end(self, trainer: L.Trainer, *_: object) -> None:
        trainer.should_stop = trainer.should_stop or trainer.global_step == self.step


@pytest.mark.parametrize(("min_steps", "stopped_at"), [(None, 10), (18, 18)])
def test_a_training_that_a_callback_ends_is_partial(
    min_steps: int | None, stopped_at: int, overrides: Overrides
) -> None:
    more = [] if min_steps is None else [f"+trainer.min_steps={min_steps}"]
    stop = [f"+callbacks.stop._target_={__name__}.StopAt", "+callbacks.stop.step=10"]
    outcome = run(overrides(*stop, "trainer.val_check_interval=5", "logger=csv", *more))
    assert outcome.record.status == "partial" and outcome.record.final_step == stopped_at
    reason = f"step {stopped_at} of trainer.max_steps=30: a callback ended the training"
    assert outcome.record.reason == reason
    assert outcome.record.tokens_seen == stopped_at * 8 * 16


# --- early stopping -------------------------------------------------------------------------------

NEVER_LOWER = (
    *("callbacks=early_stopping", "callbacks.early_stopping.min_delta=1e9", "logger=csv"),
    *("callbacks.early_stopping.patience=2", "trainer.val_check_interval=5", "model.dropout=0.1"),
)


def test_early_stopping_is_a_whole_result(overrides: Overrides) -> None:
    outcome = run(overrides(*NEVER_LOWER))
    assert (outcome.record.status, outcome.record.final_step) == ("finished", 15)
    assert outcome.record.reason == (
        "stopped early at step 15: Monitored metric val/sampled_loss did not improve in the last 2 "
        f"records. Best score: {losses(outcome.folder, 'val/sampled_loss')[0]:.3f}."
    )
    assert outcome.record.tokens_seen == 15 * 8 * 16
    plain = run(overrides("callbacks=early_stopping", "logger=csv")).record
    assert (plain.status, plain.final_step, plain.reason) == ("finished", 30, None)


@pytest.mark.parametrize("stop", [3, 5, 10, 12, 15])
def test_early_stopping_after_a_kill_stops_at_the_same_step(stop: int, overrides: Overrides) -> None:
    """Also if it is killed between the step that is saved and its validation."""
    whole = run(overrides(*NEVER_LOWER, "run_name=whole"))
    kill = [f"+callbacks.kill._target_={__name__}.KillAt", f"+callbacks.kill.step={stop}"]
    with pytest.raises(Killed):
        run(overrides(*NEVER_LOWER, "run_name=cut", "callbacks.last.every_n_train_steps=1", *kill))
    folder = whole.folder.with_name("cut")
    # A callback of the tests is not trusted in a saved configuration.
    config = OmegaConf.load(folder / "config.yaml")
    del config["callbacks"]["kill"]
    OmegaConf.save(config, folder / "config.yaml")
    resumed = run([f"resume={folder}"])
    assert (resumed.record.status, resumed.record.final_step) == ("finished", 15)
    assert resumed.record.reason == whole.record.reason
    for name, weight in weights(whole.folder).items():
        assert torch.equal(weight, weights(folder)[name])


class Killed(RuntimeError):
    """Stands for the end of a process."""


class KillAt(Callback):
    """Ends a training at the end of a step, before its validation but after its checkpoint."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_validation_start(self, trainer: L.Trainer, *_: object) -> None:
        if trainer.global_step == self.step:
            raise Killed

    def on_train_batch_start(self, trainer: L.Trainer, *_: object) -> None:
        if trainer.global_step == self.step:
            raise Killed


def test_a_resumed_run_can_have_more_patience(overrides: Overrides) -> None:
    first = run(overrides(*NEVER_LOWER))
    again = run([f"resume={first.folder}"]).record
    assert (again.status, again.final_step, again.reason) == ("finished", 15, first.record.reason)
    later = run([f"resume={first.folder}", "callbacks.early_stopping.patience=4"]).record
    assert (later.status, later.final_step) == ("finished", 25)


def test_early_stopping_makes_another_job_and_a_watching_callback_does_not() -> None:
    def hashed(*more: str) -> str:
        return job_hash(compose(["trainer.max_steps=5", *more]), "0")

    plain = hashed()
    assert hashed("callbacks=none") == hashed("callbacks=[profiler,learning_rate]") == plain
    patient = hashed("callbacks=early_stopping", "callbacks.early_stopping.patience=9")
    assert len({plain, hashed("callbacks=early_stopping"), patient}) == 3


# --- callbacks and loggers ------------------------------------------------------------------------


def test_null_switches_off(overrides: Overrides) -> None:
    off = ["callbacks.sample=null", "callbacks.progress=null", "callbacks.best=null", "logger.csv=null"]
    folder = run(overrides("trainer.max_steps=4", *off)).folder
    assert not (folder / "metrics.csv").exists()
    assert [p.name for p in (folder / "checkpoints").iterdir()] == ["last.ckpt"]


def test_any_callback_of_lightning_s_works(overrides: Overrides) -> None:
    stats = "+callbacks.stats._target_=lightning.pytorch.callbacks.DeviceStatsMonitor"
    more = ["callbacks=learning_rate", stats, "+callbacks.stats.cpu_stats=true"]
    folder = run(overrides("trainer.max_steps=4", "trainer.log_every_n_steps=1", *more)).folder
    assert losses(folder, "lr-AdamW/pg1")
    assert any(name.startswith("DeviceStatsMonitor") for name in rows(folder)[0])


def test_what_is_no_callback_is_refused(
    overrides: Overrides, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(overrides("+callbacks.odd._target_=pathlib.PurePath")) == 2
    assert "callbacks.odd must be a callback of Lightning" in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("given", [True, False])
def test_any_logger_of_lightning_s_works(given: bool, overrides: Overrides, tmp_path: Path) -> None:
    """Also on a resume; it writes into the run's folder unless a folder is given."""
    mine = ["+logger.mine._target_=lightning.pytorch.loggers.CSVLogger"]
    place = f"logger.mine.save_dir={tmp_path / 'mine'}"
    arguments = ["trainer.max_steps=4", "trainer.log_every_n_steps=1", "run_name=logged"]
    folder = run(overrides(*arguments, *mine, *([f"+{place}"] if given else []))).folder
    inside = (tmp_path / "mine" if given else folder) / "lightning_logs"
    assert "train/loss" in (inside / "version_0" / "metrics.csv").read_text()
    assert losses(folder, "train/loss"), "our own log as well"
    again = [place] if given else []  # a saved configuration sets no folders
    train(job_of([f"resume={folder}", "trainer.max_steps=8", *again], trust=["lightning"]))
    assert "train/loss" in (inside / "version_1" / "metrics.csv").read_text()


def test_a_seed_beyond_32_bits_is_refused(
    overrides: Overrides, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(overrides("seed=4294967296")) == 2
    assert "seed must lie between 0 and 4294967295, got 4294967296" in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()
    assert run(overrides("seed=4294967295", "trainer.max_steps=4")).record.status == "finished"
