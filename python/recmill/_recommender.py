"""What all models have in common: parameters, fitting, asking, keeping."""

from __future__ import annotations

import json
import os
from typing import Any, Callable, ClassVar, Iterable, Sequence, TypeVar, cast

import numpy as np
import numpy.typing as npt

from . import _recmill
from ._estimator import Estimator
from ._matrix import as_count, as_csr, as_filter, as_indices, as_number, is_sparse, parts
from ._progress import Watch
from ._recommendations import Recommendations
from ._table import events, is_table

Self = TypeVar("Self", bound="Recommender")

KINDS: dict[str, type[Recommender]] = {}
"""The class of each model of a model directory."""


class Recommender(Estimator[_recmill.Model]):
    """What all models that find items have in common.

    Hyper-parameters are the constructor's keywords and attributes of the same names, as in scikit-learn; what fitting finds has
    a trailing underscore.
    """

    kind: ClassVar[str] = ""
    """The model's name in a model directory."""

    _native = _recmill.Model
    _reads_order: ClassVar[bool] = False
    """Whether it learns from the order of events."""
    _renamed: ClassVar[dict[str, str]] = {}
    """What the constructor calls a hyper-parameter otherwise than the model directory."""

    def __init_subclass__(cls, **arguments: Any) -> None:
        super().__init_subclass__(**arguments)
        if "kind" in vars(cls):
            KINDS.setdefault(cls.kind, cls)

    def __sklearn_tags__(self) -> Any:
        from sklearn.utils import InputTags, Tags, TargetTags

        return Tags(
            estimator_type=None,
            target_tags=TargetTags(required=False),
            transformer_tags=None,
            regressor_tags=None,
            classifier_tags=None,
            input_tags=InputTags(sparse=True),
        )

    # Fitting.

    def _config(self) -> dict[str, Any]:
        """Return the configuration as the model directory spells it."""
        raise NotImplementedError

    def _computes_loss(self) -> bool:
        return False

    def fit(
        self: Self,
        user_items: Any,
        show_progress: bool = True,
        callback: Callable[[int, float, float | None], Any] | None = None,
        *,
        user: str | None = None,
        item: str | None = None,
        value: str | None = None,
        time: str | None = None,
    ) -> Self:
        """Learn from what users did, and return the model itself.

        Parameters
        ----------
        user_items
            A sparse matrix of scipy, ``[n_users, n_items]``: what is not 0 was seen, and its value says how much. CSR with
            float32 values is read where it is. Or a table of pandas, polars or pyarrow with a row for each event.
        show_progress
            Whether to show a bar, where tqdm is installed.
        callback
            Called after each iteration with its number from 0, its seconds, and its loss or ``None``.
        user, item, value, time
            Of a table: the columns. ``user`` and ``item`` are texts or whole numbers; answers are in their texts.

        Ctrl-C ends the call within a second, and leaves the model as it was before.
        """
        watch = Watch(bool(show_progress), callback, self.kind)
        how = self._how(watch, self._computes_loss())
        config = json.dumps(self._config())
        try:
            if is_sparse(user_items) or not is_table(user_items):
                if any((user, item, value, time)):
                    raise ValueError("user, item, value and time name columns of a table")
                if self._reads_order:
                    what = f"{type(self).__name__} learns from the order of what users did, which a matrix has not"
                    raise ValueError(f"{what}: fit it on a table, with the column of times as time")
                matrix = as_csr(user_items, "user_items", warn=True)
                self._model = _recmill.fit(config, parts(matrix), how)
            else:
                told = events(user_items, user, item, value, time)
                self._model = _recmill.fit_frame(config, told, how, *self._known_of())
        finally:
            watch.close()
        self.device_ = watch.device
        return self._refreshed()

    def _known_of(self) -> tuple[Any, Any]:
        """Return what is known of users and of items besides what they did, as the native part takes it."""
        return None, None

    def _refreshed(self: Self) -> Self:
        """Forget what was derived from an earlier model."""
        for name in [name for name in vars(self) if name.startswith("_cached_")]:
            delattr(self, name)
        return self

    @property
    def n_users_(self) -> int:
        """How many users the model was fitted with."""
        return self._fitted.n_users

    @property
    def n_items_(self) -> int:
        """How many items the model was fitted with."""
        return self._fitted.n_items

    @property
    def loss_curve_(self) -> list[float | None]:
        """The loss of each iteration; ``None`` where it was not computed."""
        return [loss for _, _, loss in self._fitted.epochs]

    # Asking.

    def _wanted(self, n: int, only_new: bool, exclude: Any, only: Any) -> dict[str, Any]:
        return {
            "n": n,
            "only_new": bool(only_new),
            "exclude": exclude,
            "only": only,
            "threads": self._threads(),
        }

    def recommend(
        self,
        userid: Any = None,
        user_items: Any = None,
        N: int = 10,
        filter_already_liked_items: bool = True,
        filter_items: Any = None,
        recalculate_user: bool = False,
        items: Any = None,
        *,
        k: int | None = None,
        history: Any = None,
    ) -> Any:
        """Return the best items for a user, or for each of several.

        Parameters
        ----------
        userid
            The user's index, or an array of them; ids where the model was fitted on a table.
        user_items
            A sparse matrix with one row for each user: what they have had by now. Without it, what the model was fitted on.
        N, k
            How many items.
        filter_already_liked_items
            Whether items of ``user_items`` are left out.
        filter_items
            Other items that are left out.
        recalculate_user
            Whether the user is known by ``user_items`` alone, as one who came after fitting. Such a ``userid`` may be any.
        items
            The only items to choose from.
        history
            In place of ``userid``: the ids of items that somebody has had, the oldest first, or a list of such lists.

        Returns
        -------
        ids, scores
            ``[N]`` int32 and float32 for one user, ``[n_users, N]`` for several; best first. Where fewer items are left, the rest
            has id -1 and the lowest float32. By ids: a :class:`Recommendations`.
        """
        model = self._fitted
        n = as_count(N if k is None else k, "N")
        if not model.by_index:
            if user_items is not None:
                raise ValueError("the model was fitted on a table: it knows what users have had; see history")
            return self._recommend_by_id(
                userid, history, n, filter_already_liked_items, filter_items, recalculate_user, items
            )
        if history is not None:
            raise ValueError("history is of ids, for a model that was fitted on a table; give user_items")
        scalar = np.ndim(userid) == 0
        users = as_indices(userid, "userid")
        rows = None
        if user_items is not None:
            matrix = as_csr(user_items, "user_items")
            if matrix.shape[0] != len(users):
                raise ValueError(
                    "user_items must contain 1 row for every user in userids: "
                    f"{matrix.shape[0]} rows for {len(users)} users; one user's is user_items[[userid]]"
                )
            rows = parts(matrix)
        wanted = self._wanted(
            n, filter_already_liked_items, as_filter(filter_items, "filter_items"), as_filter(items, "items")
        )
        ids, scores = model.recommend(users, rows, bool(recalculate_user), wanted)
        return self._shaped(ids, scores, scalar)

    def _shaped(self, ids: Any, scores: Any, scalar: bool) -> Any:
        return (ids[0], scores[0]) if scalar else (ids, scores)

    def _recommend_by_id(
        self, users: Any, history: Any, n: int, only_new: bool, exclude: Any, refold: bool, only: Any
    ) -> Recommendations:
        model = self._fitted
        wanted = self._wanted(n, only_new, self._known_items(exclude), self._known_items(only))
        if (users is None) == (history is None):
            raise ValueError("recommend for userid or for history, one of them")
        if users is not None:
            queries, scalar = texts(users)
            found = model.recommend(model.user_indices(queries), None, refold, wanted)
        else:
            several = _is_listed(history) and any(_is_listed(one) for one in history)
            scalar = not several
            histories = [texts(one)[0] for one in (history if several else [history])]
            queries = [", ".join(one) for one in histories]
            if model.reads_order:
                ordered = [model.item_indices(one).tolist() for one in histories]
                return self._named(queries, model.recommend_histories(ordered, wanted), model.item_ids, scalar)
            columns = [np.unique(model.item_indices(one)) for one in histories]
            indptr = np.cumsum([0, *map(len, columns)], dtype=np.int64)
            indices = np.concatenate([np.empty(0, np.int64), *columns])
            rows = (indptr, indices, np.ones(len(indices), np.float32), model.n_items)
            found = model.recommend(None, rows, True, wanted)
        return self._named(queries, found, model.item_ids, scalar)

    def _known_items(self, ids: Any) -> npt.NDArray[np.int64] | None:
        return None if ids is None else np.unique(self._fitted.item_indices(texts(ids)[0]))

    def _named(
        self,
        queries: list[str],
        found: tuple[Any, Any],
        names: Callable[[Any], list[str | None]],
        scalar: bool,
    ) -> Recommendations:
        indices, scores = found
        ids = np.empty(indices.size, dtype=object)
        ids[:] = names(indices.ravel().astype(np.int64))
        ids = ids.reshape(indices.shape)
        return Recommendations(queries, *self._shaped(ids, scores, scalar))

    def similar_items(
        self,
        itemid: Any,
        N: int = 10,
        recalculate_item: bool = False,
        item_users: Any = None,
        filter_items: Any = None,
        items: Any = None,
        *,
        k: int | None = None,
    ) -> Any:
        """Return the items most like an item, or each of several: itself first, as in implicit.

        Parameters
        ----------
        itemid
            The item's index, or an array of them; ids where the model was fitted on a table.
        N, k
            How many items.
        recalculate_item, item_users
            Only of models that can compute an item anew from who has had it.
        filter_items
            Items that are left out.
        items
            The only items to choose from.

        Returns
        -------
        ids, scores
            As :meth:`recommend`; a score is a cosine, or what the model's kind has for one.
        """
        model = self._fitted
        n = as_count(N if k is None else k, "N")
        if recalculate_item or item_users is not None:
            return self._similar_to_recalculated(itemid, n, item_users, filter_items, items)
        if not model.by_index:
            queries, scalar = texts(itemid)
            wanted = self._wanted(n, False, self._known_items(filter_items), self._known_items(items))
            about = model.item_indices(queries)
            found = self._with_itself(about, *model.similar_items(about, wanted))
            return self._named(queries, found, model.item_ids, scalar)
        scalar = np.ndim(itemid) == 0
        wanted = self._wanted(n, False, as_filter(filter_items, "filter_items"), as_filter(items, "items"))
        about = as_indices(itemid, "itemid")
        ids, scores = model.similar_items(about, wanted)
        ids, scores = self._with_itself(about, ids, scores)
        return self._shaped(ids, scores, scalar)

    def _similar_to_recalculated(self, itemid: Any, n: int, item_users: Any, exclude: Any, only: Any) -> Any:
        """Answer for items as they would be by who has had them."""
        raise NotImplementedError(f"recalculate_item isn't supported by {type(self).__name__}")

    def _with_itself(self, about: Any, ids: Any, scores: Any) -> Any:
        """Return the answers about items with each item's likeness to itself, where that is not 1."""
        return ids, scores

    def similar_users(
        self, userid: Any, N: int = 10, filter_users: Any = None, users: Any = None, *, k: int | None = None
    ) -> Any:
        """Return the users most like a user, or each of several: itself first, as in implicit.

        Of models with factors for users.
        """
        model = self._fitted
        n = as_count(N if k is None else k, "N")
        if model.by_index:
            queries: list[str] = []
            asked, scalar = as_indices(userid, "userid"), np.ndim(userid) == 0
            exclude, only = as_filter(filter_users, "filter_users"), as_filter(users, "users")
        else:
            queries, scalar = texts(userid)
            asked = model.user_indices(queries)
            known = [None if ids is None else model.user_indices(texts(ids)[0]) for ids in (filter_users, users)]
            exclude, only = (None if ids is None else np.unique(ids) for ids in known)
        found = model.similar_users(asked, self._wanted(n, False, exclude, only))
        if found is None:
            raise NotImplementedError(f"similar_users isn't implemented for {type(self).__name__}")
        if not model.by_index:
            return self._named(queries, found, model.user_ids, scalar)
        return self._shaped(*found, scalar)

    def rank_items(self, userid: Any, user_items: Any, selected_items: Any, recalculate_user: bool = False) -> Any:
        """Return the selected items, the best for the user first."""
        n = len(np.unique(as_indices(selected_items, "selected_items")))
        return self.recommend(userid, user_items, n, False, None, recalculate_user, selected_items)

    def score(self, user_items: Any, y: Any = None) -> float:
        """Return how well the model finds what was hidden of each row: for choosing hyper-parameters.

        Rows are taken for users that the model has not seen. A seeded third of each row is hidden, at least one item where there
        are two; the rest is what the user is known by. The mean ndcg@10 of the hidden items, over rows that have some.
        """
        from .evaluation import _ndcg_of_hidden

        return _ndcg_of_hidden(self, as_csr(user_items, "user_items"))

    # Keeping.

    def _about(self) -> dict[str, Any]:
        """Return what the model directory does not say of a model by itself."""
        return {}

    def _beside(self) -> tuple[str, ...]:
        return (json.dumps(self._about()),)

    @classmethod
    def _of(cls: type[Self], model: _recmill.Model) -> Self:
        """Wrap a model with the hyper-parameters that it was trained with."""
        made = cls.__new__(cls)
        cls.__init__(made, **cls._params_of(json.loads(model.config)))
        made._model = model
        return made

    @classmethod
    def _params_of(cls, config: dict[str, Any]) -> dict[str, Any]:
        """Return the constructor's keywords for a configuration."""
        names = cls._names()
        named = {cls._renamed.get(name, name): value for name, value in config.items()}
        return {name: value for name, value in named.items() if name in names}


