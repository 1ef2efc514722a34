"""Generated code, as it was when it was last looked at."""

import os
import re
from pathlib import Path

import compiled_ebm as ce

GOLDEN = Path(__file__).parent / "golden"


def check_golden(sampler: ce.Sampler, name: str) -> None:
    """Build, and compare the source with the file of that name; COMPILED_EBM_GOLDEN=write writes it anew."""
    sampler.build(16)
    check_text(sampler.source, f"{name}.cpp")


def check_text(source: str, name: str) -> None:
    """The same for a source and the whole name of its file."""
    source = re.sub(r"(//|#) \S*/(\w+\.py):\d+", r"\1 \2", source)
    file = GOLDEN / name
    if os.environ.get("COMPILED_EBM_GOLDEN") == "write":
        file.write_text(source)
    assert source == file.read_text()
