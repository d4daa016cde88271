"""The tasks of Giraffe (arXiv:2308.10882): LongChat-Lines, FreeFormQA and AlteredNumericQA.

*LongChat-Lines* is a list of records, each with a key of two words and a number; one is asked for. The form of a line,
the numbers (1 to 50 000, as LongEval's generator draws them, whose task this extends) and the reading of the answer
(its first number) are the original's; words and instructions are our own, and the line asked for, drawn there, stands
at even depths here. No key stands twice: one that is taken gets a further word.

*FreeFormQA* asks what a passage of a document tells, in the document's own words; the passage stands in the first
tenth, between, or in the last tenth, and the question before or after the document. *AlteredNumericQA* asks for
numbers only, and the number is another one wherever it stands, so that it can be read but not recalled: a year moves
by at most ten, another number keeps its digits' count. An answer is right if it contains the target (the original's
presence accuracy, which minds case). All this is the original's, whose questions are Natural Questions' over Wikipedia
articles of which more or less is shown. That data is not on this machine, so:

- the documents are the entries of Python's own language reference (`pydoc_data`) and, where they do not suffice, its
  standard library's source; they differ somewhat from one version of Python to the next;
- the questions are gaps: a sentence of the document is quoted with a number, a name in quotation marks or a term in
  asterisks left out. They need finding and copying, not understanding, and are easier than the originals;
- a document that is longer than the length is cut around the passage (its heading stays where there is room), one that
  is shorter has others before and behind it, none of which holds the same sentence;
- a number is altered in those too, and the new one is, where possible, a number that stands nowhere else;
- numbers are altered whole: 10 in 110 or 10.5 is another number and stays.

With `file`, documents, questions and answers are your own (one JSON object a line: document, question, answer, all of
them strings, the answer a verbatim part of the document); AlteredNumericQA takes those whose answer is a number.
An answer that stands in several places is placed by the first.
"""

from __future__ import annotations

import json
import re
import sysconfig
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from random import Random

from inspect_ai import Task, task
from inspect_ai.dataset import MemoryDataset, Sample
from inspect_ai.model import GenerateConfig
from inspect_ai.scorer import Score, Scorer, Target, scorer
from inspect_ai.solver import TaskState

from longspan.corpus.sentences import sentences
from longspan.errors import UsageError
from longspan.evaluation.lengths import TokenCounter, counter, parse_lengths
from longspan.evaluation.samples import make_sample, room
from longspan.evaluation.scorers import METRICS
from longspan.registry import register

# LongChat-Lines

LINE = "line {key}: REGISTER_CONTENT is <{value}>\n"
LINES_BEFORE = (
    "Here is a list. Each of its lines has a name, which follows the word 'line', and a REGISTER_CONTENT, which is the "
    "number in angle brackets at its end. Keep the numbers in mind: one of them is asked for after the list.\n\n"
)
LINES_QUESTION = "What is the REGISTER_CONTENT of line {key}?"
LINES_AFTER = "\nThis was the whole list. {question} Answer with the number alone."
GREATEST = 50_000
LINES_ANSWER_TOKENS = 35


@register("task", "longchat-lines", systems=("giraffe",))
@task(name="longchat_lines")
def longchat_lines(
    lengths: str | int = "2k,4k,8k,16k",
    depths: int = 5,
    samples: int = 2,
    seed: int = 0,
    tokenizer: str | None = None,
) -> Task:
    """The number of one line in a long list of lines, `samples` for each of `lengths` x `depths` cells."""
    count = counter(tokenizer)
    dataset = [
        lines_sample(length, at / max(depths - 1, 1), f"{seed}-{number}", count)
        for length in parse_lengths(lengths)
        for at in range(depths)
        for number in range(samples)
    ]
    return Task(
        dataset=MemoryDataset(dataset, name="longchat-lines"),
        scorer=first_number(),
        config=GenerateConfig(max_tokens=LINES_ANSWER_TOKENS, temperature=0.0),
    )


