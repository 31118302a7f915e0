"""scikit-learn, implicit's files, evaluation."""

import numpy as np
import pytest
import scipy.sparse as sp

import recmill
from recmill import evaluation


def test_grid_search_chooses_the_better_model(likes):
    from sklearn.model_selection import GridSearchCV

    model = recmill.AlternatingLeastSquares(factors=4, iterations=5, random_state=0, device="cpu")
    search = GridSearchCV(model, {"regularization": [0.01, 1e6], "factors": [4]}, cv=3, error_score="raise")
    search.fit(likes, show_progress=False)
    assert search.best_params_["regularization"] == 0.01
    assert search.best_estimator_.recommend(0, likes[[0]], N=1)[0][0] % 2 == 0


def test_score_is_high_where_the_taste_is_plain(als, likes):
    popular = recmill.MostPopular(device="cpu").fit(likes, False)
    assert als.score(likes) > popular.score(likes) + 0.2


class ImplicitAls:
    """What a fitted model of implicit has."""

    def __init__(self, users, items):
        self.user_factors, self.item_factors = users, items
        self.factors, self.regularization, self.alpha, self.iterations = users.shape[1], 0.5, 2.0, 7
        self.use_cg, self.num_threads, self._YtY = True, 0, None


def test_factors_of_implicit_are_taken_over(tmp_path):
    rng = np.random.default_rng(0)
    users, items = rng.normal(size=(20, 5)).astype(np.float32), rng.normal(size=(30, 5)).astype(np.float32)
    model = recmill.from_implicit(ImplicitAls(users, items))
    assert isinstance(model, recmill.AlternatingLeastSquares)
    assert (model.alpha, model.regularization, model.iterations, model.base_confidence) == (2.0, 0.5, 7, 0.0)
    likes = sp.random(20, 30, 0.2, "csr", np.float32, random_state=1)
    scores = users @ items.T
    scores[likes.nonzero()] = -np.inf
    ids, found = model.recommend(np.arange(20), likes, N=5)
    np.testing.assert_array_equal(ids, np.argsort(-scores, axis=1)[:, :5])
    np.testing.assert_allclose(found, -np.sort(-scores, axis=1)[:, :5], rtol=1e-4)
    np.savez(tmp_path / "als.npz", user_factors=users, item_factors=items, alpha=2.0, regularization=0.5, factors=5)
    loaded = recmill.AlternatingLeastSquares.load(tmp_path / "als.npz")
    np.testing.assert_array_equal(loaded.recommend(np.arange(20), likes, N=5)[0], ids)


def test_bias_and_similarity_of_implicit_are_taken_over(likes):
    rng = np.random.default_rng(0)

    class Bpr:
        user_factors = np.column_stack([rng.normal(size=(20, 4)), np.ones(20)]).astype(np.float32)
        item_factors = rng.normal(size=(30, 5)).astype(np.float32)

        def __init__(self):
            self.verify_negative_samples, self.learning_rate = True, 0.02

    model = recmill.from_implicit(Bpr())
    assert isinstance(model, recmill.BayesianPersonalizedRanking) and model.factors == 4
    np.testing.assert_array_equal(model.item_factors, Bpr.item_factors)
    scores = Bpr.user_factors @ Bpr.item_factors.T
    np.testing.assert_array_equal(model.recommend(np.arange(20), N=4)[0], np.argsort(-scores, axis=1)[:, :4])

    ours = recmill.CosineRecommender(K=7).fit(likes, False)

    class CosineRecommender:
        def __init__(self):
            self.similarity, self.K = ours.similarity, 7

    knn = recmill.from_implicit(CosineRecommender())
    assert type(knn) is recmill.CosineRecommender and knn.K == 7
    np.testing.assert_array_equal(knn.recommend(3, likes[[3]])[0], ours.recommend(3, likes[[3]])[0])
    with pytest.raises(ValueError, match="no fitted model of implicit"):
        recmill.from_implicit(object.__new__(type("Empty", (), {"item_factors": None})))


