"""RULER's own prompts, as lm-eval packages them, where they are made without a download.

The generators are lm-eval's (`lm_eval.tasks.ruler`, after NVIDIA/RULER): needles in repeated filler and among needles,
variable tracking, common and frequent words. Its other tasks fetch essays or question sets from a hub. The metric is
theirs too: the share of the answers that stand in the reply. `longspan eval ruler` has all thirteen with prompts of our
own; this is to compare with what lm-eval reports.

lm-eval begins the reply for the model ("... mentioned in the provided text is"); here that stands at the end of the
prompt, as a chat has no place for it.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import os
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from inspect_ai import Task, task
from inspect_ai.dataset import MemoryDataset, Sample
from inspect_ai.model import GenerateConfig

from longspan.errors import LongspanError, UsageError
from longspan.evaluation.lengths import TokenCounter, counter, parse_lengths
from longspan.evaluation.scorers import includes_all
from longspan.registry import register

Document = dict[str, Any]
Make = Callable[[int, int, "Tokenizer"], list[Document]]
ANSWER_TOKENS = {"vt": 30, "cwe": 120, "fwe": 50}  # RULER's; 128 for needles


@dataclass(frozen=True, slots=True)
class Tokenizer:
    """What lm-eval asks of a tokenizer: how long a text is."""

    counter: TokenCounter

    def __call__(self, text: str) -> Tokens:
        return Tokens(range(self.counter.count(text)))


@dataclass(frozen=True, slots=True)
class Tokens:
    input_ids: range


@register("task", "ruler-lm-eval")
@task(name="ruler_lm_eval")
def ruler_lm_eval(
    lengths: str | int = "4k",
    samples: int = 5,
    names: str = "niah_single_1,niah_multikey_2,niah_multikey_3,vt,cwe,fwe",
    seed: int = 42,
    tokenizer: str | None = None,
) -> Task:
    """Six of RULER's tasks with the official prompts, made by lm-eval's generators; `samples` for each name and length.

    Raises LongspanError where lm-eval is not installed, UsageError for a name that is not one of the six.
    """
    count = counter(tokenizer)
    wanted = [name.strip() for name in names.split(",") if name.strip()]
    unknown = [name for name in wanted if name not in MAKERS]
    if unknown or not wanted:
        raise UsageError(f"names={names!r}: take any of {', '.join(MAKERS)}; lm-eval's other tasks need downloads.")
    dataset = []
    for name in wanted:
        for length in parse_lengths(lengths):
            random.seed(seed)  # the generators draw from the global ones; `cwe` has one of its own
            np.random.seed(seed)
            with quiet():
                documents = MAKERS[name](samples, length, Tokenizer(count))
            for document in documents:
                dataset.append(_sample(name, length, document, count))
    longest = max(ANSWER_TOKENS.get(name, 128) for name in wanted)
    return Task(
        dataset=MemoryDataset(dataset, name="ruler_lm_eval"),
        scorer=includes_all(),
        config=GenerateConfig(max_tokens=longest, temperature=0.0),
    )


def _sample(name: str, length: int, document: Document, count: TokenCounter) -> Sample:
    prompt = f"{document['input']} {document['gen_prefix']}"
    return Sample(
        id=f"ruler-lm-eval-{name}-{length}-{document['index']}",
        input=prompt,
        target=[str(output) for output in document["outputs"]],
        metadata={
            "length": length,
            "tokens": count.count(prompt) + count.overhead + ANSWER_TOKENS.get(name, 128),
            "tokenizer": count.name,
            "depth": None,
            "question": document["gen_prefix"],
            "needles": [],
            "dimensions": {"name": name},
        },
    )


def _needles(haystack: str, key: str, value: str) -> Make:
    def make(samples: int, length: int, tokenizer: Tokenizer) -> list[Document]:
        template = _module("niah_utils").TEMPLATE
        prepare = _module("prepare_niah")
        documents: list[Document] = prepare.generate_samples(
            prepare.get_haystack(type_haystack=haystack),
            TOKENIZER=tokenizer,
            max_seq_length=length,
            template=template,
            type_haystack=haystack,
            type_needle_k=key,
            type_needle_v=value,
            num_samples=samples,
        )
        return documents

    return make


def _variables(samples: int, length: int, tokenizer: Tokenizer) -> list[Document]:
    make = _module("vt_utils").sys_vartrack_w_noise_random
    example = make(tokenizer=tokenizer, num_samples=1, max_seq_length=500, incremental=5)[0]
    documents: list[Document] = make(
        tokenizer=tokenizer, num_samples=samples, max_seq_length=length, icl_example=example
    )
    return documents


def _common_words(samples: int, length: int, tokenizer: Tokenizer) -> list[Document]:
    documents: list[Document] = _module("cwe_utils").sys_word_pair_random(
        num_samples=samples, max_seq_length=length, tokenizer=tokenizer
    )
    return documents


def _frequent_words(samples: int, length: int, tokenizer: Tokenizer) -> list[Document]:
    documents: list[Document] = _module("fwe_utils").sys_kwext(
        tokenizer=tokenizer, max_seq_length=length, num_samples=samples
    )
    return documents


MAKERS: dict[str, Make] = {
    "niah_single_1": _needles("repeat", "words", "numbers"),
    "niah_multikey_2": _needles("needle", "words", "numbers"),
    "niah_multikey_3": _needles("needle", "uuids", "uuids"),
    "vt": _variables,
    "cwe": _common_words,
    "fwe": _frequent_words,
}


def _module(name: str) -> Any:
    try:
        return importlib.import_module(f"lm_eval.tasks.ruler.{name}")
    except ImportError as error:
        raise LongspanError(
            f"RULER's official prompts are lm-eval's ({error}): install them with pip install 'lm-eval[ruler]', or "
            "take longspan's own: longspan eval ruler."
        ) from error


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Without the generators' progress, and without the download that importing them tries as the first of its kind."""
    before = os.environ.get("LOCAL_RANK")
    os.environ["LOCAL_RANK"] = "1"
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            yield
    finally:
        if before is None:
            del os.environ["LOCAL_RANK"]
        else:
            os.environ["LOCAL_RANK"] = before
