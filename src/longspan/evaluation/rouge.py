"""ROUGE-L of summaries (Lin 2004), by the rules of the two Python packages that published benchmarks score with.

They differ in what a word is, what a sentence is and how matches are counted: scores of one are not those of the other.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

SMOOTHING = 1e-8  # in the denominator of `distinct_words`


def common(reference: Sequence[str], candidate: Sequence[str], *, up_on_tie: bool) -> list[int]:
    """The places in `reference` of one longest common subsequence.

    Where several are longest, which one is found matters to unions over sentences: walking back from the end,
    `up_on_tie` drops the last word of `reference` first, otherwise that of `candidate`.
    """
    rows = [[0] * (len(candidate) + 1)]
    for word in reference:
        above = rows[-1]
        row = [0]
        for j, other in enumerate(candidate):
            row.append(above[j] + 1 if word == other else max(above[j + 1], row[j]))
        rows.append(row)
    i, j = len(reference), len(candidate)
    places = []
    while i and j:
        if reference[i - 1] == candidate[j - 1]:
            i, j = i - 1, j - 1
            places.append(i)
        elif rows[i - 1][j] > rows[i][j - 1] or (up_on_tie and rows[i - 1][j] == rows[i][j - 1]):
            i -= 1
        else:
            j -= 1
    return places[::-1]


def distinct_words(reference: str, candidate: str) -> float | None:
    """F of ROUGE-L as the package `rouge` (1.0.1) has it; None where either text has no sentence.

    Sentences end at full stops, words at blanks. The words that any pair of sentences has in common are counted once
    each, against the distinct words of either text. Linear in memory of one pair of sentences: the package recurses
    and fails on pairs of more than some 990 words, this does not.
    """
    theirs, ours = _by_stops(reference), _by_stops(candidate)
    if not theirs or not ours:
        return None
    found = {
        sentence[place] for sentence in theirs for other in ours for place in common(sentence, other, up_on_tie=False)
    }
    recall = len(found) / len({word for sentence in theirs for word in sentence})
    precision = len(found) / len({word for sentence in ours for word in sentence})
    return 2 * precision * recall / (precision + recall + SMOOTHING)


def _by_stops(text: str) -> list[list[str]]:
    return [" ".join(sentence.split()).split(" ") for sentence in text.split(".") if sentence]


def by_lines(reference: str, candidate: str) -> float:
    """F of `rougeLsum` as the package `rouge_score` (0.1.2, without stemming) has it.

    Sentences are lines, words runs of ASCII letters and digits in lower case. The union of a reference line's common
    words over all candidate lines counts, each word no more often than it is in either text.
    """
    theirs, ours = _by_newlines(reference), _by_newlines(candidate)
    left_theirs = Counter(word for line in theirs for word in line)
    left_ours = Counter(word for line in ours for word in line)
    total_theirs, total_ours = left_theirs.total(), left_ours.total()
    if not total_theirs or not total_ours:
        return 0.0
    hits = 0
    for line in theirs:
        union = sorted({place for other in ours for place in common(line, other, up_on_tie=True)})
        for place in union:
            word = line[place]
            if left_theirs[word] > 0 and left_ours[word] > 0:
                hits += 1
                left_theirs[word] -= 1
                left_ours[word] -= 1
    if not hits:
        return 0.0
    recall, precision = hits / total_theirs, hits / total_ours
    return 2 * precision * recall / (precision + recall)


def _by_newlines(text: str) -> list[list[str]]:
    lines = (re.findall("[a-z0-9]+", line.lower()) for line in text.split("\n"))
    return [words for words in lines if words]
