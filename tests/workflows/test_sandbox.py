"""The sandbox stops what code must not do, and keeps what it may."""

from __future__ import annotations

import asyncio
import shutil
import time
from pathlib import Path

import pytest

from longspan.errors import LongspanError
from longspan.workflows.sandbox import Kept, Limits, Ran, Sandbox

needed = pytest.mark.skipif(shutil.which("bwrap") is None, reason="bubblewrap is not installed")


def python(code: str, limits: Limits = Limits(seconds=20.0)) -> Ran:  # noqa: B008
    with Sandbox({"/corpus/a.txt": "The mill grinds.\n"}, limits) as sandbox:
        return asyncio.run(sandbox.run([sandbox.python, "-I", "-c", code]))


@needed
def test_the_corpus_is_read_and_not_written() -> None:
    ran = python("print(open('/corpus/a.txt').read()); open('/tmp/note', 'w').write('x'); open('/corpus/a.txt', 'w')")
    assert "The mill grinds." in ran.output and "Read-only file system" in ran.output
    assert ran.code != 0 and not ran.stopped


@needed
def test_a_socket_goes_nowhere() -> None:
    ran = python("import socket; socket.create_connection(('192.0.2.1', 80), 2)")
    assert "unreachable" in ran.output.lower()


@needed
def test_nothing_of_the_machine_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "secret").write_text("password")
    monkeypatch.setenv("SECRET_KEY", "password")
    ran = python(
        "import os\n"
        f"for path in ({str(tmp_path / 'secret')!r}, '/etc/passwd', '/root', '/home'):\n"
        "    print(os.path.exists(path))\n"
        "print(os.environ.get('SECRET_KEY'))"
    )
    assert ran.output.split() == ["False"] * 4 + ["None"]


@needed
def test_a_fork_bomb_ends_with_its_sandbox() -> None:
    begin = time.monotonic()
    ran = python(
        "import os, time\n"
        "born = 0\n"
        "try:\n"
        "    while True:\n"
        "        if os.fork() == 0:\n"
        "            time.sleep(60); os._exit(0)\n"
        "        born += 1\n"
        "except OSError as error:\n"
        "    print(born, error)",
        Limits(seconds=20.0, processes=24),
    )
    assert "Resource temporarily unavailable" in ran.output
    assert int(ran.output.split()[0]) < 24
    assert time.monotonic() - begin < 20


@needed
def test_disk_and_memory_have_an_end() -> None:
    ran = python("open('/tmp/x', 'wb').write(b'0' * (80 << 20))", Limits(disk=8 << 20))
    assert "No space left" in ran.output
    assert "MemoryError" in python("x = bytearray(3 << 30)", Limits(memory=512 << 20)).output
    assert "Read-only" in python("open('/x', 'w')").output


@needed
def test_a_gigabyte_of_output_is_cut() -> None:
    ran = python(
        "import sys\nfor _ in range(1024): sys.stdout.write('y' * (1 << 20))\nprint('end')", Limits(seconds=60.0)
    )
    assert len(ran.output) < 21_000
    assert "bytes left out" in ran.output and ran.output.rstrip().endswith("end")


@needed
def test_what_takes_too_long_is_stopped() -> None:
    begin = time.monotonic()
    ran = python("while True: pass", Limits(seconds=0.7))
    assert ran.stopped and time.monotonic() - begin < 10


def test_a_path_out_of_the_sandbox_is_refused() -> None:
    for path in ("/corpus/../../x", "../x"):
        with pytest.raises(LongspanError):
            Sandbox({path: "x"})


def test_without_bubblewrap_code_is_refused_unless_the_user_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("longspan.workflows.sandbox.shutil.which", lambda name, path=None: None)
    with pytest.raises(LongspanError, match="bubblewrap"):
        Sandbox({})
    monkeypatch.setenv("LONGSPAN_SANDBOX", "none")
    with Sandbox({"/corpus/a.txt": "mill"}) as sandbox:
        ran = asyncio.run(sandbox.run(["cat", str(sandbox.root / "corpus/a.txt")]))
    assert (ran.output, ran.code) == ("mill", 0)


@pytest.mark.parametrize("sizes", [[3], [10], [11], [4, 4, 4], [50, 1], [1, 50], [7] * 9])
def test_the_ends_of_an_output_are_kept(sizes: list[int]) -> None:
    whole, kept = "".join(chr(97 + at % 26) for at in range(sum(sizes))), Kept(10)
    at = 0
    for size in sizes:
        kept.add(whole[at : at + size].encode())
        at += size
    if len(whole) <= 10:
        assert kept.text() == whole
    else:
        assert kept.text() == f"{whole[:5]}\n… {len(whole) - 10} bytes left out …\n{whole[-5:]}"
