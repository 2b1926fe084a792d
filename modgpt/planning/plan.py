"""The plan of a job: composed as `modgpt train` composes it, its model built without memory."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf, open_dict
from torch._subclasses.fake_tensor import FakeTensorMode

from modgpt.config.build import build_model
from modgpt.config.compose import Job
from modgpt.config.match import cost_at, match_size
from modgpt.errors import as_user_errors
from modgpt.model.cost import Cost
from modgpt.planning.advice import Advice, advise
from modgpt.planning.kept import widths_of
from modgpt.planning.memory import Layout, Needs, needs_of
from modgpt.planning.states import states_of
from modgpt.training.hardware import Machine
from modgpt.training.prepare import Corpora, check_budget, complete, steps_for, vocabulary
from modgpt.training.techniques import techniques_of

# What a GPU of the table decides where the configuration leaves it open.
GPU = Machine(threads=1, precision="bf16-mixed", compile=False)

# Of the weights, by their bytes and the beginning of `trainer.precision`.
TYPES = defaultdict(lambda: torch.float32, {
    (2, "bf"): torch.bfloat16, (2, "16"): torch.float16, (8, "64"): torch.float64,
})  # fmt: skip


@dataclass(frozen=True)
class Hardware:
    """What trains.

    Attributes:
        gpus: how many.
        memory: of each, in bytes.
        peak: FLOP/s of each.
        mfu: the share of the peak that the training reaches.
        name: of the GPU, for the reader.
    """

    gpus: int
    memory: float
    peak: float
    mfu: float
    name: str


@dataclass(frozen=True)
class Plan:
    """What a job needs on some hardware.

    Attributes:
        config: complete, with vocabulary and width.
        cost: of the model, declared.
        needs: of memory.
        hardware: as asked for.
        layouts: one device, and with several ddp and fsdp.
        advice: what makes it fit where it does not.
    """

    config: DictConfig
    cost: Cost
    needs: Needs
    hardware: Hardware
    layouts: list[Layout]
    advice: Advice | None

    @property
    def chosen(self) -> Layout:
        """What `modgpt train` runs on this hardware: one device, or ddp."""
        return self.layouts[min(1, len(self.layouts) - 1)]

    @property
    def accumulated(self) -> int:
        return self.config.trainer.accumulate_grad_batches

    @property
    def tokens_per_step(self) -> int:
        return self.config.data.batch_size * self.accumulated * self.needs.length

    @property
    def steps(self) -> int:
        return self.config.trainer.max_steps

    @property
    def step_seconds(self) -> float:
        """Computing time of an optimizer step on all devices: 3 forward passes of FLOPs per token."""
        flops = 3 * self.cost.flops * self.tokens_per_step
        return flops / (self.hardware.gpus * self.hardware.peak * self.hardware.mfu)


def plan_of(job: Job, hardware: Hardware) -> Plan:
    """Check a job as `prepare` does, and sum up what it needs; no model is allocated.

    The data are read where the size of the vocabulary or of the budget depends on them: not with
    `model.vocab_size` and without `max_bytes`.

    Raises:
        UserError: a value is wrong, or the parts do not fit together.
    """
    cfg, _ = complete(job.config, GPU)
    if OmegaConf.is_missing(cfg.model, "vocab_size") or cfg.max_bytes is not None:
        data = Corpora().of(cfg)
        if cfg.max_bytes is not None:
            check_budget(job)
            budgeted = job.config.copy()
            budgeted.trainer.max_steps = steps_for(cfg, data)
            cfg, _ = complete(budgeted, GPU)
        with open_dict(cfg):
            cfg.model.vocab_size = vocabulary(cfg, len(data.tokenizer))
    matched = match_size(cfg)
    if matched is not None:
        cfg.ffn.hidden = matched.hidden
    needs = needs_of_config(cfg)
    layouts = layouts_of(cfg, hardware.gpus)
    chosen = layouts[min(1, len(layouts) - 1)]
    advice = advise(needs, chosen, cfg.trainer.accumulate_grad_batches, hardware.memory)
    return Plan(cfg, cost_at(cfg), needs, hardware, layouts, advice)


def needs_of_config(cfg: DictConfig) -> Needs:
    """The needs of a complete configuration.

    Raises:
        UserError: the parts do not fit together.
    """
    widths, techniques = widths_of(cfg.trainer.precision), techniques_of(cfg)
    mode = FakeTensorMode()
    with mode, default_type(TYPES[widths.parameter, cfg.trainer.precision[:2]]):
        model = build_model(cfg)
    with as_user_errors():
        make_optimizer = instantiate(cfg.optimizer)
        averaged = bool(techniques.ema or techniques.tail_average)
        states = states_of(model, make_optimizer, averaged, mode)
    return needs_of(
        model, states, cfg.model.block_size, widths, cfg.trainer.precision, bool(techniques.z_loss)
    )


@contextmanager
def default_type(dtype: torch.dtype) -> Iterator[None]:
    """Within it, new weights are of that type."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def layouts_of(cfg: DictConfig, gpus: int) -> list[Layout]:
    """One device with the whole batch; with several also ddp and fsdp, a share of it each."""
    one = Layout("one device", 1, cfg.data.batch_size, cfg.activation_checkpointing)
    if gpus == 1:
        return [one]
    spread = replace(one, strategy="ddp", devices=gpus, batch=-(-cfg.data.batch_size // gpus))
    return [one, spread, replace(spread, strategy="fsdp")]
