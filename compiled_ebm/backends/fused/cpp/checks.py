"""The check at the end of a segment of steps, and what it takes to do the segment again."""

from __future__ import annotations

from compiled_ebm.backends.fused.cpp.step import Step
from compiled_ebm.backends.fused.cpp.text import Text
from compiled_ebm.backends.fused.program import Input, Kind, Role

__all__ = ["Check"]


class Check:
    """Places of the state now and at the last check, and the statements that go between the two.

    Args:
        step: The step that is checked.
        leaves: The leaves of its state and, last, ``failed_at``.
        calls_energy: Whether the step does without the energy, and a function gives it.
    """

    def __init__(self, step: Step, leaves: list[Input], calls_energy: bool) -> None:
        self._step = step
        *self._state, self._failed = leaves
        self._calls_energy = calls_energy
        self._now = [step.storage.slots.get(step.index_of(n), -1) for n in self._state]
        self._is_parked = [place < 0 for place in self._now]
        self._now = [
            step.storage.grow(n) if place < 0 else place for n, place in zip(self._state, self._now, strict=True)
        ]
        self._last = [step.storage.grow(n) for n in self._state]
        spread = next(n for n in step.nodes if isinstance(n, Input) and n.role is Role.SPREAD)
        self.spread = step.names[spread.first]

    def parts(self) -> dict[str, str]:
        """What the frame of a checked loop is filled in with."""
        x, energy = self._now[:2]
        call, evaluate = Text(depth=3), Text(depth=5)
        if self._calls_energy:
            step = self._step
            rounds, scratch = len(step.rounds), f"(R*)(iat + {step.storage.size[Kind.INT]})"
            value = f"energy_of(numbers + {rounds}, energy_arrays, kwargs, tile, at + {x}, {scratch})"
            call(f"at[{energy}] = {value};")
            self._park_leaf(0, evaluate)
            evaluate(f"{step.names[self._state[1].first]} = {value};")
        return {
            "save": str(self._copies("last", "now", depth=2, parked=True)),
            "spread": self.spread,
            "failed_at": self._step.element(self._failed.first),
            "park": str(self._park()),
            "energy": str(call),
            "evaluate": str(evaluate),
            "energy_at": str(energy),
            "x": str(x),
            "n_x": str(self._state[0].size),
            "retake": f"{self._copies('now', 'last', depth=4)}\n{self._unpark(depth=4)}",
            "settle": f"{self._settle()}\n{self._unpark(depth=3)}",
        }

    def _park(self, depth: int = 3) -> Text:
        """Variables into memory."""
        text = Text(depth=depth)
        for k in range(len(self._state)):
            self._park_leaf(k, text)
        return text

    def _park_leaf(self, k: int, text: Text) -> None:
        node, place = self._state[k], self._now[k]
        for e in range(node.size) if self._is_parked[k] else ():
            text(self._step.stored(node.kind, str(place + e), self._step.names[node.first + e]))

    def _unpark(self, depth: int) -> Text:
        step, text = self._step, Text(depth=depth)
        for node, place, is_parked in zip(self._state, self._now, self._is_parked, strict=True):
            for e in range(node.size) if is_parked else ():
                text(f"{step.names[node.first + e]} = {step.load(node.kind, str(place + e))};")
        return text

    def _copies(self, to: str, source: str, depth: int, parked: bool = False) -> Text:
        places = {"now": self._now, "last": self._last}
        text = self._park(depth) if parked else Text(depth=depth)
        for node, a, b in zip(self._state, places[to], places[source], strict=True):
            at = "iat" if node.kind is Kind.INT else "at"
            text(f"copy_all({at} + {a}, {at} + {b}, {node.size});")
        return text

    def _settle(self) -> Text:
        text = Text(depth=3)
        for node, now, last in zip(self._state, self._now, self._last, strict=True):
            settle, at = ("settle_ints", "iat") if node.kind is Kind.INT else ("settle", "at")
            text(f"{settle}({at} + {now}, {at} + {last}, {node.size}, moves);")
        return text
