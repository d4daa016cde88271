"""The 55 systems: what each is, and how far it works here.

What they are is in systems.toml. How far each works is computed, never written down, from the parts that are registered
for it (`@register(kind, slug, systems=(...))`) and from its stored full result (`longspan reproduce SLUG`):

- `planned`: no part is registered;
- `part`: there are parts (of its method or of its tasks, not always all), but no stored result of a full run;
- `holds`, `does-not-hold`, `inconclusive`: the verdict of the stored full result. `measured` means any of the three.

Importing every package that registers parts takes seconds (torch, inspect_ai), so the registrations are read from the
sources instead. A module whose registrations are not written out as literals is imported after all.
"""

from __future__ import annotations

import ast
import base64
import contextlib
import difflib
import importlib
import tomllib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from longspan.errors import LongspanError, MissingExtra, UsageError
from longspan.registry import parts
from longspan.reproductions import harness
from longspan.terminal import printable

PACKAGE = Path(__file__).parent
# The plug-in points, in the order of the design.
POINTS = tuple(
    "positions attention kernels cache mixers memory models training workflows evaluation modalities".split()
)
STATUSES = {
    "holds": "claim holds here",
    "does-not-hold": "claim does not hold at this scale",
    "inconclusive": "measured, undecided",
    "part": "parts are here, not yet measured",
    "planned": "not yet implemented",
}
MEASURED = ("holds", "does-not-hold", "inconclusive")
VERDICTS = {"holds": "holds", "does not hold at this scale": "does-not-hold", "inconclusive": "inconclusive"}
TITLE = 24  # columns below which a table drops the plug-in points rather than cut titles further
IN_FULL = 3  # so few systems are shown with problem, idea and result rather than in a table


@dataclass(frozen=True, slots=True)
class System:
    """A published system, in our words. `id` is "" where none is known; `at` are its plug-in points; `code` are public
    repositories of its authors, as owner/name."""

    slug: str
    name: str
    title: str
    year: int
    id: str
    at: tuple[str, ...]
    problem: str
    idea: str
    code: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Entry:
    """A system and how far it works here: its registered parts, as (kind, slug), and its stored full result."""

    system: System
    parts: tuple[tuple[str, str], ...] = ()
    result: dict[str, Any] | None = None
    file: Path | None = None  # of the result

    @property
    def status(self) -> str:
        if self.result is not None:
            return VERDICTS[self.result["verdict"]["outcome"]]
        return "part" if self.parts else "planned"

    @property
    def outdated(self) -> bool:
        """Whether the reproduction has changed since the stored result."""
        return self.result is not None and harness.outdated(self.result)

    def to_dict(self) -> dict[str, Any]:
        system = {name: getattr(self.system, name) for name in System.__slots__}
        result = None
        if self.result is not None:
            told = "claim setting baseline criterion verdict figures date seconds longspan".split()
            result = {name: self.result.get(name) for name in told} | {"outdated": self.outdated}
        found = [{"kind": kind, "slug": slug} for kind, slug in self.parts]
        return {**system, "status": self.status, "parts": found, "result": result}


def systems() -> list[System]:
    """All systems, by plug-in point."""
    data = tomllib.loads((PACKAGE / "systems.toml").read_text(encoding="utf-8"))

    return [
        System(**(given | {name: tuple(given.get(name, ())) for name in ("at", "code")})) for given in data["system"]
    ]


def entries() -> list[Entry]:
    """All systems with their parts and results."""
    found: dict[str, set[tuple[str, str]]] = {}
    for kind, slug, of in registrations():
        for name in of:
            found.setdefault(name, set()).add((kind, slug))
    made = []
    for system in systems():
        result, file = harness.stored(system.slug) or (None, None)
        made.append(Entry(system, tuple(sorted(found.get(system.slug, ()))), result, file))
    return made


def search(of: Sequence[Entry], query: str = "", at: str | None = None, status: str | None = None) -> list[Entry]:
    """The entries with every word of `query` in slug, name, title, problem or idea, of one plug-in point, of one
    status (or `measured`)."""
    _known("plug-in point", at, POINTS)
    _known("status", status, (*STATUSES, "measured"))
    wanted = MEASURED if status == "measured" else (status,)
    words = query.casefold().split()

    def matches(entry: Entry) -> bool:
        system = entry.system
        text = " ".join((system.slug, system.name, system.title, system.problem, system.idea)).casefold()
        return (
            all(word in text for word in words)
            and (at is None or at in system.at)
            and (status is None or entry.status in wanted)
        )

    return [entry for entry in of if matches(entry)]


def _known(what: str, value: str | None, names: Sequence[str]) -> None:
    if value is None or value in names:
        return
    near = difflib.get_close_matches(value, names, 1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    raise UsageError(f"There is no {what} named {value!r}.{hint} Known: {', '.join(names)}.")


# Registered parts


def registrations(root: Path = PACKAGE) -> list[tuple[str, str, tuple[str, ...]]]:
    """What is registered as part of a system: (kind, slug, systems), from the sources below `root` and from the
    registry of this process."""
    found = set()
    for file in sorted(root.rglob("*.py")):
        source = file.read_text(encoding="utf-8")
        if "register(" not in source or "systems=" not in source or file == PACKAGE / "registry.py":
            continue
        for literal in _written_out(ast.parse(source)):
            if literal is None:
                with contextlib.suppress(ModuleNotFoundError):  # without its extra it is no part of this installation
                    importlib.import_module(module_name(file, root))
            else:
                found.add(literal)
    found |= {(part.kind, part.slug, part.systems) for part in parts() if part.systems}
    return sorted(found)


def module_name(file: Path, root: Path = PACKAGE) -> str:
    """The name of the module in `file`, where `root` is the folder of its outermost package."""
    names = file.relative_to(root.parent).with_suffix("").parts
    return ".".join(names[:-1] if names[-1] == "__init__" else names)


def _written_out(tree: ast.Module) -> Iterator[tuple[str, str, tuple[str, ...]] | None]:
    """The arguments of each `register(kind, slug, systems=...)`, None for one that names something else."""
    for node in ast.walk(tree):
        if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "register"):
            continue
        of = [keyword.value for keyword in node.keywords if keyword.arg == "systems"]
        if not of:
            continue
        try:
            kind, slug = (ast.literal_eval(argument) for argument in node.args)
            yield kind, slug, tuple(ast.literal_eval(of[0]))
        except ValueError:
            yield None


