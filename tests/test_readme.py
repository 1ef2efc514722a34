"""The README's Python blocks run, CI runs its set-up commands, its tables and pictures are of the newest results."""

from __future__ import annotations

import copy
import html
import json
import math
import re
import statistics
from pathlib import Path
from typing import Any

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


def test_tables_are_made_from_the_newest_results() -> None:
    """`python -m benchmarks.table` would change nothing, and there are tables."""
    from benchmarks import table

    text = README.read_text()
    assert table.newest()
    assert table.updated(text) == text
    assert all(f"| {row['workload']} |" in text for _, report in table.newest() for row in report["rows"])


def bars(document: str) -> dict[str, tuple[float, float]]:
    """id of a mark -> where its bar begins and ends."""
    found = {}
    for name, path in re.findall(r'<g id="mark-([^"]+)">\s*<path d="([^"]+)"', document):
        across = [float(x) for x in re.findall(r"[ML] (\S+) ", path)]
        found[name] = (min(across), max(across))
    return found


def assert_in_step(document: str, name: str, report: dict[str, Any]) -> None:
    """An SVG says that it was drawn from this report, and its bars are as long as it says."""
    from benchmarks import plots

    told = re.search(r"<dc:description>(.*?)</dc:description>", document, flags=re.DOTALL)
    assert told is not None
    speedups = plots.speedups(report)
    assert json.loads(html.unescape(told[1])) == {"results": name, "speedups": speedups}
    drawn = bars(document)
    wanted = {
        f"{workload.replace(' ', '-')}-{contender}": ratio
        for contender, ratios in speedups.items()
        for workload, ratio in ratios.items()
        if contender != "torchebm"
    }
    assert set(drawn) == set(wanted)
    begin = statistics.median(drawn[key][0] if ratio > 1 else drawn[key][1] for key, ratio in wanted.items())
    longest = max(wanted, key=lambda key: wanted[key])
    scale = (drawn[longest][1] - begin) / math.log(wanted[longest])
    for key, ratio in wanted.items():
        left, right = drawn[key]
        assert (right if ratio > 1 else left) == pytest.approx(begin + scale * math.log(ratio), abs=0.01), key


def test_pictures_are_made_from_the_newest_results() -> None:
    from benchmarks import table

    text = README.read_text()
    for name, report in table.newest():
        assert f"](benchmarks/results/{table.picture_name(report)})" in text
        assert_in_step((table.RESULTS / table.picture_name(report)).read_text(), name, report)


def test_an_old_picture_is_found_out() -> None:
    """Another report's name, another ratio, a bar too long or too few: none of them is in step."""
    from benchmarks import table

    name, report = table.newest_on("cpu")
    document = table.picture(name, report)
    assert_in_step(document, name, report)
    changed = copy.deepcopy(report)
    changed["rows"][-1]["median"] *= 1.01
    end = re.search(r'id="mark-phi4-fused">\s*<path d="M \S+ \S+ \nL (\S+) ', document)
    assert end is not None
    long = document.replace(f"L {end[1]} ", f"L {float(end[1]) + 5} ")
    few = document.replace("mark-mixture-fused", "mixture-fused")
    assert long != document != few
    for wrong in (
        (document, "other.json", report),
        (document, name, changed),
        (long, name, report),
        (few, name, report),
    ):
        with pytest.raises(AssertionError):
            assert_in_step(*wrong)


def test_the_same_report_gives_the_same_bytes() -> None:
    from benchmarks import table

    name, report = table.newest_on("cpu")
    assert table.picture(name, report) == table.picture(name, report)


def test_quick_reports_and_those_without_throughput_are_not_the_newest(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from benchmarks import table

    name, report = table.newest_on("cpu")
    monkeypatch.setattr(table, "RESULTS", tmp_path)
    later = {**report, "date": "9999-01-01"}
    (tmp_path / name).write_text(json.dumps(report))
    (tmp_path / "quick.json").write_text(json.dumps({**later, "quick": True, "effective": [{}]}))
    (tmp_path / "build.json").write_text(json.dumps({**later, "rows": [], "effective": [{"contender": "ours"}]}))
    assert [found for found, _ in table.newest()] == [name]
    assert table.newest_effective()[0] == "build.json"
