"""What an energy holds on to: the tensors and plain values reachable from a callable.

An energy is any callable: a module, a function, a partial. Its tensors (parameters, buffers, closure cells, globals,
attributes) become inputs of the compiled code; its plain numbers and strings are constants of it. Each is found as a
:class:`Slot`, the place that holds it, so that a replaced tensor or a changed constant is noticed at the next run.
"""

from __future__ import annotations

import functools
import sys
import sysconfig
import types
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_map_only

from compiled_ebm.errors import UnsupportedEnergyError

__all__ = ["Slot", "changed", "find_slots", "modules", "names", "substituted", "tensors"]

_SCALARS = (bool, int, float, complex, str, type(None), torch.dtype, torch.device)
_MAX_DEPTH = 8
_MAX_CONTAINER = 256
"""Longer lists and dicts are data, not structure: their tensors are still inputs, only replacement goes unnoticed."""
_MODULE_INTERNALS = set(vars(nn.Module())) - {"training"}
_MODULE_MEMBERS = (
    *("_parameters", "_buffers", "_modules"),
    *("_forward_pre_hooks", "_forward_hooks", "_backward_pre_hooks", "_backward_hooks"),
)
_STANDARD_LIBRARY = sysconfig.get_paths()["stdlib"]


class _Entries:
    """Stands for the keys of a dict, or the length of a list, where a :class:`Slot` has a key."""

    @staticmethod
    def of(container: Any) -> tuple[Any, ...] | int:
        return len(container) if isinstance(container, list) else tuple(container)


@dataclass(frozen=True)
class Slot:
    """A place that holds a tensor or a plain value that the energy can reach."""

    path: str
    container: Any = field(repr=False)
    key: Any
    value: Any = field(repr=False)
    facts: tuple[Any, ...] = ()

    def get(self) -> Any:
        """What the place holds now; None when it is gone."""
        if self.container is None:  # part of something immutable
            return self.value
        if isinstance(self.container, types.CellType):
            try:
                return self.container.cell_contents
            except ValueError:  # an emptied cell
                return None
        if self.key is _Entries:
            return _Entries.of(self.container)
        try:
            return self.container[self.key] if self._has_items() else getattr(self.container, self.key)
        except (KeyError, IndexError, AttributeError):
            return None

    def _has_items(self) -> bool:
        return isinstance(self.container, (dict, list, types.MappingProxyType))


def _is_plain(value: Any) -> bool:
    """A number, a string or the like, of Python or NumPy."""
    return isinstance(value, _SCALARS) or _is_array(value) or type(value).__module__ == "numpy"


def _is_array(value: Any) -> bool:
    numpy = sys.modules.get("numpy")  # if it was never imported, nothing is an array
    return numpy is not None and isinstance(value, numpy.ndarray)


def _facts(value: Any) -> tuple[object, ...]:
    """What of a value may change while it stays the same object."""
    if isinstance(value, Tensor):
        return (value.dtype, value.device, tuple(value.shape))
    return (value.copy(),) if _is_array(value) else ()


def find_slots(energy: Callable[..., Any]) -> list[Slot]:
    """Every place from which the energy can reach a tensor or a plain value.

    Raises:
        UnsupportedEnergyError: It holds a scripted module, whose operations cannot be traced.
    """
    return list(_walk(energy, type(energy).__name__, {}, 0))


def tensors(slots: list[Slot]) -> list[Slot]:
    """The slots that hold tensors."""
    return [slot for slot in slots if isinstance(slot.value, Tensor)]


def names(slots: list[Slot], wanted: Sequence[Tensor], others: Mapping[str, Tensor]) -> tuple[str, ...]:
    """What the energy calls each tensor: the path to it without its first part, the energy itself.

    ``others`` are tensors that are not the energy's, by name.
    """
    paths = {id(tensor): name for name, tensor in others.items()}
    for slot in reversed(tensors(slots)):
        paths[id(slot.value)] = slot.path.partition(".")[2] or slot.path
    return tuple(paths.get(id(tensor), "tensor") for tensor in wanted)


def changed(slots: list[Slot]) -> list[tuple[Slot, str]]:
    """Slots whose tensor was replaced, moved or re-typed, or whose plain value differs, each with the reason."""
    return [(slot, reason) for slot in slots if (reason := _change(slot))]


