"""M4LE (Kwan et al. 2023, arXiv:2310.19240): long samples made of short datasets, for five abilities.

Short texts of one dataset are joined to a long one, each under a random id, and the question is after one or several of
them, named by id (explicit) or by what they say (semantic); *global* asks after one long document. `KINDS` holds the
task types of each ability with their instructions, metrics and the stop signs at which an answer is cut, after the
paper's own tasks; a solved example of two or three texts stands before the long text, as there.

What differs: lengths are tokens of the model and not words, and are met by cutting the last text that nothing is asked
of (a document: its end), where the paper draws until a sample falls into its bucket. In the continuation task the query
paragraph stands in the question, behind the candidates. The `ret` tasks of three abilities are additions: with the
paper's explicit single-span one (an id is given, the name wanted) they make four questions after the same texts with
the same kind of answer, so that abilities compare.

Datasets: those of this machine (see `material`), or `data`, a JSON Lines file or a folder of them, of two forms:

- one short text a line, `{"text": ..., "title": ..., "label": ..., "summary": ..., "question": ..., "answers": [...],
  "previous": ..., "translation": ..., "language": ...}`, of which only `text` is needed: a kind is asked of the
  datasets that have what it needs. Texts of over 4 000 characters are the documents of *global*.
- finished samples as the paper's authors released them, `{"instruction", "input", "answers", "length_bucket"}`, in
  files by their names, such as `wow.jsonl`. Their nominal length is the bucket, in words or Chinese characters.
"""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from inspect_ai import Task, task
from inspect_ai.dataset import MemoryDataset, Sample
from inspect_ai.model import GenerateConfig
from inspect_ai.scorer import Score, Scorer, Target, grouped, mean, scorer
from inspect_ai.solver import Generate, Solver, TaskState, solver

from longspan.errors import UsageError
from longspan.evaluation.lengths import TokenCounter, counter, fit, parse_lengths
from longspan.evaluation.samples import make_sample, room
from longspan.evaluation.scorers import METRICS
from longspan.evaluation.tasks.m4le.material import Passage, Pool, local_pools, passage_of, read_lines
from longspan.evaluation.tasks.m4le.scores import mark
from longspan.registry import register

ABILITIES = ("explicit-single", "semantic-single", "explicit-multiple", "semantic-multiple", "global")
DEPTHS = (0.5, 0.0, 1.0, 0.25, 0.75)
LEAST = 8  # texts with what a kind needs: below, there is nothing to choose from
LABELS = 10  # classes that a question offers
LINE = ("\n", ".")
WORD = re.compile(r"\w+|[^\w\s]")
LONG = 4000  # characters: longer texts of one's own data are documents
PLENTY, SURE = 8, 2  # characters a token: more than any text has, and less than any here


@dataclass(frozen=True, slots=True)
class Kind:
    """One task type of one ability.

    `needs` are the fields of `Passage` that it asks by or after, `answer` the one that it wants, or `ids` or `count`.
    `several` is how many texts it is about. Where `classes`, all texts of the class count, so no other may be of it.
    """

    ability: str
    type: str
    instruction: str
    question: str
    answer: str
    metric: str
    ends: tuple[str, ...]
    needs: tuple[str, ...]
    answer_tokens: int
    several: tuple[int, int] = (1, 1)
    classes: bool = False
    shown: str = "Article {id}: {text}"

    @property
    def name(self) -> str:
        return f"{self.ability}/{self.type}"


NAMED = "Below are articles, each with an id and a name. Answer the questions with names alone."
NAMED_SHOWN = "Article {id}, named {title}: {text}"
BY_CLASS = "Below are articles, each with an id. Each belongs to a class."
BY_ID = "Below are articles, each with an id. You are asked about one of them."
SEARCH = "Below are articles. You are asked about one of them; the others do not matter."
DOCUMENT = "Read the article below."
CLASS = "It is one of: {labels}."

