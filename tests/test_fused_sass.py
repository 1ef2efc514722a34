"""What is read of a CUDA kernel's machine code, and what it is taken to cost: on made-up code, by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest

pytest.importorskip("triton")

from compiled_ebm.backends.fused.triton.devices import DEVICES, Device  # noqa: E402
from compiled_ebm.backends.fused.triton.forms import ranked  # noqa: E402
from compiled_ebm.backends.fused.triton.resources import Resources, options  # noqa: E402
from compiled_ebm.backends.fused.triton.sass import Instruction, parse, step_loop  # noqa: E402
from compiled_ebm.backends.fused.triton.values import Form  # noqa: E402


def listed(*code: tuple[str, int, int | None, int]) -> str:
    """As ``cuobjdump`` lists instructions of 16 bytes: text, stall, the barrier set, a bit for each that is awaited."""
    lines = ["\t\tFunction : chain_loop", '\t.headerflags\t@"EF_CUDA_SM90"']
    for k, (text, stall, sets, awaits) in enumerate(code):
        control = stall << 41 | (7 if sets is None else sets) << 46 | awaits << 52
        lines.append(f"        /*{16 * k:04x}*/                   {text} ;{' ' * 20}/* 0x{0x7A02 + k:016x} */")
        lines.append(f"{' ' * 90}/* 0x{control:016x} */")
    return "\n".join(lines)


LISTING = listed(
    ("MOV R1, c[0x0][0x28]", 2, None, 0),  # 0x00: the loop over checks begins
    ("LDG.E.64 R4, desc[UR4][R2.64]", 4, 0, 0),  # 0x10: the loop over steps begins
    ("MUFU.EX2 R6, R5", 1, 1, 0b000001),
    ("@!P0 FADD R7, R6, R4", 5, None, 0b000010),
    ("IADD3 R9, R9, 0x2, RZ", 4, None, 0),  # 0x40: a loop inside begins
    ("ISETP.NE.AND P2, PT, R9, 0x8, PT", 3, None, 0),
    ("@P2 BRA 0x40", 2, None, 0),
    ("STL [R1], R7", 1, None, 0),
    ("@P1 BRA 0x10", 6, None, 0),
    ("@P3 BRA 0xa0", 6, None, 0),  # forward: no loop
    ("@P4 BRA 0x0", 5, None, 0),
    ("EXIT", 5, None, 0),
    ("BRA 0xc0", 0, None, 0),
)


def test_a_listing_is_read() -> None:
    code = parse(LISTING)
    assert [i.opcode for i in code] == "MOV LDG MUFU FADD IADD3 ISETP BRA STL BRA BRA BRA EXIT BRA".split()
    assert code[1] == Instruction(0x10, "LDG", None, 4, 0, 0, ("R4", "desc[UR4][R2.64]"))
    assert (code[2].sets, code[2].awaits, code[3].awaits) == (1, 1, 2)
    assert [i.jump for i in code if i.opcode == "BRA"] == [0x40, 0x10, 0xA0, 0x0, 0xC0]
    assert code[-1].stall == 1  # an instruction takes a cycle
    assert parse("no code at all\n") == []


def test_the_loop_over_steps_and_its_costs() -> None:
    """The loop inside is done four times: to 8 by 2. Latency: the walk of a second round."""
    loop = step_loop(parse(LISTING))
    assert (loop.code[0].address, loop.code[-1].address) == (0x10, 0x80)
    assert [(len(body), times) for body, times in loop.inner] == [(3, 4)]
    assert loop.count() == 8 + 3 * 3
    assert loop.count(("STL", "LDL")) == 1 and loop.count(("ISETP",)) == 4
    # special functions 8, memory 2 x 4, integers 2 x 4 x 2 on one pipe, all others 1 each
    assert loop.issue_cycles() == 17
    # by the clock of the round: LDG 0, its result 35; MUFU 35, its result 53; FADD 53, then 5 + 4 + 3 + 2 + 1 + 6
    inner = 4 + 3 + 2
    assert loop.latency_cycles() == 53 + 5 + inner + 1 + 6 + 3 * inner
    assert step_loop(parse(listed(("EXIT", 1, None, 0)))).count() == 0


CARD = Device("made up", 90, multiprocessors=10, clock=1e9, registers=65_536, shared_bytes=100_000, warps=64)
COST = Resources(
    Form(block=32, warps=2),
    registers=100,
    stack_bytes=0,
    spills=0,
    shared_bytes=0,
    instructions=640,
    tensor_instructions=0,
    issue_cycles=800.0,
    latency_cycles=3000.0,
    compile_seconds=1.0,
)


@pytest.mark.parametrize(
    ("change", "instances"),
    [
        ({}, 9),  # 65,536 / (104 x 64)
        ({"registers": 32}, 32),  # as many as there are slots for warps, and for instances
        ({"registers": 32, "form": Form(32, 8)}, 8),  # 64 warps / 8
        ({"shared_bytes": 30_000}, 3),
        ({"shared_bytes": 100_001}, 0),
        ({"registers": 255, "form": Form(32, 16)}, 0),
    ],
)
def test_instances_on_a_multiprocessor(change: dict[str, object], instances: int) -> None:
    cost = replace(COST, **change)  # type: ignore[arg-type]
    assert cost.resident(CARD) == instances and cost.fits(CARD) == (instances > 0)


@pytest.mark.parametrize(
    ("n_chains", "issue", "latency"),
    [
        (1, 0.8e-6, 3e-6),
        (320, 0.8e-6, 3e-6),  # an instance a multiprocessor: half a warp a scheduler
        (640, 0.8e-6, 3e-6),  # two
        (9 * 320, 4.5 * 0.8e-6, 3e-6),  # nine at once: 18 warps on 4 schedulers
        (9 * 320 + 1, 9.0 * 0.8e-6, 6e-6),  # a second wave
    ],
)
def test_seconds_of_a_step(n_chains: int, issue: float, latency: float) -> None:
    assert COST.bounds(CARD, n_chains) == pytest.approx((issue, latency))
    assert COST.seconds(CARD, n_chains, 7) == pytest.approx(7 * max(issue, latency))
    assert COST.instructions_per_chain_step == 640 * 2 / 32


def test_the_fastest_that_fits_comes_first() -> None:
    """Those that do not fit, or that the compiler gives up on, are left out; spilling ones must save a good part."""
    found = {
        Form(1, 1): replace(COST, form=Form(1, 1), shared_bytes=200_000),
        Form(2, 1): None,
        Form(4, 1): replace(COST, form=Form(4, 1), spills=3, latency_cycles=2500.0),
        Form(8, 1): replace(COST, form=Form(8, 1), latency_cycles=2600.0),
        Form(16, 1): replace(COST, form=Form(16, 1), spills=3, latency_cycles=1000.0),
    }
    ordered = ranked(list(found), lambda form: found[form], CARD, 10)
    assert [r.form.block for r in ordered] == [16, 8, 4]


def test_registers_are_what_the_warps_leave() -> None:
    assert [options(Form(32, warps))["maxnreg"] for warps in (1, 8, 16)] == [255, 255, 128]
    assert all(device.shared_bytes < 256 * 1024 for device in DEVICES.values())
