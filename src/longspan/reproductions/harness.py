"""What a reproduction is, and how it is run: seeds, timing, record of the machine, JSON, plot, verdict.

A module of this package declares one `Reproduction` under `@reproduce(...)`:

    @reproduce(slug="m4le", title=..., year=2023, paper="arXiv:2310.19240", claim=..., setting=..., baseline=...,
               criterion=..., judge=judge, plot=plot)
    def measure(run: Run) -> dict[str, float]: ...

`measure` is called once a seed and returns that seed's figures by name; `judge` gets the list of them, one a seed,
and says *holds*, *does not hold at this scale* or *inconclusive* with a sentence: the rule that `criterion` states in
words, written before the run. `plot` draws them on a matplotlib figure.

The module is named like the slug, with `_` for `-` and `.`, and imported only when it is asked for. `run` measures the
seeds that are missing, judges all of them and writes `<slug>.json` and `<slug>.svg`; a quick run writes
`<slug>.quick.json` and `<slug>.quick.svg`, so that it never replaces a full one. A finished seed is kept in the cache
under the hash of its module's source and is not measured again until that source changes (or `fresh` asks for it).
A seed that raises or yields a figure that is no finite number has failed: then nothing is judged or stored, because a
verdict over the seeds that happened to survive would be biased; running again tries only the failed ones.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import importlib.util
import inspect
import json
import math
import os
import re
import shutil
import subprocess
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from longspan import __version__
from longspan.errors import LongspanError, MissingExtra, UsageError
from longspan.paths import cache_home
from longspan.terminal import printable

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Figures = dict[str, float]
Outcome = Literal["holds", "does not hold at this scale", "inconclusive"]

PACKAGE = Path(__file__).parents[1]
DOES_NOT_HOLD = 3  # the exit code; 1 is a problem (also a seed that failed), 2 wrong usage
EXTRA = frozenset("inspect_ai jinja2 matplotlib pandas scipy".split())  # what the extra `eval` brings
# Plots look alike and stay small: letters remain letters in the SVG.
STYLE: dict[str, Any] = {
    "axes.grid": True,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "figure.facecolor": "white",
    "font.family": "sans-serif",
    "font.size": 9,
    "grid.color": "#e4e4e4",
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "svg.fonttype": "none",
}


@dataclass(frozen=True, slots=True)
class Verdict:
    outcome: Outcome
    reason: str  # one sentence with the figures


@dataclass(frozen=True, slots=True)
class Run:
    """One seed's run. `quick` asks for a variant of under a minute in all; `folder` is scratch that survives an
    interruption (keep partial results there); `tell` shows progress."""

    seed: int
    quick: bool
    folder: Path
    tell: Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Reproduction:
    """A published claim and the experiment here. `setting` and `baseline` say what is measured on what, against what
    of equal cost; `criterion` is `judge` in words."""

    slug: str
    title: str
    year: int
    paper: str
    claim: str
    setting: str
    baseline: str
    criterion: str
    measure: Callable[[Run], Figures]
    judge: Callable[[Sequence[Figures]], Verdict]
    plot: Callable[[Sequence[Figures], Figure], None]
    seeds: int = 3  # of a full run, where the user does not say; a quick run has one


REPRODUCTIONS: dict[str, Reproduction] = {}


def reproduce(
    *,
    slug: str,
    title: str,
    year: int,
    paper: str,
    claim: str,
    setting: str,
    baseline: str,
    criterion: str,
    judge: Callable[[Sequence[Figures]], Verdict],
    plot: Callable[[Sequence[Figures], Figure], None],
    seeds: int = 3,
) -> Callable[[Callable[[Run], Figures]], Callable[[Run], Figures]]:
    """Register the decorated function as what one seed of `slug` measures."""

    def note(measure: Callable[[Run], Figures]) -> Callable[[Run], Figures]:
        REPRODUCTIONS[slug] = Reproduction(
            slug, title, year, paper, claim, setting, baseline, criterion, measure, judge, plot, seeds
        )
        return measure

    return note


# Finding


def module_of(slug: str) -> str:
    """The name of the module that reproduces `slug`."""
    return re.sub(r"[-.]", "_", slug)


def modules() -> list[str]:
    """The modules of this package that declare reproductions, without importing them."""
    return sorted(
        file.stem
        for file in Path(__file__).parent.glob("*.py")
        if file.stem != Path(__file__).stem and not file.stem.startswith("_")
    )


def source_of(slug: str) -> Path | None:
    """The file that reproduces `slug`, if there is one."""
    file = Path(__file__).with_name(f"{module_of(slug)}.py")
    return file if file.stem in modules() else None


def find(slug: str) -> Reproduction:
    """The reproduction of `slug`, imported now."""
    if slug not in REPRODUCTIONS and source_of(slug):
        _load(module_of(slug))
    if slug in REPRODUCTIONS:
        return REPRODUCTIONS[slug]
    import difflib

    known = [reproduction.slug for reproduction in everything()]
    near = difflib.get_close_matches(slug, known, 1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    raise UsageError(
        f"There is no reproduction of {slug!r} yet.{hint} `longspan reproduce --list` shows those there are."
    )


def everything() -> list[Reproduction]:
    """All reproductions, by slug."""
    for module in modules():
        _load(module)
    return sorted(REPRODUCTIONS.values(), key=lambda reproduction: reproduction.slug)


def _load(module: str) -> None:
    try:
        importlib.import_module(f"longspan.reproductions.{module}")
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] in EXTRA:
            raise MissingExtra("Reproducing", "eval") from error
        raise LongspanError(f"The reproduction {module} cannot be loaded: {error}.") from error
    except Exception as error:
        reason = f"{type(error).__name__}: {error}"
        raise LongspanError(f"The reproduction {module} cannot be loaded: {reason}.") from error


# Running


@dataclass(frozen=True, slots=True)
class Seed:
    """A finished seed: its figures, what it took, and with which code: the `commit` of the checkout, where there is
    one, and the hash of longspan's sources."""

    seed: int
    figures: Figures
    seconds: float
    date: str
    commit: str | None
    code: str


