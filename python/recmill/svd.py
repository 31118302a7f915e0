"""Matrix factorization of ratings."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from ._matrix import as_choice, as_count, as_indices, as_number
from ._recommender import BiasedFactorRecommender, texts

__all__ = ["Svd"]


class Svd(BiasedFactorRecommender):
    """Matrix factorization that predicts the value that a user gives an item, such as a rating (Koren et al. 2009).

    Parameters
    ----------
    factors
        Length of a user's and an item's vector; 20 to 200 is usual for ratings.
    learning_rate
        Step size, with ``solver="sgd"``.
    regularization
        How strongly biases and long vectors are punished, once for every rating.
    iterations
        Passes over the data.
    solver
        ``sgd``, or ``als`` for alternating exact least squares.
    num_threads
        0 for as many as there are processors.
    random_state
        A whole number for the same model each time.
    device
        ``auto`` or ``cpu``: it learns on the processor.

    >>> import numpy as np, scipy.sparse as sp
    >>> ratings = sp.csr_array(np.array([[5, 4, 0], [4, 0, 1], [0, 5, 2]], dtype=np.float32))
    >>> model = Svd(factors=2, random_state=1).fit(ratings, show_progress=False)
    >>> model.predict([0, 1], [2, 1]).shape
    (2,)
    """

    kind = "svd"

    def __init__(
        self,
        factors: int = 100,
        learning_rate: float = 0.005,
        regularization: float = 0.02,
        iterations: int = 20,
        solver: str = "sgd",
        num_threads: int = 0,
        random_state: Any = None,
        *,
        device: str = "auto",
        init_scale: float = 1.0,
    ):
        self.factors = factors
        self.learning_rate = learning_rate
        self.regularization = regularization
        self.iterations = iterations
        self.solver = solver
        self.num_threads = num_threads
        self.random_state = random_state
        self.device = device
        self.init_scale = init_scale

    def _config(self) -> dict[str, Any]:
        return {
            "model": "svd",
            "factors": as_count(self.factors, "factors"),
            "learning_rate": as_number(self.learning_rate, "learning_rate"),
            "regularization": as_number(self.regularization, "regularization"),
            "iterations": as_count(self.iterations, "iterations"),
            "solver": as_choice(self.solver, "solver", ("sgd", "als")),
            "init_scale": as_number(self.init_scale, "init_scale"),
        }

    def predict(self, users: Any, items: Any) -> npt.NDArray[np.float32]:
        """Return the value that each of ``users`` gives the item beside it, ``[n]`` float32, within the range of those learnt from.

        By index; by ids where the model was fitted on a table, and there an id that the model does not know is predicted from
        the rest.
        """
        model = self._fitted
        if model.by_index:
            pair = as_indices(users, "users"), as_indices(items, "items")
            for name, ids in zip(("user", "item"), pair):
                if ids.size and ids.min() < 0:
                    raise IndexError(f"{name} {ids.min()} is out of range: an index is at least 0")
        else:
            pair = _known(texts(users)[0], model.user_indices), _known(texts(items)[0], model.item_indices)
        if len(pair[0]) != len(pair[1]):
            raise ValueError(f"users and items need to be as many: {len(pair[0])} and {len(pair[1])}")
        predicted: Any = model.predict(*pair)
        return np.asarray(predicted, np.float32)

    @property
    def user_factors(self) -> Any:
        """``[n_users, factors + 2]`` float32, the last columns 1 and the bias; ``None`` before fitting."""
        return None if self._model is None else self._joined("user_factors", 1.0, "user_bias")

    @property
    def item_factors(self) -> Any:
        """``[n_items, factors + 2]`` float32, the last columns the bias and 1; ``None`` before fitting."""
        return None if self._model is None else self._joined("item_factors", "item_bias", 1.0)


def _known(ids: list[str], indices: Any) -> npt.NDArray[np.int64]:
    """Return indices of ids, and -1 where there is none."""
    try:
        return np.asarray(indices(ids), np.int64)
    except KeyError:
        found = np.full(len(ids), -1, np.int64)
        for at, one in enumerate(ids):
            try:
                found[at] = indices([one])[0]
            except KeyError:
                pass
        return found
