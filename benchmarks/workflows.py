"""Workflows side by side: what each finds at which length and cost; and what the runtime around them costs.

    python benchmarks/workflows.py runtime|simulated|embedded|million|table [--out docs/results/workflows.json]

- *runtime*: 10 000 leaf calls of a model that answers at once, through budget, journal and trace: microseconds a call
  and memory; how busy a model that takes 250 ms is kept with 8 calls at once.
- *simulated*, *embedded*: tasks x workflows x lengths, for the simulated reader with SmolLM2-135M's error curve and for
  SmolLM2-135M itself. Every run is kept in `--out` as it ends: what was stopped goes on.
- *million*: a pass key and four codes in real text of 1M tokens, the embedded model with λ-RLM.
- *table*: the runs so far.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from longspan.llm import LLM

LENGTHS = (8_192, 32_768, 131_072)
SIMULATED = "simulated:smollm2"
WRITERS = (
    "alone", "retrieve", "map-reduce", "lambda-rlm", "inftythink", "extagents", "agenticlu", "laser", "memex",
    "coding-agent",
)  # fmt: skip
SMALL = ("alone", "retrieve", "map-reduce", "lambda-rlm", "inftythink", "extagents")
Asked = tuple[str, list[str], str]  # question, what the answer must hold, text


def samples(task: str, length: int, number: int) -> Asked:
    """The question of a task, its answers, and real text of `length` tokens that has them."""
    from longspan.evaluation.lengths import counter
    from longspan.evaluation.tasks import niah, passkey
    from longspan.reproductions._shares import chain, other_chains, spread

    count = counter("smollm2")
    seed = f"workflows {task} {length} {number}"
    depth = (0.1, 0.5, 0.9)[number % 3]
    if task == "multi-hop":
        question, value, facts = chain(4, seed)
        return question, [value], spread([*facts, *other_chains(20, seed)], length, seed, count)
    if task == "count":
        facts = ["A zeppelin came."] * (5 + number)
        return 'How many times is the word "zeppelin" mentioned?', [str(len(facts))], spread(facts, length, seed, count)
    if task == "pass key":
        sample = passkey.one(length, depth, str(number), count, "real")
    else:
        sample = niah.one(length, depth, 4 if task == "four codes" else 1, "real", str(number), count)
    metadata: dict[str, Any] = sample.metadata or {}
    begin, end = metadata["context"]
    question = metadata["question"].partition(" Answer")[0]
    return question, list(sample.target), str(sample.input)[begin:end]


def measured(task: str, workflow: str, length: int, number: int, llm: LLM) -> dict[str, Any]:
    """One run as a row."""
    from longspan.errors import LongspanError
    from longspan.reproductions._shares import alone, answered, longest_prompt

    question, targets, text = samples(task, length, number)
    begin = time.perf_counter()
    failure, usage, said, longest = "", None, "", 0
    try:
        answer = alone(question, text, llm) if workflow == "alone" else answered(question, text, llm, workflow)
        usage, said, longest = answer.usage, answer.text, longest_prompt(answer)
    except LongspanError as error:
        failure = str(error)
    words = said.replace(".", " ").split()
    right = sum(target in (words if task == "count" else said) for target in targets) / len(targets)
    return {
        "model": llm.name.partition(":seed")[0],
        "task": task,
        "workflow": workflow,
        "length": length,
        "number": number,
        "right": right,
        "calls": usage.calls if usage else 0,
        "tokens": usage.prompt_tokens + usage.completion_tokens if usage else 0,
        "longest": longest,
        "seconds": round(time.perf_counter() - begin, 2),
        "failure": failure,
        "answer": said[:200],
    }


def fill(
    rows: list[dict[str, Any]], save: Callable[[], None], model: str, tasks: tuple[str, ...],
    workflows: tuple[str, ...], lengths: tuple[int, ...], number: int,
) -> None:  # fmt: skip
    """Add the runs that are missing."""
    from longspan.llm import SimulatedLLM, open_local

    kept = {(row["model"], row["task"], row["workflow"], row["length"], row["number"]) for row in rows}
    llm: LLM = SimulatedLLM(model.partition(":")[2]) if model.startswith("simulated") else open_local(model)
    for length in lengths:
        for at in range(number):
            for task in tasks:
                for workflow in workflows:
                    if (model, task, workflow, length, at) in kept:
                        continue
                    row = measured(task, workflow, length, at, llm)
                    print(f"{model} {task} {workflow} {length} {at}: {row['right']:.2f} {row['seconds']} s", flush=True)
                    rows.append(row)
                    save()


# -- the runtime -------------------------------------------------------------------------------------------------------


class Waiting:
    """Answers after `seconds`; a token is a word."""

    name = tokenizer_name = "waiting"
    window = effective_window = 8192
    reader = "generate"

    def __init__(self, seconds: float) -> None:
        self.seconds, self.calls, self.under_way, self.busy = seconds, 0, 0, 0.0

    def count_tokens(self, text: str) -> int:
        return len(text.split())

    def count_batch(self, texts: list[str]) -> list[int]:
        return [len(text.split()) for text in texts]

    async def chat(self, messages: Any, *, max_tokens: int, **how: Any) -> Any:
        from longspan.llm import Call, Completion
        from longspan.llm.protocol import note
        from longspan.trace import Usage

        with Call.of(messages, max_tokens).recorded(self.name) as step:
            self.calls += 1
            if self.seconds:
                await asyncio.sleep(self.seconds)
                self.busy += self.seconds
            completion = Completion("NONE", Usage(1, self.count_tokens(messages[-1]["content"]), 1), "stop")
            note(step, completion)
        return completion


def runtime() -> dict[str, float]:
    from longspan.corpus import Corpus
    from longspan.evaluation.provider import forget_peak, peak_bytes
    from longspan.workflows import Budget, Settings, run
    from longspan.workflows.combinators import Fix, M, Map, Reduce, Self, Split
    from longspan.workflows.lambda_rlm import execute

    paragraph = "The mill turns slowly in the wind of the north. " * 5
    text = "\n\n".join(f"{paragraph}It was day {at}." for at in range(10_000))
    program = Fix(64, M("find", 8), Split(10) >> Map(Self()) >> Reduce("best"))
    llm: Any = Waiting(0.0)
    corpus = Corpus.from_texts({"text": text})
    asyncio.run(execute(program, "Where is the mill?", Corpus.from_texts({"text": text[:2000]}), llm))
    forget_peak()
    before, llm.calls = peak_bytes(), 0
    begin = time.perf_counter()
    asyncio.run(execute(program, "Where is the mill?", corpus, llm))
    seconds = time.perf_counter() - begin
    grown = (peak_bytes() - before) / 1e6
    slow: Any = Waiting(0.25)
    begin = time.perf_counter()
    settings = Settings(budget=Budget(calls=10_000))
    asyncio.run(run("What do the mills do?", corpus, slow, "map-reduce", settings))
    wall = time.perf_counter() - begin
    return {
        "leaves": llm.calls,
        "microseconds_a_call": 1e6 * seconds / llm.calls,
        "megabytes_grown": grown,
        "waiting_calls": slow.calls,
        "share_kept_busy": slow.busy / 8 / wall,
    }


def table(rows: list[dict[str, Any]]) -> str:
    """Markdown: a line a workflow, a column a length, for each model and task."""
    out: list[str] = []
    for model in dict.fromkeys(row["model"] for row in rows):
        mine = [row for row in rows if row["model"] == model]
        lengths = sorted({row["length"] for row in mine})
        out += [f"\n{model}: right, of 100; in brackets tokens read and written a question, in thousands\n"]
        for task in dict.fromkeys(row["task"] for row in mine):
            out += [
                f"| {task} | " + " | ".join(f"{n // 1024}K" for n in lengths) + " |",
                "|---|" + "---|" * len(lengths),
            ]
            cells: dict[tuple[str, int], list[dict[str, Any]]] = defaultdict(list)
            for row in mine:
                if row["task"] == task:
                    cells[row["workflow"], row["length"]].append(row)
            for workflow in dict.fromkeys(row["workflow"] for row in mine if row["task"] == task):
                shown = []
                for length in lengths:
                    found = cells[workflow, length]
                    if not found:
                        shown.append("")
                        continue
                    right = 100 * sum(row["right"] for row in found) / len(found)
                    tokens = sum(row["tokens"] for row in found) / len(found) / 1000
                    shown.append(f"{right:.0f} ({tokens:.1f})")
                out.append(f"| {workflow} | " + " | ".join(shown) + " |")
            out.append("")
    return "\n".join(out)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["runtime", "simulated", "embedded", "million", "table"])
    parser.add_argument("--out", type=Path, default=Path("docs/results/workflows.json"))
    arguments = parser.parse_args()
    out: Path = arguments.out
    kept: dict[str, Any] = json.loads(out.read_text(encoding="utf-8")) if out.exists() else {"rows": [], "runtime": {}}

    def save() -> None:
        out.write_text(json.dumps(kept, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")

    tasks = ("pass key", "four codes", "multi-hop", "count")
    match arguments.what:
        case "runtime":
            kept["runtime"] = runtime()
            save()
            for name, number in kept["runtime"].items():
                print(f"{name.replace('_', ' '):24} {number:10.2f}")
        case "simulated":
            fill(kept["rows"], save, SIMULATED, tasks, WRITERS, LENGTHS, 2)
        case "embedded":
            fill(kept["rows"], save, "smollm2", tasks, SMALL, LENGTHS[1:], 2)
        case "million":
            fill(kept["rows"], save, "smollm2", ("pass key", "four codes"), ("alone", "lambda-rlm"), (1 << 20,), 3)
    if arguments.what != "runtime":
        print(table(kept["rows"]))


if __name__ == "__main__":
    main()
