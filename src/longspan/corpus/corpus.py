"""What there is to read: files, folders, globs, stdin and URLs, as documents that are loaded when they are needed."""

from __future__ import annotations

import glob
import hashlib
import os
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from longspan.corpus.document import Document
from longspan.corpus.reading import CONVERTED, Unreadable, identify, read
from longspan.errors import LongspanError, MissingExtra

KEPT_CHARACTERS = 64_000_000  # of recently used documents
URL_BYTES = 200_000_000
URL_SECONDS = 60.0
SKIPPED_FOLDERS = {"node_modules", "__pycache__", "site-packages"}


@dataclass(frozen=True, slots=True)
class Entry:
    """A document that can be loaded: its id (a hash of content and name), its name, its size in bytes."""

    id: str
    name: str
    size: int


@dataclass(frozen=True, slots=True)
class Skipped:
    """A file of a folder that was left out, and why."""

    name: str
    reason: str


class Corpus:
    """The documents of some sources. Make it with `Corpus.open` or `Corpus.from_texts`.

    Opening reads every file once, to know it by its content; texts are loaded again when asked for, and only those used
    last are kept, so that a folder of any size fits. Ids hold the name too: the same text under two names is two
    documents.
    """

    def __init__(self, sources: Sequence[str], skipped: Sequence[Skipped] = ()) -> None:
        self.sources = list(sources)
        self.skipped = list(skipped)
        self.entries: list[Entry] = []
        self._load: dict[str, Callable[[], Document]] = {}
        self._kept: OrderedDict[str, Document] = OrderedDict()
        self._kept_characters = 0

    # -- making --------------------------------------------------------------------------------------------------

    @classmethod
    def open(cls, sources: Sequence[str | Path], *, stdin: BinaryIO | None = None) -> Corpus:
        """Open files, folders (all that is readable below them), globs, http(s) URLs and "-" for stdin.

        A source that was named and cannot be read raises LongspanError; files of folders that cannot be are listed in
        `skipped`. Hidden files and folders of dependencies are not entered.
        """
        corpus = cls([str(source) for source in sources])
        seen: set[str] = set()
        for source in corpus.sources:
            if not source.strip():
                raise LongspanError("A source is empty: give a file, a folder, a URL, or - for stdin.")
            if source == "-":
                corpus._add_bytes("stdin", stdin.read() if stdin else b"")
            elif source.startswith(("http://", "https://")):
                corpus._add_bytes(source, *_download(source))
            else:
                corpus._add_path(source, seen)
        if not corpus.entries:
            raise LongspanError(f"Nothing to read in {', '.join(corpus.sources)}{corpus._why_nothing()}.")
        return corpus

    @classmethod
    def from_texts(cls, texts: Mapping[str, str]) -> Corpus:
        """A corpus of texts in memory, by name."""
        corpus = cls([])
        for name, text in texts.items():
            document = Document(identify(name, text.encode("utf-8", "surrogatepass")), name, text)
            corpus._add(document.id, name, len(text), lambda document=document: document)  # type: ignore[misc]
        if not any(text.strip() for text in texts.values()):
            raise LongspanError("The texts are empty: there is nothing to read.")
        corpus.sources = [f"{entry.name}:{entry.id}" for entry in corpus.entries]
        return corpus

    def _why_nothing(self) -> str:
        if not self.skipped:
            return ": there are no files"
        first = self.skipped[0]
        more = f" and {len(self.skipped) - 1} more" if len(self.skipped) > 1 else ""
        return f": {first.name} was left out ({first.reason}){more}"

    def _add(self, key: str, name: str, size: int, load: Callable[[], Document]) -> None:
        if key not in self._load:
            self._load[key] = load
            self.entries.append(Entry(key, name, size))

    def _add_bytes(self, name: str, data: bytes, media_type: str = "") -> None:
        document = read(name, data, media_type)
        self._add(document.id, name, len(data), lambda: document)
        # The source's place in the index is its content: stdin has no name that lasts.
        if name == "stdin":
            self.sources = [document.id if source == "-" else source for source in self.sources]

    def _add_path(self, source: str, seen: set[str]) -> None:
        path = Path(source).expanduser()
        if path.is_dir():
            self._add_all(_walk(path), seen)
        elif path.exists() or path.is_symlink():
            self._add_file(path, seen)
        elif glob.has_magic(source):
            matches = sorted(Path(match) for match in glob.glob(str(path), recursive=True))
            if not matches:
                raise LongspanError(f"No file matches {source}.")
            self._add_all((file for file in matches if file.is_file()), seen)
        else:
            raise LongspanError(f"There is no file or folder {source}: check the path.")

    def _add_all(self, files: Iterator[Path], seen: set[str]) -> None:
        for file in files:
            try:
                self._add_file(file, seen)
            except (Unreadable, MissingExtra) as error:
                self.skipped.append(Skipped(str(file), str(error).removeprefix(f"{file} ").rstrip(".")))

    def _add_file(self, path: Path, seen: set[str]) -> None:
        real = os.path.realpath(path)
        if real in seen:
            return
        name = str(path)
        data = _bytes(path)
        if path.suffix.lower() in CONVERTED or data.startswith(b"%PDF-"):
            document = read(name, data)  # converted now, so that what cannot be is known; the cache keeps it
            self._keep(document)
        else:
            _check_readable(name, data)
        seen.add(real)
        key = identify(name, data)

        def load() -> Document:
            document = read(name, _bytes(path))
            if document.id != key:
                raise LongspanError(f"{name} was changed while it was read: ask again.")
            return document

        self._add(key, name, len(data), load)

    # -- reading -------------------------------------------------------------------------------------------------

    def __len__(self) -> int:
        return len(self.entries)

    @property
    def size(self) -> int:
        """Bytes of all sources together."""
        return sum(entry.size for entry in self.entries)

    @property
    def key(self) -> str:
        """What an index of these sources goes by: their places, however they were spelled."""
        places = [
            source
            if source.startswith(("http://", "https://")) or not os.path.lexists(source)
            else os.path.realpath(source)
            for source in self.sources
        ]
        joined = "\0".join(sorted(places)).encode("utf-8", "surrogatepass")
        return hashlib.sha256(joined).hexdigest()

    def document(self, key: str) -> Document:
        """The document with this id, loaded if it is not among those used last."""
        if key in self._kept:
            self._kept.move_to_end(key)
            return self._kept[key]
        document = self._load[key]()
        self._keep(document)
        return document

    def documents(self) -> Iterator[Document]:
        """Every document, one at a time."""
        for entry in self.entries:
            yield self.document(entry.id)

    def _keep(self, document: Document) -> None:
        self._kept[document.id] = document
        self._kept_characters += len(document.text)
        while self._kept_characters > KEPT_CHARACTERS and len(self._kept) > 1:
            _, old = self._kept.popitem(last=False)
            self._kept_characters -= len(old.text)


