"""The Sparse Frontier's story tasks: answers are read again from the text, scores held against official ones."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from itertools import chain, islice, product
from pathlib import Path
from random import Random
from typing import Any

import inspect_ai
import pytest
from inspect_ai.dataset import Sample
from inspect_ai.model import ModelOutput, ModelUsage, get_model

from longspan.errors import UsageError
from longspan.evaluation.lengths import TokenCounter, counter
from longspan.evaluation.tasks import GROUPS
from longspan.evaluation.tasks import sparse_frontier as stories
from longspan.registry import parts

LENGTHS = (1024, 2048, 4096, 16384)
TASKS: dict[str, Callable[..., Any]] = {
    "story-retrieval": stories.story_retrieval,
    "story-filtering": stories.story_filtering,
    "story-multihop": stories.story_multihop,
}
THING = re.compile(r"\b(?:{}) (?:{}) (?:{})\b".format(*("|".join(words) for words in stories.ITEM_WORDS)))


def one(name: str, length: int, seed: int = 0) -> Sample:
    task = TASKS[name](lengths=length, samples=1, seed=seed, tokenizer="smollm2")
    return task.dataset[0]


def context_of(sample: Sample) -> str:
    begin, end = sample.metadata["context"]
    return sample.input[begin:end]


def read(story: str) -> dict[int, dict[str, str]]:
    """Of each chapter the town and person named, and what is bought: a thing that no chapter before has named."""
    known: set[str] = set()
    chapters = {}
    for number, text in re.findall(r"^Chapter (\d+)\n(.+)$", story, re.MULTILINE):
        new = [thing for thing in THING.findall(text) if thing not in known]
        known.update(new)
        assert len(new) <= 1
        (place,) = {word for word in re.findall(r"\w+", text) if word in stories.PLACES}
        (person,) = {word for word in re.findall(r"\w+", text) if word in stories.PEOPLE}
        chapters[int(number)] = {"place": place, "person": person, "item": new[0] if new else ""}
    return chapters


def solve(name: str, sample: Sample) -> str:
    """The right reply, found from question and text alone."""
    story, question = read(context_of(sample)), sample.metadata["question"]
    if name == "story-filtering":
        answer = ", ".join(str(number) for number, told in story.items() if not told["item"])
    elif name == "story-multihop":
        (named,) = THING.findall(question)
        bought = [told["item"] for told in story.values()]
        answer = bought[bought.index(named) - 1]
    else:
        kinds = {"To which town": "place", "Whom": "person", "Which thing": "item"}
        asked = re.findall(
            r"^(\d+)\. (To which town|Whom|Which thing) did .* in chapter (\d+)\?$", question, re.MULTILINE
        )
        answer = "\n".join(f"{number}. {story[int(chapter)][kinds[kind]]}" for number, kind, chapter in asked)
    return f"<explanation>\nAs told.\n</explanation>\n<answer>\n{answer}\n</answer>"


SCORES = {
    "story-retrieval": stories.retrieval_score,
    "story-filtering": stories.filtering_score,
    "story-multihop": stories.multihop_score,
}


@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize("name", TASKS)
def test_the_answer_can_be_read_from_a_text_of_the_length(name: str, length: int) -> None:
    count = counter("smollm2")
    for seed in range(1 if length > 4096 else 4):
        sample = one(name, length, seed)
        assert SCORES[name](solve(name, sample), sample.target) == 1.0
        assert sample.metadata["tokens"] == count.count(sample.input) + count.overhead + stories.ANSWER_TOKENS
        assert 0.99 * length <= sample.metadata["tokens"] <= length


@pytest.mark.parametrize("name", TASKS)
def test_samples_are_the_same_again_whatever_other_lengths_there_are(name: str) -> None:
    again = TASKS[name](lengths="1k,2k", samples=2, tokenizer="smollm2").dataset
    alone = TASKS[name](lengths="2k", samples=3, tokenizer="smollm2").dataset
    assert [sample.input for sample in again][2:] == [sample.input for sample in alone][:2]
    assert len({sample.id for sample in chain(again, alone)}) == 5
    assert one(name, 1024, 1).input != one(name, 1024, 2).input


@pytest.mark.parametrize("name", TASKS)
def test_needles_stand_in_the_text_and_hold_the_answer(name: str) -> None:
    sample = one(name, 4096)
    needles = sample.metadata["needles"]
    assert all(needle in context_of(sample) for needle in needles)
    if name == "story-filtering":
        assert [re.match(r"Chapter (\d+)\n", needle).group(1) for needle in needles] == sample.target
    else:
        assert all(target in needle for target, needle in zip(sample.target, needles, strict=False))


def test_the_question_stands_before_and_after_the_story() -> None:
    sample = one("story-multihop", 1024)
    question = sample.metadata["question"].split("\n")[0]
    begin, end = sample.metadata["context"]
    assert question in sample.input[:begin] and question in sample.input[end:] and sample.input.count(question) == 2


# Chapters in a narrative of so many tokens (of smollm2) that the official generator makes with seeds 0 to 4;
# each of their chapters has one purchase, and 52 % of those in 32 768 tokens have a sale.
OFFICIAL_CHAPTERS = {4096: (21, 21), 16384: (84, 85), 32768: (168, 169)}


@pytest.mark.parametrize("tokens", OFFICIAL_CHAPTERS)
def test_the_structure_is_the_official_one(tokens: int) -> None:
    told = [stories.tell(Random(seed), counter("smollm2"), lambda _: tokens, least=1) for seed in range(3)]
    low, high = OFFICIAL_CHAPTERS[tokens]
    assert all(0.9 * low <= len(story) <= 1.1 * high for story in told)
    chapters = list(chain.from_iterable(told))
    assert all(chapter.item for chapter in chapters)
    assert sum(bool(chapter.sold) for chapter in chapters) / len(chapters) == pytest.approx(0.5, abs=0.1)
    assert all(len(chapter.parts["talk"]) == 3 for chapter in chapters)


def test_as_many_questions_as_in_the_paper_and_of_every_kind() -> None:
    asked = Counter()
    for seed in range(6):
        sample = one("story-retrieval", 8192, seed)
        assert sample.metadata["dimensions"]["queries"] == len(sample.target) == 16
        chapters = re.findall(r"in chapter (\d+)\?", sample.metadata["question"])
        assert len(set(chapters)) == 16
        asked.update(re.findall(r"^\d+\. (To which|Whom|Which)", sample.metadata["question"], re.MULTILINE))
    assert set(asked) == {"To which", "Whom", "Which"} and min(asked.values()) > 16
    three = stories.story_retrieval(lengths=2048, samples=4, queries=3, tokenizer="smollm2").dataset
    for sample in three:
        kinds = re.findall(r"^\d+\. (To which|Whom|Which)", sample.metadata["question"], re.MULTILINE)
        assert sorted(kinds) == ["To which", "Which", "Whom"]
    assert len(one("story-filtering", 8192).target) == 3


def test_nothing_is_told_twice_or_sold_before_it_is_bought() -> None:
    owned: set[str] = set()
    told = list(islice(stories.chapters(Random(1)), 3000))
    for number, chapter in enumerate(told, 1):
        assert chapter.number == number
        if chapter.sold:
            owned.remove(chapter.sold)
        owned.add(chapter.item)
    assert len({chapter.item for chapter in told}) == len({(chapter.place, chapter.person) for chapter in told}) == 3000
    story = context_of(one("story-filtering", 16384))
    bought = {told["item"] for told in read(story).values()}
    assert set(THING.findall(story)) <= bought


def test_names_occur_in_no_sentence_and_in_no_other_name() -> None:
    assert len(set(stories.PLACES)) == len(stories.PLACES) and len(set(stories.PEOPLE)) == len(stories.PEOPLE)
    words = set(re.findall(r"\w+", " ".join(chain(*stories.TEMPLATES.values(), stories.EVENTS, stories.SHORT))))
    assert not words & {*stories.PLACES, *stories.PEOPLE}
    assert not set(stories.PLACES) & set(stories.PEOPLE)
    adjectives, materials, kinds = map(set, stories.ITEM_WORDS)
    assert not (adjectives & materials or materials & kinds or adjectives & kinds)
    for adjective, material in product(adjectives, materials):
        assert not any(f"{adjective} {material}" in text for text in chain(*stories.TEMPLATES.values()))


# The official evaluate() of each task gave these scores to these answers.
@pytest.mark.parametrize(
    ("answer", "official"),
    [
        ("", 0.0),
        ("<answer>1. Bergen\n2. oak lamp\n3. Bruno</answer>", 1.0),
        ("<answer>1. bergen\n2. The  Oak lamp\n3. BRUNO</answer>", 1.0),
        ("1. Bergen\n2: oak lamp\n3) Bruno", 1.0),
        ("<answer>2. oak lamp\n1. Bergen</answer>", 2 / 3),
        ("<answer>1. Bergen\n1. Riga\n2. an oak lamp\n4. Bruno</answer>", 2 / 3),
        ("<answer>Bergen\noak lamp\nBruno</answer>", 0.0),
        ("<answer>1. Bergen, oak lamp, Bruno</answer>", 0.0),
        ("1. Bergen <answer>2. oak lamp</answer>", 1 / 3),
        ("<answer>1. Bergen.\n2. oak lamp\n3. Bruno</answer>", 2 / 3),
    ],
)
def test_retrieval_scores_as_the_official_code(answer: str, official: float) -> None:
    assert stories.retrieval_score(answer, ["Bergen", "oak lamp", "Bruno"]) == pytest.approx(official)


@pytest.mark.parametrize(
    ("answer", "official"),
    [
        ("<answer>3, 7, 12</answer>", 1.0),
        ("<answer>12,3,7,7</answer>", 1.0),
        ("<answer>Chapter 3, chapter 7 and Chapter 12</answer>", 1.0),
        ("<answer>3, 7</answer>", 2 / 3),
        ("<answer>3, 7, 12, 20</answer>", 0.75),
        ("<answer>1, 2</answer>", 0.0),
        ("<answer></answer>", 0.0),
        ("3, 7, 12", 0.0),
        ("<answer>3-7, 12</answer>", 0.25),
        ("<answer>3\n7\n12</answer> <answer>9</answer>", 1.0),
        ("<answer>3; 7; 12.</answer>", 1.0),
        ("<answer>Chapter 3, 7, 12</answer>", 1 / 3),
    ],
)
def test_filtering_scores_as_the_official_code(answer: str, official: float) -> None:
    assert stories.filtering_score(answer, ["3", "7", "12"]) == pytest.approx(official)


@pytest.mark.parametrize(
    ("answer", "official"),
    [
        ("<answer>oak lamp</answer>", 1.0),
        ("<answer>\n The Oak  lamp \n</answer>", 1.0),
        ("<answer>oak lamp.</answer>", 0.0),
        ("<answer>lamp</answer>", 0.0),
        ("oak lamp", 0.0),
        ("<answer></answer>", 0.0),
        ("<answer>a tin lamp</answer><answer>oak lamp</answer>", 0.0),
        ("<answer>oak lamp, tin flute</answer>", 0.0),
    ],
)
def test_multihop_scores_as_the_official_code(answer: str, official: float) -> None:
    assert stories.multihop_score(answer, ["oak lamp"]) == official


def test_an_empty_answer_counts_as_wrong() -> None:
    assert [score("", ["3"]) for score in SCORES.values()] == [0.0, 0.0, 0.0]


@pytest.mark.parametrize("name", TASKS)
def test_a_run_scores_right_replies_with_one(name: str, tmp_path: Path) -> None:
    task = TASKS[name](lengths="1k", samples=2, tokenizer="smollm2")
    replies = [ModelOutput.from_content("mock", solve(name, sample)) for sample in task.dataset]
    for reply in replies:
        reply.usage = ModelUsage()  # else inspect counts tokens with a vocabulary that it downloads
    (log,) = inspect_ai.eval(
        task,
        model=get_model("mockllm/model", custom_outputs=replies),
        log_dir=str(tmp_path),
        display="none",
        max_samples=1,
    )
    assert log.status == "success", log.error
    metrics = log.results.scores[0].metrics
    assert metrics["mean"].value == 1.0 and metrics["at_1024"].value == 1.0


def test_a_length_that_holds_no_story_is_refused() -> None:
    for task in TASKS.values():
        with pytest.raises(UsageError, match="too short for a story"):
            task(lengths=400, samples=1, tokenizer="smollm2")
    with pytest.raises(UsageError, match="queries=0"):
        stories.story_retrieval(queries=0, tokenizer="smollm2")
    with pytest.raises(UsageError, match="silent=0"):
        stories.story_filtering(silent=0, tokenizer="smollm2")


def test_a_story_ends_with_an_error_where_it_would_repeat_itself() -> None:
    everything = TokenCounter("none", lambda text: 0, lambda text: [], 0)
    with pytest.raises(UsageError, match="never repeats itself"):
        stories.tell(Random(0), everything, lambda _: 1, least=1)


def test_tasks_are_registered_for_their_system() -> None:
    assert [part.slug for part in parts("task") if "sparse-frontier" in part.systems] == sorted(TASKS)
    assert set(TASKS) < set(GROUPS["sparse-frontier"])  # and RULER's that the paper takes
