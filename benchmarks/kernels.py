"""The native kernels beside torch's SDPA on this machine, in one run, taking turns.

    python benchmarks/kernels.py [--quick] [--out docs/results/kernels.json]

- *forward*: causal attention of SmolLM2's heads (9 query, 3 KV, dim 64), bf16 and fp32, and with int8 keys and values:
  milliseconds and the ratio to SDPA, each pair of runs giving one ratio; median with the smallest and largest.
- *backward*: the gradient of the same attention, beside SDPA's and the plain formula in torch (`reference.gradients`).
- *decode*: one query against a long cache: GB/s of keys and values by one worker and by all, beside SDPA and what this
  machine reads at most (torch's sum over a buffer of as much memory; up to 32K keys that is in the caches).
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch.nn.functional import scaled_dot_product_attention as sdpa

from longspan import kernels
from longspan.kernels import reference

HEADS, KV_HEADS, DIM = 9, 3, 64


def seconds(run: Callable[[], Any]) -> float:
    begin = time.perf_counter()
    run()
    return time.perf_counter() - begin


def in_turns(runs: dict[str, Callable[[], Any]], rounds: int) -> dict[str, list[float]]:
    """Seconds of each, one after the other, so that a busy moment meets all; the first round is not counted."""
    times: dict[str, list[float]] = {name: [] for name in runs}
    for i in range(rounds + 1):
        for name, run in runs.items():
            took = seconds(run)
            if i:
                times[name].append(took)
    return times


def spread(values: list[float]) -> dict[str, float]:
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}


def tensors(queries: int, keys: int, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    q = torch.randn(1, HEADS, queries, DIM, dtype=dtype)
    return q, torch.randn(1, KV_HEADS, keys, DIM, dtype=dtype), torch.randn(1, KV_HEADS, keys, DIM, dtype=dtype)


def forward(lengths: list[int], rounds: int) -> list[dict[str, Any]]:
    rows = []
    for dtype in (torch.bfloat16, torch.float32):
        for n in lengths:
            q, k, v = tensors(n, n, dtype)
            (k8, k_scale), (v8, v_scale) = kernels.rounded(k), kernels.rounded(v)
            scales = {"k_scale": k_scale, "v_scale": v_scale}
            times = in_turns(
                {
                    "sdpa": lambda q=q, k=k, v=v: sdpa(q, k, v, is_causal=True, enable_gqa=True),
                    "longspan": lambda q=q, k=k, v=v: kernels.attention(q, k, v),
                    "int8": lambda q=q, k=k8, v=v8, scales=scales: kernels.attention(q, k, v, **scales),
                },
                rounds,
            )
            ratio, ratio_int8 = (
                spread([a / b for a, b in zip(times["sdpa"], times[name], strict=True)])
                for name in ("longspan", "int8")
            )
            flops = 2 * HEADS * n * n * DIM / min(times["longspan"])
            row = {
                "dtype": str(dtype)[6:],
                "length": n,
                "ratio": ratio,
                "ratio_int8": ratio_int8,
                "gflops": flops / 1e9,
            }
            rows.append(row | {f"{name}_ms": statistics.median(x) * 1e3 for name, x in times.items()})
            print(
                f"forward {rows[-1]['dtype']:9} {n:6}  sdpa {rows[-1]['sdpa_ms']:8.1f} ms  longspan "
                f"{rows[-1]['longspan_ms']:8.1f} ms  x{ratio['median']:.2f} ({ratio['min']:.2f}–{ratio['max']:.2f})  "
                f"{flops / 1e9:.0f} GFLOP/s  int8 x{ratio_int8['median']:.2f}"
            )
    return rows


def backward(lengths: list[int], rounds: int) -> list[dict[str, Any]]:
    rows = []
    for dtype in (torch.bfloat16, torch.float32):
        for n in lengths:
            inputs = [x.requires_grad_() for x in tensors(n, n, dtype)]
            ours, lse = kernels.attention(*inputs)
            theirs = sdpa(*inputs, is_causal=True, enable_gqa=True)
            grad = torch.randn_like(ours)
            plain = [x.detach() for x in (*inputs, ours)]

            def autograd(out: torch.Tensor, inputs: Any = inputs, grad: torch.Tensor = grad) -> None:
                torch.autograd.grad(out, inputs, grad, retain_graph=True)

            def formula(plain: Any = plain, lse: torch.Tensor = lse, grad: torch.Tensor = grad) -> None:
                reference.gradients(*plain, lse, grad, scale=DIM**-0.5, causal=True)

            times = in_turns(
                {
                    "sdpa": lambda run=autograd, out=theirs: run(out),
                    "formula": formula,
                    "longspan": lambda run=autograd, out=ours: run(out),
                },
                rounds,
            )
            row: dict[str, Any] = {"dtype": str(dtype)[6:], "length": n}
            for peer in ("sdpa", "formula"):
                row[f"ratio_{peer}"] = spread([a / b for a, b in zip(times[peer], times["longspan"], strict=True)])
            rows.append(row | {f"{name}_ms": statistics.median(x) * 1e3 for name, x in times.items()})
            print(
                f"backward {row['dtype']:9} {n:6}  longspan {rows[-1]['longspan_ms']:8.1f} ms  "
                f"x{row['ratio_sdpa']['median']:.2f} of SDPA  x{row['ratio_formula']['median']:.2f} of the formula"
            )
    return rows


def decode(lengths: list[int], rounds: int, workers: int) -> list[dict[str, Any]]:
    rows = []
    for n in lengths:
        q, k, v = tensors(1, n, torch.bfloat16)
        (k8, k_scale), (v8, v_scale) = kernels.rounded(k), kernels.rounded(v)
        scales = {"k_scale": k_scale, "v_scale": v_scale}
        size = k.nbytes + v.nbytes
        buffer = torch.randn(size // 4)  # as much memory: what the caches hold of one they hold of the other

        def step(count: int, q: torch.Tensor = q, k: torch.Tensor = k, v: torch.Tensor = v) -> None:
            kernels.decode_attention(q, k, v, workers=count)

        def step8(
            q: torch.Tensor = q, k: torch.Tensor = k8, v: torch.Tensor = v8, scales: dict[str, Any] = scales
        ) -> None:
            kernels.decode_attention(q, k, v, **scales)

        runs: dict[str, Callable[[], Any]] = {
            "read": lambda buffer=buffer: buffer.sum(),
            "sdpa": lambda q=q, k=k, v=v: sdpa(q, k, v, enable_gqa=True),
            "one": lambda step=step: step(1),
            "all": lambda step=step: step(workers),
            "int8": step8,
        }
        times = in_turns(runs, rounds)
        best = {name: min(x) for name, x in times.items()}
        speedup = spread([a / b for a, b in zip(times["one"], times["all"], strict=True)])
        row = {
            "keys": n,
            "gb_s": {name: size / (2 if name == "int8" else 1) / t / 1e9 for name, t in best.items()},
            "share_of_bandwidth": best["read"] / best["all"],
            "speedup": speedup,
            "ratio_sdpa": spread([a / b for a, b in zip(times["sdpa"], times["all"], strict=True)]),
            "ratio_int8": spread([a / b for a, b in zip(times["all"], times["int8"], strict=True)]),
        }
        rows.append(row)
        print(
            f"decode {n:7} keys  "
            + "  ".join(f"{name} {rate:5.1f}" for name, rate in row["gb_s"].items())
            + f" GB/s  {row['share_of_bandwidth']:.0%} of bandwidth  {workers} workers x{speedup['median']:.2f} "
            f"({speedup['min']:.2f}–{speedup['max']:.2f})  x{row['ratio_sdpa']['median']:.2f} of SDPA  "
            f"int8 x{row['ratio_int8']['median']:.2f}"
        )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="short lengths, few rounds")
    parser.add_argument("--out", type=Path, help="write the figures as JSON")
    args = parser.parse_args()
    torch.manual_seed(0)
    workers = torch.get_num_threads()
    print(f"level {kernels.level()}, {workers} threads, torch {torch.__version__}")
    results = {
        "level": kernels.level(),
        "levels": kernels.levels(),
        "threads": workers,
        "torch": torch.__version__,
        "forward": forward([1024, 2048] if args.quick else [1024, 2048, 4096, 8192], 3 if args.quick else 7),
        "backward": backward([512, 1024] if args.quick else [1024, 2048, 4096], 3 if args.quick else 5),
        "decode": decode(
            [8192, 65536] if args.quick else [8192, 32768, 131072, 524288], 5 if args.quick else 15, workers
        ),
    }
    if args.out:
        args.out.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
