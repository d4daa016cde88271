"""Bytes to text: encodings, HTML, PDF, Office, packed files, and what is said of those that cannot be read."""

from __future__ import annotations

import bz2
import codecs
import gzip
import importlib.util
import io
import json
import lzma
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from longspan.corpus import reading
from longspan.corpus.reading import Unreadable, decode, html_to_text, identify, read
from longspan.errors import MissingExtra

TEXT = "First line\r\nsecond — “quoted” 漢字 😀\rthird\n"


def refusal(name: str, data: bytes, media_type: str = "") -> str:
    """The message of the refusal, which is one sentence that names the file."""
    with pytest.raises(Unreadable) as caught:
        read(name, data, media_type)
    message = str(caught.value)
    assert message.startswith(name)
    assert message.endswith(".") and ". " not in message and "\n" not in message
    return message


# -- encodings --------------------------------------------------------------------------------------------------------


def test_utf8_with_and_without_mark() -> None:
    assert read("a.txt", TEXT.encode()).text == TEXT
    assert read("a.txt", codecs.BOM_UTF8 + TEXT.encode()).text == TEXT


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be"])
def test_wide_encodings(encoding: str) -> None:
    assert read("a.txt", f"\ufeff{TEXT}".encode(encoding)).text == TEXT
    assert f"begins as {encoding.upper()} but is damaged at byte" in refusal(
        "a.txt", f"\ufeff{TEXT}".encode(encoding)[:-1]
    )


def test_lone_surrogates_of_utf16_stay() -> None:
    text = "a\ud83db"
    assert read("a.txt", f"\ufeff{text}".encode("utf-16-le", "surrogatepass")).text == text
    assert read("a.txt", b"bad \xed\xa0\xbd here").text.endswith("here")


@pytest.mark.parametrize(
    ("encoding", "text"),
    [
        ("cp1252", "Das Café in München öffnet um acht Uhr; die Gebühr beträgt 20 € – ohne Ausnahme."),
        ("latin-1", "Le délai est de trente jours après la réception, à défaut la garantie cesse."),
        ("latin-1", "One naïve word in all of the text."),
        ("cp1250", "Příliš žluťoučký kůň úpěl ďábelské ódy, a šílený řidič se ptá, zda žije."),
        ("cp1251", "Договор вступает в силу с момента подписания сторонами и действует один год."),
        ("cp1253", "Η σύμβαση ισχύει από την ημερομηνία υπογραφής."),
        ("shift_jis", "契約は署名の日から効力を生じ、一年間有効とする。これはテストです。"),
        ("euc_kr", "계약은 서명일부터 효력이 발생하며 일 년간 유효하다."),
        ("gb18030", "本合同自签字之日起生效，有效期一年。"),
        ("big5", "本合約自簽署之日起生效，有效期一年。"),
    ],
)
@pytest.mark.parametrize("before", ["", "A plain line of text.\r\n" * 20_000])
def test_legacy_encodings_are_guessed(encoding: str, text: str, before: str) -> None:
    """Also where the first letter beyond ASCII stands late in the file."""
    assert decode("a.txt", (before + text + "\n").encode(encoding)) == before + text + "\n"


def test_damaged_utf8_stays_utf8() -> None:
    data = ("Größe über alles – ein Wörtchen.\n" * 50).encode()
    for at in (1, 500, len(data) - 2):
        text = decode("a.txt", data[:at] + b"\xff" + data[at:])
        assert text.count("\ufffd") in (1, 2)
        assert text.count("Größe") >= 49
    assert decode("a.txt", data[:-3] + b"\xc3").endswith("\ufffd")
    assert "\ufffd" in decode("a.txt", b"x" * 1_000_000 + "ü".encode() * 9 + b"\xff")


