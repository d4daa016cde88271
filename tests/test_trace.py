"""Traces: to a file and back, as a page, as OpenTelemetry spans."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from longspan import trace as traces
from longspan.trace import Span, Usage, span
from longspan.trace_html import page
from longspan.trace_otlp import export

EVIL = "</pre><script>alert(1)</script><img src=x onerror=alert(2)> \"'&\ud800"


@pytest.fixture
def root() -> Span:
    with span("ask", "run", {"question": EVIL, "workflow": "direct", "model": "openai:small"}) as root:
        with span(f"read {EVIL}", "corpus") as step:
            step.output = {"passages": 3}
        messages = [{"role": "system", "content": "Answer."}, {"role": "user", "content": EVIL}]
        with span("chat openai:small", "llm", messages) as call:
            call.attributes = {"key": "k", "model": "openai:small", "max_tokens": 9, "finish_reason": "stop"}
            call.output, call.usage = EVIL, Usage(1, 100, 7, 40, 0.5, 0.25)
        with pytest.raises(ValueError, match="boom"), span("broken"):
            raise ValueError("boom")
        root.output = EVIL
    return root


def test_a_trace_comes_back_as_it_was(root: Span, tmp_path: Path) -> None:
    traces.save(root, tmp_path / "run.json")
    assert traces.load(tmp_path / "run.json") == root
    assert [step.name for step in root.walk()] == ["ask", f"read {EVIL}", "chat openai:small", "broken"]


class Page(HTMLParser):
    """Which tags open and close, and what is shown."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.shown: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag != "meta":
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.shown.append(data)


def test_the_page_shows_everything_and_runs_nothing(root: Span) -> None:
    html = page(root)
    parsed = Page()
    parsed.feed(html)
    parsed.close()
    assert parsed.open == []
    names = {tag for tag, _ in parsed.tags}
    assert not names & {"script", "img", "link", "iframe", "object"}
    assert not any(name.startswith("on") or name in ("src", "href") for _, attrs in parsed.tags for name in attrs)
    text = "".join(parsed.shown)
    assert text.count(EVIL.replace("\ud800", "?")) == 6  # title, heading, answer, step, prompt, completion
    assert "1 call · 100 + 7 tokens · cost 0.2500" in text
    assert "ValueError: boom" in text
    assert "prefers-color-scheme: dark" in html and 'name="viewport"' in html
    html.encode("utf-8")


def test_a_page_of_a_deep_and_wide_run() -> None:
    root = here = Span("root")
    for number in range(1200):
        here.children = [Span(f"step {number}")]
        here = here.children[0]
    here.children = [Span("leaf", "llm", [{"role": "user", "content": "x" * 50_000}]) for _ in range(100)]
    html = page(root)
    assert html.count("<details") == 1301
    assert "30000 characters more" in html


def attributes(span: dict[str, Any]) -> dict[str, Any]:
    return {pair["key"]: next(iter(pair["value"].values())) for pair in span["attributes"]}


def test_spans_are_those_that_a_collector_takes(root: Span) -> None:
    request = json.loads(json.dumps(export(root)))
    assert request == export(root)  # the same trace, the same ids
    [scope] = request["resourceSpans"][0]["scopeSpans"]
    spans = scope["spans"]
    ids = [span["spanId"] for span in spans]
    assert len(set(ids)) == len(spans) == 4
    assert all(re.fullmatch("[0-9a-f]{16}", each) for each in ids)
    assert {span["traceId"] for span in spans} == {spans[0]["traceId"]}
    assert re.fullmatch("[0-9a-f]{32}", spans[0]["traceId"])
    assert "parentSpanId" not in spans[0]
    assert all(span["parentSpanId"] == ids[0] for span in spans[1:])
    for each in spans:
        begin, end = int(each["startTimeUnixNano"]), int(each["endTimeUnixNano"])
        assert 1e18 < begin <= end
    call = next(span for span in spans if span["name"] == "chat openai:small")
    found = attributes(call)
    assert call["kind"] == 3 and call["status"]["code"] == 1
    assert found["gen_ai.operation.name"] == "chat"
    assert (found["gen_ai.provider.name"], found["gen_ai.request.model"]) == ("openai", "small")
    assert (found["gen_ai.usage.input_tokens"], found["gen_ai.usage.output_tokens"]) == ("100", "7")
    assert found["gen_ai.request.max_tokens"] == "9"
    assert found["gen_ai.response.finish_reasons"] == {"values": [{"stringValue": "stop"}]}
    assert json.loads(found["gen_ai.input.messages"])[1]["parts"] == [{"type": "text", "content": EVIL}]
    broken = next(span for span in spans if span["name"] == "broken")
    assert broken["status"] == {"code": 2, "message": "ValueError: boom"}
