"""Every option against its definition on the device: fp32, bf16 and compiled."""

from __future__ import annotations

import copy

import torch
from torch import Tensor

from benchmarks.gpu.piece import Device, Result, Row
from modgpt.model.definition import defined
from modgpt.model.gpt import GPT
from modgpt.testing.build import Make, options_of, small, small_model, with_knobs
from modgpt.testing.compare import relative_error
from modgpt.testing.models import LENGTH, tokens

# Largest root mean square of the difference, relative to that of what is wanted.
LIMITS = {"fp32": 1e-4, "fp32, compiled": 1e-4, "bf16": 0.05, "bf16, compiled": 0.05}


def options(group: str, compiled: bool, device: Device) -> Result:
    """Logits, gradients and decoding of every option of a group."""
    if compiled and not device.large:
        return Result("needs CUDA", note="on a CPU, tests/model/test_compile.py compiles every option")
    torch.backends.cuda.matmul.allow_tf32 = False
    modes = [mode for mode in LIMITS if ("compiled" in mode) == compiled]
    makes = options_of(group).items()
    rows = [compared(o, mode, {group: small(make)}, device) for o, make in makes for mode in modes]
    return Result.of_checks(rows)


def flex(device: Device) -> Result:
    """The attentions that FlexAttention can compute, with its kernel."""
    if not device.is_cuda:
        return Result("needs CUDA", note="FlexAttention has no gradients on a CPU")
    rows = []
    for option, make in options_of("attention").items():
        if "kernel" in getattr(make, "keywords", {}):
            parts = {"attention": with_knobs(small(make), kernel="flex")}
            rows += [compared(option, mode, parts, device) for mode in LIMITS]
    return Result.of_checks(rows)


def compared(option: str, mode: str, parts: dict[str, Make], device: Device) -> Row:
    """One option in one mode: how far it is from the definition in fp32 on the CPU."""
    model = small_model(**parts).eval()
    ids = tokens()
    slow = defined(model)(ids)
    slow_gradients = gradients(model, slow)
    tried = copy.deepcopy(model).to(device.name)
    if "compiled" in mode:
        tried.compile_blocks()
    with torch.autocast(device.name, torch.bfloat16, enabled="bf16" in mode):
        fast = tried(ids.to(device.name))
        decoded = decode(tried, ids.to(device.name))
    errors = {
        "logits": relative_error(fast.cpu().float(), slow),
        "gradients": relative_error(gradients(tried, fast).cpu(), slow_gradients),
        "decoding": relative_error(decoded.cpu().float(), slow),
    }
    passed = all(error <= LIMITS[mode] for error in errors.values())
    return {"option": option, "mode": mode} | errors | {"passed": passed}


def gradients(model: GPT, logits: Tensor) -> Tensor:
    """Of all parameters in one vector, for a fixed random gradient of the logits."""
    toward = torch.randn(logits.shape, generator=torch.Generator().manual_seed(1))
    found = torch.autograd.grad(
        logits.float(), list(model.parameters()), toward.to(logits.device), materialize_grads=True
    )
    return torch.cat([gradient.flatten().float() for gradient in found])


@torch.no_grad()
def decode(model: GPT, ids: Tensor) -> Tensor:
    """Logits of tokens that come in pieces."""
    state, got = model.initial_state(len(ids), LENGTH), []
    for piece in ids.split([7, 4, 1, 1, 1], dim=1):
        logits, state = model.decode(piece, state)
        got.append(logits)
    return torch.cat(got, dim=1)
