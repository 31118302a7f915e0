"""Models that score rows of features: how likely is a click, a purchase, a fraud."""

from __future__ import annotations

import json
import os
import re
import warnings
from typing import Any, Callable, ClassVar, Iterable, Sequence, TypeVar

import numpy as np
import numpy.typing as npt

from . import _recmill
from ._estimator import JudgedEstimator
from ._matrix import as_count, as_number
from ._progress import Watch
from ._table import is_table, names_of, table
from .exceptions import ParameterWarning

__all__ = [
    "DLRM",
    "AutoInt",
    "DCNv2",
    "DeepFM",
    "FactorizationMachine",
    "FinalMLP",
    "Logistic",
    "MMoE",
    "Ranker",
    "SharedBottom",
    "WideDeep",
]

Self = TypeVar("Self", bound="Ranker")

RANKERS: dict[str, type[Ranker]] = {}
"""The class of each model of a model directory that scores rows."""

Names = Sequence[str]

METRICS = ("auc", "logloss", "average_precision", "accuracy", "expected_calibration_error", "gauc")


class Ranker(JudgedEstimator[_recmill.Ranker]):
    """What all models that score rows have in common.

    A row is what is known of one event: categories, numbers, lists of categories. What each column is, is guessed and can be said
    in :meth:`fit`. Hyper-parameters are keywords: ``DeepFM().get_params()`` has them all with their defaults, and
    ``recmill train deepfm --help`` says what each does. These are common to all of them:

    Parameters
    ----------
    device
        ``auto``, ``cpu``, ``cuda:0``, ``wgpu:0``; see :func:`recmill.devices`.
    num_threads
        0 for as many as there are processors.
    random_state
        A whole number for the same model each time.
    holdout
        The share of the rows that is held out to judge each epoch by, where :meth:`fit` is given none.
    metric
        By which the best epoch is kept: ``auc``, ``logloss``, ``average_precision``, ``accuracy``,
        ``expected_calibration_error``, ``gauc``.
    patience
        Epochs without a better one after which training ends; 0 for all epochs.
    **hyperparameters
        Those of the model and of learning, such as ``epochs``, ``batch_size``, ``learning_rate``, ``embedding_dim``, ``hidden``.

    Attributes
    ----------
    classes_
        ``[0, 1]``.
    labels_
        The names of the columns that were learnt.
    schema_
        What each column is.
    epochs_
        A dictionary for each epoch: number, seconds, loss and metrics.
    """

    kind: ClassVar[str] = ""
    _native = _recmill.Ranker

    def __init_subclass__(cls, **arguments: Any) -> None:
        super().__init_subclass__(**arguments)
        RANKERS.setdefault(cls.kind, cls)

    def __init__(
        self,
        *,
        device: str = "auto",
        num_threads: int = 0,
        random_state: Any = None,
        holdout: float = 0.1,
        metric: str = "auc",
        patience: int = 2,
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
        if "_known" not in vars(cls):
            if not cls.kind:
                raise TypeError("Ranker is what the models have in common; use one of them, such as DeepFM")
            of_model: dict[str, Any] = json.loads(_recmill.ranker_defaults(cls.kind))
            del of_model["model"]
            cls._known = cls._own() | of_model
        # Lists are the model's own, to be changed or not.
        return {name: list(value) if isinstance(value, list) else value for name, value in cls._known.items()}

    _known: ClassVar[dict[str, Any]]

    def __sklearn_tags__(self) -> Any:
        from sklearn.utils import ClassifierTags, InputTags, Tags, TargetTags

        return Tags(
            estimator_type="classifier",
            target_tags=TargetTags(required=False),
            transformer_tags=None,
            regressor_tags=None,
            classifier_tags=ClassifierTags(multi_class=False),
            input_tags=InputTags(categorical=True, allow_nan=True, string=True),
        )

    def _config(self) -> dict[str, Any]:
        own = self._own()
        of_model = {name: default for name, default in self._defaults().items() if name not in own}
        return {"model": self.kind} | {
            name: _as(default, getattr(self, name), name) for name, default in of_model.items()
        }

    def fit(
        self: Self,
        data: Any,
        y: Any = None,
        *,
        label: str | Names | None = None,
        valid: Any = None,
        categorical: Names = (),
        bag: Names = (),
        numeric: Names = (),
        ignore: Names = (),
        group: str | None = None,
        weight: str | None = None,
        time: str | None = None,
        missing: Names = (),
        min_count: int | None = None,
        hash_buckets: int | None = None,
        buckets: int | None = None,
        schema: Any = None,
        show_progress: bool = True,
        callback: Callable[[int, float, float | None], Any] | None = None,
    ) -> Self:
        """Learn from rows with a label of 0 or 1, and return the model itself.

        Parameters
        ----------
        data
            A table of pandas, polars or pyarrow, or columns by name.
        y
            The label, where it is not a column of ``data``.
        label
            The column to learn, or several for a model that learns several; guessed by its name where it is not said.
        valid
            Rows to judge each epoch by, as ``data``. Without them a share of ``data`` is held out: ``holdout``.
        categorical, bag, numeric, ignore
            Columns that are categories, lists of categories, numbers, nothing; the others are guessed.
        group, weight, time
            The column that says which rows belong together (for ``gauc``), how much a row counts, when it was.
        missing
            Texts that mean that there is no value, besides the usual ones.
        min_count
            Categories in fewer rows share what is learnt of them; 2 where it is not said.
        hash_buckets
            Hashes categories into so many rows a column, in place of a vocabulary.
        buckets
            Quantile buckets that a number has beside itself; 0 for none, 64 where it is not said.
        schema
            In place of all these: ``schema_`` of a model, or the path of what ``recmill schema`` wrote.
        show_progress
            Whether to show a bar, where tqdm is installed.
        callback
            Called after each epoch with its number from 0, its seconds and its loss.

        Ctrl-C ends the call within a second, and leaves the model as it was before.
        """
        options: dict[str, Any] = {
            "label": _listed(label),
            "categorical": _listed(categorical),
            "bag": _listed(bag),
            "numeric": _listed(numeric),
            "ignore": _listed(ignore),
            "group": None if group is None else str(group),
            "weight": None if weight is None else str(weight),
            "time": None if time is None else str(time),
            "missing": _listed(missing),
            "min_count": None if min_count is None else as_count(min_count, "min_count", 2**31),
            "hash_buckets": None if hash_buckets is None else as_count(hash_buckets, "hash_buckets", 2**31),
            "buckets": None if buckets is None else as_count(buckets, "buckets", 2**31),
        }
        if schema is not None:
            given = [name for name, value in options.items() if value not in (None, [])]
            if given:
                raise ValueError(f"schema says what all columns are: leave {given[0]} out")
            options = {"schema": schema}
            if isinstance(schema, (str, os.PathLike)):
                path = os.fspath(schema)
                with open(path, encoding="utf-8") as file:
                    options = {"toml": [path, file.read()]}
        train, held = _with_label(data, y, options), None if valid is None else table(valid)
        watch = Watch(bool(show_progress), callback, self.kind)
        judged = self._judged(str(self.metric).split("/")[0], METRICS)
        try:
            how = self._how(watch, True)
            config = json.dumps(self._config())
            self._model = _recmill.fit_ranker(config, json.dumps(options), train, held, judged, how)
        finally:
            watch.close()
        self.device_ = watch.device
        for warning in self._model.warnings:
            # The command's flags are fit's arguments.
            said = re.sub(r"--(\w+) (\S+)", r"\1=['\2']", warning)
            warnings.warn(said, ParameterWarning, stacklevel=2)
        return self

    @property
    def classes_(self) -> npt.NDArray[np.int64]:
        """``[0, 1]``."""
        _ = self._fitted
        return np.arange(2)

    @property
    def labels_(self) -> list[str]:
        """The names of the columns that were learnt."""
        return self._fitted.labels

    @property
    def schema_(self) -> dict[str, Any]:
        """What each column is."""
        schema: dict[str, Any] = json.loads(self._fitted.schema)
        return schema

    def predict_proba(self, data: Any) -> npt.NDArray[np.float32]:
        """Return the probabilities of 0 and 1 for each row, ``[rows, 2]`` float32; of several labels those of 1, ``[rows, labels]``."""
        scores = self._fitted.predict(table(data))
        return scores if scores.shape[1] > 1 else np.hstack([1 - scores, scores])

    def predict(self, data: Any) -> npt.NDArray[np.float32]:
        """Return the probability that the label is 1, ``[rows]`` float32; of several labels ``[rows, labels]``.

        As the command ``recmill predict`` does: labels need not be in the table.
        """
        scores = self._fitted.predict(table(data))
        return scores if scores.shape[1] > 1 else scores[:, 0]

    def evaluate(self, data: Any, y: Any = None) -> dict[str, float]:
        """Return how well the scores of rows agree with their labels: auc, logloss and more, by name."""
        labels = self._fitted.labels
        return self._fitted.evaluate(_with_label(data, y, {"label": labels}))

    def score(self, data: Any, y: Any = None) -> float:
        """Return the auc, or the mean over labels: for choosing hyper-parameters."""
        metrics = self.evaluate(data, y)
        if "auc" not in metrics:
            raise ValueError("the label is the same in all rows, so there is no auc")
        return metrics["auc"]

    @classmethod
    def _of(cls: type[Self], model: _recmill.Ranker) -> Self:
        config = json.loads(model.config)
        made = cls(**{name: value for name, value in config.items() if name != "model"})
        made._model = model
        return made


class Logistic(Ranker):
    """A weight for each category and number: what the others must beat."""

    kind = "logistic"


class FactorizationMachine(Ranker):
    """Weights and products of embeddings, two by two (Rendle 2010)."""

    kind = "fm"


class WideDeep(Ranker):
    """A linear model beside a network (Cheng et al. 2016)."""

    kind = "wide-deep"


class DeepFM(Ranker):
    """A factorization machine and a network over the same embeddings (Guo et al. 2017).

    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> rows = {"user": rng.integers(0, 20, 500), "hour": rng.random(500)}
    >>> rows["label"] = (rows["user"] % 2).astype(np.int64)
    >>> model = DeepFM(epochs=3, hidden=[16], random_state=0, device="cpu")
    >>> _ = model.fit(rows, label="label", categorical=["user"], show_progress=False)
    >>> model.predict({"user": rows["user"][:3], "hour": rows["hour"][:3]}).shape
    (3,)
    """

    kind = "deepfm"


class DCNv2(Ranker):
    """Explicit crosses of features beside a network (Wang et al. 2021)."""

    kind = "dcn-v2"


class DLRM(Ranker):
    """Products of embeddings and a network above them (Naumov et al. 2019)."""

    kind = "dlrm"


class AutoInt(Ranker):
    """Fields that attend to each other (Song et al. 2019)."""

    kind = "autoint"


class FinalMLP(Ranker):
    """Two gated networks joined by products (Mao et al. 2023)."""

    kind = "finalmlp"


class SharedBottom(Ranker):
    """Several labels by one network with a tower for each."""

    kind = "shared-bottom"


class MMoE(Ranker):
    """Several labels by a mixture of experts (Ma et al. 2018)."""

    kind = "mmoe"


def _listed(names: Any) -> list[str]:
    """Return names of columns as texts; one of them, or several."""
    if names is None:
        return []
    one = isinstance(names, str) or not isinstance(names, Iterable)
    return [str(name) for name in ([names] if one else names)]


def _as(default: Any, value: Any, name: str) -> Any:
    """Return a hyper-parameter of the type of its default; what is ``None`` by default may be a number."""
    if value is None and default is None:
        return None
    if isinstance(default, bool):
        if not isinstance(value, (bool, np.bool_)):
            raise ValueError(f"{name} needs to be True or False, not {value!r}")
        return bool(value)
    if isinstance(default, int):
        return as_count(value, name, 2**63)
    if isinstance(default, list):
        if isinstance(value, str) or not isinstance(value, Iterable):
            raise ValueError(f"{name} needs to be a list of whole numbers, not {value!r}")
        return [as_count(one, name, 2**63) for one in value]
    return str(value) if isinstance(default, str) else as_number(value, name)


def _with_label(data: Any, y: Any, options: dict[str, Any]) -> Any:
    """Return a table for the native part, with ``y`` as its label where there is one."""
    if y is None:
        return table(data)
    names = options.get("label") or ["label"]
    if len(names) != 1:
        raise ValueError("y is one label; several are columns of the table")
    if is_table(data) and names[0] in names_of(data):
        raise ValueError(f"the label is given twice: as y, and as the table's column {names[0]!r}")
    if "label" in options:
        options["label"] = names
    kind = type(data).__module__.split(".")[0]
    label = np.asarray(y)
    if kind == "polars":
        import polars as pl

        return table(data.lazy().with_columns(pl.Series(names[0], label)).collect())
    columns = table(data)
    if not isinstance(columns, list):
        import pyarrow as pa

        return table(pa.table(data).append_column(names[0], pa.array(label)))
    return [*columns, *table({names[0]: label})]
