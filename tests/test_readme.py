"""The README's Python blocks run, and its set-up commands are the ones CI runs."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

README = Path(__file__).parent.parent / "README.md"
BLOCKS = re.findall(r"^```python\n(.*?)^```", README.read_text(), flags=re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("index", range(len(BLOCKS)))
def test_python_block_runs(index: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    exec(compile(BLOCKS[index], f"README.md block {index}", "exec"), {"__name__": "readme"})


def test_blocks_are_found() -> None:
    assert len(BLOCKS) >= 3


def test_first_screen() -> None:
    """One sentence, one equation, the example and exactly two set-up commands."""
    text = README.read_text()
    assert text.count("$$") == 2
    setup = text[text.index("## Set-up") : text.index("## Coming")]
    commands = re.findall(r"^```sh\n(.*?)\n```", setup, flags=re.MULTILINE | re.DOTALL)
    assert commands == ["pip install . && python -m compiled_ebm sample", "pip install '.[test]' && pytest"]
    assert len(BLOCKS[0].strip().splitlines()) <= 14


def test_table_is_made_from_the_newest_results() -> None:
    """`python -m benchmarks.table` would change nothing, and there is a table."""
    from benchmarks import table

    text = README.read_text()
    assert table.newest()
    assert table.updated(text) == text
