"""What the answer to a question must hold, by the question's wording: a number, a date, a name, a piece of code."""

from __future__ import annotations

import re

_NUMBER = (
    r"\d|\b(?:zero|one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|fifteen|twenty|thirty|forty|fifty"
    r"|sixty|ninety|hundred|thousand|million|once|twice|single|no more than|half|third|quarter|unlimited|infinite)\b"
)
_DURATION = (
    _NUMBER
    + r"|\b(?:second|minute|hour|day|week|month|year|decade|century|season|always|never|forever|immediately)s?\b"
)
_DATE = (
    r"\b(?:1[5-9]|20)\d\d\b|\b\d{4}s\b|\b(?:January|February|March|April|May|June|July|August|September|October"
    r"|November|December|(?:early|mid|late)[ -]\d+s)\b"
)
_NAME = r"(?<![.!?:]\s)(?<!^)(?<=\s)[\"'“(]?[A-Z][\w’'-]+|\S@\S"
_CODE = (
    r"[\"'“‘`][^\s\"'”’`]{1,40}[\"'”’`]|(?<!\w)--?[a-zA-Z][\w-]*|(?<!\w)[~/.][\w.~-]*/[\w./~-]*|\w[._:]\w+|\w+\(\)|\b[A-Z][A-Z_]{2,}\b"
    r"|\b[a-z]+[A-Z]\w*|\b[A-Z][a-z]+[A-Z]\w*|<[^>\s]+>|\$\w+|\b\w+-\w+\b|\s[%&|^~+*/=<>!]=?\s"
)
_REASON = (
    r"\b(?:because|since|so (?:that|as)|in order|due|therefore|thus|otherwise|avoid|prevent|allow|ensure|reason|cause"
    r"|would|to)\b"
)
_PLACE = _CODE + r"|\b(?:in|at|under|on|from|into|to|section|chapter|file|directory)\b"
_ORDINAL = (
    _NUMBER + r"|\b(?:first|last|second|latest|since|before|after|until|during|version|when|whenever|if|once|as soon as"
    r"|begin\w*|start\w*)\b"
)

# The first rule whose pattern the question has says what an answer must hold.
_RULES: list[tuple[re.Pattern[str], re.Pattern[str]]] = [
    (re.compile(question, re.IGNORECASE), re.compile(answer, flags))
    for question, answer, flags in (
        (r"\bhow (?:long|soon|often|old|late|early)\b|\bhow much time\b", _DURATION, re.IGNORECASE),
        (
            r"\bhow (?:many|much|large|big|small|wide|deep|high|tall|far|fast|heavy)\b|\b(?:number|percentage|share|"
            r"fraction|ratio|size|length|width|port|priority|maximum|minimum|limit)\b(?! of (?:the )?(?:lines|files))",
            _NUMBER,
            re.IGNORECASE,
        ),
        (r"\b(?:what|which|in what|in which) (?:year|month|date|decade)\b", _DATE, re.IGNORECASE),
        (r"\b(?:what|which) version\b", _NUMBER, re.IGNORECASE),
        (r"^\W*(?:since |until |from )?when\b|\bwhen (?:was|were|did|is|does|do|will)\b", _ORDINAL, re.IGNORECASE),
        (
            r"\bwho(?:m|se)?\b|\b(?:which|what) (?:person|people|author|company|university|magazine|country|city)\b",
            _NAME,
            0,
        ),
        (
            r"\b(?:what|which|name of the|by what|with what|under what) (?:[\w-]+ ){0,2}(?:command|option|flag|switch"
            r"|file|director(?:y|ies)|folder|path|variable|function|method|module|class|exception|error|keyword|operator|"
            r"attribute|parameter|argument|field|header|signal|key|character|symbol|setting|tool|program|script|package|"
            r"macro|builtin|built-in|encoding|type|format|address|url|tag|section|target|statement)s?\b",
            _CODE + "|" + _NAME,
            0,
        ),
        (r"\bwhy\b|\bwhat(?:'s| is) the reason\b|\bfor what reason\b", _REASON, re.IGNORECASE),
        (r"\bwhere\b", _PLACE, 0),
    )
]
_WORD = re.compile(r"\w+")


def expects(question: str) -> re.Pattern[str] | None:
    """The pattern that an answer to `question` has somewhere; None where the wording does not tell."""
    return next((answer for asks, answer in _RULES if asks.search(question)), None)


def holds(pattern: re.Pattern[str] | None, question: str, text: str) -> float:
    """1.0 if `text` has what is expected, in words that the question does not have already; -1.0 if not; 0.0 if
    nothing is expected."""
    if pattern is None:
        return 0.0
    asked = {word.lower() for word in _WORD.findall(question)}
    for found in pattern.finditer(text):
        words = [word.lower() for word in _WORD.findall(found.group())]
        if not words or any(word not in asked for word in words):
            return 1.0
    return -1.0
