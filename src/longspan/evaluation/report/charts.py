"""Small charts as inline SVG: no script, colours from the page's CSS variables, so that they follow dark mode.

Every chart has a viewBox and scales with its place; type is sized by the page. Marks carry a `<title>`. Everything that
comes from rows is escaped by markupsafe. Scores run from 0 to 1 and are written in hundredths.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from markupsafe import Markup

from longspan.evaluation.report.summary import Spot, pareto
from longspan.evaluation.report.terminal import percent, short, with_interval
from longspan.evaluation.statistics import Estimate
from longspan.terminal import printable

# Sequential, by lightness alone and so for every kind of sight: the page's ground is the low end, in light and in dark.
SEQUENTIAL = {
    "light": "#f4ecdb #dbe2d1 #c2d8c8 #a4cabf #83b9b8 #5fa8b0 #4a90a5 #35799a #256088 #1c4871 #14305a".split(),
    "dark": "#2a2724 #2d373b #2d4754 #2f5969 #346d7c #367e8c #589a99 #77b2a2 #9dc8ac #c8dab9 #f3ebc6".split(),
}
INK = {"light": "#111418", "dark": "#ffffff"}  # what a value in a cell is written in, whichever stands out more
# Okabe and Ito's qualitative colours, darkened or lightened until they stand out from the page.
QUALITATIVE = {
    "light": "#0072b2 #d55e00 #00805f #b0528a #9a6a00 #2f8fc4 #5b5b5b".split(),
    "dark": "#56b4e9 #f08a45 #2dc29a #e39ac6 #e0b040 #8fc9ee #b5b5b5".split(),
}
COLOURS = len(QUALITATIVE["light"])
STEPS = len(SEQUENTIAL["light"])
SHAPES = ("circle", "square", "triangle", "diamond")
WIDTH = 400
LEFT, RIGHT, TOP = 34, 12, 10


@dataclass(frozen=True, slots=True)
class Point:
    """A score at a length; `note` is what the mark says when pointed at."""

    length: int
    score: Estimate
    above_window: bool
    note: str


@dataclass(frozen=True, slots=True)
class Series:
    """A line; `number` is the spec's, which gives its colour and shape."""

    name: str
    number: int
    points: Sequence[Point]


@dataclass(frozen=True, slots=True)
class Priced:
    """A spec with what an answer costs (in any one unit) and its score."""

    name: str
    number: int
    cost: float
    score: Estimate


def variables(theme: str) -> Markup:
    """The colours of a theme as CSS variables: --c0 … of specs, --q0 … of scores with --t0 … to write on them."""
    lines = [f"--c{at}:{colour}" for at, colour in enumerate(QUALITATIVE[theme])]
    for at, colour in enumerate(SEQUENTIAL[theme]):
        ink = max(INK.values(), key=lambda ink: contrast(ink, colour))
        lines += [f"--q{at}:{colour}", f"--t{at}:{ink}"]
    return Markup(";".join(lines))