KINDS = (
    Kind("explicit-single", "cls+ret", BY_CLASS, "Give the class of article {ids}. " + CLASS,
         "label", "exact_match", LINE, ("label",), 16),
    Kind("explicit-single", "qa+ret", BY_ID, "Answer by article {ids}, in a word. {question}",
         "answers", "acc", LINE, ("question",), 24),
    Kind("explicit-single", "sum+ret", BY_ID, "Say in one sentence what article {ids} is about.",
         "summary", "rouge", ("\n",), ("summary",), 64),
    Kind("explicit-single", "ret", NAMED, "What is the name of article {ids}?",
         "title", "cls_f1", LINE, ("title", "summary"), 40, shown=NAMED_SHOWN),
    Kind("explicit-multiple", "cls+ret", BY_CLASS, "Give the ids of all the articles of the class {label}.",
         "ids", "cls_f1", LINE, ("label",), 64, (2, 4), classes=True),
    Kind("explicit-multiple", "ret", NAMED, "What are the names of the articles {ids}?",
         "title", "cls_f1", LINE, ("title", "summary"), 40, (3, 3), shown=NAMED_SHOWN),
    Kind("semantic-single", "nli+ret", "Below are articles, each with an id. One continues a given paragraph.",
         "Give the id of the article that continues this paragraph: {previous}",
         "ids", "exact_match", LINE, ("previous",), 16),
    Kind("semantic-single", "qa", SEARCH, "Answer in a word. {question}",
         "answers", "acc", LINE, ("question",), 24),
    Kind("semantic-single", "sum+ret", SEARCH, "Say in one sentence what the article about {title} says.",
         "summary", "rouge", ("\n",), ("title", "summary"), 64),
    Kind("semantic-single", "tran+ret", SEARCH, "Translate the article about {title} into {language}.",
         "translation", "bleu", (), ("title", "translation", "language"), 256),
    Kind("semantic-single", "ret", NAMED, "What is the name of the article that this sums up: {summary}?",
         "title", "cls_f1", LINE, ("title", "summary"), 40, shown=NAMED_SHOWN),
    Kind("semantic-multiple", "cls+cnt", "Below are articles. Each belongs to a class.",
         "Give the number of articles of the class {label}.",
         "count", "exact_match", LINE, ("label",), 16, (1, 6), classes=True, shown="Article: {text}"),
    Kind("semantic-multiple", "ret", NAMED, "What are the names of the articles that these sum up: {summary}?",
         "title", "cls_f1", LINE, ("title", "summary"), 40, (3, 3), shown=NAMED_SHOWN),
    Kind("global", "cls", DOCUMENT, "Give the class of the article. " + CLASS,
         "label", "acc", (":",), ("label",), 16, shown="Article: {text}"),
    Kind("global", "qa", DOCUMENT, "Answer in a word. {question}",
         "answers", "acc", LINE, ("question",), 24, shown="Article: {text}"),
    Kind("global", "sum", DOCUMENT, "Say in one sentence what the article is about.",
         "summary", "rouge", ("\n",), ("summary",), 64, shown="Article: {text}"),
    Kind("global", "tran", DOCUMENT, "Translate the article into {language}.",
         "translation", "bleu", (), ("translation", "language"), 256, shown="Article: {text}"),
)  # fmt: skip

