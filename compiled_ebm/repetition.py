"""Loops inside a transition: traced, the body of a loop is recorded once, between two markers.

The markers are operators of their own, so that any tracer records them and every pass leaves them where they are.
``loopgraph`` then makes a loop of what lies between them.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

__all__ = ["BEGIN", "END", "recorded_once", "repeat"]

Body = Callable[..., tuple[Tensor, ...]]


class _Recording(threading.local):
    """Whether this thread records: another that runs chains meanwhile must do every round."""

    active = False


_recording = _Recording()


@contextmanager
def recorded_once() -> Iterator[None]:
    """Within the block, :func:`repeat` runs its body once, between markers, for a tracer that is at work."""
    before, _recording.active = _recording.active, True
    try:
        yield
    finally:
        _recording.active = before


def repeat(rounds: int, body: Body, carry: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Apply ``carry = body(*carry)`` some number of times: the loop form for transitions, leapfrog and the like.

    Compiled, it is a loop in the generated code: building takes as long for 100 rounds as for 5.

    Args:
        rounds: How often, 0 or more; a Python number, which belongs to the transition's ``structure()``.
        body: A pure function of tensors; what it reads from around it is the same in every round. It gives back as
            many tensors as it takes, each with the shape and dtype of its predecessor.
        carry: What the first round gets.

    Returns:
        What the last round gave; nothing else that a round makes may be used after the loop.

    Raises:
        TypeError, ValueError: ``rounds``, ``carry`` or what ``body`` gives is not as said above.

    Example:
        >>> import torch, compiled_ebm as ce
        >>> ce.repeat(3, lambda x, total: (2 * x, total + x), (torch.tensor(1.0), torch.tensor(0.0)))
        (tensor(8.), tensor(7.))
    """
    if isinstance(rounds, bool) or not isinstance(rounds, int):
        raise TypeError(
            f"rounds: expected a Python int, got {type(rounds).__name__}; a number that depends on data would make "
            "the chains of a vector run loops of different lengths"
        )
    if rounds < 0:
        raise ValueError(f"rounds: expected 0 or more, got {rounds}")
    if not isinstance(carry, tuple) or not carry or not all(isinstance(t, Tensor) for t in carry):
        raise TypeError(f"carry: expected a tuple of one tensor or more, got {_described(carry)}")
    if not rounds:
        return carry
    if _recording.active:
        return _between_markers(rounds, body, carry, ())
    for _ in range(rounds):
        carry = _checked(body(*carry), carry)
    return carry


def repeat_mapped(rounds: int, body: Body, carry: tuple[Tensor, ...], held: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """:func:`repeat` of ``body(*carry, *held)``; inside ``vmap``, the carry is mapped if anything of it or held is."""
    if _recording.active:
        return _between_markers(rounds, lambda *now: body(*now, *held), carry, held)
    for _ in range(rounds):
        carry = body(*carry, *held)
    return carry


def _between_markers(
    rounds: int, body: Body, carry: tuple[Tensor, ...], held: tuple[Tensor, ...]
) -> tuple[Tensor, ...]:
    *begun, mark = BEGIN(list(carry), list(held), rounds)
    return tuple(END(list(_checked(body(*begun), carry)), mark))


def _checked(given: object, carry: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    if not isinstance(given, tuple) or len(given) != len(carry) or not all(isinstance(t, Tensor) for t in given):
        raise TypeError(
            f"body: expected a tuple of {len(carry)} tensors, one for each of carry, got {_described(given)}"
        )
    for k, (new, old) in enumerate(zip(given, carry, strict=True)):
        if new.shape != old.shape or new.dtype != old.dtype:
            raise ValueError(
                f"body: expected carry[{k}] back with shape {list(old.shape)} and {old.dtype}, as it was given, got "
                f"shape {list(new.shape)} and {new.dtype}; every round must be able to take what the one before gave"
            )
    return given


def _described(value: object) -> str:
    if isinstance(value, (tuple, list)):
        return f"a {type(value).__name__} of ({', '.join(type(v).__name__ for v in value)})"
    return type(value).__name__


# A fresh scalar, the mark, ties the end of a loop to its beginning: no operation of the body can touch it. Declared by
# hand, since ``torch.library.custom_op`` takes twenty milliseconds of every import.

_LIBRARY: Any = torch.library.Library("compiled_ebm", "DEF")  # type: ignore[no-untyped-call]
_LIBRARY.define("repeat_begin(Tensor[] carry, Tensor[] held, int rounds) -> Tensor[]")
_LIBRARY.define("repeat_end(Tensor[] carry, Tensor mark) -> Tensor[]")
BEGIN: Any = torch.ops.compiled_ebm.repeat_begin.default
END: Any = torch.ops.compiled_ebm.repeat_end.default


def _begin(carry: Sequence[Tensor], held: Sequence[Tensor], rounds: int) -> list[Tensor]:
    return [*(t.clone() for t in carry), carry[0].new_zeros((), dtype=torch.int64)]


def _end(carry: Sequence[Tensor], mark: Tensor) -> list[Tensor]:
    return [t.clone() for t in carry]


def _begin_mapped(info: Any, dims: Any, carry: Sequence[Tensor], held: Sequence[Tensor], rounds: int) -> Any:
    # every round must get what the first gets, so that all of the carry is mapped where any of it may become so
    out = BEGIN([_mapped(t, d, info.batch_size) for t, d in zip(carry, dims[0], strict=True)], [], rounds)
    return out, [*(0 for _ in carry), None]


def _end_mapped(info: Any, dims: Any, carry: Sequence[Tensor], mark: Tensor) -> Any:
    out = END([_mapped(t, d, info.batch_size) for t, d in zip(carry, dims[0], strict=True)], mark)
    return out, [0 for _ in carry]


def _mapped(tensor: Tensor, dim: int | None, size: int) -> Tensor:
    return tensor.expand(size, *tensor.shape) if dim is None else tensor.movedim(dim, 0)


def _no_backward(ctx: Any, *grads: Any) -> Any:
    raise RuntimeError(
        "repeat: expected no gradient through its rounds, since only one of them is traced; "
        "write the loop in Python, or take gradients inside body alone"
    )


for _name, _kernel, _batching in (("repeat_begin", _begin, _begin_mapped), ("repeat_end", _end, _end_mapped)):
    _LIBRARY.impl(_name, _kernel, "CompositeExplicitAutograd")
    torch.library.register_fake(f"compiled_ebm::{_name}", _kernel, lib=_LIBRARY)
    torch.library.register_autograd(f"compiled_ebm::{_name}", _no_backward, lib=_LIBRARY)
    torch.library.register_vmap(f"compiled_ebm::{_name}", _batching, lib=_LIBRARY)
