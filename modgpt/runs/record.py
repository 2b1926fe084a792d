"""`result.json`: what a run was, and what came of it. Written and read here alone."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from functools import cache
from math import isfinite
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError

from modgpt.errors import UserError
from modgpt.files import write_json
from modgpt.runs.window_losses import WindowLosses
from modgpt.text import visible

FORMAT = 2  # grows when the fields change in a way that a reader must know of
LARGEST_FILE = 10_000_000  # bytes; a record has 3,000

# running: a process works on it, or was killed. partial: ended well, but on part of the data or of the
# steps. interrupted: stopped by a signal, can be resumed. diverged: the loss is no longer finite.
# skipped: its parts do not fit together. imported: weights from elsewhere.
Status = Literal[
    "running", "finished", "partial", "interrupted", "failed", "diverged", "skipped", "imported"
]
STATUSES: tuple[str, ...] = get_args(Status)
Count = Annotated[int, Field(ge=0, lt=2**63)]


@dataclass(frozen=True)
class RunRecord:
    """All that `result.json` says. A value is null where it is not known, or not known yet.

    Losses are in nats per token. Times are local, with their offset.
    """

    __pydantic_config__ = ConfigDict(strict=True, extra="forbid", allow_inf_nan=True)

    status: Status  # one of STATUSES
    choices: dict[str, str]  # the option of every group
    overrides: list[str]  # the command line that leads to the same run
    seed: Count  # of initial weights, dropout and data order
    format: int = FORMAT  # of this record
    reason: str | None = None  # why it is not finished, or has stopped early
    # What came out.
    final_val_loss: float | None = None  # of the latest validation
    final_val_bits_per_byte: float | None = None  # of texts: the same loss, whatever the tokenizer
    final_val_accuracy: float | None = None  # of tasks with answers
    final_step: Count | None = None  # the step of the final loss
    final_val_windows: Count | None = None  # it is measured on: all, once the run has finished
    best_val_loss: float | None = None  # the lowest of all validations, on the windows that all read
    best_val_windows: Count | None = None  # how many those are
    best_step: Count | None = None  # the step of the best loss
    # The model.
    parameters: Count | None = None  # all trainable numbers; a shared matrix counts once
    active_parameters: Count | None = None  # that one token uses
    match: str = "none"  # the quantity that was made equal to the default parts'
    matched_hidden: Count | None = None  # the ffn.hidden that makes it so
    match_reference: float | None = None  # that quantity of the default parts
    flops_per_token: float | None = None  # forward, at length block_size; training takes three times it
    vocab_size: Count | None = None  # V
    # The data.
    corpus_sha256: str | None = None  # of the text, or of a task's definition
    tokens_per_character: float | None = None  # of the validation text; gives bits per character
    tokens_per_byte: float | None = None  # of the validation text; gives bits per byte of UTF-8
    tokens_seen: Count = 0  # tokens trained on, over all starts
    skipped_steps: Count | None = None  # by skip_spikes, over all starts; null without it
    # The machine.
    device: str | None = None  # what it ran on
    threads: Count | None = None  # CPU threads
    precision: str | None = None  # what trainer.precision came to
    compiled: bool | None = None  # whether the blocks were compiled
    attention_backend: str | None = None  # kernel of the first batch: flash, efficient, cudnn, math
    tokens_per_second: float | None = None  # of the last start, without validation and compiling
    wall_seconds: float = 0.0  # from start to end over all starts, without imports
    peak_memory_bytes: Count | None = None  # held at once: by tensors on CUDA, else by the process
    # How it came about.
    init_from: str | None = None  # the run whose weights it began with
    source: str | None = None  # of an imported model
    started_at: str | None = None  # of the first start
    finished_at: str | None = None  # of the last end
    resumed_at_steps: list[Count] = field(default_factory=list)  # the step of each resume
    versions: dict[str, str] = field(default_factory=dict)  # of Python and the main packages
    git_revision: str | None = None  # of the code; -dirty where files differ from it

    @property
    def finished(self) -> bool:
        """Whether it ended with a final loss that is a number."""
        loss = self.final_val_loss
        return self.status == "finished" and loss is not None and isfinite(loss)

    @property
    def failed(self) -> bool:
        """Whether it ended without a result, and will not go on unless it is asked to."""
        return self.status in ("failed", "diverged")


class RecordFile:
    """A run's record on disk, replaced atomically with every change.

    Args:
        folder: the run's.
        record: what is known at the beginning.
        write: keep the record without writing it, when False: of several processes one writes.
        check: called before each writing; raises if this process no longer owns the folder.
    """

    def __init__(
        self,
        folder: Path,
        record: RunRecord,
        write: bool = True,
        check: Callable[[], None] = lambda: None,
    ) -> None:
        self.folder, self.record, self.write, self.check = folder, record, write, check
        self.update()

    def update(self, **values: Any) -> None:
        """Set some fields and write all."""
        self.record = replace(self.record, **values)
        if self.write:
            self.check()
            write_record(self.folder, self.record)

    def keep(self, windows: WindowLosses) -> None:
        """Write the losses of the validation windows beside the record."""
        if self.write:
            self.check()
            windows.save(self.folder)


def write_record(folder: Path, record: RunRecord) -> None:
    """Replace the `result.json` of a folder."""
    write_json(folder / "result.json", asdict(record))


def read_record(folder: Path) -> RunRecord:
    """The record of a run.

    Raises:
        UserError: the folder is not one of a run, or the record has other fields or values than ours.
    """
    path = folder / "result.json"
    shown = visible(path)  # somebody else may have chosen the names
    try:
        with path.open("rb") as file:
            raw = file.read(LARGEST_FILE + 1)
    except OSError as error:
        reason = "is not the folder of a run: no readable result.json"
        raise UserError(f"{visible(folder)} {reason}") from error
    if len(raw) > LARGEST_FILE:
        raise UserError(f"{shown} is not a record of modgpt: it is larger than {LARGEST_FILE:,} bytes")
    try:
        values = json.loads(raw)
        if isinstance(values, dict) and values.get("format") != FORMAT:
            raise UserError(
                f"{shown} has format {visible(values.get('format'))[:20]}, and this version reads "
                f"format {FORMAT}: train the run again"
            )
        return _reader().validate_json(raw)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the file"
        raise UserError(f"{shown} is damaged: {visible(where)[:80]}: {first['msg']}") from error
    except UserError:
        raise
    except (ValueError, RecursionError) as error:
        raise UserError(f"{shown} is damaged: it is not JSON") from error


@cache
def _reader() -> TypeAdapter[RunRecord]:
    return TypeAdapter(RunRecord)


def status_of(folder: Path) -> str | None:
    """The status in a folder's record; None where there is none, `unreadable` where it is damaged."""
    try:
        return read_record(folder).status
    except UserError:
        return "unreadable" if (folder / "result.json").exists() else None
