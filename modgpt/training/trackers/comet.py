"""Comet: `logger=comet`."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from lightning.pytorch.loggers import CometLogger

from modgpt.training.trackers.tracking import TrackedRun


class CometTracker(CometLogger):
    """Parameters, metrics and files in Comet; a sweep is a tag.

    Args:
        run: what is tracked.
        project: that the run belongs to.
        workspace: null for your default one.
        offline: write an archive into the run's folder, for `comet upload` to send later.
        tags: short texts.
    """

    package = "comet_ml"

    def __init__(
        self,
        *,
        run: TrackedRun,
        project: str = "modgpt",
        workspace: str | None = None,
        offline: bool = False,
        tags: list[str] | None = None,
    ) -> None:
        logging.getLogger("comet_ml").setLevel(logging.WARNING)
        self.offline = offline
        self.labels = [*([run.group] if run.group else []), *(tags or ())]
        # One folder for each start: Comet names archives by random numbers, which the run has seeded.
        starts = len([*run.folder.glob("comet/*")])
        super().__init__(
            project=project,
            workspace=workspace,
            experiment_key=run.id,
            mode="get" if run.id and offline else "get_or_create",
            name=run.name,
            offline_directory=str(run.folder / "comet" / str(starts + 1)),
            parse_args=False,
            log_code=False,
            log_env_details=False,
        )

    def _create_experiment(self) -> None:
        """Nothing yet: `begin` does it, so that an error is met where it is told."""

    def begin(self) -> str:
        """The key of a new experiment, or of the one of an earlier start, which goes on."""
        self._online = not self.offline
        if self.offline:
            Path(str(self.save_dir)).mkdir(parents=True, exist_ok=True)
        super()._create_experiment()
        if self.labels:
            self.experiment.add_tags(self.labels)
        return self.experiment.get_key()

    def log_files(self, files: Sequence[Path]) -> None:
        """Keep files as assets."""
        for file in files:
            self.experiment.log_asset(str(file), file_name=file.name)

    def end(self, status: str) -> None:
        """End the experiment with the status of the record."""
        self.experiment.log_other("status", status)
        self.experiment.end()
