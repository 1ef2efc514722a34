"""Compiled kernels and measured trials on disk: one directory a user, in which nothing unverified is trusted.

A kernel is ``<key>.so`` with its size and SHA-256 in ``<key>.json``, a trial ``trial-<hash>.json``. Every file is
written under another name and renamed. Loading code from a file is running it, so what is read has to be a regular
file of this user that nobody else can write, with the digest noted when it was built; anything else counts as absent.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import secrets
import shutil
import socket
import stat
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Iterator
from multiprocessing.util import Finalize
from pathlib import Path
from typing import Any

if sys.platform != "win32":
    import fcntl

__all__ = [
    "CacheError",
    "CacheWarning",
    "abandon",
    "directory",
    "install",
    "kernel_file",
    "locked",
    "recall",
    "remember",
    "trim",
    "verified",
    "workspace",
]

MAX_BYTES = 512 << 20
"""Bytes of kernels and trials at most: thousands of kernels, which take 20 to 100 KiB each."""
_BLOCK = 4096
"""Bytes that even the smallest file takes on most file systems."""
_WORK = ".build-"
_ABANDONED_AFTER = 86400.0
"""Seconds after which what a killed process was writing is removed: longer than any compilation."""
_TRIAL_FORMAT = 1
_STALE_AFTER = 600.0
"""Seconds after which a lock made without flock is taken for abandoned, if its process cannot be asked for."""
_NO_FLOCK = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP}
_POLL = 0.01


class CacheError(PermissionError):
    """The cache directory is not safe to load code from, or no directory can be written to."""


class CacheWarning(UserWarning):
    """Kernels are compiled anew in every process, because the cache directory cannot be used."""


_private: dict[int, Path] = {}
"""By process id, the temporary directory that stands in for the cache: a forked child makes its own."""
_abandoned: set[Path] = set()
_change = threading.RLock()
_held: set[int] = set()
"""Descriptors of the locks that threads of this process hold or wait for."""


def _after_fork() -> None:
    """In a forked child the threads that held locks do not exist, and its copies would keep others waiting."""
    global _change
    _change = threading.RLock()
    for descriptor in _held:
        with contextlib.suppress(OSError):
            os.close(descriptor)
    _held.clear()


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


def kernel_file(folder: Path, key: str) -> Path:
    """Where a kernel is, if it is."""
    return folder / f"{key}.so"


def verified(folder: Path, key: str) -> Path | None:
    """The kernel's file if it is what was installed, else None; marks it as used."""
    path = kernel_file(folder, key)
    note, content = _read(path.with_suffix(".json")), _read(path)
    if note is None or content is None:
        return None
    with contextlib.suppress(ValueError):
        if json.loads(note) == _note(content):
            _touch(path)
            return path
    return None


def install(built: Path, folder: Path, key: str) -> None:
    """Move a compiled kernel to its place; a crash in between leaves a kernel that does not count as verified.

    Nothing is flushed to the disk: what a power cut may leave of it fails its digest and is compiled again.
    """
    built.chmod(0o700)  # a linker leaves it writable by the group under the umask 002
    note = json.dumps(_note(built.read_bytes())).encode()
    target = kernel_file(folder, key)
    _put(target.with_suffix(".json"), note)
    _replace(built, target)


def _note(content: bytes) -> dict[str, Any]:
    return {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()}


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


@contextlib.contextmanager
def workspace(folder: Path) -> Iterator[Path]:
    """A directory beside the kernels, so that a rename out of it is atomic; gone afterwards, whatever happens."""
    path = Path(tempfile.mkdtemp(prefix=_WORK, dir=folder))
    try:
        yield path
    finally:
        for _ in range(10):  # a process just killed may still create a file while the others are removed
            shutil.rmtree(path, ignore_errors=True)
            if not path.exists():
                break
            time.sleep(0.01)


def trim(folder: Path, keep: str = "", max_bytes: int | None = None) -> None:
    """Remove what was not used for longest until the rest fits; never ``keep``, nor what is locked.

    Args:
        folder: The cache directory.
        keep: The key of the kernel just built.
        max_bytes: 512 MiB by default.
    """
    limit = MAX_BYTES if max_bytes is None else max_bytes
    size: dict[str, int] = {}
    used: dict[str, float] = {}
    now = time.time()
    with contextlib.suppress(OSError), os.scandir(folder) as found:
        for entry in found:
            with contextlib.suppress(OSError):
                info = entry.stat(follow_symlinks=False)
                stem, suffix = os.path.splitext(entry.name)
                if entry.name.startswith(_WORK) or suffix in (".lock", ".held"):
                    if now - info.st_mtime > _ABANDONED_AFTER:
                        _remove(Path(entry.path))
                elif suffix in (".so", ".json"):
                    size[stem] = size.get(stem, 0) + max(info.st_size, _BLOCK)
                    used[stem] = max(used.get(stem, 0.0), info.st_mtime)
    total = sum(size.values())
    for stem in sorted(size, key=lambda stem: used[stem]):
        if total <= limit:
            return
        if stem == keep:
            continue
        with contextlib.suppress(OSError), locked(folder, stem, timeout=0) as held:
            if held:
                for suffix in (".json", ".so"):
                    _remove(folder / f"{stem}{suffix}")
                total -= size[stem]


def remember(key: str, value: dict[str, Any]) -> None:
    """Keep a measured trial for later processes; what was kept under the key is replaced.

    Args:
        key: Anything that says what was measured, and on what.
        value: What JSON can hold.

    Raises:
        TypeError, ValueError: JSON cannot hold the value.
        CacheError: The directory is refused, or none can be written to.
    """
    payload = json.dumps({"format": _TRIAL_FORMAT, "key": key, "value": value}, allow_nan=False)
    content = json.dumps({"payload": payload, "sha256": hashlib.sha256(payload.encode()).hexdigest()}).encode()
    folder = directory()
    try:
        _put(_trial(folder, key), content)
    except OSError as error:
        folder = abandon(folder, error)
        try:
            _put(_trial(folder, key), content)
        except OSError as again:
            abandon(folder, again)  # raises


def recall(key: str) -> dict[str, Any] | None:
    """What was kept under the key, or None; a damaged or foreign file counts as nothing.

    Raises:
        CacheError: The directory is refused.
    """
    path = _trial(directory(), key)
    content = _read(path)
    if content is None:
        return None
    try:
        outer = json.loads(content)
        payload = outer["payload"]
        if hashlib.sha256(payload.encode()).hexdigest() != outer["sha256"]:
            return None
        inner = json.loads(payload)
        if inner["format"] != _TRIAL_FORMAT or inner["key"] != key:
            return None
        value: dict[str, Any] = inner["value"]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None
    _touch(path)
    return value


def _trial(folder: Path, key: str) -> Path:
    return folder / f"trial-{hashlib.sha256(key.encode()).hexdigest()[:40]}.json"


def _read(path: Path) -> bytes | None:
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


def _put(path: Path, content: bytes) -> None:
    """Write a file whole or not at all."""
    temporary = path.with_name(f"{_WORK}{secrets.token_hex(8)}")
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
        _replace(temporary, path)
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def _replace(source: Path, target: Path) -> None:
    """Rename, over whatever is there."""
    try:
        os.replace(source, target)
    except OSError:
        if target.is_symlink() or not target.is_dir():
            raise
        shutil.rmtree(target)
        os.replace(source, target)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _touch(path: Path) -> None:
    """Mark as used: times of access are off on many file systems."""
    with contextlib.suppress(OSError):
        os.utime(path)
