"""RULER's two question-answering tasks: the paragraphs that hold the answer among as many others as fit.

RULER asks SQuAD (qa_1, one paragraph) and HotpotQA (qa_2, two paragraphs). Name their files to do the same. Without
them the questions are made from the docstrings of this Python's standard library, by rules that are sound but are not
those data sets: qa_1 quotes a sentence and asks whose description it is; qa_2 quotes a sentence of a function or class
and asks for the module, which only the paragraph of the module tells, by the name. Scores of the two kinds of question
are not comparable.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

from inspect_ai.dataset import Sample

from longspan.corpus import sentences
from longspan.errors import UsageError
from longspan.evaluation.haystack import source_of, standard_library, too_short
from longspan.evaluation.lengths import TokenCounter
from longspan.evaluation.samples import make_sample, room

BEFORE = "Read the numbered documents below. A question about them follows.\n\n"
AFTER = "\n\nQuestion about the documents: {question}\nGive the answer alone, in as few words as you can."
DOCUMENT = "[Document {number}]\n{text}"
ANSWER_TOKENS = 32
ROUNDS = 12


@dataclass(frozen=True, slots=True)
class Item:
    """A question. `gold` are the documents (by index) that hold the answer, `near` those that belong to it besides."""

    question: str
    answers: tuple[str, ...]
    gold: tuple[int, ...]
    near: tuple[int, ...]


@dataclass(slots=True)
class Collection:
    """All documents of a data set, each once, and its questions."""

    name: str
    documents: list[str] = field(default_factory=list)
    items: list[Item] = field(default_factory=list)
    index: dict[str, int] = field(default_factory=dict)

    def add(self, document: str) -> int:
        if document not in self.index:
            self.index[document] = len(self.documents)
            self.documents.append(document)
        return self.index[document]


def one(name: str, collection: Collection, length: int, seed: str, counter: TokenCounter) -> Sample:
    """One question of the collection: its own documents, those that belong to it, then any others, shuffled."""
    id = f"ruler-{name.replace('_', '-')}-{length}-{seed}"
    chance = random.Random(f"{id}-{collection.name}")
    item = chance.choice(collection.items)
    near = [index for index in item.near if index not in item.gold]
    own = {*item.gold, *near}
    far = [index for index in range(len(collection.documents)) if index not in own]
    chance.shuffle(near)
    chance.shuffle(far)
    after = AFTER.format(question=item.question)
    sizes = _sizes(collection.name, tuple(collection.documents), counter)
    heading = [counter.count(DOCUMENT.format(number=10**digits, text="\n\n")) for digits in range(7)]

    def made(chosen: list[int]) -> str:
        order = list(chosen)
        random.Random(f"{id}-order").shuffle(order)
        return "\n\n".join(
            DOCUMENT.format(number=number, text=collection.documents[index]) for number, index in enumerate(order, 1)
        )

    space = room(length, counter, ANSWER_TOKENS)
    frame = counter.count(f"{BEFORE}{after}")
    budget = space - frame
    best: tuple[int, list[int]] | None = None
    tried: set[tuple[int, ...]] = set()
    for _ in range(ROUNDS):
        chosen = pick(list(item.gold), near + far, sizes, heading, budget)
        if tuple(chosen) in tried:
            budget -= 1
            continue
        tried.add(tuple(chosen))
        tokens = counter.count(f"{BEFORE}{made(chosen)}{after}")
        if tokens <= space and (best is None or tokens > best[0]):
            best = (tokens, chosen)
            if space - tokens <= space // 200:
                break
        budget += space - tokens
    if best is None:
        raise too_short(frame + sum(sizes[index] + heading[0] for index in item.gold), space)
    tokens, chosen = best
    gold = [collection.documents[index] for index in item.gold]
    return make_sample(
        id,
        before=BEFORE,
        context=made(chosen),
        after=after,
        question=item.question,
        targets=item.answers,
        length=length,
        counter=counter,
        answer_tokens=ANSWER_TOKENS,
        needles=gold if len(gold) <= 2 else [],
        tokens=tokens,
        documents=len(chosen),
        data=collection.name,
    )


def pick(gold: list[int], others: list[int], sizes: list[int], heading: list[int], budget: int) -> list[int]:
    """`gold`, then `others` in order while they fit (over again when there are no more), and last the one that fills
    best what is left.

    A document takes `sizes[index]` tokens, and before it `heading[digits of its number less one]`.
    """
    chosen: list[int] = []

    def take(index: int) -> None:
        nonlocal budget
        chosen.append(index)
        budget -= sizes[index] + heading[len(str(len(chosen))) - 1]

    for index in gold:
        take(index)
    if not others:
        return chosen
    at = 0
    while sizes[others[at % len(others)]] + heading[len(str(len(chosen) + 1)) - 1] <= budget:
        take(others[at % len(others)])
        at += 1
    rest = others[at:] if at < len(others) else others
    left = budget - heading[len(str(len(chosen) + 1)) - 1]
    filling = max((index for index in rest if sizes[index] <= left), key=lambda index: sizes[index], default=None)
    return chosen if filling is None else [*chosen, filling]


@lru_cache(maxsize=4)
def _sizes(name: str, documents: tuple[str, ...], counter: TokenCounter) -> list[int]:
    """How many tokens each document takes; they are encoded once."""
    source = source_of([f"\n\n{document}" for document in documents], counter)
    return [source.ends[i + 1] - source.ends[i] for i in range(len(documents))]


# -- data sets of the user ---------------------------------------------------------------------------------------------


def squad(path: str | None) -> Collection:
    """SQuAD's questions (versions 1.1 and 2.0 of its JSON; those without an answer are left out), or the local ones."""
    if path is None:
        return _local_squad()
    return read_squad(_json(path, "squad", "SQuAD's JSON (such as dev-v2.0.json)"), path)