@dataclass(slots=True)
class Result:
    """What a run came to. `failures` are the reasons by seed; with one of them there is no verdict and no file."""

    reproduction: Reproduction
    quick: bool
    seeds: list[Seed] = field(default_factory=list)
    failures: dict[int, str] = field(default_factory=dict)
    verdict: Verdict | None = None
    files: list[Path] = field(default_factory=list)
    problem: str = ""  # the plot could not be drawn

    @property
    def seconds(self) -> float:
        return sum(seed.seconds for seed in self.seeds)

    @property
    def exit_code(self) -> int:
        """0 where the claim holds or the data do not decide, `DOES_NOT_HOLD`, or 1 for a failure.

        An inconclusive run contradicts nothing, and a quick one is often too small to say more.
        """
        if self.verdict is None or self.problem:
            return 1
        return DOES_NOT_HOLD if self.verdict.outcome == "does not hold at this scale" else 0

    def to_dict(self) -> dict[str, Any]:
        """The stored form; docs/results/schema.json describes it."""
        assert self.verdict is not None
        here = self.reproduction
        names = list(dict.fromkeys(name for seed in self.seeds for name in seed.figures))
        told = "slug title year paper claim setting baseline criterion".split()
        return {
            **{name: getattr(here, name) for name in told},
            "quick": self.quick,
            "verdict": asdict(self.verdict),
            "figures": {name: spread(self.seeds, name) for name in names},
            "seeds": [asdict(seed) for seed in self.seeds],
            "seconds": round(self.seconds, 3),
            "date": max(seed.date for seed in self.seeds),
            "longspan": __version__,
            "source": _hash([_source(here)]),
            "environment": environment(),
            "plot": f"{_name(here.slug, self.quick)}.svg" if not self.problem else None,
        }


def spread(seeds: Sequence[Seed], name: str) -> dict[str, float]:
    """Mean, lowest and highest of one figure over the seeds that have it."""
    values = [seed.figures[name] for seed in seeds if name in seed.figures]
    return {"mean": math.fsum(values) / len(values), "low": min(values), "high": max(values), "seeds": len(values)}


