"""Trackio: `logger=trackio`. Lightning has no logger for it, so this is one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from lightning.fabric.utilities.rank_zero import rank_zero_only
from lightning.pytorch.loggers import Logger

from modgpt.training.trackers.tracking import TrackedRun


class TrackioTracker(Logger):
    """Config, metrics and one artifact with the run's files; a sweep is a group.

    Trackio knows a run by its project and its name.

    Args:
        run: what is tracked.
        project: that the run belongs to.
        space_id: a Space of Hugging Face; null for the database of this machine (TRACKIO_DIR).
        server_url: of a Trackio server, in place of a Space.
    """

    package = "trackio"

    def __init__(
        self,
        *,
        run: TrackedRun,
        project: str = "modgpt",
        space_id: str | None = None,
        server_url: str | None = None,
    ) -> None:
        super().__init__()
        self.run, self.project = run, project
        self.space_id, self.server_url = space_id, server_url
        self.experiment: Any = None  # Trackio's run, from the first parameters on

    @property
    def name(self) -> str:
        return self.project

    @property
    def version(self) -> str:
        return self.run.id or self.run.name

    def begin(self) -> str:
        """The name of the run; Trackio begins it with its parameters."""
        return self.version

    @rank_zero_only
    def log_hyperparams(self, params: dict[str, Any]) -> None:  # type: ignore[override]
        """Start a run, or go on with the one of an earlier start."""
        trackio: Any = import_module("trackio")  # not in every development environment

        self.experiment = trackio.init(
            self.project,
            name=self.version,
            group=self.run.group,
            space_id=self.space_id,
            server_url=self.server_url,
            config=params,
            resume="allow" if self.run.id else "never",
            embed=False,
            auto_log_cpu=False,
        )

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:  # type: ignore[override]
        """Log metrics at a step."""
        if self.experiment is not None:
            self.experiment.log(dict(metrics), step=step)

    def log_files(self, files: Sequence[Path]) -> None:
        """Keep files as one artifact of the type `model`."""
        trackio: Any = import_module("trackio")  # not in every development environment

        artifact = trackio.Artifact(f"run-{self.version}", type="model")
        for file in files:
            artifact.add_file(str(file))
        self.experiment.log_artifact(artifact, aliases=["best"])

    def end(self, status: str) -> None:
        """End the run with the status of the record."""
        trackio: Any = import_module("trackio")  # not in every development environment

        self.experiment.log({"status": status})
        trackio.finish()
