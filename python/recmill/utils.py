"""Names that implicit keeps in a module of this name."""

from __future__ import annotations

from .exceptions import ParameterWarning

__all__ = ["ParameterWarning"]
