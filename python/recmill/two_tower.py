"""Two towers: users and items by what is known of them."""

from __future__ import annotations

from typing import Any, Callable

from ._table import table
from .mf import _Factors

__all__ = ["TwoTower"]


class TwoTower(_Factors):
    """A tower for users and one for items over ids and columns; the product of their vectors is the score (Yi et al. 2019).

    It is fitted on a table of events, with tables of what is known of users and of items beside it. Who and what came later is placed by
    the same columns alone: :meth:`grown`.

    Parameters
    ----------
    factors
        Length of a user's and an item's vector, and of that of each id and category.
    hidden
        Widths of each tower's hidden layers; without, the vectors of id and columns are added up.
    dropout
        Share of the hidden values that are dropped in training.
    id_dropout
        Share of ids that training takes for unknown: the larger, the more columns say of whoever is new.
    similarity
        ``cosine`` or ``dot``: how vectors become a score.
    temperature
        What cosines are divided by: the smaller, the more the hardest negatives count.
    popularity_weight
        What the logarithm of an item's interactions counts in its score, which cosines leave out. A new item counts as much as the mean
        of the others.
    learning_rate
        Step size of Adam.
    regularization
        How strongly long vectors are punished, where they are touched.
    batch_size
        Interactions a step; their items are candidates of each other.
    n_negatives
        Items that are drawn for each step, beside those of the batch.
    negatives, negatives_exponent
        How they are drawn: ``uniform``, or ``popularity`` to a power.
    verify_negatives
        Whether what the user has had is left out of the negatives.
    hard_negatives
        Candidates for each user of a batch that scored highest before the epoch and are not theirs.
    iterations
        Epochs at most.
    holdout
        The share of users, 10,000 at most, an event of whom is held out of what is learned: the newest, or one that is drawn where
        there are no times. Training ends when they are found no better for ten epochs, and keeps the best. 0 goes through all
        iterations.
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
        ``[n_users, factors]``, ``[n_items, factors]`` float32, not writeable: what the towers make of each.

    >>> who = [f"u{user}" for user in range(20) for item in range(10) if (user + item) % 2 == 0]
    >>> what = [f"i{item}" for user in range(20) for item in range(10) if (user + item) % 2 == 0]
    >>> towns = {"id": [f"u{user}" for user in range(20)], "town": ["Oslo", "Rome"] * 10}
    >>> model = TwoTower(factors=8, iterations=20, learning_rate=0.02, id_dropout=0.3, holdout=0, random_state=1, device="cpu")
    >>> events = {"who": who, "what": what}
    >>> model = model.fit(events, show_progress=False, user="who", item="what", users=towns)
    >>> later = model.grown(users={"id": ["ann"], "town": ["Rome"]})
    >>> sorted(later.recommend("ann", k=5).ids.tolist())
    ['i1', 'i3', 'i5', 'i7', 'i9']
    """

    kind = "two-tower"
    _users: Any = None
    _items: Any = None

    def __init__(
        self,
        factors: int = 64,
        hidden: Any = (),
        id_dropout: float = 0.1,
        similarity: str = "cosine",
        temperature: float = 0.1,
        learning_rate: float = 0.001,
        regularization: float = 0.0,
        iterations: int = 100,
        num_threads: int = 0,
        random_state: Any = None,
        *,
        popularity_weight: float = 0.6,
        dropout: float = 0.0,
        batch_size: int = 2048,
        n_negatives: int = 1024,
        negatives: str = "uniform",
        negatives_exponent: float = 0.75,
        verify_negatives: bool = True,
        hard_negatives: int = 0,
        init_scale: float = 0.1,
        holdout: float = 1.0,
        refit: bool = False,
        device: str = "auto",
    ):
        self.factors = factors
        self.hidden = hidden
        self.id_dropout = id_dropout
        self.similarity = similarity
        self.temperature = temperature
        self.learning_rate = learning_rate
        self.regularization = regularization
        self.iterations = iterations
        self.num_threads = num_threads
        self.random_state = random_state
        self.popularity_weight = popularity_weight
        self.dropout = dropout
        self.batch_size = batch_size
        self.n_negatives = n_negatives
        self.negatives = negatives
        self.negatives_exponent = negatives_exponent
        self.verify_negatives = verify_negatives
        self.hard_negatives = hard_negatives
        self.init_scale = init_scale
        self.holdout = holdout
        self.refit = refit
        self.device = device

    def fit(
        self,
        user_items: Any,
        show_progress: bool = True,
        callback: Callable[[int, float, float | None], Any] | None = None,
        *,
        user: str | None = None,
        item: str | None = None,
        value: str | None = None,
        time: str | None = None,
        users: Any = None,
        items: Any = None,
    ) -> TwoTower:
        """Learn from what users did and what is known of them and of items, and return the model itself.

        Parameters
        ----------
        user_items, show_progress, callback, user, item, value, time
            As for the other models; ``user_items`` is a table where ``users`` or ``items`` are given.
        users, items
            Tables with a row for each: the first column is the id, the others are what is known, such as a town, an age, genres.
            What each column is, is guessed; an id, a title and the like say nothing and are left out.
        """
        if not (users is None and items is None) and user is None and item is None:
            raise ValueError("users and items are known by ids: fit on a table, with user and item naming its columns")
        known = [None if data is None else table(data) for data in (users, items)]
        self._users, self._items = known
        try:
            return super().fit(user_items, show_progress, callback, user=user, item=item, value=value, time=time)
        finally:
            del self._users, self._items

    def _known_of(self) -> tuple[Any, Any]:
        return self._users, self._items

    def grown(self, users: Any = None, items: Any = None) -> TwoTower:
        """Return a model that knows users or items besides who came after fitting, by their columns alone.

        Parameters
        ----------
        users, items
            Tables as for :meth:`fit`, with the same columns; ids that the model knows stay as they are.

        It is asked as this one is, by the new ids too, and is not to be saved.
        """
        model = self._fitted
        if model.by_index:
            raise ValueError("new users and items have ids, and the model was fitted on a matrix")
        later = type(self)(**self.get_params())
        later._model = model.grown(*(None if data is None else table(data) for data in (users, items)))
        return later
