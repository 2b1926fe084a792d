"""Techniques of training: each does what it says, and nothing where it is off."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from omegaconf import OmegaConf, open_dict

from modgpt.commands.train import main
from modgpt.compare.recipes import value_at
from modgpt.config.compose import compose
from modgpt.config.keys import KEYS, LATER
from modgpt.kernels import head_loss
from modgpt.sweep.identity import job_hash
from modgpt.testing.build import small_model
from modgpt.training.lit_module import LitGPT
from modgpt.training.techniques import Techniques
from tests.training.test_loop import losses, run

Overrides = Callable[..., list[str]]

REFUSED = [
    ("label_smoothing=1", "label_smoothing must lie in [0, 1), got 1"),
    ("label_smoothing=-0.1", "label_smoothing must lie in [0, 1), got -0.1"),
    ("label_smoothing=nan", "label_smoothing must lie in [0, 1), got nan"),
    ("label_smoothing=null", "label_smoothing must be a number, got None"),
    ("z_loss=-1e-4", "z_loss must be 0 or a positive number, got -0.0001"),
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


@pytest.mark.parametrize("given", ["label_smoothing=0.1", "z_loss=1e-4"])
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
