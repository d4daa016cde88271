"""The index: what is found, what is kept, and what survives."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import signal
import subprocess
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from longspan.corpus import Corpus, Passage, passages
from longspan.errors import LongspanError
from longspan.retrieval import Encoder, Hit, Index, drop, info, stored
from longspan.retrieval import index as module

ANIMALS = "aardvark badger capybara dormouse echidna ferret gecko hedgehog ibex jackal kestrel lemming".split()


def write(folder: Path, count: int = 12) -> Path:
    """A folder of small files, each with a word of its own (an animal's name and its number)."""
    folder.mkdir(exist_ok=True)
    for number, animal in enumerate(ANIMALS[:count]):
        rows = [f"Paragraph {row} about the {animal}{row} and the weather of day {row * number}." for row in range(8)]
        (folder / f"{animal}.txt").write_text("\n\n".join(rows))
    return folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write(tmp_path / "texts")


def text_of(index: Index, passage: Passage) -> str:
    return index.corpus.document(passage.document).text[passage.start : passage.end]


def name_of(index: Index, hit: Hit) -> str:
    return Path(index.corpus.document(hit.passage.document).name).stem


def cut_anew(index: Index) -> list[Passage]:
    """The corpus's passages without any index."""
    found = [p for d in index.corpus.documents() for p in passages(d, index.count_tokens, index.budget)]
    return sorted(found, key=lambda passage: (passage.document, passage.start))


def assert_right(index: Index) -> None:
    """The index holds each passage of the corpus once, with its vector, and finds words."""
    found, vectors = index.vectors()
    assert found == cut_anew(index)
    rows = index._rows([f"{passage.document}:{passage.start}" for passage in found])
    by_key = {row["key"]: row["text"] for row in rows}
    assert len(by_key) == len(found)
    expected = index.encoder([by_key[f"{passage.document}:{passage.start}"] for passage in found])
    assert np.allclose(vectors, expected, atol=1e-5)
    for passage in found[:: max(1, len(found) // 5)]:
        word = re.findall(r"[a-z]+\d+", text_of(index, passage))[0]
        assert passage.start in [
            row["start"] for row in index.by_words(word, 20) if row["document"] == passage.document
        ]


def assert_one_sentence(error: pytest.ExceptionInfo[LongspanError]) -> None:
    assert len(str(error.value).splitlines()) == 1 and str(error.value).endswith(".")


# -- finding --------------------------------------------------------------------------------------------------------


def test_a_rare_word_finds_its_passage(opened: Callable[..., Index], folder: Path) -> None:
    index = opened(folder)
    assert_right(index)
    for animal in ANIMALS:
        row = index.by_words(f"what of the {animal}3?", 5)[0]
        assert f"{animal}3 " in row["text"]
        hit = index.search(f"{animal}3", 5)[0]
        assert f"{animal}3 " in text_of(index, hit.passage) and name_of(index, hit) == animal
    assert len(index.search("weather", 7)) == 7
    assert index.search("weather", 0) == []


def test_words_are_stemmed_and_folded(opened: Callable[..., Index]) -> None:
    index = opened({"a": "The cafés were closing early.", "b": "Nothing of that kind."})
    for query in ("cafe", "CAFÉ", "closed", "close"):
        assert [name_of(index, hit) for hit in index.search(query, 1)] == ["a"]
        assert len(index.by_words(query, 5)) == 1


def test_headings_are_found(opened: Callable[..., Index]) -> None:
    index = opened({"a.md": "# Zymurgy\n\n" + "It is an old art. " * 30})
    rows = index.by_words("zymurgy", 9)
    assert len(rows) == len(cut_anew(index)) > 2


@pytest.mark.parametrize(
    ("query", "text"),
    [
        ("会議", "木曜日に東京で会議があります。"),
        ("الكتاب", "وضعت الكتاب على الطاولة"),
        ("встреча", "Завтра будет встреча в Москве."),
        ("회의", "목요일에 서울에서 회의 있습니다"),
        ("การประชุม", "มีการประชุมในวันพฤหัสบดี"),
        ("पुस्तक", "यह मेरी पुस्तक है"),
    ],
)
def test_words_of_other_scripts_are_found(opened: Callable[..., Index], query: str, text: str) -> None:
    index = opened({"a": "Nothing of that kind.", "b": text, "c": "某些別的東西。"})
    assert [row["text"] for row in index.by_words(query, 1)] == [text]
    assert name_of(index, index.search(query, 1)[0]) == "b"


ODD_QUERIES = [
    "",
    "   \n",
    '"',
    '\'quoted\' "twice" "',
    "(a AND b) OR -c + d:e^2 ~f* [g TO h] {i} \\ /",
    "' OR 1=1; DROP TABLE passages; --",
    "\0",
    "\ud800",
    "the of and",
    "!!! ???",
    "💥" * 50,
    "x" * 100_000,
    "weather " * 10_000,
]


@pytest.mark.parametrize("query", ODD_QUERIES, ids=lambda query: repr(query[:12]))
def test_odd_queries(opened: Callable[..., Index], query: str) -> None:
    index = opened({"a": "weather here", "b": "weather there"})
    assert len(index.by_words(query, 5)) in (0, 2)
    assert len(index.search(query, 5)) == 2


def test_fusion_is_as_computed_by_hand(opened: Callable[..., Index], folder: Path) -> None:
    index = opened(folder)
    for query in ("gecko3 weather", "paragraph 5 of the ibex5", "nothing that stands anywhere"):
        hits = index.search(query, 200)
        by_words = index.by_words(query, module.CANDIDATES)
        found, vectors = index.vectors()
        cosine = vectors @ index.encoder([query])[0]
        nearest = [found[at] for at in np.argsort(-cosine)[: module.CANDIDATES]]
        score: dict[tuple[str, int], float] = {}
        for ranking in (
            [(row["document"], row["start"]) for row in by_words],
            [(p.document, p.start) for p in nearest],
        ):
            for rank, place in enumerate(ranking, 1):
                score[place] = score.get(place, 0) + 1 / (60 + rank)
        got = {(hit.passage.document, hit.passage.start): hit for hit in hits}
        assert got.keys() == score.keys()
        assert all(hit.score == pytest.approx(score[place]) for place, hit in got.items())
        assert all(one.score >= other.score for one, other in pairwise(hits))
        of = {(passage.document, passage.start): value for passage, value in zip(found, cosine, strict=True)}
        assert all(hit.cosine == pytest.approx(of[place], abs=1e-5) for place, hit in got.items())
        bm25 = {(row["document"], row["start"]): row["_score"] for row in by_words}
        assert all(hit.bm25 == pytest.approx(bm25.get(place)) for place, hit in got.items())


def test_with_the_real_encoder(opened: Callable[..., Index], encoder: Encoder) -> None:
    texts = {
        "age": "The monarch has reached 61 years.",
        "bread": "Bake the loaf for an hour.",
        "sea": "The tide comes in at noon.",
    }
    index = opened(texts, encoder=encoder)
    hits = index.search("How old is the king?", 3)
    assert name_of(index, hits[0]) == "age" and hits[0].bm25 is None
    found, vectors = index.vectors()
    query = encoder(["How old is the king?"])[0]
    of = {passage: float(query @ vector) for passage, vector in zip(found, vectors, strict=True)}
    assert all(hit.cosine == pytest.approx(of[hit.passage], abs=1e-5) for hit in hits)


def test_spans_are_the_documents_text(opened: Callable[..., Index], folder: Path) -> None:
    index = opened(folder)
    for hit in index.search("weather", 50):
        document = index.corpus.document(hit.passage.document)
        assert document.line_of(hit.passage.start) == hit.passage.line_start
        assert re.fullmatch(r"Paragraph \d.*\.", text_of(index, hit.passage), re.S)


def test_equal_texts_under_two_names(opened: Callable[..., Index], tmp_path: Path) -> None:
    texts = write(tmp_path / "texts", 1)
    shutil.copy(texts / "aardvark.txt", texts / "copy.txt")
    index = opened(texts)
    assert sorted(name_of(index, hit) for hit in index.search("aardvark2", 2)) == ["aardvark", "copy"]
    assert_right(index)


def test_lone_surrogates(opened: Callable[..., Index]) -> None:
    index = opened({"na\udcffme": "A text with a \ud800 lone surrogate.", "b": "Another."})
    hit = index.search("surrogate \udfff", 1)[0]
    assert text_of(index, hit.passage) == "A text with a \ud800 lone surrogate."
    assert [item.documents for item in stored()] == [2]
    assert "\ud800" not in json.dumps(info(next(stored()).key), ensure_ascii=False)


def test_texts_without_words(opened: Callable[..., Index]) -> None:
    index = opened({"a": "!!! ???", "b": "  \n ", "c": "\0"})
    assert index.by_words("word", 3) == []
    assert {name_of(index, hit) for hit in index.search("word", 3)} <= {"a", "c"}


characters = st.text(st.characters(codec=None, categories=None), max_size=80)


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.dictionaries(st.text(max_size=8), st.lists(characters, max_size=4).map("\n\n".join), min_size=1, max_size=4),
    characters,
    st.integers(1, 9),
)
def test_any_text_and_query(opened: Callable[..., Index], texts: dict[str, str], query: str, k: int) -> None:
    texts["sure"] = "something"
    index = opened(texts)
    hits = index.search(query, k)
    assert len(hits) == len({hit.passage for hit in hits}) == min(k, len(cut_anew(index)))
    assert all(-1.001 <= hit.cosine <= 1.001 for hit in hits)
    assert index.vectors()[0] == cut_anew(index)


# -- embedding --------------------------------------------------------------------------------------------------------


def test_a_small_corpus_is_embedded_at_its_first_question(
    opened: Callable[..., Index], folder: Path, random: Any
) -> None:
    index = opened(folder)
    assert random.texts == []
    index.search("gecko3")
    assert len(random.texts) == len(cut_anew(index)) + 1
    del random.texts[:]
    index.search("gecko4")
    opened(folder).search("gecko5")
    assert random.texts == ["gecko4", "gecko5"]


def test_of_a_large_corpus_only_candidates_are_embedded(
    opened: Callable[..., Index], folder: Path, random: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "EAGER_TOKENS", 100)
    index = opened(folder)
    hits = index.search("gecko3 ibex2")
    candidates = [row["text"] for row in index.by_words("gecko3 ibex2", module.CANDIDATES)]
    assert sorted(random.texts) == sorted(["gecko3 ibex2", *candidates]) and len(candidates) == len(hits) == 2
    del random.texts[:]
    again = opened(folder)
    assert again.search("gecko3 ibex2") == hits
    assert random.texts == ["gecko3 ibex2"]  # kept
    again.search("gecko3 lemming1")
    assert len(random.texts) == 3
    assert again.search("word that is nowhere") == []
    # What is left is embedded when all is asked for, and then search is by meaning too.
    del random.texts[:]
    total = len(cut_anew(again))
    assert again.embed_all() == total - 3 == len(random.texts)
    assert again.embed_all() == 0
    assert len(again.search("word that is nowhere", 9)) == 9
    assert_right(again)


def test_embedding_that_is_interrupted_is_kept(
    opened: Callable[..., Index], folder: Path, random: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "EMBEDDED_TOGETHER", 4)

    def progress(what: str, done: int, total: int) -> None:
        if (what, done) == ("embedding", 8):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        opened(folder, progress=progress).embed_all()
    assert len(random.texts) == 8
    index = opened(folder)
    index.embed_all()
    assert len(random.texts) == len(cut_anew(index))
    assert_right(index)


def test_many_questions_do_not_leave_many_files(
    opened: Callable[..., Index], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "EAGER_TOKENS", 100)
    monkeypatch.setattr(module, "COMPACTED_EVERY", 8)
    index = opened(folder)
    for animal in ANIMALS:
        for row in range(3):
            assert index.search(f"{animal}{row}", 1)[0].cosine > 0
    assert index._table("vectors").stats()["fragment_stats"]["num_fragments"] <= 10
    assert_right(index)


def test_encoders_do_not_share_vectors(opened: Callable[..., Index], folder: Path, random: Any) -> None:
    class Other(type(random)):  # type: ignore[misc]
        name, dimensions = "other", 8

    one, other = opened(folder), opened(folder, encoder=Other())
    assert one.folder != other.folder
    assert_right(one)
    assert_right(other)
    assert other.vectors()[1].shape[1] == 8


# -- following the sources --------------------------------------------------------------------------------------------


def test_only_what_is_new_is_read(opened: Callable[..., Index], folder: Path, words: Any, random: Any) -> None:
    first = opened(folder)
    assert_right(first)
    before = {path.name for path in module.indexes_home().iterdir()}
    del words.texts[:], random.texts[:]
    assert opened(folder).folder == first.folder
    assert words.texts == []

    (folder / "gecko.txt").write_text("The gecko99 was changed.")
    (folder / "ibex.txt").unlink()
    (folder / "new.txt").write_text("The newt1 has arrived.")
    index = opened(folder)
    assert {path.name for path in module.indexes_home().iterdir()} == before
    assert sorted(words.texts) == ["The gecko99 was changed.", "The newt1 has arrived."]
    assert name_of(index, index.search("newt1", 1)[0]) == "new"
    assert len(random.texts) == 3  # the two passages and the question
    for word in ("gecko3", "ibex3"):
        assert index.by_words(word, 5) == []
    assert [name_of(index, hit) for hit in index.search("gecko99", 1)] == ["gecko"]
    assert_right(index)
    assert next(stored()).documents == len(ANIMALS)


def test_an_index_that_another_process_took_further(opened: Callable[..., Index], folder: Path) -> None:
    """Passages of documents that this corpus does not know would be of no use."""
    old = opened(folder)
    (folder / "gecko.txt").write_text("The gecko99 was changed.")
    opened(folder)
    assert all(hit.passage.document in {e.id for e in old.corpus.entries} for hit in old.search("gecko99 gecko3", 200))
    assert all(p.document in {e.id for e in old.corpus.entries} for p in old.vectors()[0])


names = st.sampled_from(["a.txt", "b.txt", "c.md"])
bodies = st.sampled_from(["One alpha1.", "Two beta2.\n\nThree gamma3.", "# Four\n\nFive delta4. " * 9])


@settings(max_examples=6, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.dictionaries(names, bodies, min_size=1), min_size=2, max_size=4))
def test_any_course_of_changes(opened: Callable[..., Index], tmp_path: Path, course: list[dict[str, str]]) -> None:
    for texts in course:
        shutil.rmtree(tmp_path / "texts", ignore_errors=True)
        (tmp_path / "texts").mkdir()
        for name, text in texts.items():
            (tmp_path / "texts" / name).write_text(text)
        assert_right(opened(tmp_path / "texts"))


def test_progress_is_told(opened: Callable[..., Index], folder: Path) -> None:
    told: list[tuple[str, int, int]] = []
    index = opened(folder, progress=lambda *what: told.append(what))
    assert [step for step in told if step[0] == "reading"] == [("reading", n, 12) for n in range(13)]
    assert told[-1][0] == "indexing words"
    del told[:]
    index.search("gecko")
    total = len(cut_anew(index))
    assert told[0] == ("embedding", 0, total) and told[-1] == ("embedding", total, total)
    del told[:]
    opened(folder, progress=lambda *what: told.append(what)).search("gecko")
    assert told == []


# -- surviving ----------------------------------------------------------------------------------------------------


def answers(index: Index) -> list[tuple[Passage, float]]:
    return [(hit.passage, round(hit.cosine, 4)) for word in ("gecko3", "ibex5") for hit in index.search(word, 5)]


KINDS = {
    "data": "*.lance/data/*.lance",
    "manifests": "*.lance/_versions/*.manifest",
    "hints": "*.lance/_versions/latest_version_hint.json",
    "transactions": "*.lance/_transactions/*",
    "words": "passages.lance/_indices/*/*",
    "about": "about.json",
}


@pytest.mark.parametrize("how", ["cut", "garbage", "empty", "gone"])
@pytest.mark.parametrize("kind", KINDS)
def test_damaged_files(opened: Callable[..., Index], folder: Path, tmp_path: Path, kind: str, how: str) -> None:
    index = opened(folder)
    right = answers(index)
    shutil.copytree(index.folder, tmp_path / "whole")
    files = sorted(path.relative_to(index.folder) for path in index.folder.glob(KINDS[kind]))
    assert files
    for file in [*files, None]:  # one by one, then all
        shutil.rmtree(index.folder)
        shutil.copytree(tmp_path / "whole", index.folder)
        for victim in [file] if file else files:
            path = index.folder / victim
            data = path.read_bytes()
            path.unlink()
            if how != "gone":
                path.write_bytes({"cut": data[: len(data) // 2], "garbage": os.urandom(200), "empty": b""}[how])
        assert answers(opened(folder)) == right
        assert answers(index) == right  # the open one, too


@pytest.mark.parametrize("about", ["[]", "null", '{"format": 2}', '{"format": 2, "made": "x", "whole": true}', "\xff"])
def test_a_strange_about(opened: Callable[..., Index], folder: Path, about: str) -> None:
    index = opened(folder)
    right = answers(index)
    (index.folder / "about.json").write_text(about, encoding="latin-1")
    assert [item.sources for item in stored()] == [("(damaged)",)]
    assert info(index.folder.name)["documents"] == 0
    assert answers(opened(folder)) == right


def test_tables_that_vanish(opened: Callable[..., Index], folder: Path) -> None:
    index = opened(folder)
    right = answers(index)
    for name in ("documents", "passages", "vectors"):
        shutil.rmtree(index.folder / f"{name}.lance")
        assert answers(opened(folder)) == right
        shutil.rmtree(index.folder / f"{name}.lance")
        assert answers(index) == right
    shutil.rmtree(index.folder)
    assert answers(index) == right
    shutil.rmtree(index.folder)
    index.folder.write_text("a file")
    with pytest.raises(LongspanError, match="cannot be used or made again") as error:
        opened(folder)
    assert_one_sentence(error)


Process = Callable[..., "subprocess.Popen[str]"]
FATAL = ["reading 0", "reading 7", "reading 12", "indexing words 0", "embedding 0", "embedding 32"]


@pytest.mark.parametrize("fatal", FATAL)
def test_a_killed_process(opened: Callable[..., Index], folder: Path, process: Process, fatal: str) -> None:
    """Killed while it makes the index."""
    killed = process(str(folder), "gecko3", fatal)
    assert killed.wait() == -signal.SIGKILL
    assert_right(opened(folder))


@pytest.mark.parametrize("fatal", ["reading 0", "reading 1", "indexing words 0"])
def test_a_killed_process_and_what_was_there(
    opened: Callable[..., Index], folder: Path, process: Process, fatal: str
) -> None:
    """Killed while it takes up a change; then the change is withdrawn, or taken further."""
    assert_right(opened(folder))
    old = (folder / "gecko.txt").read_text()
    for then in (old, "The gecko77 is another."):
        (folder / "gecko.txt").write_text("The gecko99 was changed.")
        assert process(str(folder), "gecko99", fatal).wait() == -signal.SIGKILL
        (folder / "gecko.txt").write_text(then)
        assert_right(opened(folder))


def test_deletion_that_is_interrupted(
    opened: Callable[..., Index], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After any of the tables; whether the document stays away or comes back."""
    assert_right(opened(folder))
    old = (folder / "gecko.txt").read_text()
    delete = module._delete
    for after in range(3):
        for back in (False, True):
            left = [after]

            def interrupted(table: Any, documents: set[str], left: list[int] = left) -> None:
                if not left[0]:
                    raise KeyboardInterrupt
                left[0] -= 1
                delete(table, documents)

            (folder / "gecko.txt").unlink()
            monkeypatch.setattr(module, "_delete", interrupted)
            with pytest.raises(KeyboardInterrupt):
                opened(folder)
            monkeypatch.setattr(module, "_delete", delete)
            if back:
                (folder / "gecko.txt").write_text(old)
            index = opened(folder)
            assert len(index.by_words("gecko3", 5)) == back
            assert_right(index)
            (folder / "gecko.txt").write_text(old)
            opened(folder)


def test_two_processes_at_once(opened: Callable[..., Index], folder: Path, process: Process) -> None:
    runs = [process(str(folder), word) for word in ("gecko3", "gecko3", "ibex2")]
    outputs = [run.communicate() for run in runs]
    assert [run.returncode for run in runs] == [0, 0, 0], outputs
    index = opened(folder)
    for (output, _), word in zip(outputs, ("gecko3", "gecko3", "ibex2"), strict=True):
        expected = [[h.passage.document, h.passage.start, h.score, h.cosine] for h in index.search(word, 5)]
        assert [row[:2] for row in json.loads(output)] == [row[:2] for row in expected]
        assert np.allclose([row[2:] for row in json.loads(output)], [row[2:] for row in expected], atol=1e-5)
    assert_right(index)
    assert len(list(stored())) == 1


def test_an_index_made_again_by_another_is_not_removed(opened: Callable[..., Index], folder: Path) -> None:
    """The first to notice the damage makes the index again; the second only reads it anew."""
    one, two = opened(folder), opened(folder)
    right = answers(one)
    for path in one.folder.glob("*.lance/data/*"):
        path.write_bytes(b"garbage")
    assert answers(one) == right
    made = json.loads((one.folder / "about.json").read_text())["made"]
    assert answers(two) == right
    assert json.loads((one.folder / "about.json").read_text())["made"] == made


FULL = [
    OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)),
    RuntimeError("lance error: LanceError(IO): Unable to write: No space left on device (os error 28), src/io.rs:1"),
    OSError(errno.EDQUOT, os.strerror(errno.EDQUOT)),
]
REFUSED = [PermissionError(errno.EACCES, "Permission denied"), RuntimeError("LanceError(IO): Read-only file system")]
MANY = [RuntimeError("LanceError(IO): Too many open files (os error 24)")]


@pytest.mark.parametrize(
    ("error", "said"),
    [*((e, "disk is full") for e in FULL), *((e, "may not be written") for e in REFUSED), (MANY[0], "ulimit")],
    ids=str,
)
def test_what_the_system_refuses_is_said(
    opened: Callable[..., Index], folder: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, said: str
) -> None:
    index = opened(folder)
    right = answers(index)
    (folder / "new.txt").write_text("The newt1 has arrived.")

    def refuse(*_: Any, **__: Any) -> None:
        raise error

    for name in ("_add", "_embed", "_note"):
        with monkeypatch.context() as patch:
            patch.setattr(Index, name, refuse)
            with pytest.raises(LongspanError, match=said) as raised:
                opened(folder).search("newt1")
            assert_one_sentence(raised)
    # Nothing was thrown away, and once there is room all is well.
    assert index.folder.is_dir()
    assert name_of(opened(folder), opened(folder).search("newt1", 1)[0]) == "new"
    (folder / "new.txt").unlink()
    assert answers(opened(folder)) == right


def test_a_cache_that_cannot_be_written_is_named(
    opened: Callable[..., Index], folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("LONGSPAN_CACHE", str(tmp_path / "file"))
    with pytest.raises(LongspanError, match="LONGSPAN_CACHE") as error:
        opened(folder)
    assert_one_sentence(error)
    if os.geteuid():
        (tmp_path / "closed").mkdir(mode=0o500)
        monkeypatch.setenv("LONGSPAN_CACHE", str(tmp_path / "closed"))
        with pytest.raises(LongspanError, match="LONGSPAN_CACHE") as error:
            opened(folder)
        assert_one_sentence(error)


def test_a_problem_of_the_sources_is_passed_on(opened: Callable[..., Index], folder: Path) -> None:
    index = opened(folder)
    corpus = Corpus.open([folder])
    (folder / "new.txt").write_text("The newt1 has arrived.")
    changed = Corpus.open([folder])
    changed._kept.clear()
    (folder / "new.txt").write_text("The newt1 has left.")
    with pytest.raises(LongspanError, match="was changed while it was read"):
        opened(changed)
    assert answers(opened(corpus)) == answers(index)


def test_memory_that_runs_out_costs_no_index(
    opened: Callable[..., Index], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    index = opened(folder)
    monkeypatch.setattr(index, "encoder", lambda texts: (_ for _ in ()).throw(MemoryError()))
    with pytest.raises(MemoryError):
        index.search("gecko3")
    assert index.folder.is_dir()


@pytest.mark.parametrize("name", ["a b#c?d%20e", "ünï", "x" * 100])
def test_caches_of_any_name(
    opened: Callable[..., Index], folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv("LONGSPAN_CACHE", str(tmp_path / name))
    index = opened(folder)
    assert_right(index)
    assert index.folder.parent == tmp_path / name / "indexes" and index.folder.is_dir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LONGSPAN_CACHE", "relative")
    assert_right(opened(folder))


# -- longspan index list | info | drop ------------------------------------------------------------------------------


def test_stored_info_and_drop(opened: Callable[..., Index], tmp_path: Path) -> None:
    assert list(stored()) == []
    one, two = opened(write(tmp_path / "one", 2)), opened(write(tmp_path / "two", 3))
    opened(tmp_path / "one")
    items = list(stored())
    assert [item.key for item in items] == [one.folder.name, two.folder.name]  # the last used first
    assert [item.sources for item in items] == [(str(tmp_path / "one"),), (str(tmp_path / "two"),)]
    assert [(item.documents, item.passages) for item in items] == [(2, len(cut_anew(one))), (3, len(cut_anew(two)))]
    assert all(item.bytes > 1000 for item in items) and items[0].used >= items[1].used

    facts = info(one.folder.name[:8])
    assert (facts["key"], facts["documents"], facts["folder"]) == (one.folder.name, 2, str(one.folder))
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d", facts["used"])
    for call in (info, drop):
        for wrong in ("", "nothing", "../one"):
            with pytest.raises(LongspanError, match="index list") as error:
                call(wrong)
            assert_one_sentence(error)
    drop(two.folder.name[:8])
    assert [item.key for item in stored()] == [one.folder.name]
    assert not list(module.indexes_home().glob(f"{two.folder.name}*"))
    assert_right(opened(tmp_path / "two"))


def test_a_beginning_that_two_indexes_share(cache: Path) -> None:
    for key in ("abcd1", "abcd2"):
        (cache / "indexes" / key).mkdir(parents=True)
    with pytest.raises(LongspanError, match="2 indexes"):
        drop("abcd")
    drop("abcd1")
    assert [item.key for item in stored()] == ["abcd2"]
