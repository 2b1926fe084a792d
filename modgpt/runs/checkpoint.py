"""Checkpoints: written atomically, read without executing anything."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO

from modgpt.errors import UserError
from modgpt.runs.files import replaced


class AtomicCheckpointIO(TorchCheckpointIO):
    """Lightning's checkpoint reading and writing, written beside and renamed, read as plain data."""

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None
    ) -> None:
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        with replaced(path) as beside:
            torch.save(checkpoint, beside)

    def load_checkpoint(
        self, path: Any, map_location: Any = None, weights_only: bool | None = None
    ) -> dict[str, Any]:
        return read_checkpoint(Path(path))


def read_checkpoint(path: Path) -> dict[str, Any]:
    """The content of a checkpoint: tensors and plain types, on the CPU.

    Raises:
        UserError: no such file, not a checkpoint of this product, or one that holds anything else than
            tensors and plain types and so could execute code.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise UserError(f"no such checkpoint: {path}") from None
    except pickle.UnpicklingError as error:
        reason = str(error).split("\n")[0]
        raise UserError(
            f"refused {path}: a checkpoint holds tensors and plain types only ({reason})"
        ) from error
    except Exception as error:  # a file of another kind can break the reader in any way
        raise UserError(f"{path} is no readable checkpoint ({type(error).__name__})") from error
    if not isinstance(content, dict) or "modgpt" not in content or "state_dict" not in content:
        raise UserError(f"{path} is not a checkpoint of modgpt")
    return content


def model_weights(checkpoint: dict[str, Any]) -> dict[str, torch.Tensor]:
    """The GPT's own state dict in a checkpoint."""
    prefix = "model."
    state = checkpoint["state_dict"]
    return {name.removeprefix(prefix): w for name, w in state.items() if name.startswith(prefix)}
