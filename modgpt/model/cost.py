"""What a component costs, as it declares it itself."""

from __future__ import annotations

from dataclasses import dataclass, fields

from torch import nn


@dataclass(frozen=True)
class Cost:
    """The cost of one component; costs add up.

    FLOPs count the multiplications and additions of matrix products (a product of (m,k) and (k,n)
    is 2·m·k·n), for one forward pass, per token, averaged over a sequence of T tokens. Only what the
    definition requires is counted: a causal query at position t meets t+1 keys, not T. Training costs
    three times the forward pass, one for it and two for the backward pass.

    Attributes:
        parameters: all trainable numbers.
        active_parameters: those one token meets (a mixture of experts uses a few of its experts).
        flops: forward FLOPs per token at length T.
        state: numbers kept per sequence to decode token T+1 (cache or recurrent state).
    """

    parameters: int = 0
    active_parameters: int = 0
    flops: float = 0.0
    state: int = 0

    def __add__(self, other: Cost) -> Cost:
        return Cost(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(self)))


def count_parameters(module: nn.Module) -> int:
    """The number of trainable parameters of `module`, shared ones counted once."""
    return sum(p.numel() for p in module.parameters() if p.requires_grad)


def cost_of(module: nn.Module, length: int) -> Cost:
    """The declared cost of `module` at sequence length `length`.

    A module without a `cost` method (a norm, an Identity) has no matrix product: its parameters are
    its whole cost.
    """
    declared = getattr(module, "cost", None)
    if declared is not None:
        return declared(length)
    n = count_parameters(module)
    return Cost(parameters=n, active_parameters=n)
