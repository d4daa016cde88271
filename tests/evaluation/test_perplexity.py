"""Perplexity: the same tokens whatever the length, and the numbers of transformers."""

from __future__ import annotations

import pytest

from longspan.evaluation.lengths import TokenCounter
from longspan.evaluation.tasks.perplexity import one, source


def words() -> TokenCounter:
    """A token is a word with the white space after it."""
    import re

    def starts(text: str) -> list[int]:
        return [match.start() for match in re.finditer(r"\S+\s*", text)]

    return TokenCounter("words", lambda text: len(starts(text)), starts, 0)


COUNTER = words()


@pytest.mark.parametrize("length", [256, 1000, 4096])
def test_the_scored_tokens_are_the_same_for_every_length(length: int) -> None:
    sample, longest = (one("length", size, [256, 1000, 4096], 3, 0, COUNTER) for size in (length, 4096))
    assert longest.target == sample.target
    whole = f"{sample.input}{sample.target}"
    assert COUNTER.count(whole) == length
    assert f"{longest.input}{longest.target}".endswith(whole)
    assert whole in source(COUNTER)[0]


def test_no_paragraph_of_the_text_stands_twice() -> None:
    paragraphs = source(COUNTER)[0].split("\n\n")
    assert len(paragraphs) > 1000
    assert len(set(paragraphs)) == len(paragraphs)


def test_prefix_and_sliding_score_the_same_tokens_after_more_and_less() -> None:
    prefix = one("prefix", 2048, [2048, 4096], 1, 0, COUNTER)
    sliding = one("sliding", 2048, [2048, 4096], 1, 0, COUNTER, window=512)
    assert prefix.target == sliding.target
    assert str(prefix.input).endswith(str(sliding.input))
    assert COUNTER.count(str(sliding.input)) == 512
    assert prefix.metadata and prefix.metadata["tokens"] == 2048


def test_stretches_differ_by_number_and_seed() -> None:
    targets = {one("length", 512, [512], number, seed, COUNTER).target for number in range(5) for seed in range(3)}
    assert len(targets) == 15
