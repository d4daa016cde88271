"""InfiniteBench (Zhang et al. 2024, arXiv:2402.13718) and InfiniteBench+ (Liu et al. 2025, arXiv:2505.21471).

Reads the published files, one a task: the twelve of InfiniteBench (dataset xinrongzhang2022/InfiniteBench), and of
ExtAgents (dataset zhennan1/ExtAgents) `longbook_qa_eng.jsonl` and `longbook_qa_chn.jsonl`, rewritten so that they need
knowledge from many places, and `rag_1000k.jsonl`: questions of HotpotQA over the passages of Wikipedia that BM25 finds,
with `sampled_hotpot_questions.json` beside it where it does not hold the answers itself.

The scores are those of the official code, value for value; the prompts are written for longspan, so that scores compare
with published ones only in tendency. ExtAgents changed InfiniteBench's rules for dialogue and for multiple choice of
books and of code; its rules are the default. In `math_calc`, InfiniteBench drops the first number
of an answer by GPT-4, which repeats the expression's; the prompt here asks for values after each operation, and nothing
is dropped.
"""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from inspect_ai import Task, task
from inspect_ai.dataset import MemoryDataset, Sample
from inspect_ai.model import GenerateConfig
from inspect_ai.scorer import Score, Scorer, Target, scorer
from inspect_ai.solver import Generate, Solver, TaskState, solver

from longspan.errors import UsageError
from longspan.evaluation.lengths import TokenCounter, counter
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
from longspan.evaluation.rouge import by_lines
from longspan.evaluation.samples import make_sample, room
from longspan.evaluation.scorers import METRICS
from longspan.registry import register

SOURCE = "huggingface.co/datasets/xinrongzhang2022/InfiniteBench or huggingface.co/datasets/zhennan1/ExtAgents"
EXTAGENTS, INFINITEBENCH = RULES = ("extagents", "infinitebench")
HOTPOT = "sampled_hotpot_questions.json"
LETTERS = "ABCD"
OPTIONS = "\nA. {0}\nB. {1}\nC. {2}\nD. {3}"

Labels = list[Any]  # what a record's answer is made into: texts, numbers, or a name and its letter


@dataclass(frozen=True, slots=True)
class Kind:
    """One of the tasks: its published name, the words around its text, room for its answer (tokens) and its score.

    `after` is formatted with the record's `input` and `options`; `score` takes an answer, the labels and the rules.
    """

    name: str
    domain: str
    answer_tokens: int
    before: str
    after: str
    score: Callable[[str, Labels, str], float]
    files: tuple[str, ...] = ()


# ExtAgents scores those questions of the two rewritten files, by their ids.
ENHANCED = {
    ("full", "longbook_qa_eng"): (
        "2-3,6,8-10,13-17,20,22-25,27-29,33,36-37,42-44,47,51-52,54,63-66,70-71,73-74,76-77,86,90,92,97-98,100-101,"
        "105-106,109,114,120-125,127,129-130,133,137,140,148,152,162,165,167,169,173-174,177-178,185,189-191,195,198,"
        "201-202,206,211-214,216,219-222,227-229,231-236,238,241,247-249,254,258-259,263-264,270,272-273,275,281,"
        "286-287,289-299,301-307,311-312,314-318,320-321,323,326-327,330,332,335,337-338,340,343,347-350"
    ),
    ("full", "longbook_qa_chn"): (
        "0-1,3-5,8-9,12,14-18,20-22,25,27-29,34,36,42,48,50-51,54,57,61-62,67,69-70,73,81,108,126,128,130-133,136,140,"
        "143,145,149-150,153,156-158,166,175,181,188"
    ),
    ("partial", "longbook_qa_eng"): (
        "2-3,5-10,13-39,42-80,86-130,133,136-145,148,151-160,162,165-191,195-214,216-222,226-236,238,241-245,247-249,"
        "251-255,258-259,261-265,270,272-273,275-307,311-312,314-318,320-327,330-335,337-338,340,343,346-350"
    ),
    ("partial", "longbook_qa_chn"): "0-9,12,14-18,20-25,27-188",
}