def run(
    slug: str,
    seeds: int | None = None,
    quick: bool = False,
    out: Path | None = None,
    *,
    fresh: bool = False,
    tell: Callable[[str], None] = lambda line: None,
) -> Result:
    """Measure what is missing, judge, and store the result in `out` (`results_home()` where it is None).

    Raises LongspanError where nothing can be measured: an unknown slug, a missing extra or model, a folder that
    cannot be written. What else goes wrong in a seed is in `Result.failures`.
    """
    reproduction = find(slug)
    if importlib.util.find_spec("matplotlib") is None:
        raise MissingExtra("Reproducing", "eval")  # known now rather than after the hours of measuring
    count = seeds if seeds is not None else 1 if quick else reproduction.seeds
    folder = _writable(out or results_home())
    scratch = cache_home() / "reproductions" / _name(slug, quick) / _hash([_source(reproduction)])
    result = Result(reproduction, quick)
    with _alone(_writable(scratch), slug):
        for seed in range(count):
            _one(result, seed, scratch / f"seed-{seed}", fresh, f"{slug}, seed {seed} of {count}", tell)
        if result.failures:
            return result
        figures = [seed.figures for seed in result.seeds]
        try:
            result.verdict = reproduction.judge(figures)
        except Exception as error:
            reason = f"{type(error).__name__}: {error}"
            raise LongspanError(f"{slug} could not be judged ({reason}); the finished seeds are kept.") from error
        if result.verdict.outcome not in get_args(Outcome):
            raise LongspanError(f"{slug} was judged {result.verdict.outcome!r}, which is no outcome.")
        _store(result, folder, figures)
    return result


def _one(result: Result, number: int, folder: Path, fresh: bool, name: str, tell: Callable[[str], None]) -> None:
    """One seed: read from the cache, or measured and kept there."""
    if fresh:
        shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True, exist_ok=True)
    kept = _kept(folder / "figures.json")
    if kept is not None:
        other = "" if kept.code == _code() else ", measured with other code of longspan (--fresh measures it anew)"
        tell(f"{name}: kept from {kept.date}{other}")
        result.seeds.append(kept)
        return
    tell(f"{name}: measuring ...")
    started = time.perf_counter()
    try:
        run = Run(number, result.quick, folder, lambda line: tell(f"{name}: {line}"))
        figures = _finite(result.reproduction.measure(run))
    except LongspanError:  # a missing model or the like: no other seed would fare better
        raise
    except Exception as error:  # noqa: BLE001 - whatever it is, the seed has failed and the others go on
        (folder / "error.txt").write_text(traceback.format_exc(), encoding="utf-8")
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        tell(f"{name}: failed, {reason} (the traceback is in {folder / 'error.txt'})")
        result.failures[number] = reason
        return
    seconds = round(time.perf_counter() - started, 3)
    date = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    seed = Seed(number, figures, seconds, date, commit(), _code())
    _write(folder / "figures.json", json.dumps(asdict(seed)))
    result.seeds.append(seed)
    tell(f"{name}: {seconds:.1f} s")


def _finite(figures: Any) -> Figures:
    if not isinstance(figures, dict) or not figures:
        raise ValueError("no figures were returned")
    values = {str(name): float(value) for name, value in figures.items()}
    bad = [f"{name} is {value}" for name, value in values.items() if not math.isfinite(value)]
    if bad:
        raise ValueError(f"{', '.join(bad)}: a figure must be a finite number")
    return values


def _kept(file: Path) -> Seed | None:
    try:
        data = json.loads(file.read_text(encoding="utf-8"))
        return Seed(**data)
    except (OSError, ValueError, TypeError):
        return None


def _store(result: Result, folder: Path, figures: Sequence[Figures]) -> None:
    """Write plot and JSON, the JSON last: where it lies, the plot that it names lies too."""
    name = _name(result.reproduction.slug, result.quick)
    try:
        _draw(result.reproduction, figures, folder / f"{name}.svg")
        result.files.append(folder / f"{name}.svg")
    except OSError:
        raise
    except Exception as error:  # noqa: BLE001 - the figures matter more than their drawing
        result.problem = f"the plot could not be drawn ({type(error).__name__}: {error})"
        (folder / f"{name}.svg").unlink(missing_ok=True)  # an older one would show other figures
    _write(folder / f"{name}.json", json.dumps(result.to_dict(), indent=1, ensure_ascii=False) + "\n")
    result.files.append(folder / f"{name}.json")


