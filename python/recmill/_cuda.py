"""Where the packages of ``pip install recmill[cuda]`` are: what compiles for CUDA, and the headers it needs."""

from __future__ import annotations

import os
import sys
from typing import Sequence


def folder(places: Sequence[str]) -> str | None:
    """Return the folder that NVIDIA's packages have filled in one of these places, if one."""
    for place in places:
        found = os.path.join(place or os.curdir, "nvidia", "cu13")
        if os.path.isdir(os.path.join(found, "include")):
            return found
    return None


def point_to_packages() -> None:
    """Let the native part find the packages beside this one; ``CUDA_PATH`` that is set already says where else to look."""
    if not os.environ.get("CUDA_PATH"):
        beside = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
        found = folder([beside, *sys.path])
        if found is not None:
            os.environ["CUDA_PATH"] = found
