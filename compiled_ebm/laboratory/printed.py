"""What reports have in common: printed they are tables, and as JSON they go into a file whole or not at all."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console

from compiled_ebm.draws.save import atomic_path

__all__ = ["Printed", "as_json"]

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


def as_json(report: Mapping[str, Any], path: str | os.PathLike[str] | None) -> str:
    """The text, which is also written where a path is given."""
    text = json.dumps(report, indent=1)
    if path is not None:
        with atomic_path(Path(path)) as unfinished:
            unfinished.write_text(text + "\n")
    return text
