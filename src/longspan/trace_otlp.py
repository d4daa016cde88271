"""A run as OpenTelemetry spans: OTLP in its JSON encoding, as collectors take it at /v1/traces.

Attribute names are those of OpenTelemetry's semantic conventions for generative AI (`gen_ai.*`). Ids are hashes of the
trace, so that the same trace is exported to the same spans.
"""

from __future__ import annotations

import hashlib
import json
from importlib.metadata import version
from typing import Any

from longspan.trace import Span

VERSION = version("longspan")

INTERNAL, CLIENT = 1, 3  # SpanKind
OK, ERROR = 1, 2  # StatusCode


def export(root: Span) -> dict[str, Any]:
    """The `ExportTraceServiceRequest` of one run, as JSON values (64-bit integers are strings there)."""
    whole = hashlib.sha256(json.dumps(root.to_dict(), ensure_ascii=True, sort_keys=True).encode()).hexdigest()
    trace_id = whole[:32]
    spans: list[dict[str, Any]] = []
    todo: list[tuple[Span, str, str]] = [(root, "", "0")]
    while todo:
        here, parent, place = todo.pop()
        span_id = hashlib.sha256(f"{whole}/{place}".encode()).hexdigest()[:16]
        spans.append(_span(here, trace_id, span_id, parent))
        todo += [(child, span_id, f"{place}.{at}") for at, child in reversed(list(enumerate(here.children)))]
    return {
        "resourceSpans": [
            {
                "resource": {"attributes": _attributes({"service.name": "longspan", "service.version": VERSION})},
                "scopeSpans": [{"scope": {"name": "longspan", "version": VERSION}, "spans": spans}],
            }
        ]
    }


def _span(here: Span, trace_id: str, span_id: str, parent: str) -> dict[str, Any]:
    begin = round(here.started * 1e9)
    status: dict[str, Any] = {"code": OK} if here.error is None else {"code": ERROR, "message": here.error}
    return {
        "traceId": trace_id,
        "spanId": span_id,
        **({"parentSpanId": parent} if parent else {}),
        "name": here.name,
        "kind": CLIENT if here.kind == "llm" else INTERNAL,
        "startTimeUnixNano": str(begin),
        "endTimeUnixNano": str(begin + round(here.seconds * 1e9)),
        "attributes": _attributes(_gen_ai(here) if here.kind == "llm" else _step(here)),
        "status": status,
    }


def _step(here: Span) -> dict[str, Any]:
    return {"longspan.kind": here.kind, "longspan.input": here.input, "longspan.output": here.output}


def _gen_ai(here: Span) -> dict[str, Any]:
    facts = here.attributes
    model = facts.get("model", here.name.partition(" ")[2])
    scored = here.name.startswith("score ")
    messages = None if scored or here.input is None else [_message(m["role"], m["content"]) for m in here.input]
    said = isinstance(here.output, str)
    output = [{**_message("assistant", here.output), "finish_reason": facts.get("finish_reason")}] if said else None
    reason = facts.get("finish_reason")
    return {
        "gen_ai.operation.name": "longspan.score" if scored else "chat",
        "gen_ai.provider.name": "openai" if model.startswith("openai:") else "longspan",
        "gen_ai.request.model": model.removeprefix("openai:"),
        "gen_ai.request.max_tokens": facts.get("max_tokens"),
        "gen_ai.request.temperature": facts.get("temperature", None if scored else 0.0),
        "gen_ai.request.top_p": facts.get("top_p"),
        "gen_ai.request.top_k": facts.get("top_k"),
        "gen_ai.request.seed": facts.get("seed"),
        "gen_ai.request.stop_sequences": facts.get("stop"),
        "gen_ai.output.type": "json" if facts.get("schema") else None if scored else "text",
        "gen_ai.response.finish_reasons": [reason] if reason else None,
        "gen_ai.usage.input_tokens": here.usage.prompt_tokens,
        "gen_ai.usage.output_tokens": here.usage.completion_tokens,
        "gen_ai.usage.cache_read.input_tokens": here.usage.cached_tokens,
        "gen_ai.input.messages": json.dumps(messages, ensure_ascii=True) if messages else None,
        "gen_ai.output.messages": json.dumps(output, ensure_ascii=True) if output else None,
        "longspan.cost": here.usage.cost,
        "longspan.kept": facts.get("kept"),
        "error.type": here.error.partition(":")[0] if here.error else None,
    }


def _message(role: str, text: str) -> dict[str, Any]:
    return {"role": role, "parts": [{"type": "text", "content": text}]}


def _attributes(values: dict[str, Any]) -> list[dict[str, Any]]:
    """Key-value pairs of OTLP; what is None is left out."""
    return [{"key": name, "value": _value(value)} for name, value in values.items() if value is not None]


def _value(value: Any) -> dict[str, Any]:
    if isinstance(value, bool):
        return {"boolValue": value}
    if isinstance(value, int):
        return {"intValue": str(value)}
    if isinstance(value, float):
        return {"doubleValue": value}
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        return {"arrayValue": {"values": [_value(item) for item in value]}}
    return {"stringValue": value if isinstance(value, str) else json.dumps(value, ensure_ascii=True)}
