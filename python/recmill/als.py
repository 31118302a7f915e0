"""Alternating least squares."""

from __future__ import annotations

import warnings
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from ._matrix import as_count, as_csr, as_filter, as_indices, as_number, parts
from ._recommender import FactorRecommender
from .exceptions import ParameterWarning

__all__ = ["AlternatingLeastSquares"]

Self = TypeVar("Self", bound="AlternatingLeastSquares")


def check_dtype(dtype: Any) -> None:
    """Say what numbers are computed with, where others were asked for."""
    if np.dtype(dtype) != np.float32:
        message = f"dtype={np.dtype(dtype)}: factors are computed and returned as float32"
        warnings.warn(message, ParameterWarning, stacklevel=3)


class AlternatingLeastSquares(FactorRecommender):
    """Matrix factorization for implicit feedback, where every pair of user and item counts, seen or not.

    Parameters
    ----------
    factors
        Length of a user's and an item's vector; 32 to 256 is usual.
    regularization
        How strongly long vectors are punished.
    alpha
        A pair that was seen weighs ``alpha * value`` beside 1 for one that was not, as in implicit.
    dtype, use_native, use_gpu
        As in implicit; factors are float32, and ``use_gpu=True`` is ``device="cuda:0"``.
    use_cg
        Whether rows are solved by a few conjugate-gradient steps, or exactly.
    iterations
        Passes over users and items.
    calculate_training_loss
        Whether the loss of each iteration is computed: see ``loss_curve_`` and the log ``recmill``.
    num_threads
        0 for as many as there are processors.
    random_state
        A whole number for the same model each time.
    device
        ``auto``, ``cpu``, ``cuda:0``, ``wgpu:0``; see :func:`recmill.devices`.
    base_confidence
        What a pair that was seen weighs beside ``alpha * value``; 1 in the paper (Hu, Koren, Volinsky 2008).
    unobserved_weight
        In place of ``alpha``: a pair that was seen weighs its value, and every pair this much (Rendle et al. 2021).
    regularization_exponent
        With ``unobserved_weight``: how regularization grows with a row's interactions.

    Attributes
    ----------
    user_factors, item_factors
        ``[n_users, factors]``, ``[n_items, factors]`` float32, not writeable: assign other arrays to change them.

    >>> import numpy as np, scipy.sparse as sp
    >>> likes = sp.csr_array(np.array([[1, 1, 0], [1, 0, 0], [0, 0, 1]], dtype=np.float32))
    >>> model = AlternatingLeastSquares(factors=2, random_state=1, device="cpu").fit(likes, show_progress=False)
    >>> ids, scores = model.recommend(1, likes[[1]], N=1)
    >>> int(ids[0])
    1
    """

    kind = "als"

    def __init__(
        self,
        factors: int = 100,
        regularization: float = 0.01,
        alpha: float = 1.0,
        dtype: Any = np.float32,
        use_native: bool = True,
        use_cg: bool = True,
        use_gpu: bool = False,
        iterations: int = 15,
        calculate_training_loss: bool = False,
        num_threads: int = 0,
        random_state: Any = None,
        *,
        device: str = "auto",
        base_confidence: float = 0.0,
        unobserved_weight: float | None = None,
        regularization_exponent: float = 1.0,
    ):
        self.factors = factors
        self.regularization = regularization
        self.alpha = alpha
        self.dtype = dtype
        self.use_native = use_native
        self.use_cg = use_cg
        self.use_gpu = use_gpu
        self.iterations = iterations
        self.calculate_training_loss = calculate_training_loss
        self.num_threads = num_threads
        self.random_state = random_state
        self.device = device
        self.base_confidence = base_confidence
        self.unobserved_weight = unobserved_weight
        self.regularization_exponent = regularization_exponent

    def _config(self) -> dict[str, Any]:
        check_dtype(self.dtype)
        config = {
            "model": "als",
            "factors": as_count(self.factors, "factors"),
            "regularization": as_number(self.regularization, "regularization"),
            "iterations": as_count(self.iterations, "iterations"),
            "solver": "cg" if self.use_cg else "cholesky",
        }
        if self.unobserved_weight is not None:
            config["unobserved_weight"] = as_number(self.unobserved_weight, "unobserved_weight")
            config["regularization_exponent"] = as_number(self.regularization_exponent, "regularization_exponent")
        else:
            config["alpha"] = as_number(self.alpha, "alpha")
            config["base_confidence"] = as_number(self.base_confidence, "base_confidence")
        return config

    def _computes_loss(self) -> bool:
        return bool(self.calculate_training_loss)

    @classmethod
    def _params_of(cls, config: dict[str, Any]) -> dict[str, Any]:
        params = super()._params_of(config)
        params["use_cg"] = config["solver"] == "cg"
        if "unobserved_weight" not in config:
            params["alpha"] = config.get("alpha", 1.0)
            params["base_confidence"] = config.get("base_confidence", 1.0)
        return params

    @property
    def user_factors(self) -> Any:
        """``[n_users, factors]`` float32; ``None`` before fitting."""
        return None if self._model is None else self._parameter("user_factors")

    @user_factors.setter
    def user_factors(self, factors: Any) -> None:
        self._given("user_factors", factors)

    @property
    def item_factors(self) -> Any:
        """``[n_items, factors]`` float32; ``None`` before fitting."""
        return None if self._model is None else self._parameter("item_factors")

    @item_factors.setter
    def item_factors(self, factors: Any) -> None:
        self._given("item_factors", factors)

    def _given(self, name: str, factors: Any) -> None:
        """Take over factors; those of one side wait until the other's have the same length."""
        factors = np.asarray(factors, dtype=np.float32)
        if factors.ndim != 2:
            raise ValueError(f"{name} needs to be [n, factors], not of shape {factors.shape}")
        pending = vars(self).setdefault("_pending", {})
        pending[name] = factors
        sides = [
            pending.get(side, None if self._model is None else self._parameter(side))
            for side in ("user_factors", "item_factors")
        ]
        if all(side is not None for side in sides) and sides[0].shape[1] == sides[1].shape[1]:
            self._replace(*sides)
            self.factors = int(sides[0].shape[1])
            pending.clear()

    @property
    def YtY(self) -> npt.NDArray[np.float32]:
        """``item_factors.T @ item_factors``."""
        return np.asarray(self.item_factors.T @ self.item_factors)

    @property
    def XtX(self) -> npt.NDArray[np.float32]:
        """``user_factors.T @ user_factors``."""
        return np.asarray(self.user_factors.T @ self.user_factors)

    def _solved(self, ids: Any, matrix: Any, name: str, of_items: bool) -> tuple[Any, bool]:
        matrix = as_csr(matrix, name)
        scalar = np.ndim(ids) == 0
        n = len(as_indices(ids, "ids"))
        if matrix.shape[0] != n:
            raise ValueError(f"{name} must contain 1 row for every id: {matrix.shape[0]} rows for {n} ids")
        return self._fitted.solve(parts(matrix), of_items, self._threads()), scalar

    def recalculate_user(self, userid: Any, user_items: Any) -> Any:
        """Return the factors of users by what they have had, a row each, as the last pass of fitting would."""
        solved, scalar = self._solved(userid, user_items, "user_items", False)
        return solved[0] if scalar else solved

    def recalculate_item(self, itemid: Any, item_users: Any) -> Any:
        """Return the factors of items by who has had them, a row each, as a pass of fitting would."""
        solved, scalar = self._solved(itemid, item_users, "item_users", True)
        return solved[0] if scalar else solved

    def partial_fit_users(self, userids: Any, user_items: Any) -> None:
        """Compute these users' factors anew, of users that come later too: a user past the last makes room for all up to it."""
        ids = as_indices(userids, "userids")
        solved, _ = self._solved(ids, user_items, "user_items", False)
        self._replace(_with_rows(self.user_factors, ids, solved), self.item_factors)

    def partial_fit_items(self, itemids: Any, item_users: Any) -> None:
        """Compute these items' factors anew, of items that come later too: an item past the last makes room for all up to it."""
        ids = as_indices(itemids, "itemids")
        solved, _ = self._solved(ids, item_users, "item_users", True)
        self._replace(self.user_factors, _with_rows(self.item_factors, ids, solved))

    def _similar_to_recalculated(self, itemid: Any, n: int, item_users: Any, exclude: Any, only: Any) -> Any:
        scalar = np.ndim(itemid) == 0
        queries = np.atleast_2d(self.recalculate_item(itemid, item_users))
        factors = self.item_factors
        allowed = np.ones(len(factors), bool) if only is None else np.zeros(len(factors), bool)
        for ids, name, left in ((only, "items", True), (exclude, "filter_items", False)):
            if ids is None:
                continue
            some = as_indices(ids, name)
            wrong = some[(some < 0) | (some >= len(factors))]
            if wrong.size:
                raise IndexError(f"item {wrong[0]} is out of range: the model has {len(factors)} items")
            allowed[some] = left
        choice = np.flatnonzero(allowed)
        norms = np.outer(np.linalg.norm(queries, axis=1), np.linalg.norm(factors[choice], axis=1))
        cosines = queries @ factors[choice].T / np.maximum(norms, 1e-30)
        best = np.argsort(-cosines, axis=1, kind="stable")[:, :n]
        ids = np.full((len(queries), n), -1, np.int32)
        scores = np.full((len(queries), n), -np.finfo(np.float32).max, np.float32)
        ids[:, : best.shape[1]] = choice[best]
        scores[:, : best.shape[1]] = np.take_along_axis(cosines, best, axis=1)
        return self._shaped(ids, scores, scalar)

    def _check_items(self, matrix: Any, name: str) -> None:
        n_items = self.n_items_
        if matrix.shape[1] != n_items:
            raise ValueError(
                f"{name} has {matrix.shape[1]} columns, and the model was fitted with {self.n_users_} users and {n_items} items: "
                f"columns are items, expected `{n_items}`"
            )

    def explain(
        self, userid: Any, user_items: Any, itemid: Any, user_weights: Any = None, N: int = 10
    ) -> tuple[float, list[tuple[int, float]], Any]:
        """Return why an item is recommended: what each item that the user has had adds to its score.

        Parameters
        ----------
        userid
            The user's index.
        user_items
            What the users of the model have had, or a single row: what this one has.
        itemid
            The item's index.
        user_weights
            The third of what an earlier call returned for this user, to save its work.
        N
            How many items.

        Returns
        -------
        total_score, top_contributions, user_weights
            The predicted score; ``(itemid, score)`` of the items that add most, largest first; for the next call.
        """
        matrix = as_csr(user_items, "user_items")
        row = 0 if matrix.shape[0] == 1 else int(as_indices(userid, "userid")[0])
        if row >= matrix.shape[0]:
            raise IndexError(f"user {row} is out of range: user_items has {matrix.shape[0]} rows")
        if row < 0:
            raise IndexError(f"user {row} is out of range: an index is at least 0")
        self._check_items(matrix, "user_items")
        N = as_count(N, "N")
        item = int(as_indices(itemid, "itemid")[0])
        factors = self.item_factors.astype(np.float64)
        if not 0 <= item < len(factors):
            raise IndexError(f"item {item} is out of range: the model has {len(factors)} items")
        liked = slice(matrix.indptr[row], matrix.indptr[row + 1])
        items, values = matrix.indices[liked], np.asarray(matrix.data[liked], np.float64)
        if self.unobserved_weight is None:
            weight = self.base_confidence + self.alpha * np.abs(values)
            extra, gram_weight, ridge = weight - 1.0, 1.0, self.regularization
        else:
            weight = extra = np.abs(values)
            gram_weight = self.unobserved_weight
            pairs = len(items) + gram_weight * len(factors)
            ridge = self.regularization * pairs**self.regularization_exponent
        if user_weights is None:
            own = factors[items]
            system = gram_weight * (factors.T @ factors) + (own.T * extra) @ own
            user_weights = np.linalg.cholesky(system + ridge * np.eye(factors.shape[1]))
        solved = np.linalg.solve(user_weights.T, np.linalg.solve(user_weights, factors[item]))
        scores = (factors[items] @ solved) * np.where(values > 0, weight, 0.0)
        best = np.argsort(-scores, kind="stable")[:N]
        return float(scores.sum()), [(int(items[at]), float(scores[at])) for at in best], user_weights


def _with_rows(factors: Any, ids: npt.NDArray[np.int64], rows: Any) -> Any:
    if len(ids) == 0:
        return factors
    if ids.min() < 0:
        raise IndexError(f"{ids.min()} is out of range: an index is at least 0")
    more = np.zeros((max(0, int(ids.max()) + 1 - len(factors)), factors.shape[1]), np.float32)
    factors = np.concatenate([factors, more])
    factors[ids] = rows
    return factors
