"""The classifier of texts: what it learns, what it turns away, what it refuses, and that the file is the model."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest

import recmill

FEW = {"epochs": 6, "batch_size": 16, "buckets": 4096, "random_state": 1}
ABOUT = [
    ("weather", ["rain", "sunshine", "forecast", "freezing"]),
    ("money", ["account", "transfer", "balance", "euros"]),
    ("music", ["song", "play", "album", "band"]),
]


def messages(n: int = 400):
    """Texts about three things and, every fourth, about something else."""
    fillers = ["please", "what", "is", "the", "my", "tomorrow"]
    texts, labels = [], []
    for at in range(n):
        filler = [fillers[(at * 7 + k * 5) % len(fillers)] for k in range(2)]
        if at % 4 == 3:
            label, word = "oos", ["zebra", "quantum", "volcano", "recipe"][at // 4 % 4]
        else:
            label, words = ABOUT[at % 3]
            word = words[at // 3 % 4]
        texts.append(f"{filler[0]} {word} {filler[1]}")
        labels.append(label)
    return texts, labels


@pytest.fixture(scope="module")
def model():
    return recmill.TextClassifier(**FEW).fit(*messages(), show_progress=False)


def test_texts_are_told_and_what_is_about_nothing_is_turned_away(model):
    assert model.classes_.tolist() == ["money", "music", "weather"]
    assert 0 < model.threshold_ < 1
    found = model.predict(["what rain tomorrow", "the album", "what account please", "volcano zebra"])
    assert found.tolist() == ["weather", "music", "money", "oos"]
    probabilities = model.predict_proba(["what rain tomorrow", ""])
    assert probabilities.shape == (2, 3) and probabilities.dtype == np.float32
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, rtol=1e-5)
    measured = model.evaluate(*messages())
    assert measured["accuracy"] > 0.9 and measured["out_of_scope_recall"] > 0.9
    assert model.score(*messages()) == measured["accuracy"]
    assert len(model.epochs_) == 6 and "accuracy" in model.epochs_[0]
    assert model.predict([]).tolist() == []


def test_a_threshold_that_is_asked_for_is_kept():
    model = recmill.TextClassifier(**FEW, threshold=1.0).fit(*messages(), show_progress=False)
    assert model.threshold_ == 1.0
    assert set(model.predict(["what rain tomorrow"])) == {"oos"}


def test_the_same_seed_gives_the_same_model_and_a_file_is_the_model(model, tmp_path):
    texts = messages(50)[0]
    expected = model.predict_proba(texts)
    again = recmill.TextClassifier(**FEW).fit(*messages(), show_progress=False)
    np.testing.assert_array_equal(again.predict_proba(texts), expected)
    model.save(tmp_path / "model")
    opened = recmill.load(tmp_path / "model")
    assert type(opened) is recmill.TextClassifier and opened.get_params()["epochs"] == 6
    for one in (opened, pickle.loads(pickle.dumps(model)), copy.deepcopy(model)):
        np.testing.assert_array_equal(one.predict_proba(texts), expected)


def test_texts_to_judge_by_may_be_given_and_may_come_from_any_table():
    pandas, pyarrow = pytest.importorskip("pandas"), pytest.importorskip("pyarrow")
    texts, labels = messages()
    valid = (texts[300:], labels[300:])
    of_lists = recmill.TextClassifier(**FEW).fit(texts[:300], labels[:300], valid=valid, show_progress=False)
    frame = pandas.DataFrame({"text": texts[:300], "label": labels[:300]})
    of_frame = recmill.TextClassifier(**FEW).fit(frame["text"], frame["label"], valid=valid, show_progress=False)
    table = pyarrow.table(frame)
    of_arrow = recmill.TextClassifier(**FEW).fit(table["text"], table["label"], valid=valid, show_progress=False)
    expected = of_lists.predict_proba(texts)
    for other in (of_frame, of_arrow):
        np.testing.assert_array_equal(other.predict_proba(texts), expected)


@pytest.mark.parametrize(
    "texts, labels, told",
    [
        ("rain", ["a"], "a list of texts, not str"),
        (["rain", None], ["a", "b"], "has None"),
        (["rain", 1.5], ["a", "b"], "has 1.5"),
        (["rain"], ["a", "b"], "expected 1 texts, got `2`"),
        (["rain", " "], ["a", "b"], "texts:2: expected a text"),
        (["rain", "sun"], ["a", ""], "texts:2: expected a label"),
        (["rain", "sun"], ["a", "a"], "two different classes"),
    ],
)
def test_what_nothing_can_be_learned_from_is_refused(texts, labels, told):
    with pytest.raises(ValueError, match=told):
        recmill.TextClassifier(**FEW).fit(texts, labels, show_progress=False)


def test_unknown_parameters_and_values_are_refused():
    with pytest.raises(TypeError, match="no parameter 'epoch'"):
        recmill.TextClassifier(epoch=3)
    with pytest.raises(ValueError, match="holdout needs to be"):
        recmill.TextClassifier(holdout=1.0).fit(*messages(), show_progress=False)
    with pytest.raises(recmill.NotFittedError):
        recmill.TextClassifier().predict(["rain"])
