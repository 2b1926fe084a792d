"""Several models in one program: stacked along an axis, or one after the other in a process per core.

The stacked program is `torch.func.vmap` over the parameters of all models, each with its own batches and
its own gradient clipping; AdamW has no sums over parameters and so needs no axis.
"""

from __future__ import annotations

import multiprocessing
import statistics
import time
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.peers import SIZES, PlainGPT
from benchmarks.rounds import Row
from modgpt.kernels.attention_products import scaled_dot_product_attention
from modgpt.training.hardware import available_cores, best_precision

SIZE = SIZES["mini"]
WINDOWS = 32  # of a batch, as in the default run


def stacked(rounds: int, steps: int) -> list[Row]:
    """Training tokens per second over all models, and the ratio to a process per core.

    Args:
        rounds: turns of each contestant.
        steps: of each model in a turn.
    """
    cores = available_cores()
    names = {f"a process per core, {2 * cores} models": 0} | {f"{n} stacked": n for n in (2, 4, 8)}
    speeds: dict[str, list[float]] = {name: [] for name in names}
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(cores, mp_context=context) as pool:
        for _ in range(rounds):
            for name, n in names.items():
                jobs = [(n, cores, steps)] if n else [(0, 1, steps)] * cores
                speeds[name].append(sum(pool.map(turn, *zip(*jobs, strict=True))))
    baseline = next(iter(names))
    return [
        {
            "contestant": name,
            "per second": statistics.median(measured),
            "lowest": min(measured),
            "highest": max(measured),
            "ratio": statistics.median(a / b for a, b in zip(measured, speeds[baseline], strict=True)),
        }
        for name, measured in speeds.items()
    ]


def turn(n_stacked: int, threads: int, steps: int) -> float:
    """Tokens per second of this process: n models stacked, or two by turns where n is 0."""
    torch.set_num_threads(threads)
    # For all contestants: the fused kernel has no rule for a model axis.
    F.scaled_dot_product_attention = scaled_dot_product_attention  # type: ignore[assignment]
    n = n_stacked or 2
    models = [model() for _ in range(n)]
    batches = torch.randint(SIZE.vocab_size, (n, WINDOWS, SIZE.block_size + 1))
    step = stack(models, batches) if n_stacked else by_turns(models, batches)
    for _ in range(3):
        step()
    start = time.perf_counter()
    for _ in range(steps):
        step()
    return steps * n * WINDOWS * SIZE.block_size / (time.perf_counter() - start)


def model() -> nn.Module:
    """A plain GPT whose head is a matrix of its own: `functional_call` cannot share one."""
    made = PlainGPT(SIZE)
    made.head = nn.Linear(SIZE.d_model, SIZE.vocab_size, bias=False)
    return made


def loss_of(model: Any, batch: Tensor) -> Tensor:
    mixed = best_precision("cpu") == "bf16-mixed"
    with torch.autocast("cpu", torch.bfloat16, enabled=mixed):
        logits = model(batch[:, :-1])
    return F.cross_entropy(logits.flatten(0, 1).float(), batch[:, 1:].flatten())


def by_turns(models: list[nn.Module], batches: Tensor) -> Any:
    """A step of every model, one after the other."""
    optimizers = [torch.optim.AdamW(m.parameters(), lr=1e-3, fused=True) for m in models]

    def step() -> None:
        for each, optimizer, batch in zip(models, optimizers, batches, strict=True):
            loss_of(each, batch).backward()
            nn.utils.clip_grad_norm_(each.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()

    return step


def stack(models: list[nn.Module], batches: Tensor) -> Any:
    """A step of all models at once."""
    found, _ = torch.func.stack_module_state(models)
    parameters = {name: p.detach().requires_grad_() for name, p in found.items()}
    optimizer = torch.optim.AdamW(parameters.values(), lr=1e-3, fused=True)

    def of_one(own: dict[str, Tensor], batch: Tensor) -> Tensor:
        return loss_of(lambda ids: torch.func.functional_call(models[0], own, (ids,)), batch)

    def step() -> None:
        torch.func.vmap(of_one)(parameters, batches).sum().backward()
        gradients = [p.grad for p in parameters.values() if p.grad is not None]
        norms = torch.stack([g.flatten(1).norm(dim=1) for g in gradients]).norm(dim=0)  # (n,)
        factors = (1 / (norms + 1e-6)).clamp(max=1)
        for g in gradients:
            g.mul_(factors.view(-1, *[1] * (g.dim() - 1)))
        optimizer.step()
        optimizer.zero_grad()

    return step
