"""Write the tables of README.md and docs/quality.md from docs/results/.

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
PAGES = (ROOT / "README.md", ROOT / "docs" / "quality.md")
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


def filled(text: str, name: str, table: str) -> str:
    """`text` with the table between its marks."""
    block = f"<!-- {name}:begin -->\n{table}\n<!-- {name}:end -->"
    return re.sub(rf"<!-- {name}:begin -->.*?<!-- {name}:end -->", lambda _: block, text, flags=re.DOTALL)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true")
    arguments = parser.parse_args()
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        made = filled(filled(text, "quality", quality()), "speed", speed())
        if made != text and arguments.check:
            sys.exit(f"{page.name} does not say what docs/results/ says: run `python benchmarks/tables.py`")
        page.write_text(made, encoding="utf-8")


if __name__ == "__main__":
    main()
