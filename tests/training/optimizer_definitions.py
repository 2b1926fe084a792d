"""Every optimizer by the algorithm in its paper, for one matrix or vector: slow, and written out.

Each function takes a weight, its gradients and rates (one per step), its weight decay and the knobs of
its YAML, and returns the weight after the last step.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache

import torch
from torch import Tensor

EPS = 1e-8


def adamw(
    w: Tensor, gradients: Sequence[Tensor], rates: Sequence[float], decay: float,
    *, beta1: float, beta2: float, cautious: bool = False,
) -> Tensor:  # fmt: skip
    """Loshchilov & Hutter 2019, algorithm 2; cautious: Chen et al. 2025, algorithm 1."""
    m = v = torch.zeros_like(w)
    for t, (g, lr) in enumerate(zip(gradients, rates, strict=True), 1):
        m = beta1 * m + (1 - beta1) * g
        v = beta2 * v + (1 - beta2) * g**2
        u = (m / (1 - beta1**t)) / ((v / (1 - beta2**t)).sqrt() + EPS)
        mask = torch.where(u * w >= 0, 1.0, 0.0) if cautious else torch.ones_like(w)
        w = w - lr * (u + decay * mask * w)
    return w


def lion(
    w: Tensor, gradients: Sequence[Tensor], rates: Sequence[float], decay: float,
    *, beta1: float, beta2: float,
) -> Tensor:  # fmt: skip
    """Chen et al. 2023, algorithm 2."""
    m = torch.zeros_like(w)
    for g, lr in zip(gradients, rates, strict=True):
        c = beta1 * m + (1 - beta1) * g
        w = w - lr * (torch.sign(c) + decay * w)
        m = beta2 * m + (1 - beta2) * g
    return w


def ademamix(
    w: Tensor, gradients: Sequence[Tensor], rates: Sequence[float], decay: float,
    *, beta1: float, beta2: float, beta3: float, alpha: float, slow_warmup: int | None,
) -> Tensor:  # fmt: skip
    """Pagliardini et al. 2024, algorithm 1, with the schedulers of section 3."""
    m1 = m2 = v = torch.zeros_like(w)
    for t, (g, lr) in enumerate(zip(gradients, rates, strict=True), 1):
        a, b3 = alpha, beta3
        if slow_warmup is not None:
            share = t / slow_warmup
            a = min(share * alpha, alpha)
            if share < 1:
                low, high = math.log(beta1), math.log(beta3)
                b3 = min(math.exp(low * high / ((1 - share) * high + share * low)), beta3)
        m1 = beta1 * m1 + (1 - beta1) * g
        m2 = b3 * m2 + (1 - b3) * g
        v = beta2 * v + (1 - beta2) * g**2
        above = m1 / (1 - beta1**t) + a * m2
        w = w - lr * (above / ((v / (1 - beta2**t)).sqrt() + EPS) + decay * w)
    return w


def schedule_free(
    w: Tensor, gradients: Sequence[Tensor], rates: Sequence[float], decay: float,
    *, beta1: float, beta2: float,
) -> Tensor:  # fmt: skip
    """Defazio et al. 2024, algorithm 1; the average's weights are those of the authors' code."""
    x, z, v, total = w, w, torch.zeros_like(w), 0.0
    for t, (g, lr) in enumerate(zip(gradients, rates, strict=True), 1):
        y = (1 - beta1) * z + beta1 * x
        v = beta2 * v + (1 - beta2) * g**2
        z = z - lr * (g / ((v / (1 - beta2**t)).sqrt() + EPS) + decay * y)
        weight = max(rates[:t]) ** 2
        total += weight
        x = (1 - weight / total) * x + weight / total * z
    return x


def soap(
    w: Tensor, gradients: Sequence[Tensor], rates: Sequence[float], decay: float,
    *, beta1: float, beta2: float, frequency: int, largest_side: int,
    first: tuple[Tensor | None, Tensor | None],
) -> Tensor:  # fmt: skip
    """Vyas et al. 2024, algorithms 3 and 4, with the first step and the sorting of the authors' code.

    Args:
        first: the first eigenbases. They are not unique: a first gradient of n rows and fewer columns
            leaves directions without any gradient.
    """
    rows, columns = w.shape
    m = v = torch.zeros_like(w)
    left, right = torch.zeros(rows, rows).to(w), torch.zeros(columns, columns).to(w)
    q_left, q_right = (
        torch.eye(n).to(w) if n > largest_side else q for n, q in zip(w.shape, first, strict=True)
    )
    for t, (g, lr) in enumerate(zip(gradients, rates, strict=True)):
        if t > 0:
            m = beta1 * m + (1 - beta1) * g
            v = beta2 * v + (1 - beta2) * (q_left.T @ g @ q_right) ** 2
            above = q_left.T @ m @ q_right / (1 - beta1**t)
            n = above / ((v / (1 - beta2**t)).sqrt() + EPS)
            w = w - lr * (q_left @ n @ q_right.T + decay * w)
        left = beta2 * left + (1 - beta2) * g @ g.T
        right = beta2 * right + (1 - beta2) * g.T @ g
        if t > 0 and t % frequency == 0:
            if rows <= largest_side:
                order = torch.diag(q_left.T @ left @ q_left).argsort(descending=True)
                q_left, v = torch.linalg.qr(left @ q_left[:, order]).Q, v[order]
            if columns <= largest_side:
                order = torch.diag(q_right.T @ right @ q_right).argsort(descending=True)
                q_right, v = torch.linalg.qr(right @ q_right[:, order]).Q, v[:, order]
    return w


def muon(
    w: Tensor, gradients: Sequence[Tensor], rates: Sequence[float], decay: float,
    *, momentum: float, orthogonalization: str, neuron_beta: float | None = None,
) -> Tensor:  # fmt: skip
    """Jordan et al. 2024, by singular values; with neuron_beta, Li et al. 2025, algorithm 1."""
    rows, columns = w.shape
    m, v = torch.zeros_like(w), torch.zeros(rows, 1).to(w)
    for g, lr in zip(gradients, rates, strict=True):
        m = momentum * m + (1 - momentum) * g
        u = orthogonalized(momentum * m + (1 - momentum) * g, orthogonalization)
        if neuron_beta is not None:
            v = neuron_beta * v + (1 - neuron_beta) * (u**2).mean(1, keepdim=True)
            normed = u / v.sqrt()
            u = normed * u.norm() / normed.norm()
        w = w - lr * decay * w - lr * math.sqrt(max(1, rows / columns)) * u
    return w


def orthogonalized(x: Tensor, method: str) -> Tensor:
    """The polynomials of `method`, applied to the singular values of x/‖x‖."""
    left, values, right = torch.linalg.svd(x / x.norm(), full_matrices=False)
    if method == "newton_schulz":
        for _ in range(5):
            values = 3.4445 * values - 4.7750 * values**3 + 2.0315 * values**5
    else:
        values = values / 1.01
        for a, b, c in polar_express(0.001, 5):
            values = a / 1.01 * values + b / 1.01**3 * values**3 + c / 1.01**5 * values**5
    return left @ torch.diag(values) @ right


@cache
def polar_express(lower: float, rounds: int) -> list[tuple[float, ...]]:
    """Amsel et al. 2025, theorem 3.1: in each round the best polynomial for the interval so far.

    It is found for an interval that begins at 0.024 of its end at the least (appendix), then scaled so
    that the largest errors above and below 1 are equal.
    """
    found, upper = [], 1.0
    for _ in range(rounds):
        a, b, c = minimax(max(lower, 0.02407327424182761 * upper), upper)

        def at(x: float, a: float = a, b: float = b, c: float = c) -> float:
            return a * x + b * x**3 + c * x**5

        scale = 2 / (at(lower) + at(upper))
        found.append((a * scale, b * scale, c * scale))
        lower, upper = at(lower) * scale, 2 - at(lower) * scale
    return found


def minimax(lower: float, upper: float) -> tuple[float, float, float]:
    """The ax + bx³ + cx⁵ that is nearest to 1 on an interval, by Remez' exchange.

    Its error takes its largest size four times, with alternating signs: at both ends and at its two
    extrema q and r between them.
    """
    q, r = (3 * lower + upper) / 4, (lower + 3 * upper) / 4
    for _ in range(50):
        points = torch.tensor([lower, q, r, upper], dtype=torch.float64)
        signs = torch.tensor([1, -1, 1, -1], dtype=torch.float64)
        table = torch.stack([points, points**3, points**5, signs], dim=1)
        a, b, c, _ = torch.linalg.solve(table, torch.ones(4, dtype=torch.float64)).tolist()
        root = math.sqrt(9 * b * b - 20 * a * c)  # of the derivative a + 3bx² + 5cx⁴
        q, r = (math.sqrt((-3 * b + sign * root) / (10 * c)) for sign in (-1, 1))
    return a, b, c
