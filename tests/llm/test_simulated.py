"""The simulated reader: exact from its prompt, wrong as often as its curve says, and the same for the same seed."""

from __future__ import annotations

import asyncio
import json
import random
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from longspan.errors import UsageError
from longspan.evaluation.lengths import TokenCounter
from longspan.evaluation.tasks import passkey
from longspan.evaluation.tasks.niah import one as niah
from longspan.evaluation.tasks.ruler import niah as ruler
from longspan.evaluation.tasks.ruler import tracking
from longspan.llm import LLM, Completion, Message, SimulatedLLM, open_llm
from longspan.llm.simulated import PROFILES, Curve, Profile
from longspan.trace import span


def words(texts: list[str]) -> list[int]:
    return [len(text.split()) for text in texts]


COUNTER = TokenCounter(
    "words",
    lambda text: len(text.split()),
    lambda text: [at for at, (a, b) in enumerate(pairwise(" " + text)) if a.isspace() and not b.isspace()],
    0,
)


def ask(prompt: str, llm: SimulatedLLM, max_tokens: int = 256) -> Completion:
    return asyncio.run(llm.chat([{"role": "user", "content": prompt}], max_tokens=max_tokens))


@pytest.mark.parametrize("seed", range(3))
def test_it_solves_the_tasks_of_the_evaluation(seed: int) -> None:
    llm = SimulatedLLM("exact", count_batch=words)
    samples = [
        passkey.one(1000, 0.5, str(seed), COUNTER),
        niah(1000, 0.25, 1, "real", str(seed), COUNTER),
        niah(1000, 0.0, 4, "real", str(seed), COUNTER),
        ruler.one(ruler.Needles("niah_single_1", "noise"), 1000, str(seed), COUNTER),
        ruler.one(ruler.Needles("niah_multikey_1", "real", keys=4), 1000, str(seed), COUNTER),
        ruler.one(ruler.Needles("niah_multivalue", "real", values=4), 1000, str(seed), COUNTER),
        ruler.one(ruler.Needles("niah_multiquery", "real", keys=4, asked=4), 1000, str(seed), COUNTER),
        ruler.one(ruler.Needles("niah_multikey_3", "needles", "uuid", "uuid"), 1000, str(seed), COUNTER),
        tracking.one(1000, str(seed), COUNTER),
    ]
    for sample in samples:
        said = ask(str(sample.input), llm).text
        assert all(target in said for target in sample.target), (sample.id, said)
        begin, end = sample.metadata["context"]  # type: ignore[index]
        emptied = str(sample.input)[:begin] + str(sample.input)[end:]
        guessed = ask(emptied, llm).text
        assert not any(target in guessed for target in sample.target), "it knows only what stands in the prompt"


@given(st.lists(st.sampled_from(["tiger", "Tiger", "tigers", "lion"]), max_size=40))
def test_it_counts(animals: list[str]) -> None:
    prompt = f"{' '.join(animals)}\n\nHow many times is the word tiger mentioned?"
    assert ask(prompt, SimulatedLLM("exact", count_batch=words)).text == str(
        sum(animal.lower() == "tiger" for animal in animals)
    )


def test_it_says_so_where_there_is_nothing() -> None:
    llm = SimulatedLLM("exact", count_batch=words)
    assert ask("Grass is green. What is the pass key? If not there, reply with exactly NOT STATED.", llm).text == (
        "NOT STATED"
    )
    assert ask("What is the capital of France?", llm).text == "none"


def test_statements_are_copied_where_they_are_asked_for() -> None:
    prompt = "LET AB = 5. LET CD = AB. LET X = 7.\nCopy word for word what helps: Which variables hold the value 5?"
    assert ask(prompt, SimulatedLLM("exact", count_batch=words)).text == "LET AB = 5. LET CD = AB. LET X = 7."


def test_a_circle_of_variables_ends() -> None:
    prompt = "LET A = B. LET B = A.\nWhich variables hold the value 5?"
    assert ask(prompt, SimulatedLLM("exact", count_batch=words)).text == "none"


@given(st.lists(st.tuples(st.integers(1, 9), st.floats(0, 1)), min_size=1, max_size=6), st.integers(0, 60))
def test_a_curve_passes_through_its_points(steps: list[tuple[int, float]], tokens: int) -> None:
    points, at = [], 0
    for step, value in steps:
        at += step
        points.append((at, value))
    curve = Curve(tuple(points))
    assert all(curve(length) == pytest.approx(value) for length, value in points)
    assert min(value for _, value in points) - 1e-9 <= curve(tokens) <= max(value for _, value in points) + 1e-9


