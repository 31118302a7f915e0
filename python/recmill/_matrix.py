"""Sparse matrices, indices and tables of others, as the native part takes them."""

from __future__ import annotations

import math
import operator
import warnings
from typing import Any, Sequence, Tuple, Union

import numpy as np
import numpy.typing as npt

from .exceptions import ParameterWarning

Csr = Tuple[npt.NDArray[Any], npt.NDArray[Any], npt.NDArray[Any], int]
"""Row pointers (int64), columns (int32 or int64), values, number of columns."""

Ints = Union[int, Sequence[int], npt.NDArray[Any]]


def is_sparse(matrix: Any) -> bool:
    """Whether this is a sparse matrix or array of scipy."""
    kind = type(matrix)
    return hasattr(kind, "tocsr") and hasattr(kind, "nnz")


def as_csr(matrix: Any, name: str, warn: bool = False) -> Any:
    """Return a sparse matrix of scipy by rows, each column once and ascending: itself where it is one already."""
    if not is_sparse(matrix):
        raise ValueError(f"{name} needs to be a sparse matrix of scipy, not {type(matrix).__name__}")
    if matrix.ndim != 2:
        raise ValueError(f"{name} needs to be two-dimensional, not of shape {matrix.shape}")
    if matrix.format != "csr":
        if warn:
            message = f"{name} is a {type(matrix).__name__}: converted to CSR"
            warnings.warn(message, ParameterWarning, stacklevel=3)
        matrix = matrix.tocsr()
    if matrix.dtype.kind not in "biuf":
        raise ValueError(f"{name} needs numbers, not {matrix.dtype}")
    # Before scipy reads rows by them. One row, of the user who is asked about, is looked at in a shorter way.
    indptr = matrix.indptr
    n_rows = matrix.shape[0]
    whole = len(indptr) == n_rows + 1 and indptr[0] == 0
    if not whole or (indptr[1] < 0 if n_rows == 1 else np.any(np.diff(indptr) < 0)):
        raise ValueError(f"{name} is not a sparse matrix by rows: its row pointers do not ascend from 0")
    if indptr[-1] > min(len(matrix.indices), len(matrix.data)):
        raise ValueError(f"{name} is not a sparse matrix by rows: its row pointers end past its values")
    if not matrix.has_canonical_format:
        matrix = matrix.copy()
        matrix.sum_duplicates()
    return matrix


def parts(matrix: Any, dtype: Any = np.float32) -> Csr:
    """Take a canonical CSR matrix apart."""
    values = matrix.data
    if values.dtype != dtype or not values.flags.c_contiguous:
        with np.errstate(over="ignore"):  # What is too large becomes infinite, and is refused with its place.
            values = np.ascontiguousarray(values, dtype=dtype)
    indices = matrix.indices
    if indices.dtype not in (np.int32, np.int64):
        indices = indices.astype(np.int64)
    n = int(matrix.indptr[-1])
    return np.ascontiguousarray(matrix.indptr, np.int64), indices[:n], values[:n], matrix.shape[1]


def as_indices(ids: Any, name: str) -> npt.NDArray[np.int64]:
    """Return indices as an array of int64."""
    array = np.asarray(ids)
    if array.size == 0 and array.ndim == 1:
        return np.empty(0, dtype=np.int64)
    if array.dtype.kind not in "iu":
        raise IndexError(f"{name} needs to be integers, not {array.dtype}: {ids!r}")
    if array.dtype == np.uint64 and array.size and array.max() > np.iinfo(np.int64).max:
        raise IndexError(f"{name}: {array.max()} is out of range")
    if array.ndim > 1:
        raise ValueError(f"{name} needs to be one number or a list of them, not of shape {array.shape}")
    return np.ascontiguousarray(np.atleast_1d(array), np.int64)


def as_filter(ids: Any, name: str) -> npt.NDArray[np.int64] | None:
    """Return different indices, ascending; ``None`` for ``None``."""
    return None if ids is None else np.unique(as_indices(ids, name))


def as_count(n: Any, name: str, most: int = 2**64 - 1) -> int:
    """Return a number of things."""
    try:
        count = operator.index(n)
    except TypeError:
        raise ValueError(f"{name} needs to be a whole number, not {n!r}") from None
    if isinstance(n, bool) or count < 0:
        raise ValueError(f"{name} needs to be at least 0, not {n!r}")
    if count > most:
        raise ValueError(f"{name} needs to be at most {most}, not {n!r}")
    return count


def as_number(value: Any, name: str) -> float:
    """Return a finite number."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        raise ValueError(f"{name} needs to be a number, not {value!r}") from None
    if isinstance(value, (bool, str)) or not math.isfinite(number):
        raise ValueError(f"{name} needs to be a finite number, not {value!r}")
    return number


def as_share(value: Any, name: str) -> float:
    """Return a number from 0 to 1."""
    share = as_number(value, name)
    if not 0 <= share <= 1:
        raise ValueError(f"{name} needs to be from 0 to 1, not {value!r}")
    return share


def as_choice(value: Any, name: str, choices: Sequence[str]) -> str:
    """Return one of these words."""
    if value not in choices:
        raise ValueError(f"{name} needs to be one of {', '.join(choices)}, not {value!r}")
    return str(value)
