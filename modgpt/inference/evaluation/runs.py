"""The runs of an evaluation, and the text that they were trained on."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from hydra.utils import instantiate

from modgpt.data.datamodule import CorpusDataModule
from modgpt.data.token_ids import Encoded
from modgpt.errors import UserError, as_user_errors
from modgpt.runs.folder import Run
from modgpt.runs.record import read_record

RESUMABLE = ("running", "interrupted", "failed")
FINISHED = ("finished", "partial")  # partial: finished, but validated on a part of the text


def finished_folders(folders: Sequence[Path]) -> list[Path]:
    """The folders of finished runs, each once; the others are skipped with a line on stderr each.

    Several folders often come from a pattern such as `outputs/sweeps/NAME/*`, which also matches runs
    that still train and files beside them.

    Raises:
        UserError: a folder does not exist, or none of them holds a finished run.
    """
    finished, skipped = [], []
    for folder in {f.resolve(): f for f in folders}.values():
        if not folder.exists():
            raise UserError(f"{folder} is not the folder of a run: it does not exist")
        reason = why_unfinished(folder)
        if reason is None:
            finished.append(folder)
        else:
            skipped.append(reason)
    if not finished:
        raise UserError(skipped[0] if len(skipped) == 1 else f"no finished run: {'; '.join(skipped)}")
    for reason in skipped:
        print(f"skipped: {reason}", file=sys.stderr)
    return finished


def why_unfinished(folder: Path) -> str | None:
    """Why a folder holds no finished run, in one line; None where it holds one."""
    try:
        status = read_record(folder).status
    except UserError as error:
        return str(error)
    if status in FINISHED:
        return None
    if status == "imported":
        return f"{folder} was not trained on a text: it was imported"
    advice = f": go on with modgpt train resume={folder}" if status in RESUMABLE else ""
    return f"{folder} is not finished (status {status}){advice}"


def shared_part(runs: Sequence[Run], part: str) -> Encoded:
    """A part of the corpus that all the runs were trained on, as tokens.

    Args:
        runs: the runs.
        part: `validation`, or `test` where the corpus has one.

    Raises:
        UserError: a run was not trained on a text, they were trained on different ones, or the text is
            missing, has changed, or has no such part.
    """
    digests = [str(run.record and run.record.corpus_sha256) for run in runs]
    for run, digest in zip(runs, digests, strict=True):
        if digest != digests[0]:
            raise UserError(
                f"{runs[0].path} and {run.path} were trained on different texts, SHA-256 "
                f"{digests[0][:12]}… and {digest[:12]}…: their losses do not compare"
            )
    config, tokenizer = runs[0].config, runs[0].tokenizer
    tokenizer.allow_lossy = bool(config.tokenizer.get("allow_lossy"))
    with as_user_errors():
        data = instantiate(config.data, tokenizer=lambda *texts: tokenizer)
        if not isinstance(data, CorpusDataModule):
            raise UserError(f"{runs[0].path} was not trained on a text: only a text can be cut again")
        data.load()
    if data.digest != digests[0]:
        raise UserError(
            f"{runs[0].path} was trained on another text than there is now: SHA-256 {digests[0][:12]}…, "
            f"not {data.digest[:12]}…"
        )
    check_tokenizers(runs, data)
    if part not in data.parts:
        raise UserError(
            f"{runs[0].path} was trained on a corpus without a {part} part: it has "
            f"{', '.join(data.parts)}; data=shakespeare_complete has one"
        )
    return data.parts[part]


def check_tokenizers(runs: Sequence[Run], data: CorpusDataModule) -> None:
    """Refuse runs with different tokenizers: their losses are per other tokens.

    Raises:
        UserError: a run has another tokenizer.
    """
    for run in runs:
        if run.tokenizer.to_dict() != data.tokenizer.to_dict():
            raise UserError(
                f"{run.path} has another tokenizer than {runs[0].path}: losses per token do not compare"
            )
