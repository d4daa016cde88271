"""What kind of answer a question asks for, by its wording."""

from __future__ import annotations

import re
from typing import Literal

from longspan.workflows.words import stems

Kind = Literal["fact", "list", "count", "summary", "compare", "multi-hop"]
WHOLE = frozenset({"list", "count", "summary"})  # kinds that take the whole text

_SUMMARY = re.compile(
    r"\b(summar(y|i[sz]e)|overview|tl;?dr|gist|outline)\b|\bmain (points|ideas|topics|themes)\b"
    r"|\bwhat (is|are) (the|this|these) (text|document|book|file|manual|article)s? about\b",
    re.IGNORECASE,
)
# "How many characters may a name have" is a fact that the text states; "how many times" has to be counted.
_COUNT = re.compile(
    r"\bhow (many times|often (does|is|do|are) .+ (occur|appear|mention))|\bcount (all|every|each|the)\b"
    r"|\bhow many .+ (are|is|were) (there|listed|mentioned|named|described|documented) in (the|this|these)\b",
    re.IGNORECASE,
)
_LIST = re.compile(
    r"^\W*(list|enumerate|find|name|show|give( me)?) (\w+ )?(all|every|each)\b|^\W*(which|what) are all\b"
    r"|\ball (of )?the (\w+ )+(mentioned|listed|named)\b",
    re.IGNORECASE,
)


_COMPARE = re.compile(
    r"\bcompar(e|ed|es|ing|ison)\b|\bdifferences? between\b|\b(differs?|different) from\b|\bversus\b|\bvs\b"
    r"|\bhave in common\b|\b(alike|similar) (are|is) .+ and\b",
    re.IGNORECASE,
)
# A thing that is only described, by another that is only described: "the town where the man who built the mill lived".
_HOP = re.compile(r"(?<!^)\b(who|whom|whose|which|that|where)\b(?! (is|are|was|were|of|one)\b)", re.IGNORECASE)


def kind_of(question: str) -> Kind:
    """By wording: "summary", "count" or "list" for a question that takes the whole text (`WHOLE`), "compare" for one of
    what several things have in common or not, "multi-hop" where what is asked is described twice over, else "fact"."""
    if _SUMMARY.search(question):
        return "summary"
    if _COUNT.search(question):
        return "count"
    if _LIST.search(question):
        return "list"
    if _COMPARE.search(question):
        return "compare"
    return "multi-hop" if any(len(_HOP.findall(part)) > 1 for part in parts(question)) else "fact"


_ITEMS = re.compile(
    r"^(?P<base>.*\b(?:of|for))\s(?P<items>.+?)(?P<tail>(?: in the (?:text|document|book))?\s*\?.*)$", re.DOTALL
)
_TOGETHER = re.compile(r"\b(between|both|compare[ds]?|difference|versus|together|common|sum|total)\b", re.IGNORECASE)


def singly(question: str) -> list[str]:
    """A question of several things, as one question for each: "the codes of the mill and the barn?" is that "of the
    mill?" and that "of the barn?". Another question, also one of what things have in common, stays as it is."""
    found = _ITEMS.match(question)
    if not found or _TOGETHER.search(question):
        return [question]
    items = [item.strip() for item in re.split(r",\s*and\s+|,\s*|\s+and\s+", found["items"])]
    alike = {item.startswith("the ") for item in items}
    if len(items) < 2 or len(alike) > 1 or any(not item or len(item.split()) > 4 for item in items):
        return [question]
    return [f"{found['base']} {item}{found['tail']}" for item in items]


_ASKS_NUMBER = re.compile(
    r"\bhow (many|much|long|often|old|large|big|small|far|fast|high|deep|wide)\b|\bwhen\b|\b(maximum|minimum)\b"
    r"|\b(what|which) (\w+ ){0,3}(number|count|amount|year|date|size|length|port|percentage|share|version|rate|price"
    r"|priority|limit)\b",
    re.IGNORECASE,
)
_NUMBER = re.compile(
    r"\bhow (many|much|long|often|old|large|big|small|far|fast|high|deep|wide)\b|\bwhen\b"
    r"|\b(what|which) (\w+ )?(number|count|amount|year|date|size|length|port|percentage|share|version|release|value"
    r"|level|id|rate|price|priority|limit|maximum|minimum|default)\b|\b(maximum|minimum)\b",
    re.IGNORECASE,
)


_NUMBER = re.compile(
    r"\d[\d.,]*|\b(one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|once|twice|single|dozen|half|hundred"
    r"|thousand|million)\b",
    re.IGNORECASE,
)
_YEAR = re.compile(r"\b(1\d|20)\d\d\b")
_VERSION = re.compile(r"\d\.\d")
_HOW_MANY = re.compile(r"\bhow many ((?:[\w-]+ ){0,2}[\w-]+)", re.IGNORECASE)
BESIDE = 5  # words between a number and what it counts


def lacks_number(question: str, text: str) -> bool:
    """Whether the question asks for a number that the text does not have: for "how many mills" one beside a word of
    these, for a year one of four digits, for a version one with a point, else any."""
    if not _ASKS_NUMBER.search(question):
        return False
    if counted := _HOW_MANY.search(question):
        of, words = set(stems(counted[1])), text.split()
        return not any(
            of & set(stems(" ".join(words[max(at - BESIDE, 0) : at + BESIDE + 1])))
            for at, word in enumerate(words)
            if _NUMBER.search(word)
        )
    for noun, number in (("year", _YEAR), ("version", _VERSION)):
        if re.search(rf"\b{noun}\b", question, re.IGNORECASE):
            return not number.search(text)
    return not _NUMBER.search(text)


_ASKS = r"(?:what|which|who|whom|whose|where|when|why|how)\b"
_NEXT_PART = re.compile(
    r"(?<=\?)\s+(?=\S)"
    rf"|[,;]?\s+and,?\s+(?=(?:(?:then|later|also),?\s+)?(?:(?:in|at|from|on|to|for|with|by|of|under|into)\s+)?{_ASKS})",
    re.IGNORECASE,
)


def parts(question: str) -> list[str]:
    """What is asked for: "Where do the scripts go, and which package do they need?" is two questions."""
    found = [part.strip() for part in _NEXT_PART.split(question) if part.strip()]
    asking = [f"{part.rstrip(' ,;.?')}?" for part in found if re.search(_ASKS, part, re.IGNORECASE)]
    return asking if len(asking) > 1 else [question]


def things(question: str) -> tuple[str, ...]:
    """Each thing asked for, as a question of its own: of `parts`, and of each part's `singly`."""
    return tuple(item for part in parts(question) for item in singly(part))


_POINTS_BACK = re.compile(r"^\W*(and|or|but|what about|how about|why|where|when|who)\b.{0,40}$", re.IGNORECASE)
_PRONOUN = re.compile(r"\b(it|its|they|them|their|that one|this one|he|she|his|her)\b", re.IGNORECASE)


def standalone(question: str, previous: str) -> str:
    """A follow-up that leans on the question before it, with that question's words added for the search."""
    if previous and (_PRONOUN.search(question) or (_POINTS_BACK.match(question) and len(question.split()) <= 6)):
        return f"{question.rstrip()} ({previous})"
    return question
