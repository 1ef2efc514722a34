"""Builds without a garbage collection in between, which would go through all that torch holds: 0.1 s each time."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["collection_paused"]


@contextmanager
def collection_paused() -> Iterator[None]:
    """Within the block nothing is collected but by reference counts; for what takes less than a second."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.collect(0)  # what is new: a millisecond; otherwise a larger collection would be due at once
            gc.enable()
