"""Files that nobody else can have written, whole or not there at all.

Loading code from a file is running it, so what is read has to be a regular file of this user that nobody else can
write. Every file is written under another name and renamed.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import stat
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

__all__ = ["WORK", "put", "read", "remove", "replace", "touch", "workspace"]

WORK = ".build-"
"""How the names of what is not yet in its place begin."""


@contextlib.contextmanager
def workspace(folder: Path) -> Iterator[Path]:
    """A directory beside the kernels, so that a rename out of it is atomic; gone afterwards, whatever happens."""
    path = Path(tempfile.mkdtemp(prefix=WORK, dir=folder))
    try:
        yield path
    finally:
        for _ in range(10):  # a process just killed may still create a file while the others are removed
            shutil.rmtree(path, ignore_errors=True)
            if not path.exists():
                break
            time.sleep(0.01)


def read(path: Path) -> bytes | None:
    """The bytes of a regular file that this user owns and alone can write, else None; links are not followed."""
    flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    try:
        descriptor = os.open(path, flags)  # a pipe in its place would otherwise be waited for
    except OSError:
        return None
    try:
        info = os.fstat(descriptor)
        own = sys.platform == "win32" or (info.st_uid == os.geteuid() and not info.st_mode & 0o022)
        if not stat.S_ISREG(info.st_mode) or not own:
            return None
        with os.fdopen(descriptor, "rb", closefd=False) as file:
            return file.read()
    except OSError:
        return None
    finally:
        os.close(descriptor)


def put(path: Path, content: bytes) -> None:
    """Write a file whole or not at all."""
    temporary = path.with_name(f"{WORK}{secrets.token_hex(8)}")
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
        replace(temporary, path)
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def replace(source: Path, target: Path) -> None:
    """Rename, over whatever is there."""
    try:
        os.replace(source, target)
    except OSError:
        if target.is_symlink() or not target.is_dir():
            raise
        shutil.rmtree(target)
        os.replace(source, target)


def remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def touch(path: Path) -> None:
    """Mark as used: times of access are off on many file systems."""
    with contextlib.suppress(OSError):
        os.utime(path)
