"""LongBench Pro: metrics by hand and against the official code's values, the taxonomy, the file format, a whole run."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
from inspect_ai import eval as inspect_eval
from inspect_ai.model import ChatMessage, GenerateConfig, ModelOutput, ModelUsage, get_model

from longspan.errors import LongspanError, UsageError
from longspan.evaluation.lengths import TokenCounter
from longspan.evaluation.published import BUNDLED, Record, cut_middle, records
from longspan.evaluation.tasks import longbench_pro as module
from longspan.evaluation.tasks.longbench_pro import (
    DIFFICULTIES,
    LENGTHS,
    METRIC_OF,
    PRIMARY,
    REQUIREMENTS,
    answer_area,
    checked,
    longbench_pro,
    rouge,
    scored,
    secondaries,
)

SAMPLE_FILE = BUNDLED / "longbench_pro_sample.json"
# One token a character: no model is needed to count.
COUNTER = TokenCounter("letters", len, lambda text: list(range(len(text))), 10)

RANKED = ["Doc 3", "Doc 1", "Doc 7", "Doc 2"]


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "counter", lambda tokenizer=None: COUNTER)


# Values of the official evaluation (caskcsg/longcontext, LongBench-Pro/modules/utils.py, with pytrec_eval) on these.
@pytest.mark.parametrize(
    ("prediction", "ndcg", "pairwise", "f1", "subem", "accuracy"),
    [
        ("[Answer]\nDoc 1\nDoc 3\nDoc 9\nDoc 7", 0.8718648094256444, 1 / 3, 0.75, 0.75, 0.0),
        ("thoughts\n[Answer] doc 3\nDoc  1\ndoc 3", 0.7542493064028744, 0.0, 2 / 3, 0.5, 1.0),
        ("Doc 2\nDoc 7\nDoc 1\nDoc 3\nDoc 4", 0.7489030296784172, 0.0, 0.888888888888889, 1.0, 0.0),
    ],
)
def test_metrics_are_the_official_ones(
    prediction: str, ndcg: float, pairwise: float, f1: float, subem: float, accuracy: float
) -> None:
    expected = {"ndcg": ndcg, "pairwise": pairwise, "f1": f1, "subem": subem, "accuracy": accuracy}
    assert {name: scored(name, RANKED, prediction) for name in expected} == pytest.approx(expected)


def test_ndcg_by_hand() -> None:
    # Worth 4, 3, 2, 1; the second best comes first, the best second, something else third, the third fourth.
    gained = 3 + 4 / math.log2(3) + 2 / math.log2(5)
    best = 4 + 3 / math.log2(3) + 2 / 2 + 1 / math.log2(5)
    assert scored("ndcg", RANKED, "Doc 1\nDoc 3\nDoc 9\nDoc 7") == pytest.approx(gained / best)
    assert scored("ndcg", RANKED, "\n".join(RANKED)) == pytest.approx(1)
    # k is the number of parts wanted: what stands fifth is not looked at.
    assert scored("ndcg", ["a"], "b\na") == 0


def test_pairwise_by_hand() -> None:
    assert scored("pairwise", ["a", "b", "c"], "a\nb\nc") == 1
    assert scored("pairwise", ["a", "b", "c"], "b\na\nc") == pytest.approx(2 / 3)
    assert scored("pairwise", ["a", "b", "c"], "a\nb\nc\nd") == pytest.approx(3 / 6)
    assert scored("pairwise", ["a", "b", "c"], "a") == 0
    assert scored("pairwise", ["a", "a", "b"], "a\nb") == 0  # two right pairs over one: out of range, failed


def test_sets_and_lines_by_hand() -> None:
    assert scored("f1", ["x", "y"], "[Answer]\nX\nz\nz") == pytest.approx(2 * 0.5 * 0.5 / 1)
    assert scored("subem", ["x", "y", "z"], "z\nx") == pytest.approx(2 / 3)
    assert scored("accuracy", ["C"], "I think so.\n[Answer]\nc\nbecause") == 1
    assert scored("accuracy", ["1 11"], "11 1") == 0
    assert all(scored(name, ["x"], " \n ") == 0 for name in set(METRIC_OF.values()))
    assert all(scored(name, [], "x") == 0 for name in set(METRIC_OF.values()))


@pytest.mark.parametrize(
    ("output", "area"),
    [
        ("no marker", "no marker"),
        ("[Answer] a [Answer] b", "b"),
        ("[Answer] a [答案] b", "a [答案] b"),  # the English marker is looked for first
        ("想\n[答案]\n甲", "甲"),
        ("[Answer]", ""),
    ],
)
def test_answer_area(output: str, area: str) -> None:
    assert answer_area(output) == area


# Of the package rouge 1.0.1, which the official evaluation uses.
@pytest.mark.parametrize(
    ("prediction", "value"),
    [
        ("the brig ran aground in a storm. the hands were all saved.", 0.7368421003878117),
        ("a storm. the window. a brig", 0.7692307644970415),
        ("...", 0.0),
    ],
)
def test_rouge_is_the_official_one(prediction: str, value: float) -> None:
    wanted = ["the brig ran aground. all hands were saved", "a storm broke the window and the brig stranded"]
    assert rouge(wanted, prediction, chinese=False) == pytest.approx(value, abs=1e-12)


def test_rouge_of_chinese_counts_characters() -> None:
    # 图书馆 of 图书馆有书 (four distinct of five) and of 图书馆 (three of three): P 1, R 3/4.
    assert rouge(["图书馆有书"], "图书馆", chinese=True) == pytest.approx(2 * 0.75 / 1.75, abs=1e-6)


def test_summaries_are_half_meaning_half_words() -> None:
    wanted = ["A storm broke the window of the lighthouse.", "The council closed the road."]
    same = scored("summary", wanted, wanted[0])
    near = scored("summary", wanted, "A gale smashed the pane of the beacon.")
    far = scored("summary", wanted, "Rye bread needs sour dough.")
    assert same == pytest.approx(1, abs=1e-3)
    assert same > near > far >= 0


def test_taxonomy() -> None:
    assert (len(PRIMARY), len(METRIC_OF), len(REQUIREMENTS), len(LENGTHS), len(DIFFICULTIES)) == (11, 25, 2, 6, 4)
    assert list(LENGTHS.values()) == [8192, 16384, 32768, 65536, 131072, 262144]
    counts = {code: len(secondaries(code)) for code in PRIMARY}
    assert list(counts.values()) == [2, 2, 2, 2, 2, 3, 3, 3, 2, 2, 2]
    assert secondaries("T1,T10.2") == [
        "T1.1 Global Cohesive Retrieval",
        "T1.2 Key-Snippet Retrieval",
        "T10.2 Targeted Example-Based Rule Induction",
    ]
    by_metric = {name: list(METRIC_OF.values()).count(name) for name in METRIC_OF.values()}
    assert by_metric == {"ndcg": 2, "pairwise": 3, "accuracy": 4, "summary": 2, "f1": 8, "subem": 6}


def test_the_sample_covers_everything_and_is_small() -> None:
    items = [checked(record) for record in records(SAMPLE_FILE)]
    assert {item.secondary_task for item in items} == set(METRIC_OF)
    assert {item.token_length for item in items} == set(LENGTHS)
    assert {item.difficulty for item in items} == set(DIFFICULTIES)
    assert {item.language for item in items} == {"English", "Chinese"}
    # 14 full and 11 partial: with 60 records each these weights give the published overall averages.
    assert [item.contextual_requirement for item in items].count("Full") == 14
    assert all(item.secondary_task.startswith(f"{item.primary_task.split('.')[0]}.") for item in items)
    assert SAMPLE_FILE.stat().st_size < 100_000


@pytest.mark.usefixtures("counted")
def test_prompt_and_dimensions() -> None:
    task = longbench_pro(data="sample", tasks="T3.2")
    (sample,) = task.dataset
    assert task.dataset.name == "longbench_pro_sample (not the benchmark)"
    assert sample.metadata is not None
    begin, end = sample.metadata["context"]
    context, rest = sample.input[begin:end], sample.input[end:]
    assert isinstance(context, str)
    assert context.startswith("Log of the lighthouse") and rest == f"\n\n\n\n{sample.metadata['question']}"
    assert sample.target == ["9"]
    assert sample.metadata["tokens"] == len(sample.input) + 10 + 1024
    assert sample.metadata["length"] == 2048  # measured: the sample's texts are short
    assert sample.metadata["dimensions"] == {
        "primary": "T3. Evidence-Grounded QA",
        "secondary": "T3.2 Single-Hop Fact QA",
        "requirement": "Partial",
        "bucket": "256k",
        "difficulty": "Easy",
        "language": "English",
    }
    (thinking,) = longbench_pro(data="sample", tasks="T3.2", thinking=True).dataset
    assert "step by step" in str(thinking.input)


@pytest.mark.usefixtures("counted")
def test_choices_keep_a_part() -> None:
    def ids(**choices: object) -> list[str]:
        return [str(sample.id) for sample in longbench_pro(data="sample", **choices).dataset]  # type: ignore[arg-type]

    assert len(ids()) == 25
    assert ids(languages="chinese", lengths=8192) == ["longbench-pro-sample-T6.3", "longbench-pro-sample-T8.3"]
    assert len(ids(requirements="Partial")) == 11
    assert len(ids(lengths="8k,256k")) == 9
    assert ids(difficulties="Extreme", tasks="T8") == ["longbench-pro-sample-T8.1", "longbench-pro-sample-T8.3"]
    with pytest.raises(UsageError, match="There is no task 'T12'"):
        ids(tasks="T12")
    with pytest.raises(UsageError, match=r"There is no length '9216'.*8k, 16k"):
        ids(lengths="9k")
    with pytest.raises(UsageError, match="No record of"):
        ids(tasks="T3.2", lengths="8k")


@pytest.mark.usefixtures("counted")
def test_the_published_file_in_either_form(tmp_path: Path) -> None:
    values = json.loads(SAMPLE_FILE.read_text(encoding="utf-8"))[:3]
    (tmp_path / "longbench_pro.json").write_text(json.dumps(values, indent=2), encoding="utf-8")
    lines = tmp_path / "lines.jsonl"
    lines.write_text("".join(json.dumps(value, ensure_ascii=False) + "\n" for value in values), encoding="utf-8")
    folder, file = longbench_pro(data=str(tmp_path)), longbench_pro(data=str(lines))
    assert folder.dataset.name == "longbench_pro"
    assert [sample.model_dump() for sample in folder.dataset] == [sample.model_dump() for sample in file.dataset]
    assert [sample.metadata["length"] for sample in folder.dataset if sample.metadata] == [8192, 16384, 32768]
    # Two of one task and length, of which one is asked for.
    (tmp_path / "twice.jsonl").write_text("".join(json.dumps({**values[0], "id": i}) + "\n" for i in range(2)))
    assert len(longbench_pro(data=str(tmp_path / "twice.jsonl"), samples=1).dataset) == 1


@pytest.mark.usefixtures("counted")
def test_prompts_too_long_lose_their_middle() -> None:
    (whole,) = longbench_pro(data="sample", tasks="T3.2").dataset
    (cut,) = longbench_pro(data="sample", tasks="T3.2", window=1634).dataset
    assert len(cut.input) == 600 and cut.metadata is not None
    assert cut.input == whole.input[:300] + whole.input[-300:]  # type: ignore[operator]
    assert cut.metadata["tokens"] == 1634
    _, end = cut.metadata["context"]
    assert str(cut.input)[end:].endswith(cut.metadata["question"])
    assert cut_middle("short", " question", COUNTER, 100) == "short"
    with pytest.raises(UsageError, match="too short for this task's questions"):
        cut_middle("c" * 100, "q" * 60, COUNTER, 100)


def test_without_the_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "counter", lambda tokenizer=None: COUNTER)
    monkeypatch.setenv("LONGSPAN_CACHE", str(tmp_path))
    with pytest.raises(UsageError) as told:
        longbench_pro()
    message = str(told.value)
    assert "longbench_pro.json" in message and "caskcsg/LongBench-Pro" in message
    assert str(tmp_path / "data" / "longbench-pro") in message and "data=sample" in message
    with pytest.raises(UsageError, match=r"There is no .*nowhere"):
        longbench_pro(data=str(tmp_path / "nowhere"))
    # Put there, it is found.
    (tmp_path / "data" / "longbench-pro").mkdir(parents=True)
    (tmp_path / "data" / "longbench-pro" / "longbench_pro.json").write_bytes(SAMPLE_FILE.read_bytes())
    assert len(longbench_pro().dataset) == 25
    with pytest.raises(LongspanError, match="Cannot read"):
        longbench_pro(data=str(tmp_path))  # a folder without the file


GOOD = next(records(SAMPLE_FILE)).fields


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        (json.dumps(GOOD) + "\n\n{broken", "line 3: this is no JSON"),
        (f"[\n{json.dumps(GOOD)},\n{{'id': 1}}]", "line 3: this is no JSON"),
        (f"[\n{json.dumps(GOOD)},\n\n{json.dumps({**GOOD, 'difficulty': 'Fair'})}]", "line 4: the field 'difficulty'"),
        (f"[{json.dumps(GOOD)}\n", "line 2: a comma or the end"),
        (json.dumps({**GOOD, "answer": [1]}), "line 1: the field 'answer' must be a list of texts"),
        (json.dumps({key: value for key, value in GOOD.items() if key != "context"}), "line 1: .*'context' is missing"),
        (json.dumps({**GOOD, "token_length": "512k"}), "not one of: 8k; 16k"),
        (json.dumps({**GOOD, "secondary_task": "T99"}), "'T99', not one of"),
        (json.dumps({**GOOD, "id": None}), "the field 'id'"),
        ("[1]", "line 1: a record must be an object, not a int"),
    ],
)
@pytest.mark.usefixtures("counted")
def test_malformed_files_are_told_by_line(tmp_path: Path, text: str, complaint: str) -> None:
    file = tmp_path / "bad.json"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(LongspanError, match=complaint) as told:
        longbench_pro(data=str(file))
    assert str(file) in str(told.value)


def test_files_that_are_no_text(tmp_path: Path) -> None:
    (tmp_path / "bad").write_bytes(b'{"id": "\xff"}')
    with pytest.raises(LongspanError, match="not UTF-8"):
        list(records(tmp_path / "bad"))
    assert list(records(SAMPLE_FILE))[1].where.endswith("line 3")
    (tmp_path / "none").write_text("[ ]")
    assert list(records(tmp_path / "none")) == []
    assert Record({}, "here").malformed("it is odd").args[0].startswith("here: it is odd.")


@pytest.mark.usefixtures("counted")
def test_a_run_scores_by_task_and_dimension(tmp_path: Path) -> None:
    answers = {item.context + item.question_nonthinking: item for item in map(checked, records(SAMPLE_FILE))}

    def reply(messages: list[ChatMessage], tools: object, choice: object, config: GenerateConfig) -> ModelOutput:
        item = answers[messages[-1].text.replace("\n\n\n\n", "")]
        # Wrong where it is hard.
        wanted = ["nothing"] if item.difficulty == "Extreme" else item.answer
        summary = METRIC_OF[item.secondary_task] == "summary"
        output = ModelOutput.from_content(
            "mockllm", item.answer[0] if summary else "Thoughts.\n[Answer]\n" + "\n".join(wanted)
        )
        output.usage = ModelUsage()
        return output

    (log,) = inspect_eval(
        longbench_pro(data="sample"),
        model=get_model("mockllm/model", custom_outputs=reply),
        display="none",
        log_dir=str(tmp_path),
    )
    assert log.status == "success" and log.results is not None and log.samples is not None
    metrics = {name: metric.value for name, metric in log.results.scores[0].metrics.items()}
    assert metrics["mean"] == pytest.approx(21 / 25, abs=0.01)
    assert metrics["difficulty Extreme"] == 0 and metrics["difficulty Easy"] == pytest.approx(1, abs=0.01)
    assert metrics["secondary T6.1 Large-Scale Document Clustering"] == 1
    assert metrics["primary T8. Structured & Numeric Reasoning"] == pytest.approx(1 / 3)
    assert {name.partition(" ")[0] for name in metrics} >= {
        "primary",
        "secondary",
        "requirement",
        "bucket",
        "difficulty",
        "language",
    }
    passed = [sample.scores["by_task"].metadata["passed"] for sample in log.samples if sample.scores]  # type: ignore[index]
    assert passed.count(True) == 21
