"""Attention, decoding and merging against softmax in fp64."""

from __future__ import annotations

import math
import multiprocessing
import os
import shutil
import subprocess
import sys
import threading
from dataclasses import dataclass
from functools import partial
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from longspan import kernels
from longspan.errors import UsageError
from longspan.kernels import BlockLayout, Counters, Tuning, attention, decode_attention, merge, reference

SETTINGS = settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
needs_native = pytest.mark.skipif(not kernels.levels(), reason="the native kernels are not built")


def test_the_kernels_are_there_where_a_compiler_is() -> None:
    """Else a build that fails would only skip the tests that need it."""
    assert kernels.levels() or not shutil.which("c++")


@dataclass
class Case:
    q: Tensor
    k: Tensor
    v: Tensor
    options: dict[str, Any]


@st.composite
def cases(draw: st.DrawFn, queries: int = 150, keys: int = 300, layouts: bool = True) -> Case:
    torch.manual_seed(draw(st.integers(0, 2**31)))
    dtype = draw(st.sampled_from([torch.float32, torch.bfloat16]))
    batch, kv_heads = draw(st.integers(1, 3)), draw(st.integers(1, 2))
    heads = kv_heads * draw(st.integers(1, 4))
    n, m = draw(st.integers(1, queries)), draw(st.integers(1, keys))
    dim = draw(st.sampled_from([1, 7, 16, 64, 80, 96, 128, 256]))
    vdim = draw(st.sampled_from([dim, 5, 64, 100]))
    logits = draw(st.sampled_from([0.1, 1.0, 30.0, 1e4]))  # the scores' size
    q = torch.randn(batch, n, heads, dim).transpose(1, 2) * logits
    k, v = torch.randn(batch, kv_heads, m, dim) / math.sqrt(dim), torch.randn(batch, kv_heads, m, vdim)
    options: dict[str, Any] = {
        "scale": 1.0,
        "causal": draw(st.booleans()),
        "window": draw(st.none() | st.integers(1, 100)),
        "softcap": draw(st.none() | st.just(20.0)),
        "sinks": draw(st.none() | st.just(torch.randn(heads) * 3)),
    }
    if draw(st.booleans()):
        ends = [sorted(draw(st.tuples(st.integers(0, m), st.integers(0, m)))) for _ in range(batch)]
        options["starts"] = torch.tensor([begin for begin, _ in ends])
        options["lengths"] = torch.tensor([end for _, end in ends])
    if layouts and draw(st.booleans()):
        block = draw(st.sampled_from([64, 128]))
        shape = (draw(st.sampled_from([1, batch])), draw(st.sampled_from([1, heads])), -(-n // block), -(-m // block))
        options["layout"] = BlockLayout(torch.rand(shape) < 0.5, block)
    return Case(q.to(dtype), k.to(dtype), v.to(dtype), options)


def agrees(case: Case, out: Tensor, lse: Tensor, slack: float = 2e-5) -> None:
    """Close to fp64, as far as the type and the size of the scores allow."""
    q, k, v = case.q.double(), case.k.double(), case.v.double()
    want, want_lse = reference.attention(q, k, v, **case.options)
    size = max(1.0, (q.norm(dim=-1).max() * k.norm(dim=-1).max()).item())
    half = case.q.dtype == torch.bfloat16
    # A score of size s has an error of s · 2⁻²⁴ or so, and weights err relatively by that much.
    slack = (0.03 if half else slack) + 4e-6 * size
    assert out.shape == want.shape and out.dtype == case.q.dtype
    assert (out.double() - want).abs().max() <= slack * max(1.0, v.abs().max().item())
    empty = want_lse == -torch.inf
    assert torch.equal(lse == -torch.inf, empty)
    assert not out.transpose(0, 1)[:, :].isnan().any()
    assert bool((out[empty[..., None].expand_as(out)] == 0).all())
    difference = (lse.double() - want_lse)[~empty]
    assert not difference.numel() or difference.abs().max() <= 1e-3 * (1 + size * 1e-2)


@SETTINGS
@given(case=cases(), products=st.booleans())
def test_attention(level: str, case: Case, products: bool) -> None:
    agrees(case, *attention(case.q, case.k, case.v, tuning=Tuning(bf16_products=products), **case.options))


@SETTINGS
@given(case=cases(queries=4, keys=900, layouts=False))
def test_decode(level: str, case: Case) -> None:
    agrees(case, *decode_attention(case.q, case.k, case.v, **case.options))


@needs_native
@SETTINGS
@given(case=cases(queries=3, keys=3000, layouts=False), workers=st.integers(2, 7))
def test_any_number_of_workers_gives_the_same(case: Case, workers: int) -> None:
    for function in (attention, decode_attention):
        one = function(case.q, case.k, case.v, workers=1, **case.options)
        many = function(case.q, case.k, case.v, workers=workers, **case.options)
        assert torch.equal(one[0], many[0]) and torch.equal(one[1], many[1])


DEGREE_3 = 3e-4  # error of 2^x for int8, with room for both sides of the division


def int8(case: Case) -> tuple[Case, dict[str, Tensor]]:
    """The case with keys and values in int8, and their scales. Rounding its queries to int8 changes nothing: their
    first number becomes 127 times a power of two, of which all others are multiples."""
    whole, scale = kernels.rounded(case.q)
    whole[..., 0] = 127
    q = whole * scale.clamp_min(1e-3).log2().round().exp2()[..., None]
    (k, k_scale), (v, v_scale) = kernels.rounded(case.k), kernels.rounded(case.v)
    return Case(q.to(case.q.dtype), k, v, case.options), {"k_scale": k_scale, "v_scale": v_scale}


def exact(case: Case, scales: dict[str, Tensor]) -> Case:
    return Case(case.q, case.k * scales["k_scale"][..., None], case.v * scales["v_scale"][..., None], case.options)


@SETTINGS
@given(case=cases(), products=st.booleans())
def test_attention_int8(level: str, case: Case, products: bool) -> None:
    """int8 keys and values are what their fp32 values are."""
    case, scales = int8(case)
    tuning = Tuning(bf16_products=products)
    out, lse = attention(case.q, case.k, case.v, **scales, tuning=tuning, **case.options)
    if products:  # weights and values are then bf16
        case.q, out = case.q.bfloat16(), out.bfloat16()
    agrees(exact(case, scales), out, lse, DEGREE_3)


@SETTINGS
@given(case=cases(queries=3, keys=600, layouts=False))
def test_decode_int8(level: str, case: Case) -> None:
    case, scales = int8(case)
    agrees(exact(case, scales), *decode_attention(case.q, case.k, case.v, **scales, **case.options), DEGREE_3)


@SETTINGS
@given(case=cases(queries=3, keys=300, layouts=False))
def test_any_query_is_rounded_for_int8_keys(level: str, case: Case) -> None:
    """Prompts and steps are computed alike: the same rounding, on every level."""
    (k, k_scale), (v, v_scale) = kernels.rounded(case.k), kernels.rounded(case.v)
    q = case.q.float() / case.q.float().abs().max().clamp_min(1)
    scales = {"k_scale": k_scale, "v_scale": v_scale}
    whole, factor = kernels.rounded(q)
    want, _ = reference.attention(
        whole * factor[..., None], k * k_scale[..., None], v * v_scale[..., None], **case.options
    )
    for function in (attention, decode_attention):
        # One number in a hundred thousand lies between two integers and may go either way.
        torch.testing.assert_close(function(q, k, v, **scales, **case.options)[0], want, atol=2e-2, rtol=1e-2)


@SETTINGS
@given(data=st.data())
def test_merge_is_attention_over_the_union(level: str, data: st.DataObject) -> None:
    """Cut the keys anywhere, merge in any grouping: the same as whole."""
    torch.manual_seed(data.draw(st.integers(0, 2**31)))
    n, m = data.draw(st.integers(1, 5)), data.draw(st.integers(1, 300))
    q, k, v = torch.randn(2, 4, n, 16) * 3, torch.randn(2, 2, m, 16), torch.randn(2, 2, m, 16)
    cuts = sorted(data.draw(st.lists(st.integers(0, m), min_size=2, max_size=4)))
    parts = [
        attention(q, k[:, :, a:b], v[:, :, a:b], causal=False)
        for a, b in zip([0, *cuts], [*cuts, m], strict=True)  # empty parts among them
    ]
    outs, lses = torch.stack([o for o, _ in parts]), torch.stack([s for _, s in parts])
    whole, whole_lse = attention(q, k, v, causal=False)
    at = data.draw(st.integers(1, len(parts) - 1))
    left, right = merge(outs[:at], lses[:at]), merge(outs[at:], lses[at:])
    grouped = merge(torch.stack([left[0], right[0]]), torch.stack([left[1], right[1]]))
    for out, lse in (merge(outs, lses), grouped, merge(outs.flip(0), lses.flip(0))):
        torch.testing.assert_close(out, whole, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(lse, whole_lse, atol=1e-5, rtol=1e-5)


@needs_native
@SETTINGS
@given(case=cases(queries=700, keys=100))
def test_gradients(case: Case) -> None:
    """Those of autograd through the formula in fp64, and the same for any number of workers."""
    case.q, case.k, case.v = case.q.float() / case.q.abs().max(), case.k.float(), case.v.float()
    weigh = torch.randn(*case.q.shape[:3], case.v.shape[-1])

    def gradients(function: Any, *inputs: Tensor) -> list[Tensor]:
        leaves = [x.detach().requires_grad_() for x in inputs]
        (function(*leaves, **case.options)[0] * weigh).sum().backward()
        return [x.grad for x in leaves if x.grad is not None]

    ours = gradients(attention, case.q, case.k, case.v)
    again = gradients(partial(attention, workers=1), case.q, case.k, case.v)
    want = gradients(reference.attention, case.q.double(), case.k.double(), case.v.double())
    out, lse = reference.attention(case.q, case.k, case.v, **case.options)
    plain = reference.gradients(case.q, case.k, case.v, out, lse, weigh, **case.options)
    for a, b, c, d in zip(ours, again, plain, want, strict=True):
        assert torch.equal(a, b)
        for found in (a, c):
            torch.testing.assert_close(found.double(), d, rtol=1e-4, atol=1e-4 * max(1.0, d.abs().max().item()))


@needs_native
def test_a_second_derivative_is_refused() -> None:
    q, k, v = (torch.randn(1, 1, 3, 8, requires_grad=True) for _ in range(3))
    (first,) = torch.autograd.grad(attention(q, k, v)[0].square().sum(), q, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        first.sum().backward()


def test_layouts_are_positions_not_strides(level: str) -> None:
    """The same numbers in every arrangement of memory, also expanded and reversed views."""
    torch.manual_seed(0)
    q, k, v = torch.randn(2, 4, 70, 64), torch.randn(2, 2, 90, 64), torch.randn(2, 2, 90, 64)
    want = attention(q, k, v)[0]
    for arrange in (
        lambda x: x.transpose(1, 2).contiguous().transpose(1, 2),
        lambda x: x.transpose(2, 3).contiguous().transpose(2, 3),
        lambda x: torch.cat([x, x], -1)[..., :64],
        lambda x: torch.cat([x, torch.full_like(x, torch.nan)], 2)[:, :, : x.shape[2]],
    ):
        assert torch.equal(attention(arrange(q), arrange(k), arrange(v))[0], want)
    one = attention(q[:1].expand(2, -1, -1, -1), k[:1].expand(2, -1, -1, -1), v[:1].expand(2, -1, -1, -1))[0]
    assert torch.equal(one[0], one[1])


def test_keys_outside_of_a_sequence_are_never_read(level: str) -> None:
    k, v = torch.full((1, 1, 200, 64), torch.nan), torch.full((1, 1, 200, 64), torch.nan)
    k[:, :, 50:130], v[:, :, 50:130] = torch.randn(2, 1, 1, 80, 64)
    for function in (attention, decode_attention):
        if level == "torch":
            continue  # torch multiplies what it then masks: 0 times NaN
        out, _ = function(torch.randn(1, 1, 3, 64), k, v, starts=torch.tensor([50]), lengths=torch.tensor([130]))
        assert out.isfinite().all()


def test_nan_stays_visible(level: str) -> None:
    """A NaN makes the rows that see it NaN, and no others."""
    q, k, v = torch.randn(1, 2, 100, 64), torch.randn(1, 2, 100, 64), torch.randn(1, 2, 100, 64)
    k[0, 0, 70, 3] = torch.nan
    out, lse = attention(q, k, v)
    assert out[0, 0, 70:].isnan().all() and lse[0, 0, 70:].isnan().all()
    assert out[0, 0, :64].isfinite().all() and out[0, 1].isfinite().all()
    out, _ = decode_attention(q[:, :, -1:], k, v)
    assert out[0, 0].isnan().all() and out[0, 1].isfinite().all()


@pytest.mark.parametrize("which", ["keys", "values"])
def test_nan_stays_visible_in_int8(level: str, which: str) -> None:
    """Integers know no NaN; the scale of the key or value does."""
    q = torch.randn(1, 2, 300, 64)
    kept = {name: kernels.rounded(torch.randn(1, 2, 300, 64)) for name in ("keys", "values")}
    kept[which][1][0, 0, 270] = torch.nan
    (k, k_scale), (v, v_scale) = kept.values()
    out, _ = attention(q, k, v, k_scale=k_scale, v_scale=v_scale)
    assert out[0, 0, 270:].isnan().all() and out[0, 1].isfinite().all()
    if level != "torch":  # torch multiplies what it then masks: 0 times NaN
        assert out[0, 0, :256].isfinite().all()
    out, _ = decode_attention(q[:, :, -1:], k, v, k_scale=k_scale, v_scale=v_scale)
    assert out[0, 0].isnan().all() and out[0, 1].isfinite().all()
    assert bool((kernels.rounded(torch.tensor([1.0, torch.nan]))[1]).isnan())


@needs_native
def test_tricks_change_speed_not_results() -> None:
    """Every degree, threshold and order gives attention; skipped rescales are counted."""
    torch.manual_seed(0)
    q, k, v = torch.randn(1, 4, 300, 64), torch.randn(1, 2, 300, 64), torch.randn(1, 2, 300, 64)
    want, _ = reference.attention(q.double(), k.double(), v.double(), scale=0.125, causal=True)
    errors = {}
    for degree in (0, 2, 3, 4, 5, 6):
        errors[degree] = (attention(q, k, v, tuning=Tuning(degree=degree))[0] - want).abs().max().item()
    assert errors[2] > 10 * errors[3] > 100 * errors[4] and errors[5] < 3 * errors[0] and errors[6] < 3 * errors[0]
    skipped = []
    k = torch.linspace(0, 2, 1000)[:, None] * torch.ones(1, 1, 1000, 64) / 8  # scores grow along the keys
    v = torch.randn(1, 1, 1000, 64)
    q = torch.ones(1, 1, 64, 64)
    want, _ = reference.attention(q.double(), k.double(), v.double(), scale=1, causal=False)
    for threshold in (0.0, 8.0, 64.0):
        counters = Counters()
        tuning = Tuning(threshold=threshold)
        out, _ = attention(q, k, v, scale=1, causal=False, tuning=tuning, counters=counters)
        assert (out - want).abs().max() < 1e-4
        skipped.append(counters.skipped / counters.grew)
    assert skipped[0] == 0 and 0 < skipped[1] < 1 and skipped[2] == 1
    order = [attention(q, k, v, tuning=Tuning(longest_first=first))[0] for first in (True, False)]
    assert torch.equal(*order)


@needs_native
@pytest.mark.parametrize("name", kernels.levels())
def test_exp2(name: str) -> None:
    """The polynomial's error is what its degree promises, on every level, and is the reference's."""
    x = torch.cat([torch.linspace(-126, 60, 20001), torch.tensor([-torch.inf, -1e9, torch.nan, 0.0])])
    truth = torch.exp2(x[:-4].double())
    with kernels.using(name):
        for degree, promised in {2: 1.75e-3, 3: 7.6e-5, 4: 2.7e-6, 5: 2.5e-7, 6: 2e-7, 0: 2e-7}.items():
            y = kernels.native.exp2(x, degree)
            assert ((y[:-4].double() - truth) / truth).abs().max() <= promised
            assert y[-4] == 0 and y[-3] == 0 and y[-2].isnan() and abs(y[-1] - 1) <= promised
            if degree:
                torch.testing.assert_close(y[:-4], reference.exp2(x[:-4], degree), rtol=3e-7, atol=0)


@needs_native
def test_work_is_even() -> None:
    """Ragged sequences: no worker of decoding has more than one tile more than another."""
    lengths = torch.tensor([5000, 10, 700, 0])
    counters = Counters()
    q, k = torch.randn(4, 2, 1, 64), torch.randn(4, 1, 5000, 64)
    decode_attention(q, k, k, lengths, workers=3, counters=counters)
    assert counters.tiles == 20 + 1 + 3 and counters.busiest == 8


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "rank": ({"q": torch.zeros(2, 8, 64)}, r"q must be \[batch"),
    "not a tensor": ({"k": [1.0]}, "k must be a tensor"),
    "dim": ({"k": torch.zeros(1, 2, 9, 32)}, "do not fit"),
    "batch": ({"k": torch.zeros(2, 2, 9, 64), "v": torch.zeros(2, 2, 9, 64)}, "do not fit"),
    "tokens": ({"v": torch.zeros(1, 2, 8, 64)}, "do not fit"),
    "heads": ({"q": torch.zeros(1, 3, 8, 64)}, "share 2 KV heads"),
    "types": ({"v": torch.zeros(1, 2, 9, 64, dtype=torch.bfloat16)}, "same type"),
    "integers": ({"q": torch.zeros(1, 4, 8, 64, dtype=torch.int32)}, "floating"),
    "device": ({"k": torch.zeros(1, 2, 9, 64, device="meta")}, "one device"),
    "window": ({"window": 0}, "window"),
    "scale": ({"scale": math.nan}, "scale"),
    "softcap": ({"softcap": -1.0}, "softcap"),
    "sinks": ({"sinks": torch.zeros(3)}, "sinks"),
    "length": ({"lengths": torch.tensor([10])}, "cannot have the keys"),
    "start": ({"starts": torch.tensor([-1])}, "cannot have the keys"),
    "float lengths": ({"lengths": torch.tensor([1.0])}, "integers"),
    "no workers": ({"workers": 0}, "workers"),
    "too many workers": ({"workers": 10**6}, "workers"),
    "sparse": ({"k": torch.zeros(1, 2, 9, 64).to_sparse()}, "dense"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_one_clear_error(name: str) -> None:
    change, message = BAD[name]
    good = {"q": torch.zeros(1, 4, 8, 64), "k": torch.zeros(1, 2, 9, 64), "v": torch.zeros(1, 2, 9, 64)}
    for function in (attention, decode_attention):
        with pytest.raises((ValueError, TypeError), match=message):
            function(**{**good, **change})


def test_bad_layouts_scales_and_levels() -> None:
    q, k = torch.zeros(1, 2, 100, 64), torch.zeros(1, 2, 100, 64)
    with pytest.raises(ValueError, match="multiple of 64"):
        BlockLayout(torch.ones(1, 1, 2, 2, dtype=torch.bool), 50)
    with pytest.raises(ValueError, match="must be bool"):
        BlockLayout(torch.ones(1, 1, 2, 2))
    with pytest.raises(ValueError, match="layout of blocks"):
        attention(q, k, k, layout=BlockLayout(torch.ones(1, 1, 2, 3, dtype=torch.bool)))
    with pytest.raises(ValueError, match="k_scale"):
        decode_attention(q[:, :, :1], k.to(torch.int8), k.to(torch.int8))
    with pytest.raises((ValueError, TypeError)):
        decode_attention(q[:, :, :1], k, k, k_scale=torch.ones(1, 2, 100), v_scale=torch.ones(1, 2, 100))
    with pytest.raises(ValueError, match="do not fit"):
        merge(torch.zeros(2, 3, 4), torch.zeros(3, 3))
    with pytest.raises(ValueError, match="degree"):
        Tuning(degree=9)
    with pytest.raises(UsageError, match="not a level"), kernels.using("sse9"):
        pass


def test_empty_tensors(level: str) -> None:
    for queries, keys in ((0, 5), (5, 0), (0, 0)):
        q, k = torch.zeros(2, 4, queries, 64), torch.zeros(2, 2, keys, 64)
        for function in (attention, decode_attention):
            out, lse = function(q, k, k)
            assert out.shape == (2, 4, queries, 64) and (out == 0).all() and (lse == -torch.inf).all()
    q, k = torch.zeros(0, 4, 3, 64), torch.zeros(0, 2, 3, 64)
    assert attention(q, k, k)[0].shape == (0, 4, 3, 64)


def test_other_types_run_in_torch(level: str) -> None:
    for dtype in (torch.float64, torch.float16):
        q = torch.randn(1, 2, 20, 64, dtype=dtype)
        out, _ = attention(q, q, q)
        want = torch.nn.functional.scaled_dot_product_attention(q.double(), q.double(), q.double(), is_causal=True)
        assert out.dtype == dtype and (out.double() - want).abs().max() < (1e-9 if dtype == torch.float64 else 1e-2)


def _child(pipe: Any, q: Tensor) -> None:
    torch.set_num_threads(1)  # torch's own operations would wait for threads that stayed in the parent
    pipe.send(attention(q, q, q, workers=2)[0][0, 0, -1].tolist())


@needs_native
@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_after_fork() -> None:
    """A forked child has none of its parent's threads, and computes all the same."""
    torch.manual_seed(0)
    q = torch.randn(1, 4, 200, 64)
    want = attention(q, q, q, workers=2)[0][0, 0, -1].tolist()
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe()
    child = context.Process(target=_child, args=(theirs, q))
    child.start()
    if not ours.poll(30):
        child.kill()
        pytest.fail("the child hangs")
    assert ours.recv() == want
    child.join(10)
    assert child.exitcode == 0


@needs_native
def test_many_callers_at_once() -> None:
    torch.manual_seed(0)
    q = torch.randn(1, 4, 300, 64)
    want = attention(q, q, q)[0]
    wrong = []

    def call() -> None:
        for _ in range(5):
            if not torch.equal(attention(q, q, q, workers=2)[0], want):
                wrong.append(1)

    threads = [threading.Thread(target=call) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_levels_by_environment() -> None:
    code = "from longspan import kernels; print(kernels.level())"
    for name, want in (("torch", "None"), *((name, name) for name in kernels.levels()[:1])):
        run = subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "LONGSPAN_KERNELS": name},
            capture_output=True,
            text=True,
            check=True,
        )
        assert run.stdout.strip() == want
