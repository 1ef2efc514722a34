"""``build_sampler``: an energy and a transition in, a sampler out; which backend, and why."""

from __future__ import annotations

import math
import re
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from types import ModuleType
from typing import Any, cast

import torch
from torch import Tensor

from compiled_ebm import captures, checksum, sourcelines
from compiled_ebm.arguments import checked_compute_dtype, checked_kwargs, checked_shape, resolve_device
from compiled_ebm.backends import eager, inductor
from compiled_ebm.backends.base import Chains, Launch
from compiled_ebm.choice import Choice, KernelLaunch, choose
from compiled_ebm.errors import BackendUnavailableError, UnsupportedEnergyError
from compiled_ebm.garbage import collection_paused
from compiled_ebm.loopgraph import loops_in
from compiled_ebm.memory import check_fits
from compiled_ebm.probe import InconsistentEnergyError, check_trace, probe
from compiled_ebm.sampler import Sampler
from compiled_ebm.target import Energy, own_gradient
from compiled_ebm.trace import ChainProgram, KwargsSpec, trace
from compiled_ebm.transitions.base import Transition, set_vectors, with_own_vectors
from compiled_ebm.transitions.tally import Tallied

__all__ = ["BACKENDS", "build_sampler", "check_backend"]

_BUILDING = threading.RLock()
"""Tracing and compiling have state of their own in torch: one thread at a time."""
_PROBE_BYTES = 11 * 3 * 8
"""For each element of the event, at least: eleven chains, their gradients and a copy, in float64."""
_MAX_PROGRAMS = 16
"""Programs kept, one for each shape and constant of ``model_kwargs``."""


@dataclass(frozen=True)
class _Backend:
    """One way to run a program."""

    compile: Callable[[ChainProgram, Energy], Launch]
    why_unavailable: Callable[[torch.device], str | None]


def _fused() -> ModuleType:
    """Imported when used: lowering and its tables take 50 ms."""
    from compiled_ebm.backends.fused import launch

    return launch


BACKENDS: dict[str, _Backend] = {
    "fused": _Backend(lambda program, _: _fused().compile(program), lambda device: _fused().why_unavailable(device)),
    "inductor": _Backend(lambda program, _: inductor.compile(program), inductor.why_unavailable),
    "eager": _Backend(eager.compile, lambda device: None),
}
"""In the order in which ``auto`` prefers them."""


def build_sampler(
    energy: Energy,
    transition: Transition,
    event_shape: tuple[int, ...] | int,
    *,
    backend: str = "auto",
    device: torch.device | str | None = None,
    dtype: torch.dtype = torch.float32,
    compute_dtype: torch.dtype | str | None = None,
    model_kwargs: Mapping[str, Any] | None = None,
) -> Sampler:
    r"""Build a sampler of :math:`p(x) \propto \exp(-E(x))`.

    Args:
        energy: Anything callable ``[n, *event] -> [n]``: a module, a function, our or torchebm's BaseModel. Its
            tensors are live: changed in place, the next run uses the new values. A ``gradient(x)`` of its own is used.
        transition: The move, for example ``ce.Langevin(step_size=0.01)``.
        event_shape: Shape of one chain's position; an int is one dimension.
        backend: "auto", "fused", "inductor" or "eager".
        device: Where the chains live; by default where the energy's tensors are.
        dtype: Of the positions handed in and out: float32, float64, float16 or bfloat16. They are carried in at least
            float32.
        compute_dtype: In which the energy is evaluated, its floating tensors cast to it; by default ``dtype``. "tf32"
            is float32 with matrix products of the fused CUDA kernel on TF32 tensor cores, their factors rounded to 11
            bits; all others are as exact as float32.
        model_kwargs: Keyword arguments of the energy, used where :meth:`Sampler.run` gets none.

    Returns:
        A :class:`Sampler`. The energy is checked and traced here; it is compiled at the first run.

    Raises:
        UnsupportedEnergyError: The energy cannot be sampled: names the operation, the line, the way out.
        BackendUnavailableError: The backend named cannot run on this machine.
        TypeError, ValueError: An argument is wrong.

    Example:
        >>> import compiled_ebm as ce
        >>> sampler = ce.build_sampler(ce.DoubleWellModel(), ce.Langevin(step_size=0.01), event_shape=(2,),
        ...                            backend="eager")
        >>> result = sampler.run(sampler.init(n_chains=100, seed=0), n_steps=50, thin=10)
        >>> tuple(result.draws.shape)
        (100, 5, 2)
    """
    if not callable(energy):
        raise TypeError(f"energy: expected a callable [n, *event] -> [n], got {type(energy).__name__}")
    if not isinstance(transition, Transition) or isinstance(transition, type):
        raise TypeError(f"transition: expected a transition such as ce.Langevin(step_size=0.01), got {transition!r}")
    shape = checked_shape(event_shape)
    computed, tf32 = checked_compute_dtype(dtype, compute_dtype)
    check_backend(backend)
    slots = captures.find_slots(energy)
    where = resolve_device(device, slots)
    check_fits(1, _PROBE_BYTES * math.prod(shape), 0, where, "the check of the energy")
    with collection_paused():
        builds = _Builds(energy, transition, shape, backend, where, dtype, computed, tf32)
        if model_kwargs is None:
            with torch.inference_mode(False), torch.autocast(where.type, enabled=False):  # as when it runs
                builds.get({}, 1)
    if model_kwargs is not None and not isinstance(model_kwargs, Mapping):
        raise TypeError(f"model_kwargs: expected a mapping of names to values, got {type(model_kwargs).__name__}")
    return Sampler(builds, transition, shape, dtype, builds.carry_dtype, where, model_kwargs or {})


