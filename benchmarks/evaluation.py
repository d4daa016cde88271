"""What measuring costs: making samples, running them, reporting, beside lm-eval on the same samples and model.

    python benchmarks/evaluation.py [--out docs/results/evaluation-speed.json]

- *sample*: seconds to make one RULER sample of 128K tokens, the first one of a process apart (it encodes the text).
- *harness*: wall time of `longspan eval` less the time that the model itself took, over the wall time. The same prompts
  go to the same engine in a plain loop, in the same process, and to lm-eval's own runner over the same transformers
  model where lm-eval is installed.
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

LENGTHS, SAMPLES = "1k,2k", 10


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
    """The share of a run's wall time that is not the model's, and the same prompts in a plain loop."""
    import asyncio

    from longspan.evaluation.compare import compare, make_task
    from longspan.evaluation.provider import shared_llm

    arguments: dict[str, Any] = {"lengths": LENGTHS, "samples": SAMPLES // 5, "tokenizer": "smollm2"}
    llm = shared_llm("smollm2")
    _ = llm.window  # loaded before anything is timed
    task = make_task("passkey", arguments)
    prompts = [str(sample.input) for sample in task.dataset]

    async def loop() -> None:
        gate = asyncio.Semaphore(4)

        async def one(prompt: str) -> None:
            async with gate:
                await llm.chat([{"role": "user", "content": prompt}], max_tokens=16)

        await asyncio.gather(*(one(prompt) for prompt in prompts))

    def timed(run: Any) -> float:
        llm.engine.prefixes.clear()
        begin = time.perf_counter()
        run()
        return time.perf_counter() - begin

    asyncio.run(loop())  # warm
    plain, through = [], []
    for _ in range(3):  # in turn, as the machine's speed drifts
        plain.append(timed(lambda: asyncio.run(loop())))
        with tempfile.TemporaryDirectory() as folder:
            model: list[float] = []
            through.append(timed(lambda folder=folder, model=model: model.extend(_seconds(compare, folder, arguments))))
    return {
        "samples": len(prompts),
        "plain_loop_seconds": min(plain),
        "longspan_eval_seconds": min(through),
        "overhead": min(through) / min(plain) - 1.0,
    }


def _seconds(compare: Any, folder: str, arguments: dict[str, Any]) -> list[float]:
    rows = compare(["passkey"], ["smollm2"], Path(folder), arguments=arguments, display="none")
    return [row.seconds for row in rows]


LM_EVAL = """
import json, sys, time
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM
from longspan.models import load
loaded = load("smollm2")
lm = HFLM(pretrained=loaded.model, tokenizer=loaded.tokenizer, backend="causal", batch_size=4, max_length=loaded.window)
prompts = json.load(sys.stdin)
chat = [loaded.tokenizer.apply_chat_template([{"role": "user", "content": p}], tokenize=False,
        add_generation_prompt=True) for p in prompts]
make = lambda: [Instance("generate_until", {}, (p, {"until": [], "max_gen_toks": 16, "do_sample": False}), i)
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
    arguments = {"lengths": LENGTHS, "samples": SAMPLES // 5, "tokenizer": "smollm2"}
    prompts = [str(sample.input) for sample in make_task("passkey", arguments).dataset]
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
        f"{ran['samples']} samples: longspan eval {ran['longspan_eval_seconds']:.1f} s, the same calls in a plain loop "
        f"{ran['plain_loop_seconds']:.1f} s: {ran['overhead']:+.1%}"
    )
    beside = lm_eval()
    if beside is not None:
        print(f"lm-eval on the same prompts and weights: {beside['seconds']:.1f} s")
    print(report())
    if arguments.out:
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        facts = {"sample_128k_seconds": made, "harness": ran, "lm_eval": beside}
        arguments.out.write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
