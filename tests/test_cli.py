"""The command line, as a user meets it: what it prints, what it saves, and one line for every mistake."""

import os
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner, Result

import compiled_ebm as ce
from compiled_ebm.cli import app
from compiled_ebm.draws.save import load_draws
from compiled_ebm.energies import BUILTIN_ENERGIES

# tracing is most of a run's time here, and takes longer for the default energy
SMALL = ["--energy", "harmonic", "--backend", "eager", "--device", "cpu", "--chains", "60", "--steps", "12"]
ROOT = Path(ce.__file__).parent.parent

USER_MODULE = """
import itertools, pathlib, warnings
import torch
from torch import nn

class Ring(nn.Module):
    event_shape = (2,)
    def __init__(self, radius=2.0):
        super().__init__()
        self.radius = nn.Parameter(torch.tensor(radius))
    def forward(self, x):
        return 4 * (x.norm(dim=-1) - self.radius) ** 2

class Random(nn.Module):
    event_shape = 2
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(2, 1)
    def forward(self, x):
        return self.layer(x).squeeze(-1) + x.square().sum(-1)

class Wide(nn.Module):
    def __init__(self, width):
        super().__init__()

class Models:
    ring = Ring(1.0)

ring = Ring(1.0)
weights = torch.tensor([1.0, 2.0, 3.0])
number = 3

def bowl(x):
    return 0.5 * x.square().flatten(1).sum(1)
def with_default(x, power=2):
    return x.pow(power).sum(-1)
def any_arguments(*args):
    return bowl(*args)
def weighted(x):
    return (weights * x.square()).sum(-1)
def make():
    return Ring(3.0)
def make_nothing():
    return None
def fails():
    raise RuntimeError("no weights\\nwere found")
def steep(x):
    return 1e3 * x.pow(4).sum(-1)
def cliff(x):
    return 0.5 * x.square().sum(-1) + torch.where(x[:, 0] > 2, torch.inf, 0.0)
def coupled(x):
    return (x - x.mean(0)).square().sum(-1)
def wrong_shape(x):
    return x.square()
calls = itertools.count()
def telling(x):
    if next(calls) == 200:  # by then the chains are running
        pathlib.Path("running").touch()
    return x.square().sum(-1)
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty directory to work in, with the user's modules beside it."""
    modules = tmp_path / "modules"
    modules.mkdir()
    (modules / "mine.py").write_text(USER_MODULE)
    (modules / "typo.py").write_text("import torch\n\nx = torhc.zeros(3)\n")
    (modules / "syntax.py").write_text("def f(:\n")
    (modules / "leaves.py").write_text("import sys\nsys.exit('usage: leaves')\n")
    (modules / "no_file.py").write_text("from pathlib import Path\nx = Path('weights.txt').read_text()\n")
    (modules / "depends.py").write_text("import not_installed_anywhere\n")
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.syspath_prepend(modules)
    yield work
    for name in ("mine", "typo", "syntax", "leaves", "no_file", "depends"):
        sys.modules.pop(name, None)


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, list(map(str, arguments)))


def sample(*arguments: object) -> Result:
    return run("sample", *SMALL, *arguments)


def facts(result: Result) -> dict[str, str]:
    """The report's lines ``name    value``."""
    rows = (line.split("  ", 1) for line in result.stdout.splitlines() if "  " in line)
    return {row[0]: row[1].strip() for row in rows}


# --- what works -------------------------------------------------------------------------------------------------------


