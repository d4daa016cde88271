"""Fetch the long manuals that the questions in this folder are about.

    python benchmarks/ask/texts.py NAME FOLDER

Python's help topics and the source of its package asyncio come from the interpreter, the rest from Debian packages
(`apt-get download` and `dpkg-deb -x`, no root needed). The questions were written against the versions of Debian 12
(bookworm) and Python 3.11.
"""

from __future__ import annotations

import argparse
import gzip
import os
import re
import shutil
import subprocess
import sys
import tempfile
from html.parser import HTMLParser
from pathlib import Path

# text: (Debian package, pattern of its files)
PACKAGES = {
    "debian-policy": ("debian-policy", "usr/share/doc/debian-policy/policy.txt.gz"),
    "jargon": ("jargon-text", "usr/share/doc/jargon-text/jargon.txt.gz"),
    "developers-reference": (
        "developers-reference",
        "usr/share/developers-reference/developers-reference.txt.gz",
    ),
    "bash": ("bash-doc", "usr/share/info/bash.info.gz"),
    "git-doc": ("git-doc", "usr/share/doc/git-doc/*.txt"),
    "debian-handbook": ("debian-handbook", "usr/share/doc/debian-handbook/html/en-US/*.html"),
}
NAMES = ("topics", "asyncio", *PACKAGES)

_TOPICS = "import sys; from pydoc_data.topics import topics; sys.stdout.buffer.write("
_TOPICS += r"'\n\n\n'.join(f'{key}\n{topics[key]}' for key in sorted(topics)).encode())"
_ASYNCIO = "import sys, os, asyncio; sys.stdout.buffer.write(os.fsencode(os.path.dirname(asyncio.__file__)))"


def fetch(name: str, folder: Path) -> list[Path]:
    """The files of text `name`, in reading order, under `folder / name`; made there where they are not yet."""
    if name not in NAMES:
        raise SystemExit(f"no text named {name!r}; there are: {', '.join(NAMES)}")
    place = Path(folder) / name
    if not place.is_dir():
        place.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{name}-", dir=place.parent) as scratch:
            made = Path(scratch) / "made"
            made.mkdir()
            if name == "topics":
                (made / "topics.txt").write_bytes(_python(name, _TOPICS))
            elif name == "asyncio":
                for path in Path(os.fsdecode(_python(name, _ASYNCIO))).glob("*.py"):
                    shutil.copyfile(path, made / path.name)
            else:
                _unpack(*PACKAGES[name], Path(scratch), made)
            try:
                made.rename(place)
            except OSError:
                if not place.is_dir():  # else another process was faster, with the same files
                    raise
    return sorted(path for path in place.iterdir() if path.suffix in {".txt", ".html", ".py"})


def plain(path: Path) -> str:
    """The text of a fetched file; of an HTML file what is left without its tags."""
    text = path.read_text(encoding="utf-8", errors="replace")
    if path.suffix != ".html":
        return text
    strip = _Strip()
    strip.feed(text)
    strip.close()
    return "".join(strip.parts)


def _python(name: str, code: str) -> bytes:
    """What `code`, run by Python 3.11, writes; it is for text `name`."""
    python = sys.executable if sys.version_info[:2] == (3, 11) else shutil.which("python3.11")
    if python is None:
        raise SystemExit(f"the text `{name}` is that of Python 3.11, and there is no python3.11 on the path")
    return subprocess.run([python, "-c", code], check=True, capture_output=True).stdout


def _unpack(package: str, pattern: str, scratch: Path, made: Path) -> None:
    for tool in ("apt-get", "dpkg-deb"):
        if shutil.which(tool) is None:
            raise SystemExit(f"{tool} is missing: the package {package} can only be fetched on Debian or a relative")
    environment = {**os.environ, "LC_ALL": "C"}
    done = subprocess.run(
        ["apt-get", "-qq", "download", package], cwd=scratch, env=environment, capture_output=True, text=True
    )
    archives = list(scratch.glob("*.deb"))
    if done.returncode or not archives:
        raise SystemExit(f"apt-get could not download {package} (try `apt-get update`):\n{done.stderr.strip()}")
    subprocess.run(["dpkg-deb", "-x", archives[0], scratch / "tree"], check=True)
    found = sorted((scratch / "tree").glob(pattern))
    if not found:
        raise SystemExit(f"{archives[0].name} has no {pattern}")
    for path in found:
        if path.name.endswith(".info.gz"):
            (made / f"{path.name.removesuffix('.info.gz')}.txt").write_text(
                _info(gzip.decompress(path.read_bytes())), "utf-8"
            )
        elif path.suffix == ".gz":
            (made / path.stem).write_bytes(gzip.decompress(path.read_bytes()))
        else:
            shutil.copyfile(path, made / path.name)


def _info(source: bytes) -> str:
    """An info manual without the marks between its nodes, their headers, and the table of tags at its end."""
    text = source.decode("utf-8").split("\x1f\nTag Table:", 1)[0]
    text = re.sub(r"\x1f\nFile: [^\n]*\n", "", text)
    return re.sub(r"\x00\x08\[.*?\x00\x08\]", "", text, flags=re.DOTALL)


class _Strip(HTMLParser):
    _SKIPPED = frozenset({"script", "style", "head"})
    _INLINE = frozenset(
        {"a", "b", "code", "em", "i", "kbd", "samp", "small", "span", "strong", "sub", "sup", "tt", "var"}
    )

    def __init__(self) -> None:
        super().__init__()
        self.parts: list[str] = []
        self._skipping = 0

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self._skipping += tag in self._SKIPPED
        if tag not in self._INLINE:
            self.parts.append("\n")

    def handle_endtag(self, tag: str) -> None:
        self._skipping -= tag in self._SKIPPED
        if tag not in self._INLINE:
            self.parts.append("\n")

    def handle_startendtag(self, tag: str, attrs: object) -> None:
        if tag not in self._INLINE:
            self.parts.append("\n")

    def handle_data(self, data: str) -> None:
        if not self._skipping:
            self.parts.append(data)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=NAMES)
    parser.add_argument("folder", type=Path)
    arguments = parser.parse_args()
    for path in fetch(arguments.name, arguments.folder):
        print(path)


if __name__ == "__main__":
    main()
