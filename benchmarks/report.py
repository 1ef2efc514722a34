"""A report on disk: its name, and how it is written."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from compiled_ebm.json_files import as_json

RESULTS = Path(__file__).parent / "results"
_NO_NAME = re.compile(r"\((?:R|TM)\)|\b(?:CPU|Processor|\d+-Core)\b|@.*?(?=\(|$)", flags=re.IGNORECASE)


def machine(cpu: str, threads: int) -> str:
    """A part of a file name: the processor, without what is no name, and the threads."""
    short = _NO_NAME.sub(" ", cpu).replace("family ", "f").replace("model ", "m")
    return re.sub(r"[^a-z0-9]+", "-", f"{short} {threads} threads".lower()).strip("-")


def write(path: Path, report: dict[str, Any]) -> None:
    """The report as it stands; whole or not at all."""
    as_json(report, path)