def traced(
    energy: Energy,
    transition: Transition,
    event_shape: tuple[int, ...] | int,
    *,
    dtype: torch.dtype,
    compute_dtype: torch.dtype | str | None,
    model_kwargs: Mapping[str, Any],
    n_chains: int,
) -> tuple[ChainProgram, tuple[Tensor, ...]]:
    """The checked program of an energy where its tensors are, and the shared tensors of ``model_kwargs``."""
    options: dict[str, Any] = {"dtype": dtype, "compute_dtype": compute_dtype, "model_kwargs": model_kwargs}
    sampler = build_sampler(energy, transition, event_shape, backend="eager", **options)
    kwargs = checked_kwargs(model_kwargs, sampler.device)
    with torch.inference_mode(False), torch.autocast(sampler.device.type, enabled=False):
        program, _ = sampler.built(kwargs, n_chains)
    return program, tuple(kwargs[name] for name in program.kwargs.shared)


def check_backend(backend: object) -> None:
    """Raise if the backend is not one of ours."""
    if backend not in ("auto", *BACKENDS):
        raise ValueError(f"backend: expected one of {', '.join(('auto', *BACKENDS))}, got {backend!r}")


class _Builds:
    """Everything built for one sampler: programs and launches by the shape of ``model_kwargs``, and their history."""

    def __init__(
        self,
        energy: Energy,
        transition: Transition,
        event_shape: tuple[int, ...],
        backend: str,
        device: torch.device,
        dtype: torch.dtype,
        compute_dtype: torch.dtype,
        tf32: bool,
    ) -> None:
        self.carry_dtype = carry_dtype = torch.float64 if dtype == torch.float64 else torch.float32
        self._energy = energy
        self._given = transition
        self._transition = with_own_vectors(transition, event_shape, carry_dtype, device)
        self._event_shape = event_shape
        self._asked = backend
        self._device = device
        self._dtype = dtype
        self._compute_dtype = compute_dtype
        self._tf32 = tf32
        self._built: dict[object, tuple[ChainProgram, Launch]] = {}
        self._rows: dict[object, Mapping[str, Tensor]] = {}
        self._last: tuple[ChainProgram, Launch] | None = None
        self._slots: list[captures.Slot] = []
        self._history: list[str] = []
        self.count = 0
        self.seconds = 0.0
        self.passed_over: dict[str, str] = {}
        """Backends that ``auto`` has passed over, and why."""
        self._chosen: Choice | None = None
        """Between two that can run the energy; made once, so that a chain is the same in any batch."""
        self._backend = self._choose()

    @property
    def backend(self) -> str:
        """The backend in use."""
        return self._backend

    def _choose(self) -> str:
        """The backend asked for; for ``auto`` the first that runs here and has not been skipped before."""
        if self._asked != "auto":
            reason = BACKENDS[self._asked].why_unavailable(self._device)
            if reason is not None:
                raise BackendUnavailableError(f"backend={self._asked!r}: {reason}; or use backend='eager'")
            return self._asked
        for name in [*([self._chosen.backend] if self._chosen else []), *BACKENDS]:
            if name in self.passed_over:
                continue
            reason = BACKENDS[name].why_unavailable(self._device)
            if reason is None:
                return name
            self.passed_over[name] = reason
        raise BackendUnavailableError(self._not_these())

    def _not_these(self) -> str:
        return "; ".join(f"not {name}: {reason}" for name, reason in self.passed_over.items())

    def _why(self) -> str:
        if self._asked != "auto":
            return "asked for"
        reasons = [self._not_these()] if self.passed_over else []
        reasons += [self._chosen.why] if self._chosen else []
        return f"auto; {'; '.join(reasons)}" if reasons else "auto: the first that runs here"

    def adopt(self, transition: Transition) -> None:
        """Go on with another transition: with its tensors alone where it has the same structure."""
        self._given = transition
        if transition.structure() == self._transition.structure():
            set_vectors(self._transition, transition)
            return
        self._transition = with_own_vectors(transition, self._event_shape, self.carry_dtype, self._device)
        self._built.clear()

    def get(self, model_kwargs: Mapping[str, Any], n_chains: int, info: bool = False) -> tuple[ChainProgram, Launch]:
        """Program and launch for these keyword arguments; rebuilt if what the energy holds was replaced.

        With ``info`` the transition is a :class:`Tallied` one.
        """
        with _BUILDING:
            return self._get(model_kwargs, n_chains, info)

    def _get(self, model_kwargs: Mapping[str, Any], n_chains: int, info: bool) -> tuple[ChainProgram, Launch]:
        self._drop_stale()
        spec = KwargsSpec.of(model_kwargs, n_chains)
        rows = {name: model_kwargs[name][0] for name in spec.per_chain}
        rows |= {name: model_kwargs[name] for name in spec.shared}
        key = (info, spec.per_chain, spec.shared, repr(spec.constants), *((t.shape, t.dtype) for t in rows.values()))
        if key not in self._built:
            begin = time.perf_counter()
            with collection_paused():
                program, notes = self._checked_program(spec, rows, model_kwargs, n_chains, info)
            while len(self._built) >= _MAX_PROGRAMS:
                self._built.pop(next(iter(self._built)))
            self._rows = {k: row for k, row in self._rows.items() if k in self._built} | {key: rows}
            self._built[key] = (program, BACKENDS[self._backend].compile(program, self._energy))
            self._slots = captures.find_slots(self._energy)
            self.count += 1
            self.seconds += time.perf_counter() - begin
            self._history += [note for note in notes if note not in self._history]
        self._last = self._built[key]
        return self._last

    def _checked_program(
        self, spec: KwargsSpec, rows: Mapping[str, Tensor], model_kwargs: Mapping[str, Any], n_chains: int, info: bool
    ) -> tuple[ChainProgram, list[str]]:
        """Probe the energy, trace it, and compare the trace with it; a refusal names a line, if only the energy's."""
        try:
            return self._probed_program(spec, rows, model_kwargs, n_chains, info)
        except UnsupportedEnergyError as error:
            where = sourcelines.line_of_definition(self._energy)
            if where is None or re.search(r"\.py:\d|<.*>:\d", str(error)):
                raise
            raise UnsupportedEnergyError(f"{error} (the energy at {where})") from error

    def _probed_program(
        self, spec: KwargsSpec, rows: Mapping[str, Tensor], model_kwargs: Mapping[str, Any], n_chains: int, info: bool
    ) -> tuple[ChainProgram, list[str]]:
        options: dict[str, Any] = {
            "carry_dtype": self.carry_dtype,
            "compute_dtype": self._compute_dtype,
            "device": self._device,
            "spec": spec,
            "model_kwargs": model_kwargs,
            "n_chains": n_chains,
            "needs_gradient": getattr(self._transition, "needs_gradient", True),
        }
        try:
            probed = probe(self._energy, self._event_shape, **options)
        except InconsistentEnergyError as error:
            # what the trace says of a random draw or of control flow on data names the operation and the line
            self._trace(spec, rows, info)
            raise UnsupportedEnergyError(str(error)) from error
        program = self._trace(spec, rows, info)
        check_trace(program, probed)
        return program, probed.notes

    def _trace(self, spec: KwargsSpec, rows: Mapping[str, Tensor], info: bool) -> ChainProgram:
        program = trace(
            self._energy,
            cast(Transition, Tallied(self._transition)) if info else self._transition,
            self._event_shape,
            carry_dtype=self.carry_dtype,
            compute_dtype=self._compute_dtype,
            device=self._device,
            kwargs_spec=spec,
            kwargs_row=rows,
        )
        return replace(program, tf32=self._tf32)

    def _drop_stale(self) -> None:
        """Forget what was built if a tensor was replaced, moved or re-typed, or a constant of the code changed."""
        if any(not torch.equal(*pair) for p, _ in self._built.values() for pair in (*p.init.frozen, *p.step.frozen)):
            self._history.append("rebuilt because a mask that the energy indexes with changed")
            self._built.clear()
            return
        changes = captures.changed(self._slots)
        if not changes:
            return
        if all(not isinstance(slot.value, Tensor) for slot, _ in changes) and self._same_programs():
            self._slots = captures.find_slots(self._energy)  # a counter, say: it changes and the traced step does not
            return
        self._history.append("rebuilt because " + ", ".join(f"{slot.path} {reason}" for slot, reason in changes))
        self._built.clear()

    def _same_programs(self) -> bool:
        for key, (program, _) in self._built.items():
            again = self._trace(program.kwargs, self._rows[key], isinstance(program.transition, Tallied))
            for old, new in ((program.init, again.init), (program.step, again.step)):
                same_code = old.body.code == new.body.code and old.prelude.code == new.prelude.code
                if not same_code or not all(
                    _same_tensor(a, b) for a, b in zip(old.captured, new.captured, strict=True)
                ):
                    return False
        return True

    def prepare(self, program: ChainProgram, launch: Launch, chains: Chains) -> Launch:
        """Compile; where ``auto`` finds that another backend is faster, or this one does not take it, give that one."""
        try:
            with _BUILDING:
                self.seconds += launch.prepare(chains)
                if self._asked == "auto" and self._backend == "fused" and self._chosen is None:
                    begin = time.perf_counter()
                    self._chosen, chosen = choose(program, cast(KernelLaunch, launch), chains)
                    self.seconds += time.perf_counter() - begin
                    return self._go_on(program, chosen, self._chosen.backend)
        except UnsupportedEnergyError as error:
            if self._asked != "auto":
                raise
            self.passed_over[self._backend] = str(error)
            name = self._choose()
            return self._go_on(program, BACKENDS[name].compile(program, self._energy), name)
        return launch

    def _go_on(self, program: ChainProgram, launch: Launch, backend: str) -> Launch:
        """With this launch for the program, and this backend for those to come."""
        self._backend, self._last = backend, (program, launch)
        self._built = {k: (p, launch if p is program else old) for k, (p, old) in self._built.items()}
        return launch

    def checksum(self, program: ChainProgram, chains: Chains) -> tuple[int, ...]:
        """A position-dependent sum of the bits of every captured tensor and keyword argument."""
        held = (*program.step.captured, *chains.chain_kwargs, *chains.shared_kwargs)
        return (program.digest, *(checksum.of_tensor(t) for t in held))

    def explain(self) -> str:
        """Backend and why, what is compiled, builds and their reasons."""
        lines = [
            f"backend        {self._backend} ({self._why()})",
            f"transition     {self._given}",
            f"event shape    {self._event_shape}, device {self._device}",
            f"dtype          {self._dtype} in and out, carried in {self.carry_dtype}, energy in {self._compute_dtype}",
        ]
        if self._last is not None:
            program, launch = self._last
            graphs = (program.step.body, *(loop.body for loop in loops_in(program.step.body)))
            n_ops = sum(node.op == "call_function" for graph in graphs for node in graph.graph.nodes)
            gradient = "its own gradient(x)" if own_gradient(self._energy) is not None else "autograd"
            lines += [
                f"score          {gradient}",
                f"traced step    {n_ops} operations, {len(program.step.captured)} live tensors, "
                f"{program.bytes_per_chain()} bytes a chain",
                *(f"{name:<14} {value}" for name, value in launch.facts().items()),
            ]
        lines.append(f"builds         {self.count}, {self.seconds:.2f} s in all")
        lines += [f"note           {event}" for event in self._history]
        return "\n".join(lines)

    def source(self) -> str:
        """The generated code of the last build."""
        return self._last[1].source() if self._last else ""


def _same_tensor(a: Tensor, b: Tensor) -> bool:
    return a is b or (a.shape == b.shape and a.dtype == b.dtype and a.device == b.device and torch.equal(a, b))
