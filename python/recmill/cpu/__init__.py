"""Names that implicit keeps in a module of this name."""

from __future__ import annotations

from . import als

__all__ = ["als"]
