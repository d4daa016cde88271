"""Write the tables of README.md and the docs from docs/results/.

    python benchmarks/tables.py [--check]

`--check` changes nothing and fails when a table is not what the results say.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "docs" / "results"
PAGES = (
    ROOT / "README.md",
    ROOT / "docs" / "quality.md",
    ROOT / "docs" / "evaluation.md",
    ROOT / "docs" / "engine.md",
    ROOT / "docs" / "kernels.md",
    ROOT / "docs" / "workflows.md",
)
NEEDS = {  # a table whose results are not there yet stays as it is
    "quality": ("ask.json",),
    "speed": ("ask-speed.json",),
    "evaluation": ("smollm2/report.json", "smollm2/effective.json"),
    "engine": ("engine.json",),
    "engine-int4": ("engine-int4.json",),
    "serving": ("serving.json",),
    "kernels": ("kernels.json",),
    "workflows": ("workflows.json",),
}
GOALS = {
    "the right passage among the first three citations": "≥ 90 %",
    "facts stated once: right": "≥ 65 %",
    "absent answers refused": "≥ 70 %",
}


def quality() -> str:
    result = json.loads((RESULTS / "ask.json").read_text(encoding="utf-8"))
    lines = ["| measure | share | 95 % interval | questions | goal |", "|---|---|---|---|---|"]
    for row in result["table"]:
        low, high = row["interval"]
        goal = GOALS.get(row["measure"], "")
        lines.append(f"| {row['measure']} | {row['share']:.0%} | {low:.0%}–{high:.0%} | {row['questions']} | {goal} |")
    return "\n".join(lines)


def speed() -> str:
    result = json.loads((RESULTS / "ask-speed.json").read_text(encoding="utf-8"))
    lines = ["| what | seconds | first word | memory | goal |", "|---|---|---|---|---|"]
    for row in result["rows"]:
        first = "" if row["first_word"] is None else f"{row['first_word']:.1f} s"
        note = f" ({row['note']})" if row["note"] else ""
        lines.append(
            f"| {row['what']}{note} | {row['seconds']:.1f} s | {first} | {row['megabytes']} MB | {row['target']} |"
        )
    return "\n".join(lines)


def evaluation() -> str:
    """The embedded model over NIAH, RULER and perplexity, and its effective context."""
    cells = json.loads((RESULTS / "smollm2" / "report.json").read_text(encoding="utf-8"))["cells"]
    found = json.loads((RESULTS / "smollm2" / "effective.json").read_text(encoding="utf-8"))
    lengths = sorted({cell["length"] for cell in cells if cell["length"]})
    lines = [
        "SmolLM2-135M-Instruct, score in per cent (95 % interval over all lengths); ruler is the mean of its 13 tasks:",
        "",
        "| task | " + " | ".join(f"{length // 1024}K" for length in lengths) + " | all |",
        "|---|" + "---|" * (len(lengths) + 1),
    ]
    tasks = list(dict.fromkeys(cell["task"] for cell in cells if cell["task"]))
    by = {(cell["task"], cell["length"]): cell for cell in cells}
    ruler = [task for task in tasks if task.startswith("ruler")]
    for task in [task for task in tasks if task not in ruler]:
        if task.startswith("perplexity"):
            row = [f"{1 / by[task, length]['mean']:.1f}" for length in lengths] + [""]
            lines.append(f"| {task} (lower is better) | " + " | ".join(row) + " |")
            continue
        whole = by[task, None]
        row = [f"{100 * by[task, length]['mean']:.0f}" for length in lengths]
        low, high = whole["interval"]
        row.append(f"{100 * whole['mean']:.0f} ({100 * low:.0f}–{100 * high:.0f})")
        lines.append(f"| {task} | " + " | ".join(row) + " |")
    if ruler:
        means = [sum(by[task, length]["mean"] for task in ruler) / len(ruler) for length in lengths]
        row = [f"{100 * mean:.0f}" for mean in means] + [f"{100 * sum(means) / len(means):.0f}"]
        lines.append("| ruler | " + " | ".join(row) + " |")
    sure = f"at {found['confidence']:.0%} confidence" if found["certain"] else "by the means, not certain"
    fails = f", and fails at {found['fails_at']:,}" if found["fails_at"] else ""
    lines += [
        "",
        f"Effective context ({found['task']}, score above {found['threshold']:.3f}): **{found['length']:,} tokens** of "
        f"the {found['window']:,} that it claims{fails}, {sure}.",
    ]
    return "\n".join(lines)


def engine(file: str = "engine.json") -> str:
    """The engine beside its peers."""
    import engine as benchmark

    return benchmark.table(json.loads((RESULTS / file).read_text(encoding="utf-8"))["rows"])


def kernels() -> str:
    """The native kernels beside SDPA, at prompts, backward and decoding."""
    found = json.loads((RESULTS / "kernels.json").read_text(encoding="utf-8"))

    def size(tokens: int) -> str:
        return f"{tokens // 1024}K"

    def spread(values: dict[str, float]) -> str:
        return f"{values['median']:.2f} ({values['min']:.2f}–{values['max']:.2f})"

    def rows(part: str, said: dict[tuple[str, str], str]) -> list[str]:
        lengths = list(dict.fromkeys(row["length"] for row in found[part]))
        lines = [f"| {part}, causal | " + " | ".join(map(size, lengths)) + " |", "|---|" + "---|" * len(lengths)]
        for (dtype, name), words in said.items():
            ratios = [spread(row[name]) for row in found[part] if row["dtype"] == dtype]
            lines.append(f"| {words} | " + " | ".join(ratios) + " |")
        return [*lines, ""]

    lines = rows(
        "forward",
        {
            ("bfloat16", "ratio"): "bf16, times SDPA's speed",
            ("float32", "ratio"): "fp32, times SDPA's speed",
            ("bfloat16", "ratio_int8"): "int8 keys and values, times SDPA's in bf16",
            ("float32", "ratio_int8"): "int8 keys and values, times SDPA's in fp32",
        },
    )
    lines += rows(
        "backward",
        {
            ("bfloat16", "ratio_sdpa"): "bf16, times SDPA's speed",
            ("float32", "ratio_sdpa"): "fp32, times SDPA's speed",
            ("float32", "ratio_formula"): "fp32, times the formula's in torch",
        },
    )
    decode = found["decode"]
    lines += ["| decoding, keys | " + " | ".join(size(row["keys"]) for row in decode) + " |"]
    lines += ["|---|" + "---|" * len(decode)]
    speeds = {
        "read": "reading memory, GB/s",
        "sdpa": "SDPA bf16",
        "one": "one worker, bf16",
        "all": "two workers, bf16",
        "int8": "two workers, int8",
    }
    for name, said in speeds.items():
        lines.append(f"| {said} | " + " | ".join(f"{row['gb_s'][name]:.1f}" for row in decode) + " |")
    lines.append(
        "| bf16, share of reading | " + " | ".join(f"{row['share_of_bandwidth']:.0%}" for row in decode) + " |"
    )
    ratios = {
        "speedup": "two workers over one",
        "ratio_sdpa": "bf16 over SDPA",
        "ratio_int8": "int8 over bf16",
    }
    for name, said in ratios.items():
        lines.append(f"| {said} | " + " | ".join(f"{row[name]['median']:.2f}" for row in decode) + " |")
    return "\n".join(lines)


def serving() -> str:
    """What is not computed twice."""
    found = json.loads((RESULTS / "serving.json").read_text(encoding="utf-8"))
    reuse, together = found["reuse"], found["together"]
    lines = ["| | seconds to the first token | of the first |", "|---|---|---|"]
    names = {
        "first": "a question on 8K tokens",
        "again": "another, in the same process",
        "from disk": "another, by an engine that finds the text on disk",
    }
    lines += [f"| {said} | {reuse[name]:.2f} | {reuse[name] / reuse['first']:.1%} |" for name, said in names.items()]
    lines += ["", "| | guessing, tokens/s | one by one | tokens a step |", "|---|---|---|---|"]
    for kind, rates in found["guess"].items():
        lines.append(f"| {kind} | {rates['guessing']:.0f} | {rates['one by one']:.0f} | {rates['tokens a step']:.1f} |")
    lines += ["", "| requests at once | tokens/s of all |", "|---|---|"]
    lines += [f"| {number} | {rate:.0f} |" for number, rate in together.items()]
    beside = " and ".join(f"{megabytes:.0f} MB ({how})" for how, megabytes in found["memory"].items())
    return "\n".join([*lines, "", f"Reading 32K tokens takes {beside} beside weights and cache."])


def workflows() -> str:
    """Tasks, workflows and lengths."""
    import workflows as benchmark

    return benchmark.table(json.loads((RESULTS / "workflows.json").read_text(encoding="utf-8"))["rows"]).strip()


def filled(text: str, name: str, table: str) -> str:
    """`text` with the table between its marks."""
    block = f"<!-- {name}:begin -->\n{table}\n<!-- {name}:end -->"
    return re.sub(rf"<!-- {name}:begin -->.*?<!-- {name}:end -->", lambda _: block, text, flags=re.DOTALL)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true")
    arguments = parser.parse_args()
    tables = {
        "quality": quality,
        "speed": speed,
        "evaluation": evaluation,
        "engine": engine,
        "engine-int4": lambda: engine("engine-int4.json"),
        "serving": serving,
        "kernels": kernels,
        "workflows": workflows,
    }
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        made = text
        for name, table in tables.items():
            if f"<!-- {name}:begin -->" in made and all((RESULTS / file).exists() for file in NEEDS[name]):
                made = filled(made, name, table())
        if made != text and arguments.check:
            sys.exit(f"{page.name} does not say what docs/results/ says: run `python benchmarks/tables.py`")
        page.write_text(made, encoding="utf-8")


if __name__ == "__main__":
    main()