def test_it_is_right_as_often_as_its_curve_says() -> None:
    half = Profile(8192, 8192, Curve(((100, 1.0), (200, 0.0))))
    llm = SimulatedLLM("half", profile=half, count_batch=words)
    right = 0
    for number in range(400):
        prompt = f"The pass key is {number + 10_000}. " + "word " * 140 + "What is the pass key?"
        right += f"{number + 10_000}" in ask(prompt, llm).text
    assert llm.profile.curve(149) == pytest.approx(0.51)
    assert abs(right / 400 - 0.51) < 0.08  # 3 standard deviations


def test_the_same_seed_says_the_same_and_another_does_not() -> None:
    curve = Profile(8192, 8192, Curve(((0, 0.5),)))

    def said(seed: int) -> list[str]:
        llm = SimulatedLLM("half", seed=seed, profile=curve, count_batch=words)
        return [ask(f"The pass key is {n + 10_000}. What is the pass key?", llm).text for n in range(40)]

    assert said(1) == said(1) != said(2)


def test_errors_are_of_every_kind() -> None:
    llm = SimulatedLLM("never", profile=Profile(8192, 8192, Curve(((0, 0.0),))), count_batch=words)
    assert (
        "1234567" not in ask("The access code of the mill is 1234567. What is the access code of the mill?", llm).text
    )
    assert "access code of the mill is" in ask("No. What is the access code of the mill?", llm).text  # made up
    assert ask("LET A = 5. LET B = A. Which variables hold the value 5?", llm).text in ("A", "B")
    assert ask("a tiger\nHow many times is the word tiger mentioned?", llm).text != "1"


def test_tokens_are_counted_by_the_real_tokenizer_and_the_window_holds() -> None:
    llm = open_llm("simulated:smollm2:seed=3")
    assert isinstance(llm, SimulatedLLM)
    typed: LLM = llm
    assert (typed.name, typed.window, typed.effective_window) == ("simulated:smollm2:seed=3", 8192, 2048)
    assert llm.count_batch(["a  12b", "Don't do", ""]) == [5, 3, 0]  # as tests/models says of smollm2
    with span("root") as root:
        completion = ask("The pass key is 12345. What is the pass key?", llm)
    assert completion.text == "The pass key is 12345."
    assert (completion.usage.prompt_tokens, completion.usage.completion_tokens) == (
        llm.count_tokens("The pass key is 12345. What is the pass key?"),
        llm.count_tokens("The pass key is 12345."),
    )
    assert root.children[0].attributes["model"] == "simulated:smollm2:seed=3"
    with pytest.raises(UsageError, match="beyond the window of 8192"):
        ask("word " * 9000, llm)


def test_an_answer_is_cut_at_the_most_tokens() -> None:
    completion = ask("The pass key is 12345. What is the pass key?", SimulatedLLM("exact", count_batch=words), 3)
    assert (completion.text, completion.finish_reason, completion.usage.completion_tokens) == (
        "The pass key",
        "length",
        3,
    )


def test_menus_are_chosen_from() -> None:
    schema = {"properties": {"task": {"enum": ["search", "aggregate", "multi_hop"]}, "why": {"type": "string"}}}
    llm = SimulatedLLM("exact", count_batch=words)

    def chosen(question: str) -> str:
        messages: list[Message] = [{"role": "user", "content": question}]
        text = asyncio.run(llm.chat(messages, max_tokens=20, schema=schema)).text
        return str(json.loads(text)["task"])

    assert chosen("What is the pass key?") == "search"
    assert chosen("How many times is the word tiger mentioned?") == "aggregate"
    assert chosen("Which variables hold the value 5?") == "multi_hop"


@pytest.mark.parametrize(
    ("spec", "message"), [("gpt", "no simulated reader 'gpt'; known: exact"), ("exact:speed=2", "not known")]
)
def test_what_is_no_simulated_reader(spec: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        open_llm(f"simulated:{spec}")


def test_profiles_fall_with_length() -> None:
    for profile in PROFILES.values():
        values = [profile.curve(tokens) for tokens in random.Random(0).sample(range(9000), 50)]
        assert all(0 <= value <= 1 for value in values)
        assert all(low[0] < high[0] and low[1] >= high[1] for low, high in pairwise(profile.curve.points))
