"""Which weights an optimizer treats how: matrices and vectors, and the matrices of the blocks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import nn


def dimensions(model: nn.Module) -> dict[nn.Parameter, int]:
    """Each parameter with its number of dimensions: 2 for a matrix, 1 for a vector.

    The experts of a mixture are stacked along a leading dimension, which does not count: their biases
    are vectors. Such a module has `stacked = True`.
    """
    return {
        p: p.dim() - bool(getattr(module, "stacked", False))
        for module in model.modules()
        for p in module.parameters(recurse=False)
    }


def decay_groups(parameters: dict[nn.Parameter, int], weight_decay: float) -> list[dict[str, Any]]:
    """Two parameter groups: what has two or more dimensions decays, vectors and scalars do not.

    Shrinking biases and gains of norms regularises nothing and works against the norms.
    """
    return [
        {"params": [p for p, n in parameters.items() if n >= 2], "weight_decay": weight_decay},
        {"params": [p for p, n in parameters.items() if n < 2], "weight_decay": 0.0},
    ]


def block_matrices(
    model: nn.Module,
) -> tuple[list[nn.Parameter], dict[nn.Parameter, int], dict[nn.Parameter, Sequence[int]]]:
    """The matrices of the blocks, all other parameters, and the rows of fused projections.

    Args:
        model: the GPT. A module that computes several projections in one product names the rows of each
            in its attribute `fused`.

    Returns:
        The matrices: (rows, columns), or (E, rows, columns) for stacked experts. Every other parameter
        with its number of dimensions. The rows of each projection, for the weights that hold several.
    """
    blocks, everything = model.get_submodule("blocks"), dimensions(model)
    matrices = [p for p in blocks.parameters() if everything[p] == 2]
    among = set(matrices)
    others = {p: n for p, n in everything.items() if p not in among}
    fused = {
        module.get_parameter(name): rows
        for module in blocks.modules()
        for name, rows in getattr(module, "fused", {}).items()
    }
    return matrices, others, fused
