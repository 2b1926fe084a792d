"""`validation.npz`: the loss of every window of a complete validation, which block bootstraps need.

step      the step of the validation, equal to `final_step` of the record
nats      float32 (windows,), the sum of the losses of a window's targets
targets   int32 (windows,), how many targets it has

Windows are in the order of the text, or of a task's validation sequences.
"""

from __future__ import annotations

import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from modgpt.errors import UserError
from modgpt.files import replaced

FILE_NAME = "validation.npz"
LARGEST = 400_000_000  # bytes of one array, for 100 million windows


@dataclass(frozen=True)
class WindowLosses:
    """The losses of one validation, window by window.

    Attributes:
        step: of the training.
        nats: (windows,), summed over the targets of each window.
        targets: (windows,), the number of these targets.
    """

    step: int
    nats: np.ndarray
    targets: np.ndarray

    @property
    def mean(self) -> float:
        """Nats per target: the validation loss."""
        return float(self.nats.sum(dtype=np.float64) / self.targets.sum())

    def save(self, folder: Path) -> None:
        """Replace the file in a run's folder."""
        with replaced(folder / FILE_NAME) as beside, beside.open("wb") as file:
            np.savez_compressed(
                file,
                step=np.int64(self.step),
                nats=self.nats.astype(np.float32),
                targets=self.targets.astype(np.int32),
            )


def read_window_losses(folder: Path) -> WindowLosses | None:
    """The losses of a run's latest validation; None where the run has no such file.

    Raises:
        UserError: the file is damaged, or not one of ours.
    """
    path = folder / FILE_NAME
    if not path.exists():
        return None
    if not path.is_file():
        raise UserError(f"{path} is not a file")
    try:
        with zipfile.ZipFile(path) as archive:
            if max((member.file_size for member in archive.infolist()), default=0) > LARGEST:
                raise UserError(f"{path} is damaged: an array is larger than {LARGEST:,} bytes")
        with np.load(path, allow_pickle=False) as arrays:
            step, nats, targets = arrays["step"], arrays["nats"], arrays["targets"]
    except UserError:
        raise
    except Exception as error:  # zipfile, zlib and NumPy have many kinds
        raise UserError(f"{path} is damaged: {type(error).__name__}") from error
    kinds = (step.dtype, nats.dtype, targets.dtype) == (np.int64, np.float32, np.int32)
    if not (kinds and step.shape == () and nats.ndim == 1 and nats.shape == targets.shape and len(nats)):
        raise UserError(f"{path} is damaged: its arrays are not those of a validation")
    if not (np.isfinite(nats).all() and (nats >= 0).all() and (targets >= 0).all() and targets.any()):
        raise UserError(f"{path} is damaged: a value is negative or not a number")
    return WindowLosses(int(step), nats, targets)
