"""Predicting ratings, and the probability that an item is taken."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp

import recmill


def ratings() -> sp.csr_matrix:
    """Ratings from 1 to 5 that a user's and an item's kind decide."""
    rng = np.random.default_rng(3)
    agree = (np.arange(80)[:, None] + np.arange(40)[None, :]) % 2 == 0
    values = np.where(agree, rng.integers(4, 6, agree.shape), rng.integers(1, 3, agree.shape))
    return sp.csr_matrix((values * (rng.random(agree.shape) < 0.5)).astype(np.float32))


def test_ratings_are_predicted_within_their_range():
    seen = ratings()
    for solver in ("sgd", "als"):
        model = recmill.Svd(factors=8, iterations=60, learning_rate=0.02, solver=solver, random_state=0)
        model.fit(seen, show_progress=False)
        users, items = seen.nonzero()
        predicted = model.predict(users, items)
        assert predicted.dtype == np.float32 and predicted.min() >= 1 and predicted.max() <= 5
        assert np.sqrt(np.mean((predicted - np.asarray(seen[users, items]).ravel()) ** 2)) < 0.8, solver
    # The value before it is clipped is what a list's score is: the mean, the biases, and the product.
    scores = dict(zip(*model.recommend(3, N=40, filter_already_liked_items=False)))
    products = model.item_factors @ model.user_factors[3]
    assert np.allclose([scores[item] for item in range(40)], products + seen.data.mean(), atol=1e-4)


def test_ratings_by_id_and_of_those_who_are_not_known():
    seen = ratings().tocoo()
    table = {"who": [f"u{u}" for u in seen.row], "what": seen.col, "stars": seen.data}
    model = recmill.Svd(factors=4, random_state=0).fit(
        table, user="who", item="what", value="stars", show_progress=False
    )
    both = model.predict(["u3", "nobody", "u3"], [5, 5, 999])
    assert both.shape == (3,) and np.isfinite(both).all()
    assert model.predict(["u3"], [5])[0] == both[0]
    with pytest.raises(ValueError, match="as many"):
        model.predict(["u3"], [5, 6])


def test_ratings_of_indices_that_there_are_not():
    model = recmill.Svd(factors=2, iterations=1, random_state=0).fit(ratings(), show_progress=False)
    with pytest.raises(IndexError, match="user 80 is out of range"):
        model.predict([80], [0])


def test_logistic_factors_are_laid_out_as_in_implicit(likes):
    model = recmill.LogisticMatrixFactorization(factors=6, iterations=40, random_state=2, device="cpu").fit(
        likes, False
    )
    users, items = model.user_factors, model.item_factors
    assert users.shape == (120, 8) and items.shape == (60, 8)
    assert (users[:, -2] == 1).all() and (users[:, -1] == 0).all() and (items[:, -1] == 1).all()
    ids, scores = model.recommend(4, likes[[4]], N=5)
    assert np.allclose(scores, items[ids] @ users[4], atol=1e-5)
    # Even users like even items; few have as few as three left.
    everybody = np.arange(120)
    for folds_in in (False, True):
        ids, _ = model.recommend(everybody, likes, N=3, recalculate_user=folds_in)
        assert ((ids + everybody[:, None]) % 2 == 0).mean() > 0.97


def test_implicit_settings_of_logistic_factors_are_warned_of(likes):
    with pytest.warns(recmill.ParameterWarning, match="a step is of one pair here"):
        recmill.LogisticMatrixFactorization(learning_rate=1.0, iterations=1, device="cpu").fit(likes, False)
