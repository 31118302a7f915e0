"""Models that score rows: what they learn, what they refuse, and that the file is the model."""

from __future__ import annotations

import copy
import json
import pickle
import signal

import numpy as np
import pytest

import recmill
from recmill.rankers import RANKERS

CPU = {"device": "cpu", "random_state": 1, "epochs": 10, "batch_size": 64}


def clicks(n: int = 3000, seed: int = 0):
    """Rows whose label hangs on two categories and a number."""
    rng = np.random.default_rng(seed)
    user, item, price = rng.integers(0, 30, n), rng.integers(0, 20, n), rng.random(n)
    odds = 4.0 * (user % 2) + 2.0 * (item % 3 == 0) - 3.0 + price
    return {
        "user": np.array([f"u{at}" for at in user], dtype=object),
        "item": item,
        "price": price,
        "label": (rng.random(n) < 1 / (1 + np.exp(-odds))).astype(np.int64),
    }


def fitted(model, rows=None, **columns):
    columns = {"label": "label", "categorical": ["user", "item"]} | columns
    return model.fit(clicks() if rows is None else rows, show_progress=False, **columns)


@pytest.fixture(scope="module")
def model():
    return fitted(recmill.DeepFM(hidden=[32], **CPU))


@pytest.mark.parametrize("kind", sorted(RANKERS))
def test_every_model_learns_and_is_the_same_when_opened(kind, tmp_path):
    made = fitted(RANKERS[kind](**CPU))
    rows = clicks(500, 9)
    assert made.score(rows) > 0.75, kind
    made.save(tmp_path / "model")
    opened = recmill.load(tmp_path / "model")
    assert type(opened) is RANKERS[kind]
    assert np.array_equal(opened.predict(rows), made.predict(rows))
    assert opened.get_params()["epochs"] == 10


def test_the_same_seed_gives_the_same_scores(model):
    again = fitted(recmill.DeepFM(hidden=[32], **CPU))
    other = fitted(recmill.DeepFM(hidden=[32], **CPU | {"random_state": 2}))
    rows = clicks(100, 5)
    assert np.array_equal(again.predict(rows), model.predict(rows))
    assert not np.array_equal(other.predict(rows), model.predict(rows))


def test_tables_of_every_library_give_the_same_model(model):
    pd, pl, pa = (pytest.importorskip(name) for name in ("pandas", "polars", "pyarrow"))
    rows, asked = clicks(), clicks(200, 3)
    expected = model.predict(asked)
    for make in (pd.DataFrame, pl.DataFrame, pa.table):
        columns = {name: list(values) if values.dtype == object else values for name, values in rows.items()}
        made = fitted(recmill.DeepFM(hidden=[32], **CPU), make(columns))
        assert np.array_equal(made.predict(asked), expected), make


def test_what_is_said_of_columns_and_a_label_beside_them(model):
    pd = pytest.importorskip("pandas")
    frame = pd.DataFrame(clicks())
    y = frame.pop("label")
    beside = recmill.DeepFM(hidden=[32], **CPU).fit(frame, y, categorical=["user", "item"], show_progress=False)
    assert np.array_equal(beside.predict(frame[:50]), model.predict(frame[:50]))
    by_schema = recmill.DeepFM(hidden=[32], **CPU).fit(clicks(), schema=model.schema_, show_progress=False)
    assert np.array_equal(by_schema.predict(frame[:50]), model.predict(frame[:50]))
    assert beside.score(frame, y) == pytest.approx(beside.evaluate(clicks())["auc"])
    kinds = {column["name"]: column["kind"] for column in model.schema_["columns"]}
    assert kinds["price"] == "numeric" and kinds["user"] == "categorical"


def test_probabilities_in_the_manner_of_scikit_learn(model):
    both = model.predict_proba(clicks(70, 2))
    assert both.shape == (70, 2) and np.allclose(both.sum(axis=1), 1)
    assert np.array_equal(both[:, 1], model.predict(clicks(70, 2)))
    assert list(model.classes_) == [0, 1] and model.labels_ == ["label"]
    sklearn = pytest.importorskip("sklearn.base")
    cloned = sklearn.clone(model)
    assert cloned.get_params() == model.get_params()
    with pytest.raises(recmill.NotFittedError):
        cloned.predict(clicks(5))