# The released files: ability, type, domain, metric and stop signs of the official evaluation (which looks for some of
# these files under other names). The domains are not in the release; they follow from what the datasets are.
RELEASED: dict[str, tuple[str, str, str, str, tuple[str, ...]]] = {
    "mnds-news_explicit-single": ("explicit-single", "cls+ret", "news", "exact_match", ()),
    "thucnews_explicit-single": ("explicit-single", "cls+ret", "news", "exact_match", ()),
    "newsqa": ("explicit-single", "qa+ret", "news", "acc", LINE),
    "c3": ("explicit-single", "qa+ret", "textbook", "acc", ("\n", "。")),
    "wow": ("explicit-single", "ret", "wikipedia", "acc", (",", "\n")),
    "drcd_explicit-single": ("explicit-single", "ret", "wikipedia", "acc", ("，", "\n")),
    "cnnnews": ("explicit-single", "sum+ret", "news", "rouge", ("\n",)),
    "cepsum": ("explicit-single", "sum+ret", "e-commerce", "rouge", ("\n",)),
    "lcsts": ("explicit-single", "sum+ret", "news", "rouge", ("\n",)),
    "ncls": ("explicit-single", "sum+ret", "news", "rouge", ("\n",)),
    "mnds-news_explicit-multiple": ("explicit-multiple", "cls+ret", "news", "cls_f1", (".",)),
    "thucnews_explicit-multiple": ("explicit-multiple", "cls+ret", "news", "cls_f1", ("。",)),
    "marc": ("explicit-multiple", "cls+ret", "e-commerce", "cls_f1", (".",)),
    "online-shopping": ("explicit-multiple", "cls+ret", "e-commerce", "cls_f1", ("。",)),
    "wikitext-103": ("semantic-single", "nli+ret", "wikipedia", "exact_match", (".",)),
    "wiki2019zh": ("semantic-single", "nli+ret", "wikipedia", "exact_match", ("。",)),
    "duorc": ("semantic-single", "qa", "film", "acc", LINE),
    "nq-open": ("semantic-single", "qa", "wikipedia", "acc", LINE),
    "dureader": ("semantic-single", "qa", "web", "acc", ("\n", "。")),
    "drcd_semantic-single": ("semantic-single", "qa", "wikipedia", "acc", ("\n", "。")),
    "wikihow": ("semantic-single", "sum+ret", "wikihow", "rouge", ("\n",)),
    "news2016": ("semantic-single", "sum+ret", "news", "quoted_rouge", ("\n",)),
    "tedtalks-en2zh": ("semantic-single", "tran+ret", "talks", "bleu", ()),
    "tedtalks-zh2en": ("semantic-single", "tran+ret", "talks", "bleu", ()),
    "mnds-news_semantic-multiple": ("semantic-multiple", "cls+cnt", "news", "exact_match", (".",)),
    "thucnews_semantic-multiple": ("semantic-multiple", "cls+cnt", "news", "exact_match", ("。",)),
    "hotpotqa": ("semantic-multiple", "qa", "wikipedia", "acc", LINE),
    "bigpatent_global_cls": ("global", "cls", "patents", "acc", (":",)),
    "triviaqa": ("global", "qa", "web", "acc", LINE),
    "arxiv": ("global", "sum", "academic", "rouge", ("\n",)),
    "bigpatent_global_sum": ("global", "sum", "patents", "rouge", ("\n",)),
    "pubmed": ("global", "sum", "medicine", "rouge", ("\n",)),
    "booksum": ("global", "sum", "books", "rouge", ("\n",)),
    "cnewsum": ("global", "sum", "news", "rouge", ("\n", "新闻")),
    "clts+": ("global", "sum", "news", "rouge", ("\n", "新闻")),
    "open-subtitles-en2zh": ("global", "tran", "film", "bleu", ()),
    "open-subtitles-zh2en": ("global", "tran", "film", "bleu", ()),
    "news-commentary-en2zh": ("global", "tran", "news", "bleu", ()),
    "news-commentary-zh2en": ("global", "tran", "news", "bleu", ()),
}
RELEASED_TOKENS = {"sum": 256, "tran": 1024}  # room for an answer by type; 64 for others


