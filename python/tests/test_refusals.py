"""Everything that must be refused, with what is wrong in the message, and nothing that crashes."""

import numpy as np
import pytest
import scipy.sparse as sp

import recmill


def small(**params):
    return recmill.AlternatingLeastSquares(factors=3, iterations=2, random_state=0, device="cpu", **params)


def matrix(values, dtype=np.float32):
    return sp.csr_matrix(np.asarray(values, dtype))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_value_that_is_no_number_is_named_with_its_place(bad):
    values = matrix([[1, 2, 0], [0, 1, 1]])
    values.data[2] = bad
    with pytest.raises(ValueError, match=r"row 1, column 1: expected a finite number, found"):
        small().fit(values, False)


def test_a_value_too_large_for_float32_is_refused():
    with pytest.raises(ValueError, match="expected a finite number, found `inf`"):
        small().fit(matrix([[1, 1e300], [1, 0]], np.float64), False)


@pytest.mark.parametrize("dtype", [np.bool_, np.int8, np.int64, np.uint16, np.float32, np.float64])
def test_every_kind_of_number_is_the_same(likes, dtype):
    expected = small().fit(likes, False)
    found = small().fit(likes.astype(dtype).astype(likes.dtype) if dtype is np.bool_ else likes.astype(dtype), False)
    if dtype is np.bool_:
        expected = small().fit(likes.astype(bool), False)
    np.testing.assert_array_equal(found.user_factors, expected.user_factors)


def test_numbers_that_are_not_real_are_refused():
    with pytest.raises(ValueError, match="needs numbers, not complex"):
        small().fit(matrix([[1, 2j]], np.complex64), False)
    for bad in ([[1, 0]], np.ones((2, 2)), "likes", None, 7):
        with pytest.raises(ValueError, match="needs to be a sparse matrix"):
            small().fit(bad, False)


def test_unsorted_and_repeated_columns_are_put_in_order():
    messy = sp.csr_matrix((np.array([1, 2, 3, 4], np.float32), [2, 0, 2, 1], [0, 3, 4]), shape=(2, 3))
    tidy = matrix([[2, 0, 4], [0, 4, 0]])
    before = messy.indices.copy()
    np.testing.assert_array_equal(small().fit(messy, False).user_factors, small().fit(tidy, False).user_factors)
    np.testing.assert_array_equal(messy.indices, before)
    model = small().fit(tidy, False)
    row = sp.csr_matrix((np.ones(3, np.float32), [2, 0, 2], [0, 3]), shape=(1, 3))
    assert model.recommend(0, row, N=1)[0].tolist() == [1]


@pytest.mark.parametrize("shape", [(0, 5), (5, 0), (0, 0)])
def test_a_matrix_without_users_or_items_is_refused(shape):
    with pytest.raises(ValueError, match="no (users|items)"):
        small().fit(sp.csr_matrix(shape, dtype=np.float32), False)


def test_a_matrix_of_nothing_is_refused():
    with pytest.raises(ValueError, match="no interactions"):
        small().fit(sp.csr_matrix((4, 5), dtype=np.float32), False)
    for neighbours in (0, -1, 2.5):
        with pytest.raises(ValueError, match="K needs to be"):
            recmill.CosineRecommender(K=neighbours).fit(matrix([[1, 1], [1, 0]]), False)
    with pytest.raises(ValueError, match="nothing to learn from"):
        recmill.CosineRecommender().fit(sp.csr_matrix((4, 5), dtype=np.float32), False)


def test_columns_past_the_shape_are_refused():
    broken = matrix([[1, 0], [0, 1]])
    broken.indices[1] = 7
    with pytest.raises(ValueError, match="csr column"):
        small().fit(broken, False)
    broken.indices[1] = -1
    with pytest.raises(ValueError, match="csr column"):
        small().fit(broken, False)


def test_row_pointers_that_go_back_are_refused():
    broken = matrix([[1, 1], [0, 1], [1, 0]])
    broken.indptr[1] = 4
    with pytest.raises(ValueError, match="row pointers do not ascend"):
        small().fit(broken, False)


def test_users_and_items_are_not_swapped_unnoticed(als, likes):
    by_item = likes.T.tocsr()
    with pytest.raises(ValueError, match="120 columns, and the model was fitted with 120 users and 60 items"):
        als.recommend(0, by_item[[0]])
    with pytest.raises(ValueError, match="columns are users, expected `120`"):
        als.recalculate_item(0, likes[[0]])


@pytest.mark.parametrize("user", [120, -1, 2**31, 2**40, np.int64(500)])
def test_a_user_out_of_range_is_an_index_error(als, likes, user):
    with pytest.raises(IndexError, match=f"user {int(user)} is out of range: the model has 120 users"):
        als.recommend(user, likes[[0]])
    with pytest.raises(IndexError):
        als.similar_users(user)
    with pytest.raises(IndexError, match="user"):
        als.recommend([0, user], likes[[0, 1]])


