"""Two towers: columns of users and items are learned from, and who and what came later is placed by them."""

from __future__ import annotations

import numpy as np
import pandas
import pytest
import scipy.sparse as sp

import recmill

FEW = {
    "factors": 8,
    "iterations": 25,
    "batch_size": 64,
    "n_negatives": 8,
    "learning_rate": 0.02,
    "id_dropout": 0.3,
    "holdout": 0,
    "random_state": 1,
    "device": "cpu",
}
COLUMNS = {"user": "who", "item": "what"}


def films():
    """People of Oslo watch dramas, those of Bergen comedies; each has left some out."""
    events = [(f"u{u}", f"i{i}") for u in range(40) for i in range(u % 2, 24, 2) if (u + i) % 5]
    users = {"id": [f"u{u}" for u in range(40)], "town": ["Oslo", "Bergen"] * 20, "age": [20 + u % 9 for u in range(40)]}
    items = {"id": [f"i{i}" for i in range(24)], "genre": ["drama", "comedy"] * 12, "year": [1990 + i % 3 for i in range(24)]}
    return pandas.DataFrame(events, columns=["who", "what"]), users, items


NEW_USERS = {"id": ["ann", "ben", "u3"], "town": ["Oslo", "Bergen", "Oslo"], "age": [30, None, 20]}
NEW_ITEMS = {"id": ["f0", "f1"], "genre": ["drama", "comedy"], "year": [1991, 1990]}


@pytest.fixture(scope="module")
def model():
    events, users, items = films()
    return recmill.TwoTower(**FEW).fit(events, False, **COLUMNS, users=users, items=items)


def kinds(ids):
    return {int(one[1:]) % 2 for one in ids.tolist()}


def test_new_users_and_new_items_are_placed_by_their_columns(model):
    later = model.grown(users=NEW_USERS, items=NEW_ITEMS)
    assert (later.n_users_, later.n_items_) == (42, 26) and (model.n_users_, model.n_items_) == (40, 24)
    assert kinds(later.recommend("ann", k=12).ids) == {0}
    assert kinds(later.recommend("ben", k=12).ids) == {1}
    listed = later.recommend("u5", k=8).ids.tolist()
    assert listed[0] == "f1" and "f0" not in listed[:4], "a new item of the kind that the user likes comes before the other"
    assert later.similar_items("f0", k=3).ids.shape == (3,)
    again = model.grown(users=NEW_USERS)
    expected = model.recommend("u3", k=5)
    assert again.recommend("u3", k=5).scores.tolist() == expected.scores.tolist(), "whom the model knows stays"
    with pytest.raises(KeyError, match="ann"):
        model.recommend("ann")


def test_tables_of_any_kind_mean_the_same(model):
    pyarrow, polars = pytest.importorskip("pyarrow"), pytest.importorskip("polars")
    events, users, items = films()
    expected = model.recommend("u1", k=5)
    for made in (pandas.DataFrame, pyarrow.table, polars.DataFrame):
        other = recmill.TwoTower(**FEW).fit(made(events), False, **COLUMNS, users=made(users), items=made(items))
        assert other.recommend("u1", k=5).scores.tolist() == expected.scores.tolist()
        later = other.grown(users=made(NEW_USERS))
        assert later.recommend("ann", k=5).scores.tolist() == model.grown(users=NEW_USERS).recommend("ann", k=5).scores.tolist()


def test_the_file_is_the_model_and_one_that_was_grown_is_for_asking(model, tmp_path):
    model.save(tmp_path / "model")
    opened = recmill.load(tmp_path / "model")
    assert type(opened) is recmill.TwoTower and opened.get_params()["id_dropout"] == 0.3
    assert opened.recommend("u1", k=5).scores.tolist() == model.recommend("u1", k=5).scores.tolist()
    expected = model.grown(users=NEW_USERS).recommend("ann", k=5)
    later = opened.grown(users=NEW_USERS)
    assert later.recommend("ann", k=5).scores.tolist() == expected.scores.tolist()
    with pytest.raises(ValueError, match="is for asking"):
        later.save(tmp_path / "later")


def test_hidden_layers_and_a_matrix_without_columns():
    events, users, _ = films()
    deep = recmill.TwoTower(**FEW, hidden=[16]).fit(events, False, **COLUMNS, users=users)
    assert kinds(deep.grown(users=NEW_USERS).recommend("ann", k=6).ids) == {0}
    likes = sp.csr_matrix(np.kron(np.eye(2), np.ones((6, 5))).astype(np.float32))
    ids, _ = recmill.TwoTower(**FEW).fit(likes, False).recommend(2, N=5, filter_already_liked_items=False)
    assert sorted(ids.tolist()) == [0, 1, 2, 3, 4]


def test_what_cannot_be_placed_is_refused(model):
    events, users, items = films()
    with pytest.raises(ValueError, match="`ann`: column `age`: expected a number"):
        model.grown(users=NEW_USERS | {"age": ["old", "31", "20"]})
    with pytest.raises(ValueError, match="no column `age`"):
        model.grown(users={"id": ["ann"], "town": ["Oslo"]})
    twice = users | {"id": ["u0"] * 40}
    with pytest.raises(ValueError, match="40 rows have 1 different ids"):
        recmill.TwoTower(**FEW).fit(events, False, **COLUMNS, users=twice)
    alone = recmill.TwoTower(**FEW).fit(events, False, **COLUMNS, users=users)
    with pytest.raises(ValueError, match="learned nothing of what items are like"):
        alone.grown(items=NEW_ITEMS)
    with pytest.raises(ValueError, match="known by ids"):
        recmill.TwoTower(**FEW).fit(sp.csr_matrix(np.eye(3, dtype=np.float32)), False, users=users)
    with pytest.raises(ValueError, match="fitted on a matrix"):
        recmill.TwoTower(**FEW).fit(sp.csr_matrix(np.ones((4, 4), dtype=np.float32)), False).grown(users=users)
    with pytest.raises(recmill.NotFittedError):
        recmill.TwoTower().grown(users=users)
