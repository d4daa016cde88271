"""Units of reading: nothing lost, nothing cut inside a character, and each under its lead."""

from __future__ import annotations

import time
import unicodedata

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from longspan.corpus.sentences import MAX_UNIT, sentences, whole_character

FAMILY = "👩‍👩‍👧‍👦"
PIECES = [
    *(
        "The rule is simple. ",
        "Is it? ",
        "No! ",
        "e.g. this, ",
        "Dr. Who: ",
        "word ",
        "a;b;",
        "x = 1;",
        "return y",
        "...",
        "。",
    ),
    *("\n", "\r\n", "\r", "\n\n", "\r\n\r\n", "\t", "    ", "  ", "\u2028", "\x0c", "\u00a0"),
    *("- item ", "1. item ", "(a) item ", "| a | b |", "---", "====", "Term", ":ref: x", "```", "# Head"),
    *(
        "e\u0301",
        "\u0301",
        "न\u093f",
        FAMILY,
        "🇩🇪",
        "👍🏽",
        "\ud83d",
        "\ude00",
        "\ud83d\ude00",
        "שלום. ",
        "العربية؟ ",
        "漢字。",
        "한국",
    ),
]
texts = st.one_of(
    st.lists(st.sampled_from(PIECES), max_size=60).map("".join),
    st.text(st.characters(), max_size=200),  # any code point, lone surrogates among them
)


def units(text: str) -> list[str]:
    return [text[unit.start : unit.end] for unit in sentences(text)]


def leads(text: str) -> dict[str, str]:
    return {text[unit.start : unit.end]: text[unit.lead_start : unit.lead_end] for unit in sentences(text)}


def check_spans(text: str, spans: list[tuple[int, int]], begin: int = 0, end: int | None = None) -> None:
    """In order, trimmed, without overlap, and all that is not white space is inside exactly one."""
    position = begin
    for start, stop in [*spans, (len(text) if end is None else end,) * 2]:
        assert position <= start <= stop
        assert not text[position:start].strip()
        position = stop
    for start, stop in spans:
        assert text[start:stop] == text[start:stop].strip() != ""


def check_characters(text: str, offsets: list[int]) -> None:
    """No offset divides a character, as far as a simple and independent look at its neighbours can tell."""
    for at in offsets:
        if not 0 < at < len(text) or text[at - 1].isspace():
            assert text[at - 1 : at + 1] != "\r\n"
            continue
        char, before = text[at], text[at - 1]
        assert not unicodedata.category(char).startswith("M")
        assert before != "\u200d" != char
        assert not ("\ud800" <= before <= "\udbff" and "\udc00" <= char <= "\udfff")
        assert not "\U0001f3fb" <= char <= "\U0001f3ff"


@settings(max_examples=300, deadline=None)
@given(texts)
@example("a\r\n\r\nb\rc")
@example("。\ufe00x")
def test_every_character_is_in_exactly_one_unit(text: str) -> None:
    found = sentences(text)
    check_spans(text, [(unit.start, unit.end) for unit in found])
    check_characters(text, [offset for unit in found for offset in unit[:2]])
    for unit in found:
        assert 0 <= unit.lead_start <= unit.lead_end <= unit.start
        assert unit.end - unit.start <= MAX_UNIT
    assert found == sentences(text)


@settings(max_examples=100, deadline=None)
@given(texts, st.data())
def test_a_part_of_a_text_is_cut_like_a_whole(text: str, data: st.DataObject) -> None:
    start = data.draw(st.integers(0, len(text)))
    end = data.draw(st.integers(start, len(text)))
    check_spans(text, [(unit.start, unit.end) for unit in sentences(text, start, end)], start, end)


@pytest.mark.parametrize("break_", ["\n", "\r\n", "\r"])
def test_line_ends_of_all_systems_are_alike(break_: str) -> None:
    """A wrapped paragraph stays together; only a blank line (or a stop) parts."""
    text = break_.join(
        ["The first rule is long and", "goes on below. The second one", "does so too.", "", "New paragraph."]
    )
    assert [" ".join(unit.split()) for unit in units(text)] == [
        "The first rule is long and goes on below.",
        "The second one does so too.",
        "New paragraph.",
    ]


def test_stops_that_end_no_sentence() -> None:
    text = "The rate, e.g. Libor, is set by Dr. Smith of the U.S. Treasury at 3.5 percent. He said it twice."
    assert units(text) == [text[: text.index(" He")], "He said it twice."]


def test_scripts_without_spaces() -> None:
    assert units("契約は有効とする。期間は一年である。") == ["契約は有効とする。", "期間は一年である。"]
    assert units("ما هو سعر هذا الكتاب الجديد؟ السعر مئة دينار.") == [
        "ما هو سعر هذا الكتاب الجديد؟",
        "السعر مئة دينار.",
    ]


def test_a_list_stands_under_its_sentence() -> None:
    text = "You must bring:\n\n- a passport\n- two photographs\n\n"
    text += "The office opens at nine every day of the week, bar Sunday.\n"
    assert leads(text) == {
        "You must bring:": "",
        "- a passport": "You must bring:",
        "- two photographs": "You must bring:",
        "The office opens at nine every day of the week, bar Sunday.": "",
    }


def test_a_definition_stands_under_its_term() -> None:
    text = "timeout\n    Seconds to wait for an answer.\n\nretries\n    How often to try again.\n"
    assert leads(text)["Seconds to wait for an answer."] == "timeout"
    assert leads(text)["How often to try again."] == "retries"


def test_table_rows_stand_alone() -> None:
    assert units("| name | age |\n|---|---|\n| Ann | 41 |\n| Bob | 7 |\n") == [
        "| name | age |",
        "|---|---|",
        "| Ann | 41 |",
        "| Bob | 7 |",
    ]


def test_code_is_cut_at_lines() -> None:
    code = "\n".join(f"    value_{i} = compute({i});" for i in range(10))
    assert [unit.count("\n") + 1 for unit in units(code)] == [4, 4, 2]


@pytest.mark.parametrize("character", ["x", "e\u0301", FAMILY, "🇩🇪", "👍🏽", "\ud83d\ude00", "क्षि", "각"])
def test_long_units_are_cut_between_characters(character: str) -> None:
    text = character * 1000
    found = units(text)
    assert len(found) > 1
    assert "".join(found) == text
    assert all(len(unit) % len(character) == 0 and unit.startswith(character[0]) for unit in found)


def test_a_pile_of_marks_is_cut_somewhere() -> None:
    assert "".join(units("a" + "\u0301" * 5000)) == "a" + "\u0301" * 5000
    assert whole_character("a" + "\u0301" * 100, 90) == 90


@pytest.mark.parametrize(
    "piece", ["word ", "x", ".", "!", "…", '." ', ";", ", ", " ", "\n", "\r\n", "a\n", "- b\n", "| a | b "]
)
def test_time_is_linear(piece: str) -> None:
    """Twice the text takes about twice the time, whatever it is made of; and never more than a few seconds."""

    def seconds(size: int) -> float:
        text = "A " + piece * (size // len(piece)) + "z"
        began = time.perf_counter()
        sentences(text)
        return time.perf_counter() - began

    once, twice = seconds(150_000), seconds(300_000)
    assert twice < 4 * once + 0.3
