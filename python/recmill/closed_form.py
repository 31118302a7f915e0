"""Models that are computed in one step."""

from __future__ import annotations

from typing import Any

from ._matrix import as_choice, as_number
from ._recommender import Recommender

__all__ = ["Ease", "MostPopular"]


class Ease(Recommender):
    """A dense linear model of items, computed in closed form (Steck 2019): strong where the catalogue has a few thousand items.

    Parameters
    ----------
    regularization
        Larger for sparser data; 100 to 1,000 is usual.
    """

    kind = "ease"

    def __init__(
        self,
        regularization: float | None = None,
        num_threads: int = 0,
        *,
        device: str = "auto",
        random_state: Any = None,
    ):
        self.regularization = regularization
        self.num_threads = num_threads
        self.device = device
        self.random_state = random_state

    def _config(self) -> dict[str, Any]:
        given = (
            {} if self.regularization is None else {"regularization": as_number(self.regularization, "regularization")}
        )
        return {"model": "ease", **given}


class MostPopular(Recommender):
    """What most users took: the baseline that every model has to beat.

    Parameters
    ----------
    count
        ``users`` counts each user once, ``values`` adds the values up.
    """

    kind = "most-popular"

    def __init__(
        self,
        count: str | None = None,
        num_threads: int = 0,
        *,
        device: str = "auto",
        random_state: Any = None,
    ):
        self.count = count
        self.num_threads = num_threads
        self.device = device
        self.random_state = random_state

    def _config(self) -> dict[str, Any]:
        given = {} if self.count is None else {"count": as_choice(self.count, "count", ("users", "values"))}
        return {"model": "most-popular", **given}
