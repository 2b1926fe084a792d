"""From a configuration to a model."""

from __future__ import annotations

from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from modgpt.config.keys import PARTS
from modgpt.errors import UserError, as_user_errors
from modgpt.model.gpt import GPT


def build_model(cfg: DictConfig, vocab_size: int | None = None) -> GPT:
    """The model that a configuration describes, with fresh weights.

    Args:
        cfg: composed (`modgpt.compose`), or read from the `config.yaml` of a run.
        vocab_size: V; None for `model.vocab_size`, which a run's `config.yaml` has.

    Raises:
        UserError: the parts do not fit together, or there is no vocabulary size.
    """
    if vocab_size is None:
        if OmegaConf.is_missing(cfg.model, "vocab_size"):
            raise UserError("the size of the vocabulary is not known: give vocab_size")
        vocab_size = cfg.model.vocab_size
    with as_user_errors():
        parts = {part: instantiate(cfg[part]) for part in PARTS}
        return instantiate(cfg.model, **parts, vocab_size=vocab_size)
