"""Choose the workflow that suits the question, the text and the model, and say why."""

from __future__ import annotations

from dataclasses import dataclass

from longspan.corpus import Corpus
from longspan.errors import LongspanError
from longspan.llm import LLM
from longspan.registry import find, register
from longspan.trace import span
from longspan.workflows import (
    agenticlu,
    coding_agent,
    extagents,
    extract,
    inftythink,
    lambda_rlm,
    laser,
    memex,
    rlm,
)
from longspan.workflows.answer import Answer, Settings
from longspan.workflows.atoms import ATOM_TOKENS, SEAM
from longspan.workflows.budget import Budget
from longspan.workflows.generate import reading_budget
from longspan.workflows.leaf import FOUND_TOKENS, leaf_tokens
from longspan.workflows.map_reduce import part_tokens
from longspan.workflows.question import WHOLE, kind_of
from longspan.workflows.retrieve import reader_of

CHARACTERS_PER_TOKEN = 3.0  # a low estimate, so that a text that may not fit is never taken to fit


def choose(question: str, corpus: Corpus, llm: LLM, settings: Settings) -> tuple[str, str]:
    """The workflow's name and the reason in one clause; nothing but sizes is read."""
    reader, _ = reader_of(llm, settings)
    kind = kind_of(question)
    tokens = int(corpus.size / CHARACTERS_PER_TOKEN)
    if reader == "generate" and tokens <= reading_budget(question, llm, settings):
        return "direct", f"the text, about {tokens} tokens, fits the model's effective window of {llm.effective_window}"
    if kind in WHOLE:
        most = Budget.of(settings.budget).tokens
        if most is not None and reader == "generate" and tokens * 1.2 > most:
            return "retrieve", f"a {kind} takes the whole text, but that would cost more than the budget"
        return "map-reduce", f"a {kind} takes the whole text"
    if kind == "multi-hop" and reader == "generate":
        most = Budget.of(settings.budget).tokens
        if most is None or tokens * 1.5 <= most:
            return "extagents", "what is asked hangs on other places: agents read all parts and share what they find"
        return "retrieve", "what is asked hangs on other places, but reading them all would cost more than the budget"
    if kind == "compare" and reader == "generate":
        return "retrieve", "what is compared is found by search, and put side by side in one prompt"
    return "retrieve", "a fact is found by search"


@register("workflow", "auto")
async def auto(question: str, corpus: Corpus, llm: LLM, settings: Settings) -> Answer:
    """Take direct, retrieve, map-reduce or extagents by the question's kind, the text's size and the model's window."""
    name, why = choose(question, corpus, llm, settings)
    with span(f"auto: {name}", "workflow", why):
        answer: Answer = await find("workflow", name)(question, corpus, llm, settings)
    answer.note = f"Workflow {name}: {why}. {answer.note}".strip()
    return answer


@dataclass(frozen=True, slots=True)
class Way:
    """A workflow as it would be for a question: why it is taken or not, and the most calls and tokens that it is
    expected to take (None: not known beforehand)."""

    name: str
    why: str
    calls: int | None = None
    tokens: int | None = None


def explain(question: str, corpus: Corpus, llm: LLM, settings: Settings) -> list[Way]:
    """What `auto` would take, first, and the alternatives with what each is expected to cost; nothing is read or asked.

    Tokens are estimated from the text's size; λ-RLM's bound is that of the program for this estimate.
    """
    taken, reason = choose(question, corpus, llm, settings)
    reader, _ = reader_of(llm, settings)
    writes = reader == "generate"
    tokens = int(corpus.size / CHARACTERS_PER_TOKEN)
    room, out = reading_budget(question, llm, settings), settings.max_tokens
    small = f"{llm.name} is too small to be trusted with writing"
    ways: list[Way] = []
    if tokens + out <= llm.window:
        ways.append(Way("direct", "the whole text in one prompt" if writes else small, 1, tokens + out))
    else:
        ways.append(Way("direct", f"the text, about {tokens} tokens, does not fit the window of {llm.window}"))
    if writes:
        ways.append(Way("retrieve", "the best passages in one prompt", 1, min(tokens, room) + out))
        size = part_tokens(question, llm, settings)
        parts = -(-tokens // size)
        each = llm.count_tokens(question) + out
        ways.append(Way("map-reduce", f"every part of {size} tokens", parts, tokens + parts * each))
    else:
        quoted = int(extract.READ * extract.QUOTE_WORDS * 1.5)
        ways.append(Way("retrieve", "the best quotes, scored by the model", 1, min(quoted, tokens)))
        ways.append(Way("map-reduce", "every unit, by its words alone", 0, 0))
    task = lambda_rlm.WORDED.get(kind_of(question), "search")
    try:
        bound = lambda_rlm.plan(task, question, tokens, ATOM_TOKENS + SEAM, llm, out).bound
        ways.append(Way("lambda-rlm", f"a program for {task}, its bound", bound.calls, bound.tokens))
    except LongspanError as error:
        ways.append(Way("lambda-rlm", str(error)))
    ways += _of_agents(tokens, llm, out, writes)
    for name, turns, what in (
        ("rlm", rlm.TURNS, "turns of code, and the calls that it makes"),
        ("coding-agent", coding_agent.TURNS, "turns of commands"),
        ("laser", laser.STEPS, "actions, with a register of what matters"),
        ("memex", memex.STEPS, "actions, with an archive"),
    ):
        ways.append(Way(name, f"at most {turns} {what}" if writes else small))
    chosen = next(way for way in ways if way.name == taken)
    others = [way for way in ways if way.name != taken]
    return [Way(chosen.name, reason, chosen.calls, chosen.tokens), *others]


def _of_agents(tokens: int, llm: LLM, out: int, writes: bool) -> list[Way]:
    """What reading in rounds, by agents, and by clarifications is expected to take at most."""
    leaf = leaf_tokens(llm, everything=writes)
    parts = -(-tokens // leaf)
    rounds, agents = min(parts, inftythink.ROUNDS), min(parts, extagents.AGENTS)
    each = leaf + (inftythink.SUMMARY + inftythink.ETA // 4 if writes else FOUND_TOKENS + 64)
    ways = [
        Way("inftythink", "part by part, with a summary of the parts before", rounds + writes, rounds * each + out),
        Way("extagents", f"{agents} agents at once, which share what they find", agents + writes, agents * each + out),
    ]
    steps = 1 + agenticlu.WIDTH * agenticlu.DEPTH
    judged = agenticlu.CANDIDATES if writes else 0
    paragraph = min(agenticlu.PARAGRAPH, leaf_tokens(llm))
    calls = steps * (4 + judged)
    read = steps * (judged + 2 * min(judged or agenticlu.SMALL_KEPT, 4)) * paragraph
    ways.append(Way("agenticlu", f"at most {steps - 1} clarifying questions, each pointing back", calls, read))
    return ways
