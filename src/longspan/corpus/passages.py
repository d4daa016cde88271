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
_MARKDOWN = re.compile(r"(#{1,6})[ \t]+(\S.*?)(?:[ \t]+#+)?[ \t]*$")
_NUMBERED = re.compile(r"((?:\d{1,3}|[A-Z])(?:\.\d{1,3})*)\.?[ \t]+([A-Z\"'`“](?:(?![.!?] ).){1,80})$")
_CHAPTER = re.compile(r"(?:Chapter|CHAPTER|Part|PART|Appendix|APPENDIX|Section|SECTION)[ \t]+[\dIVXA-Z]+\b.{0,90}$")
_CAPITALS = re.compile(r"[A-Z][A-Z0-9 \-/&,()']{3,70}$")
_RULE = re.compile(r"([=\-~^\"'*+#`:_])\1{2,}$")
# Backticks may name a language, tildes too; a longer rule of tildes alone underlines a title.
_FENCE = re.compile(r"[ \t]*(`{3,}(?![^`]*`)|~{3,}(?=[ \t]*\w)|~{3}(?=[ \t]*$))")
_FRONT_MATTER = re.compile(r"---[ \t]*\r?\n(?:(?:[\w.-]+:|[ \t-]).*\r?\n)+?---[ \t]*(?=[\r\n]|\Z)")
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
    gap: int = 0  # tokens of the white space before it


@dataclass(slots=True)
class _Group:
    """Blocks that are not parted if they fit the budget together, under the headings `path`."""

    blocks: list[_Block]
    path: str
    chapter: int
    begins_section: bool
    tokens: int = field(init=False)
    only_headings: bool = field(init=False)

    def __post_init__(self) -> None:
        self.tokens = self.blocks[0].tokens
        self.only_headings = self.blocks[0].level > 0

    def add(self, block: _Block) -> None:
        self.blocks.append(block)
        self.tokens += block.gap + block.tokens
        self.only_headings = self.only_headings and block.level > 0


def passages(document: Document, count_tokens: CountTokens, budget: int = 256) -> Iterator[Passage]:
    """Cut a document into passages of at most `budget` tokens, in order, without overlap.

    Every character that is not white space is in exactly one passage. `count_tokens` gives the token counts of a batch
    of strings; a passage's `tokens` is the sum over its parts and the white space between them. Only a single
    character that has more tokens than the budget makes a passage larger.
    """
    open_groups: list[_Group] = []
    spent = 0
    count_gap = _gap_counter(count_tokens)
    for group in _groups(document, count_tokens, count_gap, budget):
        full = spent + group.blocks[0].gap + group.tokens > budget
        new_section = group.begins_section and (
            spent > MERGE_BELOW * budget or (open_groups and group.chapter != open_groups[0].chapter)
        )
        if open_groups and (full or new_section):
            yield _passage(document, open_groups, spent)
            open_groups, spent = [], 0
        if group.tokens > budget:
            yield from _divided(document, group, count_tokens, count_gap, budget)
        else:
            spent += group.tokens + (group.blocks[0].gap if open_groups else 0)
            open_groups.append(group)
    if open_groups:
        yield _passage(document, open_groups, spent)


def _gap_counter(count_tokens: CountTokens) -> Callable[[str], int]:
    """Counts the tokens of white space; the same few strings come again and again."""
    known = {"": 0}

    def count(gap: str) -> int:
        if gap not in known:
            if len(known) > 1000:
                del known[next(reversed(known))]
            known[gap] = max(1, count_tokens([gap])[0])
        return known[gap]

    return count


def _passage(document: Document, groups: list[_Group], tokens: int) -> Passage:
    first, last = groups[0].blocks[0], groups[-1].blocks[-1]
    return _span(document, first.start, last.end, first.line, tokens, groups[0].path)


def _span(document: Document, start: int, end: int, line: int, tokens: int, path: str) -> Passage:
    first = document.line - 1 + line
    last = first + len(_BREAK.findall(document.text, start, end))
    return Passage(document.id, start, end, first, last, tokens, path, document.page_of(start))


_BREAK = re.compile(r"\r\n|\r|\n")


def _divided(
    document: Document, group: _Group, count_tokens: CountTokens, count_gap: Callable[[str], int], budget: int
) -> Iterator[Passage]:
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
    line = group.blocks[0].line
    begin, end, spent = pieces[0]
    counted = begin  # up to here lines are counted
    for piece in [*pieces[1:], None]:
        if piece is not None:
            more = count_gap(text[end : piece[0]]) + piece[2]
            if spent + more <= budget:
                end, spent = piece[1], spent + more
                continue
        line += len(_BREAK.findall(text, counted, begin))
        counted = begin
        yield _span(document, begin, end, line, spent, group.path)
        if piece is not None:
            begin, end, spent = piece


