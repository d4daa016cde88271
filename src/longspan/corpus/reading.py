"""Bytes to text: encodings for text formats, conversion for the others.

Text formats are decoded and nothing else: every offset refers to the file as it is, line ends included. HTML is turned
into text here, with the standard library's parser, so that answers do not depend on which extras are installed. PDF is
read page by page with pdfminer, so that pages are known; DOCX, EPUB, PPTX and XLSX go through markitdown (extra
`documents`). Conversions are kept in the cache by the hash of the file's bytes. What gzip, bzip2 or xz packed is
read as the file inside.
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
import threading
import zipfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from html import unescape
from html.parser import HTMLParser
from pathlib import PurePath
from typing import IO, Any
from urllib.parse import urlsplit

from longspan.corpus.document import Document
from longspan.errors import LongspanError, MissingExtra
from longspan.paths import cache_home

VERSION = 4  # of the conversions: another number makes them anew, and with them the indexes
SAMPLE = 1 << 18  # bytes looked at to tell text from binary and to guess an encoding
GLANCE = 1 << 16  # characters of a page in which its first words are looked for
MAX_BYTES = 2_000_000_000  # of one document, unpacked
MARKUP_BYTES = 200_000_000  # of an office document's parts, unpacked: a converter takes twenty times as much

CONVERTED = frozenset(".pdf .docx .epub .pptx .xlsx".split())
HTML = frozenset(".html .htm .xhtml".split())
MARKDOWN = frozenset(".md .markdown .rst .mdx".split())
CODE = frozenset(
    ".py .pyi .js .jsx .ts .tsx .java .c .h .cc .cpp .hpp .cxx .cs .go .rs .rb .php .swift .kt .scala .sh .bash .zsh "
    ".pl .pm .lua .r .jl .hs .ml .clj .ex .exs .erl .sql .proto .cmake .gradle .vue .dart .zig .nim .toml .ini .cfg "
    ".yaml .yml .json .jsonl .css .scss".split()
)
COMPRESSED = frozenset(".gz .bz2 .xz".split())
MEDIA_TYPES = {
    "application/pdf": ".pdf",
    "application/epub+zip": ".epub",
    "application/vnd.openxmlformats-officedocument.wordprocessingml.document": ".docx",
    "application/vnd.openxmlformats-officedocument.presentationml.presentation": ".pptx",
    "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet": ".xlsx",
}
_MARKS = (  # the four bytes of UTF-32 before the two of UTF-16 that they begin with
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
_PACKED = re.compile(rb"\x1f\x8b\x08|BZh[1-9](?:1AY&SY|\x17rE8P\x90)|\xfd7zXZ\0")
_NOT_CONTROL = bytes(byte for byte in range(256) if not (byte < 8 or 13 < byte < 27 or 27 < byte < 32))


class _TooLarge(Exception):
    """An archive whose parts would take more memory than there may be."""


class Unreadable(LongspanError):
    """A file that holds no text that can be read; the message says which and why."""


def identify(name: str, data: bytes) -> str:
    """The document's id: the hash of what determines its text, and of its name."""
    digest = hashlib.sha256(data)
    digest.update(f"\0{VERSION}\0".encode())
    digest.update(name.encode("utf-8", "surrogatepass"))
    return digest.hexdigest()[:32]


def read(name: str, data: bytes, media_type: str = "", *, glance: bool = False) -> Document:
    """The document of a file's bytes. `media_type` (from an HTTP answer) helps where the name says nothing.

    With `glance` a page of HTML is parsed no further than its first words: enough to know that it can be read. Raises
    `Unreadable` for a file that is empty, binary, encrypted or damaged; MissingExtra for a format that needs one.
    """
    key = identify(name, data)
    data = _unpacked(name, data)
    if not data or data.isspace():
        raise Unreadable(f"{name} is empty: there is nothing to read.")
    suffix = _suffix(name)
    media, _, parameters = media_type.lower().partition(";")
    if data.startswith(b"%PDF-"):
        suffix = ".pdf"
    elif media.strip() in MEDIA_TYPES:
        suffix = MEDIA_TYPES[media.strip()]
    elif suffix not in HTML and ("html" in media or _looks_like_html(data, suffix)):
        suffix = ".html"
    if suffix in CONVERTED:
        text, pages = _converted(name, suffix, data)
        return Document(key, name, text, "markdown" if suffix != ".pdf" else "text", tuple(pages))
    charset = re.search(r"charset=[\"']?([\w.:-]+)", parameters)
    text = decode(name, data, charset[1] if charset else "")
    if suffix in HTML:
        text = (_visible(text[:GLANCE], _DROPPED)[0].strip() if glance else "") or html_to_text(text)
        if not text.strip():
            raise Unreadable(f"{name} holds markup but no text: save the page as the browser shows it.")
        return Document(key, name, text, "html")
    if not text or text.isspace():
        raise Unreadable(f"{name} is empty: there is nothing to read.")
    return Document(key, name, text, kind_of(name))


