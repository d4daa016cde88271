"""The coding agent: commands on real files in a sandbox, lines that are cited, agents of the user's own."""

from __future__ import annotations

import asyncio
import re
import shutil
import sys

import pytest

from longspan.corpus import Corpus
from longspan.errors import LongspanError
from longspan.workflows import Answer, Settings, run
from longspan.workflows.coding_agent import TURNS, paths_of

from .conftest import MANUAL, Scripted

sandboxed = pytest.mark.skipif(shutil.which("bwrap") is None, reason="bubblewrap is not installed")


class Agent(Scripted):
    """Its replies are `turns`, one after the other, the last again and again."""

    def __init__(self, *turns: str) -> None:
        super().__init__()
        self.turns, self.seen = list(turns), []
        self.reply = self._next

    def _next(self, prompt: str) -> str:
        self.seen.append(prompt)
        return self.turns[min(len(self.seen), len(self.turns)) - 1]


def sh(command: str) -> str:
    return f"I look.\n```sh\n{command}\n```"


def asked(llm: Scripted, texts: dict[str, str] | None = None) -> Answer:
    corpus = Corpus.from_texts(texts or {"docs/manual.txt": MANUAL, "docs/other.txt": "Nothing.\n"})
    return asyncio.run(run("How long is the warranty?", corpus, llm, "coding-agent", Settings()))


@sandboxed
def test_commands_find_lines_which_are_cited_verbatim() -> None:
    line = next(at for at, text in enumerate(MANUAL.splitlines(), 1) if "36 months" in text)
    llm = Agent(
        sh("ls /corpus; grep -rn 'warranty lasts' /corpus | tee /tmp/note"),
        sh("cut -d: -f1,2 /tmp/note"),  # notes stay
        f"ANSWER: It lasts 36 months [/corpus/manual.txt:{line}].",
    )
    answer = asked(llm)
    assert answer.text == "It lasts 36 months [1]."
    assert answer.citations[0].quote == MANUAL.splitlines()[line - 1]
    assert answer.citations[0].document == "docs/manual.txt" and answer.citations[0].line_start == line
    assert f"/corpus/manual.txt:{line}:" in llm.seen[1]
    assert llm.seen[2].strip() == f"/corpus/manual.txt:{line}"


def test_without_protection_the_folder_is_where_it_really_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LONGSPAN_SANDBOX", "none")

    class Follows(Agent):
        async def chat(self, messages, **limits):  # type: ignore[no-untyped-def]
            folder = re.search(r"in the folder (\S+)", messages[0]["content"])[1]
            self.turns = [re.sub(r"(?<![\w-])/corpus", folder, turn) for turn in self.turns]
            return await super().chat(messages, **limits)

    llm = Follows(sh("grep -rn 'warranty lasts' /corpus"), "ANSWER: It lasts 36 months [/corpus/manual.txt:1].")
    answer = asked(llm)
    assert answer.text == "It lasts 36 months [1]." and answer.citations[0].quote == MANUAL.splitlines()[0]
    assert "36 months" in llm.seen[1]


@sandboxed
def test_the_files_cannot_be_written_and_failures_are_shown() -> None:
    llm = Agent(sh("echo x > /corpus/manual.txt; false"), "ANSWER: NONE")
    answer = asked(llm)
    assert answer.refused and answer.text == "The text does not say."
    assert "Read-only file system" in llm.seen[1] and "(exit code 1)" in llm.seen[1]


@sandboxed
def test_an_output_without_end_is_bounded() -> None:
    llm = Agent(sh("yes mill | head -c 60000000; echo"), "ANSWER: 36 months")
    answer = asked(llm)
    assert len(llm.seen[1]) < 3200 and "left out" in llm.seen[1]
    assert "36 months" in answer.citations[0].quote  # searched for, as none was named
    assert "named no lines" in answer.note


@sandboxed
def test_loops_are_told_and_ended() -> None:
    llm = Agent(sh("ls /corpus"))
    assert asked(llm).refused and len(llm.seen) == 3
    assert "ran this command before" in llm.seen[2]
    idle = Agent("Let me think.")
    answer = asked(idle)
    assert answer.refused and len(idle.seen) == TURNS and f"within {TURNS} turns" in answer.note


@sandboxed
def test_places_that_are_not_there_are_left_out() -> None:
    answer = asked(Agent("ANSWER: 36 months [/corpus/manual.txt:9999] [/corpus/none.txt:1] [/corpus/../etc/passwd:1]"))
    assert answer.text == "36 months"
    assert all("36 months" in citation.quote for citation in answer.citations)


def test_paths_are_safe_short_and_differ() -> None:
    texts = {"/a/b/x y.txt": "1", "/a/b/../../etc/passwd": "2", "/a/b/c/z.md": "3", "/a/b/x_y.txt": "4"}
    paths = list(paths_of(Corpus.from_texts(texts)))
    assert sorted(paths) == ["/corpus/c/z.md", "/corpus/etc/passwd", "/corpus/x_y.txt", "/corpus/x_y.txt.2"]
    assert list(paths_of(Corpus.from_texts({"https://x.org/a?b=1": "1"}))) == ["/corpus/a_b_1"]


def test_an_agent_of_the_users_own_gets_folder_and_question(monkeypatch: pytest.MonkeyPatch) -> None:
    program = (
        "import pathlib, sys; folder = pathlib.Path(sys.argv[1]); "
        "print('36 months', f'[{folder}/manual.txt:1]', sys.argv[2], sorted(p.name for p in folder.iterdir()))"
    )
    monkeypatch.setenv("LONGSPAN_AGENT", f'{sys.executable} -c "{program}" {{folder}} {{question}}')
    answer = asked(Scripted())
    assert answer.text.startswith("36 months [1] How long is the warranty? ['manual.txt', 'other.txt']")
    assert answer.citations[0].quote == MANUAL.splitlines()[0]
    monkeypatch.setenv("LONGSPAN_AGENT", f"{sys.executable} -c 'import sys; sys.exit(3)'")
    with pytest.raises(LongspanError, match="ended with code 3"):
        asked(Scripted())
    monkeypatch.setenv("LONGSPAN_AGENT", "no-such-agent {folder}")
    with pytest.raises(LongspanError, match="cannot be run"):
        asked(Scripted())


WHERE = next(number for number, line in enumerate(MANUAL.splitlines(), 1) if "36 months" in line)


@sandboxed
def test_commands_as_tools() -> None:
    """A model that calls tools is offered two; its calls come as replies that the protocol's schema reads."""
    replies = iter(
        [
            '{"do": {"action": "run", "command": "grep -rn warranty /corpus"}}',
            f'{{"do": {{"action": "answer", "text": "36 months [/corpus/manual.txt:{WHERE}]"}}}}',
        ]
    )
    llm = Scripted(lambda prompt: next(replies))
    llm.tools = True  # type: ignore[attr-defined]
    answer = asked(llm)
    assert answer.text == "36 months [1]" and "36 months" in answer.citations[0].quote
    assert "lasts 36 months" in llm.prompts[1]


@sandboxed
def test_a_model_that_was_to_call_tools_and_writes_is_read_as_text() -> None:
    llm = Scripted(f"ANSWER: 36 months [/corpus/manual.txt:{WHERE}]")
    llm.tools = True  # type: ignore[attr-defined]
    assert asked(llm).text == "36 months [1]"
