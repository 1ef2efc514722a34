"""A report as JSON, and into a file whole or not at all."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from compiled_ebm.draws.save import atomic_path, check_directory

__all__ = ["as_json"]


def as_json(report: Mapping[str, Any], path: str | os.PathLike[str] | None) -> str:
    """The text, which is also written where a path is given; what is not finite is null, as JSON has no word for it.

    Raises:
        ValueError: There can be no such file; names the path and what stands in the way.
    """
    text = json.dumps(_finite(report), indent=1, allow_nan=False)
    if path is not None:
        check_directory(Path(path))
        with atomic_path(Path(path)) as unfinished:
            unfinished.write_text(text + "\n")
    return text


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _finite(held) for key, held in value.items()}
    return [_finite(held) for held in value] if isinstance(value, (list, tuple)) else value
