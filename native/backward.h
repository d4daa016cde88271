// The gradient of attention: FlashAttention's backward (2205.14135, algorithm 4). Weights come again from scores and
// log-sum-exp, and dS = P (dP - rowsum(dO * O)). One pass over tiles of queries gives dQ, another over tiles of keys dK
// and dV: products are made twice, but each sum belongs to one worker and is made in one order, so results repeat.
#pragma once
#include "forward.h"

namespace longspan::LEVEL {
namespace {

// Scores of TILE queries and keys, dP, and the sums of a tile: of queries one, of keys two.
std::size_t backward_scratch(const Backward& p) {
  return sizeof(float) * TILE * (2 * TILE + p.q.dim + p.v.dim) + 256;
}

template <class S>
void backward_pack_as(const Side& side, const void* data, Range real, i64 b, i64 head, i64 tile) {
  float *rows = side.row(b, head, tile), *columns = side.column(b, head, tile);
  for (i64 r = 0; r < TILE; ++r) {
    const i64 token = tile * TILE + r;
    const S* from = (const S*)data + b * side.view.batch + head * side.view.head + token * side.view.token;
    float* to = rows + r * side.dim;
    convert<float>(from, to, token >= real.lo && token < real.hi ? side.width : 0, side.dim);
    for (i64 d = 0; d < side.dim; ++d) columns[d * TILE + r] = to[d];
  }
}

void backward_pack(const Side& side, Range real, i64 b, i64 head, i64 tile) {
  if (side.type == Type::f32) backward_pack_as<float>(side, side.view.data, real, b, head, tile);
  else backward_pack_as<bf16>(side, side.view.data, real, b, head, tile);
}

// What the W scores at s say of W weights and of the scores' own gradient, where `seen`.
struct Gradient {
  vf weight, score;
};
INLINE Gradient gradient(const Attention& p, vf s, vf dp, vf lse, vf inner, vi seen) {
  vf slope = all(p.scale);
  s *= p.scale;
  if (p.softcap > 0) {
    const vf bent = tanh_of(s / p.softcap);
    s = bent * p.softcap;
    slope *= 1.f - bent * bent;
  }
  const vf power = s * LOG2E - lse;  // lse in powers of two
  const vf weight = exp2_of<6>(power > 0.f ? vf{} : power);  // more than 0: not seen, or rounding
  return {seen ? weight : vf{}, seen ? weight * (dp - inner) * slope : vf{}};
}

// What belongs to the rows of a tile of queries; rows behind the last see nothing.
struct QueryRows {
  alignas(64) float lse[TILE], inner[TILE];
  alignas(64) std::int32_t lo[TILE], hi[TILE];  // the keys that they see
  QueryRows(const Attention& p, const float* inners, i64 b, i64 h, i64 first) {
    for (i64 r = 0; r < TILE; ++r) {
      const i64 i = first + r, at = (b * p.heads + h) * p.queries + i;
      const bool real = i < p.queries && p.lse[at] != -INFINITY;
      const Range keys = real ? visible(p, b, i) : Range{0, 0};
      lse[r] = real ? p.lse[at] * LOG2E : 0;
      inner[r] = real ? inners[at] : 0;
      lo[r] = (std::int32_t)keys.lo, hi[r] = (std::int32_t)keys.hi;
    }
  }
};

INLINE vi counting() {
  vi x;
  for (int i = 0; i < W; ++i) x[i] = i;
  return x;
}

void backward_queries(const Backward& p, const Item& item, char* scratch) {
  const Attention& a = p.attention;
  const i64 kv_head = item.h / (a.heads / a.kv_heads), tile = item.first / TILE;
  float *s = (float*)scratch, *dp = s + TILE * TILE, *dq = dp + TILE * TILE;
  const QueryRows rows(a, p.inner, item.b, item.h, item.first);
  for (i64 d = 0; d < TILE * p.q.dim; d += W) put(dq + d, vf{});
  for (i64 t = item.tiles.lo; t < item.tiles.hi; ++t) {
    if (!in_layout(a, item.b, item.h, item.first, t)) continue;
    const float *k = p.k.column(item.b, kv_head, t), *v = p.v.column(item.b, kv_head, t);
    product<float>(TILE, TILE, p.q.row(item.b, item.h, tile), p.q.dim, &k, 1, TILE, (int)p.q.dim, s, TILE, false);
    product<float>(TILE, TILE, p.grad.row(item.b, item.h, tile), p.v.dim, &v, 1, TILE, (int)p.v.dim, dp, TILE, false);
    for (i64 r = 0; r < TILE; ++r)
      for (i64 j = 0; j < TILE; j += W) {
        const vi key = counting() + (std::int32_t)(t * TILE + j);
        const vi seen = (key >= rows.lo[r]) & (key < rows.hi[r]);
        float* at = s + r * TILE + j;
        put(at, gradient(a, get<vf>(at), get<vf>(dp + r * TILE + j), all(rows.lse[r]), all(rows.inner[r]), seen).score);
      }
    const float* keys = p.k.row(item.b, kv_head, t);
    product<float>(TILE, p.q.dim, s, TILE, &keys, 1, p.q.dim, TILE, dq, p.q.dim, true);
  }
  float* to = p.dq + ((item.b * a.heads + item.h) * a.queries + item.first) * a.dim;
  for (i64 r = 0; r < item.rows; ++r)
    for (i64 d = 0; d < a.dim; ++d) to[r * a.dim + d] = dq[r * p.q.dim + d];
}

// `tiles`: the tiles of keys that each tile of queries sees, [batch][query tiles].
void backward_keys(const Backward& p, const Range* tiles, i64 b, i64 kv_head, i64 t, char* scratch) {
  const Attention& a = p.attention;
  float *s = (float*)scratch, *dp = s + TILE * TILE, *dk = dp + TILE * TILE, *dv = dk + TILE * p.q.dim;
  for (i64 d = 0; d < TILE * (p.q.dim + p.v.dim); d += W) put(dk + d, vf{});
  const i64 group = a.heads / a.kv_heads;
  for (i64 h = kv_head * group; h < (kv_head + 1) * group; ++h)
    for (i64 tile = 0; tile < p.q.tiles; ++tile) {
      const Range range = tiles[b * p.q.tiles + tile];
      if (t < range.lo || t >= range.hi || !in_layout(a, b, h, tile * TILE, t)) continue;
      const QueryRows rows(a, p.inner, b, h, tile * TILE);
      const float *q = p.q.column(b, h, tile), *grad = p.grad.column(b, h, tile);
      product<float>(TILE, TILE, p.k.row(b, kv_head, t), p.q.dim, &q, 1, TILE, (int)p.q.dim, s, TILE, false);
      product<float>(TILE, TILE, p.v.row(b, kv_head, t), p.v.dim, &grad, 1, TILE, (int)p.v.dim, dp, TILE, false);
      for (i64 r = 0; r < TILE; ++r)
        for (i64 j = 0; j < TILE; j += W) {
          const std::int32_t key = (std::int32_t)(t * TILE + r);
          const vi seen = (get<vi>(rows.lo + j) <= key) & (get<vi>(rows.hi + j) > key);
          float *weight = s + r * TILE + j, *score = dp + r * TILE + j;
          const Gradient g = gradient(a, get<vf>(weight), get<vf>(score), get<vf>(rows.lse + j), get<vf>(rows.inner + j), seen);
          put(weight, g.weight);
          put(score, g.score);
        }
      const float *queries = p.q.row(b, h, tile), *grads = p.grad.row(b, h, tile);
      product<float>(TILE, p.q.dim, dp, TILE, &queries, 1, p.q.dim, TILE, dk, p.q.dim, true);
      product<float>(TILE, p.v.dim, s, TILE, &grads, 1, p.v.dim, TILE, dv, p.v.dim, true);
    }
  for (i64 r = 0; r < min_of(TILE, a.keys - t * TILE); ++r) {
    const i64 at = (b * a.kv_heads + kv_head) * a.keys + t * TILE + r;
    for (i64 d = 0; d < a.dim; ++d) p.dk[at * a.dim + d] = dk[r * p.q.dim + d];
    for (i64 d = 0; d < a.vdim; ++d) p.dv[at * a.vdim + d] = dv[r * p.v.dim + d];
  }
}

}  // namespace
}  // namespace longspan::LEVEL