@register("task", "m4le", systems=("m4le",))
@task(name="m4le")
def m4le(
    lengths: str | int = "1k,2k,4k,8k",
    ability: str | Sequence[str] = "all",
    type: str | Sequence[str] = "all",
    samples: int = 2,
    seed: int = 0,
    data: str | None = None,
    tokenizer: str | None = None,
) -> Task:
    """Five abilities over long texts made of short ones, `samples` for each task type and length.

    `ability` and `type` name those wanted, with commas between (explicit-single,global; ret,qa); `data` is a file or a
    folder of datasets, see the module. Datasets take turns. The same texts are asked about at every length.
    """
    wanted = [
        names
        if isinstance(names, str) and names == "all"
        else set(names.split(",") if isinstance(names, str) else names)
        for names in (ability, type)
    ]

    def asked(ability: str, type: str) -> bool:
        return all(names == "all" or name in names for names, name in zip(wanted, (ability, type), strict=True))

    pools, released = (local_pools(), {}) if data is None else read_data(Path(data))
    kinds = [kind for kind in KINDS if asked(kind.ability, kind.type) and any(supports(pool, kind) for pool in pools)]
    files = {name: rows for name, rows in released.items() if asked(*RELEASED[name][:2])}
    if not kinds and not files:
        raise UsageError(
            f"Nothing to ask for ability={ability}, type={type}: abilities are {', '.join(ABILITIES)}, types "
            f"{', '.join(sorted({kind.type for kind in KINDS}))}, and each needs datasets that know what it asks for "
            f"(at least {LEAST} texts with a label, title and summary ...)."
        )
    count = counter(tokenizer)
    dataset = [
        one(kind, [pool for pool in pools if supports(pool, kind)], length, seed, number, count)
        for length in parse_lengths(lengths)
        for number in range(samples)
        for kind in kinds  # questions after the same texts one after another: their keys and values are shared
    ]
    for name, rows in files.items():
        dataset += finished(name, rows, parse_lengths(lengths), samples, seed, count)
    return Task(
        dataset=MemoryDataset(dataset, name="m4le"),
        solver=answer(),
        scorer=m4le_score(),
        config=GenerateConfig(temperature=0.0),
    )


@solver
def answer() -> Solver:
    """One call, with each type's own room for the answer; a type whose answers end with the line stops there."""

    async def solve(state: TaskState, generate: Generate) -> TaskState:
        stop = ["\n"] if "\n" in state.metadata["ends"] else None
        return await generate(state, max_tokens=state.metadata["answer_tokens"], stop_seqs=stop)

    return solve


@scorer(metrics=[*METRICS, grouped(mean(), "ability", all=False)])
def m4le_score() -> Scorer:
    """The metric of the sample's type, see `scores.mark`."""

    async def score(state: TaskState, target: Target) -> Score:
        given, about = state.output.completion, state.metadata
        return Score(value=mark(about["metric"], given, list(target), about["ends"]), answer=given)

    return score


def supports(pool: Pool, kind: Kind) -> bool:
    """Whether the dataset has texts enough that know what `kind` asks by and after."""
    texts = pool.documents if kind.ability == "global" else pool.passages
    usable = [text for text in texts if text.knows(kind.needs)]
    if "label" in kind.needs and len({text.label for text in usable}) < 2:
        return False
    if kind.ability == "global":
        return bool(usable)
    return len(usable) >= LEAST and (not kind.classes or bool(classes(usable, kind.several[1] + 2)))


def classes(passages: Sequence[Passage], least: int) -> list[str]:
    """The labels that at least so many of the passages have."""
    counts = Counter(passage.label for passage in passages)
    return sorted(label for label, count in counts.items() if count >= least)


