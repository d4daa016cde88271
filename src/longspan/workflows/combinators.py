"""The combinators of λ-RLM: programs that fit together by their types, and the most that one may cost.

A program is a value: printed as it is written, checked when it is put together, bounded before it runs. Texts and what
was found in them are the two kinds of value, each alone or in a list.

>>> Fix(900, M("find", 64), Split(32) >> Filter(4) >> Map(Self()) >> Reduce("best"))
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

from longspan.errors import UsageError

Type = Literal["Text", "[Text]", "Found", "[Found]"]


class Term:
    """A function from `takes` to `gives`. `a >> b` is a, then b."""

    __slots__ = ()
    takes: Type
    gives: Type

    def __rshift__(self, after: Term) -> Chain:
        return Chain((*_steps(self), *_steps(after)))


@dataclass(frozen=True)
class Split(Term):
    """Text → [Text]: at most `k` chunks, one after the other, of nearly the same size."""

    k: int
    takes, gives = "Text", "[Text]"


@dataclass(frozen=True)
class Peek(Term):
    """Text → Text: its beginning, at most `tokens` long (at least one piece)."""

    tokens: int
    takes, gives = "Text", "Text"


@dataclass(frozen=True)
class Filter(Term):
    """[Text] → [Text]: the `keep` chunks that fit the question best by its words (for each question, where `Cross` made
    several), without a call. `hops` times the rare words of what was found are searched too."""

    keep: int
    hops: int = 0
    takes, gives = "[Text]", "[Text]"


@dataclass(frozen=True)
class Cross(Term):
    """[Text] → [Text]: every chunk with every one of `questions`. Without any, [Found] → [Found]: all pairs."""

    questions: tuple[str, ...] = ()

    @property
    def takes(self) -> Type:  # type: ignore[override]
        return "[Text]" if self.questions else "[Found]"

    gives = takes


@dataclass(frozen=True)
class M(Term):
    """Text → Found, the only neural step: one call with `prompt` (a name of `lambda_rlm.PROMPTS`, or a template of your
    own with {text} and {question}), which writes at most `max_tokens`. What was found may be read again
    (`of="Found"`)."""

    prompt: str
    max_tokens: int
    of: Literal["Text", "Found"] = "Text"
    gives = "Found"

    @property
    def takes(self) -> Type:  # type: ignore[override]
        return self.of


@dataclass(frozen=True)
class Self(Term):
    """Text → Found: the program of the `Fix` around it."""

    takes, gives = "Text", "Found"


@dataclass(frozen=True)
class Map(Term):
    """[α] → [β]: `step` of each, several at once."""

    step: Term

    @property
    def takes(self) -> Type:  # type: ignore[override]
        return "[Text]" if self.step.takes == "Text" else "[Found]"

    @property
    def gives(self) -> Type:  # type: ignore[override]
        return "[Text]" if self.step.gives == "Text" else "[Found]"


@dataclass(frozen=True)
class Reduce(Term):
    """[Found] → Found by ⊕: "best" (the answer that its text carries best), "merge" (every item once), "sum", or an `M`
    that reads them all."""

    by: Literal["best", "merge", "sum"] | M
    takes, gives = "[Found]", "Found"


@dataclass(frozen=True)
class Concat(Term):
    """[Found] → Found: all, one after the other."""

    takes, gives = "[Found]", "Found"


@dataclass(frozen=True)
class Parse(Term):
    """Found → [Found]: line by line."""

    takes, gives = "Found", "[Found]"


@dataclass(frozen=True)
class Chain(Term):
    """The steps one after the other; each must give what the next takes."""

    steps: tuple[Term, ...]

    def __post_init__(self) -> None:
        for one, two in zip(self.steps, self.steps[1:], strict=False):
            if one.gives != two.takes:
                raise UsageError(f"{one} gives {one.gives} and {two} takes {two.takes}: they do not fit.")

    @property
    def takes(self) -> Type:  # type: ignore[override]
        return self.steps[0].takes

    @property
    def gives(self) -> Type:  # type: ignore[override]
        return self.steps[-1].gives

    def __str__(self) -> str:
        return " >> ".join(map(repr, self.steps))

    __repr__ = __str__


@dataclass(frozen=True)
class Fix(Term):
    """Text → Found, equation 4 of the paper: a text of at most `tau` tokens is read by `leaf`, a longer one by `step`,
    in which `Self()` stands for the whole."""

    tau: int
    leaf: M
    step: Term
    takes, gives = "Text", "Found"

    def __post_init__(self) -> None:
        if (self.leaf.takes, self.leaf.gives) != ("Text", "Found") or (self.step.takes, self.step.gives) != (
            "Text",
            "Found",
        ):
            raise UsageError("Fix takes a leaf and a step that are both Text → Found.")


def _steps(term: Term) -> tuple[Term, ...]:
    return term.steps if isinstance(term, Chain) else (term,)


# -- what a program costs, before it runs ------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Cost:
    """Calls of the model, tokens that it reads and writes, and how many levels of Fix are above the deepest leaf."""

    calls: int = 0
    read: int = 0
    written: int = 0
    depth: int = 0

    def __add__(self, other: Cost) -> Cost:
        return Cost(
            self.calls + other.calls,
            self.read + other.read,
            self.written + other.written,
            max(self.depth, other.depth),
        )

    def times(self, count: int) -> Cost:
        return Cost(self.calls * count, self.read * count, self.written * count, self.depth)

    def most(self, other: Cost) -> Cost:
        return Cost(*(max(getattr(self, name), getattr(other, name)) for name in self.__slots__))

    @property
    def tokens(self) -> int:
        return self.read + self.written

    @property
    def price(self) -> int:
        """What the planner makes small: a written token takes as long, or costs as much, as several read ones."""
        return self.read + WRITTEN * self.written


WRITTEN = 4  # inferred: common prices; on a CPU writing is slower still


@dataclass(frozen=True, slots=True)
class Size:
    """At most `count` values of at most `tokens` each; `questions` are asked of them."""

    count: int
    tokens: int
    questions: int = 1


Frame = Callable[[M], int]
NUMBER_TOKENS = 24  # of a sum, in figures


def bound(program: Term, tokens: int, slack: int, frame: Frame) -> Cost:
    """The most that `program` may cost over a text of `tokens`; a chunk may be larger than its share by `slack`.

    `frame(m)` is the most that a call reads besides its text. Raises UsageError for a program that would not end, or
    whose calls exceed the window.
    """
    return _bound(program, Size(1, tokens), slack, frame, None)[0]


Recursion = Callable[[Size], "tuple[Cost, Size]"]


def _bound(term: Term, size: Size, slack: int, frame: Frame, again: Recursion | None) -> tuple[Cost, Size]:
    free = Cost()
    match term:
        case Chain(steps):
            total = free
            for step in steps:
                cost, size = _bound(step, size, slack, frame, again)
                total += cost
            return total, size
        case Split(k):
            if k < 1:
                raise UsageError(f"Split({k}) makes no chunks: give at least 1.")
            return free, Size(k, min(-(-size.tokens // k) + slack, size.tokens))
        case Peek(tokens):
            return free, replace(size, tokens=min(max(tokens, slack), size.tokens))
        case Filter(keep, _):
            return free, replace(size, count=min(keep * size.questions, size.count))
        case Cross(questions) if questions:
            return free, Size(size.count * len(questions), size.tokens, len(questions))
        case Cross():
            return free, Size(size.count * (size.count - 1) // 2, 2 * size.tokens + 1)
        case Parse():
            return free, Size(size.tokens, size.tokens)
        case M():
            return Cost(1, frame(term) + size.tokens, term.max_tokens), Size(1, term.max_tokens)
        case Map(step):
            cost, each = _bound(step, replace(size, count=1), slack, frame, again)
            return cost.times(size.count), replace(each, count=size.count, questions=size.questions)
        case Reduce(M() as m):
            return _bound(m, Size(1, size.count * (size.tokens + 1)), slack, frame, again)
        case Reduce("sum"):
            return free, Size(1, NUMBER_TOKENS)
        case Reduce("best"):
            return free, Size(1, size.questions * (size.tokens + 1))
        case Reduce() | Concat():
            return free, Size(1, size.count * (size.tokens + 1))
        case Self():
            if again is None:
                raise UsageError("Self() stands outside of a Fix.")
            return again(size)
        case Fix(tau, leaf, step):
            if slack > tau:
                raise UsageError(f"A leaf of {tau} tokens is smaller than the text's largest piece: give {slack}.")
            known: dict[int, tuple[Cost, Size]] = {}

            def recurse(size: Size) -> tuple[Cost, Size]:
                if size.tokens not in known:
                    if size.tokens <= tau:
                        known[size.tokens] = _bound(leaf, size, slack, frame, None)
                    else:
                        known[size.tokens] = _level(size, lambda smaller: descend(size, smaller))
                return known[size.tokens]

            def descend(size: Size, smaller: Size) -> tuple[Cost, Size]:
                if smaller.tokens >= size.tokens:
                    raise UsageError(
                        f"The program does not end: chunks of {smaller.tokens} tokens are not smaller than their "
                        f"text; split into more, or make tau larger than {2 * slack}."
                    )
                return recurse(smaller)

            def _level(size: Size, smaller: Recursion) -> tuple[Cost, Size]:
                # A text may also be small enough to be a leaf here, as chunks are seldom as large as they might be.
                at_leaf, found = _bound(leaf, replace(size, tokens=tau), slack, frame, None)
                cost, inner = _bound(step, size, slack, frame, smaller)
                deeper = replace(cost, depth=cost.depth + 1)
                return deeper.most(at_leaf), replace(inner, tokens=max(inner.tokens, found.tokens))

            return recurse(size)
    raise UsageError(f"{term!r} is no combinator.")
