"""The same samples to every spec, one row an answer, nothing lost."""

from __future__ import annotations

import re
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from fastapi import FastAPI, Request

from longspan.corpus import Corpus
from longspan.errors import UsageError
from longspan.evaluation.compare import compare, folder_name, names_of, parse_arguments
from longspan.evaluation.provider import LongspanAPI
from longspan.llm import LLM
from longspan.registry import register
from longspan.workflows import Answer, Settings

ARGUMENTS = {"lengths": "360,480", "depths": 2, "samples": 1}


@register("workflow", "finds-the-key")
async def finds_the_key(question: str, corpus: Corpus, llm: LLM, settings: Settings) -> Answer:
    """A workflow that reads the key out of its context, after one call of the model."""
    (document,) = corpus.documents()
    await llm.chat([{"role": "user", "content": question}], max_tokens=2)
    key = document.text.partition("The pass key is ")[2][:5]
    return Answer(question, key, False, [], "finds-the-key", llm.name)


def run(folder: Path, *specs: str, **options: Any) -> list[Any]:
    return compare(["passkey"], list(specs), folder, arguments=ARGUMENTS, display="none", **options)


def test_an_endpoint_is_asked_by_the_protocol_that_all_servers_speak(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = FastAPI()

    @app.post("/v1/chat/completions")
    async def chat(request: Request) -> Any:
        asked = (await request.json())["messages"][-1]["content"]
        key = re.search(r"pass key is (\d+)", asked)
        message = {"role": "assistant", "content": key[1] if key else "none"}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        usage = {"prompt_tokens": 400, "completion_tokens": 5, "total_tokens": 405}
        return {"id": "1", "object": "chat.completion", "created": 1, "model": "x", "choices": [choice], "usage": usage}

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server = uvicorn.Server(uvicorn.Config(app, port=port, log_level="critical", lifespan="off"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    for name in ("OPENAI_API_KEY", "http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    rows = run(tmp_path, "openai:x", base_url=f"http://127.0.0.1:{port}/v1", window=2048)
    server.should_exit = True
    thread.join(5)
    assert len(rows) == 4 and all(row.score == 1.0 and row.input_tokens == 400 for row in rows)


def test_specs_get_the_same_samples_and_each_answer_a_row(tiny_folder: str, tmp_path: Path) -> None:
    workflow = f"finds-the-key@{tiny_folder}"
    rows = run(tmp_path, tiny_folder, workflow)
    alone, read = ([row for row in rows if row.spec == spec] for spec in (tiny_folder, workflow))
    assert [row.sample for row in alone] == [row.sample for row in read]
    assert len(alone) == 4
    assert all(row.score == 1.0 for row in read)  # the workflow was given the context and the question apart
    assert not any(row.failed for row in rows)
    for row in rows:
        assert row.length - 92 <= row.tokens <= row.length  # filler of 90 bytes is this tokenizer's unit
        assert row.needles[0] in row.excerpt
        assert row.target[0] in row.needles[0]
        assert row.input_tokens > 0
        assert row.seconds > 0
    assert all(row.prefill_seconds > 0 and row.cache_bytes > 0 and row.peak_bytes > 0 for row in alone)
    assert all(row.calls == 1 and row.prefill_seconds > 0 for row in read)


def test_a_model_that_crashes_on_some_samples_is_counted_apart(
    tiny_folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = LongspanAPI.generate

    async def sometimes(self: LongspanAPI, input: Any, **others: Any) -> Any:
        if len(input[0].text) > 350:
            raise RuntimeError("out of memory")
        return await whole(self, input, **others)

    monkeypatch.setattr(LongspanAPI, "generate", sometimes)
    rows = run(tmp_path, tiny_folder)
    failed = [row for row in rows if row.failed]
    assert failed and len(failed) < len(rows)
    assert all(row.score is None and "out of memory" in row.error for row in failed)


def test_beyond_the_window_is_allowed_and_marked(tiny_folder: str, tmp_path: Path) -> None:
    rows = compare(
        ["passkey"],
        [tiny_folder],
        tmp_path,
        arguments={"lengths": "400,800", "depths": 1, "samples": 1},
        display="none",
    )
    assert [(row.length, row.above_window, row.failed) for row in rows] == [(400, False, False), (800, True, False)]


KILLED = """
import os, sys
from pathlib import Path
from longspan.evaluation.compare import compare
from longspan.evaluation.provider import LongspanAPI
whole, calls = LongspanAPI.generate, []
async def dies(self, **given):
    calls.append(1)
    if len(calls) == 4:
        os._exit(9)  # as kill -9: nothing is cleaned up
    return await whole(self, **given)
LongspanAPI.generate = dies
LongspanAPI.max_connections = lambda self: 1
compare(["passkey"], [sys.argv[1]], Path(sys.argv[2]), arguments={"lengths": "360,480", "depths": 2, "samples": 1},
        display="none")
"""


def test_a_killed_run_goes_on_with_what_is_missing(
    tiny_folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = subprocess.run([sys.executable, "-c", KILLED, tiny_folder, str(tmp_path)], capture_output=True, text=True)
    assert done.returncode == 9, done.stderr
    calls = 0
    whole = LongspanAPI.generate

    async def counting(self: LongspanAPI, **given: Any) -> Any:
        nonlocal calls
        calls += 1
        return await whole(self, **given)

    monkeypatch.setattr(LongspanAPI, "generate", counting)
    rows = run(tmp_path, tiny_folder)
    assert len(rows) == 4 and not any(row.failed for row in rows)
    assert calls <= 2  # the one in flight, and the one after it


def test_names_are_checked_before_anything_runs(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="Did you mean 'passkey'"):
        names_of(["passky"])
    with pytest.raises(UsageError, match="Did you mean 'retrieve'"):
        compare(["passkey"], ["retreive@smollm2"], tmp_path, arguments={})
    with pytest.raises(UsageError, match="None of these tasks takes 'lenghts'"):
        compare(["passkey"], ["smollm2"], tmp_path, arguments={"lenghts": "1k"})
    assert not list(tmp_path.iterdir())


def test_arguments_of_tasks() -> None:
    assert parse_arguments(["samples=5", "lengths=1k,2k", "x=true"]) == {"samples": 5, "lengths": "1k,2k", "x": True}
    with pytest.raises(UsageError, match="name=value"):
        parse_arguments(["samples"])


def test_a_spec_names_a_folder_and_no_path() -> None:
    assert folder_name("../../etc/passwd") == "_.._etc_passwd"
    assert folder_name("retrieve@smollm2+snapkv:keep=0.1") == "retrieve@smollm2+snapkv_keep=0.1"
