"""The text of a function, line by line."""

from __future__ import annotations

from dataclasses import dataclass, field

__all__ = ["Text"]


@dataclass
class Text:
    """Lines of C++ at a depth of blocks."""

    lines: list[str] = field(default_factory=list)
    depth: int = 2
    _noted: str = ""

    def __call__(self, line: str) -> None:
        self.lines.append("    " * self.depth + line)

    def __str__(self) -> str:
        return "\n".join(self.lines)

    def moved(self, by: int) -> str:
        """The text, so many blocks further in."""
        return "\n".join("    " * by + line if by >= 0 else line[-4 * by :] for line in self.lines)

    def open(self, line: str) -> None:
        """Begin a block."""
        self(f"{line} {{".lstrip())
        self.depth += 1

    def close(self) -> None:
        """End it."""
        self.depth -= 1
        self("}")

    def note(self, line: str) -> None:
        """A comment, unless it is the one that stands above already."""
        if line != self._noted:
            self(f"// {line}")
            self._noted = line

    def forget_note(self) -> None:
        """What comes now is read apart from what came before: the next comment is written in any case."""
        self._noted = ""
