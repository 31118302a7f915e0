"""Logistic matrix factorization."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np

from ._matrix import as_choice, as_count, as_number
from ._recommender import BiasedFactorRecommender
from .als import check_dtype
from .exceptions import ParameterWarning

__all__ = ["LogisticMatrixFactorization"]


class LogisticMatrixFactorization(BiasedFactorRecommender):
    """Matrix factorization that learns how likely a user is to take an item (Johnson 2014).

    Scores are log-odds of items against ``neg_prop`` others that are drawn; each interaction counts once, whatever its value.

    The defaults are quick, with implicit's number of factors. Those of ``recmill train lmf`` take longer and find more: ``factors=128``,
    ``learning_rate=0.1``, ``regularization=0.015``, ``iterations=200``.

    Parameters
    ----------
    factors
        Length of a user's and an item's vector, without the item's bias.
    learning_rate
        Step size. A step is of one pair, where implicit steps once a row: so it is smaller here.
    regularization
        How strongly long vectors are punished, in each step: for one pair, where implicit has it for a whole row.
    dtype
        As in implicit; factors are float32.
    iterations
        Epochs: each visits every interaction.
    neg_prop
        Items that a user did not take, for each that they took.
    num_threads
        0 for as many as there are processors.
    random_state
        A whole number for the same model each time.
    device
        ``auto``, ``cpu``, ``cuda:0``, ``wgpu:0``; see :func:`recmill.devices`.
    negatives
        How the items that a user did not take are drawn: ``uniform`` or ``popularity``.
    optimizer
        ``sgd`` or ``adagrad``.
    verify_negatives
        Whether what the user has had is left out of the items that are drawn.

    Attributes
    ----------
    user_factors, item_factors
        ``[n_users, factors + 2]``, ``[n_items, factors + 2]`` float32, not writeable: the last columns are 1 and the user's bias
        (always 0), and the item's bias and 1, as in implicit.

    >>> import numpy as np, scipy.sparse as sp
    >>> likes = sp.csr_array(np.array([[1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 1, 1]], dtype=np.float32))
    >>> model = LogisticMatrixFactorization(factors=4, random_state=1, device="cpu").fit(likes, show_progress=False)
    >>> ids, scores = model.recommend(2, likes[[2]], N=1)
    >>> ids.shape
    (1,)
    """

    kind = "lmf"
    _renamed = {"negatives_per_positive": "neg_prop"}

    def __init__(
        self,
        factors: int = 30,
        learning_rate: float = 0.05,
        regularization: float = 0.005,
        dtype: Any = np.float32,
        iterations: int = 30,
        neg_prop: int = 4,
        num_threads: int = 0,
        random_state: Any = None,
        *,
        device: str = "auto",
        use_gpu: bool = False,
        negatives: str = "popularity",
        optimizer: str = "adagrad",
        verify_negatives: bool = True,
    ):
        self.factors = factors
        self.learning_rate = learning_rate
        self.regularization = regularization
        self.dtype = dtype
        self.iterations = iterations
        self.neg_prop = neg_prop
        self.num_threads = num_threads
        self.random_state = random_state
        self.device = device
        self.use_gpu = use_gpu
        self.negatives = negatives
        self.optimizer = optimizer
        self.verify_negatives = verify_negatives

    def _config(self) -> dict[str, Any]:
        check_dtype(self.dtype)
        learning_rate = as_number(self.learning_rate, "learning_rate")
        regularization = as_number(self.regularization, "regularization")
        if learning_rate >= 0.5 or regularization >= 0.1:
            message = (
                f"learning_rate={self.learning_rate}, regularization={self.regularization}: a step is of one pair here, and of a "
                "row in implicit; the defaults 0.05 and 0.005 are what 1.0 and 0.6 are there"
            )
            warnings.warn(message, ParameterWarning, stacklevel=3)
        return {
            "model": "lmf",
            "factors": as_count(self.factors, "factors"),
            "learning_rate": learning_rate,
            "regularization": regularization,
            "iterations": as_count(self.iterations, "iterations"),
            "negatives_per_positive": as_count(self.neg_prop, "neg_prop"),
            "negatives": as_choice(self.negatives, "negatives", ("uniform", "popularity")),
            "verify_negatives": bool(self.verify_negatives),
            "optimizer": as_choice(self.optimizer, "optimizer", ("sgd", "adagrad")),
        }

    @property
    def user_factors(self) -> Any:
        """``[n_users, factors + 2]`` float32, the last columns 1 and 0; ``None`` before fitting."""
        return None if self._model is None else self._joined("user_factors", 1.0, 0.0)

    @property
    def item_factors(self) -> Any:
        """``[n_items, factors + 2]`` float32, the last columns the bias and 1; ``None`` before fitting."""
        return None if self._model is None else self._joined("item_factors", "item_bias", 1.0)
