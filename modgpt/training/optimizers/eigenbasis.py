"""The eigenbases of SOAP: of the gradients' covariances over rows and over columns.

A pair stands for the two sides of a matrix (…, rows, columns). None is a side that keeps its own basis.
Leading dimensions are further matrices.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

Sides = Sequence[Tensor | None]


def covariances(gradient: Tensor, largest_side: int) -> list[Tensor | None]:
    """GGᵀ (…, rows, rows) and GᵀG (…, columns, columns); None for a side above `largest_side`."""
    rows, columns = gradient.shape[-2:]
    return [
        gradient @ gradient.mT if rows <= largest_side else None,
        gradient.mT @ gradient if columns <= largest_side else None,
    ]


def eigenvectors(covariance: Tensor | None) -> Tensor | None:
    """The eigenvectors of a covariance as columns, that of the largest eigenvalue first."""
    if covariance is None:
        return None
    # A gradient that is not finite must not stop the training here: its loss says what is wrong.
    finite = at_least_fp32(covariance).nan_to_num(0, 0, 0)
    return torch.linalg.eigh(finite).eigenvectors.flip(-1).to(covariance.dtype)


def power_iterated(running: Sides, bases: Sides, squares: Tensor) -> list[Tensor | None]:
    """The bases after one round of power iteration on the running covariances.

    Columns are first sorted by their current estimates of the eigenvalues, the largest first. `squares`,
    which has one number per pair of columns, is sorted with them, in place.
    """
    turned: list[Tensor | None] = []
    for covariance, basis, dim in zip(running, bases, (-2, -1), strict=True):
        if covariance is None or basis is None:
            turned.append(None)
            continue
        product = covariance @ basis
        order = (basis * product).sum(-2).argsort(dim=-1, descending=True)
        squares.copy_(squares.take_along_dim(order.unsqueeze(-3 - dim), dim))
        product = product.take_along_dim(order.unsqueeze(-2), -1)
        turned.append(torch.linalg.qr(at_least_fp32(product)).Q.to(basis.dtype))
    return turned


def rotated(x: Tensor, left: Tensor | None, right: Tensor | None) -> Tensor:
    """PᵀXQ."""
    x = x if left is None else left.mT @ x
    return x if right is None else x @ right


def rotated_back(x: Tensor, left: Tensor | None, right: Tensor | None) -> Tensor:
    """PXQᵀ."""
    x = x if left is None else left @ x
    return x if right is None else x @ right.mT


def at_least_fp32(x: Tensor) -> Tensor:
    """In fp32 or better: decompositions know no half precision."""
    return x.to(torch.promote_types(x.dtype, torch.float32))