def test_the_senders_charset() -> None:
    hebrew = "ההסכם נכנס לתוקף ביום החתימה."
    assert read("http://a/b", hebrew.encode("cp1255"), 'text/plain; charset="windows-1255"').text == hebrew
    assert read("http://a/b", hebrew.encode(), "text/plain; charset=windows-1255").text == hebrew
    assert read("http://a/b", "naïve".encode("latin-1"), "text/plain; charset=nonsense").text == "naïve"


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=300))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    try:
        document = read("a.txt", data)
    except Unreadable as error:
        assert str(error).startswith("a.txt ")
    else:
        assert document.text.strip()
        assert document == read("a.txt", data)


def test_binary_and_empty_are_refused() -> None:
    png = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR"
    assert "is a binary file" in refusal("a.png", png)
    assert "is a binary file" in refusal("a.txt", bytes(range(1, 32)) * 20)
    assert read("a.txt", b"A short text\x01 with a stray byte").text
    assert read("a.1", b"N\bNA\bAM\bME\bE\x1b[0m\x0c").text
    for empty in (b"", b" \r\n\t", codecs.BOM_UTF8, codecs.BOM_UTF8 + b"\n", "\ufeff \n".encode("utf-16-le")):
        assert "is empty" in refusal("a.txt", empty)


def test_kinds_and_ids() -> None:
    kinds = {"a.py": "code", "A.MD": "markdown", "a.txt": "text", "a": "text", "a.md.gz": "markdown"}
    assert {name: read(name, b"x").kind for name in kinds} == kinds
    assert read("https://a.org/x.md?raw=1#y", b"x").kind == "markdown"
    assert read("https://example.com", b"x").kind == "text"
    assert read("a", b"x").id == identify("a", b"x") != read("b", b"x").id != read("b", b"y").id


# -- HTML -------------------------------------------------------------------------------------------------------------


def test_html_to_text() -> None:
    page = """<!doctype html><html><head><title>T</title><style>p{}</style></head><body>
    <nav><a href=x>Home</a></nav><h1>Guide &amp;
    more</h1><p>First <b>bold</b>text<br>second line<script>if (a < b) c()</script></p>
    <ul><li>one<li><p>two</p><ol><li>deep</li></ol></ul><ol><li>a</li><li>b</li></ol>
    <dl><dt>term<dd>meaning</dl><h2></h2><p>plain</p><pre>  x = 1\r\n\r\n  y</pre>"""
    assert html_to_text(page) == (
        "# Guide & more\n\nFirst boldtext\nsecond line\n\n- one\n- two\n\n  1. deep\n\n1. a\n2. b\n\n"
        "term\n    meaning\n\nplain\n\n  x = 1\n\n  y\n"
    )


def test_html_tables() -> None:
    assert html_to_text(
        "<table><caption>Fees</caption><thead><tr><th>Name<th>Fee</thead><tbody><tr><td><p>A</p><p>B</p></td><td>1</td></tr>"
        "<tr><td></td><td><ul><li>2</li></ul></td></tr></table>After"
    ) == ("Fees\nName | Fee\nA B | 1\n| - 2\n\nAfter\n")
    layout = f"<table><tr><td>Menu</td><td><h1>Title</h1><p>{'Text. ' * 9}</p></td></tr></table>"
    assert html_to_text(layout) == f"Menu\n# Title\n\n{'Text. ' * 9}".rstrip() + "\n"
    nested = "<table><tr><td><table><tr><td>a</td><td>b</td></tr></table></td></tr></table>"
    assert html_to_text(nested) == "a | b\n"
    assert html_to_text("<td>a<td>b</table></tr>") == "a\nb\n"


@pytest.mark.parametrize(
    "page",
    [
        "<html><head><title>T</title><p>Text",
        "<body><nav>Menu<p>Text",
        "<body><p>Text<script>x()",
        "<body><div><span><b>Text",
        "<p>Text<![foo[x]]>",
        "<p>Text<h99999999999>",
        "<p>Text<h²>",
        "<p>Text<a href='x",
        "</p></ul></li></pre></table></td>Text",
    ],
)
def test_broken_html(page: str) -> None:
    assert "Text" in read("a.html", page.encode()).text
    assert "x()" not in html_to_text(page)


