"""Lightning's loggers, writing directly into a run's folder and going on where a run is resumed."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from lightning.pytorch.loggers.csv_logs import ExperimentWriter

from modgpt.files import replaced


class RunTensorBoardLogger(TensorBoardLogger):
    """Event files in the run's folder itself, so that TensorBoard names the run by its folder.

    Args:
        save_dir: the run's folder.
        resume_step: steps done when the run is resumed; what was logged later is hidden.
    """

    def __init__(self, *, save_dir: str, resume_step: int | None = None) -> None:
        purge = None if resume_step is None else resume_step + 1
        super().__init__(save_dir, name="", version="", default_hp_metric=False, purge_step=purge)

    def save(self) -> None:
        """Flush; the run has a `config.yaml` of its own, so no `hparams.yaml` is written."""
        self.experiment.flush()


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
        if resume_step is not None:
            drop_rows_after(Path(save_dir) / ExperimentWriter.NAME_METRICS_FILE, resume_step)

    @property
    def experiment(self) -> Any:
        if self._experiment is None:
            self._experiment = _AppendingWriter(log_dir=self.log_dir)
        return self._experiment

    def log_hyperparams(self, params: Any = None) -> None:
        """Nothing: the run has a `config.yaml` of its own."""

    def save(self) -> None:
        self.experiment.save()


def drop_rows_after(path: Path, step: int) -> None:
    """Drop the rows of a metrics file whose step is larger than `step`, in one atomic replacement."""
    if not path.exists():
        return
    with path.open(newline="") as file:
        reader = csv.DictReader(file)
        header, rows = reader.fieldnames or [], list(reader)
    with replaced(path) as beside, beside.open("w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=header)
        writer.writeheader()
        writer.writerows(row for row in rows if int(row["step"] or 0) <= step)
