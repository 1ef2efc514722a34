"""Commands that are started in process groups of their own, and end with all that they started."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

__all__ = ["GRACE_SECONDS", "kill", "spawn"]

GRACE_SECONDS = 5.0
"""For what was killed to be gone."""
_spawning = threading.Lock()


def _before_fork() -> None:
    _spawning.acquire()


def _after_fork() -> None:
    _spawning.release()


def _after_fork_in_child() -> None:
    """The threads that wait for the lock do not exist there."""
    global _spawning
    _spawning = threading.Lock()


if sys.platform != "win32":
    os.register_at_fork(before=_before_fork, after_in_parent=_after_fork, after_in_child=_after_fork_in_child)


def spawn(command: tuple[str, ...], environment: dict[str, str], folder: Path | None = None) -> subprocess.Popen[str]:
    """Start a command in a process group of its own; forks of other threads wait for the millisecond it takes.

    A child forked meanwhile would have copies of pipes, the end of which this process waits for.
    """
    with _spawning:
        return subprocess.Popen(
            command,
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,
        )


def kill(process: subprocess.Popen[str], reap: bool = True) -> None:
    """Kill a command with all that it started; ``reap`` unless another thread waits for its end."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        if sys.platform == "win32":
            process.kill()
        else:
            os.killpg(process.pid, signal.SIGKILL)
    if reap:
        with contextlib.suppress(subprocess.TimeoutExpired):  # who left the group may keep the pipe open
            process.communicate(timeout=GRACE_SECONDS)
