"""What the CUDA devices that kernels are judged for can do."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["DEVICES", "Device"]


@dataclass(frozen=True)
class Device:
    """A data-centre GPU of an architecture.

    Args:
        name: Of the product.
        capability: Major and minor, as one number.
        multiprocessors: How many.
        clock: Hertz under load.
        registers: Of 32 bits, in a multiprocessor.
        shared_bytes: That one program instance may have.
        warps: That a multiprocessor holds at most.
    """

    name: str
    capability: int
    multiprocessors: int
    clock: float
    registers: int = 65_536
    shared_bytes: int = 232_448
    warps: int = 64


DEVICES = {
    "sm_80": Device("A100", 80, 108, 1.41e9, shared_bytes=166_912),
    "sm_90": Device("H100, H200", 90, 132, 1.755e9),
    "sm_100": Device("B200", 100, 148, 1.85e9),
}
"""By target. Source: the vendor's data sheets and programming guide, table of technical specifications."""
