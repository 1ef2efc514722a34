"""One generated Triton function over blocks of chains, with the constants that it reads."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from compiled_ebm.backends.base import Chains, Keep
from compiled_ebm.backends.fused.cost import count, live_bytes
from compiled_ebm.backends.fused.parts import Parts
from compiled_ebm.backends.fused.plan import UNROLLED, plan
from compiled_ebm.backends.fused.program import Dot
from compiled_ebm.backends.fused.triton import loading
from compiled_ebm.backends.fused.triton.devices import Device
from compiled_ebm.backends.fused.triton.emitter import Kernel, emit
from compiled_ebm.backends.fused.triton.resources import Resources, constexprs, cross_compile, options
from compiled_ebm.backends.fused.triton.values import Form

__all__ = ["TritonKernel"]

_MOST_WORK, _MOST_UNROLLED = 2500, 5000
"""Of a thread's code: 2,000 with axes take Triton 2 to 8 s and 5,000 took it 50 s; 4,000 without loops, 4 s."""
_BLACKWELL = 100
_AS_PRECISE = ("tf32x3", "tf32")
"""Products with which a bound on the energy holds that was found without rounding of their operands."""
_ANYWHERE = ("hyper", "keep_x", "keep_energy")
"""Arrays that may begin at any address: a kernel for aligned ones would be compiled beside that for others."""
_COMMENT_LINES = re.compile(r"^ *#.*\n", re.MULTILINE)


