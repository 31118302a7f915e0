"""Tables of any library: users and items by id."""

import numpy as np
import pytest
import scipy.sparse as sp

import recmill

pandas = pytest.importorskip("pandas")
polars = pytest.importorskip("polars")
pyarrow = pytest.importorskip("pyarrow")


def events():
    rng = np.random.default_rng(1)
    users = rng.integers(0, 40, 300)
    items = 2 * rng.integers(0, 12, 300) + users % 2
    return {
        "who": [f"user-{user}" for user in users],
        "what": items.tolist(),
        "stars": rng.integers(1, 6, 300).astype(float).tolist(),
        "when": (1_700_000_000 + np.arange(300)).tolist(),
    }


COLUMNS = {"user": "who", "item": "what", "value": "stars", "time": "when"}


def fitted(table, **columns):
    model = recmill.AlternatingLeastSquares(factors=2, iterations=10, random_state=2, device="cpu")
    return model.fit(table, False, **(columns or COLUMNS))


@pytest.mark.parametrize(
    "make", [pandas.DataFrame, polars.DataFrame, pyarrow.table], ids=["pandas", "polars", "pyarrow"]
)
def test_every_library_gives_the_same_model(make):
    expected = fitted(pyarrow.table(events()))
    model = fitted(make(events()))
    ids, scores = model.recommend(["user-3", "user-8"], k=3)
    assert ids.shape == scores.shape == (2, 3)
    np.testing.assert_array_equal(scores, expected.recommend(["user-3", "user-8"], k=3).scores)
    assert all(int(item) % 2 == 1 for item in ids[0]) and all(int(item) % 2 == 0 for item in ids[1])


def test_answers_become_a_table():
    table = fitted(pandas.DataFrame(events())).recommend(["user-3", "user-8"], k=2).to_pandas()
    assert table["query"].tolist() == ["user-3", "user-3", "user-8", "user-8"]
    assert table["rank"].tolist() == [1, 2, 1, 2]
    assert table["score"].is_monotonic_decreasing or table["score"].iloc[0] >= table["score"].iloc[1]


def test_ids_are_texts_or_whole_numbers():
    model = fitted(polars.DataFrame(events()))
    ids, scores = model.recommend("user-3", k=4)
    assert ids.shape == scores.shape == (4,)
    assert model.similar_items(5, k=1).ids.tolist() == ["5"]
    assert model.similar_items(["5", 6], k=1).ids.tolist() == [["5"], ["6"]]
    assert model.similar_users("user-3", k=1).ids.tolist() == ["user-3"]
    with pytest.raises(TypeError, match="an id is a text or a whole number, not 1.5"):
        model.recommend([1.5])


def test_an_unknown_id_is_a_key_error_with_the_id():
    model = fitted(polars.DataFrame(events()))
    with pytest.raises(KeyError, match="nobody"):
        model.recommend(["user-3", "nobody"])
    with pytest.raises(KeyError, match="999"):
        model.similar_items(999)
    with pytest.raises(KeyError, match="77"):
        model.recommend("user-3", filter_items=[77])


def test_who_came_later_is_known_by_a_history():
    model = fitted(pandas.DataFrame(events()))
    found = model.recommend(history=[1, 3, 5], k=3)
    assert found.ids.shape == (3,) and {"1", "3", "5"}.isdisjoint(found.ids) and all(int(i) % 2 == 1 for i in found.ids)
    several = model.recommend(history=[[1, 3, 5], [2]], k=3)
    assert several.ids.shape == (2, 3) and several.ids[0].tolist() == found.ids.tolist()
    for neither in ({}, {"userid": "user-3", "history": [1]}):
        with pytest.raises(ValueError, match="userid or for history"):
            model.recommend(**neither)


def test_filters_are_by_id():
    model = fitted(pandas.DataFrame(events()))
    ids, _ = model.recommend("user-3", k=30, filter_already_liked_items=False, filter_items=[1, "3"])
    assert {"1", "3"}.isdisjoint(ids.tolist())
    ids, _ = model.recommend("user-3", k=3, filter_already_liked_items=False, items=[7, 9])
    assert set(ids[:2]) == {"7", "9"} and ids[2] is None


