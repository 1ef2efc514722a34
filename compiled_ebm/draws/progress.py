"""A progress bar that only watches: it sees how many steps are done, never the chains."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

__all__ = ["progress_bar"]


@contextmanager
def progress_bar(show: bool, n_steps: int, n_chains: int) -> Iterator[Callable[[int], None]]:
    """Yield a function to call with the number of steps done so far; it draws a bar if ``show``."""
    if not show:
        yield lambda done: None
        return
    try:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
    except ImportError as error:
        raise ImportError("progress=True needs rich: pip install rich") from error
    columns = (TextColumn("sampling"), BarColumn(), MofNCompleteColumn(), TextColumn("steps"), TimeRemainingColumn())
    console = Console(stderr=True)
    hidden = not (console.is_terminal or console.is_jupyter)  # no control characters in a log file
    with Progress(*columns, TextColumn("{task.fields[rate]}"), console=console, disable=hidden) as bar:
        task = bar.add_task("sampling", total=n_steps, rate="")

        def update(done: int) -> None:
            speed = bar.tasks[task].speed
            rate = f"{speed * n_chains:.3g} chain-steps/s" if speed else ""
            bar.update(task, completed=done, rate=rate)

        yield update
