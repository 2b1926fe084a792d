"""The loss that is trained, the clipping, the rate."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from modgpt.config.compose import compose_job
from modgpt.config.search import options
from modgpt.model.definition import defined
from modgpt.runs.checkpoint import model_weights, read_checkpoint
from modgpt.training.lit_module import LitGPT
from modgpt.training.loop import Outcome, train
from modgpt.training.schedules import constant, cosine
from tests.compositions import small_model

Overrides = Callable[..., list[str]]


def sgd(model: torch.nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD(model.parameters(), lr=1)


def module(**choices: str) -> LitGPT:
    return LitGPT(small_model(choices), sgd, lambda step: 1.0)


def batch() -> torch.Tensor:
    return torch.randint(11, (3, 9), generator=torch.Generator().manual_seed(0))


def test_the_loss_is_cross_entropy_of_the_next_token() -> None:
    lit = module(ffn="swiglu")
    ids = batch()
    loss = lit.training_step(ids, 0)
    logits = lit.model(ids[:, :-1])
    wanted = torch.stack(
        [F.cross_entropy(logits[b, t], ids[b, t + 1]) for b in range(3) for t in range(8)]
    ).mean()
    torch.testing.assert_close(loss, wanted)
    assert lit.latest["train/loss"] == loss


def test_auxiliary_losses_join_the_gradient_and_not_the_loss() -> None:
    lit = module(ffn="moe")
    total = lit.training_step(batch(), 0)
    with torch.no_grad():
        _, aux = lit.model.hidden(batch()[:, :-1])
    assert aux["loss"].shape == (2,), "one per layer"
    assert float(total) == pytest.approx(float(lit.latest["train/loss"] + aux["loss"].sum()), rel=1e-6)
    assert aux["loss"].sum() > 0
    assert lit.latest["aux/balance_loss"] == pytest.approx(aux["balance_loss"].mean().item())
    loads = [float(lit.latest[f"expert_load/{i}"]) for i in range(4)]
    assert loads == pytest.approx(aux["expert_load"].mean(0).tolist())


@pytest.mark.parametrize("limit", [0.01, 1e6])
def test_clipping(limit: float) -> None:
    lit = module()
    lit.training_step(batch(), 0).backward()
    before = torch.cat([p.grad.flatten() for p in lit.parameters() if p.grad is not None]).norm()
    lit.configure_gradient_clipping(torch.optim.SGD(lit.parameters(), lr=1), limit)
    after = torch.cat([p.grad.flatten() for p in lit.parameters() if p.grad is not None]).norm()
    assert lit.latest["train/grad_norm"] == pytest.approx(before.item(), rel=1e-5)
    assert after.item() == pytest.approx(min(before.item(), limit), rel=1e-4)


def test_one_step_of_the_real_trainer_is_one_step_by_hand(overrides: Overrides) -> None:
    """Clipping, decay groups, rate and batches at once: two steps reproduced in plain torch."""
    arguments = overrides(
        "trainer.max_steps=2", "schedule.warmup_steps=1", "trainer.log_every_n_steps=1",
        "trainer.gradient_clip_val=0.5", "optimizer.lr=0.01", "trainer.accumulate_grad_batches=2",
    )  # fmt: skip
    outcome = train(compose_job(arguments))
    untrained = train_nothing(outcome)
    decayed = [p for p in untrained.parameters() if p.dim() >= 2]
    others = [p for p in untrained.parameters() if p.dim() < 2]
    optimizer = torch.optim.AdamW(
        [{"params": decayed, "weight_decay": 0.1}, {"params": others, "weight_decay": 0.0}],
        lr=0.01, betas=(0.9, 0.99), foreach=False,
    )  # fmt: skip
    windows = outcome.data.train_dataloader().dataset
    for step in range(2):
        for micro in range(2):
            ids = windows.batch(2 * step + micro)  # type: ignore[attr-defined]
            logits = untrained(ids[:, :-1])
            (F.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten()) / 2).backward()
        torch.nn.utils.clip_grad_norm_(untrained.parameters(), 0.5)
        for group in optimizer.param_groups:
            group["lr"] = 0.01 * cosine(step, warmup_steps=1, max_steps=2, final=0.1)
        optimizer.step()
        optimizer.zero_grad()
    trained = dict(outcome.module.model.named_parameters())
    for name, parameter in untrained.named_parameters():
        torch.testing.assert_close(trained[name], parameter, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("accumulated", [1, 2])
def test_schedule_free_validates_and_saves_the_average(accumulated: int, overrides: Overrides) -> None:
    """Four steps by hand: gradients at y, the average in the model, the checkpoint and the result."""
    arguments = overrides(
        "optimizer=schedule_free", "optimizer.lr=0.02", "schedule=constant", "schedule.warmup_steps=2",
        "trainer.max_steps=4", "trainer.val_check_interval=2", "trainer.gradient_clip_val=null",
        f"trainer.accumulate_grad_batches={accumulated}",
    )  # fmt: skip
    outcome = train(compose_job(arguments))
    model = train_nothing(outcome)
    weights = dict(model.named_parameters())
    x = {name: w.detach().clone() for name, w in weights.items()}
    z, v, total = dict(x), {name: torch.zeros_like(w) for name, w in x.items()}, 0.0
    windows = outcome.data.train_dataloader().dataset
    for t in range(1, 5):
        for name, w in weights.items():
            w.data = 0.1 * z[name] + 0.9 * x[name]
            w.grad = None
        for n in range(accumulated):
            ids = windows.batch(accumulated * (t - 1) + n)  # type: ignore[attr-defined]
            loss = F.cross_entropy(model(ids[:, :-1]).flatten(0, 1), ids[:, 1:].flatten())
            (loss / accumulated).backward()
        rate = 0.02 * constant(t - 1, warmup_steps=2, max_steps=4)
        total += rate**2
        for name, w in weights.items():
            assert w.grad is not None
            v[name] = 0.99 * v[name] + 0.01 * w.grad**2
            u = w.grad / ((v[name] / (1 - 0.99**t)).sqrt() + 1e-8)
            z[name] = z[name] - rate * (u + (0.1 if w.dim() >= 2 else 0) * w.data)
            x[name] = x[name] + rate**2 / total * (z[name] - x[name])
    saved = model_weights(read_checkpoint(outcome.folder / "checkpoints" / "last.ckpt"))
    for name, w in outcome.module.model.named_parameters():
        assert torch.equal(saved[name], w), name
        torch.testing.assert_close(w.detach(), x[name], rtol=1e-4, atol=2e-5, msg=name)
    model.load_state_dict(saved)
    nats, targets = 0.0, 0
    with torch.no_grad():
        for ids in outcome.data.val_dataloader():
            logits, wanted = model.eval()(ids[:, :-1]).flatten(0, 1), ids[:, 1:].flatten()
            nats += F.cross_entropy(logits, wanted, reduction="sum").item()
            targets += wanted.numel()
    assert outcome.record.final_val_loss == pytest.approx(nats / targets, rel=1e-5)


def train_nothing(outcome: Outcome):  # type: ignore[no-untyped-def]
    """The model as it was before the first step of that training."""
    from lightning import seed_everything
    from omegaconf import OmegaConf

    from modgpt import build_model

    seed_everything(1, verbose=False)
    outcome.data.trainer = None
    return build_model(OmegaConf.load(outcome.folder / "config.yaml"))  # type: ignore[arg-type]


def test_the_logged_rate_is_the_schedule(overrides: Overrides) -> None:
    folder: Path = train(compose_job(overrides("trainer.log_every_n_steps=1"))).folder
    with (folder / "metrics.csv").open(newline="") as file:
        rates = [float(row["lr"]) for row in csv.DictReader(file) if row["lr"]]
    wanted = [1e-2 * cosine(n, warmup_steps=3, max_steps=30, final=0.1) for n in range(30)]
    assert rates == pytest.approx(wanted)


def test_a_soft_cap_keeps_logits_within_it() -> None:
    plain, capped = small_model({}), small_model({}, logit_softcap=0.7)
    ids = batch()
    torch.testing.assert_close(capped(ids), 0.7 * torch.tanh(plain(ids) / 0.7))
    assert plain(ids).abs().max() > 0.7 > capped(ids).abs().max()
    logits, _ = capped.decode(ids, capped.initial_state(len(ids), 9))
    torch.testing.assert_close(logits, capped(ids))
    lit = LitGPT(capped, sgd, lambda step: 1.0)
    wanted = F.cross_entropy(capped(ids[:, :-1]).flatten(0, 1), ids[:, 1:].flatten())
    torch.testing.assert_close(lit.training_step(ids, 0), wanted)


def test_scales_and_a_bias_of_the_head() -> None:
    """Each is what the definition says, in forward passes and in decoding."""
    knobs = {"embedding_scale": 3.0, "logit_scale": 0.25, "head_bias": True, "logit_softcap": 5.0}
    model, ids = small_model({}, **knobs).eval(), batch()
    torch.nn.init.normal_(model.head.bias)
    got = model(ids)
    torch.testing.assert_close(got, defined(model)(ids))
    logits, _ = model.decode(ids, model.initial_state(len(ids), 9))
    torch.testing.assert_close(logits, got)
    for name, neutral in {"embedding_scale": 1.0, "logit_scale": 1.0}.items():
        other = small_model({}, **knobs | {name: neutral}).eval()
        other.load_state_dict(model.state_dict())
        assert not torch.allclose(other(ids), got), f"{name} has no effect"


@pytest.mark.parametrize("name", ["embedding_scale", "logit_scale"])
def test_scales_are_positive(name: str) -> None:
    with pytest.raises(ValueError, match=f"model.{name} must be positive, got 0"):
        small_model({}, **{name: 0})


@pytest.mark.parametrize("cap", [0, -1.0])
def test_a_soft_cap_is_positive(cap: float) -> None:
    with pytest.raises(ValueError, match=f"model.logit_softcap must be positive, got {cap}"):
        small_model({}, logit_softcap=cap)


@pytest.mark.parametrize("precision", ["64-true", "bf16-true"])
@pytest.mark.parametrize("optimizer", options("optimizer"))
def test_losses_of_true_precisions(precision: str, optimizer: str, overrides: Overrides) -> None:
    """The loss is computed as precisely as the model computes, and never in less than fp32."""
    parts = ["norm=layernorm", "ffn=standard", "pos=learned"]
    outcome = train(
        compose_job(
            overrides(f"trainer.precision={precision}", f"optimizer={optimizer}", *parts)
        )
    )  # fmt: skip
    model = outcome.module.model.eval()
    dtype = torch.float64 if precision == "64-true" else torch.bfloat16
    assert {p.dtype for p in model.parameters()} == {dtype}
    total, count = 0.0, 0
    with torch.no_grad():
        for ids in outcome.data.val_dataloader():
            logits = model(ids[:, :-1]).double()
            total += float(F.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten(), reduction="sum"))
            count += ids[:, 1:].numel()
    with (outcome.folder / "metrics.csv").open(newline="") as file:
        logged = [float(row["val/loss"]) for row in csv.DictReader(file) if row["val/loss"]][-1]
    assert logged == pytest.approx(total / count, rel=1e-12 if precision == "64-true" else 1e-6)
