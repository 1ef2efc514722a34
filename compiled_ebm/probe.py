"""Calls of the energy before anything is traced: is it a function of one chain, the same at every call?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from compiled_ebm import captures, sourcelines
from compiled_ebm.arguments import described_kwargs
from compiled_ebm.errors import UnsupportedEnergyError
from compiled_ebm.target import BatchTarget, Energy, own_gradient
from compiled_ebm.trace import ChainProgram, KwargsSpec, mutations_undone

__all__ = ["InconsistentEnergyError", "Probed", "check_trace", "probe"]

_N = 11
_BATCH_EPS, _TRACE_EPS = 2000, 5000
"""Rounding units that may lie between a batch and a chain alone, and between the energy and its decomposed trace."""
_LOOSEST = 0.05
_FINEST = 1e-6
"""Some of torch's own gradients in float64 have float32 constants (that of hardsigmoid), their decompositions not."""
_ALONE = 4
"""Chains of the probe that are also evaluated by themselves."""


class InconsistentEnergyError(UnsupportedEnergyError):
    """The energy's values do not fit together; tracing it may tell why, by operation and line."""


class Probed(NamedTuple):
    """What the energy gave on the probe's positions, to compare its trace with."""

    x: Tensor
    chain_kwargs: list[Tensor]
    shared_kwargs: list[Tensor]
    energy: Tensor
    grad: Tensor
    notes: list[str]