class PlainRecommender(Recommender):
    """What models have in common whose hyper-parameters are called as in the model directory.

    Those that stop by themselves have ``holdout`` and ``refit`` besides.
    """

    def _config(self) -> dict[str, Any]:
        config: dict[str, Any] = {"model": self.kind}
        for name, default in self._defaults().items():
            value = getattr(self, name)
            if name in ("num_threads", "random_state", "device", "holdout", "refit"):
                continue
            if isinstance(default, bool):
                config[name] = bool(value)
            elif isinstance(default, int):
                config[name] = as_count(value, name)
            elif isinstance(default, float):
                config[name] = as_number(value, name)
            elif isinstance(default, tuple):
                config[name] = [as_count(one, name) for one in value]
            elif isinstance(value, str):
                config[name] = value
            else:
                raise ValueError(f"{name} needs to be a text, not {value!r}")
        return config


class FactorRecommender(Recommender):
    """What models with a vector for each user and each item have in common."""

    def _parameter(self, name: str) -> npt.NDArray[np.float32] | None:
        cached = f"_cached_{name}"
        if cached not in vars(self):
            values = self._fitted.parameter(name)
            if values is not None:
                values.flags.writeable = False
            setattr(self, cached, values)
        return cast("npt.NDArray[np.float32] | None", getattr(self, cached))

    def _replace(self: Self, user_factors: Any, item_factors: Any, item_bias: Any = None) -> Self:
        """Go on with other factors, and the same ids as far as they go."""
        config = json.dumps(self._config() | {"factors": int(np.shape(item_factors)[1])})
        users = np.ascontiguousarray(user_factors, np.float32)
        items = np.ascontiguousarray(item_factors, np.float32)
        bias = None if item_bias is None else np.ascontiguousarray(item_bias, np.float32)
        self._model = _recmill.Model.of_factors(config, users, items, bias, self._model)
        return self._refreshed()


