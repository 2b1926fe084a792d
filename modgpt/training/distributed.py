"""Training on several devices: one process each, the first of which starts the others.

Lightning starts the script again for every further device, with the command line of the first. Inside a
sweep that line would be the whole sweep; so it is replaced by the job's own.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from lightning.fabric.utilities.rank_zero import rank_zero_only

import modgpt
from modgpt.config.compose import Job
from modgpt.config.overrides import assignment
from modgpt.training.hardware import Machine


def is_leader() -> bool:
    """Whether this process writes the run's files: the only one, or the first of several."""
    return getattr(rank_zero_only, "rank", 0) == 0


def tell_followers(job: Job, machine: Machine, folder: Path) -> None:
    """Set the command line that Lightning hands to the processes of the other devices.

    Args:
        job: as composed.
        machine: threads, precision and compiling, decided here for all.
        folder: the run's.
    """
    sys.argv = [
        str(Path(modgpt.__file__).parent / "commands" / "train.py"),
        *job.overrides,
        assignment("job_folder", folder),
        f"threads={machine.threads}",
        f"trainer.precision={machine.precision}",
        f"compile={machine.compile}",
        "hydra.mode=RUN",
    ]
    # Lightning would start `python -m modgpt` as that module again, with the arguments of the script.
    sys.modules["__main__"].__spec__ = None
    # Lightning would divide the cores anew, and other threads are other sums.
    os.environ["OMP_NUM_THREADS"] = str(machine.threads)
