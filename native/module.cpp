// The Python module: addresses and numbers in, work done without the interpreter's lock. Whoever calls (kernels/native.py)
// has checked shapes, types and strides; nothing here is public.
#include <nanobind/nanobind.h>
#include <nanobind/stl/array.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#include <array>
#include <string>
#include <tuple>
#include <vector>

#include "attention.h"

namespace nb = nanobind;
using namespace longspan;

namespace {

using Address = std::uintptr_t;

template <class T>
T* at(Address address) {
  return reinterpret_cast<T*>(address);
}

const Level& level_by_index(int i) {
  if (i < 0 || i >= level_count()) throw nb::index_error("no such level");
  return *level_at(i);
}

using Counts = std::tuple<i64, i64, i64, i64>;

// An `Attention` as Python tells it, in the order of `attention_of`. The fourth tensor is the output; for the gradient,
// what comes back by it.
using Told = std::tuple<std::array<int, 2>, std::array<Address, 5>, std::array<i64, 12>, std::array<i64, 7>, bool, i64,
                        std::array<float, 2>, std::array<Address, 3>, std::array<Address, 2>, std::array<i64, 4>, Address,
                        std::array<i64, 4>, int>;

Attention attention_of(const Told& told) {
  const auto& [types, tensors, strides, shape, causal, window, scales, lists, kv_scales, scale_strides, layout,
               layout_strides, workers] = told;
  Attention p;
  p.q = {at<void>(tensors[0]), strides[0], strides[1], strides[2]};
  p.k = {at<void>(tensors[1]), strides[3], strides[4], strides[5]};
  p.v = {at<void>(tensors[2]), strides[6], strides[7], strides[8]};
  p.out = at<void>(tensors[3]);
  p.outs = {nullptr, strides[9], strides[10], strides[11]};
  p.lse = at<float>(tensors[4]);
  p.type = static_cast<Type>(types[0]);
  p.kv_type = static_cast<Type>(types[1]);
  p.k_scale = {at<float>(kv_scales[0]), scale_strides[0], scale_strides[1]};
  p.v_scale = {at<float>(kv_scales[1]), scale_strides[2], scale_strides[3]};
  std::tie(p.batch, p.heads, p.kv_heads, p.queries, p.keys, p.dim, p.vdim) = std::tuple_cat(shape);
  p.causal = causal;
  p.window = window;
  p.scale = scales[0];
  p.softcap = scales[1];
  p.sinks = at<float>(lists[0]);
  p.starts = at<i64>(lists[1]);
  p.lengths = at<i64>(lists[2]);
  p.layout = at<std::uint8_t>(layout);
  std::tie(p.layout_batch, p.layout_head, p.layout_row, p.block) = std::tuple_cat(layout_strides);
  p.workers = workers;
  return p;
}

template <Counters (*Run)(const Level&, const Attention&)>
Counts run(int level, const Told& told, int degree, float threshold, bool longest_first, int halves) {
  const Level& chosen = level_by_index(level);
  Attention p = attention_of(told);
  p.degree = degree;
  p.threshold = threshold;
  p.longest_first = longest_first;
  p.halves = halves < 0 ? bf16_products_pay(chosen) : halves;
  nb::gil_scoped_release release;
  const Counters c = Run(chosen, p);
  return {c.grown, c.skipped, c.tiles, c.all_tiles};
}

// `sums`: grad . out for each query; `to`: the gradients by queries, keys and values.
void run_backward(int level, const Told& told, Address sums, std::array<Address, 3> to) {
  const Level& chosen = level_by_index(level);
  Backward p;
  p.attention = attention_of(told);
  const Attention& a = p.attention;
  p.q.view = a.q, p.k.view = a.k, p.v.view = a.v;
  p.grad.view = {a.out, a.outs.batch, a.outs.head, a.outs.token};
  p.q.type = p.grad.type = a.type;
  p.k.type = p.v.type = a.kv_type;
  p.inner = at<float>(sums);
  p.dq = at<float>(to[0]), p.dk = at<float>(to[1]), p.dv = at<float>(to[2]);
  nb::gil_scoped_release release;
  backward(chosen, p);
}

// What stays from step to step: Python writes `blocks` and the numbers of `shape` once a model.
void run_step(int level, std::array<int, 2> types, std::array<Address, 3> model, std::array<i64, 8> shape,
              std::array<float, 4> numbers, Address head, Address cache,
              std::array<Address, 3> call, std::array<i64, 4> size, int workers) {
  Step s;
  s.blocks = at<Block>(model[0]);
  s.norm = at<float>(model[1]);
  s.embedding = at<void>(model[2]);
  std::tie(s.layers, s.hidden, s.heads, s.kv_heads, s.dim, s.inner, s.rotary, s.gelu) = std::tuple_cat(shape);
  std::tie(s.eps, s.scale, s.softcap, s.embedding_scale) = std::tuple_cat(numbers);
  s.head = *at<Linear>(head);
  s.cache = at<Cached>(cache);
  s.ids = at<i64>(call[0]);
  s.starts = at<i64>(call[1]);
  s.logits = at<float>(call[2]);
  std::tie(s.batch, s.tokens, s.past, s.keep) = std::tuple_cat(size);
  s.type = static_cast<Type>(types[0]);
  s.cached = static_cast<Type>(types[1]);
  s.workers = workers;
  const Level& chosen = level_by_index(level);
  nb::gil_scoped_release release;
  step(chosen, s);
}

// `matrices`: rows of 64-bit numbers, a `Linear` each.
void run_products(int level, Address matrices, std::vector<Address> y, Address x, i64 tokens, int workers) {
  std::vector<float*> to;
  for (const Address address : y) to.push_back(at<float>(address));
  const Level& chosen = level_by_index(level);
  nb::gil_scoped_release release;
  products(chosen, at<Linear>(matrices), to.data(), static_cast<i64>(to.size()), at<float>(x), tokens, workers);
}

}  // namespace

NB_MODULE(_native, m) {
  m.attr("INTERFACE") = 8;  // raised with the arguments below; native.py knows the same number
  m.def("levels", [] {
    std::vector<std::string> names;
    for (int i = 0; i < level_count(); ++i) names.emplace_back(level_at(i)->name);
    return names;
  });
  m.def("multiplies_int8", [](int level) { return level_by_index(level).int8_products; });
  m.def("attention", &run<forward>);
  m.def("decode_attention", &run<decode>);
  m.def("attention_backward", &run_backward);
  m.def("step", &run_step);
  m.def("products", &run_products);
  m.def("exp2", [](int level, Address x, Address y, i64 n, int degree) {
    level_by_index(level).exp2(at<float>(x), at<float>(y), n, degree);
  });
}