def _change(slot: Slot) -> str | None:
    container, key = slot.container, slot.key
    now = container.get(key) if type(container) is dict and key is not _Entries else slot.get()
    if now is slot.value and not slot.facts:
        return None
    if slot.key is _Entries:
        return None if now == slot.value else "has other entries"
    if isinstance(slot.value, Tensor):
        if now is not slot.value:
            return "replaced"
        return None if _facts(now) == slot.facts else f"now {now.dtype} on {now.device} with shape {tuple(now.shape)}"
    if _is_array(slot.value):
        same = now is slot.value and bool(
            ((now == slot.facts[0]) | ((now != now) & (slot.facts[0] != slot.facts[0]))).all()
        )
        return None if same else "changed"
    if not _is_plain(slot.value):
        return None if now is slot.value else "replaced"
    same = type(now) is type(slot.value) and (now is slot.value or now == slot.value)
    return None if same else f"{slot.value!r} became {now!r}"


class _Substitution(TorchFunctionMode):
    """Every torch operation sees the replacement where the energy hands it the tensor."""

    def __init__(self, replacements: dict[int, Tensor]) -> None:
        super().__init__()
        self._replacements = replacements

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        def swap(tensor: Tensor) -> Tensor:
            return self._replacements.get(id(tensor), tensor)

        args, kwargs = tree_map_only(Tensor, swap, (args, kwargs or {}))
        return func(*args, **kwargs)


@contextmanager
def substituted(slots: list[Slot], replace: Callable[[Tensor], Tensor]) -> Iterator[None]:
    """Within the block the energy works with ``replace(tensor)`` for every tensor that it holds.

    Torch operations (``weight.dtype`` is one) receive the replacement, in this thread alone: the energy is the user's
    own object, and other threads may be working with it.
    """
    held = {id(slot.value): slot.value for slot in tensors(slots)}
    replaced = {key: new for key, value in held.items() if (new := replace(value)) is not value}
    if not replaced:
        yield
        return
    with _Substitution(replaced):
        yield


def modules(energy: Callable[..., Any]) -> list[nn.Module]:
    """Every ``nn.Module`` that the energy can reach."""
    found: list[nn.Module] = []
    for _ in _walk(energy, "", {}, 0, found):
        pass
    return found


def _walk(
    obj: Any, path: str, seen: dict[int, Any], depth: int, found_modules: list[nn.Module] | None = None
) -> Iterator[Slot]:
    """``seen`` keeps what was seen alive, since a temporary's id would be given to another object."""
    if id(obj) in seen or depth > _MAX_DEPTH:
        return
    seen[id(obj)] = obj
    if isinstance(obj, (torch.jit.ScriptModule, torch.jit.ScriptFunction)):
        raise UnsupportedEnergyError(
            f"energy: {path or 'it'} is a module of torch.jit ({type(obj).__name__}), which cannot be traced again; "
            "pass the module or function that it was made from"
        )
    if isinstance(obj, nn.Module) and found_modules is not None:
        found_modules.append(obj)
    for container, key, value, name in _children(obj):
        where = f"{path}.{name}" if path else name
        if container is not None or isinstance(value, Tensor):
            yield Slot(where, container, key, value, _facts(value))
        if key is not _Entries and not (isinstance(value, Tensor) or _is_plain(value)):
            # modules nest as deep as the user likes; what else leads far away is no part of an energy
            yield from _walk(value, where, seen, depth + (not isinstance(value, nn.Module)), found_modules)


