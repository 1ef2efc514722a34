// Vectors of reals, their mathematics, and Philox normals: the part of the fused CPU kernels that is not generated.
//
// One source for AVX-512, AVX2 and anything else that GCC or Clang has vector extensions for. No header but <stdint.h>:
// the time that a kernel takes to compile is the time of its headers.
//
// -DREAL_BITS=32|64       float or double
// -DVECTOR_BYTES=64|32|16 width of a vector, by default the widest that the target has
//
// Every function gives the same bits at every width. Two things are needed for that. Sums of products are formed by
// fma(), never left to -ffp-contract, which decides by context; and no instruction is used that only some widths have,
// unless it rounds once as the others' sequence does (scalef). Targets without FMA round otherwise, within the same
// largest errors; only the steps that lose their meaning without a single rounding call libm's fma there, lane by lane.
// The words of Philox and the uniforms are the same bits everywhere.
//
// Selects are written `x > limit ? limit : x`, with x last: NaN fails every comparison, so that it passes through.
// The other order, like min(x, limit) of SSE, turns NaN into the limit and hides a divergence.
//
// Denormals are results like others, so long as the thread does not flush them (MXCSR). The largest errors, in units in
// the last place, stand in tests/test_lanes.py; costs, in benchmarks/lanes_cost.py.
//
// Never compile this with -ffast-math or -fassociative-math: range reductions and NaN tests would go.
#pragma once
#include <stdint.h>

#ifndef VECTOR_BYTES
#if defined(__AVX512F__) && defined(__AVX512DQ__)
#define VECTOR_BYTES 64
#elif defined(__AVX2__)
#define VECTOR_BYTES 32
#else
#define VECTOR_BYTES 16
#endif
#endif

#define LANES_INLINE static inline __attribute__((always_inline))
#define LANES_PRAGMA(text) _Pragma(#text)
#if defined(__clang__)
#define LANES_UNROLL LANES_PRAGMA(clang loop unroll(full))
#else
#define LANES_UNROLL LANES_PRAGMA(GCC unroll 16)
#endif
#if defined(__x86_64__) || defined(__i386__)
#define LANES_X86 1
#endif
#if defined(__FMA__) || defined(__aarch64__) || defined(__ARM_FEATURE_FMA)
#define LANES_FMA 1
#endif

