"""The page of a report, opened in a headless Chromium at 1280 and at 400 pixels; what is wrong with others is seen."""

from __future__ import annotations

import itertools
import json
import re
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from chromium import Seen, browse, screenshot

pytest.importorskip("matplotlib")

from benchmarks import page, plots, scaling, table  # noqa: E402

WIDTHS = (1280, 400)
LEAST_PIXELS = 9.0


def timed(seconds: float, **row: Any) -> dict[str, Any]:
    return {**row, "median": seconds, "min": seconds, "max": seconds, "seconds": [seconds] * 3, "build_seconds": 0.1}


def complete() -> dict[str, Any]:
    """A small made-up report with every section, and names that HTML must not take for its own."""
    speeds = {
        "torchebm": 1.0,
        "torchebm-model": 3.0,
        "plain": 0.8,
        "jax": 0.2,
        "jax-traced": 0.15,
        "inductor": 0.3,
        "fused": 0.02,
    }
    rows = [
        timed(s * k, workload=workload, contender=name, n_chains=1000, n_steps=10)
        for k, workload in enumerate(("double-well", "mlp-16-256-256-1", "a<b>&c"), 1)
        for name, s in speeds.items()
        if name != "torchebm-model" or k == 1
    ]
    grown = [
        timed(
            10 * (overhead + each * n * d),
            over=over,
            workload="double-well",
            contender=name,
            n_chains=n,
            dimension=d,
            n_steps=10,
        )
        for name, (overhead, each) in scaling._COSTS.items()
        for over, n, d in (*(("chains", 10**k, 2) for k in range(8)), *(("dimension", 100, 10**k) for k in range(5)))
    ]
    build = [
        {"workload": w, "backend": b, "cache": c, "import": 0.05, "trace": 0.1, "compile": t, "total": t + 0.15}
        | {"processor": t, "totals": [t + 0.15] * 3}
        for w, b, c, t in (
            ("mlp-2-64-1", "fused", "cold", 0.4),
            ("mlp-2-64-1", "fused", "cached", 0.05),
            ("mlp-2-64-1", "inductor", "cold", 20.0),
            ("mlp-2-64-1", "inductor", "cached", 8.0),
        )
    ]
    effective = [
        {"workload": "mixture", "move": move, "n_leapfrog_steps": 6, "contender": name}
        | {"samples_per_second": speed * factor, "ours_over_this": 20.0 / speed}
        for move, factor in (("hmc", 1e4), ("mala", 1e3))
        for name, speed in (("compiled_ebm", 20.0), ("blackjax", 1.1), ("numpyro", 1.0))
    ]
    precision = [
        {"workload": w, "product": p, "median": e, "ninety": 2 * e, "worst": 9 * e}
        for w in ("mlp-2-64-64-1", "gaussian")
        for p, e in (("tf32x3", 5e-8), ("tf32", 3e-4), ("float16", 3e-4), ("bfloat16", 2e-3))
    ]
    return {
        "date": "2026-01-02T03:04:05+00:00",
        "device": "cpu",
        "cpu": "A Processor (family 1, model 2)",
        "cores": 4,
        "threads": 2,
        "vector": "AVX2",
        "python": "3.11.0",
        "versions": {"torch": "2.13.0", "torchebm": "0.8.9", "jax": None},
        "rounds": 3,
        "rows": rows,
        "scaling": grown,
        "build": build,
        "effective": effective,
        "precision": precision,
        "left_out": ["scaling: eager, beyond 10 elements: a step takes <seconds>"],
        "errors": [],
    }


SECTIONS = ("rows", "scaling", "build", "effective", "precision")


def newest() -> dict[str, Any]:
    return page.read(table.RESULTS / table.newest_on("cpu")[0])


REPORTS = {"complete": complete, "newest": newest}


@cache
def page_of(name: str) -> str:
    return page.page(REPORTS[name]())


