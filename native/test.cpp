// The kernels without Python, attention against double precision and steps against themselves, over every level that
// this processor runs. Built under the sanitizers by native/sanitize.sh: each tensor has exactly its size, so that one
// element too far is seen.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <random>
#include <vector>

#include "attention.h"

using namespace longspan;

namespace {

std::mt19937 engine(1);
i64 between(i64 lo, i64 hi) { return std::uniform_int_distribution<i64>(lo, hi)(engine); }
bool flip() { return between(0, 1); }
float normal(float deviation) { return std::normal_distribution<float>(0, deviation)(engine); }

bf16 round_bf16(float x) {
  std::uint32_t bits;
  std::memcpy(&bits, &x, 4);
  return static_cast<bf16>((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}
float widen(bf16 x) {
  const std::uint32_t bits = static_cast<std::uint32_t>(x) << 16;
  float f;
  std::memcpy(&f, &bits, 4);
  return f;
}

// The same numbers as fp32 and bf16; with `token` numbers to a vector they are int8 times a scale for each, too: the
// first 127 and the scale a power of two, so that rounding such a query to int8 changes nothing.
struct Tensor {
  std::vector<float> f, scale;
  std::vector<bf16> h;
  std::vector<std::int8_t> b;
  Tensor(i64 n, float deviation, i64 token = 0) : f(n), h(n) {
    for (i64 i = 0; i < n; ++i) {
      if (token) {
        if (i % token == 0) scale.push_back(std::exp2(std::floor(std::log2(deviation / 64)) - between(0, 2)));
        b.push_back(static_cast<std::int8_t>(i % token == 0 ? 127 : between(-127, 127)));
        f[i] = widen(h[i] = round_bf16(b[i] * scale.back()));
      } else {
        f[i] = widen(h[i] = round_bf16(normal(deviation)));
      }
    }
  }
  const void* data(Type type) const {
    return type == Type::f32 ? static_cast<const void*>(f.data()) : type == Type::i8 ? static_cast<const void*>(b.data()) : h.data();
  }
};

double score(const Attention& p, const Tensor& q, const Tensor& k, i64 qat, i64 kat) {
  double s = 0;
  for (i64 d = 0; d < p.dim; ++d) s += static_cast<double>(q.f[qat + d]) * k.f[kat + d];
  s *= p.scale;
  return p.softcap > 0 ? p.softcap * std::tanh(s / p.softcap) : s;
}

bool trial(const Level& level, bool decoding) {
  Attention p;
  p.type = p.kv_type = flip() ? Type::f32 : Type::bf16;
  if (flip()) p.kv_type = Type::i8;
  p.batch = between(1, 3);
  p.kv_heads = between(1, 2);
  p.heads = p.kv_heads * between(1, 5);
  p.queries = decoding ? between(1, 3) : between(1, 150);
  p.keys = between(1, decoding ? 700 : 300);
  p.dim = between(1, 80);
  p.vdim = between(1, 80);
  p.causal = flip();
  p.window = flip() ? 0 : between(1, 100);
  p.scale = 0.3f;
  p.softcap = flip() ? 0 : 5;
  p.degree = 6;
  p.halves = flip();
  p.workers = static_cast<int>(between(1, 3));
  const float spread = flip() ? 1 : 30;
  const bool bytes = p.kv_type == Type::i8;
  const Tensor q(p.batch * p.heads * p.queries * p.dim, spread, bytes ? p.dim : 0),
      k(p.batch * p.kv_heads * p.keys * p.dim, 1, bytes ? p.dim : 0),
      v(p.batch * p.kv_heads * p.keys * p.vdim, 1, bytes ? p.vdim : 0);
  p.q = {q.data(p.type), p.heads * p.queries * p.dim, p.queries * p.dim, p.dim};
  p.k = {k.data(p.kv_type), p.kv_heads * p.keys * p.dim, p.keys * p.dim, p.dim};
  p.v = {v.data(p.kv_type), p.kv_heads * p.keys * p.vdim, p.keys * p.vdim, p.vdim};
  if (bytes) {
    p.k_scale = {k.scale.data(), p.kv_heads * p.keys, p.keys};
    p.v_scale = {v.scale.data(), p.kv_heads * p.keys, p.keys};
  }
  p.outs = {nullptr, p.heads * p.queries * p.vdim, p.queries * p.vdim, p.vdim};
  std::vector<i64> starts(p.batch), lengths(p.batch);
  for (i64 b = 0; b < p.batch; ++b) {
    lengths[b] = between(0, p.keys);
    starts[b] = between(0, lengths[b]);
  }
  if (flip()) p.starts = starts.data(), p.lengths = lengths.data();
  std::vector<float> sinks(p.heads);
  for (float& s : sinks) s = normal(2);
  if (flip()) p.sinks = sinks.data();
  std::vector<std::uint8_t> layout;
  if (!decoding && flip()) {
    p.block = 64;
    p.layout_row = (p.keys + 63) / 64;
    p.layout_head = p.layout_row * ((p.queries + 63) / 64);
    layout.resize(p.layout_head * p.heads);
    for (auto& x : layout) x = flip();
    p.layout = layout.data();
  }
  const i64 n = p.batch * p.heads * p.queries;
  std::vector<float> out(n * p.vdim), lse(n);
  std::vector<bf16> out16(n * p.vdim);
  p.out = p.type == Type::f32 ? static_cast<void*>(out.data()) : out16.data();
  p.lse = lse.data();
  if (decoding) decode(level, p);
  else forward(level, p);

  // int8 values are weighted by 16 bits: each weight errs by up to 1 / 131000 of the largest
  const double allowed = p.type == Type::bf16 || (bytes && p.halves) ? 0.03 : bytes ? 1e-3 : 1e-4;
  const Tensor grad(n * p.vdim, 1);
  std::vector<double> dq(q.f.size()), dk(k.f.size()), dv(v.f.size());
  std::vector<float> inner(n);
  for (i64 b = 0; b < p.batch; ++b)
    for (i64 h = 0; h < p.heads; ++h)
      for (i64 i = 0; i < p.queries; ++i) {
        const i64 row = (b * p.heads + h) * p.queries + i;
        const i64 kv = (b * p.kv_heads + h / (p.heads / p.kv_heads)) * p.keys;
        const Range r = visible(p, b, i);
        double m = p.sinks ? sinks[h] : -INFINITY;
        std::vector<double> s(p.keys, -INFINITY);
        for (i64 j = r.lo; j < r.hi; ++j)
          if (in_layout(p, b, h, i, j / TILE)) {
            s[j] = score(p, q, k, row * p.dim, (kv + j) * p.dim);
            m = std::max(m, s[j]);
          }
        double sum = p.sinks ? std::exp(sinks[h] - m) : 0;
        std::vector<double> o(p.vdim);
        for (i64 j = 0; j < p.keys && m != -INFINITY; ++j) {
          const double w = std::exp(s[j] - m);
          sum += w;
          for (i64 d = 0; d < p.vdim; ++d) o[d] += w * v.f[(kv + j) * p.vdim + d];
        }
        for (i64 d = 0; d < p.vdim; ++d) {
          const double want = sum == 0 ? 0 : o[d] / sum;
          const double got = p.type == Type::f32 ? out[row * p.vdim + d] : widen(out16[row * p.vdim + d]);
          if (!(std::abs(want - got) < allowed)) {
            std::printf("%s %s: row %ld of sequence %ld, head %ld: %g, expected %g\n", level.name, decoding ? "decode" : "forward", (long)i, (long)b, (long)h,
                        got, want);
            return false;
          }
        }
        const double want = sum == 0 ? -INFINITY : m + std::log(sum);
        if (!(want == lse[row] || std::abs(want - lse[row]) < 1e-4 * (1 + std::abs(want)))) {
          std::printf("%s: lse %g, expected %g\n", level.name, lse[row], want);
          return false;
        }
        double all = 0;
        for (i64 d = 0; sum > 0 && d < p.vdim; ++d) all += grad.f[row * p.vdim + d] * o[d] / sum;
        inner[row] = static_cast<float>(all);
        for (i64 j = 0; sum > 0 && j < p.keys; ++j) {
          const double w = std::exp(s[j] - m) / sum, bent = p.softcap > 0 ? s[j] / p.softcap : 0;
          if (w == 0) continue;
          double slope = -all;
          for (i64 d = 0; d < p.vdim; ++d) {
            slope += static_cast<double>(grad.f[row * p.vdim + d]) * v.f[(kv + j) * p.vdim + d];
            dv[(kv + j) * p.vdim + d] += w * grad.f[row * p.vdim + d];
          }
          slope *= w * (1 - bent * bent) * p.scale;
          for (i64 d = 0; d < p.dim; ++d) {
            dq[row * p.dim + d] += slope * k.f[(kv + j) * p.dim + d];
            dk[(kv + j) * p.dim + d] += slope * q.f[row * p.dim + d];
          }
        }
      }
  if (decoding || bytes) return true;

  Backward back;
  back.attention = p;
  back.q.view = p.q, back.k.view = p.k, back.v.view = p.v;
  back.grad.view = {grad.data(p.type), p.outs.batch, p.outs.head, p.outs.token};
  back.q.type = back.k.type = back.v.type = back.grad.type = p.type;
  back.inner = inner.data();
  std::vector<float> found[3] = {std::vector<float>(dq.size()), std::vector<float>(dk.size()), std::vector<float>(dv.size())};
  back.dq = found[0].data(), back.dk = found[1].data(), back.dv = found[2].data();
  backward(level, back);
  const std::vector<double>* wants[] = {&dq, &dk, &dv};
  for (int x = 0; x < 3; ++x) {
    double most = 1;
    for (const double want : *wants[x]) most = std::max(most, std::abs(want));
    for (std::size_t i = 0; i < found[x].size(); ++i)
      if (!(std::abs(found[x][i] - (*wants[x])[i]) < 1e-3 * most)) {
        std::printf("%s backward: number %zu of gradient %d is %g, expected %g\n", level.name, i, x, found[x][i], (*wants[x])[i]);
        return false;
      }
  }
  return true;
}

// A matrix of exactly its size, as Python hands it over.
struct Matrix {
  Tensor values;
  std::vector<std::uint8_t> bytes;
  std::vector<float> scales, bias;
  std::vector<std::uint32_t> halves;
  Linear linear;
  Matrix(Type type, i64 out, i64 in, bool biased) : values(type == Type::i8 || type == Type::i4 ? 0 : out * in, 0.2f) {
    const i64 rows = (out + 15) / 16 * 16, columns = (in + 63) / 64 * 64;
    if (type == Type::i8) {
      for (i64 i = 0; i < rows * columns; ++i) bytes.push_back(static_cast<std::uint8_t>(between(1, 255)));
      for (i64 i = 0; i < rows * columns / 64; ++i) scales.push_back(0.004f);
    } else if (type == Type::i4) {
      for (i64 i = 0; i < rows * columns / 2; ++i) bytes.push_back(static_cast<std::uint8_t>(between(0, 255)));
      for (i64 i = 0; i < rows * columns / 32; ++i) {  // fp16: about 2^-e and -7.5 times as much
        const i64 smaller = between(4, 6) << 10;
        halves.push_back(static_cast<std::uint32_t>(between(0x3c00, 0x3cff) - smaller | between(0xc780, 0xc7ff) - smaller << 16));
      }
    }
    for (i64 i = 0; biased && i < out; ++i) bias.push_back(normal(1));
    const void* w = bytes.empty() ? values.data(type) : bytes.data();
    const void* scale = type == Type::i8 ? static_cast<const void*>(scales.data()) : halves.data();
    linear = {w, bytes.empty() ? nullptr : scale, biased ? bias.data() : nullptr, out, in, static_cast<i64>(type)};
  }
  // What stands in an int8 or int4 matrix.
  double value(i64 row, i64 column) const {
    const i64 groups = (linear.in + 63) / 64, group = row / 16 * groups + column / 64, lane = row % 16;
    if (linear.kind() == Type::i8)
      return (bytes[(group * 16 + column % 64 / 4) * 64 + lane * 4 + column % 4] - 128) * static_cast<double>(0.004f);
    const i64 half = column % 64 / 32;
    const std::uint8_t both = bytes[(group * 8 + column % 32 / 4) * 64 + lane * 4 + column % 4];
    const std::uint32_t scale = halves[(group * 2 + half) * 16 + lane];
    const auto wide = [](std::uint32_t h) {
      return std::ldexp(h >> 15 ? -1.0 : 1.0, static_cast<int>(h >> 10 & 31) - 25) * ((h & 0x3ff) | 0x400);
    };
    return wide(scale & 0xffff) * (half ? both >> 4 : both & 15) + wide(scale >> 16);
  }
};

// A small model with random weights: several tokens in one step give what they give one after the other.
bool step_trial(const Level& level) {
  Step s;
  s.type = flip() ? Type::f32 : Type::bf16;
  const Type weights = flip() ? s.type : flip() ? Type::i8 : Type::i4;
  s.cached = weights == s.type ? s.type : Type::i8;
  s.batch = between(1, 3);
  s.kv_heads = between(1, 2);
  s.heads = s.kv_heads * between(1, 3);
  s.dim = 2 * between(1, 40);
  s.rotary = 2 * between(1, s.dim / 2);
  s.hidden = between(1, 100);
  s.inner = between(1, 150);
  s.layers = 2;
  s.eps = 1e-5f;
  s.scale = 0.3f;
  s.softcap = flip() ? 0 : 2.f;
  s.embedding_scale = 1.5f;
  s.gelu = flip();
  s.workers = static_cast<int>(between(1, 3));
  const i64 tokens = between(1, 6), capacity = tokens, vocabulary = between(1, 70), qs = s.heads * s.dim, kvs = s.kv_heads * s.dim;
  const bool biased = flip();
  std::vector<Matrix> matrices;
  matrices.reserve(7 * s.layers + 1);
  std::vector<std::vector<float>> norms;
  const auto norm = [&](i64 n) {
    norms.emplace_back(n, 1.1f);
    return norms.back().data();
  };
  const auto matrix = [&](i64 out, i64 in, bool with = false) { return matrices.emplace_back(weights, out, in, with).linear; };
  std::vector<float> cos, sin;
  for (i64 i = 0; i < capacity * s.rotary; ++i) {
    const float angle = normal(3);
    cos.push_back(std::cos(angle)), sin.push_back(std::sin(angle));
  }
  std::vector<Block> blocks;
  for (i64 l = 0; l < s.layers; ++l)
    blocks.push_back({matrix(qs, s.hidden, biased), matrix(kvs, s.hidden, biased), matrix(kvs, s.hidden, biased),
                      matrix(s.hidden, qs), matrix(s.inner, s.hidden), matrix(s.inner, s.hidden), matrix(s.hidden, s.inner),
                      norm(s.hidden), norm(s.hidden), flip() ? norm(s.hidden) : nullptr, flip() ? norm(s.hidden) : nullptr,
                      flip() ? norm(s.dim) : nullptr, flip() ? norm(s.dim) : nullptr, flip() ? cos.data() : nullptr,
                      sin.data(), flip() ? 0 : between(1, 4)});
  s.blocks = blocks.data();
  s.head = matrix(vocabulary, s.hidden);
  s.norm = norm(s.hidden);
  const Tensor embedding(vocabulary * s.hidden, 1);
  s.embedding = embedding.data(s.type);
  std::vector<i64> ids, starts;
  for (i64 i = 0; i < s.batch * tokens; ++i) ids.push_back(between(0, vocabulary - 1));
  for (i64 b = 0; b < s.batch; ++b) starts.push_back(between(0, tokens - 1));
  if (flip()) s.starts = starts.data();

  std::vector<std::vector<float>> found;
  for (const bool at_once : {true, false}) {
    std::vector<Tensor> kept;
    kept.reserve(2 * s.layers);
    std::vector<Cached> cache;
    const auto buffer = [&] { return &kept.emplace_back(s.batch * kvs * capacity, 1e-9f, s.cached == Type::i8 ? s.dim : 0); };
    for (i64 l = 0; l < s.layers; ++l) {
      Tensor *k = buffer(), *v = buffer();
      cache.push_back({const_cast<void*>(k->data(s.cached)), const_cast<void*>(v->data(s.cached)), kvs * capacity,
                       s.dim * capacity, s.dim, k->scale.data(), v->scale.data(), s.kv_heads * capacity, capacity});
    }
    s.cache = cache.data();
    std::vector<float> all(s.batch * tokens * vocabulary);
    for (i64 t = 0; t < tokens; t += s.tokens) {
      s.tokens = s.keep = at_once ? tokens : 1;
      s.past = t;
      std::vector<i64> now;
      for (i64 b = 0; b < s.batch; ++b) now.insert(now.end(), &ids[b * tokens + t], &ids[b * tokens + t] + s.tokens);
      std::vector<float> logits(s.batch * s.keep * vocabulary);
      s.ids = now.data();
      s.logits = logits.data();
      step(level, s);
      for (i64 b = 0; b < s.batch; ++b)
        std::memcpy(&all[(b * tokens + t) * vocabulary], &logits[b * s.keep * vocabulary], 4 * s.keep * vocabulary);
    }
    found.push_back(all);
  }
  const double allowed = s.cached == Type::f32 ? 1e-3 : 0.05;
  for (std::size_t i = 0; i < found[0].size(); ++i) {
    const i64 b = static_cast<i64>(i) / (tokens * vocabulary), t = static_cast<i64>(i) / vocabulary % tokens;
    if (s.starts && t < s.starts[b]) continue;  // padding: nobody reads it
    if (!(std::abs(found[0][i] - found[1][i]) < allowed * (1 + std::abs(found[1][i])))) {
      std::printf("%s step: logit %zu is %g at once, %g one by one\n", level.name, i, found[0][i], found[1][i]);
      return false;
    }
  }
  return true;
}

// Many vectors at once give what one after the other gives, and that is what stands in the matrices times vectors that
// rounding to int8 does not change.
bool products_trial(const Level& level) {
  const i64 in = flip() ? between(1, 200) : between(1, 1700), tokens = flip() ? between(1, 20) : between(1, 600);
  const i64 outs[] = {between(1, 70), between(1, 70)};
  const Type type = flip() ? Type::i8 : Type::i4;
  const Matrix a(type, outs[0], in, true), b(type, outs[1], in, false);
  const Linear matrices[] = {a.linear, b.linear};
  std::vector<float> x, y[2], one[2];
  for (i64 i = 0; i < tokens * in; ++i) x.push_back((i % in % 32 ? between(-127, 127) : 127) / 32.f);
  for (int i = 0; i < 2; ++i) y[i].resize(tokens * outs[i]), one[i].resize(outs[i]);
  float *all[] = {y[0].data(), y[1].data()}, *alone[] = {one[0].data(), one[1].data()};
  products(level, matrices, all, 2, x.data(), tokens, static_cast<int>(between(1, 3)));
  const i64 known = between(0, tokens - 1);
  for (i64 t = 0; t < tokens; ++t) {
    products(level, matrices, alone, 2, &x[t * in], 1, 1);
    for (int i = 0; i < 2; ++i)
      for (i64 o = 0; o < outs[i]; ++o)
        if (y[i][t * outs[i] + o] != one[i][o]) {
          std::printf("%s products: %g at once, %g alone\n", level.name, y[i][t * outs[i] + o], one[i][o]);
          return false;
        }
    for (i64 o = 0; t == known && o < outs[0]; ++o) {
      double want = a.bias[o], size = 1;
      for (i64 d = 0; d < in; ++d) {
        const double term = a.value(o, d) * x[t * in + d];
        want += term, size += std::abs(term);
      }
      if (!(std::abs(one[0][o] - want) < 1e-5 * size)) {
        std::printf("%s products: %g, expected %g\n", level.name, one[0][o], want);
        return false;
      }
    }
  }
  return true;
}

}  // namespace

int main(int argc, char** argv) {
  const int trials = argc > 1 ? std::atoi(argv[1]) : 100;
  int passed = 0, failed = 0;
  for (int l = 0; l < level_count(); ++l)
    for (int t = 0; t < trials; ++t)
      ++((t % 4 > 1    ? trial(*level_at(l), t % 2)
          : t % 4 == 1 ? step_trial(*level_at(l))
                       : products_trial(*level_at(l)))
             ? passed
             : failed);
  std::printf("%d passed, %d failed\n", passed, failed);
  return failed != 0;
}
