"""The reproductions of workflows: each verdict follows its rule, and what they share is what it says."""

from __future__ import annotations

import asyncio
from types import ModuleType
from typing import Any

import pytest

from longspan.evaluation.lengths import counter
from longspan.llm import SimulatedLLM
from longspan.llm.simulated import act
from longspan.reproductions import agenticlu, coding_agents, extagents, inftythink, laser, memex
from longspan.reproductions._shares import alone, answered, chain, longest_prompt, other_chains, pooled, spread
from longspan.reproductions.harness import Figures


def figures(size: int, of: float, right: dict[str, float], **more: float) -> Figures:
    counts = {f"right {way} {size}": number for way, number in right.items()}
    return {f"of {size}": of, **counts, **{name.replace("_", " "): number for name, number in more.items()}}


def ways(module: ModuleType, size: int, of: float, first: float, *rest: float, **more: float) -> Figures:
    names = list(module.WAYS)
    return figures(size, of, dict(zip(names, (first, *rest), strict=True)), **more)


ROUNDS: dict[str, Any] = {"window": 2048, "pairs_rounds_8": 10, "pairs_chain_8": 80}
LASER: dict[str, Any] = {"window": 2048, "peak_register_28": 1200, "replies": 9, "parsed_held": 9}
CLARIFIED: dict[str, Any] = {"real_of": 4, "real_right_tree": 1, "real_right_sampled": 0}
MEMEX: dict[str, Any] = {"peak_archive_64": 1500, "lost_64": 0}


@pytest.mark.parametrize(
    ("module", "seed", "outcome"),
    [
        (inftythink, figures(8, 20, {"rounds": 19, "alone": 2}, peak_rounds_8=1200, **ROUNDS), "holds"),
        (inftythink, figures(8, 20, {"rounds": 2, "alone": 19}, peak_rounds_8=1200, **ROUNDS), "does not hold"),
        (inftythink, figures(8, 20, {"rounds": 19, "alone": 2}, peak_rounds_8=2100, **ROUNDS), "does not hold"),
        (inftythink, figures(8, 3, {"rounds": 3, "alone": 2}, peak_rounds_8=1200, **ROUNDS), "inconclusive"),
        (extagents, ways(extagents, 64, 20, 19, 5, 2, waits_agents_64=80), "holds"),
        (extagents, ways(extagents, 64, 20, 19, 18, 2, waits_agents_64=80), "inconclusive"),
        (extagents, ways(extagents, 64, 20, 2, 18, 2, waits_agents_64=80), "does not hold"),
        (coding_agents, ways(coding_agents, 64, 20, 19, 5, 2, tokens_agent_64=80), "holds"),
        (coding_agents, ways(coding_agents, 64, 20, 2, 5, 19, tokens_agent_64=80), "does not hold"),
        (laser, ways(laser, 28, 20, 19, 5, parsed_free=1, **LASER), "holds"),
        (laser, ways(laser, 28, 20, 19, 5, parsed_free=9, **LASER), "inconclusive"),
        (laser, ways(laser, 28, 20, 19, 5, parsed_free=1, **{**LASER, "parsed_held": 8}), "does not hold"),
        (laser, ways(laser, 28, 20, 19, 5, parsed_free=1, **{**LASER, "peak_register_28": 2100}), "does not hold"),
        (memex, ways(memex, 64, 20, 19, 5, 2, **MEMEX), "holds"),
        (memex, ways(memex, 64, 20, 19, 5, 2, **{**MEMEX, "lost_64": 1}), "does not hold"),
        (memex, ways(memex, 64, 20, 12, 8, 2, **MEMEX), "inconclusive"),
        (agenticlu, ways(agenticlu, 1, 40, 5, 5) | ways(agenticlu, 8, 40, 30, 5, **CLARIFIED), "holds"),
        (agenticlu, ways(agenticlu, 1, 40, 25, 5) | ways(agenticlu, 8, 40, 5, 5, **CLARIFIED), "does not hold"),
        (agenticlu, ways(agenticlu, 1, 40, 5, 5) | ways(agenticlu, 8, 40, 5, 30, **CLARIFIED), "does not hold"),
        (agenticlu, ways(agenticlu, 1, 40, 25, 5) | ways(agenticlu, 8, 40, 30, 20, **CLARIFIED), "inconclusive"),
        (agenticlu, ways(agenticlu, 1, 2, 0, 0) | ways(agenticlu, 8, 2, 0, 0, real_of=0), "inconclusive"),
    ],
)
def test_the_verdict_follows_the_rule(module: Any, seed: Figures, outcome: str) -> None:
    verdict = module.judge([seed])
    assert verdict.outcome.startswith(outcome), verdict.reason
    assert verdict.reason.endswith(".")


def test_seeds_add_up() -> None:
    assert pooled([{"of 8": 2.0, "x": 1.0}, {"of 8": 3.0, "x": 0.5}]) == {"of 8": 5.0, "x": 1.5}
    assert pooled([]) == {}


def test_chains_lead_from_the_question_to_their_value() -> None:
    question, value, facts = chain(4, "a")
    assert len(facts) == 4 and facts[0].endswith(f"= {value}.") and facts[-1].split()[1] in question
    assert chain(4, "a") == (question, value, facts) and chain(4, "b")[1:] != (value, facts)
    others = other_chains(13, "a")
    assert len(set(others)) == 13 and not set(others) & set(facts)


def test_facts_are_spread_over_real_text_of_the_length() -> None:
    count = counter("smollm2")
    text = spread(["LET A = B.", "LET C = D."], 2_000, "seed", count)
    assert "LET A = B." in text and "LET C = D." in text
    assert abs(count.count(text) - 2_000) < 60


def test_alone_reads_what_the_window_holds() -> None:
    llm = SimulatedLLM("exact")
    near = "The pass key is 12345. " + "It rains. " * 9_000
    far = "It rains. " * 9_000 + "The pass key is 12345."
    assert "12345" in alone("What is the pass key?", near, llm).text
    assert "12345" not in alone("What is the pass key?", far, llm).text
    answer = answered("What is the pass key?", far, llm, "lambda-rlm")
    assert "12345" in answer.text and 0 < longest_prompt(answer) < 8192


def test_memexes_archive_answers_and_loses_nothing() -> None:
    places = [f"old mill {at}" for at in range(24)]
    facts = [f"The access code of the {place} is {1000 + at}." for at, place in enumerate(places)]
    passages = [f"{'The wind blows over the hills. ' * 20}{fact}" for fact in facts]
    llm = SimulatedLLM("exact")
    told, window, lost = asyncio.run(
        memex.archived("What is the access code of the old mill 3?", places, passages, llm)
    )
    assert "1003" in told and window <= memex.BUDGET and lost == 0


def test_lasers_baseline_searches_as_well_while_its_history_is_short() -> None:
    question, value, facts = chain(3, "short")
    text = "It rains. " * 300 + " ".join(facts) + " It rains." * 300
    told, longest = asyncio.run(laser._with_history(question, text, SimulatedLLM("exact")))
    assert value in told and longest < 3_000


def test_an_action_that_is_offered_is_taken() -> None:
    assert act("QUESTION: What is the pass key?", {"search", "answer"}, None)["action"] == "search"
