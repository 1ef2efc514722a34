"""The fused CUDA kernel without a GPU: its source, and what ptxas makes of it for Ampere, Hopper and Blackwell."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import pytest
import torch
from golden_source import check_text
from test_fused import double_well, small_network, valley
from torch import Tensor

import compiled_ebm as ce
from benchmarks.workloads import WORKLOADS
from compiled_ebm.energies.registry import BUILTIN_ENERGIES

pytest.importorskip("triton")

from compiled_ebm.backends.fused.triton import functions, loading  # noqa: E402
from compiled_ebm.backends.fused.triton.devices import DEVICES  # noqa: E402
from compiled_ebm.backends.fused.triton.emitter import Kernel  # noqa: E402
from compiled_ebm.backends.fused.triton.expressions import EXPRESSIONS  # noqa: E402
from compiled_ebm.backends.fused.triton.forms import candidates  # noqa: E402
from compiled_ebm.backends.fused.triton.kernel import TritonKernel  # noqa: E402
from compiled_ebm.backends.fused.triton.launch import step_kernel  # noqa: E402
from compiled_ebm.backends.fused.triton.pools import Pools  # noqa: E402
from compiled_ebm.backends.fused.triton.resources import Resources, cross_compile  # noqa: E402
from compiled_ebm.backends.fused.triton.values import Form  # noqa: E402

pytestmark = pytest.mark.skipif(os.environ.get("TRITON_INTERPRET") == "1", reason="interpreted kernels do not compile")


class Ceiling(NamedTuple):
    """The layout that is chosen for 10,000 chains on a Hopper card, and what it may cost there at most."""

    form: Form
    instructions: float
    """Of warps, a chain-step."""
    registers: int
    spills: int = 0


CEILINGS = {
    "mlp-2-64-1": Ceiling(Form(8, 1, chains_last=True), 30.5, 200),
    "mlp-2-64-64-1": Ceiling(Form(128, 8), 150.0, 255, spills=80),
    "mixture": Ceiling(Form(128, 4), 6.8, 128),
    "double-well": Ceiling(Form(2, 1), 110.0, 108),
    "rosenbrock": Ceiling(Form(128, 4), 3.9, 88),
    "gaussian": Ceiling(Form(128, 8, chains_last=True), 210.0, 255, spills=280),
    "mlp-16-256-256-1": Ceiling(Form(16, 8, chains_last=True), 36_000.0, 255, spills=1200),
    "logistic": Ceiling(Form(8, 8), 3610.0, 248),
    "phi4": Ceiling(Form(16, 4), 103.0, 176),
    "lennard-jones": Ceiling(Form(128, 4, unrolled=True), 120.0, 255),
    "funnel": Ceiling(Form(128, 4), 8.6, 112),
    "ring": Ceiling(Form(128, 4), 8.5, 136),
    "himmelblau": Ceiling(Form(128, 4), 3.0, 80),
}
"""The ten workloads of the benchmarks and three built-in energies; up to 5 % above what Triton 3.6 makes."""
MANY_CHAINS = {
    "mlp-2-64-1": Ceiling(Form(16, 1, chains_last=True), 23.6, 255),
    "double-well": Ceiling(Form(8, 1), 107.0, 224),
    "phi4": Ceiling(Form(128, 4, unrolled=True), 58.0, 255),
}
"""Those that get another layout where chains fill the device."""
ON_TENSOR_CORES = ("mlp-2-64-64-1", "gaussian", "mlp-16-256-256-1")
BUILTIN = {"ring": "mixture"}
"""Built-in energies whose name a workload has."""


@pytest.fixture(scope="module", autouse=True)
def _afresh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Triton's own cache on disk would hide what compiling takes."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRITON_CACHE_DIR", str(tmp_path_factory.mktemp("triton")))
        yield


def kernel_of(energy: Callable[..., Tensor], event: int | tuple[int, ...], **options: Any) -> TritonKernel:
    """The step's kernel, lowered, as the launch has it; traced on the CPU."""
    sampler = ce.build_sampler(energy, ce.Langevin(0.01), event, backend="eager", **options)
    program, _ = sampler._builds.get({}, 1)
    kernel = step_kernel(program)
    kernel.generate(())
    return kernel


# -- source ------------------------------------------------------------------------------------------------------------

SOURCES: dict[str, tuple[Callable[..., Tensor], int, Form]] = {
    "valley": (valley, 4, Form(128, 4)),
    "small-network": (small_network, 2, Form(16, 1, chains_last=True)),
    "double-well": (double_well, 128, Form(16, 4)),
}


@pytest.mark.parametrize("name", SOURCES)
def test_golden_source(name: str) -> None:
    """A program without axes, a network with its hidden units on one, and a state that has one."""
    energy, dim, form = SOURCES[name]
    check_text(kernel_of(energy, dim).emitted(form).source, f"{name}.triton")


