"""λ-RLM: a typed program of combinators reads the text, the model only its leaves (Roy et al. 2026, arXiv:2603.20105).

"The Y-Combinator for LLMs: Solving Long-Context Rot with λ-Calculus". Instead of code that a model writes (RLM), a
planner builds one recursive program from a fixed library of combinators and runs it once:

    fix(λf. λP. if |P| ≤ τ* then M(P) else Reduce(⊕, Map(f, Split(P, k*))))

So the run ends, and what it may cost is known before it: with a text of n tokens, depth d = ⌈log_k(n/τ)⌉ and at most
k^d leaf calls, T(n) ≤ k^d·C(τ) + (k^d − 1)/(k − 1)·C⊕(k) (Theorem 2). Here the bound is computed by the same recurrence
over the program itself (`combinators`), with a Split's uneven shares counted in, also for programs of your own, and
enforced by a budget.

What differs from the paper and its code (lambda-calculus-LLM/lambda-RLM), or was inferred:

- Split cuts at sentences, so that a share may be larger than n/k by one piece (64 tokens); sizes are tokens of the
  model's own tokenizer, the official code counts characters.
- Filter searches whole chunks by the question's words (BM25 over their pieces) and costs no call. The official code
  asks the model about the first tenth of each chunk, the paper matches previews of 500 characters: both miss what
  stands further down.
- FILTERBEST scores an answer by the sentence of its leaf that carries it and the question's words: what a leaf made up
  loses, and the winner is cited.
- Theorem 4 finds k* = 2 for the bound; the official code takes ⌈√(n·c_in/c⊕)⌉, at most 20. Both follow from estimates;
  here the k of the least cost by the exact recurrence is taken (a flat split where ⊕ is free).
- The kind of task is taken from the question's wording where that tells; else a model that can write chooses from the
  menu (one call, one more to repair), and one that cannot is given "search".
- A0 = 0.95, A⊕ = 0.9 and α = 0.8 are the official code's.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import combinations
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from longspan.corpus import Corpus
from longspan.errors import LongspanError, UsageError
from longspan.llm import LLM, Message
from longspan.registry import register
from longspan.trace import span
from longspan.workflows.answer import Answer, Citation, Settings
from longspan.workflows.atoms import Atoms, Part
from longspan.workflows.budget import MESSAGE, TEMPLATE, Budget, Budgeted, BudgetSpent
from longspan.workflows.combinators import (
    Chain,
    Concat,
    Cost,
    Cross,
    Filter,
    Fix,
    Frame,
    M,
    Map,
    Parse,
    Peek,
    Reduce,
    Self,
    Split,
    Term,
    bound,
)
from longspan.workflows.generate import REFUSAL
from longspan.workflows.leaf import FIND, QUOTED, evidence, is_nothing, leaf_tokens
from longspan.workflows.parallel import CONCURRENT, parallel
from longspan.workflows.passages import Unit
from longspan.workflows.question import kind_of, things
from longspan.workflows.structured import REASONS, REPAIR, structured
from longspan.workflows.support import citations_of
from longspan.workflows.words import stems

PROMPTS = {
    "find": FIND,
    "list": (
        "Text:\n{text}\n\n" + QUOTED + " {question}\nList every item of this text that belongs to the answer, one a "
        "line, in the text's own words, without comment. If there is none, reply with exactly NONE."
    ),
    "count": "Text:\n{text}\n\n" + QUOTED + " {question}\nAnswer for this text alone, with the number alone.",
    "label": (
        "Text:\n{text}\n\n" + QUOTED + " {question}\nDo this for every item of this text, one a line, as ITEM: LABEL."
    ),
    "note": (
        "Text:\n{text}\n\n" + QUOTED + " {question}\nNote in one to three sentences what this text says that helps to "
        "answer. If nothing, reply with exactly NONE."
    ),
    "extract": (
        "Text:\n{text}\n\n" + QUOTED + " {question}\nCopy word for word every sentence of this text that may help to "
        "answer, one a line. If there is none, reply with exactly NONE."
    ),
    "answer": (
        "Notes from one text, in order:\n{text}\n\n{question}\nAnswer from these notes alone. If they do not hold the "
        "answer, reply with exactly NONE."
    ),
}
MENU = (
    "A long text begins:\n{peek}\n\nQuestion about it: {question}\n\nWhich task is this? search: a fact that the text "
    "states; multi_hop: facts from several places that lead to each other; aggregate: every item of a kind; pairwise: "
    "pairs of items; classify: a label for every item; summarise: what it says as a whole. Reply with one JSON object."
)

# -- the planner -------------------------------------------------------------------------------------------------------

Task = Literal["search", "multi_hop", "aggregate", "pairwise", "classify", "summarise"]


@dataclass(frozen=True, slots=True)
class Accuracy:
    """The paper's model of what is right: a leaf of n tokens with A(n) = a0·ρ^(n/K) (Definition 4), a composition with
    `compose` (1 where it is a program's)."""

    a0: float = 0.95
    rho: float = 1.0
    window: int = 1
    compose: float = 0.9

    def leaf(self, tokens: int) -> float:
        return float(self.a0 * self.rho ** (tokens / self.window))

    def worst(self, tokens: int, leaves: int, depth: int) -> float:
        """Theorem 3 (ii): every leaf and every level must be right."""
        return float(self.leaf(tokens) ** leaves * self.compose**depth)

    def single(self, tokens: int, depth: int) -> float:
        """Theorem 3 (iv): one leaf holds the answer; 1 per level where compositions are a program's."""
        return float(self.leaf(tokens) * self.compose**depth)


ALPHA = 0.8
KEEP = 8  # chunks that a search reads
ABOUT = 0.3  # of evidence that a small model's answer needs: a quarter of the question's words beside it
HOP_KEEP, HOPS = 16, 5
OUT = {"search": 64, "aggregate": 256, "pairwise": 256, "classify": 512, "summarise": 160, "multi_hop": 128}
NUMBER = 12  # tokens of a count


@dataclass(frozen=True, slots=True)
class Plan:
    """What the planner decided: program, k*, τ* and depth for a text of `tokens`, and the most that it costs."""

    task: Task
    program: Term
    tokens: int
    k: int
    tau: int
    bound: Cost
    accuracy: float

    def __str__(self) -> str:
        return (
            f"k*={self.k}, τ*={self.tau}, depth {self.bound.depth}: at most {self.bound.calls} calls, "
            f"{self.bound.read} tokens read and {self.bound.written} written"
        )


def plan(
    task: Task,
    question: str,
    tokens: int,
    slack: int,
    llm: LLM,
    max_tokens: int = 256,
    frame: Frame | None = None,
) -> Plan:
    """Phase 4: the program for a task over a text of `tokens`, by the k* of the least cost that keeps the accuracy."""
    frame = frame or frame_of(llm, question)
    leaf = leaf_tokens(llm, everything=task not in ("search", "multi_hop"))
    out = min(OUT[task], max_tokens, llm.effective_window // 8)
    widest = max(frame(M(name, out)) for name in PROMPTS)
    room = llm.effective_window - widest - out
    tau = min(leaf, room)
    if tau < 2 * slack + 32:
        raise LongspanError(
            f"The question leaves {max(tau, 0)} tokens to read at once in {llm.name}'s window, and a piece of the text "
            f"may have {slack}: ask a shorter question, or take a model with a larger window."
        )
    neural = task == "summarise"
    widths = {2, *(_width(tokens, tau, slack, depth) for depth in range(1, 24))}
    if neural:
        widths = {k for k in {*widths, *range(2, 17)} if k * (out + 1) <= room} or {2}
    accuracy = Accuracy(compose=0.9 if neural else 1.0)
    plans: list[Plan] = []
    for k in sorted(widths):
        program = program_of(task, question, k, tau, out, room)
        try:
            cost = bound(program, tokens, slack, frame)
        except UsageError:  # chunks of this k do not become small enough
            continue
        plans.append(Plan(task, program, tokens, k, tau, cost, accuracy.single(tau, cost.depth)))
    allowed = [each for each in plans if each.accuracy >= ALPHA] or plans
    return min(allowed, key=lambda each: (each.bound.price, each.bound.depth, each.k))


def _width(tokens: int, tau: int, slack: int, depth: int) -> int:
    """The least k whose chunks are no larger than tau after `depth` splits."""
    low, high = 2, max(2, -(-tokens // max(tau - slack, 1)))
    while low < high:
        k = (low + high) // 2
        size = tokens
        for _ in range(depth):
            size = size if size <= tau else min(-(-size // k) + slack, size)
        low, high = (low, k) if size <= tau else (k + 1, high)
    return low


def program_of(task: Task, question: str, k: int, tau: int, out: int, room: int) -> Term:
    """Table 1 of the paper: the plan π with its composition ⊕."""
    each: Split | Chain = Split(k)
    match task:
        case "search":
            questions = things(question)
            if len(questions) > 1:
                narrow = Split(k) >> Cross(questions) >> Filter(KEEP)
                return (
                    narrow >> Map(Fix(tau, M("find", out), Split(2) >> Map(Self()) >> Reduce("best"))) >> Reduce("best")
                )
            return Fix(tau, M("find", out), each >> Filter(KEEP) >> Map(Self()) >> Reduce("best"))
        case "aggregate" if kind_of(question) == "count":
            return Fix(tau, M("count", NUMBER), each >> Map(Self()) >> Reduce("sum"))
        case "aggregate":
            return Fix(tau, M("list", out), each >> Map(Self()) >> Reduce("merge"))
        case "pairwise":
            return Fix(tau, M("list", out), each >> Map(Self()) >> Reduce("merge")) >> Parse() >> Cross() >> Concat()
        case "classify":
            return Fix(tau, M("label", out), each >> Map(Self()) >> Concat())
        case "summarise":
            return Fix(tau, M("note", out), each >> Map(Self()) >> Reduce(M("answer", out, "Found")))
        case "multi_hop":
            keep = max(min(HOP_KEEP, room // (out + 1)), 1)
            read = Map(Fix(tau, M("extract", out), Split(2) >> Map(Self()) >> Concat()))
            return Split(k) >> Filter(keep, HOPS) >> read >> Concat() >> M("answer", out, "Found")


def frame_of(llm: LLM, question: str) -> Frame:
    """The most that a call reads besides its text: prompt and question, what a template adds, and the seams."""
    seams = 4

    def frame(m: M) -> int:
        prompt = template(m.prompt).format(text="", question=question)
        return llm.count_tokens(prompt) + seams + MESSAGE + TEMPLATE

    return frame


def template(prompt: str) -> str:
    found = PROMPTS.get(prompt, prompt)
    if "{text}" not in found:
        raise UsageError(f"{prompt!r} is no prompt: give a template with {{text}}, or one of {', '.join(PROMPTS)}.")
    return found


# -- the executor ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Found:
    """What a leaf or a composition gave: its text, the parts it was read from, and the units that carry it."""

    text: str
    parts: tuple[Part, ...] = ()
    quotes: tuple[tuple[Unit, float], ...] = ()

    @property
    def nothing(self) -> bool:
        return is_nothing(self.text)


Value = Part | list[Part] | Found | list[Found]


@dataclass(slots=True)
class Executor:
    """Φ: runs a program over the pieces of a corpus. Nothing but `M` calls the model."""

    question: str
    atoms: Atoms
    llm: LLM
    settings: Settings
    most: int = 0  # leaf calls expected at most, for the progress shown
    made: int = 0
    dropped: int = 0  # answers that no unit of their leaf carries
    unparsed: int = 0  # leaves that gave no number where one was asked for
    _gate: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(CONCURRENT))

    async def run(self, program: Term) -> Found:
        found = await self._run(program, self.atoms.whole, None)
        assert isinstance(found, Found)
        return found

    async def _run(self, term: Term, value: Any, fix: Fix | None) -> Value:
        match term:
            case Chain(steps):
                for step in steps:
                    value = await self._run(step, value, fix)
                return value  # type: ignore[no-any-return]
            case Split(k):
                return self.atoms.split(value, k)
            case Peek(tokens):
                return self.atoms.peek(value, tokens)
            case Filter(keep, hops):
                return await asyncio.to_thread(self._filter, value, keep, hops)
            case Cross(questions) if questions:
                return [replace(part, question=question) for question in questions for part in value]
            case Cross():
                pairs = combinations(value, 2)
                return [Found(f"{a.text} | {b.text}", a.parts + b.parts, a.quotes + b.quotes) for a, b in pairs]
            case Parse():
                return [replace(value, text=line) for line in value.text.splitlines() if line.strip()]
            case Map(step):
                return await parallel(lambda each: self._run(step, each, fix), value)  # type: ignore[return-value]
            case M():
                return await self._call(term, value)
            case Reduce(M() as m):
                kept = [found for found in value if not found.nothing]
                return await self._call(m, self._concat(kept)) if kept else Found("")
            case Reduce(by):
                operators = {"best": self._best, "merge": self._merge, "sum": self._sum}
                with span(f"reduce: {by}", "workflow", {"of": len(value)}) as step_span:
                    found = await asyncio.to_thread(operators[str(by)], value)
                    step_span.output = found.text
                return found
            case Concat():
                return self._concat([found for found in value if not found.nothing])
            case Self():
                assert fix is not None
                return await self._run(fix, value, fix)
            case Fix(tau, leaf, step):
                if value.tokens <= tau or value.last - value.first <= 1:
                    return await self._call(leaf, value)
                return await self._run(step, value, term)
        raise UsageError(f"{term!r} is no combinator.")

    async def _call(self, m: M, value: Part | Found) -> Found:
        question = (value.question if isinstance(value, Part) else None) or self.question
        async with self._gate:  # prompts are made when it is their turn: thousands may wait
            text = self.atoms.text(value) if isinstance(value, Part) else value.text
            prompt = template(m.prompt).format(text=text, question=question)
            completion = await self.llm.chat([Message(role="user", content=prompt)], max_tokens=m.max_tokens)
        self.made += 1
        if self.settings.on_progress:
            self.settings.on_progress("reading leaves", self.made, max(self.most, self.made))
        return Found(completion.text.strip(), (value,) if isinstance(value, Part) else value.parts)

    # -- what is no call -------------------------------------------------------------------------------------------

    def _filter(self, parts: list[Part], keep: int, hops: int) -> list[Part]:
        with span("filter", "workflow", {"of": len(parts), "keep": keep}) as step:
            kept: list[Part] = []
            for question in dict.fromkeys(part.question for part in parts):
                mine = [part for part in parts if part.question == question]
                scores = [self.atoms.score(part, question or self.question, hops) for part in mine]
                order = sorted(range(len(mine)), key=lambda at: (-scores[at], at))[:keep]
                kept += [mine[at] for at in sorted(order) if scores[at] > 0]
            step.output = [{"pieces": [part.first, part.last], "tokens": part.tokens} for part in kept]
        return kept

    def _concat(self, found: Sequence[Found]) -> Found:
        parts = tuple(dict.fromkeys(part for each in found for part in each.parts))
        quotes = tuple(dict.fromkeys(quote for each in found for quote in each.quotes))
        return Found("\n".join(each.text for each in found), parts, quotes)

    def _best(self, found: Sequence[Found]) -> Found:
        """FILTERBEST: for each question the answer whose own leaf carries it best."""
        answers: list[Found] = []
        for question in dict.fromkeys(each.parts[0].question for each in found if each.parts):
            mine = [each for each in found if each.parts and each.parts[0].question == question and not each.nothing]
            asked = question or self.question
            weights = self.atoms.rarity(asked)
            scored = [(each, self._evidence(each, asked, weights)) for each in mine]
            if self.llm.reader == "extract":  # what it makes up may stand somewhere, in a unit about something else
                scored = [(each, found if found and found[1] >= ABOUT else None) for each, found in scored]
            self.dropped += sum(evidence is None for _, evidence in scored)
            carried = [(each, evidence) for each, evidence in scored if evidence is not None]
            if carried:
                best, quote = max(carried, key=lambda item: item[1][1])
                answers.append(replace(best, quotes=(quote,)))
            elif mine and self.llm.reader == "generate":  # in words of its own, which no unit has
                answers.append(max(mine, key=lambda each: self.atoms.score(each.parts[0], asked, 0)))
        return self._concat(answers)

    def _evidence(self, found: Found, question: str, weights: dict[str, float]) -> tuple[Unit, float] | None:
        """The unit of the leaf that carries the answer; see `leaf.evidence`."""
        passages = [passage for part in found.parts for passage in self.atoms.passages_of(part)]
        return evidence(found.text, question, weights, self.atoms.corpus, passages)

    def _merge(self, found: Sequence[Found]) -> Found:
        """Every item once, in reading order; one that its leaf does not hold is left out."""
        items: dict[str, Found] = {}
        for each in found:
            if each.nothing:
                continue
            if each.quotes:  # merged below
                lines = [
                    replace(each, text=text, quotes=(q,))
                    for text, q in zip(each.text.splitlines(), each.quotes, strict=True)
                ]
            else:
                lines = [replace(each, text=line.strip().lstrip("-*•) ").strip()) for line in each.text.splitlines()]
            for line in lines:
                same = " ".join(stems(line.text))
                if not same or same in items:
                    continue
                quote = line.quotes[0] if line.quotes else self._evidence(line, "", {})
                if quote is None:
                    self.dropped += 1
                else:
                    items[same] = replace(line, quotes=(quote,))
        merged = list(items.values())
        parts = tuple(dict.fromkeys(part for each in merged for part in each.parts))
        return Found("\n".join(each.text for each in merged), parts, tuple(each.quotes[0] for each in merged))

    def _sum(self, found: Sequence[Found]) -> Found:
        total = 0
        for each in found:
            number = re.search(r"-?\d+", each.text)
            self.unparsed += number is None
            total += int(number[0]) if number else 0
        return Found(str(total), tuple(part for each in found for part in each.parts))


# -- the workflow ------------------------------------------------------------------------------------------------------

CITATIONS = 12


class Choice(BaseModel):
    """The menu's reply."""

    model_config = ConfigDict(extra="forbid")
    task: Task


MENU_TOKENS = 40
MENU_PEEK = 120


@register("workflow", "lambda-rlm", systems=("lambda-rlm",))
async def lambda_rlm(question: str, corpus: Corpus, llm: LLM, settings: Settings) -> Answer:
    """A planned program of combinators splits, searches and reads the text; its cost is bounded before it runs."""
    with span("pieces", "corpus") as step:
        atoms = await asyncio.to_thread(Atoms.of, corpus, llm)
        step.output = {"pieces": len(atoms.found), "tokens": atoms.whole.tokens}
    task, how, asked = await task_of(question, atoms, llm)
    planned = plan(task, question, atoms.whole.tokens, atoms.slack, llm, settings.max_tokens)
    planned = replace(planned, bound=planned.bound + asked)
    note = f"λ-RLM: {how}; {planned}."
    return await _execute(planned.program, planned.bound, question, atoms, llm, settings, note, asdict_of(planned))


async def execute(program: Term, question: str, corpus: Corpus, llm: LLM, settings: Settings | None = None) -> Answer:
    """Run a program of your own. Raises UsageError for one that does not fit together, end, or keep to the window.

    >>> program = Fix(900, M("find", 64), Split(32) >> Filter(4) >> Map(Self()) >> Reduce("best"))
    """
    if (program.takes, program.gives) != ("Text", "Found"):
        raise UsageError(f"The program is {program.takes} → {program.gives}: it must take a Text and give a Found.")
    atoms = Atoms.of(corpus, llm)
    cost = bound(program, atoms.whole.tokens, atoms.slack, frame_of(llm, question))
    note = (
        f"λ-RLM, a program of one's own: at most {cost.calls} calls, {cost.read} tokens read, {cost.written} written."
    )
    settings = settings or Settings()
    return await _execute(program, cost, question, atoms, llm, settings, note, {"program": str(program)})


# Tasks that the question's wording tells.
WORDED: dict[str, Task] = {
    "count": "aggregate",
    "list": "aggregate",
    "summary": "summarise",
    "multi-hop": "multi_hop",
}


async def task_of(question: str, atoms: Atoms, llm: LLM) -> tuple[Task, str, Cost]:
    """Phase 2: the kind of task, how it was found, and the most that this may have cost."""
    if len(things(question)) > 1:
        return "search", "search for several things, by the question's wording", Cost()
    task = WORDED.get(kind_of(question))
    if task and (task != "multi_hop" or llm.reader == "generate"):
        return task, f"{task} by the question's wording", Cost()
    if llm.reader == "extract":
        return "search", f"search, as {llm.name} is too small to choose the task", Cost()
    peek = atoms.text(atoms.peek(atoms.whole, MENU_PEEK))
    message: Message = {"role": "user", "content": MENU.format(peek=peek, question=question)}
    with span("task", "workflow") as step:
        chosen = await structured(llm, [message], Choice, max_tokens=MENU_TOKENS)
        step.output = chosen.task if chosen else None
    cost = menu_cost(message, llm)
    if chosen is None:
        return "search", "search, as the model chose no task from the menu", cost
    return chosen.task, f"{chosen.task} by the model's choice", cost


async def _execute(
    program: Term,
    cost: Cost,
    question: str,
    atoms: Atoms,
    llm: LLM,
    settings: Settings,
    note: str,
    facts: dict[str, Any],
) -> Answer:
    with span("plan", "workflow", question) as step:
        step.output = facts
    limit = Budget.of(settings.budget)
    if (limit.calls is not None and cost.calls > limit.calls) or (
        limit.tokens is not None and cost.tokens > limit.tokens
    ):
        raise BudgetSpent(
            f"The program may take {cost.calls} calls and {cost.tokens} tokens, more than the budget: give a larger "
            "--budget, or take --workflow retrieve."
        )
    if settings.on_progress:
        settings.on_progress(f"at most {cost.calls} calls, {cost.tokens} tokens: reading leaves", 0, cost.calls)
    bounded = Budgeted(llm, Budget(calls=cost.calls, tokens=cost.tokens))  # the bound is kept, not only computed
    executor = Executor(question, atoms, bounded, settings, cost.calls)
    with span("execute", "workflow", str(program)) as step:
        found = await executor.run(program)
        step.output = found.text
    if executor.dropped:
        note += f" {executor.dropped} answers of leaves were left out: their text does not carry them."
    if executor.unparsed:
        note += f" {executor.unparsed} of {executor.made} leaves gave no number and count as 0."
    return _answer(question, found, atoms, llm, settings, note)


def _answer(question: str, found: Found, atoms: Atoms, llm: LLM, settings: Settings, note: str) -> Answer:
    refused = found.nothing
    text = REFUSAL if refused else found.text
    cited = {(unit.document.id, unit.start, unit.end): (unit, score) for unit, score in found.quotes}
    citations = [Citation.of(unit.document, unit.start, unit.end, min(score, 1.0)) for unit, score in cited.values()]
    if not citations and not refused:  # written by the model from several leaves
        passages = [passage for part in found.parts for passage in atoms.passages_of(part)]
        citations = citations_of(text, atoms.corpus, passages)
    if settings.on_text:
        settings.on_text(text)
    return Answer(question, text, refused, citations[:CITATIONS], "lambda-rlm", llm.name, note)


def asdict_of(planned: Plan) -> dict[str, Any]:
    """The plan as a trace keeps it."""
    return {
        "task": planned.task,
        "program": str(planned.program),
        "tokens": planned.tokens,
        "k": planned.k,
        "tau": planned.tau,
        "bound": asdict(planned.bound),
        "accuracy of one leaf's answer": round(planned.accuracy, 4),
    }


def menu_cost(message: Message, llm: LLM) -> Cost:
    """The most that choosing the task may cost: two calls, the second with the first's reply and what is wrong."""
    first = llm.count_tokens(message["content"]) + MESSAGE + TEMPLATE
    schema = json.dumps(Choice.model_json_schema())
    repair = MENU_TOKENS + REASONS + llm.count_tokens(REPAIR.format(why="", schema=schema)) + 2 * MESSAGE
    return Cost(2, 2 * first + repair, 2 * MENU_TOKENS)
