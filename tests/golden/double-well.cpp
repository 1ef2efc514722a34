using namespace lanes;



// Once a launch and tile, so not worth the compiler's time to inline.
#define ONCE static __attribute__((noinline))
ONCE R take_real(const real* p, long stride) {
    alignas(VECTOR_BYTES) real v[W];
    for (int l = 0; l < W; ++l) v[l] = p[l * stride];
    return rload(v);
}
ONCE I take_int(const long long* p, long stride) {
    long long v[W];
    for (int l = 0; l < W; ++l) v[l] = p[l * stride];
    return iload(v);
}
[[maybe_unused]] ONCE M take_mask(const long long* p, long stride) { return i_to_m(take_int(p, stride)); }
[[maybe_unused]] ONCE void keep_real(real* p, long stride, long left, R v) {
    alignas(VECTOR_BYTES) real t[W];
    rstore(t, v);
    for (long l = 0; l < W && l < left; ++l) p[l * stride] = t[l];
}
[[maybe_unused]] ONCE void give_real(real* p, long stride, R v) { keep_real(p, stride, W, v); }
ONCE void give_int(long long* p, long stride, I v) {
    long long t[W];
    istore(t, v);
    for (int l = 0; l < W; ++l) p[l * stride] = t[l];
}

// numbers: seed, first_step, n_steps, n_hyper, n_tiles, thin (0: keep nothing), steps until the next kept draw,
// chains whose draws are kept; then the rounds of each repetition
extern "C" __attribute__((visibility("default"))) void chain_loop(
    const long long* numbers, void* const* arrays, const long long* ids, long long* next, const real* hyper,
    real* keep_x, real* keep_energy, void* scratch) {
    const long long first_step = numbers[1], n_steps = numbers[2], n_hyper = numbers[3], n_tiles = numbers[4];
    const long long thin = numbers[5], until_kept = numbers[6], n_kept_chains = numbers[7];
    const uint32_t normals_stream = 0u << 24, uniforms_stream = 1u << 24;
    const PhiloxKeys keys = philox_keys((uint64_t)numbers[0]);
    R* const __restrict at = (R*)__builtin_assume_aligned(scratch, VECTOR_BYTES);
    I* const __restrict iat = (I*)(at + 548);
    (void)iat; (void)uniforms_stream; (void)normals_stream; (void)hyper; (void)n_hyper; (void)first_step;
    real* const x_array = (real*)arrays[0];
    real* const energy_array = (real*)arrays[1];
    real* const grad_array = (real*)arrays[2];
    long long* const failed_at_array = (long long*)arrays[3];
    for (;;) {
        const long long tile = __atomic_fetch_add(next, 1, __ATOMIC_RELAXED);
        if (tile >= n_tiles) return;
        const ChainWords words = chain_words(ids + tile * W);
        const long left = (long)(n_kept_chains - tile * W);
        (void)words; (void)left;
        real* const x_tile = x_array + tile * (W * 128L);
        for (long e = 0; e < 128; ++e) at[0 + e] = take_real(x_tile + e, 128);
        real* const energy_tile = energy_array + tile * (W * 1L);
        R energy = take_real(energy_tile + 0, 1);
        real* const grad_tile = grad_array + tile * (W * 128L);
        for (long e = 0; e < 128; ++e) at[137 + e] = take_real(grad_tile + e, 128);
        long long* const failed_at_tile = failed_at_array + tile * (W * 1L);
        I failed_at = take_int(failed_at_tile + 0, 1);
        long long until = until_kept, slot = 0;
        for (long long s = 0; s < n_steps; ++s) {
            const uint32_t step = (uint32_t)(first_step + s);
            (void)step;
            const I step_index = iset(first_step + s);
            const R step_size = rset(hyper[s * n_hyper + 0]);
            const R noise_std = rset(hyper[s * n_hyper + 1]);
            // this step's normals
            for (long b = 0; b < 16; ++b) {
                R z[8];
                normals8(keys, words, 2 * (uint32_t)b | normals_stream, step, z);
                for (long j = 0; j < 8; ++j) at[274 + 8 * b + j] = z[j];
            }
            R e1286 = rset(0);
            R e2442 = rset(0);
            for (long i = 0; i < 128; ++i) {
                // the transition's own: x = state.x - hyper.step_size * grad + hyper.noise_std * noise.normals
                const R v389 = step_size * at[137 + i];
                const R v517 = at[i] - v389;
                const R v645 = noise_std * at[274 + i];
                const R v773 = v517 + v645;
                at[274 + i] = v773;
                // test_fused.py, in double_well: return (x.square() - 1).square().sum(-1)
                const R v901 = v773 * v773;
                const R v1030 = v901 - rset((real)1.0);
                const R v1158 = v1030 * v1030;
                const R v1288 = v1030 * rset((real)2.0);
                const R v1416 = v773 * rset((real)2.0);
                const R v1544 = v1288 * v1416;
                at[411 + i] = v1544;
                // the sampler's own: finite = torch.isfinite(new.x).all() & torch.isfinite(new.energy)
                const R v2314 = v773 * rset((real)0.0);
                e1286 = e1286 + v1158;
                e2442 = e2442 + v2314;
            }
            const M e2443 = req(e2442, rset((real)0.0));
            const M e2448 = risfinite(e1286);
            const M e2449 = mand(e2443, e2448);
            // the sampler's own: alive = failed_at == ALIVE
            const M e2451 = ieq(failed_at, iset(-1LL));
            // the sampler's own: moves = alive & finite
            const M e2452 = mand(e2451, e2449);
            // the sampler's own: kept = type(state)(*(torch.where(moves, after, before) for after, before in zip(new, state, strict=True)))
            const R e2581 = rsel_apart(e2452, e1286, energy);
            // the sampler's own: return kept, torch.where(alive & ~finite, step, failed_at)
            const M e2710 = mnot(e2449);
            const M e2711 = mand(e2451, e2710);
            const I e2712 = isel(e2711, step_index, failed_at);
            for (long i = 0; i < 128; ++i) {
                // the sampler's own: kept = type(state)(*(torch.where(moves, after, before) for after, before in zip(new, state, strict=True)))
                const R v2453 = rsel(e2452, at[274 + i], at[i]);
                at[i] = v2453;
                const R v2582 = rsel(e2452, at[411 + i], at[137 + i]);
                at[137 + i] = v2582;
            }
            // the state for the next step
            const R energy_next = e2581;
            const I failed_at_next = e2712;
            energy = energy_next;
            failed_at = failed_at_next;
            if (thin && --until == 0) {
                for (long e = 0; e < 128; ++e) keep_real(keep_x + (slot * n_kept_chains + tile * W) * 128L + e, 128, left, at[0 + e]);
                keep_real(keep_energy + (slot * n_kept_chains + tile * W) * 1L + 0, 1, left, energy);
                until = thin;
                ++slot;
            }
        }
        for (long e = 0; e < 128; ++e) give_real(x_tile + e, 128, at[0 + e]);
        give_real(energy_tile + 0, 1, energy);
        for (long e = 0; e < 128; ++e) give_real(grad_tile + e, 128, at[137 + e]);
        give_int(failed_at_tile + 0, 1, failed_at);
    }
}
