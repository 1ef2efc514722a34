using namespace lanes;

static const int32_t T0[] = {193, 146, 147, 148, 149, 150, 151, 152, 153, 154, 155, 156, 157, 158, 159, 160, 161, 162, 163, 164, 165, 166, 167, 168, 169, 170, 171, 172, 173, 174, 175, 176, 177, 178, 179, 180, 181, 182, 183, 184, 185, 186, 187, 188, 189, 190, 191, 192};
static const int32_t T1[] = {293, 294, 295, 296, 297, 298, 299, 300, 301, 302, 303, 304, 305, 306, 307, 308, 309, 310, 311, 312, 313, 314, 315, 316, 317, 318, 319, 320, 321, 322, 323, 324, 325, 326, 327, 328, 329, 330, 331, 332, 333, 334, 335, 336, 337, 338, 339, 292};

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
    I* const __restrict iat = (I*)(at + 365);
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
        real* const x_tile = x_array + tile * (W * 48L);
        for (long e = 0; e < 48; ++e) at[0 + e] = take_real(x_tile + e, 48);
        real* const energy_tile = energy_array + tile * (W * 1L);
        R energy = take_real(energy_tile + 0, 1);
        real* const grad_tile = grad_array + tile * (W * 48L);
        for (long e = 0; e < 48; ++e) at[73 + e] = take_real(grad_tile + e, 48);
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
            for (long b = 0; b < 6; ++b) {
                R z[8];
                normals8(keys, words, 2 * (uint32_t)b | normals_stream, step, z);
                for (long j = 0; j < 8; ++j) at[146 + 8 * b + j] = z[j];
            }
            R e534 = rset(0);
            R e1117 = rset(0);
            for (long i = 0; i < 48; ++i) {
                // the transition's own: x = state.x - hyper.step_size * grad + hyper.noise_std * noise.normals
                const R v149 = step_size * at[73 + i];
                const R v197 = at[i] - v149;
                const R v245 = noise_std * at[146 + i];
                const R v293 = v197 + v245;
                at[146 + i] = v293;
                // test_fused.py, in ring_of_sites: return (x.roll(1, -1) - x).square().sum(-1) + x.pow(4).sum(-1)
                const R v438 = v293 * v293;
                const R v486 = v438 * v438;
                const R v537 = v293 * v438;
                const R v586 = v537 * rset((real)4.0);
                at[219 + i] = v586;
                // the sampler's own: finite = torch.isfinite(new.x).all() & torch.isfinite(new.energy)
                const R v1069 = v293 * rset((real)0.0);
                e534 = e534 + v486;
                e1117 = e1117 + v1069;
            }
            R e437 = rset(0);
            for (long i = 0; i < 48; ++i) {
                // test_fused.py, in ring_of_sites: return (x.roll(1, -1) - x).square().sum(-1) + x.pow(4).sum(-1)
                const R v341 = at[T0[i]] - at[146 + i];
                const R v389 = v341 * v341;
                const R v635 = v341 * rset((real)2.0);
                at[292 + i] = v635;
                // autograd's own: the sum of a gradient's parts
                const R v731 = at[219 + i] - v635;
                at[219 + i] = v731;
                e437 = e437 + v389;
            }
            // test_fused.py, in ring_of_sites: return (x.roll(1, -1) - x).square().sum(-1) + x.pow(4).sum(-1)
            const R e535 = e437 + e534;
            // the sampler's own: finite = torch.isfinite(new.x).all() & torch.isfinite(new.energy)
            const M e1118 = req(e1117, rset((real)0.0));
            const M e1123 = risfinite(e535);
            const M e1124 = mand(e1118, e1123);
            // the sampler's own: alive = failed_at == ALIVE
            const M e1126 = ieq(failed_at, iset(-1LL));
            // the sampler's own: moves = alive & finite
            const M e1127 = mand(e1126, e1124);
            // the sampler's own: kept = type(state)(*(torch.where(moves, after, before) for after, before in zip(new, state, strict=True)))
            const R e1176 = rsel(e1127, e535, energy);
            // the sampler's own: return kept, torch.where(alive & ~finite, step, failed_at)
            const M e1225 = mnot(e1124);
            const M e1226 = mand(e1126, e1225);
            const I e1227 = isel(e1226, step_index, failed_at);
            for (long i = 0; i < 48; ++i) {
                // autograd's own: the sum of a gradient's parts
                const R v779 = at[219 + i] + at[T1[i]];
                // the sampler's own: kept = type(state)(*(torch.where(moves, after, before) for after, before in zip(new, state, strict=True)))
                const R v1128 = rsel(e1127, at[146 + i], at[i]);
                at[i] = v1128;
                const R v1177 = rsel(e1127, v779, at[73 + i]);
                at[73 + i] = v1177;
            }
            // the state for the next step
            const R energy_next = e1176;
            const I failed_at_next = e1227;
            energy = energy_next;
            failed_at = failed_at_next;
            if (thin && --until == 0) {
                for (long e = 0; e < 48; ++e) keep_real(keep_x + (slot * n_kept_chains + tile * W) * 48L + e, 48, left, at[0 + e]);
                keep_real(keep_energy + (slot * n_kept_chains + tile * W) * 1L + 0, 1, left, energy);
                until = thin;
                ++slot;
            }
        }
        for (long e = 0; e < 48; ++e) give_real(x_tile + e, 48, at[0 + e]);
        give_real(energy_tile + 0, 1, energy);
        for (long e = 0; e < 48; ++e) give_real(grad_tile + e, 48, at[73 + e]);
        give_int(failed_at_tile + 0, 1, failed_at);
    }
}