def probe(
    energy: Energy,
    event_shape: tuple[int, ...],
    *,
    carry_dtype: torch.dtype,
    compute_dtype: torch.dtype,
    device: torch.device,
    spec: KwargsSpec,
    model_kwargs: Mapping[str, Any],
    n_chains: int,
    needs_gradient: bool,
) -> Probed:
    """Compare a batch of chains with itself and with the chains one by one.

    Returns:
        Positions, values, and notes for ``explain()``: tensors that the energy changes in place.

    Raises:
        UnsupportedEnergyError: The energy fails, has the wrong output shape, draws random numbers, does not depend on
            x, or couples chains.
    """
    generator = torch.Generator().manual_seed(1)
    x = torch.randn((_N, *event_shape), generator=generator, dtype=torch.float64).to(device=device, dtype=carry_dtype)
    # from near the origin to far out, so that a branch on the size of x shows
    x = x * torch.logspace(-1, 1.5, _N, device=device, dtype=carry_dtype).reshape(_N, *(1,) * len(event_shape))
    rows = torch.arange(_N, device=device)
    full: dict[str, Any] = dict(model_kwargs)
    for name in spec.per_chain:
        full[name] = model_kwargs[name][rows % model_kwargs[name].shape[0]]
    for name in (*spec.per_chain, *spec.shared):
        if full[name].dtype.is_floating_point:
            full[name] = full[name].to(compute_dtype)

    def evaluate(index: Tensor) -> tuple[Tensor, Tensor]:
        kwargs = {k: v[index] if k in spec.per_chain else v for k, v in full.items()}
        target = BatchTarget(energy, kwargs, compute_dtype, carry_dtype)
        if needs_gradient:
            return target.energy_and_grad(x[index])
        return target.energy(x[index]), torch.zeros_like(x[index])

    def cast(tensor: Tensor) -> Tensor:
        return tensor.to(compute_dtype) if tensor.dtype.is_floating_point else tensor

    given = f"; {described_kwargs(model_kwargs, spec, n_chains)}" if model_kwargs else ""
    _refuse_batch_statistics(energy)
    slots = captures.find_slots(energy)
    notes: list[str] = []
    devices = [torch.device(device)] if device.type == "cuda" else []
    undone = mutations_undone(slots, notes)
    with undone, captures.substituted(slots, cast), torch.random.fork_rng(devices):
        _seed(device)
        batch = _call(evaluate, rows, energy, event_shape, given)
        again = _call(evaluate, rows, energy, event_shape, given)
    if notes:  # an energy that keeps a state of its own is compared from the same state
        with undone, captures.substituted(slots, cast):
            again = _call(evaluate, rows, energy, event_shape, given)
    if not all(torch.equal(a, b) or bool(torch.isnan(a).any()) for a, b in zip(batch, again, strict=True)):
        raise InconsistentEnergyError(
            "energy: two calls with the same positions gave different values: it draws random numbers; E(x) must be "
            "the same at every call: call model.eval() if this is dropout, or pass random numbers in as model_kwargs"
        )
    for i in range(0, _N, _N // _ALONE):
        with undone, captures.substituted(slots, cast):
            alone = _call(evaluate, rows[i : i + 1], energy, event_shape, given)
        for name, one, all_ in zip(("energy", "gradient"), alone, batch, strict=True):
            if not _close(one[0], all_[i], compute_dtype):
                raise InconsistentEnergyError(
                    f"energy: it couples chains: the {name} of chain {i} alone differs from that in a batch of {_N} "
                    f"(by {float((one[0] - all_[i]).abs().max()):.3g}); every chain must be a function of its own x: "
                    "look for means, norms or BatchNorm over the first dimension, or call model.eval()"
                )
    chain = [full[name] for name in spec.per_chain]
    return Probed(x, chain, [full[name] for name in spec.shared], *batch, notes)


def check_trace(program: ChainProgram, probed: Probed) -> None:
    """Compare the trace with the energy itself, at positions other than the one that it was traced at.

    Raises:
        UnsupportedEnergyError: They differ: a value was taken out of a tensor in Python (``tolist``, ``numpy``).
    """
    step = torch.zeros((), dtype=torch.int64, device=probed.x.device)
    constants = program.init.constants(probed.shared_kwargs)
    for i in range(_N):
        with torch.no_grad():
            *leaves, _ = program.init.body(probed.x[i], *(t[i] for t in probed.chain_kwargs), step, *constants)
        traced = program.state_type(*leaves)
        grad, given = getattr(traced, "grad", probed.grad[i]), probed.grad[i]
        both = torch.isfinite(grad) & torch.isfinite(given)  # beyond the range of a dtype, orders of operations differ
        pairs = {"energy": (traced.energy, probed.energy[i]), "gradient": (grad[both], given[both])}
        for name, (found, wanted) in pairs.items():
            if not _close(found, wanted, program.compute_dtype, _TRACE_EPS):
                raise UnsupportedEnergyError(_baked_in(name, found, wanted, program.init.host_reads))


def _baked_in(name: str, traced: Tensor, given: Tensor, host_reads: Sequence[str]) -> str:
    worst = int((traced - given).abs().argmax())
    return (
        f"energy: the traced operations of its {name} give {float(traced.reshape(-1)[worst]):.6g} where it gives "
        f"{float(given.reshape(-1)[worst]):.6g}: Python takes values out of tensors that depend on x"
        + (f" at {'; '.join(host_reads)}" if host_reads else "")
        + " (tolist, numpy, a branch on the number of chains); write it with torch operations alone, or use torch.where"
    )


def _seed(device: torch.device) -> None:
    """Not ``torch.manual_seed``: it reaches the generators of every device, which nobody would put back."""
    torch.default_generator.manual_seed(0)
    if device.type == "cuda":
        index = torch.cuda.current_device() if device.index is None else device.index
        torch.cuda.default_generators[index].manual_seed(0)


def _close(a: Tensor, b: Tensor, dtype: torch.dtype, units: int = _BATCH_EPS) -> bool:
    tolerance = min(max(units * torch.finfo(dtype).eps, _FINEST), _LOOSEST)
    scale = torch.maximum(a.abs().max(), b.abs().max()) if a.numel() else a.new_zeros(())
    same = torch.isclose(a, b, rtol=tolerance, atol=float(tolerance * scale.nan_to_num(0, 0, 0)), equal_nan=True)
    return bool(same.all())


def _call(
    evaluate: Any, index: Tensor, energy: Energy, event_shape: tuple[int, ...], given: str
) -> tuple[Tensor, Tensor]:
    try:
        result: tuple[Tensor, Tensor] = evaluate(index)
        return result
    except UnsupportedEnergyError as error:
        if not given:
            raise
        raise UnsupportedEnergyError(f"{error}{given}") from error
    except Exception as error:
        what = "gradient" if own_gradient(energy) is not None else "energy"
        raise UnsupportedEnergyError(
            f"{what}: it fails on positions of shape {[len(index), *event_shape]}: {type(error).__name__}: {error} "
            f"(at {sourcelines.line_of_error(error)}); expected E([n, *event]) -> [n] with event_shape={event_shape}, "
            f"its tensors on the sampler's device, and every further argument in model_kwargs{given}"
        ) from error


def _refuse_batch_statistics(energy: Energy) -> None:
    for module in captures.modules(energy):
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and (module.training or not module.track_running_stats):
            raise UnsupportedEnergyError(
                f"energy: it couples chains: {module} takes its statistics over the batch; call model.eval(), or use "
                "LayerNorm or GroupNorm, which see one chain"
            )
