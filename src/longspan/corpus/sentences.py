"""The units of reading: sentences in prose, list items, terms with their definitions, table rows, lines of code.

Each is an exact span that can be quoted alone, with the *lead* under which it stands: the sentence that introduces its
list, or the term that its text defines. Boundaries are found by rules over the text's layout, in linear time; no
language is assumed beyond the marks that end a sentence.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from typing import NamedTuple


class Sentence(NamedTuple):
    """`text[start:end]`, and where its lead stands (`lead_start == lead_end` where there is none)."""

    start: int
    end: int
    lead_start: int = 0
    lead_end: int = 0


MAX_UNIT = 700  # characters; what is longer is cut at a clause or at white space
CODE_LINES = 4  # lines of code that are quoted together

# Atomic, as \r\n would else be taken for two line ends.
_BLANK = re.compile(r"(?>\r\n|\r|\n)(?:[^\S\r\n]*+(?>\r\n|\r|\n))+")
_LINE = re.compile(r"[^\r\n]+")
_ITEM = re.compile(r"[^\S\r\n]*(?:[-*+•·‣–—]|\(?(?:\d{1,3}|[a-zA-Z]|[ivx]{1,4})[.)])[^\S\r\n]+(?=\S)")
_ROW = re.compile(r"[^\S\r\n]*(?:\||\+[-=+]{3,})|.*\S[^\S\r\n]+\|[^\S\r\n]+\S")
_RULE = re.compile(r"[^\S\r\n]*([=\-~^\"'*+#`.:_])\1{2,}[^\S\r\n]*$")
_CODE = re.compile(
    r"[^\S\r\n]*(?:>>> |\.\.\. |\$ |[#%] |@\w|(?:def|class|import|from|return|if|elif|else|for|while|try|except|with|"
    r"static|void|int|const|let|var|public|private|func|fn|use|#include|#define)\b.*[;:{}()]?$)"
    r"|.*[;{}]\s*$|[^\S\r\n]*[\w.\[\]]+\s*(?:=|\+=|:=)\s*\S|[^\S\r\n]*[\])}]+[,;]?\s*$"
)
_TERM = re.compile(r":[^\r\n]+|[^\W_][^\r\n=;{}|\[\]<>]*[^\r\n.;,=(){}|\[\]<>]")
# A stop, what may close after it, then white space and a beginning; or a stop of a script without spaces. It is looked
# for at the first of several marks only: a line of dots would else take quadratic time.
_STOP = re.compile(
    r"(?<![.!?…])[.!?…]++[\"'”’»)\]*_`]*+(?=\s++[\"'“‘«(\[*_`<{\-–—]*+[^\W_a-zß-öø-ÿ])|[。！？｡؟۔।]++[」』”）]*+"
    r"|(?<![!?…])[!?…]++(?=\s)"
)
_SHORT = re.compile(
    r"(?:^|[\s(\[\"'“])(?:[A-Za-z]|e\.g|i\.e|etc|cf|vs|viz|resp|approx|ca|al|Dr|Mr|Mrs|Ms|Prof|St|Jr|Sr|Inc|Ltd|Co|Corp|No|Nos|"
    r"vol|Vol|pp?|ed|eds|Fig|fig|Eq|eq|Sec|sec|Ch|ch|Art|art|Jan|Feb|Mar|Apr|Jun|Jul|Aug|Sept?|Oct|Nov|Dec|U\.S|U\.K|a\.m|p\.m)\.$"
)


def sentences(text: str, start: int = 0, end: int | None = None) -> list[Sentence]:
    """The units of `text[start:end]` in order; together they hold every character that is not white space."""
    end = len(text) if end is None else end
    found: list[Sentence] = []
    lead, lead_indent = (0, 0), -1  # what introduces the coming blocks, and how far it is indented
    follows = ""  # what the lead covers: "deeper" text, "items", all that is "below" it, or "one" block
    for begin, stop in _blocks(text, start, end):
        indent = _indent(text, begin)
        item = _ITEM.match(text, begin, stop) is not None
        if follows == "next":
            follows = "items" if item else "deeper" if indent > lead_indent else "one"
        elif not (
            indent > lead_indent or (follows == "items" and item) or (follows == "below" and indent == lead_indent)
        ):
            follows = ""
        parts = list(_parts(text, begin, stop))
        found += (Sentence(*part, *(lead if follows else (0, 0))) for part in parts)
        first, last = parts[-1]
        length = stop - begin
        deeper = _next_indent(text, stop, end) > indent
        if text[first:last].rstrip("*_`\"'").endswith(":") and not deeper:
            lead, lead_indent, follows = parts[-1], indent, "next"
        elif deeper and not item and (length < 60 or (length < 120 and text[last - 1] not in ".;")):
            lead, lead_indent, follows = (begin, stop), indent, "deeper"  # a term, and its definition below
        elif deeper and text[last - 1] == ":":
            lead, lead_indent, follows = parts[-1], indent, "deeper"
        elif length < 60 and not item and _TERM.fullmatch(text, begin, stop):
            lead, lead_indent, follows = (begin, stop), indent, "below"  # an entry's name or a heading
    return found


def _blocks(text: str, start: int, end: int) -> Iterator[tuple[int, int]]:
    """Spans between blank lines, trimmed of white space, further cut where a list item or a deeper text begins."""
    position = start
    while position < end:
        gap = _BLANK.search(text, position, end)
        stop = gap.start() if gap else end
        yield from _layout(text, position, stop)
        position = gap.end() if gap else end


def _layout(text: str, start: int, end: int) -> Iterator[tuple[int, int]]:
    """Cut a paragraph where its layout says that something new begins: an item, a row, a definition, a rule."""
    begin: int | None = None
    last_end = start
    first_indent = 0
    previous_row = False
    for line in _LINE.finditer(text, start, end):
        content = line.group()
        if not content.strip():
            continue
        indent = len(content) - len(content.lstrip())
        at = line.start() + indent
        row = _ROW.match(content) is not None
        if begin is None:
            begin, first_indent = at, indent
        elif (
            _ITEM.match(content)
            or row
            or previous_row
            or (indent > first_indent and last_end - begin < 80 and not _ITEM.match(text, begin - first_indent, end))
        ):
            yield begin, last_end
            begin, first_indent = at, indent
        previous_row = row
        last_end = line.start() + len(content.rstrip())
    if begin is not None:
        yield begin, last_end


def _parts(text: str, start: int, end: int) -> Iterator[tuple[int, int]]:
    """The sentences of one block; lines where the block is code."""
    block = text[start:end]
    lines = block.splitlines()
    if len(lines) > 1 and sum(_CODE.match(line) is not None for line in lines) * 2 > len(lines):
        yield from _code_lines(text, start, end)
        return
    position = start
    for mark in _STOP.finditer(text, start, end):
        if whole_character(text, mark.end()) != mark.end():
            continue  # a mark in another form: a variation selector follows
        if mark.end() - position < 20 and mark.end() < end and text[mark.end()].isspace():
            continue  # too short to stand alone: "No." or "1."
        if text[mark.start()] == "." and _SHORT.search(text, max(position, mark.start() - 8), mark.start() + 1):
            continue
        yield from _cut(text, position, mark.end())
        position = mark.end()
        while position < end and text[position].isspace():
            position += 1
    if position < end:
        yield from _cut(text, position, end)


def _code_lines(text: str, start: int, end: int) -> Iterator[tuple[int, int]]:
    group: list[re.Match[str]] = []
    for line in _LINE.finditer(text, start, end):
        if line.group().strip():
            group.append(line)
        if len(group) == CODE_LINES:
            yield from _cut(text, *_trim(text, group[0].start(), group[-1].end()))
            group = []
    if group:
        yield from _cut(text, *_trim(text, group[0].start(), group[-1].end()))


def _cut(text: str, start: int, end: int) -> Iterator[tuple[int, int]]:
    """What is too long for a unit, in pieces: at the last clause or white space that fits, else between characters."""
    while end - start > MAX_UNIT:
        limit = start + MAX_UNIT
        at = 0
        for pattern in (";", ": ", ", ", " ", "\n", "\t"):
            at = text.rfind(pattern, start + MAX_UNIT // 2, limit)
            if at > 0:
                at += len(pattern)
                break
        at = whole_character(text, at if at > 0 else limit)
        yield _trim(text, start, at)
        start = at
        while start < end and text[start].isspace():
            start += 1
    if start < end:
        yield start, end


def whole_character(text: str, offset: int) -> int:
    """The nearest offset not after `offset` at which no combining sequence, surrogate pair or CRLF is divided."""
    at = offset
    while 0 < at < len(text) and offset - at < 64:
        if not _continues(text, at):
            return at
        at -= 1
    return offset if offset - at >= 64 else at  # a pile of marks without end is no character


# Joiners, vowels and finals of Hangul, voicing marks of half width, skin tones, tags of flags.
_JOINED = re.compile("[\u200c\u200d\u1160-\u11ff\uff9e\uff9f\U0001f3fb-\U0001f3ff\U000e0020-\U000e007f]")
_FLAG_LETTERS = re.compile("[\U0001f1e6-\U0001f1ff]*")


def _continues(text: str, at: int) -> bool:
    """Whether the character at `at` belongs to the one before it."""
    before, char = text[at - 1], text[at]
    if before.isspace():
        return char == "\n" and before == "\r"
    if char < "\u0300" and before != "\u200d":
        return False
    if "\U0001f1e6" <= char <= "\U0001f1ff":  # the letters of flags stand in pairs
        run = _FLAG_LETTERS.match(text[max(0, at - 200) : at][::-1])
        return run is not None and run.end() % 2 == 1
    return (
        unicodedata.category(char)[0] == "M"
        or before == "\u200d"
        or _JOINED.match(char) is not None
        or ("\ud800" <= before <= "\udbff" and "\udc00" <= char <= "\udfff")
    )


def _trim(text: str, start: int, end: int) -> tuple[int, int]:
    while start < end and text[start].isspace():
        start += 1
    while end > start and text[end - 1].isspace():
        end -= 1
    return start, end


def _indent(text: str, offset: int) -> int:
    """How many characters of white space stand before `offset` in its line."""
    at = offset
    while at > 0 and text[at - 1] in " \t" and offset - at < 200:
        at -= 1
    return offset - at


def _next_indent(text: str, offset: int, end: int) -> int:
    """The indentation of the next line that has text, -1 at the end."""
    at = offset
    while at < end and text[at].isspace() and at - offset < 2000:
        at += 1
    return _indent(text, at) if at < end else -1