def hotpotqa(path: str | None) -> Collection:
    """HotpotQA's questions (its JSON, such as the distractor development set), or the local ones."""
    if path is None:
        return _local_hotpotqa()
    return read_hotpotqa(_json(path, "hotpotqa", "HotpotQA's JSON (such as hotpot_dev_distractor_v1.json)"), path)


def read_squad(data: Any, path: str) -> Collection:
    """A paragraph that holds the answer; near it, the other paragraphs of its article."""
    found = Collection(path)
    for at, article in _each(data, "data", path, ""):
        paragraphs = list(_each(article, "paragraphs", path, at))
        own = [found.add(_get(paragraph, "context", str, path, place)) for place, paragraph in paragraphs]
        for index, (place, paragraph) in zip(own, paragraphs, strict=True):
            for where, qa in _each(paragraph, "qas", path, place):
                if _get(qa, "question", str, path, where) and not qa.get("is_impossible", False):
                    answers = [
                        _get(answer, "text", str, path, spot) for spot, answer in _each(qa, "answers", path, where)
                    ]
                    if answers:
                        near = tuple(other for other in own if other != index)
                        found.items.append(Item(qa["question"], tuple(dict.fromkeys(answers)), (index,), near))
    return _some(found, path)


def read_hotpotqa(data: Any, path: str) -> Collection:
    """The paragraphs named as supporting facts; near them, the others that come with the question."""
    found = Collection(path)
    for at, entry in _each({"": data}, "", path, ""):
        named = {}
        context = _get(entry, "context", list, path, at)
        for i, pair in enumerate(context):
            if not (isinstance(pair, list) and len(pair) == 2 and isinstance(pair[1], list)):
                raise UsageError(f"{path}: {at}.context[{i}] is no [title, [sentences]] as HotpotQA's are.")
            named[str(pair[0])] = found.add(f"{pair[0]}\n{''.join(map(str, pair[1]))}")
        facts = {str(fact[0]) for fact in entry.get("supporting_facts", []) if isinstance(fact, list) and fact}
        gold = tuple(index for title, index in named.items() if title in facts) or tuple(named.values())
        near = tuple(index for index in named.values() if index not in gold)
        question, answer = _get(entry, "question", str, path, at), _get(entry, "answer", str, path, at)
        found.items.append(Item(question, (answer,), gold, near))
    return _some(found, path)


