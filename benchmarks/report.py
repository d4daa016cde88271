"""How long the report of a suite takes and how much memory, over made-up rows.

    python benchmarks/report.py [ROWS] [--keep FOLDER]

The rows are drawn once per seed: scores that fall with length and in the middle of the text, a spec that reads on above
its window, one that has a cost; failures; answers that are very long, that are HTML, or that run from right to left.
"""

from __future__ import annotations

import argparse
import io
import math
import random
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from longspan.evaluation.provider import peak_bytes
from longspan.evaluation.rows import Row

SPECS = {  # spec: skill, length by which half of it is lost, window, seconds per 1 000 tokens
    "smollm2": (0.97, 3_500, 8_192, 0.9),
    "smollm2+yarn:factor=4": (0.93, 9_000, 32_768, 1.0),
    "smollm2+snapkv:keep=0.125": (0.90, 3_000, 8_192, 0.8),
    "retrieve@smollm2": (0.88, 200_000, 1 << 20, 0.15),
    "openai:gpt-x": (0.99, 60_000, 131_072, 0.05),
}
TASKS = {  # task: difficulty, how much the middle loses, partial scores
    "niah": (0.0, 0.3, False),
    "passkey": (-0.05, 0.15, False),
    "ruler-vt": (0.25, 0.0, True),
    "ruler-cwe": (0.35, 0.0, True),
    "story-multihop": (0.45, 0.0, False),
}
LENGTHS = (1024, 2048, 4096, 8192, 16384)
DEPTHS = (0.0, 0.25, 0.5, 0.75, 1.0)
ANSWERS = (
    "I do not know.",
    "The pass key is 12345, as the text says near its beginning.",
    "<script>alert(1)</script><img src=x onerror=alert(2)>",
    "الرمز السري هو ٤٢٧ ولا أعرف غير ذلك.",
    "</details></section><h1>not a heading</h1> & \"quotes\" 'too' \x1b[31m\u202e",
)
FILLER = "The grass is green. The sky is blue. The sun is yellow. Here we go. There and back again. "


def synthetic(count: int, seed: int = 0, specs: int = 5, tasks: int = 5) -> list[Row]:
    """`count` rows over `specs` specs and `tasks` tasks."""
    rows: list[Row] = []
    number = 0
    while len(rows) < count:
        for task in list(TASKS)[:tasks]:
            for length in LENGTHS:
                for depth in DEPTHS:
                    for spec in list(SPECS)[:specs]:
                        if len(rows) < count:
                            rows.append(one(spec, task, length, depth, number, seed))
        number += 1
    return rows


def one(spec: str, task: str, length: int, depth: float, number: int, seed: int) -> Row:
    skill, half, window, speed = SPECS[spec]
    difficulty, middle, partial = TASKS[task]
    sample = f"{task}-{length}-{depth:.2f}-{seed}-{number}"
    hard = random.Random(sample).gauss(0, 0.15)  # shared by the specs, which makes pairs worth while
    chance = random.Random(f"{spec} {sample}")
    able = skill - difficulty - middle * math.sin(math.pi * depth) * min(length / 8192, 1) - hard
    able *= 0.5 ** (length / half) if length <= window else 0.05
    parts = 5 if partial else 1
    score = sum(chance.random() < able for _ in range(parts)) / parts
    failed = chance.random() < (0.12 if length > window else 0.004)
    key = str(random.Random(sample).randint(10_000, 99_999))
    needle = f"The pass key is {key}. Remember it. {key} is the pass key."
    answer = f"The key is {key}." if score == 1 else chance.choice(ANSWERS)
    if chance.random() < 0.02:
        answer += " and so on" * 20_000
    return Row(
        spec=spec,
        task=task,
        sample=sample,
        epoch=1,
        length=length,
        tokens=length - chance.randint(0, 8),
        score=None if failed else score,
        failed=failed,
        error="CUDA out of memory <at> 0x7f: tried to allocate 2.00 GiB" if failed else "",
        depth=depth if middle else None,
        above_window=length > window,
        target=[key],
        question="What is the pass key?",
        answer="" if failed else answer,
        needles=[needle],
        excerpt=f"{FILLER * 3}{needle} {FILLER * 3}",
        dimensions={"haystack": ("noise", "repeated", "essays")[number % 3], "needles": 1 + number % 4}
        if task == "niah"
        else {},
        seconds=speed * length / 1000 * chance.uniform(0.9, 1.2),
        prefill_seconds=None if spec.startswith("openai") else speed * length / 1000 * 0.9,
        decode_seconds=None if spec.startswith("openai") else speed * length / 1000 * 0.1,
        calls=3 if "@" in spec else 1,
        input_tokens=length // (8 if "@" in spec else 1),
        cached_tokens=0,
        output_tokens=chance.randint(8, 40),
        cache_bytes=None if spec.startswith("openai") else length * 46_080 // (8 if "snapkv" in spec else 1),
        peak_bytes=None if spec.startswith("openai") else 400_000_000 + length * 60_000,
        cost=length * 2e-6 if spec.startswith("openai") else None,
        log="synthetic.eval",
    )


def timed(what: str, work: Callable[[], object]) -> float:
    begin = time.perf_counter()
    work()
    seconds = time.perf_counter() - begin
    print(f"{what:32} {seconds:6.2f} s")
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rows", type=int, nargs="?", default=10_000)
    parser.add_argument("--keep", type=Path, help="leave the report here")
    arguments = parser.parse_args()
    from rich.console import Console

    from longspan.evaluation.report import load, print_table, save, write_html

    def measure(folder: Path) -> None:
        rows = synthetic(arguments.rows)
        before = peak()
        page = folder / "report.html"
        total = timed("samples.parquet and report.json", lambda: save(rows, folder))
        total += timed("report.html", lambda: write_html(rows, page, "A made-up comparison of five specs"))
        total += timed("the table", lambda: print_table(rows, Console(file=io.StringIO(), width=160)))
        print(f"{'all of the report':32} {total:6.2f} s   goal < 20 s for 10 000 rows")
        timed("samples.parquet read again", lambda: load(folder))
        print(f"{'memory at its peak':32} {peak():6.0f} MB  goal < 1 000 MB; {before:.0f} MB before, with the rows")
        print(f"{'page':32} {page.stat().st_size / 1e6:6.2f} MB  goal < 5 MB")
        print_table(rows, Console(width=160))

    if arguments.keep:
        arguments.keep.mkdir(parents=True, exist_ok=True)
        measure(arguments.keep)
    else:
        with tempfile.TemporaryDirectory() as folder:
            measure(Path(folder))


def peak() -> float:
    """Megabytes. Not ru_maxrss, which begins at what the parent process had."""
    return peak_bytes() / 1e6


if __name__ == "__main__":
    main()
