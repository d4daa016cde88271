"""λ-RLM's reproduction: the rule, hand-worked, and one seed with a model that is asked nothing."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path

import pytest

from longspan.llm import Call, Completion, Message, Sampling
from longspan.llm.protocol import note
from longspan.reproductions import lambda_rlm as module
from longspan.reproductions.harness import Figures, Run
from longspan.trace import Usage


def seed(program: float, alone: float, exceeded: float = 0, of: float = 15) -> Figures:
    short = {"of 8192": of, "right program 8192": of, "right alone 8192": 3, "exceeded 8192": 0}
    long = {
        "of 131072": of,
        "right program 131072": program,
        "right alone 131072": alone,
        "exceeded 131072": exceeded,
    }
    rest = {f"{kind} {length}": 4000.0 for kind in ("bound", "tokens") for length in (8192, 131_072)}
    return {**short, **long, **rest}


@pytest.mark.parametrize(
    ("figures", "outcome"),
    [
        (seed(15, 1), "holds"),
        (seed(15, 1, exceeded=1), "does not hold at this scale"),
        (seed(1, 15), "does not hold at this scale"),
        (seed(8, 5), "inconclusive"),
        (seed(2, 0, of=2), "inconclusive"),
    ],
)
def test_the_verdict_follows_the_rule(figures: Figures, outcome: str) -> None:
    verdict = module.judge([figures])
    assert verdict.outcome == outcome
    assert "exceeded their bound" in verdict.reason


def test_seeds_are_pooled() -> None:
    assert module.judge([seed(4, 1, of=5)] * 3).outcome == "holds"
    assert module.judge([seed(4, 1, of=5)]).outcome == "inconclusive"


class Words:
    """Answers with the code that its prompt gives the place asked for; a token is a word of four letters at most."""

    name = tokenizer_name = "words"
    window, effective_window, reader, template_tokens = 8192, 2048, "extract", 0

    def token_starts(self, text: str) -> list[int]:
        return list(range(0, len(text), 4))

    def count_tokens(self, text: str) -> int:
        return -(-len(text) // 4)

    def count_batch(self, texts: list[str]) -> list[int]:
        return [self.count_tokens(text) for text in texts]

    async def chat(
        self,
        messages: Sequence[Message],
        *,
        max_tokens: int,
        sampling: Sampling = Sampling(),  # noqa: B008
        stop: Sequence[str] = (),
        schema: object = None,
        on_text: object = None,
    ) -> Completion:
        prompt = messages[-1]["content"]
        place = re.search(r"access code of the ([\w -]+)\?", prompt)
        code = place and re.search(rf"The access code of the {place[1]} is (\d+)", prompt)
        text = f"The access code of the {place[1]} is {code[1]}." if place and code else "NONE"
        read = sum(self.count_tokens(message["content"]) for message in messages)
        assert read + max_tokens <= self.window
        completion = Completion(text, Usage(1, read, self.count_tokens(text)), "stop")
        with Call.of(messages, max_tokens, sampling, stop, None).recorded(self.name) as step:
            note(step, completion)
        return completion


def test_a_seed_is_measured_and_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from longspan.evaluation.lengths import TokenCounter

    llm = Words()
    counter = TokenCounter("words", llm.count_tokens, llm.token_starts, 0)
    monkeypatch.setattr("longspan.llm.open_local", lambda name: llm)
    monkeypatch.setattr("longspan.evaluation.lengths.counter", lambda tokenizer=None: counter)
    told: list[str] = []
    run = Run(seed=1, quick=True, folder=tmp_path, tell=told.append)
    monkeypatch.setattr(module, "QUICK", (8_192, 16_384))
    figures = module.measure(run)
    for length in module.QUICK:
        assert figures[f"of {length}"] == figures[f"right program {length}"] == 2
        assert figures[f"exceeded {length}"] == 0
        assert 0 < figures[f"tokens {length}"] <= figures[f"bound {length}"]
    assert figures["right alone 8192"] == 2  # the window holds the whole text
    assert figures["right alone 16384"] == 1  # and half of this one
    assert module.measure(run) == figures and len(told) == 2
    assert json.loads((tmp_path / "smollm2-8192-1-quick.json").read_text())["of"] == 2
