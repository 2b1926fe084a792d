"""The memory that a training needs at the least, against what there is."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from contextlib import contextmanager

import psutil
import torch
from omegaconf import DictConfig

from modgpt.errors import TrainingError, UserError
from modgpt.model.cost import Cost
from modgpt.training.hardware import has_cuda

GB = 1e9
# Numbers kept per parameter: the weight, its gradient, and one moment of the optimizer; AdamW has two.
PER_PARAMETER = 3
MESSAGES = ("can't allocate memory", "not enough memory", "Cannot allocate memory")


def check_memory(cfg: DictConfig, cost: Cost) -> None:
    """Refuse a training that cannot fit, before any memory is taken.

    The need is a lower bound. What fits by it may still run out of memory.

    Args:
        cfg: the complete configuration.
        cost: of its model.

    Raises:
        UserError: with both figures.
    """
    there = memory(cfg)
    width = 2 if "true" in cfg.trainer.precision and "16" in cfg.trainer.precision else 4
    states = PER_PARAMETER * width * cost.parameters
    if states > there:
        raise UserError(
            f"a model of {cost.parameters:,} parameters needs at least {states / GB:,.1f} GB to train, "
            f"and there are {there / GB:,.1f} GB: lower model.d_model, model.n_layers or ffn.hidden"
        )
    tokens = cfg.data.batch_size * cfg.model.block_size
    # Of each token the logits, and the input of each block, in two bytes at the least.
    activations = 2 * tokens * (cfg.model.vocab_size + cfg.model.d_model * cfg.model.n_layers)
    if str(cfg.trainer.get("devices", 1)) == "1" and states + activations > there:
        raise UserError(
            f"a batch of {tokens:,} tokens (data.batch_size={cfg.data.batch_size}) needs at least "
            f"{activations / GB:,.1f} GB, and there are {(there - states) / GB:,.1f} GB beside the "
            "model: lower data.batch_size or model.block_size"
        )


def memory(cfg: DictConfig) -> float:
    """Bytes of the device that trains, or that this process may have."""
    if has_cuda(cfg.trainer.get("accelerator", "auto")):
        return torch.cuda.get_device_properties(0).total_memory
    limits = [resource.getrlimit(kind)[0] for kind in (resource.RLIMIT_AS, resource.RLIMIT_DATA)]
    return min([psutil.virtual_memory().total, *(n for n in limits if n != resource.RLIM_INFINITY)])


def is_out_of_memory(error: BaseException | None) -> bool:
    """Whether an error says that memory has run out. PyTorch has no class for that of the CPU."""
    if isinstance(error, RuntimeError) and any(message in str(error) for message in MESSAGES):
        return True
    return isinstance(error, MemoryError | torch.OutOfMemoryError)


@contextmanager
def out_of_memory_told(batch_size: int) -> Iterator[None]:
    """Turn the end of the host's memory into a `TrainingError`; not that of a device."""
    try:
        yield
    except Exception as error:
        if isinstance(error, torch.OutOfMemoryError) or not is_out_of_memory(error):
            raise
        reason = str(error).strip().split("\n")[0][-160:]
        raise TrainingError(
            f"out of memory: {reason}; a smaller data.batch_size than {batch_size} needs less"
        ) from error
