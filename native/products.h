// Packing, and the one matrix product: C[rows, n] (+)= A[rows, k] B[k, n].
//
// A lies row by row. B is packed: for float [k][n]; for bf16 [k / 2][n][2] and for int8 [k / 4][n][4], steps of k side
// by side, as the dot product instructions want them. Keys are packed transposed (n = keys, k = dim), values as they are
// (n = dim, k = keys), in tiles of TILE keys. The instruction for int8 wants one side unsigned: that is B, plus 128.
#pragma once
#include "simd.h"

namespace longspan::LEVEL {
namespace {

#if defined(__AVX512BF16__)
constexpr bool HALVES = true;
#else
constexpr bool HALVES = false;
#endif
#if defined(__AVX512VNNI__)
constexpr bool BYTES = true;
#else
constexpr bool BYTES = false;
#endif

constexpr int MR = 4;                    // rows and
constexpr int NV = LANES == 8 ? 2 : 4;   // vectors of columns of C held in registers
#if defined(__AMX_TILE__) || defined(EMULATED_TILES)
#define TILES
constexpr i64 ROWS = 32;  // of queries that products take at a time
#else
constexpr i64 ROWS = MR;
struct Tiles {
  Tiles() {}
};
#endif

template <class T> constexpr int PAIR = sizeof(float) / sizeof(T);

// One step: C += a column of A times a row of B (bf16: two of each).
INLINE void step(vf (&c)[MR][NV], const float* a, i64 lda, const float* b, int vectors) {
  vf row[NV];
#pragma GCC unroll 4
  for (int j = 0; j < vectors; ++j) row[j] = get<vf>(b + j * W);
#pragma GCC unroll 4
  for (int i = 0; i < MR; ++i) {
    const vf x = all(a[i * lda]);
#pragma GCC unroll 4
    for (int j = 0; j < vectors; ++j) c[i][j] += x * row[j];
  }
}

#if defined(__AVX512BF16__)
INLINE void step(vf (&c)[MR][NV], const bf16* a, i64 lda, const bf16* b, int vectors) {
  __m512bh row[NV];
#pragma GCC unroll 4
  for (int j = 0; j < vectors; ++j) row[j] = get<__m512bh>(b + j * 2 * W);
#pragma GCC unroll 4
  for (int i = 0; i < MR; ++i) {
    const __m512bh x = (__m512bh)_mm512_set1_epi32(get<int>(a + i * lda));
#pragma GCC unroll 4
    for (int j = 0; j < vectors; ++j) c[i][j] = (vf)_mm512_dpbf16_ps((__m512)c[i][j], x, row[j]);
  }
}
#endif

// MR rows and V vectors of columns of C, over `tiles` blocks of B with `steps` steps each; A goes on from block to block.
template <class T, int V>
INLINE void block(const T* a, i64 lda, const T* const* b, int tiles, i64 ldb, i64 at, int steps, float* c, i64 ldc,
                  bool add) {
  vf sum[MR][NV];
#pragma GCC unroll 4
  for (int i = 0; i < MR; ++i)
#pragma GCC unroll 4
    for (int j = 0; j < V; ++j) sum[i][j] = add ? get<vf>(c + i * ldc + j * W) : vf{};
  for (int t = 0; t < tiles; ++t) {
    const T* from = b[t] + at;
    for (int k = 0; k < steps; ++k, a += PAIR<T>, from += ldb) step(sum, a, lda, from, V);
  }
#pragma GCC unroll 4
  for (int i = 0; i < MR; ++i)
#pragma GCC unroll 4
    for (int j = 0; j < V; ++j) put(c + i * ldc + j * W, sum[i][j]);
}

// rows is a multiple of MR, n of W. ldb: elements of B from one step to the next.
template <class T>
void product(i64 rows, i64 n, const T* a, i64 lda, const T* const* b, int tiles, i64 ldb, int steps, float* c, i64 ldc,
             bool add) {
  for (i64 col = 0; col < n; col += NV * W) {
    const i64 vectors = min_of(NV, (n - col) / W);
    for (i64 r = 0; r < rows; r += MR) {
      const T* from = a + r * lda;
      float* to = c + r * ldc + col;
      const i64 at = col * PAIR<T>;
      switch (vectors) {
        case 1: block<T, 1>(from, lda, b, tiles, ldb, at, steps, to, ldc, add); break;
        case 2: block<T, 2>(from, lda, b, tiles, ldb, at, steps, to, ldc, add); break;
        case 3: block<T, NV < 3 ? NV : 3>(from, lda, b, tiles, ldb, at, steps, to, ldc, add); break;
        default: block<T, NV>(from, lda, b, tiles, ldb, at, steps, to, ldc, add);
      }
    }
  }
}

// The lanes of 4 x W numbers of B that a vector holds, times four numbers of A.
INLINE vi dot4(vi sum, vu b, const std::int8_t* a) {
#if defined(__AVX512VNNI__)
  return (vi)_mm512_dpbusd_epi32((__m512i)sum, (__m512i)b, _mm512_set1_epi32(get<int>(a)));
#elif defined(__AVX512BW__)  // even and odd bytes as 16 bits: pairs of them are multiplied and added
  const __m512i bytes = (__m512i)b, four = _mm512_set1_epi32(get<int>(a));
  const __m512i even = _mm512_srai_epi16(_mm512_slli_epi16(four, 8), 8), odd = _mm512_srai_epi16(four, 8);
  return sum + (vi)_mm512_madd_epi16(_mm512_and_si512(bytes, _mm512_set1_epi16(255)), even) +
         (vi)_mm512_madd_epi16(_mm512_srli_epi16(bytes, 8), odd);
#elif defined(__AVX2__)
  const __m256i bytes = (__m256i)b, four = _mm256_set1_epi32(get<int>(a));
  const __m256i even = _mm256_srai_epi16(_mm256_slli_epi16(four, 8), 8), odd = _mm256_srai_epi16(four, 8);
  return sum + (vi)_mm256_madd_epi16(_mm256_and_si256(bytes, _mm256_set1_epi16(255)), even) +
         (vi)_mm256_madd_epi16(_mm256_srli_epi16(bytes, 8), odd);
#else
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) sum += (vi)((b >> (8 * i)) & 255u) * (std::int32_t)a[i];
  return sum;
#endif
}

#if !defined(TILES)
// C[rows, TILE] = (A[rows, k] B[k, TILE]) * a_scale[row] * b_scale[column] in int8. `sum` of each row of A takes back the
// 128 that B's numbers have too many.
INLINE void product_i8(i64 rows, const std::int8_t* a, i64 lda, const float* a_scale, const std::int32_t* sum,
                       const std::uint8_t* b, const float* b_scale, float* c, i64 ldc) {
  for (i64 col = 0; col < TILE; col += NV * W)
    for (i64 r = 0; r < rows; r += MR) {
      vi total[MR][NV];
#pragma GCC unroll 4
      for (int i = 0; i < MR; ++i)
#pragma GCC unroll 4
        for (int j = 0; j < NV; ++j) total[i][j] = vi{} - 128 * sum[r + i];
      const std::int8_t* from = a + r * lda;
      for (i64 k = 0; k < lda; k += 4)
#pragma GCC unroll 4
        for (int i = 0; i < MR; ++i)
#pragma GCC unroll 4
          for (int j = 0; j < NV; ++j)
            total[i][j] = dot4(total[i][j], get<vu>(b + (k * TILE + (col + j * W) * 4)), from + i * lda + k);
#pragma GCC unroll 4
      for (int i = 0; i < MR; ++i)
#pragma GCC unroll 4
        for (int j = 0; j < NV; ++j)
          put(c + (r + i) * ldc + col + j * W, __builtin_convertvector(total[i][j], vf) *
                                                   (get<vf>(b_scale + col + j * W) * a_scale[r + i]));
    }
}
#endif

// Weights of keys in 16 bits, as two bytes: one alone would lose the many small weights beside a large one. FULL is the
// weight of the row's largest key; a bit less than 2^16 leaves room for the error of 2^x. In a tile the quads of keys
// stand as `split` leaves them: quad 4 i + j at 4 j + i.
constexpr float FULL = 65500;
INLINE i64 quad_of(i64 key) { return key / 4 % 4 * 4 + key / 16; }

#if defined(__AVX512VNNI__)
// TILE weights as upper bytes and, `plane` further, lower ones.
INLINE void split(const vf (&weights)[4], std::uint8_t* to, i64 plane) {
  __m512i x[4];
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) x[i] = _mm512_cvtps_epi32((__m512)weights[i]);
  const __m512i low = _mm512_set1_epi32(255);
  const auto pack = [](__m512i a, __m512i b, __m512i c, __m512i d) __attribute__((always_inline)) {
    return _mm512_packus_epi16(_mm512_packus_epi32(a, b), _mm512_packus_epi32(c, d));
  };
  const auto upper = [](__m512i a) __attribute__((always_inline)) { return _mm512_srli_epi32(a, 8); };
  put(to, pack(upper(x[0]), upper(x[1]), upper(x[2]), upper(x[3])));
  put(to + plane, pack(_mm512_and_si512(x[0], low), _mm512_and_si512(x[1], low), _mm512_and_si512(x[2], low),
                       _mm512_and_si512(x[3], low)));
}

