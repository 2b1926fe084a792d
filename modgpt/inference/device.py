"""The device that a model runs on."""

from __future__ import annotations

import torch

from modgpt.errors import UserError


def pick_device(name: str) -> torch.device:
    """The device of that name; `auto` for CUDA or MPS where there is one, otherwise the CPU.

    Raises:
        UserError: this machine has no such device.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.mps.is_available() else "cpu"
    try:
        device = torch.device(name)
        if device.type == "cpu" and device.index is not None:
            raise ValueError("there is one cpu, without a number")
        torch.zeros(1, device=device).item()  # `meta` holds no numbers
    except (RuntimeError, AssertionError, NotImplementedError, ValueError) as error:
        raise UserError(
            f"no device {name!r} here ({str(error).splitlines()[0]}): cpu always works"
        ) from error
    return device
