"""modgpt fit: its sums against a real training step, its advice, what it prints and refuses."""

from __future__ import annotations

import json

import pytest
import torch
from hydra.utils import instantiate
from torch._subclasses.fake_tensor import FakeTensorMode

from benchmarks.fit import COMPOSITIONS, SMALL, error, fused_kernels, small_model
from modgpt.commands.fit import main
from modgpt.config.build import build_model
from modgpt.config.compose import compose
from modgpt.planning.states import optimizer_bytes, states_of
from modgpt.training.objective import objective

# A bias of scores goes into a fused kernel on a GPU; on a CPU the scores are written.
BIASED = ("pos=alibi", "pos=t5")
STEPPED = [
    "optimizer=adamw",
    "optimizer=adamw model.tied_head=false ffn=standard pos=learned",
    "optimizer=adamw optimizer.cautious=true norm=layernorm",
    "optimizer=muon",
    "optimizer=muon ffn=moe",
    "optimizer=muon attention=gated_delta model.tied_head=false",
    "optimizer=soap ffn=moe",
    "optimizer=soap optimizer.largest_side=100",
    "optimizer=lion attention=linear",
    "optimizer=ademamix attention=bigbird pos=t5",
    "optimizer=normuon attention=local_window",
    "optimizer=schedule_free attention=sparse",
]
BASE = ["model.vocab_size=65", "data.batch_size=32"]
LARGE = [
    *("model.d_model=8192", "model.n_layers=80", "model.n_heads=64", "attention.n_kv_heads=8"),
    *("ffn.hidden=28672", "match=none", "model.block_size=4096", "model.vocab_size=128256"),
    *("data.batch_size=64", "model.tied_head=false"),
]


def nbytes(tensors) -> int:
    return sum(t.numel() * t.element_size() for t in tensors)


@pytest.mark.parametrize("overrides", STEPPED)
def test_states_are_those_after_a_step(overrides: str) -> None:
    cfg = compose([*SMALL, *overrides.split()])
    mode = FakeTensorMode()
    with mode:
        fake = build_model(cfg, 100)
    states = states_of(fake, instantiate(cfg.optimizer), False, mode)
    model = build_model(cfg, 100)
    optimizer = instantiate(cfg.optimizer)(model)
    tokens = torch.randint(100, (2, 16))
    x, aux = model.hidden(tokens)
    loss, _ = objective(model, x, tokens, label_smoothing=0.0, z_loss=0.0)
    (loss + aux["loss"].sum() if aux else loss).backward()
    optimizer.step()
    weights = list(model.parameters())
    assert states.parameters == nbytes(weights)
    assert states.gradients == nbytes(weight.grad for weight in weights)
    assert states.optimizer == optimizer_bytes(optimizer)


@pytest.mark.parametrize("overrides", COMPOSITIONS)
def test_activations_are_those_that_autograd_saves(overrides: str) -> None:
    model = small_model(overrides)
    found = error(model, mixed=False)
    if any(pos in overrides.split() for pos in BIASED) and "linear" not in overrides:
        assert -0.2 < found < -0.1, "the plain kernel writes the scores"
    else:
        assert abs(found) < 0.01
    if "softcap" not in overrides and abs(found) < 0.1:
        with fused_kernels():  # a softmax in fp32, as on a GPU, is more than a CPU's in bf16
            assert -0.01 < error(model, mixed=True) < 0.1


@pytest.mark.parametrize("vocabulary", [100, 3000])
@pytest.mark.parametrize("mixed", [False, True])
def test_the_loss_keeps_logits_or_two_gradients(vocabulary: int, mixed: bool) -> None:
    with fused_kernels():
        assert abs(error(small_model("", vocabulary), mixed)) < 0.001


