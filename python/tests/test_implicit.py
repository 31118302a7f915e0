"""The behaviour that implicit documents, on numbers that are worked out here."""

import numpy as np
import pytest
import scipy.sparse as sp

import recmill
from recmill import als as als_module
from recmill.cpu.als import calculate_loss
from recmill.nearest_neighbours import all_pairs_knn, bm25_weight, tfidf_weight

LOWEST = -np.finfo(np.float32).max


def factors_of(users, items, **params):
    model = recmill.AlternatingLeastSquares(device="cpu", **params)
    model.user_factors = np.asarray(users, np.float32)
    model.item_factors = np.asarray(items, np.float32)
    return model


@pytest.fixture
def plane():
    """Two users and four items in the plane."""
    return factors_of([[1, 0], [0, 1]], [[0.9, 0.1], [0.2, 0.8], [0.7, 0.2], [0.1, 0.3]])


def test_scores_are_dot_products_of_the_factors(plane):
    ids, scores = plane.recommend(0, filter_already_liked_items=False, N=4)
    assert ids.tolist() == [0, 2, 1, 3] and ids.dtype == np.int32
    np.testing.assert_allclose(scores, [0.9, 0.7, 0.2, 0.1], rtol=1e-6)
    assert scores.dtype == np.float32


def test_there_are_always_n_answers_and_what_is_left_over_is_minus_one(plane):
    row = sp.csr_matrix(np.array([[1, 0, 1, 0]], np.float32))
    ids, scores = plane.recommend(0, row, N=6)
    assert ids.tolist() == [1, 3, -1, -1, -1, -1]
    assert scores[2:].tolist() == [LOWEST] * 4
    ids, scores = plane.recommend([0, 1], sp.vstack([row, row]).tocsr(), N=3)
    assert ids.tolist() == [[1, 3, -1], [1, 3, -1]]
    ids, _ = plane.recommend([], row[:0], N=3)
    assert ids.shape == (0, 3)


def test_zero_and_negative_values_are_liked_items_too(plane):
    """What has an entry was had: implicit leaves it out whatever its value."""
    row = sp.csr_matrix((np.array([0.0, -1.0], np.float32), ([0, 0], [0, 2])), shape=(1, 4))
    assert plane.recommend(0, row, N=2)[0].tolist() == [1, 3]


def test_item_filters_on_matrix_rows(plane):
    row = sp.csr_matrix((1, 4), dtype=np.float32)
    assert plane.recommend(0, row, N=2, items=[3, 1])[0].tolist() == [1, 3]
    assert plane.recommend(0, row, N=2, filter_items=[0])[0].tolist() == [2, 1]
    for bad in ({"items": [4]}, {"items": [-1]}, {"filter_items": [17]}):
        with pytest.raises(IndexError, match="the model has 4 items"):
            plane.recommend(0, row, **bad)


def test_similar_items_and_users_are_ranked_by_cosine(plane):
    ids, scores = plane.similar_items(0, N=3)
    assert ids.tolist() == [0, 2, 3]
    expected = [1.0, 0.65 / np.sqrt(0.82 * 0.53), 0.12 / np.sqrt(0.82 * 0.10)]
    np.testing.assert_allclose(scores, expected, rtol=1e-5)
    assert plane.similar_items(0, N=3, items=[3, 1])[0].tolist() == [3, 1, -1]
    ids, scores = plane.similar_users(1, N=2)
    assert ids.tolist() == [1, 0]
    np.testing.assert_allclose(scores, [1, 0], atol=1e-6)


def test_a_fitted_user_minimises_the_objective(als, likes):
    """Confidence is alpha times the value: no 1 is added, unlike in the paper."""
    items = als.item_factors.astype(np.float64)
    for user in (0, 41):
        row = likes[user]
        own = items[row.indices]
        system = items.T @ items + (own.T * (als.alpha * row.data - 1)) @ own + als.regularization * np.eye(12)
        expected = np.linalg.solve(system, own.T @ (als.alpha * row.data))
        np.testing.assert_allclose(als.recalculate_user(user, row), expected, rtol=2e-3, atol=1e-5)
        np.testing.assert_allclose(als.user_factors[user], expected, rtol=2e-3, atol=1e-5)


