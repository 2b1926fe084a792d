"""Weights & Biases: `logger=wandb`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from secrets import token_hex
from typing import Any

from lightning.pytorch.loggers import WandbLogger

from modgpt.training.trackers.tracking import TrackedRun


class WandbTracker(WandbLogger):
    """Config, metrics and one artifact with the run's files; a sweep is a group.

    Args:
        run: what is tracked.
        project: that the run belongs to.
        entity: team or user; null for your default one.
        offline: write files into the run's folder, for `wandb sync` to send later.
        tags: short texts.
        more: further arguments of `wandb.init`.
    """

    package = "wandb"

    def __init__(
        self,
        *,
        run: TrackedRun,
        project: str = "modgpt",
        entity: str | None = None,
        offline: bool = False,
        tags: list[str] | None = None,
        **more: Any,
    ) -> None:
        import wandb

        super().__init__(
            name=run.name,
            save_dir=str(run.folder),
            id=run.id or token_hex(8),
            project=project,
            offline=offline,
            **{
                "entity": entity,
                "group": run.group,
                "tags": list(tags or ()),
                "settings": wandb.Settings(console="off", quiet=True),
                **more,
            },
        )
        self._wandb_init.pop("anonymous", None)  # Lightning's default, which wandb warns of

    def begin(self) -> str:
        """The id of a new run, or of the run of an earlier start, which goes on."""
        return self.experiment.id

    def log_files(self, files: Sequence[Path]) -> None:
        """Keep files as one artifact of the type `model`."""
        import wandb

        artifact = wandb.Artifact(f"run-{self.experiment.id}", type="model")
        for file in files:
            artifact.add_file(str(file))
        self.experiment.log_artifact(artifact, aliases=["best"])

    def end(self, status: str) -> None:
        """End the run with the status of the record."""
        self.experiment.summary["status"] = status
        self.experiment.finish(exit_code=0 if status in ("finished", "partial") else 1)