def test_an_item_out_of_range_is_an_index_error(als):
    for item in (60, -1, 10**12):
        with pytest.raises(IndexError, match=f"item {item} is out of range: the model has 60 items"):
            als.similar_items(item)


@pytest.mark.parametrize("user", ["3", 3.0, None, [1.5], ["a"]])
def test_what_is_no_index_is_an_index_error(als, likes, user):
    with pytest.raises(IndexError, match="needs to be integers"):
        als.recommend(user, likes[[3]])


def test_one_row_for_every_user(als, likes):
    for users, rows in ((3, likes), ([3, 4], likes[[3]]), ([], likes[[3]])):
        with pytest.raises(ValueError, match="user_items must contain 1 row for every user"):
            als.recommend(users, rows)


@pytest.mark.parametrize("n", [-1, 1.5, "3", True, None])
def test_n_is_a_whole_number(als, likes, n):
    with pytest.raises(ValueError, match="N needs to be"):
        als.recommend(0, likes[[0]], N=n)


def test_n_may_be_0_and_beyond_the_catalogue_and_absurd(als, likes):
    assert als.recommend(0, likes[[0]], N=0)[0].shape == (0,)
    assert als.recommend(0, likes[[0]], N=1000)[0].shape == (1000,)
    with pytest.raises(ValueError, match="too many"):
        als.recommend([0, 1, 2, 3], likes[:4], N=2**62)
    with pytest.raises(MemoryError, match="2 rows of 1099511627776 answers take 17592186044416 bytes"):
        als.recommend([0, 1], likes[:2], N=2**40)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"factors": 0}, "factors must be from 1 to 65536, not `0`"),
        ({"factors": -3}, "factors needs to be at least 0"),
        ({"regularization": float("nan")}, "regularization needs to be a finite number, not nan"),
        ({"regularization": -1.0}, "regularization must be a number of at least 0"),
        ({"iterations": 0}, "iterations must be at least 1"),
        ({"alpha": 0.0}, "alpha must be a number above 0"),
        ({"random_state": -1}, "random_state needs to be from 0"),
        ({"num_threads": -2}, "num_threads needs to be at least 0"),
        ({"device": "gpu"}, "device: expected auto, cpu, cuda, cuda:N, wgpu or wgpu:N, found `gpu`"),
    ],
)
def test_hyper_parameters_are_checked(likes, params, message):
    model = recmill.AlternatingLeastSquares(**({"device": "cpu"} | params))
    with pytest.raises(ValueError, match=message):
        model.fit(likes, False)


def test_a_device_that_is_not_there_says_so(likes):
    model = recmill.AlternatingLeastSquares(device="cuda:63", factors=2)
    with pytest.raises(RuntimeError, match="cuda:63 cannot be used"):
        model.fit(likes, False)


def test_factors_of_two_lengths_wait_for_each_other(likes):
    model = recmill.AlternatingLeastSquares(device="cpu")
    model.user_factors = np.ones((4, 3), np.float32)
    with pytest.raises(recmill.NotFittedError):
        model.recommend(0)
    model.item_factors = np.ones((5, 2), np.float32)
    with pytest.raises(recmill.NotFittedError):
        model.recommend(0)
    model.item_factors = np.ones((5, 3), np.float32)
    assert model.recommend(0, N=2)[0].shape == (2,)
    with pytest.raises(ValueError, match="user_factors, row 1: expected finite numbers, found `NaN`"):
        model.user_factors = np.array([[1, 1, 1], [1, np.nan, 1]], np.float32)
    with pytest.raises(ValueError, match="of shape"):
        model.user_factors = np.ones(3, np.float32)


def test_factors_cannot_be_written_in_place(als):
    with pytest.raises(ValueError, match="read-only"):
        als.user_factors[0] = 0


def test_read_only_and_scattered_arrays_are_read(likes):
    expected = small().fit(likes, False).user_factors
    locked = likes.copy()
    for array in (locked.data, locked.indices, locked.indptr):
        array.flags.writeable = False
    np.testing.assert_array_equal(small().fit(locked, False).user_factors, expected)
    scattered = likes.copy()
    scattered.data = np.repeat(likes.data, 2)[::2]
    scattered.indices = np.repeat(likes.indices, 2)[::2]
    assert not scattered.data.flags.c_contiguous
    np.testing.assert_array_equal(small().fit(scattered, False).user_factors, expected)
    wide = likes.copy()
    wide.indices, wide.indptr = wide.indices.astype(np.int64), wide.indptr.astype(np.int64)
    np.testing.assert_array_equal(small().fit(wide, False).user_factors, expected)
    users = np.arange(20)[::3]
    users.flags.writeable = False
    assert small().fit(likes, False).recommend(users, N=2)[0].shape == (7, 2)


def test_a_model_does_not_change_with_the_matrix_it_was_fitted_on(likes):
    mine = likes.copy()
    model = small().fit(mine, False)
    expected = model.recommend(np.arange(10), N=5)[0]
    mine.indices[:] = 0
    mine.data[:] = np.nan
    np.testing.assert_array_equal(model.recommend(np.arange(10), N=5)[0], expected)