def test_confidence_below_one_and_below_zero(likes):
    values = likes.copy()
    values.data = np.where(np.arange(values.nnz) % 5 == 0, -values.data, 0.4 * values.data)
    model = recmill.AlternatingLeastSquares(factors=6, iterations=4, alpha=0.5, random_state=1, device="cpu")
    model.fit(values, False)
    items, row = model.item_factors.astype(np.float64), values[9]
    own, weight = items[row.indices], 0.5 * np.abs(row.data)
    system = items.T @ items + (own.T * (weight - 1)) @ own + 0.01 * np.eye(6)
    expected = np.linalg.solve(system, own.T @ (weight * (row.data > 0)))
    np.testing.assert_allclose(model.user_factors[9], expected, rtol=2e-3, atol=1e-5)


def test_the_loss_is_the_weighted_error_over_all_pairs():
    weights = sp.csr_matrix(np.array([[2.0, 0, 0], [0, -3.0, 1.0]], np.float32))
    users, items = np.array([[1.0], [0.5]]), np.array([[1.0], [0.2], [0.4]])
    error = 2 * (1 - 1) ** 2 + 0.2**2 + 0.4**2 + 0.5**2 + 3 * (0.1) ** 2 + (1 - 0.2) ** 2
    error += 0.1 * (1 + 0.25 + 1 + 0.04 + 0.16)
    assert calculate_loss(weights, users, items, 0.1) == pytest.approx(error / (6 + 6 - 3), rel=1e-6)


def test_explain_adds_up_to_the_score(als, likes):
    score = float(als.recalculate_user(7, likes[7]) @ als.item_factors[0])
    total, contributions, weights = als.explain(7, likes, 0, N=5)
    assert total == pytest.approx(score, rel=1e-3)
    assert len(contributions) == 5 and {item for item, _ in contributions} <= set(likes[7].indices.tolist())
    assert [value for _, value in contributions] == sorted((value for _, value in contributions), reverse=True)
    everything = als.explain(7, likes[[7]], 0, user_weights=weights, N=100)
    assert sum(value for _, value in everything[1]) == pytest.approx(total, rel=1e-9)


def test_partial_fits_make_room_for_who_comes_later(likes):
    model = recmill.AlternatingLeastSquares(factors=6, iterations=5, random_state=1, device="cpu").fit(likes, False)
    before = model.user_factors.copy()
    model.partial_fit_users([3, 125], likes[[10, 11]])
    assert model.user_factors.shape == (126, 6) and model.n_users_ == 126
    np.testing.assert_allclose(model.user_factors[125], model.recalculate_user(0, likes[11]), rtol=1e-5)
    np.testing.assert_array_equal(model.user_factors[4], before[4])
    assert not model.user_factors[120].any()
    by_item = likes.T.tocsr()
    wider = sp.csr_matrix((by_item[[2]].data, by_item[[2]].indices, by_item[[2]].indptr), shape=(1, 126))
    model.partial_fit_items([61], wider)
    assert model.item_factors.shape == (62, 6)
    np.testing.assert_allclose(model.item_factors[61], model.recalculate_item(0, wider), rtol=1e-5)
    assert model.recommend(125, sp.csr_matrix((1, 62), dtype=np.float32), N=3)[0].shape == (3,)
    with pytest.raises(ValueError, match="1 row for every"):
        model.partial_fit_users([1, 2], likes[[1]])


def test_an_item_that_is_recalculated_finds_its_like(als, likes):
    by_item = likes.T.tocsr()
    ids, scores = als.similar_items(4, N=3, recalculate_item=True, item_users=by_item[[4]])
    assert ids[0] == 4 and scores[0] == pytest.approx(1.0, abs=1e-2)


def test_bpr_has_its_bias_in_the_last_column(likes):
    model = recmill.BayesianPersonalizedRanking(factors=4, iterations=3, random_state=0, device="cpu").fit(likes, False)
    assert model.user_factors.shape == (120, 5) and model.item_factors.shape == (60, 5)
    assert (model.user_factors[:, -1] == 1).all()
    ids, scores = model.recommend(8, N=4)
    np.testing.assert_allclose(scores, model.item_factors[ids] @ model.user_factors[8], rtol=1e-4, atol=1e-6)