def enhanced_ids(variant: str, name: str) -> set[int] | None:
    """The ids that the `full` or the `partial` enhancement is scored on; None for tasks that were not enhanced."""
    spans = ENHANCED.get((variant, name))
    if spans is None:
        return None
    ids: set[int] = set()
    for span in spans.split(","):
        first, _, last = span.partition("-")
        ids.update(range(int(first), int(last or first) + 1))
    return ids


# The scores. Each takes the model's answer, the labels and whose rules; all give 0 to 1.


def first_number(answer: str, labels: Labels, rules: str) -> float:
    """1 if the first run of digits is the label, a text of digits."""
    found = re.search("[0-9]+", answer)
    return float(found is not None and found[0] == str(labels[0]))


def is_word(answer: str, labels: Labels, rules: str) -> float:
    """1 if the label stands as a word of its own, punctuation aside."""
    return float(labels[0] in spaced(answer, "\n:\"'.,?!{}").split())


def dialogue(answer: str, labels: Labels, rules: str) -> float:
    """ExtAgents: the answer contains any of the names; InfiniteBench: a word of it is the first name, in capitals."""
    if rules == EXTAGENTS:
        return float(any(label.upper() in answer.upper() for label in labels))
    return is_word(answer.upper(), labels, rules)


def last_number(answer: str, labels: Labels, rules: str) -> float:
    """1 if the last word is the whole number wanted."""
    words = spaced(answer, "\n.`'\":").split()
    try:
        return float(bool(words) and int(words[-1]) == labels[0])
    except ValueError:
        return 0.0


def found_number(answer: str, labels: Labels, rules: str) -> float:
    """1 if the first number, whole or with a decimal point and without sign, is the one wanted."""
    found = re.search(r"\d+\.\d+|\d+", answer)
    return float(found is not None and float(found[0]) == labels[0])


def running_values(answer: str, labels: Labels, rules: str) -> float:
    """The share of values that are right before the first wrong one; signs are not read."""
    given = [int(digits) for digits in re.findall("[0-9]+", answer)]
    right = 0
    for wanted, value in zip(labels, given, strict=False):
        if wanted != value:
            break
        right += 1
    return right / len(labels)


def book_choice(answer: str, labels: Labels, rules: str) -> float:
    """1 if the option or its letter is what the answer decides for.

    ExtAgents first takes the last A to D that stands alone in a line. Then, and in InfiniteBench alone: the letter that
    the answer begins with, else what follows `answer is` and the like, else the first word made of such letters.
    """
    answer = answer.strip()
    if rules == EXTAGENTS and lone_letter(answer, "A-D") in labels:
        return 1.0
    if not answer:
        return 0.0
    if answer[0] in LETTERS:
        return float(answer[0] in labels)
    if answer in labels:
        return 1.0
    answer = re.sub(" +", " ", spaced(answer, "\n\"'.,?!{}"))
    decided = after_lead(answer, ("answer is:", "answer:", "answer is", "option is"), labels)
    if decided is not None:
        return float(decided)
    return next((float(word in labels) for word in answer.split() if word in LETTERS), 0.0)


def code_choice(answer: str, labels: Labels, rules: str) -> float:
    """1 if the function (the first label) or its letter (the second) is what the answer decides for.

    ExtAgents first takes the last letter A to J that stands alone in a line, or what the answer begins with;
    InfiniteBench a letter at the beginning with a full stop or colon. Both then read what follows `answer:` and so on.
    """
    answer = answer.strip()
    name, letter = labels
    if rules == EXTAGENTS:
        if lone_letter(answer, "A-J") == letter:
            return 1.0
    elif answer[:2] in (f"{letter}.", f"{letter}:"):
        return 1.0
    answer = re.sub(" +", " ", re.sub("[Oo]ption", " ", spaced(answer, "\n`'\"-*")))
    if rules == EXTAGENTS and answer.startswith((letter, name)):
        return 1.0
    return float(bool(after_lead(answer, ("answer is:", "is:", "answer:", "correct option is:"), [letter, name])))


def lone_letter(answer: str, letters: str) -> str | None:
    """The last of these letters that stands alone in its line, from the first line that has one."""
    found = re.search(rf"\b[{letters}]\b(?!.*\b[{letters}]\b)", answer)
    return found[0] if found else None


