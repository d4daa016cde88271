"""What an agent may do with a text, as actions of exact form: searching and reading it, and saying the answer.

A reply is one JSON object, `{"do": {"action": "search", "query": "..."}}`, held to its schema while it is written where
the model runs here, asked for and checked elsewhere; so every reply parses or is a counted failure.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any, Literal, Union, get_args

from pydantic import BaseModel, ConfigDict, Field, create_model

from longspan.workflows.answer import Citation
from longspan.workflows.atoms import Atoms
from longspan.workflows.passages import Unit, flat, units

Short = Annotated[str, Field(max_length=200)]
LineNumber = Annotated[int, Field(ge=0, le=999_999_999)]


class Action(BaseModel):
    """Base of actions: nothing but what is named."""

    model_config = ConfigDict(extra="forbid")


class Search(Action):
    """Search the text by words; the lines that fit best are shown with their numbers."""

    action: Literal["search"]
    query: Short


class Read(Action):
    """Show the lines around the one of this number, in the order of the text."""

    action: Literal["read"]
    line: LineNumber


class Say(Action):
    """End with the answer; NONE if the text does not hold it."""

    action: Literal["answer"]
    text: Annotated[str, Field(max_length=2_000)]


def protocol(*actions: type[Action]) -> type[BaseModel]:
    """The shape of a reply that is one of these actions, in its member `do`."""
    return create_model("Reply", __config__=ConfigDict(extra="forbid"), do=(Union[actions], ...))  # type: ignore[arg-type]  # noqa: UP007


def described(*actions: type[Action]) -> str:
    """The actions as a prompt tells them: their form and what they do."""
    lines = []
    for each in actions:
        fields = [f'"{name}": {_form(name, about.annotation)}' for name, about in each.model_fields.items()]
        lines.append(f'{{"do": {{{", ".join(fields)}}}}} - {flat(each.__doc__ or "")}')
    return "\n".join(lines)


def _form(name: str, kind: Any) -> str:
    if name == "action":
        return f'"{get_args(kind)[0]}"'
    return {int: "NUMBER", str: '"..."'}.get(kind, "[...]")


HITS = 5  # pieces that a search shows
AROUND = 3  # pieces that reading shows before and after
LINES = 100  # more than a piece of 64 tokens has units: a line's number is its piece's times this, plus its place there


class Lines:
    """The text as numbered lines (sentences, list items …), the numbers being the same throughout a run."""

    def __init__(self, atoms: Atoms) -> None:
        self.atoms = atoms

    def search(self, query: str) -> str:
        """The pieces of the text that fit a query best, line by line."""
        scores = self.atoms.scores(query)
        best = sorted((at for at in range(len(scores)) if scores[at] > 0), key=lambda at: (-scores[at], at))
        return self._shown(sorted(best[:HITS])) or "Nothing has these words."

    def read(self, line: int) -> str:
        """The lines around one."""
        piece = line // LINES
        if not 0 <= piece < len(self.atoms.found):
            return f"There is no line {line}: the last is {len(self.atoms.found) * LINES - 1} or before."
        return self._shown(range(max(piece - AROUND, 0), min(piece + AROUND + 1, len(self.atoms.found))))

    def unit(self, line: int) -> Unit | None:
        """What stands in a line; None where there is no such line."""
        piece, at = divmod(line, LINES)
        if not 0 <= piece < len(self.atoms.found):
            return None
        found = units(self.atoms.corpus, [self.atoms.found[piece]])[:LINES]
        return found[at] if at < len(found) else None

    def text(self, line: int) -> str:
        """A line as it is shown, without its number."""
        unit = self.unit(line)
        return flat(unit.text) if unit else ""

    def _shown(self, pieces: Iterable[int]) -> str:
        shown: list[str] = []
        for piece in pieces:
            found = units(self.atoms.corpus, [self.atoms.found[piece]])[:LINES]
            shown += [f"[{piece * LINES + at}] {flat(unit.text)}" for at, unit in enumerate(found)]
        return "\n".join(shown)

    def citation(self, line: int) -> Citation | None:
        unit = self.unit(line)
        return Citation.of(unit.document, unit.start, unit.end, 1.0) if unit else None
