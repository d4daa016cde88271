"""A run as a tree of spans: what was called, with what, for how long, at what cost.

A span is opened with `span(...)`; spans opened inside it (also in tasks started inside it) become its children.
Without an open `Trace` nothing is recorded beyond the span object handed out, so library code may always open spans.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from longspan.errors import LongspanError

_current: ContextVar[Span | None] = ContextVar("longspan_span", default=None)


@dataclass(slots=True)
class Usage:
    """What was spent. `cost` is None when no prices are known; tokens of one call are counted once.

    `cached_tokens` are those prompt tokens whose keys and values were reused (they are part of `prompt_tokens`).
    """

    calls: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0
    seconds: float = 0.0
    cost: float | None = None

    def __add__(self, other: Usage) -> Usage:
        costs = [c for c in (self.cost, other.cost) if c is not None]
        return Usage(
            self.calls + other.calls,
            self.prompt_tokens + other.prompt_tokens,
            self.completion_tokens + other.completion_tokens,
            self.cached_tokens + other.cached_tokens,
            self.seconds + other.seconds,
            sum(costs) if costs else None,
        )

    def to_dict(self) -> dict[str, Any]:
        return {f.name: getattr(self, f.name) for f in fields(self)}


@dataclass(slots=True)
class Span:
    """One step of a run. `input`, `output` and `attributes` (what else is known of it, such as a call's limits) are
    plain JSON values; `usage` is the span's own, not its children's."""

    name: str
    kind: str = "step"
    input: Any = None
    output: Any = None
    started: float = 0.0
    seconds: float = 0.0
    usage: Usage = field(default_factory=Usage)
    error: str | None = None
    children: list[Span] = field(default_factory=list)
    attributes: dict[str, Any] = field(default_factory=dict)

    def total(self) -> Usage:
        """The usage of this span and everything below it; seconds are this span's wall time."""
        total = sum((step.usage for step in self.walk()), Usage())
        return Usage(
            total.calls, total.prompt_tokens, total.completion_tokens, total.cached_tokens, self.seconds, total.cost
        )

    def walk(self) -> Iterator[Span]:
        """This span and all below it, in the order they began."""
        todo = [self]
        while todo:
            here = todo.pop()
            yield here
            todo += reversed(here.children)

    def to_dict(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "kind": self.kind,
            "started": self.started,
            "seconds": self.seconds,
            "usage": self.usage.to_dict(),
            "input": self.input,
            "output": self.output,
            "error": self.error,
            "attributes": self.attributes,
            "children": [child.to_dict() for child in self.children],
        }

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Span:
        return cls(
            name=data["name"],
            kind=data["kind"],
            input=data["input"],
            output=data["output"],
            started=data["started"],
            seconds=data["seconds"],
            usage=Usage(**data["usage"]),
            error=data["error"],
            children=[cls.from_dict(child) for child in data["children"]],
            attributes=data.get("attributes", {}),
        )


@contextmanager
def span(name: str, kind: str = "step", input: Any = None) -> Iterator[Span]:
    """Open a span below the current one. Errors (also cancellation) are noted and passed on."""
    parent = _current.get()
    here = Span(name, kind, input, started=time.time())
    if parent is not None:
        parent.children.append(here)
    token = _current.set(here)
    begin = time.perf_counter()
    try:
        yield here
    except BaseException as error:
        here.error = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
        raise
    finally:
        here.seconds = time.perf_counter() - begin
        _current.reset(token)


def save(root: Span, path: Path) -> None:
    """Write a trace as one JSON object; the file appears whole or not at all."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_text(json.dumps(root.to_dict(), ensure_ascii=True, indent=1), encoding="utf-8")
        temporary.replace(path)
    except OSError as error:
        raise LongspanError(f"Cannot write the trace to {path}: {error.strerror or error}.") from error


def load(path: Path) -> Span:
    """Read a trace written by `save`."""
    try:
        return Span.from_dict(json.loads(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise LongspanError(f"Cannot read the trace {path}: {error.strerror or error}.") from error
    except (ValueError, KeyError, TypeError) as error:
        raise LongspanError(f"{path} is not a trace written by `longspan ask --trace`.") from error
