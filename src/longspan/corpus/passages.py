"""A document cut into passages: exact spans, cut at structure, within a token budget.

One pass over the lines finds blocks (paragraphs, code, list items) and headings; blocks that belong together (a term
and its definition, a sentence that ends in a colon and its list, a definition in source code and its body) form groups;
groups are packed into passages until the budget is reached or a new section begins. Only what is larger than the budget
is divided: a group at its blocks, a block at its sentences, a sentence at white space. Memory is bounded by a batch of
blocks, time is linear.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import islice

from longspan.corpus.document import Document, Passage
from longspan.corpus.sentences import sentences, whole_character

CountTokens = Callable[[list[str]], list[int]]

BATCH = 512  # blocks whose tokens are counted together
MERGE_BELOW = 0.5  # of the budget: a passage smaller than this takes in the next section of the same chapter
HEADING_CHARACTERS = 200  # a longer heading path loses its outer parts
BLOCK_CHARACTERS = 20_000  # a line or paragraph longer than this is read in pieces

_LINE = re.compile(r"[^\r\n]*(?:\r\n|\r|\n|\Z)")
_MARKDOWN = re.compile(r"(#{1,6})[ \t]+(\S.*?)[ \t]*#*$")
_NUMBERED = re.compile(r"((?:\d{1,3}|[A-Z])(?:\.\d{1,3})*)\.?[ \t]+([A-Z\"'`“](?:(?![.!?] ).){1,80})$")
_CHAPTER = re.compile(r"(?:Chapter|CHAPTER|Part|PART|Appendix|APPENDIX|Section|SECTION)[ \t]+[\dIVXA-Z]+\b.{0,90}$")
_CAPITALS = re.compile(r"[A-Z][A-Z0-9 \-/&,()']{3,70}$")
_RULE = re.compile(r"([=\-~^\"'*+#`:_])\1{2,}$")
_FENCE = re.compile(r"[ \t]*(`{3,}|~{3,})")
_RULE_LEVEL = {"#": 1, "*": 1, "=": 2, "-": 3, "~": 4, "^": 5, '"': 6, "'": 6, "`": 6, "+": 6, ":": 6, "_": 6}


@dataclass(slots=True)
class _Block:
    """Lines without a blank one between them. `level` > 0 makes it a heading with this `title`."""

    start: int
    end: int
    line: int
    indent: int
    level: int = 0
    title: str = ""
    tokens: int = 0


@dataclass(slots=True)
class _Group:
    """Blocks that are not parted if they fit the budget together, under the headings `path`."""

    blocks: list[_Block]
    path: str
    chapter: int
    begins_section: bool

    @property
    def tokens(self) -> int:
        return sum(block.tokens for block in self.blocks)


def passages(document: Document, count_tokens: CountTokens, budget: int = 256) -> Iterator[Passage]:
    """Cut a document into passages of at most `budget` tokens, in order, without overlap.

    Every character that is not white space is in exactly one passage. `count_tokens` gives the token counts of a batch
    of strings; a passage's `tokens` is the sum over its blocks.
    """
    open_groups: list[_Group] = []
    spent = 0
    for group in _groups(document, count_tokens, budget):
        tokens = group.tokens
        full = spent + tokens > budget
        new_section = group.begins_section and (
            spent > MERGE_BELOW * budget or (open_groups and group.chapter != open_groups[0].chapter)
        )
        if open_groups and (full or new_section):
            yield _passage(document, open_groups)
            open_groups, spent = [], 0
        if tokens > budget:
            yield from _divided(document, group, count_tokens, budget)
        else:
            open_groups.append(group)
            spent += tokens
    if open_groups:
        yield _passage(document, open_groups)


def _passage(document: Document, groups: list[_Group]) -> Passage:
    first, last = groups[0].blocks[0], groups[-1].blocks[-1]
    tokens = sum(group.tokens for group in groups)
    return _span(document, first.start, last.end, first.line, tokens, groups[0].path)


def _span(document: Document, start: int, end: int, line: int, tokens: int, path: str) -> Passage:
    last = line + len(_BREAK.findall(document.text, start, end))
    return Passage(document.id, start, end, line, last, tokens, path, document.page_of(start))


_BREAK = re.compile(r"\r\n|\r|\n")


def _divided(document: Document, group: _Group, count_tokens: CountTokens, budget: int) -> Iterator[Passage]:
    """Passages of a group that is too large: packed blocks; blocks too large as packed sentences, and so on down."""
    text = document.text
    pieces: list[tuple[int, int, int]] = []  # start, end, tokens
    for block in group.blocks:
        if block.tokens <= budget:
            pieces.append((block.start, block.end, block.tokens))
            continue
        spans = [(unit.start, unit.end) for unit in sentences(text, block.start, block.end)]
        for (start, end), tokens in zip(spans, count_tokens([text[start:end] for start, end in spans]), strict=True):
            pieces += [(start, end, tokens)] if tokens <= budget else _broken(text, start, end, count_tokens, budget)
    begin, line = group.blocks[0].start, group.blocks[0].line
    counted = begin
    packed: list[tuple[int, int, int]] = []
    for piece in [*pieces, None]:
        if piece is None or (packed and sum(tokens for *_, tokens in packed) + piece[2] > budget):
            start, end = packed[0][0], packed[-1][1]
            line += len(_BREAK.findall(text, counted, start))
            counted = start
            yield _span(document, start, end, line, sum(tokens for *_, tokens in packed), group.path)
            packed = []
        if piece is not None:
            packed.append(piece)


def _broken(text: str, start: int, end: int, count_tokens: CountTokens, budget: int) -> list[tuple[int, int, int]]:
    """A sentence larger than the budget, halved at white space (or between characters) until its parts fit."""
    tokens = count_tokens([text[start:end]])[0]
    if tokens <= budget or end - start < 2:
        return [(start, end, tokens)]
    middle = start + (end - start) // 2
    at = text.rfind(" ", start + 1, middle)
    if at < start + (end - start) // 4:
        at = whole_character(text, middle)
        if not start < at < end:
            at = middle
    left, right = at, at
    while left > start and text[left - 1].isspace():
        left -= 1
    while right < end and text[right].isspace():
        right += 1
    return [
        *_broken(text, start, left, count_tokens, budget),
        *_broken(text, right, end, count_tokens, budget),
    ]


# -- groups ---------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Headings:
    """The headings above the present place."""

    stack: list[tuple[int, str]] = field(default_factory=list)
    chapter: int = 0

    def enter(self, level: int, title: str) -> None:
        while self.stack and self.stack[-1][0] >= level:
            self.stack.pop()
        if not self.stack:
            self.chapter += 1
        self.stack.append((level, title))

    @property
    def path(self) -> str:
        titles = [title for _, title in self.stack]
        while len(titles) > 1 and sum(map(len, titles)) + 3 * len(titles) > HEADING_CHARACTERS:
            del titles[0]
        return " > ".join(titles)[:HEADING_CHARACTERS]


def _groups(document: Document, count_tokens: CountTokens, budget: int) -> Iterator[_Group]:
    code = document.kind == "code"
    headings = _Headings()
    group: _Group | None = None
    for block in _counted(document.text, code, count_tokens):
        if block.level:
            if group and not _only_headings(group):
                yield group
                group = None
            headings.enter(block.level, block.title)
            if group is None:
                group = _Group([block], headings.path, headings.chapter, True)
            else:  # a heading right below a heading
                group.blocks.append(block)
                group.path = headings.path
            continue
        if group is None:
            group = _Group([block], _code_path(document.text, block) if code else headings.path, headings.chapter, code)
        elif _belongs(document.text, group, block, code) and group.tokens + block.tokens <= max(
            budget, 2 * block.tokens if _only_headings(group) else 0
        ):
            group.blocks.append(block)
        else:
            yield group
            path = headings.path
            if code:
                path = group.path if block.indent else _code_path(document.text, block)
            group = _Group([block], path, headings.chapter, code and not block.indent)
    if group:
        yield group


def _only_headings(group: _Group) -> bool:
    return all(block.level for block in group.blocks)


def _belongs(text: str, group: _Group, block: _Block, code: bool) -> bool:
    """Whether the block continues the group: below its heading, inside its definition, or introduced by it."""
    if _only_headings(group):
        return True
    first, last = group.blocks[0], group.blocks[-1]
    if code:
        return block.indent > 0
    introduced = text[last.start : last.end].rstrip().endswith(":")
    term = last.end - last.start < 120 and block.indent > last.indent
    return introduced or term or (block.indent > first.indent and not first.level)


_DEFINES = re.compile(
    r"[^\S\r\n]*(?:async\s+)?(?:def|class|func|fn|function|struct|enum|interface|impl|type)\s+.{0,100}"
)


def _code_path(text: str, block: _Block) -> str:
    """The first definition in a block of source code, as its heading."""
    found = _DEFINES.search(text, block.start, min(block.end, block.start + 4000))
    return found.group().strip().rstrip("{:").strip() if found else ""


# -- blocks ---------------------------------------------------------------------------------------------------------


def _counted(text: str, code: bool, count_tokens: CountTokens) -> Iterator[_Block]:
    """The blocks with their token counts, counted in batches."""
    stream = _blocks(text, code)
    while batch := list(islice(stream, BATCH)):
        for block, tokens in zip(batch, count_tokens([text[b.start : b.end] for b in batch]), strict=True):
            block.tokens = tokens + 1  # the line break that joins it to the next
            yield block


def _blocks(text: str, code: bool) -> Iterator[_Block]:
    """Blank lines part blocks; a heading is a block of its own; a fence holds its blank lines."""
    lines: list[tuple[int, int, int]] = []  # start, end without the line break, number
    size = 0
    fence = ""
    for start, end, number in _lines(text):
        blank = not text[start:end].strip()
        mark = _FENCE.match(text, start, end)
        if mark and not code:
            fence = "" if fence and mark[1].startswith(fence) else fence or mark[1][:3]
        if (blank and not fence) or size > BLOCK_CHARACTERS:
            if lines:
                yield from _with_headings(text, lines, code)
            lines, size = [], 0
            if blank:
                continue
        if not blank or lines:
            lines.append((start, end, number))
            size += end - start
    if lines:
        yield from _with_headings(text, lines, code)


def _lines(text: str) -> Iterator[tuple[int, int, int]]:
    """Start, end (without its break) and number of each line; a line beyond all measure comes in pieces."""
    number = 0
    for match in _LINE.finditer(text):
        number += 1
        start, end = match.span()
        if start == end:
            continue
        while end > start and text[end - 1] in "\r\n":
            end -= 1
        while end - start > BLOCK_CHARACTERS:
            at = text.rfind(" ", start + BLOCK_CHARACTERS // 2, start + BLOCK_CHARACTERS)
            at = at if at > start else whole_character(text, start + BLOCK_CHARACTERS)
            yield start, at, number
            start = at
        yield start, end, number


def _with_headings(text: str, lines: list[tuple[int, int, int]], code: bool) -> Iterator[_Block]:
    """The lines as one block, or as several where some of them are headings."""
    rest = lines
    while rest and not code:
        taken, level, title = _heading(text, rest, alone=len(rest) == len(lines))
        if not taken:
            break
        yield from _block(text, rest[:taken], level, title)
        rest = rest[taken:]
    # A heading may also stand under a text without a blank line between (Markdown, or a title line with its rule).
    for at in range(1, len(rest) if not code else 0):
        taken, level, title = _heading(text, rest[at:], alone=False)
        if taken:
            yield from _block(text, rest[:at])
            yield from _block(text, rest[at : at + taken], level, title)
            if rest[at + taken :]:
                yield from _with_headings(text, rest[at + taken :], code)
            return
    yield from _block(text, rest)


def _block(text: str, lines: list[tuple[int, int, int]], level: int = 0, title: str = "") -> Iterator[_Block]:
    kept = [line for line in lines if text[line[0] : line[1]].strip()]
    if not kept:
        return
    start, end = kept[0][0], kept[-1][1]
    indent = len(text[start : kept[0][1]]) - len(text[start : kept[0][1]].lstrip())
    while text[end - 1].isspace():
        end -= 1
    yield _Block(start + indent, end, kept[0][2], indent, level, title)


def _heading(text: str, lines: list[tuple[int, int, int]], *, alone: bool) -> tuple[int, int, str]:
    """How many of the first lines are a heading, its level and title; (0, 0, "") for none.

    `alone` says that a blank line (or the beginning) stands before them, which the looser styles need.
    """
    first = text[lines[0][0] : lines[0][1]].rstrip()
    if len(first) > 160:
        return 0, 0, ""
    if found := _MARKDOWN.match(first):
        return 1, len(found[1]), found[2]
    if len(lines) > 2 and _RULE.match(first) and _is_rule(text, lines[2], first[0]):  # over- and underlined
        title = text[lines[1][0] : lines[1][1]].strip()
        if title and len(first) >= 0.6 * len(title):
            return 3, _RULE_LEVEL[first[0]] - 1, title
    if len(lines) > 1 and first.strip() and not first[0].isspace():
        second = text[lines[1][0] : lines[1][1]].rstrip()
        if _RULE.match(second) and len(second) >= 0.6 * len(first) and not _RULE.match(first):
            return 2, _RULE_LEVEL[second[0]], first.strip()
    if not alone or len(lines) > 1 or first.endswith((".", ",", ";")):
        return 0, 0, ""
    bare = first.strip()
    if len(first) - len(bare) > 1:
        return 0, 0, ""  # an indented number is a list's
    if found := _NUMBERED.match(bare):
        return 1, found[1].count(".") + 1, bare
    if not first[0].isspace() and _CHAPTER.match(bare):
        return 1, 1, bare
    if not first[0].isspace() and _CAPITALS.match(bare):
        return 1, 2, bare
    return 0, 0, ""


def _is_rule(text: str, line: tuple[int, int, int], mark: str) -> bool:
    found = _RULE.match(text[line[0] : line[1]].rstrip())
    return found is not None and found[1] == mark
