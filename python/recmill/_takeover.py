"""Models of the library implicit, taken over as they are."""

from __future__ import annotations

import inspect
import os
from typing import Any

import numpy as np

from ._matrix import parts
from ._recommender import Recommender
from .als import AlternatingLeastSquares
from .bpr import BayesianPersonalizedRanking
from .nearest_neighbours import (
    BM25Recommender,
    CosineRecommender,
    ItemItemRecommender,
    TFIDFRecommender,
)

KNN = {kind.__name__: kind for kind in (BM25Recommender, CosineRecommender, ItemItemRecommender, TFIDFRecommender)}


class Products(AlternatingLeastSquares):
    """Factors of a model that learns in a way of its own: asked and kept, but nothing is learnt or solved from them."""

    def fit(self, *arguments: Any, **named: Any) -> Any:
        """Refuse: what these factors were learnt by is not known here."""
        raise NotImplementedError("factors that were taken over are asked and kept, not fitted")

    def recommend(self, userid: Any = None, user_items: Any = None, *arguments: Any, **named: Any) -> Any:
        """As of any model, of users who have factors."""
        given = inspect.signature(super().recommend).bind(userid, user_items, *arguments, **named)
        if given.arguments.get("recalculate_user"):
            raise NotImplementedError("recalculate_user isn't supported by factors that were taken over")
        return super().recommend(userid, user_items, *arguments, **named)

    def explain(self, *arguments: Any, **named: Any) -> Any:
        """Refuse: an explanation is of an objective."""
        raise NotImplementedError("explain isn't supported by factors that were taken over")

    def _solved(self, ids: Any, matrix: Any, name: str, of_items: bool) -> Any:
        raise NotImplementedError("nothing is solved from factors that were taken over")


def from_implicit(model: Any) -> Recommender:
    """Return a model with the factors, or the similarities, of a fitted model of implicit.

    It recommends what the other does. What users have had is not part of such a model, so ``recommend`` wants ``user_items``.
    """
    if not hasattr(model, "__dict__"):
        raise ValueError(f"no fitted model of implicit: {model!r}")
    if getattr(model, "similarity", None) is not None:
        return _knn(type(model).__name__, vars(model) | {"similarity": model.similarity})
    attributes = {name: value for name, value in vars(model).items() if not name.startswith("_")}
    for side in ("user_factors", "item_factors"):
        factors = getattr(model, side, None)
        if factors is None:
            raise ValueError(f"no fitted model of implicit: it has neither similarity nor {side}")
        attributes[side] = factors.to_numpy() if hasattr(factors, "to_numpy") else np.asarray(factors)
    return _factors(attributes)


def read_npz(path: str | os.PathLike[str], kind: str = "ItemItemRecommender") -> Recommender:
    """Return the model of a file that implicit's ``save`` wrote, of this class if it has similarities; no pickle is read."""
    with np.load(path, allow_pickle=False) as file:
        stored = {name: file[name] for name in file.files}
    attributes = {name: value.item() if value.ndim == 0 else value for name, value in stored.items()}
    if {"user_factors", "item_factors"} <= set(attributes):
        return _factors(attributes)
    if {"data", "indices", "indptr", "shape"} <= set(attributes):
        from scipy.sparse import csr_matrix

        similarity = csr_matrix(
            (attributes["data"], attributes["indices"], attributes["indptr"]), shape=attributes["shape"]
        )
        return _knn(kind, attributes | {"similarity": similarity})
    raise ValueError(f"{os.fspath(path)}: no model of implicit, only {', '.join(sorted(stored))}")


def _factors(attributes: dict[str, Any]) -> Recommender:
    users, items = attributes["user_factors"], attributes["item_factors"]
    if "alpha" in attributes or "use_cg" in attributes:
        kept: tuple[str, ...] = ("regularization", "alpha", "iterations", "use_cg", "num_threads")
        params = {name: attributes[name] for name in kept if attributes.get(name) is not None}
        return AlternatingLeastSquares(factors=users.shape[1], **params)._replace(users, items)
    if "verify_negative_samples" in attributes and np.all(users[:, -1] == 1):
        kept = ("learning_rate", "regularization", "iterations", "num_threads", "verify_negative_samples")
        params = {name: attributes[name] for name in kept if attributes.get(name) is not None}
        model = BayesianPersonalizedRanking(factors=users.shape[1] - 1, **params)
        return model._replace(users[:, :-1], items[:, :-1], items[:, -1])
    return Products(factors=users.shape[1])._replace(users, items)


def _knn(name: str, attributes: dict[str, Any]) -> Recommender:
    from scipy.sparse import csr_matrix

    params = {param: attributes[param] for param in ("K", "K1", "B", "num_threads") if param in attributes}
    kind = KNN.get(name, ItemItemRecommender)
    model = kind(**{param: value for param, value in params.items() if param in kind._names()})
    similarity = csr_matrix(attributes["similarity"])
    similarity.sort_indices()
    return model._taken(similarity, parts(csr_matrix((0, similarity.shape[0]), dtype=np.float32)))