def _draw(reproduction: Reproduction, figures: Sequence[Figures], file: Path) -> None:
    import io

    import matplotlib
    from matplotlib.figure import Figure

    # A fixed salt and no date: the same figures give the same file.
    with matplotlib.rc_context(STYLE | {"svg.hashsalt": reproduction.slug}):
        figure = Figure(figsize=(5.2, 3.2), layout="constrained")
        reproduction.plot(figures, figure)
        drawn = io.StringIO()
        figure.savefig(drawn, format="svg", metadata={"Date": None, "Creator": None})
    _write(file, "\n".join(line.rstrip() for line in drawn.getvalue().splitlines()) + "\n")


# Places


def checkout() -> Path | None:
    """The root of the checkout that longspan runs from, None where it is installed."""
    root = PACKAGE.parents[1]
    return root if (root / "pyproject.toml").is_file() and (root / "docs").is_dir() else None


def results_home() -> Path:
    """Where results are stored: docs/results of the checkout, else the user's cache."""
    root = checkout()
    return root / "docs" / "results" if root else cache_home() / "results"


def results_folders() -> list[Path]:
    """Where results are looked for, in this order: the user's own come before those that the package brings."""
    return [results_home()] if checkout() else [results_home(), PACKAGE / "results"]


def stored(slug: str) -> tuple[dict[str, Any], Path] | None:
    """The stored full result of `slug` and its file."""
    for folder in results_folders():
        file = folder / f"{slug}.json"
        try:
            data = json.loads(file.read_text(encoding="utf-8"))
            if data["slug"] == slug and data["verdict"]["outcome"] in get_args(Outcome) and not data["quick"]:
                return data, file
            raise ValueError("it is of another run")
        except FileNotFoundError:
            continue
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise LongspanError(
                f"{file} is no stored result of {slug} ({type(error).__name__}: {error}): remove it, or run "
                f"`longspan reproduce {slug}` again."
            ) from error
    return None


def outdated(result: dict[str, Any]) -> bool:
    """Whether the module that a stored result comes from has changed since."""
    source = source_of(result["slug"])
    return source is not None and result.get("source") != _hash([source])


def _name(slug: str, quick: bool) -> str:
    return f"{slug}.quick" if quick else slug


def _source(reproduction: Reproduction) -> Path:
    return Path(inspect.getsourcefile(inspect.unwrap(reproduction.measure)) or "")


def _hash(files: Iterable[Path]) -> str:
    digest = hashlib.sha256()
    for file in files:
        digest.update(file.read_bytes())
    return digest.hexdigest()[:16]


_codes: dict[Path, str] = {}


def _code() -> str:
    """The hash of longspan's sources, as they are when the process first asks."""
    if PACKAGE not in _codes:
        _codes[PACKAGE] = _hash(sorted(PACKAGE.rglob("*.py")))
    return _codes[PACKAGE]


