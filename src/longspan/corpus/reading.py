"""Bytes to text: encodings for text formats, conversion for the others.

Text formats are decoded and nothing else: every offset refers to the file as it is, line ends included. HTML is turned
into text here, with the standard library's parser, so that answers do not depend on which extras are installed. PDF is
read page by page with pdfminer, so that pages are known; DOCX, EPUB, PPTX and XLSX go through markitdown (extra
`documents`). Conversions are kept in the cache by the hash of the file's bytes.
"""

from __future__ import annotations

import codecs
import contextlib
import hashlib
import importlib.util
import io
import json
import os
import re
from html.parser import HTMLParser
from pathlib import PurePath
from typing import Any

from longspan.corpus.document import Document
from longspan.errors import LongspanError, MissingExtra
from longspan.paths import cache_home

VERSION = 1  # of the conversions: another number makes them anew
SAMPLE = 1 << 18  # bytes looked at to tell text from binary and to guess an encoding

CONVERTED = {".pdf", ".docx", ".epub", ".pptx", ".xlsx"}
HTML = {".html", ".htm", ".xhtml"}
MARKDOWN = {".md", ".markdown", ".rst", ".mdx"}
CODE = set(
    [
        ".py",
        ".pyi",
        ".js",
        ".jsx",
        ".ts",
        ".tsx",
        ".java",
        ".c",
        ".h",
        ".cc",
        ".cpp",
        ".hpp",
        ".cxx",
        ".cs",
        ".go",
        ".rs",
        ".rb",
        ".php",
        ".swift",
        ".kt",
        ".scala",
        ".sh",
        ".bash",
        ".zsh",
        ".pl",
        ".pm",
        ".lua",
        ".r",
        ".jl",
        ".hs",
        ".ml",
        ".clj",
        ".ex",
        ".exs",
        ".erl",
        ".sql",
        ".proto",
        ".cmake",
        ".gradle",
        ".vue",
        ".dart",
        ".zig",
        ".nim",
        ".toml",
        ".ini",
        ".cfg",
        ".yaml",
        ".yml",
        ".json",
        ".jsonl",
        ".css",
        ".scss",
    ]
)


class Unreadable(LongspanError):
    """A file that holds no text that can be read; the message says which and why."""


def identify(name: str, data: bytes) -> str:
    """The document's id: the hash of what determines its text, and of its name."""
    digest = hashlib.sha256(data)
    digest.update(f"\0{VERSION}\0".encode())
    digest.update(name.encode("utf-8", "surrogatepass"))
    return digest.hexdigest()[:32]


def read(name: str, data: bytes, media_type: str = "") -> Document:
    """The document of a file's bytes. `media_type` (from an HTTP answer) helps where the name says nothing.

    Raises `Unreadable` for a file that is empty, binary, encrypted or damaged; MissingExtra for a format that needs one.
    """
    if not data.strip():
        raise Unreadable(f"{name} is empty: there is nothing to read.")
    suffix = PurePath(name).suffix.lower()
    if data.startswith(b"%PDF-") or "pdf" in media_type:
        suffix = ".pdf"
    elif suffix not in HTML and ("html" in media_type or _looks_like_html(data, suffix)):
        suffix = ".html"
    key = identify(name, data)
    if suffix in CONVERTED:
        text, pages = _converted(name, suffix, data)
        return Document(key, name, text, "markdown" if suffix != ".pdf" else "text", tuple(pages))
    text = decode(name, data)
    if suffix in HTML:
        text = html_to_text(text)
        if not text.strip():
            raise Unreadable(f"{name} holds markup but no text.")
        return Document(key, name, text, "html")
    kind = "code" if suffix in CODE else "markdown" if suffix in MARKDOWN else "text"
    return Document(key, name, text, kind)


