"""RULER (Hsieh et al. 2024, arXiv:2404.06654): thirteen synthetic tasks whose length and difficulty are set freely.

Structure, parameters, room for the answer and metrics are those of the official code (NVIDIA/RULER), and
docs/results/ruler-generators.md compares the two generators. What differs:

- the prompts are longspan's own, and no beginning of the answer is put into the model's mouth, as not every provider
  can; the question asks for the form of the answer instead;
- a length counts the chat template too, and is met to the token where the official code steps by larger units;
- "real" hay is prose of Python's documentation (or a file of the user's) where RULER has essays by Paul Graham;
- qa_1 and qa_2 ask SQuAD and HotpotQA when their files are named, else questions made of the standard library;
- words come from longspan's own list where RULER has the package wonderwords.
"""

from __future__ import annotations

from collections.abc import Callable

from inspect_ai import Task, task
from inspect_ai.dataset import MemoryDataset, Sample
from inspect_ai.model import GenerateConfig
from inspect_ai.scorer import Scorer

from longspan.evaluation.lengths import TokenCounter, counter, parse_lengths
from longspan.evaluation.scorers import includes_all, includes_any
from longspan.evaluation.tasks.ruler import counting, niah, qa, tracking
from longspan.evaluation.tasks.ruler.niah import Needles
from longspan.registry import register

LENGTHS = "1k,2k,4k,8k"
SAMPLES = 5

SINGLE_1 = Needles("niah_single_1", "noise")
SINGLE_2 = Needles("niah_single_2", "real")
SINGLE_3 = Needles("niah_single_3", "real", value="uuid")
MULTIKEY_1 = Needles("niah_multikey_1", "real", keys=4)
MULTIKEY_2 = Needles("niah_multikey_2", "needles")
MULTIKEY_3 = Needles("niah_multikey_3", "needles", key="uuid", value="uuid")
MULTIVALUE = Needles("niah_multivalue", "real", values=4)
MULTIQUERY = Needles("niah_multiquery", "real", keys=4, asked=4)


@register("task", "ruler-niah-single-1")
@task(name="ruler_niah_single_1")
def niah_single_1(
    lengths: str | int = LENGTHS, samples: int = SAMPLES, seed: int = 0, tokenizer: str | None = None
) -> Task:
    """RULER: one number in repeated noise."""
    return _needles(SINGLE_1, lengths, samples, "noise", seed, tokenizer)


@register("task", "ruler-niah-single-2")
@task(name="ruler_niah_single_2")
def niah_single_2(
    lengths: str | int = LENGTHS,
    samples: int = SAMPLES,
    haystack: str = "real",
    seed: int = 0,
    tokenizer: str | None = None,
) -> Task:
    """RULER: one number in real text."""
    return _needles(SINGLE_2, lengths, samples, haystack, seed, tokenizer)


@register("task", "ruler-niah-single-3")
@task(name="ruler_niah_single_3")
def niah_single_3(
    lengths: str | int = LENGTHS,
    samples: int = SAMPLES,
    haystack: str = "real",
    seed: int = 0,
    tokenizer: str | None = None,
) -> Task:
    """RULER: one UUID in real text."""
    return _needles(SINGLE_3, lengths, samples, haystack, seed, tokenizer)


@register("task", "ruler-niah-multikey-1")
@task(name="ruler_niah_multikey_1")
def niah_multikey_1(
    lengths: str | int = LENGTHS,
    samples: int = SAMPLES,
    haystack: str = "real",
    seed: int = 0,
    tokenizer: str | None = None,
) -> Task:
    """RULER: one number of four keys in real text."""
    return _needles(MULTIKEY_1, lengths, samples, haystack, seed, tokenizer)


@register("task", "ruler-niah-multikey-2")
@task(name="ruler_niah_multikey_2")
def niah_multikey_2(
    lengths: str | int = LENGTHS, samples: int = SAMPLES, seed: int = 0, tokenizer: str | None = None
) -> Task:
    """RULER: one number where all the text is keys and numbers."""
    return _needles(MULTIKEY_2, lengths, samples, "needles", seed, tokenizer)


@register("task", "ruler-niah-multikey-3")
@task(name="ruler_niah_multikey_3")
def niah_multikey_3(
    lengths: str | int = LENGTHS, samples: int = SAMPLES, seed: int = 0, tokenizer: str | None = None
) -> Task:
    """RULER: one UUID where all the text is UUIDs for UUIDs."""
    return _needles(MULTIKEY_3, lengths, samples, "needles", seed, tokenizer)


