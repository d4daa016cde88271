"""Even a random model obeys a schema."""

from __future__ import annotations

import json
from typing import Any

import jsonschema
import pytest

from longspan.engine import Engine, Grammar, Sampling
from longspan.errors import LongspanError
from longspan.models import LoadedModel, render

SCHEMAS: list[dict[str, Any]] = [
    {"type": "boolean"},
    {"enum": ["yes", "no", "it does not say"]},
    {"type": "array", "items": {"type": "integer", "minimum": 0, "maximum": 99}, "minItems": 1, "maxItems": 3},
    {
        "type": "object",
        "properties": {"answer": {"type": "string", "maxLength": 12}, "sure": {"type": "boolean"}},
        "required": ["answer", "sure"],
        "additionalProperties": False,
    },
]


@pytest.mark.parametrize("schema", SCHEMAS, ids=str)
@pytest.mark.parametrize("sampling", [Sampling(), Sampling(temperature=1.5, seed=3)], ids=["greedy", "hot"])
def test_output_follows_the_schema(llama: LoadedModel, schema: dict[str, Any], sampling: Sampling) -> None:
    results = Engine(llama).generate(
        [[1, 2, 3], [50, 60]], max_tokens=150, sampling=sampling, grammar=Grammar(schema, llama)
    )
    for result in results:
        assert result.finish_reason == "stop"
        jsonschema.validate(json.loads(result.text), schema)


def test_a_cut_object_says_so(llama: LoadedModel) -> None:
    result = Engine(llama).generate([[1, 2]], max_tokens=5, grammar=Grammar(SCHEMAS[3], llama))[0]
    assert result.finish_reason == "length"
    assert '{"answer":"'.startswith(result.text[:5])


def test_smollm2_fills_in_a_form(smollm2: LoadedModel) -> None:
    schema = {"type": "object", "properties": {"capital": {"type": "string"}}, "required": ["capital"]}
    ids = render([{"role": "user", "content": "What is the capital of France?"}], smollm2)
    result = Engine(smollm2).generate([ids], max_tokens=30, grammar=Grammar(schema, smollm2))[0]
    assert "Paris" in json.loads(result.text)["capital"]


@pytest.mark.parametrize("schema", [{"type": "nonsense"}, {"type": "object", "$ref": "#/nowhere"}])
def test_an_unsupported_schema_is_an_error(llama: LoadedModel, schema: dict[str, Any]) -> None:
    with pytest.raises(LongspanError, match="cannot be enforced"):
        Grammar(schema, llama)
