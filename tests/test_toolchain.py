"""Compilers found, kernels compiled once, and a cache that loads nothing but what it built itself."""

from __future__ import annotations

import contextlib
import ctypes
import doctest
import errno
import itertools
import json
import math
import os
import shutil
import signal
import stat
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import pytest

from compiled_ebm.backends.fused import cache, toolchain
from compiled_ebm.backends.fused.cache import CacheError, CacheWarning, recall, remember
from compiled_ebm.backends.fused.toolchain import CompileError, Compiler, CompileTimeout, build, load, n_compilations
from compiled_ebm.errors import BackendUnavailableError

GXX = shutil.which("g++")
pytestmark = pytest.mark.skipif(GXX is None or sys.platform == "win32", reason="needs g++ and a POSIX system")
ROOT = hasattr(os, "geteuid") and os.geteuid() == 0
EXPORT = 'extern "C" __attribute__((visibility("default")))'
ZIG = f"{sys.executable} -m ziglang c++ -ffast-math"
SEEN = itertools.count(1)

PRELUDE = f"""
import os, sys, time, types, warnings
from pathlib import Path
root = Path({str(Path(__file__).resolve().parents[1])!r})
for name in ("compiled_ebm", "compiled_ebm.backends", "compiled_ebm.backends.fused"):  # spares 16 imports of torch
    sys.modules[name] = types.ModuleType(name)
    sys.modules[name].__path__ = [str(root / name.replace(".", "/"))]
from compiled_ebm.backends.fused import cache, toolchain
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of each test's own, empty, and no compiler asked for."""
    monkeypatch.setenv("COMPILED_EBM_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("CXX", raising=False)
    return tmp_path / "cache"


def source(answer: int | None = None) -> str:
    """A kernel unlike any before, since one process loads equal ones once; it answers its own number by default."""
    number = next(SEEN)
    return f"{EXPORT} int answer() {{ return {number if answer is None else answer}; }}  // {number}\n"


def names(folder: Path) -> list[str]:
    return sorted(os.listdir(folder)) if folder.exists() else []


def wrapper(path: Path, body: str, version: str = 'exec g++ "$@"') -> Path:
    """A compiler of a few lines of shell."""
    path.write_text(f'#!/bin/sh\nif [ "$1" = --version ]; then {version}; fi\n{body}\n')
    path.chmod(0o755)
    return path


def logging_wrapper(tmp_path: Path, before: str = "") -> tuple[Path, Callable[[], int]]:
    log = tmp_path / "log"
    path = wrapper(tmp_path / "logged", f'echo run >> "{log}"\n{before}\nexec g++ "$@"')
    return path, lambda: log.read_text().count("run") if log.exists() else 0


def child(code: str, *arguments: str, **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", PRELUDE + code, *arguments],
        env=os.environ | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finished(process: subprocess.Popen[str], expected: int = 0) -> str:
    out, err = process.communicate(timeout=60)
    assert process.returncode == expected, err
    return out


def wait_for(path: Path) -> str:
    end = time.monotonic() + 20
    while not (path.exists() and path.read_text().strip()):
        assert time.monotonic() < end, f"{path} did not appear"
        time.sleep(0.005)
    return path.read_text().strip()


def gone(process: int) -> bool:
    """Whether a process ends within a second; a zombie that nobody waits for has ended."""
    for _ in range(100):
        try:
            os.kill(process, 0)
            if Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return True
        except (ProcessLookupError, FileNotFoundError):
            return True
        time.sleep(0.01)
    return False


@contextlib.contextmanager
def other_user(monkeypatch: pytest.MonkeyPatch, path: Path):
    """Someone else owns the path: truly so for root, else this process takes itself for someone else."""
    if ROOT:
        os.chown(path, 12345, 12345, follow_symlinks=False)
        yield
    else:
        user = os.geteuid()
        with monkeypatch.context() as patch:
            patch.setattr(os, "geteuid", lambda: user + 1)
            yield


# --- finding a compiler -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("version", "kind"),
    [
        ("g++ (Debian 12.2.0-14+deb12u1) 12.2.0\nCopyright (C) 2022 Free Software Foundation, Inc.", "gcc"),
        ("x86_64-conda-linux-gnu-c++ (conda-forge) 12.4.0\nCopyright (C) 2022 Free Software Foundation, Inc.", "gcc"),
        ("Apple clang version 15.0.0 (clang-1500.3.9.4)\nTarget: arm64-apple-darwin23.4.0", "clang"),
        ("Debian clang version 14.0.6\nTarget: x86_64-pc-linux-gnu", "clang"),
        ("Intel(R) oneAPI DPC++/C++ Compiler 2024.1.0 (2024.1.0.20240308)", "clang"),
        ("clang version 19.1.7 (https://github.com/ziglang/zig-bootstrap 1c3c59435891)", "zig"),
    ],
)
def test_kinds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: str, kind: str) -> None:
    path = wrapper(tmp_path / "cc", "exit 1", f"printf '%s' '{version}'; exit 0")
    monkeypatch.setenv("CXX", str(path))
    assert toolchain.find_compiler() == Compiler((str(path),), kind, version.splitlines()[0])
    assert toolchain.why_unavailable() is None


