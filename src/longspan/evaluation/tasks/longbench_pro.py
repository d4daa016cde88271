"""LongBench Pro (Chen et al. 2026, arXiv:2601.02872): 1 500 questions on natural texts of 8K to 256K tokens.

Reads the published file `longbench_pro.json` (dataset caskcsg/LongBench-Pro), prompts as its evaluation does (the text,
three blank lines, the question of the record, which says how to answer), and scores with the metric of each of the 25
secondary tasks. What differs here:

- summaries (T4): the semantic half is the cosine of longspan's own encoder (all-MiniLM-L6-v2, made for English)
  instead of Qwen3-Embedding-8B, and Chinese words are single characters instead of jieba's. T4 scores compare with one
  another, not with published ones; Chinese ones have a high floor (unrelated texts come near 0.5). All other metrics
  are the official ones, value for value.
- decoding is greedy unless a temperature is given (published: three runs at the model's default). `--epochs 3` averages
  runs, `--epochs-reducer max` is best-of-n; `passed` in a score's metadata is what pass@n counts.
- a record's length is the bucket that its field says, in Qwen's tokens; the true size in the model's own is measured.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import combinations

from inspect_ai import Task, task
from inspect_ai.dataset import MemoryDataset, Sample
from inspect_ai.model import GenerateConfig
from inspect_ai.scorer import Score, Scorer, Target, scorer
from inspect_ai.solver import TaskState

from longspan.errors import UsageError
from longspan.evaluation.lengths import TokenCounter, counter, parse_lengths
from longspan.evaluation.published import (
    BUNDLED,
    SAMPLE,
    Record,
    by_dimension,
    choice,
    cut_middle,
    located,
    power_of_two,
    records,
)
from longspan.evaluation.rouge import distinct_words
from longspan.evaluation.samples import make_sample, room
from longspan.evaluation.scorers import METRICS
from longspan.registry import register
from longspan.retrieval.encoder import Encoder

FILE = "longbench_pro.json"
SOURCE = "huggingface.co/datasets/caskcsg/LongBench-Pro"
BETWEEN = "\n\n\n\n"  # of text and question
MARKERS = ("[Answer]", "[答案]")
ANSWER_TOKENS, THINKING_TOKENS = 1024, 8192
PASS_SUMMARY = 0.65  # what a summary must exceed to pass: half of ROUGE-L 0.5 and half of a similarity of 0.8

PRIMARY = {
    "T1": "T1. Retrieval & Ranking",
    "T2": "T2. Sequencing & Structure Reconstruction",
    "T3": "T3. Evidence-Grounded QA",
    "T4": "T4. Summarization & Synthesis",
    "T5": "T5. Attribution & Citation Alignment",
    "T6": "T6. Aggregation & Clustering",
    "T7": "T7. Consistency & Compliance Checking",
    "T8": "T8. Structured & Numeric Reasoning",
    "T9": "T9. Version & Code Diff Analysis",
    "T10": "T10. Rule Induction & In-Context Learning",
    "T11": "T11. Dialogue Memory & Long-Horizon Tracking",
}
METRIC_OF = {
    "T1.1 Global Cohesive Retrieval": "ndcg",
    "T1.2 Key-Snippet Retrieval": "ndcg",
    "T2.1 Global Timeline Reconstruction": "pairwise",
    "T2.2 Local Causal Chain Sorting": "pairwise",
    "T3.1 Multi-Doc Integration QA": "accuracy",
    "T3.2 Single-Hop Fact QA": "accuracy",
    "T4.1 Global-Coverage Constrained Summary": "summary",
    "T4.2 Query-Focused Summary": "summary",
    "T5.1 Full-Sentence Citation Alignment": "f1",
    "T5.2 Key-Statement Citation Alignment": "f1",
    "T6.1 Large-Scale Document Clustering": "subem",
    "T6.2 Targeted Subset Cluster Identification": "f1",
    "T6.3 Global Frequency Analysis": "pairwise",
    "T7.1 Global Conflict & Inconsistency Localization": "f1",
    "T7.2 Targeted Rule or Condition Violation Detection": "f1",
    "T7.3 Comprehensive Error & Anomaly Sweep": "f1",
    "T8.1 Structured Multi-Source Consistency Verification": "subem",
    "T8.2 Single-Source Targeted Aggregation": "subem",
    "T8.3 Long-Context Procedural State Tracking": "subem",
    "T9.1 Dependency-Aware Multi-Version Impact Analysis": "f1",
    "T9.2 Localized Interface Change Detection": "f1",
    "T10.1 Large-Scale In-Context Rule Induction": "subem",
    "T10.2 Targeted Example-Based Rule Induction": "subem",
    "T11.1 Long-Range Entity & Commitment Tracking": "accuracy",
    "T11.2 Short-Range Reference Resolution & State Query": "accuracy",
}
LENGTHS = {f"{kilo}k": kilo << 10 for kilo in (8, 16, 32, 64, 128, 256)}
REQUIREMENTS = ("Full", "Partial")
DIFFICULTIES = ("Easy", "Moderate", "Hard", "Extreme")
LANGUAGES = ("English", "Chinese")


@register("task", "longbench-pro", systems=("longbench-pro",))
@task(name="longbench_pro")
def longbench_pro(
    data: str | None = None,
    tasks: str | Sequence[str] | None = None,
    lengths: str | int | Sequence[int] | None = None,
    languages: str | Sequence[str] | None = None,
    requirements: str | Sequence[str] | None = None,
    difficulties: str | Sequence[str] | None = None,
    samples: int | None = None,
    thinking: bool = False,
    window: int | None = None,
    tokenizer: str | None = None,
) -> Task:
    """Questions on natural texts: 25 tasks, six lengths, two languages; needs the published file.

    `data` is the file or its folder (by default `data/longbench-pro` in longspan's cache), or `sample`. The other
    choices keep a part: `tasks` by code (`T3` or `T3.2`), `lengths` (`8k,16k`), `samples` at most of each secondary
    task and length, in the file's order. `thinking` takes the prompts that ask for reasoning first. Prompts longer than
    `window` tokens, less room for the answer, lose their middle; without it they are given whole.
    """
    count = counter(tokenizer)
    kept = {
        "secondary_task": secondaries(tasks),
        "token_length": buckets(lengths),
        "language": choice(languages, LANGUAGES, "language"),
        "contextual_requirement": choice(requirements, REQUIREMENTS, "requirement"),
        "difficulty": choice(difficulties, DIFFICULTIES, "difficulty"),
    }
    is_sample = data == SAMPLE
    if is_sample:
        file = BUNDLED / "longbench_pro_sample.json"
    else:
        place = located(data, "longbench-pro", SOURCE, needs=FILE)
        file = place / FILE if place.is_dir() else place
    answer_tokens = THINKING_TOKENS if thinking else ANSWER_TOKENS
    taken: dict[tuple[str, str], int] = {}
    dataset = []
    for record in records(file):
        item = checked(record)
        if any(getattr(item, name) not in allowed for name, allowed in kept.items()):
            continue
        cell = (item.secondary_task, item.token_length)
        taken[cell] = taken.get(cell, 0) + 1
        if samples is None or taken[cell] <= samples:
            dataset.append(one(item, count, answer_tokens, thinking, window, is_sample))
    if not dataset:
        raise UsageError(f"No record of {file} is of the tasks, lengths, languages and difficulties asked for.")
    name = "longbench_pro_sample (not the benchmark)" if is_sample else "longbench_pro"
    return Task(
        dataset=MemoryDataset(dataset, name=name),
        scorer=by_task(),
        config=GenerateConfig(max_tokens=answer_tokens, temperature=0.0),
    )


@dataclass(frozen=True, slots=True)
class Item:
    """A record whose fields are what the benchmark says they are; names are the file's."""

    id: str
    context: str
    language: str
    token_length: str
    primary_task: str
    secondary_task: str
    contextual_requirement: str
    question_nonthinking: str
    question_thinking: str
    answer: list[str]
    difficulty: str


def checked(record: Record) -> Item:
    """The record's fields. Raises LongspanError with file and line where one is missing or not of the taxonomy."""
    identity = record.fields.get("id")
    if not isinstance(identity, str | int):
        raise record.malformed("the field 'id' must be a text or a number")
    return Item(
        id=str(identity),
        context=record.text("context"),
        language=record.one_of("language", LANGUAGES),
        token_length=record.one_of("token_length", list(LENGTHS)),
        primary_task=record.one_of("primary_task", list(PRIMARY.values())),
        secondary_task=record.one_of("secondary_task", list(METRIC_OF)),
        contextual_requirement=record.one_of("contextual_requirement", REQUIREMENTS),
        question_nonthinking=record.text("question_nonthinking"),
        question_thinking=record.text("question_thinking"),
        answer=record.texts("answer"),
        difficulty=record.one_of("difficulty", DIFFICULTIES),
    )


def buckets(lengths: str | int | Sequence[int] | None) -> list[str]:
    """The lengths meant, as the file spells them: `8k,16k` or 8192."""
    if lengths is None:
        return list(LENGTHS)
    named = {size: name for name, size in LENGTHS.items()}
    return choice([named.get(size, str(size)) for size in parse_lengths(lengths)], list(LENGTHS), "length")


def secondaries(tasks: str | Sequence[str] | None) -> list[str]:
    """The secondary tasks meant by codes: `T3` is all of its primary task, `T3.2` one."""
    codes = {name.split()[0]: [name] for name in METRIC_OF}
    for code in PRIMARY:
        codes[code] = [name for name in METRIC_OF if name.startswith(f"{code}.")]
    return [name for code in choice(tasks, list(codes), "task") for name in codes[code]]


def one(
    item: Item, counter: TokenCounter, answer_tokens: int, thinking: bool, window: int | None, is_sample: bool
) -> Sample:
    question = (item.question_thinking if thinking else item.question_nonthinking).rstrip()
    context = item.context.lstrip()
    after = f"{BETWEEN}{question}"
    if window is not None:
        context = cut_middle(context, after, counter, room(window, counter, answer_tokens))
    tokens = counter.count(context + after)
    size = tokens + counter.overhead + answer_tokens
    return make_sample(
        f"longbench-pro-{item.id}",
        context=context,
        after=after,
        question=question,
        targets=item.answer,
        # The sample's texts are short, whatever bucket they stand for.
        length=power_of_two(size) if is_sample else LENGTHS[item.token_length],
        counter=counter,
        answer_tokens=answer_tokens,
        tokens=tokens,
        primary=item.primary_task,
        secondary=item.secondary_task,
        requirement=item.contextual_requirement,
        bucket=item.token_length,
        difficulty=item.difficulty,
        language=item.language,
    )


@scorer(metrics=[*METRICS, by_dimension()])
def by_task() -> Scorer:
    """The metric of the sample's secondary task, and whether that passes."""

    async def score(state: TaskState, target: Target) -> Score:
        answer = state.output.completion.strip()
        dimensions = state.metadata["dimensions"]
        name = METRIC_OF[dimensions["secondary"]]
        value = scored(name, list(target), answer, chinese=dimensions["language"] == "Chinese")
        passed = value > PASS_SUMMARY if name == "summary" else value == 1.0
        return Score(
            value=value, answer=answer_area(answer), explanation=name, metadata={"metric": name, "passed": passed}
        )

    return score


def scored(metric: str, answers: Sequence[str], prediction: str, *, chinese: bool = False) -> float:
    """The metric named `metric` of a model's whole output, 0 to 1; an empty output scores 0."""
    if not answers or not prediction.strip():
        return 0.0
    wanted = [plain(answer) for answer in answers]
    if metric == "summary":
        return summary(wanted, plain(prediction), chinese=chinese)
    given = [plain(line) for line in answer_area(prediction).split("\n")]
    measure = {"accuracy": accuracy, "f1": f1, "subem": subem, "ndcg": ndcg, "pairwise": pairwise}[metric]
    return measure(wanted, given)


def answer_area(prediction: str) -> str:
    """What follows the last `[Answer]` (else the last `[答案]`); everything where there is no marker."""
    for marker in MARKERS:
        if marker in prediction:
            return prediction.rpartition(marker)[2].strip()
    return prediction.strip()


def plain(text: str) -> str:
    """In lower case, with single spaces."""
    return " ".join(text.lower().split())


# The metrics. `wanted` are the reference's parts and `given` the lines of the answer, both plain.


def accuracy(wanted: Sequence[str], given: Sequence[str]) -> float:
    """1 if the first line is the answer."""
    return float(wanted[0] == given[0])


def f1(wanted: Sequence[str], given: Sequence[str]) -> float:
    """F1 of the set of lines."""
    right = len(set(wanted) & set(given))
    return 2 * right / (len(set(wanted)) + len(set(given)))


def subem(wanted: Sequence[str], given: Sequence[str]) -> float:
    """The share of the answer's parts that stand as lines."""
    return sum(part in given for part in wanted) / len(wanted)


def ndcg(wanted: Sequence[str], given: Sequence[str]) -> float:
    """NDCG@k of the lines as a ranking; k is the number of parts wanted, which are worth k, k - 1, ... 1.

    The gain is linear and the discount log2(rank + 1), as in trec_eval. A line said twice ranks where it is said last.
    """
    k = len(wanted)
    worth = {part: k - i for i, part in enumerate(wanted)}
    last = {line: i for i, line in enumerate(given)}
    ranking = sorted(last, key=lambda line: last[line])[:k]
    gained = sum(worth.get(line, 0) / math.log2(rank + 2) for rank, line in enumerate(ranking))
    best = sum(gain / math.log2(rank + 2) for rank, gain in enumerate(sorted(worth.values(), reverse=True)))
    return gained / best


def pairwise(wanted: Sequence[str], given: Sequence[str]) -> float:
    """The pairs wanted that stand in the right order, over all pairs of lines given; 0 below two of either."""
    if len(wanted) < 2 or len(given) < 2:
        return 0.0
    last = {line: i for i, line in enumerate(given)}
    right = sum(last.get(a, math.inf) < last.get(b, -1) for a, b in combinations(wanted, 2))
    share = right / math.comb(len(given), 2)
    return share if share <= 1 else 0.0  # a reference that repeats itself; the official evaluation counts it as failed


def summary(wanted: Sequence[str], given: str, *, chinese: bool) -> float:
    """Half the best similarity of meaning and half the best ROUGE-L to any reference, of the whole output."""
    vectors = encoder()([*wanted, given])
    similarity = min(1.0, max(0.0, float((vectors[:-1] @ vectors[-1]).max())))
    return similarity / 2 + rouge(wanted, given, chinese=chinese) / 2


def rouge(wanted: Sequence[str], given: str, *, chinese: bool) -> float:
    """The best ROUGE-L F to any reference; Chinese is taken character by character. 0 where a text has no sentence."""
    spaced = [" ".join(text.replace(" ", "")) if chinese else text for text in (*wanted, given)]
    scores = [distinct_words(reference, spaced[-1]) for reference in spaced[:-1]]
    known = [value for value in scores if value is not None]
    return max(known) if len(known) == len(scores) else 0.0


@lru_cache(maxsize=1)
def encoder() -> Encoder:
    return Encoder()
