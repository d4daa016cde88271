"""Every method by its slug: the command line, the catalogue and the documentation are made from this table."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from longspan.errors import UsageError

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Part:
    """A registered method. `kind` is its plug-in point; `summary` the first line of its docstring; `systems` the
    published systems (slugs of the catalogue) that it is a part of."""

    kind: str
    slug: str
    target: Any
    summary: str
    systems: tuple[str, ...] = ()


_parts: dict[str, Part] = {}


def register(kind: str, slug: str, *, systems: Sequence[str] = ()) -> Callable[[T], T]:
    """Register the decorated class or function as the method `slug` of the plug-in point `kind`.

    Slugs are unique over all kinds, so that `MODEL+slug` is never ambiguous.
    """

    def note(target: T) -> T:
        if slug in _parts:
            raise ValueError(f"the slug {slug!r} is taken by {_parts[slug].target!r}")
        summary = (target.__doc__ or "").strip().partition("\n")[0]
        _parts[slug] = Part(kind, slug, target, summary, tuple(systems))
        return target

    return note


def parts(kind: str | None = None) -> list[Part]:
    """The methods of one plug-in point (or of all), by slug."""
    return sorted((part for part in _parts.values() if kind in (None, part.kind)), key=lambda part: part.slug)


def find(kind: str, slug: str) -> Any:
    """The method registered as `slug`; a name that is close is suggested where there is none."""
    part = _parts.get(slug)
    if part is not None and part.kind == kind:
        return part.target
    names = [part.slug for part in parts(kind)]
    near = difflib.get_close_matches(slug, names, 1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    raise UsageError(f"There is no {kind} named {slug!r}.{hint} Known: {', '.join(names)}.")
