"""Made-up interactions that every test may use."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp

import recmill


def checkerboard(n_users: int = 120, n_items: int = 60) -> sp.csr_matrix:
    """Even users like even items, odd ones odd ones; three in ten of what they like is missing."""
    rng = np.random.default_rng(7)
    liked = (np.arange(n_users)[:, None] + np.arange(n_items)[None, :]) % 2 == 0
    values = rng.integers(1, 4, liked.shape) * (liked & (rng.random(liked.shape) < 0.7))
    return sp.csr_matrix(values.astype(np.float32))


@pytest.fixture(scope="session")
def likes() -> sp.csr_matrix:
    return checkerboard()


@pytest.fixture(scope="session")
def als(likes):
    return recmill.AlternatingLeastSquares(factors=12, iterations=8, random_state=3, device="cpu").fit(likes, False)


def every_model():
    """One of each model, small."""
    cpu = {"device": "cpu", "random_state": 5}
    return [
        recmill.AlternatingLeastSquares(factors=8, iterations=6, **cpu),
        recmill.AlternatingLeastSquares(factors=8, iterations=6, unobserved_weight=0.3, **cpu),
        recmill.BayesianPersonalizedRanking(factors=8, iterations=60, learning_rate=0.05, **cpu),
        recmill.LogisticMatrixFactorization(factors=8, iterations=40, **cpu),
        recmill.MatrixFactorization(factors=8, iterations=40, learning_rate=0.02, batch_size=256, n_negatives=32, **cpu),
        recmill.Warp(factors=8, **cpu),
        recmill.Svd(factors=8, iterations=40, **cpu),
        recmill.Ease(**cpu),
        recmill.MostPopular(**cpu),
        recmill.CosineRecommender(K=30),
        recmill.TFIDFRecommender(K=30),
        recmill.BM25Recommender(K=30),
        recmill.ItemItemRecommender(K=30),
    ]


@pytest.fixture(params=every_model(), ids=lambda model: type(model).__name__)
def model(request, likes):
    """Each model in turn, fitted."""
    return request.param.fit(likes, False)
