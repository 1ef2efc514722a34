"""Tests of Triton kernels on CPU tensors: only where Triton was imported with its interpreter on."""

import os

import pytest


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip everything here unless TRITON_INTERPRET=1; tests/test_triton_interpreted.py runs it so."""
    if os.environ.get("TRITON_INTERPRET") == "1":
        return
    skip = pytest.mark.skip(reason="needs TRITON_INTERPRET=1 before triton is imported")
    for item in items:
        if item.path.parent.name == "interpreted":
            item.add_marker(skip)
