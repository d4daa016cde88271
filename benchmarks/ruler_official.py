"""Compare longspan's RULER generators with the official ones: what they make, and how outputs are scored.

    python benchmarks/ruler_official.py CHECKOUT [--lengths 4096,8192] [--samples 20] [--write]

CHECKOUT is a copy of github.com/NVIDIA/RULER. Its generators are run unchanged, in a temporary copy, with the embedded
model's tokenizer. They need the packages wonderwords, tenacity, nltk (with its punkt_tab data, see NLTK_DATA), tqdm and
scipy. What the repository does not carry is put in its place: for the essays by Paul Graham the prose of longspan's
real haystack, for SQuAD and HotpotQA the questions that longspan makes of the standard library (in those formats), for
the second list of words (used by cwe at great lengths) the vocabulary of the documentation. So both sides work on the
same material, and what is compared is the generators. `--write` puts the table into docs/results/ruler-generators.md.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib.util
import json
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from statistics import mean, pstdev
from typing import Any

import yaml
from inspect_ai.dataset import Sample
from inspect_ai.model import ModelName, ModelOutput
from inspect_ai.scorer import Scorer, Target
from inspect_ai.solver import TaskState

from longspan.evaluation.haystack import prose
from longspan.evaluation.lengths import TokenCounter, counter
from longspan.evaluation.scorers import includes_all, includes_any
from longspan.evaluation.tasks import ruler
from longspan.evaluation.tasks.ruler import counting, niah, qa, tracking
from longspan.evaluation.words import vocabulary

TABLE = Path(__file__).parent.parent / "docs" / "results" / "ruler-generators.md"
SHAPES = (
    ruler.SINGLE_1,
    ruler.SINGLE_2,
    ruler.SINGLE_3,
    ruler.MULTIKEY_1,
    ruler.MULTIKEY_2,
    ruler.MULTIKEY_3,
    ruler.MULTIVALUE,
    ruler.MULTIQUERY,
)
# Outputs to be scored: what a model might say, made of the targets of a question.
ANSWERS: tuple[Callable[[list[str]], str], ...] = (
    lambda targets: ", ".join(targets),
    lambda targets: f"It is {targets[0]}.",
    lambda targets: targets[-1].upper(),
    lambda targets: " ".join(targets[: len(targets) // 2]),
    lambda targets: targets[0][:-1],
    lambda targets: f"\n{targets[0]}{targets[-1]}\x00",
    lambda targets: "",
    lambda targets: "I cannot tell.",
)


# -- making -----------------------------------------------------------------------------------------------------------


def official_samples(checkout: Path, lengths: list[int], samples: int, tokenizer: TokenCounter) -> dict[Any, list[Any]]:
    """{(task, length): [{"input", "outputs", "length", ...}]} as the official generators write them."""
    from longspan.llm import LocalLLM

    made = {}
    with tempfile.TemporaryDirectory() as folder:
        scripts = Path(folder) / "scripts"
        shutil.copytree(checkout / "scripts", scripts)
        synthetic = scripts / "data" / "synthetic"
        data = synthetic / "json"
        write_json(data / "PaulGrahamEssays.json", {"text": " ".join(prose(more=True))})
        write_json(data / "squad.json", qa.local_squad())
        write_json(data / "hotpotqa.json", qa.local_hotpotqa())
        write_json(data / "english_words.json", dict(enumerate(vocabulary())))
        LocalLLM(tokenizer.name).loaded.tokenizer.save_pretrained(Path(folder) / "tokenizer")
        constants = load_module(synthetic / "constants.py").TASKS
        tasks = yaml.safe_load((scripts / "synthetic.yaml").read_text())
        for name, task in tasks.items():
            parts = constants[task["task"]]
            for length in lengths:
                begin = time.perf_counter()
                command = [sys.executable, str(synthetic / f"{task['task']}.py"), "--save_dir", folder]
                command += ["--save_name", f"{name}-{length}", "--tokenizer_path", str(Path(folder) / "tokenizer")]
                command += ["--tokenizer_type", "hf", "--max_seq_length", str(length), "--num_samples", str(samples)]
                command += ["--tokens_to_generate", str(parts["tokens_to_generate"])]
                command += ["--template", parts["template"] + parts["answer_prefix"]]
                for key, value in task["args"].items():
                    command += [f"--{key}", str(value)]
                subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
                lines = (Path(folder) / f"{name}-{length}" / "validation.jsonl").read_text().splitlines()
                made[name, length] = [json.loads(line) for line in lines]
                print(f"{name} {length}: {time.perf_counter() - begin:.1f} s", file=sys.stderr)
    return made


def our_samples(lengths: list[int], samples: int, tokenizer: TokenCounter) -> dict[Any, list[Sample]]:
    squad, hotpotqa = qa.squad(None), qa.hotpotqa(None)
    generators: dict[str, Callable[[int, str], Sample]] = {
        shape.name: lambda length, seed, shape=shape: niah.one(shape, length, seed, tokenizer) for shape in SHAPES
    }
    generators |= {
        "vt": lambda length, seed: tracking.one(length, seed, tokenizer),
        "cwe": lambda length, seed: counting.common_words(length, seed, tokenizer),
        "fwe": lambda length, seed: counting.frequent_words(length, seed, tokenizer),
        "qa_1": lambda length, seed: qa.one("qa_1", squad, length, seed, tokenizer),
        "qa_2": lambda length, seed: qa.one("qa_2", hotpotqa, length, seed, tokenizer),
    }
    return {
        (name, length): [one(length, str(number)) for number in range(samples)]
        for name, one in generators.items()
        for length in lengths
    }


# -- measuring --------------------------------------------------------------------------------------------------------

Figures = dict[str, float]
NEEDLES = {
    "official": r"One of the special magic \w+ for (.+?) is: (\S+)\.",
    "ours": r"One of the \w+ that were noted for (.+?) is: (\S+)\.",
}
ASSIGNMENTS = {"official": r"VAR (\w+) = (?:VAR )?(\w+)", "ours": r"LET (\w+) = (\w+)"}
DOCUMENTS = {"official": r"Document \d+:\n", "ours": r"\[Document \d+\]\n"}
LINE = "The grass is green."


def needle_figures(side: str, text: str, targets: list[str], question: str) -> Figures:
    found = [(match.group(1), match.group(2), match.start() / len(text)) for match in re.finditer(NEEDLES[side], text)]
    keys, values = {key for key, _, _ in found}, {value for _, value, _ in found}
    return {
        "needles": len(found),
        "keys": len(keys),
        "values": len(values),
        "keys asked for": sum(key in question for key in keys),
        "answers": len(targets),
        "times an answer stands in the text": mean(text.count(target) for target in targets),
        "depth of an answer": mean(depth for _, value, depth in found if value in targets),
        "lines of noise": text.count(LINE),
    }


def tracking_figures(side: str, text: str, targets: list[str], question: str) -> Figures:
    found = [
        (match.group(1), match.group(2), match.start() / len(text)) for match in re.finditer(ASSIGNMENTS[side], text)
    ]
    ordered = all(later[1] == earlier[0] for earlier, later in pairwise(found))
    return {
        "assignments": len(found),
        "chains": sum(value.isdigit() for _, value, _ in found),
        "hops": sum(not value.isdigit() for _, value, _ in found),
        "chain in order": ordered,
        "letters of a variable": mean(len(name) for name, _, _ in found),
        "answers": len(targets),
        "depth of an assignment": mean(depth for *_, depth in found),
        "lines of noise": text.count(LINE),
    }


def list_figures(side: str, text: str, targets: list[str], question: str) -> Figures:
    counts = Counter(re.findall(r"\d+\. (\S+)", text))
    others = [times for word, times in counts.items() if word not in targets]
    return {
        "entries": sum(counts.values()),
        "different words": len(counts),
        "times a common word stands in the list": mean(counts[word] for word in targets),
        "times another word does": mean(others),
        "answers": len(targets),
    }


def coded_figures(side: str, text: str, targets: list[str], question: str) -> Figures:
    words = text.split()
    ranks = [times for _, times in Counter(words).most_common()]
    return {
        "words": len(words),
        "different words": len(ranks),
        "share of dots": words.count("...") / len(words),
        "share of rank 2": ranks[1] / len(words),
        "share of rank 3": ranks[2] / len(words),
        "share of rank 4": ranks[3] / len(words),
        "share of rank 5": ranks[4] / len(words),
        "letters of a word": mean(len(word) for word in targets),
        "answers": len(targets),
        "answers are ranks 2 to 4": {word for word, _ in Counter(words).most_common(4)[1:]} == set(targets),
    }


def document_figures(side: str, text: str, targets: list[str], question: str) -> Figures:
    documents = [part.strip() for part in re.split(DOCUMENTS[side], text)[1:]]
    holding = [i / max(len(documents) - 1, 1) for i, document in enumerate(documents) if targets[0] in document]
    return {
        "documents": len(documents),
        "different documents": len(set(documents)),
        "documents with the answer": len(holding),
        "place of a document with the answer": mean(holding),
        "answers": len(targets),
    }


MEASURES: dict[str, Callable[[str, str, list[str], str], Figures]] = {
    "niah": needle_figures,
    "vt": tracking_figures,
    "cwe": list_figures,
    "fwe": coded_figures,
    "qa": document_figures,
}
# Where the official prompt's long text begins and ends: after the last of the first, before the last of the second.
BOUNDS = {
    "niah": ("afterwards.\n", "\nWhat "),
    "vt": ("in the following text.\n\n", "\nQuestion: "),
    "cwe": ("appear most often.\n", "\nQuestion: "),
    "fwe": ("frequently appeared coded words. ", "\nQuestion: "),
    "qa": ("given documents.\n\n", "\n\nAnswer the question"),
}


def official_figures(task: str, made: dict[str, Any], length: int) -> Figures:
    prompt = made["input"]
    begin, end = BOUNDS[task.partition("_")[0]]
    stop = prompt.rindex(end)
    start = prompt.rindex(begin, 0, stop) + len(begin)
    measure = MEASURES[task.partition("_")[0]]
    figures = measure("official", prompt[start:stop], made["outputs"], prompt[stop:])
    return {"length met": made["length"] / length, **figures}


def our_figures(task: str, sample: Sample, length: int) -> Figures:
    start, stop = sample.metadata["context"]
    measure = MEASURES[task.partition("_")[0]]
    figures = measure("ours", sample.input[start:stop], list(sample.target), sample.input[stop:])
    return {"length met": sample.metadata["tokens"] / length, **figures}


def summary(rows: list[Figures]) -> dict[str, tuple[float, float]]:
    return {name: (mean(row[name] for row in rows), pstdev([row[name] for row in rows])) for name in rows[0]}


# -- scoring ----------------------------------------------------------------------------------------------------------


def our_score(scorer: Scorer, answers: list[str], targets: list[list[str]]) -> float:
    async def run() -> list[float]:
        scores = []
        for answer, wanted in zip(answers, targets, strict=True):
            state = TaskState(ModelName("none/none"), 0, 1, "", [], output=ModelOutput.from_content("none", answer))
            score = await scorer(state, Target(wanted))
            scores.append(score.as_float())
        return scores

    return round(100 * mean(asyncio.run(run())), 2)


def scores(checkout: Path, made: dict[Any, list[Any]]) -> list[tuple[str, float, float]]:
    """(task, official score, our score) of the same outputs to the official questions."""
    official = load_module(checkout / "scripts" / "eval" / "synthetic" / "constants.py")
    found = []
    for task in dict.fromkeys(task for task, _ in made):
        samples = [sample for (of, _), some in made.items() if of == task for sample in some]
        targets = [sample["outputs"] for sample in samples for _ in ANSWERS]
        answers = [answer(sample["outputs"]) for sample in samples for answer in ANSWERS]
        partly = task.startswith("qa")
        theirs = (official.string_match_part if partly else official.string_match_all)(answers, targets)
        found.append((task, theirs, our_score(includes_any() if partly else includes_all(), answers, targets)))
    return found


# -- writing ----------------------------------------------------------------------------------------------------------


def table(
    lengths: list[int], samples: int, theirs: dict[Any, list[Any]], ours: dict[Any, list[Sample]], scored: list[Any]
) -> str:
    lines = [
        "# RULER: the official generators and longspan's",
        "",
        f"{samples} samples of each task at {' and '.join(f'{length:,}' for length in lengths)} tokens of the embedded "
        "model, mean ± standard deviation over samples.",
        "Both sides had the same real text and the same questions (those that longspan makes; SQuAD, HotpotQA and the "
        "essays are not part of RULER's repository), so that what differs is the generators.",
        "Made by `python benchmarks/ruler_official.py CHECKOUT --write`.",
        "",
        "Depths and places are shares of the text. *Length met* is tokens, with the room for the answer, over the "
        "length asked for: the official code steps by whole batches of hay, and leaves the chat template out. "
        "Prompts differ in their words, which is why numbers of lines, words and documents differ by a few. "
        "The official qa_1 shuffles the documents of all samples alike, so that the answer always stands at one place; "
        "longspan shuffles each sample anew.",
    ]
    for task in dict.fromkeys(task for task, _ in theirs):
        lines += ["", f"## {task}", ""]
        lines += [f"| | {' | '.join(f'official, {at:,} | longspan, {at:,}' for at in lengths)} |"]
        lines += [f"|---|{'---|---|' * len(lengths)}"]
        columns = []
        for at in lengths:
            columns.append(summary([official_figures(task, one, at) for one in theirs[task, at]]))
            columns.append(summary([our_figures(task, one, at) for one in ours[task, at]]))
        names = [name for name in columns[0] if any(column[name] != (0, 0) for column in columns)]
        lines += [f"| {name} | {' | '.join(shown(*column[name]) for column in columns)} |" for name in names]
    lines += ["", "## Scores of the same outputs", ""]
    lines += [
        f"{len(ANSWERS)} outputs to each official question (all answers, one, in capitals, half of them, cut short, "
        "run together, empty, none), scored by the official metric and by longspan's.",
        "",
        "| task | official | longspan |",
        "|---|---|---|",
    ]
    lines += [f"| {task} | {a:.2f} | {b:.2f} |" for task, a, b in scored]
    return "\n".join(lines) + "\n"


def shown(average: float, deviation: float) -> str:
    places = 0 if average == int(average) and deviation == 0 else 3 if average < 2 else 1
    text = f"{average:,.{places}f}"
    return text if deviation == 0 else f"{text} ± {deviation:,.{places}f}"


def write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value), encoding="utf-8")


def load_module(path: Path) -> Any:
    spec = importlib.util.spec_from_file_location(f"official_{path.parent.parent.name}", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkout", type=Path)
    parser.add_argument("--lengths", default="4096,8192")
    parser.add_argument("--samples", type=int, default=20)
    parser.add_argument("--write", action="store_true")
    arguments = parser.parse_args()
    lengths = [int(length) for length in arguments.lengths.split(",")]
    tokenizer = counter("smollm2")
    theirs = official_samples(arguments.checkout, lengths, arguments.samples, tokenizer)
    ours = our_samples(lengths, arguments.samples, tokenizer)
    scored = scores(arguments.checkout, theirs)
    text = table(lengths, arguments.samples, theirs, ours, scored)
    print(text)
    if arguments.write:
        TABLE.parent.mkdir(parents=True, exist_ok=True)
        TABLE.write_text(text, encoding="utf-8")
    if any(a != b for _, a, b in scored):
        sys.exit("The scores differ.")


if __name__ == "__main__":
    main()
