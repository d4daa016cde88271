// One step of decoding with a Llama-like model: what each worker does, and in which order. Five parallel regions a
// layer; what lies between them (norms, rotary positions, writing the cache) is too little to be divided.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <memory>
#include <span>
#include <vector>

#include "attention.h"

namespace longspan {
namespace {

constexpr i64 ROWS = 16;     // rows of a matrix that stay together
constexpr i64 TOKENS = 256;  // of many that are multiplied at a time: as int8 they stay in the second cache
constexpr i64 LEAST_GROUP = group_of(Type::i4);

template <class F>
void on_workers(int workers, F& task) {
  parallel(workers, [](void* context, int worker) { (*static_cast<F*>(context))(worker); }, &task);
}

// Everything a step needs between its products; kept by the thread, so that a step allocates nothing.
struct Work {
  std::vector<float> hidden, branch, x, q, k, v, attended, gate, up, scale, real_sum;
  std::vector<bf16> x16;
  std::vector<std::int8_t> x8;
  std::vector<std::int32_t> sum;
  Input input(i64 tokens, i64 n) {
    const i64 ld = round_up(n, 64);
    const auto fit = [&](auto& buffer, i64 size) {
      if (static_cast<i64>(buffer.size()) < size) buffer.resize(size);
    };
    fit(x, tokens * ld), fit(x16, tokens * ld), fit(x8, tokens * ld);
    fit(scale, tokens * ld / LEAST_GROUP), fit(sum, tokens * ld / LEAST_GROUP);
    fit(real_sum, tokens * ld / LEAST_GROUP);
    return {x.data(), x16.data(), x8.data(), scale.data(), sum.data(), real_sum.data(), ld};
  }
};

float widen(bf16 x) {
  const std::uint32_t bits = static_cast<std::uint32_t>(x) << 16;
  float f;
  std::memcpy(&f, &bits, 4);
  return f;
}
bf16 narrow(float x) {
  std::uint32_t bits;
  std::memcpy(&bits, &x, 4);
  return x != x ? 0x7fc0 : static_cast<bf16>((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

struct Product {
  const Linear* matrix;
  float* y;
};

// Several matrices over the same vectors: their rows form one line that the workers divide.
void divide(const Level& level, std::span<const Product> list, const Input& in, i64 tokens, bool add, int workers) {
  i64 all = 0;
  for (const Product& p : list) all += (p.matrix->out + ROWS - 1) / ROWS;
  auto task = [&](int worker) {
    i64 begin = all * worker / workers, end = all * (worker + 1) / workers, first = 0;
    for (const Product& p : list) {
      const i64 blocks = (p.matrix->out + ROWS - 1) / ROWS;
      const i64 lo = std::max<i64>(0, begin - first) * ROWS, hi = std::min(blocks, end - first) * ROWS;
      if (lo < hi) level.linear(*p.matrix, lo, std::min(hi, p.matrix->out), in, tokens, p.y, p.matrix->out, add);
      first += blocks;
    }
  };
  on_workers(workers, task);
}

// Rotates the halves of a head by the position's angles, as transformers' rotate_half does.
void rotate(float* x, const float* cos, const float* sin, i64 rotary) {
  const i64 half = rotary / 2;
  for (i64 d = 0; d < half; ++d) {
    const float a = x[d], b = x[d + half];
    x[d] = a * cos[d] - b * sin[d];
    x[d + half] = b * cos[d + half] + a * sin[d + half];
  }
}

void store(const Level& level, Type type, void* to, i64 at, float* scales, i64 scale, const float* from, i64 n) {
  switch (type) {
    case Type::f32: std::memcpy(static_cast<float*>(to) + at, from, n * sizeof(float)); break;
    case Type::bf16:
      for (i64 d = 0; d < n; ++d) static_cast<bf16*>(to)[at + d] = narrow(from[d]);
      break;
    case Type::i8: scales[scale] = level.round(from, n, static_cast<std::int8_t*>(to) + at); break;
    case Type::i4: break;  // no keys are
  }
}

}  // namespace

void products(const Level& level, const Linear* matrices, float* const* y, i64 count, const float* x, i64 tokens,
              int workers) {
  thread_local Work work;
  const Type type = matrices->kind();
  const i64 n = matrices->in, group = group_of(type);
  std::vector<Product> list(count);
  for (i64 first = 0; first < tokens; first += TOKENS) {
    const i64 here = std::min(TOKENS, tokens - first);
    const Input in = work.input(here, n);
    auto prepare = [&](int worker) {
      const i64 lo = here * worker / workers, hi = here * (worker + 1) / workers;
      for (i64 t = lo; t < hi; ++t) std::copy_n(x + (first + t) * n, n, in.x + t * in.ld);
      const i64 at = lo * in.ld;
      level.prepare(type, {in.x + at, in.x16 + at, in.x8 + at, in.scale + at / group, in.sum + at / group,
                           in.real_sum + at / group, in.ld}, hi - lo, n);
    };
    on_workers(workers, prepare);
    for (i64 i = 0; i < count; ++i) list[i] = {&matrices[i], y[i] + first * matrices[i].out};
    divide(level, list, in, here, false, workers);
  }
}

void step(const Level& level, const Step& s) {
  thread_local Work work;
  const auto multiply = [&](std::initializer_list<Product> list, const Input& in, i64 tokens, bool add) {
    const Product& first = *list.begin();
    level.prepare(first.matrix->kind(), in, tokens, first.matrix->in);
    divide(level, {list.begin(), list.size()}, in, tokens, add, s.workers);
  };
  const i64 n = s.batch * s.tokens, qs = s.heads * s.dim, kvs = s.kv_heads * s.dim;
  for (auto [buffer, size] : {std::pair{&work.hidden, s.hidden}, {&work.branch, s.hidden}, {&work.q, qs}, {&work.k, kvs}, {&work.v, kvs},
                              {&work.attended, qs}, {&work.gate, s.inner}, {&work.up, s.inner}})
    if (static_cast<i64>(buffer->size()) < n * size) buffer->resize(n * size);
  // A product of a layer that is added to what it began with, as it is or after a norm of its own.
  const auto add = [&](const Linear& matrix, const float* norm, const Input& in) {
    if (!norm) return multiply({{&matrix, work.hidden.data()}}, in, n, true);
    multiply({{&matrix, work.branch.data()}}, in, n, false);
    for (i64 t = 0; t < n; ++t) {
      float* x = work.branch.data() + t * s.hidden;
      level.norm(x, norm, s.hidden, s.eps, x);
      for (i64 d = 0; d < s.hidden; ++d) work.hidden[t * s.hidden + d] += x[d];
    }
  };
  float *hidden = work.hidden.data(), *q = work.q.data(), *k = work.k.data(), *v = work.v.data();

  for (i64 t = 0; t < n; ++t)
    for (i64 d = 0, at = s.ids[t] * s.hidden; d < s.hidden; ++d)
      hidden[t * s.hidden + d] = s.embedding_scale * (s.type == Type::f32 ? static_cast<const float*>(s.embedding)[at + d]
                                                                          : widen(static_cast<const bf16*>(s.embedding)[at + d]));

  for (i64 l = 0; l < s.layers; ++l) {
    const Block& block = s.blocks[l];
    const Cached& cache = s.cache[l];
    Input in = work.input(n, s.hidden);
    for (i64 t = 0; t < n; ++t) level.norm(hidden + t * s.hidden, block.attention_norm, s.hidden, s.eps, in.x + t * in.ld);
    multiply({{&block.q, q}, {&block.k, k}, {&block.v, v}}, in, n, false);

    for (i64 t = 0; t < n; ++t) {
      const i64 b = t / s.tokens, column = s.past + t % s.tokens;
      const i64 position = std::max<i64>(0, column - (s.starts ? s.starts[b] : 0));
      const i64 angles = position * s.rotary;
      for (i64 h = 0; h < s.heads; ++h) {
        float* x = q + t * qs + h * s.dim;
        if (block.q_norm) level.norm(x, block.q_norm, s.dim, s.eps, x);
        if (block.cos) rotate(x, block.cos + angles, block.sin + angles, s.rotary);
      }
      for (i64 h = 0; h < s.kv_heads; ++h) {
        float* x = k + t * kvs + h * s.dim;
        if (block.k_norm) level.norm(x, block.k_norm, s.dim, s.eps, x);
        if (block.cos) rotate(x, block.cos + angles, block.sin + angles, s.rotary);
        const i64 at = b * cache.batch + h * cache.head + column * cache.token;
        const i64 scale = b * cache.scale_batch + h * cache.scale_head + column;
        store(level, s.cached, cache.k, at, cache.k_scale, scale, x, s.dim);
        store(level, s.cached, cache.v, at, cache.v_scale, scale, v + t * kvs + h * s.dim, s.dim);
      }
    }

    Attention a;
    a.q = {q, s.tokens * qs, s.dim, qs};
    a.k = {cache.k, cache.batch, cache.head, cache.token};
    a.v = {cache.v, cache.batch, cache.head, cache.token};
    a.k_scale = {cache.k_scale, cache.scale_batch, cache.scale_head};
    a.v_scale = {cache.v_scale, cache.scale_batch, cache.scale_head};
    in = work.input(n, qs);
    a.out = in.x;
    a.outs = {nullptr, s.tokens * in.ld, s.dim, in.ld};
    a.type = Type::f32;
    a.kv_type = s.cached;
    a.batch = s.batch, a.heads = s.heads, a.kv_heads = s.kv_heads, a.queries = s.tokens;
    a.keys = s.past + s.tokens, a.dim = a.vdim = s.dim;
    a.causal = true;
    a.window = block.window;
    a.scale = s.scale;
    a.softcap = s.softcap;
    a.starts = s.starts;
    a.degree = s.cached == Type::f32 ? 5 : 3;
    a.workers = s.workers;
    decode(level, a);
    add(block.o, block.after_attention, in);

    in = work.input(n, s.hidden);
    for (i64 t = 0; t < n; ++t) level.norm(hidden + t * s.hidden, block.mlp_norm, s.hidden, s.eps, in.x + t * in.ld);
    multiply({{&block.gate, work.gate.data()}, {&block.up, work.up.data()}}, in, n, false);
    in = work.input(n, s.inner);
    for (i64 t = 0; t < n; ++t) {
      level.gate(work.gate.data() + t * s.inner, work.up.data() + t * s.inner, s.inner, s.gelu);
      std::copy_n(work.gate.data() + t * s.inner, s.inner, in.x + t * in.ld);
    }
    add(block.down, block.after_mlp, in);
  }

  const i64 kept = s.batch * s.keep;
  const Input in = work.input(kept, s.hidden);
  for (i64 t = 0; t < kept; ++t) {
    const i64 from = t / s.keep * s.tokens + s.tokens - s.keep + t % s.keep;
    level.norm(hidden + from * s.hidden, s.norm, s.hidden, s.eps, in.x + t * in.ld);
  }
  multiply({{&s.head, s.logits}}, in, kept, false);
}

}  // namespace longspan
