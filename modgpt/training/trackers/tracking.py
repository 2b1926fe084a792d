"""What trackers are told of a run, from its beginning to its end; their errors do not end a training."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import wraps
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from hydra.utils import get_object, instantiate
from lightning.pytorch.loggers import Logger
from omegaconf import DictConfig

from modgpt.config.check import parameters
from modgpt.errors import UserError
from modgpt.files import write_json
from modgpt.runs.record import RunRecord
from modgpt.training.distributed import is_leader
from modgpt.training.trainer import errors_of

log = logging.getLogger(__name__)

IDS = "trackers.json"  # in the run's folder: the tracker's own id of the run, for each logger
ID = re.compile(r"[\w.-]{1,200}", re.ASCII)
FILES = ("checkpoints/best.ckpt", "config.yaml", "tokenizer.json", "result.json", "sample.txt")
METHODS = ("log_metrics", "log_hyperparams", "log_graph", "save", "finalize", "after_save_checkpoint")
OURS = ("begin", "log_files", "end")


@dataclass(frozen=True)
class TrackedRun:
    """What a tracker is told of a run when it begins.

    Attributes:
        name: of the run's folder.
        group: the sweep's name; None for a run that belongs to no sweep.
        folder: the run's.
        id: the tracker's own id of this run, from an earlier start; None for a new run.
    """

    name: str
    group: str | None
    folder: Path
    id: str | None = None


def check_loggers(nodes: DictConfig) -> None:
    """Refuse trackers whose package is not installed.

    Raises:
        UserError: names the package and the command that installs it.
    """
    for name, node in nodes.items():
        if node is None:
            continue
        cls = get_object(node["_target_"])
        package = getattr(cls, "package", None)
        if package is not None and find_spec(package) is None:
            extra = cls.__module__.rpartition(".")[2]
            raise UserError(
                f"logger.{name} needs the package {package}: install with pip install -e '.[{extra}]', "
                "or choose another logger"
            )


def build_tracker(name: str, node: DictConfig, folder: Path) -> Logger | None:
    """A guarded logger of Lightning; None where it cannot start.

    It gets the run's folder as `save_dir` if it takes one and none is given, and `run` if it takes that.

    Raises:
        UserError: it refuses its arguments, or its package is not installed.
    """
    cls = get_object(node["_target_"])
    taken, _ = parameters(cls)
    sweep = folder.parent if (folder.parent / "sweep.json").exists() else None
    run = TrackedRun(folder.name, sweep.name if sweep else None, folder, known_ids(folder).get(name))
    offered = {"run": run} if "run" in taken else {"save_dir": str(folder)}
    given = {key: value for key, value in offered.items() if key in taken and node.get(key) is None}
    try:
        with errors_of(f"logger.{name}"):
            logger = instantiate(node, _partial_=True)(**given)
        if is_leader() and not hasattr(logger, "begin"):
            getattr(logger, "experiment", None)  # Lightning would ask for it outside of our guard
    except UserError:
        raise
    except TypeError as error:
        raise UserError(f"logger.{name}: {error}") from error
    except Exception as error:
        told(name, error)
        return None
    guard(logger, name)
    return logger


def guard(logger: Logger, name: str) -> None:
    """Let the errors of a logger not end the training: the first one is told, and it is switched off."""
    failed = False

    def guarded(method: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(method)
        def call(*args: Any, **kwargs: Any) -> Any:
            nonlocal failed
            if failed:
                return None
            try:
                return method(*args, **kwargs)
            except Exception as error:
                failed = True
                told(name, error)

        return call

    for method in (*METHODS, *OURS):
        if hasattr(logger, method):
            setattr(logger, method, guarded(getattr(logger, method)))


def told(name: str, error: Exception) -> None:
    """Tell in one line that a tracker has failed."""
    message = " ".join(str(error).split())[:200]
    log.warning(
        f"logger.{name} failed and is switched off; the training goes on: "
        f"{type(error).__name__}: {message}"
    )


def begin_trackers(
    loggers: Mapping[str, Logger], folder: Path, parameters: dict[str, Any]
) -> list[Logger]:
    """The loggers of which none has failed, once each tracker has begun its run or goes on with it.

    The trackers' ids of the run are kept in its folder.

    Args:
        loggers: by name.
        folder: the run's.
        parameters: plain values to compare runs by.
    """
    ids, left = known_ids(folder), []
    for name, logger in loggers.items():
        if hasattr(logger, "begin") and is_leader():
            known = logger.begin()  # type: ignore[attr-defined]
            if known is None:  # an error, which has been told
                continue
            ids[name] = known
            logger.log_hyperparams(parameters)
        left.append(logger)
    if ids and is_leader():
        write_json(folder / IDS, ids)
    return left


def end_trackers(loggers: Sequence[Logger], folder: Path, record: RunRecord) -> None:
    """End the run of each tracker: its final losses, its files if the training is done, its status."""
    if not is_leader():
        return
    done = record.status in ("finished", "partial")
    files = [folder / file for file in FILES if (folder / file).exists()] if done else []
    names = ("final_val_loss", "best_val_loss")
    losses = {name: value for name in names if (value := getattr(record, name)) is not None}
    for logger in loggers:
        if not hasattr(logger, "end"):
            continue
        if done and losses:
            logger.log_metrics(losses, record.final_step)
        if files:
            logger.log_files(files)  # type: ignore[attr-defined]
        logger.end(record.status)  # type: ignore[attr-defined]


def known_ids(folder: Path) -> dict[str, str]:
    """The trackers' ids of a run; none where the file is missing or damaged."""
    try:
        found = json.loads((folder / IDS).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    if not isinstance(found, dict):
        return {}
    return {str(k): v for k, v in found.items() if isinstance(v, str) and ID.fullmatch(v)}
