"""The rule that judges M4LE's findings, on made-up figures, and a whole run with a made-up model."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from matplotlib.figure import Figure

from longspan.reproductions import m4le
from longspan.reproductions.harness import REPRODUCTIONS, Figures, Run


def figures(length: float, span: float, hint: float, guess: float, contexts: int = 12, noise: float = 0.05) -> Figures:
    rng = random.Random(0)
    made: Figures = {}
    for name, mean in (("length", length), ("span", span), ("hint", hint), ("guess", guess)):
        values = [mean + rng.uniform(-noise, noise) for _ in range(contexts)]
        made |= {f"sum {name}": sum(values), f"squares {name}": sum(v * v for v in values), f"of {name}": len(values)}
    for at in (1024, 4096):
        made |= {f"score {ability} {at}": 0.5 for ability in m4le.ABILITIES} | {f"chance {at}": 0.1}
    return made


@pytest.mark.parametrize(
    ("seeds", "outcome", "says"),
    [
        ([figures(0.2, 0.3, 0.1, 0.5)] * 2, "holds", "All three"),
        ([figures(0.2, 0.3, -0.1, 0.5)], "does not hold at this scale", "other way round for hint"),
        ([figures(0.2, 0.3, 0.1, 0.02)], "does not hold at this scale", "at the floor"),
        ([figures(0.2, 0.3, 0.0, 0.5)], "inconclusive", "Shown for length and span"),
        ([figures(0.2, 0.3, 0.1, 0.5, contexts=1)], "inconclusive", "none of the three"),
        ([figures(0.1, 0.1, 0.1, 0.5, contexts=2, noise=0.5)], "inconclusive", "none of the three"),
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
    found = m4le.contrasts(scores, dict.fromkeys(scores, 0.1))
    assert found["length"] == pytest.approx([0.3, 0.3])
    assert found["span"] == pytest.approx([0.1, 0.1])
    assert found["hint"] == pytest.approx([0.2, 0.2])
    assert found["guess"] == pytest.approx([0.7, 0.8])


def test_measured_with_a_model_that_reads_one_id(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It names the article of the first id in the question: explicit single is right, multiple is F1 0.5, others 0."""
    import re

    import inspect_ai
    from inspect_ai.model import ModelOutput, ModelUsage, get_model

    from longspan.evaluation.lengths import TokenCounter
    from longspan.evaluation.tasks import m4le as task

    words = TokenCounter("words", lambda text: len(re.findall(r"\w+|[^\w\s]", text)), lambda text: [], 7)
    monkeypatch.setattr(task, "counter", lambda name: words)
    calls = []

    def reply(messages, tools, choice, config) -> ModelOutput:  # type: ignore[no-untyped-def]
        prompt = messages[-1].text
        calls.append(prompt)
        ids = re.findall(r"\b[0-9A-F]{6}\b", prompt.rpartition("Question: ")[2])
        name = re.search(rf"Article {ids[0]}, named (\w+)", prompt).group(1) if ids else "I do not know"
        output = ModelOutput.from_content("mockllm/model", f"{name}.")
        output.usage = ModelUsage()  # else inspect counts tokens with a vocabulary that it downloads
        return output

    real = inspect_ai.eval
    monkeypatch.setattr(
        inspect_ai,
        "eval",
        lambda task, model, **kw: real(task, model=get_model("mockllm/model", custom_outputs=reply), **kw),
    )
    run = Run(seed=3, quick=True, folder=tmp_path, tell=lambda text: None)
    measured = m4le.measure(run)
    for length in (1024, 1536):
        assert measured[f"score explicit-single {length}"] == 1.0
        assert measured[f"score explicit-multiple {length}"] == pytest.approx(0.5)
        assert measured[f"score semantic-single {length}"] == measured[f"score semantic-multiple {length}"] == 0.0
        assert 0 < measured[f"chance {length}"] < 0.3
    assert measured["sum span"] / measured["of span"] == pytest.approx(0.25)
    assert measured["sum hint"] / measured["of hint"] == pytest.approx(0.75)
    assert len(calls) == 2 * 2 * 5
    assert m4le.measure(run) == measured and len(calls) == 2 * 2 * 5  # what is done is kept
    figure = Figure()
    REPRODUCTIONS["m4le"].plot([measured, measured], figure)
    figure.savefig(tmp_path / "plot.png")
    assert (tmp_path / "plot.png").stat().st_size > 1000
