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
    I* const __restrict iat = (I*)(at + 762);
    (void)iat; (void)uniforms_stream; (void)normals_stream; (void)hyper; (void)n_hyper; (void)first_step;
    (void)kwargs; (void)energy_arrays; (void)limit;
    real* const x_array = (real*)arrays[0];
    real* const energy_array = (real*)arrays[1];
    real* const grad_array = (real*)arrays[2];
    long long* const failed_at_array = (long long*)arrays[3];
    const real* const net_0_bias = (const real*)arrays[4];
    const real* const net_2_bias = (const real*)arrays[5];
    const real* const net_2_weight_t = (const real*)arrays[6];
    const real* const net_0_weight_t_packed = (const real*)arrays[7];
    const real* const net_0_weight_t_packed_v2 = (const real*)arrays[8];
    const long long rounds0 = numbers[8];  // of repetition 0
    const long long rounds1 = numbers[9];  // of repetition 1
    for (;;) {
        const long long tile = __atomic_fetch_add(next, 1, __ATOMIC_RELAXED);
        if (tile >= n_tiles) return;
        const ChainWords words = chain_words(ids + tile * W);
        const long left = (long)(n_kept_chains - tile * W);
        (void)words; (void)left;
        real* const x_tile = x_array + tile * (W * 40L);
        for (long e = 0; e < 40; ++e) at[0 + e] = take_real(x_tile + e, 40);
        real* const energy_tile = energy_array + tile * (W * 1L);
        R energy = take_real(energy_tile + 0, 1);
        real* const grad_tile = grad_array + tile * (W * 40L);
        for (long e = 0; e < 40; ++e) at[73 + e] = take_real(grad_tile + e, 40);
        long long* const failed_at_tile = failed_at_array + tile * (W * 1L);
        I failed_at = take_int(failed_at_tile + 0, 1);
        R spread;
        long long until = until_kept, slot = 0;
        long long careful = 0, patience = 0;
        at[614] = energy;
        copy_all(at + 615, at + 0, 40);
        copy_all(at + 688, at + 614, 1);
        copy_all(at + 689, at + 73, 40);
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
                for (long b = 0; b < 5; ++b) {
                    R z[8];
                    normals8(keys, words, 2 * (uint32_t)b | normals_stream, step, z);
                    for (long j = 0; j < 8; ++j) at[146 + 8 * b + j] = z[j];
                }
                // loop_transitions.py, in step: kick = 0.1 * hyper.step_size.sqrt() * noise.normals
                const R e1385 = r_sqrt(step_size);
                const R e1387 = e1385 * rset((real)0.1);
                // loop_transitions.py, in step: start = (state.x, state.x.flip(0), torch.zeros_like(hyper.step_size, dtype=torch.int64), state.energy > 0)
                const M e1430 = rgt(energy, rset((real)0.0));
                for (long i = 0; i < 40; ++i) {
                    // loop_transitions.py, in step: kick = 0.1 * hyper.step_size.sqrt() * noise.normals
                    const R v1388 = e1387 * at[146 + i];
                    at[146 + i] = v1388;
                }
                for (long i = 0; i < 40; ++i) {
                    at[219 + i] = at[i];
                }
                for (long i = 0; i < 40; ++i) {
                    at[292 + i] = at[39 + -1 * i];
                }
                I q1512 = iset(0LL);
                M q1513 = e1430;
                for (long long round0 = 0; round0 < rounds0; ++round0) {
                    for (long i = 0; i < 40; ++i) {
                        at[365 + i] = at[292 + i];
                    }
                    R q1554 = rset((real)1.0);
                    for (long long round1 = 0; round1 < rounds1; ++round1) {
                        // test_repetition.py, in <lambda>: return lambda x: net(x).squeeze(-1) + 0.5 * x.square().sum(-1)
                        for (long b = 0; b < 3; ++b) {
                            R sum[10];
                            for (int j = 0; j < 10; ++j) sum[j] = rset(0);
                            const real* w = net_0_weight_t_packed + b * 400;
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
                            const R v1585 = at[438 + i] + rset(net_0_bias[i]);
                            const R v1615 = r_tanh(v1585);
                            const R v1762 = v1615 * v1615;
                            const R v1792 = rset((real)1.0) - v1762;
                            const R v1822 = rset(net_2_weight_t[i]) * v1792;
                            at[438 + i] = v1822;
                        }
                        for (long b = 0; b < 4; ++b) {
                            R sum[10];
                            for (int j = 0; j < 10; ++j) sum[j] = rset(0);
                            const real* w = net_0_weight_t_packed_v2 + b * 300;
                            for (long k = 0; k < 30; ++k) {
                                const R h = at[438 + k];
                                LANES_UNROLL
                                for (int j = 0; j < 10; ++j) sum[j] += h * rset(w[k * 10 + j]);
                            }
                            LANES_UNROLL
                            for (int j = 0; j < 10; ++j) at[468 + (10 * b + j)] = sum[j];
                        }
                        for (long i = 0; i < 40; ++i) {
                            // autograd's own: the sum of a gradient's parts
                            const R v1892 = at[365 + i] + at[468 + i];
                            at[468 + i] = v1892;
                        }
                        // loop_transitions.py, in descend: return x - hyper.step_size * damping * grad, 0.5 * damping
                        const R e1932 = step_size * q1554;
                        const R e2013 = q1554 * rset((real)0.5);
                        for (long i = 0; i < 40; ++i) {
                            // loop_transitions.py, in descend: return x - hyper.step_size * damping * grad, 0.5 * damping
                            const R v1933 = e1932 * at[468 + i];
                            const R v1973 = at[365 + i] - v1933;
                            at[365 + i] = v1973;
                        }
                        // the carry for the next round
                        const R n_q1554 = e2013;
                        q1554 = n_q1554;
                    }
                    // loop_transitions.py, in swap: new = new + kick * torch.where(odd, 1.0, -1.0) / (count + 1)
                    const R e2056 = rsel(q1513, rset((real)1.0), rset((real)-1.0));
                    const I e2098 = iadd(q1512, iset(1LL));
                    const R e2099 = i_to_r(e2098);
                    // loop_transitions.py, in swap: return new, a, count + 1, ~odd
                    const M e2180 = mnot(q1513);
                    for (long i = 0; i < 40; ++i) {
                        // loop_transitions.py, in swap: new = new + kick * torch.where(odd, 1.0, -1.0) / (count + 1)
                        const R v2057 = at[146 + i] * e2056;
                        const R v2100 = v2057 / e2099;
                        const R v2140 = at[365 + i] + v2100;
                        at[365 + i] = v2140;
                    }
                    // the carry for the next round
                    const I n_q1512 = e2098;
                    const M n_q1513 = e2180;
                    for (long i = 0; i < 40; ++i) {
                        at[541 + i] = at[219 + i];
                    }
                    for (long i = 0; i < 40; ++i) {
                        at[219 + i] = at[365 + i];
                    }
                    for (long i = 0; i < 40; ++i) {
                        at[292 + i] = at[541 + i];
                    }
                    q1512 = n_q1512;
                    q1513 = n_q1513;
                }
                for (long i = 0; i < 40; ++i) {
                    // loop_transitions.py, in step: x = a + 0.1 * (b - a) * (count - self.outer + 1)
                    const R v2263 = at[292 + i] - at[219 + i];
                    const R v2303 = v2263 * rset((real)0.1);
                    at[292 + i] = v2303;
                }
                const I e2344 = isub(q1512, iset(3LL));
                const I e2345 = iadd(e2344, iset(1LL));
                const R e2346 = i_to_r(e2345);
                R e2589 = rset(0);
                for (long i = 0; i < 40; ++i) {
                    // loop_transitions.py, in step: x = a + 0.1 * (b - a) * (count - self.outer + 1)
                    const R v2347 = at[292 + i] * e2346;
                    const R v2387 = at[219 + i] + v2347;
                    at[i] = v2387;
                    // test_repetition.py, in <lambda>: return lambda x: net(x).squeeze(-1) + 0.5 * x.square().sum(-1)
                    const R v2549 = v2387 * v2387;
                    e2589 = e2589 + v2549;
                }
                for (long b = 0; b < 3; ++b) {
                    R sum[10];
                    for (int j = 0; j < 10; ++j) sum[j] = rset(0);
                    const real* w = net_0_weight_t_packed + b * 400;
                    for (long k = 0; k < 40; ++k) {
                        const R h = at[k];
                        LANES_UNROLL
                        for (int j = 0; j < 10; ++j) sum[j] += h * rset(w[k * 10 + j]);
                    }
                    LANES_UNROLL
                    for (int j = 0; j < 10; ++j) at[438 + (10 * b + j)] = sum[j];
                }
                R e2547 = rset(0);
                for (long i = 0; i < 30; ++i) {
                    // test_repetition.py, in <lambda>: return lambda x: net(x).squeeze(-1) + 0.5 * x.square().sum(-1)
                    const R v2457 = at[438 + i] + rset(net_0_bias[i]);
                    const R v2487 = r_tanh(v2457);
                    const R v2517 = v2487 * rset(net_2_weight_t[i]);
                    const R v2632 = v2487 * v2487;
                    const R v2662 = rset((real)1.0) - v2632;
                    const R v2692 = rset(net_2_weight_t[i]) * v2662;
                    at[438 + i] = v2692;
                    e2547 = e2547 + v2517;
                }
                const R e2548 = e2547 + rset(net_2_bias[0]);
                const R e2590 = e2589 * rset((real)0.5);
                const R e2591 = e2548 + e2590;
                // the sampler's own: how far the chain has gone since the last check
                const R e2802 = e2591 * rset((real)0.0);
                const R e2803 = e2589 + e2802;
                const R e2805 = spread + e2803;
                // test_repetition.py, in <lambda>: return lambda x: net(x).squeeze(-1) + 0.5 * x.square().sum(-1)
                for (long b = 0; b < 4; ++b) {
                    R sum[10];
                    for (int j = 0; j < 10; ++j) sum[j] = rset(0);
                    const real* w = net_0_weight_t_packed_v2 + b * 300;
                    for (long k = 0; k < 30; ++k) {
                        const R h = at[438 + k];
                        LANES_UNROLL
                        for (int j = 0; j < 10; ++j) sum[j] += h * rset(w[k * 10 + j]);
                    }
                    LANES_UNROLL
                    for (int j = 0; j < 10; ++j) at[468 + (10 * b + j)] = sum[j];
                }
                for (long i = 0; i < 40; ++i) {
                    // autograd's own: the sum of a gradient's parts
                    const R v2762 = at[i] + at[468 + i];
                    at[73 + i] = v2762;
                }
                // the state for the next step
                const R energy_next = e2591;
                const R spread_next = e2805;
                energy = energy_next;
                spread = spread_next;
                if (thin && !exact && --until == 0) {

                for (long e = 0; e < 40; ++e) keep_real(keep_x + (slot * n_kept_chains + tile * W) * 40L + e, 40, left, at[0 + e]);
                keep_real(keep_energy + (slot * n_kept_chains + tile * W) * 1L + 0, 1, left, energy);
                    until = thin;
                    ++slot;
                }
            }
            // is everything finite, and was it all the way?
            at[614] = energy;

            const M alive = ieq(failed_at, iset(-1LL));
            const M fine = mand(all_finite(at + 0, 40), risfinite(at[614]));
            if (!exact && many(mand(alive, mnot(mand(fine, rle(spread, rset(limit[0]))))))) {
                // somewhere on the way a chain failed, or went where its energy may not be finite: again, step by step
                copy_all(at + 0, at + 615, 40);
                copy_all(at + 614, at + 688, 1);
                copy_all(at + 73, at + 689, 40);
                energy = at[614];
                patience = patience ? 2 * patience : 64;
                if (patience > 64 * 64) patience = 64 * 64;
                careful = patience;
                until = until_before;
                slot = slot_before;
                end = from;
                continue;
            }
            const M moves = mand(alive, fine);
            settle(at + 0, at + 615, 40, moves);
            settle(at + 614, at + 688, 1, moves);
            settle(at + 73, at + 689, 40, moves);
            energy = at[614];
            failed_at = isel(mand(alive, mnot(fine)), iset(first_step + end - 1), failed_at);
            if (careful) --careful;
            else patience /= 2;
            if (thin && exact && --until == 0) {
                for (long e = 0; e < 40; ++e) keep_real(keep_x + (slot * n_kept_chains + tile * W) * 40L + e, 40, left, at[0 + e]);
                keep_real(keep_energy + (slot * n_kept_chains + tile * W) * 1L + 0, 1, left, energy);
                until = thin;
                ++slot;
            }
        }
        for (long e = 0; e < 40; ++e) give_real(x_tile + e, 40, at[0 + e]);
        give_real(energy_tile + 0, 1, energy);
        for (long e = 0; e < 40; ++e) give_real(grad_tile + e, 40, at[73 + e]);
        give_int(failed_at_tile + 0, 1, failed_at);
    }
}
