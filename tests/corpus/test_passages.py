"""Passages: exact spans within a budget, cut at the structure of the text."""

from __future__ import annotations

import re
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from longspan.corpus import Document, Passage, passages

FAMILY = "👩‍👩‍👧‍👦"
PIECES = [
    *("The rule is simple. ", "Is it? ", "word ", "a;b;", "def f(x):\n", "    return y\n", "class A:\n", "...", "。"),
    *("\n", "\r\n", "\r", "\n\n", "\r\n\r\n", "\n\n\n\n", "\t", "    ", "\u2028", "\x0c", "\u00a0", " " * 30),
    *("# Head\n", "## Sub\n\n", "Title\n=====\n", "1.2 Scope\n\n", "CHAPTER\n\n", "- item\n", "| a | b |\n", "~~~\n"),
    *("```\n", "````py\n", "---\n", "a: b\n", "Term\n    text\n", "The list:\n\n", "#####\nTop\n#####\n", "w" * 100),
    *("e\u0301", "\u0301", FAMILY, "🇩🇪", "\ud83d", "\ude00", "שלום. ", "漢字。"),
]
texts = st.one_of(st.lists(st.sampled_from(PIECES), max_size=60).map("".join), st.text(st.characters(), max_size=300))
kinds = st.sampled_from(["text", "markdown", "code", "html"])


def words(texts: list[str]) -> list[int]:
    return [len(text.split()) for text in texts]


def characters(texts: list[str]) -> list[int]:
    return [len(text) for text in texts]


def cut(text: str, budget: int = 40, kind: str = "markdown") -> list[Passage]:
    return list(passages(Document("id", "name", text, kind), words, budget))


def shown(text: str, budget: int = 40, kind: str = "markdown") -> list[tuple[str, str]]:
    return [(found.heading, text[found.start : found.end]) for found in cut(text, budget, kind)]


def lines_before(text: str, offset: int) -> int:
    """An independent count: the line in which `offset` stands."""
    return len(re.split("\r\n|\r|\n", text[: offset + 1])) - (text[offset] in "\r\n")


@settings(max_examples=400, deadline=None)
@given(texts, kinds, st.integers(1, 60), st.sampled_from([words, characters]))
def test_every_character_is_in_exactly_one_passage(text: str, kind: str, budget: int, count) -> None:  # type: ignore[no-untyped-def]
    document = Document("id", "name", text, kind)
    found = list(passages(document, count, budget))
    position = 0
    for passage in found:
        span = text[passage.start : passage.end]
        assert passage.start >= position
        assert not text[position : passage.start].strip()
        assert span == span.strip() != ""
        assert passage.line_start == document.line_of(passage.start) == lines_before(text, passage.start)
        assert passage.line_end == document.line_of(passage.end - 1) == lines_before(text, passage.end - 1)
        tokens = count([span])[0]
        assert tokens <= passage.tokens
        assert passage.tokens <= budget or (len(span) <= 12 and passage.tokens == tokens)  # one character, at most
        before, first = text[max(0, passage.start - 1) : passage.start], text[passage.start]
        if before.strip():
            assert first not in "\u0301\u200d" and before != "\u200d"
            assert not ("\ud800" <= before <= "\udbff" and "\udc00" <= first <= "\udfff")
        position = passage.end
    assert not text[position:].strip()
    assert found == list(passages(document, count, budget))


def test_a_heading_stays_with_its_first_paragraph() -> None:
    filler = "Some words that fill the passage before it well. " * 3
    text = f"# A\n\n{filler}\n\n{filler}\n\n## B\n\nThe first paragraph of B.\n"
    for budget in range(12, 80):
        [(heading, passage)] = [item for item in shown(text, budget) if "## B" in item[1]]
        assert "The first" in passage, budget
        assert heading in ("A > B", "A")
    long = f"## B\n\n{'It goes on and on. ' * 40}"
    assert shown(long, 20)[0][1].startswith("## B\n\nIt goes on")


def test_heading_paths() -> None:
    text = "# Guide\n\n## Install #\n\nRun it.\n\n### On C#\n\nSame.\n\n# Use\n\nUse it.\n"
    assert [heading for heading, _ in shown(text, 9)] == ["Guide > Install", "Guide > Install > On C#", "Use"]
    ruled = "*****\nBook\n*****\n\nTitle\n=====\n\nText one here.\n\nPart\n~~~~\n\nText two here.\n"
    assert [heading for heading, _ in shown(ruled, 10)] == ["Book > Title", "Book > Title > Part"]
    numbered = "1 Scope\n\nThis applies to all.\n\n1.1 Limits\n\nNot to some.\n\nANNEX ONE\n\nMore text.\n"
    assert [heading for heading, _ in shown(numbered, 7, "text")] == [
        "1 Scope",
        "1 Scope > 1.1 Limits",
        "1 Scope > ANNEX ONE",
    ]


@pytest.mark.parametrize("mark", "#*=-~^\"'+:_")
def test_titles_between_rules_are_headings(mark: str) -> None:
    text = f"{mark * 5}\nTitle\n{mark * 5}\n\nText.\n"
    assert shown(text, 40, "text") == [("Title", text.strip())]


