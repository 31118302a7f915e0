"""Items that are taken by the same users."""

from __future__ import annotations

import json
import time as time_module
from typing import Any, Callable, TypeVar

import numpy as np
import numpy.typing as npt

from . import _recmill
from ._matrix import as_count, as_csr, is_sparse, parts
from ._table import events, is_table
from ._recommender import Recommender

__all__ = [
    "BM25Recommender",
    "CosineRecommender",
    "ItemItemRecommender",
    "TFIDFRecommender",
    "all_pairs_knn",
    "bm25_weight",
    "normalize",
    "tfidf_weight",
]

Self = TypeVar("Self", bound="ItemItemRecommender")


def tfidf_weight(X: Any) -> Any:
    """Return a matrix weighted by TF-IDF: the root of each value times ``ln n_rows - ln(1 + values in its column)``."""
    from scipy.sparse import coo_matrix

    X = coo_matrix(X)
    idf = np.log(float(X.shape[0])) - np.log1p(np.bincount(X.col, minlength=X.shape[1]))
    return coo_matrix((np.sqrt(X.data) * idf[X.col], (X.row, X.col)), shape=X.shape)


def normalize(X: Any) -> Any:
    """Return a matrix whose rows have length 1."""
    from scipy.sparse import coo_matrix

    X = coo_matrix(X)
    norms = np.sqrt(np.bincount(X.row, np.square(X.data, dtype=np.float64), minlength=X.shape[0]))
    return coo_matrix((X.data / norms[X.row], (X.row, X.col)), shape=X.shape)


def bm25_weight(X: Any, K1: float = 100, B: float = 0.8) -> Any:
    """Return a matrix weighted by Okapi BM25: rows are the documents, columns the terms."""
    from scipy.sparse import coo_matrix

    X = coo_matrix(X)
    idf = np.log(float(X.shape[0])) - np.log1p(np.bincount(X.col, minlength=X.shape[1]))
    sums = np.bincount(X.row, X.data, minlength=X.shape[0])
    length = (1.0 - B) + B * sums / sums.mean()
    data = X.data * (K1 + 1.0) / (K1 * length[X.row] + X.data) * idf[X.col]
    return coo_matrix((data, (X.row, X.col)), shape=X.shape)


def all_pairs_knn(users: Any, K: int = 100, num_threads: int = 0, show_progress: bool = True) -> Any:
    """Return the ``K`` largest products of every column with all columns, its own among them: a CSR matrix, items by items.

    Parameters
    ----------
    users
        ``[n_users, n_items]``, weighted.
    """
    from scipy.sparse import csr_matrix

    indptr, indices, values, n_items = parts(as_csr(users, "users"), np.float64)
    threads = as_count(num_threads, "num_threads", 2**31)
    indices = indices.astype(np.int64, copy=False)
    found = _recmill.all_pairs_knn(indptr, indices, values, n_items, as_count(K, "K", 2**31), threads)
    similarity = csr_matrix((found[2], found[1], found[0]), shape=(n_items, n_items))
    similarity.sort_indices()
    return similarity


