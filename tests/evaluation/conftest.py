"""For evaluations: a tiny model in a folder, and inspect_ai kept quiet."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.engine.conftest import one_thread, tiny  # noqa: F401 - a fixture


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A random model over single bytes, window 512, as `save_pretrained` writes it."""
    folder = tmp_path_factory.mktemp("models") / "tiny"
    made = tiny("llama")
    made.model.save_pretrained(folder)
    made.tokenizer.save_pretrained(folder)
    return str(folder)


@pytest.fixture(autouse=True)
def quiet(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("INSPECT_DISPLAY", "none")
    monkeypatch.setenv("INSPECT_LOG_DIR", str(tmp_path / "inspect-logs"))
    monkeypatch.delenv("INSPECT_EVAL_MODEL", raising=False)
