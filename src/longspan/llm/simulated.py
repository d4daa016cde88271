"""A simulated reader: no model, but a program that answers synthetic questions from its prompt, as well as it is told.

It shows what is claimed of algorithms (bounds, scaling, recall against width) without a model large enough to show it,
and says so: its name begins with `simulated:`. From what stands in the prompt, and from nothing else, it answers

- pass keys ("The pass key is 12345"; "What is the pass key?"),
- access codes ("The access code of the old mill is 1234567"; one or several asked for),
- RULER's needles ("One of the numbers that were noted for sad-car is: 1234567"; one or several keys, all values),
- variables ("LET ABC = 12345", "LET DEF = ABC"; "Which variables hold the value 12345?"),
- the end of a chain ("What value does the variable DEF hold?"),
- counts ("How many times is the word tiger mentioned?").

An answer restates the facts it rests on, so that answers can be read again where they are put together. As an agent
(`act`) it searches for what the question asks and what it has not found, keeps it, and answers when nothing is left to
search for. Whether it is right is drawn from the error curve, a function of the prompt's length alone; the same prompt
under the same seed gets the same answer. An error is a wrong value, a forgotten variable, a wrong count, or a value
where there is none.
"""

from __future__ import annotations

import json
import random
import re
import time
from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from longspan.errors import UsageError
from longspan.llm.protocol import Call, Completion, Message, Sampling, note
from longspan.trace import Usage

CountBatch = Callable[[list[str]], list[int]]


@dataclass(frozen=True, slots=True)
class Curve:
    """The probability of a right answer for a prompt of so many tokens: straight lines between `points` (tokens,
    probability), ascending in tokens; flat before the first and after the last."""

    points: tuple[tuple[int, float], ...]

    def __call__(self, tokens: int) -> float:
        at = bisect_right([length for length, _ in self.points], tokens)
        if at == 0 or at == len(self.points):
            return self.points[max(at - 1, 0)][1]
        (left, low), (right, high) = self.points[at - 1 : at + 1]
        return low + (high - low) * (tokens - left) / (right - left)


@dataclass(frozen=True, slots=True)
class Profile:
    """A simulated model: its windows in tokens and its curve."""

    window: int
    effective_window: int
    curve: Curve


# `smollm2` follows what was measured of SmolLM2-135M on pass keys in real text (greedy): 6 of 6 at 2K, 3 of 5 at 4K,
# none of 3 at 7.8K; at 1K needles are found in 100 %. Fourteen samples: a rough curve.
PROFILES = {
    "exact": Profile(8192, 8192, Curve(((0, 1.0),))),
    "smollm2": Profile(8192, 2048, Curve(((2048, 1.0), (4096, 0.6), (7800, 0.0)))),
}

# A question and the facts that answer it; the question's first group says what is asked for.
PASSKEY = (re.compile(r"\bwhat is the pass ?key", re.I), re.compile(r"\bpass ?key is (\d+)", re.I))
CODES = (
    re.compile(r"\bwhat (?:is|are) the access codes? of the (.+?)\?", re.I),
    re.compile(r"\bThe access code of the ([\w -]+?) is (\d+)"),
)
NEEDLES = (
    re.compile(r"\bwhich (?:number|code)s? (?:was|were) noted for (\S+)(?: in the text)?", re.I),
    re.compile(r"\bOne of the (?:number|code)s that were noted for (\S+) is: ([\w-]+)"),
)
MANY_NEEDLES = re.compile(r"\bwhich are all the (?:number|code)s that were noted for (.+?) in the text", re.I)
VARIABLES = (
    re.compile(r"\bwhich variables hold the value (\d+)", re.I),
    re.compile(r"\b(?:LET|variable) (\w+) (?:=|holds) (\w+)"),
)
VALUES = re.compile(r"\bwhat value does the variable (\w+) hold", re.I)
CLARIFICATIONS = {
    "values": "What value does the variable {} hold?",
    "needles": "Which numbers were noted for {}?",
    "many needles": "Which numbers were noted for {}?",
}
OPENINGS = ("", "First, ", "In this text, ", "To know more: ", "Elsewhere in it, ", "As a next step, ", "Now, ")
COUNTS = re.compile(r"\bhow many times (?:is|does|do|are) (?:the word )?[\"“']?([\w-]+)[\"”']? \w+[^?\n]*\?", re.I)
ABSENT = re.compile(r"(?:reply|answer) with exactly ([A-Z][A-Z ]*[A-Z])\b")
IF_SURE = re.compile(r"\bnot enough to be sure\b")
YES_OR_NO = re.compile(r"\bReply with yes(?:, maybe)? or no\b")
CLARIFYING = re.compile(r"\bAsk one short question\b")
ONE_A_LINE = re.compile(r"\bone a line\b")
WORD_FOR_WORD = re.compile(r"\bword for word\b|\bsays that helps\b", re.I)


