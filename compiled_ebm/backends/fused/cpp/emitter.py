"""The C++ emitter: a tile program becomes one function that runs the whole chain loop.

A tile is one vector of chains. Its state is loaded once, all steps of the launch run in registers and a scratch buffer
in the first-level cache, and the state is stored again. What bounds the cost: multiply-adds of the products, the
polynomials of exp and its like, 0.6 ns a normal; loads and stores of the scratch buffer where loops pass values on.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from compiled_ebm.backends.fused.cpp.assembly import assemble, energy_function
from compiled_ebm.backends.fused.cpp.draws import draw_into_variables, emit_draw
from compiled_ebm.backends.fused.cpp.loops import emit_loop
from compiled_ebm.backends.fused.cpp.products import emit_product
from compiled_ebm.backends.fused.cpp.repetitions import emit_closing, emit_opening
from compiled_ebm.backends.fused.cpp.replacement import replace
from compiled_ebm.backends.fused.cpp.sections import Sections
from compiled_ebm.backends.fused.cpp.step import Step
from compiled_ebm.backends.fused.groups import Closing, Loop, Opening, Plan, Product, Section
from compiled_ebm.backends.fused.names import LETTER
from compiled_ebm.backends.fused.plan import plan
from compiled_ebm.backends.fused.program import Input, Kind, Role, TileProgram, is_constant

__all__ = ["Kernel", "emit"]


@dataclass(frozen=True)
class Kernel:
    """Generated source and what its caller must provide.

    Args:
        source: C++, to be compiled behind ``lanes.h``; or that of the energy's function, which goes into it.
        plan: The order of work.
        scratch: Vectors of reals, and int64 vectors, that a thread needs.
        weights: For every packed table of constants: the constant's position and, for each entry, its index.
        constants: Positions of the constants that are read as they are.
        rounds: How often each repetition is done: the source is the same for any number.
        energy: The function that the chain loop calls for the energy, if there is one.
    """

    source: str
    program: TileProgram
    plan: Plan
    scratch: tuple[int, int]
    weights: tuple[tuple[int, NDArray[np.int64]], ...]
    constants: tuple[int, ...]
    rounds: tuple[int, ...]
    energy: Kernel | None = None


def emit(program: TileProgram, energy: TileProgram | None = None) -> Kernel:
    """Generate the kernel of a tile program.

    Args:
        program: What is done in every step.
        energy: What gives the energy where the program does not.
    """
    function = None if energy is None else _emit_energy(energy)
    step = _written(program)
    replace(
        step,
        [(leaf, program.outputs[k]) for k, leaf in sorted(program.leaves().items())],
        "the state for the next step",
    )
    return _kernel(step, assemble(step, "" if function is None else function.source), function)


def _emit_energy(program: TileProgram) -> Kernel:
    step = _written(program)
    return _kernel(step, energy_function(step, int(program.outputs[0][0])), None)


def _kernel(step: Step, source: str, energy: Kernel | None) -> Kernel:
    return Kernel(
        source=source,
        program=step.program,
        plan=step.plan,
        scratch=(step.storage.size[Kind.REAL], step.storage.size[Kind.INT]),
        weights=tuple(step.weights),
        constants=tuple(sorted(step.constants)),
        rounds=tuple(step.rounds),
        energy=energy,
    )


def _written(program: TileProgram) -> Step:
    """All groups of a program, one after the other."""
    step = Step(program, plan(program))
    sections = Sections(step)
    _name_inputs(step)
    step.mirror_now(lambda node: isinstance(node, Input) and node.role in (Role.STEP, Role.HYPER))
    draw_into_variables(step)
    step.mirror_now(
        lambda node: isinstance(node, Input) and node.role in (Role.STATE, Role.FAILED, Role.NORMALS, Role.UNIFORMS)
    )
    for group in step.plan.groups:
        if isinstance(group, Section):
            sections.emit(group)
        elif isinstance(group, Loop):
            emit_loop(step, group)
        elif isinstance(group, Product):
            emit_product(step, group.node)
        elif isinstance(group, Opening):
            emit_opening(step, group)
        elif isinstance(group, Closing):
            emit_closing(step, group)
        else:
            emit_draw(step, group.node)
    return step


def _name_inputs(step: Step) -> None:
    for i, node in enumerate(step.nodes):
        if not isinstance(node, Input) or step.plan.wide[i] or is_constant(node):
            continue
        for e in range(node.size):
            step.names[node.first + e] = f"{LETTER[node.role]}{node.position}_{e}"
