"""Techniques of training: each does what it says, and nothing where it is off."""

from __future__ import annotations

import copy
import itertools
import json
import math
import os
import random
import signal
import statistics
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from lightning.pytorch.callbacks import Callback
from omegaconf import OmegaConf, open_dict

import modgpt.training.loop
from modgpt import load_run
from modgpt.commands.train import main
from modgpt.compare.recipes import value_at
from modgpt.config.compose import compose
from modgpt.config.keys import KEYS, LATER
from modgpt.kernels import head_loss
from modgpt.model.gpt import GPT
from modgpt.runs.checkpoint import model_weights, read_checkpoint
from modgpt.sweep.identity import job_hash
from modgpt.testing.build import small_model
from modgpt.training.callbacks.resuming import Interrupted
from modgpt.training.lit_module import LitGPT
from modgpt.training.loop import Outcome
from modgpt.training.spikes import SpikeGuard
from modgpt.training.techniques import Techniques
from tests.compositions import alone, name_of
from tests.compositions import small_model as composed
from tests.training.test_loop import interrupted_run, losses, run, weights

Overrides = Callable[..., list[str]]

REFUSED = [
    ("label_smoothing=1", "label_smoothing must lie in [0, 1), got 1"),
    ("label_smoothing=-0.1", "label_smoothing must lie in [0, 1), got -0.1"),
    ("label_smoothing=nan", "label_smoothing must lie in [0, 1), got nan"),
    ("label_smoothing=null", "label_smoothing must be a number, got None"),
    ("z_loss=-1e-4", "z_loss must be 0 or a positive number, got -0.0001"),
    ("ema=1", "ema must lie in [0, 1), got 1; 0 turns it off"),
    ("ema=nan", "ema must lie in [0, 1), got nan"),
    ("ema=null", "ema must be a number, got None"),
    ("tail_average=1.5", "tail_average must be a share of the steps, at most 1, got 1.5"),
    ("tail_average=-1", "tail_average must be a share of the steps, at most 1, got -1"),
    ("tail_average=0.2 ema=0.9", "ema=0.9 and tail_average=0.2 are two averages of the weights"),
    (
        "tail_average=0.2 callbacks=early_stopping",
        "callbacks.early_stopping may end the training before",
    ),
    ("activation_checkpointing=2", "activation_checkpointing must be true or false, got 2"),
    ("skip_spikes=1", "skip_spikes must be a number above 1, got 1; 0 turns it off"),
    ("skip_spikes=nan", "skip_spikes must be a number above 1, got nan"),
    ("skip_spikes=3 max_skipped_steps=0", "max_skipped_steps must be at least 1, got 0"),
    ("max_skipped_steps=3", "max_skipped_steps=3 has no effect without skip_spikes: give both"),
    ("skip_spikes=3 trainer.precision=16-mixed", "whose loss scaling skips steps itself"),
    ("z_loss=inf", "z_loss must be 0 or a positive number, got inf"),
]