def test_order_and_what_does_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def only(*available: str) -> str | None:
        path = tmp_path / "-".join(("bin", *available))
        path.mkdir()
        for name in available:
            wrapper(path / name.strip("!"), "", "exit 1" if name.endswith("!") else f'exec "{GXX}" "$@"')
        monkeypatch.setenv("PATH", str(path))
        monkeypatch.setitem(sys.modules, "ziglang", None)
        found = toolchain.find_compiler()
        return None if found is None else Path(found.command[0]).name

    assert only("g++", "clang++", "c++") == "g++"
    assert only("clang++", "c++") == "clang++"
    assert only("g++!", "clang++!", "c++") == "c++"
    assert only("g++!") is None
    assert only() is None


def test_no_compiler_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for path in (str(tmp_path), ""):
        monkeypatch.setenv("PATH", path)
        monkeypatch.setitem(sys.modules, "ziglang", None)
        assert toolchain.find_compiler() is None
        why = toolchain.why_unavailable()
        assert why is not None and "install g++ or clang, or pip install 'compiled-ebm[compiler]'" in why
        with pytest.raises(BackendUnavailableError, match="no C\\+\\+ compiler was found"):
            load(source())
    monkeypatch.undo()
    assert toolchain.find_compiler() is not None  # that there was none is not remembered


def test_wheel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "site" / "ziglang"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    zig = wrapper(package / "zig", '[ "$1 $2" = "c++ --version" ] && echo clang version 19.1.7')
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.syspath_prepend(tmp_path / "site")
    assert toolchain.find_compiler() == Compiler((str(zig), "c++"), "zig", "clang version 19.1.7")


def test_real_wheel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("ziglang")
    monkeypatch.setenv("PATH", str(tmp_path))
    compiler = toolchain.find_compiler()
    assert compiler is not None and compiler.kind == "zig"
    for vector in ("native", "portable"):
        assert load(source(41), vector=vector, compiler=compiler).answer() == 41


def test_cxx_with_arguments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", f"env 'WORD=two words' {GXX} -DANSWER=1234")
    compiler = toolchain.find_compiler()
    assert compiler is not None
    assert (compiler.kind, compiler.command[1:]) == ("gcc", ("WORD=two words", GXX, "-DANSWER=1234"))
    assert load(source().replace("return", "return ANSWER +")).answer() > 1234
    spaced = wrapper(tmp_path / "a compiler", 'exec g++ "$@"')
    monkeypatch.setenv("CXX", str(spaced))
    assert load(source(17)).answer() == 17


@pytest.mark.parametrize("cxx", ["/no/such/compiler", "env no-such-g++", "echo", "false", "g++ 'unbalanced", "''"])
def test_cxx_that_is_no_compiler(monkeypatch: pytest.MonkeyPatch, cxx: str) -> None:
    monkeypatch.setenv("CXX", cxx)
    for call in (toolchain.find_compiler, lambda: load(source())):
        with pytest.raises(BackendUnavailableError, match="CXX=.*unset CXX") as caught:
            call()
        assert repr(cxx) in str(caught.value)
    why = toolchain.why_unavailable()
    assert why is not None and why.startswith("CXX=")


def test_probed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = tmp_path / "probes"
    path = wrapper(tmp_path / "cc", "exit 1", f'echo probe >> "{log}"; exec g++ "$@"')
    monkeypatch.setenv("CXX", str(path))
    assert toolchain.find_compiler() is toolchain.find_compiler()
    assert log.read_text().count("probe") == 1
    monkeypatch.delenv("CXX")
    found = toolchain.find_compiler()
    assert found is not None and found.command != (str(path),)


# --- flags ------------------------------------------------------------------------------------------------------------


def test_cpu_flags(monkeypatch: pytest.MonkeyPatch) -> None:
    gcc, zig = Compiler(("g++",), "gcc", "12"), Compiler(("zig",), "zig", "20")
    wide = "-mprefer-vector-width=512"
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    assert toolchain.cpu_flags(gcc) == ("-march=native", wide)
    assert toolchain.cpu_flags(gcc, "avx512") == ("-march=skylake-avx512", wide)
    assert toolchain.cpu_flags(gcc, "avx2") == ("-march=haswell",)
    assert toolchain.cpu_flags(gcc, "portable") == ("-march=x86-64",)
    assert toolchain.cpu_flags(zig) == ("-mcpu=native", wide)
    assert toolchain.cpu_flags(zig, "avx512") == ("-mcpu=skylake_avx512", wide)
    with pytest.raises(ValueError, match="vector: expected 'native'.*got 'sse'"):
        toolchain.cpu_flags(gcc, "sse")
    monkeypatch.setattr("platform.machine", lambda: "arm64")
    assert toolchain.cpu_flags(gcc) == ("-mcpu=native",)
    assert toolchain.cpu_flags(gcc, "portable") == ()
    with pytest.raises(ValueError, match="needs an x86 machine, got arm64"):
        toolchain.cpu_flags(gcc, "avx2")


