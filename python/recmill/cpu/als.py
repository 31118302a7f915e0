"""The loss of a factorization, where implicit has it."""

from __future__ import annotations

from typing import Any

import numpy as np

from .._matrix import as_csr

__all__ = ["calculate_loss"]


def calculate_loss(Cui: Any, X: Any, Y: Any, regularization: float, num_threads: int = 0) -> float:
    """Return the weighted squared error over all pairs, seen or not, divided by the sum of the weights.

    ``Cui`` holds the weight of what was seen, below 0 where the preference is 0; everything else weighs 1.
    """
    Cui = as_csr(Cui, "Cui")
    X, Y = np.asarray(X, np.float64), np.asarray(Y, np.float64)
    rows = np.repeat(np.arange(Cui.shape[0]), np.diff(Cui.indptr))
    weights = np.abs(np.asarray(Cui.data, np.float64))
    wanted = (np.asarray(Cui.data) > 0).astype(np.float64)
    loss = float(np.sum((X.T @ X) * (Y.T @ Y)))
    for first in range(0, Cui.nnz, 1 << 20):
        some = slice(first, first + (1 << 20))
        predicted = np.einsum("ij,ij->i", X[rows[some]], Y[Cui.indices[some]])
        loss += float(np.sum(weights[some] * (wanted[some] - predicted) ** 2 - predicted**2))
    loss += regularization * float(np.sum(X * X) + np.sum(Y * Y))
    return float(loss) / (float(weights.sum()) + int(Cui.shape[0]) * int(Cui.shape[1]) - int(Cui.nnz))