def marks(report: dict[str, Any]) -> dict[str, int]:
    """figure -> how many numbers it must show."""
    ratios = {name: values for name, values in plots.speedups(report).items() if name != "torchebm"}
    wanted = {
        "throughput": sum(map(len, ratios.values())),
        "chains": len(scaling.curves(report.get("scaling", []), "chains")),
        "dimension": len(scaling.curves(report.get("scaling", []), "dimension")),
        **{name: len(report.get(name, [])) for name in ("build", "effective", "precision")},
    }
    return {name: n for name, n in wanted.items() if n}


def assert_good(found: dict[str, Any], wanted: dict[str, int], width: int) -> None:
    """Every figure is drawn, once, whole and legibly, and the page is no wider than its window."""
    assert found["width"] == width and found["needs"] <= width, "it scrolls sideways"
    assert set(found["figures"]) == set(wanted) and found["tables"] == len(wanted)
    for name, drawn in found["figures"].items():
        (svg,) = drawn
        assert 0.8 * min(width, 960) < svg["width"] <= width and svg["height"] > 100, name
        assert len(svg["marks"]) == len(set(svg["marks"])) == wanted[name], name
        assert svg["paths"] > 10 and len(svg["texts"]) > 5, name
        for text in svg["texts"]:
            left, top, right, bottom = text["box"]
            assert text["pixels"] >= LEAST_PIXELS, f"{name}: {text}"
            assert left > -1 and top > -1 and right < svg["width"] + 1 and bottom < svg["height"] + 1, f"{name}: {text}"
        for one, other in itertools.combinations(svg["texts"], 2):
            assert not overlap(one["box"], other["box"]), f"{name}: {one} over {other}"


def overlap(one: list[float], other: list[float]) -> bool:
    """Whether texts lie on one another: lines that touch by their leading do not."""
    across = min(one[2], other[2]) - max(one[0], other[0])
    down = min(one[3], other[3]) - max(one[1], other[1])
    return across > 1 and down > 4


@pytest.fixture(scope="module")
def good() -> Seen:
    return browse({f"{name}-{width}": (page_of(name), width) for name in REPORTS for width in WIDTHS})


@pytest.mark.parametrize("name", REPORTS)
@pytest.mark.parametrize("width", WIDTHS)
def test_every_figure_is_drawn_and_legible(good: Seen, name: str, width: int) -> None:
    assert_good(good.found[f"{name}-{width}"], marks(REPORTS[name]()), width)


def test_the_console_says_nothing(good: Seen) -> None:
    assert good.console == []


def test_a_script_error_is_seen() -> None:
    planted = page_of("complete").replace("</main>", "</main><script>nobody.knows()</script>")
    assert any("nobody is not defined" in line for line in browse({"planted": (planted, 400)}).console)


def test_what_is_wrong_is_seen() -> None:
    text, wanted = page_of("complete"), marks(complete())
    figure = re.compile(r'<figure id="build">.*?</figure>', re.DOTALL)
    wrong = {
        "good": text,
        "missing": figure.sub("", text),
        "empty": figure.sub('<figure id="build"><svg viewBox="0 0 9 9"></svg></figure>', text),
        "undrawn": text.replace("mark-mlp-2-64-1-inductor-cold", "inductor-cold"),
        "hidden": text.replace("</style>", "#chains svg { display: none !important }</style>"),
        "twice": text.replace("</style>", "#chains svg { display: block !important }</style>"),
        "wide": text.replace("</main>", '<p style="width:900px">wide</p></main>'),
        "small": text.replace("</style>", "#effective svg text { font-size: 5px !important }</style>"),
        "large": text.replace("</style>", "#effective svg text { font-size: 25px !important }</style>"),
    }
    seen = browse({name: (changed, 400) for name, changed in wrong.items()}).found
    assert_good(seen.pop("good"), wanted, 400)
    for name, found in seen.items():
        assert wrong[name] != text
        with pytest.raises((AssertionError, ValueError)):
            assert_good(found, wanted, 400)
            pytest.fail(f"{name} was not seen", pytrace=False)