def lines_sample(length: int, depth: float, seed: str, counter: TokenCounter) -> Sample:
    """As many lines as fit; the one asked for has `depth` of the others above it."""
    id = f"longchat-lines-{length}-{depth:.2f}-{seed}"
    rng = Random(id)
    budget = room(length, counter, LINES_ANSWER_TOKENS)
    lines = records(rng)
    shown = [next(lines) for _ in range(32)]
    widest = max((key for key, _ in shown), key=counter.count)
    free = budget - counter.count(LINES_BEFORE + LINES_AFTER.format(question=LINES_QUESTION.format(key=widest)))
    rate = counter.count("".join(LINE.format(key=key, value=value) for key, value in shown)) / len(shown)
    shown += [next(lines) for _ in range(int(1.05 * free / rate) + 1 - len(shown))]
    texts = [LINE.format(key=key, value=value) for key, value in shown]
    number = _fitting(texts, counter, free)
    while number > 0:
        at = round(depth * (number - 1))
        key, value = shown[at]
        question = LINES_QUESTION.format(key=key)
        after = LINES_AFTER.format(question=question)
        tokens = counter.count(LINES_BEFORE + "".join(texts[:number]) + after)
        if tokens <= budget:
            return make_sample(
                id,
                before=LINES_BEFORE,
                context="".join(texts[:number]),
                after=after,
                question=question,
                targets=[str(value)],
                length=length,
                counter=counter,
                answer_tokens=LINES_ANSWER_TOKENS,
                tokens=tokens,
                depth=depth,
                needles=[texts[at].strip()],
                lines=number,
            )
        number -= 1
    raise UsageError(f"A length of {length} tokens is too short for a line and its question: take a greater one.")


def records(rng: Random) -> Iterator[tuple[str, int]]:
    """Keys, each another, and their numbers, without end: a key that is taken gets one more adjective."""
    taken: set[str] = set()
    while True:
        key = f"{rng.choice(ADJECTIVES)}-{rng.choice(NOUNS)}"
        while key in taken:
            key = f"{rng.choice(ADJECTIVES)}-{key}"
        taken.add(key)
        yield key, rng.randint(1, GREATEST)


def _fitting(texts: Sequence[str], counter: TokenCounter, free: int) -> int:
    """How many of the texts, one after the other, have at most `free` tokens."""
    starts = counter.starts("".join(texts))
    if len(starts) <= free:
        return len(texts)
    end, number = starts[max(free, 0)], 0
    for text in texts:
        end -= len(text)
        if end < 0:
            break
        number += 1
    return number


def first_number_is(answer: str, target: str) -> bool:
    """Whether the first digits of the answer are the target's number."""
    found = re.search(r"\d+", answer)
    return found is not None and int(found.group()) == int(target)


@scorer(metrics=METRICS)
def first_number() -> Scorer:
    """1 if the first number in the answer is the one wanted."""

    async def score(state: TaskState, target: Target) -> Score:
        answer = state.output.completion
        return Score(value=float(first_number_is(answer, target.text)), answer=answer)

    return score


# FreeFormQA and AlteredNumericQA

QA_BEFORE = "A document follows, and a question about it.\n\n"
QA_ASKED = "{question}\n\n"
QA_OPEN, QA_CLOSE = "Document:\n\n", "\n\nEnd of the document.\n\n"
QA_AFTER = "Answer the question with a few words copied from the document."
QA_ANSWER_TOKENS = 50
GAP = "____"
CUT = "[...] "  # where the passage's own document is shown from its middle on
GAP_QUESTION = "In the section '{title}', which {kind} stands in the gap of this sentence?\n{sentence}"
ANSWER_AT = {"start": (0.0, 0.1), "between": (0.1, 0.9), "end": (0.9, 1.0)}  # shares of the document before the answer
QUESTION_AT = ("start", "end")
KINDS = {  # what may be left out of a sentence; the first that is found
    "number": re.compile(r"(?<=[ (])(\d{2,}|\d+(?:\.\d+)+)(?=[ ),;:*]|\.(?!\d))"),
    "name": re.compile(r'"([\w.-]{4,40})(?:\(\))?"'),
    "term": re.compile(r"\*(\w[\w-]{3,40})\*"),
}
FIELDS = ("document", "question", "answer")  # of a line of the user's file
CHARS_PER_TOKEN = 4.4  # a little more than prose has; where it is too little, more text is taken
NUMBER = re.compile(r"\d+(?:[.,]\d+)*")
YEARS = range(1000, 2101)
YEAR_SHIFT = 10


