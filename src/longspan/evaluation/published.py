"""Data files of published benchmarks: where they stand, and their records, each known by file and line.

Benchmarks that are read, not generated, share this: JSON arrays and JSON lines, complaints that name the place, prompts
too long for a window, metrics by the dimensions of their taxonomy.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from inspect_ai.scorer import Metric, SampleScore, Value, metric

from longspan.errors import LongspanError, UsageError
from longspan.evaluation.lengths import TokenCounter
from longspan.paths import cache_home

SAMPLE = "sample"  # `data=sample`: the records written for longspan, which exercise a loader without the benchmark
BUNDLED = Path(__file__).parent / "data"


@dataclass(frozen=True, slots=True)
class Record:
    """One record of a data file; `where` names file and line."""

    fields: dict[str, Any]
    where: str

    def text(self, name: str) -> str:
        """A field that must be a text."""
        value = self._field(name)
        if not isinstance(value, str):
            raise self.malformed(f"the field {name!r} must be a text")
        return value

    def one_of(self, name: str, allowed: Sequence[str]) -> str:
        """A field that must be one of some texts."""
        value = self.text(name)
        if value not in allowed:
            raise self.malformed(f"the field {name!r} is {value[:80]!r}, not one of: {'; '.join(allowed)}")
        return value

    def texts(self, name: str) -> list[str]:
        """A field that must be a list of texts; a single text is a list of one."""
        value = self._field(name)
        if isinstance(value, str):
            return [value]
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            raise self.malformed(f"the field {name!r} must be a list of texts")
        return value

    def malformed(self, what: str) -> LongspanError:
        return LongspanError(f"{self.where}: {what}. Mend the file or fetch it again.")

    def _field(self, name: str) -> Any:
        if name not in self.fields:
            raise self.malformed(f"the field {name!r} is missing")
        return self.fields[name]


def records(file: Path) -> Iterator[Record]:
    """The records of a JSON array or of JSON lines, in order. Raises LongspanError with file and line."""
    try:
        with file.open(encoding="utf-8") as lines:
            begin = next((line.lstrip() for line in lines if line.strip()), "")
            lines.seek(0)
            if begin.startswith("["):
                yield from _array(file, lines.read())
                return
            for number, line in enumerate(lines, 1):
                if line.strip():
                    yield _record(file, number, _parsed(file, number, line))
    except UnicodeDecodeError as error:
        raise LongspanError(f"{file} is not UTF-8 text: {error.reason} at byte {error.start}.") from error
    except OSError as error:
        raise LongspanError(f"Cannot read {file}: {error.strerror or error}.") from error


def _array(file: Path, text: str) -> Iterator[Record]:
    """Element by element, so that each is known by the line where it begins."""
    decoder = json.JSONDecoder()
    at, line = text.index("[") + 1, 1
    counted = 0
    first = True
    while True:
        at = _past_space(text, at)
        line, counted = line + text.count("\n", counted, at), at
        if text[at : at + 1] == "]":
            return
        if not first:
            if text[at : at + 1] != ",":
                raise LongspanError(f"{file}, line {line}: a comma or the end of the list is missing; is it cut short?")
            at = _past_space(text, at + 1)
            line, counted = line + text.count("\n", counted, at), at
        try:
            value, end = decoder.raw_decode(text, at)
        except json.JSONDecodeError as error:
            raise LongspanError(f"{file}, line {error.lineno}: this is no JSON ({error.msg}).") from error
        yield _record(file, line, value)
        at, first = end, False


def _past_space(text: str, at: int) -> int:
    while at < len(text) and text[at] in " \t\r\n":
        at += 1
    return at


def _parsed(file: Path, number: int, line: str) -> Any:
    try:
        return json.loads(line)
    except json.JSONDecodeError as error:
        raise LongspanError(f"{file}, line {number}: this is no JSON ({error.msg}).") from error


def _record(file: Path, number: int, value: Any) -> Record:
    if not isinstance(value, dict):
        raise LongspanError(f"{file}, line {number}: a record must be an object, not a {type(value).__name__}.")
    return Record(value, f"{file}, line {number}")


def folder_of(benchmark: str) -> Path:
    """Where a benchmark's data is looked for when no path is given."""
    return cache_home() / "data" / benchmark


def located(data: str | None, benchmark: str, source: str, *, needs: str) -> Path:
    """The file or folder of a benchmark's data: `data`, else the benchmark's folder in longspan's cache.

    Raises UsageError with what to fetch (`needs` of `source`) and where to put it.
    """
    place = Path(data).expanduser() if data else folder_of(benchmark)
    if not place.exists():
        missing = f"There is no {place}" if data else "Its data is not on this machine"
        raise UsageError(
            f"{missing}: fetch {needs} from {source} into {folder_of(benchmark)} or give its path as data=PATH; "
            f"data={SAMPLE} runs a small sample that is not the benchmark."
        )
    return place


def choice(given: str | Sequence[str] | None, allowed: Sequence[str], what: str) -> list[str]:
    """`"a,b"` or a sequence as a list of what is allowed; None is all. Raises UsageError with the names there are."""
    if given is None:
        return list(allowed)
    names = [str(name).strip() for name in (given.split(",") if isinstance(given, str) else given)]
    known = {name.lower(): name for name in allowed}
    for name in names:
        if name.lower() not in known:
            raise UsageError(f"There is no {what} {name!r}. Known: {', '.join(allowed)}.")
    return [known[name.lower()] for name in names]


def cut_middle(context: str, after: str, counter: TokenCounter, room: int) -> str:
    """`context` without its middle, so that it and `after` have at most `room` tokens: half from each end of both.

    This is how the published evaluations fit prompts to a window. Raises UsageError where `after` alone fills a half.
    """
    prompt = context + after
    starts = counter.starts(prompt)
    keep = room
    while len(starts) > room:
        head, tail = starts[keep // 2], starts[len(starts) - keep // 2]
        if tail > len(context):
            raise UsageError(f"A window with room for {room} tokens is too short for this task's questions.")
        shorter = context[:head] + context[tail:]
        surplus = counter.count(shorter + after) - room
        if surplus <= 0:
            return shorter
        keep -= surplus  # tokens that merge or split at the seam
    return context


def power_of_two(tokens: int) -> int:
    """The least power of two that is not below `tokens`: the nominal length of a text that was not made to measure."""
    return 1 << max(tokens - 1, 1).bit_length()


@metric
def by_dimension() -> Metric:
    """The mean score for every value of every dimension of the samples, as `language English`."""

    def means(scores: list[SampleScore]) -> Value:
        groups: dict[str, list[float]] = {}
        for one in scores:
            dimensions = (one.sample_metadata or {}).get("dimensions", {})
            for name, value in dimensions.items():
                groups.setdefault(f"{name} {value}", []).append(one.score.as_float())
        return {name: sum(values) / len(values) for name, values in sorted(groups.items())}

    return means
