"""The CUDA-graph launch on a device: noise, streams, threads, memory. All of it skips without one."""

from __future__ import annotations

import gc
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
from cases import SEED
from torch import Tensor, nn

import compiled_ebm as ce
from compiled_ebm import rng
from compiled_ebm.backends.base import Chains, Keep
from compiled_ebm.hypertable import hyper_rows
from compiled_ebm.session import buffers
from compiled_ebm.transitions.base import NoiseDraw

triton = pytest.importorskip("triton")
tl = pytest.importorskip("triton.language")

from compiled_ebm.backends.noise_kernel import fill_noise  # noqa: E402
from compiled_ebm.backends.triton_noise import _box_muller  # noqa: E402

pytestmark = pytest.mark.cuda
slow = pytest.mark.slow

N = 100


def sampler_on_cuda(step_size: float = 0.01, seed: int = 0) -> ce.Sampler:
    model = ce.MLPModel(2, seed=seed, confinement=1.0).cuda()
    return ce.build_sampler(model, ce.Langevin(step_size), (2,), backend="inductor", device="cuda")


def prepared(sampler: ce.Sampler, state: ce.ChainState) -> tuple[Any, Chains]:
    program, launch = sampler._builds.get({}, state.n_chains)
    chains = buffers(program, launch, state, {})
    launch.prepare(chains)
    launch.begin(chains)
    return launch, chains


# -- noise -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("first", [1, 2**32 - 50, 2**63 - N], ids=hex)
def test_words_are_the_cpus_bit_for_bit(first: int) -> None:
    """A uniform in float64 is its word: (w + 1/2) 2^-32."""
    seed, step, ids = torch.tensor(-5), torch.tensor(2**32 - 1), torch.arange(N) + first
    for dtype in (torch.float32, torch.float64):
        for counts in ((1, 1), (2, 0), (7, 3), (128, 64)):
            buffers = NoiseDraw(*(torch.zeros(N, count, dtype=dtype, device="cuda") for count in counts))
            fast = dtype == torch.float32
            fill_noise(seed.cuda(), step.cuda(), ids.cuda(), buffers, fast=fast)()
            assert torch.equal(buffers.uniforms.cpu(), rng.uniforms(seed, step, ids, counts[1], dtype=dtype))
            error = (buffers.normals.cpu() - rng.normals(seed, step, ids, counts[0], dtype=dtype)).abs()
            assert float(error.max()) < (1e-4 if fast else 1e-12)
            assert float(error.mean()) < (2e-6 if fast else 1e-14)


@triton.jit
def pairs_kernel(words, cosine, sine, BLOCK: tl.constexpr):
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    word = tl.load(words + at).to(tl.uint32)
    a, b = _box_muller(word, word, tl.float32, True)
    tl.store(cosine + at, a)
    tl.store(sine + at, b)


