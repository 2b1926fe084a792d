"""MLflow: `logger=mlflow`."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lightning.fabric.utilities.rank_zero import rank_zero_only
from lightning.pytorch.loggers import MLFlowLogger

from modgpt.training.trackers.tracking import TrackedRun

log = logging.getLogger(__name__)

DATABASE = "sqlite:///outputs/mlflow.db"
STATUS = {"finished": "FINISHED", "partial": "FINISHED", "interrupted": "KILLED"}


class MLflowTracker(MLFlowLogger):
    """Parameters, metrics and artifacts in an MLflow store; a sweep is an experiment.

    Args:
        run: what is tracked.
        tracking_uri: of the store; null for MLFLOW_TRACKING_URI, or else a SQLite file.
        experiment_name: null for the sweep's name, or else `modgpt`.
        tags: name and value.
    """

    package = "mlflow"

    def __init__(
        self,
        *,
        run: TrackedRun,
        tracking_uri: str | None = None,
        experiment_name: str | None = None,
        tags: dict[str, Any] | None = None,
    ) -> None:
        uri = tracking_uri or os.environ.get("MLFLOW_TRACKING_URI") or DATABASE
        experiment = experiment_name or run.group or "modgpt"
        logging.getLogger("mlflow").setLevel(logging.WARNING)
        logging.getLogger("alembic").setLevel(logging.WARNING)
        artifacts = None
        if uri.startswith("sqlite:///"):  # artifacts beside the database, not in the working directory
            home = Path(uri.removeprefix("sqlite:///")).absolute().parent
            home.mkdir(parents=True, exist_ok=True)
            artifacts = (home / "mlflow-artifacts" / experiment).as_uri()
        super().__init__(
            experiment_name=experiment,
            run_name=run.name,
            tracking_uri=uri,
            tags={**({"sweep": run.group} if run.group else {}), **(tags or {})},
            run_id=run.id,
            artifact_location=artifacts,
        )

    def begin(self) -> str | None:
        """The id of a new run, or of the run of an earlier start, which goes on."""
        from mlflow.exceptions import MlflowException

        if self._run_id is not None:
            try:
                self._mlflow_client.update_run(self._run_id, status="RUNNING")
            except MlflowException as error:
                if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                    raise
                log.warning(f"{self._tracking_uri} has no MLflow run {self._run_id}: a new one begins")
                self._run_id = None
        try:
            _ = self.experiment
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
            _ = self.experiment  # another job of the sweep has made the experiment meanwhile
        return self.run_id

    @rank_zero_only
    def log_hyperparams(self, params: dict[str, Any]) -> None:  # type: ignore[override]
        """Log parameters; MLflow's are fixed, so what a resumed run has changed becomes a tag."""
        before = self.experiment.get_run(self.run_id).data.params
        super().log_hyperparams({key: value for key, value in params.items() if key not in before})
        for key, value in params.items():
            if key in before and before[key] != str(value)[:250]:
                self.experiment.set_tag(self.run_id, key, str(value))

    def log_files(self, files: Sequence[Path]) -> None:
        """Keep files as artifacts."""
        for file in files:
            self.experiment.log_artifact(self.run_id, str(file))

    def finalize(self, status: str = "success") -> None:
        """Nothing: `end` ends the run, once its record is complete."""

    def end(self, status: str) -> None:
        """End the run with the status of the record."""
        self.experiment.set_tag(self.run_id, "status", status)
        self.experiment.set_terminated(self.run_id, STATUS.get(status, "FAILED"))
