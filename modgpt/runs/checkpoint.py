"""Checkpoints: written whole or not at all, with a digest, and read without executing anything.

A checkpoint is the archive of `torch.save`, then `DIGEST`, then the archive's SHA-256 in hexadecimal.
`torch.load` reads such a file as if the end were not there.
"""

from __future__ import annotations

import hashlib
import logging
import os
from pathlib import Path
from typing import Any, BinaryIO

import torch

from modgpt.errors import UserError
from modgpt.runs.plain_load import load_plain

DIGEST = b"modgpt sha256 "
DIGEST_BYTES = len(DIGEST) + 64
# What a run can go on from, the latest first.
RESUMABLE = ("last", "previous", "best")

log = logging.getLogger(__name__)


class DamagedError(UserError):
    """The bytes of a checkpoint are not those that were written."""


def write_checkpoint(content: dict[str, Any], path: Path) -> None:
    """Write a checkpoint with its digest.

    Raises:
        OSError: it could not be written.
    """
    with path.open("wb") as file:
        hashed = HashedFile(file)
        torch.save(content, hashed)  # pyright: ignore[reportArgumentType]
        if hashed.error is not None:
            raise hashed.error
        file.write(DIGEST + hashed.sha256.hexdigest().encode())


class HashedFile:
    """A file for `torch.save` to write to, which computes the digest of what is written.

    Attributes:
        error: what the first failed write raised. Torch would hide it in a message of its own.
    """

    def __init__(self, file: BinaryIO) -> None:
        self.file = file
        self.sha256 = hashlib.sha256()
        self.error: OSError | None = None

    def write(self, data: Any) -> int:
        data = memoryview(data).cast("B")
        if self.error is None:
            self.sha256.update(data)
            try:
                self.file.write(data)
            except OSError as error:
                self.error = error
        return len(data)

    def flush(self) -> None:
        pass


def check_digest(path: Path) -> None:
    """Compare a checkpoint's bytes with the digest at its end.

    Raises:
        DamagedError: they differ, or there is no digest.
        OSError: the file cannot be read.
    """
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size - DIGEST_BYTES
        sha256 = hashlib.sha256()
        while file.tell() < size:
            sha256.update(file.read(min(2**20, size - file.tell())))
        end = file.read()
    if size < 0 or not end.startswith(DIGEST):
        raise DamagedError(
            f"refused {path}: it does not end with a digest, so it is cut off, damaged, or not a "
            "checkpoint of modgpt"
        )
    if end[len(DIGEST) :] != sha256.hexdigest().encode():
        raise DamagedError(f"refused {path}: it is damaged (its SHA-256 is not the one at its end)")


def read_checkpoint(path: Path) -> dict[str, Any]:
    """The content of a checkpoint: tensors and plain types, on the CPU.

    Raises:
        UserError: no such file, a damaged one, not a checkpoint of this product, or one that holds
            anything else than tensors and plain types and so could execute code.
    """
    try:
        if not path.is_file():
            raise UserError(f"no such checkpoint: {path}")
        check_digest(path)
    except UserError:
        raise
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from error
    content = load_plain(path)
    check_content(content, path)
    return content


def check_content(content: Any, path: Path) -> None:
    """Make sure that a checkpoint has the entries that this product reads, of the right types.

    Raises:
        UserError: names the first entry that is wrong.
    """
    expected = {"modgpt": dict, "state_dict": dict, "global_step": int}
    if not isinstance(content, dict) or not content.keys() >= expected.keys():
        raise UserError(f"{path} is not a checkpoint of modgpt")
    inside = content["modgpt"]
    values = {name: (content[name], kind) for name, kind in expected.items()}
    if isinstance(inside, dict):
        values |= {name: (inside.get(name), dict) for name in ("config", "tokenizer")}
    for name, (value, kind) in values.items():
        if not isinstance(value, kind) or isinstance(value, bool):
            raise UserError(
                f"{path}: {name} must be of type {kind.__name__}, not {type(value).__name__}"
            )
    if content["global_step"] < 0:
        raise UserError(f"{path}: global_step must not be negative, got {content['global_step']}")
    for name, weight in content["state_dict"].items():
        if not isinstance(name, str) or not isinstance(weight, torch.Tensor):
            raise UserError(f"{path}: state_dict[{name!r}] is not a tensor")


def latest_checkpoint(folder: Path) -> tuple[Path, dict[str, Any]]:
    """The newest checkpoint of a run that is whole, and its content.

    A damaged one is passed over, which a line tells.

    Raises:
        UserError: the run has none, or it holds something else than a checkpoint.
    """
    refused: list[str] = []
    for name in RESUMABLE:
        path = folder / "checkpoints" / f"{name}.ckpt"
        if (name != "last" and not refused) or not path.exists():
            continue
        try:
            content = read_checkpoint(path)
        except DamagedError as error:
            refused.append(str(error))
            continue
        if refused:
            step = content["global_step"]
            log.warning(f"{refused[0]}; going on from {path.name} at step {step}")
        return path, content
    reason = refused[0] if refused else f"{folder / 'checkpoints' / 'last.ckpt'} is missing"
    raise UserError(f"{folder} has no checkpoint to go on from ({reason})")


def has_checkpoint(folder: Path) -> bool:
    """Whether a run has saved something to go on from."""
    return (folder / "checkpoints" / "last.ckpt").exists()


def model_weights(checkpoint: dict[str, Any]) -> dict[str, torch.Tensor]:
    """The GPT's own state dict in a checkpoint."""
    prefix = "model."
    state = checkpoint["state_dict"]
    return {name.removeprefix(prefix): w for name, w in state.items() if name.startswith(prefix)}


def load_weights(model: torch.nn.Module, checkpoint: dict[str, Any], path: Path) -> None:
    """Give a model the weights of a checkpoint.

    Raises:
        UserError: they are those of another model.
    """
    try:
        model.load_state_dict(model_weights(checkpoint))
    except RuntimeError as error:
        reason = " ".join(str(error).split("\n")[1:2]).strip() or str(error)
        raise UserError(f"{path} holds the weights of another model: {reason}") from error