def test_sample_reports_and_saves(here: Path) -> None:
    result = run("sample", *SMALL[2:], "--seed", 3)
    assert result.exit_code == 0, result.output
    assert result.stderr == ""
    told = facts(result)
    assert told["chains"] == "60"
    assert told["steps"] == "12"
    assert told["device"].startswith("cpu (")
    assert told["backend"].startswith("eager")
    assert float(told["build"].removesuffix(" s")) > 0
    assert float(told["run"].removesuffix(" s")) > 0
    assert float(told["chain-steps/s"]) > 0
    assert "failed chains" not in told
    assert told["saved"].startswith("draws.npz (")
    assert os.listdir(here) == ["draws.npz"]

    arrays, metadata = load_draws("draws.npz")
    assert {name: (tuple(a.shape), a.dtype) for name, a in arrays.items()} == {
        "x": ((60, 2), torch.float32),
        "energy": ((60,), torch.float32),
        "failed_at": ((60,), torch.int64),
    }
    created = metadata.pop("created")
    assert created.endswith("+00:00")
    expected = {"energy": "mlp", "seed": "3", "steps": "12", "thin": "None", "chains": "60", "dtype": "float32"}
    expected |= {"device": "cpu", "backend": "eager", "event_shape": "2", "interrupted": "False"}
    assert expected.items() <= metadata.items()
    assert metadata["transition"].startswith("Langevin(step_size=0.01, noise_scale=1.0")
    assert {"compiled_ebm", "torch", "python"} <= metadata.keys()

    # the report is of what was saved
    x = arrays["x"].double().numpy()
    for d in (0, 1):
        row = [float(cell) for cell in told[f"x[{d}]"].split()]
        column = x[:, d]
        assert row == pytest.approx([column.mean(), column.std(ddof=1), *np.quantile(column, [0.05, 0.5, 0.95])], 1e-3)
    assert float(told["mean energy"]) == pytest.approx(float(arrays["energy"].mean()), 1e-3)


def test_the_draws_are_the_library_s(here: Path) -> None:
    assert sample("--energy", "gaussian", "--thin", 4, "--seed", 5, "--step-size", 0.1, "--quiet").exit_code == 0
    model, shape = BUILTIN_ENERGIES["gaussian"]
    sampler = ce.build_sampler(model(), ce.Langevin(0.1), shape, backend="eager")
    result = sampler.run(sampler.init(n_chains=60, seed=5), 12, thin=4)
    arrays, _ = load_draws("draws.npz")
    assert result.draws is not None
    assert arrays["draws"].shape == (60, 3, 2)
    assert torch.equal(arrays["draws"], result.draws)
    assert torch.equal(arrays["energy"], result.state.energy)


@pytest.mark.parametrize(
    ("dtype", "suffix"),
    [("float32", ".safetensors"), ("float64", ".npz"), ("float16", ".npz"), ("bfloat16", ".safetensors")],
)
def test_every_dtype(here: Path, dtype: str, suffix: str) -> None:
    result = sample("--energy", "double-well", "--steps", 4, "--dtype", dtype, "--out", f"d{suffix}", "--thin", 2)
    assert result.exit_code == 0, result.output
    arrays, metadata = load_draws(f"d{suffix}")
    assert (arrays["draws"].dtype, tuple(arrays["draws"].shape)) == (getattr(torch, dtype), (60, 2, 2))
    assert bool(arrays["draws"].isfinite().all())
    assert metadata["dtype"] == dtype


def test_same_seed_same_file(here: Path) -> None:
    for out, seed in (("a.npz", 1), ("b.npz", 1), ("c.npz", 2)):
        assert sample("--seed", seed, "--out", out).exit_code == 0
    (first, facts_of_first), (second, facts_of_second), (third, _) = (load_draws(f"{name}.npz") for name in "abc")
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)
    del facts_of_first["created"], facts_of_second["created"]
    assert facts_of_first == facts_of_second
    assert not torch.equal(first["x"], third["x"])


@pytest.mark.parametrize("name", ["rosenbrock", "mixture", "funnel"])
def test_builtin_energies_in_their_own_shapes(here: Path, name: str) -> None:
    result = sample("--energy", name, "--steps", 2, "--step-size", 1e-4, "--no-save")
    assert result.exit_code == 0, result.output
    assert os.listdir(here) == []


@pytest.mark.parametrize(
    "arguments",
    [
        ["mine:Ring"],
        ["mine:ring"],
        ["mine:Models.ring"],
        ["mine:make"],
        ["mine:Random"],
        ["mine:bowl", "--event-shape", "2,3"],
        ["mine:with_default", "--event-shape", "1"],
        ["mine:any_arguments", "--event-shape", "1, 2, 2"],
        ["mine:weighted", "--event-shape", "3"],
    ],
    ids=lambda arguments: arguments[0],
)
def test_energies_of_the_user(here: Path, arguments: list[str]) -> None:
    result = sample("--steps", 2, "--energy", *arguments)
    assert result.exit_code == 0, result.output
    assert result.stderr == ""
    arrays, metadata = load_draws("draws.npz")
    assert metadata["energy"] == arguments[0]
    shape = [int(n) for n in arguments[2].split(",")] if len(arguments) > 1 else [2]
    assert list(arrays["x"].shape) == [60, *shape]
    assert os.listdir(here) == ["draws.npz"]