#endif

#if defined(__AVX512VNNI__) && !defined(TILES)
// O[rows, n] += (weights V) * factor[row]: weights [rows, 2, plane], V in tiles [TILE / 4][n][4].
template <int V>
INLINE void columns_i8(i64 rows, const std::uint8_t* weights, i64 plane, const std::int8_t* const* v, int tiles, i64 col,
                       i64 n, const float* factor, float* o) {
  constexpr int R = 2;  // rows: with upper and lower bytes and V vectors of columns, 16 sums
  for (i64 r = 0; r < rows; r += R) {
    vi high[R][V] = {}, low[R][V] = {};
    const std::uint8_t* from = weights + r * 2 * plane;
    for (int t = 0; t < tiles; ++t)
      for (i64 k = 0; k < TILE; k += 4, from += 4) {
        __m512i values[V];
#pragma GCC unroll 4
        for (int j = 0; j < V; ++j) values[j] = get<__m512i>(v[t] + k * n + (col + j * W) * 4);
#pragma GCC unroll 2
        for (int i = 0; i < R; ++i) {
          const __m512i upper = _mm512_set1_epi32(get<int>(from + i * 2 * plane));
          const __m512i lower = _mm512_set1_epi32(get<int>(from + (i * 2 + 1) * plane));
#pragma GCC unroll 4
          for (int j = 0; j < V; ++j) {
            high[i][j] = (vi)_mm512_dpbusd_epi32((__m512i)high[i][j], upper, values[j]);
            low[i][j] = (vi)_mm512_dpbusd_epi32((__m512i)low[i][j], lower, values[j]);
          }
        }
      }
#pragma GCC unroll 2
    for (int i = 0; i < R; ++i)
#pragma GCC unroll 4
      for (int j = 0; j < V; ++j) {
        float* to = o + (r + i) * n + col + j * W;
        const vf sum = __builtin_convertvector(high[i][j], vf) * 256.f + __builtin_convertvector(low[i][j], vf);
        put(to, get<vf>(to) + sum * factor[r + i]);
      }
  }
}
void weighted_i8(i64 rows, const std::uint8_t* weights, i64 plane, const std::int8_t* const* v, int tiles, i64 n,
                 const float* factor, float* o) {
  i64 col = 0;
  for (; col + 4 * W <= n; col += 4 * W) columns_i8<4>(rows, weights, plane, v, tiles, col, n, factor, o);
  for (; col < n; col += W) columns_i8<1>(rows, weights, plane, v, tiles, col, n, factor, o);
}
#endif

