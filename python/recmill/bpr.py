"""Bayesian personalized ranking."""

from __future__ import annotations

from typing import Any

import numpy as np

from ._matrix import as_choice, as_count, as_number
from ._recommender import BiasedFactorRecommender
from .als import check_dtype

__all__ = ["BayesianPersonalizedRanking"]


class BayesianPersonalizedRanking(BiasedFactorRecommender):
    """Matrix factorization that learns the order of pairs: what a user took before what they did not (Rendle et al. 2009).

    Parameters
    ----------
    factors
        Length of a user's and an item's vector, without the item's bias.
    learning_rate
        Step size of stochastic gradient descent.
    regularization
        How strongly long vectors are punished, in each step.
    dtype, use_gpu
        As in implicit; factors are float32, and ``use_gpu=True`` is ``device="cuda:0"``.
    iterations
        Epochs: each visits as many pairs as there are interactions.
    num_threads
        0 for as many as there are processors.
    verify_negative_samples
        Whether what the user has had is left out of the negatives, as in implicit.
    random_state
        A whole number for the same model each time.
    device
        ``auto``, ``cpu``, ``cuda:0``, ``wgpu:0``; see :func:`recmill.devices`.
    negatives
        How the item that a user did not take is drawn: ``uniform`` or ``popularity``.
    optimizer
        ``sgd`` or ``adagrad``.

    Attributes
    ----------
    user_factors, item_factors
        ``[n_users, factors + 1]``, ``[n_items, factors + 1]`` float32, not writeable: the last column is 1 and the item's bias,
        as in implicit.
    """

    kind = "bpr"
    _renamed = {"verify_negatives": "verify_negative_samples"}

    def __init__(
        self,
        factors: int = 100,
        learning_rate: float = 0.01,
        regularization: float = 0.01,
        dtype: Any = np.float32,
        iterations: int = 100,
        use_gpu: bool = False,
        num_threads: int = 0,
        verify_negative_samples: bool = True,
        random_state: Any = None,
        *,
        device: str = "auto",
        negatives: str = "uniform",
        optimizer: str = "sgd",
    ):
        self.factors = factors
        self.learning_rate = learning_rate
        self.regularization = regularization
        self.dtype = dtype
        self.iterations = iterations
        self.use_gpu = use_gpu
        self.num_threads = num_threads
        self.verify_negative_samples = verify_negative_samples
        self.random_state = random_state
        self.device = device
        self.negatives = negatives
        self.optimizer = optimizer

    def _config(self) -> dict[str, Any]:
        check_dtype(self.dtype)
        return {
            "model": "bpr",
            "factors": as_count(self.factors, "factors"),
            "learning_rate": as_number(self.learning_rate, "learning_rate"),
            "regularization": as_number(self.regularization, "regularization"),
            "iterations": as_count(self.iterations, "iterations"),
            "negatives": as_choice(self.negatives, "negatives", ("uniform", "popularity")),
            "verify_negatives": bool(self.verify_negative_samples),
            "optimizer": as_choice(self.optimizer, "optimizer", ("sgd", "adagrad")),
            "item_bias": True,
        }

    @property
    def user_factors(self) -> Any:
        """``[n_users, factors + 1]`` float32, the last column 1; ``None`` before fitting."""
        return None if self._model is None else self._joined("user_factors", 1.0)

    @property
    def item_factors(self) -> Any:
        """``[n_items, factors + 1]`` float32, the last column the bias; ``None`` before fitting."""
        return None if self._model is None else self._joined("item_factors", "item_bias")