class SimulatedLLM:
    """The simulated reader behind the LLM protocol; `calls` counts what it was asked.

    `count_batch` counts tokens: by default the embedded model's real tokenizer.
    """

    reader = "generate"

    def __init__(
        self,
        name: str = "exact",
        *,
        seed: int = 0,
        profile: Profile | None = None,
        count_batch: CountBatch | None = None,
    ) -> None:
        """`name` is one of `PROFILES`, or a name of your own for the `profile` that you give."""
        if profile is None and name not in PROFILES:
            raise UsageError(f"There is no simulated reader {name!r}; known: {', '.join(PROFILES)}.")
        self.profile = profile or PROFILES[name]
        self.name = f"simulated:{name}" + (f":seed={seed}" if seed else "")
        self.seed = seed
        self.tokenizer_name = "smollm2"
        self.calls = 0
        self._count_batch = count_batch

    @classmethod
    def parse(cls, spec: str) -> SimulatedLLM:
        """`exact`, `smollm2`, or with a seed: `smollm2:seed=3`."""
        name, _, option = spec.partition(":")
        if option and not re.fullmatch(r"seed=\d+", option):
            raise UsageError(f"simulated:{spec} has an option that is not known: write simulated:{name}:seed=1.")
        return cls(name, seed=int(option.partition("=")[2] or 0))

    @property
    def window(self) -> int:
        return self.profile.window

    @property
    def effective_window(self) -> int:
        return self.profile.effective_window

    def count_batch(self, texts: list[str]) -> list[int]:
        if self._count_batch is None:
            from longspan.models import embedded_counter

            self._count_batch = embedded_counter()
        return self._count_batch(texts)

    def count_tokens(self, text: str) -> int:
        return self.count_batch([text])[0]

    async def chat(
        self,
        messages: Sequence[Message],
        *,
        max_tokens: int,
        sampling: Sampling = Sampling(),  # noqa: B008 - frozen
        stop: Sequence[str] = (),
        schema: dict[str, Any] | None = None,
        on_text: Callable[[str], None] | None = None,
    ) -> Completion:
        """Answer from the prompt, as well as the curve says. Raises UsageError for a prompt beyond the window."""
        begin = time.perf_counter()
        call = Call.of(messages, max_tokens, sampling, stop, schema)
        with call.recorded(self.name) as step:
            self.calls += 1
            tokens = sum(self.count_batch([message["content"] for message in messages]))
            if tokens + max_tokens > self.window:
                raise UsageError(
                    f"The prompt has {tokens} tokens and {max_tokens} are to be written, beyond the window of "
                    f"{self.window} of {self.name}."
                )
            chance = random.Random(f"{self.seed} {call.key(self.name)}")
            right = chance.random() < self.profile.curve(tokens)
            prompt = "\n".join(message["content"] for message in messages)
            error = None if right else chance
            if schema is not None:
                text = choose(prompt, schema, error)
            else:
                text = shell(prompt, error) if SHELL.search(prompt) else answer(prompt, error, chance)
            text, written, cut = self._cut(text, max_tokens)
            usage = Usage(1, tokens, written, seconds=time.perf_counter() - begin)
            completion = Completion(text, usage, "length" if cut else "stop")
            note(step, completion)
        if on_text:
            on_text(text)
        return completion

    def _cut(self, text: str, max_tokens: int) -> tuple[str, int, bool]:
        """The beginning of the text that `max_tokens` hold, its tokens, and whether something was cut."""
        words = re.findall(r"\s*\S+", text)
        written = self.count_tokens(text)
        cut = written > max_tokens
        while written > max_tokens and words:
            words = words[: min(len(words) - 1, len(words) * max_tokens // written)]
            written = self.count_tokens("".join(words))
        return ("".join(words) if cut else text), written, cut


@dataclass(slots=True)
class Reading:
    """What was found for a question: `facts` are sentences that state it, `reply` the answer where it is not them."""

    facts: list[str] = field(default_factory=list)
    reply: str | None = None


def answer(prompt: str, error: random.Random | None, chance: random.Random) -> str:
    """The answer to the last question in the prompt that is known; wrong where `error` is given.

    Asked to answer only if it is sure, it says nothing of a question of several things that it knows in part. Asked for
    yes or no, it says whether the prompt has anything that is asked for, or, of an answer, all. Asked for a clarifying
    question, it asks for one of the things that it does not know, worded as chance will; in error, for something else.
    """
    asked, question = last_question(prompt)
    none = ABSENT.search(prompt)
    absent = none[1] if none else "none"
    if asked is None or question is None:
        return absent
    text = prompt.replace(question[0], " ")
    if CLARIFYING.search(prompt):
        unknown = ["something else"] if error else lacked(asked, text, question)
        if not unknown:
            return absent
        said = CLARIFICATIONS.get(asked, "What is the {}?").format(chance.choice(unknown).removesuffix("?"))
        return chance.choice(OPENINGS) + said
    if YES_OR_NO.search(prompt):
        helps = wanted(asked, text, question) > wanted(asked, "", question)
        yes = helps if "maybe" in prompt else not lacked(asked, text, question)
        return "yes" if yes != bool(error) else "no"
    if IF_SURE.search(prompt) and lacked(asked, text, question):
        return absent
    found = READERS[asked](text, question, error)
    if WORD_FOR_WORD.search(prompt) or found.reply is None:
        return ("\n" if ONE_A_LINE.search(prompt) else " ").join(found.facts) or absent
    return found.reply or absent


def last_question(prompt: str) -> tuple[str | None, re.Match[str] | None]:
    """The kind and the match of the question that stands last."""
    best: tuple[str | None, re.Match[str] | None] = (None, None)
    for kind, pattern in QUESTIONS.items():
        for match in pattern.finditer(prompt):
            if best[1] is None or match.start() >= best[1].start():
                best = (kind, match)
    return best


def passkey(text: str, question: re.Match[str], error: random.Random | None) -> Reading:
    keys = list(dict.fromkeys(PASSKEY[1].findall(text)))
    if error:
        keys = [another(keys[0] if keys else "00000", error)]
    return Reading([f"The pass key is {key}." for key in keys[:1]])


def codes(text: str, question: re.Match[str], error: random.Random | None) -> Reading:
    asked = re.split(r",? and the |, the ", question[1])
    held = dict(CODES[1].findall(text))
    found = {place: held[place] for place in asked if place in held}
    if error:
        place = error.choice(asked)
        found[place] = another(found.get(place, "0000000"), error)
    return Reading([f"The access code of the {place} is {code}." for place, code in found.items()])


def needles(text: str, question: re.Match[str], error: random.Random | None) -> Reading:
    asked = re.split(r",? and |, ", question[1])
    found = list(dict.fromkeys(pair for pair in NEEDLES[1].findall(text) if pair[0] in asked))
    if error:
        key, value = found.pop() if found else (error.choice(asked), "0000000")
        found.append((key, another(value, error)))
    return Reading([f"One of the numbers that were noted for {key} is: {value}." for key, value in found])


def variables(text: str, question: re.Match[str], error: random.Random | None) -> Reading:
    held = dict(VARIABLES[1].findall(text))
    names = [name for name in held if resolved(name, held) == question[1]]
    if error and names:
        names.remove(error.choice(names))
    return Reading([f"LET {name} = {value}." for name, value in held.items()], " ".join(names))


def values(text: str, question: re.Match[str], error: random.Random | None) -> Reading:
    held = dict(VARIABLES[1].findall(text))
    value = resolved(question[1], held)
    if error:
        value = another(value if value.isdigit() else "00000", error)
    chain = queries("values", text, question)  # what the question leads to: other variables are not known to matter
    facts = [f"LET {name} = {held[name]}." for name in chain if name in held]
    return Reading(facts, f"The variable {question[1]} holds {value}." if value.isdigit() else " ".join(facts))


def resolved(name: str, held: dict[str, str]) -> str:
    """The value at the end of a chain of assignments; a circle ends where it begins."""
    seen = set()
    while name in held and name not in seen:
        seen.add(name)
        name = held[name]
    return name


def counts(text: str, question: re.Match[str], error: random.Random | None) -> Reading:
    so_far = re.search(r"<history>\s*(\d+)\s*</history>", text)
    number = len(re.findall(rf"\b{re.escape(question[1])}\b", text, re.I)) + int(so_far[1] if so_far else 0)
    if error:
        number += error.choice([-2, -1, 1, 2]) if number > 1 else 1
    return Reading([str(number)] if number else [], str(number))


def another(value: str, error: random.Random) -> str:
    """A value of as many digits that is not this one."""
    while (made := "".join(error.choice("123456789") for _ in value)) == value:
        pass
    return made


Reader = Callable[[str, "re.Match[str]", "random.Random | None"], Reading]
QUESTIONS = {
    "passkey": PASSKEY[0],
    "codes": CODES[0],
    "needles": NEEDLES[0],
    "many needles": MANY_NEEDLES,
    "variables": VARIABLES[0],
    "values": VALUES,
    "counts": COUNTS,
}
READERS: dict[str, Reader] = {
    "passkey": passkey,
    "codes": codes,
    "needles": needles,
    "many needles": needles,
    "variables": variables,
    "values": values,
    "counts": counts,
}


def choose(prompt: str, schema: dict[str, Any], error: random.Random | None) -> str:
    """One JSON object for the schema: an action where it offers actions; of a menu (`enum`) the entry that fits the
    question, else its first."""
    actions = actions_of(schema)
    if "run" in actions:
        said = shell(prompt, error)
        command = COMMAND.search(said)
        do = (
            {"action": "run", "command": command[1]}
            if command
            else {"action": "answer", "text": said.removeprefix("ANSWER: ")}
        )
        return json.dumps({"do": do})
    if actions:
        return json.dumps({"do": act(prompt, actions, error)})
    kind, _ = last_question(prompt)
    values: dict[str, Any] = {}
    for name, member in schema.get("properties", {}).items():
        if "enum" in member:
            fits = MENU.get(kind or "", "search")
            values[name] = fits if fits in member["enum"] else member["enum"][0]
        else:
            values[name] = {"integer": 0, "number": 0, "boolean": False, "array": []}.get(member.get("type"), "")
    return json.dumps(values)


# What a planner's menu calls the kind of question.
MENU = {"variables": "multi_hop", "values": "multi_hop", "counts": "aggregate"}


# -- as an agent -------------------------------------------------------------------------------------------------------

SHOWN = re.compile(r"^\[(\d+)\] (.*)$", re.MULTILINE)
SEARCHED = re.compile(r'(?:^search |"query": ?)"([^"]*)"', re.MULTILINE)
ARCHIVED = re.compile(r"^ARCHIVED:\n(.*?)(?:\n\(context|\Z)", re.MULTILINE | re.DOTALL)
RECALLED = re.compile(r'"recall", ?"name": ?"([^"]*)"')
NOW = re.compile(r"\(context: \d+ of \d+ tokens(?:, turn (\d+))?")
SUMMARIZED = 1_000  # characters of a summary


def actions_of(schema: dict[str, Any]) -> set[str]:
    """The names of the actions that a schema offers; none where it is no protocol of actions."""
    named = schema.get("$defs", {}).values()
    found = (member.get("properties", {}).get("action", {}).get("const") for member in named)
    return {name for name in found if name} if "do" in schema.get("properties", {}) else set()


def act(prompt: str, actions: set[str], error: random.Random | None) -> dict[str, Any]:
    """The next action of an agent that is shown a text line by line.

    It knows the facts of the lines in its prompt; where it may keep lines, of those that it has kept, and of others
    it keeps what the question needs. An error is a useless search, or an answer before its time.
    """
    kind, question = last_question(prompt)
    if kind is None or question is None:
        return {"action": "answer", "text": "NONE"}
    shown = dict(SHOWN.findall(prompt.rpartition("OBSERVATION:")[2]))
    text = prompt.replace(question[0], " ")
    known = text.rpartition("OBSERVATION:")[0] if "keep" in actions else text
    tried = set(SEARCHED.findall(prompt))
    if error and error.random() < 0.5:
        return {"action": "search", "query": "something else"} if "search" in actions else _said(kind, known, question)
    if error:
        return _said(kind, known, question)
    if "plan" in actions and "PLAN:\nnone yet" in prompt:
        return {"action": "plan", "subgoals": [f"find what answers: {question[0]}"[:200]]}
    if "keep" in actions:
        for number, line in shown.items():
            if wanted(kind, known + "\n" + line, question) > wanted(kind, known, question):
                facts = READERS[kind](known + "\n" + line, question, None).facts
                quote = next((fact for fact in facts if fact in line and fact not in known), "")
                return {"action": "keep", "line": int(number), "quote": quote[:200]}
    if "compress" in actions and "search" not in actions and (turn := NOW.findall(prompt)):
        return _compressed(prompt, kind, known, question, turn)
    missing = [query for query in queries(kind, known, question) if query not in tried]
    if missing and "search" in actions:
        return {"action": "search", "query": missing[0][:200]}
    if "recall" in actions and (index := ARCHIVED.search(prompt)):
        names = [line.partition(":")[0] for line in index[1].splitlines() if ":" in line]
        left = [name for name in names if name not in RECALLED.findall(prompt)]
        lines = dict(line.partition(":")[::2] for line in f"{index[1]}\n{known}".splitlines() if ":" in line)
        for query in lacked(kind, known, question):
            telling = [name for name, about in lines.items() if query in about and name not in RECALLED.findall(prompt)]
            folded = [name for name in left if name.startswith("index-")]
            if telling or folded:
                return {"action": "recall", "name": (telling or folded)[0][:60], "page": 1}
    return _said(kind, known, question)


SHELL = re.compile(r"\bfiles in the folder (\S+) .*Reply with one command in a block", re.DOTALL)
FOLDER = re.compile(r"\bfiles in the folder (\S+) ")
RAN = re.compile(r"grep -rnoP '\.\{0,120\}\\+b(.*?)\\+b")
COMMAND = re.compile(r"```sh\n(.*)\n```")
OUTPUT_LINE = re.compile(r"^(\S+?:\d+):(.*)$", re.MULTILINE)


def shell(prompt: str, error: random.Random | None) -> str:
    """The next command of an agent with a shell, or its answer with the lines that it rests on; decided as in `act`."""
    kind, question = last_question(prompt)
    place = FOLDER.search(prompt)
    if kind is None or question is None or place is None:
        return "ANSWER: NONE"
    known = prompt.replace(question[0], " ")
    tried = set(RAN.findall(prompt))
    missing = ["something else"] if error else [q for q in queries(kind, known, question) if q not in tried]
    if missing:
        word = re.sub(r"[^\w -]", ".", missing[0])
        return f"```sh\ngrep -rnoP '.{{0,120}}\\b{word}\\b.{{0,120}}' {place[1]} | head -20\n```"
    said = _said(kind, known, question)["text"]
    words = re.findall(r"\w+", said)
    telling = [word for word in words if word.isupper() or word.isdigit()]
    rests = [where for where, line in OUTPUT_LINE.findall(known) if any(word in line for word in telling)]
    return " ".join([f"ANSWER: {said}", *(f"[{where}]" for where in dict.fromkeys(rests))])


def _said(kind: str, known: str, question: re.Match[str]) -> dict[str, Any]:
    found = READERS[kind](known, question, None)
    return {"action": "answer", "text": (found.reply or " ".join(found.facts) or "NONE")[:2_000]}


def _compressed(prompt: str, kind: str, known: str, question: re.Match[str], turns: list[str]) -> dict[str, Any]:
    """The facts that a summary holds, the latest, and one entry for all turns, about what was searched for."""
    facts = " ".join(READERS[kind](known, question, None).facts)
    about = ", ".join(dict.fromkeys(SEARCHED.findall(prompt)))[-120:]
    entry = {"name": "searches", "about": about, "first": 1, "last": 9_999}
    return {"action": "compress", "summary": facts[-SUMMARIZED:] or "nothing yet", "entries": [entry]}


def wanted(kind: str, known: str, question: re.Match[str]) -> int:
    """How many of the facts that the question asks for are known."""
    if kind == "variables":
        held = dict(VARIABLES[1].findall(known))
        return sum(resolved(name, held) == question[1] for name in held)
    if kind == "values":
        return len(queries(kind, known, question))
    return len(READERS[kind](known, question, None).facts)


def queries(kind: str, known: str, question: re.Match[str]) -> list[str]:
    """What to search for, in order: what is asked, then what the facts known lead to."""
    if kind == "variables":
        held = dict(VARIABLES[1].findall(known))
        return [question[1], *(name for name in held if resolved(name, held) == question[1])]
    if kind == "values":
        held, chain = dict(VARIABLES[1].findall(known)), [question[1]]
        while chain[-1] in held and held[chain[-1]] not in chain:
            chain.append(held[chain[-1]])
        return chain
    return lacked(kind, known, question)


def lacked(kind: str, known: str, question: re.Match[str]) -> list[str]:
    """The things asked for of which no fact is known, as searches."""
    facts = " ".join(READERS[kind](known, question, None).facts)
    if kind == "codes":
        places = re.split(r",? and the |, the ", question[1])
        return [f"access code of the {place}" for place in places if place not in facts]
    if kind in ("needles", "many needles"):
        return [key for key in re.split(r",? and |, ", question[1]) if key not in facts]
    if kind == "variables":
        return [] if question[1] in facts else [question[1]]
    if kind == "values":
        end = queries(kind, known, question)[-1]
        return [] if end.isdigit() else [end]
    return [] if facts else [re.sub(r"^what is the ", "", question[0], flags=re.IGNORECASE)]
