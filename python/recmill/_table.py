"""Tables of others, as the native part takes them."""

from __future__ import annotations

import json
from typing import Any, Mapping

import numpy as np


def is_table(data: Any) -> bool:
    """Whether this is a table: of pandas, polars, pyarrow, of anybody who speaks the Arrow C stream interface, or columns by name."""
    return (
        hasattr(data, "__arrow_c_stream__")
        or (hasattr(data, "columns") and hasattr(data, "to_numpy"))
        or isinstance(data, Mapping)
    )


def names_of(data: Any) -> list[str]:
    """Return the names of a table's columns."""
    if isinstance(data, Mapping):
        return [str(name) for name in data]
    names = getattr(data, "column_names", None)
    return [str(name) for name in (getattr(data, "columns", []) if names is None else names)]


def table(data: Any, columns: Mapping[str, str | None] | None = None) -> Any:
    """Return a table as the native part takes it: a capsule of the Arrow C stream interface, or a list of columns.

    ``columns`` says which column of the table each of its columns is; those of ``None`` are left out. Without it all are taken
    as they are. Columns ``user`` and ``item`` become texts.
    """
    kind = type(data).__module__.split(".")[0]
    if not is_table(data) or (kind == "pandas" and not hasattr(data, "columns")):
        found = type(data).__name__
        raise ValueError(f"expected a table of pandas, polars or pyarrow, or columns by name, found {found}")
    known = names_of(data)
    if columns is None:
        named = {name: name for name in known}
    else:
        named = {role: str(column) for role, column in columns.items() if column is not None}
    missing = [column for column in named.values() if known and column not in known]
    if missing:
        raise ValueError(f"the table has no column {missing[0]!r}, only {', '.join(known)}")
    ids = () if columns is None else ("user", "item")
    if kind == "polars":
        return _of_polars(data, named, ids)
    if kind == "pandas" or isinstance(data, Mapping):
        if not named:
            raise ValueError("the table has no columns")
        if len(set(known)) < len(known):
            raise ValueError(f"the table has two columns of one name: {', '.join(known)}")
        values = list(data.values()) if isinstance(data, Mapping) else [data.iloc[:, at] for at in range(len(known))]
        by_name = dict(zip(known, values))
        return [(role, _column(by_name[column], role in ids, column)) for role, column in named.items()]
    return _of_arrow(data, named, ids)


def events(data: Any, user: str | None, item: str | None, value: str | None, time: str | None) -> Any:
    """Return the columns user, item, value and time of a table as the native part takes them."""
    if user is None or item is None:
        raise ValueError("a table needs the names of its columns: fit(table, user=.., item=..)")
    return table(data, {"user": user, "item": item, "value": value, "time": time})


def _of_polars(data: Any, named: dict[str, str], ids: tuple[str, ...]) -> Any:
    import polars as pl

    chosen = [pl.col(column).alias(role) for role, column in named.items()]
    frame = data.lazy().select(chosen).collect()
    return frame.with_columns(pl.col(role).cast(pl.String) for role in ids).__arrow_c_stream__()


def _of_arrow(data: Any, named: dict[str, str], ids: tuple[str, ...]) -> Any:
    try:
        import pyarrow as pa
        import pyarrow.compute as pc
    except ImportError as error:
        raise ImportError("such a table needs pyarrow: pip install pyarrow") from error
    whole = pa.table(data)
    named = named or {name: name for name in whole.column_names}
    missing = [column for column in named.values() if column not in whole.column_names]
    if missing:
        raise ValueError(f"the table has no column {missing[0]!r}, only {', '.join(whole.column_names)}")
    arrays = []
    for role, column in named.items():
        array = whole.column(column)
        if role in ids:
            if pa.types.is_dictionary(array.type):
                array = pc.cast(array, array.type.value_type)
            array = pc.cast(array, pa.string())
        arrays.append(array)
    return pa.table(arrays, names=list(named)).__arrow_c_stream__()


def _column(values: Any, is_id: bool, name: str) -> Any:
    """Return one column of pandas, or of a mapping, as numbers, times or texts."""
    if np.ma.isMaskedArray(values):
        values = [None if masked else one for one, masked in zip(values.data.tolist(), np.ma.getmaskarray(values))]
    if isinstance(values, (list, tuple)) and any(isinstance(one, (list, tuple, set, np.ndarray)) for one in values):
        return [_text(one) for one in values]
    dtype = getattr(values, "dtype", None)
    if dtype is not None and type(dtype).__name__ == "CategoricalDtype":
        values = values.astype(object)
    elif getattr(dtype, "tz", None) is not None:
        values = values.dt.tz_convert("UTC").dt.tz_localize(None)
    elif dtype is not None and not isinstance(dtype, np.dtype):
        # A type of pandas' own: with a mask for what is missing, or in the memory of Arrow.
        values = values.to_numpy(dtype=object, na_value=None)
    array = np.asarray(values)
    if array.ndim != 1:
        raise ValueError(f"the table's column {name!r} needs to be one-dimensional, not of shape {array.shape}")
    kind = array.dtype.kind
    if kind == "M" and is_id:
        return array.astype("datetime64[s]").astype(str).tolist()
    if kind == "M":
        return (np.ascontiguousarray(array.astype("datetime64[s]").view(np.int64)),)
    if kind in "iu" and array.dtype != np.uint64:
        return np.ascontiguousarray(array, np.int64)
    if kind == "f" and not is_id:
        return np.ascontiguousarray(array, np.float32 if array.dtype == np.float32 else np.float64)
    if kind == "b":
        return np.ascontiguousarray(array)
    return [_text(one) for one in array.tolist()]


def _text(one: Any) -> str | None:
    """Return a value as text, a list as JSON, nothing where it is missing."""
    if isinstance(one, str):
        return one
    if isinstance(one, (list, tuple, set, frozenset, np.ndarray)):
        return json.dumps([_text(part) for part in one])
    if isinstance(one, bytes):
        return one.decode()
    if isinstance(one, (bool, np.bool_)):
        return "true" if one else "false"
    if one is None or type(one).__name__ in ("NAType", "NaTType") or one != one:
        return None
    if isinstance(one, float) and one.is_integer():
        return str(int(one))
    return str(one)