@pytest.mark.parametrize(
    ("energy", "dtype"), [("mine:bowl --event-shape 2,3", "float32"), ("mine:Ring", "float64"), ("mixture", "bfloat16")]
)
def test_plot_beside_the_draws(here: Path, energy: str, dtype: str) -> None:
    result = sample("--steps", 2, "--plot", "p.png", "--dtype", dtype, "--energy", *energy.split())
    assert result.exit_code == 0, result.output
    assert facts(result)["saved"] == "p.png"
    assert sorted(os.listdir(here)) == ["draws.npz", "p.png"]


def test_module_in_the_current_directory(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (here / "local_energy.py").write_text("def e(x): return x.square().sum(-1)\n")
    try:
        assert sample("--energy", "local_energy:e", "--event-shape", 2).exit_code == 0
    finally:
        sys.modules.pop("local_energy", None)


def test_seed_makes_the_weights_of_a_factory(here: Path) -> None:
    for out in ("a.npz", "b.npz"):
        assert sample("--energy", "mine:Random", "--out", out).exit_code == 0
    first, second = (load_draws(name).arrays["energy"] for name in ("a.npz", "b.npz"))
    assert torch.equal(first, second)


def test_numbers_as_people_write_them(here: Path) -> None:
    result = sample("--chains", "1e2", "--steps", "1_0", "--seed", "-3", "--step-size", "1e-2")
    assert (facts(result)["chains"], facts(result)["steps"]) == ("100", "10")


def test_quiet_says_nothing(here: Path) -> None:
    result = sample("--quiet", "--plot", "p.png")
    assert (result.exit_code, result.output) == (0, "")
    assert sorted(os.listdir(here)) == ["draws.npz", "p.png"]


def test_failed_chains_are_reported_on_one_line(here: Path) -> None:
    result = sample("--energy", "mine:cliff", "--event-shape", 2, "--step-size", 0.5, "--plot", "p.png")
    assert result.exit_code == 0, result.output
    assert len(result.stderr.splitlines()) == 1
    assert result.stderr.startswith("warning: ")
    arrays, _ = load_draws("draws.npz")
    failed = arrays["failed_at"] >= 0
    assert 0 < failed.sum() < 60
    assert facts(result)["failed chains"].startswith(f"{int(failed.sum())}, the first at step ")
    assert f"{60 - int(failed.sum())} chains, last positions; {int(failed.sum())} failed chains" in result.stdout
    assert float(facts(result)["mean energy"]) == pytest.approx(float(arrays["energy"][~failed].mean()), 1e-3)


def test_all_chains_failed(here: Path) -> None:
    result = sample("--energy", "mine:steep", "--event-shape", 2, "--step-size", 1, "--plot", "p.png")
    assert result.exit_code == 1, result.output
    assert [line.split(":")[0] for line in result.stderr.splitlines()] == ["warning", "warning", "error"]
    assert result.stderr.splitlines()[-1].startswith("error: every chain failed: ")
    assert facts(result)["failed chains"].startswith("60, the first at step ")
    assert "p.png: not drawn, every chain failed" in result.stderr
    assert "nan" not in result.stdout
    assert os.listdir(here) == ["draws.npz"]


def test_all_chains_failed_is_an_error_where_nothing_is_reported_too(here: Path) -> None:
    result = sample("--energy", "mine:steep", "--event-shape", 2, "--step-size", 1, "--quiet", "--no-save")
    assert (result.exit_code, result.stdout, os.listdir(here)) == (1, "", [])
    assert result.stderr.splitlines()[-1].startswith("error: every chain failed: ")


def test_warnings_of_others_take_one_line_too(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def init(self: object, **options: object) -> object:
        warnings.warn("two\nlines", UserWarning, stacklevel=1)
        return real(self, **options)

    real = ce.Sampler.init
    monkeypatch.setattr(ce.Sampler, "init", init)
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        result = sample()
    assert (result.exit_code, result.stderr) == (0, "warning: two lines\n")


def test_explain(here: Path) -> None:
    result = run("explain", "--energy", "mine:Ring", "--backend", "eager", "--chains", 10, "--dtype", "float64")
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert lines[0].startswith("backend        eager")
    assert "torch.float64" in result.stdout
    source = run("explain", "--energy", "mine:Ring", "--backend", "eager", "--chains", 10, "--source")
    assert source.exit_code == 0
    assert "def forward" in source.stdout
    assert os.listdir(here) == []


def test_energies_lists_them_all() -> None:
    result = run("energies")
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    assert [line.split()[0] for line in lines] == list(BUILTIN_ENERGIES)
    assert lines[list(BUILTIN_ENERGIES).index("funnel")].split()[1] == "10"
    assert all(len(line.split()) > 3 for line in lines)


def test_version_and_help() -> None:
    result = run("--version")
    assert (result.exit_code, len(result.stdout.splitlines())) == (0, 1)
    assert result.stdout.startswith("compiled-ebm ")
    assert torch.__version__ in result.stdout
    for arguments in ([], ["--help"], ["sample", "--help"], ["explain", "--help"]):
        result = run(*arguments)
        assert (result.exit_code, result.stderr) == (0, "")
        assert "Usage: " in result.stdout


# --- what does not ----------------------------------------------------------------------------------------------------

MISTAKES = {
    # numbers
    "--chains abc": "'--chains': expected an integer of at least 1, got 'abc'",
    "--chains 0": "'--chains': expected an integer of at least 1, got '0'",
    "--chains 1.5": "'--chains': expected an integer of at least 1, got '1.5'",
    "--chains nan": "'--chains': expected an integer",
    "--chains 1e400": "'--chains': expected an integer",
    "--chains 1e30": "--chains: expected an integer from 1 to",
    "--chains 100000000000": "--chains: 100000000000 chains need",
    "--steps -1": "'--steps': expected an integer of at least 1, got '-1'",
    "--steps 5000000000": "--steps: expected an integer from 0 to 4294967296",
    "--thin 13": "--thin: expected at most --steps, which is 12, got 13",
    "--thin 0": "'--thin': expected an integer of at least 1, got '0'",
    "--seed 1.5": "'--seed': expected an integer of 64 bits, got '1.5'",
    "--seed 18446744073709551616": "'--seed': expected an integer of 64 bits",
    "--step-size x": "'--step-size': expected a number, got 'x'",
    "--step-size nan": "--step-size: expected a finite number",
    "--step-size 0": "--step-size: expected a number > 0",
    "--step-size=-1": "--step-size: expected a number > 0",
    "--noise-scale inf": "--noise-scale: expected a finite number",
    "--noise-scale=-1": "--noise-scale: expected a number >= 0",
    # choices
    "--dtype float8": "--dtype: expected one of float32, float64, float16, bfloat16, got 'float8'",
    "--backend fast": "--backend: expected one of auto, ",
    "--device tpu": "--device: expected cpu, cuda or cuda:N, got 'tpu'",
    "--device mps": "--device: expected cpu, cuda or cuda:N, got 'mps'",
    "--device cuda:99": "--device: expected cpu or a CUDA GPU of this machine, which has",
    # energies
    "--energy mpl": "banana; did you mean 'mlp'?",
    "--energy zzz": "got 'zzz'; built in are mlp, gaussian, double-well, ",
    "--energy :x": "expected module:attribute, such as my_energies:MyModel, got ':x'",
    "--energy mine:": "expected module:attribute, such as my_energies:MyModel, got 'mine:'",
    "--energy mine.py:bowl": "got the file 'mine.py'; use mine:bowl",
    "--energy no_such_module:x": "no module 'no_such_module' in ",
    "--energy mine.sub:x": "'mine.sub'",
    "--energy mine:bowi": "module 'mine' has no attribute 'bowi'; did you mean 'bowl'?",
    "--energy mine:number": "mine:number to be a module, a function or a class, got int",
    "--energy mine:make_nothing": "expected mine:make_nothing() to give a callable [n, *event] -> [n], got NoneType",
    "--energy mine:Wide": "got a class that needs width",
    "--energy mine:fails": "mine:fails() raised RuntimeError: no weights were found (at ",
    "--energy typo:x": "importing 'typo' raised NameError: name 'torhc' is not defined (at ",
    "--energy syntax:x": "importing 'syntax' raised SyntaxError: ",
    "--energy leaves:x": "importing 'leaves' raised SystemExit: usage: leaves (at ",
    "--energy no_file:x": "no_file.py:2)",
    "--energy depends:x": "No module named 'not_installed_anywhere' (at ",
    "--energy mine:bowl": "--event-shape: expected the shape of one position, such as 2 or 1,28,28, got none",
    "--energy mine:coupled --event-shape 2": "couples chains",
    "--energy mine:wrong_shape --event-shape 2": "expected output shape [11]",
    "--event-shape 2,x": "--event-shape: expected positive integers with commas between, such as 2 or 1,28,28",
    "--event-shape 0": "--event-shape: expected positive integers",
    "--energy mlp --event-shape 3": "expected shape [n, 2], got shape (11, 3)",
    # files
    "--out draws.csv": "--out: draws.csv: expected a file name that ends in .npz or .safetensors",
    "--out nowhere/draws.npz": "--out: nowhere/draws.npz: expected an existing directory",
    "--plot p.xyz": "--plot: p.xyz: expected a file name that ends in .png, .pdf or .svg",
    "--plot nowhere/p.png": "--plot: nowhere/p.png: expected an existing directory",
    # usage
    "--frobnicate": "--frobnicate",
    "--out": "--out",
    "surplus": "surplus",
}


def assert_one_line(result: Result, words: str) -> None:
    assert result.exit_code == 2, result.output
    assert result.stdout == ""
    lines = result.stderr.splitlines()
    assert len(lines) == 1, result.stderr
    assert lines[0].startswith("error: ")
    assert words in lines[0]
    assert "Traceback" not in result.output


@pytest.mark.parametrize("arguments", MISTAKES)
def test_mistake_is_one_line(here: Path, arguments: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def compiled(*_: object) -> None:
        raise AssertionError("it was to fail before compiling")

    monkeypatch.setattr("compiled_ebm.builder._Builds.prepare", compiled)
    assert_one_line(sample(*arguments.split(" ")), MISTAKES[arguments])
    assert os.listdir(here) == []


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nonsense"], "nonsense"),
        (["--nonsense"], "--nonsense"),
        (["energies", "surplus"], "surplus"),
        (["explain", "--chains", "x"], "'--chains': expected an integer of at least 1, got 'x'"),
        (["explain", "--energy", "mpl"], "did you mean 'mlp'?"),
    ],
)
def test_mistake_in_other_commands(here: Path, arguments: list[str], words: str) -> None:
    assert_one_line(run(*arguments), words)


def test_draws_that_do_not_fit_in_memory(here: Path) -> None:
    assert_one_line(sample("--chains", "1e6", "--steps", "1e6", "--thin", 1), "--chains: 1000000 chains need ")


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs a directory in which even root can't write")
def test_unwritable_directory(here: Path) -> None:
    assert_one_line(sample("--out", "/proc/draws.npz"), "expected a writable directory, got '/proc'")


@pytest.mark.parametrize(
    ("arguments", "modules", "words"),
    [
        (["--plot", "p.png"], ["matplotlib.figure"], "--plot: plots need matplotlib: pip install matplotlib"),
        (["--out", "d.safetensors"], ["safetensors", "safetensors.torch"], "pip install safetensors"),
    ],
)
def test_missing_library_is_told_before_sampling(
    here: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], modules: list[str], words: str
) -> None:
    for module in modules:
        monkeypatch.setitem(sys.modules, module, None)
    monkeypatch.setattr("compiled_ebm.cli.build_sampler", None)
    assert_one_line(sample(*arguments), words)