class BiasedFactorRecommender(FactorRecommender):
    """What models with biases beside the vectors have in common."""

    def _joined(self, name: str, *columns: str | float) -> npt.NDArray[np.float32]:
        """Return factors with columns beside them: arrays of the model by name, or numbers."""
        cached = f"_cached_joined_{name}"
        if cached not in vars(self):
            factors = self._fitted.parameter(name)
            beside = []
            for column in columns:
                values = self._fitted.parameter(column) if isinstance(column, str) else column
                beside.append(np.full(len(factors), 0.0 if values is None else values, np.float32))
            joined = np.column_stack([factors, *beside])
            joined.flags.writeable = False
            setattr(self, cached, joined)
        return cast("npt.NDArray[np.float32]", getattr(self, cached))


def load(path: str | os.PathLike[str], *, verify: bool = False, kind: str = "ItemItemRecommender") -> Any:
    """Open a model directory that :meth:`Recommender.save` or the command ``recmill train`` wrote.

    Its files are mapped, not read: it opens at once whatever its size. With ``verify`` every byte is compared with its hash.
    An .npz of implicit is read too; of one with similarities ``kind`` says which class it is of, as the file does not.
    """
    if os.fspath(path).endswith(".npz"):
        from ._takeover import read_npz

        return read_npz(path, kind)
    model = _recmill.open(os.fspath(path), verify)
    name = json.loads(model.config)["model"]
    if isinstance(model, _recmill.Texts):
        from .texts import TextClassifier

        return TextClassifier._of(model)
    if isinstance(model, _recmill.Ranker):
        from .rankers import RANKERS

        return RANKERS[name]._of(model)
    known = KINDS.get(name, Stored)
    named = json.loads(model.about).get("class")
    return next((one for one in known.__subclasses__() if one.__name__ == named), known)._of(model)


class Stored(Recommender):
    """A model of a kind that has no class of its own here: it can be asked and kept."""

    def __init__(self, *, device: str = "auto", num_threads: int = 0, random_state: Any = None):
        self.device = device
        self.num_threads = num_threads
        self.random_state = random_state


def _is_listed(ids: Any) -> bool:
    return isinstance(ids, (list, tuple, np.ndarray)) or (
        isinstance(ids, Iterable) and not isinstance(ids, (str, bytes))
    )


def texts(ids: Any) -> tuple[list[str], bool]:
    """Return ids as texts, and whether it was a single one."""
    if _is_listed(ids):
        return [_text(one) for one in cast(Sequence[Any], ids)], False
    return [_text(ids)], True


def _text(one: Any) -> str:
    if isinstance(one, str):
        return one.strip(" \t\n\r\f\v")
    if isinstance(one, (int, np.integer)) and not isinstance(one, bool):
        return str(int(one))
    raise TypeError(f"an id is a text or a whole number, not {one!r}")
