"""Measure the validation loss of runs by the length of the window, and by the position in it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import log, nan
from pathlib import Path

import torch
from lightning.fabric import Fabric
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor

from modgpt.console import redraws
from modgpt.data.corpus import VALIDATION
from modgpt.errors import UserError
from modgpt.inference.device import pick_device
from modgpt.inference.evaluation.names import names_of, names_without_seed
from modgpt.inference.evaluation.runs import shared_part
from modgpt.inference.evaluation.windows import cut, loss_by_position
from modgpt.runs.folder import Run, load_run
from modgpt.training.loop import quiet_lightning


@dataclass(frozen=True)
class Evaluation:
    """The loss of one run in windows of one length.

    Attributes:
        run: the run's name.
        alike: the name it shares with the runs that differ from it in their seed alone.
        trained_length: the `block_size` it was trained with.
        length: L, tokens that a window reads.
        stride: tokens from one window to the next; L where they do not overlap.
        sums: (L,) fp64, the losses of all targets at each position, in nats. A target at position p (at
            index p−1) has p tokens of its window before it. None where the model cannot read L tokens.
        counts: (L,), the number of these targets.
        tokens_per_byte: of the text.
    """

    run: str
    alike: str
    trained_length: int
    length: int
    stride: int
    sums: Tensor | None
    counts: Tensor | None
    tokens_per_byte: float = 1.0

    @property
    def applicable(self) -> bool:
        """Whether the model can read L tokens."""
        return self.sums is not None

    @property
    def targets(self) -> int:
        """The number of targets that were counted: all of the split, or none."""
        return 0 if self.counts is None else int(self.counts.sum())

    @property
    def loss(self) -> float:
        """Mean over all targets, in nats; NaN where the model cannot read L tokens."""
        return nan if self.sums is None else float(self.sums.sum()) / self.targets

    @property
    def bits_per_byte(self) -> float:
        """The loss in bits per byte of text, which compares tokenizers."""
        return self.loss / log(2) * self.tokens_per_byte

    def by_position(self) -> list[tuple[int, int, float]]:
        """(position, targets, mean loss) of every position that has targets."""
        if self.sums is None or self.counts is None:
            return []
        rows = zip(self.sums.tolist(), self.counts.tolist(), strict=True)
        return [(p, n, total / n) for p, (total, n) in enumerate(rows, 1) if n]


def evaluate_runs(
    folders: Sequence[Path],
    lengths: Sequence[int],
    *,
    part: str = VALIDATION,
    sliding: bool = False,
    stride: int | None = None,
    device: str = "auto",
    console: Console | None = None,
) -> list[Evaluation]:
    """The exact loss of every run at every length, by position, on a part of the corpus.

    It is that of the weights after the last step, in the precision they were trained in. On the
    validation part, at the trained length, without sliding, it equals the run's `final_val_loss`.

    Args:
        folders: of runs that were trained on the same text; one that is named twice counts once.
        lengths: L, in any order.
        part: of the corpus: `validation`, or `test` where there is one.
        sliding: let windows overlap by half their length, or as `stride` says.
        stride: tokens from one window to the next, from 1 to L; it makes the windows slide.
        device: see `pick_device`.
        console: where the progress is shown; None for the standard output.

    Returns:
        One evaluation per run and length: runs in the order given, lengths ascending.

    Raises:
        UserError: no such run, runs of different texts or of none, a length or stride out of its
            range, no such device.
    """
    quiet_lightning()
    lengths = sorted(set(lengths))
    if lengths[0] < 1:
        raise UserError(f"a length must be at least 1, got {lengths[0]}")
    if stride is not None and not 1 <= stride <= lengths[0]:
        raise UserError(
            f"the stride must lie between 1 and the shortest length, {lengths[0]}, got {stride}"
        )
    chosen = pick_device(device)
    runs = [load_run(folder, "last") for folder in {f.resolve(): f for f in folders}.values()]
    names = names_of(runs)
    alike = names_without_seed(runs, names)
    encoded = shared_part(runs, part)
    ids = encoded.ids
    if lengths[-1] >= len(ids):
        raise UserError(f"length {lengths[-1]} is longer than the {part} part of {len(ids) - 1} targets")
    per_byte = encoded.counts.tokens / encoded.counts.bytes
    done = []
    with progress(console or Console()) as bar:
        for run, name, shared in zip(runs, names, alike, strict=True):
            fabric = make_fabric(run, chosen)
            model = fabric.setup_module(run.model)
            for length in lengths:
                step = stride or (max(1, length // 2) if sliding else length)
                measured = None
                if run.model.pos.max_length is None or length <= run.model.pos.max_length:
                    batches = cut(ids, length, step)
                    watched = bar.track(batches, description=f"{name}, length {length}")
                    measured = loss_by_position(model, watched, length, fabric.device)
                sums, counts = measured or (None, None)
                trained = run.model.block_size
                done.append(Evaluation(name, shared, trained, length, step, sums, counts, per_byte))
    return done


def make_fabric(run: Run, device: torch.device) -> Fabric:
    """A Fabric that moves a model to a device and runs it in the precision it was trained in."""
    devices = 1 if device.index is None else [device.index]
    return Fabric(accelerator=device.type, devices=devices, precision=run.config.trainer.precision)


def progress(console: Console) -> Progress:
    """A progress bar for every run and length, removed at the end."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    return Progress(*columns, console=console, disable=not redraws(console), transient=True)
