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
    I* const __restrict iat = (I*)(at + 14);
    (void)iat; (void)uniforms_stream; (void)normals_stream; (void)hyper; (void)n_hyper; (void)first_step;
    (void)kwargs; (void)energy_arrays; (void)limit;
    real* const x_array = (real*)arrays[0];
    real* const energy_array = (real*)arrays[1];
    real* const grad_array = (real*)arrays[2];
    long long* const failed_at_array = (long long*)arrays[3];
    const long long rounds0 = numbers[8];  // of repetition 0
    for (;;) {
        const long long tile = __atomic_fetch_add(next, 1, __ATOMIC_RELAXED);
        if (tile >= n_tiles) return;
        const ChainWords words = chain_words(ids + tile * W);
        const long left = (long)(n_kept_chains - tile * W);
        (void)words; (void)left;
        real* const x_tile = x_array + tile * (W * 3L);
        R x_0 = take_real(x_tile + 0, 3);
        R x_1 = take_real(x_tile + 1, 3);
        R x_2 = take_real(x_tile + 2, 3);
        real* const energy_tile = energy_array + tile * (W * 1L);
        R energy = take_real(energy_tile + 0, 1);
        real* const grad_tile = grad_array + tile * (W * 3L);
        R grad_0 = take_real(grad_tile + 0, 3);
        R grad_1 = take_real(grad_tile + 1, 3);
        R grad_2 = take_real(grad_tile + 2, 3);
        long long* const failed_at_tile = failed_at_array + tile * (W * 1L);
        I failed_at = take_int(failed_at_tile + 0, 1);
        R spread;
        long long until = until_kept, slot = 0;
        long long careful = 0, patience = 0;
        at[0] = x_0;
        at[1] = x_1;
        at[2] = x_2;
        at[3] = energy;
        at[4] = grad_0;
        at[5] = grad_1;
        at[6] = grad_2;
        copy_all(at + 7, at + 0, 3);
        copy_all(at + 10, at + 3, 1);
        copy_all(at + 11, at + 4, 3);
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
                // this step's normals
                R zb0[4];
                normals4(keys, words, 0u | normals_stream, step, zb0);
                const R normals_0 = zb0[0];
                const R normals_1 = zb0[1];
                const R normals_2 = zb0[2];
                // this step's uniforms
                R ub0[4];
                uniforms4(keys, words, 0u | uniforms_stream, step, ub0);
                const R uniforms = ub0[0];
                // loop_transitions.py, in step: accept = noise.uniforms[0].log() < before - (energy + 0.5 * p.square().sum())
                const R e87 = r_log(uniforms);
                // loop_transitions.py, in step: before = state.energy + 0.5 * noise.normals.square().sum()
                const R e80 = normals_0 * normals_0;
                const R e81 = normals_1 * normals_1;
                const R e83 = e80 + e81;
                const R e82 = normals_2 * normals_2;
                const R e84 = e83 + e82;
                const R e85 = e84 * rset((real)0.5);
                const R e86 = energy + e85;
                // loop_transitions.py, in move: p = p - 0.5 * eta * grad
                const R e15 = step_size * rset((real)0.5);
                R q16 = x_0;
                R q17 = x_1;
                R q18 = x_2;
                R q19 = normals_0;
                R q20 = normals_1;
                R q21 = normals_2;
                R q22 = energy;
                R q23 = grad_0;
                R q24 = grad_1;
                R q25 = grad_2;
                for (long long round0 = 0; round0 < rounds0; ++round0) {
                    // loop_transitions.py, in move: p = p - 0.5 * eta * grad
                    const R e26 = e15 * q23;
                    const R e29 = q19 - e26;
                    // loop_transitions.py, in move: x = x + eta * p
                    const R e32 = step_size * e29;
                    const R e35 = q16 + e32;
                    // test_repetition.py, in double_well: return (x.square() - 1).square().sum(-1)
                    const R e38 = e35 * e35;
                    const R e42 = e38 - rset((real)1.0);
                    const R e58 = rset((real)4.0) * e42;
                    const R e61 = e58 * e35;
                    // loop_transitions.py, in move: return x, p - 0.5 * eta * grad, energy, grad
                    const R e64 = e15 * e61;
                    const R e67 = e29 - e64;
                    // loop_transitions.py, in move: p = p - 0.5 * eta * grad
                    const R e27 = e15 * q24;
                    const R e30 = q20 - e27;
                    // loop_transitions.py, in move: x = x + eta * p
                    const R e33 = step_size * e30;
                    const R e36 = q17 + e33;
                    // test_repetition.py, in double_well: return (x.square() - 1).square().sum(-1)
                    const R e39 = e36 * e36;
                    const R e43 = e39 - rset((real)1.0);
                    const R e59 = rset((real)4.0) * e43;
                    const R e62 = e59 * e36;
                    // loop_transitions.py, in move: return x, p - 0.5 * eta * grad, energy, grad
                    const R e65 = e15 * e62;
                    const R e68 = e30 - e65;
                    // loop_transitions.py, in move: p = p - 0.5 * eta * grad
                    const R e28 = e15 * q25;
                    const R e31 = q21 - e28;
                    // loop_transitions.py, in move: x = x + eta * p
                    const R e34 = step_size * e31;
                    const R e37 = q18 + e34;
                    // test_repetition.py, in double_well: return (x.square() - 1).square().sum(-1)
                    const R e40 = e37 * e37;
                    const R e44 = e40 - rset((real)1.0);
                    const R e60 = rset((real)4.0) * e44;
                    const R e63 = e60 * e37;
                    // loop_transitions.py, in move: return x, p - 0.5 * eta * grad, energy, grad
                    const R e66 = e15 * e63;
                    const R e69 = e31 - e66;
                    // test_repetition.py, in double_well: return (x.square() - 1).square().sum(-1)
                    const R e45 = e42 * e42;
                    const R e46 = e43 * e43;
                    const R e48 = e45 + e46;
                    const R e47 = e44 * e44;
                    const R e49 = e48 + e47;
                    // the carry for the next round
                    const R n_q16 = e35;
                    const R n_q17 = e36;
                    const R n_q18 = e37;
                    const R n_q19 = e67;
                    const R n_q20 = e68;
                    const R n_q21 = e69;
                    const R n_q22 = e49;
                    const R n_q23 = e61;
                    const R n_q24 = e62;
                    const R n_q25 = e63;
                    q16 = n_q16;
                    q17 = n_q17;
                    q18 = n_q18;
                    q19 = n_q19;
                    q20 = n_q20;
                    q21 = n_q21;
                    q22 = n_q22;
                    q23 = n_q23;
                    q24 = n_q24;
                    q25 = n_q25;
                }
                // loop_transitions.py, in step: accept = noise.uniforms[0].log() < before - (energy + 0.5 * p.square().sum())
                const R e88 = q19 * q19;
                const R e89 = q20 * q20;
                const R e91 = e88 + e89;
                const R e90 = q21 * q21;
                const R e92 = e91 + e90;
                const R e93 = e92 * rset((real)0.5);
                const R e94 = q22 + e93;
                const R e95 = e86 - e94;
                const M e96 = rlt(e87, e95);
                // loop_transitions.py, in <genexpr>: return GradientState(*(torch.where(accept, a, b) for a, b in new)), None
                const R e97 = rsel(e96, q16, x_0);
                // the sampler's own: how far the chain has gone since the last check
                const R e104 = e97 * e97;
                // loop_transitions.py, in <genexpr>: return GradientState(*(torch.where(accept, a, b) for a, b in new)), None
                const R e98 = rsel(e96, q17, x_1);
                // the sampler's own: how far the chain has gone since the last check
                const R e105 = e98 * e98;
                const R e107 = e104 + e105;
                // loop_transitions.py, in <genexpr>: return GradientState(*(torch.where(accept, a, b) for a, b in new)), None
                const R e99 = rsel(e96, q18, x_2);
                // the sampler's own: how far the chain has gone since the last check
                const R e106 = e99 * e99;
                const R e108 = e107 + e106;
                // loop_transitions.py, in <genexpr>: return GradientState(*(torch.where(accept, a, b) for a, b in new)), None
                const R e100 = rsel(e96, q22, energy);
                // the sampler's own: how far the chain has gone since the last check
                const R e110 = e100 * rset((real)0.0);
                const R e111 = e108 + e110;
                const R e113 = spread + e111;
                // loop_transitions.py, in <genexpr>: return GradientState(*(torch.where(accept, a, b) for a, b in new)), None
                const R e101 = rsel(e96, q23, grad_0);
                const R e102 = rsel(e96, q24, grad_1);
                const R e103 = rsel(e96, q25, grad_2);
                // the state for the next step
                const R x_0_next = e97;
                const R x_1_next = e98;
                const R x_2_next = e99;
                const R energy_next = e100;
                const R grad_0_next = e101;
                const R grad_1_next = e102;
                const R grad_2_next = e103;
                const R spread_next = e113;
                x_0 = x_0_next;
                x_1 = x_1_next;
                x_2 = x_2_next;
                energy = energy_next;
                grad_0 = grad_0_next;
                grad_1 = grad_1_next;
                grad_2 = grad_2_next;
                spread = spread_next;
                if (thin && !exact && --until == 0) {

                keep_real(keep_x + (slot * n_kept_chains + tile * W) * 3L + 0, 3, left, x_0);
                keep_real(keep_x + (slot * n_kept_chains + tile * W) * 3L + 1, 3, left, x_1);
                keep_real(keep_x + (slot * n_kept_chains + tile * W) * 3L + 2, 3, left, x_2);
                keep_real(keep_energy + (slot * n_kept_chains + tile * W) * 1L + 0, 1, left, energy);
                    until = thin;
                    ++slot;
                }
            }
            // is everything finite, and was it all the way?
            at[0] = x_0;
            at[1] = x_1;
            at[2] = x_2;
            at[3] = energy;
            at[4] = grad_0;
            at[5] = grad_1;
            at[6] = grad_2;

            const M alive = ieq(failed_at, iset(-1LL));
            const M fine = mand(all_finite(at + 0, 3), risfinite(at[3]));
            if (!exact && many(mand(alive, mnot(mand(fine, rle(spread, rset(limit[0]))))))) {
                // somewhere on the way a chain failed, or went where its energy may not be finite: again, step by step
                copy_all(at + 0, at + 7, 3);
                copy_all(at + 3, at + 10, 1);
                copy_all(at + 4, at + 11, 3);
                x_0 = at[0];
                x_1 = at[1];
                x_2 = at[2];
                energy = at[3];
                grad_0 = at[4];
                grad_1 = at[5];
                grad_2 = at[6];
                patience = patience ? 2 * patience : 64;
                if (patience > 64 * 64) patience = 64 * 64;
                careful = patience;
                until = until_before;
                slot = slot_before;
                end = from;
                continue;
            }
            const M moves = mand(alive, fine);
            settle(at + 0, at + 7, 3, moves);
            settle(at + 3, at + 10, 1, moves);
            settle(at + 4, at + 11, 3, moves);
            x_0 = at[0];
            x_1 = at[1];
            x_2 = at[2];
            energy = at[3];
            grad_0 = at[4];
            grad_1 = at[5];
            grad_2 = at[6];
            failed_at = isel(mand(alive, mnot(fine)), iset(first_step + end - 1), failed_at);
            if (careful) --careful;
            else patience /= 2;
            if (thin && exact && --until == 0) {
                keep_real(keep_x + (slot * n_kept_chains + tile * W) * 3L + 0, 3, left, x_0);
                keep_real(keep_x + (slot * n_kept_chains + tile * W) * 3L + 1, 3, left, x_1);
                keep_real(keep_x + (slot * n_kept_chains + tile * W) * 3L + 2, 3, left, x_2);
                keep_real(keep_energy + (slot * n_kept_chains + tile * W) * 1L + 0, 1, left, energy);
                until = thin;
                ++slot;
            }
        }
        give_real(x_tile + 0, 3, x_0);
        give_real(x_tile + 1, 3, x_1);
        give_real(x_tile + 2, 3, x_2);
        give_real(energy_tile + 0, 1, energy);
        give_real(grad_tile + 0, 3, grad_0);
        give_real(grad_tile + 1, 3, grad_1);
        give_real(grad_tile + 2, 3, grad_2);
        give_int(failed_at_tile + 0, 1, failed_at);
    }
}
