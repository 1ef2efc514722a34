"""Where the cache is: a directory of this user's own, or a temporary one that stands in for it."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import stat
import sys
import tempfile
import threading
import warnings
from multiprocessing.util import Finalize
from pathlib import Path

__all__ = ["CacheError", "CacheWarning", "abandon", "directory"]


class CacheError(PermissionError):
    """The cache directory is not safe to load code from, or no directory can be written to."""


class CacheWarning(UserWarning):
    """Kernels are compiled anew in every process, because the cache directory cannot be used."""


_private: dict[int, Path] = {}
"""By process id, the temporary directory that stands in for the cache: a forked child makes its own."""
_abandoned: set[Path] = set()
_change = threading.RLock()


def _after_fork() -> None:
    """In a forked child the thread that held the lock may not exist."""
    global _change
    _change = threading.RLock()


if sys.platform != "win32":
    os.register_at_fork(after_in_child=_after_fork)


def directory() -> Path:
    """The directory of this user's kernels, created if need be and checked at every call (about 40 us).

    ``COMPILED_EBM_CACHE`` names it; else it is ``compiled_ebm`` in ``$XDG_CACHE_HOME`` or ``~/.cache`` (macOS:
    ``~/Library/Caches``). If it cannot be made, a temporary directory of this process takes its place.

    Raises:
        CacheError: It belongs to another user, or others can write to it.
    """
    wanted = _wanted()
    if wanted in _abandoned:
        return _temporary()
    try:
        return _prepare(wanted)
    except CacheError:
        raise
    except OSError as error:
        return abandon(wanted, error)


def abandon(failed: Path, error: OSError) -> Path:
    """Warn once that ``failed`` cannot be used, and why; the directory to use in its place.

    Raises:
        CacheError: It already was the one in its place.
    """
    reason = error.strerror or str(error)
    with _change:
        if failed == _private.get(os.getpid()):
            raise CacheError(
                f"{failed}: expected a directory that kernels can be written to, got: {reason}; "
                "free some space, or set COMPILED_EBM_CACHE or TMPDIR to a directory that can be written to"
            ) from error
        wanted = _wanted()
        instead = _temporary()
        if wanted not in _abandoned:
            _abandoned.add(wanted)
            warnings.warn(
                f"{wanted}: kernels cannot be kept here ({reason}), so that every process compiles its own; "
                "set COMPILED_EBM_CACHE to a directory that can be written to",
                CacheWarning,
                stacklevel=3,
            )
        return instead


def _wanted() -> Path:
    """Where the cache should be; a path that starts with "~" if there is no home."""
    moved = os.environ.get("COMPILED_EBM_CACHE")
    with contextlib.suppress(RuntimeError):
        if moved:
            return Path(os.path.abspath(Path(moved).expanduser()))
        if sys.platform == "darwin":
            return Path.home() / "Library" / "Caches" / "compiled_ebm"
        base = os.environ.get("LOCALAPPDATA" if sys.platform == "win32" else "XDG_CACHE_HOME", "")
        return (Path(base) if os.path.isabs(base) else Path.home() / ".cache") / "compiled_ebm"
    return Path(moved or "~/.cache/compiled_ebm")


def _prepare(path: Path) -> Path:
    """Create and check a cache directory; where it is once links are followed."""
    if not path.is_absolute():
        raise FileNotFoundError(errno.ENOENT, "there is no home directory")
    path.mkdir(0o700, parents=True, exist_ok=True)
    link, real = path.lstat(), path.resolve()
    info = real.lstat()
    if sys.platform != "win32":
        user = os.geteuid()
        way_out = "set COMPILED_EBM_CACHE to a directory of your own"
        if stat.S_ISLNK(link.st_mode) and link.st_uid not in (user, 0):
            raise CacheError(f"{path}: expected a link made by user {user} or root, got user {link.st_uid}; {way_out}")
        if info.st_uid != user:
            raise CacheError(f"{path}: expected a directory owned by user {user}, got user {info.st_uid}; {way_out}")
        if info.st_mode & 0o022:
            raise CacheError(
                f"{path}: expected a directory that only its owner can write to, got mode "
                f"{stat.S_IMODE(info.st_mode):04o}; others could place code there: look into it, then chmod 700, or "
                f"{way_out}"
            )
        if os.statvfs(real).f_flag & getattr(os, "ST_NOEXEC", 0):
            raise PermissionError(errno.EPERM, "the file system is mounted noexec")
    return real


def _temporary() -> Path:
    """This process's own directory, removed when it ends."""
    with _change:
        made = _private.get(os.getpid())
        if made is None or not made.is_dir():
            try:
                made = Path(os.path.realpath(tempfile.mkdtemp(prefix="compiled_ebm-")))
            except OSError as error:
                raise CacheError(
                    f"expected a cache or a temporary directory that can be written to, got neither: {error}; "
                    "set COMPILED_EBM_CACHE or TMPDIR to a directory that can be written to"
                ) from error
            # atexit would not run in workers of multiprocessing, and would in a forked child run for its parent
            Finalize(None, shutil.rmtree, args=(made, True), exitpriority=0)
            _private[os.getpid()] = made
        return made