@settings(max_examples=200, deadline=None)
@given(
    st.lists(
        st.sampled_from(
            "< > & &amp; a <p> </p> <table> </table> <tr> <td> </td> <li> <ul> </ul> <pre> </pre> <h2> </h2> <nav> "
            "</nav> <!-- --> <![ <! <? ]]> <script> </script> <svg/> \n = ' \" / <dd> <br> <th> </tr> <head> <td".split(
                " "
            )
        )
    ).map("".join)
)
def test_any_markup_is_read(markup: str) -> None:
    assert html_to_text(markup).endswith("\n")


def test_html_is_known_by_its_content_or_type() -> None:
    page = b"<!DOCTYPE html><p>Text"
    assert (read("page", page).kind, read("x.md", page).kind) == ("html", "markdown")
    assert read("http://a/b.md", b"<p>Text", "text/html; charset=utf-8").text == "Text\n"
    assert "holds markup but no text" in refusal("a.html", b"<html><script>x()</script></html>")
    assert read("a.html", b"<p>Some</p>" + b"<p>more</p>" * 50_000, glance=True).id


@pytest.mark.parametrize("piece", ["<a ", "<", "<!--", "<div>", "<ul><li>", "&", "<td>", "<table><tr><td>"])
def test_hostile_html_takes_no_longer_than_other(piece: str) -> None:
    html_to_text(piece * 5000 + "x")


# -- packed -----------------------------------------------------------------------------------------------------------

PACKERS: dict[str, Callable[[bytes], bytes]] = {".gz": gzip.compress, ".bz2": bz2.compress, ".xz": lzma.compress}


@pytest.mark.parametrize("suffix", PACKERS)
def test_packed_files_are_read_as_their_content(suffix: str) -> None:
    pack = PACKERS[suffix]
    document = read(f"page.html{suffix}", pack(b"<p>Text"))
    assert (document.name, document.kind, document.text) == (f"page.html{suffix}", "html", "Text\n")
    assert read(f"foo.info{suffix}", pack(TEXT.encode())).text == TEXT
    assert read(f"a.py{suffix}", pack(b"x = 1")).kind == "code"
    assert read("stdin", pack(b"x") + pack(b"y")).text == "xy"
    assert read(f"plain.txt{suffix}", b"not packed after all").text == "not packed after all"
    assert "is empty" in refusal(f"a.txt{suffix}", pack(b""))
    assert "is a binary file" in refusal(f"a.tar{suffix}", pack(b"name" + b"\0" * 600))


