"""pytest-benchmark: every workload with every contender, five rounds; `pytest benchmarks/test_langevin.py`."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture
from torch import Tensor

from benchmarks import contenders
from benchmarks.workloads import TEN, Workload

NAMES = ("torchebm", "plain", "jax", "inductor", "fused")


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("workload", TEN, ids=lambda workload: workload.name)
def test_langevin(benchmark: BenchmarkFixture, workload: Workload, name: str) -> None:
    reason = contenders.missing(name, workload)
    if reason is not None:
        pytest.skip(reason)
    contender = contenders.contender(name, workload)
    build_seconds = contender.build()
    benchmark.group = workload.name
    pedantic: Callable[..., Tensor] = benchmark.pedantic
    last = pedantic(contender.run, rounds=5, iterations=1, warmup_rounds=1)
    assert last.isfinite().all()
    benchmark.extra_info.update(
        n_chains=workload.n_chains,
        n_steps=workload.n_steps,
        build_seconds=build_seconds,
        device=str(last.device),
        threads=torch.get_num_threads(),
        torch=torch.__version__,
    )
    if benchmark.stats is not None:  # None under --benchmark-disable
        benchmark.extra_info["chain_steps_per_second"] = workload.chain_steps / benchmark.stats.stats.median
