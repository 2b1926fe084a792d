"""The time to reach a loss: nanoGPT's recipe in a plain loop, and our `experiment=sprint`."""

from __future__ import annotations

import tempfile
import time

import torch
import torch.nn.functional as F
from hydra.utils import instantiate

from benchmarks.peers import SIZES, PlainGPT
from benchmarks.rounds import Row
from benchmarks.training import silent
from modgpt.config.compose import compose_job
from modgpt.data.datamodule import CorpusDataModule
from modgpt.training.loop import train
from modgpt.training.prepare import prepare


def target(loss: float, rounds: int) -> list[Row]:
    """Training seconds until the loss on the whole validation text is at most `loss`.

    The times of validations and of loading the data are not included. nanoGPT's loop is validated every
    50 steps. The sprint is validated only at the end, when its learning rate has decayed.

    Args:
        loss: in nats per character.
        rounds: number of seeds, from 1 on. The two recipes alternate.
    """
    rows = []
    for seed in range(1, rounds + 1):
        rows += [{"seed": seed} | nanogpt(loss, seed), {"seed": seed} | ours(seed)]
    return rows


def nanogpt(loss: float, seed: int) -> Row:
    """The CPU recipe of nanoGPT's README, written by hand: fp32, AdamW, cosine, gradient clipping."""
    ready = prepare(compose_job(["experiment=nanogpt_cpu", f"seed={seed}"]))
    cfg, data = ready.config, ready.data
    assert isinstance(data, CorpusDataModule)
    torch.manual_seed(seed)
    torch.set_num_threads(cfg.threads)
    model = PlainGPT(SIZES["mini"], bias=False)
    optimizer = instantiate(cfg.optimizer)(model)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, instantiate(cfg.schedule))
    batches, seconds, reached, step = iter(data.train_dataloader()), 0.0, float("inf"), 0
    while reached > loss and step < cfg.trainer.max_steps:
        start = time.perf_counter()
        for _ in range(50):
            batch = next(batches)
            logits = model(batch[:, :-1])
            F.cross_entropy(logits.flatten(0, 1), batch[:, 1:].flatten()).backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), cfg.trainer.gradient_clip_val)
            optimizer.step()
            optimizer.zero_grad()
            schedule.step()
        seconds += time.perf_counter() - start
        step += 50
        reached = validation_loss(model, data)
    return {"recipe": "nanoGPT", "steps": step, "validation loss": reached, "seconds": seconds}


@torch.no_grad()
def validation_loss(model: PlainGPT, data: CorpusDataModule) -> float:
    """Mean over all targets of the validation text."""
    total, targets = 0.0, 0
    for batch in data.val_dataloader():
        logits, wanted = model(batch[:, :-1]).flatten(0, 1), batch[:, 1:].flatten()
        total += F.cross_entropy(logits, wanted, reduction="sum").item()
        targets += len(wanted)
    return total / targets


def ours(seed: int) -> Row:
    """`experiment=sprint` in the whole program, as a user runs it."""
    with tempfile.TemporaryDirectory() as folder, silent():
        job = compose_job(["experiment=sprint", f"seed={seed}", f"output_dir={folder}"])
        record = train(job).record
    return {
        "recipe": "sprint",
        "steps": job.config.trainer.max_steps,
        "validation loss": record.final_val_loss,
        "seconds": record.tokens_seen / (record.tokens_per_second or float("nan")),
    }