def _json(path: str, parameter: str, what: str) -> Any:
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError:
        raise UsageError(f"{path} cannot be read: put {what} there, or leave {parameter}= out.") from None
    except json.JSONDecodeError as error:
        raise UsageError(f"{path}, line {error.lineno}: no JSON ({error.msg}); {parameter}= takes {what}.") from None
    except UnicodeDecodeError:
        raise UsageError(f"{path} is no text in UTF-8; {parameter}= takes {what}.") from None


def _each(holder: Any, name: str, path: str, place: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """(place, object) for each object of the list `name`; an error names the place."""
    for i, value in enumerate(_get(holder, name, list, path, place)):
        at = f"{place}.{name}[{i}]" if place else f"{name}[{i}]"
        if not isinstance(value, dict):
            raise UsageError(f"{path}: {at} is no object with fields.")
        yield at, value


def _get(holder: Any, name: str, kind: type, path: str, place: str) -> Any:
    value = holder.get(name) if isinstance(holder, dict) else None
    if not isinstance(value, kind):
        what = "list" if kind is list else "text"
        where = f"{place}.{name}" if place else name or "the whole"
        raise UsageError(f"{path}: {where} is no {what}, or is missing; see docs/ruler.md for the format.")
    return value


def _some(found: Collection, path: str) -> Collection:
    if not found.items:
        raise UsageError(f"{path} has no question with an answer.")
    return found


# -- local material ----------------------------------------------------------------------------------------------------

LONGEST = 700  # characters of a paragraph
QUESTIONS = 6  # of one module at most
NEAR = 8  # other paragraphs that come with a question of two
ABOUT_NAME = 'Which function, class or method is described with the words "{words}"?'
ABOUT_MODULE = 'Which module defines the function or class that is described with the words "{words}"?'

_MODULE = re.compile(r'\A(?:#[^\n]*\n|\s)*[ru]?"""(.*?)"""', re.DOTALL)
_SIGNATURE = r'\([^)]*\)(?:\s*->\s*[^\n:]+)?:\s*\n\s+r?"""(.*?)"""'
_UNIT = re.compile(
    rf'^(?:class (\w+)(?:\([^)]*\))?:(?:\s*\n\s+r?"""(.*?)""")?|(?:async )?def (\w+){_SIGNATURE}'
    rf"|    (?:async )?def (\w+){_SIGNATURE})",
    re.DOTALL | re.MULTILINE,
)


@dataclass(frozen=True, slots=True)
class Entry:
    """A function, class or method of a module, and the prose of its docstring."""

    module: str
    name: str
    text: str


@cache
def entries() -> tuple[dict[str, str], tuple[Entry, ...]]:
    """The modules of the standard library with the prose of their docstrings, and what of theirs is documented."""
    modules: dict[str, str] = {}
    found: dict[tuple[str, str], Entry] = {}
    for module, source in standard_library():
        if any(part.startswith("_") for part in module.split(".")) or module.startswith("encodings."):
            continue
        head = _MODULE.match(source)
        modules[module] = _text(head[1]) if head else ""
        owner = ""
        for owned, about_class, function, about_function, method, about_method in _UNIT.findall(source):
            owner = owned or ("" if function else owner)
            name = owned or function or f"{owner}.{method}"
            text = _text(about_class or about_function or about_method)
            if len(text) >= 40 and not name.startswith((".", "_")) and "._" not in name:
                found.setdefault((module, name), Entry(module, name, text))
    return modules, tuple(found.values())


def local_squad() -> dict[str, Any]:
    """Questions in SQuAD's format: whose description is this sentence? One article a module."""
    _, found = entries()
    pool = {entry: f"{entry.name}\n{entry.text}" for entry in found}
    everything = "\n".join(pool.values()).lower()
    articles: dict[str, list[dict[str, Any]]] = {}
    asked: dict[str, int] = {}
    for entry, paragraph in pool.items():
        qas = []
        words = _quotable(entry, everything) if asked.get(entry.module, 0) < QUESTIONS else ""
        if words and _only_in(entry.name, paragraph, everything):
            asked[entry.module] = asked.get(entry.module, 0) + 1
            answer = {"text": entry.name, "answer_start": 0}
            qas = [
                {
                    "id": f"{entry.module}:{entry.name}",
                    "question": ABOUT_NAME.format(words=words),
                    "answers": [answer],
                    "is_impossible": False,
                }
            ]
        articles.setdefault(entry.module, []).append({"context": paragraph, "qas": qas})
    data = [{"title": module, "paragraphs": paragraphs} for module, paragraphs in articles.items()]
    return {"version": "standard library", "data": data}


def local_hotpotqa() -> list[dict[str, Any]]:
    """Questions in HotpotQA's format: from a sentence to its function or class, and from that to the module."""
    modules, found = entries()
    names: dict[str, list[str]] = {}
    for entry in found:
        if "." not in entry.name:
            names.setdefault(entry.module, []).append(entry.name)
    listings = {
        module: f"{modules[module]} It defines, among others: {', '.join(listed)}.".strip()
        for module, listed in names.items()
    }
    texts = [(entry.name, entry.text) for entry in found] + list(listings.items())
    everything = "\n".join(f"{title}\n{text}" for title, text in texts).lower()
    homes: dict[str, int] = {}
    for listed in names.values():
        for name in listed:
            homes[name] = homes.get(name, 0) + 1
    asked: dict[str, int] = {}
    entries_made: list[dict[str, Any]] = []
    for entry in found:
        if "." in entry.name or homes[entry.name] > 1 or asked.get(entry.module, 0) >= QUESTIONS:
            continue
        listing = f"{entry.module}\n{listings[entry.module]}"
        words = _quotable(entry, everything)
        if not words or len(entry.name) < 4 or not _only_in(entry.module, listing, everything):
            continue
        asked[entry.module] = asked.get(entry.module, 0) + 1
        chance = random.Random(f"{entry.module}:{entry.name}")
        gold = [(entry.name, entry.text), (entry.module, listings[entry.module])]
        taken = {title for title, _ in gold}
        near = [pair for pair in chance.sample(texts, NEAR + 4) if pair[0] not in taken][:NEAR]
        context = [[title, [text]] for title, text in [*gold, *near]]
        chance.shuffle(context)
        entries_made.append(
            {
                "_id": f"{entry.module}:{entry.name}",
                "question": ABOUT_MODULE.format(words=words),
                "answer": entry.module,
                "supporting_facts": [[title, 0] for title, _ in gold],
                "context": context,
            }
        )
    return entries_made


@cache
def _local_squad() -> Collection:
    found = read_squad(local_squad(), "standard library")
    return _some(found, "The standard library's source, from which questions are made,")


@cache
def _local_hotpotqa() -> Collection:
    found = read_hotpotqa(local_hotpotqa(), "standard library")
    return _some(found, "The standard library's source, from which questions are made,")


def _text(doc: str) -> str:
    """The prose of a docstring, up to a paragraph's length, cut at a sentence."""
    flat = (" ".join(paragraph.split()) for paragraph in re.split(r"\n\s*\n", doc))
    kept = " ".join(
        paragraph
        for paragraph in flat
        if len(paragraph) >= 30
        and paragraph[-1] == "."
        and sum(char.isalpha() or char == " " for char in paragraph) >= 0.88 * len(paragraph)
    )
    if len(kept) <= LONGEST:
        return kept
    end = 0
    for part in sentences(kept):
        if part.end > LONGEST:
            break
        end = part.end
    return kept[:end]


def _quotable(entry: Entry, everything: str) -> str:
    """The first sentence that stands in no other text and does not name what it describes; "" where there is none."""
    bare = entry.name.rpartition(".")[2].lower()
    for part in sentences(entry.text):
        words = entry.text[part.start : part.end].rstrip(".")
        told = words.lower()
        plain = 30 <= len(words) <= 200 and '"' not in words and bare not in told and entry.module.lower() not in told
        if plain and everything.count(told) == 1:
            return words
    return ""


def _only_in(name: str, paragraph: str, everything: str) -> bool:
    """Whether the answer is long enough to be told from other words, and stands in no other text."""
    wanted = name.lower()
    return len(wanted) >= 5 and everything.count(wanted) == paragraph.lower().count(wanted)