def decode(name: str, data: bytes) -> str:
    """Text of an unknown encoding: a byte order mark's, else UTF-8, else the most plausible; line ends stay."""
    for mark, encoding in (
        (codecs.BOM_UTF8, "utf-8"),
        (codecs.BOM_UTF32_LE, "utf-32-le"),
        (codecs.BOM_UTF32_BE, "utf-32-be"),
        (codecs.BOM_UTF16_LE, "utf-16-le"),
        (codecs.BOM_UTF16_BE, "utf-16-be"),
    ):
        if data.startswith(mark):
            try:
                return data[len(mark) :].decode(encoding, "surrogatepass" if encoding != "utf-8" else "replace")
            except UnicodeDecodeError as error:
                raise Unreadable(f"{name} begins as {encoding} but is damaged at byte {error.start}.") from error
    sample = data[:SAMPLE]
    if b"\0" in sample:
        raise Unreadable(f"{name} is a binary file, not text: give its text, or a PDF, DOCX, EPUB or HTML version.")
    with contextlib.suppress(UnicodeDecodeError):
        return data.decode("utf-8")
    controls = sum(byte < 9 or 13 < byte < 27 or 27 < byte < 32 for byte in sample)
    if controls > len(sample) // 50:
        raise Unreadable(f"{name} is a binary file, not text: give its text, or a PDF, DOCX, EPUB or HTML version.")
    try:
        sample.decode("utf-8")
        damaged = True
    except UnicodeDecodeError as error:
        damaged = error.start > len(sample) // 2 and len(sample) > 1000
    if damaged:  # UTF-8 with some bad bytes, each shown as U+FFFD
        return data.decode("utf-8", "replace")
    from charset_normalizer import from_bytes

    best = from_bytes(sample).best()
    encoding = best.encoding if best is not None else "latin-1"
    try:
        return data.decode(encoding)
    except UnicodeDecodeError:
        return data.decode("latin-1")


def _looks_like_html(data: bytes, suffix: str) -> bool:
    if suffix in CODE or suffix in MARKDOWN:
        return False
    head = data[:1024].lstrip().lower()
    return head.startswith((b"<!doctype html", b"<html"))


# -- HTML -----------------------------------------------------------------------------------------------------------

_BLOCKS = set(
    [
        "address",
        "article",
        "aside",
        "blockquote",
        "body",
        "br",
        "center",
        "dd",
        "details",
        "dialog",
        "dir",
        "div",
        "dl",
        "dt",
        "fieldset",
        "figcaption",
        "figure",
        "footer",
        "form",
        "h1",
        "h2",
        "h3",
        "h4",
        "h5",
        "h6",
        "header",
        "hr",
        "li",
        "main",
        "menu",
        "nav",
        "ol",
        "option",
        "p",
        "pre",
        "section",
        "summary",
        "table",
        "tbody",
        "tfoot",
        "thead",
        "tr",
        "ul",
        "title",
    ]
)
_DROPPED = {"script", "style", "template", "noscript", "svg", "nav", "iframe", "object", "head"}


