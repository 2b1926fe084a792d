"""Import from and export to transformers: one converter, and a table for each architecture."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from logging import CRITICAL

from modgpt.errors import UserError


def require_transformers() -> None:
    """Check that transformers is installed; keep it off the network.

    Raises:
        UserError: it is not installed.
    """
    if find_spec("transformers") is None:
        raise UserError("this needs transformers: pip install -e '.[hf]'")
    os.environ["HF_HUB_OFFLINE"] = "1"


@contextmanager
def silenced() -> Iterator[None]:
    """Keep transformers from printing progress bars and warnings: our one line says what is wrong."""
    from transformers.utils import logging

    level = logging.get_verbosity()
    logging.set_verbosity(CRITICAL)
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        logging.enable_progress_bar()