def test_a_saved_model_keeps_its_ids(tmp_path):
    model = fitted(pandas.DataFrame(events()))
    model.save(tmp_path / "model")
    opened = recmill.load(tmp_path / "model")
    np.testing.assert_array_equal(opened.recommend("user-3").ids, model.recommend("user-3").ids)


def test_columns_are_named():
    table = pandas.DataFrame(events())
    with pytest.raises(ValueError, match="names of its columns"):
        recmill.AlternatingLeastSquares(device="cpu").fit(table, False)
    with pytest.raises(ValueError, match="no column 'whom', only who, what, stars, when"):
        fitted(table, user="whom", item="what")
    with pytest.raises(ValueError, match="name columns of a table"):
        import scipy.sparse as sp

        recmill.AlternatingLeastSquares(device="cpu").fit(sp.eye(3, format="csr"), False, user="who")


@pytest.mark.parametrize("column", ["who", "stars"])
def test_a_missing_value_is_named_with_its_row(column):
    table = events()
    table[column] = [None if row == 4 else value for row, value in enumerate(table[column])]
    with pytest.raises(ValueError, match="5"):
        fitted(polars.DataFrame(table, strict=False))


def test_an_empty_table_is_refused():
    with pytest.raises(ValueError, match="expected rows, found none"):
        fitted(polars.DataFrame(events()).head(0))


def test_categories_of_pandas_are_texts():
    table = pandas.DataFrame(events())
    table["who"] = table["who"].astype("category")
    np.testing.assert_array_equal(
        fitted(table).recommend("user-3").ids, fitted(pandas.DataFrame(events())).recommend("user-3").ids
    )


@pytest.mark.parametrize("kind", ["CosineRecommender", "TFIDFRecommender", "BM25Recommender", "ItemItemRecommender"])
def test_neighbours_of_a_table_are_those_of_its_matrix(kind, tmp_path):
    from scipy.sparse import csr_matrix

    table = pandas.DataFrame(events())
    model = getattr(recmill, kind)(K=5).fit(table, False, **COLUMNS)
    users, items = (sorted(set(table[name]), key=str) for name in ("who", "what"))
    summed = table.groupby(["who", "what"])["stars"].sum().reset_index()
    rows = [users.index(who) for who in summed["who"]]
    columns = [items.index(what) for what in summed["what"]]
    matrix = csr_matrix((summed["stars"].astype(np.float32), (rows, columns)))
    plain = getattr(recmill, kind)(K=5).fit(matrix, False)
    at = users.index("user-8")
    ids, scores = plain.recommend(at, matrix[[at]], N=4)
    answer = model.recommend("user-8", k=4)
    np.testing.assert_allclose(answer.scores, scores, rtol=1e-5)
    if len(set(scores)) == len(scores):
        assert answer.ids.tolist() == [str(items[item]) for item in ids]
    first = model.similar_items(5, k=1)
    assert first.ids.tolist() == ["5"]
    np.testing.assert_allclose(first.scores, plain.similar_items(items.index(5), N=1)[1], rtol=1e-5)
    model.save(tmp_path / "model")
    opened = recmill.load(tmp_path / "model")
    assert opened.recommend("user-8", k=4).ids.tolist() == answer.ids.tolist()


def test_columns_of_pandas_own_types_and_of_plain_lists_are_the_same():
    plain = events()
    expected = fitted(plain).recommend("user-8", k=3)
    times = pandas.to_datetime(plain["when"], unit="s")
    for frame in (
        pandas.DataFrame(plain).astype({"who": "string", "what": "Int64", "stars": "Float32"}),
        pandas.DataFrame(plain | {"when": times}),
        pandas.DataFrame(plain | {"when": times.tz_localize("UTC").tz_convert("Asia/Tokyo")}),
        pandas.DataFrame(plain).set_index("when", drop=False).astype({"what": "uint8"}),
        pandas.DataFrame(plain | {"what": [float(item) for item in plain["what"]]}),
    ):
        answer = fitted(frame).recommend("user-8", k=3)
        assert answer.ids.tolist() == expected.ids.tolist()
        np.testing.assert_allclose(answer.scores, expected.scores, rtol=1e-6)


