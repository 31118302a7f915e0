"""What every model has: hyper-parameters in scikit-learn's manner, a device, a seed, threads."""

from __future__ import annotations

import inspect
import json
import os
from typing import Any, ClassVar, Generic, Sequence, TypeVar, cast

import numpy as np

from ._matrix import as_choice, as_count, as_number, as_share
from .exceptions import NotFittedError

Self = TypeVar("Self", bound="Estimator[Any]")
Native = TypeVar("Native")
"""What holds a fitted model: :class:`_recmill.Model`, :class:`_recmill.Ranker` or :class:`_recmill.Texts`."""


class Estimator(Generic[Native]):
    """Hyper-parameters are the constructor's keywords and attributes of the same names; what fitting finds has a trailing
    underscore."""

    device: str
    num_threads: int
    random_state: Any
    use_gpu: bool = False
    _model: Native | None = None
    _native: ClassVar[Any] = None

    @property
    def _fitted(self) -> Native:
        if self._model is None:
            raise NotFittedError(f"this {type(self).__name__} is not fitted yet: call fit first")
        return self._model

    @classmethod
    def _defaults(cls) -> dict[str, Any]:
        """Return the hyper-parameters with their defaults."""
        return {name: parameter.default for name, parameter in inspect.signature(cls).parameters.items()}

    @classmethod
    def _names(cls) -> list[str]:
        return list(cls._defaults())

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Return the hyper-parameters by name."""
        return {name: getattr(self, name) for name in self._names()}

    def set_params(self: Self, **params: Any) -> Self:
        """Change hyper-parameters; they take effect when the model is fitted."""
        known = self._names()
        unknown = [name for name in params if name not in known]
        if unknown:
            raise ValueError(f"{type(self).__name__} has no parameter {unknown[0]!r}, only {', '.join(known)}")
        for name, value in params.items():
            setattr(self, name, value)
        return self

    def __repr__(self) -> str:
        defaults = self._defaults()
        shown = []
        for name, value in self.get_params().items():
            default = defaults[name]
            if value is not default and repr(value) != repr(default):
                shown.append(f"{name}={value!r}")
        return f"{type(self).__name__}({', '.join(shown)})"

    def __sklearn_is_fitted__(self) -> bool:
        return self._model is not None

    def _device(self) -> str:
        if not isinstance(self.device, str):
            raise ValueError(f"device needs to be a text such as auto, cpu, cuda:0 or wgpu:0, not {self.device!r}")
        return "cuda:0" if self.use_gpu and self.device == "auto" else self.device

    def _seed(self) -> int:
        state = self.random_state
        if isinstance(state, (int, np.integer)) and not isinstance(state, bool):
            if not 0 <= state < 2**63:
                raise ValueError(f"random_state needs to be from 0 to 2**63 - 1, not {state}")
            return int(state)
        if isinstance(state, np.random.RandomState):
            return int(state.randint(0, 2**31 - 1))
        try:
            return int(np.random.default_rng(state).integers(2**63))
        except (TypeError, ValueError):
            kinds = "None, a whole number, or a generator of numpy"
            raise ValueError(f"random_state needs to be {kinds}, not {state!r}") from None

    def _threads(self) -> int:
        return as_count(self.num_threads, "num_threads", 2**31)

    def _how(self, told: Any, loss: bool) -> dict[str, Any]:
        """Return how fitting goes, for the native part."""
        return {
            "device": self._device(),
            "seed": self._seed(),
            "threads": self._threads(),
            "loss": loss,
            "holdout": as_share(getattr(self, "holdout", 0.0), "holdout"),
            "refit": bool(getattr(self, "refit", False)),
            "told": told,
        }

    def save(self, path: str | os.PathLike[str], *, keep: int = 3) -> str:
        """Write the model to a directory, which the command opens, and return the version's folder.

        Where there is a model already, a version is added; the newest ``keep`` stay. A crash leaves the version before it.
        """
        n = as_count(keep, "keep", 2**31)
        if n < 1:
            raise ValueError(f"keep needs to be at least 1, not {keep!r}")
        return str(cast(Any, self._fitted).save(os.fspath(path), n, *self._beside()))

    def _beside(self) -> tuple[str, ...]:
        """Return what is told besides to whoever writes the directory."""
        return ()

    @classmethod
    def load(cls: type[Self], path: str | os.PathLike[str]) -> Self:
        """Open what :meth:`save` or the command wrote, or an .npz of implicit."""
        from ._recommender import load

        model = load(path, kind=cls.__name__)
        if not isinstance(model, cls):
            raise ValueError(f"{os.fspath(path)}: a {type(model).__name__}, not a {cls.__name__}")
        return model

    def __getstate__(self) -> dict[str, Any]:
        state = {name: value for name, value in vars(self).items() if not name.startswith("_cached_")}
        if self._model is not None:
            state["_model"] = cast(Any, self._model).files()
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        if isinstance(state.get("_model"), dict):
            self._model = self._native.of_files(state["_model"])


class JudgedEstimator(Estimator[Native]):
    """What takes the hyper-parameters of its model by name, and judges each epoch by what is held out."""

    holdout: float
    metric: str
    patience: int

    @classmethod
    def _own(cls) -> dict[str, Any]:
        """Return what is no hyper-parameter of the model, with its defaults: the constructor's named keywords."""
        parameters = inspect.signature(cls).parameters.values()
        return {one.name: one.default for one in parameters if one.kind is one.KEYWORD_ONLY}

    def _take(self, own: dict[str, Any], of_model: dict[str, Any]) -> None:
        known = self._defaults()
        unknown = [name for name in of_model if name not in known]
        if unknown:
            raise TypeError(f"{type(self).__name__} has no parameter {unknown[0]!r}, only {', '.join(known)}")
        vars(self).update(known | own | of_model)

    def _judged(self, metric: str, metrics: Sequence[str]) -> dict[str, Any]:
        """Return how epochs are judged, for the native part; ``metric`` is one of ``metrics``."""
        holdout = as_number(self.holdout, "holdout")
        if not 0.0 <= holdout < 1.0:
            raise ValueError(f"holdout needs to be at least 0 and below 1, not {self.holdout}")
        as_choice(metric, "metric", metrics)
        patience = as_count(self.patience, "patience", 2**31)
        return {"holdout": holdout, "metric": self.metric, "patience": patience}

    @property
    def epochs_(self) -> list[dict[str, Any]]:
        """A dictionary for each epoch: number, seconds, loss and metrics."""
        return [
            {"epoch": epoch, "seconds": seconds, "loss": loss, **json.loads(metrics)}
            for epoch, seconds, loss, metrics in cast(Any, self._fitted).epochs
        ]