class ItemItemRecommender(Recommender):
    """Items that are taken by the same users; a user's score for an item adds up how like it is to each that they have had.

    Parameters
    ----------
    K
        How many items each is compared with, itself included.
    num_threads
        0 for as many as there are processors.

    Attributes
    ----------
    similarity
        ``[n_items, n_items]`` CSR, the ``K`` largest of each row, float64.
    """

    kind = "item-knn"

    def __init__(self, K: int = 20, num_threads: int = 0, *, device: str = "auto", random_state: Any = None):
        self.K = K
        self.num_threads = num_threads
        self.device = device
        self.random_state = random_state

    def _weighted(self, counts: Any) -> Any:
        """Return ``[n_users, n_items]`` as its products are summed."""
        return counts

    def fit(
        self: Self,
        user_items: Any,
        show_progress: bool = True,
        callback: Callable[..., Any] | None = None,
        *,
        user: str | None = None,
        item: str | None = None,
        value: str | None = None,
        time: str | None = None,
    ) -> Self:
        """Learn from a sparse matrix of scipy, ``[n_users, n_items]``, or a table; return the model itself.

        Parameters are those of :meth:`Recommender.fit`.
        """
        if self._device() not in ("auto", "cpu"):
            raise ValueError(f"device: {type(self).__name__} computes on the processor, not on {self.device!r}")
        began = time_module.perf_counter()
        history: Any
        if is_sparse(user_items) or not is_table(user_items):
            if any((user, item, value, time)):
                raise ValueError("user, item, value and time name columns of a table")
            matrix = as_csr(user_items, "user_items", warn=True)
            history = parts(matrix)
        else:
            from scipy.sparse import csr_matrix

            history = _recmill.read_events(events(user_items, user, item, value, time))
            indptr, items, values, n_items = history.matrix()
            matrix = csr_matrix((values, items, indptr), shape=(len(indptr) - 1, n_items))
        if 0 in matrix.shape or matrix.nnz == 0:
            raise ValueError(f"user_items of shape {matrix.shape} has nothing to learn from")
        if as_count(self.K, "K", 2**31) < 1:
            raise ValueError(f"K needs to be at least 1, not {self.K}")
        similarity = all_pairs_knn(self._weighted(matrix), self.K, self.num_threads, False)
        self._taken(similarity, history)
        if callback is not None:
            callback(0, time_module.perf_counter() - began, None)
        return self

    def _about(self) -> dict[str, Any]:
        own = {name: value for name, value in self.get_params().items() if name in ("K", "K1", "B")}
        return {"class": type(self).__name__, **own}

    @classmethod
    def _of(cls: type[Self], model: _recmill.Model) -> Self:
        made = super()._of(model)
        about = json.loads(model.about)
        return made.set_params(**{name: value for name, value in about.items() if name in cls._names()})

    def _taken(self: Self, similarity: Any, history: Any) -> Self:
        neighbours = max(1, int(np.diff(similarity.indptr).max(initial=0)))
        config = {"model": "item-knn", "neighbours": neighbours, "neighbours_of": "history", "binary": False}
        self._model = _recmill.Model.of_neighbours(json.dumps(config), parts(similarity), history)
        self._refreshed()
        self._cached_similarity = similarity
        return self

    @property
    def similarity(self) -> Any:
        """``[n_items, n_items]`` CSR; ``None`` before fitting."""
        if self._model is None:
            return None
        if "_cached_similarity" not in vars(self):
            from scipy.sparse import csr_matrix

            ends, items, values = (self._model.parameter(f"neighbour_{part}") for part in ("ends", "items", "values"))
            n = self._model.n_items
            lists = (values.astype(np.float64), items.astype(np.int64), ends.astype(np.int64))
            self._cached_similarity = csr_matrix(lists, shape=(n, n))
        return self._cached_similarity

    def _shaped(self, ids: Any, scores: Any, scalar: bool) -> Any:
        # An item that no path leads to is no answer.
        nothing: Any = None if ids.dtype == object else -1
        scores = scores.astype(np.float64)
        known: Any = ids != nothing
        found = known & (scores != 0.0)
        order = np.argsort(~found, axis=1, kind="stable")
        found = np.take_along_axis(found, order, axis=1)
        ids = np.where(found, np.take_along_axis(ids, order, axis=1), nothing)
        lowest = -float(np.finfo(np.float32).max)
        scores = np.where(found, np.take_along_axis(scores, order, axis=1), lowest)
        return (ids[0][found[0]], scores[0][found[0]]) if scalar else (ids, scores)

    def _with_itself(self, about: Any, ids: Any, scores: Any) -> Any:
        # The item's own similarity is stored with the others; the native part has 1 in its place.
        own: npt.NDArray[Any] = np.asarray(self.similarity.diagonal(), np.float64)[about]
        scores = np.where(ids == about[:, None], own[:, None], scores)
        order = np.argsort(-scores, axis=1, kind="stable")
        return np.take_along_axis(ids, order, axis=1), np.take_along_axis(scores, order, axis=1)


class CosineRecommender(ItemItemRecommender):
    """:class:`ItemItemRecommender` with the cosine of the items' columns."""

    def _weighted(self, counts: Any) -> Any:
        return normalize(counts.T).T


class TFIDFRecommender(ItemItemRecommender):
    """:class:`ItemItemRecommender` with the cosine of the items' columns, weighted by TF-IDF."""

    def _weighted(self, counts: Any) -> Any:
        return normalize(tfidf_weight(counts.T)).T


class BM25Recommender(ItemItemRecommender):
    """:class:`ItemItemRecommender` with BM25 weights: ``K1`` says how soon repeats stop counting, ``B`` how much popularity is
    normalised."""

    def __init__(
        self,
        K: int = 20,
        K1: float = 1.2,
        B: float = 0.75,
        num_threads: int = 0,
        *,
        device: str = "auto",
        random_state: Any = None,
    ):
        super().__init__(K, num_threads, device=device, random_state=random_state)
        self.K1 = K1
        self.B = B

    def _weighted(self, counts: Any) -> Any:
        return bm25_weight(counts.T, self.K1, self.B).T