@register("task", "freeform-qa", systems=("giraffe",))
@task(name="freeform_qa")
def freeform_qa(
    lengths: str | int = "2k,4k,8k,16k",
    samples: int = 4,
    file: str | None = None,
    seed: int = 0,
    tokenizer: str | None = None,
) -> Task:
    """What a document says in its own words, `samples` for each length, place of the answer and of the question.

    Each of the `samples` questions is asked at every length, with the answer in each of three places of the document
    and the question before and behind it. `file` holds your own documents and questions, one JSON object a line.
    """
    return _qa_task("freeform-qa", False, lengths, samples, file, seed, tokenizer)


@register("task", "altered-numeric-qa", systems=("giraffe",))
@task(name="altered_numeric_qa")
def altered_numeric_qa(
    lengths: str | int = "2k,4k,8k,16k",
    samples: int = 4,
    file: str | None = None,
    seed: int = 0,
    tokenizer: str | None = None,
) -> Task:
    """A number that a document says, changed wherever it stands so that it cannot be known beforehand.

    Samples, places and `file` as for FreeFormQA.
    """
    return _qa_task("altered-numeric-qa", True, lengths, samples, file, seed, tokenizer)


def _qa_task(
    name: str, altered: bool, lengths: str | int, samples: int, file: str | None, seed: int, tokenizer: str | None
) -> Task:
    count = counter(tokenizer)
    own = facts_of_file(Path(file)) if file else None
    known = [fact for fact in (own if own is not None else local_facts()) if not altered or fact.number]
    if samples > len(known):
        what = f"{file} has" if file else "The documents of this machine give"
        kind = "questions with a number for an answer" if altered else "questions"
        raise UsageError(f"{what} {len(known)} {kind}: {samples} samples are too many.")
    Random(f"{name}-{seed}").shuffle(known)
    others = list(dict.fromkeys(fact.document for fact in own)) if own is not None else []
    dataset = [
        qa_sample(f"{name}-{length}-{seed}-{number}", fact, length, count, others, answer_at, question_at, altered)
        for length in parse_lengths(lengths)
        for number, fact in enumerate(known[:samples])
        for answer_at in ANSWER_AT
        for question_at in QUESTION_AT
    ]
    return Task(
        dataset=MemoryDataset(dataset, name=name),
        scorer=presence(),
        config=GenerateConfig(max_tokens=QA_ANSWER_TOKENS, temperature=0.0),
    )


@dataclass(frozen=True, slots=True)
class Document:
    """A text under a title ("" for none)."""

    title: str
    text: str

    @property
    def heading(self) -> str:
        return f"{self.title}\n\n" if self.title else ""


@dataclass(frozen=True)
class Fact:
    """A question whose answer stands in `document.text[start:end]`, a passage that is never cut."""

    document: Document
    start: int
    end: int
    question: str
    answer: str
    sentence: str = ""  # as asked, with GAP for the answer; "" where the question is no gap

    @property
    def number(self) -> bool:
        return NUMBER.fullmatch(self.answer) is not None

    @cached_property
    def pattern(self) -> re.Pattern[str]:
        """The sentence asked for in any text, whatever stands in its gap and wherever its lines end."""
        return re.compile(
            r"(\S+?)".join(r"\s+".join(map(re.escape, part.split(" "))) for part in self.sentence.split(GAP))
        )

    def holds(self, document: Document) -> bool:
        """Whether another document would answer as well."""
        return document == self.document or bool(self.sentence and self.pattern.search(document.text))


