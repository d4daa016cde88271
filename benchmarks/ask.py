"""How long `longspan ask` takes and how much memory, beside a plain baseline, in one run.

    python benchmarks/ask.py [--out docs/results/ask-speed.json] [--quick]

Every line is a process as a user would start it (of the next questions, both: a session that goes on, as
`longspan ask -i` keeps one, and a new process each), on a cache of its own. The texts: Python's help topics
(470 KB, 170 000 tokens) and a folder of 20 MB, modules of the Python that runs this. The baseline is what one writes
in an afternoon: transformers' `generate` over the four chunks (of a fixed 256 tokens) that are nearest to the question
by the same encoder (batched as longspan does it), without an index. Model and question are the same.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import time
from pathlib import Path
from statistics import median

QUESTION = "How many digits may an octal escape in a string literal have?"
NEXT = [
    "What does the debugger do on a blank line?",
    "Which exception is raised when an attribute is not found?",
    "What happens if a class defines __slots__ without __dict__?",
]
LIBRARY_QUESTION = "What is the default size of the buffer that shutil uses to copy files?"
LIBRARY_BYTES = 20_000_000
TARGETS = {
    "help": "< 0.5 s",
    "first answer, nothing indexed": "< 60 s",
    "next question": "< 10 s, first word < 4 s",
    "next question, by a new process": "< 10 s",
    "index 20 MB": "< 60 s",
    "first answer of 20 MB": "",
    "next question of 20 MB": "< 10 s, first word < 4 s",
    "next question of 20 MB, by a new process": "< 10 s",
}
COMMAND = [sys.executable, "-m", "longspan"]


def timed(command: list[str], cache: Path) -> dict[str, float]:
    """Seconds to the end and to the first character on stdout, and the peak of memory (MB), of one process."""
    environment = {**os.environ, "LONGSPAN_CACHE": str(cache)}
    begin = time.perf_counter()
    with tempfile.TemporaryFile() as said:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=said, env=environment)
        assert process.stdout is not None
        head = process.stdout.read(1)
        first = time.perf_counter() - begin
        rest = process.stdout.read()
        _, status, usage = os.wait4(process.pid, 0)
        if status:
            said.seek(0)
            code = os.waitstatus_to_exitcode(status)
            raise SystemExit(f"{' '.join(command)} failed ({code}): {said.read().decode(errors='replace')[-500:]}")
    return {
        "seconds": time.perf_counter() - begin,
        "first_word": first,
        "megabytes": usage.ru_maxrss / 1024,
        "characters": len(head + rest),
    }


def library(folder: Path) -> tuple[int, int]:
    """Copy modules of the standard library until there are 20 MB: (files, bytes)."""
    root = Path(sysconfig.get_paths()["stdlib"])
    files = total = 0
    for path in sorted(root.rglob("*.py"), key=lambda path: (path.stat().st_size, path)):
        if "site-packages" in path.parts or total >= LIBRARY_BYTES:
            continue
        data = path.read_bytes()
        if len(data) < 500:
            continue
        target = folder / path.relative_to(root)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(data)
        files, total = files + 1, total + len(data)
    return files, total


def baseline(text: str, questions: list[str]) -> list[dict[str, float]]:
    """Chunks of fixed size, the nearest four, generate: seconds of each question (the first embeds everything)."""
    import torch

    from longspan.models import load
    from longspan.retrieval import Encoder

    begin = time.perf_counter()
    loaded = load("smollm2")
    model, tokenizer, encoder = loaded.model, loaded.tokenizer, Encoder()
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    chunks = tokenizer.batch_decode([ids[start : start + 256] for start in range(0, len(ids), 256)])
    vectors = torch.from_numpy(encoder(chunks))
    rows = []
    for question in questions:
        near = (vectors @ torch.from_numpy(encoder([question])[0])).topk(4).indices.tolist()
        prompt = "\n\n".join(chunks[index] for index in near) + f"\n\nQuestion: {question}"
        inputs = tokenizer.apply_chat_template(
            [{"role": "user", "content": prompt}], add_generation_prompt=True, return_tensors="pt", return_dict=True
        )
        with torch.inference_mode():
            output = model.generate(**inputs, max_new_tokens=64, do_sample=False)
        answer = tokenizer.decode(output[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
        rows.append({"seconds": time.perf_counter() - begin, "answer": answer})
        begin = time.perf_counter()
    rows[0]["megabytes"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return rows


def session(source: str, questions: list[str]) -> list[dict[str, float]]:
    """The same questions one after the other in one process, as with `longspan ask -i`."""
    import longspan
    from longspan.llm import open_llm

    llm = open_llm("smollm2")
    corpus = longspan.Corpus.open([source])
    rows = []
    for question in questions:
        begin = time.perf_counter()
        said: list[float] = []
        longspan.ask(corpus, question, model=llm, on_text=lambda _, said=said: said.append(time.perf_counter()))
        rows.append({"seconds": time.perf_counter() - begin, "first_word": said[0] - begin})
    rows[0]["megabytes"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return rows


def child(option: str, source: Path, cache: Path) -> list[dict]:
    """`baseline` or `session` in a process of its own."""
    done = subprocess.run(
        [sys.executable, __file__, option, str(source)],
        check=True,
        capture_output=True,
        text=True,
        env={**os.environ, "LONGSPAN_CACHE": str(cache)},
    )
    return json.loads(done.stdout.strip().splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--quick", action="store_true", help="without the folder of 20 MB")
    parser.add_argument("--baseline", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--session", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.baseline:
        print(json.dumps(baseline(arguments.baseline.read_text(encoding="utf-8"), [QUESTION, *NEXT])))
        return
    if arguments.session:
        print(json.dumps(session(str(arguments.session), [QUESTION, *NEXT])))
        return

    rows: list[dict] = []

    def add(name: str, seconds: float, first: float | None, megabytes: float, note: str = "") -> None:
        row = {"what": name, "seconds": round(seconds, 2), "megabytes": round(megabytes), "note": note}
        row["first_word"] = None if first is None else round(first, 2)
        row["target"] = TARGETS.get(name, "")
        rows.append(row)
        shown = "" if first is None else f"first word {first:6.2f} s"
        print(f"{name:42} {seconds:8.2f} s  {shown:22} {megabytes:6.0f} MB  {row['target']:26} {note}", flush=True)

    def following(name: str, ask: list[str], source: Path) -> None:
        """The next questions about a text that is indexed: in the session that goes on, and each by a new process."""
        open_session = child("--session", source, cache)
        new = [timed([*ask, question], cache) for question in NEXT]
        for title, runs, megabytes in (
            (name, open_session[1:], open_session[0]["megabytes"]),
            (f"{name}, by a new process", new, max(r["megabytes"] for r in new)),
        ):
            seconds, first = (median(run[field] for run in runs) for field in ("seconds", "first_word"))
            add(title, seconds, first, megabytes, f"median of {len(NEXT)}")

    with tempfile.TemporaryDirectory() as scratch:
        place = Path(scratch)
        text = place / "topics.txt"
        topics = Path(__file__).parent.parent / "examples" / "topics.py"
        text.write_bytes(subprocess.run([sys.executable, topics], check=True, capture_output=True).stdout)
        cache = place / "cache"

        runs = [timed([*COMMAND, "--help"], cache) for _ in range(5)]
        add("help", median(r["seconds"] for r in runs), None, max(r["megabytes"] for r in runs), "median of 5")

        ask = [*COMMAND, "ask", "--quiet", str(text)]
        run = timed([*ask, QUESTION], cache)
        add("first answer ever", run["seconds"], run["first_word"], run["megabytes"], "the model is converted, too")
        shutil.rmtree(cache / "indexes")
        run = timed([*ask, QUESTION], cache)
        add("first answer, nothing indexed", run["seconds"], run["first_word"], run["megabytes"])
        following("next question", ask, text)
        plain = child("--baseline", text, cache)
        add("baseline: first answer", plain[0]["seconds"], None, plain[0]["megabytes"], "embeds everything")
        add(
            "baseline: next question",
            median(r["seconds"] for r in plain[1:]),
            None,
            plain[0]["megabytes"],
            "in the same process, 64 tokens at most",
        )
        if not arguments.quick:
            folder = place / "library"
            files, size = library(folder)
            run = timed([*COMMAND, "index", "build", str(folder)], cache)
            add("index 20 MB", run["seconds"], None, run["megabytes"], f"{files} files, {size / 1e6:.1f} MB, full text")
            ask = [*COMMAND, "ask", "--quiet", str(folder)]
            run = timed([*ask, LIBRARY_QUESTION], cache)
            add("first answer of 20 MB", run["seconds"], run["first_word"], run["megabytes"], "indexed by full text")
            following("next question of 20 MB", ask, folder)
    if arguments.out:
        facts = {
            "python": platform.python_version(),
            "machine": platform.machine(),
            "cores": len(os.sched_getaffinity(0)),
            "baseline_answers": [row["answer"] for row in plain],
            "rows": rows,
        }
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        arguments.out.write_text(json.dumps(facts, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
