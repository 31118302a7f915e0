"""Matrix factorization against many items at once."""

from __future__ import annotations

from typing import Any

from ._recommender import FactorRecommender, PlainRecommender

__all__ = ["MatrixFactorization", "Warp"]


class _Factors(PlainRecommender, FactorRecommender):
    """The vectors as they are."""

    @property
    def user_factors(self) -> Any:
        """``[n_users, factors]`` float32; ``None`` before fitting."""
        return None if self._model is None else self._parameter("user_factors")

    @property
    def item_factors(self) -> Any:
        """``[n_items, factors]`` float32; ``None`` before fitting."""
        return None if self._model is None else self._parameter("item_factors")


class MatrixFactorization(_Factors):
    """Matrix factorization that tells each of a user's items from many others at once, by a softmax over sampled items.

    Parameters
    ----------
    factors
        Length of a user's and an item's vector.
    loss
        ``sampled-softmax``, ``bpr`` (each drawn item by itself), or ``contrastive`` (SimpleX, Mao et al. 2021).
    similarity
        ``cosine`` or ``dot``: how vectors become a score.
    temperature
        What cosines are divided by: the smaller, the more the hardest negatives count.
    margin, negative_weight
        With ``loss="contrastive"``: the cosine up to which a drawn item is no loss, and what their mean counts.
    popularity_weight
        What the logarithm of an item's interactions counts in its score, which cosines leave out; in learning, too.
    propagation_layers
        How many steps along the interactions vectors are averaged over in each step of learning (LightGCN); 0 for none. With
        some, batches should be large: 8192 and more.
    learning_rate, schedule
        Step size of Adam, and how it changes in the course of training: ``constant``, or falling ``linear`` or ``cosine`` to 0
        in the last of ``iterations``.
    regularization
        How strongly long vectors are punished, where they are touched.
    batch_size
        Interactions a step.
    n_negatives
        Items that are drawn for each step, beside those of the batch.
    negatives, negatives_exponent
        How they are drawn: ``uniform``, or ``popularity`` to a power.
    verify_negatives
        Whether what the user has had is left out of the negatives.
    iterations
        Epochs at most.
    holdout
        The share of users, 10,000 at most, an event of whom is held out of what is learned: the newest
        of a table, one that is drawn of a matrix. Training ends when
        they are found no better for ten epochs, and keeps the best. 0 goes through all iterations.
    refit
        Whether to train again on all events in the end, for as many epochs.
    num_threads
        0 for as many as there are processors.
    random_state
        A whole number for the same model each time.
    device
        ``auto``, ``cpu``, ``cuda:0``, ``wgpu:0``; see :func:`recmill.devices`.

    Attributes
    ----------
    user_factors, item_factors
        ``[n_users, factors]``, ``[n_items, factors]`` float32, not writeable, scaled as the score needs them.

    >>> import numpy as np, scipy.sparse as sp
    >>> likes = sp.csr_array(np.kron(np.eye(2), np.ones((6, 5))).astype(np.float32))
    >>> model = MatrixFactorization(factors=4, iterations=20, learning_rate=0.05, n_negatives=8, random_state=1, device="cpu")
    >>> ids, scores = model.fit(likes, show_progress=False).recommend(2, N=5, filter_already_liked_items=False)
    >>> sorted(ids.tolist())
    [0, 1, 2, 3, 4]
    """

    kind = "mf"

    def __init__(
        self,
        factors: int = 64,
        loss: str = "sampled-softmax",
        similarity: str = "cosine",
        temperature: float = 0.1,
        learning_rate: float = 0.003,
        regularization: float = 0.0,
        iterations: int = 100,
        num_threads: int = 0,
        random_state: Any = None,
        *,
        margin: float = 0.4,
        negative_weight: float = 150.0,
        popularity_weight: float = 0.6,
        propagation_layers: int = 0,
        schedule: str = "constant",
        batch_size: int = 2048,
        n_negatives: int = 1024,
        negatives: str = "uniform",
        negatives_exponent: float = 0.75,
        verify_negatives: bool = True,
        init_scale: float = 0.1,
        holdout: float = 1.0,
        refit: bool = False,
        device: str = "auto",
    ):
        self.factors = factors
        self.loss = loss
        self.similarity = similarity
        self.temperature = temperature
        self.learning_rate = learning_rate
        self.regularization = regularization
        self.iterations = iterations
        self.num_threads = num_threads
        self.random_state = random_state
        self.margin = margin
        self.negative_weight = negative_weight
        self.popularity_weight = popularity_weight
        self.propagation_layers = propagation_layers
        self.schedule = schedule
        self.batch_size = batch_size
        self.n_negatives = n_negatives
        self.negatives = negatives
        self.negatives_exponent = negatives_exponent
        self.verify_negatives = verify_negatives
        self.init_scale = init_scale
        self.holdout = holdout
        self.refit = refit
        self.device = device


class Warp(_Factors):
    """Matrix factorization that learns from the items that stand too high (Weston et al. 2011).

    For each interaction, items are drawn until one is found that is scored nearly as high; the fewer draws that takes, the
    larger the step.

    Parameters
    ----------
    factors
        Length of a user's and an item's vector, without the item's bias.
    learning_rate
        Step size.
    regularization
        How strongly long vectors are punished, in each step.
    iterations
        Epochs: each visits every interaction.
    max_draws
        Items that are drawn at most for an interaction.
    negatives, negatives_exponent
        How they are drawn: ``uniform``, or ``popularity`` to a power.
    verify_negatives
        Whether what the user has had is left out of the negatives.
    optimizer
        ``sgd`` or ``adagrad``.
    item_bias
        Whether items have a bias.
    num_threads
        0 for as many as there are processors.
    random_state
        A whole number for the same model each time.
    device
        ``auto``, ``cpu``, ``cuda:0``, ``wgpu:0``; see :func:`recmill.devices`.

    Attributes
    ----------
    user_factors, item_factors
        ``[n_users, factors]``, ``[n_items, factors]`` float32, not writeable; without the items' biases.
    """

    kind = "warp"

    def __init__(
        self,
        factors: int = 128,
        learning_rate: float = 0.05,
        regularization: float = 0.05,
        iterations: int = 30,
        num_threads: int = 0,
        random_state: Any = None,
        *,
        max_draws: int = 16,
        negatives: str = "uniform",
        negatives_exponent: float = 0.5,
        verify_negatives: bool = True,
        optimizer: str = "adagrad",
        item_bias: bool = False,
        init_scale: float = 0.1,
        device: str = "auto",
    ):
        self.factors = factors
        self.learning_rate = learning_rate
        self.regularization = regularization
        self.iterations = iterations
        self.num_threads = num_threads
        self.random_state = random_state
        self.max_draws = max_draws
        self.negatives = negatives
        self.negatives_exponent = negatives_exponent
        self.verify_negatives = verify_negatives
        self.optimizer = optimizer
        self.item_bias = item_bias
        self.init_scale = init_scale
        self.device = device
