"""What people see on a terminal. Text of documents and models is data: nothing in it can move the cursor."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from longspan.surrogates import replace_surrogates
from longspan.trace import Span, Usage

SHOWN = 100  # characters of a step's input and output that a tree shows


def printable(text: str) -> str:
    """The text without control characters (also those that reorder a line) and lone surrogates; \\n and \\t stay."""
    kept = "".join(" " if _controls(char) else char for char in text)
    return replace_surrogates(kept)


def _controls(char: str) -> bool:
    code = ord(char)
    reorders = 0x202A <= code <= 0x202E or 0x2066 <= code <= 0x2069
    return (code < 32 and char not in "\n\t") or 127 <= code < 160 or reorders


def show_trace(root: Span) -> None:
    """Print a run as a tree: each step with its seconds, tokens and the beginning of what went in and came out."""
    from rich.console import Console
    from rich.text import Text
    from rich.tree import Tree

    def node(here: Span, parent: Tree | None) -> Tree:
        label = Text(printable(here.name), style="bold")
        label.append(f"  {here.seconds:.2f} s{_tokens(here.total())}", style="dim")
        if here.error:
            label.append(f"  {printable(here.error)}", style="red")
        for sign, value in (("<", here.input), (">", here.output)):
            if value not in (None, "", [], {}):
                label.append(f"\n{sign} {_short(value)}", style="dim")
        tree = Tree(label) if parent is None else parent.add(label)
        for child in here.children:
            node(child, tree)
        return tree

    Console(highlight=False, soft_wrap=False).print(node(root, None))


def show_ways(ways: Sequence[tuple[str, int | None, int | None, str]]) -> None:
    """Print workflows with their expected calls and tokens; the first is the one that is taken."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("workflow", no_wrap=True)
    table.add_column("calls", justify="right")
    table.add_column("tokens", justify="right")
    table.add_column("why")
    for at, (name, calls, tokens, why) in enumerate(ways):
        numbers = ["–" if number is None else f"{number:,}".replace(",", "\u202f") for number in (calls, tokens)]
        table.add_row(name, *numbers, printable(f"taken: {why}" if at == 0 else why), style="bold" if at == 0 else None)
    Console(highlight=False).print(table)


def show_roofline(rates: str, lines: Sequence[tuple[str, int, float, float]]) -> None:
    """Print tokens a second by (what, tokens, bound, measured), under a line of the machine's rates."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD)
    for head in ("", "at tokens", "bound, tokens/s", "reached", "share"):
        table.add_column(head, justify="right" if head else "left")
    for what, tokens, bound, measured in lines:
        table.add_row(what, f"{tokens}", f"{bound:.0f}", f"{measured:.0f}", f"{measured / bound:.0%}")
    console = Console(highlight=False)
    console.print(rates)
    console.print(table)


def _tokens(usage: Usage) -> str:
    if not usage.calls:
        return ""
    cached = f" ({usage.cached_tokens} cached)" if usage.cached_tokens else ""
    cost = f", cost {usage.cost:.4f}" if usage.cost is not None else ""
    calls = f"{usage.calls} call{'s' if usage.calls > 1 else ''}"
    return f", {calls}, {usage.prompt_tokens}{cached} + {usage.completion_tokens} tokens{cost}"


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    line = printable(" ".join(text.split()))
    return line if len(line) <= SHOWN else f"{line[: SHOWN - 1]}…"