def after_lead(answer: str, leads: Sequence[str], wanted: Sequence[str]) -> bool | None:
    """Whether the first of the leads that occurs is followed by one of `wanted`; None where none occurs."""
    for lead in leads:
        _, found, rest = answer.partition(lead)
        if found:
            return len(rest) > 0 and rest[1:].startswith(tuple(wanted))
    return None


def book_f1(answer: str, labels: Labels, rules: str) -> float:
    """The best F1 of words with any label; articles and punctuation do not count."""
    return max(overlap(normal(answer).split(), normal(label).split()) for label in labels)


def book_f1_chinese(answer: str, labels: Labels, rules: str) -> float:
    """The best F1 of characters with any label; punctuation does not count."""
    return max(overlap(normal_chinese(answer), normal_chinese(label)) for label in labels)


def hotpot_f1(answer: str, labels: Labels, rules: str) -> float:
    """HotpotQA's F1 of words: yes, no and noanswer count only when they are all that is said."""
    given, wanted = normal(answer), normal(labels[0])
    if given != wanted and {given, wanted} & {"yes", "no", "noanswer"}:
        return 0.0
    return overlap(given.split(), wanted.split())


def book_summary(answer: str, labels: Labels, rules: str) -> float:
    """The best `rougeLsum` with any label."""
    return max(by_lines(label, answer) for label in labels)


def overlap(given: Sequence[str], wanted: Sequence[str]) -> float:
    """F1 of two bags of words or characters."""
    same = (Counter(given) & Counter(wanted)).total()
    return 2 * same / (len(given) + len(wanted)) if same else 0.0


def normal(text: str) -> str:
    """SQuAD's: lower case, without ASCII punctuation and articles, single spaces."""
    bare = "".join(letter for letter in text.lower() if letter not in string.punctuation)
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", bare).split())


CHINESE_PUNCTUATION = frozenset(
    "！？｡。＂＃＄％＆＇（）＊＋，－／：；＜＝＞＠［＼］＾＿｀｛｜｝～｟｠｢｣､、〃》「」『』【】〔〕〖〗〘〙〚〛〜〝〞〟〰〾〿–—‘’‛“”„‟…‧﹏."
)


def normal_chinese(text: str) -> str:
    """Lower case, without punctuation and spaces. The opening 《 counts as a character, as in the official list."""
    kept = (letter for letter in text.lower() if letter not in string.punctuation and letter not in CHINESE_PUNCTUATION)
    return "".join("".join(kept).split())


def spaced(text: str, letters: str) -> str:
    """With spaces for all of `letters`."""
    return text.translate(dict.fromkeys(map(ord, letters), " "))


HIDDEN = "One piece of information that matters is hidden in the text below. You will be asked for it.\n\n"
KINDS = {
    kind.name: kind
    for kind in (
        Kind("passkey", "retrieval", 16, HIDDEN, "\n\n{input}", first_number),
        Kind("number_string", "retrieval", 24, HIDDEN, "\n\n{input}", first_number),
        Kind(
            "kv_retrieval",
            "retrieval",
            64,
            "The JSON object below holds values under keys. You will be asked for one.\n\n",
            "\n\n{input}",
            is_word,
        ),
        Kind("longbook_sum_eng", "book", 1200, "", "\n\nWrite a summary of this book.", book_summary),
        Kind(
            "longbook_qa_eng",
            "book",
            40,
            "Read the book below. A question about it follows.\n\n",
            "\n\nQuestion: {input}\nAnswer in a few words.",
            book_f1,
        ),
        Kind(
            "longbook_qa_chn",
            "book",
            40,
            "请读下面的书，后面有一个问题。\n\n",
            "\n\n问题：{input}\n请用几个字回答。",
            book_f1_chinese,
        ),
        Kind(
            "longbook_choice_eng",
            "book",
            40,
            "Read the book below. A question about it follows.\n\n",
            f"\n\nQuestion: {{input}}{OPTIONS}\nAnswer with the letter of the right option alone.",
            book_choice,
        ),
        Kind(
            "longdialogue_qa_eng",
            "dialogue",
            40,
            'In one place of the script below, "$$MASK$$" stands for the name of a character.\n\n',
            '\n\nWhich character is "$$MASK$$"? Answer with the name alone, as it stands before the colons.',
            dialogue,
        ),
        Kind("math_find", "math", 16, "A question about this list follows it.\n\n", "\n\n{input}", found_number),
        Kind(
            "math_calc",
            "math",
            30_000,
            "",
            "\n\nGive the value after each operation, from left to right, as a list like [3, 1, 9] and nothing else.",
            running_values,
        ),
        Kind(
            "code_run",
            "code",
            24,
            "Read the Python functions below. You will be asked what a call returns.\n\n",
            "\n\nWhat does {call} return? Answer with the number alone.",
            last_number,
        ),
        Kind(
            "code_debug",
            "code",
            40,
            "In the project below, one function was given an error that makes it crash.\n\n",
            f"\n\nWhich function is it?{OPTIONS}\nAnswer with the letter of the right option alone.",
            code_choice,
        ),
        Kind(
            "rag",
            "multi-hop",
            40,
            "Read the passages below. A question that they answer together follows.\n\n",
            "\n\nQuestion: {input}\nAnswer in a few words.",
            hotpot_f1,
            ("rag_1000k.jsonl", "rag_128k.jsonl", "rag.jsonl"),
        ),
    )
}


