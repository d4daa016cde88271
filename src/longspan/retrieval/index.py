"""One index over a corpus: full text (BM25) and vectors in LanceDB, fused by reciprocal rank.

The index of a set of sources lives in a folder of the user's cache and follows the sources: documents are known by
their content, so only what is new is cut into passages and added, and what is gone is deleted. One process writes at a
time (a file lock); readers need no lock. about.json says whether the last writer came to its end: what one that was
killed left half-done is put right by the next. A damaged index is made again.

Vectors are lazy. Full text is ready within a second or two a megabyte, embedding takes twenty times as long. On the
development questions BM25 alone has a right passage among its first 64 in 96 %, and vectors find the rest. So a corpus
of up to `EAGER_TOKENS` is embedded whole at its first question (about 20 seconds on two cores); of a larger one a
question embeds only what BM25 proposes, and the vectors are kept. `longspan index build --vectors` embeds any corpus.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np

from longspan.allocator import give_back
from longspan.corpus import Corpus, Document, Passage, passages
from longspan.errors import LongspanError
from longspan.paths import cache_home
from longspan.retrieval.encoder import DIMENSIONS, Encoder, Vectors
from longspan.surrogates import replace_surrogates

CountTokens = Callable[[list[str]], list[int]]
Progress = Callable[[str, int, int], None]

KEPT_VERSIONS = timedelta(minutes=10)  # of a table, for those who are still reading them
FORMAT = 2  # of the stored index; another number means: make it again
PASSAGE_TOKENS = 256
CANDIDATES = 64  # taken from each of BM25 and vectors
RRF_K = 60  # Cormack et al. 2009, the constant of reciprocal rank fusion
EAGER_TOKENS = 400_000
EMBEDDED_TOGETHER = 256  # passages after which their vectors are stored
FLUSH_CHARACTERS = 3_000_000  # passages are written in batches of about this much text
RELEASED_BYTES = 50_000_000  # a larger text does not stay in memory while its words are indexed, which takes as much
COMPACTED_EVERY = 32  # times that vectors are added: each makes a file of its own, and many files are slow to search


@dataclass(frozen=True, slots=True)
class Hit:
    """A passage found for a question. `score` is the fused one; `bm25` is None where no word of the question stands."""

    passage: Passage
    score: float
    bm25: float | None
    cosine: float


def indexes_home() -> Path:
    return cache_home() / "indexes"


@dataclass
class Index:
    """The index of one corpus. Make it with `Index.open`."""

    folder: Path
    corpus: Corpus
    count_tokens: CountTokens
    encoder: Encoder
    budget: int = PASSAGE_TOKENS
    progress: Progress | None = None
    _db: Any = field(default=None, repr=False)
    _known: dict[str, Any] = field(default_factory=dict, repr=False)  # about.json as of the last update

    @classmethod
    def open(
        cls,
        corpus: Corpus,
        count_tokens: CountTokens,
        *,
        tokenizer: str,
        encoder: Encoder | None = None,
        budget: int = PASSAGE_TOKENS,
        progress: Progress | None = None,
    ) -> Index:
        """Open the corpus's index and bring it up to date; make it where there is none or it is damaged.

        `tokenizer` names the tokenizer behind `count_tokens`: passages cut by another one, or embedded by another
        encoder, are another index.
        """
        encoder = encoder or Encoder()
        # Any callable may stand in for an Encoder.
        kind = [getattr(encoder, "name", type(encoder).__name__), getattr(encoder, "dimensions", DIMENSIONS)]
        key = json.dumps([corpus.key, tokenizer, budget, *kind]).encode()  # ASCII, whatever the names hold
        folder = indexes_home() / hashlib.sha256(key).hexdigest()[:16]
        index = cls(folder, corpus, count_tokens, encoder, budget, progress)
        index._guard(index._update)
        return index

    # -- keeping the index -------------------------------------------------------------------------------------

    def _guard(self, work: Callable[[], Any]) -> Any:
        """Run `work`; when the stored index turns out to be damaged, make it again and run `work` once more."""
        attempts = 0
        while True:
            attempts += 1
            try:
                if attempts > 1:
                    self._update()
                return work()
            except (LongspanError, MemoryError):
                raise
            except Exception as error:  # LanceDB raises many kinds for a damaged store
                _raise_if_refused(error, self.folder)
                if attempts == 3:
                    reason = (str(error).splitlines() or [type(error).__name__])[0][:300]
                    raise LongspanError(
                        f"The index in {self.folder} cannot be used or made again ({reason}); "
                        "remove it with `longspan index drop` and try once more."
                    ) from error
            with self._locked():
                # Where another process has made it again meanwhile, that is what `work` stumbled over.
                if _about(self.folder).get("made") == self._known.get("made"):
                    shutil.rmtree(self.folder, ignore_errors=True)
            self._db = None

    @contextmanager
    def _locked(self) -> Iterator[None]:
        from filelock import FileLock

        lock = FileLock(self.folder.with_suffix(".lock"))
        try:
            self.folder.parent.mkdir(parents=True, exist_ok=True)
            lock.acquire()
        except OSError as error:
            _raise_if_refused(error, self.folder)
            raise LongspanError(
                f"Cannot make the index folder {self.folder.parent}: {error.strerror or error}; "
                "set LONGSPAN_CACHE to a folder that can be written."
            ) from error
        try:
            yield
        finally:
            lock.release()

    def _connect(self) -> Any:
        import lancedb

        if self._db is None:
            self._db = lancedb.connect(self.folder)
        return self._db

    def _table(self, name: str) -> Any:
        """The named table as it is now."""
        return self._connect().open_table(name)

    def _make_tables(self) -> None:
        import pyarrow as pa

        dimensions = getattr(self.encoder, "dimensions", DIMENSIONS)
        schemas = {
            "documents": [("document", pa.string()), ("name", pa.string()), ("passages", pa.int64())],
            "passages": [
                ("key", pa.string()),
                ("document", pa.string()),
                ("start", pa.int64()),
                ("end", pa.int64()),
                ("line_start", pa.int64()),
                ("line_end", pa.int64()),
                ("tokens", pa.int32()),
                ("page", pa.int32()),
                ("heading", pa.string()),
                ("text", pa.string()),
            ],
            "vectors": [
                ("key", pa.string()),
                ("document", pa.string()),
                ("vector", pa.list_(pa.float32(), dimensions)),
            ],
        }
        for name, schema in schemas.items():
            self._connect().create_table(name, schema=pa.schema(schema), exist_ok=True)

    def _update(self) -> None:
        wanted = {entry.id for entry in self.corpus.entries}
        with self._locked():
            about = _about(self.folder)
            if about.get("format") != FORMAT:
                shutil.rmtree(self.folder, ignore_errors=True)
                self._db = None
                self.folder.mkdir(parents=True)
                about = {"format": FORMAT, "made": uuid.uuid4().hex, "whole": False}
            self._known = about
            if not about["whole"]:
                self._make_tables()
            tables = [self._table(name) for name in ("documents", "passages", "vectors")]
            documents, table, _ = tables
            have = set(_column(documents, "document"))
            if have != wanted or not about["whole"]:
                self._note(whole=False, documents=len(have), passages=table.count_rows())
                for stored in tables:
                    _delete(stored, set(_column(stored, "document")) - (have & wanted))
                self._add([entry.id for entry in self.corpus.entries if entry.id not in have], documents, table)
                if self.corpus.size > RELEASED_BYTES:
                    self.corpus.release()
                    give_back()
                self._tell("indexing words", 0, 0)
                if table.list_indices():
                    for stored in tables:
                        stored.optimize(cleanup_older_than=KEPT_VERSIONS)
                elif table.count_rows():
                    _index_words(table)
                self._note(tokens=sum(_column(table, "tokens")), versions=[documents.version, table.version])
                give_back()
            if self._known["versions"] != [documents.version, table.version]:
                raise ValueError("a table lacks its last version")  # its older ones do not belong together
            self._note(whole=True, documents=len(wanted), passages=table.count_rows())

    def _note(self, **facts: Any) -> None:
        """Keep in about.json what is known of the index."""
        sources = [replace_surrogates(source) for source in self.corpus.sources]
        self._known |= {"sources": sources, "used": time.time(), **facts}
        part = self.folder / "about.json.part"
        part.write_text(json.dumps(self._known), encoding="utf-8")
        part.replace(self.folder / "about.json")  # whole or not at all

    def _add(self, keys: Sequence[str], documents: Any, table: Any) -> None:
        rows: list[dict[str, Any]] = []
        finished: list[dict[str, Any]] = []
        characters = 0

        def flush() -> None:
            nonlocal characters
            if rows:
                table.add(rows)
            if finished:  # only after their passages are safe
                documents.add(finished)
            rows.clear()
            finished.clear()
            if characters >= FLUSH_CHARACTERS:
                give_back()
            characters = 0

        for number, key in enumerate(keys):
            self._tell("reading", number, len(keys))
            document = self.corpus.document(key)
            count = 0
            for passage in passages(document, self.count_tokens, self.budget):
                row = _row(document, passage)
                rows.append(row)
                count += 1
                characters += len(row["text"])
                if characters >= FLUSH_CHARACTERS:
                    flush()
            finished.append({"document": key, "name": replace_surrogates(document.name), "passages": count})
        flush()
        self._tell("reading", len(keys), len(keys))

    def _tell(self, what: str, done: int, total: int) -> None:
        if self.progress:
            self.progress(what, done, total)

    # -- searching ----------------------------------------------------------------------------------------------

    def search(self, query: str, k: int = 32) -> list[Hit]:
        """The best `k` passages by reciprocal rank fusion of BM25 and vectors, best first."""
        return list(self._guard(lambda: self._search(query, k)))

    def _search(self, query: str, k: int) -> list[Hit]:
        by_words = self.by_words(query, CANDIDATES)
        if self._small():
            self._embed_missing()
        vector = self.encoder([query])[0]
        near = self._near(vector, by_words)
        score: dict[str, float] = {}
        words = {row["key"]: float(row["_score"]) for row in by_words}
        for ranking in (words, near):
            for rank, key in enumerate(sorted(ranking, key=lambda key: -ranking[key])):
                score[key] = score.get(key, 0.0) + 1.0 / (RRF_K + rank + 1)
        best = sorted(score, key=lambda key: -score[key])[:k]
        rows = {row["key"]: row for row in by_words}
        absent = [key for key in best if key not in rows]
        if absent:
            rows |= {row["key"]: row for row in self._rows(absent)}
        far = self._vectors([key for key in best if key not in near])
        near |= {key: float(vector @ value) for key, value in far.items()}
        mine = {entry.id for entry in self.corpus.entries}  # another process may have put in what came later
        return [
            Hit(_passage(rows[key]), score[key], words.get(key), near[key])
            for key in best
            if key in rows and rows[key]["document"] in mine
        ]

    def by_words(self, query: str, k: int) -> list[dict[str, Any]]:
        """BM25's first `k` passages as table rows, any of the query's words sufficing."""
        table = self._table("passages")
        clean = replace_surrogates(query).strip()
        if not clean or not table.count_rows():
            return []
        from lancedb.query import MatchQuery

        return list(table.search(MatchQuery(clean, "text"), query_type="fts").limit(k).to_list())

    def _near(self, vector: Any, by_words: list[dict[str, Any]]) -> dict[str, float]:
        """Cosine of the query with its nearest passages: among all when all are embedded, else among BM25's."""
        stored = self._table("vectors")
        total = self._table("passages").count_rows()
        if stored.count_rows() >= total:
            rows = stored.search(vector).distance_type("dot").limit(CANDIDATES).to_list() if total else []
            return {row["key"]: 1.0 - float(row["_distance"]) for row in rows}
        keys = [row["key"] for row in by_words]
        found = self._vectors(keys)
        new = [row for row in by_words if row["key"] not in found]
        if new:
            found |= self._embed(new)
        return {key: float(vector @ value) for key, value in found.items()}

    def _vectors(self, keys: list[str]) -> dict[str, Any]:
        if not keys:
            return {}
        rows = self._table("vectors").search().where(_among("key", keys)).limit(len(keys)).to_list()
        return {row["key"]: np.asarray(row["vector"], dtype=np.float32) for row in rows}

    def _rows(self, keys: list[str]) -> list[dict[str, Any]]:
        return list(self._table("passages").search().where(_among("key", keys)).limit(len(keys)).to_list())

    def _embed(self, rows: list[dict[str, Any]]) -> dict[str, Any]:
        """Embed passages and keep the vectors."""
        vectors: Vectors = self.encoder([row["text"] for row in rows])
        found = {row["key"]: vector for row, vector in zip(rows, vectors, strict=True)}
        with self._locked():
            table = self._table("vectors")
            # Meanwhile another process may have embedded them too, or deleted them.
            wanted = set(self._keys("passages", list(found))) - set(self._keys("vectors", list(found)))
            new = [
                {"key": row["key"], "document": row["document"], "vector": found[row["key"]]}
                for row in rows
                if row["key"] in wanted
            ]
            if new:
                table.add(new)
                if table.version % COMPACTED_EVERY == 0:
                    table.optimize(cleanup_older_than=KEPT_VERSIONS)
        return found

    def _keys(self, table: str, among: list[str]) -> list[str]:
        found = self._table(table).search().select(["key"]).where(_among("key", among)).limit(len(among))
        return list(found.to_arrow()["key"].to_pylist())

    def embed_all(self) -> int:
        """Embed every passage that has no vector yet; what is done is kept when interrupted. Returns how many."""
        return int(self._guard(self._embed_missing))

    def vectors(self) -> tuple[list[Passage], Vectors]:
        """All passages with their vectors, float32 [passages, dimensions]; what has none yet is embedded."""
        return self._guard(self._all_vectors)  # type: ignore[no-any-return]

    def _all_vectors(self) -> tuple[list[Passage], Vectors]:
        self._embed_missing()
        stored = self._table("vectors").search().select(["key", "vector"]).limit(None).to_arrow()
        column = stored["vector"].combine_chunks()
        matrix = np.asarray(column.flatten(), dtype=np.float32).reshape(len(column), -1)
        row_of = {key: row for row, key in enumerate(stored["key"].to_pylist())}
        columns = ["key", "document", "start", "end", "line_start", "line_end", "tokens", "heading", "page"]
        rows = self._table("passages").search().select(columns).limit(None).to_list()
        mine = {entry.id for entry in self.corpus.entries}
        rows = [row for row in rows if row["key"] in row_of and row["document"] in mine]
        rows.sort(key=lambda row: (row["document"], row["start"]))
        return [_passage(row) for row in rows], matrix[[row_of[row["key"]] for row in rows]]

    def _embed_missing(self) -> int:
        table, vectors = self._table("passages"), self._table("vectors")
        if vectors.count_rows() >= table.count_rows():
            return 0
        done = set(_column(vectors, "key"))
        left = [key for key in _column(table, "key") if key not in done]
        for start in range(0, len(left), EMBEDDED_TOGETHER):
            self._tell("embedding", start, len(left))
            self._embed(self._rows(left[start : start + EMBEDDED_TOGETHER]))
        self._tell("embedding", len(left), len(left))
        return len(left)

    def _small(self) -> bool:
        """Whether the corpus can be embedded while a question waits."""
        return bool(self._known["tokens"] <= EAGER_TOKENS)