def luminance(colour: str) -> float:
    """Relative luminance of #rrggbb, 0 to 1 (WCAG 2)."""
    shares = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [share / 12.92 if share <= 0.04045 else ((share + 0.055) / 1.055) ** 2.4 for share in shares]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    """The ratio by which two colours stand out from each other, 1 to 21 (WCAG 2)."""
    light, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def lines(series: Sequence[Series], label: str, *, width: int = WIDTH, height: int = 240) -> Markup:
    """Score against length (logarithmic) with bands of confidence. Lengths above a spec's window are hollow and reached
    by a broken line; where they are above every spec's window, the ground is shaded."""
    lengths = sorted({point.length for line in series for point in line.points})
    if not lengths:
        return Markup("")
    bottom = height - 32
    low, high = math.log(lengths[0]), math.log(lengths[-1])

    def across(length: float) -> float:
        share = (math.log(length) - low) / (high - low) if high > low else 0.5
        return LEFT + 10 + share * (width - LEFT - RIGHT - 20)

    def down(score: float) -> float:
        return TOP + (1 - score) * (bottom - TOP)

    parts: list[Markup] = []
    above = {n: [point.above_window for line in series for point in line.points if point.length == n] for n in lengths}
    beyond = [n for n in lengths if all(above[n])]
    within = [n for n in lengths if any(not each for each in above[n])]
    if beyond and (not within or within[-1] < beyond[0]):
        begin = (across(within[-1]) + across(beyond[0])) / 2 if within else LEFT
        parts.append(
            Markup('<rect class="beyond" x="{:.1f}" y="{}" width="{:.1f}" height="{}"/>').format(
                begin, TOP, width - RIGHT - begin, bottom - TOP
            )
        )
        words = ["above the window"] if width - RIGHT - begin > 100 else ["above", "window"]
        parts += [_text(width - RIGHT - 3, TOP + 12 * n, word, "end", "faint") for n, word in enumerate(words, 1)]
    parts += _scores(down, width)
    last = -math.inf
    for length in lengths:
        if across(length) - last >= 32:
            last = across(length)
            parts.append(Markup('<path class="tick" d="M{:.1f} {}v4"/>').format(last, bottom))
            parts.append(_text(last, bottom + 16, short(length)))
    parts.append(_text((LEFT + width - RIGHT) / 2, height - 3, "length in tokens", kind="faint"))
    for line in series:
        if len(line.points) > 1:
            there = [f"{across(p.length):.1f},{down(p.score.high):.1f}" for p in line.points]
            back = [f"{across(p.length):.1f},{down(p.score.low):.1f}" for p in reversed(line.points)]
            parts.append(
                Markup('<polygon class="band c{}" points="{}"/>').format(line.number % COLOURS, " ".join(there + back))
            )
    for line in series:
        colour = line.number % COLOURS
        for before, after in pairwise(line.points):
            parts.append(
                Markup('<path class="line c{}{}" d="M{:.1f} {:.1f}L{:.1f} {:.1f}"/>').format(
                    colour,
                    " broken" if after.above_window else "",
                    across(before.length),
                    down(before.score.value),
                    across(after.length),
                    down(after.score.value),
                )
            )
        for point in line.points:
            x, y = across(point.length), down(point.score.value)
            parts.append(Markup('<g class="mark c{}{}">').format(colour, " hollow" if point.above_window else ""))
            if len(line.points) == 1:
                parts.append(_whisker(x, down(point.score.low), down(point.score.high)))
            parts.append(_shape(x, y, line.number))
            parts.append(Markup("<title>{}</title></g>").format(point.note))
    return _svg(width, height, label, parts)


def heat_map(spots: Sequence[Spot], label: str) -> Markup:
    """Score over length (across) and depth (down). A cell whose answers all failed is crossed; one where some did has a
    corner; lengths above the window have a hollow triangle."""
    lengths = sorted({spot.length for spot in spots})
    depths = sorted({spot.depth for spot in spots})
    left, top = 44, 6
    wide = max((WIDTH - left - 6) / len(lengths), 27.0)
    tall = 24.0
    width = left + wide * len(lengths) + 6
    bottom = top + tall * len(depths)
    parts: list[Markup] = []
    for row, depth in enumerate(depths):
        parts.append(_text(left - 6, top + tall * (row + 0.5) + 4, f"{100 * depth:.0f} %", "end"))
    for spot in spots:
        x, y = left + wide * lengths.index(spot.length), top + tall * depths.index(spot.depth)
        told = f"{short(spot.length)} tokens, depth {100 * spot.depth:.0f} %: "
        told += f"{percent(spot.score)} over {spot.n} sample{'s' * (spot.n != 1)}" if spot.n else "no answer"
        told += f", {spot.failed} failed" if spot.failed else ""
        told += ", above the window" if spot.above_window else ""
        place = {"x": x + 1, "y": y + 1, "w": wide - 2, "h": tall - 2}
        if spot.score is None:
            cell = Markup(
                '<rect class="none" x="{x:.1f}" y="{y:.1f}" width="{w:.1f}" height="{h:.1f}"/>'
                '<path class="cross" d="M{x:.1f} {y:.1f}l{w:.1f} {h:.1f}m0 -{h:.1f}l-{w:.1f} {h:.1f}"/>'
            ).format(**place)
        else:
            step = min(round(spot.score * (STEPS - 1)), STEPS - 1)
            cell = Markup(
                '<rect class="q{q}" x="{x:.1f}" y="{y:.1f}" width="{w:.1f}" height="{h:.1f}"/>{text}{corner}'
            ).format(
                **place,
                q=step,
                text=_text(x + wide / 2, y + tall / 2 + 4, percent(spot.score), kind=f"t{step}"),
                corner=Markup('<path class="corner" d="M{:.1f} {:.1f}h-7l7 7z"/>').format(x + wide - 1, y + 1)
                if spot.failed
                else "",
            )
        parts.append(Markup("<g>{}<title>{}</title></g>").format(cell, told))
    above = {spot.length for spot in spots if spot.above_window}
    for column, length in enumerate(lengths):
        x = left + wide * (column + 0.5)
        parts.append(_text(x, bottom + 15, f"{short(length)}{'△' if length in above else ''}"))
    if above and above != set(lengths):
        x = left + wide * lengths.index(min(above))
        parts.append(Markup('<path class="border" d="M{:.1f} {:.1f}V{:.1f}"/>').format(x, top - 5, bottom + 5))
    parts.append(_text(left + wide * len(lengths) / 2, bottom + 32, "length in tokens", kind="faint"))
    return _svg(round(width), round(bottom + 36), label, parts)


