"""The command lines with ordinary flags."""

from __future__ import annotations

import argparse
from typing import NoReturn


class Parser(argparse.ArgumentParser):
    """argparse, with its errors in one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"error: {message}\n")


def add_trust(parser: argparse.ArgumentParser) -> None:
    """Give a command that loads runs the flag `--trust`, for `modgpt.config.trust.trust_package`."""
    parser.add_argument("--trust", action="append", default=[], metavar="PACKAGE",
                        help="let a run name classes of this package of yours")  # fmt: skip


def add_device(parser: argparse.ArgumentParser) -> None:
    """Give a command that runs models the flag `--device`, for `modgpt.inference.device.pick_device`."""
    parser.add_argument(
        "--device", default="auto", help="cpu, cuda, mps (default: the fastest there is)"
    )