def _column(table: Any, name: str) -> list[Any]:
    return list(table.search().select([name]).limit(None).to_arrow()[name].to_pylist())


def _index_words(table: Any) -> None:
    from lancedb.index import FTS

    # "icu/split" also finds words in scripts without spaces; on English it equals the simple tokenizer.
    words = FTS(base_tokenizer="icu/split", stem=True, remove_stop_words=True, ascii_folding=True)
    table.create_index("text", config=words)


def _row(document: Document, passage: Passage) -> dict[str, Any]:
    text = document.text[passage.start : passage.end]
    return {
        "key": f"{passage.document}:{passage.start}",
        "document": passage.document,
        "start": passage.start,
        "end": passage.end,
        "line_start": passage.line_start,
        "line_end": passage.line_end,
        "tokens": passage.tokens,
        "page": passage.page,
        "heading": replace_surrogates(passage.heading),
        # A passage is found also by the headings it stands under.
        "text": replace_surrogates(f"{passage.heading}\n{text}" if passage.heading else text),
    }


def _passage(row: dict[str, Any]) -> Passage:
    return Passage(
        row["document"],
        row["start"],
        row["end"],
        row["line_start"],
        row["line_end"],
        row["tokens"],
        row["heading"],
        row["page"],
    )


def _among(column: str, values: Sequence[str]) -> str:
    return f"{column} IN ({', '.join(repr(value) for value in values)})"  # keys are hexadecimal and digits


