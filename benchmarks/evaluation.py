"""What measuring costs: making samples, running them, reporting, beside lm-eval on the same samples and model.

    python benchmarks/evaluation.py [--out docs/results/evaluation-speed.json]

- *sample*: seconds to make one RULER sample of 128K tokens, the first one of a process apart (it encodes the text).
- *harness*: a heat map of 20 cells up to 8K: wall time of `longspan eval`, less the loading of the model and the
  seconds in which it was busy, over these. The same prompts go to lm-eval's own runner over the same weights in
  transformers, where lm-eval is installed.
- *report*: seconds and memory of tables and page over 10 000 answers (benchmarks/report.py).
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

TASK = "niah"
ARGUMENTS: dict[str, Any] = {"lengths": "1k,2k,4k,8k", "depths": 5, "samples": 1}  # 20 cells


def samples_128k() -> dict[str, float]:
    from longspan.evaluation.compare import make_task, names_of

    out = {}
    make_task("ruler-niah-single-1", {"lengths": 4096, "samples": 1, "tokenizer": "smollm2"})  # loads the tokenizer
    for slug in names_of(["ruler"]):
        make_task(slug, {"lengths": 8192, "samples": 1, "tokenizer": "smollm2"})  # encodes its text, once a process
        begin = time.perf_counter()
        make_task(slug, {"lengths": 131_072, "samples": 1, "seed": 1, "tokenizer": "smollm2"})
        out[slug] = time.perf_counter() - begin
    return out


def harness() -> dict[str, float]:
    """A heat map of the embedded model, and how much of its wall time was neither the model's nor its loading."""
    from longspan.evaluation.compare import compare
    from longspan.llm import LocalLLM

    busy = {"load": 0.0, "model": 0.0}

    def timed(method: Any, kind: str) -> Any:
        def run(*arguments: Any) -> Any:
            begin = time.perf_counter()
            try:
                return method(*arguments)
            finally:
                busy[kind] += time.perf_counter() - begin

        return run

    load, generate = LocalLLM._load, LocalLLM._generate
    LocalLLM._load, LocalLLM._generate = timed(load, "load"), timed(generate, "model")  # type: ignore[method-assign]
    try:
        begin = time.perf_counter()
        with tempfile.TemporaryDirectory() as folder:
            rows = compare([TASK], ["smollm2"], Path(folder), arguments=ARGUMENTS, display="none")
        wall = time.perf_counter() - begin
    finally:
        LocalLLM._load, LocalLLM._generate = load, generate  # type: ignore[method-assign]
    return {
        "samples": len(rows),
        "wall_seconds": wall,
        "model_seconds": busy["model"],
        "load_seconds": busy["load"],
        "overhead": (wall - busy["load"]) / busy["model"] - 1.0,
    }


LM_EVAL = """
import json, sys, time
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM
from longspan.models import load
loaded = load("smollm2")
lm = HFLM(pretrained=loaded.model, tokenizer=loaded.tokenizer, backend="causal", batch_size=1, max_length=loaded.window)
prompts = json.load(sys.stdin)
chat = [loaded.tokenizer.apply_chat_template([{"role": "user", "content": p}], tokenize=False,
        add_generation_prompt=True) for p in prompts]
make = lambda: [Instance("generate_until", {}, (p, {"until": [], "max_gen_toks": 40, "do_sample": False}), i)
                for i, p in enumerate(chat)]
lm.generate_until(make()[:4], disable_tqdm=True)
begin = time.perf_counter()
answers = lm.generate_until(make(), disable_tqdm=True)
print(json.dumps({"seconds": time.perf_counter() - begin, "answers": answers[:2]}))
"""


def lm_eval() -> dict[str, Any] | None:
    """lm-eval's runner over the same prompts with the same weights; None where it is not installed."""
    from importlib.util import find_spec

    from longspan.evaluation.compare import make_task

    if find_spec("lm_eval") is None:
        return None
    prompts = [str(sample.input) for sample in make_task(TASK, {**ARGUMENTS, "tokenizer": "smollm2"}).dataset]
    done = subprocess.run(
        [sys.executable, "-c", LM_EVAL], input=json.dumps(prompts), capture_output=True, text=True, check=False
    )
    if done.returncode:
        print(f"lm-eval did not run: {done.stderr.strip().splitlines()[-1]}", file=sys.stderr)
        return None
    found: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return found


def report() -> str:
    done = subprocess.run(
        [sys.executable, Path(__file__).with_name("report.py")], capture_output=True, text=True, check=True
    )
    return done.stdout


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    os.environ.setdefault("INSPECT_DISPLAY", "none")
    made = samples_128k()
    for slug, seconds in made.items():
        print(f"128K-token sample of {slug:24} {seconds:6.2f} s")
    ran = harness()
    print(
        f"{ran['samples']} cells of {TASK} to 8K: {ran['wall_seconds']:.1f} s, of which the model took "
        f"{ran['model_seconds']:.1f} s and its loading {ran['load_seconds']:.1f} s: {ran['overhead']:.2%} beside it"
    )
    beside = lm_eval()
    if beside is not None:
        print(f"lm-eval on the same prompts and weights: {beside['seconds']:.1f} s without loading")
    print(report())
    if arguments.out:
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        facts = {"sample_128k_seconds": made, "harness": ran, "lm_eval": beside}
        arguments.out.write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