def _writable(folder: Path) -> Path:
    """A folder that cannot be written should be known before the work, not after."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise LongspanError(f"Cannot write to {folder}: {error.strerror or error}.") from error
    if not os.access(folder, os.W_OK):
        raise LongspanError(f"Cannot write to {folder}: it is read-only.")
    return folder


def _write(file: Path, text: str) -> None:
    temporary = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        temporary.write_text(text, encoding="utf-8")
        temporary.replace(file)
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def _alone(scratch: Path, slug: str) -> Iterator[None]:
    from filelock import FileLock, Timeout

    lock = FileLock(scratch / ".lock")
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        raise LongspanError(f"{slug} is being reproduced by another process: wait until it has finished.") from error
    try:
        yield
    finally:
        lock.release()


# The record of the machine


def environment() -> dict[str, Any]:
    """What of `longspan doctor` a result depends on; nothing that tells whose machine it was."""
    from longspan.doctor import report

    facts = report()
    wanted = "python system packages cores memory_gib processor instructions gpu".split()
    return {name: facts[name] for name in wanted}


def commit() -> str | None:
    """The commit of the checkout, with `+changes` where its sources differ from it."""
    root = checkout()
    if root is None:
        return None

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(root), *arguments]
        return subprocess.run(command, capture_output=True, text=True, timeout=30, check=True).stdout.strip()

    try:
        return git("rev-parse", "HEAD") + ("+changes" if git("status", "--porcelain", "--", "src") else "")
    except (OSError, subprocess.SubprocessError):
        return None


# On the terminal

COLOURS = {"holds": "green", "does not hold at this scale": "red", "inconclusive": "yellow"}


def show(result: Result) -> None:
    """Print the claim beside what was measured, and the verdict."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    here = result.reproduction
    console = Console(highlight=False)
    console.print(Text(f"{here.title} ({here.year}, {here.paper})", style="bold"))
    told = Table(show_header=False, box=None, pad_edge=False)
    told.add_column(style="dim", no_wrap=True)
    told.add_column()
    for name in ("claim", "setting", "baseline", "criterion"):
        told.add_row(name, Text(printable(getattr(here, name))))
    console.print(told)
    if result.seeds:
        measured = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
        measured.add_column("measured")
        measured.add_column("mean", justify="right")
        measured.add_column(f"lowest to highest of {len(result.seeds)}", justify="right")
        for name in dict.fromkeys(name for seed in result.seeds for name in seed.figures):
            of = spread(result.seeds, name)
            wide = f"{of['low']:.4g} to {of['high']:.4g}" if of["seeds"] > 1 else ""
            measured.add_row(Text(printable(name)), f"{of['mean']:.4g}", wide)
        console.print()
        console.print(measured)
    console.print()
    if result.verdict is not None:
        line = Text(result.verdict.outcome, style=f"bold {COLOURS[result.verdict.outcome]}")
        line.append(f": {printable(result.verdict.reason)}", style="not bold default")
        console.print(line)
        quick = "a quick run, kept apart from full ones; " if result.quick else ""
        console.print(Text(f"{quick}{result.seconds:.1f} s; {', '.join(map(str, result.files))}", style="dim"))


def problem(result: Result) -> str:
    """One sentence on what went wrong, "" where nothing did."""
    if result.failures:
        count = len(result.failures) + len(result.seeds)
        reasons = "; ".join(f"seed {seed}: {reason}" for seed, reason in result.failures.items())
        return printable(
            f"{len(result.failures)} of {count} seeds of {result.reproduction.slug} failed ({reasons}); the others are "
            f"kept, and running again tries only the failed ones."
        )
    return f"{result.reproduction.slug}: {printable(result.problem)}." if result.problem else ""


def show_all(rows: Sequence[tuple[str, Result | LongspanError]]) -> None:
    """Print one line a reproduction."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("system", no_wrap=True)
    table.add_column("verdict", no_wrap=True)
    table.add_column("seconds", justify="right", no_wrap=True)
    table.add_column("why")
    for slug, result in rows:
        if isinstance(result, LongspanError):
            table.add_row(slug, Text("failed", style="red"), "", Text(printable(str(result))))
        elif result.verdict is None:
            table.add_row(slug, Text("failed", style="red"), f"{result.seconds:.1f}", Text(problem(result)))
        else:
            verdict = Text(result.verdict.outcome, style=COLOURS[result.verdict.outcome])
            why = printable(" ".join(filter(None, (result.verdict.reason, problem(result)))))
            table.add_row(slug, verdict, f"{result.seconds:.1f}", Text(why))
    Console(highlight=False).print(table)


def show_list() -> None:
    """Print what can be reproduced, with the stored verdict."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for name in ("system", "stored result", "claim"):
        table.add_column(name, no_wrap=name == "system")
    for reproduction in everything():
        kept = stored(reproduction.slug)
        result = f"{kept[0]['verdict']['outcome']}, {kept[0]['date'][:10]}" if kept else "none yet"
        table.add_row(reproduction.slug, Text(result), Text(printable(reproduction.claim)))
    Console(highlight=False).print(table)
