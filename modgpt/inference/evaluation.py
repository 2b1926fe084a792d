"""What context buys: validation loss by the length of the window, and by the position in it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from math import nan
from pathlib import Path

import torch
import torch.nn.functional as F
from hydra.utils import instantiate
from lightning.fabric import Fabric
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor

from modgpt.data.batch import inputs_and_targets
from modgpt.data.datamodule import CorpusDataModule
from modgpt.errors import UserError, as_user_errors
from modgpt.inference.evaluation_names import names_of, names_without_seed
from modgpt.inference.generation import pick_device
from modgpt.runs.folder import Run, load_run
from modgpt.training.loop import quiet_lightning

# A batch holds no more tokens than this, and no more scores per head: its memory has a bound at every L.
MOST_TOKENS, MOST_SCORES = 2**14, 2**24


@dataclass(frozen=True)
class Evaluation:
    """The loss of one run in windows of one length.

    Attributes:
        run: the run's name.
        alike: what it is called together with the runs that differ from it in their seed alone.
        trained_length: the `block_size` it was trained with.
        length: L, tokens that a window reads.
        stride: tokens from one window to the next; L where they do not overlap.
        sums: (L,) fp64, the losses of all targets at each position, in nats. Position p (in index p−1)
            is that of a target with p tokens of its window before it. None where the model cannot read
            L tokens.
        counts: (L,), the number of these targets.
    """

    run: str
    alike: str
    trained_length: int
    length: int
    stride: int
    sums: Tensor | None
    counts: Tensor | None

    @property
    def applicable(self) -> bool:
        """Whether the model can read so many tokens."""
        return self.sums is not None

    @property
    def targets(self) -> int:
        """How many targets were counted: all of the split, or none."""
        return 0 if self.counts is None else int(self.counts.sum())

    @property
    def loss(self) -> float:
        """Mean over all targets, in nats; NaN where it does not apply."""
        return nan if self.sums is None else float(self.sums.sum()) / self.targets

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
    sliding: bool = False,
    stride: int | None = None,
    device: str = "auto",
    console: Console | None = None,
) -> list[Evaluation]:
    """The exact validation loss of every run at every length, by position.

    Measured are the weights after the last step, in the precision they were trained in: at the trained
    length, without sliding, the loss is the run's `final_val_loss`.

    Args:
        folders: of runs that were trained on the same text; one that is named twice counts once.
        lengths: L, in any order.
        sliding: let windows overlap by half their length, or as `stride` says.
        stride: tokens from one window to the next, from 1 to L; it makes the windows slide.
        device: see `modgpt.inference.generation.pick_device`.
        console: where the progress is shown; None for the standard output.

    Returns:
        One per run and length, runs in the order given, lengths ascending.

    Raises:
        UserError: no such run, one of another text or of none, a length or stride out of its range.
        ValueError: no such device.
    """
    quiet_lightning()
    lengths = sorted(set(lengths))
    if lengths[0] < 1:
        raise UserError(f"a length must be at least 1, got {lengths[0]}")
    if stride is not None and not 1 <= stride <= lengths[0]:
        raise UserError(
            f"the stride must lie between 1 and the shortest length, {lengths[0]}, got {stride}"
        )
    fabric_of = partial(make_fabric, device=pick_device(device))
    runs = [load_run(folder, "last") for folder in {f.resolve(): f for f in folders}.values()]
    names = names_of(runs)
    alike = names_without_seed(runs, names)
    tokens = shared_split(runs)
    if lengths[-1] >= len(tokens):
        raise UserError(
            f"length {lengths[-1]} is longer than the validation split of {len(tokens) - 1} targets"
        )
    done = []
    with progress(console or Console()) as bar:
        for run, name, shared in zip(runs, names, alike, strict=True):
            fabric = fabric_of(run)
            model = fabric.setup_module(run.model)
            for length in lengths:
                step = stride or (max(1, length // 2) if sliding else length)
                measured = None
                if run.model.pos.max_length is None or length <= run.model.pos.max_length:
                    batches = cut(tokens.to(fabric.device), length, step)
                    watched = bar.track(batches, description=f"{name}, length {length}")
                    measured = loss_by_position(model, watched, length)
                sums, counts = measured or (None, None)
                done.append(Evaluation(name, shared, run.model.block_size, length, step, sums, counts))
    return done


def cut(tokens: Tensor, length: int, stride: int) -> list[tuple[Tensor, int]]:
    """Batches of windows in which each of the N−1 targets is new exactly once.

    A window starts every `stride` tokens. In the first all targets are new; in the others the last
    `stride` of them are, for the window before has counted those up to there. What is left at the end is
    a shorter window.

    Args:
        tokens: (N,) ids, N > length.
        length: L.
        stride: tokens from one window to the next, 1 … L.

    Returns:
        Pairs of windows (b,L+1), which share the tokens' memory, and the number of targets at their
        beginning that are not new.
    """
    windows = tokens.unfold(0, length + 1, stride)
    known, end = (
        length - stride,
        (len(windows) - 1) * stride + length,
    )  # the last target in a full window
    size = max(1, min(MOST_TOKENS // length, MOST_SCORES // length**2))
    batches = [(windows[:1], 0), *((batch, known) for batch in windows[1:].split(size) if len(batch))]
    if end < len(tokens) - 1:
        batches.append((tokens[len(windows) * stride :][None], known))
    return batches


@torch.inference_mode()
def loss_by_position(
    model: Callable[[Tensor], Tensor], batches: Iterable[tuple[Tensor, int]], length: int
) -> tuple[Tensor, Tensor]:
    """Sum of the losses of all new targets at each position, and how many there are: (L,) each.

    Args:
        model: tokens (b,T) -> logits (b,T,V).
        batches: as `cut` gives them.
        length: L.
    """
    sums, counts = torch.zeros(length, dtype=torch.float64), torch.zeros(length, dtype=torch.int64)
    for windows, known in batches:
        inputs, targets = inputs_and_targets(windows)
        logits = model(inputs).float()
        losses = F.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="none")
        new = losses.view(targets.shape)[:, known:].cpu().double()  # not every device has fp64
        sums[known : targets.shape[1]] += new.sum(0)
        counts[known : targets.shape[1]] += len(new)
    return sums, counts


def shared_split(runs: Sequence[Run]) -> Tensor:
    """The validation tokens of the text that all the runs were trained on.

    Raises:
        UserError: a run was not trained on a text, they were trained on different ones, or the text is
            not what it was.
    """
    digests = [run.record.corpus_sha256 for run in runs if run.record]
    for run, digest in zip(runs, digests, strict=True):
        if digest != digests[0]:
            raise UserError(
                f"{runs[0].path} and {run.path} were trained on different texts, SHA-256 "
                f"{digests[0][:12]}… and {digest[:12]}…: their losses do not compare"
            )
    config = runs[0].config
    with as_user_errors():
        data = instantiate(config.data, tokenizer=instantiate(config.tokenizer))
        if not isinstance(data, CorpusDataModule):
            raise UserError(f"{runs[0].path} was not trained on a text, which could be cut anew")
        data.load()
    if data.digest != digests[0]:
        raise UserError(
            f"{runs[0].path} was trained on another text than there is now: SHA-256 {digests[0][:12]}…, "
            f"not {data.digest[:12]}…"
        )
    return data.val_tokens


def make_fabric(run: Run, device: torch.device) -> Fabric:
    """What moves a model to a device and runs it in the precision it was trained in."""
    devices = 1 if device.index is None else [device.index]
    return Fabric(accelerator=device.type, devices=devices, precision=run.config.trainer.precision)


def progress(console: Console) -> Progress:
    """A bar for every run and length, gone at the end."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    return Progress(*columns, console=console, disable=not console.is_terminal, transient=True)
