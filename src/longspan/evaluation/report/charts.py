"""Small charts as inline SVG: no script, colours from the page's CSS variables, so that they follow dark mode.

Every chart is `WIDTH` units wide and scales with its place on the page; its text stays legible at phone width. Values
that come from rows are escaped by markupsafe.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from markupsafe import Markup, escape

from longspan.evaluation.report.terminal import percent, short

WIDTH = 360
LEFT, RIGHT, TOP, BOTTOM = 38, 10, 10, 34


@dataclass(frozen=True, slots=True)
class Series:
    """A line: `points` are (x, mean, low, high), x ascending; `colour` is the number of the spec."""

    name: str
    colour: int
    points: Sequence[tuple[float, float, float, float]]


def _svg(height: float, label: str, parts: Sequence[str]) -> Markup:
    body = Markup("").join(Markup(part) for part in parts)
    return Markup('<svg viewBox="0 0 {} {}" role="img" aria-label="{}">{}</svg>').format(
        WIDTH, round(height), label, body
    )


def _text(x: float, y: float, text: str, kind: str = "", anchor: str = "middle") -> str:
    return Markup('<text x="{:.1f}" y="{:.1f}" text-anchor="{}" class="{}">{}</text>').format(x, y, anchor, kind, text)


def lines(series: Sequence[Series], windows: Sequence[float] = ()) -> Markup:
    """Score (0 to 1) against length (logarithmic), with interval bands; upright lines mark `windows`."""
    height = 210
    xs = sorted({x for line in series for x, *_ in line.points})
    if not xs:
        return Markup("")
    low, high = math.log(xs[0]), math.log(xs[-1])
    span = high - low or 1.0

    def across(x: float) -> float:
        place = 0.5 if len(xs) == 1 else (math.log(x) - low) / span
        return LEFT + 8 + place * (WIDTH - LEFT - RIGHT - 16)

    def down(score: float) -> float:
        return TOP + (1 - score) * (height - TOP - BOTTOM)

    parts: list[str] = []
    for score in (0.0, 0.25, 0.5, 0.75, 1.0):
        y = down(score)
        parts.append(f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}" class="grid"/>')
        parts.append(_text(LEFT - 6, y + 4, percent(score), "tick", "end"))
    shown: list[float] = []
    for x in xs:
        if not shown or across(x) - across(shown[-1]) > 34:
            shown.append(x)
            parts.append(_text(across(x), height - BOTTOM + 16, short(int(x)), "tick"))
    parts.append(_text((LEFT + WIDTH) / 2, height - 3, "tokens", "tick"))
    for window in windows:
        if xs[0] <= window <= xs[-1]:
            parts.append(
                f'<line x1="{across(window):.1f}" x2="{across(window):.1f}" y1="{TOP}" y2="{height - BOTTOM}" '
                'class="window"><title>the model\'s window</title></line>'
            )
    for line in series:
        upper = [f"{across(x):.1f},{down(top):.1f}" for x, _, _, top in line.points]
        lower = [f"{across(x):.1f},{down(bottom):.1f}" for x, _, bottom, _ in reversed(line.points)]
        if len(line.points) > 1:
            parts.append(f'<polygon points="{" ".join(upper + lower)}" class="band s{line.colour}"/>')
        middle = " ".join(f"{across(x):.1f},{down(mean):.1f}" for x, mean, _, _ in line.points)
        parts.append(f'<polyline points="{middle}" class="line s{line.colour}"/>')
        for x, mean, bottom, top in line.points:
            told = f"{line.name}: {percent(mean)} ({percent(bottom)} to {percent(top)}) at {int(x)} tokens"
            parts.append(
                Markup('<circle cx="{:.1f}" cy="{:.1f}" r="3.2" class="dot s{}"><title>{}</title></circle>').format(
                    across(x), down(mean), line.colour, told
                )
            )
    return _svg(height, "score against length in tokens", parts)


def heat_map(values: dict[tuple[float, float], tuple[float, int]], beyond: float | None = None) -> Markup:
    """Score over length (across) and depth (down): `values[length, depth] = (score, samples)`; lengths above `beyond`
    are marked as beyond the window."""
    columns, rows = sorted({x for x, _ in values}), sorted({y for _, y in values})
    if not columns or not rows:
        return Markup("")
    wide = (WIDTH - LEFT - RIGHT) / len(columns)
    tall = max(22.0, min(34.0, 180 / len(rows)))
    height = TOP + tall * len(rows) + BOTTOM
    parts: list[str] = []
    for j, depth in enumerate(rows):
        y = TOP + j * tall
        parts.append(_text(LEFT - 6, y + tall / 2 + 4, f"{100 * depth:.0f}", "tick", "end"))
        for i, length in enumerate(columns):
            found = values.get((length, depth))
            if found is None:
                continue
            score, samples = found
            x = LEFT + i * wide
            told = f"{percent(score)} of {samples} samples at {int(length)} tokens, depth {100 * depth:.0f} %"
            ink = "high" if score >= 0.55 else "low"
            parts.append(
                Markup(
                    '<g><rect x="{:.1f}" y="{:.1f}" width="{:.1f}" height="{:.1f}" rx="2" '
                    'style="--v:{:.0f}%" class="cell"/>{}<title>{}</title></g>'
                ).format(
                    x + 1,
                    y + 1,
                    wide - 2,
                    tall - 2,
                    100 * score,
                    _text(x + wide / 2, y + tall / 2 + 4, percent(score), f"value {ink}"),
                    told,
                )
            )
    for i, length in enumerate(columns):
        mark = "*" if beyond is not None and length > beyond else ""
        if wide > 30 or i % 2 == 0:
            parts.append(_text(LEFT + (i + 0.5) * wide, height - BOTTOM + 16, short(int(length)) + mark, "tick"))
    parts.append(_text((LEFT + WIDTH) / 2, height - 3, "tokens, by depth in %", "tick"))
    return _svg(height, "score by length and depth", parts)


@dataclass(frozen=True, slots=True)
class Point:
    """A spec with its cost (of whatever kind) and score with interval."""

    name: str
    colour: int
    cost: float
    mean: float
    low: float
    high: float


def pareto(points: Sequence[Point]) -> list[Point]:
    """The points that no other beats: none is at most as dear and at least as good, and better in one of the two."""
    return sorted(
        (
            point
            for point in points
            if not any(
                other.cost <= point.cost
                and other.mean >= point.mean
                and (other.cost < point.cost or other.mean > point.mean)
                for other in points
            )
        ),
        key=lambda point: (point.cost, point.mean),
    )


def quality_against_cost(points: Sequence[Point], unit: str) -> Markup:
    """Score against cost on a logarithmic axis, the Pareto front joined by steps."""
    points = [point for point in points if point.cost > 0 and not math.isnan(point.mean)]
    if not points:
        return Markup("")
    height = 230
    low, high = math.log10(min(p.cost for p in points)), math.log10(max(p.cost for p in points))
    low, high = low - 0.15, high + 0.15

    def across(cost: float) -> float:
        return LEFT + (math.log10(cost) - low) / (high - low) * (WIDTH - LEFT - RIGHT)

    def down(score: float) -> float:
        return TOP + (1 - score) * (height - TOP - BOTTOM)

    parts: list[str] = []
    for score in (0.0, 0.25, 0.5, 0.75, 1.0):
        parts.append(
            f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{down(score):.1f}" y2="{down(score):.1f}" class="grid"/>'
        )
        parts.append(_text(LEFT - 6, down(score) + 4, percent(score), "tick", "end"))
    last = -math.inf
    for cost in sorted({p.cost for p in points}):
        if across(cost) - last > 44:
            last = across(cost)
            parts.append(_text(last, height - BOTTOM + 16, f"{cost:.3g}", "tick"))
    parts.append(_text((LEFT + WIDTH) / 2, height - 3, unit, "tick"))
    front = pareto(points)
    steps = [f"{across(front[0].cost):.1f},{down(front[0].mean):.1f}"]
    for before, after in pairwise(front):
        steps += [
            f"{across(after.cost):.1f},{down(before.mean):.1f}",
            f"{across(after.cost):.1f},{down(after.mean):.1f}",
        ]
    parts.append(f'<polyline points="{" ".join(steps)}" class="front"/>')
    for point in points:
        x, y = across(point.cost), down(point.mean)
        interval = f"{percent(point.mean)} ({percent(point.low)} to {percent(point.high)})"
        told = f"{point.name}: {interval}, {point.cost:.3g} {unit}"
        parts.append(
            Markup(
                '<g class="s{}"><line x1="{:.1f}" x2="{:.1f}" y1="{:.1f}" y2="{:.1f}" class="whisker"/>'
                '<circle cx="{:.1f}" cy="{:.1f}" r="5" class="dot"/><title>{}</title></g>'
            ).format(point.colour, x, x, down(point.low), down(point.high), x, y, escape(told))
        )
    return _svg(height, f"score against {unit}", parts)
