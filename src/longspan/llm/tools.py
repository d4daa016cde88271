"""Actions as tools: a schema whose `do` is one of several actions, in the form that servers call function calling."""

from __future__ import annotations

import json
from typing import Any


def tools_of(schema: dict[str, Any] | None) -> list[dict[str, Any]] | None:
    """The tools that a schema of actions offers, one an action; None for any other schema.

    A schema of actions is an object whose one member, `do`, is one of several objects, each told apart by a constant
    `action` (see `workflows.actions.protocol`).
    """
    if schema is None or set(schema.get("properties", {})) != {"do"}:
        return None
    known = schema.get("$defs", {})
    tools = []
    for option in schema["properties"]["do"].get("anyOf", []):
        action = known.get(str(option.get("$ref", "")).rpartition("/")[2], option)
        members = dict(action.get("properties", {}))
        name = members.pop("action", {}).get("const")
        if not name:
            return None
        parameters: dict[str, Any] = {
            "type": "object",
            "properties": members,
            "required": [each for each in action.get("required", []) if each != "action"],
            "additionalProperties": False,
        }
        if "$ref" in json.dumps(members):
            parameters["$defs"] = {
                key: value for key, value in known.items() if f"#/$defs/{key}" in json.dumps(members)
            }
        function = {"name": name, "description": action.get("description", ""), "parameters": parameters}
        tools.append({"type": "function", "function": function})
    return tools or None


def reply_of(name: str, arguments: str) -> str:
    """A call of a tool as the reply that the schema asks for.

    Arguments that are no JSON object stay as text, to be told wrong where the reply is read.
    """
    try:
        given = json.loads(arguments or "{}")
    except ValueError:
        return arguments
    return json.dumps({"do": {"action": name, **given}}) if isinstance(given, dict) else arguments