@register("task", "ruler-niah-multivalue")
@task(name="ruler_niah_multivalue")
def niah_multivalue(
    lengths: str | int = LENGTHS,
    samples: int = SAMPLES,
    haystack: str = "real",
    seed: int = 0,
    tokenizer: str | None = None,
) -> Task:
    """RULER: all four numbers of one key in real text."""
    return _needles(MULTIVALUE, lengths, samples, haystack, seed, tokenizer)


@register("task", "ruler-niah-multiquery")
@task(name="ruler_niah_multiquery")
def niah_multiquery(
    lengths: str | int = LENGTHS,
    samples: int = SAMPLES,
    haystack: str = "real",
    seed: int = 0,
    tokenizer: str | None = None,
) -> Task:
    """RULER: the numbers of four keys, all asked for, in real text."""
    return _needles(MULTIQUERY, lengths, samples, haystack, seed, tokenizer)


@register("task", "ruler-vt")
@task(name="ruler_vt")
def vt(lengths: str | int = LENGTHS, samples: int = SAMPLES, seed: int = 0, tokenizer: str | None = None) -> Task:
    """RULER: the five variables of a chain of assignments over noise."""
    return _task("ruler_vt", tracking.one, tracking.ANSWER_TOKENS, includes_all(), lengths, samples, seed, tokenizer)


@register("task", "ruler-cwe")
@task(name="ruler_cwe")
def cwe(lengths: str | int = LENGTHS, samples: int = SAMPLES, seed: int = 0, tokenizer: str | None = None) -> Task:
    """RULER: the ten words that are common in a list."""
    return _task(
        "ruler_cwe",
        counting.common_words,
        counting.CWE_ANSWER_TOKENS,
        includes_all(),
        lengths,
        samples,
        seed,
        tokenizer,
    )


@register("task", "ruler-fwe")
@task(name="ruler_fwe")
def fwe(lengths: str | int = LENGTHS, samples: int = SAMPLES, seed: int = 0, tokenizer: str | None = None) -> Task:
    """RULER: the three most frequent words of a coded text."""
    return _task(
        "ruler_fwe",
        counting.frequent_words,
        counting.FWE_ANSWER_TOKENS,
        includes_all(),
        lengths,
        samples,
        seed,
        tokenizer,
    )


@register("task", "ruler-qa-1")
@task(name="ruler_qa_1")
def qa_1(
    lengths: str | int = LENGTHS,
    samples: int = SAMPLES,
    squad: str | None = None,
    seed: int = 0,
    tokenizer: str | None = None,
) -> Task:
    """RULER: a question whose answer one paragraph holds; SQuAD's where its file is named."""
    found = qa.squad(squad)
    return _task(
        "ruler_qa_1",
        lambda length, number, count: qa.one("qa_1", found, length, number, count),
        qa.ANSWER_TOKENS,
        includes_any(),
        lengths,
        samples,
        seed,
        tokenizer,
    )


@register("task", "ruler-qa-2")
@task(name="ruler_qa_2")
def qa_2(
    lengths: str | int = LENGTHS,
    samples: int = SAMPLES,
    hotpotqa: str | None = None,
    seed: int = 0,
    tokenizer: str | None = None,
) -> Task:
    """RULER: a question whose answer takes two paragraphs; HotpotQA's where its file is named."""
    found = qa.hotpotqa(hotpotqa)
    return _task(
        "ruler_qa_2",
        lambda length, number, count: qa.one("qa_2", found, length, number, count),
        qa.ANSWER_TOKENS,
        includes_any(),
        lengths,
        samples,
        seed,
        tokenizer,
    )


def _needles(shape: Needles, lengths: str | int, samples: int, haystack: str, seed: int, tokenizer: str | None) -> Task:
    return _task(
        f"ruler_{shape.name}",
        lambda length, number, count: niah.one(shape, length, number, count, haystack),
        niah.ANSWER_TOKENS,
        includes_all(),
        lengths,
        samples,
        seed,
        tokenizer,
    )


def _task(
    name: str,
    one: Callable[[int, str, TokenCounter], Sample],
    answer_tokens: int,
    scorer: Scorer,
    lengths: str | int,
    samples: int,
    seed: int,
    tokenizer: str | None,
) -> Task:
    count = counter(tokenizer)
    dataset = [one(length, f"{seed}-{number}", count) for length in parse_lengths(lengths) for number in range(samples)]
    return Task(
        dataset=MemoryDataset(dataset, name=name),
        scorer=scorer,
        config=GenerateConfig(max_tokens=answer_tokens, temperature=0.0),
    )