def test_files_that_are_no_model_are_refused(tmp_path, als):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        recmill.load(tmp_path / "nowhere")
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "a.txt").write_text("mine")
    with pytest.raises(OSError, match="notes"):
        recmill.load(tmp_path / "notes")
    with pytest.raises(OSError, match="the path of the model directory is empty"):
        als.save("")
    with pytest.raises(OSError, match="not empty and not a model directory"):
        als.save(tmp_path / "notes")
    assert (tmp_path / "notes" / "a.txt").read_text() == "mine"
    version = als.save(tmp_path / "model")
    config = tmp_path / "model" / "versions" / "1" / "config.json"
    assert version.endswith("1")
    config.write_bytes(config.read_bytes()[:-9])
    with pytest.raises(OSError, match="config"):
        recmill.load(tmp_path / "model")
    with pytest.raises(ValueError, match="a AlternatingLeastSquares, not a CosineRecommender"):
        als.save(tmp_path / "other")
        recmill.CosineRecommender.load(tmp_path / "other")


def test_a_broken_npz_is_refused(tmp_path):
    np.savez(tmp_path / "other.npz", a=np.ones(2))
    with pytest.raises(ValueError, match="no model of implicit, only a"):
        recmill.AlternatingLeastSquares.load(tmp_path / "other.npz")
    np.savez(tmp_path / "pickled.npz", user_factors=np.array([{}], object), item_factors=np.ones((2, 2)))
    with pytest.raises(ValueError, match="allow_pickle"):
        recmill.AlternatingLeastSquares.load(tmp_path / "pickled.npz")
    (tmp_path / "empty.npz").write_bytes(b"")
    with pytest.raises((OSError, ValueError, EOFError)):
        recmill.AlternatingLeastSquares.load(tmp_path / "empty.npz")


def test_what_a_kind_cannot_do_is_said(likes):
    knn = recmill.CosineRecommender().fit(likes, False)
    with pytest.raises(NotImplementedError, match="similar_users isn't implemented for CosineRecommender"):
        knn.similar_users(0)
    with pytest.raises(NotImplementedError, match="recalculate_item isn't supported by CosineRecommender"):
        knn.similar_items(0, recalculate_item=True, item_users=likes.T.tocsr()[[0]])


def test_hyper_parameters_of_the_wrong_kind_are_named(likes):
    cases = [
        ("K needs to be at most", lambda: recmill.CosineRecommender(K=2**70)),
        ("computes on the processor, not on 'cuda:0'", lambda: recmill.BM25Recommender(device="cuda:0")),
        (
            "learning_rate needs to be a number, not 'fast'",
            lambda: recmill.LogisticMatrixFactorization(learning_rate="fast"),
        ),
        (
            "negatives needs to be one of uniform, popularity, not 'zipf'",
            lambda: recmill.BayesianPersonalizedRanking(negatives="zipf"),
        ),
        ("random_state needs to be None, a whole number", lambda: recmill.AlternatingLeastSquares(random_state="seed")),
        ("device needs to be a text", lambda: recmill.AlternatingLeastSquares(device=None)),
        ("num_threads needs to be at most", lambda: recmill.AlternatingLeastSquares(num_threads=2**70)),
        ("solver needs to be one of", lambda: recmill.Svd(solver="magic")),
    ]
    for said, make in cases:
        with pytest.raises(ValueError, match=said):
            make().fit(likes, False)
    with pytest.raises(ValueError, match="keep needs to be at least 1"):
        recmill.MostPopular().fit(likes, False).save("nowhere", keep=0)


def test_negative_indices_and_swapped_sides_are_errors_everywhere(likes, als):
    ratings = recmill.Svd(factors=2, iterations=1, random_state=0).fit(likes, False)
    item_users = likes.T.tocsr()
    cases = [
        (IndexError, "user -1 is out of range", lambda: ratings.predict([-1], [0])),
        (IndexError, "item -1 is out of range", lambda: ratings.predict([0], [-1])),
        (IndexError, "user -1 is out of range", lambda: als.explain(-1, likes, 1)),
        (ValueError, "N needs to be at least 0", lambda: als.explain(0, likes, 1, N=-1)),
        (ValueError, "120 users and 60 items", lambda: als.explain(0, item_users, 1)),
        (IndexError, "item -1 is out of range", lambda: als.similar_items(0, 2, True, item_users[[0]], None, [-1])),
        (IndexError, "item 99 is out of range", lambda: als.similar_items(0, 2, True, item_users[[0]], [99])),
        (IndexError, "18446744073709551615 is out of range", lambda: als.recommend(np.uint64(2**64 - 1))),
        (ValueError, "no fitted model of implicit", lambda: recmill.from_implicit(3)),
    ]
    for error, said, wrong in cases:
        with pytest.raises(error, match=said):
            wrong()


def test_nothing_is_set_where_one_name_is_wrong():
    model = recmill.AlternatingLeastSquares(factors=8)
    with pytest.raises(ValueError, match="no parameter 'foo'"):
        model.set_params(factors=99, foo=1)
    assert model.factors == 8
