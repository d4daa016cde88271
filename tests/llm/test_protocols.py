"""Workflows over an endpoint, by recorded protocols: each request is the one that was recorded, and so is the answer.

What the server said was recorded once from the simulated reader. After a prompt was changed on purpose,
`LONGSPAN_RECORD=1 pytest tests/llm/test_protocols.py` records anew; read what changed before you commit it.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from longspan import cli
from longspan.llm import Message, Sampling, SimulatedLLM
from longspan.reproductions._shares import chain, other_chains

from .conftest import Reply, Server, called, chunks, failure

PROTOCOLS = Path(__file__).parent / "protocols"
ASKED, VALUE, FACTS = chain(3, "protocol")
PASS_KEY = "70519"
USAGE = {"prompt_tokens": 100, "completion_tokens": 10, "total_tokens": 110}


def text() -> str:
    """A pass key and the facts of a chain, far from one another among others, in about 1500 words."""
    filler = "The mill turns while the river is high, and the miller sleeps when it is low."
    facts = iter([*FACTS, *other_chains(4, "protocol"), f"The pass key is {PASS_KEY}."])
    lines = [next(facts, filler) if number % 12 == 5 else filler for number in range(100)]
    return "\n\n".join(lines) + "\n"


def schema_of(request: dict[str, Any]) -> dict[str, Any] | None:
    """What the simulated reader is to follow: the request's schema, or one of the actions that it offers as tools."""
    if "tools" in request:
        names = [tool["function"]["name"] for tool in request["tools"]]
        known = {name: {"properties": {"action": {"const": name}}} for name in names}
        return {"properties": {"do": {}}, "$defs": known}
    return request["response_format"]["json_schema"]["schema"] if "response_format" in request else None


def read(request: dict[str, Any]) -> dict[str, Any]:
    """The simulated reader's reply, as a protocol keeps it."""
    messages = [Message(role=each["role"], content=each["content"]) for each in request["messages"]]
    how = Sampling(temperature=request.get("temperature", 0.0), seed=request.get("seed"))
    llm = SimulatedLLM("exact")
    said = llm.chat(messages, max_tokens=request["max_tokens"], sampling=how, schema=schema_of(request))
    with ThreadPoolExecutor() as aside:  # the server's own loop runs in this thread
        reply = aside.submit(asyncio.run, said).result().text
    if "tools" not in request:
        return {"text": reply}
    arguments = json.loads(reply)["do"]
    return {"tool": arguments.pop("action"), "arguments": arguments}


def spoken(reply: dict[str, Any]) -> Reply:
    if "tool" in reply:
        return called(reply["tool"], json.dumps(reply["arguments"]))
    return chunks(reply["text"], usage=USAGE)


SANDBOXED = pytest.mark.skipif(shutil.which("bwrap") is None, reason="bubblewrap is not installed")
WORKFLOWS = ["lambda-rlm", "extagents", "agenticlu", "laser", "memex", pytest.param("coding-agent", marks=SANDBOXED)]


@pytest.mark.parametrize("workflow", WORKFLOWS)
def test_a_workflow_sends_what_was_recorded_and_finds_the_answer(
    workflow: str, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    kept = PROTOCOLS / f"{workflow}.json"
    recording = "LONGSPAN_RECORD" in os.environ
    known: list[dict[str, Any]] = [] if recording else json.loads(kept.read_text(encoding="utf-8"))
    replies = {json.dumps(each["request"], sort_keys=True): each["reply"] for each in known}
    sent = set()

    def reply(body: dict[str, Any]) -> Any:
        request = json.dumps(body, sort_keys=True)
        sent.add(request)
        if recording and request not in replies:
            replies[request] = read(body)
        return spoken(replies[request])(body) if request in replies else failure(400, "this was not recorded")

    server.answer(reply)
    monkeypatch.setenv("LONGSPAN_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "book.txt").write_text(text())
    question, value = ("What is the pass key?", PASS_KEY) if workflow == "lambda-rlm" else (ASKED, VALUE)
    asked = ["ask", "book.txt", question, "--workflow", workflow, "--model", "openai:recorded"]
    monkeypatch.setattr(sys, "argv", ["longspan", *asked, "--base-url", server.url, "--window", "4096"])
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    printed = capsys.readouterr()
    assert not stopped.value.code, printed.err
    assert value in printed.out
    assert sent == set(replies)
    if recording:
        rows = [{"request": json.loads(request), "reply": reply} for request, reply in sorted(replies.items())]
        kept.parent.mkdir(exist_ok=True)
        kept.write_text(json.dumps(rows, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
