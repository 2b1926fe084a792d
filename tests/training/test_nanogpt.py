"""The recipe `nanogpt_cpu` is nanoGPT: the same weights and batches give the same losses.

The model and the loop here follow nanoGPT's `model.py` and `train.py` (Karpathy, MIT licence) in plain
PyTorch. They import nothing of ours.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from modgpt.runs.saved import job_of
from modgpt.training.loop import train
from modgpt.training.prepare import prepare

TOLERANCE = 2e-6  # nats; the sums of fp32 are taken in another order (measured: 4.8e-7 over 500 steps)
RECIPE = (
    *("experiment=nanogpt_cpu", "trainer.precision=32-true", "trainer.accelerator=cpu", "threads=1"),
    "trainer.log_every_n_steps=1",
)
LEARNING_RATE, MIN_LR, WARMUP, WEIGHT_DECAY, BETAS = 1e-3, 1e-4, 100, 0.1, (0.9, 0.99)


class Block(nn.Module):
    def __init__(self, n_embd: int, n_head: int) -> None:
        super().__init__()
        self.n_head = n_head
        self.ln_1 = nn.LayerNorm(n_embd, bias=False)
        self.c_attn = nn.Linear(n_embd, 3 * n_embd, bias=False)
        self.c_proj = nn.Linear(n_embd, n_embd, bias=False)
        self.ln_2 = nn.LayerNorm(n_embd, bias=False)
        self.c_fc = nn.Linear(n_embd, 4 * n_embd, bias=False)
        self.mlp_proj = nn.Linear(4 * n_embd, n_embd, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        b, t, c = x.shape
        q, k, v = self.c_attn(self.ln_1(x)).split(c, dim=2)
        q, k, v = (z.view(b, t, self.n_head, c // self.n_head).transpose(1, 2) for z in (q, k, v))
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.c_proj(y.transpose(1, 2).contiguous().view(b, t, c))
        return x + self.mlp_proj(F.gelu(self.c_fc(self.ln_2(x))))


class NanoGPT(nn.Module):
    def __init__(self, vocab_size: int, block_size: int, n_layer: int, n_head: int, n_embd: int) -> None:
        super().__init__()
        self.wte = nn.Embedding(vocab_size, n_embd)
        self.wpe = nn.Embedding(block_size, n_embd)
        self.h = nn.ModuleList(Block(n_embd, n_head) for _ in range(n_layer))
        self.ln_f = nn.LayerNorm(n_embd, bias=False)
        self.lm_head = nn.Linear(n_embd, vocab_size, bias=False)
        self.wte.weight = self.lm_head.weight

    def forward(self, idx: Tensor, targets: Tensor) -> Tensor:
        """The mean cross-entropy of the targets."""
        x = self.wte(idx) + self.wpe(torch.arange(idx.shape[1]))
        for block in self.h:
            x = block(x)
        logits = self.lm_head(self.ln_f(x))
        return F.cross_entropy(logits.view(-1, logits.size(-1)), targets.reshape(-1))


# The names of the same weights in our model.
OURS = {
    "wte": "embedding", "wpe": "pos.table", "ln_f": "norm", "lm_head": "head",
    "ln_1": "attention_norm_in", "c_attn": "attention.qkv", "c_proj": "attention.out",
    "ln_2": "ffn_norm_in", "c_fc": "ffn.up", "mlp_proj": "ffn.down",
}  # fmt: skip


def our_name(name: str) -> str:
    """`h.0.c_attn.weight` -> `blocks.0.attention.qkv.weight`."""
    parts = name.removesuffix(".weight").split(".")
    prefix = ["blocks", parts[1]] if parts[0] == "h" else []
    return ".".join([*prefix, OURS[parts[-1]], "weight"])


def learning_rate(it: int, max_iters: int) -> float:
    if it < WARMUP:
        return LEARNING_RATE * (it + 1) / (WARMUP + 1)
    ratio = (it - WARMUP) / (max_iters - WARMUP)
    return MIN_LR + 0.5 * (1 + math.cos(math.pi * ratio)) * (LEARNING_RATE - MIN_LR)


def trained(model: NanoGPT, batches: Iterator[Tensor], iters: int, max_iters: int) -> list[float]:
    """The training loss of each step."""
    parameters = list(model.parameters())
    groups = [
        {"params": [p for p in parameters if p.dim() >= 2], "weight_decay": WEIGHT_DECAY},
        {"params": [p for p in parameters if p.dim() < 2], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=LEARNING_RATE, betas=BETAS)
    losses = []
    for it in range(iters):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(it, max_iters)
        batch = next(batches)
        loss = model(batch[:, :-1], batch[:, 1:])
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        losses.append(loss.item())
    return losses


@torch.no_grad()
def validated(model: NanoGPT, tokens: Tensor, block_size: int) -> float:
    """The mean loss of all targets of a text, window after window."""
    total = 0.0
    for start in range(0, len(tokens) - 1, block_size):
        window = tokens[None, start : start + block_size + 1]
        total += model(window[:, :-1], window[:, 1:]).item() * (window.shape[1] - 1)
    return total / (len(tokens) - 1)


def compared(overrides: list[str]) -> tuple[list[float], list[float]]:
    """The losses of a training of ours and of nanoGPT's: one a step, then the validation loss."""
    job = job_of([*RECIPE, *overrides])
    prepared = prepare(job)
    config, data = prepared.config, prepared.data
    sizes = config.model
    model = NanoGPT(sizes.vocab_size, sizes.block_size, sizes.n_layers, sizes.n_heads, sizes.d_model)
    weights = prepared.module.model.state_dict()
    names = {name: our_name(name) for name in model.state_dict()}
    assert set(names.values()) == set(weights)
    model.load_state_dict({name: weights[ours] for name, ours in names.items()})
    steps = config.trainer.max_steps
    theirs = trained(model, iter(data.training_batches()), steps, steps)
    theirs.append(validated(model, data.tokens("validation"), sizes.block_size))
    outcome = train(job)
    with (outcome.folder / "metrics.csv").open(newline="") as file:
        logged = [row["train/loss"] for row in csv.DictReader(file) if row["train/loss"]]
    assert outcome.record.final_val_loss is not None
    return [*map(float, logged), outcome.record.final_val_loss], theirs


def largest_difference(overrides: list[str]) -> float:
    ours, theirs = compared(overrides)
    assert len(ours) == len(theirs)
    return max(abs(a - b) for a, b in zip(ours, theirs, strict=True))


def test_a_short_training_equals_nanogpt(overrides: Callable[..., list[str]]) -> None:
    given = [o for o in overrides() if o.split("=")[0] not in ("optimizer.lr", "schedule.warmup_steps")]
    # Longer than the warm-up: the cosine takes part.
    more = ["trainer.max_steps=120", "trainer.val_check_interval=120", "data.batch_size=4"]
    assert largest_difference([*given, *more]) < TOLERANCE


@pytest.mark.slow
def test_five_hundred_steps_on_shakespeare_equal_nanogpt(tmp_path: Path) -> None:
    folder = Path(__file__).parents[2] / "data"
    difference = largest_difference(
        [f"data.data_dir={folder}", f"output_dir={tmp_path}", "trainer.max_steps=500"]
    )
    print(f"largest difference of a loss over 500 steps: {difference:.1e} nats")
    assert difference < TOLERANCE