def _walk(folder: Path) -> Iterator[Path]:
    for root, folders, files in os.walk(folder):  # does not follow links to folders: no loops
        folders[:] = sorted(name for name in folders if not name.startswith(".") and name not in SKIPPED_FOLDERS)
        for name in sorted(files):
            file = Path(root) / name
            if not name.startswith(".") and file.is_file():
                yield file


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise Unreadable(f"{path} cannot be read: {error.strerror or error}.") from error


def _check_readable(name: str, data: bytes) -> None:
    """Refuse what is empty or binary without decoding all of it."""
    if not data.strip():
        raise Unreadable(f"{name} is empty: there is nothing to read.")
    if b"\0" in data[:8192] and not data.startswith((b"\xff\xfe", b"\xfe\xff", b"\0\0\xfe\xff")):
        raise Unreadable(f"{name} is a binary file, not text: give its text, or a PDF, DOCX, EPUB or HTML version.")


def _download(url: str) -> tuple[bytes, str]:
    """The body of a URL and its media type."""
    import httpx

    try:
        with httpx.stream("GET", url, timeout=URL_SECONDS, follow_redirects=True) as response:
            if response.status_code >= 400:
                raise LongspanError(
                    f"{url} answered {response.status_code} {response.reason_phrase}: check the address."
                )
            body = bytearray()
            for chunk in response.iter_bytes():
                body += chunk
                if len(body) > URL_BYTES:
                    raise LongspanError(
                        f"{url} is larger than {URL_BYTES // 1_000_000} MB: download it and give the file."
                    )
            return bytes(body), response.headers.get("content-type", "")
    except httpx.HTTPError as error:
        raise LongspanError(f"{url} cannot be fetched: {error or type(error).__name__}.") from error
    except httpx.InvalidURL as error:
        raise LongspanError(f"{url} is not a valid address: {error}.") from error