@pytest.mark.parametrize("kind", ["CosineRecommender", "TFIDFRecommender", "BM25Recommender"])
def test_neighbours_are_opened_as_what_they_were(kind, tmp_path):
    table = pandas.DataFrame(events())
    called = []
    model = getattr(recmill, kind)(K=7).fit(table, False, lambda *told: called.append(told), **COLUMNS)
    assert [epoch for epoch, _, _ in called] == [0]
    model.save(tmp_path / "model")
    opened = type(model).load(tmp_path / "model")
    assert type(opened) is type(model) and opened.K == 7
    again = opened.fit(table, False, **COLUMNS)
    np.testing.assert_array_equal(again.recommend("user-8", k=3).scores, model.recommend("user-8", k=3).scores)


def test_nobody_asked_is_an_empty_table():
    assert fitted(pandas.DataFrame(events())).recommend([], k=2).to_pandas().empty


@pytest.mark.parametrize(
    "sequences",
    [recmill.SASRec(factors=8, feed_forward=8), recmill.GRU4Rec(factors=8, hidden=8)],
    ids=lambda model: type(model).__name__,
)
def test_a_model_that_reads_the_order_of_events_gets_it(sequences, tmp_path):
    there, back = ["a", "b", "c", "d"], ["d", "c", "b", "a"]
    who = ["there"] * 4 + ["back"] * 4 + ["x", "x"]
    when = [*range(4), *range(4), 0, 1]
    table = pandas.DataFrame({"who": who, "what": [*there, *back, "e", "f"], "when": when})
    sequences.set_params(iterations=3, batch_size=8, random_state=1, device="cpu")
    model = sequences.fit(table, False, user="who", item="what", time="when")
    of = {user: model.recommend(user, k=2, filter_already_liked_items=False) for user in ("there", "back")}
    # The same items in another order: by their set alone both would have the same scores.
    assert of["there"].scores.tolist() != of["back"].scores.tolist()
    kept = model.recommend(["there", "back"], k=2)
    assert sorted(kept.ids.ravel().tolist()) == ["e", "e", "f", "f"]
    asked = model.recommend(history=[there, back], k=2, filter_already_liked_items=False)
    for at, user in enumerate(("there", "back")):
        assert asked.scores[at].tolist() == of[user].scores.tolist(), "a history is its user's, and in order"
    assert set(model.recommend(history=there, k=2).ids.tolist()) == {"e", "f"}
    with pytest.raises(ValueError, match="which a matrix has not"):
        type(model)().fit(sp.csr_matrix(np.eye(3, dtype=np.float32)))
    model.save(tmp_path / "model")
    opened = recmill.load(tmp_path / "model")
    assert type(opened) is type(model) and opened.get_params()["factors"] == 8
    assert opened.recommend("there", k=2).scores.tolist() == model.recommend("there", k=2).scores.tolist()


def test_what_is_held_out_ends_training_and_is_learned_from_in_the_end(likes):
    few = {"factors": 4, "iterations": 60, "learning_rate": 0.05, "n_negatives": 16, "random_state": 2, "device": "cpu"}
    all_epochs = recmill.MatrixFactorization(holdout=0, **few).fit(likes, False)
    assert len(all_epochs.loss_curve_) == 60
    stopped = recmill.MatrixFactorization(**few).fit(likes, False)
    assert 10 < len(stopped.loss_curve_) < 60
    refitted = recmill.MatrixFactorization(refit=True, **few).fit(likes, False)
    assert len(refitted.loss_curve_) == len(stopped.loss_curve_)
    assert refitted.recommend(0, likes[[0]])[1].tolist() != stopped.recommend(0, likes[[0]])[1].tolist()
    with pytest.raises(ValueError, match="holdout needs to be from 0 to 1"):
        recmill.MatrixFactorization(holdout=2, **few).fit(likes, False)
