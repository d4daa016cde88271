"""AgenticLU: the model asks itself what it must know, and points back to where that stands (arXiv:2502.15920).

"Self-Taught Agentic Long Context Understanding" (Zhuang et al. 2025). One step of a chain of clarifications is

    c = M(question, chain)                  a clarifying question
    P = {p : M("does p help to answer c?")} pointback: the paragraphs that do
    a = M(c, P);  y = M(question, chain, c, P, a);  done = M("is the question answered?")

Steps are the nodes of a tree: `WIDTH` clarifications are sampled at each, down to `DEPTH`. For an answer, the best node
of each level is followed until one says that it is done. The whole tree (`grown`) is what the paper trains on: the
paths to the best and the worst answer, in TRL's formats (`sft_row`, `dpo_row`).

What differs from the paper and its code (EvanZhuang/AgenticLU), or was inferred:

- the official code asks the model about every paragraph of 512 tokens, for every clarification. Here the text is
  searched first, by the words of the clarification and of the question, and the model judges the `CANDIDATES` best. A
  model too small to judge gets the best `SMALL_KEPT` of them.
- Without a known answer a node's worth is how well its paragraphs carry its answer, plus the share of the tree that
  agrees with it, plus whether it says that it is done. With one it is the F1 of their words, plus 1 where the known
  answer stands in the node's (the official code: ROUGE-L and the judgement of a large model).
- The paper follows one chain at inference, of a model trained on such trees; a model that is not profits from width.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest
from typing import Any

from longspan.corpus import Corpus, Passage
from longspan.errors import UsageError
from longspan.llm import LLM, Message, Sampling
from longspan.registry import register
from longspan.trace import span
from longspan.workflows.answer import Answer, Settings
from longspan.workflows.atoms import Atoms, Part
from longspan.workflows.budget import BudgetSpent
from longspan.workflows.generate import REFUSAL
from longspan.workflows.leaf import NONE, QUOTED, evidence, is_nothing, leaf_tokens, leaves, room_beside
from longspan.workflows.parallel import parallel
from longspan.workflows.question import things
from longspan.workflows.support import citations_of
from longspan.workflows.words import STOP, stems

CLARIFY = (
    "{chain}To answer this question about a long text: {question}\nAsk one short question about what you still need to "
    "know from the text in order to answer it. Reply with that question alone."
)
HELPS = (
    "Text:\n{text}\n\n" + QUOTED + "\nQuestion: {question}\n"
    "Does this text help to answer the question in any way? Reply with yes, maybe or no."
)
ANSWER = (
    "Text:\n{text}\n\n" + QUOTED + "\nQuestion: {question}\n"
    "Answer in one short sentence from the text alone. If the text does not tell, reply with exactly NONE."
)
CONCLUDE = (
    "Text:\n{text}\n\n" + QUOTED + "\nWhat is known so far:\n{chain}\n\n{question}\n"
    "Answer in one short sentence from this alone. If it does not tell, reply with exactly NONE."
)
DONE = "Question: {question}\nAnswer: {answer}\nDoes this answer the question? Reply with yes or no."
FIND_CONTEXT = "Which paragraphs help to answer your question?"
ANSWER_IT = "Answer your question from these paragraphs."
FINALLY = "Now answer the question that you began with, briefly: {question}"

DEPTH, WIDTH = 3, 4  # of an answer's search; the paper's trees have 3 and 8
CANDIDATES = 8  # paragraphs that are judged for a clarification
SMALL_KEPT = 2  # paragraphs that a model gets which cannot judge
PARAGRAPH = 512  # tokens
CLARIFY_TOKENS = 48
ANSWER_TOKENS = 64
TEMPERATURE, TOP_P = 1.0, 0.95  # of clarifications, the official code's


@dataclass(slots=True)
class Node:
    """One step of a chain: what was asked, the paragraphs pointed back to, and the answers. The root asks the question
    itself. `worth` is set when the tree is judged."""

    clarification: str
    paragraphs: list[int]
    found: str
    answer: str
    done: bool
    parent: Node | None = None
    children: list[Node] = field(default_factory=list)
    worth: float = 0.0

    @property
    def path(self) -> list[Node]:
        """The steps from below the root to here."""
        above = [] if self.parent is None else self.parent.path
        return above if self.parent is None else [*above, self]

    def walk(self) -> Iterator[Node]:
        """This node and all below it, level by level."""
        level = [self]
        while level:
            yield from level
            level = [child for node in level for child in node.children]


@register("workflow", "agenticlu", systems=("agenticlu",))
async def agenticlu(question: str, corpus: Corpus, llm: LLM, settings: Settings) -> Answer:
    """Clarifying questions, each answered from the paragraphs that it points back to, followed as a tree."""
    atoms = await asyncio.to_thread(Atoms.of, corpus, llm)
    tree = Clarifications(question, atoms, llm, settings)
    note = ""
    root = best = await tree.root()
    try:
        while not best.done and len(best.path) < DEPTH:
            better = max([*await tree.expand(best), best], key=lambda node: node.worth)  # of equals, a step on
            if better is best:
                break
            best = better
    except BudgetSpent:
        best = max(root.walk(), key=lambda node: node.worth)
        note = " The budget was spent before the search was over."
    nodes = sum(1 for _ in root.walk())
    note = f"AgenticLU: {nodes - 1} clarifications, {len(best.path)} deep; {_asked(best)}.{note}"
    refused = is_nothing(best.answer)
    text = REFUSAL if refused else best.answer
    passages = [passage for at in _all_paragraphs(best) for passage in atoms.passages_of(tree.parts[at])]
    citations = [] if refused else await asyncio.to_thread(citations_of, text, corpus, passages)
    if settings.on_text:
        settings.on_text(text)
    return Answer(question, text, refused, citations, "agenticlu", llm.name, note)


async def grown(
    question: str,
    corpus: Corpus,
    llm: LLM,
    *,
    depth: int = DEPTH,
    width: int = WIDTH,
    seed: int = 0,
    known: str | None = None,
) -> Node:
    """The whole tree, all its nodes expanded: width + width² + … + width^depth steps. `known` is the right answer, for
    the worth of its nodes."""
    atoms = await asyncio.to_thread(Atoms.of, corpus, llm)
    tree = Clarifications(question, atoms, llm, Settings(), width=width, seed=seed, known=known)
    return await tree.grow(depth)


class Clarifications:
    """The tree of one question."""

    def __init__(
        self,
        question: str,
        atoms: Atoms,
        llm: LLM,
        settings: Settings,
        *,
        width: int = WIDTH,
        seed: int = 0,
        known: str | None = None,
    ) -> None:
        self.question, self.atoms, self.llm, self.settings = question, atoms, llm, settings
        self.width, self.seed, self.known = width, seed, known
        self.writes = llm.reader == "generate"
        self.asked = things(question)
        self.out = min(ANSWER_TOKENS * len(self.asked), settings.max_tokens)
        chain = DEPTH * (CLARIFY_TOKENS + self.out + 8)
        prompt = CONCLUDE.format(text="", chain="", question=question)
        self.room = room_beside(prompt, llm, chain + self.out)
        self.parts: list[Part] = leaves(atoms, min(PARAGRAPH, leaf_tokens(llm), self.room // 2))
        self.weights = {each: atoms.rarity(each) for each in self.asked}
        self.made = 0
        self._root: Node | None = None

    async def grow(self, depth: int) -> Node:
        """The whole tree down to a depth."""
        root = await self.root()
        level = [root]
        for _ in range(depth):
            level = [child for node in level for child in await self.expand(node)]
        return root

    async def root(self) -> Node:
        """The question itself, answered from what it points back to."""
        with span("root", "workflow", self.question):
            paragraphs = await self._point_back(self.question)
            answer = await self._reply(ANSWER, self.out, question=self.question, text=self.text(paragraphs))
            self._root = Node(self.question, paragraphs, answer, answer, await self._done(answer))
        self.judge()
        return self._root

    async def expand(self, node: Node) -> list[Node]:
        """`width` steps on from a node; clarifications that were asked before are not asked again."""
        asked = {tuple(stems(each.clarification)) for each in [*node.path, *node.children]}
        seeds = [self.seed + 1000 * self.made + at for at in range(self.width)]
        self.made += 1
        with span("clarify", "workflow", {"depth": len(node.path) + 1, "width": self.width}):
            known = _chain(node)
            known = f"Known so far:\n{known}\n\n" if known else ""
            prompt = CLARIFY.format(question=self.question, chain=known)
            questions = await parallel(lambda seed: self._sampled(prompt, seed), seeds)
            fresh: dict[tuple[str, ...], str] = {}
            for each in questions:
                if (same := tuple(stems(each))) and same not in asked:
                    fresh.setdefault(same, each)
            node.children += await parallel(lambda each: self._step(node, each), list(fresh.values()))
        if self.settings.on_progress:
            self.settings.on_progress("clarifying", len(node.path) + 1, DEPTH)
        self.judge()
        return node.children

    async def _step(self, parent: Node, clarification: str) -> Node:
        with span("step", "workflow", clarification) as step:
            paragraphs = await self._point_back(clarification)
            text = self.text(paragraphs)
            found = await self._reply(ANSWER, self.out, question=clarification, text=text)
            node = Node(clarification, paragraphs, found, "", False, parent)
            node.answer = await self._reply(CONCLUDE, self.out, question=self.question, text=text, chain=_chain(node))
            node.done = await self._done(node.answer)
            step.output = {"paragraphs": paragraphs, "found": found, "answer": node.answer}
        return node

    async def _point_back(self, clarification: str) -> list[int]:
        """The paragraphs that help to answer, in the order of the text."""
        best = await asyncio.to_thread(self._found, clarification)
        if not self.writes:
            return sorted(best[:SMALL_KEPT])
        candidates = best[:CANDIDATES]

        async def helps(at: int) -> bool:
            text = self.atoms.text(self.parts[at])
            return not (await self._reply(HELPS, 4, question=clarification, text=text)).lower().startswith("no")

        kept = [at for at, yes in zip(candidates, await parallel(helps, candidates), strict=True) if yes]
        fitting, left = list[int](), self.room
        for at in kept or candidates[:1]:
            if self.parts[at].tokens <= left:
                fitting.append(at)
                left -= self.parts[at].tokens
        return sorted(fitting)

    def _found(self, clarification: str) -> list[int]:
        """The paragraphs with words of the clarification and the question, those that fit best first; every second one
        by the rarest word alone, which many common ones would outweigh."""
        rarity = self.atoms.rarity(clarification)
        rarest = max(rarity, key=lambda stem: rarity[stem], default="")
        ranked: list[list[int]] = []
        for words in (f"{clarification} {self.question}", rarest):
            scores = [self.atoms.score(part, words, 0) for part in self.parts]
            ranked.append(sorted((at for at in range(len(scores)) if scores[at] > 0), key=lambda at: -scores[at]))
        taken = (at for pair in zip_longest(*ranked) for at in pair if at is not None)
        return list(dict.fromkeys(taken))

    async def _sampled(self, prompt: str, seed: int) -> str:
        how = Sampling(temperature=TEMPERATURE, top_p=TOP_P, seed=seed)
        message = Message(role="user", content=prompt)
        reply = (await self.llm.chat([message], max_tokens=CLARIFY_TOKENS, sampling=how)).text
        return next((line.strip() for line in reply.splitlines() if line.strip()), "")

    async def _reply(self, prompt: str, max_tokens: int, **fields: str) -> str:
        message = Message(role="user", content=prompt.format(**fields))
        return (await self.llm.chat([message], max_tokens=max_tokens)).text.strip()

    async def _done(self, answer: str) -> bool:
        """Whether the model says that the question is answered; one too small to say so never does."""
        if is_nothing(answer) or not self.writes:
            return False
        return (await self._reply(DONE, 4, question=self.question, answer=answer)).lower().startswith("yes")

    def text(self, paragraphs: Sequence[int]) -> str:
        """The paragraphs of these numbers, as a prompt shows them."""
        return "\n…\n".join(self.atoms.text(self.parts[at]) for at in paragraphs)

    # -- what an answer is worth ---------------------------------------------------------------------------------------

    def judge(self) -> None:
        """Give every node its worth."""
        assert self._root is not None
        nodes = list(self._root.walk())
        said = Counter(_same(node.answer) for node in nodes)
        for node in nodes:
            if self.known is not None:
                node.worth = closeness(node.answer, self.known)
            elif is_nothing(node.answer):
                node.worth = 0.0
            else:
                passages = [p for at in _all_paragraphs(node) for p in self.atoms.passages_of(self.parts[at])]
                agreement = said[_same(node.answer)] / len(nodes)
                node.worth = self._carried(node.answer, passages) + agreement + node.done

    def _carried(self, answer: str, passages: Sequence[Passage]) -> float:
        """How well the passages carry an answer, as the mean over all things that are asked for (0 to 1)."""
        total = 0.0
        for asked in self.asked:
            each = (evidence(s, asked, self.weights[asked], self.atoms.corpus, passages) for s in answer.split(". "))
            total += max((found[1] for found in each if found), default=0.0)
        return total / len(self.asked)


def _same(answer: str) -> tuple[str, ...]:
    return tuple(sorted({stem for stem in stems(answer) if stem not in STOP}))


def _all_paragraphs(node: Node) -> list[int]:
    here: Node | None = node
    found: set[int] = set()
    while here is not None:
        found.update(here.paragraphs)
        here = here.parent
    return sorted(found)


def _chain(node: Node) -> str:
    """What the steps so far have asked and found, the question itself first."""
    told = "" if node.parent is None else _chain(node.parent)
    if node.parent is None and is_nothing(node.found):
        return told
    return f"{told}\n{node.clarification} {node.found}".strip()


def _asked(node: Node) -> str:
    return "; ".join(f'asked "{each.clarification}"' for each in node.path) or "none was needed"


def closeness(answer: str, known: str) -> float:
    """F1 of the words of an answer and the right one (0 to 1), plus 1 where the right one stands in it."""
    said, right = Counter(stems(answer)), Counter(stems(known))
    shared = sum((said & right).values())
    f1 = 2 * shared / (said.total() + right.total()) if shared else 0.0
    return f1 + (known.strip().lower() in answer.lower())


# -- the training data -------------------------------------------------------------------------------------------------


def marked(atoms: Atoms, parts: Sequence[Part]) -> str:
    """The text with its paragraphs numbered, as the model is to point back to them."""
    return "\n".join(f"<para {at}> {atoms.text(part)} </para {at}>" for at, part in enumerate(parts))


def turns(question: str, text: str, node: Node) -> list[Message]:
    """The conversation of a path, which begins with the text (`marked`) and the question."""
    said: list[Message] = []

    def turn(asked: str, replied: str) -> None:
        asked = asked if said else f"{text}\n\n{asked}"
        said.append(Message(role="user", content=asked))
        said.append(Message(role="assistant", content=replied))

    for step in node.path:
        turn(CLARIFY.format(question=question, chain=""), step.clarification)
        turn(FIND_CONTEXT, " ".join(f"<para {at}>" for at in step.paragraphs) or NONE)
        turn(ANSWER_IT, step.found)
        turn(FINALLY.format(question=question), step.answer)
    return said


def sft_row(question: str, text: str, root: Node) -> dict[str, Any]:
    """The path to the best answer, in TRL's conversational format."""
    return {"messages": turns(question, text, max(below(root), key=lambda node: node.worth))}


def dpo_row(question: str, text: str, root: Node) -> dict[str, Any] | None:
    """The paths to the best and the worst answer, in TRL's preference format; None where all are worth the same."""
    best = max(below(root), key=lambda node: node.worth)
    worst = min(below(root), key=lambda node: node.worth)
    if best.worth == worst.worth:
        return None
    prompt, *chosen = turns(question, text, best)
    return {
        "prompt": [prompt],
        "chosen": chosen,
        "rejected": turns(question, text, worst)[1:],
        "score_chosen": best.worth,
        "score_rejected": worst.worth,
    }


def below(root: Node) -> list[Node]:
    """All nodes but the root. Raises UsageError for a tree without any: it was not grown, or every clarification came
    out empty."""
    nodes = [node for node in root.walk() if node is not root]
    if not nodes:
        raise UsageError("The tree has no clarifications: grow it with a depth and width of at least 1.")
    return nodes
