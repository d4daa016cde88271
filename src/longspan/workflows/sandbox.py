"""Where code that a model wrote is run: bubblewrap, with limits on time, memory, processes, disk and output.

Inside there is no network, nothing of the machine but `/usr` and what is mounted (read-only), no environment, and a
scratch folder `/tmp` in memory, which ends with the sandbox. Started by root, it runs as nobody.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from longspan.errors import LongspanError

NOBODY = 65534
ABSENT = (
    "Code that a model writes runs in a sandbox, and there is none on this machine: install bubblewrap "
    "(`apt install bubblewrap`), or set LONGSPAN_SANDBOX=none to run it unprotected."
)
# Limits of each process; `ulimit` inside the namespace counts the processes there alone.
LIMITED = 'ulimit -u "$1" -v "$2" 2>/dev/null; shift 2; exec "$@"'


@dataclass(frozen=True, slots=True)
class Limits:
    """`seconds` of one command, bytes of `memory` for each process and of `disk` for the scratch folder, `processes` at
    once, characters of `output` that are kept."""

    seconds: float = 30.0
    memory: int = 1 << 30
    disk: int = 64 << 20
    processes: int = 64
    output: int = 20_000


@dataclass(frozen=True, slots=True)
class Ran:
    """What a command printed (both streams, the middle left out where it is too long), its exit code, and whether it
    was stopped for taking too long."""

    output: str
    code: int
    stopped: bool


class Sandbox:
    """A sandbox with files mounted read-only: `files` maps a path inside to its content.

    >>> with Sandbox({"/corpus/a.txt": "mill"}) as sandbox:
    ...     print((await sandbox.run(["grep", "-c", "mill", "/corpus/a.txt"])).output)
    """

    def __init__(self, files: Mapping[str, str], limits: Limits = Limits()) -> None:
        self.limits = limits
        self.protected = os.environ.get("LONGSPAN_SANDBOX") != "none"
        self._bwrap = shutil.which("bwrap")
        if self.protected and self._bwrap is None:
            raise LongspanError(ABSENT)
        self._folder = tempfile.TemporaryDirectory(prefix="longspan-sandbox-")
        self.root = Path(self._folder.name)
        if self.protected and os.getuid() == 0:
            self.root.chmod(0o755)  # for nobody
        for name, content in files.items():
            place = self.root / name.lstrip("/")
            if not place.resolve().is_relative_to(self.root.resolve()):
                raise LongspanError(f"{name!r} is no path inside the sandbox.")
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_text(content, encoding="utf-8", errors="replace", newline="")

    def __enter__(self) -> Sandbox:
        return self

    def __exit__(self, *failure: object) -> None:
        self._folder.cleanup()

    def inside(self, path: str) -> str:
        """How a command names the file or folder at `path`; unprotected, it is where it really is."""
        return path if self.protected else f"{self.root}{path}"

    @property
    def python(self) -> str:
        """An interpreter that is there inside."""
        prefix = Path(sys.base_prefix)
        if not self.protected or self._readable(prefix):
            return str(prefix / "bin" / "python3")
        found = shutil.which("python3", path="/usr/bin")
        if found is None:
            raise LongspanError("The sandbox has no Python: install one below /usr.")
        return found

    def _readable(self, folder: Path) -> bool:
        """Whether whom the sandbox runs as can come to a folder."""
        if os.getuid() != 0:
            return True
        return all(place.stat().st_mode & 0o001 for place in (folder, *folder.parents))

    def argv(self, command: Sequence[str]) -> list[str]:
        """The command that runs `command` inside."""
        limits = self.limits
        # Outside of a namespace all of the user's processes would count.
        processes = str(limits.processes) if self.protected else "unlimited"
        limited = ["bash", "-c", LIMITED, "limits", processes, str(limits.memory // 1024), *command]
        if not self.protected:
            return limited
        assert self._bwrap is not None
        prefix = Path(sys.base_prefix)
        mounts = ["--ro-bind", "/usr", "/usr"]
        for name in ("lib", "lib64", "bin"):
            mounts += ["--symlink", f"usr/{name}", f"/{name}"]
        if not prefix.is_relative_to("/usr") and self._readable(prefix):
            mounts += ["--ro-bind", str(prefix), str(prefix)]
        for place in sorted(self.root.iterdir()):
            mounts += ["--ro-bind", str(place), f"/{place.name}"]
        return [
            self._bwrap,
            "--unshare-all",
            "--die-with-parent",
            "--new-session",
            *mounts,
            *("--proc", "/proc", "--dev", "/dev"),
            *("--size", str(limits.disk), "--tmpfs", "/tmp"),
            *("--remount-ro", "/", "--chdir", "/tmp"),
            *("--clearenv", "--setenv", "PATH", "/usr/bin", "--setenv", "HOME", "/tmp", "--setenv", "LANG", "C.UTF-8"),
            *limited,
        ]

    async def start(self, command: Sequence[str], *, stdin: int, stderr: int) -> asyncio.subprocess.Process:
        """`command` inside, with a pipe for its output; killing it ends everything that it began."""
        # None is as it is: only root can become another.
        nobody = NOBODY if self.protected and os.getuid() == 0 else None
        return await asyncio.create_subprocess_exec(
            *self.argv(command),
            stdin=stdin,
            stdout=asyncio.subprocess.PIPE,
            stderr=stderr,
            cwd="/" if self.protected else self.root,
            user=nobody,
            group=nobody,
            extra_groups=[] if nobody is not None else None,
            start_new_session=True,
            limit=1 << 24,
        )

    async def run(self, command: Sequence[str]) -> Ran:
        """Run `command` to its end, or until it takes too long."""
        process = await self.start(command, stdin=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.STDOUT)
        assert process.stdout is not None
        kept = Kept(self.limits.output)
        stopped = False
        try:
            async with asyncio.timeout(self.limits.seconds):
                while chunk := await process.stdout.read(1 << 16):
                    kept.add(chunk)
                await process.wait()
        except TimeoutError:
            stopped = True
        finally:
            await end(process)
        return Ran(kept.text(), process.returncode or 0, stopped)


class Kept:
    """The beginning and the end of an output, however long it is."""

    def __init__(self, characters: int) -> None:
        self.half = max(characters // 2, 1)
        self.head, self.tail, self.length = b"", b"", 0

    def add(self, chunk: bytes) -> None:
        self.length += len(chunk)
        room = self.half - len(self.head)
        self.head += chunk[:room]
        self.tail = (self.tail + chunk[room:])[-self.half :] if room < len(chunk) else self.tail

    def text(self) -> str:
        left = self.length - len(self.head) - len(self.tail)
        middle = f"\n… {left} bytes left out …\n".encode() if left else b""
        return (self.head + middle + self.tail).decode("utf-8", "replace")


async def end(process: asyncio.subprocess.Process) -> None:
    """Kill a process and what it began, if it still runs."""
    if process.returncode is None:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, 9)  # unprotected, there is no namespace that ends with it
        with suppress(ProcessLookupError):
            process.kill()
    await process.wait()
