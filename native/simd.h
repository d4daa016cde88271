// Vectors of W floats by GCC's and Clang's vector extensions: arithmetic, comparison and selection are the language's
// own operators, the few things it cannot say are below. Included into each level's namespace; nothing here may be an
// inline function of the standard library, of which the linker would keep one copy for all levels.
#pragma once
#include <cmath>
#include <cstdint>
#if defined(__x86_64__)
#include <immintrin.h>
#elif defined(__ARM_NEON)
#include <arm_neon.h>
#endif

#include "attention.h"

#if defined(__AVX512F__)
#define LANES 16
#elif defined(__AVX2__)
#define LANES 8
#else
#define LANES 4
#endif

namespace longspan::LEVEL {
namespace {

constexpr int W = LANES;
typedef float vf __attribute__((vector_size(4 * W)));
typedef std::int32_t vi __attribute__((vector_size(4 * W)));
typedef std::uint32_t vu __attribute__((vector_size(4 * W)));
typedef std::uint16_t vh __attribute__((vector_size(2 * W)));
typedef std::int8_t vb __attribute__((vector_size(W)));

#define INLINE static inline __attribute__((always_inline))

template <class V>
INLINE V get(const void* from) {
  V v;
  __builtin_memcpy(&v, from, sizeof v);
  return v;
}
template <class V>
INLINE void put(void* to, V v) {
  __builtin_memcpy(to, &v, sizeof v);
}
INLINE vf all(float x) { return x - vf{}; }

// The larger of each pair; b where either is NaN.
INLINE vf larger(vf a, vf b) {
#if defined(__AVX512F__)
  return (vf)_mm512_max_ps((__m512)a, (__m512)b);
#elif defined(__AVX2__)
  return (vf)_mm256_max_ps((__m256)a, (__m256)b);
#else
  return a > b ? a : b;
#endif
}

INLINE vf from_bf16(const bf16* p) { return (vf)(__builtin_convertvector(get<vh>(p), vu) << 16); }
INLINE vf from_i8(const std::int8_t* p) {
#if defined(__AVX512F__)
  return (vf)_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(get<__m128i>(p)));
#elif defined(__AVX2__)
  return (vf)_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i*)p)));
#else
  return __builtin_convertvector(get<vb>(p), vf);
#endif
}

