"""Going on with a run: where it stopped, and what may not change."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from modgpt.config.compose import PARTS
from modgpt.errors import UserError
from modgpt.model.gpt import GPT
from modgpt.runs.checkpoint import has_checkpoint, latest_checkpoint
from modgpt.runs.folder import load_run
from modgpt.runs.record import read_result
from modgpt.runs.session import Session
from modgpt.training.distributed import is_leader

log = logging.getLogger(__name__)

# What a resumed run may change of the model: it alters the training, not the weights' meaning.
CHANGEABLE = ("dropout", "init_std", "residual_std")


@dataclass
class Resumed:
    """Where an earlier start of the run left off."""

    folder: Path
    checkpoint: Path
    step: int
    result: dict[str, Any]


def find_resumed(cfg: DictConfig, session: Session) -> Resumed | None:
    """What `resume` names, which the session then owns; None where it names nothing.

    Raises:
        UserError: no run there, another process works on it, no checkpoint, or one that is already at
            the end of the budget.
    """
    if cfg.resume is None:
        return None
    folder = Path(cfg.resume)
    read_result(folder)  # a run, before anything is written there
    session.take(folder)
    result = read_result(folder)
    checkpoint, content = latest_checkpoint(folder)
    step = content["global_step"]
    if step > cfg.trainer.max_steps or (
        step == cfg.trainer.max_steps and result.get("status") == "finished"
    ):
        raise UserError(
            f"{folder} is already at step {step} of trainer.max_steps={cfg.trainer.max_steps}: "
            f"to go on, give a larger one, such as trainer.max_steps={2 * step}"
        )
    return Resumed(folder, checkpoint, step, result)


def find_started(folder: Path) -> Resumed | None:
    """What an earlier start left in a job's folder; None for a new beginning.

    What nothing can go on from is removed: the metrics of a start that was killed before its first
    checkpoint, checkpoints that are all damaged or have no readable record beside them.
    """
    if has_checkpoint(folder):
        try:
            checkpoint, content = latest_checkpoint(folder)
            return Resumed(folder, checkpoint, content["global_step"], read_result(folder))
        except UserError as error:
            log.warning(f"{error}; the job begins anew")
    if is_leader():
        left = ("metrics.csv", "events.out.tfevents.*", "checkpoints/*.ckpt")
        for file in (file for pattern in left for file in folder.glob(pattern)):
            file.unlink(missing_ok=True)
    return None


def begin_from(folder: Path, cfg: DictConfig, model: GPT) -> None:
    """Give a new model the weights of a run, or of what was imported as one.

    Raises:
        UserError: no run there, or the architecture is not the same; names the key that differs.
    """
    source = load_run(folder)
    for key, before, after in differences(source.config, cfg, (*PARTS, "model")):
        if key == "model.block_size" and not source.config.pos._target_.endswith("LearnedPosition"):
            continue  # there is no table of positions
        raise UserError(
            f"init_from keeps the architecture of {folder}: {key} is {before} there, not {after}"
        )
    model.load_state_dict(source.model.state_dict())


def check_resumable(cfg: DictConfig, resumed: Resumed, digest: str) -> None:
    """Refuse to load weights into another architecture, or to go on with another corpus.

    Raises:
        UserError: names the key that differs, with both values.
    """
    saved = OmegaConf.load(resumed.folder / "config.yaml")
    assert isinstance(saved, DictConfig)
    for key, before, after in differences(saved, cfg, (*PARTS, "model", "tokenizer")):
        raise UserError(
            f"a resumed run keeps its architecture: {key} was {before}, not {after}; start a new run "
            "for another one"
        )
    if resumed.result.get("corpus_sha256") not in (None, digest):
        raise UserError(
            f"a resumed run keeps its corpus: {resumed.folder} was trained on SHA-256 "
            f"{resumed.result['corpus_sha256']}, this one has {digest}"
        )


def differences(
    before: DictConfig, after: DictConfig, among: tuple[str, ...]
) -> Iterator[tuple[str, Any, Any]]:
    """The keys of some groups that differ and are not `CHANGEABLE`, with both values."""
    for group in among:
        old, new = flat(before[group], group), flat(after[group], group)
        for key in sorted(old.keys() | new.keys()):
            if old.get(key) != new.get(key) and key.split(".")[-1] not in CHANGEABLE:
                yield key, old.get(key), new.get(key)


def flat(node: Any, path: str) -> dict[str, Any]:
    """A nested configuration as dotted keys and plain values."""
    if not isinstance(node, DictConfig):
        return {path: node}
    return {k: v for key, value in node.items() for k, v in flat(value, f"{path}.{key}").items()}
