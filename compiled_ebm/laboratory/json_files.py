"""A report as JSON, and into a file whole or not at all."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from compiled_ebm.draws.save import atomic_path

__all__ = ["as_json"]


def as_json(report: Mapping[str, Any], path: str | os.PathLike[str] | None) -> str:
    """The text, which is also written where a path is given."""
    text = json.dumps(report, indent=1)
    if path is not None:
        with atomic_path(Path(path)) as unfinished:
            unfinished.write_text(text + "\n")
    return text