def qa_sample(
    id: str,
    fact: Fact,
    length: int,
    counter: TokenCounter,
    others: Sequence[Document],
    answer_at: str,
    question_at: str,
    altered: bool,
) -> Sample:
    """The fact's passage at its place, its document around it, and other documents around that, to the length.

    `others` are taken before those of this machine. `depth` is the share of the context's characters before the
    passage.
    """
    budget = room(length, counter, QA_ANSWER_TOKENS)
    passage = fact.document.text[fact.start : fact.end]
    free = budget - counter.count("".join(_frame(fact.question, question_at)) + passage)
    if free < 0:
        raise UsageError(f"{id}: the question and its passage need {-free} tokens more than the length.")
    rng = Random(f"{id}-{answer_at}")
    above = round(rng.uniform(*ANSWER_AT[answer_at]) * free)
    fillers = (document for document in _documents(rng, others) if not fact.holds(document))
    left = _left(fact.document, fact.start, above, fillers, counter)
    right = _right(fact.document.text[fact.end :], free - above, fillers, counter)

    question, answer = fact.question, fact.answer
    if altered:
        standing = set(NUMBER.findall(f"{left}{passage}{right}"))
        answer = another_number(fact.answer, Random(id), standing)
        left, passage, right, question = (
            replaced(fact.answer, answer, text) for text in (left, passage, right, question)
        )
    before, after = _frame(question, question_at)
    while (tokens := counter.count(f"{before}{left}{passage}{right}{after}")) > budget:
        drop = 4 * (tokens - budget)  # characters
        if len(right) > len(left):
            right = right[: _word_end(right, len(right) - drop)]
        else:
            left = left[_word_start(left, drop) :]
    return make_sample(
        f"{id}-{answer_at}-{question_at}",
        before=before,
        context=f"{left}{passage}{right}",
        after=after,
        question=question,
        targets=[answer],
        length=length,
        counter=counter,
        answer_tokens=QA_ANSWER_TOKENS,
        tokens=tokens,
        depth=len(left) / max(len(left) + len(right), 1),
        needles=[passage],
        answer_at=answer_at,
        question_at=question_at,
    )


def _frame(question: str, question_at: str) -> tuple[str, str]:
    asked = QA_ASKED.format(question=question)
    first, last = (asked, "") if question_at == "start" else ("", asked)
    return f"{QA_BEFORE}{first}{QA_OPEN}", f"{QA_CLOSE}{last}{QA_AFTER}"


def _left(document: Document, start: int, tokens: int, fillers: Iterator[Document], counter: TokenCounter) -> str:
    """At most `tokens` to stand before a passage: its document's text under its heading, before that the fillers'."""
    above, heading = document.text[:start], document.heading
    if counter.count(heading + above) > tokens:
        kept, starts = tokens - counter.count(heading + CUT), counter.starts(above)
        return f"{heading}{CUT}{above[_word_start(above, starts[-kept]) :]}" if 0 < kept <= len(starts) else ""
    text, needed = heading + above, int(CHARS_PER_TOKEN * tokens)
    while True:
        while len(text) < needed:
            filler = next(fillers)
            text = f"{filler.heading}{filler.text}\n\n{text}"
        starts = counter.starts(text[-needed:]) if needed else []
        if len(starts) >= tokens:
            begin = len(text) - needed + starts[-tokens] if tokens else len(text)
            return text[_word_start(text, begin) :]
        needed = needed * 5 // 4


def _right(below: str, tokens: int, fillers: Iterator[Document], counter: TokenCounter) -> str:
    """At most `tokens` to stand behind a passage: its document's text, then the fillers'."""
    text, needed = below, int(CHARS_PER_TOKEN * tokens)
    while True:
        while len(text) < needed:
            filler = next(fillers)
            text = f"{text}\n\n{filler.heading}{filler.text}"
        starts = counter.starts(text[:needed])
        if len(starts) >= tokens:
            return text[: _word_end(text, starts[tokens] if tokens < len(starts) else needed)] if tokens else ""
        needed = needed * 5 // 4


def _word_start(text: str, at: int) -> int:
    """`at`, or where the next word begins if it is inside of one."""
    found = re.compile(r"(?<!\S)\S").search(text, at)
    return found.start() if found else len(text)


