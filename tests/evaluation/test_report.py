"""The report tells what the rows say, whatever the rows hold."""

from __future__ import annotations

import html
import json
import random
from html.parser import HTMLParser
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from longspan.errors import LongspanError
from longspan.evaluation.report import load, print_table, save, write_html
from longspan.evaluation.report.charts import Point, pareto
from longspan.evaluation.report.page import SHOWN, highlighted, render
from longspan.evaluation.report.summary import pairs, summarise
from longspan.evaluation.rows import Row

NASTY = "<script>alert(1)</script><img src=http://x onerror=alert(2)> \ud800 مرحبا &amp; \x1b[2J"


def rows(samples: int = 4) -> list[Row]:
    """Scores that fall with length; some samples fail; answers and needles that mean harm."""
    made = []
    for spec in ("smollm2", "retrieve@smollm2", "<b>x</b>+y:z=1"):
        for task in ("niah", "ruler-vt"):
            for length in (1024, 4096, 16384):
                for depth in (0.0, 0.5, 1.0):
                    for number in range(samples):
                        chance = random.Random(f"{task}{length}{depth}{number}")
                        right = chance.random() < 1 - length / 20_000
                        failed = length == 16384 and number == 0 and spec == "smollm2"
                        needle = f"The code <i>is</i> {chance.randint(1000, 9999)}."
                        made.append(
                            Row(
                                spec=spec,
                                task=task,
                                sample=f"{task}-{length}-{depth}-{number}",
                                epoch=1,
                                length=length,
                                tokens=length - 3,
                                score=None if failed else float(right),
                                failed=failed,
                                error="out of <memory>" if failed else "",
                                depth=depth if task == "niah" else None,
                                above_window=length > 8192,
                                target=["1234"],
                                question="What is the code?",
                                answer=NASTY * (50 if number == 1 else 1),
                                needles=[needle],
                                excerpt=f"before {needle} after <u>",
                                dimensions={"haystack": "real" if number % 2 else "noise"},
                                seconds=1.5,
                                prefill_seconds=1.0,
                                decode_seconds=0.5,
                                calls=1,
                                input_tokens=length,
                                output_tokens=10,
                                cache_bytes=100,
                                peak_bytes=10**9,
                            )
                        )
    return made


class Page(HTMLParser):
    """What a browser would see of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.outside: list[str] = []
        self.marked: list[str] = []
        self._mark = False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self._mark = tag == "mark"
        self.outside += [
            value for name, value in attrs if name in ("src", "href", "action", "onerror", "onclick") and value
        ]

    def handle_endtag(self, tag: str) -> None:
        self._mark = False

    def handle_data(self, data: str) -> None:
        if self._mark:
            self.marked.append(data)


def test_nothing_of_models_or_texts_becomes_markup() -> None:
    page = Page(render(rows(), "<title>"))
    assert page.tags.count("script") == 1  # the page's own
    assert not {"img", "b", "i", "u", "iframe", "link"} & set(page.tags)
    assert page.outside == []
    assert any("The code <i>is</i>" in marked for marked in page.marked)


@given(st.text(max_size=60), st.lists(st.text(min_size=1, max_size=8), max_size=3))
def test_highlighting_changes_no_character(text: str, needles: list[str]) -> None:
    shown = str(highlighted(text, needles))
    plain = shown.replace("<mark>", "").replace("</mark>", "")
    assert html.unescape(plain) == html.unescape(html.escape(text))
    assert "<" not in plain


def test_failures_are_counted_apart_and_never_dropped() -> None:
    cells = {(each.spec, each.task): each for each in summarise(rows()) if each.length is None}
    one = cells["smollm2", "niah"]
    assert (one.n, one.failed) == (36, 3)
    scored = [row.score for row in rows() if (row.spec, row.task) == ("smollm2", "niah") and row.score is not None]
    assert one.mean == pytest.approx(sum(scored) / len(scored))
    assert "out of &lt;memory&gt;" in render(rows(), "t")


def test_pairs_are_of_the_samples_that_both_answered() -> None:
    found = {(pair.first, pair.second, pair.task): pair.difference for pair in pairs(rows())}
    assert found["smollm2", "retrieve@smollm2", None].n == 66  # of 72, without the 6 that failed
    assert found["smollm2", "retrieve@smollm2", None].mean == 0  # the same answers
    assert set(found) == {
        (a, b, task)
        for a, b in [
            ("smollm2", "retrieve@smollm2"),
            ("smollm2", "<b>x</b>+y:z=1"),
            ("retrieve@smollm2", "<b>x</b>+y:z=1"),
        ]
        for task in (None, "niah", "ruler-vt")
    }


def test_what_is_saved_is_loaded(tmp_path: Path) -> None:
    made = rows()
    save(made, tmp_path)
    back = load(tmp_path)
    assert [row.sample for row in back] == [row.sample for row in made]
    assert back[0].answer == NASTY.replace("\ud800", "?")
    assert back[0].dimensions == made[0].dimensions and back[0].needles == made[0].needles
    facts = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))
    assert {cell["spec"] for cell in facts["cells"]} == {row.spec for row in made}
    assert "NaN" not in (tmp_path / "report.json").read_text(encoding="utf-8")
    with pytest.raises(LongspanError, match="holds no report"):
        load(tmp_path / "elsewhere")
    (tmp_path / "samples.parquet").write_bytes(b"not this")
    with pytest.raises(LongspanError, match="is not the rows"):
        load(tmp_path)


def test_a_page_with_more_than_it_shows_says_so(tmp_path: Path) -> None:
    made = rows(samples=60)
    write_html(made, tmp_path / "report.html", "t")
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    poor = sum(row.task == "niah" and row.score != 1.0 for row in made)
    assert poor > SHOWN
    assert f"niah: {poor} of" in page and f"the first {SHOWN} shown" in page
    assert len(page) < 3_000_000


def test_the_terminal_shows_every_spec_and_nothing_that_moves_its_cursor() -> None:
    made = rows()
    made[0].task = "x\x1b[2J"
    console = Console(record=True, width=200, file=open("/dev/null", "w"))  # noqa: SIM115, PTH123
    print_table(made, console)
    text = console.export_text(styles=False)
    assert "retrieve@smollm2" in text and "16K" in text and "3 of 36" in text
    assert "\x1b[2J" not in text


@given(st.lists(st.tuples(st.floats(0.1, 100), st.floats(0, 1)), min_size=1, max_size=12))
def test_the_front_is_what_nothing_beats(pairs: list[tuple[float, float]]) -> None:
    points = [Point(str(i), 0, cost, mean, mean, mean) for i, (cost, mean) in enumerate(pairs)]
    front = pareto(points)
    assert front
    for point in points:
        beaten = any(
            o.cost <= point.cost and o.mean >= point.mean and (o.cost, o.mean) != (point.cost, point.mean)
            for o in points
        )
        assert (point in front) != beaten