@register("task", "infinitebench", systems=("extagents",))
@task(name="infinitebench")
def infinitebench(
    data: str | None = None,
    tasks: str | Sequence[str] | None = None,
    enhanced: str | None = None,
    rules: str = EXTAGENTS,
    samples: int | None = None,
    window: int | None = None,
    tokenizer: str | None = None,
) -> Task:
    """Questions on books, dialogues, code and lists of 100K tokens and more, and ExtAgents' multi-hop ones.

    `data` is the folder of the published files (by default `data/infinitebench` in longspan's cache), or `sample`;
    `tasks` some of the thirteen (by default all whose file is there), `samples` the first so many of each. `enhanced`
    (`full` or `partial`) keeps those questions of `longbook_qa_*` that ExtAgents scores. `rules` is whose scoring:
    extagents or infinitebench. Prompts longer than `window` tokens, less room for the answer, lose their middle.
    """
    if rules not in RULES:
        raise UsageError(f"There are no rules {rules!r}: give {' or '.join(RULES)}.")
    if enhanced not in (None, "full", "partial"):
        raise UsageError(f"There is no enhancement {enhanced!r}: give full or partial.")
    count = counter(tokenizer)
    is_sample = data == SAMPLE
    folder = BUNDLED / "infinitebench" if is_sample else located(data, "infinitebench", SOURCE, needs="its JSONL files")
    if not folder.is_dir():
        raise UsageError(f"{folder} is a file: give its folder, as the names of the files tell the tasks.")
    dataset: list[Sample] = []
    for name in choice(tasks, list(KINDS), "task"):
        kind = KINDS[name]
        file = file_of(kind, folder)
        if file is None:
            if tasks is not None:
                raise UsageError(f"{folder} has no {names_of(kind)[0]}: fetch it from {SOURCE}.")
            continue
        kept = enhanced_ids(enhanced, name) if enhanced else None
        taken = 0
        for at, record in enumerate(records(file)):
            number = record.fields.get("id", at)
            if (samples is not None and taken >= samples) or (kept is not None and number not in kept):
                continue
            taken += 1
            dataset.append(one(kind, record, at, file.parent, count, window, rules))
    if not dataset:
        raise UsageError(f"{folder} has none of the benchmark's files, such as longbook_qa_eng.jsonl: see {SOURCE}.")
    title = "infinitebench_plus" if enhanced else "infinitebench"
    return Task(
        dataset=MemoryDataset(dataset, name=f"{title}_sample (not the benchmark)" if is_sample else title),
        solver=with_room(),
        scorer=by_kind(),
        config=GenerateConfig(temperature=0.0),
    )


def names_of(kind: Kind) -> tuple[str, ...]:
    return kind.files or (f"{kind.name}.jsonl",)


def file_of(kind: Kind, folder: Path) -> Path | None:
    return next((folder / name for name in names_of(kind) if (folder / name).is_file()), None)


