"""An energy by name: one of the built-in ones, or ``module:attribute`` of the user's own."""

from __future__ import annotations

import importlib
import inspect
import re
import sys
import sysconfig
import traceback
from difflib import get_close_matches
from pathlib import Path
from typing import NamedTuple

import torch
from torch import nn

from compiled_ebm import captures
from compiled_ebm.energies.registry import BUILTIN_ENERGIES
from compiled_ebm.target import Energy

__all__ = ["NamedEnergy", "load_energy"]


class NamedEnergy(NamedTuple):
    """An energy, the shape of one position, and where to sample."""

    energy: Energy
    event_shape: tuple[int, ...]
    device: torch.device | None
    """None: where the energy's tensors are."""


def load_energy(name: str, event_shape: str | None, dtype: torch.dtype, device: str | None) -> NamedEnergy:
    """The built-in energy of that name, or the user's own ``module:attribute``."""
    where = _device(device)
    shape = None if event_shape is None else _shape(event_shape)
    if name in BUILTIN_ENERGIES:
        builtin = BUILTIN_ENERGIES[name]
        # half precision is the sampler's to cast to, so that contours of the plot are smooth
        wide = torch.float64 if dtype == torch.float64 else torch.float32
        return NamedEnergy(builtin.factory(dtype=wide, device=where), shape or builtin.event_shape, where)
    if ":" not in name:
        near = get_close_matches(name, BUILTIN_ENERGIES, n=1)
        raise ValueError(
            f"--energy: expected a built-in energy or module:attribute, got {name!r}"
            + f"; built in are {', '.join(BUILTIN_ENERGIES)}"
            + (f"; did you mean {near[0]!r}?" if near else "")
        )
    found = _import(name)
    energy = _call_factory(name, found)
    if shape is None:
        own = getattr(energy, "event_shape", getattr(found, "event_shape", None))
        if own is None:
            raise ValueError(
                f"--event-shape: expected the shape of one position, such as 2 or 1,28,28, got none; {name} has no "
                "attribute event_shape that would tell"
            )
        shape = _shape(",".join(map(str, own if isinstance(own, (tuple, list)) else (own,))))
    if isinstance(energy, nn.Module):
        energy = energy.to(where)
    elif device is None and captures.tensors(captures.find_slots(energy)):
        return NamedEnergy(energy, shape, None)  # a function's tensors are not ours to move
    return NamedEnergy(energy, shape, where)


def _import(name: str) -> object:
    """The object that ``module:attribute`` names, looked for in the current directory first."""
    module_name, _, attribute = name.partition(":")
    if module_name.endswith(".py") or "/" in module_name:
        dotted = module_name.removesuffix(".py").strip("./").replace("/", ".")
        raise ValueError(
            f"--energy: expected a module, got the file {module_name!r}; use {dotted}:{attribute or 'attribute'}"
        )
    if not all(part.isidentifier() for part in (*module_name.split("."), *attribute.split("."))):
        raise ValueError(f"--energy: expected module:attribute, such as my_energies:MyModel, got {name!r}")
    folder = str(Path.cwd())
    if folder not in sys.path:
        sys.path.insert(0, folder)
    try:
        found: object = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is not None and f"{module_name}.".startswith(f"{error.name}."):
            raise ValueError(
                f"--energy: no module {error.name!r} in {folder} or among the installed packages"
            ) from error
        raise ValueError(f"--energy: importing {module_name!r} raised {_raised(error)}") from error
    except (Exception, SystemExit) as error:
        raise ValueError(f"--energy: importing {module_name!r} raised {_raised(error)}") from error
    for part in attribute.split("."):
        if not hasattr(found, part):
            near = get_close_matches(part, dir(found), n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise ValueError(f"--energy: module {module_name!r} has no attribute {attribute!r}{hint}")
        found = getattr(found, part)
    return found


def _call_factory(name: str, found: object) -> Energy:
    """``found`` itself, or what it makes when it is a class or a function that needs no arguments."""
    if not callable(found):
        raise ValueError(f"--energy: expected {name} to be a module, a function or a class, got {type(found).__name__}")
    if isinstance(found, nn.Module):
        return found
    try:
        parameters = inspect.signature(found).parameters.values()
    except (TypeError, ValueError):  # written in C, and not told
        return found
    needed = [p.name for p in parameters if p.default is p.empty and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
    if isinstance(found, type) and needed:
        raise ValueError(
            f"--energy: expected {name} to need no arguments, got a class that needs {', '.join(needed)}; name an "
            "instance, or a function without arguments that makes one"
        )
    if needed or (not isinstance(found, type) and any(p.kind is p.VAR_POSITIONAL for p in parameters)):
        return found
    try:
        made: object = found()
    except Exception as error:
        raise ValueError(f"--energy: {name}() raised {_raised(error)}") from error
    if not callable(made):
        raise ValueError(
            f"--energy: expected {name}() to give a callable [n, *event] -> [n], got {type(made).__name__}"
        )
    return made


def _raised(error: BaseException) -> str:
    """``Type: message (at file:line)``, the line being the innermost of the user's own."""
    told = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    if isinstance(error, SyntaxError):
        return f"{type(error).__name__}: {error.msg} (at {error.filename}:{error.lineno})"
    installed = tuple(sysconfig.get_paths()[kind] for kind in ("stdlib", "purelib", "platlib"))
    ours = str(Path(__file__).parent)
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        if not frame.filename.startswith(("<", ours, *installed)):
            return f"{told} (at {frame.filename}:{frame.lineno})"
    return told


def _shape(text: str) -> tuple[int, ...]:
    if not re.fullmatch(r"\s*[1-9]\d*\s*(,\s*[1-9]\d*\s*)*", text):
        raise ValueError(
            f"--event-shape: expected positive integers with commas between, such as 2 or 1,28,28, got {text!r}"
        )
    return tuple(int(size) for size in text.split(","))


def _device(name: str | None) -> torch.device:
    if name is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        device = torch.device("meta")
    if device.type not in ("cpu", "cuda"):
        raise ValueError(f"--device: expected cpu, cuda or cuda:N, got {name!r}")
    if device.type == "cpu":
        return torch.device("cpu")  # cpu:0 would differ from where tensors then are
    if (device.index or 0) >= torch.cuda.device_count():
        raise ValueError(
            f"--device: expected cpu or a CUDA GPU of this machine, which has {torch.cuda.device_count()}, got {name!r}"
        )
    return device