@pytest.mark.parametrize(
    "error",
    [
        ValueError("bad\nvalue"),
        TypeError("bad value"),
        MemoryError("bad value"),
        ce.UnsupportedEnergyError("bad value"),
        ce.BackendUnavailableError("bad value"),
        torch.OutOfMemoryError("bad value"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_errors_of_the_library_are_one_line(here: Path, monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def fails(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr("compiled_ebm.cli.build_sampler", fails)
    assert_one_line(sample(), "bad value")
    assert os.listdir(here) == []


def test_a_bug_shows_its_traceback_when_asked(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def run_fails(self: object, *_: object, **__: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(ce.Sampler, "run", run_fails)
    told = sample()
    assert told.exit_code == 2 and told.stderr.count("\n") == 1 and "COMPILED_EBM_TRACEBACK=1" in told.stderr
    monkeypatch.setenv("COMPILED_EBM_TRACEBACK", "1")
    assert isinstance(sample().exception, ZeroDivisionError)


def test_full_disk_keeps_the_report(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def savez(file: object, **arrays: object) -> None:
        file.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez", savez)
    result = sample()
    assert result.exit_code == 1
    assert result.stderr == "error: draws.npz: not written: No space left on device\n"
    assert "mean energy" in facts(result)
    assert "saved" not in facts(result)
    assert os.listdir(here) == []


# --- Ctrl-C -----------------------------------------------------------------------------------------------------------


def environment() -> dict[str, str]:
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    return os.environ | {"PYTHONPATH": path, "COLUMNS": "100", "TERM": "dumb"}


BROKEN_OBJECT = """
class Broken:
    gradient = property(lambda self: {}["g"])
    def __call__(self, x): ...
energy = Broken()
"""


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("def energy(x):\n    raise SystemExit(5)\n", "SystemExit"),
        (BROKEN_OBJECT, "KeyError"),
        ("def energy(x):\n    raise RuntimeError('no such luck')\n", "no such luck"),
    ],
)
def test_whatever_an_energy_raises_is_one_line(here: Path, source: str, words: str) -> None:
    (here / "raises.py").write_text(source)
    try:
        result = sample("--energy", "raises:energy", "--event-shape", 2, "--backend", "eager")
    finally:
        sys.modules.pop("raises", None)
    assert result.exit_code == 2 and words in result.stderr
    assert result.stderr.startswith("error: ") and result.stderr.count("\n") == 1


@pytest.mark.parametrize("size", [10**9, 10**20])
def test_an_event_beyond_measure_is_one_line(here: Path, size: int) -> None:
    result = sample("--energy", "mine:bowl", "--event-shape", size, "--backend", "eager")
    assert result.exit_code == 2 and result.stderr.startswith("error: --event-shape: expected at most")


@pytest.mark.skipif(os.name == "nt", reason="POSIX signals")
def test_ctrl_c_saves_what_there_is(here: Path) -> None:
    (here / "mine.py").write_text(USER_MODULE)
    arguments = ["sample", "--energy", "mine:telling", "--event-shape", "2", "--backend", "eager", "--device", "cpu"]
    command = [sys.executable, "-m", "compiled_ebm", *arguments, "--chains", "10", "--steps", "1e6", "--thin", "2"]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, cwd=here, env=environment()) as process:
        deadline = time.monotonic() + 60
        while not (here / "running").exists() and time.monotonic() < deadline and process.poll() is None:
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert process.returncode == 130, out + err
    arrays, metadata = load_draws(here / "draws.npz")
    steps = int(metadata["steps"])
    assert err == f"interrupted: after {steps:,} of 1,000,000 steps\n"
    assert f"steps          {steps:,}\n" in out
    assert "\x1b" not in out  # no bar and no colours in a pipe
    assert 0 < steps < 1_000_000
    assert metadata["interrupted"] == "True"
    assert arrays["draws"].shape == (10, steps // 2, 2)
    assert not list(here.glob(".*tmp"))


@pytest.mark.parametrize("where", ["compiled_ebm.builder._Builds.prepare", "numpy.savez"])
def test_ctrl_c_elsewhere_leaves_no_file(here: Path, monkeypatch: pytest.MonkeyPatch, where: str) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(where, interrupted)
    result = sample()
    assert result.exit_code == 130
    assert result.stderr == "interrupted: no unfinished file is left\n"
    assert ("mean energy" in facts(result)) is (where == "numpy.savez")
    assert os.listdir(here) == []


@pytest.mark.slow
def test_main_job_by_the_default_backend(here: Path) -> None:
    command = [sys.executable, "-m", "compiled_ebm", "sample", "--steps", "20", "--chains", "500", "--plot", "p.png"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=here, env=environment(), timeout=300)
    assert done.returncode == 0, done.stderr
    arrays, metadata = load_draws(here / "draws.npz")
    assert arrays["x"].shape == (500, 2)
    assert bool(arrays["x"].isfinite().all())
    assert metadata["energy"] == "mlp"
    assert sorted(os.listdir(here)) == ["draws.npz", "p.png"]
