"""Loggers: Lightning's own, which write into the run's folder and continue where a run is resumed; and
any other of Lightning's interface.
"""

from __future__ import annotations

import csv
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hydra.utils import get_object, instantiate
from lightning.fabric.utilities.rank_zero import rank_zero_only
from lightning.pytorch.loggers import CSVLogger, Logger, TensorBoardLogger
from lightning.pytorch.loggers.csv_logs import ExperimentWriter
from omegaconf import DictConfig
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData  # type: ignore[attr-defined]
from torch.utils.tensorboard.summary import hparams

from modgpt.config.keys import PARTS, command_keys
from modgpt.config.search import groups
from modgpt.files import replaced
from modgpt.training.trackers.tracking import build_tracker
from modgpt.training.trainer import errors_of

log = logging.getLogger(__name__)

NAMED_BY = {*PARTS, "seed"} - {"block"}


def build_loggers(nodes: DictConfig, folder: Path, resume_step: int | None) -> dict[str, Logger]:
    """The loggers of the group, by name; null switches one off.

    Those below write the run's own files, and their errors end the training. All others are trackers.

    Args:
        nodes: by name, each with a `_target_`.
        folder: the run's.
        resume_step: steps done when the run is resumed.

    Raises:
        UserError: a logger refuses its arguments, or its package is not installed.
    """
    loggers: dict[str, Logger] = {}
    for name, node in nodes.items():
        if node is None:
            continue
        if get_object(node["_target_"]) in (RunTensorBoardLogger, RunCSVLogger):
            with errors_of(f"logger.{name}"):
                loggers[str(name)] = instantiate(node, save_dir=str(folder), resume_step=resume_step)
        elif (tracker := build_tracker(str(name), node, folder)) is not None:
            loggers[str(name)] = tracker
    return loggers


class RunTensorBoardLogger(TensorBoardLogger):
    """Event files in the run's folder itself, so that TensorBoard names the run by its folder.

    TensorBoard sorts its plots by their names. `tag_of` gives names that put the losses first.

    Args:
        save_dir: the run's folder.
        resume_step: steps done when the run is resumed; what was logged later is hidden.
    """

    def __init__(self, *, save_dir: str, resume_step: int | None = None) -> None:
        purge = None if resume_step is None else resume_step + 1
        super().__init__(save_dir, name="", version="", default_hp_metric=False, purge_step=purge)

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Log metrics under TensorBoard's names for them."""
        super().log_metrics({tag_of(name): value for name, value in metrics.items()}, step)

    @rank_zero_only
    def log_hyperparams(
        self, params: dict[str, Any], metrics: dict[str, float] | None = None, step: int | None = None
    ) -> None:
        """A row of the HParams page, and its columns, which TensorBoard takes from any one run for all.

        So each run declares every group, also one it has no choice in. TensorBoard shows five columns
        until asked for more, first those that are said to differ: what runs are named by.
        """
        if not metrics:
            return
        self.log_metrics(metrics, step)
        everything = dict.fromkeys(set(groups()).difference(command_keys()), "") | params
        columns, _, _ = hparams(everything, metrics)
        _, start, end = hparams(params, metrics)
        plugin = columns.value[0].metadata.plugin_data
        content = HParamsPluginData.FromString(plugin.content)
        for info in content.experiment.hparam_infos:
            info.differs = info.name in NAMED_BY
        plugin.content = content.SerializeToString()
        writer = self.experiment._get_file_writer()
        for summary in (columns, start, end):
            writer.add_summary(summary, step)

    def save(self) -> None:
        """Flush; the run has a `config.yaml` of its own, so no `hparams.yaml` is written."""
        self.experiment.flush()


def tag_of(metric: str) -> str:
    """The name of a metric in TensorBoard: losses in the group `loss`, auxiliary metrics in `train`.

    `val/loss` -> `loss/val`; `expert_load/0` -> `train/expert_load/0`. Both losses stand side by side,
    above all other curves but the final losses of HParams.
    """
    group, _, name = metric.partition("/")
    if name == "loss" and group in ("train", "val"):
        return f"loss/{group}"
    return metric if not name or group in ("train", "val", "hp") else f"train/{metric}"


class _AppendingWriter(ExperimentWriter):
    """Lightning's writer, which would delete the metrics of an earlier start."""

    def _check_log_dir_exists(self) -> None:
        path = Path(self.metrics_file_path)
        if path.exists():
            with path.open(newline="") as file:
                self.metrics_keys = csv.DictReader(file).fieldnames or []  # type: ignore[assignment]


class RunCSVLogger(CSVLogger):
    """`metrics.csv` in the run's folder.

    Args:
        save_dir: the run's folder.
        resume_step: steps done when the run is resumed; rows logged later are dropped.
    """

    def __init__(self, *, save_dir: str, resume_step: int | None = None) -> None:
        # Each row is written at once, so that a killed run keeps its metrics.
        super().__init__(save_dir, name="", version="", flush_logs_every_n_steps=1)
        self.validated: set[tuple[int, float]] = set()  # steps, and windows of the validation
        path = Path(save_dir) / ExperimentWriter.NAME_METRICS_FILE
        if resume_step is not None and path.exists():
            kept = drop_rows_after(path, resume_step)
            self.validated = {
                (int(row["step"]), float(windows)) for row in kept if (windows := row.get("val/windows"))
            }

    @rank_zero_only
    def log_metrics(self, metrics: dict[str, Any], step: int | None = None) -> None:  # type: ignore[override]
        """Write a row; not a second one for a validation that a killed start had logged already."""
        if (step, metrics.get("val/windows")) not in self.validated:
            super().log_metrics(metrics, step)

    @property
    def experiment(self) -> Any:
        if self._experiment is None:
            self._experiment = _AppendingWriter(log_dir=self.log_dir)
        return self._experiment

    def log_hyperparams(self, params: Any = None) -> None:
        """Nothing: the run has a `config.yaml` of its own."""

    def save(self) -> None:
        self.experiment.save()


def drop_rows_after(path: Path, step: int) -> list[dict[str, str]]:
    """Drop the rows of a metrics file whose step is larger than `step`, in one atomic replacement.

    Damaged rows are dropped too, which a line tells: the run goes on without them.

    Returns:
        The rows that stay.
    """
    header: list[str] = []
    rows: list[dict[str, str]] = []
    damaged = False
    with path.open(newline="", errors="replace") as file:
        try:
            reader = csv.DictReader(file)
            header = list(reader.fieldnames or [])
            for row in reader:
                if not row["step"].isdecimal() or None in row.values() or None in row:
                    damaged = True
                elif int(row["step"]) <= step:
                    rows.append(row)
        except (csv.Error, KeyError, AttributeError, ValueError):
            damaged = True
    if damaged:
        log.warning(f"{path} is damaged: the rows that cannot be read are left out")
    if "step" not in header:
        path.unlink()
        return []
    with replaced(path) as beside, beside.open("w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=header)
        writer.writeheader()
        writer.writerows(rows)
    return rows