def test_factors_of_another_kind_are_asked_and_kept_but_not_solved(likes, tmp_path):
    rng = np.random.default_rng(0)

    class Lmf:
        user_factors = rng.normal(size=(120, 6)).astype(np.float32)
        item_factors = rng.normal(size=(60, 6)).astype(np.float32)

        def __init__(self):
            self.neg_prop = 30

    model = recmill.from_implicit(Lmf())
    scores = Lmf.user_factors @ Lmf.item_factors.T
    np.testing.assert_array_equal(model.recommend(np.arange(120), N=4)[0], np.argsort(-scores, axis=1)[:, :4])
    assert recmill.load(model.save(tmp_path / "model")).n_items_ == 60
    refused = (
        lambda: model.fit(likes),
        lambda: model.recommend(0, likes[[0]], recalculate_user=True),
        lambda: model.recommend(0, likes[[0]], 10, True, None, True),
        lambda: model.recalculate_user(0, likes[[0]]),
        lambda: model.partial_fit_users([0], likes[[0]]),
        lambda: model.explain(0, likes, 1),
    )
    for ask in refused:
        with pytest.raises(NotImplementedError, match="taken over"):
            ask()


class Fixed:
    """Recommends the same to everybody."""

    def __init__(self, ids):
        self.ids = ids

    def recommend(self, users, rows, N):
        return np.tile(np.asarray(self.ids)[:N], (len(users), 1)), None


def test_metrics_worked_out_by_hand():
    test = sp.csr_matrix(np.array([[0, 1, 0, 1, 0], [1, 0, 0, 0, 0], [0, 0, 0, 0, 0]], np.float32))
    train = sp.csr_matrix((3, 5), dtype=np.float32)
    found = evaluation.ranking_metrics_at_k(Fixed([1, 2, 0]), train, test, K=3, show_progress=False)
    # First user: a hit at rank 1 of two; second: a hit at rank 3 of one.
    ideal = 1 + 1 / np.log2(3)
    assert found["precision"] == pytest.approx(2 / (2 + 1))
    assert found["map"] == pytest.approx((1 / 2 + 1 / 3) / 2)
    assert found["ndcg"] == pytest.approx((1 / ideal + (1 / np.log2(4)) / 1) / 2)
    first = (1 + 1 + (1 + 2) / 2 * (3 - 2)) / (2 * 3)
    second = (0 + 0 + (1 + 1) / 2 * (4 - 2)) / (1 * 4)
    assert found["auc"] == pytest.approx((first + second) / 2)
    assert evaluation.ndcg_at_k(Fixed([1, 2, 0]), train, test, K=3, show_progress=False) == found["ndcg"]
    with pytest.raises(ValueError, match="of shape"):
        evaluation.ranking_metrics_at_k(Fixed([1]), train[:2], test)


def test_splits_hold_out_what_they_say(likes):
    train, test = evaluation.train_test_split(likes, 0.75, random_state=1)
    np.testing.assert_array_equal((train + test).toarray(), likes.toarray())
    assert 0.7 < train.nnz / likes.nnz < 0.8
    train, test = evaluation.leave_k_out_split(likes, K=2, train_only_size=0.25, random_state=1)
    np.testing.assert_array_equal((train + test).toarray(), likes.toarray())
    held = np.diff(test.indptr)
    assert sorted(set(held.tolist())) == [0, 2] and (held == 0).sum() == 30
    small = sp.csr_matrix(np.array([[1, 1, 0], [1, 1, 1]], np.float32))
    assert np.diff(evaluation.leave_k_out_split(small, K=1)[1].indptr).tolist() == [0, 1]
    times = sp.csr_matrix(np.array([[5, 9, 0], [8, 8, 1]], np.float32))
    assert evaluation.leave_last_out(small, times)[1].toarray().tolist() == [[0, 1, 0], [0, 1, 0]]
    for bad in ({"K": 0}, {"train_only_size": 1.0}):
        with pytest.raises(ValueError, match="needs to be"):
            evaluation.leave_k_out_split(small, **bad)


def test_what_was_opened_is_saved_with_all_that_belongs_to_it(als, tmp_path):
    """A model that came from a directory goes to another with the same files: schema, metrics, epochs, attributes."""
    first = als.save(tmp_path / "first")
    again = recmill.load(first).save(tmp_path / "again")
    for name in ("history.jsonl", "history.safetensors", "model.safetensors", "users.names"):
        assert (tmp_path / "first/versions/1" / name).read_bytes() == (
            tmp_path / "again/versions/1" / name
        ).read_bytes()
    assert again.endswith("1")


def test_use_gpu_counts_whenever_it_is_set(likes):
    model = recmill.AlternatingLeastSquares(factors=2).set_params(use_gpu=True)
    assert model.get_params()["device"] == "auto"
    if not any(device.name == "cuda:0" and device.usable for device in recmill.devices()):
        with pytest.raises(RuntimeError, match="cuda:0 cannot be used"):
            model.fit(likes, False)


def test_devices_are_listed():
    found = recmill.devices()
    assert found[0] == recmill.Device("cpu", found[0].description, True, "", False)
