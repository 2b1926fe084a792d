"""From a job to everything that its training needs: checked, derived, built. Nothing is written.

The plan of a sweep, the measurement of its speed and the training itself all go through `prepare`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf, open_dict

from modgpt.config.build import build_model
from modgpt.config.check import check_arguments
from modgpt.config.compose import Job
from modgpt.config.keys import PARTS
from modgpt.config.match import Matched, cost_at, match_size
from modgpt.config.overrides import parse_one
from modgpt.data.base import DataModule
from modgpt.data.tokenizers.base import Tokenizer
from modgpt.errors import UserError, as_user_errors
from modgpt.model.cost import Cost
from modgpt.model.gpt import GPT
from modgpt.runs.folder import load_run
from modgpt.runs.saved import differences
from modgpt.training.hardware import Machine, check_machine, machine_for
from modgpt.training.lit_module import LitGPT
from modgpt.training.memory import check_memory
from modgpt.training.techniques import techniques_of
from modgpt.training.trackers.tracking import check_loggers
from modgpt.training.trainer import check_trainer, validated_batches

LARGEST_SEED = 2**32 - 1
MOST_LAYERS = 1000
AT_LEAST_ONE = (
    "max_bytes",
    "threads",
    "trainer.max_steps",
    "trainer.val_check_interval",
    "trainer.log_every_n_steps",
    "trainer.accumulate_grad_batches",
)


class MisfitError(UserError):
    """The parts of one job do not fit together; the other jobs of its sweep may."""


@dataclass(frozen=True)
class Prepared:
    """A job with everything that its training needs.

    Attributes:
        job: as composed, unchanged.
        config: the complete configuration: the composed one, with every value that depends on the data
            or on the machine filled in. A run saves it as `config.yaml`.
        data: the data module, loaded.
        module: the LightningModule with the model.
        cost: the model's declared cost.
        matched: the width that was derived from `match`; None where none was.
        machine: threads, precision and compiling, as decided.
    """

    job: Job
    config: DictConfig
    data: DataModule
    module: LitGPT
    cost: Cost
    matched: Matched | None
    machine: Machine

    @property
    def identity(self) -> DictConfig:
        """The composed configuration with the derived width: what makes two jobs the same job.

        What a machine decides is no part of it.
        """
        config = self.job.config.copy()
        if self.matched is not None:
            config.ffn.hidden = self.matched.hidden
        return config

    @property
    def training_tokens(self) -> int:
        """Tokens that the whole training sees."""
        cfg = self.config
        windows = cfg.data.batch_size * cfg.trainer.accumulate_grad_batches
        return windows * cfg.model.block_size * cfg.trainer.max_steps


class Corpora:
    """The data modules of several jobs, each corpus loaded once."""

    def __init__(self) -> None:
        self.loaded: dict[str, DataModule] = {}

    def of(self, cfg: DictConfig, tokenizer: Tokenizer | None = None) -> DataModule:
        """The loaded data module of a configuration, with a tokenizer of its own or a given one."""
        if tokenizer is not None:
            tokenizer.allow_lossy = bool(cfg.tokenizer.get("allow_lossy"))
            return self.loaded_with(cfg, lambda *texts: tokenizer)
        key = OmegaConf.to_yaml(OmegaConf.create([cfg.data, cfg.tokenizer]))
        if key not in self.loaded:
            with as_user_errors():
                make = instantiate(cfg.tokenizer)
            self.loaded[key] = self.loaded_with(cfg, make)
        return self.loaded[key]

    def loaded_with(self, cfg: DictConfig, make: Callable[..., Tokenizer]) -> DataModule:
        """A data module whose tokenizer `make` builds, loaded."""
        with as_user_errors():
            data: DataModule = instantiate(cfg.data, tokenizer=make)
            data.load()
        return data


def prepare(
    job: Job,
    machine: Machine | None = None,
    corpora: Corpora | None = None,
    tokenizer: Tokenizer | None = None,
) -> Prepared:
    """Check a job, derive what its configuration leaves open, build its data and its model.

    Args:
        job: as composed; stays as it is.
        machine: threads, precision and compiling, where a sweep has decided them; None to decide here.
        corpora: of several jobs.
        tokenizer: of a resumed run, whose weights come from its own checkpoint, not from `init_from`.

    Raises:
        UserError: a value is of the wrong kind or out of its range, or the data cannot be read.
        MisfitError: the parts do not fit together.
    """
    cfg, machine = complete(job.config, machine)
    check_machine(machine)
    data = (corpora or Corpora()).of(cfg, tokenizer)
    if cfg.max_bytes is not None:
        check_budget(job)
        budgeted = job.config.copy()
        budgeted.trainer.max_steps = steps_for(cfg, data)
        cfg, machine = complete(budgeted, machine)  # the schedule follows the number of steps
    validated_batches(cfg, len(data.val_dataloader()))
    with open_dict(cfg):
        cfg.model.vocab_size = vocabulary(cfg, len(data.tokenizer))
    try:
        matched = match_size(cfg)
        if matched is not None:
            cfg.ffn.hidden = matched.hidden
        cost = cost_at(cfg)
        check_memory(cfg, cost)
        module = build_module(cfg)
        if cfg.init_from is not None and tokenizer is None:
            load_weights(Path(cfg.init_from), cfg, module.model)
    except UserError as error:
        raise MisfitError(str(error)) from error
    return Prepared(job, cfg, data, module, cost, matched, machine)


def complete(composed: DictConfig, machine: Machine | None) -> tuple[DictConfig, Machine]:
    """A copy of a composed configuration, resolved and checked, with what the machine decides.

    Raises:
        UserError: a value is of the wrong kind or out of its range.
    """
    cfg = composed.copy()
    with as_user_errors():
        OmegaConf.resolve(cfg)
    machine = machine_for(cfg, machine)
    cfg.threads, cfg.trainer.precision = machine.threads, machine.precision
    cfg.compile = machine.compile
    check_counts(cfg)
    check_arguments(cfg)
    check_ranges(cfg)
    check_trainer(cfg)
    techniques_of(cfg)  # in their ranges
    check_loggers(cfg.logger)
    return cfg, machine


def check_budget(job: Job) -> None:
    """Refuse two budgets at once.

    Raises:
        UserError: `max_bytes` and `trainer.max_steps` are both given.
    """
    if any(parse_one(override).key_or_group == "trainer.max_steps" for override in job.overrides):
        raise UserError(
            f"max_bytes={job.config.max_bytes} decides trainer.max_steps: give one of them; "
            "max_bytes=null leaves the budget to trainer.max_steps"
        )


def steps_for(cfg: DictConfig, data: DataModule) -> int:
    """The number of steps that see about `max_bytes` bytes of text.

    Raises:
        UserError: the data are no text.
    """
    if data.has_answers:
        raise UserError(f"max_bytes={cfg.max_bytes} needs a text: a task has no bytes")
    windows = cfg.data.batch_size * cfg.trainer.accumulate_grad_batches
    per_step = windows * cfg.model.block_size * data.training_bytes_per_token
    return max(1, round(cfg.max_bytes / per_step))


def check_counts(cfg: DictConfig) -> None:
    """Refuse counts that are not whole numbers of at least one; other keys may follow them."""
    for key in AT_LEAST_ONE:
        value = OmegaConf.select(cfg, key)
        if key == "max_bytes" and value is None:
            continue
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise UserError(f"{key} must be a whole number of at least 1, got {value}")


def check_ranges(cfg: DictConfig) -> None:
    """Refuse too many layers, and seeds that no random generator takes."""
    layers = cfg.model.get("n_layers")
    if isinstance(layers, int) and layers > MOST_LAYERS:  # each takes time to build, also without memory
        raise UserError(f"model.n_layers must be at most {MOST_LAYERS:,}, got {layers}")
    if not 0 <= cfg.seed <= LARGEST_SEED:
        raise UserError(f"seed must lie between 0 and {LARGEST_SEED}, got {cfg.seed}")


def vocabulary(cfg: DictConfig, tokens: int) -> int:
    """The size of the vocabulary: the tokenizer's, or a larger one that is given.

    Raises:
        UserError: a smaller one is given.
    """
    if OmegaConf.is_missing(cfg.model, "vocab_size"):
        return tokens
    if cfg.model.vocab_size < tokens:
        raise UserError(f"model.vocab_size={cfg.model.vocab_size} is less than the tokenizer's {tokens}")
    return cfg.model.vocab_size


def build_module(cfg: DictConfig) -> LitGPT:
    """The LightningModule, tried out: its parts meet in a forward pass, its optimizer is made.

    Raises:
        UserError: the parts do not fit together, or a value is out of its range.
    """
    model = build_model(cfg)
    with as_user_errors():
        optimizer, checked = instantiate(cfg.optimizer), instantiate(cfg.schedule)
        # Hydra's partials check what they call every time, which takes a third of a millisecond.
        schedule = partial(checked.func, *checked.args, **checked.keywords)
        try:
            schedule(0)
            optimizer(model)
        except TypeError as error:  # a knob was taken away, as by ~schedule.final
            raise UserError(f"optimizer or schedule: {error}") from error
        state = torch.get_rng_state()
        with torch.no_grad():
            model.eval()(torch.zeros(1, 2, dtype=torch.long))
        model.train()
        torch.set_rng_state(state)
    model.activation_checkpointing = cfg.activation_checkpointing
    return LitGPT(model, optimizer, schedule, techniques_of(cfg))


def load_weights(folder: Path, cfg: DictConfig, model: GPT) -> None:
    """Give a new model the weights of a run, or of what was imported as one.

    Raises:
        UserError: no run there, or the architecture is not the same; names the key that differs.
    """
    source = load_run(folder)
    for key, before, after in differences(source.config, cfg, (*PARTS, "model")):
        if key == "model.block_size" and source.model.pos.max_length is None:
            continue  # there is no table of positions
        raise UserError(
            f"init_from keeps the architecture of {folder}: {key} is {before} there, not {after}"
        )
    model.load_state_dict(source.model.state_dict())