def _delete(table: Any, documents: set[str]) -> None:
    keys = sorted(documents)
    for start in range(0, len(keys), 500):
        table.delete(_among("document", keys[start : start + 500]))


def _raise_if_refused(error: Exception, folder: Path) -> None:
    """Say what the system refuses: such an index is not damaged, and making it again would not help.

    LanceDB passes the system's own words on in errors of its kinds.
    """

    def told(*codes: int) -> bool:
        return getattr(error, "errno", None) in codes or any(os.strerror(code) in str(error) for code in codes)

    if told(errno.ENOSPC, errno.EDQUOT):
        raise LongspanError(
            f"The disk is full: the index in {folder} could not be written; "
            "free some space (`longspan index drop` removes indexes) or set LONGSPAN_CACHE to another disk."
        ) from error
    if told(errno.EACCES, errno.EPERM, errno.EROFS):
        raise LongspanError(
            f"The index in {folder} may not be written; set LONGSPAN_CACHE to a folder that can be written."
        ) from error
    if told(errno.EMFILE, errno.ENFILE):
        raise LongspanError(
            f"Too many files are open to use the index in {folder}; raise the limit with `ulimit -n`."
        ) from error


# -- longspan index list | info | drop ------------------------------------------------------------------------------


def _about(folder: Path) -> dict[str, Any]:
    try:
        about = json.loads((folder / "about.json").read_text())
    except (OSError, ValueError):
        return {}
    return about if isinstance(about, dict) else {}