def test_hyper_parameters_are_chosen_by_a_grid():
    selection = pytest.importorskip("sklearn.model_selection")
    pd = pytest.importorskip("pandas")
    frame = pd.DataFrame(clicks(900))
    y = frame.pop("label")
    search = selection.GridSearchCV(recmill.Logistic(device="cpu", random_state=0), {"epochs": [1, 2]}, cv=2)
    search.fit(frame, y, categorical=["user", "item"], show_progress=False)
    assert search.best_params_["epochs"] in (1, 2) and 0.4 < search.best_score_ < 1


def test_several_labels(tmp_path):
    rows = clicks()
    rows["bought"] = rows["label"] * (rows["item"] % 2)
    made = fitted(recmill.MMoE(**CPU), rows, label=["label", "bought"])
    assert made.predict(rows).shape == (3000, 2)
    assert {"auc/label", "auc/bought"} <= set(made.evaluate(rows))
    with pytest.raises(ValueError, match="learns one label, not 2"):
        fitted(recmill.DeepFM(**CPU), rows, label=["label", "bought"])


def test_copies_and_pickles_score_the_same(model):
    rows = clicks(40, 8)
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert np.array_equal(other.predict(rows), model.predict(rows))


def test_threads_ask_one_model_at_once(model):
    from concurrent.futures import ThreadPoolExecutor

    rows = clicks(2000, 4)
    expected = model.predict(rows)
    with ThreadPoolExecutor(8) as pool:
        for scores in pool.map(lambda _: model.predict(rows), range(40)):
            assert np.array_equal(scores, expected)


def test_missing_values_and_categories_that_come_later_are_scored(model):
    later = {"user": np.array(["nobody", None, "u1"], dtype=object), "item": [1, 99, 2], "price": [np.nan, 1.0, 0.5]}
    assert np.isfinite(model.predict(later)).all()


def test_columns_of_any_name_and_lists_in_cells():
    pd = pytest.importorskip("pandas")
    rows = clicks(1500)
    even = [["even", "any"] if int(user[1:]) % 2 == 0 else ["odd"] for user in rows["user"]]
    frame = pd.DataFrame({0: even, 1: rows["price"], "label": rows["label"]}, index=np.arange(1500) + 7)
    made = recmill.DeepFM(**CPU).fit(frame, label="label", bag=["0"], show_progress=False)
    assert made.score(frame) > 0.75
    asked = {"0": ["even", '["odd"]', None], "1": [0.5, 0.5, None]}
    likely_not, likely, _ = made.predict(asked)
    assert likely > likely_not
    with pytest.raises(ValueError, match="two columns of one name: 0, 0"):
        made.predict(pd.DataFrame([[1, 2]], columns=[0, "0"]))


def test_lists_of_one_length_masks_and_far_dates(model):
    rows = clicks(600)
    rows["tags"] = [["a", "b"] if label else ["b", "c"] for label in rows["label"]]
    rows["price"] = np.ma.masked_array(rows["price"], mask=np.arange(600) % 5 == 0)
    rows["when"] = np.array(["9999-12-31", "2024-01-01"] * 300, dtype="datetime64[s]")
    with pytest.warns(recmill.ParameterWarning, match=r"almost without error.*ignore=\['tags'\]"):
        made = recmill.DeepFM(**CPU).fit(rows, label="label", bag=["tags"], show_progress=False)
    assert made.score(rows) > 0.9
    kinds = {column["name"]: column["kind"] for column in made.schema_["columns"]}
    assert kinds["when"] == "time" and kinds["price"] == "numeric"


def test_hyper_parameters_are_the_model_s_own_and_odd_columns_are_warned_of():
    recmill.DeepFM().hidden.append(7)
    assert recmill.DeepFM().hidden == [400, 400, 400]
    rows = clicks(600)
    with pytest.warns(recmill.ParameterWarning, match="ticket"):
        fitted(recmill.Logistic(**CPU), rows | {"ticket": [f"t{row}" for row in range(600)]})
    rows["price"][3] = np.inf
    with pytest.raises(ValueError, match="column `price`: expected a number .* found `inf`"):
        fitted(recmill.Logistic(**CPU), rows)


