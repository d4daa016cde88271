"""A Python session that lasts over several pieces of code, in the sandbox, whose code may ask for calls of a model."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from importlib import resources
from typing import Any

from longspan.workflows.sandbox import Limits, Sandbox, end

Answers = Callable[[Sequence[Any]], Awaitable[list[str]]]


class Session:
    """A Python session in a sandbox, begun anew when its code had to be stopped.

    `files` are mounted (see `Sandbox`), `context` is JSON for the variable of that name, and of what a piece of code
    prints the first `output` characters are kept.
    """

    def __init__(self, files: Mapping[str, str], context: str, limits: Limits, output: int) -> None:
        program = resources.files("longspan.workflows").joinpath("repl.py").read_text(encoding="utf-8")
        work = {"/work/repl.py": program, "/work/context.json": context}
        self.sandbox = Sandbox({**files, **work}, limits)
        self.limits = limits
        self.output = output
        self._process: asyncio.subprocess.Process | None = None

    async def __aenter__(self) -> Session:
        return self

    async def __aexit__(self, *failure: object) -> None:
        if self._process is not None:
            await end(self._process)
        self.sandbox.__exit__(*failure)

    async def _start(self) -> asyncio.subprocess.Process:
        inside = self.sandbox.inside
        program = [inside("/work/repl.py"), inside("/work/context.json"), str(self.output)]
        pipe, nowhere = asyncio.subprocess.PIPE, asyncio.subprocess.DEVNULL
        return await self.sandbox.start([self.sandbox.python, "-I", *program], stdin=pipe, stderr=nowhere)

    async def run(self, code: str, answers: Answers | None = None) -> tuple[str, str | None]:
        """What the code printed, and the final answer if it gave one. `answers` (asked → replies) makes its calls; the
        time that they take is not the code's."""
        if self._process is None:
            self._process = await self._start()
        process, left = self._process, self.limits.seconds
        assert process.stdin is not None and process.stdout is not None
        message: dict[str, Any] = {"run": code}
        why = "ended the session"
        while True:
            with suppress(ConnectionError):
                process.stdin.write(json.dumps(message).encode() + b"\n")
                await process.stdin.drain()
            begin = asyncio.get_running_loop().time()
            try:
                async with asyncio.timeout(left):
                    line = await process.stdout.readline()
                said = json.loads(line) if line else None
            except TimeoutError:
                why, said = f"took longer than {self.limits.seconds:g} s and was stopped", None
            except ValueError:  # a line that is too long, or no JSON: the code has written there itself
                said = None
            left -= asyncio.get_running_loop().time() - begin
            if isinstance(said, dict) and isinstance(said.get("ask"), list):
                try:
                    message = {"replies": await answers(said["ask"]) if answers else ["" for _ in said["ask"]]}
                except (TypeError, ValueError):
                    said = None
                else:
                    continue
            if not isinstance(said, dict) or not isinstance(said.get("done"), str):
                await end(process)
                self._process = None
                return f"The code {why}; its variables are lost.", None
            final = said.get("final")
            return said["done"], None if final is None else str(final)
