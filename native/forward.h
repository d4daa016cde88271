// Attention of one query tile: FlashAttention's loop (2205.14135, 2307.08691) with FlashAttention-4's softmax.
#pragma once
#include "products.h"
#if defined(TILES)
#include "tiles.h"
#endif

namespace longspan::LEVEL {
namespace {

constexpr float LOG2E = 1.44269504f, LN2 = 0.693147181f;

struct Rows {  // of one work item
  float m[TILE];       // what scores are compared to, in powers of two; the maximum, up to the threshold
  vf sum[TILE];        // of 2^(score - m), by lanes
  Range keys[TILE];    // that the row sees
  float factor[TILE];  // of the weights, where they are integers
};

template <class Q, class T>
struct Scratch {
  Rows* rows;
  Q* q;               // [TILE, dim]
  float* scale;       // [TILE], of int8 queries
  std::int32_t* sum;  // [TILE], of their numbers
  float* s;           // [TILE, STEP * TILE]
  T* p;               // [TILE, STEP * TILE]
  float* o;           // [TILE, vdim]
};

std::size_t attend_scratch(const Attention&, const Packed& packed) {
  return sizeof(Rows) + 4 * TILE * (packed.dim + 2 + 2 * STEP * TILE + packed.vdim) + 256;
}

template <class Q, class T>
INLINE Scratch<Q, T> carve(char* from, const Packed& packed) {
  Scratch<Q, T> s;
  const auto take = [&](i64 bytes) {
    char* here = from;
    from += round_up(bytes, 64);
    return here;
  };
  s.rows = (Rows*)take(sizeof(Rows));
  s.q = (Q*)take(4 * TILE * packed.dim);
  s.scale = (float*)take(4 * TILE);
  s.sum = (std::int32_t*)take(4 * TILE);
  s.s = (float*)take(4 * TILE * STEP * TILE);
  s.p = (T*)take(4 * TILE * STEP * TILE);
  s.o = (float*)take(4 * TILE * packed.vdim);
  return s;
}

INLINE void put_row(float* to, vf x) { put(to, x); }
INLINE void put_row(bf16* to, vf x) { put(to, to_bf16(x)); }

// The largest of a row's scores s[n] * factor; m, the row's sum and its output o move along.
INLINE float raise(const float* s, int n, float factor, float threshold, float& m, vf& sum, float* o, i64 vdim,
                   Counters& counters) {
  vf most[2] = {all(-INFINITY), all(-INFINITY)};
  for (int j = 0; j < n; j += 2 * W) {
    most[0] = larger(get<vf>(s + j), most[0]);
    most[1] = larger(get<vf>(s + j + W), most[1]);
  }
  const float now = max_of_lanes(larger(most[0], most[1])) * factor;
  if (now > m) {
    const bool first = m == -INFINITY;
    counters.grown += !first;
    if (first) {
      m = now;
    } else if (now - m > threshold) {
      const float shrink = ::exp2f(m - now);
      sum *= shrink;
      for (i64 d = 0; d < vdim; d += W) put(o + d, get<vf>(o + d) * shrink);
      m = now;
    } else {
      ++counters.skipped;
    }
  }
  return now;
}

// Scores s[n] of one row become weights p[n] = 2^(s * factor - m).
template <class T, int DEGREE>
void softmax_row(const float* s, T* p, int n, float factor, float threshold, float& m, vf& sum, float* o, i64 vdim,
                 Counters& counters) {
  raise(s, n, factor, threshold, m, sum, o, vdim, counters);
  const float base = m == -INFINITY ? 0.f : m;  // a row that has seen nothing: all weights become 0
  vf total = sum;
#pragma GCC unroll 4
  for (int j = 0; j < n; j += W) {
    const vf weight = exp2_of<DEGREE>(get<vf>(s + j) * factor - base);
    total += weight;
    put_row(p + j, weight);
  }
  sum = total;
}

#if defined(__AVX512VNNI__)
// The same to 16 bits, times the values' scales [n / TILE][TILE]: p[j] * v_scale[j] * the result is 2^(s * factor - m).
template <int DEGREE>
float softmax_row_i8(const float* s, std::uint8_t* p, int n, const float* const* v_scale, float factor, float threshold,
                     float& m, vf& sum, float* o, i64 vdim, Counters& counters) {
  const float now = raise(s, n, factor, threshold, m, sum, o, vdim, counters);
  const float base = now == -INFINITY ? 0.f : now;
  vf total = vf{}, bad = vf{};
  for (int j = 0; j < n; j += TILE) {
    vf weights[4];
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) {
      const vf scale = get<vf>(v_scale[j / TILE] + i * W);
      const vf weight = exp2_of<DEGREE>(get<vf>(s + j + i * W) * factor - base);
      total += weight;
      bad += scale * 0.f;  // integers know no NaN
      weights[i] = weight * scale;
    }
    split(weights, p + j, STEP * TILE);
  }
  const float shrink = now == -INFINITY ? 0.f : ::exp2f(now - m);
  sum += total * shrink;
  return shrink + sum_of(bad);
}
#endif

template <class F>
INLINE void by_degree(int degree, F run) {
  switch (degree) {
    case 2: return run.template operator()<2>();
    case 3: return run.template operator()<3>();
    case 4: return run.template operator()<4>();
    case 5: return run.template operator()<5>();
    case 6: return run.template operator()<6>();
    default: return run.template operator()<0>();
  }
}

// One row of a tile: soft-capping, and -inf for the keys outside of `keys`, the first of them being key `at`.
INLINE void mask_row(float* s, i64 at, Range keys) {
  for (i64 j = 0; j < min_of(TILE, keys.lo - at); ++j) s[j] = -INFINITY;
  for (i64 j = max_of(0, keys.hi - at); j < TILE; ++j) s[j] = -INFINITY;
}

// Q: what scores are computed in; T: weights and values (uint8: two bytes of weights, int8 values); S: queries as they
// come, and the output.
template <class Q, class T, class S>
void attend_item(const Attention& p, const Packed& packed, const Item& item, char* scratch, Counters& counters) {
  const Tiles tiles;
  const Scratch<Q, T> w = carve<Q, T>(scratch, packed);
  const i64 kv_head = item.h / (p.heads / p.kv_heads);
  const i64 first_tile = (item.b * p.kv_heads + kv_head) * packed.tiles;
  const i64 rows = round_up(item.rows, ROWS), width = STEP * TILE;
  const float factor = p.softcap > 0 ? LOG2E : p.scale * LOG2E;
  for (i64 r = 0; r < rows; ++r) {
    const bool real = r < item.rows;
    const i64 i = item.first + r;
    const S* query = (const S*)p.q.data + item.b * p.q.batch + item.h * p.q.head + i * p.q.token;
    Q* to = w.q + r * packed.dim;
    if (p.kv_type == Type::i8) {
      alignas(64) float row[MAX_DIM];
      alignas(64) std::int8_t rounded[MAX_DIM];
      convert<float>(query, row, real ? p.dim : 0, packed.dim);
      w.scale[r] = round_i8(row, packed.dim, rounded, w.sum[r]);
      convert<Q>(rounded, to, packed.dim, packed.dim, w.scale[r]);
    } else if constexpr (sizeof(Q) > 1) {
      convert<Q>(query, to, real ? p.dim : 0, packed.dim);
    }
    // A sink is a key without a value, seen first.
    w.rows->m[r] = p.sinks ? p.sinks[item.h] * LOG2E : -INFINITY;
    w.rows->sum[r] = vf{};
    if (p.sinks) w.rows->sum[r][0] = 1;
    w.rows->keys[r] = real ? visible(p, item.b, i) : Range{0, 0};
  }
  for (i64 d = 0; d < rows * packed.vdim; d += W) put(w.o + d, vf{});

  for (i64 t = item.tiles.lo; t < item.tiles.hi;) {
    i64 tile[STEP];
    const char* v[STEP];
    int n = 0;
    for (; t < item.tiles.hi && n < STEP; ++t)
      if (in_layout(p, item.b, item.h, item.first, t)) {
        tile[n] = t;
        v[n++] = packed.v + (first_tile + t) * packed.v_bytes;
      }
    if (!n) break;
    for (int j = 0; j < n; ++j) {
      const char* at = packed.k + (first_tile + tile[j]) * packed.k_bytes;
      if constexpr (sizeof(Q) == 1) {
        product_i8(rows, w.q, packed.dim, w.scale, w.sum, (const std::uint8_t*)at,
                   (const float*)(at + TILE * packed.dim), w.s + j * TILE, width);
      } else {
        const Q* k = (const Q*)at;
        product<Q>(rows, TILE, w.q, packed.dim, &k, 1, TILE * PAIR<Q>, packed.dim / PAIR<Q>, w.s + j * TILE, width,
                   false);
      }
    }
    for (i64 r = 0; r < rows; ++r) {
      float* s = w.s + r * width;
      if (p.softcap > 0)
        for (i64 j = 0; j < n * TILE; j += W) put(s + j, tanh_of(get<vf>(s + j) * (p.scale / p.softcap)) * p.softcap);
      const Range keys = w.rows->keys[r];
      for (int j = 0; j < n; ++j)
        if (tile[j] * TILE < keys.lo || (tile[j] + 1) * TILE > keys.hi) mask_row(s + j * TILE, tile[j] * TILE, keys);
    }
#if defined(__AVX512VNNI__)
    if constexpr (sizeof(T) == 1) {
      const float* scale[STEP];
      const std::int8_t* values[STEP];
      for (int j = 0; j < n; ++j) {
        values[j] = (const std::int8_t*)v[j];
        scale[j] = (const float*)(v[j] + TILE * packed.vdim);
      }
      const float most = packed.v_most[item.b * p.kv_heads + kv_head] / FULL;
      by_degree(p.degree, [&]<int DEGREE>() {
        for (i64 r = 0; r < rows; ++r)
          w.rows->factor[r] = most * softmax_row_i8<DEGREE>(w.s + r * width, w.p + r * 2 * width, n * TILE, scale, factor,
                                                            p.threshold, w.rows->m[r], w.rows->sum[r],
                                                            w.o + r * packed.vdim, packed.vdim, counters);
      });
      weighted_i8(rows, w.p, width, values, n, packed.vdim, w.rows->factor, w.o);
    } else
#endif
    {
      const T* values[STEP];
      for (int j = 0; j < n; ++j) values[j] = (const T*)v[j];
      by_degree(p.degree, [&]<int DEGREE>() {
        for (i64 r = 0; r < rows; ++r)
          softmax_row<T, DEGREE>(w.s + r * width, w.p + r * width, n * TILE, factor, p.threshold, w.rows->m[r],
                                 w.rows->sum[r], w.o + r * packed.vdim, packed.vdim, counters);
      });
      product<T>(rows, packed.vdim, w.p, width, values, n, packed.vdim * PAIR<T>, TILE / PAIR<T>, w.o, packed.vdim, true);
    }
  }

  for (i64 r = 0; r < item.rows; ++r) {
    const i64 i = item.first + r;
    const float sum = sum_of(w.rows->sum[r]), m = w.rows->m[r];
    const float inverse = sum == 0 ? 0 : 1 / sum;  // a row that sees nothing is zero
    S* out = (S*)p.out + item.b * p.outs.batch + item.h * p.outs.head + i * p.outs.token;
    const float* o = w.o + r * packed.vdim;
    for (i64 d = 0; d < p.vdim; ++d) {
      if constexpr (sizeof(S) == 4) out[d] = o[d] * inverse;
      else out[d] = bf16_of(o[d] * inverse);
    }
    if (p.lse) p.lse[(item.b * p.heads + item.h) * p.queries + i] = sum == 0 ? -INFINITY : m * LN2 + ::logf(sum);
  }
}

void attend(const Attention& p, const Packed& packed, const Item& item, char* scratch, Counters& counters) {
  const bool wide = p.type == Type::f32;
  if constexpr (HALVES) {
    if (packed.halves && p.kv_type == Type::bf16) return attend_item<bf16, bf16, bf16>(p, packed, item, scratch, counters);
    if (packed.halves && wide) return attend_item<std::int8_t, bf16, float>(p, packed, item, scratch, counters);
    if (packed.halves) return attend_item<std::int8_t, bf16, bf16>(p, packed, item, scratch, counters);
  }
  if constexpr (BYTES) {
    if (packed.bytes && wide) return attend_item<std::int8_t, std::uint8_t, float>(p, packed, item, scratch, counters);
    if (packed.bytes) return attend_item<std::int8_t, std::uint8_t, bf16>(p, packed, item, scratch, counters);
  }
  if (wide) attend_item<float, float, float>(p, packed, item, scratch, counters);
  else attend_item<float, float, bf16>(p, packed, item, scratch, counters);
}

}  // namespace
}  // namespace longspan::LEVEL
