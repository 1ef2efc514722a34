"""`python -m benchmarks`: processes, what is joined, left out, gone on from and written; once from end to end."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks import __main__ as everything
from benchmarks import report as files
from benchmarks.__main__ import QUESTIONS, Question

FAKE = """
import json, sys
path = sys.argv[sys.argv.index("--json") + 1]
rows = [{"told": sys.argv[1 : sys.argv.index("--json")]}]
json.dump({"rows": rows, "left_out": ["jax: not installed"], "versions": {"torch": "9", "jax": None}}, open(path, "w"))
sys.exit(3 if "--fail" in sys.argv else 0)
"""


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Questions that are asked of a module of no cost; a folder to write to."""
    (tmp_path / "fake_question.py").write_text(FAKE)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    questions = {
        "build": Question("build", (("fake_question", "--one"), ("fake_question", "--two")), "rows"),
        "precision": Question("precision", (("fake_question",),), "rows", timed=False),
        "effective": Question("effective", (("fake_question",),), "rows", requires=("no_such_package",)),
        "scaling": Question("scaling", (("fake_question", "--fail"),), "rows"),
    }
    monkeypatch.setattr(everything, "QUESTIONS", questions)
    monkeypatch.setattr("benchmarks.page.write_page", lambda path: path.with_suffix(".html"))
    return tmp_path / "out"


def written(folder: Path) -> dict[str, Any]:
    (path,) = folder.iterdir()
    found: dict[str, Any] = json.loads(path.read_text())
    return found


def test_answers_are_joined(fake: Path) -> None:
    assert everything.main(["--only", "build,precision,effective", "--rounds", "4", "--out", str(fake)]) == 0
    report = written(fake)
    assert [row["told"] for row in report["build"]] == [["--one", "--rounds", "4"], ["--two", "--rounds", "4"]]
    assert [row["told"] for row in report["precision"]] == [[]]
    assert report["rows"] == [] and "effective" not in report and report["errors"] == []
    assert "effective: needs no_such_package (pip install '.[peers]')" in report["left_out"]
    assert report["left_out"].count("build: jax: not installed") == 2
    assert report["versions"]["torch"] == "9" and report["rounds"] == 4 and report["quick"] is False


def test_a_failure_is_told_and_keeps_what_was_measured(fake: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert everything.main(["--only", "scaling,precision", "--threads", "1", "--out", str(fake)]) == 1
    report = written(fake)
    assert report["errors"] == ["scaling: -m fake_question --fail --rounds 5 --threads 1: exit status 3"]
    assert len(report["scaling"]) == len(report["precision"]) == 1 and report["threads"] == 1
    assert "exit status 3" in capsys.readouterr().out


def test_what_was_asked_before_stays(
    fake: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A question asked again replaces its own answer; a report of other rounds is not mixed in."""
    monkeypatch.setattr("compiled_ebm.laboratory.machine.environment", lambda: {**machine(), "date": "now"})
    assert everything.main(["--only", "scaling,build", "--out", str(fake)]) == 1
    monkeypatch.setitem(everything.QUESTIONS, "scaling", Question("scaling", (("fake_question",),), "rows"))
    assert everything.main(["--only", "scaling", "--out", str(fake)]) == 0
    report = written(fake)
    assert len(report["build"]) == 2 and len(report["scaling"]) == 1 and report["errors"] == []
    capsys.readouterr()
    assert everything.main(["--only", "build", "--rounds", "9", "--out", str(fake)]) == 2
    assert "expected rounds 9, got 5" in capsys.readouterr().err and written(fake) == report


def machine() -> dict[str, Any]:
    return {"cpu": "A CPU", "threads": 2, "vector": "AVX2", "python": "3", "versions": {"torch": "9", "jax": None}}


def test_quick_asks_one_command_and_has_a_file_of_its_own(fake: Path) -> None:
    assert everything.main(["--only", "build", "--quick", "--rounds", "1", "--out", str(fake)]) == 0
    assert [row["told"] for row in written(fake)["build"]] == [["--one", "--quick", "--rounds", "1"]]
    assert [path.stem.endswith("-quick") for path in fake.iterdir()] == [True]


def test_mistakes_are_told(capsys: pytest.CaptureFixture[str]) -> None:
    for argv, said in ((["--only", "speed"], "unknown question 'speed'"), (["--threads", "0"], "at least 1")):
        with pytest.raises(SystemExit):
            everything.main(argv)
        assert said in capsys.readouterr().err


def test_a_report_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    files.write(path, {"rows": [1]})
    with pytest.raises(TypeError):
        files.write(path, {"rows": [object()]})
    assert json.loads(path.read_text()) == {"rows": [1]} and list(tmp_path.iterdir()) == [path]


def test_the_old_file_is_there_until_the_new_one_is_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "report.json"
    files.write(path, {"rows": [1]})

    def stopped(self: Path, text: str) -> int:
        with self.open("w") as out:
            out.write(text[:5])
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "write_text", stopped)
    with pytest.raises(KeyboardInterrupt):
        files.write(path, {"rows": [1, 2]})
    assert json.loads(path.read_text()) == {"rows": [1]} and list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("cpu", "name"),
    [
        ("AMD EPYC (family 25, model 17)", "amd-epyc-f25-m17-2-threads"),
        ("Intel(R) Xeon(R) CPU @ 2.20GHz (family 6, model 79)", "intel-xeon-f6-m79-2-threads"),
        ("AMD Ryzen 9 5950X 16-Core Processor (family 25, model 33)", "amd-ryzen-9-5950x-f25-m33-2-threads"),
        ("arm64", "arm64-2-threads"),
    ],
)
def test_machines_have_short_names(cpu: str, name: str) -> None:
    assert files.machine(cpu, 2) == name


@pytest.mark.slow
def test_quick_from_end_to_end(tmp_path: Path) -> None:
    """Every question that this machine has the packages for answers, and has its figure."""
    assert everything.main(["--quick", "--rounds", "1", "--out", str(tmp_path)]) == 0
    (path,) = tmp_path.glob("*.json")
    report = json.loads(path.read_text())
    for name, question in QUESTIONS.items():
        left_out = any(line.startswith(f"{name}: needs") for line in report["left_out"])
        assert bool(report.get(question.section)) != left_out, name
    assert {row["contender"] for row in report["rows"]} >= {"torchebm", "plain", "fused"}
    assert {row["over"] for row in report["exponents"]} == {"chains", "dimension"}
    assert [row["cache"] for row in report["build"]] == ["cold", "cached"]
    text = path.with_suffix(".html").read_text()
    for figure in ("throughput", "chains", "dimension", "build", "precision"):
        assert f'<figure id="{figure}">' in text
    assert "these sizes are too small" in text
