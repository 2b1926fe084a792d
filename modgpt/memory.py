"""How freed memory is kept on a CPU: for the next tensor, not given back to the system."""

from __future__ import annotations

import ctypes
import os

# Of glibc's malloc.h.
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
LARGEST = 2**31 - 1


def keep_freed_memory() -> bool:
    """Make malloc keep freed memory for the next request; whether that was possible (glibc).

    By default glibc gets every tensor of more than a few megabytes from the system and returns it when
    it is freed. The system fills each of its pages with zeros anew, which for activations that live for
    a moment takes longer than computing them: a fifth of a training step and more. Large tensors get
    large pages, unless that has been decided otherwise.
    """
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")  # read by PyTorch at its first tensor
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    return all([mallopt(option, LARGEST) == 1 for option in (M_TRIM_THRESHOLD, M_MMAP_THRESHOLD)])