def test_the_source_names_the_lines_of_the_energy() -> None:
    kernel = kernel_of(valley, 4)
    kernel.use(candidates(kernel.program, kernel.plan)[0])
    assert re.search(r"# .*test_fused\.py:\d+, in valley: return \(100\.0", kernel.source())
    assert "#" not in kernel.code()


# -- machine code ------------------------------------------------------------------------------------------------------


def energy_named(name: str) -> tuple[Callable[..., Tensor], tuple[int, ...]]:
    if name in WORKLOADS:
        return WORKLOADS[name].energy_factory(), WORKLOADS[name].event_shape
    builtin = BUILTIN_ENERGIES[BUILTIN.get(name, name)]
    return builtin.factory(), builtin.event_shape


def resources_of(name: str, target: str, form: Form) -> Resources:
    """In a layout, which must be one that is looked at."""
    kernel = kernel_of(*energy_named(name))
    kernel.prepare_for(DEVICES[target])
    assert form in candidates(kernel.program, kernel.plan, kernel.precision)
    found = kernel.resources(form, DEVICES[target])
    assert found is not None and found.fits(DEVICES[target])
    return found


SLOW = ("mlp-16-256-256-1", "lennard-jones", "gaussian", "mlp-2-64-64-1", "logistic")


@pytest.mark.parametrize("name", [pytest.param(n, marks=pytest.mark.slow if n in SLOW else ()) for n in CEILINGS])
def test_what_a_step_costs_on_a_hopper_card(name: str) -> None:
    check_ceiling(name, CEILINGS[name])


@pytest.mark.parametrize("name", [pytest.param(n, marks=pytest.mark.slow if n == "phi4" else ()) for n in MANY_CHAINS])
def test_what_a_step_costs_where_chains_are_many(name: str) -> None:
    check_ceiling(name, MANY_CHAINS[name])


def check_ceiling(name: str, ceiling: Ceiling) -> None:
    found = resources_of(name, "sm_90", ceiling.form)
    assert 0.5 * ceiling.instructions < found.instructions_per_chain_step <= ceiling.instructions
    assert found.spills <= ceiling.spills and found.registers <= ceiling.registers
    assert (found.tensor_instructions > 0) == (name in ON_TENSOR_CORES)


@pytest.mark.parametrize("target", [target for target in DEVICES if target != "sm_90"])
@pytest.mark.parametrize("name", ["rosenbrock", pytest.param("mlp-2-64-64-1", marks=pytest.mark.slow)])
def test_other_architectures(name: str, target: str) -> None:
    """Without and with tensor cores; instructions and registers as on a Hopper card, within half of those."""
    ceiling = CEILINGS[name]
    found = resources_of(name, target, ceiling.form)
    assert found.registers <= 255 and 0 < found.instructions_per_chain_step <= 1.5 * ceiling.instructions
    assert (found.tensor_instructions > 0) == (name in ON_TENSOR_CORES)


def test_in_double() -> None:
    kernel = kernel_of(*energy_named("rosenbrock"), dtype=torch.float64)
    found = kernel.resources(CEILINGS["rosenbrock"].form, DEVICES["sm_90"])
    assert found is not None and 0 < found.spills <= 8  # sine and cosine of large numbers have a table on the stack


# -- functions ---------------------------------------------------------------------------------------------------------

CALLED = {
    f"{name}({', '.join('xy'[: text.count('{')])})": f"{name[0]}"
    for text in EXPRESSIONS.values()
    for name in re.findall(r"^(r_\w+|i\w+)\(", text)
}
"""Calls of every function that expressions call, and whether they take reals or integers."""


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_every_function_compiles(dtype: torch.dtype) -> None:
    """In one kernel that sums up what all of them give."""
    defined = {name for name in vars(functions) if re.match(r"r_|idiv|imod", name)}
    assert defined == {call.partition("(")[0] for call in CALLED}
    real = "fp32" if dtype == torch.float32 else "fp64"
    lines = [
        "@jit",
        "def chain_loop(reals, ints, BLOCK: tl.constexpr, REAL: tl.constexpr, FAST: tl.constexpr, KEEP: tl.constexpr):",
        "    at = tl.arange(0, BLOCK)",
        "    total = tl.full((BLOCK,), 0.0, REAL)",
    ]
    for array, kind in (("reals", "r"), ("ints", "i")):
        lines += [f"    {name} = tl.load({array} + {k} * BLOCK + at)" for k, name in enumerate("xy")]
        lines += [f"    total += ({call}).to(REAL)" for call, takes in CALLED.items() if takes == kind]
    lines.append("    tl.store(reals + at, total)")
    source = "\n".join(lines) + "\n"
    kernel = Kernel(source, Form(32, 1), (Pools(),), (("reals", f"*{real}"), ("ints", "*i64")), ())
    assert cross_compile(kernel, loading.load(source, []), dtype, DEVICES["sm_90"]) is not None