def one(kind: Kind, pools: Sequence[Pool], length: int, seed: int, number: int, counter: TokenCounter) -> Sample:
    """Sample `number` of a kind: its texts depend on the seed alone, how many more are around them on the length."""
    turn = number % len(pools)
    if kind.ability == "global":
        return of_document(kind, [*pools[turn:], *pools[:turn]], length, seed, number, counter)
    pool = pools[turn]
    rng = random.Random(f"m4le-{group(kind)}-{pool.domain}-{seed}-{number}")
    before, used = opening(kind, pool)
    space = room(length, counter, kind.answer_tokens)
    golds = draw(kind, [passage for passage in pool.passages if passage not in used], rng)
    if kind.classes:  # several texts of a class leave room for others
        sizes = [counter.count(gold.text) for gold in golds]
        while len(golds) > kind.several[0] and sum(sizes[: len(golds)]) > (space - counter.count(before)) / 2:
            golds.pop()
    others = fillers(kind, pool, golds, used, rng)
    ids = [ident(rng) for _ in range(len(golds) + len(others))]
    shown = [
        kind.shown.format(id=id, title=passage.title, text=passage.text)
        for id, passage in zip(ids, [*golds, *others], strict=True)
    ]
    depth = DEPTHS[number % len(DEPTHS)]
    places = [depth, *[rng.random() for _ in golds[1:]]]
    labels = offered(pool.passages, golds[0], rng)
    questions = {
        other.name: asking(other, golds[: other.several[1]], ids, labels)
        for other in KINDS
        if group(other) == group(kind)
    }
    layout = Layout(shown[: len(golds)], shown[len(golds) :], places, space)

    def prompt(question: str, words: int, among: int | None) -> str:
        return f"{before}{layout.text(words, among)}{behind(question)}"

    # The questions after the same texts fix their order together: that with the longest question has the fewest.
    longest = max((question for question, _ in questions.values()), key=counter.count)
    layout.check(prompt(longest, layout.words, None), counter, space, pool.domain)
    words, _ = fit(lambda n: prompt(longest, n, None), counter, space)
    question, answers = questions[kind.name]
    among = layout.whole(words)
    layout.check(prompt(question, layout.words, among), counter, space, pool.domain)
    words, _ = fit(lambda n: prompt(question, n, among), counter, space)
    return made(
        kind,
        pool.domain,
        f"{length}-{seed}-{number}",
        before=before,
        context=layout.text(words, among),
        question=question,
        answers=answers,
        length=length,
        counter=counter,
        depth=depth if kind.several == (1, 1) else None,
        needles=shown[: min(len(golds), kind.several[1])],
    )


def group(kind: Kind) -> str:
    """Kinds of one group are asked after the same texts: the four that want names."""
    return "ret" if kind.type == "ret" else kind.name


def made(
    kind: Kind,
    domain: str,
    number: str,
    *,
    before: str,
    context: str,
    question: str,
    answers: Sequence[str],
    length: int,
    counter: TokenCounter,
    depth: float | None,
    needles: Sequence[str],
) -> Sample:
    sample = make_sample(
        f"m4le-{kind.ability}-{kind.type}-{domain}-{number}",
        before=before,
        context=context,
        after=behind(question),
        question=question,
        targets=answers,
        length=length,
        counter=counter,
        answer_tokens=kind.answer_tokens,
        depth=depth,
        needles=needles,
        ability=kind.ability,
        type=kind.type,
        domain=domain,
    )
    return scored(sample, kind.ability, kind.metric, kind.ends, kind.answer_tokens)


def scored(sample: Sample, ability: str, metric: str, ends: Sequence[str], answer_tokens: int) -> Sample:
    """The sample with what solver and scorer need to know."""
    sample.metadata = {
        **(sample.metadata or {}),
        "ability": ability,
        "metric": metric,
        "ends": list(ends),
        "answer_tokens": answer_tokens,
    }
    return sample


def behind(question: str) -> str:
    return f"\n\nQuestion: {question}\nAnswer:"


def ident(rng: random.Random) -> str:
    """Six hexadecimal digits, as the paper's ids."""
    return f"{rng.randrange(16**6):06X}"


def draw(kind: Kind, passages: Sequence[Passage], rng: random.Random) -> list[Passage]:
    """The texts that a question is about: as many as the group's widest question, or several of one class."""
    usable = [passage for passage in passages if passage.knows(kind.needs)]
    low, high = kind.several
    if kind.classes:
        label = rng.choice(classes(usable, high))
        return rng.sample([passage for passage in usable if passage.label == label], rng.randint(low, high))
    return rng.sample(usable, max(other.several[1] for other in KINDS if group(other) == group(kind)))


def fillers(
    kind: Kind, pool: Pool, golds: Sequence[Passage], used: Sequence[Passage], rng: random.Random
) -> list[Passage]:
    """The other texts of the dataset in a random order, without those that would answer the question as well."""

    def may_stand(passage: Passage) -> bool:
        if passage in golds or passage in used or any(passage.text == gold.previous for gold in golds):
            return False
        if kind.classes:
            return bool(passage.label) and passage.label != golds[0].label
        if "title" in kind.needs and not passage.title:
            return False
        return "question" not in kind.needs or not any(evidence_of(gold) in passage.text for gold in golds)

    others = [passage for passage in pool.passages if may_stand(passage)]
    rng.shuffle(others)
    return others


