"""Recommender models that train on any processor and serve the very file that was trained.

A model learns from what users did, and answers with items::

    >>> import numpy as np, scipy.sparse as sp
    >>> import recmill
    >>> likes = sp.random_array((200, 50), density=0.2, format="csr", dtype=np.float32, rng=0)
    >>> model = recmill.AlternatingLeastSquares(factors=8, iterations=5, random_state=0, device="cpu")
    >>> model.fit(likes, show_progress=False)
    AlternatingLeastSquares(factors=8, iterations=5, random_state=0, device='cpu')
    >>> ids, scores = model.recommend(3, likes[[3]], N=5)
    >>> ids.shape, scores.dtype
    ((5,), dtype('float32'))

Where to go from here:

===========================================  =====================================================================
``AlternatingLeastSquares``                  matrix factorization, where every pair counts, seen or not
``BayesianPersonalizedRanking``              matrix factorization that learns what comes before what
``LogisticMatrixFactorization``              matrix factorization that learns how likely an item is taken
``MatrixFactorization``, ``Warp``            matrix factorization against many items at once; that learns from what stands too high
``SASRec``, ``GRU4Rec``                      what comes next, from what somebody did in order
``Svd``                                      matrix factorization that predicts ratings
``CosineRecommender`` and its like           items that are taken by the same users
``Ease``, ``MostPopular``                    a dense model of items in closed form; what everybody takes
``DeepFM`` and others of ``rankers``         models that score rows of features: clicks, purchases, fraud
``TwoTower``                                 users and items by what is known of them, also of who came later
``TextClassifier``                           what a text is about, or that it is about nothing known
``recmill.evaluation``                       splits and ranking metrics
``recmill.load(path)``                       opens what ``model.save(path)`` or the command ``recmill train`` wrote
``recmill.from_implicit(model)``             takes over a model of the library implicit
``recmill.devices()``                        what can compute here
===========================================  =====================================================================

Users and items are rows and columns of a sparse matrix, named by their index, or texts of a table::

    model.fit(table, user="user_id", item="item_id", value="rating")
    model.recommend(["alice"], k=10).to_pandas()
"""

from __future__ import annotations

from . import cpu, evaluation, rankers, utils
from ._cuda import point_to_packages
from ._recmill import __version__
from ._recommendations import Recommendations
from ._recommender import Recommender, load
from ._takeover import from_implicit
from .als import AlternatingLeastSquares
from .bpr import BayesianPersonalizedRanking
from .closed_form import Ease, MostPopular
from .devices import Device, devices
from .exceptions import NotFittedError, ParameterWarning
from .lmf import LogisticMatrixFactorization
from .mf import MatrixFactorization, Warp
from .nearest_neighbours import (
    BM25Recommender,
    CosineRecommender,
    ItemItemRecommender,
    TFIDFRecommender,
)
from .rankers import (
    DLRM,
    AutoInt,
    DCNv2,
    DeepFM,
    FactorizationMachine,
    FinalMLP,
    Logistic,
    MMoE,
    Ranker,
    SharedBottom,
    WideDeep,
)
from .sequences import GRU4Rec, SASRec
from .svd import Svd
from .texts import TextClassifier
from .two_tower import TwoTower

point_to_packages()

__all__ = [
    "AlternatingLeastSquares",
    "AutoInt",
    "BM25Recommender",
    "BayesianPersonalizedRanking",
    "CosineRecommender",
    "DCNv2",
    "DLRM",
    "DeepFM",
    "Device",
    "Ease",
    "FactorizationMachine",
    "FinalMLP",
    "GRU4Rec",
    "ItemItemRecommender",
    "Logistic",
    "LogisticMatrixFactorization",
    "MMoE",
    "MatrixFactorization",
    "MostPopular",
    "NotFittedError",
    "ParameterWarning",
    "Ranker",
    "Recommendations",
    "Recommender",
    "SASRec",
    "SharedBottom",
    "Svd",
    "TFIDFRecommender",
    "TextClassifier",
    "TwoTower",
    "Warp",
    "WideDeep",
    "__version__",
    "cpu",
    "devices",
    "evaluation",
    "from_implicit",
    "load",
    "rankers",
    "utils",
]