def printed(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict:
    assert main([*arguments, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_fsdp_divides_the_states_and_ddp_does_not(capsys: pytest.CaptureFixture[str]) -> None:
    one, ddp, fsdp = printed(capsys, *BASE, "--gpus", "8")["layouts"]
    for name in ("parameters", "gradients", "optimizer state"):
        assert one["bytes"][name] == ddp["bytes"][name] == 8 * fsdp["bytes"][name]
    assert (one["batch_per_device"], ddp["batch_per_device"]) == (32, 4)
    assert ddp["bytes_sent_per_step"] == 2 * 7 / 8 * ddp["bytes"]["gradients"]
    assert fsdp["bytes_sent_per_step"] == pytest.approx(0.75 * ddp["bytes_sent_per_step"])


def test_the_largest_batch_fits_and_one_more_does_not(capsys: pytest.CaptureFixture[str]) -> None:
    small = ["--gpu-memory", "2"]
    (layout,) = printed(capsys, *BASE, *small)["layouts"]
    most = layout["largest_batch"]["kept"]
    for batch, fits in ((most, True), (most + 1, False)):
        job = ["model.vocab_size=65", f"data.batch_size={batch}", *small]
        assert printed(capsys, *job)["fits"] is fits


ADVICE = [
    (["data.batch_size=320"], None),
    (["data.batch_size=512"], "activation_checkpointing=true"),
    (["data.batch_size=4096"], "data.batch_size=256 trainer.accumulate_grad_batches=16"),
    (["data.batch_size=512", "activation_checkpointing=true"], None),
]


@pytest.mark.parametrize(("job", "change"), ADVICE)
def test_the_advice_fits(job: list[str], change: str | None, capsys: pytest.CaptureFixture[str]) -> None:
    fixed = ["model.vocab_size=65", "--gpu-memory", "2.1"]
    first = printed(capsys, *fixed, *job)
    assert first["change"] == change
    if change is not None:
        again = printed(capsys, *fixed, *job, *change.split())
        assert not first["fits"] and again["fits"]
        assert again["tokens_per_step"] == first["tokens_per_step"]


def test_70_billion_parameters_take_no_memory(capsys: pytest.CaptureFixture[str]) -> None:
    plan = printed(capsys, *LARGE, "--gpus", "8")
    assert 70e9 < plan["parameters"] < 71e9
    assert plan["layouts"][0]["bytes"]["parameters"] == 4 * plan["parameters"]
    assert plan["change"] == "fsdp + activation_checkpointing=true + --gpus 32"


def test_the_time_follows_from_the_flops(capsys: pytest.CaptureFixture[str]) -> None:
    plan = printed(capsys, *BASE, "trainer.max_steps=50", "--peak-tflops", "10", "--mfu", "0.5")
    flops = plan["training_flops_per_token"] * 50 * 32 * 64
    assert plan["seconds"] == pytest.approx(flops / 5e12)


def test_the_table(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*BASE, "--gpus", "2", "--gpu", "l4"]) == 0
    out = capsys.readouterr().out
    for text in ("one device", "ddp, 2 devices", "fsdp, 2 devices", "optimizer state", "fits in 24.0"):
        assert text in out
    assert "ddp fits" in out and "121 TFLOP/s (l4)" in out


REFUSED = [
    (["--gpus", "0"], "--gpus must be at least 1, got 0"),
    (["--gpu-memory", "nan"], "--gpu-memory must be a positive number, got nan"),
    (["--mfu", "1.5"], "--mfu must lie in (0, 1], got 1.5"),
    (["--gpu", "h10"], "unknown --gpu 'h10'; did you mean h100?"),
    (["run_name=x"], "run_name belongs to modgpt train: fit leaves no run"),
    (["ffn=mo"], "unknown option ffn=mo"),
    (["model.n_heads=3"], "model.d_model=128 is not divisible by model.n_heads=3"),
    (["trainer.precision=transformer-engine"], "fit knows trainer.precision=32"),
]


@pytest.mark.parametrize(("given", "text"), REFUSED, ids=lambda x: str(x))
def test_what_is_refused(given: list[str], text: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*BASE, *given]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert text in line
