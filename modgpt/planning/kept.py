"""Units of the sums: bytes of a number in each role, and bytes that are kept for the backward pass."""

from __future__ import annotations

from dataclasses import dataclass

from modgpt.errors import UserError


@dataclass(frozen=True)
class Kept:
    """Bytes kept from the forward pass for the backward pass; they add up.

    Attributes:
        token: for each token of the batch.
        once: whatever the number of windows, such as a table of positions.
    """

    token: float = 0.0
    once: float = 0.0

    def __add__(self, other: Kept) -> Kept:
        return Kept(self.token + other.token, self.once + other.once)

    def of(self, tokens: int) -> float:
        """Bytes for a batch of so many tokens."""
        return self.token * tokens + self.once


@dataclass(frozen=True)
class Widths:
    """Bytes of a number, by its role.

    Attributes:
        parameter: of a weight, its gradient and the residual stream.
        product: of what matrix products read and write.
    """

    parameter: int
    product: int

    @property
    def wide(self) -> int:
        """Of what is computed in fp32 at the least."""
        return max(4, self.parameter)

    @property
    def mixed(self) -> bool:
        """Whether products read copies in a narrower type than that of the weights."""
        return self.product != self.parameter


# By `trainer.precision`.
WIDTHS = {
    **dict.fromkeys(("32", "32-true"), Widths(4, 4)),
    **dict.fromkeys(("16", "bf16", "16-mixed", "bf16-mixed"), Widths(4, 2)),
    **dict.fromkeys(("16-true", "bf16-true"), Widths(2, 2)),
    **dict.fromkeys(("64", "64-true"), Widths(8, 8)),
}


def widths_of(precision: str) -> Widths:
    """The widths that `trainer.precision` comes to.

    Raises:
        UserError: no plan is made for that precision.
    """
    if precision not in WIDTHS:
        raise UserError(f"fit knows trainer.precision={', '.join(WIDTHS)}, not {precision}")
    return WIDTHS[precision]