def _word_end(text: str, at: int) -> int:
    """`at`, or where the word before ends if it is inside of one."""
    if at < len(text) and not text[at].isspace():
        while at > 0 and not text[at - 1].isspace():
            at -= 1
    return len(text[: max(at, 0)].rstrip())


def another_number(number: str, rng: Random, standing: set[str]) -> str:
    """Another number: a year at most ten off, else one of as many digits, if possible none that is `standing`."""
    if number.isdecimal() and int(number) in YEARS and len(number) == 4:
        choices = [str(int(number) + shift) for shift in range(-YEAR_SHIFT, YEAR_SHIFT + 1)]
        rng.shuffle(choices)
    else:
        lead = 0 if number[0] == "0" else 1
        choices = [
            "".join(
                str(rng.randint(0 if at else lead, 9)) if mark.isdecimal() else mark for at, mark in enumerate(number)
            )
            for _ in range(200)
        ]
    choices = [choice for choice in choices if choice != number]
    return next((choice for choice in choices if choice not in standing), choices[0])


def replaced(number: str, by: str, text: str) -> str:
    """The text with one number for another wherever it stands as a whole."""
    return NUMBER.sub(lambda found: by if found.group() == number else found.group(), text)


def present(answer: str, target: str) -> bool:
    """Whether the answer contains the target, in just its letters."""
    return target.strip() in answer


@scorer(metrics=METRICS)
def presence() -> Scorer:
    """1 if the answer contains the target, case minded: Giraffe's presence accuracy."""

    async def score(state: TaskState, target: Target) -> Score:
        answer = state.output.completion
        return Score(value=float(present(answer, target.text)), answer=answer)

    return score


# Documents and questions


def facts_of_file(path: Path) -> list[Fact]:
    """The questions of a file of JSON objects, one a line. Raises UsageError that names file and line."""
    try:
        text = path.read_text("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(
            f"{path} cannot be read: {getattr(error, 'strerror', None) or 'it is no UTF-8 text'}."
        ) from None
    facts = []
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            facts.append(_fact_of_line(line, f"{path}, line {number}"))
    if not facts:
        raise UsageError(f"{path} has no questions: write one JSON object a line with {', '.join(FIELDS)}.")
    return facts


def _fact_of_line(line: str, where: str) -> Fact:
    try:
        given = json.loads(line)
    except json.JSONDecodeError as error:
        raise UsageError(f"{where}: this is no JSON ({error.msg} at column {error.colno}).") from None
    if not isinstance(given, dict):
        raise UsageError(f"{where}: expected an object with {', '.join(FIELDS)}.")
    for name in FIELDS:
        if not isinstance(given.get(name), str) or not given[name].strip():
            raise UsageError(f"{where}: {name!r} must be a text that is not empty.")
    document, question, answer = given["document"], given["question"].strip(), given["answer"].strip()
    if NUMBER.fullmatch(answer):
        begin = next((found.start() for found in NUMBER.finditer(document) if found.group() == answer), -1)
    else:
        begin = document.find(answer)
    if begin < 0:
        raise UsageError(f"{where}: the answer {answer!r} does not stand in the document.")
    units = sentences(document)
    start = max((unit.start for unit in units if unit.start <= begin), default=begin)
    end = min((unit.end for unit in units if unit.end >= begin + len(answer)), default=begin + len(answer))
    return Fact(Document("", document), start, end, question, answer)


@cache
def local_facts() -> tuple[Fact, ...]:
    """A question for every sentence of the language reference with a number, name or term that it says just once.

    The sentence, without that, is found just once in its document.
    """
    facts, seen = [], set()
    for document in topics():
        for unit in sentences(document.text):
            sentence = " ".join(document.text[unit.start : unit.end].split())
            if 60 <= len(sentence) <= 300 and sentence[0].isupper() and sentence[-1] == "." and sentence not in seen:
                seen.add(sentence)
                for kind, pattern in KINDS.items():
                    found = pattern.search(sentence)
                    if found and (fact := _gap(document, unit.start, unit.end, sentence, kind, *found.span(1))):
                        facts.append(fact)
                        break
    return tuple(facts)


