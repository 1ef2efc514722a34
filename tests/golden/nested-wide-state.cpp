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
    I* const __restrict iat = (I*)(at + 687);
    (void)iat; (void)uniforms_stream; (void)normals_stream; (void)hyper; (void)n_hyper; (void)first_step;
    real* const p_s0 = (real*)arrays[0];
    real* const p_s1 = (real*)arrays[1];
    real* const p_s2 = (real*)arrays[2];
    long long* const p_f0 = (long long*)arrays[3];
    const real* const c0 = (const real*)arrays[4];
    const real* const c1 = (const real*)arrays[5];
    const real* const c3 = (const real*)arrays[6];
    const real* const c4 = (const real*)arrays[7];
    const real* const w0 = (const real*)arrays[8];
    const real* const w1 = (const real*)arrays[9];
    const long long rounds0 = numbers[8];  // of repetition 0
    const long long rounds1 = numbers[9];  // of repetition 1
    for (;;) {
        const long long tile = __atomic_fetch_add(next, 1, __ATOMIC_RELAXED);
        if (tile >= n_tiles) return;
        const ChainWords words = chain_words(ids + tile * W);
        const long left = (long)(n_kept_chains - tile * W);
        (void)words; (void)left;
        real* const x_s0 = p_s0 + tile * (W * 40L);
        for (long e = 0; e < 40; ++e) at[0 + e] = take_real(x_s0 + e, 40);
        real* const x_s1 = p_s1 + tile * (W * 1L);
        R s1_0 = take_real(x_s1 + 0, 1);
        real* const x_s2 = p_s2 + tile * (W * 40L);
        for (long e = 0; e < 40; ++e) at[73 + e] = take_real(x_s2 + e, 40);
        long long* const x_f0 = p_f0 + tile * (W * 1L);
        I f0_0 = take_int(x_f0 + 0, 1);
        long long until = until_kept, slot = 0;
        for (long long s = 0; s < n_steps; ++s) {
            const uint32_t step = (uint32_t)(first_step + s);
            (void)step;
            const I t0_0 = iset(first_step + s);
            const R h0_0 = rset(hyper[s * n_hyper + 0]);
            for (long b = 0; b < 5; ++b) {
                R z[8];
                normals8(keys, words, 2 * (uint32_t)b | normals_stream, step, z);
                for (long j = 0; j < 8; ++j) at[146 + 8 * b + j] = z[j];
            }
            // loop_transitions.py, in step: kick = 0.1 * hyper.step_size.sqrt() * noise.normals
            const R e2615 = r_sqrt(h0_0);
            const R e2617 = e2615 * rset((real)0x1.999999999999ap-4);
            // loop_transitions.py, in step: start = (state.x, state.x.flip(0), torch.zeros_like(hyper.step_size, dtype=torch.int64), state.energy > 0)
            const M e2660 = rgt(s1_0, rset((real)0x0.0p+0));
            // test_repetition.py, in build: return ce.build_sampler(make(), transition, dim, backend=backend, dtype=dtype)
            const M e4321 = ieq(f0_0, iset(-1LL));
            for (long i = 0; i < 40; ++i) {
                // loop_transitions.py, in step: kick = 0.1 * hyper.step_size.sqrt() * noise.normals
                const R v2618 = e2617 * at[146 + i];
                at[146 + i] = v2618;
            }
            for (long i = 0; i < 40; ++i) {
                at[219 + i] = at[i];
            }
            for (long i = 0; i < 40; ++i) {
                at[292 + i] = at[39 + -1 * i];
            }
            I q2742 = iset(0LL);
            M q2743 = e2660;
            for (long long round0 = 0; round0 < rounds0; ++round0) {
                for (long i = 0; i < 40; ++i) {
                    at[365 + i] = at[292 + i];
                }
                R q2784 = rset((real)0x1.0000000000000p+0);
                for (long long round1 = 0; round1 < rounds1; ++round1) {
                    // test_repetition.py, in <lambda>: return lambda x: net(x).squeeze(-1) + 0.5 * x.square().sum(-1)
                    for (long b = 0; b < 3; ++b) {
                        R sum[10];
                        for (int j = 0; j < 10; ++j) sum[j] = rset(0);
                        const real* w = w0 + b * 400;
                        for (long k = 0; k < 40; ++k) {
                            const R h = at[365 + k];
                            LANES_UNROLL
                            for (int j = 0; j < 10; ++j) sum[j] += h * rset(w[k * 10 + j]);
                        }
                        LANES_UNROLL
                        for (int j = 0; j < 10; ++j) at[438 + (10 * b + j)] = sum[j];
                    }
                    for (long i = 0; i < 30; ++i) {
                        // test_repetition.py, in <lambda>: return lambda x: net(x).squeeze(-1) + 0.5 * x.square().sum(-1)
                        const R v2815 = at[438 + i] + rset(c0[i]);
                        const R v2845 = r_tanh(v2815);
                        const R v3032 = v2845 * v2845;
                        const R v3062 = rset((real)0x1.0000000000000p+0) - v3032;
                        const R v3092 = rset(c4[i]) * v3062;
                        at[438 + i] = v3092;
                    }
                    for (long i = 0; i < 40; ++i) {
                        // test_repetition.py, in <lambda>: return lambda x: net(x).squeeze(-1) + 0.5 * x.square().sum(-1)
                        const R v2952 = at[365 + i] * rset((real)0x1.0000000000000p+1);
                        const R v2992 = rset((real)0x1.0000000000000p-1) * v2952;
                        at[468 + i] = v2992;
                    }
                    for (long b = 0; b < 4; ++b) {
                        R sum[10];
                        for (int j = 0; j < 10; ++j) sum[j] = rset(0);
                        const real* w = w1 + b * 300;
                        for (long k = 0; k < 30; ++k) {
                            const R h = at[438 + k];
                            LANES_UNROLL
                            for (int j = 0; j < 10; ++j) sum[j] += h * rset(w[k * 10 + j]);
                        }
                        LANES_UNROLL
                        for (int j = 0; j < 10; ++j) at[541 + (10 * b + j)] = sum[j];
                    }
                    for (long i = 0; i < 40; ++i) {
                        // a line outside the energy's own source
                        const R v3162 = at[468 + i] + at[541 + i];
                        at[468 + i] = v3162;
                    }
                    // loop_transitions.py, in descend: return x - hyper.step_size * damping * grad, 0.5 * damping
                    const R e3202 = h0_0 * q2784;
                    const R e3283 = q2784 * rset((real)0x1.0000000000000p-1);
                    for (long i = 0; i < 40; ++i) {
                        // loop_transitions.py, in descend: return x - hyper.step_size * damping * grad, 0.5 * damping
                        const R v3203 = e3202 * at[468 + i];
                        const R v3243 = at[365 + i] - v3203;
                        at[365 + i] = v3243;
                    }
                    const R n0 = e3283;
                    q2784 = n0;
                }
                // loop_transitions.py, in swap: new = new + kick * torch.where(odd, 1.0, -1.0) / (count + 1)
                const R e3326 = rsel(q2743, rset((real)0x1.0000000000000p+0), rset((real)-0x1.0000000000000p+0));
                const I e3368 = iadd(q2742, iset(1LL));
                const R e3369 = i_to_r(e3368);
                // loop_transitions.py, in swap: return new, a, count + 1, ~odd
                const M e3450 = mnot(q2743);
                for (long i = 0; i < 40; ++i) {
                    // loop_transitions.py, in swap: new = new + kick * torch.where(odd, 1.0, -1.0) / (count + 1)
                    const R v3327 = at[146 + i] * e3326;
                    const R v3370 = v3327 / e3369;
                    const R v3410 = at[365 + i] + v3370;
                    at[365 + i] = v3410;
                }
                const I n0 = e3368;
                const M n1 = e3450;
                for (long i = 0; i < 40; ++i) {
                    at[614 + i] = at[219 + i];
                }
                for (long i = 0; i < 40; ++i) {
                    at[219 + i] = at[365 + i];
                }
                for (long i = 0; i < 40; ++i) {
                    at[292 + i] = at[614 + i];
                }
                q2742 = n0;
                q2743 = n1;
            }
            for (long i = 0; i < 40; ++i) {
                // loop_transitions.py, in step: x = a + 0.1 * (b - a) * (count - self.outer + 1)
                const R v3533 = at[292 + i] - at[219 + i];
                const R v3573 = v3533 * rset((real)0x1.999999999999ap-4);
                at[292 + i] = v3573;
            }
            const I e3614 = isub(q2742, iset(3LL));
            const I e3615 = iadd(e3614, iset(1LL));
            const R e3616 = i_to_r(e3615);
            R e3859 = rset(0);
            M e4313 = mset(0);
            for (long i = 0; i < 40; ++i) {
                // loop_transitions.py, in step: x = a + 0.1 * (b - a) * (count - self.outer + 1)
                const R v3617 = at[292 + i] * e3616;
                const R v3657 = at[219 + i] + v3617;
                at[219 + i] = v3657;
                // test_repetition.py, in <lambda>: return lambda x: net(x).squeeze(-1) + 0.5 * x.square().sum(-1)
                const R v3819 = v3657 * v3657;
                const R v3862 = v3657 * rset((real)0x1.0000000000000p+1);
                const R v3902 = rset((real)0x1.0000000000000p-1) * v3862;
                at[292 + i] = v3902;
                // test_repetition.py, in build: return ce.build_sampler(make(), transition, dim, backend=backend, dtype=dtype)
                const M v4233 = risfinite(v3657);
                const M v4273 = mnot(v4233);
                e3859 = e3859 + v3819;
                e4313 = mor(e4313, v4273);
            }
            // test_repetition.py, in <lambda>: return lambda x: net(x).squeeze(-1) + 0.5 * x.square().sum(-1)
            for (long b = 0; b < 3; ++b) {
                R sum[10];
                for (int j = 0; j < 10; ++j) sum[j] = rset(0);
                const real* w = w0 + b * 400;
                for (long k = 0; k < 40; ++k) {
                    const R h = at[219 + k];
                    LANES_UNROLL
                    for (int j = 0; j < 10; ++j) sum[j] += h * rset(w[k * 10 + j]);
                }
                LANES_UNROLL
                for (int j = 0; j < 10; ++j) at[438 + (10 * b + j)] = sum[j];
            }
            R e3817 = rset(0);
            for (long i = 0; i < 30; ++i) {
                // test_repetition.py, in <lambda>: return lambda x: net(x).squeeze(-1) + 0.5 * x.square().sum(-1)
                const R v3727 = at[438 + i] + rset(c0[i]);
                const R v3757 = r_tanh(v3727);
                const R v3787 = v3757 * rset(c3[i]);
                const R v3942 = v3757 * v3757;
                const R v3972 = rset((real)0x1.0000000000000p+0) - v3942;
                const R v4002 = rset(c4[i]) * v3972;
                at[438 + i] = v4002;
                e3817 = e3817 + v3787;
            }
            const R e3818 = e3817 + rset(c1[0]);
            const R e3860 = e3859 * rset((real)0x1.0000000000000p-1);
            const R e3861 = e3818 + e3860;
            // test_repetition.py, in build: return ce.build_sampler(make(), transition, dim, backend=backend, dtype=dtype)
            const M e4314 = mnot(e4313);
            const M e4318 = risfinite(e3861);
            const M e4319 = mand(e4314, e4318);
            const M e4322 = mand(e4321, e4319);
            const R e4363 = rsel(e4322, e3861, s1_0);
            const M e4404 = mnot(e4319);
            const M e4405 = mand(e4321, e4404);
            const I e4406 = isel(e4405, t0_0, f0_0);
            // test_repetition.py, in <lambda>: return lambda x: net(x).squeeze(-1) + 0.5 * x.square().sum(-1)
            for (long b = 0; b < 4; ++b) {
                R sum[10];
                for (int j = 0; j < 10; ++j) sum[j] = rset(0);
                const real* w = w1 + b * 300;
                for (long k = 0; k < 30; ++k) {
                    const R h = at[438 + k];
                    LANES_UNROLL
                    for (int j = 0; j < 10; ++j) sum[j] += h * rset(w[k * 10 + j]);
                }
                LANES_UNROLL
                for (int j = 0; j < 10; ++j) at[541 + (10 * b + j)] = sum[j];
            }
            for (long i = 0; i < 40; ++i) {
                // a line outside the energy's own source
                const R v4072 = at[292 + i] + at[541 + i];
                // test_repetition.py, in build: return ce.build_sampler(make(), transition, dim, backend=backend, dtype=dtype)
                const R v4323 = rsel(e4322, at[219 + i], at[i]);
                at[i] = v4323;
                const R v4364 = rsel(e4322, v4072, at[73 + i]);
                at[73 + i] = v4364;
            }
            const R n0 = e4363;
            const I n1 = e4406;
            s1_0 = n0;
            f0_0 = n1;
            if (thin && --until == 0) {
                for (long e = 0; e < 40; ++e) keep_real(keep_x + (slot * n_kept_chains + tile * W) * 40L + e, 40, left, at[0 + e]);
                keep_real(keep_energy + (slot * n_kept_chains + tile * W) * 1L + 0, 1, left, s1_0);
                until = thin;
                ++slot;
            }
        }
        for (long e = 0; e < 40; ++e) give_real(x_s0 + e, 40, at[0 + e]);
        give_real(x_s1 + 0, 1, s1_0);
        for (long e = 0; e < 40; ++e) give_real(x_s2 + e, 40, at[73 + e]);
        give_int(x_f0 + 0, 1, f0_0);
    }
}
