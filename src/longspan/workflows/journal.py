"""What a long run has finished, kept so that a run that was stopped goes on where it was."""

from __future__ import annotations

import contextlib
import hashlib
import json
from pathlib import Path
from typing import Any

from longspan.paths import cache_home


class Journal:
    """An append-only file of finished steps: one JSON line each, written whole before the next begins.

    `run` is anything that, when it differs, makes the steps different (question, model, prompts). A line that was cut
    by a crash is ignored. A full disk costs the resuming, not the run.
    """

    def __init__(self, *run: Any) -> None:
        digest = hashlib.sha256(json.dumps(run, ensure_ascii=True).encode()).hexdigest()[:24]
        self.path: Path = cache_home() / "journals" / f"{digest}.jsonl"
        self._done: dict[str, Any] = {}
        with contextlib.suppress(OSError):
            for line in self.path.read_text(encoding="utf-8").splitlines():
                with contextlib.suppress(ValueError, KeyError):
                    step = json.loads(line)
                    self._done[step["key"]] = step["value"]

    @staticmethod
    def key(*step: Any) -> str:
        return hashlib.sha256(json.dumps(step, ensure_ascii=True).encode()).hexdigest()[:24]

    def get(self, key: str) -> Any:
        """The step's kept value, or None."""
        return self._done.get(key)

    def put(self, key: str, value: Any) -> None:
        self._done[key] = value
        with contextlib.suppress(OSError):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps({"key": key, "value": value}, ensure_ascii=True) + "\n")

    def drop(self) -> None:
        """Forget the run: it is complete."""
        self.path.unlink(missing_ok=True)
