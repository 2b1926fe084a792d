"""To and from transformers: one converter, and a table for each architecture."""

from __future__ import annotations

import os
from importlib.util import find_spec

from modgpt.errors import UserError


def needed() -> None:
    """Make sure that transformers is there, and keep it from the network.

    Raises:
        UserError: it is not installed.
    """
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    if find_spec("transformers") is None:
        raise UserError("this needs transformers: pip install -e '.[hf]'")
