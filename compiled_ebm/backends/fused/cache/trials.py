"""Measured trials, kept for later processes."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from compiled_ebm.backends.fused.cache.folder import abandon, directory
from compiled_ebm.backends.fused.cache.own_files import put, read, touch

__all__ = ["recall", "remember"]

_FORMAT = 1


def remember(key: str, value: dict[str, Any]) -> None:
    """Keep a measured trial for later processes; what was kept under the key is replaced.

    Args:
        key: Anything that says what was measured, and on what.
        value: What JSON can hold.

    Raises:
        TypeError, ValueError: JSON cannot hold the value.
        CacheError: The directory is refused, or none can be written to.
    """
    payload = json.dumps({"format": _FORMAT, "key": key, "value": value}, allow_nan=False)
    content = json.dumps({"payload": payload, "sha256": hashlib.sha256(payload.encode()).hexdigest()}).encode()
    folder = directory()
    try:
        put(_trial(folder, key), content)
    except OSError as error:
        folder = abandon(folder, error)
        try:
            put(_trial(folder, key), content)
        except OSError as again:
            abandon(folder, again)  # raises


def recall(key: str) -> dict[str, Any] | None:
    """What was kept under the key, or None; a damaged or foreign file counts as nothing.

    Raises:
        CacheError: The directory is refused.
    """
    path = _trial(directory(), key)
    content = read(path)
    if content is None:
        return None
    try:
        outer = json.loads(content)
        payload = outer["payload"]
        if hashlib.sha256(payload.encode()).hexdigest() != outer["sha256"]:
            return None
        inner = json.loads(payload)
        if inner["format"] != _FORMAT or inner["key"] != key:
            return None
        value: dict[str, Any] = inner["value"]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None
    touch(path)
    return value


def _trial(folder: Path, key: str) -> Path:
    return folder / f"trial-{hashlib.sha256(key.encode()).hexdigest()[:40]}.json"