def _broken(text: str, start: int, end: int, count_tokens: CountTokens, budget: int) -> list[tuple[int, int, int]]:
    """A sentence larger than the budget, halved at white space (or between characters) until its parts fit."""
    tokens = count_tokens([text[start:end]])[0]
    if tokens <= budget:
        return [(start, end, tokens)]
    middle = start + (end - start) // 2
    at = text.rfind(" ", start + 1, middle)
    if at < start + (end - start) // 4:
        at = whole_character(text, middle)
        if at <= start:  # the first character is longer than half
            at = next((at for at in range(middle + 1, end) if whole_character(text, at) == at), end)
        if at >= end:
            return [(start, end, tokens)]
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


def _groups(
    document: Document, count_tokens: CountTokens, count_gap: Callable[[str], int], budget: int
) -> Iterator[_Group]:
    code = document.kind == "code"
    headings = _Headings()
    group: _Group | None = None
    for block in _counted(document.text, code, count_tokens, count_gap):
        if block.level:
            if group and (not group.only_headings or group.tokens + block.gap + block.tokens > budget):
                yield group
                group = None
            headings.enter(block.level, block.title)
            if group is None:
                group = _Group([block], headings.path, headings.chapter, True)
            else:  # a heading right below a heading
                group.add(block)
                group.path = headings.path
            continue
        if group is None:
            group = _Group([block], _code_path(document.text, block) if code else headings.path, headings.chapter, code)
        elif _belongs(document.text, group, block, code) and group.tokens + block.gap + block.tokens <= max(
            budget, 2 * block.tokens if group.only_headings else 0
        ):
            group.add(block)
        else:
            yield group
            path = headings.path
            if code:
                path = group.path if block.indent else _code_path(document.text, block)
            group = _Group([block], path, headings.chapter, code and not block.indent)
    if group:
        yield group


def _belongs(text: str, group: _Group, block: _Block, code: bool) -> bool:
    """Whether the block continues the group: below its heading, inside its definition, or introduced by it."""
    if group.only_headings:
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


def _counted(text: str, code: bool, count_tokens: CountTokens, count_gap: Callable[[str], int]) -> Iterator[_Block]:
    """The blocks with their token counts, counted in batches."""
    stream = _blocks(text, code)
    end = 0
    while batch := list(islice(stream, BATCH)):
        for block, tokens in zip(batch, count_tokens([text[b.start : b.end] for b in batch]), strict=True):
            block.tokens = tokens
            block.gap = count_gap(text[end : block.start])
            end = block.end
            yield block


def _blocks(text: str, code: bool) -> Iterator[_Block]:
    """Blank lines part blocks; a heading is a block of its own, and so is a fence, with its blank lines."""
    lines: list[tuple[int, int, int]] = []  # start, end without the line break, number
    size = 0
    front = None if code else _FRONT_MATTER.match(text)
    fence_end = front.end() if front else 0
    unclosed = {"`": len(text), "~": len(text)}  # from how many marks on a fence is known to have no end
    for start, end, number in _lines(text):
        if start < fence_end:
            lines.append((start, end, number))
            size += end - start
            if end >= fence_end or size > BLOCK_CHARACTERS:
                yield from _block(text, lines)
                lines, size = [], 0
            continue
        blank = not text[start:end].strip()
        if not code and (mark := _FENCE.match(text, start, end)) and len(mark[1]) < unclosed[mark[1][0]]:
            close = re.compile(rf"[\r\n][ \t]*{mark[1]}{mark[1][0]}*[ \t]*(?=[\r\n]|\Z)").search(text, end)
            if close:
                fence_end = close.end()
            else:
                unclosed[mark[1][0]] = len(mark[1])
        if blank or start < fence_end or size > BLOCK_CHARACTERS:
            if lines:
                yield from _with_headings(text, lines, code)
            lines, size = [], 0
        if not blank:
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
    """The lines as one block, or as several where some of them are headings.

    A heading may stand under a text without a blank line between (Markdown, or a title line with its rule).
    """
    begin = at = 0
    while at < len(lines) and not code:
        taken, level, title = _heading(text, lines[at : at + 3], alone=len(lines) == 1)
        if taken:
            yield from _block(text, lines[begin:at])
            yield from _block(text, lines[at : at + taken], level, title)
            begin = at + taken
        at += taken or 1
    yield from _block(text, lines[begin:])


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
    if lines[0][1] - lines[0][0] > 200:
        return 0, 0, ""
    first = text[lines[0][0] : lines[0][1]].rstrip()
    if len(first) > 160:
        return 0, 0, ""
    if found := _MARKDOWN.match(first):
        return 1, len(found[1]), found[2]
    if len(lines) > 2 and _RULE.match(first) and _is_rule(text, lines[2], first[0]):  # over- and underlined
        title = text[lines[1][0] : lines[1][1]].strip()
        if title and len(first) >= 0.6 * len(title):
            return 3, max(1, _RULE_LEVEL[first[0]] - 1), title
    if len(lines) > 1 and first.strip() and not first[0].isspace():
        second = text[lines[1][0] : min(lines[1][1], lines[1][0] + 1000)].rstrip()
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