def test_similarities_are_the_products_of_weighted_columns(likes):
    model = recmill.CosineRecommender(K=6).fit(likes, False)
    columns = likes.toarray().astype(np.float64)
    cosines = columns.T @ columns / np.outer(np.linalg.norm(columns, axis=0), np.linalg.norm(columns, axis=0))
    for item in (0, 31):
        best = np.argsort(-cosines[item], kind="stable")[:6]
        row = model.similarity[[item]]
        assert sorted(row.indices.tolist()) == sorted(best.tolist())
        np.testing.assert_allclose(row.toarray()[0][best], cosines[item][best], rtol=1e-9)
        ids, scores = model.similar_items(item, N=6)
        assert ids.tolist() == best.tolist()
        np.testing.assert_allclose(scores, cosines[item][best], rtol=1e-6)
    ids, scores = model.recommend(2, likes[[2]], N=3)
    sums = np.asarray((likes[[2]] @ model.similarity).todense())[0]
    sums[likes[2].indices] = 0
    np.testing.assert_allclose(scores, np.sort(sums)[::-1][:3], rtol=1e-5)
    assert scores.dtype == np.float64


def test_items_that_no_path_leads_to_are_no_answer():
    apart = sp.csr_matrix(np.array([[1, 1, 1, 0, 0], [0, 0, 0, 1, 1], [1, 1, 0, 0, 0]], np.float32))
    model = recmill.ItemItemRecommender(K=5).fit(apart, False)
    ids, scores = model.recommend(2, apart[[2]], N=4)
    assert ids.tolist() == [2] and scores.tolist() == [2.0]
    ids, scores = model.recommend([2], apart[[2]], N=4)
    assert ids.tolist() == [[2, -1, -1, -1]]


def test_weights_are_those_of_the_formulas():
    counts = sp.csr_matrix(np.array([[1.0, 4.0, 0], [0, 1.0, 2.0]]))
    idf = np.log(2.0) - np.log1p([1, 2, 1])
    np.testing.assert_allclose(tfidf_weight(counts).toarray(), np.sqrt(counts.toarray()) * idf)
    length = 0.2 + 0.8 * np.array([5.0, 3.0]) / 4.0
    expected = counts.toarray() * 101 / (100 * length[:, None] + counts.toarray()) * idf
    np.testing.assert_allclose(bm25_weight(counts).toarray(), expected)


def test_all_pairs_knn_keeps_the_k_largest():
    users = sp.csr_matrix(np.array([[1.0, 2.0, 0], [0, 1.0, 3.0]]))
    assert all_pairs_knn(users, K=2).toarray().tolist() == [[1, 2, 0], [0, 5, 3], [0, 3, 9]]


def test_module_paths_are_those_of_implicit():
    from recmill.als import AlternatingLeastSquares
    from recmill.bpr import BayesianPersonalizedRanking
    from recmill.evaluation import leave_k_out_split, ndcg_at_k, precision_at_k
    from recmill.nearest_neighbours import BM25Recommender, CosineRecommender, TFIDFRecommender
    from recmill.utils import ParameterWarning

    assert AlternatingLeastSquares is als_module.AlternatingLeastSquares is recmill.AlternatingLeastSquares
    assert issubclass(ParameterWarning, Warning)


def test_what_is_not_csr_is_converted_with_a_warning(likes):
    from recmill.utils import ParameterWarning

    model = recmill.AlternatingLeastSquares(factors=4, iterations=1, random_state=0, device="cpu")
    with pytest.warns(ParameterWarning, match="converted to CSR"):
        model.fit(likes.tocoo(), False)


def test_callbacks_hear_of_every_iteration(likes):
    heard = []
    model = recmill.AlternatingLeastSquares(
        factors=4, iterations=5, random_state=0, device="cpu", calculate_training_loss=True
    )
    model.fit(likes, False, lambda iteration, seconds, loss: heard.append((iteration, seconds, loss)))
    assert [iteration for iteration, _, _ in heard] == [0, 1, 2, 3, 4]
    losses = [loss for _, _, loss in heard]
    assert losses == sorted(losses, reverse=True) and losses == model.loss_curve_


def test_what_a_callback_raises_comes_out(likes):
    def stop(iteration, seconds, loss):
        raise KeyError("enough")

    model = recmill.AlternatingLeastSquares(factors=4, iterations=50, random_state=0, device="cpu")
    with pytest.raises(KeyError, match="enough"):
        model.fit(likes, False, stop)
    assert model.fit(likes, False).recommend(0, N=1)[0].shape == (1,)
