"""Checks of numbers, in words that name the argument, what was expected, what was given and what to do."""

import math
from numbers import Integral, Real

__all__ = ["checked_count", "checked_number", "complaint", "require", "set_count", "set_numbers"]


def complaint(argument: str, expected: str, got: object, remedy: str) -> str:
    """What is wrong, in one line."""
    return f"{argument}: expected {expected}, got {got}. {remedy}"


def checked_number(argument: str, value: object) -> float:
    """``value`` as a float if it is a finite real number, or an error that names the argument."""
    if isinstance(value, bool) or not isinstance(value, Real):
        got = f"{value!r} ({type(value).__name__})"
        raise TypeError(complaint(argument, "a real number", got, "Pass a Python float."))
    if not math.isfinite(value):
        raise ValueError(complaint(argument, "a finite number", repr(value), "Choose a finite value."))
    return float(value)


def checked_count(argument: str, value: object, minimum: int = 1) -> int:
    """``value`` as an int of at least ``minimum``, or an error that names the argument."""
    if isinstance(value, bool) or not isinstance(value, Integral):
        got = f"{value!r} ({type(value).__name__})"
        raise TypeError(complaint(argument, f"an integer >= {minimum}", got, "Pass a Python int."))
    if value < minimum:
        raise ValueError(complaint(argument, f"an integer >= {minimum}", repr(value), "Choose a larger value."))
    return int(value)


def set_numbers(schedule: object, *fields: str) -> None:
    """Replace fields of a frozen schedule by their checked floats."""
    for field in fields:
        number = checked_number(f"{type(schedule).__name__}: {field}", getattr(schedule, field))
        object.__setattr__(schedule, field, number)


def set_count(schedule: object, field: str) -> None:
    """Replace a field of a frozen schedule by its checked int, >= 1."""
    object.__setattr__(schedule, field, checked_count(f"{type(schedule).__name__}: {field}", getattr(schedule, field)))


def require(schedule: object, field: str, fulfilled: bool, expected: str) -> None:
    """Raise, naming schedule and field, unless a condition is fulfilled."""
    if not fulfilled:
        argument = f"{type(schedule).__name__}: {field}"
        raise ValueError(complaint(argument, expected, repr(getattr(schedule, field)), "Correct it."))
