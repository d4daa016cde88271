"""A large text file as parts, each a document of its own, so that no more than a part of it need be in memory.

Only plain UTF-8 is parted, at blank lines where there are any, else at line ends; every other file is read whole.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from longspan.corpus.document import Document
from longspan.corpus.reading import SAMPLE, identify, is_plain, kind_of, refuse_binary
from longspan.errors import LongspanError

LARGE_BYTES = 32_000_000  # a file up to this size is one document
PART_BYTES = 8_000_000


@dataclass(frozen=True, slots=True)
class Part:
    """`size` bytes of a file from byte `begin` on, whose first character is its `offset`-th, in its `line`-th line.

    `key` is the id of the part's document: the hash of its bytes, its name and its place.
    """

    path: Path
    name: str
    key: str
    begin: int
    size: int
    offset: int
    line: int

    def load(self) -> Document:
        """The part as a document; raises LongspanError where the file was changed since it was parted."""
        try:
            with self.path.open("rb") as file:
                file.seek(self.begin)
                data = file.read(self.size)
        except OSError as error:
            raise LongspanError(f"{self.name} cannot be read: {error.strerror or error}.") from error
        if _key(self.name, self.offset, data) != self.key:
            raise LongspanError(f"{self.name} was changed while it was read: ask again.")
        text = data.decode("utf-8")
        return Document(self.key, self.name, text, kind_of(self.name), offset=self.offset, line=self.line)


def parts(path: Path, name: str) -> list[Part]:
    """The parts of a large text file in order, without those of white space alone; none if it is to be read whole."""
    found: list[Part] = []
    with path.open("rb") as file:
        if os.fstat(file.fileno()).st_size <= LARGE_BYTES or not is_plain(name, head := file.read(SAMPLE)):
            return []
        refuse_binary(name, head)
        begin = offset = 0
        line = 1
        while True:
            file.seek(begin)
            data = file.read(PART_BYTES)
            if not data:
                return found
            if len(data) == PART_BYTES:
                blank = data.rfind(b"\n\n", PART_BYTES // 2)
                data = data[: blank + 2 if blank >= 0 else data.rfind(b"\n") + 1]
            if not data:  # a line longer than a part
                return []
            try:
                text = data.decode("utf-8")
            except UnicodeDecodeError:
                return []
            if not text.isspace():
                found.append(Part(path, name, _key(name, offset, data), begin, len(data), offset, line))
            begin, offset = begin + len(data), offset + len(text)
            line += data.count(b"\n") + data.count(b"\r") - data.count(b"\r\n")


def _key(name: str, offset: int, data: bytes) -> str:
    return identify(f"{name}\0{offset}", data)
