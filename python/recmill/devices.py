"""What can compute here."""

from __future__ import annotations

from typing import NamedTuple

from . import _recmill


class Device(NamedTuple):
    """A processor or a GPU."""

    name: str
    """What the parameter ``device`` of a model takes, such as ``cuda:0``."""
    description: str
    usable: bool
    reason: str
    """Why it cannot be used; empty where it can."""
    software: bool
    """Whether it is a processor that pretends to be a GPU: right, and slow. ``auto`` never takes one."""


def devices() -> list[Device]:
    """Return what can compute here, the processor first.

    >>> devices()[0].name
    'cpu'
    """
    return [Device(*found) for found in _recmill.devices()]