def test_identity_names_what_the_code_depends_on() -> None:
    identity = toolchain.cpu_identity()
    assert sys.platform in identity and identity == toolchain.cpu_identity()
    if Path("/proc/cpuinfo").exists():
        assert "flags" in identity or "Features" in identity or "isa" in identity
        assert "MHz" not in identity and "microcode" not in identity


FINITE = f"""
{EXPORT} int unusual(const float *x, int n) {{
    int count = 0;
    for (int i = 0; i < n; i++) count += !(__builtin_fabsf(x[i]) < __builtin_inff());
    return count;
}}
{EXPORT} int nans(const float *x, int n) {{
    int count = 0;
    for (int i = 0; i < n; i++) count += x[i] != x[i];
    return count;
}}
{EXPORT} int sentinels(const float *x, int n) {{
    int count = 0;
    for (int i = 0; i < n; i++) {{
        float y = 0.0f * x[i] + __builtin_sqrtf(x[i]);  // NaN for NaN, infinities and what is negative
        count += y >= 0 ? 0 : 1;
    }}
    return count;
}}
"""


@pytest.mark.parametrize("cxx", [None, "g++ -ffast-math", "g++ -Ofast -ffinite-math-only", "clang++", ZIG])
@pytest.mark.parametrize("vector", ["native", "avx2", "portable"])
def test_no_flag_drops_a_nan_test(monkeypatch: pytest.MonkeyPatch, cxx: str | None, vector: str) -> None:
    if cxx is not None and (shutil.which(cxx.split()[0]) is None or cxx is ZIG and not find_spec("ziglang")):
        pytest.skip(f"no {cxx} here")
    if vector == "avx2" and "avx2" not in toolchain.cpu_identity():
        pytest.skip("no AVX2 here")
    if cxx is not None:
        monkeypatch.setenv("CXX", cxx)
    library = load(FINITE, vector=vector)
    values = [1.0, math.inf, math.nan, 0.0, -math.inf, 3e38, -1.0, 1e-40] * 9 + [math.nan]
    x = (ctypes.c_float * len(values))(*values)
    assert library.unusual(x, len(values)) == 28
    assert library.nans(x, len(values)) == 10
    assert library.sentinels(x, len(values)) == 37
    assert sys.float_info.min / 2 > 0  # loading it has not made this process flush denormals


# --- compiling --------------------------------------------------------------------------------------------------------


def test_compiled_once_and_loaded_once(folder: Path) -> None:
    text, before = source(55), n_compilations()
    path = build(text)
    assert path.parent == folder and n_compilations() == before + 1
    library = load(text)
    assert library.answer() == 55
    assert build(text) == path and load(text) is library and n_compilations() == before + 1
    assert names(folder) == [path.with_suffix(".json").name, path.name]
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert stat.S_IMODE(path.stat().st_mode) == 0o700
    note = json.loads(path.with_suffix(".json").read_text())
    assert note["size"] == path.stat().st_size and len(note["sha256"]) == 64


def test_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text, before = source(), n_compilations()
    compiler = toolchain.find_compiler()
    assert compiler is not None
    other = Compiler(compiler.command, compiler.kind, "13.0")
    paths = [
        build(text),
        build(text + " "),
        build(text, flags=["-DX"]),
        build(text, vector="portable"),
        build(text, compiler=other),
    ]
    monkeypatch.setattr(toolchain.compilation, "cpu_identity", lambda: "another")
    paths.append(build(text))
    assert len(set(paths)) == len(paths) == n_compilations() - before


def test_group_writable_umask(folder: Path) -> None:
    old = os.umask(0o002)
    try:
        text, before = source(), n_compilations()
        build(text)
        build(text)
    finally:
        os.umask(old)
    assert n_compilations() == before + 1
    assert all(not path.stat().st_mode & 0o077 for path in (folder, *folder.iterdir()))


def test_compile_error(folder: Path) -> None:
    text = "int x = nothing_of_the_kind;\n" * 200
    with pytest.raises(CompileError, match="nothing_of_the_kind.*not declared") as caught:
        build(text)
    message = str(caught.value)
    assert "-O3" in message and "kernel.cpp:1:9" in message and len(message.splitlines()) < 30
    assert names(folder) == []


def test_symbol_that_nobody_has(folder: Path) -> None:
    with pytest.raises(CompileError, match="cannot be loaded.*no_such_function"):
        load(f'extern "C" int no_such_function(); {EXPORT} int answer() {{ return no_such_function(); }}')


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("echo half > kernel.so; echo boom >&2; exit 1", "exited with 1\nboom"),
        ("echo half > kernel.so; kill -9 $$", "exited with -9"),
        ("exit 0", "left no output"),
    ],
)
def test_compiler_that_fails(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch, body: str, words: str
) -> None:
    monkeypatch.setenv("CXX", str(wrapper(tmp_path / "cc", body)))
    with pytest.raises(CompileError) as caught:
        load(source())
    assert words in str(caught.value)
    assert names(folder) == []