def quality_against_cost(points: Sequence[Priced], unit: str, *, height: int = 240) -> Markup:
    """Score against what an answer costs, logarithmic where the costs are far apart; the Pareto front in steps, what it
    beats faded."""
    if not points:
        return Markup("")
    bottom = height - 32
    costs = [point.cost for point in points]
    logarithmic = min(costs) > 0 and max(costs) / min(costs) > 5
    ticks = _decades(min(costs), max(costs)) if logarithmic else _round_steps(max(costs))
    low, high = (math.log(ticks[0]), math.log(ticks[-1])) if logarithmic else (0.0, ticks[-1])

    def across(cost: float) -> float:
        value = math.log(cost) if logarithmic else cost
        return LEFT + 10 + (value - low) / (high - low) * (WIDTH - LEFT - RIGHT - 24)

    def down(score: float) -> float:
        return TOP + (1 - score) * (bottom - TOP)

    parts = list(_scores(down, WIDTH))
    last = -math.inf
    for tick in ticks:
        x = across(tick)
        parts.append(Markup('<path class="tick" d="M{:.1f} {}v4"/>').format(x, bottom))
        if x - last >= 30:
            last = x
            parts.append(_text(x, bottom + 16, f"{tick:,.10g}".replace(",", "\u202f")))
    parts.append(_text((LEFT + WIDTH - RIGHT) / 2, height - 3, f"{unit} an answer", kind="faint"))
    places = [(across(point.cost), down(point.score.value)) for point in points]
    front = pareto([(point.cost, point.score.value) for point in points])
    corners = [places[front[0]]]
    for at in front[1:]:
        corners += [(places[at][0], corners[-1][1]), places[at]]
    corners.append((WIDTH - RIGHT, corners[-1][1]))
    path = "L".join(f"{x:.1f} {y:.1f}" for x, y in corners)
    parts.append(Markup('<path class="front" d="M{}"/>').format(path))
    taken = [(x - 6, y - 6, 12.0, 12.0) for x, y in places]
    taken += [(a[0], min(a[1], b[1]) - 1, b[0] - a[0], abs(a[1] - b[1]) + 2) for a, b in pairwise(corners)]
    for at, point in enumerate(points):
        x, y = places[at]
        beaten = "" if at in front else " beaten"
        told = f"{printable(point.name)}: {with_interval(point.score)}, {figure(point.cost)} {unit} an answer"
        told += "" if at in front else "; another is as good and cheaper, or better for as much"
        parts.append(
            Markup('<g class="mark c{}{}">{}{}{}<title>{}</title></g>').format(
                point.number % COLOURS,
                beaten,
                _whisker(x, down(point.score.low), down(point.score.high)),
                _shape(x, y, point.number, 5.5),
                _named(point.name, x, y, taken, bottom),
                told,
            )
        )
    return _svg(WIDTH, height, f"score against {unit} an answer", parts)


def _named(name: str, x: float, y: float, taken: list[tuple[float, float, float, float]], bottom: float) -> Markup:
    """The name above or below its point, to either side; none where all four places are `taken` (the legend has it)."""
    name = printable(name)
    wide, tall = 6.2 * len(name), 13.0
    for anchor, left in (("start", x + 7), ("end", x - 7 - wide)):
        for top in (y - 19, y + 6):
            free = all(left + wide < a or a + w < left or top + tall < b or b + h < top for a, b, w, h in taken)
            if free and left >= LEFT and left + wide <= WIDTH and top >= 0 and top + tall <= bottom:
                taken.append((left, top, wide, tall))
                return _text(left if anchor == "start" else left + wide, top + 10, name, anchor, "named")
    return Markup("")


def interval(value: float, low: float, high: float, *, least: float, most: float, number: int, note: str) -> Markup:
    """A dot with its interval on a scale from `least` to `most`, for a line of a table; 0 is marked if inside."""
    width, height = 160, 18

    def across(score: float) -> float:
        return 5 + (min(max(score, least), most) - least) / (most - least) * (width - 10)

    zero = Markup('<path class="zero" d="M{:.1f} 0v{}"/>').format(across(0), height) if least < 0 < most else ""
    return Markup(
        '<svg viewBox="0 0 {w} {h}" class="interval" role="img" aria-label="{note}"><path class="scale" '
        'd="M5 {m}h{long}"/>{zero}<g class="mark c{c}"><path class="whisker" d="M{low:.1f} {m}H{high:.1f}"/>{dot}'
        "<title>{note}</title></g></svg>"
    ).format(
        w=width,
        h=height,
        m=height // 2,
        long=width - 10,
        zero=zero,
        c=number % COLOURS,
        low=across(low),
        high=across(high),
        dot=_shape(across(value), height / 2, number, 4),
        note=note,
    )


