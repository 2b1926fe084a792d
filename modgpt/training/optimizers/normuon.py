"""NorMuon, Muon with updates of equal size for every neuron: `optimizer=normuon`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from modgpt.training.optimizers.adam import make_adamw
from modgpt.training.optimizers.checks import check_betas, check_not_negative
from modgpt.training.optimizers.orthogonal import Muon, Place
from modgpt.training.optimizers.orthogonalization import Orthogonalization
from modgpt.training.optimizers.stepping import Together
from modgpt.training.optimizers.weights import block_matrices

EPS = 1e-10


def normuon(
    model: nn.Module,
    *,
    lr: float,
    weight_decay: float,
    momentum: float,
    neuron_beta: float,
    adamw_lr: float,
    beta1: float,
    beta2: float,
    orthogonalization: Orthogonalization,
) -> Optimizer:
    """NorMuon for the matrices of the blocks, AdamW for everything else: see `muon`.

    Args:
        model: the GPT.
        lr, momentum, neuron_beta, orthogonalization: of NorMuon.
        weight_decay: of both, on matrices only.
        adamw_lr, beta1, beta2: of AdamW.

    Raises:
        ValueError: a rate or weight_decay is negative, momentum or a beta is not in [0, 1), or an
            unknown orthogonalization.
    """
    check_not_negative(lr=lr, adamw_lr=adamw_lr, weight_decay=weight_decay)
    check_betas(momentum=momentum, neuron_beta=neuron_beta)
    matrices, others, fused = block_matrices(model)
    hidden = NorMuon(
        matrices,
        fused,
        lr=lr,
        weight_decay=weight_decay,
        momentum=momentum,
        orthogonalization=orthogonalization,
        neuron_beta=neuron_beta,
    )
    return Together([hidden, make_adamw(others, adamw_lr, weight_decay, beta1, beta2)])


class NorMuon(Muon):
    """NorMuon (Li et al. 2025, "NorMuon: Making Muon more efficient and scalable").

    The rows of an orthogonalised update, one for each neuron, still differ in size. NorMuon divides each
    by a running root of its mean square. With U of `Muon` and β = neuron_beta, for each matrix:

        v ← βv + (1 − β) mean over columns of U²        one number per row
        N = U / (√v + ε)
        W ← (1 − ηλ)W − η √max(1, rows/columns) N ‖U‖/‖N‖

    The last factor gives N the norm of U, as in the authors' code, so that Muon's rates fit. The paper
    scales to a mean square of 0.2² instead.

    Args:
        weights, fused: as of `Muon`.
        neuron_beta: β.
        muon: the other arguments of `Muon`.
    """

    def __init__(
        self,
        weights: Iterable[nn.Parameter],
        fused: Mapping[nn.Parameter, Sequence[int]],
        *,
        neuron_beta: float,
        **muon: Any,
    ) -> None:
        super().__init__(weights, fused, **muon)
        self.neuron_beta = neuron_beta

    def directions(self, updates: Tensor, places: Sequence[Place]) -> Tensor:
        directions = super().directions(updates, places).float()
        squares = [self.row_squares(weight)[n] for weight, n in places]
        for running, new in zip(squares, directions.square().mean(-1, keepdim=True), strict=True):
            running.lerp_(new.to(running.dtype), 1 - self.neuron_beta)
        normed = directions / (torch.stack(squares).float().sqrt() + EPS)
        norms = [x.norm(dim=(-2, -1), keepdim=True) for x in (directions, normed)]
        return normed * (norms[0] / (norms[1] + EPS))

    def row_squares(self, weight: nn.Parameter) -> list[Tensor]:
        """v of each matrix in a weight, as views of (rows, 1)."""
        state = self.state[weight]
        if "row_squares" not in state:
            state["row_squares"] = torch.zeros_like(weight[..., :1])
        return self.matrices(weight, state["row_squares"])