def test_fast_normals_are_finite_at_both_ends_of_the_range() -> None:
    """Where u is next to 1 the hardware's logarithm has an absolute error, and a root of less than 0 would be NaN."""
    count = 1 << 20
    words = torch.cat([torch.arange(count), 2**32 - 1 - torch.arange(count)]).cuda()
    cosine, sine = (torch.empty(2 * count, device="cuda") for _ in range(2))
    pairs_kernel[(2 * count // 1024,)](words, cosine, sine, BLOCK=1024)
    assert bool(torch.isfinite(cosine).all() and torch.isfinite(sine).all())
    want = torch.stack(rng._box_muller(words, words, torch.float64))
    assert float((torch.stack([cosine, sine]) - want).abs().max()) < 5e-4


def test_the_update_kernel_moves_chains_as_eager_does() -> None:
    """Images, whose energy begins with a convolution; the control: the noise of another seed."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(1, 8, 3, stride=2), nn.SiLU(), nn.Flatten(-3), nn.Linear(8 * 49, 1)).cuda()

    def energy(x: Tensor) -> Tensor:
        return net(x).squeeze(-1) + 0.5 * x.square().sum((-3, -2, -1))

    transition, found = ce.Langevin(0.01, clamp=(-2.0, 2.0)), {}
    for backend in ("eager", "inductor"):
        sampler = ce.build_sampler(energy, transition, (1, 16, 16), backend=backend, device="cuda")
        found[backend] = [
            sampler.run(sampler.init(n_chains=N, seed=seed, first_step=2**32 - 3), 10).state.x for seed in (1, 2)
        ]
        if backend == "inductor":
            assert "in the Triton kernel of the update, clamp(" in sampler.explain()
            cut = sampler.run(sampler.run(sampler.init(n_chains=N, seed=1, first_step=2**32 - 3), 3).state, 7).state.x
            assert torch.equal(cut, found["inductor"][0])
    assert float((found["eager"][0] - found["inductor"][0]).abs().max()) < 1e-3
    assert float((found["eager"][0] - found["inductor"][1]).abs().max()) > 0.1


# -- steady state ----------------------------------------------------------------------------------------------------


def test_launches_that_keep_draws_neither_sync_nor_allocate() -> None:
    sampler = sampler_on_cuda()
    state = sampler.run(sampler.init(n_chains=N, seed=SEED), 100).state
    launch, chains = prepared(sampler, state)
    table = torch.full((300, 2), 0.01, device="cuda")
    keep = Keep(torch.empty(30, N, 2, device="cuda"), torch.empty(30, N, device="cuda"), 10, 0)
    launch(chains, 100, table, keep)
    torch.cuda.synchronize()
    before, mode = torch.cuda.memory_stats(), torch.cuda.get_sync_debug_mode()
    torch.cuda.set_sync_debug_mode("error")
    try:
        for i in range(1, 4):
            launch(chains, 100 + 300 * i, table, keep)
    finally:
        torch.cuda.set_sync_debug_mode(mode)
    torch.cuda.synchronize()
    after = torch.cuda.memory_stats()
    for counter in ("allocation.all.allocated", "segment.all.allocated", "num_alloc_retries"):
        assert after[counter] == before[counter], counter
    assert torch.equal(keep.x[-1], chains.state[0][:N])


def test_hyper_parameters_are_sent_without_a_sync() -> None:
    sampler = sampler_on_cuda()
    hyper_rows(sampler.transition, 0, 1000, torch.float32, sampler.device)  # the pinned memory is allocated once
    torch.cuda.synchronize()
    mode = torch.cuda.get_sync_debug_mode()
    torch.cuda.set_sync_debug_mode("error")
    try:
        table = hyper_rows(sampler.transition, 0, 1000, torch.float32, sampler.device)(0, 1000)
    finally:
        torch.cuda.set_sync_debug_mode(mode)
    assert torch.allclose(table[:, 0], torch.full((1000,), 0.01, device="cuda"))


def test_the_launch_costs_under_two_percent() -> None:
    """Long graphs back to back against the kernels' own time, as it was measured when they were captured."""
    sampler = sampler_on_cuda()
    sampler.build(10_000)
    _, launch = sampler._builds.get({}, 10_000)
    bucket = launch._buckets.find(launch.capacity(10_000))
    length, cost = bucket.steps_per_graph, bucket.cost
    assert length == 512 or cost.launch_seconds <= 0.02 * length * cost.step_seconds
    assert "steps a graph" in sampler.explain() and "Triton" in sampler.explain()


def test_launch_length_and_graph_length_do_not_change_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Graphs of 8, of 64 and of 512 steps, and the tail steps."""
    from compiled_ebm.backends import graph_bucket

    found = []
    for longest in (8, 64, 512):
        monkeypatch.setattr(graph_bucket, "steps_per_graph", lambda cost, longest=longest: longest)
        sampler = sampler_on_cuda()
        found.append(sampler.run(sampler.init(n_chains=N, seed=SEED), 1000, thin=37))
        _, launch = sampler._builds.get({}, N)
        assert launch._buckets.find(launch.capacity(N)).steps_per_graph == longest
    for result in found[1:]:
        assert torch.equal(result.state.x, found[0].state.x) and torch.equal(result.draws, found[0].draws)


# -- streams and threads ---------------------------------------------------------------------------------------------


def test_a_stream_of_the_users() -> None:
    sampler = sampler_on_cuda()
    x0 = torch.randn(N, 2, device="cuda")
    want = sampler.run(sampler.init(x0, seed=SEED), 300).state.x
    torch.cuda.synchronize()
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        got = sampler.run(sampler.init(x0, seed=SEED), 300).state.x
        fresh = sampler_on_cuda()  # captured while the user's stream is current
        again = fresh.run(fresh.init(x0, seed=SEED), 300).state.x
    stream.synchronize()
    assert torch.equal(got, want) and torch.equal(again, want)


def test_two_samplers_on_two_streams() -> None:
    """Each in a thread of its own, at once, ten runs each; capture included."""
    starts = [torch.randn(N * k, 2, device="cuda") for k in (1, 30)]
    torch.cuda.synchronize()
    want = [s.run(s.init(x0, seed=SEED), 500).state.x for s, x0 in ((sampler_on_cuda(), x0) for x0 in starts)]

    def runs(x0: Tensor) -> list[Tensor]:
        stream = torch.cuda.Stream()
        with torch.cuda.stream(stream):
            sampler = sampler_on_cuda()
            found = [sampler.run(sampler.init(x0, seed=SEED), 500).state.x for _ in range(10)]
        stream.synchronize()
        return found

    with ThreadPoolExecutor(2) as threads:
        for expected, found in zip(want, threads.map(runs, starts), strict=True):
            assert all(torch.equal(x, expected) for x in found)


def test_one_launch_on_two_streams_is_in_order() -> None:
    """Enqueued without a wait in between: the second begins where the first ends."""
    sampler = sampler_on_cuda()
    state = sampler.run(sampler.init(n_chains=N, seed=SEED), 64).state
    want = sampler.run(state, 400).state
    launch, chains = prepared(sampler, state)
    table = torch.tensor([[0.01, 0.02**0.5]], device="cuda").expand(200, 2).contiguous()
    streams = [torch.cuda.Stream() for _ in range(2)]
    torch.cuda.synchronize()
    for i, stream in enumerate(streams):
        with torch.cuda.stream(stream):
            launch(chains, 64 + 200 * i, table, None)
    torch.cuda.synchronize()
    assert torch.equal(chains.state[0][:N], want.positions)


def test_capture_survives_the_work_of_other_threads() -> None:
    """Which allocate, launch and wait all the while."""
    stop, errors = threading.Event(), []

    def work() -> None:
        try:
            with torch.cuda.stream(torch.cuda.Stream()):
                while not stop.is_set():
                    size = int(torch.randint(1 << 10, 1 << 22, ()))
                    torch.randn(size, device="cuda").square().sum().item()
        except RuntimeError as error:
            errors.append(error)

    other = threading.Thread(target=work)
    other.start()
    try:
        sampler = sampler_on_cuda()
        found = {n: sampler.run(sampler.init(n_chains=n, seed=SEED), 200).state.x for n in (20, 100, 1000)}
    finally:
        stop.set()
        other.join()
    assert not errors
    for n, x in found.items():
        assert torch.equal(sampler.run(sampler.init(n_chains=n, seed=SEED), 200).state.x, x)


# -- weights and memory ----------------------------------------------------------------------------------------------


def test_graphs_follow_an_optimiser() -> None:
    """Twenty updates in place, no rebuild; a fresh sampler of the same weights gives the same chains."""
    model = ce.MLPModel(2, seed=0, confinement=1.0).cuda()
    sampler = ce.build_sampler(model, ce.Langevin(0.01), (2,), backend="inductor")
    optimiser = torch.optim.SGD(model.parameters(), lr=1e-2)
    state = sampler.init(n_chains=N, seed=SEED)
    for _ in range(20):
        x = sampler.run(state, 20).state.x
        optimiser.zero_grad()
        model(x).square().mean().backward()
        optimiser.step()
    fresh = ce.build_sampler(model, ce.Langevin(0.01), (2,), backend="inductor")
    assert torch.equal(sampler.run(state, 20).state.x, fresh.run(fresh.init(n_chains=N, seed=SEED), 20).state.x)
    assert sampler._builds.count == 1
    model.net[0].weight = nn.Parameter(model.net[0].weight.detach() * 0.5)
    sampler.run(state, 20)
    assert sampler._builds.count == 2


@pytest.mark.parametrize("cycles", [20, pytest.param(1000, marks=slow)])
def test_build_and_free_leaves_memory_flat(cycles: int) -> None:
    """Capture, run, drop; no collection of garbage. Buffers, the graphs' pool and the driver's own memory go."""
    from compiled_ebm.backends.cudagraph import CudaGraphLaunch

    sampler = sampler_on_cuda()
    state = sampler.init(n_chains=N, seed=SEED)
    program, _ = sampler._builds.get({}, N)
    table = torch.full((64, 2), 0.01, device="cuda")

    def cycle() -> None:
        launch: Any = CudaGraphLaunch(program)
        chains = buffers(program, launch, state, {})
        launch.prepare(chains)
        launch.init(chains, 0)
        launch.begin(chains)
        launch(chains, 0, table, None)

    def used() -> tuple[int, int, int]:
        torch.cuda.synchronize()
        torch.cuda.empty_cache()
        free, total = torch.cuda.mem_get_info()
        return torch.cuda.memory_allocated(), torch.cuda.memory_reserved(), total - free

    for _ in range(5):
        cycle()
    gc.collect()
    gc.disable()
    try:
        before = used()
        for _ in range(cycles):
            cycle()
        after = used()
    finally:
        gc.enable()
    assert after[0] == before[0]
    assert after[1] <= before[1] + (2 << 20)
    assert after[2] <= before[2] + (64 << 20)


def test_batch_sizes_share_a_pool_and_are_bounded() -> None:
    from compiled_ebm.backends.cudagraph import MAX_BUCKETS

    sampler = sampler_on_cuda()
    sizes = [16 * k for k in range(1, MAX_BUCKETS + 4)]
    want = {n: sampler.run(sampler.init(n_chains=n, seed=SEED), 50).state.x for n in sizes}
    _, launch = sampler._builds.get({}, 16)
    assert len(launch._buckets.rows()) == MAX_BUCKETS
    for n in sizes:  # some are captured again
        assert torch.equal(sampler.run(sampler.init(n_chains=n, seed=SEED), 50).state.x, want[n])
