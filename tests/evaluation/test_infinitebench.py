"""InfiniteBench and InfiniteBench+: scores by hand and as the official code gives them, the files, a whole run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from inspect_ai import eval as inspect_eval
from inspect_ai.model import ChatMessage, GenerateConfig, ModelOutput, ModelUsage, get_model

from longspan.errors import LongspanError, UsageError
from longspan.evaluation.lengths import TokenCounter
from longspan.evaluation.published import BUNDLED
from longspan.evaluation.rouge import by_lines
from longspan.evaluation.tasks import infinitebench as module
from longspan.evaluation.tasks.infinitebench import KINDS, enhanced_ids, infinitebench

FOLDER = BUNDLED / "infinitebench"
COUNTER = TokenCounter("letters", len, lambda text: list(range(len(text))), 10)


@pytest.fixture(autouse=True)
def counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "counter", lambda tokenizer=None: COUNTER)


# Each value is what the official code gives: src/compute_scores.py of OpenBMB/InfiniteBench (the first), of
# THUNLP-MT/ExtAgents src/eval/compute_scores_partial-enhanced.py (the second) and hotpot_evaluate_v1.py (for rag).
@pytest.mark.parametrize(
    ("name", "labels", "answer", "infinite", "extagents"),
    [
        ("passkey", ["71432"], "It is 71432, not 5.", 1, 1),
        ("passkey", ["71432"], "Key 1: 71432", 0, 0),
        ("number_string", ["4488"], "44 88", 0, 0),
        ("kv_retrieval", ["ab-1"], 'The value is: "ab-1".', 1, 1),
        ("kv_retrieval", ["ab-1"], "ab-12", 0, 0),
        ("code_run", [-4], "It returns: `-4`.", 1, 1),
        ("code_run", [4], "4 is returned", 0, 0),
        ("math_find", [3.5], "about 3.5", 1, 1),
        ("math_find", [88], "from 1 to 88", 0, 0),
        ("math_calc", [79, 59, 73], "[79, 59, 12]", 2 / 3, 2 / 3),
        ("math_calc", [79, 59, 73], "[7, 59, 73]", 0, 0),
        ("longdialogue_qa_eng", ["ACE", "ACE ROTHSTEIN"], "Ace.", 1, 1),
        ("longdialogue_qa_eng", ["Gaggi", "REMO"], "He is Remo", 0, 1),
        ("longbook_choice_eng", ["Snow field", "C"], "C. Snow field", 1, 1),
        ("longbook_choice_eng", ["Snow field", "C"], "The answer is C", 1, 1),
        ("longbook_choice_eng", ["Snow field", "C"], "A field, that is option C", 0, 1),
        ("longbook_choice_eng", ["Snow field", "C"], "Snow field", 1, 1),
        ("longbook_choice_eng", ["Snow field", "C"], "It is (C)", 0, 1),
        ("longbook_choice_eng", ["Snow field", "C"], "", 0, 0),
        ("code_debug", ["f.run", "B"], "B. f.run", 1, 1),
        ("code_debug", ["f.run", "B"], "B", 0, 1),
        ("code_debug", ["f.run", "B"], "The answer is: `f.run`", 1, 1),
        ("code_debug", ["f.run", "B"], "The answer is:f.run", 0, 0),  # a blank is expected
        ("code_debug", ["f.run", "B"], "The answer is:\nf.run", 1, 1),
        ("code_debug", ["f.run", "B"], "f.run", 0, 1),
        ("longbook_qa_eng", ["the fall of a bridge", "flood"], "The bridge's fall", 0.4, 0.4),
        ("longbook_qa_eng", ["flood"], "A flood!", 1, 1),
        ("longbook_qa_chn", ["一条新船", "船"], "新船。", 2 / 3, 2 / 3),
        ("longbook_qa_chn", ["《马》"], "马", 2 / 3, 2 / 3),  # the list of punctuation lacks the opening bracket
        ("rag", ["yes"], "yes, it did", 0, 0),
        ("rag", ["yes"], "Yes.", 1, 1),
        ("rag", ["Mount Sarn"], "The Mount", 2 / 3, 2 / 3),
    ],
)
def test_scores_are_the_official_ones(
    name: str, labels: list[object], answer: str, infinite: float, extagents: float
) -> None:
    score = KINDS[name].score
    assert score(answer, labels, "infinitebench") == pytest.approx(infinite)
    assert score(answer, labels, "extagents") == pytest.approx(extagents)


def test_summaries_are_scored_by_rouge_lsum() -> None:
    wanted = "Ada comes to live with her uncle.\nColin proposes.\nShe refuses Colin."
    given = "Ada lives with an uncle, Colin.\nColin proposes, but Colin is refused."
    # rouge_score 0.1.2 gives 0.5: ada, with, uncle, colin, proposes and colin of twelve words each.
    assert by_lines(wanted, given) == pytest.approx(0.5)
    assert KINDS["longbook_sum_eng"].score(given, ["Rain.", wanted], "extagents") == pytest.approx(0.5)
    assert by_lines(wanted, "--") == by_lines(wanted, "nothing") == 0


def test_thirteen_tasks_and_the_enhanced_questions() -> None:
    assert len(KINDS) == 13
    sizes = {
        (variant, name): len(enhanced_ids(variant, name) or ())
        for variant in ("full", "partial")
        for name in ("longbook_qa_eng", "longbook_qa_chn")
    }
    assert sizes == {
        ("full", "longbook_qa_eng"): 157,
        ("full", "longbook_qa_chn"): 56,
        ("partial", "longbook_qa_eng"): 294,
        ("partial", "longbook_qa_chn"): 184,
    }
    for name in ("longbook_qa_eng", "longbook_qa_chn"):
        assert enhanced_ids("full", name) <= enhanced_ids("partial", name)  # type: ignore[operator]
    assert enhanced_ids("full", "passkey") is None


def test_the_sample_covers_every_task() -> None:
    task = infinitebench(data="sample")
    assert task.dataset.name == "infinitebench_sample (not the benchmark)"
    assert {sample.metadata["dimensions"]["subtask"] for sample in task.dataset if sample.metadata} == set(KINDS)
    assert sum(file.stat().st_size for file in FOLDER.iterdir()) < 100_000
    assert [len(infinitebench(data="sample", samples=1, tasks=name).dataset) for name in KINDS] == [1] * 13
    plus = infinitebench(data="sample", enhanced="full", tasks="longbook_qa_eng")
    assert plus.dataset.name.startswith("infinitebench_plus") and [s.id for s in plus.dataset] == ["longbook_qa_eng-2"]
    assert len(infinitebench(data="sample", enhanced="partial", tasks="longbook_qa_eng").dataset) == 2


def test_prompts_hold_text_and_question_apart() -> None:
    for sample in infinitebench(data="sample").dataset:
        assert sample.metadata is not None and isinstance(sample.input, str)
        begin, end = sample.metadata["context"]
        record = json.loads(
            (FOLDER / (sample.metadata["dimensions"]["subtask"] + ".jsonl").replace("rag.", "rag_1000k."))
            .read_text(encoding="utf-8")
            .splitlines()[0]
        )
        if str(sample.id).endswith("-0"):
            assert sample.input[begin:end] == record["context"]
        assert sample.input[end:].strip() == sample.metadata["question"] != ""
        assert "{" not in sample.input[end:]
        assert sample.metadata["tokens"] == len(sample.input) + 10 + sample.metadata["answer_tokens"]
        assert sample.metadata["length"] / 2 < sample.metadata["tokens"] <= sample.metadata["length"]
    by_id = {sample.id: sample for sample in infinitebench(data="sample").dataset}
    assert "What does func_1(10) return?" in str(by_id["code_run-0"].input)
    assert "C. head\nD. tail" in str(by_id["code_debug-0"].input)
    assert by_id["code_debug-0"].target == ["head", "C"]
    assert by_id["rag-1"].target == ["yes"]  # from the file of questions beside it


def test_prompts_too_long_lose_their_middle() -> None:
    (cut,) = infinitebench(data="sample", tasks="longbook_sum_eng", window=1500).dataset
    assert cut.metadata is not None
    assert cut.metadata["tokens"] == 1500 and str(cut.input).startswith("Chapter one.")
    (whole,) = infinitebench(data="sample", tasks="math_find").dataset
    (shorter,) = infinitebench(data="sample", tasks="math_find", window=200).dataset
    assert shorter.metadata is not None and shorter.metadata["tokens"] == 200
    assert str(shorter.input)[:45] == str(whole.input)[:45] and str(shorter.input)[-50:] == str(whole.input)[-50:]


def test_without_the_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LONGSPAN_CACHE", str(tmp_path))
    with pytest.raises(UsageError) as told:
        infinitebench()
    for part in ("xinrongzhang2022/InfiniteBench", "zhennan1/ExtAgents", str(tmp_path / "data" / "infinitebench")):
        assert part in str(told.value)
    with pytest.raises(UsageError, match=r"has none of the benchmark's files"):
        infinitebench(data=str(tmp_path))
    with pytest.raises(UsageError, match=r"has no passkey\.jsonl"):
        infinitebench(data=str(tmp_path), tasks="passkey")
    with pytest.raises(UsageError, match="give its folder"):
        infinitebench(data=str(FOLDER / "passkey.jsonl"))
    with pytest.raises(UsageError, match="There is no task 'chess'"):
        infinitebench(data="sample", tasks="chess")
    with pytest.raises(UsageError, match="There are no rules 'mine'"):
        infinitebench(data="sample", rules="mine")
    with pytest.raises(UsageError, match="There is no enhancement 'some'"):
        infinitebench(data="sample", enhanced="some")


@pytest.mark.parametrize(
    ("name", "record", "complaint"),
    [
        ("passkey", {"context": "c", "input": "q"}, "the field 'answer' must hold"),
        ("passkey", {"context": "c", "input": "q", "answer": []}, "the field 'answer' must hold"),
        ("passkey", {"input": "q", "answer": ["1"]}, "the field 'context' is missing"),
        ("passkey", {"context": "c", "input": 3, "answer": ["1"]}, "the field 'input' must be a text"),
        ("code_run", {"context": "c", "input": "q", "answer": [1]}, "names no call"),
        ("math_find", {"context": "c", "input": "q", "answer": ["many"]}, "must hold numbers"),
        ("code_debug", {"context": "c", "input": "", "answer": ["f"], "options": ["g"] * 4}, "one of the options"),
        ("code_debug", {"context": "c", "input": "", "answer": ["f"], "options": ["f"]}, "must hold 4 texts, not 1"),
        ("rag", {"context": "c", "input": "q"}, "no answer number 2"),
    ],
)
def test_malformed_records_are_told_by_line(
    tmp_path: Path, name: str, record: dict[str, object], complaint: str
) -> None:
    file = tmp_path / f"{name}.jsonl"
    good = json.loads(
        (FOLDER / f"{name.replace('rag', 'rag_1000k')}.jsonl").read_text(encoding="utf-8").splitlines()[0]
    )
    (tmp_path / "sampled_hotpot_questions.json").write_text('[{"answer": "yes"}]')
    file.write_text(f"{json.dumps(good)}\n{json.dumps(record)}\n", encoding="utf-8")
    with pytest.raises(LongspanError, match=f"line 2: .*{complaint}") as told:
        infinitebench(data=str(tmp_path))
    assert str(file) in str(told.value)


def test_answers_in_other_shapes(tmp_path: Path) -> None:
    def target(name: str, answer: object, **more: object) -> list[str]:
        record = {"context": "c", "input": "func_0(1)", "answer": answer, **more}
        (tmp_path / f"{name}.jsonl").write_text(json.dumps(record))
        (sample,) = infinitebench(data=str(tmp_path), tasks=name).dataset
        return list(sample.target)

    assert target("math_calc", [[1, 2]]) == ["1", "2"]
    assert target("math_find", ["3.5"]) == ["3.5"]
    assert target("code_run", 4) == ["4"]
    assert target("passkey", "123") == ["123"]
    assert target("longbook_choice_eng", ["x", "D"], options=["a", "b", "c", "d"]) == ["x", "D"]
    assert target("longbook_choice_eng", "b", options=["a", "b", "c", "d"]) == ["b", "B"]
    assert target("rag", ["Sarn"]) == ["Sarn"]


def test_a_run_scores_every_task(tmp_path: Path) -> None:
    rooms: list[int | None] = []
    targets = {str(sample.input): (sample.id, list(sample.target)) for sample in infinitebench(data="sample").dataset}

    def reply(messages: list[ChatMessage], tools: object, choice: object, config: GenerateConfig) -> ModelOutput:
        name, target = targets[messages[-1].text]
        rooms.append(config.max_tokens)
        right = ", ".join(target) if str(name).startswith("math_calc") else target[-1]
        output = ModelOutput.from_content("mockllm", "7" if str(name).startswith("passkey") else right)
        output.usage = ModelUsage()
        return output

    (log,) = inspect_eval(
        infinitebench(data="sample"),
        model=get_model("mockllm/model", custom_outputs=reply),
        display="none",
        log_dir=str(tmp_path),
    )
    assert log.status == "success" and log.results is not None
    metrics = {name: metric.value for name, metric in log.results.scores[0].metrics.items()}
    assert metrics["subtask passkey"] == 0
    assert all(value == 1 for name, value in metrics.items() if name.startswith("subtask ") and "passkey" not in name)
    assert metrics["language Chinese"] == 1 and metrics["domain retrieval"] == pytest.approx(2 / 3)
    assert {16, 24, 40, 64, 1200} <= set(rooms)  # as much room as each task needs
