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

[[maybe_unused]] ONCE M all_finite(const R* values, long n) {
    R nothing = rset(0);
    for (long i = 0; i < n; ++i) nothing += values[i] * rset(0);
    return req(nothing, rset(0));
}
// The new values where the chains move, else those of the last check: which is now.
[[maybe_unused]] ONCE void settle(R* now, R* last, long n, M moves) {
    for (long i = 0; i < n; ++i) now[i] = last[i] = rsel(moves, now[i], last[i]);
}
[[maybe_unused]] ONCE void settle_ints(I* now, I* last, long n, M moves) {
    for (long i = 0; i < n; ++i) now[i] = last[i] = isel(moves, now[i], last[i]);
}
template <class V> ONCE void copy_all(V* to, const V* from, long n) {
    for (long i = 0; i < n; ++i) to[i] = from[i];
}
// The energy of a tile's chains at x.
static __attribute__((noinline)) R energy_of(
    const long long* numbers, void* const* arrays, void* const* kwargs, const long long tile, const R* x,
    R* const __restrict at) {

    I* const __restrict iat = (I*)(at + 137);
    (void)iat; (void)numbers; (void)arrays; (void)kwargs; (void)tile; (void)x;
    copy_all(at + 0, x, 128);
    R e514 = rset(0);
    for (long i = 0; i < 128; ++i) {
        // test_fused.py, in double_well: return (x.square() - 1).square().sum(-1)
        const R v129 = at[i] * at[i];
        const R v258 = v129 - rset((real)1.0);
        const R v386 = v258 * v258;
        e514 = e514 + v386;
    }
    return e514;
}

// numbers: seed, first_step, n_steps, n_hyper, n_tiles, thin (0: keep nothing), steps until the next kept draw,
// chains whose draws are kept; then the rounds of each repetition. Below the limit of the spread energies are finite.
extern "C" __attribute__((visibility("default"))) void chain_loop(
    const long long* numbers, void* const* arrays, void* const* kwargs, void* const* energy_arrays, const real* limit,
    const long long* ids, long long* next, const real* hyper, real* keep_x, real* keep_energy, void* scratch) {
    const long long first_step = numbers[1], n_steps = numbers[2], n_hyper = numbers[3], n_tiles = numbers[4];
    const long long thin = numbers[5], until_kept = numbers[6], n_kept_chains = numbers[7];
    const uint32_t normals_stream = 0u << 24, uniforms_stream = 1u << 24;
    const PhiloxKeys keys = philox_keys((uint64_t)numbers[0]);
    R* const __restrict at = (R*)__builtin_assume_aligned(scratch, VECTOR_BYTES);
    I* const __restrict iat = (I*)(at + 687);
    (void)iat; (void)uniforms_stream; (void)normals_stream; (void)hyper; (void)n_hyper; (void)first_step;
    (void)kwargs; (void)energy_arrays; (void)limit;
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
        R spread;
        long long until = until_kept, slot = 0;
        long long careful = 0, patience = 0;
        at[411] = energy;
        copy_all(at + 412, at + 0, 128);
        copy_all(at + 549, at + 411, 1);
        copy_all(at + 550, at + 137, 128);
        for (long long from = 0, end; from < n_steps; from = end) {
            // draws of chains that no longer move are those of the last check
            const bool single = careful || (thin && many(ine(failed_at, iset(-1LL))));
            end = from + (single ? 1 : 64);
            if (end > n_steps) end = n_steps;
            const bool exact = end - from == 1;
            const long long until_before = until, slot_before = slot;
            spread = rset(0);
            for (long long s = from; s < end; ++s) {
                const uint32_t step = (uint32_t)(first_step + s);
                (void)step;
                const R step_size = rset(hyper[s * n_hyper + 0]);
                const R noise_std = rset(hyper[s * n_hyper + 1]);
                // this step's normals
                for (long b = 0; b < 16; ++b) {
                    R z[8];
                    normals8(keys, words, 2 * (uint32_t)b | normals_stream, step, z);
                    for (long j = 0; j < 8; ++j) at[274 + 8 * b + j] = z[j];
                }
                R e1801 = rset(0);
                for (long i = 0; i < 128; ++i) {
                    // the transition's own: x = state.x - hyper.step_size * grad + hyper.noise_std * noise.normals
                    const R v389 = step_size * at[137 + i];
                    const R v517 = at[i] - v389;
                    const R v645 = noise_std * at[274 + i];
                    const R v773 = v517 + v645;
                    at[i] = v773;
                    // test_fused.py, in double_well: return (x.square() - 1).square().sum(-1)
                    const R v901 = v773 * v773;
                    const R v1030 = v901 - rset((real)1.0);
                    const R v1545 = rset((real)4.0) * v1030;
                    const R v1673 = v1545 * v773;
                    at[137 + i] = v1673;
                    e1801 = e1801 + v901;
                }
                // the sampler's own: how far the chain has gone since the last check
                const R e1803 = spread + e1801;
                // the state for the next step
                const R spread_next = e1803;
                spread = spread_next;
                if (thin && !exact && --until == 0) {
                    energy = energy_of(numbers + 0, energy_arrays, kwargs, tile, at + 0, (R*)(iat + 0));
                for (long e = 0; e < 128; ++e) keep_real(keep_x + (slot * n_kept_chains + tile * W) * 128L + e, 128, left, at[0 + e]);
                keep_real(keep_energy + (slot * n_kept_chains + tile * W) * 1L + 0, 1, left, energy);
                    until = thin;
                    ++slot;
                }
            }
            // is everything finite, and was it all the way?
            at[411] = energy;
            at[411] = energy_of(numbers + 0, energy_arrays, kwargs, tile, at + 0, (R*)(iat + 0));
            const M alive = ieq(failed_at, iset(-1LL));
            const M fine = mand(all_finite(at + 0, 128), risfinite(at[411]));
            if (!exact && many(mand(alive, mnot(mand(fine, rle(spread, rset(limit[0]))))))) {
                // somewhere on the way a chain failed, or went where its energy may not be finite: again, step by step
                copy_all(at + 0, at + 412, 128);
                copy_all(at + 411, at + 549, 1);
                copy_all(at + 137, at + 550, 128);
                energy = at[411];
                patience = patience ? 2 * patience : 64;
                if (patience > 64 * 64) patience = 64 * 64;
                careful = patience;
                until = until_before;
                slot = slot_before;
                end = from;
                continue;
            }
            const M moves = mand(alive, fine);
            settle(at + 0, at + 412, 128, moves);
            settle(at + 411, at + 549, 1, moves);
            settle(at + 137, at + 550, 128, moves);
            energy = at[411];
            failed_at = isel(mand(alive, mnot(fine)), iset(first_step + end - 1), failed_at);
            if (careful) --careful;
            else patience /= 2;
            if (thin && exact && --until == 0) {
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