namespace lanes {

#if REAL_BITS == 32
typedef float real;
typedef int32_t word;
typedef uint32_t uword;
constexpr int MANTISSA = 23, BIAS = 127;
#elif REAL_BITS == 64
typedef double real;
typedef long long word;
typedef unsigned long long uword;
constexpr int MANTISSA = 52, BIAS = 1023;
#else
#error "REAL_BITS: expected 32 or 64"
#endif

constexpr int W = VECTOR_BYTES / (int)sizeof(real);
constexpr int W64 = VECTOR_BYTES / 8;
constexpr int HALVES = 64 / REAL_BITS;  // vectors of 64-bit lanes for one vector of reals

typedef real R __attribute__((vector_size(VECTOR_BYTES)));
typedef word M __attribute__((vector_size(VECTOR_BYTES)));
typedef uword U __attribute__((vector_size(VECTOR_BYTES)));
typedef long long L __attribute__((vector_size(VECTOR_BYTES)));
typedef unsigned long long UL __attribute__((vector_size(VECTOR_BYTES)));

// W int64 lanes. Beside float the even lanes and the odd lanes stand apart, so that 64-bit and 32-bit lanes become one
// another by shifts within a lane; halves of consecutive lanes would cost a shuffle across the register each way.
#if REAL_BITS == 64
typedef L I;
#else
struct I {
    L even, odd;
};
#endif

#if REAL_BITS == 32
#define LANES_REAL(x) x##f
#else
#define LANES_REAL(x) x
#endif

// fit.py: begin
#if REAL_BITS == 32
constexpr real LN2_1 = 0x1.62e42ep-1f;
constexpr real LN2_2 = 0x1.efa39ep-25f;
constexpr real LN2_NEAREST = 0x1.62e43p-1f;
constexpr real LOG2E = 0x1.715476p+0f;
constexpr real LOG2E_LESS_1 = 0x1.c551dap-2f;
constexpr real LOG10E = 0x1.bcb7b2p-2f;
constexpr real LOG10_2_1 = 0x1.344134p-2f;
constexpr real LOG10_2_2 = 0x1.09f7ap-26f;
constexpr real PI_1 = 0x1.921fb4p+1f;
constexpr real PI_2 = 0x1.4442d2p-23f;
constexpr real HALF_PI_1 = 0x1.921fb4p+0f;
constexpr real HALF_PI_2 = 0x1.4442dp-24f;
constexpr real HALF_PI_3 = 0x1.84698ap-48f;
constexpr real QUARTER_PI_1 = 0x1.921fb4p-1f;
constexpr real QUARTER_PI_2 = 0x1.4442d2p-25f;
constexpr real TWO_OVER_PI = 0x1.45f306p-1f;
constexpr real TWO_THIRDS_1 = 0x1.555554p-1f;
constexpr real TWO_THIRDS_2 = 0x1.555556p-25f;
constexpr real TAN_EIGHTH = 0x1.a8279ap-2f;
constexpr real SQRT_HALF = 0x1.6a09e6p-1f;
constexpr real HALF_LOG_2PI = 0x1.d67f1cp-1f;
constexpr real LOG_PI = 0x1.250d04p+0f;
constexpr real HALF_SQRT_PI = 0x1.c5bf8ap-1f;
constexpr real SQRT_2 = 0x1.6a09e6p+0f;
constexpr real LN2_SHORT = 0x1.62e4p-1f;
constexpr real LN2_REST = 0x1.7f7d1cp-20f;
// (exp r - 1 - r) / r^2
constexpr real EXP[] = {0x1p-1f, 0x1.5554d8p-3f, 0x1.5554fep-5f, 0x1.12108p-7f, 0x1.6d345ap-10f};
// the same, for results near 0
constexpr real EXPM1[] = {0x1p-1f, 0x1.555556p-3f, 0x1.5554fep-5f, 0x1.110fccp-7f, 0x1.6d345ap-10f, 0x1.a2bfbep-13f};
// (2^r - 1) / r
constexpr real EXP2[] = {0x1.62e43p-1f, 0x1.ebfbep-3f, 0x1.c6b06cp-5f, 0x1.3b2a54p-7f, 0x1.5da97cp-10f, 0x1.44175ep-13f, 0x1.da62dcp-17f};
// (log(1 + f) - f + f^2 / 2) / f^3
constexpr real LOG[] = {0x1.555552p-2f, -0x1.0000c6p-2f, 0x1.99a168p-3f, -0x1.54d5b2p-3f, 0x1.22da06p-3f, -0x1.09a59p-3f, 0x1.0466ccp-3f, -0x1.4c1c5cp-4f};
// -2 (log(1 + f) - f) / f^2
constexpr real LOG_TWICE[] = {0x1.fffffcp-1f, -0x1.55563p-1f, 0x1.000464p-1f, -0x1.990d02p-2f, 0x1.536da2p-2f, -0x1.2f30d4p-2f, 0x1.242dc6p-2f, -0x1.71804cp-3f};
// (2 atanh s / s - 2 - 2 z / 3) / z^2, z = s^2
constexpr real ATANH[] = {0x1.9999a4p-2f, 0x1.2479eep-2f, 0x1.d819cp-3f};
// (2 atanh s / s - 2) / z, z = s^2
constexpr real ATANH_THIRD[] = {0x1.555556p-1f, 0x1.999868p-2f, 0x1.24d702p-2f, 0x1.bb3e24p-3f, 0x1.e0e4cep-3f};
// (sin x / x - 1) / z, z = x^2
constexpr real SIN[] = {-0x1.555552p-3f, 0x1.110bd6p-7f, -0x1.9aa9cp-13f};
// (cos x - 1 + z / 2) / z^2, z = x^2
constexpr real COS[] = {0x1.555554p-5f, -0x1.6c1292p-10f, 0x1.9bbf8ep-16f};
// sin(pi x / 2) / x, z = x^2
constexpr real SIN_QUARTER[] = {0x1.921fb6p+0f, -0x1.4abbeep-1f, 0x1.466be6p-4f, -0x1.2f7c3ep-8f};
// (cos(pi x / 2) - 1) / z, z = x^2
constexpr real COS_QUARTER[] = {-0x1.3bd3ccp+0f, 0x1.03c19ep-2f, -0x1.55a5bp-6f, 0x1.d09344p-11f};
// (asin x / x - 1) / z, z = x^2
constexpr real ASIN[] = {0x1.555554p-3f, 0x1.3334c6p-4f, 0x1.6d40ccp-5f, 0x1.ff8616p-6f, 0x1.10f0eap-6f, 0x1.19ecf4p-5f};
// (atan x / x - 1) / z, z = x^2
constexpr real ATAN[] = {-0x1.555554p-2f, 0x1.9996fep-3f, -0x1.241b3ep-3f, 0x1.b7b52p-4f, -0x1.073342p-4f};
// erf x / x - 1, z = x^2
constexpr real ERF[] = {0x1.06eba8p-3f, -0x1.812744p-2f, 0x1.ce2eap-4f, -0x1.b821e6p-6f, 0x1.55dcc6p-8f, -0x1.b99eb6p-11f, 0x1.c77348p-14f, -0x1.1fd45cp-17f};
// log erfc a, 1 <= a <= 4
constexpr real ERF_TAIL[] = {0x1.a3f488p-12f, -0x1.216f4cp+0f, -0x1.431e1p-1f, -0x1.c64714p-4f, 0x1.ba5ce2p-6f, -0x1.4910d8p-8f, 0x1.610a68p-11f, -0x1.f7f3d8p-15f, 0x1.9f8a34p-19f, -0x1.1ae6f4p-24f};
// erfc(a) exp(a^2) (1 + 2 a), in t = (a - 4) / (a + 4)
constexpr real ERFC[] = {0x1.3ba592p+0f, -0x1.1df1a2p-3f, 0x1.f7dd82p-7f, 0x1.16e734p-4f, -0x1.9da4a6p-4f, 0x1.806072p-4f, -0x1.10db56p-4f, 0x1.29ead4p-5f, -0x1.06c13p-6f, 0x1.c43486p-8f, 0x1.bc43d8p-11f};
// lgamma(2 + f) / f
constexpr real LGAMMA[] = {0x1.b0ee6p-2f, 0x1.4a34ccp-2f, -0x1.13df9ep-4f, 0x1.5132d2p-6f, -0x1.e464bp-8f, 0x1.7aa5ap-9f, -0x1.2fbf86p-10f, 0x1.0e59c4p-11f, -0x1.3cd3a4p-12f, 0x1.9dc56p-14f};
// x (lgamma x - (x - 1/2) log x + x - log(2 pi) / 2), z = 1 / x^2
constexpr real STIRLING[] = {0x1.555556p-4f, -0x1.6c2a06p-9f, 0x1.aa8158p-11f};
// (digamma x - log x + 1 / (2 x)) / z, z = 1 / x^2
constexpr real DIGAMMA[] = {-0x1.555556p-4f, 0x1.1112d2p-7f, -0x1.00685p-8f};
// (trigamma x - 1 / x - 1 / (2 x^2)) x^3, z = 1 / x^2
constexpr real TRIGAMMA[] = {0x1.555554p-3f, -0x1.1104a4p-5f, 0x1.7877b2p-6f};
// erfc(a) exp(a^2) (1 + 2 a), in t = (a - 4) / (a + 4), to the end
constexpr real ERFCX[] = {0x1.3ba592p+0f, -0x1.1df1aap-3f, 0x1.f7eeap-7f, 0x1.16ec2p-4f, -0x1.9dd4e2p-4f, 0x1.7ff538p-4f, -0x1.0fc0bep-4f, 0x1.30434p-5f, -0x1.092f58p-6f, 0x1.4d033cp-8f, -0x1.869268p-11f, -0x1.042f0ep-12f, 0x1.069ff2p-13f};
// erfinv(x) / x, w = -log(1 - x^2)
constexpr real ERFINV[] = {0x1.c5bf88p-1f, 0x1.db2a3ep-3f, 0x1.7a6286p-7f, -0x1.31af92p-9f, -0x1.0f4b52p-13f, 0x1.7e205ep-15f, 0x1.ecaf4cp-19f, -0x1.016a76p-19f, 0x1.cdcd24p-23f, -0x1.25388p-27f};
// y with erfc y = exp(-s^2), roughly
constexpr real ERFINV_TAIL[] = {-0x1.c9a9a8p-2f, 0x1.0ebe4p+0f, 0x1.0f3342p-8f, -0x1.7595bcp-9f, 0x1.c766aep-12f, -0x1.ef16d6p-16f, 0x1.9ded68p-21f};
#else
constexpr real LN2_1 = 0x1.62e42fefa39efp-1;
constexpr real LN2_2 = 0x1.abc9e3b39803fp-56;
constexpr real LN2_NEAREST = 0x1.62e42fefa39efp-1;
constexpr real LOG2E = 0x1.71547652b82fep+0;
constexpr real LOG2E_LESS_1 = 0x1.c551d94ae0bf8p-2;
constexpr real LOG10E = 0x1.bcb7b1526e50ep-2;
constexpr real LOG10_2_1 = 0x1.34413509f79fep-2;
constexpr real LOG10_2_2 = 0x1.e623e2566b02ep-55;
constexpr real PI_1 = 0x1.921fb54442d18p+1;
constexpr real PI_2 = 0x1.1a62633145c07p-53;
constexpr real HALF_PI_1 = 0x1.921fb54442d18p+0;
constexpr real HALF_PI_2 = 0x1.1a62633145c06p-54;
constexpr real HALF_PI_3 = 0x1.c1cd129024e09p-107;
constexpr real QUARTER_PI_1 = 0x1.921fb54442d18p-1;
constexpr real QUARTER_PI_2 = 0x1.1a62633145c07p-55;
constexpr real TWO_OVER_PI = 0x1.45f306dc9c883p-1;
constexpr real TWO_THIRDS_1 = 0x1.5555555555555p-1;
constexpr real TWO_THIRDS_2 = 0x1.5555555555555p-55;
constexpr real TAN_EIGHTH = 0x1.a827999fcef32p-2;
constexpr real SQRT_HALF = 0x1.6a09e667f3bcdp-1;
constexpr real HALF_LOG_2PI = 0x1.d67f1c864beb5p-1;
constexpr real LOG_PI = 0x1.250d048e7a1bdp+0;
constexpr real HALF_SQRT_PI = 0x1.c5bf891b4ef6bp-1;
constexpr real SQRT_2 = 0x1.6a09e667f3bcdp+0;
constexpr real LN2_SHORT = 0x1.62e42fefa3p-1;
constexpr real LN2_REST = 0x1.3de6af278ece6p-42;
// (exp r - 1 - r) / r^2
constexpr real EXP[] = {0x1p-1, 0x1.5555555555557p-3, 0x1.5555555555556p-5, 0x1.111111110ffc9p-7, 0x1.6c16c16c15f8bp-10, 0x1.a01a01ac86efap-13, 0x1.a01a01a864f97p-16, 0x1.71de002c5d941p-19, 0x1.27e4d71654043p-22, 0x1.af522b0894ddp-26, 0x1.1f7b02506a07ep-29};
// the same, for results near 0
constexpr real EXPM1[] = {0x1p-1, 0x1.5555555555557p-3, 0x1.5555555555556p-5, 0x1.111111110ffc9p-7, 0x1.6c16c16c15f8bp-10, 0x1.a01a01ac86efap-13, 0x1.a01a01a864f97p-16, 0x1.71de002c5d941p-19, 0x1.27e4d71654043p-22, 0x1.af522b0894ddp-26, 0x1.1f7b02506a07ep-29};
// (2^r - 1) / r
constexpr real EXP2[] = {0x1.62e42fefa39efp-1, 0x1.ebfbdff82c58fp-3, 0x1.c6b08d704a1dp-5, 0x1.3b2ab6fba4d46p-7, 0x1.5d87fe7875782p-10, 0x1.430912f8c2fe2p-13, 0x1.ffcbfd4249b76p-17, 0x1.62c020e4f86ddp-20, 0x1.b5234280152fcp-24, 0x1.e4d407e19bab6p-28, 0x1.ec56d001efe46p-32, 0x1.bdeac2a791191p-36};
// (log(1 + f) - f + f^2 / 2) / f^3
constexpr real LOG[] = {0x1.5555555555555p-2, -0x1.ffffffffffdfcp-3, 0x1.9999999999848p-3, -0x1.5555555593872p-3, 0x1.24924924e9db8p-3, -0x1.ffffffba30c15p-4, 0x1.c71c713fdd35bp-4, -0x1.9999ab0eec014p-4, 0x1.745d42339b4abp-4, -0x1.555310f797a1bp-4, 0x1.3b0ccd2b70b9fp-4, -0x1.24bac78bdf27cp-4, 0x1.11abf0e45a6dfp-4, -0x1.fd42634adcb66p-5, 0x1.d3007177f62a2p-5, -0x1.cb9f053ad1b53p-5, 0x1.04aed31a82307p-4, -0x1.ee95b2e0c79e3p-5, 0x1.c6ad60876ad21p-6};
// -2 (log(1 + f) - f) / f^2
constexpr real LOG_TWICE[] = {0x1p+0, -0x1.5555555555447p-1, 0x1.ffffffffffd49p-2, -0x1.99999999daba7p-2, 0x1.55555555bcfa4p-2, -0x1.249249000ad8cp-2, 0x1.ffffff6c5792ap-3, -0x1.c71c84099d255p-3, 0x1.9999c75d4470bp-3, -0x1.745ab8a34a2aep-3, 0x1.554e0e44523d8p-3, -0x1.3b3dfcb6e9dd1p-3, 0x1.253524b305912p-3, -0x1.0fa329fa46624p-3, 0x1.f0631d04629d7p-4, -0x1.e687a75c10115p-4, 0x1.12d33012bf54ap-3, -0x1.042c9206ee6cp-3, 0x1.de0c63dabfba2p-5};
// (2 atanh s / s - 2 - 2 z / 3) / z^2, z = s^2
constexpr real ATANH[] = {0x1.999999999999ap-2, 0x1.2492492492207p-2, 0x1.c71c71c7b3957p-3, 0x1.745d16c7c0251p-3, 0x1.3b13e90c58d1cp-3, 0x1.1103066ba4cc9p-3, 0x1.e5eb102af22dap-4, 0x1.5fc9b10cf862dp-4, 0x1.06c140435187cp-2};
// (2 atanh s / s - 2) / z, z = s^2
constexpr real ATANH_THIRD[] = {0x1.5555555555555p-1, 0x1.9999999999b14p-2, 0x1.2492492483d8bp-2, 0x1.c71c71ce2576bp-3, 0x1.745d16a84ba23p-3, 0x1.3b13a734e045cp-3, 0x1.11148f5500935p-3, 0x1.e132c6aeb487dp-4, 0x1.b834479926f5cp-4, 0x1.42eb80c7b73cfp-4, 0x1.3260477c275ebp-3};
// (sin x / x - 1) / z, z = x^2
constexpr real SIN[] = {-0x1.5555555555555p-3, 0x1.1111111111021p-7, -0x1.a01a019fe9a6cp-13, 0x1.71de3a1275818p-19, -0x1.ae63fbe910a51p-26, 0x1.60e8e4809a6dap-33, -0x1.8f22f68dd14dap-41};
// (cos x - 1 + z / 2) / z^2, z = x^2
constexpr real COS[] = {0x1.5555555555555p-5, -0x1.6c16c16c168b6p-10, 0x1.a01a019f3285dp-16, -0x1.27e4f9faf16bdp-22, 0x1.1eeb4f3814e2fp-29, -0x1.906d2ca4e6a67p-37};
// sin(pi x / 2) / x, z = x^2
constexpr real SIN_QUARTER[] = {0x1.921fb54442d18p+0, -0x1.4abbce625bep-1, 0x1.466bc67753af2p-4, -0x1.32d2ccddd502ep-8, 0x1.50782a54206ddp-13, -0x1.e2f9f16dcbe81p-19, 0x1.e00773e3052acp-25, 0x1.e74309a4d101ap-32};
// (cos(pi x / 2) - 1) / z, z = x^2
constexpr real COS_QUARTER[] = {-0x1.3bd3cc9be45dep+0, 0x1.03c1f081b59f1p-2, -0x1.55d3c7e3a870fp-6, 0x1.e1f5063471d63p-11, -0x1.a6d18b26d7343p-16, 0x1.f94c1147d830fp-22, -0x1.5c8fdf2bf4cb9p-28, -0x1.6f68f7e35c52cp-30};
// (asin x / x - 1) / z, z = x^2
constexpr real ASIN[] = {0x1.5555555555556p-3, 0x1.3333333332ddp-4, 0x1.6db6db6e433f6p-5, 0x1.f1c71c151278p-6, 0x1.6e8bb2f52b686p-6, 0x1.1c4d1ccd774f9p-6, 0x1.c9d1b64da4165p-7, 0x1.780dc5a9d01a6p-7, 0x1.52d9116d7b69bp-7, 0x1.60d7477c0be6p-8, 0x1.203bdbeaff9a8p-6, -0x1.f01477e18c949p-7, 0x1.da43d6d1db199p-6};
// (atan x / x - 1) / z, z = x^2
constexpr real ATAN[] = {-0x1.5555555555555p-2, 0x1.9999999999812p-3, -0x1.2492492481965p-3, 0x1.c71c71bc7ef2cp-4, -0x1.745d155fd83dp-4, 0x1.3b137b38d28e2p-4, -0x1.110d1ec2b51ap-4, 0x1.e17dc96fa3e58p-5, -0x1.abc1b093d22cep-5, 0x1.71e7176d5fd0bp-5, -0x1.1444cd9f3ead7p-5, 0x1.f9717a4b306b5p-7};
// erf x / x - 1, z = x^2
constexpr real ERF[] = {0x1.06eba8214db69p-3, -0x1.812746b037a02p-2, 0x1.ce2f21a043b39p-4, -0x1.b82ce312c904p-6, 0x1.565bcd17e78b1p-8, -0x1.c02db5bf44215p-11, 0x1.f9a35d6154cf9p-14, -0x1.f4d6e39d4c49fp-17, 0x1.ba29d078221cbp-20, -0x1.622465af90574p-23, 0x1.11289c19070a9p-26, -0x1.fbaaf1883688p-30, 0x1.46d476713e659p-32, -0x1.371953252d2fdp-35};
// erfc(a) exp(a^2) (1 + 2 a), in t = (a - 4) / (a + 4)
constexpr real ERFC[] = {0x1.3ba5916e9fd7fp+0, -0x1.1df1ad154a28fp-3, 0x1.f7f5df66fcab9p-7, 0x1.16ecefcfa53ebp-4, -0x1.9ddb23c3e548cp-4, 0x1.7fee004e122d7p-4, -0x1.0fb06dfe89fd3p-4, 0x1.3079edf675c06p-5, -0x1.0962387b699dcp-6, 0x1.49c6728ec845ep-8, -0x1.8d4aa0ee0bef8p-11, -0x1.a1df2ebd14c62p-13, 0x1.3be0a538c7952p-13, -0x1.9957e1e201957p-16, -0x1.7894191bcae25p-17, 0x1.7f1901ea8a873p-18, 0x1.3c6f70e78df36p-22, -0x1.ba3cc7148b808p-21, 0x1.3f9df49ba6fb3p-24, 0x1.d2bd4e29720f2p-24, -0x1.3a8d0e01b712dp-26, -0x1.d5105dd8526a7p-27, 0x1.21a3b2af859e3p-29, 0x1.62f779e4fb94ap-30};
// lgamma(2 + f) / f
constexpr real LGAMMA[] = {0x1.b0ee6072093cep-2, 0x1.4a34cc4a60fa6p-2, -0x1.13e001a5575b3p-4, 0x1.51322ac7d8745p-6, -0x1.e404fc21a599p-8, 0x1.7add6ead69acp-9, -0x1.38ac5c2157569p-10, 0x1.0b36afa77f1a7p-11, -0x1.d3fd51dfe5d81p-13, 0x1.a127a090b092cp-14, -0x1.78dd932a3b085p-15, 0x1.581044fc5419fp-16, -0x1.3ccd166ae771dp-17, 0x1.255c50a57f72fp-18, -0x1.1104232488f4dp-19, 0x1.03dc44d95e35ap-20, -0x1.e5442d38c4724p-22, 0x1.8a73b477b74aap-23, -0x1.f20277e1aac68p-24, 0x1.55106539b236p-24};
// x (lgamma x - (x - 1/2) log x + x - log(2 pi) / 2), z = 1 / x^2
constexpr real STIRLING[] = {0x1.5555555555555p-4, -0x1.6c16c16c107e3p-9, 0x1.a01a015bdfb5ep-11, -0x1.38132efd60fe8p-11, 0x1.b91eafc1492fbp-11, -0x1.ee057b68e3476p-10, 0x1.41c9e20eef93bp-8, 0x1.53e24f95c3e1bp-10};
// (digamma x - log x + 1 / (2 x)) / z, z = 1 / x^2
constexpr real DIGAMMA[] = {-0x1.5555555555555p-4, 0x1.111111110f59p-7, -0x1.041040f9954efp-8, 0x1.1111028c5fc1ep-8, -0x1.f07151ae0d928p-8, 0x1.586cfdefbfe37p-6, -0x1.42b6e32aa3386p-4, 0x1.1d07877cee66dp-2};
// (trigamma x - 1 / x - 1 / (2 x^2)) x^3, z = 1 / x^2
constexpr real TRIGAMMA[] = {0x1.5555555555555p-3, -0x1.111111110f973p-5, 0x1.86186178ff949p-6, -0x1.111104e4077d3p-5, 0x1.3647c75a5d984p-4, -0x1.026ababbece0fp-2, 0x1.1b9fd705964cdp+0, -0x1.233f7cc5eb4b5p+2};
// erfc(a) exp(a^2) (1 + 2 a), in t = (a - 4) / (a + 4), to the end
constexpr real ERFCX[] = {0x1.3ba5916e9fd7fp+0, -0x1.1df1ad154a28ep-3, 0x1.f7f5df66fcb15p-7, 0x1.16ecefcfa5349p-4, -0x1.9ddb23c3e57f8p-4, 0x1.7fee004e13081p-4, -0x1.0fb06dfe848a7p-4, 0x1.3079edf66a8bdp-5, -0x1.0962387c71388p-6, 0x1.49c6728d5a219p-8, -0x1.8d4aa01556f71p-11, -0x1.a1df2a9e6b61p-13, 0x1.3be09892c51e9p-13, -0x1.9958adea35a37p-16, -0x1.789280c42b273p-17, 0x1.7f237f447fdc6p-18, 0x1.3c4a5ed2e502cp-22, -0x1.bae10b3534b8ap-21, 0x1.3ec55a66172f4p-24, 0x1.d8e43250164a4p-24, -0x1.3184fe7815451p-26, -0x1.f98b5e3982875p-27, 0x1.beec8b3daab4dp-30, 0x1.ec7ac3ba7f821p-30, 0x1.04e3042b4033p-32, -0x1.2eba85fced01fp-33, -0x1.411389e017057p-34};
// erfinv(x) / x, w = -log(1 - x^2)
constexpr real ERFINV[] = {0x1.c5bf891b4ef6dp-1, 0x1.db29fb2fee07dp-3, 0x1.7a72e72cb34b7p-7, -0x1.32110277c8e9ep-9, -0x1.0c86aec967e92p-13, 0x1.8700c279b198bp-15, 0x1.0f33af2f6cfefp-19, -0x1.101873e96d7c2p-20, -0x1.347f1cba6231ap-25, 0x1.709adcfd95acfp-26, 0x1.e24823db61fcap-30, -0x1.30b75ecdcceadp-30, 0x1.15631be075d98p-32, -0x1.7537b9b72902dp-34, 0x1.e9bff2742e388p-36, -0x1.b95976e36f362p-38, 0x1.0e529b54b58dbp-40, -0x1.cb362853d78b1p-44, 0x1.0ca790f3c7347p-47, -0x1.9cdd18c98804bp-52, 0x1.6df971b6d2661p-57, -0x1.d531a3300601ep-64, -0x1.2e2df7cb0d8a6p-70};
// y with erfc y = exp(-s^2), roughly
constexpr real ERFINV_TAIL[] = {-0x1.e08e3e2c3c17dp-2, 0x1.164751290e967p+0, -0x1.5c8bca07dfc37p-7, 0x1.9b6c6c87d4c75p-11, -0x1.199b9a9bfc319p-15, 0x1.99f1ff0a69338p-21, -0x1.e97dcb47a014p-28};
#endif
// fit.py: end

constexpr real INF = __builtin_inff();
constexpr real NOT_A_NUMBER = __builtin_nanf("");
// Adding 1.5 2^MANTISSA rounds to an integer and leaves it in the low bits, for integers below 2^(MANTISSA - 1).
constexpr real ROUNDER = (real)(3LL << (MANTISSA - 1));
constexpr real INTEGERS = (real)(1LL << MANTISSA);  // from here on every real is an integer
constexpr real LEAST_NORMAL = REAL_BITS == 32 ? (real)0x1p-126f : (real)0x1p-1022;
constexpr real HUGE_REAL = REAL_BITS == 32 ? (real)0x1p126f : (real)0x1p1022;
constexpr real ROOT_HUGE = REAL_BITS == 32 ? (real)0x1p60f : (real)0x1p500;  // its square is far from both ends
constexpr real RESCALE = REAL_BITS == 32 ? (real)0x1p90f : (real)0x1p600;    // brings any real to where squares are safe
constexpr word SIGN = (word)((uword)1 << (REAL_BITS - 1));
constexpr word FRACTION = ((word)1 << MANTISSA) - 1;

// ---------------------------------------------------------------------------------------------- broadcasts, memory

// `a - R{}` is a for every a, -0 included, and compilers know it; `R{} + a` is a true addition (-0 becomes 0).
LANES_INLINE R rset(real a) { return a - R{}; }
LANES_INLINE M wset(word a) { return a - M{}; }
LANES_INLINE UL ulset(unsigned long long a) { return a - UL{}; }
LANES_INLINE M mset(bool a) { return wset(a ? -1 : 0); }
LANES_INLINE R rload(const real* p) { return *(const R*)__builtin_assume_aligned(p, VECTOR_BYTES); }
LANES_INLINE void rstore(real* p, R a) { *(R*)__builtin_assume_aligned(p, VECTOR_BYTES) = a; }

// Hides where a value comes from: a product that leaves here is not contracted into the caller's sum, and so has the
// same bits wherever it is used.
LANES_INLINE R opaque(R a) {
#if defined(LANES_X86)
    __asm__("" : "+v"(a));
#elif defined(__aarch64__)
    __asm__("" : "+w"(a));
#endif
    return a;
}

// ------------------------------------------------------------------------------------------------------- lane masks

LANES_INLINE M req(R a, R b) { return (M)(a == b); }
LANES_INLINE M rne(R a, R b) { return (M)(a != b); }
LANES_INLINE M rlt(R a, R b) { return (M)(a < b); }
LANES_INLINE M rle(R a, R b) { return (M)(a <= b); }
LANES_INLINE M rgt(R a, R b) { return (M)(a > b); }
LANES_INLINE M rge(R a, R b) { return (M)(a >= b); }
LANES_INLINE M mand(M a, M b) { return a & b; }
LANES_INLINE M mor(M a, M b) { return a | b; }
LANES_INLINE M mxor(M a, M b) { return a ^ b; }
LANES_INLINE M mnot(M a) { return ~a; }
LANES_INLINE R rsel(M m, R a, R b) { return m ? a : b; }
// The same where there are hundreds, as in a sorting network: GCC looks through selects of selects, and takes seconds.
LANES_INLINE R rsel_apart(M m, R a, R b) { return opaque(m ? a : b); }
LANES_INLINE M msel(M m, M a, M b) { return m ? a : b; }

// Whether any lane of the mask is set.
LANES_INLINE bool many(M m) {
#if defined(LANES_X86) && VECTOR_BYTES == 64
    unsigned short k;
    __asm__("vptestmd %1, %1, %0" : "=k"(k) : "v"(m));
    return k != 0;
#elif defined(LANES_X86) && VECTOR_BYTES == 32
    int k;
    __asm__("vpmovmskb %1, %0" : "=r"(k) : "x"(m));
    return k != 0;
#else
    L l = (L)m;
    long long all = 0;
    LANES_UNROLL
    for (int i = 0; i < W64; i++) all |= l[i];
    return all != 0;
#endif
}
LANES_INLINE bool mall(M m) { return !many(~m); }

// ------------------------------------------------------------------------------------------------- basic arithmetic

// a b + c, rounded once where the target can.
LANES_INLINE R fma(R a, R b, R c) {
#if defined(__clang__) && defined(LANES_FMA)
    return __builtin_elementwise_fma(a, b, c);
#elif defined(__FMA__) && VECTOR_BYTES == 64 && REAL_BITS == 32
    return (R)__builtin_ia32_vfmaddps512_mask(a, b, c, -1, 4);
#elif defined(__FMA__) && VECTOR_BYTES == 64
    return (R)__builtin_ia32_vfmaddpd512_mask(a, b, c, -1, 4);
#elif defined(__FMA__) && VECTOR_BYTES == 32 && REAL_BITS == 32
    return __builtin_ia32_vfmaddps256(a, b, c);
#elif defined(__FMA__) && VECTOR_BYTES == 32
    return __builtin_ia32_vfmaddpd256(a, b, c);
#elif defined(__FMA__) && REAL_BITS == 32
    return __builtin_ia32_vfmaddps(a, b, c);
#elif defined(__FMA__)
    return __builtin_ia32_vfmaddpd(a, b, c);
#elif defined(__aarch64__) && REAL_BITS == 32
    __asm__("fmla %0.4s, %1.4s, %2.4s" : "+w"(c) : "w"(a), "w"(b));
    return c;
#elif defined(__aarch64__)
    __asm__("fmla %0.2d, %1.2d, %2.2d" : "+w"(c) : "w"(a), "w"(b));
    return c;
#else
    return a * b + c;
#endif
}
LANES_INLINE R fma(R a, real b, R c) { return fma(a, rset(b), c); }
LANES_INLINE R fma(R a, real b, real c) { return fma(a, rset(b), rset(c)); }
LANES_INLINE R fma(R a, R b, real c) { return fma(a, b, rset(c)); }

// The same where one rounding is the point: remainders of products and of range reductions.
LANES_INLINE R fma_exact(R a, R b, R c) {
#if defined(LANES_FMA)
    return fma(a, b, c);
#else
    R y = c;
    for (int i = 0; i < W; i++) {
#if REAL_BITS == 32
        y[i] = __builtin_fmaf(a[i], b[i], c[i]);
#else
        y[i] = __builtin_fma(a[i], b[i], c[i]);
#endif
    }
    return y;
#endif
}
LANES_INLINE R fma_exact(R a, real b, R c) { return fma_exact(a, rset(b), c); }

// c[first] + c[first + stride] y + c[first + 2 stride] y^2 + ...
template <int at, int first, int stride, int N>
LANES_INLINE R horner_down(R y, R sum, const real (&c)[N]) {
    if constexpr (at < first) {
        return sum;
    } else {
        return horner_down<at - stride, first, stride, N>(y, fma(sum, y, c[at]), c);
    }
}
template <int first, int stride, int N>
LANES_INLINE R horner_part(R y, const real (&c)[N]) {
    constexpr int last = first + (N - 1 - first) / stride * stride;
    return horner_down<last - stride, first, stride, N>(y, rset(c[last]), c);
}
// c[0] + c[1] x + ..., with z = x^2 at hand. Horner's form is the least work, but a chain of dependent operations longer
// than a core looks ahead: it is cut into two chains, or four where it is long, which cost one product or none.
template <int N>
LANES_INLINE R horner(R x, R z, const real (&c)[N]) {
    if constexpr (N < 12) {
        return fma(horner_part<1, 2>(z, c), x, horner_part<0, 2>(z, c));
    } else {
        R y = z * z;
        R low = fma(horner_part<1, 4>(y, c), x, horner_part<0, 4>(y, c));
        R high = fma(horner_part<3, 4>(y, c), x, horner_part<2, 4>(y, c));
        return fma(high, z, low);
    }
}
template <int N>
LANES_INLINE R horner(R x, const real (&c)[N]) {
    if constexpr (N < 6) {
        return horner_part<0, 1>(x, c);
    } else {
        return horner(x, x * x, c);
    }
}

LANES_INLINE R r_abs(R a) { return (R)((M)a & ~wset(SIGN)); }
LANES_INLINE R r_neg(R a) { return (R)((M)a ^ wset(SIGN)); }
LANES_INLINE R r_copysign(R a, R b) { return (R)(((M)a & ~wset(SIGN)) | ((M)b & wset(SIGN))); }

LANES_INLINE R r_sqrt(R a) {
    R y;
#if defined(LANES_X86) && defined(__AVX__) && REAL_BITS == 32
    __asm__("vsqrtps %1, %0" : "=v"(y) : "v"(a));
#elif defined(LANES_X86) && defined(__AVX__)
    __asm__("vsqrtpd %1, %0" : "=v"(y) : "v"(a));
#elif defined(LANES_X86) && REAL_BITS == 32
    __asm__("sqrtps %1, %0" : "=x"(y) : "x"(a));
#elif defined(LANES_X86)
    __asm__("sqrtpd %1, %0" : "=x"(y) : "x"(a));
#elif defined(__aarch64__) && REAL_BITS == 32
    __asm__("fsqrt %0.4s, %1.4s" : "=w"(y) : "w"(a));
#elif defined(__aarch64__)
    __asm__("fsqrt %0.2d, %1.2d" : "=w"(y) : "w"(a));
#else
    y = a;
    for (int i = 0; i < W; i++) y[i] = (real)__builtin_sqrt((double)a[i]);  // of a float: rounding twice is harmless
#endif
    return y;
}
LANES_INLINE R r_rsqrt(R a) { return rset(1) / r_sqrt(a); }

LANES_INLINE M risnan(R a) { return (M)(a != a); }
LANES_INLINE M risinf(R a) { return (M)(r_abs(a) == rset(INF)); }
LANES_INLINE M risfinite(R a) { return (M)(r_abs(a) < rset(INF)); }

// Clamps that let NaN through. GCC makes a comparison and a blend of the select at 512 bits, so the instruction is
// named: minps gives its second operand, here x, when either is NaN.
LANES_INLINE R at_most(R x, real limit) {
#if defined(LANES_X86) && defined(__AVX__) && REAL_BITS == 32
    __asm__("vminps %0, %1, %0" : "+v"(x) : "v"(rset(limit)));
    return x;
#elif defined(LANES_X86) && defined(__AVX__)
    __asm__("vminpd %0, %1, %0" : "+v"(x) : "v"(rset(limit)));
    return x;
#else
    return x > rset(limit) ? rset(limit) : x;
#endif
}
LANES_INLINE R at_least(R x, real limit) {
#if defined(LANES_X86) && defined(__AVX__) && REAL_BITS == 32
    __asm__("vmaxps %0, %1, %0" : "+v"(x) : "v"(rset(limit)));
    return x;
#elif defined(LANES_X86) && defined(__AVX__)
    __asm__("vmaxpd %0, %1, %0" : "+v"(x) : "v"(rset(limit)));
    return x;
#else
    return x < rset(limit) ? rset(limit) : x;
#endif
}

// torch.minimum and maximum: NaN if either is.
LANES_INLINE R r_min(R a, R b) { return risnan(b) ? b : (b < a ? b : a); }
LANES_INLINE R r_max(R a, R b) { return risnan(b) ? b : (b > a ? b : a); }
// torch.fmin and fmax: NaN only if both are.
LANES_INLINE R r_fmin(R a, R b) { return risnan(b) ? a : (a < b ? a : b); }
LANES_INLINE R r_fmax(R a, R b) { return risnan(b) ? a : (a > b ? a : b); }
// torch.sign: 0 for NaN and for both zeros.
LANES_INLINE R r_sign(R a) { return a > rset(0) ? rset(1) : (a < rset(0) ? rset(-1) : rset(0)); }

#if defined(LANES_X86) && VECTOR_BYTES == 64 && REAL_BITS == 32
#define LANES_ROUND(mode, y, a) __asm__("vrndscaleps $" #mode ", %1, %0" : "=v"(y) : "v"(a))
#elif defined(LANES_X86) && VECTOR_BYTES == 64
#define LANES_ROUND(mode, y, a) __asm__("vrndscalepd $" #mode ", %1, %0" : "=v"(y) : "v"(a))
#elif defined(LANES_X86) && defined(__AVX__) && REAL_BITS == 32
#define LANES_ROUND(mode, y, a) __asm__("vroundps $" #mode ", %1, %0" : "=x"(y) : "x"(a))
#elif defined(LANES_X86) && defined(__AVX__)
#define LANES_ROUND(mode, y, a) __asm__("vroundpd $" #mode ", %1, %0" : "=x"(y) : "x"(a))
#endif
#if defined(LANES_ROUND)
LANES_INLINE R r_round(R a) { R y; LANES_ROUND(8, y, a); return y; }
LANES_INLINE R r_floor(R a) { R y; LANES_ROUND(9, y, a); return y; }
LANES_INLINE R r_ceil(R a) { R y; LANES_ROUND(10, y, a); return y; }
LANES_INLINE R r_trunc(R a) { R y; LANES_ROUND(11, y, a); return y; }
#else
LANES_INLINE R r_round(R a) {
    R b = r_abs(a);
    R y = opaque(b + rset(INTEGERS)) - rset(INTEGERS);
    return r_copysign(b < rset(INTEGERS) ? y : b, a);
}
LANES_INLINE R r_floor(R a) { R y = r_round(a); return r_copysign(y > a ? y - rset(1) : y, a); }
LANES_INLINE R r_ceil(R a) { R y = r_round(a); return r_copysign(y < a ? y + rset(1) : y, a); }
LANES_INLINE R r_trunc(R a) { R b = r_abs(a), y = r_round(b); return r_copysign(y > b ? y - rset(1) : y, a); }
#endif

// ----------------------------------------------------------------------------------------------------- int64 lanes

#if REAL_BITS == 64
#define LANES_EACH(expression) [&] { L a = a_, b = b_; (void)b; return expression; }()
LANES_INLINE I iset(long long a) { return a - L{}; }
LANES_INLINE I iload(const long long* p) { L y; __builtin_memcpy(&y, p, sizeof y); return y; }
LANES_INLINE void istore(long long* p, I a) { __builtin_memcpy(p, &a, sizeof a); }
LANES_INLINE I m_to_i(M m) { return m & 1; }
LANES_INLINE M i_to_m(I a) { return (M)(a != 0); }
LANES_INLINE I isel(M m, I a, I b) { return m ? a : b; }
LANES_INLINE R i_to_r(I a) { return __builtin_convertvector(a, R); }
LANES_INLINE I r_to_i(R a) { return __builtin_convertvector(a, L); }
#define LANES_UNARY(name, expression) LANES_INLINE I name(I a) { return (I)(expression); }
#define LANES_BINARY(name, expression) LANES_INLINE I name(I a, I b) { return (I)(expression); }
#define LANES_COMPARE(name, operation) LANES_INLINE M name(I a, I b) { return (M)(a operation b); }
#else
LANES_INLINE I iset(long long a) { return {a - L{}, a - L{}}; }
LANES_INLINE I iload(const long long* p) {
    I y{};
    LANES_UNROLL
    for (int i = 0; i < W64; i++) y.even[i] = p[2 * i], y.odd[i] = p[2 * i + 1];
    return y;
}
LANES_INLINE void istore(long long* p, I a) {
    LANES_UNROLL
    for (int i = 0; i < W64; i++) p[2 * i] = a.even[i], p[2 * i + 1] = a.odd[i];
}
// The low words of both, as 32-bit lanes in order.
LANES_INLINE M narrow(UL even, UL odd) { return (M)((even & 0xffffffffULL) | (odd << 32)); }
// Sign-extended: a mask stays a mask.
LANES_INLINE L widen_even(M m) { return (L)((UL)m << 32) >> 32; }
LANES_INLINE L widen_odd(M m) { return (L)m >> 32; }
LANES_INLINE I m_to_i(M m) { return {(L)((UL)m & 1), (L)((UL)m >> 63)}; }
LANES_INLINE M i_to_m(I a) { return narrow((UL)(a.even != 0), (UL)(a.odd != 0)); }
LANES_INLINE I isel(M m, I a, I b) { return {widen_even(m) ? a.even : b.even, widen_odd(m) ? a.odd : b.odd}; }
typedef float FloatHalf __attribute__((vector_size(VECTOR_BYTES / 2)));
typedef uint32_t WordHalf __attribute__((vector_size(VECTOR_BYTES / 2)));
LANES_INLINE UL float_bits(L a) {
    return __builtin_convertvector((WordHalf)__builtin_convertvector(a, FloatHalf), UL);
}
LANES_INLINE L float_integers(UL a) {
    return __builtin_convertvector((FloatHalf)__builtin_convertvector(a, WordHalf), L);
}
LANES_INLINE R i_to_r(I a) { return (R)narrow(float_bits(a.even), float_bits(a.odd)); }
LANES_INLINE I r_to_i(R a) { return {float_integers((UL)a & 0xffffffffULL), float_integers((UL)a >> 32)}; }
#define LANES_UNARY(name, expression)                            \
    LANES_INLINE L name##_half(L a) { return (L)(expression); } \
    LANES_INLINE I name(I a) { return {name##_half(a.even), name##_half(a.odd)}; }
#define LANES_BINARY(name, expression)                                \
    LANES_INLINE L name##_half(L a, L b) { return (L)(expression); } \
    LANES_INLINE I name(I a, I b) { return {name##_half(a.even, b.even), name##_half(a.odd, b.odd)}; }
#define LANES_COMPARE(name, operation) \
    LANES_INLINE M name(I a, I b) { return narrow((UL)(a.even operation b.even), (UL)(a.odd operation b.odd)); }
#endif

LANES_COMPARE(ieq, ==)
LANES_COMPARE(ine, !=)
LANES_COMPARE(ilt, <)
LANES_COMPARE(ile, <=)
LANES_COMPARE(igt, >)
LANES_COMPARE(ige, >=)
// Unsigned inside: int64 wraps, as torch's does, and the compiler may not assume otherwise.
LANES_BINARY(iadd, (UL)a + (UL)b)
LANES_BINARY(isub, (UL)a - (UL)b)
LANES_BINARY(imul, (UL)a * (UL)b)
LANES_UNARY(ineg, -(UL)a)
LANES_UNARY(iabs, a < 0 ? (L)(-(UL)a) : a)
LANES_BINARY(imin, a < b ? a : b)
LANES_BINARY(imax, a > b ? a : b)
LANES_BINARY(iand, a & b)
LANES_BINARY(ior, a | b)
LANES_BINARY(ixor, a ^ b)
LANES_UNARY(inot, ~a)
// torch: a count outside 0..63 shifts everything out.
LANES_BINARY(ishl, ((UL)b < 64) ? (L)((UL)a << ((UL)b & 63)) : L{})
LANES_BINARY(ishr, a >> (L)(((UL)b < 64) ? ((UL)b & 63) : UL{} + 63))

// Division by zero gives 0 and the least integer by -1 itself: lanes past the end of a batch must not trap.
LANES_INLINE long long divide_trunc(long long a, long long b) {
    return b == 0 ? 0 : b == -1 ? (long long)(0 - (unsigned long long)a) : a / b;
}
LANES_INLINE long long divide_floor(long long a, long long b) {
    long long q = divide_trunc(a, b);
    return b != 0 && (a ^ b) < 0 && (unsigned long long)q * (unsigned long long)b != (unsigned long long)a ? q - 1 : q;
}
LANES_INLINE long long modulo_floor(long long a, long long b) {
    return b == 0 ? 0 : (long long)((unsigned long long)a - (unsigned long long)divide_floor(a, b) * (unsigned long long)b);
}
#define LANES_SCALAR(name, function)                                 \
    LANES_INLINE L name##_lanes(L a, L b) {                          \
        for (int i = 0; i < W64; i++) a[i] = function(a[i], b[i]); \
        return a;                                                    \
    }                                                                \
    LANES_BINARY(name, name##_lanes(a, b))
LANES_SCALAR(idiv_trunc, divide_trunc)
LANES_SCALAR(idiv_floor, divide_floor)
LANES_SCALAR(imod_floor, modulo_floor)

LANES_INLINE R m_to_r(M m) { return (R)(m & (M)rset(1)); }
LANES_INLINE M r_to_m(R a) { return (M)(a != rset(0)); }

// ------------------------------------------------------------------------------------------------ exponents and logs

// The nearest integer n of x factor, and its bits.
LANES_INLINE R nearest(R x, real factor, M* n) {
    R t = fma(x, factor, ROUNDER);
    *n = (M)t - (M)rset(ROUNDER);
    return t - rset(ROUNDER);
}
LANES_INLINE R power_of_two(M k) { return (R)((k + wset(BIAS)) << MANTISSA); }
// a 2^n, rounded once, where n (as k and as a real) may leave the range of normal exponents by its own width.
LANES_INLINE R scale(R a, M k, R n) {
#if defined(LANES_X86) && VECTOR_BYTES == 64
    R y;
    (void)k;
#if REAL_BITS == 32
    __asm__("vscalefps %2, %1, %0" : "=v"(y) : "v"(a), "v"(n));
#else
    __asm__("vscalefpd %2, %1, %0" : "=v"(y) : "v"(a), "v"(n));
#endif
    return y;
#else
    (void)n;
#if REAL_BITS == 32
    M half = k >> 1;
#else
    M half = (M)((U)(k + wset(1 << 12)) >> 1) - wset(1 << 11);  // AVX2 has no arithmetic shift of int64
#endif
    return opaque(a * power_of_two(half) * power_of_two(k - half));
#endif
}

constexpr real EXP_HIGH = REAL_BITS == 32 ? (real)89 : (real)710;     // from here on exp is infinite
constexpr real EXP_LOW = REAL_BITS == 32 ? (real)-104 : (real)-746;   // from here on it rounds to 0

// exp(x + low), |low| small beside 1: gradual underflow, infinite past the largest real.
LANES_INLINE R exp_sum(R x, R low) {
    x = at_most(x, EXP_HIGH);
    x = at_least(x, EXP_LOW);
    M k;
    R n = nearest(x, LOG2E, &k);
    R r = fma_exact(n, -LN2_1, x);
    r = fma_exact(n, -LN2_2, r) + low;
    R z = r * r, p = fma(z, horner(r, z, EXP), r);
    return scale(p + rset(1), k, n);
}
// x = n ln 2 + r: exp(r) - 1, with k = n. exp and expm1 share it, so that code that has both computes it once.
LANES_INLINE R exp_fraction(R x, M* k, R* n) {
    x = at_most(x, EXP_HIGH);
    x = at_least(x, EXP_LOW);
    *n = nearest(x, LOG2E, k);
    R r = fma_exact(*n, -LN2_1, x);
    r = fma_exact(*n, -LN2_2, r);
    R z = r * r;
    return fma(z, horner(r, z, EXPM1), r);
}
LANES_INLINE R r_exp(R x) {
    M k;
    R n, p = exp_fraction(x, &k, &n);
    return scale(p + rset(1), k, n);
}
LANES_INLINE R r_exp2(R x) {
    constexpr real high = BIAS + 1, low = -BIAS - MANTISSA - 2;
    x = at_most(x, high);
    x = at_least(x, low);
    M k;
    R n = nearest(x, 1, &k);
    R r = x - n;
    return scale(fma(r, horner(r, EXP2), 1), k, n);
}
// x = n ln 2 + r: exp(r) - 1 and the power 2^(n - halvings), for sums that must not cancel.
LANES_INLINE R expm1_parts(R x, int halvings, R* power) {
    M k;
    R n = nearest(x, LOG2E, &k);
    R r = fma_exact(n, -LN2_1, x);
    r = fma_exact(n, -LN2_2, r);
    *power = power_of_two(k - wset(halvings));
    R z = r * r;
    return fma(z, horner(r, z, EXPM1), r);
}
// 2^(n - 1), or anything less than the lost bits of 1 where n is below them.
LANES_INLINE R half_power(M k, R n) {
#if defined(LANES_X86) && VECTOR_BYTES == 64
    return scale(rset((real)0.5), k, n);
#else
    constexpr word low = -(MANTISSA + 3);
    (void)n;
    return power_of_two((k < wset(low) ? wset(low) : k) - wset(1));
#endif
}
LANES_INLINE R r_expm1(R x) {
    M k;
    R n, p = exp_fraction(x, &k, &n);
    R power = half_power(k, n);
    R y = fma(power, p, power - rset((real)0.5));
    return (R)((M)(y + y) | ((M)x & wset(SIGN)));  // p has lost the sign of -0
}

// log(1 + f) + n ln 2, sqrt(1/2) - 1 <= f < sqrt 2 - 1.
LANES_INLINE R log_sum(R f, R n) {
    R z = f * f;
    R p = fma(n, LN2_2, z * f * horner(f, z, LOG));
    p = fma(z, (real)-0.5, p) + f;
    return fma(n, LN2_1, p);
}
// A positive normal x as (1 + f) 2^(n + shift); returns f.
template <int shift = 0>
LANES_INLINE R significand(R x, R* n, M* k) {
#if REAL_BITS == 32
    M i = (M)x - ((M)rset(SQRT_HALF) + wset((word)shift << MANTISSA));
    *k = i >> MANTISSA;
    *n = __builtin_convertvector(*k, R);
#else
    U i = (U)x + ((U)rset(1) - (U)rset(SQRT_HALF));  // logical shift: AVX2 has no arithmetic one of int64
    *k = (M)(i >> MANTISSA) - wset(BIAS + shift);
    *n = (R)((i >> MANTISSA) | (U)rset(INTEGERS)) - rset(INTEGERS + BIAS + shift);
#endif
    return (R)(((M)i & wset(FRACTION)) + (M)rset(SQRT_HALF)) - rset(1);
}
// What a logarithm is where its argument is not positive and finite.
LANES_INLINE R log_edges(R x, R y) {
    R edge = x < rset(0) ? rset(NOT_A_NUMBER) : (x == rset(0) ? rset(-INF) : x);
    return mand(rgt(x, rset(0)), rlt(x, rset(INF))) ? y : edge;
}
// The same of any positive finite x, denormal ones too.
LANES_INLINE R significand_any(R x, R* n) {
    M tiny = rlt(x, rset(LEAST_NORMAL)), k;
    R f = significand(tiny ? x * rset(INTEGERS * 2) : x, n, &k);
    *n = tiny ? *n - rset(MANTISSA + 1) : *n;
    return f;
}
LANES_INLINE R r_log(R x) {
    R n, f = significand_any(x, &n);
    return log_edges(x, log_sum(f, n));
}
LANES_INLINE R r_log2(R x) {
    R n, f = significand_any(x, &n);
    // log2 e = 1 + (log2 e - 1): the part 1 costs no rounding
    R l = log_sum(f, rset(0));
    return log_edges(x, n + fma(l, LOG2E_LESS_1, l));
}
LANES_INLINE R r_log10(R x) {
    R n, f = significand_any(x, &n);
    R l = log_sum(f, rset(0));
    return log_edges(x, fma(n, LOG10_2_1, fma(l, LOG10E, n * rset(LOG10_2_2))));
}
// log(1 + x) + extra ln 2 for 0 <= x < inf, or -1 < x.
LANES_INLINE R log1p_sum(R x, R extra) {
    R u = x + rset(1), v = u - rset(1);
    R lost = (rset(1) - (u - v)) + (x - v);
    R n;
    M k;
    R f = significand(u, &n, &k);
    k = k < BIAS - 1 ? k : wset(BIAS - 1);  // what is lost beside a huge u does not matter, but 2^-k must exist
    return log_sum(fma(lost, power_of_two(-k), f), n + extra);
}
LANES_INLINE R r_log1p(R x) {
    R y = log1p_sum(x, rset(0));
    y = log_edges(x + rset(1), y);
    return x == rset(0) ? x : y;  // -0
}

// 1 / (1 + exp(-x)), from exp(-|x|), so that it keeps its digits down to the denormals.
LANES_INLINE R r_sigmoid(R x) {
    R e = r_exp(-r_abs(x));
    return (x < rset(0) ? e : rset(1)) / (e + rset(1));
}
// log(1 + e), 0 <= e <= 1: 2 atanh s, s <= 1/3.
LANES_INLINE R r_log1p_unit(R e) {
    R s = e / (e + rset(2)), z = s * s;
    return fma(s * z, horner(z, ATANH_THIRD), s + s);
}
// log(1 + exp(x)) with no threshold; torch's threshold is the caller's.
LANES_INLINE R r_softplus(R x) { return (x < rset(0) ? rset(0) : x) + r_log1p_unit(r_exp(-r_abs(x))); }

// ---------------------------------------------------------------------------------------------------- trigonometric

// x = n pi/2 + r. Good to the last place for |x| < 1e6 in float32 and 1e9 in float64; far beyond, r is wrong, but held
// within [-1, 1], so that sines stay sines. Infinite x gives NaN.
LANES_INLINE R quarter(R x, M* n) {
    R m = nearest(x, TWO_OVER_PI, n);
    R r = fma_exact(m, -HALF_PI_1, x);
    r = fma_exact(m, -HALF_PI_2, r);
    r = fma_exact(m, -HALF_PI_3, r);
    return r_abs(r) > rset(1) ? rset(0) : r;
}
LANES_INLINE void sin_cos_near(R r, R* s, R* c) {
    R z = r * r;
    R y = fma(r * z, horner(z, SIN), r);
    *s = (R)((M)y | ((M)r & wset(SIGN)));  // fma gives +0 for -0
    *c = fma(z * z, horner(z, COS), fma(z, (real)-0.5, 1));
}
LANES_INLINE M odd(M n) { return (M)((n & 1) != 0); }
LANES_INLINE M second_bit_as_sign(M n) { return (M)((U)n << (REAL_BITS - 2)) & wset(SIGN); }
LANES_INLINE R r_sin(R x) {
    M n;
    R s, c, r = quarter(x, &n);
    sin_cos_near(r, &s, &c);
    return (R)((M)(odd(n) ? c : s) ^ second_bit_as_sign(n));
}
LANES_INLINE R r_cos(R x) {
    M n;
    R s, c, r = quarter(x, &n);
    sin_cos_near(r, &s, &c);
    return (R)((M)(odd(n) ? s : c) ^ second_bit_as_sign(n + wset(1)));
}
LANES_INLINE R r_tan(R x) {
    M n;
    R s, c, r = quarter(x, &n);
    sin_cos_near(r, &s, &c);
    M o = odd(n);
    return (o ? r_neg(c) : s) / (o ? s : c);
}

// asin of min(|x|, sqrt((1 - |x|) / 2)), which is at most 1/2.
LANES_INLINE R asin_near(R a, M big) {
    R z = big ? fma(a, (real)-0.5, (real)0.5) : a * a;
    R s = big ? r_sqrt(z) : a;
    return fma(s * z, horner(z, ASIN), s);
}
LANES_INLINE R r_asin(R x) {
    R a = r_abs(x);
    M big = rgt(a, rset((real)0.5));
    R p = asin_near(a, big);
    return r_copysign(big ? fma(p, (real)-2, HALF_PI_2) + rset(HALF_PI_1) : p, x);
}
LANES_INLINE R r_acos(R x) {
    R a = r_abs(x);
    M big = rgt(a, rset((real)0.5)), negative = rlt(x, rset(0));
    R p = asin_near(a, big);
    R signed_p = r_copysign(p, x);
    R far = p + p;
    far = negative ? (rset(PI_2) - far) + rset(PI_1) : far;
    return big ? far : (rset(HALF_PI_2) - signed_p) + rset(HALF_PI_1);
}
// atan(low / high) for 0 <= low <= high, in [0, pi/4].
LANES_INLINE R atan_octant(R low, R high) {
    M middle = rgt(low, high * rset(TAN_EIGHTH));
    R t = (middle ? low - high : low) / (middle ? low + high : high);
    R z = t * t;
    R p = fma(t * z, horner(z, ATAN), t);
    return middle ? (p + rset(QUARTER_PI_2)) + rset(QUARTER_PI_1) : p;
}
LANES_INLINE R r_atan(R x) {
    R a = r_abs(x);
    M far = rgt(a, rset(1));
    R y = atan_octant(far ? rset(1) : a, far ? a : rset(1));
    return r_copysign(far ? (rset(HALF_PI_2) - y) + rset(HALF_PI_1) : y, x);
}
LANES_INLINE R r_atan2(R y, R x) {
    R a = r_abs(y), b = r_abs(x);
    M steep = rgt(a, b);
    R low = steep ? b : a, high = steep ? a : b;
    // 0/0 is 0 and inf/inf is 1; sums must not overflow, nor tan(pi/8) of a denormal be rounded to one
    M endless = req(low, rset(INF));
    low = endless ? rset(1) : low;
    high = endless ? rset(1) : (high == rset(0) ? rset(1) : high);
    R s = high > rset(HUGE_REAL) ? rset((real)0.25) : (high < rset(1 / ROOT_HUGE) ? rset(RESCALE) : rset(1));
    R t = atan_octant(low * s, high * s);
    t = steep ? (rset(HALF_PI_2) - t) + rset(HALF_PI_1) : t;
    t = (M)((M)x < 0) ? (rset(PI_2) - t) + rset(PI_1) : t;  // -0 too
    t = mor(risnan(x), risnan(y)) ? x + y : t;
    return r_copysign(t, y);
}

// ------------------------------------------------------------------------------------------------------- hyperbolic

LANES_INLINE R r_tanh(R x) {
    constexpr real end = REAL_BITS == 32 ? (real)20 : (real)44;  // twice the argument from where tanh is 1
    R a = r_abs(x);
    a = a + a;
    a = at_most(a, end);
    R power, p = expm1_parts(a, 0, &power);
    R e = fma(power, p, power - rset(1));
    return r_copysign(e / (e + rset(2)), x);
}
// (exp(a) - 1) / 2 for a >= 0, which is finite wherever sinh is.
LANES_INLINE R half_expm1(R a) {
    constexpr real end = REAL_BITS == 32 ? (real)89.5 : (real)710.5;
    a = at_most(a, end);
    M k;
    R n = nearest(a, LOG2E, &k);
    R r = fma_exact(n, -LN2_1, a);
    r = fma_exact(n, -LN2_2, r);
    R z = r * r, p = fma(z, horner(r, z, EXPM1), r);
    R power = power_of_two(k - wset(2));  // a quarter, to stay below the largest power of two
    R y = fma(power, p, power - rset((real)0.25));
    return y + y;
}
LANES_INLINE R r_sinh(R x) {
    R a = r_abs(x);
    R h = half_expm1(a);
    R y = h + at_most(h, HUGE_REAL) / fma(h, (real)2, 1);  // inf / inf otherwise
    return r_copysign(a < rset((real)1 / INTEGERS) ? a : y, x);
}
LANES_INLINE R r_cosh(R x) {
    R h = half_expm1(r_abs(x));
    return (h + rset((real)0.5)) + rset((real)0.5) / fma(h, (real)2, 1);
}
LANES_INLINE R r_asinh(R x) {
    R a = r_abs(x);
    M big = rgt(a, rset(ROOT_HUGE));
    R z = a * a;
    R y = a + z / (r_sqrt(z + rset(1)) + rset(1));
    y = log1p_sum(big ? a : y, m_to_r(big));
    return r_copysign(a < rset(INF) ? y : a, x);
}
LANES_INLINE R r_acosh(R x) {
    M big = rgt(x, rset(ROOT_HUGE));
    R t = x - rset(1);
    R y = t + r_sqrt(fma(t, t, t + t));
    y = log1p_sum(big ? x : y, m_to_r(big));
    y = x < rset(1) ? rset(NOT_A_NUMBER) : y;
    return x < rset(INF) ? y : x;
}
LANES_INLINE R r_atanh(R x) {
    R a = r_abs(x);
    R d = rset(1) - a;
    R y = rset((real)0.5) * log1p_sum((a + a) / d, rset(0));
    y = d > rset(0) ? y : (d == rset(0) ? rset(INF) : rset(NOT_A_NUMBER));
    return r_copysign(y, x);
}

// ------------------------------------------------------------------------------------------------- erf and its kin

// erfc(a) for a >= 0, as exp(-a^2) times a smooth function; the square is kept in two parts.
LANES_INLINE R erfc_positive(R a) {
    constexpr real end = REAL_BITS == 32 ? (real)10.5 : (real)27.5;
    a = at_most(a, end);
    R t = (a - rset(4)) / (a + rset(4));
    R s = a * a;
    R e = exp_sum(-s, -fma_exact(a, a, -s));
    return e * (horner_part<0, 1>(t, ERFC) / fma(a, (real)2, 1));  // one chain: it rounds less
}
// erf x for |x| <= 1.
LANES_INLINE R erf_near(R x) { return fma(x, horner(x * x, ERF), x); }
LANES_INLINE R r_erfc(R x) {
    R a = r_abs(x);
    R y = erfc_positive(a);
    y = x < rset(0) ? rset(2) - y : y;
    return a < rset((real)0.5) ? rset(1) - erf_near(x) : y;  // just below 1 the quotient's argument is too coarse
}
LANES_INLINE R r_erf(R x) {
    R a = r_abs(x);
    R near = erf_near(x);
#if REAL_BITS == 32
    R b = at_most(a, 4);  // min(a, 4) would make NaN 4
    R far = rset(1) - r_exp(horner(b, ERF_TAIL));
#else
    R far = rset(1) - erfc_positive(a);
#endif
    return a > rset(1) ? r_copysign(far, x) : near;
}
// exp(a^2) erfc(a) for a >= 0.
LANES_INLINE R erfcx_positive(R a) {
    R b = at_most(a, ROOT_HUGE);
    R t = (b - rset(4)) / (b + rset(4));
    real half = (real)0.5;
    return half * horner_part<0, 1>(t, ERFCX) / (a + rset(half));  // twice a may overflow
}
LANES_INLINE R r_erfcx(R x) {
    R y = erfcx_positive(r_abs(x));
    M negative = rlt(x, rset(0));
    if (many(negative)) {
        R a = at_most(r_abs(x), 30);  // beyond, the result overflows
        R s = a * a;
        R e = exp_sum(s, fma_exact(a, a, -s));
        y = negative ? e + (e - y) : y;
    }
    return y;
}
// y with erfc y = c, for 0 < c < 0.004: a guess, and Newton's method on the logarithm.
LANES_INLINE R inverse_erfc(R c) {
    R l = r_log(c);
    R y = horner(r_sqrt(r_neg(l)), ERFINV_TAIL);
    LANES_UNROLL
    for (int i = 0; i < (REAL_BITS == 32 ? 1 : 2); i++) {
        R f = erfcx_positive(y);
        R g = r_log(f) + fma_exact(r_neg(y), y, r_neg(l));
        y = fma(g * f, HALF_SQRT_PI, y);
    }
    return y;
}
// erfinv of the number x of the size 1 - c, as a multiple of its sign.
LANES_INLINE R erfinv_of(R x, R c) {
    R w = r_neg(r_log(c * (rset(2) - c)));
    R y = x * horner(w, ERFINV);
    M far = rgt(w, rset(REAL_BITS == 32 ? (real)5 : (real)6.25));
    if (many(far)) y = far ? r_copysign(inverse_erfc(c), x) : y;
    return c == rset(0) ? r_copysign(rset(INF), x) : y;
}
LANES_INLINE R r_erfinv(R x) { return erfinv_of(x, rset(1) - r_abs(x)); }
LANES_INLINE R r_ndtri(R p) {
    R half = rset((real)0.5);
    R c = p > half ? rset(1) - p : p;
    return rset(SQRT_2) * erfinv_of((p - half) * rset(2), c + c);
}

// ------------------------------------------------------------------------------------------- functions of two reals

LANES_INLINE R r_hypot(R x, R y) {
    R a = r_abs(x), b = r_abs(y);
    R big = a > b ? a : b;
    M over = rgt(big, rset(ROOT_HUGE)), under = rlt(big, rset(1 / ROOT_HUGE));
    R s = over ? rset(1 / RESCALE) : (under ? rset(RESCALE) : rset(1));
    R back = over ? rset(RESCALE) : (under ? rset(1 / RESCALE) : rset(1));
    a = a * s;
    b = b * s;
    R h = r_sqrt(fma(a, a, b * b)) * back;
    return mor(risinf(x), risinf(y)) ? rset(INF) : h;
}

// The remainder of a/b with the sign of a, exact. Each round takes off MANTISSA - 3 bits of the quotient at least.
LANES_INLINE R r_fmod(R x, R y) {
    constexpr int bits = MANTISSA - 3;
    R a = r_abs(x), b = r_abs(y);
    M valid = mand(rlt(a, rset(INF)), rgt(b, rset(0)));
    R left = valid ? a : rset(0);
    M more = rge(left, b);
    while (many(more)) {
        R c = more ? b : rset(1);
        R q = left / c;
        LANES_UNROLL
        for (int i = 0; i < 2; i++) {  // a quotient past the largest real: first modulo b times a power of two
            c = risinf(q) ? c * rset(HUGE_REAL) : c;
            q = left / c;
        }
        M k = (M)((U)q >> MANTISSA) - wset(BIAS + bits);
        c = c * power_of_two(k > 0 ? k : M{});
        q = r_trunc(left / c);
        R next = fma_exact(-q, c, left);
        next = next < rset(0) ? next + c : next;  // the quotient was rounded up to an integer
        left = more ? next : left;
        more = rge(left, b);
    }
    R edge = (M)((M)(b == rset(0)) | risinf(x)) ? rset(NOT_A_NUMBER) : left;
    edge = mor(risnan(x), risnan(y)) ? x + y : edge;
    return r_copysign(edge, x);
}
// torch.remainder: the sign of y.
LANES_INLINE R r_remainder(R x, R y) {
    R m = r_fmod(x, y);
    M across = mand(rne(m, rset(0)), mxor(rlt(y, rset(0)), rlt(m, rset(0))));
    return across ? m + y : m;
}

struct Pair {
    R high, low;
};
LANES_INLINE Pair fast_two_sum(R a, R b) {  // |a| >= |b|
    R s = a + b;
    return {s, b - (s - a)};
}
LANES_INLINE Pair multiply(Pair a, Pair b) {
    R p = a.high * b.high;
    R e = fma_exact(a.high, b.high, -p);
    e = fma(a.high, b.low, fma(a.low, b.high, e));
    return fast_two_sum(p, e);
}
// log x of a positive finite x, to about 2^-10 of a unit in the last place: pow multiplies the error by the exponent.
LANES_INLINE Pair log_pair(R x) {
    R n, f = significand_any(x, &n);
    R d = f + rset(2), d_low = f - (d - rset(2));
    R s = f / d;
    R rest = fma_exact(-s, d, f);
    Pair q = {s, fma_exact(-s, d_low, rest) / d};
    Pair z = multiply(q, q);
    Pair c = fast_two_sum(rset(TWO_THIRDS_1), z.high * horner(z.high, ATANH));
    c.low = c.low + rset(TWO_THIRDS_2);
    Pair cubic = multiply(multiply(q, z), c);
    Pair sum = fast_two_sum(q.high + q.high, cubic.high);
    sum.low = sum.low + (cubic.low + (q.low + q.low));
    R big = n * rset(LN2_SHORT);  // exact: the constant leaves room for n
    Pair total = fast_two_sum(big, sum.high);
    return fast_two_sum(total.high, fma(n, LN2_REST, total.low + sum.low));
}
// x^y with every edge case of C's pow.
LANES_INLINE R r_pow(R x, R y) {
    R a = r_abs(x);
    Pair l = log_pair(a);
    M zero = req(a, rset(0)), endless = req(a, rset(INF));
    l.high = zero ? rset(-INF) : ((M)(endless | risnan(a)) ? a : l.high);
    l.low = (M)(zero | endless) ? rset(0) : l.low;
    R high = y * l.high;
    R low = fma_exact(y, l.high, -high);
    low = fma(y, l.low, low);
    low = r_abs(high) < rset(EXP_HIGH - EXP_LOW) ? low : rset(0);
    R p = exp_sum(high, low);
    p = a == rset(1) ? rset(1) : p;
    R half = y * rset((real)0.5);
    M integer = req(r_trunc(y), y);
    M odd_power = mand(integer, rne(r_trunc(half), half));
    p = odd_power ? r_copysign(p, x) : p;
    M undefined = mand(mand(rlt(x, rset(0)), rgt(x, rset(-INF))), mnot(integer));
    p = undefined ? rset(NOT_A_NUMBER) : p;
    p = mor(risnan(x), risnan(y)) ? x + y : p;
    return mor(req(x, rset(1)), req(y, rset(0))) ? rset(1) : p;
}

// --------------------------------------------------------------------------------------------------- gamma's kin

// |sin(pi a)| and, with the sign of their quotient, cos(pi a), for a >= 0: the distance to an integer is exact.
LANES_INLINE R sin_pi(R a, R* cosine) {
    R d = a - r_round(a), e = r_abs(d);
    M steep = rgt(e, rset((real)0.25));
    e = steep ? rset((real)0.5) - e : e;
    R s, c;
    sin_cos_near(fma(e, rset(PI_1), e * rset(PI_2)), &s, &c);
    *cosine = r_copysign(steep ? s : c, d);
    return steep ? c : s;
}
LANES_INLINE R lgamma_positive(R x) {
    // Below 8 the argument is moved to [1.5, 2.5], where a polynomial knows both zeros: 2 + f. f is formed from x itself.
    R product = rset(1), f = x - rset(2);
    M low = rlt(x, rset((real)1.5));
    f = low ? x - rset(1) : f;
    M small = rlt(x, rset((real)0.5));
    f = small ? x : f;  // lgamma x = lgamma(x + 2) - log x (x + 1)
    product = small ? fma(x, x, x) : (low ? x : product);
    LANES_UNROLL
    for (int i = 1; i <= 6; i++) {
        M above = rge(x, rset((real)(i + 1.5)));
        product = above ? product * (x - rset((real)i)) : product;
        f = above ? x - rset((real)(i + 2)) : f;
    }
    M far = rge(x, rset(8));
    R l = r_log(far ? x : product);
    R near = fma(f, horner(f, LGAMMA), low ? -l : l);
    R big = far ? x : rset(8);
    R inverse = rset(1) / big;
    R y = fma(inverse, horner(inverse * inverse, STIRLING), HALF_LOG_2PI);
    R t = big - rset((real)0.5);
    R head = t * l;
    R head_low = fma_exact(t, l, -head);
    y = (head - big) + (y + head_low);
    y = x > rset(ROOT_HUGE) ? x * (l - rset(1)) : y;  // the products above overflow before their difference does
    return far ? y : near;
}
// log |gamma(x)|. Beside the zeros between negative integers the error is a few units of float 1, not of the result.
LANES_INLINE R r_lgamma(R x) {
    R a = r_abs(x);
    R y = lgamma_positive(a);
    M negative = rlt(x, rset(0));
    if (many(negative)) {
        R cosine, s = sin_pi(a, &cosine);
        // gamma(-a) gamma(a) = -pi / (a sin(pi a)). Tiny a: the sine may underflow, and the result is -log a.
        R reflected = -r_log(s * a) + (rset(LOG_PI) - y);
        reflected = a < rset((real)1 / INTEGERS) ? y : reflected;
        reflected = s == rset(0) ? rset(INF) : reflected;
        reflected = a >= rset(INTEGERS) ? rset(INF) : reflected;
        y = negative ? reflected : y;
    }
    return y;
}
LANES_INLINE R r_digamma(R x) {
    M negative = rlt(x, rset(0));
    R a = negative ? rset(1) - x : x;
    R sum = rset(0), b = a;
    LANES_UNROLL
    for (int i = 0; i < 8; i++) {
        M below = rlt(b, rset(8));
        sum = below ? sum + rset(1) / b : sum;
        b = below ? b + rset(1) : b;
    }
    R inverse = rset(1) / b;
    R z = inverse * inverse;
    R y = r_log(b) - fma(inverse, (real)0.5, sum);
    y = fma(z, horner(z, DIGAMMA), y);
    if (many(negative)) {
        R cosine, s = sin_pi(r_abs(x), &cosine);
        // digamma(x) = digamma(1 - x) - pi cot(pi x), and cot is odd
        R reflected = fma(rset(PI_1), cosine / s, y);
        reflected = s == rset(0) ? rset(NOT_A_NUMBER) : reflected;
        reflected = x > rset(-INTEGERS) ? reflected : rset(NOT_A_NUMBER);
        y = negative ? reflected : y;
    }
    return x == rset(0) ? r_copysign(rset(INF), r_neg(x)) : y;
}
LANES_INLINE R r_trigamma(R x) {
    M negative = rlt(x, rset(0));
    R b = negative ? rset(1) - x : x;
    R sum = rset(0);
    LANES_UNROLL
    for (int i = 0; i < 8; i++) {
        M below = rlt(b, rset(8));
        sum = below ? sum + rset(1) / (b * b) : sum;
        b = below ? b + rset(1) : b;
    }
    R inverse = rset(1) / b;
    R z = inverse * inverse;
    R y = sum + fma(z, fma(inverse, horner(z, TRIGAMMA), (real)0.5), inverse);
    if (many(negative)) {
        R cosine, s = sin_pi(r_abs(x), &cosine);
        R q = rset(PI_1) / s;
        y = negative ? fma(q, q, r_neg(y)) : y;  // trigamma(x) = (pi / sin(pi x))^2 - trigamma(1 - x)
        y = x == rset(-INF) ? rset(NOT_A_NUMBER) : y;
    }
    return y;
}

// ---------------------------------------------------------------------------------------------------- random numbers

// Philox4x32-10 as compiled_ebm/rng.py lays it out. Words live in the low halves of 64-bit lanes; the high halves hold
// garbage that the 32 x 32 product ignores, so that no round masks anything.

constexpr uint32_t PHILOX_M0 = 0xD2511F53u, PHILOX_M1 = 0xCD9E8D57u;

struct PhiloxKeys {
    uint32_t k0[10], k1[10];
};
LANES_INLINE PhiloxKeys philox_keys(uint64_t seed) {
    PhiloxKeys keys{};
    for (int i = 0; i < 10; i++) {
        keys.k0[i] = (uint32_t)seed + 0x9E3779B9u * (uint32_t)i;
        keys.k1[i] = (uint32_t)(seed >> 32) + 0xBB67AE85u * (uint32_t)i;
    }
    return keys;
}

// The part of the first round that knows the chain alone.
struct ChainWords {
    UL high2[HALVES], low2[HALVES], c3[HALVES];
};

// The 64-bit products of low words.
LANES_INLINE UL multiply32(UL a, UL b) {
#if defined(LANES_X86) && !defined(__clang__) && VECTOR_BYTES == 64
    typedef int V __attribute__((vector_size(64)));
    return (UL)__builtin_ia32_pmuludq512_mask((V)a, (V)b, L{}, -1);
#elif defined(LANES_X86) && !defined(__clang__) && VECTOR_BYTES == 32
    typedef int V __attribute__((vector_size(32)));
    return (UL)__builtin_ia32_pmuludq256((V)a, (V)b);
#elif defined(LANES_X86) && !defined(__clang__)
    typedef int V __attribute__((vector_size(16)));
    return (UL)__builtin_ia32_pmuludq128((V)a, (V)b);
#else
    return (a & 0xffffffffULL) * (b & 0xffffffffULL);  // Clang finds the instruction and drops the masks
#endif
}
// Keys fill both halves: one 32-bit broadcast from memory instead of work in the integer registers.
LANES_INLINE UL xor3(UL a, UL b, uint32_t key) {
    typedef uint32_t V __attribute__((vector_size(VECTOR_BYTES)));
    return a ^ b ^ (UL)(key - V{});
}

LANES_INLINE ChainWords chain_words(const I& ids) {
    ChainWords chains;
#if REAL_BITS == 64
    const UL id[HALVES] = {(UL)ids};
#else
    const UL id[HALVES] = {(UL)ids.even, (UL)ids.odd};
#endif
    for (int h = 0; h < HALVES; h++) {
        chains.low2[h] = multiply32(id[h], ulset(PHILOX_M1));
        chains.high2[h] = chains.low2[h] >> 32;
        chains.c3[h] = id[h] >> 32;
    }
    return chains;
}
LANES_INLINE ChainWords chain_words(const long long* ids) { return chain_words(iload(ids)); }

// Four words of each chain for each of S streams (chains and c0 = block | stream tag << 24), 4 S in all. The high halves
// are garbage.
template <int S>
LANES_INLINE void philox_streams(
    const PhiloxKeys& keys, const ChainWords* const (&chains)[S], const uint32_t (&c0)[S], uint32_t step,
    UL (*out)[HALVES]) {
    UL a[S][HALVES], b[S][HALVES], c[S][HALVES], d[S][HALVES];
    // Streams and halves inside rounds: independent work side by side, which the window of a core, some 100
    // instructions of vectors, would not find further down.
#define LANES_STREAMS           \
    LANES_UNROLL                \
    for (int s = 0; s < S; s++) \
    LANES_UNROLL                \
    for (int h = 0; h < HALVES; h++)
    LANES_STREAMS {
        const uint64_t uniform = (uint64_t)c0[s] * PHILOX_M0;
        a[s][h] = chains[s]->high2[h] ^ ulset(step ^ keys.k0[0]);
        b[s][h] = chains[s]->low2[h];
        c[s][h] = chains[s]->c3[h] ^ ulset((uniform >> 32) ^ keys.k1[0]);
        d[s][h] = ulset(uniform);
    }
    LANES_UNROLL
    for (int i = 1; i < 10; i++) {
        LANES_STREAMS {
            UL p0 = multiply32(a[s][h], ulset(PHILOX_M0)), p1 = multiply32(c[s][h], ulset(PHILOX_M1));
            a[s][h] = xor3(p1 >> 32, b[s][h], keys.k0[i]);
            c[s][h] = xor3(p0 >> 32, d[s][h], keys.k1[i]);
            b[s][h] = p1;
            d[s][h] = p0;
        }
    }
    LANES_STREAMS {
        out[4 * s][h] = a[s][h];
        out[4 * s + 1][h] = b[s][h];
        out[4 * s + 2][h] = c[s][h];
        out[4 * s + 3][h] = d[s][h];
    }
#undef LANES_STREAMS
}
LANES_INLINE void philox(
    const PhiloxKeys& keys, const ChainWords& chains, uint32_t c0, uint32_t step, UL (*out)[HALVES]) {
    philox_streams<1>(keys, {&chains}, {c0}, step, out);
}

#if REAL_BITS == 32
typedef M Words;  // one 32-bit word a lane
LANES_INLINE Words gather_words(const UL* halves) { return narrow(halves[0], halves[1]); }
LANES_INLINE R unsigned_to_real(Words w) { return __builtin_convertvector((U)w, R); }
#else
typedef UL Words;
LANES_INLINE Words gather_words(const UL* halves) { return halves[0] & 0xffffffffULL; }
LANES_INLINE R unsigned_to_real(Words w) { return (R)(w | (UL)rset(INTEGERS)) - rset(INTEGERS); }
#endif
// (w + 1/2) 2^-32, with the roundings of rng.py.
LANES_INLINE R unit(Words w) { return (unsigned_to_real(w) + rset((real)0.5)) * rset((real)0x1p-32); }

// rng.py's pairs, sqrt(-2 ln u) (cos, sin)(pi s), of N pairs of words. The angle is reduced as an integer, which is
// exact: where rng.py's own float32 angle has an error of 2e-7 radians, this has that of its polynomials. Each stage is
// done for all pairs before the next, for the same reason as in philox().
template <int N>
LANES_INLINE void box_muller(UL (*w)[HALVES], R* out) {
    R f[N], n[N], x[N], radius[N];
    M swap[N], cosine_sign[N], sine_sign[N];
#define LANES_PAIRS     \
    LANES_UNROLL        \
    for (int i = 0; i < N; i++)
    LANES_PAIRS {
        // w + 1/2 = (1 + f) 2^(n + 32): never 0. Its scale is left to the exponent.
        M k;
        f[i] = significand<32>(unsigned_to_real(gather_words(w[2 * i])) + rset((real)0.5), &n[i], &k);
    }
    // s = q / 2 + x / 2 half turns, |x| <= 1/2: the quarter q from the two top bits, after rounding
    LANES_PAIRS {
        Words angle = gather_words(w[2 * i + 1]);
#if REAL_BITS == 32
        x[i] = __builtin_convertvector((M)((U)angle << 2) >> 2, R);
        M q = (M)((U)angle + 0x20000000u);
        swap[i] = (M)((q & 0x40000000) != 0);
#else
        M q = (M)(angle + 0x20000000u);
        x[i] = (R)(((UL)q & 0x3fffffffULL) | (UL)rset(INTEGERS)) - rset(INTEGERS + 0x1p29);
        swap[i] = (M)((q & 0x40000000) != 0);
        q = (M)((UL)q << 32);
#endif
        x[i] = fma(x[i], (real)0x1p-30, (real)0x1p-31);
        sine_sign[i] = q & wset(SIGN);
        cosine_sign[i] = (M)((U)q + (U)wset((word)1 << (REAL_BITS - 2))) & wset(SIGN);
    }
    LANES_PAIRS {
        R z = f[i] * f[i];
        R t = fma(f[i], (real)-2, z * horner(f[i], z, LOG_TWICE));
        radius[i] = r_sqrt(fma(n[i], -2 * LN2_NEAREST, t));
    }
    LANES_PAIRS {
        R y = x[i] * x[i];
        R s = x[i] * horner(y, SIN_QUARTER);
        R c = fma(y, horner(y, COS_QUARTER), 1);
        out[2 * i] = opaque(radius[i] * (R)((M)(swap[i] ? s : c) ^ cosine_sign[i]));
        out[2 * i + 1] = opaque(radius[i] * (R)((M)(swap[i] ? c : s) ^ sine_sign[i]));
    }
#undef LANES_PAIRS
}

// Numbers 4 b to 4 b + 3 of a step of each chain, b the low 24 bits of c0.
LANES_INLINE void normals4(const PhiloxKeys& keys, const ChainWords& chains, uint32_t c0, uint32_t step, R out[4]) {
    UL w[4][HALVES];
    philox(keys, chains, c0, step, w);
    box_muller<2>(w, out);
}
// Two blocks, c0 and c0 + 1: a tenth cheaper than normals4 twice.
LANES_INLINE void normals8(const PhiloxKeys& keys, const ChainWords& chains, uint32_t c0, uint32_t step, R out[8]) {
    UL w[8][HALVES];
    philox_streams<2>(keys, {&chains, &chains}, {c0, c0 + 1}, step, w);
    box_muller<2>(w, out);
    box_muller<2>(w + 4, out + 4);
}
// The first two numbers alone.
LANES_INLINE void normals2(const PhiloxKeys& keys, const ChainWords& chains, uint32_t c0, uint32_t step, R out[2]) {
    UL w[4][HALVES];
    philox(keys, chains, c0, step, w);
    box_muller<1>(w, out);
}
LANES_INLINE void uniforms4(const PhiloxKeys& keys, const ChainWords& chains, uint32_t c0, uint32_t step, R out[4]) {
    UL w[4][HALVES];
    philox(keys, chains, c0, step, w);
    LANES_UNROLL
    for (int i = 0; i < 4; i++) out[i] = opaque(unit(gather_words(w[i])));
}

}  // namespace lanes
using namespace lanes;
