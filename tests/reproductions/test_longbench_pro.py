"""LongBench Pro's reproduction: the rule on made figures, the interval, and what one seed measures."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
from inspect_ai import Task
from inspect_ai.dataset import MemoryDataset, Sample
from inspect_ai.model import ChatMessage, GenerateConfig, ModelOutput, ModelUsage
from matplotlib.figure import Figure as Drawing

from longspan.evaluation.lengths import TokenCounter, fit
from longspan.evaluation.samples import make_sample, room
from longspan.evaluation.scorers import includes_all
from longspan.reproductions import longbench_pro as module
from longspan.reproductions.harness import REPRODUCTIONS, Figures, Run
from longspan.reproductions.longbench_pro import CLAIMED, FULL, QUICK, SHORTEST, effective, judge, pooled

COUNTER = TokenCounter("letters", len, lambda text: list(range(len(text))), 10)


def figures(window: tuple[float, float] = (5, 5), **right: float) -> Figures:
    """One seed's: right answers by length (`l512=25`), of as many samples as the full run has."""
    made: Figures = {}
    for length, (depths, samples) in FULL.items():
        made |= {f"right {length}": right.get(f"l{length}", 0.0), f"of {length}": float(depths * samples)}
    return made | {"right window": window[0], "of window": window[1]}


def test_it_holds_when_the_claimed_window_fails() -> None:
    seeds = [figures(l512=25, l1024=10, l2048=9, l4096=2, l6144=0, l8192=1) for _ in range(3)]
    verdict = judge(seeds)
    assert verdict.outcome == "holds"
    assert "3 of 15" in verdict.reason and "75 of 75" in verdict.reason and "effective context 1024" in verdict.reason
    assert verdict.reason.count("\n") == 0 and verdict.reason.endswith(".")


def test_it_does_not_hold_when_the_claimed_window_is_used() -> None:
    right = {f"l{length}": float(depths * samples) for length, (depths, samples) in FULL.items()}
    assert judge([figures(**right) for _ in range(5)]).outcome == "does not hold at this scale"  # 25 of 25 at 8192
    assert judge([figures(**right)]).outcome == "inconclusive"  # 5 of 5 do not tell 85 % from 100 %


@pytest.mark.parametrize("at_claimed", [3, 4])
def test_the_middle_is_inconclusive(at_claimed: int) -> None:
    verdict = judge([figures(l512=25, l1024=10, l8192=at_claimed)])
    assert verdict.outcome == "inconclusive" and "Too few samples" in verdict.reason


def test_samples_that_fail_when_short_too_prove_nothing() -> None:
    seeds = [figures(window=(0, 5), l512=25, l1024=10) for _ in range(3)]
    assert judge(seeds).outcome == "inconclusive"
    assert "fail when cut short too" in judge(seeds).reason


def test_a_model_that_fails_at_once_is_not_a_short_context() -> None:
    verdict = judge([figures(l512=2, l1024=1) for _ in range(3)])
    assert verdict.outcome == "inconclusive"


def test_the_effective_length_ends_at_the_first_that_fails() -> None:
    counts = {"512": (25.0, 25.0), "1024": (30.0, 30.0), "2048": (0.0, 30.0), "4096": (30.0, 30.0)}
    assert effective(counts) == 1024
    assert effective({"512": (5.0, 5.0)}) == 0  # five samples cannot show 85 %
    assert pooled([figures(l512=20), figures(l512=25)])["512"] == (45, 50)


def test_it_is_declared() -> None:
    reproduction = REPRODUCTIONS["longbench-pro"]
    assert reproduction.paper == "arXiv:2601.02872" and reproduction.year == 2026
    assert str(CLAIMED) in reproduction.criterion and "85%" in reproduction.criterion
    assert {SHORTEST, CLAIMED} <= set(QUICK) and {SHORTEST, CLAIMED} <= set(FULL)
    drawing = Drawing()
    reproduction.plot([figures(l512=25, l1024=10, l2048=3, l8192=0)], drawing)  # shares of 0 and 1 among them
    assert drawing.axes[0].get_xlabel() == "length (tokens)"


def haystack(lengths: int, depths: int, samples: int, seed: int, tokenizer: str) -> Task:
    """A key in a text of letters, one token each: what a task of longspan gives, without a model."""

    def one(depth: float, number: int) -> Sample:
        chance = random.Random(f"{lengths}-{depth}-{seed}-{number}")
        needle = f"<key {chance.randint(1000, 9999)}>"
        filler = "".join(chance.choice("abc ") for _ in range(lengths))

        def context(n: int) -> str:
            return filler[: round(n * depth)] + needle + filler[round(n * depth) : n]

        n, _ = fit(lambda size: f"Read.{context(size)} Key?", COUNTER, room(lengths, COUNTER, 16))
        return make_sample(
            f"{lengths}-{depth}-{number}",
            before="Read.",
            context=context(n),
            after=" Key?",
            question="Key?",
            targets=[needle[5:9]],
            length=lengths,
            counter=COUNTER,
            answer_tokens=16,
            depth=depth,
            needles=[needle],
        )

    rows = [one(at / max(depths - 1, 1), number) for at in range(depths) for number in range(samples)]
    return Task(dataset=MemoryDataset(rows, name="haystack"), scorer=includes_all())


def test_a_seed_counts_right_answers_and_keeps_what_is_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from inspect_ai import eval as inspect_eval
    from inspect_ai.model import get_model

    seen: list[int] = []

    def reply(messages: list[ChatMessage], tools: object, choice: object, config: GenerateConfig) -> ModelOutput:
        prompt = messages[-1].text
        seen.append(len(prompt))
        found = prompt[prompt.index("<key") :][5:9]
        output = ModelOutput.from_content("mockllm", found if len(prompt) < 4000 else "none")  # a short-sighted model
        output.usage = ModelUsage()
        return output

    def evaluate(task: Task, **arguments: Any) -> Any:
        assert arguments.pop("model") == "longspan/smollm2"
        return inspect_eval(task, model=get_model("mockllm/model", custom_outputs=reply), **arguments)

    monkeypatch.setattr(module, "find", lambda kind, slug: haystack)
    monkeypatch.setattr("longspan.evaluation.lengths.counter", lambda tokenizer=None: COUNTER)
    monkeypatch.setattr("inspect_ai.eval", evaluate)
    told: list[str] = []
    run = Run(seed=3, quick=True, folder=tmp_path, tell=told.append)
    measured = module.measure(run)
    assert measured == {
        "right 512": 10,
        "of 512": 10,
        "right 8192": 0,
        "of 8192": 1,
        "right window": 1,
        "of window": 1,
    }
    # Template and answer take 26 of each length; the control is the 8192 cut to 512.
    assert {length + 26 for length in seen[:10]} == {512} and seen[-2] + 26 == 8192 and 500 <= seen[-1] + 26 <= 512
    assert len(told) == 3
    # An interruption before the last: only that is run again, and the figures are the same.
    (tmp_path / "smollm2-niah-window-3-quick.json").unlink()
    assert module.measure(run) == measured
    assert len(seen) == 13 and len(told) == 4
    assert json.loads((tmp_path / "smollm2-niah-512-3-quick.json").read_text()) == {"right 512": 10, "of 512": 10}
