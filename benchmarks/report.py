"""How long the report of 10 000 answers takes, and how much memory.

python benchmarks/report.py [--rows 10000]
"""

from __future__ import annotations

import argparse
import random
import resource
import tempfile
import time
from pathlib import Path

from rich.console import Console

from longspan.evaluation.report import load, print_table, save, write_html
from longspan.evaluation.rows import Row

SPECS = ("smollm2", "smollm2+method:x=1", "retrieve@smollm2", "map-reduce@smollm2")
LENGTHS = (1024, 2048, 4096, 8192, 16_384)
DEPTHS = (0.0, 0.25, 0.5, 0.75, 1.0)


def made(count: int) -> list[Row]:
    """Rows as a run over 13 tasks leaves them, scores falling with length."""
    rows = []
    for number in range(count):
        chance = random.Random(number)
        length, depth = chance.choice(LENGTHS), chance.choice(DEPTHS)
        needle = f"The access code of the harbour is {number:07d}."
        rows.append(
            Row(
                spec=SPECS[number % len(SPECS)],
                task=f"task-{number // len(SPECS) % 13}",
                sample=f"sample-{number // len(SPECS)}",
                epoch=1,
                length=length,
                tokens=length,
                score=float(chance.random() > length / 20_000),
                depth=depth,
                above_window=length > 8192,
                target=[f"{number:07d}"],
                question="What is the access code of the harbour?",
                answer="It is " + "a long answer " * chance.randint(1, 60),
                needles=[needle],
                excerpt="of the text before it " * 11 + needle + " of the text after it" * 11,
                dimensions={"haystack": chance.choice(["real", "noise"])},
                seconds=1.0,
                prefill_seconds=0.8,
                decode_seconds=0.2,
                calls=1,
                input_tokens=length,
                output_tokens=24,
                cache_bytes=length * 23_040,
                peak_bytes=10**9,
            )
        )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=10_000)
    rows = made(parser.parse_args().rows)
    begin = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        save(rows, Path(folder))
        write_html(load(Path(folder)), Path(folder) / "report.html", "benchmark")
        with Path("/dev/null").open("w") as nowhere:
            print_table(rows, Console(file=nowhere, width=160))
        page = (Path(folder) / "report.html").stat().st_size
    seconds, peak = time.perf_counter() - begin, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
    print(f"report of {len(rows)} answers: {seconds:.1f} s, {peak:.0f} MB at the most, a page of {page / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