// n elements of the source's type as T, then zeros up to `padded`. int8 is multiplied by its scale, but where it stays int8.
template <class T, class S>
INLINE void convert(const S* from, T* to, i64 n, i64 padded, float scale = 1) {
  for (i64 i = 0; i < n; ++i) {
    if constexpr (sizeof(T) == sizeof(S)) to[i] = from[i];
    else if constexpr (sizeof(S) == 1 && sizeof(T) == 4) to[i] = from[i] * scale;
    else if constexpr (sizeof(S) == 1) to[i] = bf16_of(from[i] * scale);
    else if constexpr (sizeof(T) == 4) to[i] = float_of(from[i]);
    else to[i] = bf16_of(from[i]);
  }
  for (i64 i = n; i < padded; ++i) to[i] = 0;
}

// K, T: the types that keys and values are multiplied in; S: as they come.
template <class K, class T, class S>
void pack_tile(const Attention& p, const Packed& packed, i64 b, i64 head, i64 tile) {
  const Range keys = keys_of(p, b);
  const i64 at = (b * p.kv_heads + head) * packed.tiles + tile;
  K* k = reinterpret_cast<K*>(packed.k + at * packed.k_bytes);
  T* v = reinterpret_cast<T*>(packed.v + at * packed.v_bytes);
  const float *k_scale = p.k_scale.at(b, head), *v_scale = p.v_scale.at(b, head);
  float* v_factor = reinterpret_cast<float*>(v + TILE * packed.vdim);
  alignas(64) float row[MAX_DIM];
  for (i64 j = 0; j < TILE; ++j) {
    const i64 key = tile * TILE + j;
    const bool real = key >= keys.lo && key < keys.hi;  // the rest may be memory that nobody has written
    const bool scaled = real && sizeof(S) == 1;
    const S* source = (const S*)p.k.data + b * p.k.batch + head * p.k.head + key * p.k.token;
    if constexpr (sizeof(K) == 1) {
      for (i64 d = 0; d < packed.dim; ++d)
        k[d / 4 * 4 * TILE + j * 4 + d % 4] = (K)((real && d < p.dim ? source[d] : 0) + 128);
      reinterpret_cast<float*>(k + TILE * packed.dim)[j] = real ? k_scale[key] : 0;
    } else {
      K* keyed = reinterpret_cast<K*>(row);
      convert<K>(source, keyed, real ? p.dim : 0, packed.dim, scaled ? k_scale[key] : 1);
      for (i64 d = 0; d < packed.dim; d += PAIR<K>)
        for (int i = 0; i < PAIR<K>; ++i) k[d * TILE + j * PAIR<K> + i] = keyed[d + i];
    }
    source = (const S*)p.v.data + b * p.v.batch + head * p.v.head + key * p.v.token;
    if constexpr (sizeof(T) == 1) {
      const float scale = real ? v_scale[key] : 0, most = packed.v_most[b * p.kv_heads + head];
      v_factor[j] = most > 0 ? (scale < 0 ? -scale : scale) * (FULL / most) : 0;
      for (i64 d = 0; d < packed.vdim; ++d) {
        const int value = real && d < p.vdim ? source[d] : 0;
        v[(quad_of(j) * packed.vdim + d) * 4 + j % 4] = (T)(scale < 0 ? min_of(-value, 127) : value);
      }
      continue;
    }
    T* valued = reinterpret_cast<T*>(row);
    convert<T>(source, valued, real ? p.vdim : 0, packed.vdim, scaled ? v_scale[key] : 1);
    T* to = v + j / PAIR<T> * packed.vdim * PAIR<T> + j % PAIR<T>;
    for (i64 d = 0; d < packed.vdim; ++d) to[d * PAIR<T>] = valued[d];
  }
}

void pack(const Attention& p, const Packed& packed, i64 b, i64 head, i64 tile) {
  if constexpr (HALVES) {
    if (packed.halves && p.kv_type == Type::bf16) return pack_tile<bf16, bf16, bf16>(p, packed, b, head, tile);
    if (packed.halves) return pack_tile<std::uint8_t, bf16, std::int8_t>(p, packed, b, head, tile);
  }
  if constexpr (BYTES)
    if (packed.bytes) return pack_tile<std::uint8_t, std::int8_t, std::int8_t>(p, packed, b, head, tile);
  switch (p.kv_type) {
    case Type::f32: return pack_tile<float, float, float>(p, packed, b, head, tile);
    case Type::bf16: return pack_tile<float, float, bf16>(p, packed, b, head, tile);
    case Type::i8: return pack_tile<float, float, std::int8_t>(p, packed, b, head, tile);
    case Type::i4: return;  // no keys are
  }
}

}  // namespace
}  // namespace longspan::LEVEL
