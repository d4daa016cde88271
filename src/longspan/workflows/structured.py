"""Answers of a given shape: schema, parse, one repair, and a failure that is counted."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from longspan.llm import LLM, Message, OffSchema
from longspan.trace import span

REPAIR = (
    "That is not what was asked for: {why}. Reply again with one JSON object that follows this JSON schema, and "
    "nothing else:\n{schema}"
)
REASONS = 300  # characters of what was wrong that the repair says

Shape = TypeVar("Shape", bound=BaseModel)


async def structured(llm: LLM, messages: Sequence[Message], shape: type[Shape], *, max_tokens: int) -> Shape | None:
    """The model's answer as a `shape` (a pydantic model, best with `extra="forbid"`).

    The schema goes along with the call. What does not parse is shown to the model once with what is wrong; None is a
    failure of the repair too, which the span named `unparsed` counts (`failures`).
    """
    schema = shape.model_json_schema()
    said = list(messages)
    for _ in range(2):
        try:
            text = (await llm.chat(said, max_tokens=max_tokens, schema=schema)).text
        except OffSchema as error:
            text = error.completion.text
        try:
            return shape.model_validate_json(_object(text))
        except ValidationError as error:
            why = "; ".join(f"{'.'.join(map(str, e['loc'])) or 'it'}: {e['msg']}" for e in error.errors())[:REASONS]
        said = [
            *messages,
            {"role": "assistant", "content": text},
            {"role": "user", "content": REPAIR.format(why=why, schema=json.dumps(schema))},
        ]
    with span("unparsed", "failure", shape.__name__) as step:
        step.output = text
        step.error = why
    return None


def _object(text: str) -> str:
    """The JSON object in an answer, without what stands around it (a fence, a sentence)."""
    found = re.search(r"\{.*\}", text, re.DOTALL)
    return found[0] if found else text
