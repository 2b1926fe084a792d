"""Critical values that make several intervals right together."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import optimize, stats

Matrix = NDArray[np.float64]
DIGITS = 3  # of the correlations, so that equal designs share one computation
SMALLEST = 0.002  # eigenvalue of a correlation matrix that is integrated over
MOST = 40  # estimates with an exact value; for more the integral is slow, and Šidák's bound is 6 % wider


def simultaneous_t(covariance: Matrix, df: int, confidence: float) -> float:
    """The q for which all intervals estimate ± q · standard error hold together.

    Solves P(max |T_i| ≤ q) = `confidence`, T multivariate t with the correlations of the estimates.
    With a shared baseline this is Dunnett's critical value (Dunnett 1955, *A multiple comparison
    procedure for comparing several treatments with a control*).

    Args:
        covariance: (m, m) of the m estimates, up to a factor.
        df: degrees of freedom of the estimate of the noise.
        confidence: of all intervals together.
    """
    scale = 1 / np.sqrt(np.diag(covariance))
    correlation = np.round(covariance * np.outer(scale, scale), DIGITS)
    return _quantile(correlation.tobytes(), len(correlation), df, round(confidence, 6))


@lru_cache(maxsize=4096)
def _quantile(correlation: bytes, m: int, df: int, confidence: float) -> float:
    """The quantile of the largest of m correlated |t|, between that of one and Šidák's for m."""
    alone = float(stats.t.ppf((1 + confidence) / 2, df))
    if m == 1:
        return alone
    independent = float(stats.t.ppf((1 + sidak(confidence, m)) / 2, df))
    if m > MOST:
        return independent
    matrix = definite(np.frombuffer(correlation).reshape(m, m))
    # The integral is computed from pseudo-random points: always the same ones, so that q repeats.
    joint: Any = stats.multivariate_t

    def excess(q: float) -> float:
        limit = np.full(m, q)
        inside = joint.cdf(
            limit, shape=matrix, df=df, allow_singular=True, lower_limit=-limit, random_state=0
        )
        return float(inside) - confidence

    if excess(alone) >= 0:
        return alone
    if excess(independent) <= 0:
        return independent
    return float(optimize.brentq(excess, alone, independent, xtol=1e-3))  # pyright: ignore[reportArgumentType]


def definite(correlation: Matrix) -> Matrix:
    """A correlation matrix near this one whose eigenvalues are all above zero.

    The differences in a grid depend on each other linearly: their matrix has eigenvalues of zero, and
    below zero once it is rounded. SciPy's integral refuses the one, and is too small for the other: 0.92
    in place of 0.96 for a grid of 3 × 2.
    """
    values, vectors = np.linalg.eigh(correlation)
    if values[0] >= SMALLEST:
        return correlation
    whole = vectors * np.maximum(values, SMALLEST) @ vectors.T
    scale = 1 / np.sqrt(np.diag(whole))
    return whole * np.outer(scale, scale)


def sidak(confidence: float, m: int) -> float:
    """The confidence that each of m intervals needs for all to hold together (Šidák 1967)."""
    return confidence ** (1 / m)


@lru_cache(maxsize=1024)
def tukey_t(k: int, df: int, confidence: float) -> float:
    """The q for which the intervals of all differences among k means hold together.

    The studentized range divided by √2 (Tukey 1949; Kramer 1956 for unequal numbers).
    """
    return float(stats.studentized_range.ppf(confidence, k, df)) / np.sqrt(2)
