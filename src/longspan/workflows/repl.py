"""The Python that a model works in (`session`). It runs inside the sandbox, by itself: nothing of longspan is imported.

    python3 -I repl.py CONTEXT.json OUTPUT

It takes one JSON object a line from stdin and gives one a line to stdout: {"run": code} is answered by {"done": output,
"failed": …, "final": …}; in between it may ask {"ask": [[kind, prompt, text], …]}, which is answered by
{"replies": […]}. Variables stay from one run to the next. Of what is printed, the first OUTPUT characters are kept.
"""

import contextlib
import io
import json
import os
import subprocess
import sys
import tempfile
import traceback
from pathlib import Path
from typing import Any

requests, replies = os.fdopen(os.dup(0), encoding="utf-8"), os.fdopen(os.dup(1), "w", encoding="utf-8")
with Path(os.devnull).open("r+b") as nowhere:  # what the code writes by itself must not look like an answer
    os.dup2(nowhere.fileno(), 0)
    os.dup2(nowhere.fileno(), 1)


class Bounded(io.TextIOBase):
    """Keeps the beginning of what is printed, and counts the rest."""

    def __init__(self, most: int) -> None:
        self.most, self.length = most, 0
        self.parts: list[str] = []

    def writable(self) -> bool:
        return True

    def write(self, text: str) -> int:
        if self.length < self.most:
            self.parts.append(text[: self.most - self.length])
        self.length += len(text)
        return len(text)

    def text(self) -> str:
        left = self.length - self.most
        return "".join(self.parts) + (f"\n… {left} characters left out: print less." if left > 0 else "")


def send(message: dict[str, Any]) -> None:
    replies.write(json.dumps(message) + "\n")
    replies.flush()


def ask(asked: list[list[str]]) -> list[str]:
    send({"ask": asked})
    line = requests.readline()
    if not line:
        raise SystemExit
    return list(json.loads(line)["replies"])


def llm_query(prompt: str) -> str:
    """One call of a model, which sees the prompt alone."""
    return ask([["llm", str(prompt), ""]])[0]


def llm_query_batched(prompts: list[str]) -> list[str]:
    """Several calls at once."""
    return ask([["llm", str(prompt), ""] for prompt in prompts])


def rlm_query(question: str, text: str) -> str:
    """The same program as this one over another text: a model with a Python of its own."""
    return ask([["rlm", str(question), str(text)]])[0]


def sh(command: str) -> None:
    """Run a shell command and print what it prints."""
    with tempfile.TemporaryFile() as printed:
        streams: dict[str, Any] = {"stdin": subprocess.DEVNULL, "stdout": printed, "stderr": printed}
        ran = subprocess.run(["bash", "-c", command], check=False, **streams)
        printed.seek(0)
        sys.stdout.write(printed.read(4 * int(sys.argv[2])).decode("utf-8", "replace"))
    if ran.returncode:
        sys.stdout.write(f"(exit code {ran.returncode})\n")


final: list[str] = []


def FINAL(answer: object) -> None:
    """Ends the run with an answer."""
    final[:] = [str(answer)]


def main() -> None:
    context = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    names = {
        "__name__": "__main__",
        "context": context,
        "llm_query": llm_query,
        "llm_query_batched": llm_query_batched,
        "rlm_query": rlm_query,
        "sh": sh,
        "FINAL": FINAL,
    }
    for line in requests:
        printed, failed = Bounded(int(sys.argv[2])), False
        with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
            try:
                exec(compile(json.loads(line)["run"], "<code>", "exec"), names)
            except SystemExit:
                pass
            except BaseException:  # noqa: BLE001 - whatever it is, it is shown
                failed = True
                traceback.print_exc(limit=-3)
        send({"done": printed.text(), "failed": failed, "final": final[0] if final else None})


main()
