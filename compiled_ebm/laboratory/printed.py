"""What reports have in common: printed they are tables, and as JSON they go into a file whole or not at all."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console

from compiled_ebm.draws.save import atomic_path

__all__ = ["Printed", "as_json", "where"]

_WIDTH = 160


class Printed:
    """Something that rich can print: as text too, without colours."""

    def __rich_console__(self, console: Console, options: Any) -> Any:
        raise NotImplementedError

    def __str__(self) -> str:
        console = Console(width=_WIDTH, no_color=True, highlight=False)
        with console.capture() as captured:
            console.print(self)
        return captured.get().rstrip()


def where(machine: Mapping[str, Any]) -> str:
    """The device, in a few words."""
    return f"{machine['cpu']}, {machine['threads']} threads" if machine["device"] == "cpu" else str(machine["device"])


def as_json(report: Mapping[str, Any], path: str | os.PathLike[str] | None) -> str:
    """The text, which is also written where a path is given; what is not finite is null, as JSON has no word for it."""
    text = json.dumps(_finite(report), indent=1, allow_nan=False)
    if path is not None:
        with atomic_path(Path(path)) as unfinished:
            unfinished.write_text(text + "\n")
    return text


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _finite(held) for key, held in value.items()}
    return [_finite(held) for held in value] if isinstance(value, (list, tuple)) else value
