"""The rule that judges M4LE's findings, on made-up figures, and a whole run with a made-up model."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from matplotlib.figure import Figure

from longspan.evaluation.lengths import TokenCounter
from longspan.evaluation.tasks import m4le as task
from longspan.llm import Completion, Message
from longspan.reproductions import m4le
from longspan.reproductions.harness import REPRODUCTIONS, Figures, Run
from longspan.trace import Usage


def figures(length: float, span: float, hint: float, able: float, contexts: int = 12, noise: float = 0.05) -> Figures:
    made: Figures = {}
    for name, mean in (("length", length), ("span", span), ("hint", hint), ("able", able)):
        values = [mean + noise * (-1) ** number for number in range(contexts)]
        made |= {f"sum {name}": sum(values), f"squares {name}": sum(v * v for v in values), f"of {name}": len(values)}
    for at in (1024, 4096):
        made |= {f"score {ability} {at}": 0.5 for ability in m4le.ABILITIES}
    return made


@pytest.mark.parametrize(
    ("seeds", "outcome", "says"),
    [
        ([figures(0.2, 0.3, 0.1, 0.5)] * 2, "holds", "All three"),
        ([figures(0.2, 0.3, -0.1, 0.5)], "does not hold at this scale", "other way round for hint"),
        ([figures(0.2, 0.3, 0.1, 0.02, contexts=7)], "inconclusive", "Too few contexts to judge by (7)"),
        ([figures(0.2, 0.3, 0.1, 0.02)], "does not hold at this scale", "at the floor"),
        ([figures(0.2, 0.3, 0.0, 0.5)], "inconclusive", "Shown for length and span"),
        ([figures(0.2, 0.3, 0.1, 0.5, contexts=1)], "inconclusive", "Too few contexts to judge by (1)"),
        ([figures(0.1, 0.1, 0.1, 0.5, noise=0.5)], "inconclusive", "none of the three"),
    ],
)
def test_rule(seeds: list[Figures], outcome: str, says: str) -> None:
    verdict = m4le.judge(seeds)
    assert verdict.outcome == outcome
    assert says in verdict.reason


def test_interval_is_students() -> None:
    values = [0.1, 0.4, 0.3, 0.2]
    seeds = [
        {"sum x": sum(part), "squares x": sum(v * v for v in part), "of x": len(part)}
        for part in (values[:1], values[1:])
    ]
    mean, low, high = m4le.interval(seeds, "x")
    assert mean == pytest.approx(0.25)
    assert (low, high) == pytest.approx((0.25 - 0.205426, 0.25 + 0.205426), abs=1e-5)  # t(3) 3.18245 * 0.129099 / 2


def test_contrasts_are_within_contexts() -> None:
    scores = {
        (ability, length, number): {"explicit": 0.8, "semantic": 0.6, "global": 0.5}[ability.partition("-")[0]]
        - (0.1 if ability.endswith("multiple") else 0.0)
        - (0.3 if length == 4096 else 0.0)
        + number / 10
        for ability in m4le.ABILITIES
        for length in (1024, 4096)
        for number in (0, 1)
    }
    found = m4le.contrasts(scores)
    assert found["length"] == pytest.approx([0.3, 0.3])
    assert found["span"] == pytest.approx([0.1, 0.1])
    assert found["hint"] == pytest.approx([0.2, 0.2])
    assert found["able"] == pytest.approx([0.8, 0.9])


class OneId:
    """Names the article of the first id in the question as often as a name is wanted; else the last it may choose."""

    def __init__(self) -> None:
        self.calls = 0

    async def chat(self, messages: list[Message], *, max_tokens: int, schema: dict[str, Any]) -> Completion:
        self.calls += 1
        prompt = messages[-1]["content"]
        names = schema["items"]["enum"]
        ids = re.findall(r"\b[0-9A-F]{6}\b", prompt.rpartition("Question: ")[2])
        name = re.search(rf"\n\nArticle {ids[0]}, named (\w+)", prompt).group(1) if ids else names[-1]
        return Completion(json.dumps([name] * schema["maxItems"]), Usage(1, 1, 1, 0, 0.0), "stop")

    def close(self) -> None:
        pass


def test_measured_with_a_model_that_reads_one_id(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = TokenCounter("words", lambda text: len(re.findall(r"\w+|[^\w\s]", text)), lambda text: [], 7)
    monkeypatch.setattr(task, "counter", lambda name: words)
    model = OneId()
    monkeypatch.setattr(m4le, "LocalLLM", lambda name: model)
    run = Run(seed=3, quick=True, folder=tmp_path, tell=lambda text: None)
    measured = m4le.measure(run)
    for length in m4le.QUICK[0]:
        assert measured[f"score explicit-single {length}"] == 1.0
        assert 0 < measured[f"score explicit-multiple {length}"] < 1 / 3  # one of three, less what guessing finds
        assert measured[f"score semantic-single {length}"] <= 1.0
    assert measured["sum able"] == measured["of able"] == m4le.QUICK[1]
    assert model.calls == 5 * len(m4le.QUICK[0]) * m4le.QUICK[1]
    assert m4le.measure(run) == measured
    assert model.calls == 5 * len(m4le.QUICK[0]) * m4le.QUICK[1]  # what is done is kept
    figure = Figure()
    REPRODUCTIONS["m4le"].plot([measured, measured], figure)
    figure.savefig(tmp_path / "plot.png")
    assert (tmp_path / "plot.png").stat().st_size > 1000
