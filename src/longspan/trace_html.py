"""A run as one self-contained page: the tree, every prompt and answer, tokens, seconds, cost.

No script, and nothing loaded from elsewhere: the tree folds by <details>. What documents and models wrote is escaped.
"""

from __future__ import annotations

import json
from html import escape
from typing import Any

from longspan.surrogates import replace_surrogates
from longspan.trace import Span, Usage

OPEN_DEPTH = 2  # levels of the tree that are unfolded at first
OPEN_CHILDREN = 12  # more than these are folded
SHOWN = 20_000  # characters of one input or output

PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<title>{title}</title>
<style>{style}</style>
</head>
<body>
<header>
<h1>{title}</h1>
<p class="answer">{answer}</p>
<dl>{facts}</dl>
</header>
<main>{tree}</main>
</body>
</html>
"""

STYLE = """
:root { color-scheme: light dark; --ink: #1b1f24; --dim: #5b6570; --paper: #fff; --line: #d8dee4; --box: #f4f6f8;
  --bar: #2f6fde; --bad: #b3261e; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e9ec; --dim: #9aa5b1; --paper: #14171a; --line: #333a41;
  --box: #1f2429; --bar: #7aa7ff; --bad: #ff8a80; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 70rem; padding: 1rem; background: var(--paper); color: var(--ink);
  font: 1rem/1.45 system-ui, sans-serif; overflow-wrap: anywhere; }
h1 { font-size: 1.25rem; margin: 0 0 .5rem; }
.answer { white-space: pre-wrap; border-left: .25rem solid var(--bar); margin: .5rem 0; padding: .1rem .75rem; }
dl { display: grid; grid-template-columns: repeat(auto-fill, minmax(8rem, 1fr)); gap: .5rem; margin: 1rem 0; }
dl div { background: var(--box); border-radius: .4rem; padding: .4rem .6rem; }
dt { color: var(--dim); font-size: .8rem; }
dd { margin: 0; font-variant-numeric: tabular-nums; }
details { border-left: 1px solid var(--line); margin: .15rem 0 .15rem .3rem; padding-left: .6rem; }
main > details { border: 0; margin: 0; padding: 0; }
summary { cursor: pointer; padding: .25rem 0; }
summary b { font-weight: 600; }
summary .cost { color: var(--dim); font-size: .85rem; margin-left: .4rem; font-variant-numeric: tabular-nums; }
.track { display: block; height: 3px; background: var(--box); border-radius: 2px; margin-top: .2rem; }
.track i { display: block; height: 3px; min-width: 1px; background: var(--bar); border-radius: 2px; }
.error { color: var(--bad); }
.said { margin: .25rem 0; }
.said span { color: var(--dim); font-size: .8rem; }
pre { background: var(--box); border-radius: .4rem; margin: .1rem 0; padding: .5rem .6rem; max-height: 24rem;
  overflow: auto; white-space: pre-wrap; font: .85rem/1.4 ui-monospace, monospace; }
"""


def page(root: Span) -> str:
    """The page of one run, as HTML."""
    total = root.total()
    asked = root.input if isinstance(root.input, dict) else {}
    facts = {
        "model": asked.get("model"),
        "workflow": asked.get("workflow"),
        "calls": total.calls,
        "tokens read": total.prompt_tokens,
        "of these cached": total.cached_tokens or None,
        "tokens written": total.completion_tokens,
        "seconds": f"{root.seconds:.2f}",
        "cost": None if total.cost is None else f"{total.cost:.4f}",
    }
    shown = "".join(
        f"<div><dt>{escape(name)}</dt><dd>{_text(value)}</dd></div>"
        for name, value in facts.items()
        if value is not None
    )
    return PAGE.format(
        title=_text(asked.get("question") or root.name),
        style=STYLE,
        answer=_text(root.output if root.output is not None else root.error or ""),
        facts=shown,
        tree="".join(_tree(root)),
    )


def _tree(root: Span) -> list[str]:
    """The spans as nested <details>; a loop, as trees may be deeper than Python's stack."""
    out: list[str] = []
    begin, length = root.started, max(root.seconds, 1e-9)
    todo: list[tuple[Span, int] | None] = [(root, 0)]  # None closes the innermost
    while todo:
        item = todo.pop()
        if item is None:
            out.append("</details>")
            continue
        here, depth = item
        opened = depth < OPEN_DEPTH and len(here.children) <= OPEN_CHILDREN
        left = min(max((here.started - begin) / length, 0), 1) * 100
        width = min(here.seconds / length * 100, 100 - left)
        error = f'<div class="error">{_text(here.error)}</div>' if here.error else ""
        out.append(
            f"<details{' open' if opened else ''}><summary><b>{_text(here.name)}</b>"
            f'<span class="cost">{here.seconds:.2f} s{escape(_cost(here.total()))}</span>{error}'
            f'<span class="track"><i style="margin-left:{left:.2f}%;width:{width:.2f}%"></i></span></summary>'
        )
        out += _said(here) if depth else []  # the root's stands above
        todo.append(None)
        todo += [(child, depth + 1) for child in reversed(here.children)]
    return out


def _said(here: Span) -> list[str]:
    """What went in and came out; a chat message by message."""
    parts: list[tuple[str, Any]] = []
    if here.kind == "llm" and isinstance(here.input, list):
        parts += [(message["role"], message["content"]) for message in here.input]
    else:
        parts.append(("in", here.input))
    parts.append(("kept from before" if here.attributes.get("kept") else "out", here.output))
    return [
        f'<div class="said"><span>{_text(name)}</span><pre>{_text(value)}</pre></div>'
        for name, value in parts
        if value not in (None, "", [], {})
    ]


def _cost(usage: Usage) -> str:
    if not usage.calls:
        return ""
    cost = f" · cost {usage.cost:.4f}" if usage.cost is not None else ""
    calls = f"{usage.calls} call{'s' * (usage.calls > 1)}"
    return f" · {calls} · {usage.prompt_tokens} + {usage.completion_tokens} tokens{cost}"


def _text(value: Any) -> str:
    """Escaped, not longer than `SHOWN` characters."""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, indent=1)
    cut = text if len(text) <= SHOWN else f"{text[:SHOWN]}… ({len(text) - SHOWN} characters more)"
    return escape(replace_surrogates(cut))