@dataclass(frozen=True, slots=True)
class Stored:
    """What `longspan index list` shows of an index; `bytes` on disk, `used` in seconds since 1970."""

    key: str
    sources: tuple[str, ...]
    documents: int
    passages: int
    bytes: int
    used: float


def stored() -> Iterator[Stored]:
    """The indexes in the cache, most recently used first."""
    found = []
    for folder in indexes_home().glob("*/"):
        about = _about(folder)
        try:
            sources, used = tuple(map(str, about["sources"])), float(about["used"])
            counts = int(about["documents"]), int(about["passages"])
        except (KeyError, TypeError, ValueError):
            sources, used, counts = ("(damaged)",), 0.0, (0, 0)
        found.append(Stored(folder.name, sources, *counts, _bytes(folder), used))
    yield from sorted(found, key=lambda item: -item.used)


def _bytes(folder: Path) -> int:
    size = 0
    for file in folder.rglob("*"):
        with suppress(OSError):  # another process may remove it
            size += file.stat().st_size if file.is_file() else 0
    return size


def _matching(key: str) -> Stored:
    found = [item for item in stored() if key and item.key.startswith(key)]
    if len(found) != 1:
        what = f"{len(found)} indexes in the cache match" if found else "No index in the cache matches"
        raise LongspanError(f"{what} {key!r}: `longspan index list` shows their keys.")
    return found[0]


def info(key: str) -> dict[str, Any]:
    """What is known of one index, by its key or the key's unambiguous beginning."""
    item = _matching(key)
    facts = {name: getattr(item, name) for name in item.__slots__}
    facts["used"] = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(item.used))
    return facts | {"folder": str(indexes_home() / item.key)}


def drop(key: str) -> None:
    """Remove one index by its key (or the key's unambiguous beginning)."""
    from filelock import FileLock

    folder = indexes_home() / _matching(key).key
    try:
        with FileLock(folder.with_suffix(".lock")):
            shutil.rmtree(folder)
        folder.with_suffix(".lock").unlink(missing_ok=True)
    except OSError as error:
        raise LongspanError(f"Cannot remove the index in {folder}: {error.strerror or error}.") from error
