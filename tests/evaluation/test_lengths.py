"""Prompts are as long as was asked, whatever the tokenizer."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from longspan.errors import UsageError
from longspan.evaluation.lengths import TokenCounter, counter, fit, parse_lengths


def fake(per_word: int, overhead: int = 0) -> TokenCounter:
    return TokenCounter("fake", lambda text: len(text.split()) * per_word, lambda text: [], overhead)


@given(st.integers(1, 5), st.integers(0, 40), st.integers(1, 30), st.integers(50, 20_000))
def test_fit_finds_the_largest_that_fits(per_word: int, fixed: int, unit: int, room: int) -> None:
    count = fake(per_word)

    def build(n: int) -> str:
        return "x " * fixed + "y " * (unit * n)

    if fixed * per_word > room:
        with pytest.raises(UsageError, match="too short"):
            fit(build, count, room)
        return
    n, text = fit(build, count, room)
    assert text == build(n)
    assert count.count(text) <= room < count.count(build(n + 1))


@given(st.lists(st.integers(1, 9), min_size=1, max_size=50), st.integers(100, 5000))
def test_fit_holds_where_units_differ(sizes: list[int], room: int) -> None:
    count = fake(1)

    def build(n: int) -> str:
        return "".join("w " * sizes[i % len(sizes)] for i in range(n))

    n, text = fit(build, count, room)
    assert count.count(text) <= room
    assert count.count(build(n)) >= room - 3 * max(sizes)


def test_few_counts_are_made() -> None:
    calls = 0

    def counting(text: str) -> int:
        nonlocal calls
        calls += 1
        return len(text.split())

    fit(lambda n: "word " * n, TokenCounter("calls", counting, lambda text: [], 0), 100_000)
    assert calls <= 6


def test_the_counter_of_a_model_counts_as_it_does(tiny_folder: str) -> None:
    count = counter(tiny_folder)
    assert count.count("abc de") == 6  # bytes
    assert count.starts("abc") == [0, 1, 2]
    assert count.overhead == len("user: \nassistant:") or count.overhead > 0


@pytest.mark.parametrize(
    ("given_lengths", "expected"),
    [("4096", [4096]), ("4k,1k,1024", [1024, 4096]), (512, [512]), ([8192, 64], [64, 8192]), ("0.5m", [524_288])],
)
def test_lengths_as_people_write_them(given_lengths: object, expected: list[int]) -> None:
    assert parse_lengths(given_lengths) == expected  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("wrong", "says"), [("4q", "no length"), ("", "no length"), ("12", "too short"), ("1k,,2k", "no length")]
)
def test_what_is_no_length(wrong: str, says: str) -> None:
    with pytest.raises(UsageError, match=re.escape(says)):
        parse_lengths(wrong)
