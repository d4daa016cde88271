"""What there is to read: files, folders, globs, stdin and URLs, as documents that are loaded when they are needed."""

from __future__ import annotations

import contextlib
import glob
import hashlib
import os
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from longspan.corpus.document import Document
from longspan.corpus.parts import Part, parts
from longspan.corpus.reading import MAX_BYTES, Unreadable, identify, read, refuse_binary
from longspan.errors import LongspanError, MissingExtra

KEPT_CHARACTERS = 64_000_000  # of recently used documents
URL_BYTES = 200_000_000
URL_SECONDS = 60.0
SKIPPED_FOLDERS = {"node_modules", "__pycache__", "site-packages"}


@dataclass(frozen=True, slots=True)
class Entry:
    """A document that can be loaded: its id (a hash of content and name), its source's name, its size in bytes."""

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
    last are kept, so that a folder of any size fits; a large text file is several documents of one name (`parts`). Ids
    hold the name too: the same text under two names is two documents.
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
        try:
            path = Path(source).expanduser()
            is_folder, exists = path.is_dir(), path.exists() or path.is_symlink()
        except (OSError, RuntimeError, ValueError) as error:  # too long a name, no such home, a folder out of bounds
            reason = getattr(error, "strerror", None) or error
            raise LongspanError(f"{_short(source)} cannot be opened as a file or folder: {reason}.") from error
        if is_folder:
            self._add_all(self._walk(path), seen)
        elif exists and (path.is_file() or path.is_symlink()):
            self._add_file(path, seen)
        elif exists:  # a pipe, which can be read only once
            self._add_bytes(source, _bytes(path))
        elif glob.has_magic(source):
            # Path.glob takes no absolute pattern, and finds hidden files too.
            matches = sorted(Path(match) for match in glob.glob(str(path), recursive=True))  # noqa: PTH207
            if not matches:
                raise LongspanError(f"No file matches {_short(source)}: check the pattern.")
            self._add_all((file for file in matches if file.is_file()), seen)
        else:
            raise LongspanError(f"There is no file or folder {_short(source)}: check the path.")

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
        if large := _parts(path):
            seen.add(real)
            for part in large:
                self._add(part.key, name, part.size, part.load)
            return
        data = _bytes(path)
        document = read(name, data, glance=True)  # now, so that what cannot be read is known
        if document.kind != "html":
            self._keep(document)
        seen.add(real)
        key, size = document.id, len(data)

        def load() -> Document:
            document = read(name, _bytes(path))
            if document.id != key:
                raise LongspanError(f"{name} was changed while it was read: ask again.")
            return document

        self._add(key, name, size, load)

    def _walk(self, folder: Path) -> Iterator[Path]:
        """The files below a folder, in the order of their names. Links to folders are not followed: no loops."""

        def refused(error: OSError) -> None:
            self.skipped.append(Skipped(str(error.filename), f"cannot be entered: {error.strerror or error}"))

        for root, folders, files in os.walk(folder, onerror=refused):
            folders[:] = sorted(name for name in folders if not name.startswith(".") and name not in SKIPPED_FOLDERS)
            for name in sorted(files):
                file = Path(root) / name
                if not name.startswith(".") and file.is_file():
                    yield file

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
        places = [_place(source) for source in self.sources]
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

    def release(self) -> None:
        """Let go of the texts in memory; those of files are read again when they are asked for."""
        self._kept.clear()
        self._kept_characters = 0

    def _keep(self, document: Document) -> None:
        if document.id in self._kept:
            return
        self._kept[document.id] = document
        self._kept_characters += len(document.text)
        while self._kept_characters > KEPT_CHARACTERS and len(self._kept) > 1:
            _, old = self._kept.popitem(last=False)
            self._kept_characters -= len(old.text)


def _place(source: str) -> str:
    if source.startswith(("http://", "https://")):
        return source
    with contextlib.suppress(RuntimeError, ValueError):  # a name that only looks like a path
        path = Path(source).expanduser()
        return os.path.realpath(path) if os.path.lexists(path) else source
    return source


def _bytes(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            if size > MAX_BYTES:
                raise Unreadable(f"{path} is larger than {MAX_BYTES // 1_000_000} MB: split it into files.")
            if size:  # a video must not be read to the end to learn that it is none
                refuse_binary(str(path), file.read(8192))
                file.seek(0)
            return file.read()
    except OSError as error:
        raise Unreadable(f"{path} cannot be read: {error.strerror or error}.") from error


def _parts(path: Path) -> list[Part]:
    try:
        return parts(path, str(path))
    except OSError as error:
        raise Unreadable(f"{path} cannot be read: {error.strerror or error}.") from error


def _short(source: str) -> str:
    """A source in an error message; a text that was given for a path does not fill the screen."""
    return source if len(source) <= 200 else f"{source[:80]}… ({len(source)} characters)"


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
        reason = str(error).rstrip(".") or type(error).__name__
        raise LongspanError(f"{url} cannot be fetched ({reason}): check the address and the connection.") from error
    except httpx.InvalidURL as error:
        raise LongspanError(f"{url} is not a valid address: {error}.") from error
