"""M4LE's metrics, each of one answer, 0 to 1, by the rules of the paper's `evaluation.py`.

They agree with the official script on English and on lists in both languages. Two things differ: Chinese is split into
characters for ROUGE, where the script takes jieba's words, and BLEU is of each answer, where the script takes it over
all the answers of a length together (a report's mean of BLEU is therefore not the paper's figure).
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence

CHINESE = re.compile(r"[\u3400-\u9fff\uf900-\ufaff]")


def mark(metric: str, answer: str, targets: Sequence[str], ends: Sequence[str] = ()) -> float:
    """How good `answer` is. It is cut at each of `ends` in turn first; the best target counts, but `cls_f1` takes all.

    `acc`: a target stands in the answer. `exact_match`: it is the answer, without regard to case. `cls_f1`: F1 of the
    answer's list of names and the targets. `rouge`: recall of ROUGE-L. `bleu`: BLEU-4. `quoted_rouge`: ROUGE of what
    stands between quotes, if any.
    """
    for end in ends:
        answer = answer.split(end)[0].strip()
    answer = answer.strip()
    if metric == "acc":
        return float(any(target.lower() in answer.lower() for target in targets))
    if metric == "exact_match":
        return float(any(target.lower().strip() == answer.lower() for target in targets))
    if metric == "cls_f1":
        return f1(answer.split("，" if "。" in ends else ","), targets)
    if metric == "bleu":
        return bleu(answer, targets)
    if metric == "quoted_rouge" and '"' in answer:
        answer = answer.split('"')[1].strip()
    return max((rouge_l_recall(answer, target) for target in targets if target), default=0.0)


def f1(given: Sequence[str], wanted: Sequence[str]) -> float:
    """F1 of two sets of names."""
    found, gold = {name.strip() for name in given}, {name.strip() for name in wanted}
    right = len(found & gold)
    return 2 * right / (len(found) + len(gold))


def rouge_l_recall(answer: str, target: str) -> float:
    """The share of the target's distinct words in a common subsequence of one of its sentences and one of the answer's.

    It is what the `rouge` package calls the recall of ROUGE-L: sentences end at full stops, case counts, and a word
    counts once, however often it is said.
    """
    given, wanted = sentences(answer), sentences(target)
    if not given or not wanted:
        return 0.0
    shared = {word for right in wanted for left in given for word in common_subsequence(right, left)}
    return len(shared) / len({word for sentence in wanted for word in sentence})


def sentences(text: str) -> list[list[str]]:
    if CHINESE.search(text):
        text = CHINESE.sub(r" \g<0> ", text)
    # an empty rest, as after a last full stop and a space, is the word "" in the package
    return [part.split() or [""] for part in text.split(".") if part]


def common_subsequence(a: Sequence[str], b: Sequence[str]) -> list[str]:
    """A longest one; of several, that which drops words from the end of `b` first, as the package does."""
    table = [[0] * (len(b) + 1) for _ in range(len(a) + 1)]
    for i, left in enumerate(a):
        for j, right in enumerate(b):
            table[i + 1][j + 1] = table[i][j] + 1 if left == right else max(table[i][j + 1], table[i + 1][j])
    found: list[str] = []
    i, j = len(a), len(b)
    while i and j:
        if a[i - 1] == b[j - 1]:
            found.append(a[i - 1])
            i, j = i - 1, j - 1
        elif table[i - 1][j] > table[i][j - 1]:
            i -= 1
        else:
            j -= 1
    return found[::-1]


# What the official tokenizer sets apart as Chinese: by its way of comparing, general punctuation (U+2001 on) as well.
APART = re.compile(
    r"[\u2001-\u2a6d\u2e80-\u2eff\u2f81-\u303f\u3100-\u312f\u31a0-\u31ef\u3200-\u4db5\u4e00-\u9fbb"
    r"\uf900-\ufa6a\ufa70-\ufad9\ufe10-\ufe1f\ufe30-\ufe4f\uff00-\uffef]"
)
SPLITS = (
    (re.compile(r"([{-~\[-` -&(-+:-@/])"), r" \1 "),
    (re.compile(r"([^0-9])([.,])"), r"\1 \2 "),
    (re.compile(r"([.,])([^0-9])"), r" \1 \2"),
    (re.compile(r"([0-9])(-)"), r"\1 \2 "),
)


def words(text: str, chinese: bool) -> list[str]:
    """Tokens for BLEU: mteval-v13a's, and in Chinese each character for itself."""
    if chinese:
        text = APART.sub(r" \g<0> ", text.strip())
    else:
        text = text.replace("<skipped>", "").replace("-\n", "").replace("\n", " ")
        for name, sign in (("&quot;", '"'), ("&amp;", "&"), ("&lt;", "<"), ("&gt;", ">")):
            text = text.replace(name, sign)
        text = f" {text} "
    for pattern, apart in SPLITS:
        text = pattern.sub(apart, text)
    return text.split()


def bleu(answer: str, targets: Sequence[str]) -> float:
    """BLEU-4 of one answer without smoothing (Papineni et al. 2002), against the shortest target's length."""
    chinese = any(CHINESE.search(target) for target in targets)
    given = words(answer, chinese)
    wanted = [words(target, chinese) for target in targets]
    if not given:
        return 0.0
    logs = 0.0
    for order in range(1, 5):
        grams = ngrams(given, order)
        most: Counter[tuple[str, ...]] = Counter()
        for target in wanted:
            most |= ngrams(target, order)
        matched = sum((grams & most).values())
        if not matched:
            return 0.0
        logs += math.log(matched / sum(grams.values())) / 4
    ratio = len(given) / max(min(len(target) for target in wanted), 1)
    return math.exp(logs) * min(1.0, math.exp(1 - 1 / ratio))


def ngrams(tokens: Sequence[str], order: int) -> Counter[tuple[str, ...]]:
    return Counter(tuple(tokens[i : i + order]) for i in range(len(tokens) - order + 1))
