"""Scorers that several tasks share. Scores are 0 to 1; metrics are given over all samples and by length."""

from __future__ import annotations

from typing import Any

from inspect_ai.scorer import Score, Scorer, Target, grouped, mean, scorer, stderr
from inspect_ai.solver import TaskState

METRICS: list[Any] = [mean(), stderr(), grouped(mean(), "length", all=False, name_template="at_{group_name}")]


@scorer(metrics=METRICS)
def includes_all() -> Scorer:
    """The share of the targets that the answer contains, without regard to case: RULER's `string_match_all`."""

    async def score(state: TaskState, target: Target) -> Score:
        answer = state.output.completion
        found = [wanted for wanted in target if wanted.lower() in answer.lower()]
        return Score(
            value=len(found) / len(target),
            answer=answer,
            explanation=f"found {len(found)} of {len(target)}: {', '.join(found) or 'none'}",
        )

    return score


@scorer(metrics=METRICS)
def includes_any() -> Scorer:
    """1 if the answer contains one of the targets, without regard to case: RULER's `string_match_part`."""

    async def score(state: TaskState, target: Target) -> Score:
        answer = state.output.completion
        found = any(wanted.lower() in answer.lower() for wanted in target)
        return Score(value=float(found), answer=answer)

    return score
