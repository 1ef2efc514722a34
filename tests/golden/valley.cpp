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
    for (;;) {
        const long long tile = __atomic_fetch_add(next, 1, __ATOMIC_RELAXED);
        if (tile >= n_tiles) return;
        const ChainWords words = chain_words(ids + tile * W);
        const long left = (long)(n_kept_chains - tile * W);
        (void)words; (void)left;
        real* const x_s0 = p_s0 + tile * (W * 4L);
        R s0_0 = take_real(x_s0 + 0, 4);
        R s0_1 = take_real(x_s0 + 1, 4);
        R s0_2 = take_real(x_s0 + 2, 4);
        R s0_3 = take_real(x_s0 + 3, 4);
        real* const x_s1 = p_s1 + tile * (W * 1L);
        R s1_0 = take_real(x_s1 + 0, 1);
        real* const x_s2 = p_s2 + tile * (W * 4L);
        R s2_0 = take_real(x_s2 + 0, 4);
        R s2_1 = take_real(x_s2 + 1, 4);
        R s2_2 = take_real(x_s2 + 2, 4);
        R s2_3 = take_real(x_s2 + 3, 4);
        long long* const x_f0 = p_f0 + tile * (W * 1L);
        I f0_0 = take_int(x_f0 + 0, 1);
        long long until = until_kept, slot = 0;
        for (long long s = 0; s < n_steps; ++s) {
            const uint32_t step = (uint32_t)(first_step + s);
            (void)step;
            const I t0_0 = iset(first_step + s);
            const R h0_0 = rset(hyper[s * n_hyper + 0]);
            const R h1_0 = rset(hyper[s * n_hyper + 1]);
            R zb0[4];
            normals4(keys, words, 0u | normals_stream, step, zb0);
            const R z0_0 = zb0[0];
            const R z0_1 = zb0[1];
            const R z0_2 = zb0[2];
            const R z0_3 = zb0[3];
            // test_fused.py, in build: return ce.build_sampler(energy, transition or ce.Langevin(0.01), event, **options)
            const M e123 = ieq(f0_0, iset(-1LL));
            const R e17 = h0_0 * s2_0;
            const R e21 = s0_0 - e17;
            const R e25 = h1_0 * z0_0;
            const R e29 = e21 + e25;
            const R e108 = e29 * rset((real)0x0.0p+0);
            const R e18 = h0_0 * s2_1;
            const R e22 = s0_1 - e18;
            const R e26 = h1_0 * z0_1;
            const R e30 = e22 + e26;
            const R e109 = e30 * rset((real)0x0.0p+0);
            const R e112 = e108 + e109;
            const R e19 = h0_0 * s2_2;
            const R e23 = s0_2 - e19;
            const R e27 = h1_0 * z0_2;
            const R e31 = e23 + e27;
            const R e110 = e31 * rset((real)0x0.0p+0);
            const R e113 = e112 + e110;
            const R e20 = h0_0 * s2_3;
            const R e24 = s0_3 - e20;
            const R e28 = h1_0 * z0_3;
            const R e32 = e24 + e28;
            const R e111 = e32 * rset((real)0x0.0p+0);
            const R e114 = e113 + e111;
            const M e115 = req(e114, rset((real)0x0.0p+0));
            // test_fused.py, in valley: return (100.0 * (x[:, 1:] - x[:, :-1].square()).square() + (1 - x[:, :-1]).square()).sum(-1)
            const R e33 = e29 * e29;
            const R e36 = e30 - e33;
            const R e39 = e36 * e36;
            const R e43 = e39 * rset((real)0x1.9000000000000p+6);
            const R e47 = rset((real)0x1.0000000000000p+0) - e29;
            const R e50 = e47 * e47;
            const R e53 = e43 + e50;
            const R e34 = e30 * e30;
            const R e37 = e31 - e34;
            const R e40 = e37 * e37;
            const R e44 = e40 * rset((real)0x1.9000000000000p+6);
            const R e48 = rset((real)0x1.0000000000000p+0) - e30;
            const R e51 = e48 * e48;
            const R e54 = e44 + e51;
            const R e56 = e53 + e54;
            const R e35 = e31 * e31;
            const R e38 = e32 - e35;
            const R e41 = e38 * e38;
            const R e45 = e41 * rset((real)0x1.9000000000000p+6);
            const R e49 = rset((real)0x1.0000000000000p+0) - e31;
            const R e52 = e49 * e49;
            const R e55 = e45 + e52;
            const R e57 = e56 + e55;
            // test_fused.py, in build: return ce.build_sampler(energy, transition or ce.Langevin(0.01), event, **options)
            const M e120 = risfinite(e57);
            const M e121 = mand(e115, e120);
            const M e134 = mnot(e121);
            const M e135 = mand(e123, e134);
            const I e136 = isel(e135, t0_0, f0_0);
            const M e124 = mand(e123, e121);
            // test_fused.py, in valley: return (100.0 * (x[:, 1:] - x[:, :-1].square()).square() + (1 - x[:, :-1]).square()).sum(-1)
            const R e59 = e47 * rset((real)0x1.0000000000000p+1);
            const R e62 = r_neg(e59);
            const R e70 = rset((real)0x1.9000000000000p+7) * e36;
            const R e73 = r_neg(e70);
            const R e76 = e29 * rset((real)0x1.0000000000000p+1);
            const R e79 = e73 * e76;
            // a line outside the energy's own source
            const R e82 = e62 + e79;
            // test_fused.py, in build: return ce.build_sampler(energy, transition or ce.Langevin(0.01), event, **options)
            const R e130 = rsel(e124, e82, s2_0);
            // test_fused.py, in valley: return (100.0 * (x[:, 1:] - x[:, :-1].square()).square() + (1 - x[:, :-1]).square()).sum(-1)
            const R e60 = e48 * rset((real)0x1.0000000000000p+1);
            const R e63 = r_neg(e60);
            const R e71 = rset((real)0x1.9000000000000p+7) * e37;
            const R e74 = r_neg(e71);
            const R e77 = e30 * rset((real)0x1.0000000000000p+1);
            const R e80 = e74 * e77;
            // a line outside the energy's own source
            const R e83 = e63 + e80;
            const R e85 = e83 + e70;
            // test_fused.py, in build: return ce.build_sampler(energy, transition or ce.Langevin(0.01), event, **options)
            const R e131 = rsel(e124, e85, s2_1);
            // test_fused.py, in valley: return (100.0 * (x[:, 1:] - x[:, :-1].square()).square() + (1 - x[:, :-1]).square()).sum(-1)
            const R e61 = e49 * rset((real)0x1.0000000000000p+1);
            const R e64 = r_neg(e61);
            const R e72 = rset((real)0x1.9000000000000p+7) * e38;
            const R e75 = r_neg(e72);
            const R e78 = e31 * rset((real)0x1.0000000000000p+1);
            const R e81 = e75 * e78;
            // a line outside the energy's own source
            const R e84 = e64 + e81;
            const R e86 = e84 + e71;
            // test_fused.py, in build: return ce.build_sampler(energy, transition or ce.Langevin(0.01), event, **options)
            const R e132 = rsel(e124, e86, s2_2);
            const R e133 = rsel(e124, e72, s2_3);
            const R e129 = rsel(e124, e57, s1_0);
            const R e125 = rsel(e124, e29, s0_0);
            const R e126 = rsel(e124, e30, s0_1);
            const R e127 = rsel(e124, e31, s0_2);
            const R e128 = rsel(e124, e32, s0_3);
            const R n0 = e125;
            const R n1 = e126;
            const R n2 = e127;
            const R n3 = e128;
            const R n4 = e129;
            const R n5 = e130;
            const R n6 = e131;
            const R n7 = e132;
            const R n8 = e133;
            const I n9 = e136;
            s0_0 = n0;
            s0_1 = n1;
            s0_2 = n2;
            s0_3 = n3;
            s1_0 = n4;
            s2_0 = n5;
            s2_1 = n6;
            s2_2 = n7;
            s2_3 = n8;
            f0_0 = n9;
            if (thin && --until == 0) {
                keep_real(keep_x + (slot * n_kept_chains + tile * W) * 4L + 0, 4, left, s0_0);
                keep_real(keep_x + (slot * n_kept_chains + tile * W) * 4L + 1, 4, left, s0_1);
                keep_real(keep_x + (slot * n_kept_chains + tile * W) * 4L + 2, 4, left, s0_2);
                keep_real(keep_x + (slot * n_kept_chains + tile * W) * 4L + 3, 4, left, s0_3);
                keep_real(keep_energy + (slot * n_kept_chains + tile * W) * 1L + 0, 1, left, s1_0);
                until = thin;
                ++slot;
            }
        }
        give_real(x_s0 + 0, 4, s0_0);
        give_real(x_s0 + 1, 4, s0_1);
        give_real(x_s0 + 2, 4, s0_2);
        give_real(x_s0 + 3, 4, s0_3);
        give_real(x_s1 + 0, 1, s1_0);
        give_real(x_s2 + 0, 4, s2_0);
        give_real(x_s2 + 1, 4, s2_1);
        give_real(x_s2 + 2, 4, s2_2);
        give_real(x_s2 + 3, 4, s2_3);
        give_int(x_f0 + 0, 1, f0_0);
    }
}
