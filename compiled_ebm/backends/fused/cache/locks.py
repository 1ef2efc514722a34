"""One lock a kernel, among threads and processes."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path

if sys.platform != "win32":
    import fcntl

__all__ = ["locked"]

_STALE_AFTER = 600.0
"""Seconds after which a lock made without flock is taken for abandoned, if its process cannot be asked for."""
_NO_FLOCK = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP}
_POLL = 0.01
_held: set[int] = set()
"""Descriptors of the locks that threads of this process hold or wait for."""


def _after_fork() -> None:
    """In a forked child the threads that held locks do not exist, and its copies would keep others waiting."""
    for descriptor in _held:
        with contextlib.suppress(OSError):
            os.close(descriptor)
    _held.clear()


if sys.platform != "win32":
    os.register_at_fork(after_in_child=_after_fork)


@contextlib.contextmanager
def locked(folder: Path, key: str, timeout: float | None = None) -> Iterator[bool]:
    """Hold the lock of one kernel, among threads and processes; yields False if it was not to be had in time.

    The lock only saves work. Were it broken, two processes would compile the same kernel, and either would be right.

    Args:
        folder: The cache directory.
        key: The kernel's.
        timeout: Seconds to wait at most; without end if None.

    Raises:
        OSError: The directory cannot be written to.
    """
    deadline = None if timeout is None else time.monotonic() + timeout
    marker = folder / f"{key}.held"
    descriptor: int | None = None
    try:
        if sys.platform == "win32":
            taken = _marked(marker, deadline)
        else:
            descriptor = _flock(folder / f"{key}.lock", deadline)
            taken = descriptor is not None
    except OSError as error:
        if error.errno not in _NO_FLOCK:
            raise
        taken = _marked(marker, deadline)  # some network file systems have no flock
    try:
        yield taken
    finally:
        if sys.platform != "win32" and descriptor is not None:
            with contextlib.suppress(OSError):
                os.unlink(folder / f"{key}.lock")  # whoever waits for it sees that it is gone, and starts again
            _held.discard(descriptor)
            fcntl.flock(descriptor, fcntl.LOCK_UN)  # closing leaves it locked while a forked child has a copy
            os.close(descriptor)
        elif taken:
            marker.unlink(missing_ok=True)


if sys.platform != "win32":

    def _flock(path: Path, deadline: float | None) -> int | None:
        """The descriptor of a file that is locked and still the one at ``path``; None when the deadline has passed."""
        while True:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
            _held.add(descriptor)
            try:
                taken = _wait(descriptor, deadline)
                if taken and _is_at(descriptor, path):
                    kept, descriptor = descriptor, -1
                    return kept
                if not taken:
                    return None
            except OSError as error:
                if error.errno in _NO_FLOCK:
                    path.unlink(missing_ok=True)
                raise
            finally:
                if descriptor >= 0:
                    _held.discard(descriptor)
                    os.close(descriptor)

    def _wait(descriptor: int, deadline: float | None) -> bool:
        if deadline is None:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            return True
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return True
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    return False
                time.sleep(_POLL)

    def _is_at(descriptor: int, path: Path) -> bool:
        try:
            return os.path.samestat(os.fstat(descriptor), path.lstat())
        except FileNotFoundError:
            return False


def _marked(path: Path, deadline: float | None) -> bool:
    """Lock by creating a file that must not exist; one whose process is gone is removed."""
    host = socket.gethostname()
    while True:
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        except FileExistsError:
            if _is_stale(path, host):
                path.unlink(missing_ok=True)
            elif deadline is not None and time.monotonic() >= deadline:
                return False
            else:
                time.sleep(_POLL)
            continue
        with os.fdopen(descriptor, "w") as file:
            file.write(f"{os.getpid()} {host}")
        return True


def _is_stale(path: Path, host: str) -> bool:
    try:
        age, (process, _, where) = time.time() - path.lstat().st_mtime, path.read_text().partition(" ")
    except OSError:
        return False  # released meanwhile
    if sys.platform != "win32" and where == host and process.isdigit():
        try:
            os.kill(int(process), 0)
        except ProcessLookupError:
            return True
        except OSError:
            pass  # another user's, and alive
    return age > _STALE_AFTER
