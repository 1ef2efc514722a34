"""Pages as a headless Chromium shows them: each in a frame of its own width, looked at by a script around them."""

from __future__ import annotations

import html
import json
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

REQUIRED = os.environ.get("CI") == "true" or os.environ.get("COMPILED_EBM_CHROMIUM") == "required"
_OPTIONS = (
    "--headless --no-sandbox --disable-gpu --no-first-run --disable-background-networking --disable-component-update "
    "--disable-sync --hide-scrollbars --force-device-scale-factor=1 --enable-logging=stderr --v=0"
).split()
_SECONDS = 120
_HEIGHT = 9000

_LOOK = """
const sized = (element) => { const box = element.getBoundingClientRect(); return box.width > 0 || box.height > 0 }
const svg = (image) => {
  const box = image.getBoundingClientRect(), scale = box.width / image.viewBox.baseVal.width
  const texts = [...image.querySelectorAll("text")].map((text) => {
    const at = text.getBoundingClientRect()
    return {text: text.textContent.trim(), pixels: parseFloat(getComputedStyle(text).fontSize) * scale,
            box: [at.left - box.left, at.top - box.top, at.right - box.left, at.bottom - box.top]}
  })
  return {width: box.width, height: box.height, paths: [...image.querySelectorAll("path, use")].filter(sized).length,
          marks: [...image.querySelectorAll("[id^=mark-]")].filter(sized).map((mark) => mark.id), texts}
}
const look = (page) => ({
  width: page.documentElement.clientWidth, needs: page.documentElement.scrollWidth, styled: page.fonts.status,
  figures: Object.fromEntries([...page.querySelectorAll("figure")].map((figure) => [
    figure.id, [...figure.querySelectorAll("svg")].filter(sized).map(svg)])),
  tables: [...page.querySelectorAll("table")].filter(sized).length,
})
window.onload = () => {
  const frames = [...document.querySelectorAll("iframe")]
  const found = Object.fromEntries(frames.map((frame) => [frame.id, look(frame.contentDocument)]))
  document.getElementById("found").textContent = JSON.stringify(found)
}
"""


@dataclass(frozen=True)
class Seen:
    """What became of pages: of each what the script saw, and of all what the console said."""

    found: dict[str, dict[str, Any]]
    console: list[str]


def chromium() -> str:
    """The browser; without one the test is skipped, or fails where there must be one."""
    found = shutil.which("chromium")
    if found is None:
        message = "needs Debian's chromium (apt-get install chromium)"
        if REQUIRED:
            pytest.fail(message)
        pytest.skip(message)
    return found


def _run(frames: Mapping[str, tuple[str, int]], *options: str) -> subprocess.CompletedProcess[str]:
    frame = '<iframe id="{}" style="width:{}px;height:{}px;border:0;flex:none" srcdoc="{}"></iframe>'
    shown = "".join(frame.format(name, width, _HEIGHT, html.escape(page)) for name, (page, width) in frames.items())
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        around = Path(folder) / "around.html"
        around.write_text(
            f'<!doctype html><meta charset="utf-8"><body style="margin:0;display:flex">{shown}<pre id="found"></pre>'
            f"<script>{_LOOK}</script>"
        )
        return subprocess.run(
            [chromium(), *_OPTIONS, f"--user-data-dir={folder}/profile", *options, around.as_uri()],
            capture_output=True,
            text=True,
            timeout=_SECONDS,
            check=True,
        )


def browse(frames: Mapping[str, tuple[str, int]]) -> Seen:
    """Open pages, by name (page, width in pixels), all at once."""
    done = _run(frames, "--dump-dom")
    written = re.findall(r'<pre id="found">(.*?)</pre>', done.stdout, flags=re.DOTALL)
    assert written and written[-1], f"the script saw nothing: {done.stderr[-2000:]}"
    console = [line for line in done.stderr.splitlines() if ":CONSOLE" in line]
    return Seen(json.loads(html.unescape(written[-1])), console)


def screenshot(frames: Mapping[str, tuple[str, int]], height: int, path: Path) -> None:
    """A picture of the upper part of the pages, side by side."""
    width = sum(width for _, width in frames.values())
    _run(frames, f"--window-size={width},{height}", f"--screenshot={path}")