def offered(passages: Sequence[Passage], gold: Passage, rng: random.Random) -> list[str]:
    """The classes to choose from: the right one and up to nine others."""
    others = sorted({passage.label for passage in passages} - {gold.label, ""})
    return sorted([gold.label, *rng.sample(others, min(len(others), LABELS - 1))])


def asking(kind: Kind, golds: Sequence[Passage], ids: Sequence[str], labels: Sequence[str]) -> tuple[str, list[str]]:
    """The question after `golds`, which stand under the first `ids`, and its answers."""
    first, ids = golds[0], ids[: len(golds)]
    question = kind.question.format(
        ids=listed(ids),
        labels=", ".join(labels),
        label=first.label,
        title=first.title,
        summary="; ".join(gold.summary for gold in golds),
        question=first.question,
        previous=first.previous,
        language=first.language,
    )
    answers = {
        "ids": list(ids),
        "count": [str(len(golds))],
        "title": [gold.title for gold in golds],
        "answers": list(first.answers),
    }
    return question, answers[kind.answer] if kind.answer in answers else [getattr(first, kind.answer)]


def listed(names: Sequence[str]) -> str:
    return " and ".join([", ".join(names[:-1]), names[-1]]) if len(names) > 1 else names[0]


def opening(kind: Kind, pool: Pool) -> tuple[str, list[Passage]]:
    """What stands before the long text: the instruction and a solved example, and the texts that this uses up.

    The example is the same for all samples of a group and dataset, of short texts (there is none for a dataset that has
    documents alone); the four kinds that want names are all shown in it, so that nothing but the last question tells
    them apart.
    """
    rng = random.Random(f"m4le-example-{group(kind)}-{pool.domain}")
    usable = sorted(
        (passage for passage in pool.passages if passage.knows(kind.needs)), key=lambda passage: len(passage.text)
    )
    if not usable:
        return f"{kind.instruction}\n\n", []
    if kind.classes:
        label = rng.choice(classes(usable, kind.several[1] + 2))  # two of many, so that enough are left
        golds = [passage for passage in usable if passage.label == label][:2]
    else:
        golds = draw(kind, usable[: max(LEAST, len(usable) // 10)], rng)
    shorter = [passage for passage in pool.passages if len(passage.text) <= len(golds[-1].text)]
    others = [] if kind.ability == "global" else fillers(kind, Pool(pool.domain, shorter, []), golds, [], rng)[:1]
    ids = [ident(rng) for _ in [*golds, *others]]
    order = rng.sample(range(len(ids)), len(ids))
    texts = [*golds, *others]
    lines = [kind.shown.format(id=ids[i], title=texts[i].title, text=texts[i].text) for i in order]
    labels = offered(pool.passages, golds[0], rng)
    for other in KINDS:
        if group(other) == group(kind):
            question, answers = asking(other, golds[: other.several[1]], ids, labels)
            said = ", ".join(answers) if other.metric == "cls_f1" else answers[0]
            lines.append(f"Question: {question}\nAnswer: {said}{'.' if '.' in other.ends else ''}")
    example = "\n".join(lines)
    return f"{kind.instruction}\n\n{example}\n\n", texts


class Layout:
    """The long text: `golds` at their `places` (0 to 1) among as many `others` as are asked for, in words.

    The last of the others is cut, and stands behind all golds but for those that cut off whole ones leave behind it.
    """

    def __init__(self, golds: Sequence[str], others: Sequence[str], places: Sequence[float], space: int) -> None:
        self.golds = golds
        self.places = places
        self.others: list[str] = []
        self.ends: list[tuple[int, int]] = []  # for each word of the others: the text it is of, where it ends there
        size = 0
        for index, text in enumerate(others):
            if size > PLENTY * space:
                break
            start = text.index(": ") + 2  # a text is cut behind its first word at the earliest
            self.others.append(text)
            self.ends += [(index, word.end()) for word in WORD.finditer(text) if word.end() > start]
            size += len(text)

    @property
    def words(self) -> int:
        return len(self.ends)

    def whole(self, words: int) -> int:
        """How many of the others stand whole before the last."""
        return self.ends[min(words, self.words) - 1][0] if words else 0

    def text(self, words: int, among: int | None) -> str:
        """The text with so many words of the others; the golds are placed among the first `among`, or all whole."""
        whole = self.whole(words)
        end = self.ends[min(words, self.words) - 1][1] if words else 0
        texts = [*self.others[:whole], *([self.others[whole][:end]] if end else [])]
        among = whole if among is None else among
        for place, gold in sorted(zip(self.places, self.golds, strict=True), reverse=True):
            texts.insert(round(place * among), gold)
        return "\n\n".join(texts)

    def check(self, all_of_it: str, counter: TokenCounter, space: int, domain: str) -> None:
        if self.words == 0 or (sum(map(len, self.others)) <= PLENTY * space and counter.count(all_of_it) <= space):
            raise UsageError(
                f"The texts of {domain} are too few for {space} tokens: ask for a shorter length or give more `data`."
            )


def of_document(
    kind: Kind, pools: Sequence[Pool], length: int, seed: int, number: int, counter: TokenCounter
) -> Sample:
    """Sample `number` of a global kind: a document of the first dataset that has one long enough, its end cut off."""
    space = room(length, counter, kind.answer_tokens)
    for pool in pools:
        rng = random.Random(f"m4le-{kind.name}-{pool.domain}-{seed}-{number}")
        before, used = opening(kind, pool)
        known = [document for document in pool.documents if document.knows(kind.needs) and document not in used]
        # a document comes once for each question of it, but else once
        usable = known if "question" in kind.needs else list({document.text: document for document in known}.values())
        document = next((one for one in rng.sample(usable, len(usable)) if fills(kind, one, counter, space)), None)
        if document is not None:
            break
    else:
        raise UsageError(
            f"No document of {', '.join(pool.domain for pool in pools)} is long enough for {kind.name} at {length} "
            "tokens: ask for a shorter length, leave ability=global out, or give `data` with longer texts."
        )
    question, answers = asking(kind, [document], ["-"], offered(pool.documents, document, rng))
    text = kind.shown.format(text=document.text[: PLENTY * space])
    start = len(text) - len(document.text[: PLENTY * space])
    ends = [start, *[word.end() for word in WORD.finditer(text) if word.end() > start]]

    def context(words: int) -> str:
        return text[: ends[min(words, len(ends) - 1)]]

    words, _ = fit(lambda n: f"{before}{context(n)}{behind(question)}", counter, space)
    return made(
        kind,
        pool.domain,
        f"{length}-{seed}-{number}",
        before=before,
        context=context(words),
        question=question,
        answers=answers,
        length=length,
        counter=counter,
        depth=None,
        needles=[evidence_of(document)] if "question" in kind.needs else [],
    )


def fills(kind: Kind, document: Passage, counter: TokenCounter, space: int) -> bool:
    """Whether the document has `space` tokens and more, with what it is asked about surely in the part that is kept."""
    kept = document.text[: PLENTY * space]
    if "question" in kind.needs and evidence_of(document) not in kept[: SURE * space // 2]:
        return False
    return len(kept) > SURE * space and counter.count(kept) > space


def evidence_of(passage: Passage) -> str:
    """The part of the text that holds the answer to its question."""
    return passage.evidence or passage.answers[0]


def read_data(path: Path) -> tuple[tuple[Pool, ...], dict[str, list[tuple[str, dict[str, Any]]]]]:
    """The datasets of a file or folder: short texts as pools, finished samples by the name of their file.

    Raises UsageError, with file and line, for what is neither.
    """
    files = sorted(path.rglob("*.jsonl")) if path.is_dir() else [path]
    if not files or not path.exists():
        raise UsageError(f"There is no .jsonl file at {path}.")
    pools, released = [], {}
    for file in files:
        rows = read_lines(file)
        if "instruction" in rows[0][1]:
            if file.stem not in RELEASED:
                raise UsageError(
                    f"{file}: samples of M4LE are told by their file's name, one of {', '.join(RELEASED)}."
                )
            released[file.stem] = rows
            continue
        passages = [passage_of(where, row) for where, row in rows]
        named: dict[str, str] = {}
        for (where, _), passage in zip(rows, passages, strict=True):
            if passage.title and passage.title in named:
                raise UsageError(f"{where}: the title {passage.title!r} is also that of {named[passage.title]}.")
            named[passage.title] = where
        long = [passage for passage in passages if len(passage.text) > LONG]
        pools.append(Pool(file.stem, [passage for passage in passages if len(passage.text) <= LONG], long))
    return tuple(pools), released


def finished(
    name: str,
    rows: Sequence[tuple[str, dict[str, Any]]],
    lengths: Sequence[int],
    samples: int,
    seed: int,
    counter: TokenCounter,
) -> Iterator[Sample]:
    """Released samples of one file: `samples` of each bucket (1000, 2000 ...) that is near one of `lengths`."""
    ability, type, domain, metric, ends = RELEASED[name]
    answer_tokens = RELEASED_TOKENS.get(type.partition("+")[0], 64)
    buckets: dict[int, list[tuple[str, dict[str, Any]]]] = {}
    for where, row in rows:
        for key, kind in (("instruction", str), ("input", str), ("answers", list), ("length_bucket", int)):
            if not isinstance(row.get(key), kind):
                raise UsageError(f'{where}: "{key}" must be a {kind.__name__}, not {row.get(key)!r}.')
        if not all(isinstance(wanted, str) for wanted in row["answers"]) or not row["answers"]:
            raise UsageError(f'{where}: "answers" must be strings, at least one.')
        buckets.setdefault(row["length_bucket"], []).append((where, row))
    near = [bucket for bucket in sorted(buckets) if any(abs(bucket - length) <= 0.05 * length for length in lengths)]
    if not near:
        raise UsageError(
            f"{name} has no samples of the lengths {lengths}: its buckets are {', '.join(map(str, sorted(buckets)))}."
        )
    for bucket in near:
        chosen = random.Random(f"m4le-{name}-{seed}").sample(buckets[bucket], min(samples, len(buckets[bucket])))
        for where, row in chosen:
            head, tail = question_apart(row["input"])
            sample = make_sample(
                f"m4le-{name}-{bucket}-{where.rpartition(':')[2]}",
                before=f"{row['instruction']}\n",
                context=head,
                after=tail,
                question=f"{row['instruction']}\n{tail.strip()}",
                targets=answers_of(row["answers"], metric, ends),
                length=bucket,
                counter=counter,
                answer_tokens=answer_tokens,
                ability=ability,
                type=type,
                domain=domain,
                dataset=name,
            )
            yield scored(sample, ability, metric, ends, answer_tokens)


def answers_of(answers: Sequence[str], metric: str, ends: Sequence[str]) -> list[str]:
    """The targets of a released sample. A list of ids is one string there, ended or not by a full stop, and so is a
    count. (The official script leaves the full stop at the last id of `online-shopping`, which can then not be found.)
    """
    if metric == "cls_f1":
        return [name.strip() for name in answers[0].split(ends[0])[0].split("，" if "。" in ends else ",")]
    if metric == "exact_match" and ends:
        return [wanted.split(ends[0])[0] for wanted in answers]
    return list(answers)


def question_apart(text: str) -> tuple[str, str]:
    """A released input as (long text, question): the last line, and the one before where that only says "Answer:"."""
    lines = text.rstrip().split("\n")
    last = 2 if len(lines) > 2 and len(lines[-1]) < 16 and len(lines[-1].split()) == 1 else 1
    head = "\n".join(lines[:-last])
    return head, text[len(head) :]
