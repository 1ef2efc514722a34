"""What the kernels of the noise and of the update cost on a Hopper card, by their machine code; no GPU is needed."""

from __future__ import annotations

from pathlib import Path

import pytest
from sass import Sass, compiled_for_sm90

pytest.importorskip("triton")

FOUR_NORMALS = 150
"""Instructions a thread for four normals, addresses and store included; Triton 3.6 makes 134."""


def built(normals: int, uniforms: int, folder: Path, *, fast: bool = True, n_chains: int = 10_000) -> Sass:
    from compiled_ebm.backends import noise_kernel as kernels

    buffer = "*fp32" if fast else "*fp64"
    arguments = {
        **dict.fromkeys(("seed_pointer", "step_pointer", "ids"), "*i64"),
        **dict.fromkeys(("normals", "uniforms"), buffer),
        "n_chains": "i32",
        **kernels.constants(normals, uniforms, n_chains, fast=fast),
    }
    return compiled_for_sm90(kernels.noise_kernel, arguments, folder, kernels.NUM_WARPS)


@pytest.mark.parametrize(
    ("normals", "ceiling"), [(4, FOUR_NORMALS), (1, 120), (2, 120), (3, 200), (100, 165), (784, 165)]
)
def test_instructions_for_four_normals(normals: int, ceiling: int, tmp_path: Path) -> None:
    """Each thread draws four; no spills; one store of 16 bytes where the number of normals is a multiple of four."""
    sass = built(normals, 0, tmp_path)
    assert sass.local_bytes == 0 and sass.count("STL", "LDL") == 0
    assert sass.registers <= 32  # full occupancy
    assert 50 < len(sass.instructions) <= ceiling
    assert sass.count("MUFU") == {1: 3, 2: 4}.get(normals, 8)  # logarithm, root, cosine and sine of each pair
    if normals % 4 == 0:
        assert [opcode for opcode in sass.instructions if opcode.startswith("STG")] == ["STG.E.128"]
        assert sass.count("STS", "BAR") == 0  # no exchange between threads


@pytest.mark.parametrize("bounds", [(float("-inf"), float("inf")), (-1.0, 2.0), (0.0, float("inf"))], ids=str)
def test_the_update_costs_little_more_than_its_noise(bounds: tuple[float, float], tmp_path: Path) -> None:
    """Two loads and a store of 16 bytes, twelve multiply-adds; no spills."""
    from compiled_ebm.backends import update_kernel as updates
    from compiled_ebm.backends.head import Head

    head = Head(0, 2, 0, 1, minus=True, bounds=bounds)
    arguments = {
        **dict.fromkeys(("seed_pointer", "step_pointer", "cursor_pointer", "ids"), "*i64"),
        **dict.fromkeys(("table", "first", "second", "moved"), "*fp32"),
        "n_chains": "i32",
        **updates.update_constants(head, 2, 128, 784, fast=True),
    }
    sass = compiled_for_sm90(updates.update_kernel, arguments, tmp_path, updates.NUM_WARPS)
    assert sass.local_bytes == 0 and sass.registers <= 40
    assert len(sass.instructions) <= (185 if bounds[0] > float("-inf") else 175)
    assert [opcode for opcode in sass.instructions if opcode.startswith("STG")] == ["STG.E.128"]
    assert sum(opcode.startswith("LDG") and ".128" in opcode for opcode in sass.instructions) == 2


def test_uniforms_and_wide_indices(tmp_path: Path) -> None:
    both = built(784, 1, tmp_path, n_chains=10**7)
    assert both.local_bytes == 0 and both.registers <= 32


def test_negative_control_double_precision_costs_far_more(tmp_path: Path) -> None:
    """And has the stack of the exact range reduction: the checks see both."""
    sass = built(4, 0, tmp_path, fast=False)
    assert len(sass.instructions) > 3 * FOUR_NORMALS and sass.local_bytes > 0
