"""Splits of what users did, and how good a model's lists are on what was held out.

The metrics are those of implicit, by the same formulas::

    precision@k   hits / Σ min(k, held out)                       over all users together
    map@k         mean of  Σ_(hits at rank r) hits so far / r / min(k, held out)
    ndcg@k        mean of  Σ_(hits at rank r) 1 / log2(r + 1) / ideal
    auc@k         mean of the area under the curve, where what is past rank k counts as a coin toss

Means are over users with something held out.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from ._matrix import as_count, as_csr

__all__ = [
    "AUC_at_k",
    "leave_k_out_split",
    "leave_last_out",
    "mean_average_precision_at_k",
    "ndcg_at_k",
    "precision_at_k",
    "ranking_metrics_at_k",
    "train_test_split",
]

USERS_AT_ONCE = 1000


def _random(random_state: Any) -> np.random.Generator:
    if isinstance(random_state, np.random.RandomState):
        random_state = random_state.randint(2**31 - 1)
    return np.random.default_rng(random_state)


def train_test_split(ratings: Any, train_percentage: float = 0.8, random_state: Any = None) -> tuple[Any, Any]:
    """Cut a matrix in two, each value by itself: ``(train, test)``, both CSR of the same shape.

    >>> import scipy.sparse as sp
    >>> train, test = train_test_split(sp.random(50, 20, 0.5, random_state=0), random_state=0)
    >>> train.nnz + test.nnz
    500
    """
    from scipy.sparse import coo_matrix, csr_matrix

    if not 0.0 <= train_percentage <= 1.0:
        raise ValueError(f"train_percentage needs to be from 0 to 1, not {train_percentage}")
    ratings = coo_matrix(ratings)
    chosen = _random(random_state).random(len(ratings.data)) < train_percentage
    cut = [
        csr_matrix((ratings.data[mask], (ratings.row[mask], ratings.col[mask])), shape=ratings.shape)
        for mask in (chosen, ~chosen)
    ]
    for part in cut:
        part.eliminate_zeros()
    return cut[0], cut[1]


def leave_k_out_split(
    ratings: Any, K: int = 1, train_only_size: float = 0.0, random_state: Any = None
) -> tuple[Any, Any]:
    """Hold out ``K`` values, drawn at random, of each user who has more than ``K + 1``: ``(train, test)``.

    ``train_only_size`` is the share of users, drawn at random, of whom nothing is held out.
    """
    K = as_count(K, "K")
    if K < 1:
        raise ValueError(f"K needs to be at least 1, not {K}")
    if not 0.0 <= train_only_size < 1.0:
        raise ValueError(f"train_only_size needs to be at least 0 and below 1, not {train_only_size}")
    ratings, random = as_csr(ratings, "ratings"), _random(random_state)
    counts = np.diff(ratings.indptr)
    eligible = counts > K + 1
    if train_only_size > 0.0:
        n_users = ratings.shape[0]
        eligible[random.choice(n_users, int(n_users * train_only_size), replace=False)] = False
    return _hold_out(ratings, np.where(eligible, K, 0), random)


def leave_last_out(ratings: Any, times: Any) -> tuple[Any, Any]:
    """Hold out each user's last value, of users who have two or more: ``(train, test)``.

    ``times`` is a matrix of the same shape, with a time wherever ``ratings`` has a value; of equal times the later column counts.
    """
    ratings, times = as_csr(ratings, "ratings"), as_csr(times, "times")
    same = ratings.shape == times.shape and np.array_equal(ratings.indptr, times.indptr)
    if not same or not np.array_equal(ratings.indices, times.indices):
        raise ValueError("times needs a value wherever ratings has one, and nowhere else")
    counts = np.diff(ratings.indptr)
    rows = np.repeat(np.arange(ratings.shape[0]), counts)
    order = np.lexsort((np.arange(ratings.nnz), times.data, rows))
    held = np.zeros(ratings.nnz, bool)
    held[order[ratings.indptr[1:][counts >= 2] - 1]] = True
    return _cut(ratings, rows, held)


def _hold_out(ratings: Any, n: npt.NDArray[Any], random: np.random.Generator) -> tuple[Any, Any]:
    """Hold out as many values of each row as ``n`` says, drawn at random."""
    rows = np.repeat(np.arange(ratings.shape[0]), np.diff(ratings.indptr))
    order = np.lexsort((random.random(ratings.nnz), rows))
    rank = np.empty(ratings.nnz, np.int64)
    rank[order] = np.arange(ratings.nnz) - ratings.indptr[rows[order]]
    return _cut(ratings, rows, rank < n[rows])


def _cut(ratings: Any, rows: npt.NDArray[Any], held: npt.NDArray[np.bool_]) -> tuple[Any, Any]:
    from scipy.sparse import csr_matrix

    parts = [
        csr_matrix((ratings.data[mask], (rows[mask], ratings.indices[mask])), shape=ratings.shape)
        for mask in (~held, held)
    ]
    return parts[0], parts[1]


def ranking_metrics_at_k(
    model: Any,
    train_user_items: Any,
    test_user_items: Any,
    K: int = 10,
    show_progress: bool = True,
    num_threads: int = 0,
) -> dict[str, float]:
    """Return ``precision``, ``map``, ``ndcg`` and ``auc`` at ``K`` of a fitted model.

    Parameters
    ----------
    model
        Of this library, or whatever has such a ``recommend``.
    train_user_items, test_user_items
        What users had before, which is not recommended, and what was held out; ``[n_users, n_items]``.
    num_threads
        As in implicit, and without effect: the model's own ``num_threads`` counts.
    """
    train, test = as_csr(train_user_items, "train_user_items"), as_csr(test_user_items, "test_user_items")
    if train.shape != test.shape:
        raise ValueError(f"train_user_items is of shape {train.shape}, test_user_items of {test.shape}")
    K = as_count(K, "K")
    if K < 1:
        raise ValueError(f"K needs to be at least 1, not {K}")
    n_items = test.shape[1]
    users = np.flatnonzero(np.diff(test.indptr))
    sums = _Sums(min(K, n_items), n_items)
    steps = range(0, len(users), USERS_AT_ONCE)
    if show_progress:
        try:
            from tqdm.auto import tqdm
        except ImportError:
            pass
        else:
            steps = tqdm(steps, desc="evaluating", unit=f" x {USERS_AT_ONCE} users")
    for first in steps:
        some = users[first : first + USERS_AT_ONCE]
        ids, _ = model.recommend(some, train[some], N=sums.k)
        sums.add(np.asarray(ids), test[some])
    return sums.means()


class _Sums:
    """Metrics summed over users."""

    def __init__(self, k: int, n_items: int):
        self.k, self.n_items = k, n_items
        self.users = self.hits = self.possible = 0
        self.map = self.ndcg = self.auc = 0.0

    def add(self, ids: npt.NDArray[Any], test: Any) -> None:
        """Add lists of items, and what was held out of each user, a row each."""
        counts = np.diff(test.indptr)
        rows = np.repeat(np.arange(len(counts)), counts)
        held = rows * np.int64(self.n_items) + test.indices
        asked = np.arange(len(ids))[:, None] * np.int64(self.n_items) + ids
        hit = np.isin(asked, held) & (ids >= 0)
        most = np.minimum(self.k, counts)
        ranks = np.arange(1, ids.shape[1] + 1)
        so_far = np.cumsum(hit, axis=1)
        gains = 1.0 / np.log2(ranks + 1)
        n_hits, n_misses = hit.sum(axis=1), (~hit).sum(axis=1)
        negatives = self.n_items - counts
        area = (~hit * so_far).sum(axis=1) + (n_hits + counts) / 2.0 * (negatives - n_misses)
        self.users += len(counts)
        self.hits += int(n_hits.sum())
        self.possible += int(most.sum())
        self.map += float(((hit * so_far / ranks).sum(axis=1) / most).sum())
        self.ndcg += float((hit * gains).sum(axis=1).dot(1.0 / np.cumsum(gains)[most - 1]))
        # A user who has everything has nothing that could be ranked too high.
        self.auc += float(np.where(negatives > 0, area / np.maximum(counts * negatives, 1), 1.0).sum())

    def means(self) -> dict[str, float]:
        """Return the metrics; 0 where there is no user."""
        n = max(self.users, 1)
        return {
            "precision": self.hits / max(self.possible, 1),
            "map": self.map / n,
            "ndcg": self.ndcg / n,
            "auc": self.auc / n,
        }


def precision_at_k(
    model: Any,
    train_user_items: Any,
    test_user_items: Any,
    K: int = 10,
    show_progress: bool = True,
    num_threads: int = 1,
) -> float:
    """Return the precision of :func:`ranking_metrics_at_k`."""
    return ranking_metrics_at_k(model, train_user_items, test_user_items, K, show_progress)["precision"]


def mean_average_precision_at_k(
    model: Any,
    train_user_items: Any,
    test_user_items: Any,
    K: int = 10,
    show_progress: bool = True,
    num_threads: int = 1,
) -> float:
    """Return the mean average precision of :func:`ranking_metrics_at_k`."""
    return ranking_metrics_at_k(model, train_user_items, test_user_items, K, show_progress)["map"]


def ndcg_at_k(
    model: Any,
    train_user_items: Any,
    test_user_items: Any,
    K: int = 10,
    show_progress: bool = True,
    num_threads: int = 1,
) -> float:
    """Return the normalized discounted cumulative gain of :func:`ranking_metrics_at_k`."""
    return ranking_metrics_at_k(model, train_user_items, test_user_items, K, show_progress)["ndcg"]


def AUC_at_k(
    model: Any,
    train_user_items: Any,
    test_user_items: Any,
    K: int = 10,
    show_progress: bool = True,
    num_threads: int = 1,
) -> float:
    """Return the area under the curve of :func:`ranking_metrics_at_k`."""
    return ranking_metrics_at_k(model, train_user_items, test_user_items, K, show_progress)["auc"]


def _ndcg_of_hidden(model: Any, user_items: Any) -> float:
    """Hide a third of each row, at least one value of two, and find it from the rest."""
    counts = np.diff(user_items.indptr)
    hidden = np.where(counts >= 2, np.maximum(counts // 3, 1), 0)
    known, held = _hold_out(user_items, hidden, np.random.default_rng(0))
    users = np.flatnonzero(np.diff(held.indptr))
    sums = _Sums(min(10, user_items.shape[1]), user_items.shape[1])
    for first in range(0, len(users), USERS_AT_ONCE):
        some = users[first : first + USERS_AT_ONCE]
        ids, _ = model.recommend(np.zeros(len(some), np.int64), known[some], N=sums.k, recalculate_user=True)
        sums.add(ids, held[some])
    return sums.means()["ndcg"]