def test_compiler_that_went_away(tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = wrapper(tmp_path / "cc", "")
    monkeypatch.setenv("CXX", str(path))
    toolchain.find_compiler()
    path.unlink()
    with pytest.raises(CompileError, match="cannot be started.*No such file"):
        load(source())
    assert names(folder) == []


def slow_wrapper(tmp_path: Path) -> tuple[Path, Path]:
    """Starts another process, as g++ does, and leaves a temporary file; fast when it is run again.

    Returns:
        The compiler, and the file to which its process ids go.
    """
    pids = tmp_path / "pids"
    body = f'[ -e "{pids}" ] && exec g++ "$@"\n'
    body += f'echo half > kernel.so; echo x > "$TMPDIR/cc.s"\nsleep 60 &\necho $$ $! > "{pids}"\nwait'
    return wrapper(tmp_path / "slow", body), pids


def test_timeout(tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, pids = slow_wrapper(tmp_path)
    monkeypatch.setenv("CXX", str(path))
    (tmp_path / "tmp").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    begin = time.monotonic()
    with pytest.raises(CompileTimeout, match="longer than 0.5 s: .*slow"):
        load(source(), timeout=0.5)
    assert time.monotonic() - begin < 5
    assert names(folder) == names(tmp_path / "tmp") == []
    assert all(gone(int(pid)) for pid in wait_for(pids).split())


def test_timeout_includes_waiting(folder: Path) -> None:
    text = source(7)
    key = build(text).stem
    for name in names(folder):
        (folder / name).unlink()
    with cache.locked(folder, key) as held:
        assert held
        with pytest.raises(CompileTimeout, match="another process has been compiling"):
            build(text, timeout=0.1)
    assert load(text, timeout=30).answer() == 7
    assert not [name for name in names(folder) if name.endswith(".lock")]


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_interrupted(tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch, how: signal.Signals) -> None:
    path, pids = slow_wrapper(tmp_path)
    text = source(9)
    # a shell that started the tests in the background has them ignore SIGINT
    code = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); toolchain.build(sys.argv[1])"
    process = child(code, text, CXX=str(path))
    started = [int(pid) for pid in wait_for(pids).split()]
    process.send_signal(how)
    process.communicate(timeout=20)
    assert process.returncode != 0
    if how == signal.SIGINT:
        assert names(folder) == []
        assert all(gone(pid) for pid in started)
    else:  # nothing could be tidied: it neither stands in the way, nor stays for ever
        os.killpg(started[0], signal.SIGKILL)
        left = [name for name in names(folder) if name.startswith(".build-")]
        assert len(left) == 1 and len(names(folder)) == 2  # and its lock, which nobody holds
        monkeypatch.setenv("CXX", str(path))
        assert load(text, timeout=20).answer() == 9
        os.utime(folder / left[0], (0, 0))
        cache.trim(folder)
        assert all(name.endswith((".so", ".json")) for name in names(folder))


# --- many at once -----------------------------------------------------------------------------------------------------


def test_sixteen_processes_compile_once(tmp_path: Path, folder: Path) -> None:
    path, runs = logging_wrapper(tmp_path, "sleep 0.3")
    code = """
(Path(sys.argv[2]) / f"ready{os.getpid()}").touch()
while not (Path(sys.argv[2]) / "go").exists(): time.sleep(0.001)
print(toolchain.load(sys.argv[1]).answer(), toolchain.n_compilations())
"""
    text = source(123)
    processes = [child(code, text, str(tmp_path), CXX=str(path)) for _ in range(16)]
    while len(list(tmp_path.glob("ready*"))) < 16:
        assert all(process.poll() is None for process in processes)
        time.sleep(0.01)
    (tmp_path / "go").touch()
    out = [finished(process).split() for process in processes]
    assert [answer for answer, _ in out] == ["123"] * 16
    assert sum(int(count) for _, count in out) == runs() == 1
    assert len(names(folder)) == 2


def no_flock(*_: object) -> None:
    raise OSError(errno.ENOLCK, "No locks available")


@pytest.mark.parametrize("lock", ["flock", "marker"])
def test_threads_compile_once(tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch, lock: str) -> None:
    if lock == "marker":  # as on a network file system without flock, and where there is none
        monkeypatch.setattr("fcntl.flock", no_flock)
    path, runs = logging_wrapper(tmp_path)
    monkeypatch.setenv("CXX", str(path))
    texts = [source(), source()]
    barrier = threading.Barrier(8)
    found: list[tuple[int, ctypes.CDLL]] = []

    def work(i: int) -> None:
        barrier.wait()
        found.append((i % 2, load(texts[i % 2])))

    threads = [threading.Thread(target=work, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert runs() == 2
    assert len(found) == 8 and len({(i, id(library)) for i, library in found}) == 2
    assert len(names(folder)) == 4


FORK = """
import threading
warnings.simplefilter("ignore", DeprecationWarning)  # since Python 3.12, for forking while there are threads
slow, quick, pids = sys.argv[1:]
before = toolchain.load(quick)
thread = threading.Thread(target=toolchain.load, args=(slow,))
os.environ["CXX"] = os.environ["SLOW"]
thread.start()
while toolchain.n_compilations() < 2: time.sleep(0.001)
while not os.path.exists(pids): time.sleep(0.001)
child = os.fork()
if child == 0:
    del os.environ["CXX"]
    assert toolchain.load(quick) is before
    assert toolchain.load(quick + " ").answer() == before.answer()
    os.environ["CXX"] = os.environ["SLOW"]
    assert toolchain.load(slow).answer() == 2
    sys.stdout.flush()
    os._exit(0)
thread.join()
assert os.waitpid(child, 0)[1] == 0
print(toolchain.load(slow).answer(), before.answer())
"""


def test_fork_while_another_thread_compiles(tmp_path: Path) -> None:
    path, runs = logging_wrapper(tmp_path, "sleep 0.3")
    out = finished(child(FORK, source(2), source(1), str(tmp_path / "log"), SLOW=str(path)))
    assert out.split() == ["2", "1"]
    assert runs() == 1


def test_forked_child_keeps_no_lock(tmp_path: Path, folder: Path) -> None:
    code = """
folder = cache.directory()
with cache.locked(folder, "key"):
    if os.fork() == 0:  # outlives its parent, which is killed with the lock in its hands
        (Path(sys.argv[1]) / "pid").write_text(str(os.getpid()))
        time.sleep(30)
        os._exit(0)
    time.sleep(30)
"""
    process = child(code, str(tmp_path))
    orphan = int(wait_for(tmp_path / "pid"))
    try:
        process.kill()
        process.wait()
        with cache.locked(folder, "key", timeout=5) as held:
            assert held
    finally:
        os.kill(orphan, signal.SIGKILL)
        process.communicate()


def test_fork_while_another_thread_holds_what_guards_the_process(tmp_path: Path) -> None:
    code = """
import signal, threading
warnings.simplefilter("ignore")
held = threading.Event()
def hold():
    with cache.folder._change, toolchain.library._loading:
        held.set()
        time.sleep(30)
threading.Thread(target=hold, daemon=True).start()
held.wait()
child = os.fork()
if child == 0:
    signal.alarm(10)
    assert toolchain.load(sys.argv[1]).answer() == 3
    cache.folder._temporary()
    os._exit(0)
os._exit(os.waitpid(child, 0)[1] != 0)
"""
    finished(child(code, source(3), TMPDIR=str(tmp_path)))


@pytest.mark.parametrize("lock", ["flock", "marker"])
def test_one_holder_at_a_time(folder: Path, monkeypatch: pytest.MonkeyPatch, lock: str) -> None:
    folder.mkdir(mode=0o700)
    if lock == "marker":
        monkeypatch.setattr("fcntl.flock", no_flock)
        monkeypatch.setattr(cache.locks, "_POLL", 1e-4)
    inside: list[int] = []
    most: list[int] = []

    def work(i: int) -> None:
        for _ in range(40):
            with cache.locked(folder, "key", timeout=None if i % 2 else 20) as held:
                assert held
                inside.append(i)
                time.sleep(1e-4)
                most.append(len(inside))
                inside.remove(i)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert len(most) == 240 and set(most) == {1} and names(folder) == []


def test_lock_is_released_though_another_process_has_a_copy(folder: Path) -> None:
    folder.mkdir(mode=0o700)
    taken: list[bool] = []

    def work() -> None:
        with cache.locked(folder, "key", timeout=5) as held:
            taken.append(held)

    waiting = threading.Thread(target=work)
    with cache.locked(folder, "key"):
        (descriptor,) = cache.locks._held
        copy = os.dup(descriptor)
        waiting.start()
        while len(cache.locks._held) < 2:
            time.sleep(0.001)
        time.sleep(0.05)
    waiting.join(10)
    os.close(copy)
    assert taken == [True] and not cache.locks._held and names(folder) == []


def test_markers_that_were_left(folder: Path) -> None:
    folder.mkdir(mode=0o700)
    marker = folder / "key.held"
    dead = child("")
    finished(dead)
    host = os.uname().nodename
    marker.write_text(f"{dead.pid} {host}")
    assert cache.locks._marked(marker, time.monotonic() + 1)
    assert marker.read_text() == f"{os.getpid()} {host}"
    for content in (f"{os.getpid()} {host}", "1 elsewhere", ""):  # alive, or not to be asked: waited for
        marker.write_text(content)
        assert not cache.locks._marked(marker, time.monotonic() + 0.05)
        os.utime(marker, (0, 0))
        assert cache.locks._marked(marker, time.monotonic() + 0.05)


# --- what was tampered with -------------------------------------------------------------------------------------------


def truncate(path: Path, evil: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def empty(path: Path, evil: Path) -> None:
    path.write_bytes(b"")


def flip_a_bit(path: Path, evil: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def swap(path: Path, evil: Path) -> None:
    path.unlink()
    shutil.copyfile(evil, path)
    path.chmod(0o700)


def link(path: Path, evil: Path) -> None:
    keep = path.with_name("elsewhere")
    path.rename(keep)
    path.symlink_to(keep)


def group_writable(path: Path, evil: Path) -> None:
    path.chmod(0o720)


def make_directory(path: Path, evil: Path) -> None:
    path.unlink()
    path.mkdir()
    (path / "file").touch()


def make_pipe(path: Path, evil: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def remove(path: Path, evil: Path) -> None:
    path.unlink()


def no_note(path: Path, evil: Path) -> None:
    path.with_suffix(".json").unlink()


def broken_note(path: Path, evil: Path) -> None:
    path.with_suffix(".json").write_bytes(b'{"size": \xff')


def other_note(path: Path, evil: Path) -> None:
    path.with_suffix(".json").write_text("[1, 2]")


def linked_note(path: Path, evil: Path) -> None:
    link(path.with_suffix(".json"), evil)


DAMAGES = [truncate, empty, flip_a_bit, swap, link, group_writable, make_directory, make_pipe, remove]
DAMAGES += [no_note, broken_note, other_note, linked_note]


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_file_is_rebuilt(tmp_path: Path, damage: Callable[[Path, Path], None]) -> None:
    evil, text = build(source(666)), source(5)
    path, before = build(text), n_compilations()
    damage(path, evil)
    assert load(text).answer() == 5
    assert n_compilations() == before + 1
    assert cache.verified(path.parent, path.stem) == path
    build(text)
    assert n_compilations() == before + 1


@pytest.mark.skipif(not ROOT, reason="only root can give a file away")
@pytest.mark.parametrize("suffix", [".so", ".json"])
def test_file_of_another_user_is_rebuilt(suffix: str) -> None:
    text = source(6)
    path, before = build(text), n_compilations()
    os.chown(path.with_suffix(suffix), 12345, 12345)
    assert load(text).answer() == 6
    assert n_compilations() == before + 1 and path.stat().st_uid == 0


def test_file_of_another_user_is_not_verified(monkeypatch: pytest.MonkeyPatch) -> None:
    path = build(source())
    assert cache.verified(path.parent, path.stem) == path
    with other_user(monkeypatch, path):
        assert cache.verified(path.parent, path.stem) is None


def test_library_in_use_survives_damage(folder: Path) -> None:
    text, before = source(8), n_compilations()
    library = load(text)
    shutil.rmtree(folder)
    assert load(text) is library and library.answer() == 8
    assert build(text).exists() and n_compilations() == before + 2


# --- where the cache is -----------------------------------------------------------------------------------------------


def test_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    for moved, expected in (
        (str(tmp_path / "moved"), tmp_path / "moved"),
        ("~/below", tmp_path / "below"),
        ("relative", Path.cwd() / "relative"),
        ("", tmp_path / "xdg" / "compiled_ebm"),
    ):
        monkeypatch.setenv("COMPILED_EBM_CACHE", moved)
        assert cache.folder._wanted() == expected
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")  # to be ignored, says the specification
    assert cache.folder._wanted() == tmp_path / ".cache" / "compiled_ebm"
    assert cache.directory() == (tmp_path / ".cache" / "compiled_ebm").resolve()
    monkeypatch.setattr(sys, "platform", "darwin")
    assert cache.folder._wanted() == tmp_path / "Library" / "Caches" / "compiled_ebm"


def test_moved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = source()
    first = build(text)
    monkeypatch.setenv("COMPILED_EBM_CACHE", str(tmp_path / "a" / "b"))
    assert first.parent == tmp_path / "cache" and build(text).parent == tmp_path / "a" / "b"


@pytest.mark.parametrize("mode", [0o777, 0o770, 0o702, 0o1777])
@pytest.mark.parametrize("linked", [False, True])
def test_directory_that_others_can_write(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch, mode: int, linked: bool
) -> None:
    text = source()
    build(text)
    folder.chmod(mode)
    if linked:
        (tmp_path / "link").symlink_to(folder)
        monkeypatch.setenv("COMPILED_EBM_CACHE", str(tmp_path / "link"))
    for call in (lambda: load(text), lambda: remember("a", {}), lambda: recall("a")):
        with pytest.raises(CacheError, match=f"only its owner can write to, got mode {mode:04o}.*COMPILED_EBM_CACHE"):
            call()
    folder.chmod(0o755)  # others may read
    assert load(text).answer() > 0


def test_directory_of_another_user(tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder.mkdir(mode=0o700)
    (tmp_path / "link").symlink_to(folder)
    with other_user(monkeypatch, folder):
        for path in (folder, tmp_path / "link"):
            monkeypatch.setenv("COMPILED_EBM_CACHE", str(path))
            with pytest.raises(CacheError, match=rf"{path}: expected .* user \d+.*, got user \d+; set COMPILED_EBM"):
                load(source())
    assert issubclass(CacheError, PermissionError) and names(folder) == []


def test_links(tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "real").mkdir(mode=0o700)
    folder.symlink_to(tmp_path / "real")
    assert build(source()).parent == tmp_path / "real"
    if ROOT:
        with other_user(monkeypatch, folder), pytest.raises(CacheError, match="expected a link made by user 0 or root"):
            load(source())


# --- where nothing can be kept ----------------------------------------------------------------------------------------


def in_place_of_the_cache(text: str, reason: str) -> Path:
    """Compile where nothing can be kept: one warning, and a private directory from then on."""
    with pytest.warns(CacheWarning, match=f"{reason}.*COMPILED_EBM_CACHE") as caught:
        path = build(text)
    assert len(caught) == 1
    before = n_compilations()
    assert build(text) == path and load(text).answer() > 0
    load(source())
    assert n_compilations() == before + 1
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    remember("place", {"a": 1})
    assert recall("place") == {"a": 1}
    return path


def test_path_under_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("COMPILED_EBM_CACHE", str(tmp_path / "file" / "cache"))
    in_place_of_the_cache(source(), "Not a directory")
    monkeypatch.setenv("COMPILED_EBM_CACHE", str(tmp_path / "file"))
    in_place_of_the_cache(source(), "File exists")


def test_read_only_directory(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = source(3)
    build(kept)
    real = os.open

    def read_only(path: str, flags: int, *rest: int, **named: object) -> int:
        if flags & (os.O_WRONLY | os.O_RDWR) and Path(path).is_relative_to(folder):
            raise OSError(errno.EROFS, os.strerror(errno.EROFS), path)
        return real(path, flags, *rest, **named)

    monkeypatch.setattr(os, "open", read_only)
    before = n_compilations()
    assert load(kept).answer() == 3 and n_compilations() == before  # what is there is of use
    assert not in_place_of_the_cache(source(), "Read-only file system").is_relative_to(folder)


def test_mounted_noexec(monkeypatch: pytest.MonkeyPatch) -> None:
    if not hasattr(os, "ST_NOEXEC"):
        pytest.skip("this system does not say")

    class Mounted:
        f_flag = os.ST_NOEXEC

    monkeypatch.setattr(os, "statvfs", lambda path: Mounted)
    in_place_of_the_cache(source(), "noexec")


def test_no_home(monkeypatch: pytest.MonkeyPatch) -> None:
    def home() -> Path:
        raise RuntimeError("Could not determine home directory.")

    for name in ("COMPILED_EBM_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(Path, "home", home)
    in_place_of_the_cache(source(), "no home directory")


FULL = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("call", ["replace", "open", "write"])
def test_full_disk(folder: Path, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    if call == "write":
        real_write = Path.write_text

        def write_text(path: Path, text: str) -> int:
            if path.is_relative_to(folder):
                real_write(path, text[:10])
                raise FULL
            return real_write(path, text)

        monkeypatch.setattr(Path, "write_text", write_text)
    else:
        real = getattr(os, call)

        def full(first: object, second: object, *rest: object, **named: object) -> object:
            writes = call == "replace" or (isinstance(second, int) and second & os.O_CREAT)
            if writes and Path(str(first)).is_relative_to(folder):
                raise FULL
            return real(first, second, *rest, **named)

        monkeypatch.setattr(os, call, full)
    in_place_of_the_cache(source(), "No space left on device")
    assert names(folder) == []


def test_disk_full_for_the_compiler(tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    body = f'case "$PWD" in "{folder}"*) echo half > kernel.so; echo "ld: No space left on device" >&2; exit 1;; esac'
    monkeypatch.setenv("CXX", str(wrapper(tmp_path / "cc", f'{body}\nexec g++ "$@"')))
    in_place_of_the_cache(source(), "No space left on device")
    assert names(folder) == []


def test_no_space_anywhere(tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    body = 'echo half > kernel.so; echo "ld: No space left on device" >&2; exit 1'
    monkeypatch.setenv("CXX", str(wrapper(tmp_path / "cc", body)))
    with pytest.warns(CacheWarning), pytest.raises(CacheError, match="No space left.*free some space"):
        load(source())
    assert names(folder) == []


def test_warning_made_an_error_leaves_it_working(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("COMPILED_EBM_CACHE", str(tmp_path / "file"))
    text = source(4)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(CacheWarning):
            load(text)
    assert load(text).answer() == 4


def test_private_directory_ends_with_its_process(tmp_path: Path) -> None:
    code = """
import multiprocessing
warnings.simplefilter("ignore")
def made(queue): queue.put(str(toolchain.build(sys.argv[1]).parent))
print(toolchain.build(sys.argv[1]).parent)
queue = multiprocessing.get_context("fork").SimpleQueue()
process = multiprocessing.get_context("fork").Process(target=made, args=(queue,))
process.start()
print(queue.get())
process.join()
assert toolchain.load(sys.argv[1]).answer() > 0
child = os.fork()
if child == 0: sys.exit(0)  # runs what the parent registered for its own end
os.waitpid(child, 0)
assert toolchain.build(sys.argv[1]).exists() and toolchain.n_compilations() == 1
"""
    (tmp_path / "file").touch()
    moved = {"COMPILED_EBM_CACHE": str(tmp_path / "file"), "TMPDIR": str(tmp_path / "tmp")}
    (tmp_path / "tmp").mkdir()
    folders = finished(child(code, source(), **moved)).split()
    assert len(set(folders)) == 2 and all(Path(path).parent == tmp_path / "tmp" for path in folders)
    assert names(tmp_path / "tmp") == []


# --- a bound on its size ----------------------------------------------------------------------------------------------


def test_least_recently_used_goes_first(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = [source() for _ in range(4)]
    paths = [build(text) for text in texts]
    remember("old", {"a": 1})
    for i, path in enumerate(paths):
        for file in (path, path.with_suffix(".json")):
            os.utime(file, (1000 + i, 1000 + i))
    for trial in folder.glob("trial-*"):
        os.utime(trial, (1, 1))
    build(texts[0])  # a use
    one = sum(max(4096, path.stat().st_size) for path in (paths[0], paths[0].with_suffix(".json")))
    cache.trim(folder, max_bytes=4 * one)
    assert [path.exists() for path in paths] == [True, True, True, True] and recall("old") is None
    with cache.locked(folder, paths[1].stem):
        cache.trim(folder, max_bytes=3 * one - 1)
    assert [path.exists() for path in paths] == [True, True, False, False]  # [1] was locked, and two had to go
    cache.trim(folder, max_bytes=one)
    assert [path.exists() for path in paths] == [True, False, False, False]
    monkeypatch.setattr(cache.room, "MAX_BYTES", 1)
    last = build(source())  # never what was just built, though it alone is too much
    assert names(folder) == [last.with_suffix(".json").name, last.name]


def test_trim_leaves_what_is_not_its_own(folder: Path) -> None:
    build(source())
    (folder / "zig").mkdir()
    (folder / "notes.txt").write_text("keep")
    (folder / ".build-fresh").mkdir()
    cache.trim(folder, max_bytes=0)
    assert names(folder) == [".build-fresh", "notes.txt", "zig"]


# --- trials -----------------------------------------------------------------------------------------------------------


def test_remember_and_recall(folder: Path) -> None:
    value = {"seconds": 1.5e-3, "tile": [32, 64], "who": "σ", "nothing": None, "deep": {"a": True}}
    assert recall("mlp | 16") is None
    remember("mlp | 16", value)
    remember("other", {})
    assert recall("mlp | 16") == value and recall("other") == {} and recall("mlp") is None
    remember("mlp | 16", {"seconds": 2.0})
    assert recall("mlp | 16") == {"seconds": 2.0}
    assert len(names(folder)) == 2 and all(stat.S_IMODE(f.stat().st_mode) == 0o600 for f in folder.iterdir())
    assert finished(child("print(cache.recall('mlp | 16'))")).strip() == "{'seconds': 2.0}"
    for wrong in ({"x": math.nan}, {"x": object()}):
        with pytest.raises((TypeError, ValueError)):
            remember("mlp | 16", wrong)
    assert recall("mlp | 16") == {"seconds": 2.0} and len(names(folder)) == 2


def hostile(content: bytes) -> Callable[[Path], None]:
    return lambda path: None if path.write_bytes(content) else None


@pytest.mark.parametrize(
    "damage",
    [
        hostile(b""),
        hostile(b"\xff\xfe"),
        hostile(b"[]"),
        hostile(b"null"),
        hostile(b'{"payload": 1, "sha256": 2}'),
        hostile(b"[" * 100_000),
        lambda path: os.truncate(path, path.stat().st_size - 5),
        lambda path: path.write_bytes(path.read_bytes().replace(b"15", b"16")),
        lambda path: path.chmod(0o666),
        lambda path: link(path, path),
        lambda path: (path.unlink(), path.mkdir()),
        lambda path: (path.unlink(), os.mkfifo(path)),
    ],
)
def test_damaged_trial_counts_as_none(folder: Path, damage: Callable[[Path], object]) -> None:
    remember("a", {"n": 15})
    (path,) = folder.iterdir()
    damage(path)
    assert recall("a") is None
    remember("a", {"n": 17})
    assert recall("a") == {"n": 17}


def test_trial_under_another_name(folder: Path) -> None:
    remember("a", {"n": 1})
    (path,) = folder.iterdir()
    shutil.copy(path, cache.trials._trial(folder, "b"))
    assert recall("b") is None


def test_trials_of_many_processes(folder: Path) -> None:
    code = """
for i in range(50):
    cache.remember("shared", {"who": os.getpid(), "long": [i] * 500})
    found = cache.recall("shared")
    assert found is not None and len(set(found["long"])) == 1, found
"""
    for process in [child(code) for _ in range(4)]:
        finished(process)
    assert len(names(folder)) == 1


def test_doctests() -> None:
    done = doctest.testmod(toolchain.library)
    assert done.attempted > 0 and done.failed == 0
