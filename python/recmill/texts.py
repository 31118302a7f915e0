"""A model that tells what texts are about, and when they are about nothing it knows."""

from __future__ import annotations

import json
from typing import Any, Callable, Iterable

import numpy as np
import numpy.typing as npt

from . import _recmill
from ._estimator import JudgedEstimator
from ._matrix import as_number
from ._progress import Watch
from .rankers import _as

__all__ = ["TextClassifier"]

METRICS = ("accuracy", "logloss")


class TextClassifier(JudgedEstimator[_recmill.Texts]):
    """Tells what texts are about by their words and runs of characters, with calibrated probabilities.

    Texts labelled ``out_of_scope`` are about none of the classes: by those among the held-out texts a threshold is chosen, and a text
    whose most likely class is less likely than that is out of scope. ``TextClassifier().get_params()`` has all hyper-parameters with
    their defaults, and ``recmill train text --help`` says what each does.

    Parameters
    ----------
    device
        ``auto``, ``cpu``, ``cuda:0``, ``wgpu:0``; ``auto`` is the processor, since the steps are small.
    num_threads
        0 for as many as there are processors.
    random_state
        A whole number for the same model each time.
    holdout
        The share of the texts that is held out to judge each epoch and to calibrate by, where :meth:`fit` is given none.
    metric
        By which the best epoch is kept: ``accuracy`` or ``logloss``.
    patience
        Epochs without a better one after which training ends; 0 for all epochs.
    **hyperparameters
        Those of the model, such as ``epochs``, ``learning_rate``, ``word_ngrams``, ``out_of_scope``, ``threshold``.

    Attributes
    ----------
    classes_
        The classes, in the order of the probabilities.
    threshold_
        The least probability of a text that is in scope.
    epochs_
        A dictionary for each epoch: number, seconds, loss and metrics.

    >>> texts = ["will it rain", "rain again", "play a song", "a new song"] * 5
    >>> labels = ["weather", "weather", "music", "music"] * 5
    >>> model = TextClassifier(epochs=5, holdout=0, random_state=0).fit(texts, labels, show_progress=False)
    >>> model.predict(["any rain?"]).tolist()
    ['weather']
    >>> model.predict_proba(["any rain?"]).shape
    (1, 2)
    """

    _native = _recmill.Texts

    out_of_scope: str

    def __init__(
        self,
        *,
        device: str = "auto",
        num_threads: int = 0,
        random_state: Any = None,
        holdout: float = 0.1,
        metric: str = "accuracy",
        patience: int = 0,
        **hyperparameters: Any,
    ):
        own = {
            "device": device,
            "num_threads": num_threads,
            "random_state": random_state,
            "holdout": holdout,
            "metric": metric,
            "patience": patience,
        }
        self._take(own, hyperparameters)

    @classmethod
    def _defaults(cls) -> dict[str, Any]:
        return cls._own() | cls._of_model()

    @staticmethod
    def _of_model() -> dict[str, Any]:
        of_model: dict[str, Any] = json.loads(_recmill.text_defaults())
        del of_model["model"]
        return of_model | {"threshold": None}

    def __sklearn_tags__(self) -> Any:
        from sklearn.utils import ClassifierTags, InputTags, Tags, TargetTags

        return Tags(
            estimator_type="classifier",
            target_tags=TargetTags(required=True),
            transformer_tags=None,
            regressor_tags=None,
            classifier_tags=ClassifierTags(multi_class=True),
            input_tags=InputTags(one_d_array=True, two_d_array=False, string=True),
        )

    def fit(
        self,
        texts: Any,
        labels: Any,
        *,
        valid: tuple[Any, Any] | None = None,
        show_progress: bool = True,
        callback: Callable[[int, float, float | None], Any] | None = None,
    ) -> TextClassifier:
        """Learn from texts and what each is about, and return the model itself.

        Parameters
        ----------
        texts, labels
            As many of both: lists, arrays or columns of a table.
        valid
            Texts and labels to judge each epoch and to calibrate by. Without them a share is held out: ``holdout``.
        show_progress
            Whether to show a bar, where tqdm is installed.
        callback
            Called after each epoch with its number from 0, its seconds and its loss.

        Ctrl-C ends the call within a second, and leaves the model as it was before.
        """
        watch = Watch(bool(show_progress), callback, "text")
        judged = self._judged(str(self.metric), METRICS)
        train = (_listed(texts, "texts"), _listed(labels, "labels"))
        held = None if valid is None else (_listed(valid[0], "texts"), _listed(valid[1], "labels"))
        try:
            how = self._how(watch, True)
            self._model = _recmill.fit_texts(json.dumps(self._config()), train, held, judged, how)
        finally:
            watch.close()
        self.device_ = watch.device
        return self

    def _config(self) -> dict[str, Any]:
        config = {name: _as(default, getattr(self, name), name) for name, default in self._of_model().items()}
        threshold = config.pop("threshold")
        chosen = {} if threshold is None else {"threshold": as_number(threshold, "threshold")}
        return {"model": "text"} | config | chosen

    @property
    def classes_(self) -> npt.NDArray[np.str_]:
        """The classes, in the order of the probabilities."""
        return np.array(self._fitted.classes)

    @property
    def threshold_(self) -> float:
        """The least probability of a text that is in scope."""
        return self._fitted.threshold

    def predict_proba(self, texts: Any) -> npt.NDArray[np.float32]:
        """Return how likely each text is of each class, ``[texts, classes]`` float32, in the order of ``classes_``."""
        return self._fitted.predict(_listed(texts, "texts"))

    def predict(self, texts: Any) -> npt.NDArray[np.str_]:
        """Return the most likely class of each text, and ``out_of_scope`` where that is less likely than ``threshold_``."""
        probabilities = self.predict_proba(texts)
        found: npt.NDArray[np.str_] = np.append(self.classes_, self.out_of_scope)
        best = probabilities.argmax(axis=1)
        best[probabilities.max(axis=1, initial=0.0) < np.float32(self.threshold_)] = len(found) - 1
        told: npt.NDArray[np.str_] = found[best]
        return told

    def evaluate(self, texts: Any, labels: Any) -> dict[str, float]:
        """Return how well texts are told, with those that are turned away: accuracy, macro_f1 and more, by name."""
        return self._fitted.evaluate((_listed(texts, "texts"), _listed(labels, "labels")))

    def score(self, texts: Any, labels: Any) -> float:
        """Return the accuracy over the texts in scope; one that is turned away is wrong."""
        metrics = self.evaluate(texts, labels)
        if "accuracy" not in metrics:
            raise ValueError("no text is in scope, so there is no accuracy")
        return metrics["accuracy"]

    @classmethod
    def _of(cls, model: _recmill.Texts) -> TextClassifier:
        config = json.loads(model.config)
        made = cls(**{name: value for name, value in config.items() if name != "model"})
        made._model = model
        return made


def _listed(texts: Any, name: str) -> list[str]:
    """Return texts as a list of them."""
    if isinstance(texts, (str, bytes)) or not isinstance(texts, Iterable):
        raise ValueError(f"{name} needs to be a list of texts, not {type(texts).__name__}")
    listed = texts.to_pylist() if hasattr(texts, "to_pylist") else list(texts)
    wrong = next((one for one in listed if not isinstance(one, (str, int, np.integer)) or isinstance(one, bool)), None)
    if wrong is not None or None in listed:
        raise ValueError(f"{name} needs to be a list of texts, and has {wrong!r}")
    return [str(one).strip() for one in listed]
