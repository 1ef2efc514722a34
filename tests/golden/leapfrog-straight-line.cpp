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
// chains whose draws are kept
extern "C" __attribute__((visibility("default"))) void chain_loop(
    const long long* numbers, void* const* arrays, const long long* ids, long long* next, const real* hyper,
    real* keep_x, real* keep_energy, void* scratch) {
    const long long first_step = numbers[1], n_steps = numbers[2], n_hyper = numbers[3], n_tiles = numbers[4];
    const long long thin = numbers[5], until_kept = numbers[6], n_kept_chains = numbers[7];
    const uint32_t normals_stream = 0u << 24, uniforms_stream = 1u << 24;
    const PhiloxKeys keys = philox_keys((uint64_t)numbers[0]);
    R* const __restrict at = (R*)__builtin_assume_aligned(scratch, VECTOR_BYTES);
    I* const __restrict iat = (I*)(at + 0);
    (void)iat; (void)uniforms_stream; (void)normals_stream; (void)hyper; (void)n_hyper; (void)first_step;
    real* const p_s0 = (real*)arrays[0];
    real* const p_s1 = (real*)arrays[1];
    real* const p_s2 = (real*)arrays[2];
    long long* const p_f0 = (long long*)arrays[3];
    const long long rounds0 = numbers[8];  // of repetition 0
    for (;;) {
        const long long tile = __atomic_fetch_add(next, 1, __ATOMIC_RELAXED);
        if (tile >= n_tiles) return;
        const ChainWords words = chain_words(ids + tile * W);
        const long left = (long)(n_kept_chains - tile * W);
        (void)words; (void)left;
        real* const x_s0 = p_s0 + tile * (W * 3L);
        R s0_0 = take_real(x_s0 + 0, 3);
        R s0_1 = take_real(x_s0 + 1, 3);
        R s0_2 = take_real(x_s0 + 2, 3);
        real* const x_s1 = p_s1 + tile * (W * 1L);
        R s1_0 = take_real(x_s1 + 0, 1);
        real* const x_s2 = p_s2 + tile * (W * 3L);
        R s2_0 = take_real(x_s2 + 0, 3);
        R s2_1 = take_real(x_s2 + 1, 3);
        R s2_2 = take_real(x_s2 + 2, 3);
        long long* const x_f0 = p_f0 + tile * (W * 1L);
        I f0_0 = take_int(x_f0 + 0, 1);
        long long until = until_kept, slot = 0;
        for (long long s = 0; s < n_steps; ++s) {
            const uint32_t step = (uint32_t)(first_step + s);
            (void)step;
            const I t0_0 = iset(first_step + s);
            const R h0_0 = rset(hyper[s * n_hyper + 0]);
            R zb0[4];
            normals4(keys, words, 0u | normals_stream, step, zb0);
            const R z0_0 = zb0[0];
            const R z0_1 = zb0[1];
            const R z0_2 = zb0[2];
            R ub0[4];
            uniforms4(keys, words, 0u | uniforms_stream, step, ub0);
            const R u0_0 = ub0[0];
            // test_repetition.py, in build: return ce.build_sampler(make(), transition, dim, backend=backend, dtype=dtype)
            const M e125 = ieq(f0_0, iset(-1LL));
            // loop_transitions.py, in step: accept = noise.uniforms[0].log() < before - (energy + 0.5 * p.square().sum())
            const R e83 = r_log(u0_0);
            // loop_transitions.py, in step: before = state.energy + 0.5 * noise.normals.square().sum()
            const R e76 = z0_0 * z0_0;
            const R e77 = z0_1 * z0_1;
            const R e79 = e76 + e77;
            const R e78 = z0_2 * z0_2;
            const R e80 = e79 + e78;
            const R e81 = e80 * rset((real)0x1.0000000000000p-1);
            const R e82 = s1_0 + e81;
            // loop_transitions.py, in move: p = p - 0.5 * eta * grad
            const R e15 = h0_0 * rset((real)0x1.0000000000000p-1);
            R q16 = s0_0;
            R q17 = s0_1;
            R q18 = s0_2;
            R q19 = z0_0;
            R q20 = z0_1;
            R q21 = z0_2;
            R q22 = s1_0;
            R q23 = s2_0;
            R q24 = s2_1;
            R q25 = s2_2;
            for (long long round0 = 0; round0 < rounds0; ++round0) {
                // loop_transitions.py, in move: p = p - 0.5 * eta * grad
                const R e26 = e15 * q23;
                const R e29 = q19 - e26;
                // loop_transitions.py, in move: x = x + eta * p
                const R e32 = h0_0 * e29;
                const R e35 = q16 + e32;
                // test_repetition.py, in double_well: return (x.square() - 1).square().sum(-1)
                const R e38 = e35 * e35;
                const R e42 = e38 - rset((real)0x1.0000000000000p+0);
                const R e51 = e42 * rset((real)0x1.0000000000000p+1);
                const R e54 = e35 * rset((real)0x1.0000000000000p+1);
                const R e57 = e51 * e54;
                // loop_transitions.py, in move: return x, p - 0.5 * eta * grad, energy, grad
                const R e60 = e15 * e57;
                const R e63 = e29 - e60;
                // loop_transitions.py, in move: p = p - 0.5 * eta * grad
                const R e27 = e15 * q24;
                const R e30 = q20 - e27;
                // loop_transitions.py, in move: x = x + eta * p
                const R e33 = h0_0 * e30;
                const R e36 = q17 + e33;
                // test_repetition.py, in double_well: return (x.square() - 1).square().sum(-1)
                const R e39 = e36 * e36;
                const R e43 = e39 - rset((real)0x1.0000000000000p+0);
                const R e52 = e43 * rset((real)0x1.0000000000000p+1);
                const R e55 = e36 * rset((real)0x1.0000000000000p+1);
                const R e58 = e52 * e55;
                // loop_transitions.py, in move: return x, p - 0.5 * eta * grad, energy, grad
                const R e61 = e15 * e58;
                const R e64 = e30 - e61;
                // loop_transitions.py, in move: p = p - 0.5 * eta * grad
                const R e28 = e15 * q25;
                const R e31 = q21 - e28;
                // loop_transitions.py, in move: x = x + eta * p
                const R e34 = h0_0 * e31;
                const R e37 = q18 + e34;
                // test_repetition.py, in double_well: return (x.square() - 1).square().sum(-1)
                const R e40 = e37 * e37;
                const R e44 = e40 - rset((real)0x1.0000000000000p+0);
                const R e53 = e44 * rset((real)0x1.0000000000000p+1);
                const R e56 = e37 * rset((real)0x1.0000000000000p+1);
                const R e59 = e53 * e56;
                // loop_transitions.py, in move: return x, p - 0.5 * eta * grad, energy, grad
                const R e62 = e15 * e59;
                const R e65 = e31 - e62;
                // test_repetition.py, in double_well: return (x.square() - 1).square().sum(-1)
                const R e45 = e42 * e42;
                const R e46 = e43 * e43;
                const R e48 = e45 + e46;
                const R e47 = e44 * e44;
                const R e49 = e48 + e47;
                const R n0 = e35;
                const R n1 = e36;
                const R n2 = e37;
                const R n3 = e63;
                const R n4 = e64;
                const R n5 = e65;
                const R n6 = e49;
                const R n7 = e57;
                const R n8 = e58;
                const R n9 = e59;
                q16 = n0;
                q17 = n1;
                q18 = n2;
                q19 = n3;
                q20 = n4;
                q21 = n5;
                q22 = n6;
                q23 = n7;
                q24 = n8;
                q25 = n9;
            }
            // loop_transitions.py, in step: accept = noise.uniforms[0].log() < before - (energy + 0.5 * p.square().sum())
            const R e84 = q19 * q19;
            const R e85 = q20 * q20;
            const R e87 = e84 + e85;
            const R e86 = q21 * q21;
            const R e88 = e87 + e86;
            const R e89 = e88 * rset((real)0x1.0000000000000p-1);
            const R e90 = q22 + e89;
            const R e91 = e82 - e90;
            const M e92 = rlt(e83, e91);
            // loop_transitions.py, in <genexpr>: return GradientState(*(torch.where(accept, a, b) for a, b in new)), None
            const R e93 = rsel(e92, q16, s0_0);
            // test_repetition.py, in build: return ce.build_sampler(make(), transition, dim, backend=backend, dtype=dtype)
            const M e110 = risfinite(e93);
            const M e113 = mnot(e110);
            // loop_transitions.py, in <genexpr>: return GradientState(*(torch.where(accept, a, b) for a, b in new)), None
            const R e94 = rsel(e92, q17, s0_1);
            // test_repetition.py, in build: return ce.build_sampler(make(), transition, dim, backend=backend, dtype=dtype)
            const M e111 = risfinite(e94);
            const M e114 = mnot(e111);
            const M e116 = mor(e113, e114);
            // loop_transitions.py, in <genexpr>: return GradientState(*(torch.where(accept, a, b) for a, b in new)), None
            const R e95 = rsel(e92, q18, s0_2);
            // test_repetition.py, in build: return ce.build_sampler(make(), transition, dim, backend=backend, dtype=dtype)
            const M e112 = risfinite(e95);
            const M e115 = mnot(e112);
            const M e117 = mor(e116, e115);
            const M e118 = mnot(e117);
            // loop_transitions.py, in <genexpr>: return GradientState(*(torch.where(accept, a, b) for a, b in new)), None
            const R e96 = rsel(e92, q22, s1_0);
            // test_repetition.py, in build: return ce.build_sampler(make(), transition, dim, backend=backend, dtype=dtype)
            const M e122 = risfinite(e96);
            const M e123 = mand(e118, e122);
            const M e134 = mnot(e123);
            const M e135 = mand(e125, e134);
            const I e136 = isel(e135, t0_0, f0_0);
            const M e126 = mand(e125, e123);
            // loop_transitions.py, in <genexpr>: return GradientState(*(torch.where(accept, a, b) for a, b in new)), None
            const R e97 = rsel(e92, q23, s2_0);
            // test_repetition.py, in build: return ce.build_sampler(make(), transition, dim, backend=backend, dtype=dtype)
            const R e131 = rsel(e126, e97, s2_0);
            // loop_transitions.py, in <genexpr>: return GradientState(*(torch.where(accept, a, b) for a, b in new)), None
            const R e98 = rsel(e92, q24, s2_1);
            // test_repetition.py, in build: return ce.build_sampler(make(), transition, dim, backend=backend, dtype=dtype)
            const R e132 = rsel(e126, e98, s2_1);
            // loop_transitions.py, in <genexpr>: return GradientState(*(torch.where(accept, a, b) for a, b in new)), None
            const R e99 = rsel(e92, q25, s2_2);
            // test_repetition.py, in build: return ce.build_sampler(make(), transition, dim, backend=backend, dtype=dtype)
            const R e133 = rsel(e126, e99, s2_2);
            const R e130 = rsel(e126, e96, s1_0);
            const R e127 = rsel(e126, e93, s0_0);
            const R e128 = rsel(e126, e94, s0_1);
            const R e129 = rsel(e126, e95, s0_2);
            const R n0 = e127;
            const R n1 = e128;
            const R n2 = e129;
            const R n3 = e130;
            const R n4 = e131;
            const R n5 = e132;
            const R n6 = e133;
            const I n7 = e136;
            s0_0 = n0;
            s0_1 = n1;
            s0_2 = n2;
            s1_0 = n3;
            s2_0 = n4;
            s2_1 = n5;
            s2_2 = n6;
            f0_0 = n7;
            if (thin && --until == 0) {
                keep_real(keep_x + (slot * n_kept_chains + tile * W) * 3L + 0, 3, left, s0_0);
                keep_real(keep_x + (slot * n_kept_chains + tile * W) * 3L + 1, 3, left, s0_1);
                keep_real(keep_x + (slot * n_kept_chains + tile * W) * 3L + 2, 3, left, s0_2);
                keep_real(keep_energy + (slot * n_kept_chains + tile * W) * 1L + 0, 1, left, s1_0);
                until = thin;
                ++slot;
            }
        }
        give_real(x_s0 + 0, 3, s0_0);
        give_real(x_s0 + 1, 3, s0_1);
        give_real(x_s0 + 2, 3, s0_2);
        give_real(x_s1 + 0, 1, s1_0);
        give_real(x_s2 + 0, 3, s2_0);
        give_real(x_s2 + 1, 3, s2_1);
        give_real(x_s2 + 2, 3, s2_2);
        give_int(x_f0 + 0, 1, f0_0);
    }
}