def test_chapters_are_not_mixed_and_small_sections_are() -> None:
    text = "# A\n\n## a\n\nOne two.\n\n## b\n\nThree four.\n\n# B\n\nFive.\n"
    assert [passage for _, passage in shown(text)] == ["# A\n\n## a\n\nOne two.\n\n## b\n\nThree four.", "# B\n\nFive."]


def test_a_fence_is_one_block_without_headings() -> None:
    text = "# Use\n\nRun:\n```sh\n# not a heading\n\nmake\n```\nThen stop.\n"
    assert shown(text) == [("Use", text.strip())]
    nested = "# Use\n\n````md\n```\n# no\n```\n\n# no\n````\n\n# Yes\n\nText.\n"
    assert [heading for heading, _ in shown(nested)] == ["Use", "Yes"]


def test_a_fence_without_end_is_none() -> None:
    text = "# A\n\n```\nText.\n\n# B\n\nText ``` more.\n\nTitle\n~~~~~\n\nText.\n\n# C\n\nText.\n"
    assert [heading for heading, _ in shown(text, 6)] == ["A", "B", "B > Title", "C"]


def test_front_matter_is_no_heading() -> None:
    text = "---\ntitle: X\ndate: 2024\n---\n\n# A\n\nText.\n"
    assert [heading for heading, _ in shown(text, 8)] == ["", "A"]


def test_definitions_in_code() -> None:
    imports = "import os, sys, re, json"
    first = "@cache\ndef first(x):\n    a = 1\n\n    return a"
    second = "class Second:\n    b = 1\n\n    def c(self):\n        # no heading\n        return 2"
    assert shown("\n\n\n".join([imports, first, second]), 14, "code") == [
        ("", imports),
        ("def first(x)", first),
        ("class Second", second),
    ]


def test_what_belongs_together_is_not_parted() -> None:
    filler = "Words " * 9
    text = f"{filler}\n\ntimeout\n\n    Seconds to wait.\n\n{filler}\n\nYou need:\n\n- bread\n- wine\n\n{filler}"
    found = [passage for _, passage in shown(text, 10)]
    assert "timeout\n\n    Seconds to wait." in found
    assert "You need:\n\n- bread\n- wine" in found


def test_table_rows_are_parted_between_rows() -> None:
    text = "\n".join(f"| row {i} | value {i} |" for i in range(100))
    for _, passage in shown(text, 40):
        assert all(re.fullmatch(r"\| row \d+ \| value \d+ \|", line) for line in passage.split("\n"))


def test_pages() -> None:
    text = "One two three.\n\nFour five six.\n\n"
    document = Document("id", "x.pdf", text, "text", (0, 16, 32))
    assert [found.page for found in passages(document, words, 3)] == [1, 2]
    assert [document.page_of(at) for at in (0, 15, 16, 31, 32)] == [1, 1, 2, 2, 3]
    assert Document("id", "x", text).page_of(3) is None


def test_white_space_counts() -> None:
    """Wide gaps between blocks and sentences are a part of the passage, and of its budget."""
    for gap in ("\n" * 50, " " * 50, "\r\n" * 20):
        document = Document("id", "x", gap.join(["This is one of the sentences."] * 20))
        for found in passages(document, characters, 100):
            assert found.end - found.start <= found.tokens <= 100


def test_text_without_words() -> None:
    assert cut("") == cut(" \n\t\r\n") == []
    assert [found.tokens for found in cut(FAMILY * 3, budget=0, kind="text")] == [1, 1, 1]
    found = list(passages(Document("id", "x", FAMILY * 3), characters, 5))
    assert [(one.start, one.end, one.tokens) for one in found] == [(0, 7, 7), (7, 14, 7), (14, 21, 7)]


LONG = [
    *("word ", "x", ".", "a\n", "a\n\n", "\n", " ", "e\u0301", "1. a\n", "| a | b |\n", "a:\n\n  b\n\n"),
    *(
        "# a\n",
        "# a\n\n",
        "# a\nb\n",
        "a\n---\n",
        "```x\n",
        "`" * 7 + "\n",
        "~~~\n",
        "---\na: b\n",
        "def f():\n    x\n\n",
    ),
]


@pytest.mark.parametrize("piece", LONG)
def test_time_is_linear(piece: str) -> None:
    """Twice the text takes about twice the time, whatever it is made of: one line of megabytes, or only headings."""

    def seconds(size: int) -> float:
        document = Document("id", "x", "A " + piece * (size // len(piece)) + "z")
        began = time.perf_counter()
        for _ in passages(document, characters, 1000):
            pass
        return time.perf_counter() - began

    once, twice = seconds(100_000), seconds(200_000)
    assert twice < 4 * once + 0.3


def test_one_long_line() -> None:
    document = Document("id", "x", "word, " * 500_000)
    began = time.perf_counter()
    found = list(passages(document, words, 256))
    assert time.perf_counter() - began < 20
    assert len(found) < 500_000 / 256 * 1.3
    assert {(one.line_start, one.line_end) for one in found} == {(1, 1)}
