"""Threads import at the same time: transformers replaces its modules while they load, which breaks the second one."""

import subprocess
import sys
from textwrap import dedent

import pytest


@pytest.mark.parametrize(
    "use",
    [
        "import longspan.models; longspan.models.load",
        "import longspan.engine; longspan.engine.Engine",
        "from pathlib import Path; from longspan.retrieval.encoder import _loaded; _loaded(Path('none'))",
    ],
)
def test_whoever_imports_transformers_waits_for_others_that_do(use: str) -> None:
    script = f"""
    import sys, threading
    from longspan.models import importing

    def other():
        try:
            exec({use!r})
        except Exception as error:
            print(type(error).__name__, error)

    with importing:
        thread = threading.Thread(target=other)
        thread.start()
        thread.join(1.5)
        print("waits", thread.is_alive(), "transformers" in sys.modules)
    thread.join()
    print("transformers" in sys.modules)
    """
    ran = subprocess.run([sys.executable, "-c", dedent(script)], capture_output=True, text=True, timeout=100)
    lines = ran.stdout.splitlines()
    assert lines[0] == "waits True False", ran
    assert lines[-1] == "True", ran
    assert "ImportError" not in ran.stdout