@pytest.mark.parametrize(("given", "text"), REFUSED, ids=[given for given, _ in REFUSED])
def test_what_is_refused_leaves_nothing_behind(
    given: str, text: str, overrides: Overrides, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(overrides(*given.split())) == 2
    assert text in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()


# --- keys that older runs do not have -------------------------------------------------------------


def test_the_keys_are_off_by_default_and_then_no_part_of_a_job() -> None:
    """The hash of a job from before them is that of the same job now."""
    cfg = compose()
    before = cfg.copy()
    with open_dict(before):
        for key, without in LATER.items():
            assert key in KEYS and cfg[key] == without
            del before[key]
    assert job_hash(before, "0") == job_hash(cfg, "0")


@pytest.mark.parametrize(
    "given",
    [
        "label_smoothing=0.1",
        "z_loss=1e-4",
        "ema=0.9",
        "tail_average=0.1",
        "activation_checkpointing=true",
        "skip_spikes=3",
    ],
)
def test_a_technique_makes_another_job(given: str) -> None:
    assert job_hash(compose([given]), "0") != job_hash(compose(), "0")


def without_later(folder: Path) -> None:
    """Make of a run one from before the keys."""
    config = OmegaConf.load(folder / "config.yaml")
    for key in LATER:
        del config[key]
    OmegaConf.save(config, folder / "config.yaml")


def test_a_run_from_before_the_keys_goes_on(overrides: Overrides) -> None:
    folder = run(overrides("trainer.max_steps=4", "schedule=constant")).folder
    without_later(folder)
    longer = run([f"resume={folder}", "trainer.max_steps=8"])
    straight = run(overrides("trainer.max_steps=8", "schedule=constant"))
    assert longer.record.final_val_loss == straight.record.final_val_loss


def test_a_comparison_reads_a_missing_key_as_off() -> None:
    old: dict[str, Any] = {"seed": 1}
    assert value_at("label_smoothing", old) == value_at("label_smoothing", {"label_smoothing": 0.0})
    assert value_at("label_smoothing", {"label_smoothing": 0.1}) == "0.1"


# --- label smoothing and z-loss -------------------------------------------------------------------


def batch(vocabulary: int) -> torch.Tensor:
    return torch.randint(vocabulary, (3, 9), generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("vocabulary", [11, 3000], ids=["plain", "head kernel"])
@pytest.mark.parametrize(("smoothing", "z"), [(0.1, 0.0), (0.0, 1e-2), (0.2, 1e-2)])
def test_they_join_the_gradient_and_not_the_loss(vocabulary: int, smoothing: float, z: float) -> None:
    """The objective by PyTorch's label smoothing and the formula of the z-loss, with all gradients."""
    model = small_model(vocab_size=vocabulary)
    assert head_loss.is_better(model.head.weight) == (vocabulary == 3000)
    lit = LitGPT(model, torch.optim.SGD, lambda step: 1.0, Techniques(smoothing, z))  # type: ignore[arg-type]
    ids = batch(vocabulary)
    got = lit.training_step(ids, 0)
    logits, targets = model(ids[:, :-1]).flatten(0, 1), ids[:, 1:].flatten()
    smooth = F.cross_entropy(logits, targets, label_smoothing=smoothing)
    squares = z * logits.logsumexp(-1).square().mean()
    torch.testing.assert_close(got, smooth + squares)
    parameters = list(model.parameters())
    for ours, wanted in zip(
        torch.autograd.grad(got, parameters),
        torch.autograd.grad(smooth + squares, parameters),
        strict=True,
    ):
        torch.testing.assert_close(ours, wanted, atol=1e-6, rtol=1e-4)
    plain = F.cross_entropy(logits, targets)
    assert lit.latest["train/loss"] == pytest.approx(plain.item(), rel=1e-6), "pure cross-entropy"
    added = [float(lit.latest.get(f"aux/{n}", 0)) for n in ("label_smoothing", "z_loss")]
    assert added == pytest.approx([(smooth - plain).item(), squares.item()], abs=1e-5)
    assert ("aux/z_loss" in lit.latest) == (z > 0)


def test_ignored_targets_take_no_part() -> None:
    model = small_model(vocab_size=11)
    lit = LitGPT(model, torch.optim.SGD, lambda step: 1.0, Techniques(0.1, 1e-2))  # type: ignore[arg-type]
    inputs, targets = batch(11)[:, :-1], batch(11)[:, 1:].clone()
    targets[:, ::2] = -100
    got = lit.training_step(torch.stack([inputs, targets]), 0)
    logits = model(inputs)[targets != -100]
    wanted = F.cross_entropy(logits, targets[targets != -100], label_smoothing=0.1)
    torch.testing.assert_close(got, wanted + 1e-2 * logits.logsumexp(-1).square().mean())


def test_the_losses_of_a_run_stay_cross_entropy(overrides: Overrides) -> None:
    """The first training loss is that of the run without them; later the weights differ."""
    more = ("trainer.max_steps=6", "trainer.log_every_n_steps=1")
    plain = run(overrides(*more))
    added = run(overrides(*more, "label_smoothing=0.3", "z_loss=0.1"))
    ours, wanted = (losses(o.folder, "train/loss") for o in (added, plain))
    assert ours[0] == pytest.approx(wanted[0], abs=1e-6) and ours[1:] != wanted[1:]
    assert all(len(losses(added.folder, f"aux/{n}")) == 6 for n in ("z_loss", "label_smoothing"))
    model, total, count = added.module.model.eval(), 0.0, 0
    with torch.no_grad():
        for ids in added.data.val_dataloader():
            logits = model(ids[:, :-1]).double().flatten(0, 1)
            total += float(F.cross_entropy(logits, ids[:, 1:].flatten(), reduction="sum"))
            count += ids[:, 1:].numel()
    assert added.record.final_val_loss == pytest.approx(total / count, abs=1e-6)


def test_the_z_loss_keeps_the_normaliser_small(overrides: Overrides) -> None:
    """What it is for: log Z stays near 0. Without it, it is free to be anything."""
    sizes = []
    for z in (0.0, 0.1):
        outcome = run(overrides(f"z_loss={z}", "callbacks=none"))
        ids = next(iter(outcome.data.val_dataloader()))
        with torch.no_grad():
            sizes.append(outcome.module.model.eval()(ids[:, :-1]).logsumexp(-1).abs().mean())
    assert sizes[1] < sizes[0] / 2


# --- averages of the weights ----------------------------------------------------------------------


class Watched(Callback):
    """Keeps the raw weights after every step, before a checkpoint of it."""

    def __init__(self) -> None:
        self.steps: list[dict[str, torch.Tensor]] = []

    def on_train_batch_end(self, trainer: Any, pl_module: LitGPT, *_: Any) -> None:
        if pl_module.stepped():
            state = pl_module.model.state_dict()
            self.steps.append({name: value.clone().double() for name, value in state.items()})


def watched(monkeypatch: pytest.MonkeyPatch, arguments: list[str]) -> tuple[Outcome, Watched]:
    original, watch = modgpt.training.loop.build_trainer, Watched()

    def with_watch(*given: Any) -> Any:
        trainer = original(*given)
        trainer.callbacks.insert(0, watch)  # type: ignore[attr-defined]
        return trainer

    with monkeypatch.context() as patch:
        patch.setattr(modgpt.training.loop, "build_trainer", with_watch)
        return run(arguments), watch


def loss_of(model: torch.nn.Module, batches: list[torch.Tensor]) -> float:
    with torch.no_grad():
        nats = [
            F.cross_entropy(
                model(b[:, :-1]).double().flatten(0, 1), b[:, 1:].flatten(), reduction="none"
            )
            for b in batches
        ]
    return float(torch.cat(nats).mean())


def mean_of(states: list[dict[str, torch.Tensor]], factors: list[float]) -> dict[str, torch.Tensor]:
    total = sum(factors)
    return {
        name: sum(f * state[name] for f, state in zip(factors, states, strict=True)) / total  # type: ignore[misc]
        for name in states[0]
    }


AVERAGES = [
    ("ema=0.8", lambda n: [0.8 ** (n - i) for i in range(1, n + 1)]),
    ("tail_average=0.5", lambda n: [float(i > 5) for i in range(1, n + 1)]),
    (
        "ema=0.8 ffn=moe ffn.bias_rate=0.01 model.tied_head=false",
        lambda n: [0.8 ** (n - i) for i in range(1, n + 1)],
    ),
]


@pytest.mark.parametrize(("given", "factors"), AVERAGES, ids=[given for given, _ in AVERAGES])
def test_the_average_is_what_is_validated_and_saved(
    given: str,
    factors: Callable[[int], list[float]],
    overrides: Overrides,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """By its definition, from the raw weights of every step; the training does not notice."""
    technique, *parts = given.split()
    every = ["trainer.val_check_interval=7", "trainer.log_every_n_steps=1"]
    more = [*parts, *every, "trainer.max_steps=10", "model.dropout=0.1", "data.eval_batch_size=5"]
    plain = run(overrides(*more))
    outcome, watch = watched(monkeypatch, overrides(*more, technique))
    folder, record = outcome.folder, outcome.record
    assert losses(folder, "train/loss") == losses(plain.folder, "train/loss")
    for name, value in weights(plain.folder).items():
        assert torch.equal(watch.steps[-1][name].float(), value), "the raw weights are those without it"
    wanted, got = mean_of(watch.steps, factors(10)), weights(folder)
    for name, value in wanted.items():
        torch.testing.assert_close(got[name].double(), value, atol=1e-6, rtol=1e-5)
    model = load_run(folder, "last").model
    batches = list(outcome.data.validation_batches())
    assert record.final_val_loss == pytest.approx(loss_of(model, batches), abs=1e-6)
    assert record.final_val_loss != plain.record.final_val_loss
    assert loss_of(outcome.module.model.eval(), batches) == pytest.approx(
        record.final_val_loss, abs=1e-6
    )
    model.load_state_dict(mean_of(watch.steps[:7], factors(7) if sum(factors(7)) else [0.0] * 6 + [1.0]))
    on_the_way = losses(folder, "val/sampled_loss")[0]
    assert on_the_way == pytest.approx(loss_of(model, batches[:1]), abs=1e-6)
    best = load_run(folder, "best").model
    assert record.best_val_loss == pytest.approx(loss_of(best, batches[:1]), abs=1e-6)


def test_the_weights_before_the_tail_are_raw(
    overrides: Overrides, monkeypatch: pytest.MonkeyPatch
) -> None:
    more = ["trainer.max_steps=10", "trainer.val_check_interval=2", "tail_average=0.4"]
    plain, tail = (interrupted_run(overrides(*given), 5, monkeypatch) for given in (more[:2], more))
    for name, value in weights(plain).items():
        assert torch.equal(value, weights(tail)[name]), name
    assert losses(plain, "val/loss") == losses(tail, "val/loss")
    assert "averaging" not in read_checkpoint(tail / "checkpoints" / "last.ckpt")


RESUMED = [
    ("ema=0.9", 1),
    ("ema=0.9", 15),  # where a validation is due
    ("ema=0.9 ffn=moe ffn.bias_rate=0.01 trainer.accumulate_grad_batches=2", 7),
    ("tail_average=0.4 optimizer=muon", 11),  # before the tail
    ("tail_average=0.4", 22),
]


@pytest.mark.parametrize(("recipe", "step"), RESUMED, ids=str)
def test_a_resumed_average_ends_with_the_same_bits(
    recipe: str, step: int, overrides: Overrides, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = [*recipe.split(), "model.dropout=0.1", "trainer.log_every_n_steps=1"]
    straight = run(overrides(*arguments, "run_name=straight"))
    folder = interrupted_run(overrides(*arguments, "run_name=stopped"), step, monkeypatch)
    resumed = run([f"resume={folder}"])
    for name, value in weights(straight.folder).items():
        assert torch.equal(value, weights(folder)[name]), f"{name} differs"
    for key in ("final_val_loss", "best_val_loss", "best_step"):
        assert getattr(resumed.record, key) == getattr(straight.record, key), key
    for column in ("train/loss", "val/loss"):
        assert losses(folder, column) == losses(straight.folder, column), f"{column} in metrics.csv"


def test_a_run_stopped_within_a_validation_keeps_both(
    overrides: Overrides, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There the model has the average: the checkpoint must not take it for the raw weights."""
    more = ["ema=0.9", "trainer.log_every_n_steps=1", "model.dropout=0.1"]
    straight = run(overrides(*more, "run_name=straight"))
    validation_step, sent = LitGPT.validation_step, []

    def stopping(module: LitGPT, batch: torch.Tensor, batch_idx: int) -> None:
        if not sent and module.global_step == 15:
            sent.append(os.kill(os.getpid(), signal.SIGTERM))
        validation_step(module, batch, batch_idx)

    with monkeypatch.context() as patch:
        patch.setattr(LitGPT, "validation_step", stopping)
        with pytest.raises(Interrupted) as stop:
            run(overrides(*more, "run_name=stopped", "data.eval_batch_size=5", "data.val_share=1"))
    folder = stop.value.folder
    assert (
        folder is not None and read_checkpoint(folder / "checkpoints" / "last.ckpt")["global_step"] == 15
    )
    run([f"resume={folder}"])
    for name, value in weights(straight.folder).items():
        assert torch.equal(value, weights(folder)[name]), f"{name} differs"


def test_a_longer_tail_is_that_of_the_longer_training(overrides: Overrides) -> None:
    """A finished run, resumed with a larger budget, is the run that had that budget from the start."""
    more = ("tail_average=0.4", "schedule=constant", "model.dropout=0.1")
    straight = run(overrides(*more, "trainer.max_steps=20"))
    folder = run(overrides(*more, "trainer.max_steps=10")).folder
    run([f"resume={folder}", "trainer.max_steps=20"])
    for name, value in weights(straight.folder).items():
        assert torch.equal(value, weights(folder)[name]), f"{name} differs"


@pytest.mark.parametrize(
    ("given", "change", "text"),
    [
        ("ema=0.9", "ema=0.99", "a resumed run keeps its average of the weights: ema was 0.9, not 0.99"),
        ("ema=0.9", "ema=0", "ema was 0.9, not 0"),
        ("seed=1", "ema=0.9", "ema was 0.0, not 0.9"),
        ("tail_average=0.5", "tail_average=0.4", "tail_average was 0.5, not 0.4"),
        ("tail_average=0.5", "trainer.max_steps=12", "begins after step 6, and the run is at step 10"),
    ],
)
def test_what_a_resumed_average_refuses(
    given: str, change: str, text: str, overrides: Overrides, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = run(overrides(given, "trainer.max_steps=10")).folder
    before = (folder / "result.json").read_bytes()
    longer = [] if "max_steps" in change else ["trainer.max_steps=20"]
    assert main([f"resume={folder}", change, *longer]) == 2
    assert text in capsys.readouterr().err
    assert (folder / "result.json").read_bytes() == before


def test_a_run_without_an_average_has_no_entry_of_it(overrides: Overrides) -> None:
    folder = run(overrides("trainer.max_steps=4")).folder
    assert "averaging" not in read_checkpoint(folder / "checkpoints" / "last.ckpt")


def test_fine_tuning_begins_with_the_average(overrides: Overrides) -> None:
    folder = run(overrides("ema=0.9", "trainer.max_steps=10")).folder
    tuned = run([*overrides("trainer.max_steps=4", "optimizer.lr=0"), f"init_from={folder}"])
    for name, value in weights(folder).items():
        assert torch.equal(value, weights(tuned.folder)[name]), name


def test_an_average_in_bf16_is_kept_in_fp32(overrides: Overrides) -> None:
    """In bf16 a share of a hundredth of a small change would be lost."""
    folder = run(overrides("ema=0.99", "trainer.precision=bf16-true", "trainer.max_steps=6")).folder
    content = read_checkpoint(folder / "checkpoints" / "last.ckpt")
    averages = content["averaging"]["averages"]
    assert {a.dtype for a in averages.values()} == {torch.float32}
    for name, value in model_weights(content).items():
        assert value.dtype == torch.bfloat16
        assert name not in averages or torch.equal(value, averages[name].bfloat16())


def test_an_average_on_two_devices_is_that_on_one(overrides: Overrides, tmp_path: Path) -> None:
    more = ["ema=0.9", "trainer.max_steps=10", "callbacks.progress=null"]
    found = []
    for devices in (1, 2):
        command = [*overrides(*more), f"trainer.devices={devices}", f"run_name=on{devices}"]
        done = subprocess.run(
            [sys.executable, "-m", "modgpt", "train", *command], capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        found.append(tmp_path / "runs" / f"on{devices}")
    one, two = (json.loads((folder / "result.json").read_text())["final_val_loss"] for folder in found)
    assert one == pytest.approx(two, abs=1e-5) and one != two
    for name, value in weights(found[0]).items():
        torch.testing.assert_close(weights(found[1])[name], value, atol=1e-4, rtol=1e-3)


# --- activation checkpointing ---------------------------------------------------------------------


def kept_bytes(model: torch.nn.Module, ids: torch.Tensor) -> int:
    """Bytes that a forward pass keeps for its gradient, weights apart."""
    own = {p.untyped_storage().data_ptr() for p in model.parameters()}
    kept: dict[int, int] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        loss = model(ids).sum()
    loss.backward()  # keeps the graph alive until here
    return sum(kept.values())


def gradients(model: GPT, ids: torch.Tensor) -> tuple[torch.Tensor, list[torch.Tensor]]:
    torch.manual_seed(3)
    lit = LitGPT(model, torch.optim.SGD, lambda step: 1.0)  # type: ignore[arg-type]
    loss = lit.training_step(ids, 0)
    return loss, list(torch.autograd.grad(loss, list(model.parameters())))


@pytest.mark.parametrize("choices", alone(), ids=name_of)
def test_blocks_computed_again_give_the_same_gradients(choices: dict[str, str]) -> None:
    """Bit for bit, dropout included; the random numbers after the step are the same, too."""
    model, ids = composed(choices, dropout=0.2), batch(11)
    wanted_loss, wanted = gradients(model, ids)
    after = torch.get_rng_state()
    model.activation_checkpointing = True
    loss, got = gradients(model, ids)
    assert torch.equal(loss, wanted_loss) and torch.equal(torch.get_rng_state(), after)
    assert all(torch.equal(a, b) for a, b in zip(got, wanted, strict=True))


def test_only_the_input_of_each_block_is_kept() -> None:
    sizes = {"d_model": 32, "n_layers": 4, "n_heads": 4, "block_size": 32}
    model, ids = small_model(vocab_size=11, **sizes), torch.randint(11, (8, 32))
    everything = kept_bytes(model, ids)
    model.activation_checkpointing = True
    inputs = kept_bytes(model, ids)
    each = 8 * 32 * 32 * 4  # of one input (B,T,C) in fp32
    assert inputs < 4 * each + 8 * each, "those of four blocks, beside embedding, norm and head"
    assert inputs < everything / 5
    model.eval()
    assert kept_bytes(model, ids) > 0.9 * everything, "in training only"


def test_a_run_with_activation_checkpointing_is_the_same(overrides: Overrides) -> None:
    more = ["model.dropout=0.1", "ffn=moe", "ffn.bias_rate=0.01", "trainer.accumulate_grad_batches=2"]
    plain, again = (
        run(overrides(*more, f"activation_checkpointing={on}", "trainer.max_steps=10"))
        for on in ("false", "true")
    )
    assert again.module.model.activation_checkpointing
    assert again.record.final_val_loss == plain.record.final_val_loss
    assert again.record.attention_backend == plain.record.attention_backend
    for name, value in weights(plain.folder).items():
        assert torch.equal(value, weights(again.folder)[name]), name


# --- spikes ---------------------------------------------------------------------------------------


def spike_at(monkeypatch: pytest.MonkeyPatch, factors: dict[int, float]) -> None:
    """Multiply the objective, and so the gradient, after so many steps."""
    training_step = LitGPT.training_step

    def spiked(module: LitGPT, batch: torch.Tensor, batch_idx: int) -> torch.Tensor:
        return training_step(module, batch, batch_idx) * factors.get(module.global_step, 1)

    monkeypatch.setattr(LitGPT, "training_step", spiked)


@pytest.mark.parametrize("factor", [50.0, math.nan])
@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_a_spike_leaves_weights_and_moments_alone(
    optimizer: str, factor: float, overrides: Overrides, monkeypatch: pytest.MonkeyPatch
) -> None:
    spike_at(monkeypatch, {24: factor, 27: 1.5})
    moments: list[Any] = []
    step = LitGPT.optimizer_step

    def noting(module: LitGPT, *given: Any, **named: Any) -> None:
        step(module, *given, **named)
        moments.append(copy.deepcopy(module.trainer.optimizers[0].state_dict()))

    monkeypatch.setattr(LitGPT, "optimizer_step", noting)
    more = ["skip_spikes=8", f"optimizer={optimizer}", "trainer.log_every_n_steps=1"]
    outcome, watch = watched(monkeypatch, overrides(*more))
    for before, after in itertools.pairwise(range(20, 30)):
        same = all(torch.equal(watch.steps[before][n], watch.steps[after][n]) for n in watch.steps[0])
        assert same == (after == 24), f"step {after + 1}"
    states = [members(moments[n]) for n in (23, 24)]
    for key, values in states[0].items():
        for name, value in values.items():
            assert torch.equal(torch.as_tensor(value), torch.as_tensor(states[1][key][name])), name
    assert outcome.record.skipped_steps == 1 and outcome.record.status == "finished"
    assert losses(outcome.folder, "train/skipped_steps") == [0.0] * 24 + [1.0] * 6


def members(state: dict[str, Any]) -> dict[tuple[int, int], dict[str, Any]]:
    """The moments of every weight, also where an optimizer is made of two."""
    parts = state.get("members", [state])
    return {(i, key): values for i, part in enumerate(parts) for key, values in part["state"].items()}


def test_the_rule_is_the_running_median() -> None:
    """Judged from the 21st norm on, by the last 100 that were no spikes."""
    random_ = random.Random(0)
    guard, kept = SpikeGuard(2.0, at_most=1000), list[float]()
    for step in range(400):
        norm = random_.lognormvariate(-step / 200, 0.6)
        wanted = len(kept) >= 20 and norm > 2 * statistics.median(kept[-100:])
        assert guard.judge(norm, step) == guard.now == wanted
        if not wanted:
            kept.append(norm)
    assert guard.skipped == 400 - len(kept) > 10


def test_too_many_spikes_end_the_training(
    overrides: Overrides,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    spike_at(monkeypatch, dict.fromkeys(range(22, 30), 50.0))
    assert main(overrides("run_name=wild", "skip_spikes=8", "max_skipped_steps=2")) == 1
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line.startswith("error: step 25: the gradient norm") and "max_skipped_steps=2 steps" in line
    record = json.loads((tmp_path / "runs" / "wild" / "result.json").read_text())
    assert (record["status"], record["skipped_steps"]) == ("failed", 2)


@pytest.mark.parametrize("stop", [23, 25, 27])
def test_a_resumed_run_knows_its_norms_and_skips(
    stop: int, overrides: Overrides, monkeypatch: pytest.MonkeyPatch
) -> None:
    spike_at(monkeypatch, {24: 50.0, 26: 50.0})
    arguments = ["skip_spikes=8", "model.dropout=0.1", "trainer.log_every_n_steps=1"]
    straight = run(overrides(*arguments, "run_name=straight"))
    folder = interrupted_run(overrides(*arguments, "run_name=stopped"), stop, monkeypatch)
    resumed = run([f"resume={folder}"])
    assert resumed.record.skipped_steps == straight.record.skipped_steps == 2
    for name, value in weights(straight.folder).items():
        assert torch.equal(value, weights(folder)[name]), name
    for column in ("train/grad_norm", "train/skipped_steps"):
        assert losses(folder, column) == losses(straight.folder, column)


def test_without_spikes_nothing_changes(overrides: Overrides) -> None:
    plain, guarded = run(overrides()), run(overrides("skip_spikes=100"))
    assert (plain.record.skipped_steps, guarded.record.skipped_steps) == (None, 0)
    for name, value in weights(plain.folder).items():
        assert torch.equal(value, weights(guarded.folder)[name]), name