def _children(obj: Any) -> Iterator[tuple[Any, Any, Any, str]]:
    """(container, key, value, name) of everything directly under ``obj``."""
    if isinstance(obj, nn.Module):
        for group in _MODULE_MEMBERS:
            members = obj.__dict__[group]
            yield members, _Entries, _Entries.of(members), group
            yield from ((members, k, v, str(k)) for k, v in list(members.items()))
        own = obj.__dict__
        yield own, _Entries, _Entries.of(own), "__dict__"
        yield from ((own, k, v, k) for k, v in list(own.items()) if k not in _MODULE_INTERNALS)
        yield from _class_functions(obj)
    elif isinstance(obj, types.MethodType):
        yield from ((None, None, part, name) for name, part in (("self", obj.__self__), (obj.__name__, obj.__func__)))
    elif hasattr(obj, "_torchdynamo_orig_callable"):
        yield None, None, obj._torchdynamo_orig_callable, "compiled"
    elif isinstance(obj, types.FunctionType):
        if _is_user_code(obj.__module__ or ""):
            yield from _function_children(obj)
    elif isinstance(obj, functools.partial):
        yield None, None, obj.func, "func"
        yield from ((None, None, list(obj.args), "args"), (None, None, obj.keywords, "keywords"))
    elif isinstance(obj, dict):
        if len(obj) <= _MAX_CONTAINER:
            yield obj, _Entries, _Entries.of(obj), "keys"
            yield from ((obj, k, v, f"[{k!r}]") for k, v in list(obj.items()))
    elif isinstance(obj, list):
        if len(obj) <= _MAX_CONTAINER:
            yield obj, _Entries, _Entries.of(obj), "length"
            yield from ((obj, i, v, f"[{i}]") for i, v in enumerate(obj))
    elif isinstance(obj, tuple):
        yield from ((None, None, v, f"[{i}]") for i, v in enumerate(obj[:_MAX_CONTAINER]))
    elif _is_user_object(obj):
        if hasattr(obj, "__dict__"):
            own = obj.__dict__
            yield own, _Entries, _Entries.of(own), "__dict__"
            yield from ((own, k, v, k) for k, v in list(own.items()))
        yield from ((obj, name, getattr(obj, name), name) for name in _slot_names(obj) if hasattr(obj, name))
        yield from _class_functions(obj)


def _function_children(function: types.FunctionType) -> Iterator[tuple[Any, Any, Any, str]]:
    code = function.__code__
    for name, cell in zip(code.co_freevars, function.__closure__ or (), strict=True):
        try:
            yield cell, None, cell.cell_contents, name
        except ValueError:  # not filled yet: a function that refers to itself
            continue
    for defaults in (function.__defaults__, function.__kwdefaults__):
        if defaults:
            yield None, None, defaults, "defaults"
    for name in sorted(_global_names(code)):
        if name in function.__globals__:
            value = function.__globals__[name]
            if isinstance(value, types.ModuleType):
                yield from _module_children(value, _global_names(code))
            elif not isinstance(value, type):
                yield function.__globals__, name, value, name


def _module_children(module: types.ModuleType, names: set[str]) -> Iterator[tuple[Any, Any, Any, str]]:
    """What code that says ``module.name`` takes from a module of the user's."""
    if not _is_user_code(module.__name__):
        return
    for name in sorted(names & set(vars(module))):
        value = vars(module)[name]
        if isinstance(value, types.ModuleType) and value.__name__.startswith(f"{module.__name__}."):
            yield from _module_children(value, names)
        elif not isinstance(value, (type, types.ModuleType)):
            yield vars(module), name, value, f"{module.__name__}.{name}"


def _global_names(code: types.CodeType) -> set[str]:
    names = set(code.co_names)
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            names |= _global_names(constant)
    return names


def _class_functions(obj: Any) -> Iterator[tuple[Any, Any, Any, str]]:
    """The methods of the user's own classes, whose globals are captured too, and their plain attributes."""
    for cls in type(obj).__mro__:
        if _is_user_code(cls.__module__):
            for name, member in vars(cls).items():
                if isinstance(member, types.FunctionType):
                    yield vars(cls), name, member, name
                elif (isinstance(member, Tensor) or _is_plain(member)) and not name.startswith("__"):
                    yield vars(cls), name, member, name


def _is_user_code(module_name: str) -> bool:
    root = module_name.partition(".")[0]
    if root in ("torch", "torchebm", "compiled_ebm", "numpy", "builtins", "functools"):
        return False
    file = getattr(sys.modules.get(module_name), "__file__", None)
    return file is None or not file.startswith(_STANDARD_LIBRARY) or "site-packages" in file


def _is_user_object(obj: Any) -> bool:
    return (
        (hasattr(obj, "__dict__") or bool(_slot_names(obj)))
        and not isinstance(obj, (type, types.ModuleType, torch.dtype, torch.device))
        and _is_user_code(type(obj).__module__)
    )


def _slot_names(obj: Any) -> list[str]:
    """The names in the ``__slots__`` of the user's own classes."""
    names: list[str] = []
    for cls in type(obj).__mro__:
        if _is_user_code(cls.__module__):
            given = vars(cls).get("__slots__", ())
            names += [given] if isinstance(given, str) else list(given)
    return [name for name in names if name not in ("__dict__", "__weakref__") and not name.startswith("__")]