class TritonKernel:
    """A tile program on a GPU.

    Args:
        lower: Makes its tile programs from the shared tensors as they are; again, if a constant is no longer what it
            was taken for.
        real: The dtype of its lanes.
        precision: Of matrix products on tensor cores.
    """

    def __init__(
        self,
        lower: Callable[[Sequence[Tensor], float], Parts],
        real: torch.dtype,
        precision: str = "tf32x3",
    ) -> None:
        self.precision = precision
        self._lower = lower
        self._real = real
        self._loaded: dict[str, Any] = {}
        self._pools: list[tuple[Tensor, Tensor, Tensor]] | None = None
        self._limit: Tensor | None = None
        self._versions: object = None
        self._form: Form | None = None
        self._is_whole = False
        """Whether the energy stays in the step, come what may."""
        self._resources: dict[tuple[Form, Device], Resources | None] = {}

    def generate(self, shared: Sequence[Tensor]) -> None:
        """Lower the traced functions; one thread at a time, as all tracing."""
        self._shared = shared
        self._parts = self._lower(shared, 0.0 if self.precision in _AS_PRECISE and not self._is_whole else 1.0)
        self.program = self._parts.main.program
        self.plan = plan(self.program)
        self.cost = count(self.program)
        self.live_bytes = live_bytes(self.program)
        self._pools, self._limit = None, None
        self._resources = {}
        if self._form is not None:
            self.use(self._form)

    def prepare_for(self, device: Device) -> None:
        """Two sets of products, of the step and of the energy, are more than Triton (3.6) compiles for Blackwell."""
        has_products = any(isinstance(node, Dot) for node in self.program.nodes)
        if device.capability >= _BLACKWELL and has_products and self._parts.energy is not None:
            self._is_whole = True
            self.generate(self._shared)

    def emitted(self, form: Form) -> Kernel:
        """The source in a form."""
        planned = plan(self.program, straight_line=UNROLLED) if form.unrolled else self.plan
        if self._parts.energy is None:
            return emit(self.program, planned, form)
        energy = self._parts.energy.program
        alike = plan(energy, straight_line=UNROLLED if planned.straight_line else 0)
        return emit(self.program, planned, form, (energy, alike))

    def use(self, form: Form) -> None:
        """Take a form for the launches to come."""
        self._form, self._pools = form, None
        self.kernel = self.emitted(form)
        self._function = self.loaded(self.kernel)

    def loaded(self, kernel: Kernel) -> Any:
        """The Triton function of a source; the same one for equal sources."""
        code = _COMMENT_LINES.sub("", kernel.source)
        if code not in self._loaded:
            numbers = [name for name, type_ in kernel.arguments if not type_.startswith("*")]
            self._loaded[code] = loading.load(kernel.source, [*numbers, *_ANYWHERE])
        return self._loaded[code]

    def resources(self, form: Form, device: Device) -> Resources | None:
        """What the program costs a device in a form; None if it would take Triton minutes, or Triton gives up on it."""
        key = form, device
        if key not in self._resources:
            kernel = self.emitted(form)
            is_large = kernel.work > (_MOST_UNROLLED if form.unrolled else _MOST_WORK)
            found = None if is_large else cross_compile(kernel, self.loaded(kernel), self._real, device)
            self._resources[key] = found
        return self._resources[key]

    def checks(self) -> str:
        """When it is looked whether a chain has failed, for explain()."""
        return self._parts.checks()

    @property
    def form(self) -> Form:
        """The form in use."""
        assert self._form is not None
        return self._form

    def code(self) -> str:
        """The source without comments."""
        return _COMMENT_LINES.sub("", self.kernel.source)

    def source(self) -> str:
        """The generated chain loop, for readers."""
        return self.kernel.source

    def refresh(self, shared: Sequence[Tensor], device: torch.device) -> None:
        """Take the constants as they are now, laid out as the kernel reads them."""
        captured = self._parts.captured(shared)
        if self._parts.is_stale(captured):
            self.generate(shared)
            captured = self._parts.captured(shared)
        constants = self._parts.constants(captured)
        before = [None] * len(constants) if self._pools is None else self._pools
        self._pools = [
            (
                pools.reals(own, self._real, device),
                pools.ints(own, device),
                pools.indices(device) if old is None else old[2],
            )
            for pools, own, old in zip(self.kernel.pools, constants, before, strict=True)
        ]
        versions = self._parts.versions(shared)
        if self._limit is None or versions is None or versions != self._versions:
            self._limit = torch.full((1,), self._parts.limit(constants, self._real), dtype=self._real, device=device)
            self._versions = versions

    def __call__(self, chains: Chains, first_step: int, n_steps: int, hyper: Tensor, keep: Keep | None) -> None:
        """Advance every chain in place.

        Args:
            chains: The buffers; their rows are whole blocks of chains.
            first_step: Index of the first step.
            n_steps: How many.
            hyper: ``[n_steps, n_hyper]``.
            keep: Where kept draws go.
        """
        assert self._pools is not None
        form = self.form
        kwargs = [self._flat(chains.chain_kwargs[p]) for p in self._parts.chain_kwargs]
        thin, until, n_kept = (
            (0, 0, 0) if keep is None else (keep.thin, keep.thin - keep.phase % keep.thin, keep.x.shape[1])
        )
        kept_x, kept_energy = (hyper, hyper) if keep is None else (keep.x, keep.energy)
        numbers = (first_step, n_steps, hyper.shape[1], thin, until, n_kept, 1, *self.kernel.rounds)
        arrays = (
            *chains.state,
            chains.failed_at,
            *kwargs,
            chains.seed,
            chains.ids,
            hyper,
            kept_x,
            kept_energy,
            *self._pools[0],
            self._limit,
            *(tensor for pools in self._pools[1:] for tensor in pools),
        )
        grid = (chains.ids.shape[0] // form.block,)
        with np.errstate(all="ignore"):  # of the interpreter: what padding holds may be anything
            fixed = constexprs(form, self._real, keep is not None, fast=not loading.is_interpreted())
            self._function[grid](*arrays, *numbers, **fixed, **options(form))

    def _flat(self, tensor: Tensor) -> Tensor:
        dtype = self._real if tensor.dtype.is_floating_point else torch.int64
        return tensor.detach().reshape(-1).to(dtype).contiguous()