def kind_of(name: str) -> str:
    """What a plain text is by its name: "code", "markdown" or "text"."""
    suffix = _suffix(name)
    return "code" if suffix in CODE else "markdown" if suffix in MARKDOWN else "text"


def is_plain(name: str, head: bytes) -> bool:
    """Whether a file is read as the bytes it has, neither converted nor unpacked, by its name and first bytes."""
    suffix = _suffix(name)
    marks = (b"%PDF-", *(mark for mark, _ in _MARKS))
    return not (
        suffix in CONVERTED | HTML or head.startswith(marks) or _PACKED.match(head) or _looks_like_html(head, suffix)
    )


def _suffix(name: str) -> str:
    """The suffix that tells the format: of a URL its path's, of a compressed file the inner one."""
    path = PurePath(urlsplit(name).path if name.startswith(("http://", "https://")) else name)
    return (PurePath(path.stem) if path.suffix.lower() in COMPRESSED else path).suffix.lower()


def refuse_binary(name: str, head: bytes) -> None:
    """Refuse a file by its first bytes, before all of it is read, if no format that is read here begins like it."""
    if _suffix(name) in CONVERTED or head.startswith(b"%PDF-") or _PACKED.match(head):
        return
    marked = head.startswith(tuple(mark for mark, _ in _MARKS))
    if not marked and (b"\0" in head or len(head.translate(None, _NOT_CONTROL)) > 2 + len(head) // 50):
        raise Unreadable(f"{name} is a binary file, not text: give its text, or a PDF, DOCX, EPUB or HTML version.")


def _unpacked(name: str, data: bytes) -> bytes:
    """What a gzip, bzip2 or xz file holds; other bytes as they are."""
    if not _PACKED.match(data):
        return data
    packed = io.BytesIO(data)
    chunks: list[bytes] = []
    try:
        stream: IO[bytes]
        if data.startswith(b"BZ"):
            stream = importlib.import_module("bz2").BZ2File(packed)
        else:
            stream = importlib.import_module("gzip" if data[0] == 0x1F else "lzma").open(packed)
        size = 0
        while chunk := stream.read(1 << 20):
            if not chunks:
                refuse_binary(name, chunk[:SAMPLE])
            size += len(chunk)
            if size > MAX_BYTES:
                raise Unreadable(
                    f"{name} unpacks to more than {MAX_BYTES // 1_000_000} MB: give the part that matters."
                )
            chunks.append(chunk)
    except ImportError as error:
        raise Unreadable(f"{name} cannot be unpacked by this Python: unpack it and give the file inside.") from error
    except Unreadable:
        raise
    except Exception as error:  # each format has its own exceptions, and a damaged file may raise any of them
        raise Unreadable(f"{name} cannot be unpacked: it is damaged or cut short, so get a fresh copy.") from error
    return b"".join(chunks)


def decode(name: str, data: bytes, charset: str = "") -> str:
    """Text of an unknown encoding: a byte order mark's, else UTF-8, else the most plausible; line ends stay.

    `charset` is what the sender says it is, believed only of bytes that are not UTF-8.
    """
    for mark, encoding in _MARKS:
        if data.startswith(mark):
            try:  # a view: the text may be large, and its copies too
                return str(
                    memoryview(data)[len(mark) :], encoding, "replace" if encoding == "utf-8" else "surrogatepass"
                )
            except UnicodeDecodeError as error:
                raise Unreadable(
                    f"{name} begins as {encoding.upper()} but is damaged at byte {len(mark) + error.start}: "
                    "save it anew as UTF-8."
                ) from error
    refuse_binary(name, data[:SAMPLE])
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        wrong = error.start
    # What follows the first byte that is no UTF-8, from the beginning of its line on, shows the encoding.
    begin = data.rfind(b"\n", max(0, wrong - SAMPLE // 2), wrong) + 1 or max(0, wrong - SAMPLE // 2)
    sample = data[begin : begin + SAMPLE]
    sample = sample[: sample.rfind(b"\n") + 1 or None]
    unicode = re.findall("[^\0-\x7f]", sample.decode("utf-8", "replace"))
    if 2 * unicode.count("\ufffd") <= len(unicode):  # UTF-8 with some bad bytes, each shown as U+FFFD
        return data.decode("utf-8", "replace")
    for encoding in (charset, _guess(sample)):
        with contextlib.suppress(LookupError, ValueError):
            return data.decode(encoding, "replace")
    return data.decode("latin-1")


# Non-ASCII characters that the languages of Western Europe use; those of cp1250 and cp1254 show as others in cp1252.
_WESTERN = re.compile("[ÄÖÜäöüßÀÁÂÇÈÉÊËÌÍÎÏÑÒÓÔÙÚàáâãåæçèéêëìíîïñòóôøùúœŒÅÆØŸ€‚„…‘’“”•–—™\xa0¡£§©ª«®°±²³´·º»¼½¾¿×]")
_LONG_RUN = re.compile(r"[^\W\d_a-zA-Z]{3}")


def _guess(sample: bytes) -> str:
    """The most plausible encoding. cp1252 is tried first: the detector takes it for rarer relatives."""
    western = sample.decode("cp1252", "replace")
    if not _LONG_RUN.search(western):
        beyond = re.findall("[^\0-\x7f]", western)
        if sum(_WESTERN.match(char) is not None for char in beyond) >= 0.93 * len(beyond):
            return "cp1252"
    from charset_normalizer import from_bytes

    best = from_bytes(sample).best()
    return best.encoding if best is not None else "latin-1"


def _looks_like_html(data: bytes, suffix: str) -> bool:
    if suffix in CODE or suffix in MARKDOWN:
        return False
    head = data[:1024].removeprefix(codecs.BOM_UTF8).lstrip().lower()
    return head.startswith((b"<!doctype html", b"<html"))


# -- HTML -----------------------------------------------------------------------------------------------------------

_BLOCKS = frozenset(
    "address article aside blockquote body br caption center dd details dialog dir div dl dt fieldset figcaption "
    "figure footer form h1 h2 h3 h4 h5 h6 header hr li main menu nav ol option p pre section summary table tbody tfoot "
    "thead title tr ul".split()
)
_CLOSE = frozenset("br caption dd dt li tbody tfoot thead tr".split())  # no blank line before these
_HEADINGS = frozenset("h1 h2 h3 h4 h5 h6".split())
_DROPPED = frozenset("head iframe nav noscript object script style svg template".split())
_SOURCE = frozenset("script style template".split())  # of these, what is inside is never text
CELL_CHARACTERS = 400  # a longer table cell is a part of the page's layout


@dataclass(slots=True)
class _Table:
    row: list[str] = field(default_factory=list)
    cell: int | None = None  # the line at which the open cell begins
    whole: bool = False  # the open cell keeps its lines


class _Text(HTMLParser):
    """Readable text: headings as Markdown's, lists as bullets, table rows as `a | b`, `pre` as it stands."""

    def __init__(self, dropped: frozenset[str]) -> None:
        super().__init__(convert_charrefs=True)
        self.lines: list[str] = []
        self.unclosed: list[str] = []  # dropped elements that are open
        self._dropped = dropped
        self._line: list[str] = []
        self._pre = 0
        self._prefix = ""
        self._lists: list[int] = []  # a number counts an ordered list's items, -1 marks a bulleted one
        self._tables: list[_Table] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in self._dropped:
            self.unclosed.append(tag)
        if self.unclosed:
            return
        if tag in _BLOCKS:
            self._break(tag)
        if tag in ("td", "th", "tr", "thead", "tbody", "tfoot"):
            self._end_cell(row=tag[0] == "t" and tag not in ("td", "th"))
        if self._tables and (tag in ("pre", "table") or tag in _HEADINGS):
            self._tables[-1].whole = True
        if tag == "pre":
            self._pre += 1
        elif tag in _HEADINGS:
            self._prefix = "#" * int(tag[1]) + " "
        elif tag in ("ul", "ol"):
            self._lists.append(0 if tag == "ol" else -1)
        elif tag == "li":
            self._prefix = self._bullet()
        elif tag == "dd":
            self._prefix = "    "
        elif tag == "table":
            self._tables.append(_Table())
        elif tag in ("td", "th") and self._tables:
            self._tables[-1].cell = len(self.lines)

    def handle_endtag(self, tag: str) -> None:
        if tag in self.unclosed:
            while self.unclosed.pop() != tag:
                pass
            return
        if self.unclosed:
            return
        if tag in ("ul", "ol") and self._lists:
            self._lists.pop()
        if tag in ("td", "th", "tr", "table"):
            self._end_cell(row=tag in ("tr", "table"))
        if tag == "table" and self._tables:
            self._tables.pop()
        if tag in _BLOCKS:
            self._break(tag)
        if tag in ("li", "dd") or tag in _HEADINGS:
            self._prefix = ""  # an empty one leaves no mark on what follows
        if tag == "pre":
            self._pre = max(0, self._pre - 1)

    def handle_data(self, data: str) -> None:
        if self.unclosed:
            return
        if self._pre:
            first, *rest = data.split("\n")
            self._line.append(first)
            for line in rest:
                self._flush()
                self._line.append(line)
        else:
            self._line.append(data)

    def parse_marked_section(self, i: int, report: bool = True) -> int:
        try:
            return super().parse_marked_section(i, report)
        except AssertionError:  # `<![anything` that is neither CDATA nor Word's: the library gives up, browsers do not
            return self.parse_bogus_comment(i)

    def _bullet(self) -> str:
        indent = "  " * min(len(self._lists) - 1, 20)
        if self._lists and self._lists[-1] >= 0:
            self._lists[-1] += 1
            return f"{indent}{self._lists[-1]}. "
        return f"{indent}- "

    def _break(self, tag: str) -> None:
        self._flush()
        if tag not in _CLOSE and self.lines and self.lines[-1] and not self._prefix:
            self.lines.append("")

    def _flush(self) -> None:
        joined = "".join(self._line)
        text = joined.rstrip() if self._pre else re.sub(r"[ \t\r\n\f]+", " ", joined).strip()
        self._line = []
        if text or (self._pre and self.lines and self.lines[-1]):
            self.lines.append(self._prefix + text if text else "")
            self._prefix = ""

    def _end_cell(self, *, row: bool) -> None:
        """Take the open cell's lines into its row, and the row into the text if it ends here."""
        self._flush()
        if not self._tables:
            return
        table = self._tables[-1]
        if table.cell is not None:
            held = [line.strip() for line in self.lines[table.cell :] if line]
            if not table.whole and sum(map(len, held)) <= CELL_CHARACTERS:
                del self.lines[table.cell :]
                table.row.append(" ".join(held))
            elif any(table.row):
                self.lines.insert(table.cell, " | ".join(table.row).strip())
                table.row = []
            table.cell, table.whole = None, False
        if row:
            if any(table.row):
                self.lines.append(" | ".join(table.row).strip())
            table.row = []

    def text(self) -> str:
        while self._tables:
            self._end_cell(row=True)
            self._tables.pop()
        self._flush()
        return "\n".join(self.lines).strip("\n") + "\n"


def html_to_text(markup: str) -> str:
    """The text of an HTML page as a reader sees it, without navigation, scripts and styles."""
    text, unclosed = _visible(markup, _DROPPED)
    if swallowed := _DROPPED.intersection(unclosed) - _SOURCE:  # `</head>` may be left out, `</nav>` forgotten
        text, _ = _visible(markup, _DROPPED - swallowed)
    return text


def _visible(markup: str, dropped: frozenset[str]) -> tuple[str, list[str]]:
    parser = _Text(dropped)
    markup = markup.replace("\r\n", "\n").replace("\r", "\n")
    end = markup.rfind(">") + 1  # for what looks like a tag after it the library would search again and again
    parser.feed(markup[:end])
    parser.close()
    parser.handle_data(unescape(re.split("<[a-zA-Z/!?]", markup[end:], maxsplit=1)[0]))
    return parser.text(), parser.unclosed


# -- other formats ----------------------------------------------------------------------------------------------------


def _converted(name: str, suffix: str, data: bytes) -> tuple[str, list[int]]:
    """Text and page starts, from the cache where the same bytes were converted before."""
    digest = hashlib.sha256(data).hexdigest()[:32]
    kept = cache_home() / "converted" / f"{digest}{suffix}.{VERSION}.json"
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        stored = json.loads(kept.read_text(encoding="utf-8"))
        text, pages = str(stored["text"]), [int(start) for start in stored["pages"]]
        if text.strip():
            return text, pages
    needs = MissingExtra(f"Reading {name} ({suffix[1:].upper()})", "documents")
    if importlib.util.find_spec("markitdown") is None:
        raise needs
    try:
        text, pages = _pdf(data) if suffix == ".pdf" else (_office(suffix, data), [])
    except Exception as error:
        if {"ImportError", "ModuleNotFoundError", "MissingDependencyException"} & _names(error):
            raise needs from error
        raise Unreadable(f"{name} cannot be read as {suffix[1:].upper()}: {_reason(error, data)}.") from error
    if not text.strip():
        raise Unreadable(f"{name} holds no text (scanned pages?): run it through text recognition (OCR) first.")
    with contextlib.suppress(OSError):  # a full disk costs only the next conversion
        kept.parent.mkdir(parents=True, exist_ok=True)
        temporary = kept.with_name(f".{kept.name}.{os.getpid()}.{threading.get_ident()}")
        try:
            temporary.write_text(json.dumps({"text": text, "pages": pages}), encoding="utf-8")
            temporary.replace(kept)
        finally:
            temporary.unlink(missing_ok=True)
    return text, pages


def _names(error: BaseException | None) -> set[str]:
    """The names of an exception's type and of those behind it."""
    names: set[str] = set()
    while error is not None and len(names) < 10:
        names.add(type(error).__name__)
        error = error.__cause__ or error.__context__
    return names


def _reason(error: BaseException, data: bytes) -> str:
    """One clause on why a converter failed, and what to do."""
    if isinstance(error, _TooLarge):
        return f"it unpacks to more than {MARKUP_BYTES // 1_000_000} MB; give its text, or the part that matters"
    encrypted = {"PDFPasswordIncorrect", "PDFEncryptionError"} & _names(error) or "encrypt" in str(error).lower()
    if encrypted or data.startswith(b"\xd0\xcf\x11\xe0"):  # Office's container of encrypted (and of old) files
        return "it is encrypted; save a copy without a password"
    last = str(error).strip().rpartition("message:")[2].strip().splitlines()
    return f"it is damaged ({last[0][:200].rstrip('.') if last else type(error).__name__}); get a fresh copy"


def _pdf(data: bytes) -> tuple[str, list[int]]:
    import logging

    from pdfminer.high_level import extract_pages
    from pdfminer.layout import LAParams, LTFigure, LTTextContainer

    def blocks(container: Iterable[Any]) -> Iterator[str]:
        for element in container:
            if isinstance(element, LTTextContainer):
                yield element.get_text().strip("\n")
            elif isinstance(element, LTFigure):  # some programs draw whole pages as one form
                yield from blocks(element)

    logging.getLogger("pdfminer").setLevel(logging.ERROR)
    pieces: list[str] = []
    starts: list[int] = []
    length = 0
    for page in extract_pages(io.BytesIO(data), laparams=LAParams(all_texts=True)):
        starts.append(length)
        text = "\n\n".join(block for block in blocks(page) if block.strip()) + "\n\n"
        text = _JUSTIFIED.sub(" ", _WRAPPED.sub("\n", text))
        pieces.append(text)
        length += len(text)
    return "".join(pieces), starts


_JUSTIFIED = re.compile(r"(?<=\S) {2,}(?=\S)")  # a blank and the gap that stretches it
# Where lines lie far apart each is taken for a paragraph, but none ends within a sentence and goes on in small letters.
_WRAPPED = re.compile(r"(?<=[\w,;–-])[ \t]*\n\s*\n(?=[a-zß-öø-ÿα-ωа-я])")

_MARKUP = (".xml", ".rels", ".xhtml", ".html", ".htm")
_PARTS = {".docx": "word/", ".pptx": "ppt/", ".xlsx": "xl/", ".epub": "META-INF/container.xml"}


def _office(suffix: str, data: bytes) -> str:
    # The converter itself: MarkItDown would show a damaged file as plain text, or list the files of its archive.
    from markitdown import StreamInfo, converters

    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        if sum(part.file_size for part in archive.infolist() if part.filename.endswith(_MARKUP)) > MARKUP_BYTES:
            raise _TooLarge
        if not any(name.startswith(_PARTS[suffix]) for name in archive.namelist()):
            raise zipfile.BadZipFile(f"there is no {_PARTS[suffix].rstrip('/')} in it")
    converter = getattr(converters, f"{suffix[1:].capitalize()}Converter")()
    # Without Markdown's escapes: `max_retries` is to be found and quoted as it stands in the document.
    result: Any = converter.convert(
        io.BytesIO(data), StreamInfo(extension=suffix), escape_asterisks=False, escape_underscores=False
    )
    return str(result.text_content)
