// Decoding: one tile of keys for all query heads that share them, read where they lie (fp32, bf16 or int8).
#pragma once
#include "forward.h"

namespace longspan::LEVEL {
namespace {

// A query as the products with keys want it: as float, and rounded to bf16 or to int8 (q = q8 * scale; `sum` of the q8).
struct Query {
  float* q;
  bf16* q16;
  std::int8_t* q8;
  float scale;
  std::int32_t sum;
};

// Queries as float, bf16 and int8 [rows, dim padded], scores [rows, DECODE_TILE].
std::size_t decode_scratch(const Attention& p) {
  const i64 rows = p.heads / p.kv_heads * p.queries;
  return rows * (sizeof(Query) + round_up(p.dim, 64) * 7 + DECODE_TILE * 4) + 256;
}

INLINE vf load(const float* p) { return get<vf>(p); }
INLINE vf load(const bf16* p) { return from_bf16(p); }
INLINE vf load(const std::int8_t* p) { return from_i8(p); }

INLINE float load_one(float x) { return x; }
INLINE float load_one(bf16 x) { return float_of(x); }
INLINE float load_one(std::int8_t x) { return x; }

// Rows are asked for before they are needed: while a tile's scores are computed, its values, while these are summed, the
// next tile's keys, into the second cache, so that memory is never idle; the next few rows into the first. The
// processor's own prefetcher stops at every page. An address behind the end is harmless.
constexpr i64 AHEAD = 8;  // rows; measured
enum Cache { SECOND = 2, FIRST = 3 };

template <Cache CACHE, class K>
INLINE void prefetch(const K* row, i64 n) {
  for (i64 i = 0; i < n * (i64)sizeof(K); i += 64) __builtin_prefetch((const char*)row + i, 0, CACHE);
}

// Rows of keys that come next; none where data is missing.
template <class K>
struct Next {
  const K* data;
  i64 token;
};

// s[j] = q . k[j] for W keys from k on, `token` elements apart.
template <class K>
INLINE vf dots(const float* q, const bf16* q16, const K* k, i64 token, i64 dim) {
  vf sum[W];
#if defined(__AVX512BF16__)
  if constexpr (sizeof(K) == 2) {
    for (int j = 0; j < W; ++j) sum[j] = vf{};
    for (i64 d = 0; d < dim; d += 32) {
      const __m512bh x = get<__m512bh>(q16 + d);
      if (d + 32 <= dim) {
#pragma GCC unroll 16
        for (int j = 0; j < W; ++j)
          sum[j] = (vf)_mm512_dpbf16_ps((__m512)sum[j], x, get<__m512bh>(k + j * token + d));
      } else {
        const __mmask32 left = (1u << (dim - d)) - 1;
#pragma GCC unroll 16
        for (int j = 0; j < W; ++j)
          sum[j] = (vf)_mm512_dpbf16_ps((__m512)sum[j], x, (__m512bh)_mm512_maskz_loadu_epi16(left, k + j * token + d));
      }
    }
    return sums(sum);
  }
#endif
  (void)q16;
#pragma GCC unroll 16
  for (int j = 0; j < W; ++j) sum[j] = vf{};
  i64 d = 0;
  for (; d + W <= dim; d += W) {
    const vf x = get<vf>(q + d);
#pragma GCC unroll 16
    for (int j = 0; j < W; ++j) sum[j] += x * load(k + j * token + d);
  }
  vf s = sums(sum);
  for (; d < dim; ++d)
    for (int j = 0; j < W; ++j) s[j] += q[d] * load_one(k[j * token + d]);
  return s;
}

#if defined(__AVX512VNNI__)
// Lane j of the result is q . k[AT + j]: as `sums`, but each vector is made where it is needed. k: CHUNKS parts of W keys,
// 64 numbers of each, plus 128.
template <int CHUNKS, int AT, int N>
INLINE vi dots_i8(const __m512i* q, const __m512i* k) {
  if constexpr (N == 1) {
    __m512i sum = _mm512_setzero_si512();
#pragma GCC unroll 4
    for (int c = 0; c < CHUNKS; ++c) sum = _mm512_dpbusd_epi32(sum, k[c * W + AT], q[c]);
    return (vi)sum;
  } else {
    const vi a = dots_i8<CHUNKS, AT, N / 2>(q, k), b = dots_i8<CHUNKS, AT + N / 2, N / 2>(q, k);
    return __builtin_shufflevector(a, b, 0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30) +
           __builtin_shufflevector(a, b, 1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31);
  }
}

// s[r][j] = q[r] . k[j] * the query's scale for W keys from k on, `token` elements apart.
template <int CHUNKS>
INLINE void scores_i8(const Query* q, i64 rows, const std::int8_t* k, i64 token, i64 dim, float* s) {
  __m512i keys[CHUNKS * W];
  for (int c = 0; c < CHUNKS; ++c) {
    const i64 left = dim - 64 * c;
    const __mmask64 here = left >= 64 ? ~0ull : (1ull << left) - 1;
#pragma GCC unroll 16
    for (int j = 0; j < W; ++j)
      keys[c * W + j] = _mm512_xor_si512(_mm512_maskz_loadu_epi8(here, k + j * token + 64 * c), _mm512_set1_epi8(-128));
  }
  for (i64 r = 0; r < rows; ++r) {
    __m512i x[CHUNKS];
    for (int c = 0; c < CHUNKS; ++c) x[c] = get<__m512i>(q[r].q8 + 64 * c);
    const vi sum = dots_i8<CHUNKS, 0, W>(x, keys) - 128 * q[r].sum;
    put(s + r * DECODE_TILE, __builtin_convertvector(sum, vf) * q[r].scale);
  }
}
#endif

// s[r][j] = q[r] . k[j] for W keys from k on.
template <class K>
INLINE void scores(const Query* q, i64 rows, const K* k, i64 token, i64 dim, float* s) {
#if defined(__AVX512VNNI__)
  if constexpr (sizeof(K) == 1) {
    switch ((dim + 63) / 64) {
      case 1: return scores_i8<1>(q, rows, k, token, dim, s);
      case 2: return scores_i8<2>(q, rows, k, token, dim, s);
      case 3: return scores_i8<3>(q, rows, k, token, dim, s);
      default: return scores_i8<4>(q, rows, k, token, dim, s);
    }
  }
#endif
  for (i64 r = 0; r < rows; ++r) put(s + r * DECODE_TILE, dots<K>(q[r].q, q[r].q16, k, token, dim));
}

// V vectors of one row. Two vectors of bf16 come from one load, even elements and odd ones: `in_order` undoes that.
template <int V>
INLINE void load_row(const bf16* p, vf (&row)[V]) {
  if constexpr (V % 2) {
    for (int c = 0; c < V; ++c) row[c] = from_bf16(p + c * W);
  } else {
#pragma GCC unroll 4
    for (int c = 0; c < V; c += 2) {
      const vu pairs = get<vu>(p + c * W);
      row[c] = (vf)(pairs << 16);
      row[c + 1] = (vf)(pairs & 0xffff0000u);
    }
  }
}
template <int V, class K>
INLINE void load_row(const K* p, vf (&row)[V]) {
#pragma GCC unroll 4
  for (int c = 0; c < V; ++c) row[c] = load(p + c * W);
}
template <class K, int V>
INLINE void in_order(vf (&row)[V]) {
  if constexpr (sizeof(K) == 2 && V % 2 == 0) {
    for (int c = 0; c < V; c += 2) {
      float both[2 * W];
      for (int i = 0; i < W; ++i) both[2 * i] = row[c][i], both[2 * i + 1] = row[c + 1][i];
      row[c] = get<vf>(both), row[c + 1] = get<vf>(both + W);
    }
  }
}

// o[R][vdim] = sum over n keys of p[r][j] v[j], R rows at once, V vectors of columns.
template <class K, int R, int V>
INLINE void weighted(const float* p, i64 ldp, const K* v, i64 token, i64 n, float* o, i64 vdim, Next<K> next) {
  vf sum[R][V];
  for (int r = 0; r < R; ++r)
    for (int c = 0; c < V; ++c) sum[r][c] = vf{};
  for (i64 j = 0; j < n; ++j) {
    vf row[V];
    load_row<V>(v + j * token, row);
    prefetch<FIRST>(v + (j + AHEAD) * token, V * W);
    if (next.data) prefetch<SECOND>(next.data + j * next.token, V * W);
#pragma GCC unroll 4
    for (int r = 0; r < R; ++r) {
      const vf x = all(p[r * ldp + j]);
#pragma GCC unroll 4
      for (int c = 0; c < V; ++c) sum[r][c] += x * row[c];
    }
  }
  for (int r = 0; r < R; ++r) {
    in_order<K>(sum[r]);
    for (int c = 0; c < V; ++c) put(o + r * vdim + c * W, sum[r][c]);
  }
}

template <class K, int R>
void weighted_rows(const float* p, i64 ldp, const K* v, i64 token, i64 n, float* o, i64 vdim, Next<K> next) {
  constexpr int V = LANES == 8 ? 2 : 4;
  const auto after = [&](i64 d) { return Next<K>{next.data ? next.data + d : nullptr, next.token}; };
  i64 d = 0;
  for (; d + V * W <= vdim; d += V * W) weighted<K, R, V>(p, ldp, v + d, token, n, o + d, vdim, after(d));
  for (; d + W <= vdim; d += W) weighted<K, R, 1>(p, ldp, v + d, token, n, o + d, vdim, after(d));
  for (; d < vdim; ++d)
    for (int r = 0; r < R; ++r) {
      float sum = 0;
      for (i64 j = 0; j < n; ++j) sum += p[r * ldp + j] * load_one(v[j * token + d]);
      o[r * vdim + d] = sum;
    }
}

template <class K, int DEGREE>
void decode_keys(const Attention& p, i64 b, i64 kv_head, i64 begin, i64 end, const Partial& to, char* scratch) {
  const i64 group = p.heads / p.kv_heads, rows = group * p.queries, n = end - begin, padded = round_up(p.dim, 64);
  float* q32 = (float*)scratch;
  float* s = q32 + rows * padded;
  bf16* q16 = (bf16*)(s + rows * DECODE_TILE);
  std::int8_t* q8 = (std::int8_t*)(q16 + rows * padded);
  Query* q = (Query*)(q8 + rows * padded);
  const float factor = p.softcap > 0 ? LOG2E : p.scale * LOG2E;
  for (i64 r = 0; r < rows; ++r) {
    const i64 at = b * p.q.batch + (kv_head * group + r / p.queries) * p.q.head + r % p.queries * p.q.token;
    q[r] = {q32 + r * padded, q16 + r * padded, q8 + r * padded, 1, 0};
    if (p.type == Type::f32) convert<float>((const float*)p.q.data + at, q[r].q, p.dim, padded);
    else convert<float>((const bf16*)p.q.data + at, q[r].q, p.dim, padded);
    if constexpr (sizeof(K) == 1) {
      q[r].scale = round_i8(q[r].q, padded, q[r].q8, q[r].sum);
      convert<float>(q[r].q8, q[r].q, padded, padded, q[r].scale);
    } else {
      for (i64 d = 0; d < padded; d += W) put(q[r].q16 + d, to_bf16(get<vf>(q[r].q + d)));
    }
  }

  const K* k = (const K*)p.k.data + b * p.k.batch + kv_head * p.k.head + begin * p.k.token;
  const K* v = (const K*)p.v.data + b * p.v.batch + kv_head * p.v.head + begin * p.v.token;
  for (i64 j = 0; j < n; j += W) {
    const i64 here = min_of(W, n - j);
    for (i64 i = j; i < j + W; ++i) {
      prefetch<FIRST>(k + (i + AHEAD) * p.k.token, p.dim);
      prefetch<SECOND>(v + i * p.v.token, p.vdim);
    }
    K rest[W * MAX_DIM];
    const K* from = k + j * p.k.token;
    i64 token = p.k.token;
    if (here < W) {  // the last few keys: beyond them nothing may be read
      for (i64 i = 0; i < W; ++i)
        for (i64 d = 0; d < p.dim; ++d) rest[i * p.dim + d] = i < here ? from[i * token + d] : K(0);
      from = rest;
      token = p.dim;
    }
    scores<K>(q, rows, from, token, p.dim, s + j);
  }

  const float* k_scale = p.k_scale.data ? p.k_scale.at(b, kv_head) + begin : nullptr;
  const float* v_scale = p.v_scale.data ? p.v_scale.at(b, kv_head) + begin : nullptr;
  for (i64 r = 0; r < rows; ++r) {
    float* row = s + r * DECODE_TILE;
    const Range keys = visible(p, b, r % p.queries);
    if (k_scale)
      for (i64 j = 0; j < n; ++j) row[j] *= k_scale[j];
    if (p.softcap > 0)
      for (i64 j = 0; j < n; j += W) put(row + j, tanh_of(get<vf>(row + j) * (p.scale / p.softcap)) * p.softcap);
    for (i64 j = 0; j < min_of(n, keys.lo - begin); ++j) row[j] = -INFINITY;
    for (i64 j = max_of(0, keys.hi - begin); j < round_up(n, W); ++j) row[j] = -INFINITY;
    for (i64 j = n; j < round_up(n, W); ++j) row[j] = -INFINITY;
    vf most = all(-INFINITY), sum = vf{};
    for (i64 j = 0; j < n; j += W) most = larger(get<vf>(row + j), most);
    const float m = max_of_lanes(most) * factor, base = m == -INFINITY ? 0 : m;
    for (i64 j = 0; j < n; j += W) {
      const vf weight = exp2_of<DEGREE>(get<vf>(row + j) * factor - base);
      sum += weight;
      put(row + j, weight);
    }
    if (v_scale)
      for (i64 j = 0; j < n; ++j) row[j] *= v_scale[j];
    to.m[r] = m;
    to.l[r] = sum_of(sum);
  }

  const auto sum_rows = [&]<int R>(i64 r) {
    const Next<K> next{r ? nullptr : k + n * p.k.token, p.k.token};
    weighted_rows<K, R>(s + r * DECODE_TILE, DECODE_TILE, v, p.v.token, n, to.o + r * p.vdim, p.vdim, next);
  };
  i64 r = 0;
  for (; r + 4 <= rows; r += 4) sum_rows.template operator()<4>(r);
  switch (rows - r) {
    case 3: sum_rows.template operator()<3>(r); break;
    case 2: sum_rows.template operator()<2>(r); break;
    case 1: sum_rows.template operator()<1>(r); break;
  }
}

template <class K>
void decode_degree(const Attention& p, i64 b, i64 kv_head, i64 begin, i64 end, const Partial& to, char* scratch) {
  switch (p.degree) {  // decoding waits for memory: two degrees are enough
    case 0: return decode_keys<K, 0>(p, b, kv_head, begin, end, to, scratch);
    case 2:
    case 3: return decode_keys<K, 3>(p, b, kv_head, begin, end, to, scratch);
    default: return decode_keys<K, 6>(p, b, kv_head, begin, end, to, scratch);
  }
}

void decode_tile(const Attention& p, i64 b, i64 kv_head, i64 begin, i64 end, const Partial& to, char* scratch) {
  switch (p.kv_type) {
    case Type::f32: return decode_degree<float>(p, b, kv_head, begin, end, to, scratch);
    case Type::bf16: return decode_degree<bf16>(p, b, kv_head, begin, end, to, scratch);
    case Type::i8: return decode_degree<std::int8_t>(p, b, kv_head, begin, end, to, scratch);
    case Type::i4: return;  // no keys are
  }
}

}  // namespace
}  // namespace longspan::LEVEL
