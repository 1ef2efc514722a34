"""What reports have in common: printed they are tables."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Console

__all__ = ["Printed", "where"]

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
