"""One unit for all losses: nats per token, or per byte of text where the tokenizers differ."""

from __future__ import annotations

from dataclasses import replace

import pandas as pd

from modgpt.compare.columns import FINISHED, LOSS
from modgpt.compare.curves import Curves, Points

PER_TOKEN, PER_BYTE = "nats per token", "nats per byte"
LOSSES = (LOSS, "best_val_loss", "latest_loss")


def unit_of(table: pd.DataFrame) -> str:
    """The unit in which the losses of these runs compare.

    A token of one tokenizer holds more text than a token of another. So losses per token compare between
    runs of one tokenizer only, and losses per byte between all. A task has no bytes.
    """
    per_byte = table.loc[table["status"] == FINISHED, "tokens_per_byte"]
    return PER_BYTE if per_byte.nunique() > 1 and per_byte.notna().all() else PER_TOKEN


def in_unit(table: pd.DataFrame, unit: str) -> pd.DataFrame:
    """The table with its losses in this unit; they are in nats per token before."""
    if unit == PER_TOKEN:
        return table
    losses = {name: table[name].astype("float64") * table["tokens_per_byte"] for name in LOSSES}
    return table.assign(**losses)


def curves_in_unit(curves: Curves, tokens_per_byte: float, unit: str) -> Curves:
    """The curves of a run with its losses in this unit."""
    if unit == PER_TOKEN:
        return curves

    def scaled(points: Points) -> Points:
        return [(step, loss * tokens_per_byte) for step, loss in points]

    return replace(curves, val=scaled(curves.val), train=scaled(curves.train))
