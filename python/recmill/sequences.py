"""Models of what users did, in order."""

from __future__ import annotations

from typing import Any

from ._recommender import PlainRecommender

__all__ = ["GRU4Rec", "SASRec"]


class SASRec(PlainRecommender):
    """Self-attention over what a user did, in order, which says what comes next (Kang, McAuley 2018).

    It has nothing of a user: everybody is answered from their history, also who came after fitting, and the newest event counts
    at once. It is fitted on a table, whose column of times says what came first; without one the order of the rows does.

    Parameters
    ----------
    factors
        Length of an item's vector and of a position's state.
    layers, heads, feed_forward
        Blocks of attention and feed-forward network, the heads of each, and the hidden values of each.
    max_length
        Events of a history that are looked at, the newest ones.
    loss
        ``sampled-softmax``, ``softmax`` over all items, ``bce`` or ``gbce``.
    dropout
        Share of values that are dropped in training; small data want much.
    attention_dropout
        Share of the weights of attention that are dropped beside them.
    learning_rate
        Step size of Adam.
    batch_size
        Histories, or windows of long ones, a step.
    n_negatives
        Items that are drawn for each batch; not with ``loss="softmax"``.
    negatives, negatives_exponent
        How they are drawn: ``uniform``, or ``popularity`` to a power.
    verify_negatives
        Whether what the user has had is left out of the negatives.
    gbce_calibration
        How far ``gbce`` corrects, from 0 to 1.
    iterations
        Epochs at most.
    holdout
        The share of users, 10,000 at most, an event of whom is held out of what is learned: the
        newest. Training ends when
        they are found no better for ten epochs, and keeps the best. 0 goes through all iterations.
    refit
        Whether to train again on all events in the end, for as many epochs.
    num_threads
        0 for as many as there are processors.
    random_state
        A whole number for the same model each time.
    device
        ``auto``, ``cpu``, ``cuda:0``, ``wgpu:0``; see :func:`recmill.devices`.

    >>> model = SASRec(factors=8, iterations=2, random_state=1, device="cpu")
    >>> who, what = ["ann"] * 4 + ["bob"] * 4, ["a", "b", "c", "d", "b", "c", "d", "e"]
    >>> table = {"who": who, "what": what, "when": [*range(4), *range(4)]}
    >>> import pyarrow
    >>> model = model.fit(pyarrow.table(table), show_progress=False, user="who", item="what", time="when")
    >>> len(model.recommend(history=["d", "c"], k=2).ids)
    2
    """

    kind = "sasrec"
    _reads_order = True

    def __init__(
        self,
        factors: int = 64,
        layers: int = 2,
        heads: int = 1,
        max_length: int = 50,
        loss: str = "sampled-softmax",
        dropout: float = 0.5,
        learning_rate: float = 0.001,
        iterations: int = 100,
        num_threads: int = 0,
        random_state: Any = None,
        *,
        feed_forward: int = 64,
        n_negatives: int = 2048,
        negatives: str = "uniform",
        negatives_exponent: float = 0.75,
        verify_negatives: bool = True,
        gbce_calibration: float = 0.75,
        attention_dropout: float = 0.0,
        batch_size: int = 128,
        init_scale: float = 0.16,
        holdout: float = 1.0,
        refit: bool = False,
        device: str = "auto",
    ):
        self.factors = factors
        self.layers = layers
        self.heads = heads
        self.max_length = max_length
        self.loss = loss
        self.dropout = dropout
        self.learning_rate = learning_rate
        self.iterations = iterations
        self.num_threads = num_threads
        self.random_state = random_state
        self.feed_forward = feed_forward
        self.n_negatives = n_negatives
        self.negatives = negatives
        self.negatives_exponent = negatives_exponent
        self.verify_negatives = verify_negatives
        self.gbce_calibration = gbce_calibration
        self.attention_dropout = attention_dropout
        self.batch_size = batch_size
        self.init_scale = init_scale
        self.holdout = holdout
        self.refit = refit
        self.device = device


class GRU4Rec(PlainRecommender):
    """Gated recurrent units over what a user did, in order, which say what comes next (Hidasi et al. 2016).

    As :class:`SASRec` it has nothing of a user, answers everybody from their history, and is fitted on a table. A history is read to
    its beginning, however long.

    Parameters
    ----------
    factors
        Length of an item's vector.
    layers, hidden
        Layers of recurrent units, and the values of each layer's state.
    max_length
        Events of a history that are learned from in one run; longer ones are cut into several.
    loss
        ``sampled-softmax``, ``softmax`` over all items, ``bce`` or ``gbce``.
    dropout
        Share of values that are dropped in training; small data want much.
    learning_rate
        Step size of Adam.
    batch_size
        Histories, or windows of long ones, a step.
    n_negatives
        Items that are drawn for each batch; not with ``loss="softmax"``.
    negatives, negatives_exponent
        How they are drawn: ``uniform``, or ``popularity`` to a power.
    verify_negatives
        Whether what the user has had is left out of the negatives.
    gbce_calibration
        How far ``gbce`` corrects, from 0 to 1.
    iterations
        Epochs at most.
    holdout
        The share of users, 10,000 at most, an event of whom is held out of what is learned: the newest. Training ends when they
        are found no better for ten epochs, and keeps the best. 0 goes through all iterations.
    refit
        Whether to train again on all events in the end, for as many epochs.
    num_threads
        0 for as many as there are processors.
    random_state
        A whole number for the same model each time.
    device
        ``auto``, ``cpu``, ``cuda:0``, ``wgpu:0``; see :func:`recmill.devices`.

    >>> model = GRU4Rec(factors=8, hidden=8, iterations=2, random_state=1, device="cpu")
    >>> who, what = ["ann"] * 4 + ["bob"] * 4, ["a", "b", "c", "d", "b", "c", "d", "e"]
    >>> table = {"who": who, "what": what, "when": [*range(4), *range(4)]}
    >>> model = model.fit(table, show_progress=False, user="who", item="what", time="when")
    >>> len(model.recommend(history=["d", "c"], k=2).ids)
    2
    """

    kind = "gru4rec"
    _reads_order = True

    def __init__(
        self,
        factors: int = 64,
        layers: int = 1,
        hidden: int = 128,
        max_length: int = 50,
        loss: str = "sampled-softmax",
        dropout: float = 0.5,
        learning_rate: float = 0.003,
        iterations: int = 100,
        num_threads: int = 0,
        random_state: Any = None,
        *,
        n_negatives: int = 2048,
        negatives: str = "uniform",
        negatives_exponent: float = 0.75,
        verify_negatives: bool = True,
        gbce_calibration: float = 0.75,
        batch_size: int = 128,
        init_scale: float = 0.16,
        holdout: float = 1.0,
        refit: bool = False,
        device: str = "auto",
    ):
        self.factors = factors
        self.layers = layers
        self.hidden = hidden
        self.max_length = max_length
        self.loss = loss
        self.dropout = dropout
        self.learning_rate = learning_rate
        self.iterations = iterations
        self.num_threads = num_threads
        self.random_state = random_state
        self.n_negatives = n_negatives
        self.negatives = negatives
        self.negatives_exponent = negatives_exponent
        self.verify_negatives = verify_negatives
        self.gbce_calibration = gbce_calibration
        self.batch_size = batch_size
        self.init_scale = init_scale
        self.holdout = holdout
        self.refit = refit
        self.device = device
