"""What TorchEBM-shaped samplers share: its arguments, defaults and shapes over the compiled run loop."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import MappingProxyType
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from compiled_ebm.arguments import check_dtypes, checked_int, checked_shape, resolve_device
from compiled_ebm.builder import build_sampler, check_backend
from compiled_ebm.draws.memory import Collector, MemoryDraws, StepDiagnostics, Tee
from compiled_ebm.errors import UnsupportedEnergyError
from compiled_ebm.sampler import Sampler
from compiled_ebm.samplers.scheduled import Scheduled
from compiled_ebm.schedules import ScheduleLike, SteppedScheduler, evaluate
from compiled_ebm.schedules.evaluation import is_stepped
from compiled_ebm.target import Energy
from compiled_ebm.transitions.base import Transition

__all__ = ["CompiledSampler"]


class CompiledSampler(nn.Module):
    """What all samplers with TorchEBM's constructors share: schedulers, placement, ``sample``.

    Args:
        model: The energy ``[n, *event] -> [n]``; any callable.
        schedulers: Hyper-parameters by name: a float, a schedule (step -> value) or a torchebm scheduler.
        dtype: Of the positions handed in and out, and of the energy's arithmetic.
        device: Where to sample; by default where the model's tensors are, else where x is.
        backend: "auto", "fused", "inductor" or "eager".
    """

    diagnostics: ClassVar[tuple[str, ...]] = ("mean", "var", "energy")
    """Keys of what ``return_diagnostics`` gives."""

    def __init__(
        self,
        model: Energy,
        schedulers: dict[str, ScheduleLike],
        dtype: torch.dtype,
        device: str | torch.device | None,
        backend: str,
    ) -> None:
        super().__init__()
        if not callable(model):
            raise TypeError(f"model: expected an energy [n, *event] -> [n], got {type(model).__name__}")
        for name, value in schedulers.items():
            _check_value(name, value)
        self.model = model
        self.backend = backend
        self._placement: Tensor
        self._hyper = schedulers
        self._device = None if device is None else resolve_device(device, [])
        self._steps_done = 0
        self._samplers: dict[tuple[object, ...], Sampler] = {}
        self._sampled: set[tuple[int, ...]] = set()
        check_dtypes(dtype=dtype)
        check_backend(backend)
        # follows nn.Module.to(), also where this sampler is part of another module
        self.register_buffer("_placement", torch.empty(0, dtype=dtype, device=self.device), persistent=False)

    def _transition(self) -> Transition:
        """The move, with the hyper-parameters as they are."""
        raise NotImplementedError

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the positions."""
        return self._placement.dtype

    @property
    def device(self) -> torch.device:
        """Where chains are sampled: the device asked for, else the model's."""
        if self._device is not None:
            return self._device
        if isinstance(self.model, nn.Module):
            for tensor in (*self.model.parameters(), *self.model.buffers()):
                return tensor.device
        return torch.device("cpu")

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> CompiledSampler:
        before = self._placement.device
        apply: Callable[..., nn.Module] = super()._apply
        apply(fn, recurse)
        if self._placement.device != before:
            self._device = self._placement.device
        return self

    def register_scheduler(self, name: str, scheduler: ScheduleLike) -> None:
        """Set ``step_size`` or ``noise_scale`` to a float, a schedule or a torchebm scheduler; never a rebuild."""
        if name not in self._hyper:
            raise KeyError(f"name: expected one of {', '.join(self._hyper)}, got {name!r}")
        _check_value(name, scheduler)
        previous = self._hyper[name]
        self._hyper[name] = scheduler
        try:
            self._transition()
        except (TypeError, ValueError):
            self._hyper[name] = previous
            raise

    @property
    def schedulers(self) -> Mapping[str, SteppedScheduler | Scheduled]:
        """What is registered, by name, to be read (``get_value()``): a torchebm scheduler itself, else a view.

        To change one, call :meth:`register_scheduler`.
        """
        shown = {name: _view(name, value, lambda: self._steps_done) for name, value in self._hyper.items()}
        return MappingProxyType(shown)

    def get_schedulers(self) -> Mapping[str, SteppedScheduler | Scheduled]:
        """The same."""
        return self.schedulers

    def get_scheduled_value(self, name: str) -> float:
        """The value that the next step will use."""
        if name not in self._hyper:
            raise KeyError(f"No scheduler registered for parameter {name!r}")
        return float(evaluate(self._hyper[name], self._steps_done, 1, name=name))

    def step_schedulers(self) -> None:
        """Advance the schedules by one step."""
        self._steps_done += 1

    def reset_schedulers(self) -> None:
        """Put the schedules back to step 0."""
        self._steps_done = 0

    def sample(
        self,
        x: Tensor | None = None,
        dim: int | tuple[int, ...] | None = None,
        n_steps: int = 100,
        n_samples: int = 1,
        thin: int = 1,
        return_trajectory: bool = False,
        return_diagnostics: bool = False,
        reset_schedulers: bool = True,
        *,
        y: Tensor | None = None,
        model_kwargs: Mapping[str, Any] | None = None,
        generator: torch.Generator | None = None,
    ) -> Tensor | tuple[Tensor, dict[str, Tensor]]:
        """Advance chains and return positions, TorchEBM's way. The first call builds, later calls launch.

        Args:
            x: Start ``[n_samples, *event]``; drawn from N(0, I) if None.
            dim: Event size or shape, needed where x is None.
            n_steps: Steps, >= 0.
            n_samples: Chains, where x is None.
            thin: Keep every thin-th step, >= 1; beyond n_steps none.
            return_trajectory: Return all kept positions ``[n_samples, n_steps // thin, *event]``.
            return_diagnostics: Also return what the class names in ``diagnostics``: ``mean`` and ``var``
                ``[n_kept, *event]``, ``energy`` and ``acceptance_rate`` ``[n_kept]``.
            reset_schedulers: Start schedules at step 0; False goes on where the last call ended.
            y: Conditioning tensor; short for ``model_kwargs={"y": y}``.
            model_kwargs: For the energy; tensors whose first dimension is the number of chains are per chain.
            generator: Seeds this call, as the global generator does without it; no noise is drawn from either.

        Returns:
            The last positions ``[n_samples, *event]`` or the trajectory, and the diagnostics if asked for.

        Raises:
            TypeError, ValueError, UnsupportedEnergyError, MemoryError: Before any work starts.
        """
        event = self._event_shape(x, dim, n_samples)
        n_steps = checked_int("n_steps", n_steps, 0, (1 << 32) - 1)
        if isinstance(thin, int) and thin < 1:
            raise ValueError(f"thin must be >= 1, got {thin}; thin=1 keeps every step")
        thin = checked_int("thin", thin, 1, (1 << 32) - 1)
        kwargs = _merged(model_kwargs, y)
        if reset_schedulers:
            self.reset_schedulers()
        with self._naming_event("dim" if x is None else "x", event):
            sampler = self._sampler(event, x, kwargs)
            seed = _seed_from(generator)
            x0 = None if x is None else x.to(sampler.dtype)
            with _calling("x0", "x"):
                state = sampler.init(
                    x0, n_chains=n_samples if x is None else None, seed=seed, first_step=self._steps_done
                )
            memory = diagnostics = None
            collectors: list[Collector] = []
            if return_trajectory:
                memory = MemoryDraws(state.n_chains, n_steps // thin, event, sampler.dtype, sampler.device)
                collectors.append(memory)
            if return_diagnostics:
                diagnostics = StepDiagnostics(sampler.dtype)
                collectors.append(diagnostics)
            keeps = bool(collectors) and thin <= max(1, n_steps)  # else nothing is kept, as in TorchEBM
            result = sampler.run(
                state,
                n_steps,
                thin if keeps else None,
                model_kwargs=kwargs,
                collector=Tee(*collectors) if keeps else None,
                info=return_diagnostics and "acceptance_rate" in self.diagnostics,
            )
        self._sampled.add(event)
        self._steps_done += result.stats.n_steps
        if result.stats.interrupted:  # the loop around this call must hear of it; Sampler.run returns what there is
            raise KeyboardInterrupt
        output = result.state.x if memory is None else memory.draws
        if diagnostics is None:
            return output
        found = diagnostics.result(event, sampler.device)
        if "acceptance_rate" in self.diagnostics:
            accepted = (result.stats.info_draws or {}).get("accepted")
            found["acceptance_rate"] = found["energy"] if accepted is None else accepted.mean(0).to(self.dtype)
        return output, {name: found[name] for name in self.diagnostics}

    forward = sample

    @contextmanager
    def _naming_event(self, name: str, event: tuple[int, ...]) -> Iterator[None]:
        """Within the block, an energy that fails for a new event shape is told with those that it took before."""
        try:
            yield
        except UnsupportedEnergyError as error:
            if not self._sampled or event in self._sampled:
                raise
            before = " or ".join(map(str, sorted(self._sampled)))
            message = f"{name}: expected event shape {before}, as sampled before, got {event}; {error}"
            raise UnsupportedEnergyError(message) from error

    def _event_shape(self, x: Tensor | None, dim: int | tuple[int, ...] | None, n_samples: int) -> tuple[int, ...]:
        if x is not None:
            if not isinstance(x, Tensor):
                raise TypeError(f"x: expected a tensor [n_samples, *event], got {type(x).__name__}")
            if x.ndim < 1 or x.shape[0] < 1:
                raise ValueError(f"x: expected shape [n_samples >= 1, *event], got {list(x.shape)}")
            if not x.dtype.is_floating_point:
                raise TypeError(f"x: expected a floating-point dtype, got {x.dtype}; use x.float()")
            return tuple(x.shape[1:])
        if dim is None:
            raise ValueError("dim must be provided when x is None: an int or a shape")
        checked_int("n_samples", n_samples, 1, 1 << 62)
        with _calling("event_shape", "dim"):
            return checked_shape(dim)

    def _sampler(self, event: tuple[int, ...], x: Tensor | None, kwargs: Mapping[str, Any]) -> Sampler:
        transition = self._transition()
        device = self._device
        if device is None and self.device.type == "cpu" and x is not None and x.device.type == "cuda":
            device = x.device if not _has_tensors(self.model) else None
        key = (event, device, self.dtype, transition.structure(), id(self.model))
        if key not in self._samplers:
            self._samplers[key] = build_sampler(
                self.model,
                transition,
                event,
                backend=self.backend,
                device=device,
                dtype=self.dtype,
                model_kwargs=kwargs or None,
            )
        sampler = self._samplers[key]
        sampler.transition = transition
        return sampler

    def __getstate__(self) -> dict[str, Any]:
        """For copies and pickles: what was built is built again there."""
        return {**self.__dict__, "_samplers": {}}

    def explain(self) -> str:
        """What was built, for each event shape sampled so far."""
        if not self._samplers:
            return "nothing built yet: the first call of sample() builds"
        return "\n\n".join(sampler.explain() for sampler in self._samplers.values())

    @property
    def source(self) -> str:
        """The generated code of what was built, for each event shape sampled so far; "" before the first build."""
        return "\n\n".join(
            f"# event shape {sampler.event_shape}\n{sampler.source}" for sampler in self._samplers.values()
        )

    def _shown(self) -> dict[str, object]:
        """For repr()."""
        return {name: self.get_scheduled_value(name) for name in self._hyper}

    def __repr__(self) -> str:
        shown = {"model": type(self.model).__name__, **self._shown(), "backend": repr(self.backend)}
        return f"{type(self).__name__}({', '.join(f'{name}={value}' for name, value in shown.items())})"


@contextmanager
def _calling(ours: str, theirs: str) -> Iterator[None]:
    """Within the block, errors about an argument of ours name the one that the caller has given."""
    try:
        yield
    except (TypeError, ValueError) as error:
        message = str(error)
        if not message.startswith(f"{ours}: "):
            raise
        raise type(error)(f"{theirs}: {message.removeprefix(f'{ours}: ')}") from error


def _view(name: str, value: ScheduleLike, steps_done: Callable[[], int]) -> SteppedScheduler | Scheduled:
    return value if is_stepped(value) else Scheduled(name, value, steps_done)


def _check_value(name: str, value: object) -> None:
    """The words of TorchEBM for a number out of range; everything else is checked by the transition."""
    if isinstance(value, (int, float)) and (value < 0 or (name == "step_size" and value == 0)):
        raise ValueError(f"{name} must be positive, got {value}")


def _has_tensors(model: Energy) -> bool:
    return isinstance(model, nn.Module) and any(t.numel() for t in (*model.parameters(), *model.buffers()))


def _merged(model_kwargs: Mapping[str, Any] | None, y: Tensor | None) -> dict[str, Any]:
    if model_kwargs is not None and not isinstance(model_kwargs, Mapping):
        raise TypeError(f"model_kwargs: expected a mapping of names to values, got {type(model_kwargs).__name__}")
    merged = dict(model_kwargs or {})
    if y is not None:
        if "y" in merged:
            raise ValueError("y: given both as y= and in model_kwargs['y']; give it once")
        merged["y"] = y
    return merged


def _seed_from(generator: torch.Generator | None) -> int:
    """One 63-bit seed from the generator, or from torch's global one."""
    if generator is not None and not isinstance(generator, torch.Generator):
        raise TypeError(f"generator: expected a torch.Generator or None, got {type(generator).__name__}")
    device = "cpu" if generator is None else generator.device
    return int(torch.randint(0, (1 << 63) - 1, (), dtype=torch.int64, generator=generator, device=device))