# On the terminal

COLOURS = {"holds": "green", "does-not-hold": "red", "inconclusive": "yellow", "part": "cyan", "planned": "dim"}


def summary(of: Sequence[Entry]) -> str:
    """How many there are of each status, in a sentence."""
    counts = Counter(entry.status for entry in of)
    listed = ", ".join(f"{counts[status]} {status}" for status in STATUSES if counts[status])
    return f"{len(of)} system{'s' if len(of) > 1 else ''}: {listed}" if of else "No system matches."


def show(of: Sequence[Entry]) -> None:
    """Print a table, or all that is known where there are few."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = max(console.width, 160)  # nothing of a title is lost in a pipe
    if 0 < len(of) <= IN_FULL:
        for entry in of:
            _show_one(entry, console)
    elif of:
        lines = [
            (entry.system.slug, str(entry.system.year), entry.status, ", ".join(entry.system.at), entry.system.title)
            for entry in of
        ]
        names = ("system", "year", "status", "plugs in at", "title")
        widths = [max(map(len, column)) for column in zip(names, *lines, strict=True)]
        wide = console.width - sum(width + 2 for width in widths[:-1]) >= TITLE
        kept = [column for column in range(len(names)) if wide or names[column] != "plugs in at"]
        left = console.width - sum(widths[column] + 2 for column in kept[:-1])
        table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
        for column in kept:
            table.add_column(names[column], no_wrap=True, max_width=left if names[column] == "title" else None)
        for line in lines:
            cells = [Text(printable(line[column]), overflow="ellipsis") for column in kept]
            cells[2].stylize(COLOURS[line[2]])
            table.add_row(*cells)
        console.print(table)
        console.print()
    console.print(summary(of))


def _show_one(entry: Entry, console: Any) -> None:
    from rich.table import Table
    from rich.text import Text

    system = entry.system
    console.print(
        Text.assemble((printable(system.name), "bold"), f"  {system.slug}  ", (entry.status, COLOURS[entry.status]))
    )
    rows = Table(show_header=False, box=None, pad_edge=False)
    rows.add_column(style="dim", no_wrap=True)
    rows.add_column()

    def row(name: str, value: str) -> None:
        if value:
            rows.add_row(name, Text(printable(value)))

    row("paper", ", ".join(filter(None, (system.title, str(system.year), system.id))))
    row("plugs in at", ", ".join(system.at))
    row("problem", system.problem)
    row("idea", system.idea)
    row("code", ", ".join(f"https://github.com/{name}" for name in system.code))
    row("parts", ", ".join(f"{slug} ({kind})" for kind, slug in entry.parts) or "none yet")
    if entry.result is not None:
        verdict = entry.result["verdict"]
        row("claim", entry.result["claim"])
        row("measured", f"{verdict['outcome']}: {verdict['reason']} ({entry.result['date'][:10]})")
        if entry.outdated:
            row("note", f"the reproduction has changed since: run `longspan reproduce {system.slug}` again")
    console.print(rows)
    console.print()


# The page


def page(of: Sequence[Entry]) -> str:
    """One self-contained HTML page of cards: measured systems first, each with its claim, figures and plot.

    Everything is escaped; plots are images, in which nothing can run. Without JavaScript all of it can be read.
    """
    try:
        import jinja2
    except ModuleNotFoundError as error:
        raise MissingExtra("The page of systems", "eval") from error

    from longspan import __version__

    environment = jinja2.Environment(
        autoescape=True,
        loader=jinja2.FileSystemLoader(PACKAGE / "templates"),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["plot"] = _plot
    environment.filters["figure"] = lambda value: f"{value:.4g}"
    order = list(STATUSES)
    return environment.get_template("systems.html").render(
        entries=sorted(of, key=lambda entry: order.index(entry.status)),
        points=[(point, sum(point in entry.system.at for entry in of)) for point in POINTS],
        statuses=[(name, told, sum(name == entry.status for entry in of)) for name, told in STATUSES.items()],
        version=__version__,
    )


def write_page(of: Sequence[Entry], file: Path) -> None:
    """Write `page` to a file."""
    text = page(of)
    try:
        file.write_text(text, encoding="utf-8")
    except OSError as error:
        raise LongspanError(f"Cannot write the page to {file}: {error.strerror or error}.") from error


def _plot(entry: Entry) -> str:
    """The plot of a stored result as a data URI, "" where there is none."""
    if entry.result is None or entry.file is None or not entry.result.get("plot"):
        return ""
    try:
        drawn = entry.file.with_suffix(".svg").read_bytes()
    except OSError:
        return ""
    return f"data:image/svg+xml;base64,{base64.b64encode(drawn).decode()}"