def test_a_screenshot_has_the_colours_of_the_contenders(tmp_path: Path) -> None:
    """Bars of 11 workloads stand in the upper part: many pixels are of the colours of those who ran."""
    from matplotlib.image import imread

    path = tmp_path / "page.png"
    screenshot({str(width): (page_of("newest"), width) for width in WIDTHS}, 1200, path)
    picture = (imread(path)[..., :3] * 255).round().astype(int)
    assert picture.shape == (1200, sum(WIDTHS), 3)
    for part in (picture[:, : WIDTHS[0]], picture[:, WIDTHS[0] :]):
        for name in ("fused", "inductor", "jax", "plain"):
            colour = [int(plots.COLOURS[name][k : k + 2], 16) for k in (1, 3, 5)]
            assert (abs(part - colour).max(axis=-1) <= 2).sum() > 200, name
        assert ((part == 255).all(axis=-1)).mean() > 0.5


def test_the_page_is_alone() -> None:
    """Nothing is fetched, nothing runs."""
    text = page_of("complete")
    assert "<script" not in text and "@import" not in text
    assert not re.findall(r'(?:src|href)="(?!#)[^"]*"', text) and not re.findall(r"url\((?!#)", text)


def test_ids_are_unique_but_for_the_two_sizes_of_a_figure() -> None:
    text = page_of("complete")
    ids = [found for found in re.findall(r'\bid="([^"]+)"', text) if not found.startswith("mark-")]
    assert len(ids) == len(set(ids))
    links = re.findall(r'(?:url\(|xlink:href=")#([^")]+)', text)
    assert links and set(links) <= set(ids)


def test_names_are_no_html() -> None:
    text = page_of("complete")
    assert "a&lt;b&gt;&amp;c" in text and "a<b>" not in text and "takes &lt;seconds&gt;" in text


def test_sections_that_a_report_lacks_are_absent() -> None:
    report = complete()
    for key in ("scaling", "build", "effective", "precision", "left_out", "errors"):
        del report[key]
    assert [section.name for section in page.shown(report)] == ["throughput"]
    assert "Left out" not in page.page(report)
    report["rows"] = [row for row in report["rows"] if row["contender"] != "torchebm"]
    assert page.shown(report) == [] and "<h1>" in page.page(report)


def test_reports_of_a_gpu_and_of_effective_samples_alone_have_a_page(tmp_path: Path) -> None:
    whole = newest()
    alone = tmp_path / "effective.json"
    alone.write_text(json.dumps({**{k: v for k, v in whole.items() if k not in SECTIONS}, "rows": whole["effective"]}))
    assert [section.name for section in page.shown(page.read(alone))] == ["effective"]
    report = complete()
    report["device"] = "NVIDIA H100"
    report["scaling"] = [
        {key: value for key, value in row.items() if key not in ("over", "dimension")}
        for row in report["scaling"]
        if row["over"] == "chains" and row["contender"] == "fused"
    ]
    path = tmp_path / "gpu.json"
    path.write_text(json.dumps(report))
    page.main([str(path)])
    text = path.with_suffix(".html").read_text()
    assert "<h1>compiled_ebm on NVIDIA H100</h1>" in text
    assert 'id="chains"' in text and 'id="dimension"' not in text


def test_the_same_report_gives_the_same_page() -> None:
    assert page.page(complete()) == page_of("complete")


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (2.3, "2.30 s"),
        (0.07, "70.0 ms"),
        (0.9999, "1.00 s"),
        (1.5e-4, "150 µs"),
        (2.5e-10, "0.250 ns"),
        (1234.0, "1,234 s"),
    ],
)
def test_seconds_have_three_digits(seconds: float, text: str) -> None:
    assert plots.seconds_text(seconds) == text


@pytest.mark.parametrize(("required", "outcome"), [(False, pytest.skip.Exception), (True, pytest.fail.Exception)])
def test_without_a_browser_it_is_said(
    monkeypatch: pytest.MonkeyPatch, required: bool, outcome: type[BaseException]
) -> None:
    monkeypatch.setattr("chromium.shutil.which", lambda name: None)
    monkeypatch.setattr("chromium.REQUIRED", required)
    with pytest.raises(outcome, match="needs Debian's chromium"):
        browse({"page": ("", 400)})
