"""Answers by id."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Iterator

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import pandas as pd


class Recommendations:
    """Ids and scores, best first: ``ids, scores = recommendations``.

    One row for each query, or plain arrays where one id was asked about. Where there are fewer answers than asked for, the rest
    is ``None`` with the lowest score there is.
    """

    def __init__(self, queries: list[str], ids: npt.NDArray[np.object_], scores: npt.NDArray[np.float32]):
        self.queries = queries
        """What was asked about, a query a row."""
        self.ids = ids
        """``[len(queries), k]`` or ``[k]`` ids."""
        self.scores = scores
        """As ``ids``, float32."""

    def __iter__(self) -> Iterator[Any]:
        return iter((self.ids, self.scores))

    def to_pandas(self) -> pd.DataFrame:
        """Return a table with a row for each answer: query, rank from 1, id, score."""
        import pandas as pd

        ids, scores = (values.reshape(len(self.queries), values.shape[-1]) for values in (self.ids, self.scores))
        rows = [
            (query, rank + 1, ids[row, rank], float(scores[row, rank]))
            for row, query in enumerate(self.queries)
            for rank in range(ids.shape[1])
            if ids[row, rank] is not None
        ]
        return pd.DataFrame(rows, columns=["query", "rank", "id", "score"])

    def __repr__(self) -> str:
        shape = "x".join(str(n) for n in self.ids.shape)
        return f"Recommendations({shape}: ids={self.ids!r}, scores={self.scores!r})"