@pytest.mark.parametrize("suffix", PACKERS)
def test_damaged_packed_files(suffix: str) -> None:
    data = PACKERS[suffix](TEXT.encode() * 100)
    for damaged in (data[: len(data) // 2], data[:-10] + b"0123456789", data[:20] + b"????" + data[24:]):
        assert "cannot be unpacked: it is damaged or cut short" in refusal(f"a.txt{suffix}", damaged)


@pytest.mark.parametrize("suffix", PACKERS)
def test_bombs_are_stopped(suffix: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "MAX_BYTES", 3_000_000)
    assert "unpacks to more than 3 MB" in refusal(f"a.txt{suffix}", PACKERS[suffix](b"x" * 5_000_000))


# -- PDF --------------------------------------------------------------------------------------------------------------


def pdf(pages: list[str], trailer: str = "") -> bytes:
    """A PDF by hand: one line of Helvetica on each page."""
    kids = " ".join(f"{4 + 2 * i} 0 R" for i in range(len(pages)))
    objects = [
        "<< /Type /Catalog /Pages 2 0 R >>",
        f"<< /Type /Pages /Kids [{kids}] /Count {len(pages)} >>",
        "<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>",
    ]
    for i, text in enumerate(pages):
        stream = f"BT /F1 12 Tf 72 700 Td ({text}) Tj ET"
        objects += [
            "<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] /Resources << /Font << /F1 3 0 R >> >> "
            f"/Contents {5 + 2 * i} 0 R >>",
            f"<< /Length {len(stream)} >>\nstream\n{stream}\nendstream",
        ]
    out = b"%PDF-1.4\n"
    places = []
    for number, body in enumerate(objects, 1):
        places.append(len(out))
        out += f"{number} 0 obj\n{body}\nendobj\n".encode()
    table = "".join(f"{place:010} 00000 n \n" for place in places)
    end = f"xref\n0 {len(objects) + 1}\n0000000000 65535 f \n{table}trailer\n"
    return out + f"{end}<< /Size {len(objects) + 1} /Root 1 0 R {trailer}>>\nstartxref\n{len(out)}\n%%EOF\n".encode()


ENCRYPTED = f"/ID [<00><00>] /Encrypt << /Filter /Standard /V 1 /R 2 /P -4 /O <{'11' * 32}> /U <{'22' * 32}> >> "


def test_pdf_with_pages() -> None:
    document = read("a.pdf", pdf(["First page.", "Second page."]))
    assert document.text == "First page.\n\nSecond page.\n\n"
    assert [document.page_of(document.text.index(word)) for word in ("First", "Second")] == [1, 2]
    assert read("download", pdf(["Text."])).text.strip() == "Text."
    assert read("a.pdf.gz", gzip.compress(pdf(["Text."]))).text.strip() == "Text."


def test_pdf_with_lines_far_apart_keeps_its_sentences() -> None:
    far = "The pump is to be) Tj 0 -60 Td (replaced  by  an engineer.) Tj 0 -60 Td (Then start it."
    assert read("a.pdf", pdf([far])).text.strip() == ("The pump is to be\nreplaced by an engineer.\n\nThen start it.")


def test_pdf_that_cannot_be_read() -> None:
    encrypted = refusal("a.pdf", pdf(["Text."], ENCRYPTED))
    assert encrypted == "a.pdf cannot be read as PDF: it is encrypted; save a copy without a password."
    assert "it is damaged" in refusal("a.pdf", b"%PDF-1.4\n" + b"\0\1\2" * 50)
    assert "it is damaged" in refusal("a.pdf", b"no PDF at all")
    assert "holds no text (scanned pages?)" in refusal("a.pdf", pdf([""]))


# -- Office -----------------------------------------------------------------------------------------------------------


def archive(files: dict[str, str]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as target:
        for name, content in files.items():
            target.writestr(name, content)
    return out.getvalue()


W = "http://schemas.openxmlformats.org/wordprocessingml/2006/main"
RELATIONS = "http://schemas.openxmlformats.org/package/2006/relationships"
DOCX = archive(
    {
        "[Content_Types].xml": '<Types xmlns="http://schemas.openxmlformats.org/package/2006/content-types"><Default '
        'Extension="rels" ContentType="application/vnd.openxmlformats-package.relationships+xml"/><Override '
        'PartName="/word/document.xml" ContentType="application/vnd.openxmlformats-officedocument.wordprocessingml.'
        'document.main+xml"/></Types>',
        "_rels/.rels": f'<Relationships xmlns="{RELATIONS}"><Relationship Id="r1" Type="http://schemas.openxmlformats.org/'
        'officeDocument/2006/relationships/officeDocument" Target="word/document.xml"/></Relationships>',
        "word/document.xml": f'<w:document xmlns:w="{W}"><w:body><w:p><w:r><w:t>Text of Word.</w:t></w:r></w:p>'
        "</w:body></w:document>",
    }
)
EPUB = archive(
    {
        "mimetype": "application/epub+zip",
        "META-INF/container.xml": '<container xmlns="urn:oasis:names:tc:opendocument:xmlns:container"><rootfiles>'
        '<rootfile full-path="book.opf" media-type="application/oebps-package+xml"/></rootfiles></container>',
        "book.opf": '<package xmlns="http://www.idpf.org/2007/opf" xmlns:dc="http://purl.org/dc/elements/1.1/"><metadata>'
        '<dc:title>Book</dc:title></metadata><manifest><item id="c" href="c.xhtml" media-type="application/xhtml+xml"/>'
        '</manifest><spine><itemref idref="c"/></spine></package>',
        "c.xhtml": '<html xmlns="http://www.w3.org/1999/xhtml"><body><h1>One</h1><p>Text of a book.</p></body></html>',
    }
)


def test_an_archive_that_unpacks_to_too_much(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("longspan.corpus.reading.MARKUP_BYTES", 2_000_000)
    said = refusal("a.docx", archive({"word/document.xml": "A" * 2_000_001}))
    assert said == (
        "a.docx cannot be read as DOCX: it unpacks to more than 2 MB; give its text, or the part that matters."
    )


def test_docx_and_epub() -> None:
    word = read("a.docx", DOCX)
    assert (word.text.strip(), word.kind) == ("Text of Word.", "markdown")
    assert "Text of a book." in read("a.epub", EPUB).text
    assert "Text of a book." in read("https://a.org/get?id=3", EPUB, "application/epub+zip").text


def test_marks_of_markdown_are_not_escaped() -> None:
    """A name like `max_retries` is found and quoted as it stands in the document."""
    said = "set max_retries to 2*n"
    for name, document, old in (("a.docx", DOCX, b"Text of Word."), ("a.epub", EPUB, b"Text of a book.")):
        with zipfile.ZipFile(io.BytesIO(document)) as parts:
            files = {part: parts.read(part).replace(old, said.encode()).decode() for part in parts.namelist()}
        assert said in read(name, archive(files)).text


@pytest.mark.parametrize("suffix", ["docx", "epub", "pptx", "xlsx"])
def test_damaged_office(suffix: str) -> None:
    for data in (b"PK\3\4 nothing", DOCX[: len(DOCX) // 2], archive({"a": "b"})):
        assert f"cannot be read as {suffix.upper()}: it is damaged" in refusal(f"a.{suffix}", data)
    assert "it is encrypted" in refusal(f"a.{suffix}", b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + b"\0" * 600)


def test_without_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(importlib.util, "find_spec", lambda name: None)
        with pytest.raises(MissingExtra, match=r"^Reading a.docx \(DOCX\) needs an extra: .*longspan\[documents\]"):
            read("a.docx", DOCX)
    monkeypatch.setitem(sys.modules, "pdfminer.high_level", None)  # installed, but without its parts
    with pytest.raises(MissingExtra):
        read("a.pdf", pdf(["Text."]))


# -- cache ------------------------------------------------------------------------------------------------------------


def test_conversions_are_kept(own_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read("a.docx", DOCX)
    [kept] = (own_cache / "converted").iterdir()
    for damage in ("", "{", "[]", "{}", '{"text": " ", "pages": []}', '{"text": "x", "pages": ["y"]}', "\ud800"):
        kept.write_bytes(damage.encode("utf-8", "surrogatepass"))
        assert read("b.docx", DOCX).text.strip() == "Text of Word."
        assert json.loads(kept.read_text())["text"].strip() == "Text of Word."
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert read("c.docx", DOCX).text.strip() == "Text of Word."


def test_a_cache_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("LONGSPAN_CACHE", str(tmp_path / "file" / "cache"))
    assert read("a.docx", DOCX).text.strip() == "Text of Word."
    monkeypatch.setenv("LONGSPAN_CACHE", str(tmp_path / "full"))

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    assert read("a.docx", DOCX).text.strip() == "Text of Word."
    assert not list((tmp_path / "full" / "converted").iterdir())