def _gap(document: Document, start: int, end: int, sentence: str, kind: str, first: int, last: int) -> Fact | None:
    answer = sentence[first:last]
    if answer.lower() in f"{document.title}{sentence[:first]}{GAP}{sentence[last:]}".lower():
        return None
    asked = f"{sentence[:first]}{GAP}{sentence[last:]}"
    question = GAP_QUESTION.format(title=document.title, kind=kind, sentence=asked)
    fact = Fact(document, start, end, question, answer, asked)
    return fact if len(fact.pattern.findall(document.text)) == 1 else None


@cache
def topics() -> tuple[Document, ...]:
    """The entries of Python's language reference that `help()` shows."""
    from pydoc_data.topics import topics as entries

    documents = []
    for name, text in sorted(entries.items()):
        heading = re.match(r"\s*(.+)\n[*=~^-]{3,}\n+", text)
        documents.append(Document(heading.group(1), text[heading.end() :]) if heading else Document(name, text))
    return tuple(documents)


def _documents(rng: Random, others: Iterable[Document]) -> Iterator[Document]:
    """The documents to fill with, without end for any practical length: `others`, the reference, the library."""
    for documents in (list(others), list(topics())):
        rng.shuffle(documents)
        yield from documents
    root = Path(sysconfig.get_path("stdlib"))
    modules = [
        path
        for path in sorted([*root.glob("*.py"), *root.glob("*/*.py")])
        if path.parent.name not in ("pydoc_data", "site-packages", "dist-packages", "test", "idlelib")
    ]
    rng.shuffle(modules)
    for path in modules:
        yield Document(path.relative_to(root).as_posix(), path.read_text("utf-8", "replace").strip())
    raise UsageError("There is no more text on this machine to fill such a length with: take a lower one.")


# fmt: off
ADJECTIVES = tuple(
    "agile amber ample ancient azure bleak blunt bold brave brief bright brisk broad calm candid careful cheap clever "
    "coarse cosy crimson crisp damp daring dim distant double dry dull dusty eager early elegant empty even exact "
    "faint fancy fast fierce fine firm fond frosty frugal gentle giddy glad golden grand gray green handy happy harsh "
    "hasty hazy heavy hidden humble icy idle jolly keen kind large lavish lazy lean light little lively lonely loud "
    "lucky mellow merry mild misty modest mute narrow neat nimble noble odd olive pale patient placid polite proud "
    "purple quick quiet rapid rare raw ripe rough round royal rustic scarlet serene shaggy sharp shiny shy silent "
    "silver simple sleepy slow small smooth sober soft solid sour spare steady steep stern stout sturdy subtle sunny "
    "swift tall tame tart tender tidy tiny tough urban vast vivid warm wary weary white wide wild wise witty young"
    .split()
)
NOUNS = tuple(
    "acorn alley anchor apron arrow badge bakery balcony banjo barrel basin basket beacon bell bench berry bottle "
    "boulder branch bridge broom bucket button cabin cactus camel candle canoe canyon carpet castle cavern cellar "
    "chapel cherry chimney cider circus cliff clock cloud clover cobbler comet copper cottage cradle crane cricket "
    "crow curtain daisy desert dolphin donkey dragon drum eagle easel ember engine falcon feather fence ferry field "
    "fiddle finch flag forest fossil fountain fox garden garlic gate geyser glacier glove goose granite guitar hammer "
    "harbor harp harvest hazel heron hill honey horizon iceberg island ivory jacket jasmine jigsaw jungle kennel kite "
    "ladder lagoon lemon lily lizard lobster locket magnet mango marble meadow mill mirror monkey moose mountain "
    "museum napkin needle nest oasis ocean olive orchard otter oyster paddle palace panther parrot pebble pepper piano "
    "pigeon pillow planet plum pocket pond puzzle quarry rabbit raft raven ribbon river robin rocket saddle sailor "
    "salmon scarf shadow shell shovel spider spoon squirrel stable statue stream summit swan table temple thistle "
    "ticket tiger timber torch tower tractor trumpet tulip tunnel turnip turtle valley velvet violin wagon wallet "
    "walrus weasel whale wheel willow window winter wizard zebra"
    .split()
)
# fmt: on