def test_what_is_wrong_is_said(model, tmp_path):
    rows = clicks(50)
    cases = [
        (
            ValueError,
            "no column `price` among `user, item`",
            lambda: model.predict({"user": rows["user"], "item": rows["item"]}),
        ),
        (ValueError, "expected a table", lambda: model.predict([[1, 2]])),
        (TypeError, "has no parameter 'depth'", lambda: recmill.DeepFM(depth=3)),
        (TypeError, "use one of them", lambda: recmill.Ranker()),
        (ValueError, "no column `nolabel`", lambda: fitted(recmill.DeepFM(**CPU), label="nolabel")),
        (
            ValueError,
            "expected 0 or 1, found `2`",
            lambda: fitted(recmill.DeepFM(**CPU), rows | {"label": np.arange(50)}),
        ),
        (ValueError, "embedding_dim must be", lambda: fitted(recmill.DeepFM(embedding_dim=0, **CPU))),
        (ValueError, "holdout needs to be at least 0 and below 1", lambda: fitted(recmill.DeepFM(holdout=1.0, **CPU))),
        (ValueError, "device: expected auto, cpu", lambda: fitted(recmill.DeepFM(device="gpu", epochs=1))),
        (
            ValueError,
            "learning_rate needs to be a finite number",
            lambda: fitted(recmill.DeepFM(learning_rate=float("nan"), epochs=1)),
        ),
        (ValueError, "leave categorical out", lambda: fitted(recmill.DeepFM(**CPU), label=None, schema=model.schema_)),
        (ValueError, "given twice", lambda: recmill.DeepFM(**CPU).fit(rows, rows["label"], label="label")),
        (ValueError, 'column "item" has 3 rows', lambda: model.predict(rows | {"item": rows["item"][:3]})),
        (
            ValueError,
            "auc cannot be measured",
            lambda: fitted(recmill.Logistic(**CPU), valid=rows | {"label": [1] * 50}),
        ),
        (ValueError, "epochs needs to be a whole number", lambda: fitted(recmill.Logistic(epochs=1.5))),
        (ValueError, "hidden needs to be a list", lambda: fitted(recmill.DeepFM(hidden=16))),
        (ValueError, "batch_norm needs to be True or False", lambda: fitted(recmill.DeepFM(batch_norm=1))),
        (ValueError, "the table has no columns", lambda: model.predict({})),
        (FileNotFoundError, "nothing", lambda: recmill.load(tmp_path / "nothing")),
        (ValueError, "not a DLRM", lambda: (model.save(tmp_path / "m"), recmill.DLRM.load(tmp_path / "m"))),
    ]
    for error, said, wrong in cases:
        with pytest.raises(error, match=said):
            wrong()


def test_progress_counts_epochs_and_is_heard():
    heard = []
    recmill.Logistic(**CPU).fit(
        clicks(), label="label", show_progress=False, callback=lambda epoch, seconds, loss: heard.append((epoch, loss))
    )
    assert heard and [epoch for epoch, _ in heard] == list(range(len(heard))) and all(loss > 0 for _, loss in heard)


def test_ctrl_c_ends_training_and_leaves_the_model(model):
    before = model.predict(clicks(20, 1))
    endless = copy.deepcopy(model).set_params(epochs=1_000_000, patience=0)
    with pytest.raises(KeyboardInterrupt):
        fitted(endless, callback=lambda *_: signal.raise_signal(signal.SIGINT))
    assert np.array_equal(endless.predict(clicks(20, 1)), before)


def test_what_the_command_trained_is_opened(tmp_path):
    made = fitted(recmill.FactorizationMachine(**CPU))
    version = made.save(tmp_path / "model")
    config = json.loads((tmp_path / "model" / "versions" / version.rsplit("/", 1)[-1] / "config.json").read_text())
    assert config["model"]["model"] == "fm" and config["seed"] == 1
    assert made.epochs_[0]["epoch"] == 1 and 0 < made.epochs_[0]["auc"] < 1
