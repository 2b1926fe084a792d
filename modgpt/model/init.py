"""Initial weights: every parameter is drawn from a random generator of its own."""

from __future__ import annotations

import hashlib
from collections.abc import Callable

import torch
from torch import Tensor, nn


class Initializer:
    """Draws the initial values of a model's parameters.

    The generator of a parameter is seeded by (seed, name of the parameter). So two models with one seed
    share the initial values of all parameters of equal name and shape, whatever their other parts are:
    swapping a part changes that part alone. Values are drawn on the CPU in fp32, so that they are the
    same on every device and in every precision.

    Args:
        model: the module whose parameters are drawn; it gives their names.
        seed: of all generators.
        std: standard deviation of weights.
        residual_std: the same for projections that write into the residual stream; None for `std`.
    """

    def __init__(
        self, model: nn.Module, *, seed: int = 0, std: float = 0.02, residual_std: float | None = None
    ) -> None:
        self.names = {id(parameter): name for name, parameter in model.named_parameters()}
        self.seed, self.std = seed, std
        self.residual_std = std if residual_std is None else residual_std

    def normal(self, parameter: Tensor, *, residual: bool = False) -> None:
        """Fill with normal values of mean 0 and standard deviation `std`, or `residual_std`."""
        std = self.residual_std if residual else self.std
        self.fill(parameter, lambda values, generator: values.normal_(0, std, generator=generator))

    def uniform(self, parameter: Tensor, low: float, high: float) -> None:
        """Fill with values uniform between `low` and `high`."""
        self.fill(parameter, lambda values, generator: values.uniform_(low, high, generator=generator))

    def linear(self, linear: nn.Module, *, residual: bool = False) -> None:
        """Fill a linear layer: normal weights, a zero bias."""
        assert isinstance(linear.weight, Tensor)
        self.normal(linear.weight, residual=residual)
        if isinstance(linear.bias, Tensor):
            nn.init.zeros_(linear.bias)

    @torch.no_grad()
    def fill(self, parameter: Tensor, draw: Callable[[Tensor, torch.Generator], Tensor]) -> None:
        """Fill a parameter with what `draw` makes with the parameter's own generator."""
        if not parameter.is_meta:  # a shape without values
            values = torch.empty(parameter.shape, device="cpu", dtype=torch.float32)
            parameter.copy_(draw(values, self.generator(parameter)))

    def generator(self, parameter: Tensor) -> torch.Generator:
        """The random generator of one parameter."""
        key = f"{self.seed} {self.names[id(parameter)]}"
        digest = hashlib.blake2b(key.encode(), digest_size=4).digest()
        return torch.Generator().manual_seed(int.from_bytes(digest, "little"))