def one(
    kind: Kind, record: Record, at: int, folder: Path, counter: TokenCounter, window: int | None, rules: str
) -> Sample:
    """The sample of one record; `at` is its place in the file."""
    context = record.text("content" if "content" in record.fields else "context")
    asked = record.fields.get("input", record.fields.get("question", ""))
    if not isinstance(asked, str):
        raise record.malformed("the field 'input' must be a text")
    labels = labels_of(kind, record, at, folder)
    answer_tokens = kind.answer_tokens
    if kind.score is running_values:  # a digit or two, a comma and a space for each
        answer_tokens = min(answer_tokens, 6 * len(labels) + 24)
    options = record.texts("options") if kind.score in (book_choice, code_choice) else []
    after = kind.after
    if kind.name == "code_run":
        call = re.search(r"func_[0-9]+\(-?[0-9]+\)", asked)
        if call is None:
            raise record.malformed("the field 'input' names no call such as func_1(3)")
        after = after.replace("{call}", call[0])
    elif options:
        after = after.format(*options, input=asked)
    else:
        after = after.replace("{input}", asked)
    after = after.rstrip()
    if window is not None:
        space = room(window, counter, answer_tokens) - counter.count(kind.before)
        context = cut_middle(context, after, counter, space)
    tokens = counter.count(f"{kind.before}{context}{after}")
    sample = make_sample(
        f"{kind.name}-{record.fields.get('id', at)}",
        before=kind.before,
        context=context,
        after=after,
        question=after.strip(),
        targets=[str(label) for label in labels],
        length=power_of_two(tokens + counter.overhead + answer_tokens),
        counter=counter,
        answer_tokens=answer_tokens,
        tokens=tokens,
        subtask=kind.name,
        domain=kind.domain,
        language="Chinese" if kind.name.endswith("_chn") else "English",
    )
    sample.metadata = {**(sample.metadata or {}), "labels": labels, "rules": rules, "answer_tokens": answer_tokens}
    return sample


def labels_of(kind: Kind, record: Record, at: int, folder: Path) -> Labels:
    """What the record's answer is compared by. Raises LongspanError with file and line for what cannot be compared."""
    if kind.name == "rag" and not record.fields.get("answer"):
        answers = hotpot_answers(folder / HOTPOT)
        if at >= len(answers):
            raise record.malformed(f"it has no field 'answer', and {HOTPOT} beside it no answer number {at + 1}")
        return [answers[at]]
    answer = record.fields.get("answer")
    given: list[object] = answer if isinstance(answer, list) else [answer]
    if kind.score is running_values and given and isinstance(given[0], list):
        given = given[0]
    labels = [label for label in given if isinstance(label, str | int | float)]
    if not labels or len(labels) < len(given):
        raise record.malformed("the field 'answer' must hold a text, a number or a list of them")
    if kind.score in (book_choice, code_choice):
        options = record.texts("options")
        if len(options) != len(LETTERS):
            raise record.malformed(f"the field 'options' must hold {len(LETTERS)} texts, not {len(options)}")
        if len(labels) == 1 and labels[0] in options:
            return [labels[0], LETTERS[options.index(labels[0])]]
        if len(labels) == 2 and labels[1] in tuple(LETTERS):
            return [*labels]
        raise record.malformed("the field 'answer' must be one of the options")
    if kind.score in (running_values, found_number, last_number):
        try:
            numbers = [float(label) for label in labels]
            return [int(number) if number.is_integer() else number for number in numbers]
        except ValueError:
            raise record.malformed("the field 'answer' must hold numbers") from None
    return [str(label) for label in labels]


@lru_cache(maxsize=1)
def hotpot_answers(file: Path) -> list[str]:
    """The answers of HotpotQA's questions, in the file's order, which is that of the passages' file."""
    return [record.text("answer") for record in records(file)] if file.is_file() else []


@solver
def with_room() -> Solver:
    """One call to the model, with as much room for the answer as the task of the sample needs."""

    async def solve(state: TaskState, generate: Generate) -> TaskState:
        return await generate(state, max_tokens=state.metadata["answer_tokens"])

    return solve


@scorer(metrics=[*METRICS, by_dimension()])
def by_kind() -> Scorer:
    """The score of the sample's task; for `rag` also whether the answer is exact."""

    async def score(state: TaskState, target: Target) -> Score:
        answer = state.output.completion
        name = state.metadata["dimensions"]["subtask"]
        labels = state.metadata["labels"]
        value = KINDS[name].score(answer, labels, state.metadata["rules"])
        exact = {"exact": normal(answer) == normal(labels[0])} if name == "rag" else {}
        return Score(value=value, answer=answer, explanation=name, metadata=exact)

    return score