class _Text(HTMLParser):
    """Readable text: headings as Markdown's, lists as bullets, table rows as `a | b`, `pre` as it stands."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.lines: list[str] = []
        self._line: list[str] = []
        self._dropped: list[str] = []
        self._pre = 0
        self._prefix = ""
        self._lists: list[int] = []  # a number counts an ordered list's items, -1 marks a bulleted one
        self._cells = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in _DROPPED:
            self._dropped.append(tag)
        if self._dropped:
            return
        if tag in _BLOCKS:
            self._break(tag)
        if tag == "pre":
            self._pre += 1
        elif tag[0] == "h" and tag[1:].isdigit():
            self._prefix = "#" * int(tag[1:]) + " "
        elif tag in ("ul", "ol"):
            self._lists.append(0 if tag == "ol" else -1)
        elif tag == "li":
            self._prefix = self._bullet()
        elif tag == "dd":
            self._prefix = "    "
        elif tag == "tr":
            self._cells = 0
        elif tag in ("td", "th"):
            if self._cells:
                self._line.append(" | ")
            self._cells += 1

    def handle_endtag(self, tag: str) -> None:
        if tag in self._dropped:
            while self._dropped.pop() != tag:
                pass
            return
        if self._dropped:
            return
        if tag in ("ul", "ol") and self._lists:
            self._lists.pop()
        if tag in _BLOCKS:
            self._break(tag)
        if tag == "pre":
            self._pre = max(0, self._pre - 1)

    def handle_data(self, data: str) -> None:
        if self._dropped:
            return
        if self._pre:
            first, *rest = data.split("\n")
            self._line.append(first)
            for line in rest:
                self._flush()
                self._line.append(line)
        else:
            self._line.append(data)

    def _bullet(self) -> str:
        indent = "  " * (len(self._lists) - 1)
        if self._lists and self._lists[-1] >= 0:
            self._lists[-1] += 1
            return f"{indent}{self._lists[-1]}. "
        return f"{indent}- "

    def _break(self, tag: str) -> None:
        self._flush()
        if tag not in ("br", "tr", "li", "dd", "dt") and self.lines and self.lines[-1]:
            self.lines.append("")

    def _flush(self) -> None:
        joined = "".join(self._line)
        text = joined.rstrip() if self._pre else re.sub(r"[ \t\r\n\f]+", " ", joined).strip()
        self._line = []
        if text or (self._pre and self.lines and self.lines[-1]):
            self.lines.append(self._prefix + text if text else "")
            self._prefix = ""

    def text(self) -> str:
        self._flush()
        return "\n".join(self.lines).strip("\n") + "\n"


def html_to_text(markup: str) -> str:
    """The text of an HTML page as a reader sees it, without navigation, scripts and styles."""
    parser = _Text()
    parser.feed(markup)
    parser.close()
    return parser.text()


# -- other formats ----------------------------------------------------------------------------------------------------


def _converted(name: str, suffix: str, data: bytes) -> tuple[str, list[int]]:
    """Text and page starts, from the cache where the same bytes were converted before."""
    digest = hashlib.sha256(data).hexdigest()[:32]
    kept = cache_home() / "converted" / f"{digest}{suffix}.{VERSION}.json"
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        stored = json.loads(kept.read_text(encoding="utf-8"))
        return str(stored["text"]), [int(start) for start in stored["pages"]]
    if importlib.util.find_spec("markitdown") is None:
        raise MissingExtra(f"Reading {name} ({suffix[1:].upper()})", "documents")
    try:
        text, pages = _pdf(data) if suffix == ".pdf" else (_office(suffix, data), [])
    except Exception as error:
        raise Unreadable(f"{name} cannot be read as {suffix[1:].upper()}: {_reason(error)}.") from error
    if not text.strip():
        raise Unreadable(f"{name} holds no text (scanned pages?): run it through text recognition (OCR) first.")
    with contextlib.suppress(OSError):  # a full disk costs only the next conversion
        kept.parent.mkdir(parents=True, exist_ok=True)
        temporary = kept.with_name(f".{kept.name}.{os.getpid()}")
        temporary.write_text(json.dumps({"text": text, "pages": pages}), encoding="utf-8")
        temporary.replace(kept)
    return text, pages


def _reason(error: BaseException) -> str:
    """One clause on why a converter failed."""
    names = {type(error).__name__, type(error.__cause__).__name__, type(error.__context__).__name__}
    if {"PDFPasswordIncorrect", "PDFEncryptionError"} & names or "encrypt" in str(error).lower():
        return "it is encrypted; save a copy without a password"
    first = str(error).strip().splitlines()
    return f"the file seems damaged ({first[0][:200] if first else type(error).__name__})".rstrip(".")


def _pdf(data: bytes) -> tuple[str, list[int]]:
    import logging

    from pdfminer.high_level import extract_pages
    from pdfminer.layout import LTTextContainer

    logging.getLogger("pdfminer").setLevel(logging.ERROR)
    pieces: list[str] = []
    starts: list[int] = []
    length = 0
    for page in extract_pages(io.BytesIO(data)):
        starts.append(length)
        blocks = [element.get_text().strip("\n") for element in page if isinstance(element, LTTextContainer)]
        text = "\n\n".join(block for block in blocks if block.strip()) + "\n\n"
        pieces.append(text)
        length += len(text)
    return "".join(pieces), starts


def _office(suffix: str, data: bytes) -> str:
    from markitdown import MarkItDown, StreamInfo

    result: Any = MarkItDown(enable_plugins=False).convert_stream(
        io.BytesIO(data), stream_info=StreamInfo(extension=suffix)
    )
    return str(result.text_content)
