"""Haystacks: of just the length, needles where they were put, and counted once or twice whatever the length."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from longspan.errors import LongspanError, UsageError
from longspan.evaluation.haystack import KINDS, NOISE, Hidden, at_depths, hide, prose, source_of
from longspan.evaluation.lengths import TokenCounter

TOKEN = re.compile(r"\w{1,6}|[^\w\s]")
BEFORE, AFTER = "Read this.\n\n", "\n\nWhat is the code?"
NEEDLE = "The code of the tower is 4711."


def counted(text: str) -> int:
    return len(TOKEN.findall(text))


COUNTER = TokenCounter("pieces of words", counted, lambda text: [match.start() for match in TOKEN.finditer(text)], 7)


def hidden(kind: str, room: int, depths: list[float], seed: str = "0", counter: TokenCounter = COUNTER) -> Hidden:
    needles = [NEEDLE.replace("tower", f"tower {i}") for i in range(len(depths))]
    return hide(
        needles,
        at_depths(depths),
        haystack=kind,
        before=BEFORE,
        after=AFTER,
        room=room,
        counter=counter,
        seed=seed,
    )


@settings(max_examples=40, deadline=None)
@given(st.sampled_from(KINDS), st.integers(300, 16_000), st.floats(0, 1), st.integers(0, 99))
def test_the_room_is_filled(kind: str, room: int, depth: float, seed: int) -> None:
    made = hidden(kind, room, [depth], str(seed))
    assert made.tokens == counted(BEFORE + made.context + AFTER)
    unit = max(counted(sentence) for sentence in NOISE) if kind == "noise" else 300 if kind == "repeated" else 3
    assert 0 <= room - made.tokens <= max(room // 100, unit)


@settings(max_examples=30, deadline=None)
@given(st.sampled_from(KINDS), st.lists(st.floats(0, 1), max_size=4), st.integers(0, 99))
def test_needles_stand_between_sentences_at_their_depths(kind: str, depths: list[float], seed: int) -> None:
    depths = sorted(depths)
    made = hidden(kind, 3000, depths, str(seed))
    before = -1
    for i, depth in enumerate(depths):
        needle = NEEDLE.replace("tower", f"tower {i}")
        assert made.context.count(needle) == 1
        at = made.context.index(needle)
        assert at > before
        before = at
        assert at == 0 or not made.context[:at].rstrip()[-1].isalnum()
        assert made.depths[i] == pytest.approx(depth, abs=0.06)
        assert at / len(made.context) == pytest.approx(made.depths[i], abs=0.04)


@pytest.mark.parametrize("kind", KINDS)
def test_the_ends_are_the_ends(kind: str) -> None:
    made = hidden(kind, 1003, [0.0, 1.0])
    assert made.context.startswith(NEEDLE.replace("tower", "tower 0"))
    assert made.context.endswith(NEEDLE.replace("tower", "tower 1"))
    assert made.depths == (0.0, 1.0)


def test_hay_of_real_text_is_of_the_documentation_in_order() -> None:
    made = hidden("real", 2000, [])
    text = " ".join(prose())
    assert made.context in f"{text} {text}" or made.context in " ".join(prose(more=True))


def test_noise_is_rulers_lines_and_repeated_is_one_passage() -> None:
    lines = hidden("noise", 1000, [0.5]).context.splitlines()
    assert set(lines[:-1]) == {" ".join(NOISE), NEEDLE.replace("tower", "tower 0")}
    passage = hidden("repeated", 3000, []).context
    assert passage.count(passage[:60]) > 3
    assert hidden("repeated", 3000, [], "1").context[:60] != passage[:60]


def test_the_same_arguments_make_the_same_hay() -> None:
    assert hidden("real", 1500, [0.3]) == hidden("real", 1500, [0.3])
    assert hidden("real", 1500, [0.3], "1").context != hidden("real", 1500, [0.3]).context


def test_a_long_prompt_is_counted_twice_at_most() -> None:
    long = []

    def count(text: str) -> int:
        long.extend([text] if len(text) > 10_000 else [])
        return counted(text)

    for kind in KINDS:
        long.clear()
        made = hidden(kind, 128_000, [0.2, 0.8], counter=TokenCounter("counts", count, COUNTER.starts, 0))
        assert made.tokens >= 127_000
        assert len(long) <= 2


def test_a_tokenizer_that_joins_sentences_is_met_too() -> None:
    """Where the parts do not add up (here: one token less for every 40 characters) the whole is what counts."""

    def count(text: str) -> int:
        return counted(text) - len(text) // 40

    made = hidden("real", 4000, [0.5], counter=TokenCounter("joins", count, COUNTER.starts, 0))
    assert 3960 <= count(BEFORE + made.context + AFTER) <= 4000


def test_the_users_own_text(tmp_path: Path) -> None:
    book = tmp_path / "book.txt"
    book.write_text(" ".join(f"Chapter {i} tells of the sea and of ship number {i}." for i in range(50)))
    made = hidden(str(book), 500, [0.5])
    assert "of ship number" in made.context
    assert made.context.count(NEEDLE.replace("tower", "tower 0")) == 1
    assert 490 <= hidden(str(book), 2000, [0.5]).tokens - 1500 <= 500  # longer than the text: it begins again


def test_what_cannot_be_made(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no haystack 'essays': give noise, repeated, real"):
        hidden("essays", 1000, [0.5])
    with pytest.raises(UsageError, match=r"needs at least 17 tokens, and .* room for 12"):
        hidden("real", 12, [0.5])
    short = tmp_path / "short.txt"
    short.write_text("One sentence only, and that is all there is.")
    with pytest.raises(LongspanError, match="has only 1 sentences"):
        hidden(str(short), 1000, [0.5])


def test_tokens_of_pieces_add_up() -> None:
    pieces = [" Alpha beta.", " Gamma", " delta-epsilon."]
    source = source_of(pieces, COUNTER)
    assert source.ends == (0, *(counted("".join(pieces[: i + 1])) for i in range(3)))
    assert source.tokens(2, 4) == sum(counted(pieces[i % 3]) for i in range(2, 6))
    for room in range(40):
        n = source.most(1, room)
        assert source.tokens(1, n) <= room < source.tokens(1, n + 1)