def swatch(number: int) -> Markup:
    """A spec's mark, for legends and tables."""
    return Markup('<svg viewBox="0 0 14 14" class="swatch" aria-hidden="true"><g class="mark c{}">{}</g></svg>').format(
        number % COLOURS, _shape(7, 7, number, 4.6)
    )


def scale() -> Markup:
    """The colours of scores, as a legend."""
    cells = Markup("").join(
        Markup('<rect class="q{}" x="{}" width="18" height="16"/>').format(step, 18 * step) for step in range(STEPS)
    )
    ends = _text(6, 12, "0", "start", "t0") + _text(18 * STEPS - 6, 12, "100", "end", f"t{STEPS - 1}")
    return Markup('<svg viewBox="0 0 {} 16" class="scale-legend" role="img" aria-label="{}">{}{}</svg>').format(
        18 * STEPS, "colours of scores, from 0 to 100", cells, ends
    )


def figure(value: float) -> str:
    """Three digits that count, without an exponent."""
    if value == 0 or not math.isfinite(value):
        return "0" if value == 0 else "–"
    decimals = max(0, min(8, 2 - math.floor(math.log10(abs(value)))))
    return f"{value:,.{decimals}f}".replace(",", "\u202f")


def _svg(width: float, height: float, label: str, parts: Iterable[Markup]) -> Markup:
    return Markup('<svg viewBox="0 0 {} {}" role="img" aria-label="{}">{}</svg>').format(
        width, height, label, Markup("").join(parts)
    )


def _text(x: float, y: float, text: str, anchor: str = "middle", kind: str = "") -> Markup:
    named = Markup(' class="{}"').format(kind) if kind else ""
    return Markup('<text x="{:.1f}" y="{:.1f}" text-anchor="{}"{}>{}</text>').format(x, y, anchor, named, text)


def _scores(down: Callable[[float], float], width: int) -> Iterable[Markup]:
    for score in (0.0, 0.25, 0.5, 0.75, 1.0):
        kind = "axis" if score == 0 else "grid"
        yield Markup('<path class="{}" d="M{} {:.1f}H{}"/>').format(kind, LEFT, down(score), width - RIGHT)
        yield _text(LEFT - 6, down(score) + 4, percent(score), "end")


def _whisker(x: float, top: float, bottom: float) -> Markup:
    return Markup('<path class="whisker" d="M{:.1f} {:.1f}V{:.1f}"/>').format(x, top, bottom)


def _shape(x: float, y: float, number: int, size: float = 3.6) -> Markup:
    """The mark of spec `number`: shapes change faster than colours repeat, so that seven by four can be told apart."""
    kind = SHAPES[number % len(SHAPES)]
    if kind == "circle":
        return Markup('<circle class="dot" cx="{:.1f}" cy="{:.1f}" r="{}"/>').format(x, y, size)
    if kind == "square":
        side = 0.9 * size
        return Markup('<path class="dot" d="M{:.1f} {:.1f}h{s:.1f}v{s:.1f}h-{s:.1f}z"/>').format(
            x - side, y - side, s=2 * side
        )
    if kind == "triangle":
        return Markup('<path class="dot" d="M{:.1f} {:.1f}l{s:.1f} {h:.1f}h-{w:.1f}z"/>').format(
            x, y - 1.25 * size, s=1.15 * size, h=2.1 * size, w=2.3 * size
        )
    return Markup('<path class="dot" d="M{:.1f} {:.1f}l{s:.1f} {s:.1f}l-{s:.1f} {s:.1f}l-{s:.1f} -{s:.1f}z"/>').format(
        x, y - 1.3 * size, s=1.3 * size
    )


def _decades(low: float, high: float) -> list[float]:
    """1, 2, 5, 10 … from just below `low` to just above `high`."""
    ticks = [
        base * 10.0**power
        for power in range(math.floor(math.log10(low)) - 1, math.ceil(math.log10(high)) + 2)
        for base in (1, 2, 5)
    ]
    begin = max(at for at, tick in enumerate(ticks) if tick <= low * 1.0000001)
    end = min(at for at, tick in enumerate(ticks) if tick >= high * 0.9999999)
    return ticks[begin : end + 1]


def _round_steps(high: float) -> list[float]:
    """Round numbers from 0 to at least `high`, four to six of them."""
    if high <= 0:
        return [0.0, 1.0]
    power = 10.0 ** math.floor(math.log10(high))
    step = next(power * part for part in (0.2, 0.25, 0.5, 1, 2, 2.5) if high / (power * part) <= 5.000001)
    return [step * at for at in range(math.ceil(high / step - 1e-9) + 1)]
