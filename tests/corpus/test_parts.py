"""A large text in parts says the same as the text in one piece: characters, offsets, lines."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from longspan.corpus import Corpus, Document, passages
from longspan.corpus import parts as module
from longspan.errors import LongspanError
from longspan.workflows.answer import Citation


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LARGE_BYTES", 50)
    monkeypatch.setattr(module, "PART_BYTES", 40)


def count(batch: list[str]) -> list[int]:
    return [len(text.split()) for text in batch]


LINES = st.lists(st.text("ab. é中\t😀", max_size=6), min_size=1, max_size=60)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(lines=LINES, end=st.sampled_from(["\n", "\r\n"]))
def test_parts_are_the_whole_in_order(lines: list[str], end: str, small: None, tmp_path: Path) -> None:
    text = end.join(lines) + end
    path = tmp_path / "a.md"
    path.write_bytes(text.encode())
    found = module.parts(path, "a.md")
    if len(text.encode()) <= 50 or not found:
        assert not found
        return
    whole = Document("x", "a.md", text)
    at = 0
    for part in found:
        document = part.load()
        assert document.kind == "markdown" and document.name == "a.md"
        assert text[document.offset :].startswith(document.text) and not text[at : document.offset].strip()
        at = document.offset + len(document.text)
        for place in range(len(document.text)):
            assert document.line_of(place) == whole.line_of(document.offset + place)
        for passage in passages(document, count, 5):
            assert passage.line_start == whole.line_of(document.offset + passage.start)
            citation = Citation.of(document, passage.start, passage.end, 1.0)
            assert citation.quote == text[citation.start : citation.end]
    assert not text[at:].strip()


def test_the_corpus_lists_the_parts(small: None, tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("".join(f"Line {n}.\n\n" for n in range(20)))
    corpus = Corpus.open([path])
    assert len(corpus) == 5 and {entry.name for entry in corpus.entries} == {str(path)}
    assert len({entry.id for entry in corpus.entries}) == 5 and corpus.size == path.stat().st_size
    assert "".join(document.text for document in corpus.documents()) == path.read_text()


def test_repeated_parts_are_each_kept(small: None, tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("the same line, again\n" * 30)
    assert sum(len(document.text) for document in Corpus.open([path]).documents()) == 30 * 21


def test_a_blank_line_parts_before_a_line_end(small: None, tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("x" * 24 + "\n\nlast words here\nof it\n" * 4)
    assert module.parts(path, "a.txt")[0].load().text == "x" * 24 + "\n\n"


@pytest.mark.parametrize(
    "data",
    [
        b"one line without an end " * 10,
        b"\xef\xbb\xbf" + b"marked\n" * 20,
        b"caf\xe9\n" * 20,
        b"<html>\n" * 20,
        b" \n" * 60,
    ],
    ids=["long line", "byte order mark", "latin-1", "html", "blank"],
)
def test_what_is_read_whole(small: None, tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(data)
    assert module.parts(path, "a.txt") == []


def test_binary_and_changed_files_are_refused(small: None, tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(b"\0\1\n" * 30)
    with pytest.raises(LongspanError, match="is a binary file"):
        Corpus.open([path])
    path.write_text("some words\n" * 20)
    corpus = Corpus.open([path])
    path.write_text("more words\n" * 20)
    with pytest.raises(LongspanError, match="was changed while it was read"):
        list(corpus.documents())
    path.unlink()
    with pytest.raises(LongspanError, match="cannot be read"):
        list(corpus.documents())
