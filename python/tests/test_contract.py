"""What every model promises, whatever it is."""

import copy
import pickle

import numpy as np
import pytest
import scipy.sparse as sp

import recmill

PERSONAL = (
    recmill.AlternatingLeastSquares,
    recmill.BayesianPersonalizedRanking,
    recmill.LogisticMatrixFactorization,
    recmill.Ease,
    recmill.ItemItemRecommender,
)


def test_the_missing_items_of_a_taste_come_first(model, likes):
    if not isinstance(model, PERSONAL):
        pytest.skip("everybody gets the same, or ratings of liked items alone tell no taste")
    right = 0
    for user in range(likes.shape[0]):
        ids, _ = model.recommend(user, likes[[user]], N=1)
        right += int(ids[0]) % 2 == user % 2
    assert right / likes.shape[0] > 0.9


def test_many_users_are_answered_as_one_by_one(model, likes):
    users = np.array([3, 0, 77, 3])
    ids, scores = model.recommend(users, likes[users], N=4)
    assert ids.shape == scores.shape == (4, 4)
    for row, user in enumerate(users):
        one_ids, one_scores = model.recommend(int(user), likes[[user]], N=4)
        np.testing.assert_array_equal(ids[row][: len(one_ids)], one_ids)
        np.testing.assert_array_equal(scores[row][: len(one_ids)], one_scores)
        assert (ids[row][len(one_ids) :] == -1).all()
    assert np.all(np.diff(scores, axis=1) <= 0)


def test_filters_keep_items_out(model, likes):
    liked = set(likes[5].indices.tolist())
    ids, _ = model.recommend(5, likes[[5]], N=60)
    assert liked.isdisjoint(ids[ids >= 0].tolist())
    ids, _ = model.recommend(5, likes[[5]], N=60, filter_items=[1, 3, 1])
    assert {1, 3}.isdisjoint(ids.tolist()) and liked.isdisjoint(ids[ids >= 0].tolist())
    only = [9, 4, 11, 7, 2]
    ids, _ = model.recommend(5, likes[[5]], N=60, items=only, filter_already_liked_items=False)
    assert set(ids[ids >= 0].tolist()) <= set(only)
    ids, _ = model.recommend(5, likes[[5]], N=60, filter_already_liked_items=False)
    assert not liked.isdisjoint(ids.tolist())


def test_without_user_items_the_fitted_ones_count(model, likes):
    for user in (0, 11):
        with_rows, without = model.recommend(user, likes[[user]], N=5), model.recommend(user, N=5)
        np.testing.assert_array_equal(with_rows[0], without[0])
        np.testing.assert_array_equal(with_rows[1], without[1])


def test_similar_items_begin_with_the_item_itself(model):
    if isinstance(model, recmill.MostPopular):
        pytest.skip("no item is like another")
    ids, scores = model.similar_items(6, N=5)
    assert ids[0] == 6 or type(model) is recmill.ItemItemRecommender or isinstance(model, recmill.BM25Recommender)
    assert np.all(np.diff(scores) <= 0)
    many, _ = model.similar_items(np.array([6, 7]), N=5)
    np.testing.assert_array_equal(many[0][: len(ids)], ids)
    assert 6 not in model.similar_items(6, N=5, filter_items=[6])[0]


def test_saved_pickled_and_copied_models_are_the_same(model, likes, tmp_path):
    expected = model.recommend(np.arange(9), likes[:9], N=6)
    version = model.save(tmp_path / "model")
    assert version.endswith("1")
    opened = recmill.load(tmp_path / "model", verify=True)
    others = [opened, type(model).load(tmp_path / "model")] if type(opened) is type(model) else [opened]
    for other in [*others, pickle.loads(pickle.dumps(model)), copy.deepcopy(model)]:
        found = other.recommend(np.arange(9), likes[:9], N=6)
        np.testing.assert_array_equal(found[0], expected[0])
        np.testing.assert_allclose(found[1], expected[1], rtol=1e-6)
        np.testing.assert_array_equal(other.recommend(4, N=6)[0], model.recommend(4, N=6)[0])


def test_the_same_seed_gives_the_same_bytes(model, likes):
    again = copy.deepcopy(model).fit(likes, False)
    for found, expected in zip(again.recommend(np.arange(9), likes[:9]), model.recommend(np.arange(9), likes[:9])):
        np.testing.assert_array_equal(found, expected)


def test_scipy_formats_are_one_and_the_same(model, likes):
    expected = model.recommend(np.arange(5), likes[:5])
    for form in (sp.coo_array, sp.csc_matrix, sp.csr_array, sp.lil_matrix):
        found = model.recommend(np.arange(5), form(likes[:5]))
        np.testing.assert_array_equal(found[0], expected[0])


def test_a_model_is_a_scikit_learn_estimator(model):
    from sklearn.base import clone

    params = model.get_params()
    assert clone(model).get_params() == params
    assert type(model)(**params).get_params() == params
    assert eval(repr(model), vars(recmill)).get_params() == params
    with pytest.raises(ValueError, match="has no parameter 'lambda_'"):
        model.set_params(lambda_=1)


def test_nobody_is_answered_before_fitting(model):
    fresh = type(model)(**model.get_params())
    for ask in (lambda: fresh.recommend(0), lambda: fresh.similar_items(0), lambda: fresh.save("nowhere")):
        with pytest.raises(recmill.NotFittedError, match="not fitted yet"):
            ask()


def test_threads_may_ask_one_model(model, likes):
    from concurrent.futures import ThreadPoolExecutor

    expected = model.recommend(np.arange(100), likes[:100], N=7)

    def ask(_):
        return model.recommend(np.arange(100), likes[:100], N=7)

    with ThreadPoolExecutor(8) as pool:
        for found in pool.map(ask, range(24)):
            np.testing.assert_array_equal(found[0], expected[0])
            np.testing.assert_array_equal(found[1], expected[1])


def test_a_new_user_is_known_by_what_they_had(model, likes):
    if not isinstance(model, PERSONAL):
        pytest.skip("everybody gets the same, or ratings of liked items alone tell no taste")
    row = sp.csr_matrix((np.ones(4, np.float32), ([0] * 4, [1, 7, 21, 33])), shape=(1, likes.shape[1]))
    ids, _ = model.recommend(10**9, row, N=3, recalculate_user=True)
    assert all(item % 2 == 1 for item in ids)
