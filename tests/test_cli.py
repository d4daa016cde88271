"""The command line: what goes to stdout and what to stderr, exit codes, and one sentence for every problem."""

from __future__ import annotations

import io
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from longspan import cli

from .workflows.conftest import MANUAL, HashingEncoder, Scripted, ScriptedScorer


class Ran(NamedTuple):
    code: int
    out: str
    err: str


Run = Callable[..., Ran]


@pytest.fixture
def longspan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs the command line in an empty folder with a scripted model."""
    monkeypatch.setenv("LONGSPAN_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("longspan.workflows.answer.Encoder", HashingEncoder)
    monkeypatch.setattr("longspan.retrieval.index.Encoder", HashingEncoder)

    def run(*arguments: str, llm: Scripted | None = None, stdin: str = "") -> Ran:
        monkeypatch.setattr("longspan.llm.open_llm", lambda *_, **__: llm or ScriptedScorer())
        monkeypatch.setattr(sys, "argv", ["longspan", *arguments])
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin.encode())))
        capsys.readouterr()
        with pytest.raises(SystemExit) as stopped:
            cli.main()
        code = stopped.value.code
        captured = capsys.readouterr()
        return Ran(code if isinstance(code, int) else 0 if code is None else 1, captured.out, captured.err)

    return run


@pytest.fixture
def manual(tmp_path: Path) -> str:
    (tmp_path / "manual.txt").write_text(MANUAL)
    return "manual.txt"


def test_the_answer_on_stdout_everything_else_on_stderr(longspan: Run, manual: str) -> None:
    ran = longspan("ask", manual, "How many months does the warranty last?")
    assert ran.code == 0
    assert "The warranty lasts 36 months" in ran.out
    assert "manual.txt:" not in ran.out
    assert "[1] manual.txt:" in ran.err
    assert "cost: " in ran.err


def test_quiet_prints_the_answer_alone(longspan: Run, manual: str) -> None:
    ran = longspan("ask", "--quiet", manual, "How many months does the warranty last?")
    assert "36 months" in ran.out
    assert ran.err == ""


def test_json_is_one_object_with_every_field(longspan: Run, manual: str) -> None:
    ran = longspan("ask", "--json", manual, "How many months does the warranty last?")
    [line] = ran.out.splitlines()
    answer = json.loads(line)
    assert set(answer) == set("question answer refused citations usage workflow model note".split())
    assert set(answer["usage"]) == set("calls prompt_tokens completion_tokens cached_tokens seconds cost".split())
    for citation in answer["citations"]:
        assert set(citation) >= set("document start end line_start line_end quote score".split())
        assert citation["quote"] == MANUAL[citation["start"] : citation["end"]]
        assert 0 <= citation["score"] <= 1


def test_text_from_stdin(longspan: Run) -> None:
    for arguments in (("ask", "-", "How long is the warranty?"), ("ask", "How long is the warranty?")):
        ran = longspan(*arguments, stdin=MANUAL)
        assert ran.code == 0, ran.err
        assert "36 months" in ran.out


def test_a_trace_is_written_and_shown_as_a_tree(longspan: Run, manual: str, tmp_path: Path) -> None:
    assert longspan("ask", manual, "How long is the warranty?", "--trace", "run.json").code == 0
    ran = longspan("trace", "run.json")
    assert ran.code == 0
    for step in ("ask", "auto: retrieve", "search", "rank"):
        assert step in ran.out
    (tmp_path / "other.json").write_text('{"a": 1}')
    assert "is not a trace" in longspan("trace", "other.json").err
    assert "Cannot read the trace" in longspan("trace", "missing.json").err


def test_a_trace_becomes_a_page_and_spans(longspan: Run, manual: str, tmp_path: Path) -> None:
    longspan("ask", manual, "How long is the warranty?", "--trace", "run.json")
    ran = longspan("trace", "run.json", "--html", "run.html", "--otlp", "spans.json")
    assert (ran.code, ran.out, ran.err) == (0, "", "")
    assert "How long is the warranty?" in (tmp_path / "run.html").read_text()
    assert json.loads((tmp_path / "spans.json").read_text())["resourceSpans"]
    assert "Cannot write" in longspan("trace", "run.json", "--html", "no/run.html").err


def test_a_trace_is_replayed_from_files_and_stdin(longspan: Run, manual: str, tmp_path: Path) -> None:
    class Silent(ScriptedScorer):
        async def loglikelihood(self, pairs):  # type: ignore[no-untyped-def]
            raise AssertionError("a replay makes no calls")

    for source, stdin in ((manual, ""), ("-", MANUAL)):
        asked = longspan("ask", source, "How long is the warranty?", "--trace", "run.json", stdin=stdin)
        again = longspan("trace", "run.json", "--replay", llm=Silent(), stdin=stdin)
        assert (again.code, again.out) == (0, asked.out), again.err
        assert "cost: 0 model calls, 0 tokens read" in again.err
    (tmp_path / manual).write_text("Something else.")
    longspan("ask", manual, "How long is the warranty?", "--trace", "run.json")
    (tmp_path / manual).write_text(MANUAL)
    assert "needs the same texts" in longspan("trace", "run.json", "--replay").err


def test_a_budget_holds_on_the_command_line(longspan: Run, manual: str) -> None:
    ran = longspan("ask", manual, "How long is it?", "--budget", "calls=0", "--workflow", "direct", llm=Scripted("x"))
    assert (ran.code, ran.out) == (1, "")
    assert "The budget of 0 calls is spent" in ran.err


def test_a_conversation(longspan: Run, manual: str) -> None:
    ran = longspan("ask", "-i", manual, stdin="How long is the warranty?\nHow often is its sieve cleaned?\n")
    assert ran.code == 0
    assert "36 months" in ran.out
    assert "50 runs" in ran.out
    assert "understood as: How often is its sieve cleaned? (How long is the warranty?)" in ran.err


def test_an_error_in_a_conversation_does_not_end_it(longspan: Run, manual: str) -> None:
    ran = longspan("ask", "-i", manual, stdin=f"{'why ' * 4000}\nHow long is the warranty?\n")
    assert "more than half of what" in ran.err
    assert "36 months" in ran.out


def test_control_characters_of_a_document_do_not_reach_the_terminal(longspan: Run, tmp_path: Path) -> None:
    text = "The warranty lasts \x1b[2J\x1b]0;owned\x07 36 \u202e months for \u200fall.\n"
    (tmp_path / "evil.txt").write_text(text)
    ran = longspan("ask", "evil.txt", "How long is the warranty?")
    assert "\x1b" not in ran.out + ran.err
    assert "\u202e" not in ran.out + ran.err


def test_what_was_left_out_is_said(longspan: Run, manual: str, tmp_path: Path) -> None:
    folder = tmp_path / "docs"
    folder.mkdir()
    (folder / "manual.txt").write_text(MANUAL)
    (folder / "image.txt").write_bytes(b"\x00\x01\x02" * 100)
    ran = longspan("ask", "docs", "How long is the warranty?")
    assert ran.code == 0
    assert "left out: " in ran.err
    assert "image.txt" in ran.err


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["ask", "manual.txt", ""], 2, "question is empty"),
        (["ask", "manual.txt", "  "], 2, "question is empty"),
        (["ask", "manual.txt"], 2, "Say what to read and what to ask"),
        (["ask", "manual.txt", "manual.txt"], 2, "is a file, not a question"),
        (["ask", "nowhere.txt", "What?"], 1, "nowhere.txt"),
        (["ask", "empty.txt", "What?"], 1, "empty"),
        (["ask", "binary.txt", "What?"], 1, "binary"),
        (["ask", "hollow", "What?"], 1, "hollow"),
        (["ask", "manual.txt", "What?", "--workflow", "retreive"], 2, "Did you mean 'retrieve'"),
        (["ask", "manual.txt", "What?", "--reader", "x"], 2, "no reader named 'x'"),
        (["ask", "manual.txt", "What?", "--max-tokens", "0"], 2, "Try --help"),
        (["ask", "manual.txt", "What?", "--trace", "no/such/file"], 2, "Cannot write the trace"),
        (["ask", "manual.txt", "What?", "--model", "@smollm2"], 2, "does not name what answers"),
        (["ask", "-i", "-", "What?"], 2, "with -i"),
        (["ask", "manual.txt", "What?", "--budget", "plenty"], 2, "is no budget"),
        (["ask", "manual.txt", "What?", "--budget", "cost=1"], 2, "--prices"),
        (["ask", "manual.txt", "What?", "--nonsense"], 2, "--nonsense"),
        (["index", "drop"], 2, "Say which index"),
        (["index", "info", "zzz"], 1, "No index in the cache"),
        (["trace", "manual.txt"], 1, "is not a trace"),
    ],
)
def test_bad_input_gets_one_sentence_and_a_code(
    arguments: list[str], code: int, message: str, longspan: Run, manual: str, tmp_path: Path
) -> None:
    (tmp_path / "empty.txt").write_text("")
    (tmp_path / "binary.txt").write_bytes(bytes(range(256)) * 20)
    (tmp_path / "hollow").mkdir()
    ran = longspan(*arguments)
    assert ran.code == code
    assert message in ran.err
    assert ran.err.startswith("longspan: ")
    assert len(ran.err.splitlines()) == 1
    assert not re.search(r"[^.?!)] Try --help", ran.err)
    assert ran.out == ""
    assert "Traceback" not in ran.err


def test_a_trace_that_may_not_be_written_is_known_before_the_work(
    longspan: Run, manual: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "access", lambda *_: False)
    ran = longspan("ask", manual, "How long is the warranty?", "--trace", "run.json")
    assert (ran.code, ran.out) == (2, "")
    assert "may not be written" in ran.err


def test_an_interrupt_is_one_line_and_130(longspan: Run, manual: str) -> None:
    class Interrupted(ScriptedScorer):
        async def loglikelihood(self, pairs):  # type: ignore[no-untyped-def]
            raise KeyboardInterrupt

    ran = longspan("ask", manual, "How long is the warranty?", llm=Interrupted())
    assert ran.code == 130
    assert ran.err.splitlines()[-1].startswith("longspan: Interrupted")


def test_an_interrupt_does_not_wait_for_threads(manual: str, tmp_path: Path) -> None:
    """Loading and indexing run in threads that nothing can stop; they write whole files or none."""
    code = (
        "import threading, time, longspan.cli as cli, longspan.corpus as corpus\n"
        "def busy(*_, **__):\n"
        "    threading.Thread(target=time.sleep, args=(60,)).start()\n"
        "    print('busy', flush=True)\n"
        "    time.sleep(60)\n"
        "corpus.Corpus.open = busy\n"
        "cli.main()\n"
    )
    arguments = [sys.executable, "-c", code, "ask", str(tmp_path / manual), "How long is the warranty?"]
    arguments += ["--model", "openai:any", "--base-url", "http://127.0.0.1:9/v1"]
    run = subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert run.stdout is not None and run.stdout.readline() == "busy\n"
    run.send_signal(signal.SIGINT)
    out, err = run.communicate(timeout=30)
    assert (run.returncode, out) == (130, "")
    assert err == "longspan: Interrupted; what was finished is kept.\n"


def test_an_error_does_not_wait_for_the_model(tmp_path: Path) -> None:
    code = (
        "import time, longspan.cli as cli, longspan.llm.local as local\n"
        "local.LocalLLM._load = lambda self: time.sleep(60)\n"
        "cli.main()\n"
    )
    arguments = [sys.executable, "-c", code, "ask", str(tmp_path / "absent.txt"), "How long is the warranty?"]
    run = subprocess.run(arguments, capture_output=True, text=True, timeout=30, check=False)
    assert (run.returncode, run.stdout) == (1, "")
    assert run.stderr.startswith("longspan: There is no file or folder") and run.stderr.count("\n") == 1


def test_a_surprise_is_one_line_too(longspan: Run, manual: str) -> None:
    class Broken(ScriptedScorer):
        async def loglikelihood(self, pairs):  # type: ignore[no-untyped-def]
            raise ZeroDivisionError("boom")

    ran = longspan("ask", manual, "How long is the warranty?", llm=Broken())
    assert ran.code == 70
    assert "Traceback" not in ran.err
    assert "boom" in ran.err


def test_indexes_are_listed_shown_and_dropped(longspan: Run, manual: str) -> None:
    assert "No indexes yet" in longspan("index", "list").err
    assert "is ready" in longspan("index", "build", manual).err
    [row] = json.loads(longspan("index", "list", "--json").out)
    assert row["documents"] == 1
    assert row["key"] in longspan("index", "list").out
    assert "passages: " in longspan("index", "info", row["key"][:6]).out
    assert "dropped" in longspan("index", "drop", row["key"][:6]).out
    assert longspan("index", "list", "--json").out.strip() == "[]"


def test_the_doctor_prints_facts(longspan: Run) -> None:
    facts = json.loads(longspan("doctor", "--json").out)
    assert facts["packages"]["torch"]
    assert facts["cores"] >= 1
    ran = longspan("doctor")
    assert ran.code == 0
    for word in ("processor", "cache", "embedded model"):
        assert word in ran.out


def test_help_and_version_come_at_once() -> None:
    for option in ("--help", "--version"):
        best = min(_seconds("-m", "longspan", option) for _ in range(3))
        assert best < 1.0, f"{option} took {best:.2f} s"  # 0.5 s on a quiet machine
    modules = subprocess.run(
        [sys.executable, "-c", "import sys, longspan.cli; print(' '.join(sys.modules))"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    assert not {"torch", "transformers", "lancedb", "numpy", "openai"} & set(modules)


def _seconds(*arguments: str) -> float:
    begin = time.perf_counter()
    subprocess.run([sys.executable, *arguments], check=True, capture_output=True, env={**os.environ})
    return time.perf_counter() - begin
