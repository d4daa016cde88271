"""What the engine saves over requests: a text that is known, tokens that are guessed, requests that go together.

    python benchmarks/serving.py [--rounds 3] [--out docs/results/serving.json]

- *reuse*: seconds to the first token of a question on a text of 8K tokens: the first, another in the same process, and
  another by an engine that finds the text on disk.
- *guess*: tokens a second with prompt look-up and without, where an answer copies the text and where it does not.
- *together*: tokens a second of four requests decoded together over those of one.
- *memory*: what reading 32K tokens takes beside weights and cache, in a process of its own.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

MODEL = "smollm2"
NEW = 64
LONG = 8_192
MEMORY = """
import torch
from longspan.engine import Engine
from longspan.evaluation.provider import forget_peak, peak_bytes
from longspan.models import load
engine = Engine(load("smollm2"), beyond_window=True, weights={weights!r})
ids = torch.randint(0, 40_000, (32_768,)).tolist()
engine.generate([ids[:600]], max_tokens=2)
engine.prefixes.clear()
engine.prefixes.max_bytes = 0
forget_peak()
before = peak_bytes()
engine.generate([ids], max_tokens=2)
held = 32_768 * engine.runner.token_bytes
print((peak_bytes() - before - held) / 1e6)
"""


def text_ids(engine: Any, length: int) -> list[int]:
    from pydoc_data.topics import topics

    found: list[int] = engine.loaded.tokenizer("\n".join(topics.values()))["input_ids"][:length]
    return found


def reuse(rounds: int) -> dict[str, float]:
    """Seconds to the first token, medians."""
    from longspan.engine import Engine
    from longspan.models import encode, load

    loaded = load(MODEL)
    asked = [encode(f"\n\nQuestion: What does the text say of number {n}?\nAnswer:", loaded) for n in range(3 * rounds)]
    times: dict[str, list[float]] = {"first": [], "again": [], "from disk": []}
    for number in range(rounds):
        with tempfile.TemporaryDirectory() as folder:
            engine = Engine(loaded, prefix_folder=Path(folder))
            text = text_ids(engine, LONG - 64 - number)
            for name in times:
                if name == "from disk":
                    engine = Engine(loaded, prefix_folder=Path(folder))
                begin = time.perf_counter()
                engine.generate([text + asked.pop()], max_tokens=1)
                times[name].append(time.perf_counter() - begin)
                time.sleep(0.2)
    return {name: statistics.median(values) for name, values in times.items()}


def guess(rounds: int) -> dict[str, dict[str, float]]:
    """By kind of answer: tokens a second with and without look-up, and tokens a step."""
    from longspan.engine import Engine
    from longspan.models import encode, load

    loaded = load(MODEL)
    engines = {"guessing": Engine(loaded), "one by one": Engine(loaded, guess=False)}
    found: dict[str, dict[str, float]] = {}
    for kind, length in (("copies", 1024), ("copies", 4096), ("writes freely", 1024)):
        text = text_ids(engines["guessing"], length)
        # What comes next is in the text, as where a passage is quoted; or it is not.
        prompt = (
            text + text[length // 2 : length // 2 + 8] if kind == "copies" else text + encode("\n\nMy poem:\n", loaded)
        )
        rates: dict[str, list[float]] = {name: [] for name in engines}
        steps = 0.0
        said = []
        for _ in range(rounds + 1):
            for name, engine in engines.items():
                made = engine.generate([prompt], max_tokens=NEW)[0]
                rates[name].append((len(made.tokens) - 1) / made.decode_seconds)
                said.append(made.tokens)
                if name == "guessing":
                    steps = (len(made.tokens) - 1) / made.steps
        assert len(set(said)) == 1, "the texts differ"
        medians = {name: statistics.median(values[1:]) for name, values in rates.items()}
        found[f"{kind}, {length} tokens"] = medians | {"tokens a step": steps}
    return found


def together(rounds: int) -> dict[str, float]:
    """Tokens a second of all requests, decoding alone."""
    from longspan.engine import Engine
    from longspan.models import load

    engine = Engine(load(MODEL), guess=False)
    ids = text_ids(engine, 5 * 1024)
    rates: dict[str, list[float]] = {"1": [], "4": []}
    for _ in range(rounds + 1):
        for number in (1, 4):
            made = engine.generate([ids[n * 1024 : (n + 1) * 1024] for n in range(number)], max_tokens=NEW)
            rates[str(number)].append(sum(len(each.tokens) - 1 for each in made) / max(m.decode_seconds for m in made))
    return {name: statistics.median(values[1:]) for name, values in rates.items()}


def memory() -> dict[str, float]:
    """Megabytes beside weights and cache."""
    found = {}
    for weights in (None, "int8", "int4"):
        done = subprocess.run(
            [sys.executable, "-c", MEMORY.format(weights=weights)], capture_output=True, text=True, check=True
        )
        found[weights or "as loaded"] = float(done.stdout.split()[-1])
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    found: dict[str, Any] = {}
    for name, measure in (("reuse", reuse), ("guess", guess), ("together", together)):
        found[name] = measure(arguments.rounds)
        print(name, json.dumps(found[name]), flush=True)
    found["memory"] = memory()
    print("memory", json.dumps(found["memory"]))
    if arguments.out:
        arguments.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