// Round to nearest even; NaN stays NaN.
INLINE vh to_bf16(vf x) {
#if defined(__AVX512BF16__)
  return (vh)_mm512_cvtneps_pbh((__m512)x);
#else
  const vu bits = (vu)x;
  const vu rounded = (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
  return __builtin_convertvector((vu)(x == x ? (vi)rounded : vi{} + 0x7fc0), vh);
#endif
}
INLINE float float_of(bf16 x) {
  const std::uint32_t bits = (std::uint32_t)x << 16;
  float f;
  __builtin_memcpy(&f, &bits, 4);
  return f;
}
INLINE bf16 bf16_of(float x) {
  std::uint32_t bits;
  __builtin_memcpy(&bits, &x, 4);
  return x != x ? 0x7fc0 : (bf16)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

INLINE float sum_of(vf x) {
#if defined(__AVX512F__)
  return _mm512_reduce_add_ps((__m512)x);
#else
  float sum = 0;
  for (int i = 0; i < W; ++i) sum += x[i];
  return sum;
#endif
}
INLINE float max_of_lanes(vf x) {
#if defined(__AVX512F__)
  return _mm512_reduce_max_ps((__m512)x);
#else
  float most = x[0];
  for (int i = 1; i < W; ++i) most = x[i] > most ? x[i] : most;
  return most;
#endif
}

// n floats, a multiple of W, as q * scale with |q| <= 127; `sum` of the q. The scale is NaN where x is not finite.
INLINE float round_i8(const float* x, i64 n, std::int8_t* q, std::int32_t& sum) {
  vf most = vf{}, bad = vf{};
  for (i64 d = 0; d < n; d += W) {
    const vf v = get<vf>(x + d);
    most = larger(larger(v, -v), most);
    bad += v * 0.f;
  }
  const float size = max_of_lanes(most);
  const float inverse = size > 1e-30f ? 127.f / size : 0.f;
  vi total = vi{};
  for (i64 d = 0; d < n; d += W) {
    const vi rounded = (vi)(get<vf>(x + d) * inverse + 12582912.f) - 0x4b400000;  // 1.5 * 2^23, as in exp2_of
    total += rounded;
    put(q + d, __builtin_convertvector(rounded, vb));
  }
  sum = 0;
  for (int i = 0; i < W; ++i) sum += total[i];
  return size / 127.f + sum_of(bad);
}

// Lane i of the result is the sum of the lanes of x[i]: log2(W) rounds of adding neighbours. x is used up.
INLINE vf sums(vf* x) {
#pragma GCC unroll 8
  for (int n = W; n > 1; n /= 2)
#pragma GCC unroll 16
    for (int i = 0; i < n / 2; ++i) {
      const vf a = x[2 * i], b = x[2 * i + 1];
#if LANES == 16
      x[i] = __builtin_shufflevector(a, b, 0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30) +
             __builtin_shufflevector(a, b, 1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31);
#elif LANES == 8
      x[i] = __builtin_shufflevector(a, b, 0, 2, 4, 6, 8, 10, 12, 14) +
             __builtin_shufflevector(a, b, 1, 3, 5, 7, 9, 11, 13, 15);
#else
      x[i] = __builtin_shufflevector(a, b, 0, 2, 4, 6) + __builtin_shufflevector(a, b, 1, 3, 5, 7);
#endif
    }
  return x[0];
}

// 2^x for x <= 127 without an exponential instruction (FlashAttention-4, 2603.05451, section 3): x = n + f with
// f in [-1/2, 1/2], a polynomial for 2^f, n added to the exponent. The coefficients make the relative error smallest
// (Remez): 1.7e-3, 7.5e-5, 2.6e-6, 7.5e-8, 1.9e-9 for degrees 2 to 6. bf16 rounds by 2e-3, float by 6e-8.
// Below -127 the result is 0; -inf gives 0 and NaN stays NaN.
constexpr int LEAST_DEGREE = 2, MOST_DEGREE = 6;
constexpr float COEFFICIENTS[5][7] = {
    {1.00044314204f, 0.703448006014f, 0.238428935504f},
    {0.999928073535f, 0.693260985454f, 0.242611122224f, 0.0551716690926f},
    {0.999999261447f, 0.693121814743f, 0.24024744825f, 0.0559178603063f, 0.00957010201463f},
    {1.00000007165f, 0.693146967065f, 0.24022119724f, 0.0555071327288f, 0.00967554133102f, 0.00132764721678f},
    {1.00000000055f, 0.693147205737f, 0.240226468906f, 0.05550328777f, 0.00961848895652f, 0.00133999312095f,
     0.000153458121587f},
};

template <int DEGREE>
INLINE vf exp2_of(vf x) {
  if constexpr (DEGREE == 0) {
    vf y;
    for (int i = 0; i < W; ++i) y[i] = ::exp2f(x[i]);
    return y;
  } else {
    constexpr const float* c = COEFFICIENTS[DEGREE - LEAST_DEGREE];
    x = larger(all(-127.f), x);
    const vf shifted = x + 12582912.f;  // 1.5 * 2^23: rounds to an integer and leaves it in the low bits
    const vf f = x - (shifted - 12582912.f);
    vf y = all(c[DEGREE]);
#pragma GCC unroll 8
    for (int i = DEGREE - 1; i >= 0; --i) y = y * f + c[i];
    return y * (vf)(((vi)shifted << 23) + 0x3f800000);  // -127 gives the factor 0
  }
}

// tanh by 1 - 2 / (e^2x + 1); absolute error 2e-7.
INLINE vf tanh_of(vf x) {
  vf y = x * 2.88539008f;
  y = y > all(60.f) ? all(60.f) : y;
  y = y < all(-60.f) ? all(-60.f) : y;
  return 1.f - 2.f / (exp2_of<6>(y) + 1.f);
}

}  // namespace
}  // namespace longspan::LEVEL
